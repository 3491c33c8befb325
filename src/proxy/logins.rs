//! Answering what a session asks about its login.

use std::pin::Pin;
use std::sync::Arc;

use super::drive::Connection;
use super::end::End;
use super::leg::Stream;
use super::own_login::OwnLogin;
use super::shared::Datasource;
use super::upstream::Dial;
use crate::auth::query::{AskServer, AuthQuery};
use crate::session::auth::{AccountFailure, Report, Request, Secret};
use crate::session::{Answer, Effect, EndCause, Session};

/// Asks over a connection as a session's.
struct Asker<'a, D>(&'a Datasource<D>);

impl<D: Dial> AskServer for Asker<'_, D> {
    fn ask<'a>(
        &'a self,
        query: &'a AuthQuery,
        user: &'a str,
    ) -> Pin<Box<dyn Future<Output = anyhow::Result<Option<String>>> + Send + 'a>> {
        Box::pin(async move {
            let password = query.password.read().await?;
            let login = OwnLogin {
                user: &query.user,
                password: password.as_ref().map(Secret::bytes),
                application: "portcullis auth_query",
            };
            login.look_up(&self.0.dial, &query.database, (&query.text, user)).await
        })
    }
}

impl<S: Session, C: Stream, D: Dial> Connection<S, C, D> {
    pub(super) async fn authenticate(&mut self, request: Request) -> Result<(), End> {
        let datasource = Arc::clone(&self.datasource);
        let asker = Asker(&*datasource);
        let now = datasource.shared.clock.now();
        let answered = Box::pin(datasource.auth.answer(request, now, &asker));
        // One deadline for the whole login, however many questions it asks.
        match tokio::time::timeout_at(self.login_deadline(), answered).await {
            Ok(reply) => self.resume(Answer::Authenticate(Box::new(reply))).await,
            Err(_elapsed) => Err(self.finish(EndCause::LoginTimeout)),
        }
    }

    /// Takes note of every attempt that was reported, ahead of whatever else was asked for.
    pub(super) fn note_logins(&mut self) {
        let Self { out, datasource, .. } = self;
        for effect in out.effects.extract_if(.., |effect| matches!(effect, Effect::ReportLogin(_)))
        {
            if let Effect::ReportLogin(report) = effect {
                datasource.auth.note(&report, datasource.shared.clock.now());
            }
        }
    }

    pub(super) fn note_login(&self, report: &Report) {
        self.datasource.auth.note(report, self.datasource.shared.clock.now());
    }

    pub(super) fn account_failed(&self, failure: &AccountFailure) {
        let AccountFailure { account, what } = failure;
        tracing::warn!(
            session = self.birth.uid,
            datasource = &*self.datasource.name,
            account,
            what,
            "the account of `upstream_login` was of no use"
        );
    }
}
