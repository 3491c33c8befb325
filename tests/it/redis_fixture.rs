//! What the tests of Redis behind the proxy share: certificates of a client leg, clients in TLS.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::harness::{SOON, Setup, command};
use crate::pg::expect_success;
use crate::pki::{Authority, Pair};
use crate::redis::{RawRedis, Redis};

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

/// A proxy in front of a Redis with the ACL user `app`, and what its logins need.
pub(crate) struct Logins {
    pub(crate) certified: Certified,
    pub(crate) setup: Setup,
}

impl Logins {
    /// TLS, these entries of `authentication`, an account of ours, and these lines of
    /// `identities.yaml`.
    pub(crate) fn new(upstream: SocketAddr, entries: &str, identities: &str) -> Self {
        let certified = Certified::new();
        let password = certified.folder().join("app.password");
        fs::write(&password, format!("{ACCOUNT_PASSWORD}\n")).unwrap();
        let mut setup = Setup::redis(upstream);
        setup.datasource_extra = certified.tls("allowed", "")
            + &format!(
                "\x20   authentication: [{entries}]\n\
                 \x20   upstream_login: [{{user: app, password_file: \"{}\"}}]\n",
                password.display()
            );
        let text = format!("version: 1\nidentities:\n{identities}");
        setup.rules.push(("identities.yaml".into(), text));
        Self { certified, setup }
    }
}

/// A server that knows the account of [`Logins`] and nobody else.
pub(crate) fn server_with_account() -> Redis {
    let app = format!("user app on >{ACCOUNT_PASSWORD} ~* &* +@all");
    Redis::with_settings(&[&app, "user default off"])
}

/// What `portcullis auth scram-verifier` makes of a password.
pub(crate) fn verifier(password: &str) -> String {
    let mut child = command()
        .args(["auth", "scram-verifier"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    expect_success(&output, "scram-verifier").trim().to_owned()
}

/// Of the account at the server.
pub(crate) const ACCOUNT_PASSWORD: &str = "account-secret-of-ours";

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
