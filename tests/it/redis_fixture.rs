//! What the tests of Redis behind the proxy share: certificates of a client leg, clients in TLS.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::harness::SOON;
use crate::pki::{Authority, Pair};
use crate::redis::RawRedis;

/// Files of a proxy's client leg, in a folder of their own.
pub(crate) struct Certified {
    folder: tempfile::TempDir,
    pub(crate) authority: Authority,
}

impl Certified {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("ours");
        authority.write(folder.path(), "ca");
        authority.server(["localhost", "127.0.0.1"]).write(folder.path(), "server");
        Self { folder, authority }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The line of a datasource: this mode, and more members.
    pub(crate) fn tls(&self, mode: &str, more: &str) -> String {
        let folder = self.folder.path().display();
        let more = more.replace("{ca}", &format!("\"{folder}/ca.crt\""));
        format!(
            "\x20   tls: {{mode: {mode}, certificate: \"{folder}/server.crt\", \
             key: \"{folder}/server.key\"{more}}}\n"
        )
    }

    /// A client that trusts the authority, with a certificate of its own if it has one, and these
    /// protocols offered by ALPN.
    pub(crate) fn client(&self, own: Option<&Pair>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let pem = self.authority.pem.as_bytes();
        roots.add(CertificateDer::from_pem_slice(pem).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain =
                    vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// A client in TLS of which nothing has been heard but its handshake.
    pub(crate) fn connect(&self, address: SocketAddr) -> RawRedis {
        RawRedis::over(secured(address, self.client(None, &[])))
    }
}

/// Begins a handshake at once; its first bytes are sent with the first bytes of the client.
pub(crate) fn secured(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(SOON)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), tcp)
}
