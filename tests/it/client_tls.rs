//! TLS with clients: who gets in by which mode, and nothing around it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::harness::{Portcullis, SOON, Setup, wait_until};
use crate::pg::{Postgres, psql};
use crate::pki::Authority;
use crate::raw::{CANCEL_REQUEST, Raw, SSL_REQUEST, frame, query, startup_packet, untyped_packet};
use crate::recorder::Recorder;

const PARAMETERS: [(&str, &str); 2] = [("user", "app"), ("database", "demo")];

/// A proxy's `tls:` with the files it names, in a folder of their own.
struct Certified {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Certified {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("ours");
        authority.write(folder.path(), "ca");
        authority.server(["localhost", "127.0.0.1"]).write(folder.path(), "server");
        Self { folder, authority }
    }

    fn setup(&self, upstream: SocketAddr, mode: &str, more: &str) -> Setup {
        let mut setup = Setup::open(upstream);
        let folder = self.folder.path().display();
        setup.datasource_extra = format!(
            "\x20   tls: {{mode: {mode}, certificate: \"{folder}/server.crt\", \
             key: \"{folder}/server.key\"{}}}\n",
            more.replace("{ca}", &format!("\"{folder}/ca.crt\""))
        );
        setup
    }

    /// A client that trusts the authority and offers these protocols by ALPN.
    fn client(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let pem = self.authority.pem.as_bytes();
        roots.add(CertificateDer::from_pem_slice(pem).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }
}

type Secured = StreamOwned<ClientConnection, TcpStream>;

/// Connects, asks for TLS unless it is to be direct, and says nothing in it yet.
fn secured(address: SocketAddr, config: Arc<ClientConfig>, asked: Asked) -> Secured {
    let mut tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(SOON)).unwrap();
    if asked == Asked::First {
        tcp.write_all(&untyped_packet(SSL_REQUEST, &[])).unwrap();
        let mut answer = [0];
        tcp.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"S");
    }
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), tcp)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    First,
    Not,
}

/// Logs in where the server trusts; gives the cancel key's packet, or `None` when it was turned
/// away.
fn login(stream: &mut Secured) -> Option<Vec<u8>> {
    stream.write_all(&startup_packet(&PARAMETERS)).ok()?;
    let mut key = None;
    loop {
        let (tag, body) = message(stream)?;
        match tag {
            b'K' => key = Some(untyped_packet(CANCEL_REQUEST, &body)),
            b'E' => return None,
            b'Z' => return key,
            _ => {}
        }
    }
}

fn message(stream: &mut Secured) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes(head[1..].try_into().unwrap());
    let mut body = vec![0; usize::try_from(length).unwrap() - 4];
    stream.read_exact(&mut body).ok()?;
    Some((head[0], body))
}

