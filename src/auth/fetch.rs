//! One document over HTTPS: what fetching an issuer's keys needs, and nothing more.
//!
//! No redirects, no cookies, no proxies of the environment, no compression, one connection for each
//! request. The answer is bounded in size and the whole in time. Plain HTTP is for this machine
//! only: a test, or a sidecar that speaks TLS itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::tls::{self, Authorities, Problem};

/// Where a document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    host: String,
    port: u16,
    path: String,
    encrypted: bool,
}

/// Fetches documents.
#[derive(Clone, Debug)]
pub struct Fetcher {
    /// Whom to trust. Read anew for each document, so that a renewed file counts.
    pub authorities: Authorities,
    /// For everything: name, connection, handshake, answer.
    pub timeout: Duration,
    /// Longest answer.
    pub bytes_max: usize,
}

// === impl Location ===

impl Location {
    /// Reads a URL.
    ///
    /// # Errors
    /// A message for the author: it is none, or plain HTTP to another machine.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a URL such as `https://id.example.com/keys`");
        if text.contains('#') {
            return Err(wrong());
        }
        let uri: Uri = text.parse().map_err(|_not_a_url| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err("a URL with a user name or password in it is not used".to_owned());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let (encrypted, port) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") if is_this_machine(&host) => (false, 80),
            Some("http") => {
                return Err(format!(
                    "`{text}` is plain HTTP: whoever sits between could answer with keys of \
                     their own; only https, or http to this machine"
                ));
            }
            _ => return Err(wrong()),
        };
        if host.is_empty() {
            return Err(wrong());
        }
        let written = authority.as_str().trim_start_matches(authority.host()).strip_prefix(':');
        let port = match written {
            Some(written) => written.parse().map_err(|_not_a_port| wrong())?,
            None => port,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, port, path, encrypted })
    }

    /// Whether the way there is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

// === impl Fetcher ===

impl Fetcher {
    /// What handshakes work with.
    ///
    /// # Errors
    /// The authorities cannot be read.
    pub fn tls(&self) -> Result<Arc<ClientConfig>, Problem> {
        tls::https(&self.authorities)
    }

    /// The document at this place. Cancel safe: the connection is dropped with the future.
    ///
    /// # Errors
    /// It could not be had in time, or the answer is not 200 or too long. Holds nothing of what was
    /// answered.
    pub async fn get(&self, from: &Location) -> anyhow::Result<Bytes> {
        tokio::time::timeout(self.timeout, self.exchange(from))
            .await
            .with_context(|| format!("{from}: no answer within {:?}", self.timeout))?
            .with_context(|| format!("fetch {from}"))
    }

    async fn exchange(&self, from: &Location) -> anyhow::Result<Bytes> {
        let stream = TcpStream::connect((from.host.as_str(), from.port)).await;
        let stream = stream.context("connect")?;
        if from.encrypted {
            let name = ServerName::try_from(from.host.clone()).context("name of the server")?;
            let files = self.clone();
            let tls = tokio::task::spawn_blocking(move || files.tls()).await;
            let tls = tls.context("read the authorities")?;
            let connector = TlsConnector::from(tls.map_err(|bad| anyhow::anyhow!(bad.message))?);
            let stream = connector.connect(name, stream).await.context("TLS handshake")?;
            self.request(stream, from).await
        } else {
            let peer = stream.peer_addr().context("address of the server")?.ip();
            // `localhost` is what the system's files make of it.
            ensure!(peer.is_loopback(), "plain HTTP to {peer}, which is not this machine");
            self.request(stream, from).await
        }
    }

    async fn request<S>(&self, stream: S, from: &Location) -> anyhow::Result<Bytes>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .context("begin HTTP")?;
        // Dropping the set ends the connection, whatever becomes of the exchange.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let request = Request::get(from.path.as_str())
            .header(HOST, from.authority())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("portcullis/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .context("build the request")?;
        let response = sender.send_request(request).await.context("ask")?;
        let status = response.status();
        if status.is_redirection() {
            bail!("it redirects ({status}), which is not followed; write the address it leads to");
        }
        ensure!(status == StatusCode::OK, "the answer is {status}");
        let body = Limited::new(response.into_body(), self.bytes_max).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("read the answer: {error}"))?;
        Ok(body.to_bytes())
    }
}

/// Most header lines of an answer.
const HEADERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Serves this answer over TLS to whoever comes, with a certificate for `localhost` that is
    /// written to the folder.
    async fn serve(folder: &Path, answer: &'static [u8]) -> (Location, JoinSet<()>) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(folder.join("ca.pem"), made.cert.pem()).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.unwrap())
            .unwrap();
        let listener = TcpListener::bind("localhost:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        });
        (Location::parse(&format!("https://localhost:{port}/keys")).unwrap(), tasks)
    }

    fn fetcher(ca: &Path) -> Fetcher {
        let authorities = Authorities::File(ca.to_owned());
        Fetcher { authorities, timeout: Duration::from_secs(5), bytes_max: 100 }
    }

    #[tokio::test]
    async fn documents_come_from_whom_the_authority_vouches_for() {
        let folder = tempfile::tempdir().unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        let (location, _server) = serve(folder.path(), answer).await;
        let ca = folder.path().join("ca.pem");
        assert_eq!(fetcher(&ca).get(&location).await.unwrap(), "{}");
        // The right authority, another name.
        let by_address = Location { host: "127.0.0.1".to_owned(), ..location.clone() };
        assert!(fetcher(&ca).get(&by_address).await.is_err());
        let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(&ca, other.cert.pem()).unwrap();
        let error = format!("{:#}", fetcher(&ca).get(&location).await.unwrap_err());
        assert!(error.contains("TLS handshake"), "{error}");
    }

    #[tokio::test]
    async fn other_answers_are_none() {
        for (answer, expected) in [
            (&b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"[..], "redirects"),
            (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "404"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n", "read the answer"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "read the answer"),
            (b"", "ask"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let (location, _server) = serve(folder.path(), answer).await;
            let fetched = fetcher(&folder.path().join("ca.pem")).get(&location).await;
            let error = format!("{:#}", fetched.unwrap_err());
            assert!(error.contains(expected), "expected {expected}: {error}");
        }
    }

    #[test]
    fn locations_are_https_or_of_this_machine() {
        for (text, shown) in [
            ("https://id.example", "https://id.example:443/"),
            ("https://id.example:8443/a/b?c=d", "https://id.example:8443/a/b?c=d"),
            ("https://[2001:db8::1]/k", "https://[2001:db8::1]:443/k"),
            ("http://127.0.0.1:8080/keys", "http://127.0.0.1:8080/keys"),
            ("http://[::1]:8080/keys", "http://[::1]:8080/keys"),
            ("http://localhost/keys", "http://localhost:80/keys"),
        ] {
            assert_eq!(Location::parse(text).unwrap().to_string(), shown, "{text}");
        }
        for text in [
            "",
            "id.example/keys",
            "/keys",
            "ftp://id.example/keys",
            "file:///etc/passwd",
            "http://id.example/keys",
            "http://127.0.0.1.example/keys",
            "http://10.0.0.1/keys",
            "https://user:word@id.example/keys",
            "https://id.example/keys#a",
            "https://",
            "https://id.example:port/",
        ] {
            assert!(Location::parse(text).is_err(), "{text}");
        }
    }
}
