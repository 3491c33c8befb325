//! `tls:` and `upstream_tls:`: certificates are loaded here, so that what is wrong with them is
//! found before anything listens.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::{resolve, warn_if_world_readable};
use super::listen::ListenAt;
use super::source::{self, Spanned, TlsMode, UpstreamTlsMode};
use super::{Protocol, ServerAddress};
use crate::policy::diagnostic::{Diagnostic, Span};
use crate::policy::yaml::Problems;
use crate::tls::{
    self, Authorities, ClientCertificates, ClientLeg, Part, Problem, ServerLeg, Source,
    UpstreamTls, Verification, Watched,
};

/// The client leg's certificate with what belongs to it; `None` when TLS is off or a problem was
/// found.
pub(super) fn client_leg(
    written: source::Tls,
    (base, protocol): (&Path, Protocol),
    problems: &mut Problems,
) -> Option<Arc<Watched<ClientLeg>>> {
    let source::Tls { at, mode, certificate, key, client_ca, min_version } = written;
    let files = Files { at, certificate, key, authorities: client_ca };
    if mode == TlsMode::Off {
        files.warn_unused(problems);
        return None;
    }
    let Some((certificate, key)) = files.pair(base, problems) else {
        if files.certificate.is_none() && files.key.is_none() {
            files.missing(
                "TLS needs `certificate` and `key`",
                "give both, or `mode: off`",
                problems,
            );
        }
        return None;
    };
    let authorities = files.authorities.as_ref().map(|written| resolve(base, &written.value));
    let clients = match (mode, authorities) {
        (TlsMode::Mutual, Some(authorities)) => ClientCertificates::Needed(authorities),
        (TlsMode::Mutual, None) => {
            let help =
                "name the file with the certificates of the authorities that sign the clients'";
            files.missing("`mutual` needs `client_ca`", help, problems);
            return None;
        }
        (TlsMode::Off | TlsMode::Allowed | TlsMode::Required, Some(authorities)) => {
            ClientCertificates::Optional(authorities)
        }
        (TlsMode::Off | TlsMode::Allowed | TlsMode::Required, None) => ClientCertificates::Unasked,
    };
    let min_version = min_version.unwrap_or_default();
    let alpn = protocol.alpn();
    files.watch(ClientLeg { certificate, key, clients, min_version, alpn }, problems)
}

/// Without `tls:`, what other machines can reach would be served in plain text.
pub(super) fn refuse_exposed(listen: &ListenAt, at: &Span, problems: &mut Problems) {
    if listen.is_local() {
        return;
    }
    let message = format!("`{listen}` would serve other machines in plain text");
    problems.push(Diagnostic::error(at, message).with_help(
        "give the datasource `tls: {mode: required, certificate: FILE, key: FILE}`, or choose \
         plain text with `tls: {mode: off}`",
    ));
}

/// What `upstream_tls:` asks for; `None` when a problem was found.
pub(super) fn server_leg(
    written: source::UpstreamTls,
    (base, protocol): (&Path, Protocol),
    problems: &mut Problems,
) -> Option<UpstreamTls> {
    let source::UpstreamTls { at, mode, ca, certificate, key } = written;
    let files = Files { at, certificate, key, authorities: ca };
    let mode_at = mode.as_ref().map_or_else(|| files.at.clone(), |mode| mode.at.clone());
    let mode = mode.map_or(UpstreamTlsMode::VerifyFull, |mode| mode.value);
    if mode == UpstreamTlsMode::Disable {
        files.warn_unused(problems);
        return Some(UpstreamTls::Plain);
    }
    let own = files.pair(base, problems);
    if own.is_none() && (files.certificate.is_some() || files.key.is_some()) {
        return None;
    }
    let verification = verification(mode, &mode_at, files.authorities(base), problems)?;
    if protocol == Protocol::Redis {
        fits_redis(mode, &verification, &mode_at, problems)?;
    }
    let watched = files.watch(ServerLeg { verification, own, alpn: protocol.alpn() }, problems)?;
    Some(match mode {
        UpstreamTlsMode::Prefer => UpstreamTls::Preferred(watched),
        UpstreamTlsMode::Disable
        | UpstreamTlsMode::Require
        | UpstreamTlsMode::VerifyCa
        | UpstreamTlsMode::VerifyFull => encrypted(protocol, watched),
    })
}

/// Without `upstream_tls:`: plain text where nothing leaves the machine, else everything verified.
pub(super) fn default_server_leg(
    servers: &[ServerAddress],
    (at, protocol): (&Span, Protocol),
    problems: &mut Problems,
) -> Option<UpstreamTls> {
    if servers.iter().all(|server| stays_here(&server.host)) {
        return Some(UpstreamTls::Plain);
    }
    let files = Files { at: at.clone(), certificate: None, key: None, authorities: None };
    let verification = Verification::SignedAndNamed(Authorities::System);
    let leg = ServerLeg { verification, own: None, alpn: protocol.alpn() };
    files.watch(leg, problems).map(|watched| encrypted(protocol, watched))
}

/// TLS and nothing else, begun as the protocol begins it.
fn encrypted(protocol: Protocol, watched: Arc<Watched<ServerLeg>>) -> UpstreamTls {
    match protocol {
        Protocol::Postgresql => UpstreamTls::Required(watched),
        Protocol::Redis => UpstreamTls::AtOnce(watched),
    }
}

