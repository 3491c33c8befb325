//! `protocol:` of a datasource, and which keys mean nothing in it.
//!
//! A key that one protocol knows and another cannot honour is an error there, with its reason:
//! whoever wrote it counts on what it says.

use super::source::{self, Spanned, TargetServer};
use super::{ServerAddress, authentication, tls};
use crate::name;
use crate::policy::diagnostic::{Diagnostic, Span};
use crate::policy::yaml::Problems;
use crate::session::Alpn;
use crate::tls::UpstreamTls;

/// What a datasource's clients and servers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// PostgreSQL, protocol 3.
    Postgresql,
    /// Redis, RESP2 and RESP3.
    Redis,
}

impl Protocol {
    /// The word in the configuration, in rules and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgresql => name::Protocol::POSTGRESQL.name(),
            Self::Redis => name::Protocol::REDIS.name(),
        }
    }

    /// Whether its peers name it when TLS begins.
    pub(super) fn alpn(self) -> Alpn {
        match self {
            Self::Postgresql => Alpn::Agreed,
            Self::Redis => Alpn::Unspoken,
        }
    }
}

/// Refuses what this datasource says that its protocol cannot honour.
pub(super) fn refuse_foreign(written: &source::Datasource, problems: &mut Problems) {
    match written.protocol {
        Some(Protocol::Redis) => refuse_foreign_to_redis(written, problems),
        Some(Protocol::Postgresql) => {
            if let Some(sentinel) = &written.sentinel {
                problems.push(
                    Diagnostic::error(&sentinel.at, "Sentinels know Redis servers only")
                        .with_help("write the servers: `upstream: [\"HOST:PORT\", …]`"),
                );
            }
        }
        None => {}
    }
}

fn refuse_foreign_to_redis(written: &source::Datasource, problems: &mut Problems) {
    let mut refuse = |at: &Span, message: &str, help: &str| {
        problems.push(Diagnostic::error(at, message).with_help(help));
    };
    if let Some(catalog) = &written.catalog {
        refuse(&catalog.at, "a Redis server has no catalog to read", "take `catalog` out");
    }
    if let Some(Spanned { value, at }) = &written.target
        && *value != TargetServer::Any
    {
        let help = "list the servers in the order in which they are to be tried";
        refuse(at, "Redis servers are not asked whether they are primary or replica", help);
    }
    if let (Some(sentinel), None) = (&written.sentinel, &written.upstream_tls) {
        let help = "`upstream_tls: {mode: verify-full, …}`, for Sentinels and servers, or \
                    `{mode: disable}`";
        refuse(&sentinel.at, "where Sentinels lead is not known: say how it is met", help);
    }
    for at in written.limits.about_cancelling() {
        let help = "take it out: a command over its `statement_timeout` ends its session";
        refuse(at, "a Redis server cannot be told to cancel a command", help);
    }
    authentication::refuse_foreign(&written.logins, problems);
}

/// Refuses to send a password of ours over a network as it is; PostgreSQL gets a proof of it.
pub(super) fn refuse_bare_password(
    at: &Span,
    (protocol, servers, leg): (Protocol, &[ServerAddress], &UpstreamTls),
    problems: &mut Problems,
) {
    let sent_as_it_is = match protocol {
        Protocol::Redis => true,
        Protocol::Postgresql => false,
    };
    let in_plain_text = match leg {
        UpstreamTls::Plain => true,
        UpstreamTls::Preferred(_) | UpstreamTls::Required(_) | UpstreamTls::AtOnce(_) => false,
    };
    if sent_as_it_is && in_plain_text && !servers.iter().all(|server| tls::stays_here(&server.host))
    {
        problems.push(
            Diagnostic::error(at, "a password would go to another machine in clear text")
                .with_help("use `upstream_tls: {mode: verify-full}`, or an account without one"),
        );
    }
}
