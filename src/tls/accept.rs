//! The client leg: we are the server.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::CertificateDer;

use super::files::{self, Part, Problem};
use super::watched::{Contents, Source};
use super::{certificate, offered, provider};
use crate::session::{Alpn, TlsPeer};

/// How clients are met, with file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLeg {
    /// Our chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whether clients show certificates, and who signs them.
    pub clients: ClientCertificates,
    /// The oldest version that is spoken.
    pub min_version: Version,
    /// Whether clients name their protocol.
    pub alpn: Alpn,
}

/// Certificates of clients. One that is shown is always verified, or the handshake fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Not asked for.
    Unasked,
    /// Asked for; a client without one is let in.
    Optional(PathBuf),
    /// A client without one is refused in the handshake.
    Needed(PathBuf),
}

/// Versions of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// 1.2 and 1.3.
    #[default]
    Tls12,
    /// 1.3 only.
    Tls13,
}

/// What handshakes with clients work with.
#[derive(Clone, Debug)]
pub struct Acceptor {
    /// For the TLS library.
    pub config: Arc<ServerConfig>,
    /// `tls-server-end-point` of our certificate.
    end_point: Option<Vec<u8>>,
}

impl Acceptor {
    /// With a configuration made elsewhere, and our certificate.
    pub fn new(config: Arc<ServerConfig>, own: &CertificateDer<'_>) -> Self {
        Self { config, end_point: certificate::end_point(own) }
    }

    /// What a handshake established: the client's certificates, as far as it gave some.
    pub fn peer(&self, certificates: Option<&[CertificateDer<'_>]>) -> TlsPeer {
        TlsPeer {
            certificate: certificates.and_then(<[_]>::first).map(certificate::names),
            server_end_point: self.end_point.clone(),
        }
    }
}

impl ClientCertificates {
    fn authorities(&self) -> Option<&PathBuf> {
        match self {
            Self::Unasked => None,
            Self::Optional(path) | Self::Needed(path) => Some(path),
        }
    }
}

impl Version {
    fn and_newer(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => BOTH_VERSIONS,
            Self::Tls13 => NEWEST_VERSION,
        }
    }
}

static BOTH_VERSIONS: &[&SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

static NEWEST_VERSION: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

impl Source for ClientLeg {
    type Built = Acceptor;

    fn read(&self) -> Result<Contents, Problem> {
        let mut contents = Contents::default();
        contents.add(Part::Certificate, &self.certificate)?;
        contents.add(Part::Key, &self.key)?;
        if let Some(authorities) = self.clients.authorities() {
            contents.add(Part::Authorities, authorities)?;
        }
        Ok(contents)
    }

    fn build(&self, contents: &Contents) -> Result<Acceptor, Problem> {
        let chain = files::chain(&self.certificate, contents.of(Part::Certificate))?;
        let key = files::key(&self.key, contents.of(Part::Key))?;
        let end_point = chain.first().and_then(certificate::end_point);
        let unusable = |error: &rustls::Error| files::mismatch(&self.key, error);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(self.min_version.and_newer())
            .map_err(|error| unusable(&error))?;
        let builder = match self.clients.authorities() {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = files::roots(path, contents.of(Part::Authorities))?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                let verifier = match self.clients {
                    ClientCertificates::Optional(_) => verifier.allow_unauthenticated(),
                    ClientCertificates::Unasked | ClientCertificates::Needed(_) => verifier,
                };
                let verifier = verifier.build().map_err(|error| Problem {
                    part: Part::Authorities,
                    message: format!("authorities `{}`: {error}", path.display()),
                    help: "give the certificates of the authorities that sign the clients'",
                })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| unusable(&error))?;
        config.alpn_protocols = offered(self.alpn);
        // A resumed session carries the identity of an earlier handshake past a change of the
        // authorities; PostgreSQL does without, and so do we.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Acceptor { config: Arc::new(config), end_point })
    }
}
