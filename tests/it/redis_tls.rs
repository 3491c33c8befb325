//! TLS and sockets of a Redis datasource: both legs, Unix sockets, load balancers.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::ClientConfig;

use crate::harness::{Portcullis, SOON, Setup};
use crate::pki::{Authority, Pair};
use crate::redis::{RawRedis, Redis, Reply};
use crate::redis_fixture::{Certified, secured};

fn pong() -> Reply {
    Reply::Simple("PONG".into())
}

/// What a client in plain text gets for a PING; `None` when it is closed on without a PONG.
fn plain(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    answers_pong(stream)
}

fn encrypted(address: SocketAddr, config: Arc<ClientConfig>) -> bool {
    let mut stream = secured(address, config);
    stream.write_all(b"PING\r\n").is_ok() && answers_pong(stream)
}

fn answers_pong(mut stream: impl std::io::Read) -> bool {
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).is_ok() && answer == *b"+PONG\r\n"
}

#[test]
fn each_mode_lets_in_the_redis_clients_it_should_and_no_other() {
    let server = Redis::with_settings(&[]);
    let certified = Certified::new();
    let own = certified.authority.client("app");
    let strange = Authority::new("strange").client("app");
    // In plain text, in TLS, with a certificate, with a stranger's.
    for (line, expected) in [
        (String::new(), [true, false, false, false]),
        (certified.tls("allowed", ""), [true, true, true, true]),
        (certified.tls("required", ""), [false, true, true, true]),
        (certified.tls("required", ", client_ca: {ca}"), [false, true, true, false]),
        (certified.tls("mutual", ", client_ca: {ca}"), [false, false, true, false]),
    ] {
        let mut setup = Setup::redis(server.address());
        setup.datasource_extra = line.clone();
        let proxy = Portcullis::start(&setup);
        let address = proxy.address();
        let found = [
            plain(address),
            encrypted(address, certified.client(None, &[])),
            encrypted(address, certified.client(Some(&own), &[])),
            encrypted(address, certified.client(Some(&strange), &[])),
        ];
        assert_eq!(found, expected, "{line}\n{}", proxy.log());
    }
}

#[test]
fn a_name_by_alpn_does_not_matter_to_a_redis_listener() {
    let server = Redis::with_settings(&[]);
    let certified = Certified::new();
    let mut setup = Setup::redis(server.address());
    setup.datasource_extra = certified.tls("required", "");
    let proxy = Portcullis::start(&setup);
    for alpn in [&[][..], &[b"redis".as_slice()], &[b"h2".as_slice()]] {
        assert!(encrypted(proxy.address(), certified.client(None, alpn)), "{alpn:?}");
    }
}

/// The first bytes of a client come with its handshake, and a value of many records with them.
#[test]
fn long_values_pass_in_tls() {
    let server = Redis::with_settings(&[]);
    let certified = Certified::new();
    let mut setup = Setup::redis(server.address());
    setup.datasource_extra = certified.tls("required", "");
    let proxy = Portcullis::start(&setup);
    let mut client = certified.connect(proxy.address());
    let long = vec![b'x'; 5_000_000];
    assert_eq!(client.command(&[b"SET".as_slice(), b"k", &long]), Reply::ok());
    assert_eq!(client.command(&["GET", "k"]), Reply::Bulk(Some(long)));
}

/// A proxy that reaches the TLS port of the server by the name `localhost`.
fn to_server(server: &Redis, upstream_tls: &str) -> Setup {
    let address = server.tls_address();
    let mut setup = Setup::redis(address);
    setup.upstream_text = Some(format!("\"localhost:{}\"", address.port()));
    setup.datasource_extra = format!("\x20   upstream_tls: {upstream_tls}\n");
    setup.extra = "limits: {login_timeout: 2s, connect_timeout: 1s}\n".into();
    setup
}

fn served(setup: &Setup) -> bool {
    let proxy = Portcullis::start(setup);
    plain(proxy.address())
}

#[test]
fn each_mode_accepts_the_redis_servers_it_should_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, strange) = (Authority::new("ours"), Authority::new("strange"));
    let ca = ours.write(folder.path(), "ca").display().to_string();
    let with = |pair: &Pair| Redis::with_tls(pair, None, &[]);
    let servers = [
        with(&ours.server(["localhost"])),
        with(&ours.server(["other.example"])),
        with(&strange.server(["localhost"])),
    ];
    for (mode, expected) in [
        ("{mode: disable}".to_owned(), [false, false, false]),
        (format!("{{mode: require, ca: \"{ca}\"}}"), [true, true, false]),
        (format!("{{mode: verify-ca, ca: \"{ca}\"}}"), [true, true, false]),
        (format!("{{mode: verify-full, ca: \"{ca}\"}}"), [true, false, false]),
    ] {
        for (server, expected) in servers.iter().zip(expected) {
            assert_eq!(served(&to_server(server, &mode)), expected, "{mode}");
        }
    }
}

#[test]
fn a_redis_that_asks_for_certificates_gets_ours() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    let ca = ours.write(folder.path(), "ca").display().to_string();
    let (certificate, key) = ours.client("portcullis").write(folder.path(), "own");
    let server = Redis::with_tls(&ours.server(["localhost"]), Some(&ours), &[]);
    let own = format!(
        "{{ca: \"{ca}\", certificate: \"{}\", key: \"{}\"}}",
        certificate.display(),
        key.display()
    );
    assert!(served(&to_server(&server, &own)));
    assert!(!served(&to_server(&server, &format!("{{ca: \"{ca}\"}}"))));
}

#[test]
fn a_redis_client_is_served_over_a_unix_socket() {
    let server = Redis::with_settings(&[]);
    let mut setup = Setup::redis(server.address());
    setup.listen = "[{unix: \"{folder}/redis.sock\", mode: \"0600\"}, \"127.0.0.1:{port}\"]".into();
    let proxy = Portcullis::start(&setup);
    let mut client = RawRedis::connect_unix(&proxy.folder().join("redis.sock"));
    assert_eq!(client.command(&["PING"]), pong());
    drop(client);
    let lines = proxy.finish();
    assert!(lines.iter().any(|line| line.contains("local socket")), "{lines:#?}");
}

#[test]
fn a_load_balancer_announces_redis_clients() {
    let server = Redis::with_settings(&[]);
    let mut setup = Setup::redis(server.address());
    setup.listen = "{address: \"127.0.0.1:{port}\", proxy_protocol_from: 127.0.0.1, \
                    allow: 203.0.113.0/24}"
        .into();
    let proxy = Portcullis::start(&setup);
    let announced = |client: &str| {
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let header = format!("PROXY TCP4 {client} 10.0.0.1 4711 6379\r\nPING\r\n");
        stream.write_all(header.as_bytes()).unwrap();
        answers_pong(stream)
    };
    assert!(announced("203.0.113.9"));
    assert!(!announced("203.0.114.9"));
    assert!(!plain(proxy.address()), "no header, no service");
    let lines = proxy.finish();
    assert!(lines.iter().any(|line| line.contains("203.0.113.9")), "{lines:#?}");
}
