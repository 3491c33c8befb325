//! The server leg: we are the client.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;

use super::files::{self, Part, Problem};
use super::verify::Lenient;
use super::watched::{Contents, Source, Watched};
use super::{certificate, offered, provider};
use crate::session::{Alpn, TlsPeer};

/// How the server is met, with file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLeg {
    /// What must be true of the server's certificate.
    pub verification: Verification,
    /// Certificate chain and key that we show when asked.
    pub own: Option<(PathBuf, PathBuf)>,
    /// Whether the server is told which protocol is meant.
    pub alpn: Alpn,
}

/// Whether TLS is asked for, and what a server means that has none.
#[derive(Clone, Debug)]
pub enum UpstreamTls {
    /// Plain text.
    Plain,
    /// TLS if the server has it, plain text if it says it has not.
    Preferred(Arc<Watched<ServerLeg>>),
    /// TLS or no connection; the server is asked for it.
    Required(Arc<Watched<ServerLeg>>),
    /// TLS or no connection; a handshake is the first thing the server hears.
    AtOnce(Arc<Watched<ServerLeg>>),
}

/// What is verified of the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Nothing: encrypted against those who only listen.
    None,
    /// An authority signed it, whoever it was made out to.
    Signed(Authorities),
    /// An authority signed it and it is made out to the configured host.
    SignedAndNamed(Authorities),
}

/// Who may sign the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorities {
    /// Those of the operating system.
    System,
    /// Those in a file.
    File(PathBuf),
}

/// What handshakes with the server work with.
#[derive(Clone, Debug)]
pub struct Connector {
    /// For the TLS library.
    pub config: Arc<ClientConfig>,
    /// Certificates were verified, so that their names may be told.
    verified: bool,
}

impl Connector {
    /// What a handshake established about the server.
    pub fn peer(&self, certificates: Option<&[CertificateDer<'_>]>) -> TlsPeer {
        let own = certificates.and_then(<[_]>::first);
        TlsPeer {
            certificate: own.filter(|_| self.verified).map(certificate::names),
            server_end_point: own.and_then(certificate::end_point),
        }
    }
}

impl Verification {
    fn authorities(&self) -> Option<&Authorities> {
        match self {
            Self::None => None,
            Self::Signed(authorities) | Self::SignedAndNamed(authorities) => Some(authorities),
        }
    }
}

impl Source for ServerLeg {
    type Built = Connector;

    fn read(&self) -> Result<Contents, Problem> {
        let mut contents = Contents::default();
        if let Some((certificate, key)) = &self.own {
            contents.add(Part::Certificate, certificate)?;
            contents.add(Part::Key, key)?;
        }
        match self.verification.authorities() {
            Some(Authorities::File(path)) => contents.add(Part::Authorities, path)?,
            // Read from wherever the system keeps them, when they are needed.
            Some(Authorities::System) | None => {}
        }
        Ok(contents)
    }

    fn build(&self, contents: &Contents) -> Result<Connector, Problem> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| self.unusable(&error))?;
        // "Dangerous" is what the library calls every verifier that is not its own: verify-ca must
        // not look at the name, and require is documented to verify nothing.
        let builder =
            builder.dangerous().with_custom_certificate_verifier(self.verifier(contents)?);
        let config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = files::chain(certificate, contents.of(Part::Certificate))?;
                let private = files::key(key, contents.of(Part::Key))?;
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|error| self.unusable(&error))?
            }
        };
        let mut config = config;
        config.alpn_protocols = offered(self.alpn);
        config.resumption = Resumption::disabled();
        let verified = self.verification != Verification::None;
        Ok(Connector { config: Arc::new(config), verified })
    }
}

/// What a client of HTTPS works with: everything verified, and no protocol but HTTP/1.1.
///
/// # Errors
/// The authorities cannot be read.
pub fn https(authorities: &Authorities) -> Result<Arc<ClientConfig>, Problem> {
    let verification = Verification::SignedAndNamed(authorities.clone());
    let leg = ServerLeg { verification, own: None, alpn: Alpn::Unspoken };
    let mut config = (*leg.build(&leg.read()?)?.config).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl ServerLeg {
    fn verifier(&self, contents: &Contents) -> Result<Arc<dyn ServerCertVerifier>, Problem> {
        Ok(match &self.verification {
            Verification::None => Arc::new(Lenient::new(None, provider())),
            Verification::Signed(authorities) => {
                Arc::new(Lenient::new(Some(roots(authorities, contents)?), provider()))
            }
            Verification::SignedAndNamed(authorities) => {
                let roots = Arc::new(roots(authorities, contents)?);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider());
                verifier.build().map_err(|error| Problem {
                    part: Part::Authorities,
                    message: format!("the authorities cannot be used: {error}"),
                    help: SYSTEM_HELP,
                })?
            }
        })
    }

    fn unusable(&self, error: &rustls::Error) -> Problem {
        let key = self.own.as_ref().map(|(_, key)| key.clone()).unwrap_or_default();
        files::mismatch(&key, error)
    }
}

fn roots(authorities: &Authorities, contents: &Contents) -> Result<RootCertStore, Problem> {
    match authorities {
        Authorities::File(path) => files::roots(path, contents.of(Part::Authorities)),
        Authorities::System => {
            let found = rustls_native_certs::load_native_certs();
            let mut roots = RootCertStore::empty();
            // A store of a system holds oddities that nobody misses.
            let (added, _ignored) = roots.add_parsable_certificates(found.certs);
            if added > 0 {
                return Ok(roots);
            }
            let reason = found.errors.first().map(|error| format!(": {error}"));
            Err(Problem {
                part: Part::Authorities,
                message: format!(
                    "the system's authorities were not found{}",
                    reason.unwrap_or_default()
                ),
                help: SYSTEM_HELP,
            })
        }
    }
}

const SYSTEM_HELP: &str = "name the authority that signs the server's certificate with \
    `upstream_tls: {mode: verify-full, ca: FILE}`, or choose plain text with \
    `upstream_tls: {mode: disable}`";
