//! Statements of the proxy's own, over a connection that was dialed as a session's is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{ChannelBinding as Binding, SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Connection, SimpleQueryMessage, SimpleQueryRow};

use super::leg::Stream;
use super::upstream::{Dial, Dialed};

/// A credential of our own.
#[derive(Clone, Copy)]
pub(super) struct OwnLogin<'a> {
    /// Account on the server.
    pub(super) user: &'a str,
    /// Password, if the server wants one.
    pub(super) password: Option<&'a [u8]>,
    /// What `pg_stat_activity` shows.
    pub(super) application: &'a str,
}

impl OwnLogin<'_> {
    /// Runs one text over a connection of its own and gives its rows.
    pub(super) async fn query<D: Dial>(
        &self,
        dial: &D,
        database: &str,
        text: &str,
    ) -> anyhow::Result<Vec<SimpleQueryRow>> {
        let dialed = dial.dial().await.context("connect")?;
        self.query_on(dialed, database, text).await
    }

    /// The same over a connection that is open already.
    pub(super) async fn query_on<S: Stream>(
        &self,
        dialed: Dialed<S>,
        database: &str,
        text: &str,
    ) -> anyhow::Result<Vec<SimpleQueryRow>> {
        // No options: a pool in front of the server may not take them, and the texts bring their own.
        let (client, connection) = self.connect(dialed, (database, "")).await?;
        tokio::select! {
            answer = client.simple_query(text) => {
                let rows = answer.map_err(told)?.into_iter().filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some(row),
                    _ => None,
                });
                Ok(rows.collect())
            }
            closed = connection => {
                closed.map_err(told)?;
                anyhow::bail!("the server closed the connection")
            }
        }
    }

    /// Runs one query with one parameter over a connection of its own and gives the first column
    /// of its row, if there is one. The parameter is bound: no text it could be ends up in the
    /// query.
    pub(super) async fn look_up<D: Dial>(
        &self,
        dial: &D,
        database: &str,
        (query, parameter): (&str, &str),
    ) -> anyhow::Result<Option<String>> {
        let dialed = dial.dial().await.context("connect")?;
        // Whatever the account or the database says, names and operators mean the system's.
        let options = "-c search_path=pg_catalog";
        let (client, connection) = self.connect(dialed, (database, options)).await?;
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&parameter, Type::TEXT)];
        tokio::select! {
            answer = client.query_typed(query, &parameters) => match &answer.map_err(told)?[..] {
                [] => Ok(None),
                [row] => row.try_get(0).context("the first column is no text"),
                _ => anyhow::bail!("more than one row for one user"),
            },
            closed = connection => {
                closed.map_err(told)?;
                anyhow::bail!("the server closed the connection")
            }
        }
    }

    async fn connect<S: Stream>(
        &self,
        dialed: Dialed<S>,
        (database, options): (&str, &str),
    ) -> anyhow::Result<(Client, Connection<S, Bound<S>>)> {
        let Dialed { stream, tls, place } = dialed;
        let mut config = Config::new();
        config.user(self.user).dbname(database).application_name(self.application);
        if !options.is_empty() {
            config.options(options);
        }
        if let Some(password) = self.password {
            config.password(password);
            // The library answers a request for clear text or MD5 over anything.
            let verified = tls.as_ref().is_some_and(|peer| peer.certificate.is_some());
            match &tls {
                _ if verified || place.is_local() => {}
                Some(_) => {
                    config.channel_binding(Binding::Require);
                }
                None => anyhow::bail!(NOT_TRUSTED),
            }
        }
        // The library is to ask for no TLS: where there is some, it has begun already.
        let ready = match tls {
            None => {
                config.ssl_mode(SslMode::Disable);
                Ready { end_point: None }
            }
            Some(peer) => {
                config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
                Ready { end_point: peer.server_end_point }
            }
        };
        config.connect_raw(stream, ready).await.map_err(told).context("connect")
    }
}

/// The server's own words: the library's message is only `db error`.
fn told(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(db) => anyhow::anyhow!("{}: {}", db.code().code(), db.message()),
        None => anyhow::Error::new(error),
    }
}

/// What the library takes for the making of TLS: it is there already.
struct Ready {
    end_point: Option<Vec<u8>>,
}

/// A stream with the channel binding of its TLS.
struct Bound<S> {
    stream: S,
    end_point: Option<Vec<u8>>,
}

impl<S: Stream> TlsConnect<S> for Ready {
    type Stream = Bound<S>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Bound<S>>>;

    fn connect(self, stream: S) -> Self::Future {
        std::future::ready(Ok(Bound { stream, end_point: self.end_point }))
    }
}

impl<S: Stream> TlsStream for Bound<S> {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.end_point {
            Some(hash) => ChannelBinding::tls_server_end_point(hash.clone()),
            None => ChannelBinding::none(),
        }
    }
}

impl<S: Stream> AsyncRead for Bound<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: Stream> AsyncWrite for Bound<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

const NOT_TRUSTED: &str = "the password is not sent to another machine in plain text; set \
    `upstream_tls: {mode: verify-full}`, or `require`, which needs SCRAM with channel binding";

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::upstream::Place;
    use super::*;
    use crate::session::{PeerCertificate, TlsPeer};

    /// What a server hears that asks for the password in clear text, somewhere else than here.
    async fn heard(tls: Option<TlsPeer>) -> Vec<u8> {
        let (ours, mut server) = tokio::io::duplex(4096);
        let login = OwnLogin { user: "app", password: Some(b"hunter2"), application: "test" };
        let asks = async move {
            // Who gives no password may be gone already.
            let _ = server.write_all(b"R\0\0\0\x08\0\0\0\x03").await;
            let mut heard = vec![0; 4096];
            let mut end = 0;
            while !heard[..end].windows(7).any(|part| part == b"hunter2") {
                match server.read(&mut heard[end..]).await.unwrap_or(0) {
                    0 => break,
                    some => end += some,
                }
            }
            heard.truncate(end);
            heard
        };
        let dialed = Dialed { stream: ours, tls, place: Place::default() };
        let (heard, outcome) = tokio::join!(asks, login.query_on(dialed, "postgres", "select 1"));
        assert!(outcome.is_err());
        heard
    }

    #[tokio::test]
    async fn the_password_is_not_given_to_whom_nobody_verified() {
        let any_certificate = TlsPeer { certificate: None, server_end_point: Some(vec![1; 32]) };
        let verified =
            TlsPeer { certificate: Some(PeerCertificate::default()), ..any_certificate.clone() };
        let gives_it = |heard: Vec<u8>| heard.windows(7).any(|part| part == b"hunter2");
        assert!(!gives_it(heard(None).await));
        assert!(!gives_it(heard(Some(any_certificate)).await));
        assert!(gives_it(heard(Some(verified)).await));
    }
}