/// What a Redis server can be met with: it is not asked for TLS, and it gets passwords as they are.
fn fits_redis(
    mode: UpstreamTlsMode,
    verification: &Verification,
    at: &Span,
    problems: &mut Problems,
) -> Option<()> {
    let message = match (mode, verification) {
        (UpstreamTlsMode::Prefer, _) => {
            "a Redis server is not asked whether it has TLS, so there is nothing to prefer"
        }
        (_, Verification::None) => {
            "passwords go to a Redis server in clear text, and this verifies nobody"
        }
        (_, Verification::Signed(_) | Verification::SignedAndNamed(_)) => return Some(()),
    };
    problems.push(Diagnostic::error(at, message).with_help(
        "use `mode: verify-full`, or `verify-ca` with `ca: FILE`; `disable` chooses plain text",
    ));
    None
}

/// The rules of libpq: authorities make `require` verify, and those of the system, who sign for
/// everybody, are good only together with the name.
fn verification(
    mode: UpstreamTlsMode,
    at: &Span,
    authorities: Option<Authorities>,
    problems: &mut Problems,
) -> Option<Verification> {
    let (message, help) = match (mode, authorities) {
        (UpstreamTlsMode::VerifyFull, authorities) => {
            let authorities = authorities.unwrap_or(Authorities::System);
            return Some(Verification::SignedAndNamed(authorities));
        }
        (
            UpstreamTlsMode::VerifyCa | UpstreamTlsMode::Require,
            Some(file @ Authorities::File(_)),
        ) => {
            return Some(Verification::Signed(file));
        }
        (UpstreamTlsMode::Require | UpstreamTlsMode::Prefer | UpstreamTlsMode::Disable, None) => {
            return Some(Verification::None);
        }
        (UpstreamTlsMode::VerifyCa, None) => {
            ("`verify-ca` needs `ca`", "name the file that holds the authority's certificate")
        }
        (UpstreamTlsMode::Prefer | UpstreamTlsMode::Disable, Some(_)) => {
            ("`prefer` verifies nothing, so `ca` has no effect", "use `mode: verify-full`")
        }
        (UpstreamTlsMode::VerifyCa | UpstreamTlsMode::Require, Some(Authorities::System)) => (
            "the system's authorities sign for everybody: without the name they prove nothing",
            "use `mode: verify-full`, or name a `ca` file",
        ),
    };
    problems.push(Diagnostic::error(at, message).with_help(help));
    None
}

/// Whether bytes to this host stay on this machine.
pub(super) fn stays_here(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// The files of one leg as written.
struct Files {
    at: Span,
    certificate: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
    authorities: Option<Spanned<String>>,
}

impl Files {
    /// Certificate and key, if both were given; one alone is a problem.
    fn pair(&self, base: &Path, problems: &mut Problems) -> Option<(PathBuf, PathBuf)> {
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let (certificate, key_path) =
                    (resolve(base, &certificate.value), resolve(base, &key.value));
                warn_if_world_readable(&key_path, &key.at, problems);
                self.warn_if_out_of_date(&certificate, problems);
                Some((certificate, key_path))
            }
            (None, None) => None,
            (Some(_), None) => {
                self.missing("`certificate` needs `key`", "give both or neither", problems);
                None
            }
            (None, Some(_)) => {
                self.missing("`key` needs `certificate`", "give both or neither", problems);
                None
            }
        }
    }

    fn authorities(&self, base: &Path) -> Option<Authorities> {
        self.authorities.as_ref().map(|written| match written.value.as_str() {
            "system" => Authorities::System,
            file => Authorities::File(resolve(base, file)),
        })
    }

    /// Builds it for the first time; what is wrong is a problem at the place of its file.
    fn watch<S: Source>(&self, source: S, problems: &mut Problems) -> Option<Arc<Watched<S>>> {
        match Watched::first(source) {
            Ok(watched) => Some(Arc::new(watched)),
            Err(Problem { part, message, help }) => {
                let written = match part {
                    Part::Certificate => &self.certificate,
                    Part::Key => &self.key,
                    Part::Authorities => &self.authorities,
                };
                let at = written.as_ref().map_or(&self.at, |written| &written.at);
                problems.push(Diagnostic::error(at, message).with_help(help));
                None
            }
        }
    }

    fn missing(&self, message: &str, help: &str, problems: &mut Problems) {
        problems.push(Diagnostic::error(&self.at, message).with_help(help));
    }

    fn warn_if_out_of_date(&self, certificate: &Path, problems: &mut Problems) {
        let Some(written) = &self.certificate else { return };
        if let Some(reason) = tls::out_of_date(certificate) {
            let message = format!("`{}`: {reason}", certificate.display());
            problems.push(
                Diagnostic::warning(&written.at, message)
                    .with_help("replace the file: it is read again without a restart"),
            );
        }
    }

    /// Files of a mode that uses none: somebody may believe they matter.
    fn warn_unused(&self, problems: &mut Problems) {
        for written in [&self.certificate, &self.key, &self.authorities].into_iter().flatten() {
            let message = format!("`{}` is not used in this mode", written.value);
            problems.push(
                Diagnostic::warning(&written.at, message)
                    .with_help("choose another mode, or take the line out"),
            );
        }
    }
}
