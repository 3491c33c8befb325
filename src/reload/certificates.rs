//! Certificates in use, looked at whenever rules are: replaced in place, sessions go on.

use std::sync::Arc;

use tracing::{error, info};

use super::Trigger;
use crate::admin::Status;
use crate::metrics::Metrics;
use crate::tls::{Look, LookAt};

/// The certificate files of one leg of one datasource.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// Whose.
    pub(crate) datasource: Arc<str>,
    /// The key in the configuration that names the files.
    pub(crate) leg: &'static str,
    /// The files.
    pub(crate) files: Arc<dyn LookAt>,
}

/// All of them, with what is known to be wrong.
pub(crate) struct Certificates(Vec<(Certificate, Option<String>)>);

impl Certificates {
    /// All are in use and nothing is wrong with them.
    pub(crate) fn new(certificates: Vec<Certificate>) -> Self {
        Self(certificates.into_iter().map(|certificate| (certificate, None)).collect())
    }

    /// Looks at the files; reads them, so not on a thread that serves connections.
    pub(super) fn look(&mut self, trigger: Trigger, status: &Status, metrics: &Metrics) {
        for (certificate, problem) in &mut self.0 {
            let Certificate { datasource, leg, files } = certificate;
            let mut found = files.look();
            if found == Look::Unsettled && trigger.asked_for() {
                // Whoever asks has finished writing.
                found = files.look();
            }
            match found {
                Look::Same | Look::Unsettled => continue,
                Look::Swapped => {
                    info!(datasource = &**datasource, leg, "certificates were replaced");
                    metrics.certificates_accepted();
                    *problem = None;
                }
                Look::Refused(refused) => {
                    let reason = format!("{leg}: {}; {}", refused.message, refused.help);
                    error!(
                        datasource = &**datasource,
                        reason, "certificates were refused, the old ones stay in use"
                    );
                    metrics.certificates_rejected();
                    *problem = Some(reason);
                }
            }
            status.set_certificate_problem(datasource, leg, problem.as_deref());
        }
    }

    /// What is wrong with files that are not in use for that reason.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().filter_map(|(certificate, problem)| {
            let problem = problem.as_ref()?;
            Some(format!("datasource `{}`: {problem}", certificate.datasource))
        })
    }
}