/// The body of the next message of this kind.
fn until(stream: &mut Secured, wanted: u8) -> Vec<u8> {
    loop {
        let (tag, body) = message(stream).unwrap();
        if tag == wanted {
            return body;
        }
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// One login by psql over TCP to `localhost`.
fn psql_login(proxy: &Portcullis, sslmode: &str, ca: &Path, own: Option<(&Path, &Path)>) -> Output {
    let mut command = psql(proxy.port(), "app", "demo");
    command.args(["-h", "localhost", "-Atq", "-c", "select 'in'"]);
    command.env("PGHOSTADDR", "127.0.0.1").env("PGSSLMODE", sslmode);
    // The name of no file: a file of whoever runs the tests must not be found.
    command.env("PGSSLCERT", "/nowhere").env("PGSSLKEY", "/nowhere");
    if sslmode.starts_with("verify") {
        command.env("PGSSLROOTCERT", ca);
    } else {
        command.env("PGSSLROOTCERT", "/nowhere");
    }
    if let Some((certificate, key)) = own {
        command.env("PGSSLCERT", certificate).env("PGSSLKEY", key);
    }
    command.output().unwrap()
}

#[test]
fn each_mode_lets_in_the_clients_it_should_and_no_other() {
    let server = Postgres::start();
    let certified = Certified::new();
    let folder = certified.folder.path();
    let ca = folder.join("ca.crt");
    let (certificate, key) = certified.authority.client("app").write(folder, "app");
    let stranger = Authority::new("strange").client("app");
    let (strange_certificate, strange_key) = stranger.write(folder, "strange");
    let own = Some((certificate.as_path(), key.as_path()));
    let strange = Some((strange_certificate.as_path(), strange_key.as_path()));
    let modes = ["disable", "prefer", "require", "verify-ca", "verify-full"];
    let check = |setup: &Setup, own: Option<(&Path, &Path)>, expected: [bool; 5]| {
        let proxy = Portcullis::start(setup);
        for (sslmode, expected) in modes.into_iter().zip(expected) {
            let output = psql_login(&proxy, sslmode, &ca, own);
            let text = String::from_utf8_lossy(&output.stderr);
            let what = format!("{} {sslmode}: {text}", setup.datasource_extra);
            assert_eq!(output.status.success(), expected, "{what}");
        }
    };
    let (all, only_tls, none) =
        ([true; 5], [false, true, true, true, true], [false, false, false, false, false]);
    let setup = |mode: &str, more: &str| certified.setup(server.address(), mode, more);
    check(&Setup::open(server.address()), None, [true, true, false, false, false]);
    check(&setup("allowed", ""), None, all);
    check(&setup("required", ""), None, only_tls);
    // With authorities a certificate is asked for, and must be theirs if there is one.
    check(&setup("allowed", ", client_ca: {ca}"), None, all);
    check(&setup("required", ", client_ca: {ca}"), own, only_tls);
    check(&setup("required", ", client_ca: {ca}"), strange, none);
    check(&setup("mutual", ", client_ca: {ca}"), own, only_tls);
    check(&setup("mutual", ", client_ca: {ca}"), strange, none);
    check(&setup("mutual", ", client_ca: {ca}"), None, none);
}

/// OpenSSL's client, told which version to speak; whether the handshake succeeded.
fn openssl(proxy: &Portcullis, arguments: &[&str]) -> bool {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &proxy.address().to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    text.contains("Cipher is TLS_") || text.contains("Cipher is ECDHE")
}

#[test]
fn the_oldest_version_is_what_the_configuration_says() {
    let server = Postgres::start();
    let certified = Certified::new();
    let starttls = ["-starttls", "postgres"];
    let with = |version| [&starttls[..], &[version]].concat();
    let proxy = Portcullis::start(&certified.setup(server.address(), "required", ""));
    assert!(openssl(&proxy, &with("-tls1_2")) && openssl(&proxy, &with("-tls1_3")));
    assert!(!openssl(&proxy, &[&with("-tls1_1")[..], &["-cipher", "ALL:@SECLEVEL=0"]].concat()));
    let newest = certified.setup(server.address(), "required", ", min_version: \"1.3\"");
    let proxy = Portcullis::start(&newest);
    assert!(!openssl(&proxy, &with("-tls1_2")) && openssl(&proxy, &with("-tls1_3")));
}

#[test]
fn direct_tls_needs_the_name_of_the_protocol() {
    let server = Postgres::start();
    let recorder = Recorder::start(server.address());
    let certified = Certified::new();
    let proxy = Portcullis::start(&certified.setup(recorder.address(), "required", ""));
    recorder.clear();
    for alpn in [&[][..], &[&b"http/1.1"[..]]] {
        let mut stream = secured(proxy.address(), certified.client(alpn), Asked::Not);
        assert_eq!(login(&mut stream), None, "{alpn:?}");
    }
    assert!(recorder.to_server().is_empty(), "something reached the server");
    let client = certified.client(&[b"http/1.1", b"postgresql"]);
    let mut stream = secured(proxy.address(), client, Asked::Not);
    assert!(login(&mut stream).is_some());
    assert!(openssl(&proxy, &["-alpn", "postgresql"]));
    // Who asks first may do without the name, but not name another.
    for (alpn, expected) in
        [(&[][..], true), (&[&b"postgresql"[..]], true), (&[&b"http/1.1"[..]], false)]
    {
        let mut stream = secured(proxy.address(), certified.client(alpn), Asked::First);
        assert_eq!(login(&mut stream).is_some(), expected, "{alpn:?}");
    }
}

/// Writes one byte at a time, each in a segment of its own.
struct Dripping(TcpStream);

impl Read for Dripping {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Dripping {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn a_handshake_byte_by_byte_is_one() {
    let server = Postgres::start();
    let certified = Certified::new();
    let proxy = Portcullis::start(&certified.setup(server.address(), "required", ""));
    let tcp = TcpStream::connect(proxy.address()).unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp.set_read_timeout(Some(SOON)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(certified.client(&[b"postgresql"]), name).unwrap();
    let mut stream = StreamOwned::new(connection, Dripping(tcp));
    stream.write_all(&startup_packet(&PARAMETERS)).unwrap();
    let mut tag = [0];
    stream.read_exact(&mut tag).unwrap();
    assert_eq!(tag, *b"R");
}

#[test]
fn inside_tls_a_cancel_works_and_a_request_for_tls_does_not() {
    let server = Postgres::start();
    let certified = Certified::new();
    let proxy = Portcullis::start(&certified.setup(server.address(), "required", ""));
    let connect = || secured(proxy.address(), certified.client(&[b"postgresql"]), Asked::First);
    let mut busy = connect();
    let key = login(&mut busy).unwrap();
    let running = "select count(*) from pg_stat_activity where query like '%pg_sleep(20)%' \
                   and usename = 'app' and state = 'active'";
    let (mut direct, mut plain) = (0, 0);
    // In TLS, and as libpq before version 17 sends it, which PostgreSQL takes on every listener.
    for in_tls in [true, false] {
        busy.write_all(&query("select pg_sleep(20)")).unwrap();
        wait_until("the statement runs", SOON, || server.admin(running).trim() == "1");
        if in_tls {
            let mut canceller = connect();
            canceller.write_all(&key).unwrap();
            direct += canceller.read(&mut [0; 16]).unwrap();
        } else {
            let mut canceller = Raw::connect(proxy.address());
            canceller.send_bytes(&key);
            plain += usize::from(canceller.read_byte().is_some());
        }
        assert!(holds(&until(&mut busy, b'E'), b"57014"));
        until(&mut busy, b'Z');
        wait_until("it has ended", SOON, || server.admin(running).trim() == "0");
    }
    assert_eq!((direct, plain), (0, 0), "a cancel is answered by closing");
    let mut twice = connect();
    twice.write_all(&untyped_packet(SSL_REQUEST, &[])).unwrap();
    assert!(holds(&until(&mut twice, b'E'), b"08P01"));
}

#[test]
fn leave_is_taken_in_tls_and_need_not_be_by_the_client() {
    let server = Postgres::start();
    let certified = Certified::new();
    let proxy = Portcullis::start(&certified.setup(server.address(), "required", ""));
    let connect = || secured(proxy.address(), certified.client(&[]), Asked::First);
    let mut polite = connect();
    login(&mut polite).unwrap();
    polite.write_all(&frame(b'X', &[])).unwrap();
    // Without the closing alert this would be an error.
    assert_eq!(polite.read(&mut [0; 16]).unwrap(), 0);
    let mut abrupt = connect();
    login(&mut abrupt).unwrap();
    drop(abrupt.sock);
    wait_until("both sessions are over", SOON, || {
        proxy.metric("portcullis_client_connections") < 0.5
    });
    assert!(!proxy.log().contains("ERROR"), "{}", proxy.log());
}

/// A resumed session would carry the identity of an earlier handshake.
#[test]
fn no_session_is_resumed() {
    let server = Postgres::start();
    let certified = Certified::new();
    let proxy = Portcullis::start(&certified.setup(server.address(), "required", ""));
    let client = certified.client(&[]);
    for _ in 0..2 {
        let mut stream = secured(proxy.address(), Arc::clone(&client), Asked::First);
        login(&mut stream).unwrap();
        assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Full));
        assert!(!stream.conn.is_early_data_accepted());
        assert_eq!(stream.conn.tls13_tickets_received(), 0);
    }
}

/// An error before TLS is established could come from anybody: there must be none in plain text.
#[test]
fn a_handshake_that_fails_gets_an_alert_and_no_other_word() {
    let server = Postgres::start();
    let recorder = Recorder::start(server.address());
    let certified = Certified::new();
    let proxy = Portcullis::start(&certified.setup(recorder.address(), "required", ""));
    recorder.clear();
    let mut raw = Raw::connect(proxy.address());
    raw.send_bytes(&untyped_packet(SSL_REQUEST, &[]));
    assert_eq!(raw.read_byte(), Some(b'S'));
    raw.send_bytes(&startup_packet(&PARAMETERS));
    let mut answer = Vec::new();
    while let Some(byte) = raw.read_byte() {
        answer.push(byte);
    }
    assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
    assert!(recorder.to_server().is_empty(), "something reached the server");
}
