//! TLS to the server: what each mode asks of it, and what a hostile one gets.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc;

use crate::harness::{Portcullis, SOON, Setup};
use crate::pg::{PASSWORD, Postgres};
use crate::pki::{Authority, Pair};
use crate::raw::{CANCEL_REQUEST, Fields, Raw, SSL_REQUEST, cancel, query, untyped_packet};
use crate::recorder::Recorder;

const IN_TLS: &str = "select ssl::text from pg_stat_ssl where pid = pg_backend_pid()";
const PARAMETERS: [(&str, &str); 2] = [("user", "app"), ("database", "demo")];

/// A server with this certificate; `hba` speaks of everybody but the superuser.
fn server(pair: &Pair, hba: &str, authority: Option<&Authority>) -> Postgres {
    let mut files =
        vec![("server.crt", pair.certificate.as_str()), ("server.key", pair.key.as_str())];
    let mut settings =
        String::from("ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n");
    if let Some(authority) = authority {
        files.push(("clients.crt", &authority.pem));
        settings.push_str("ssl_ca_file = 'clients.crt'\n");
    }
    Postgres::with_files(hba, &files, &settings)
}

const TRUST: &str = "host all all 127.0.0.1/32 trust\n";

/// A proxy in front of it that reaches it by the name `localhost`.
fn setup(upstream: SocketAddr, upstream_tls: &str) -> Setup {
    let mut setup = Setup::open(upstream);
    setup.upstream_text = Some(format!("\"localhost:{}\"", upstream.port()));
    setup.datasource_extra = format!("\x20   upstream_tls: {upstream_tls}\n");
    setup
}

/// Whether the server was reached in TLS (`t`), in plain text (`f`), or not at all (the error).
fn outcome(proxy: &Portcullis) -> Result<String, Fields> {
    Raw::try_login(proxy.address(), &PARAMETERS).map(|mut raw| raw.query(IN_TLS).value())
}

#[test]
fn each_mode_accepts_the_servers_it_should_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, strange) = (Authority::new("ours"), Authority::new("strange"));
    let ca = ours.write(folder.path(), "ca");
    let ca = ca.display();
    let servers = [
        Postgres::start(),
        server(&ours.server(["localhost"]), TRUST, None),
        server(&ours.server(["other.example"]), TRUST, None),
        server(&strange.server(["localhost"]), TRUST, None),
    ];
    // For each server: plain, encrypted, or refused.
    for (mode, expected) in [
        ("{mode: disable}".to_owned(), ["false", "false", "false", "false"]),
        ("{mode: prefer}".to_owned(), ["false", "true", "true", "true"]),
        ("{mode: require}".to_owned(), ["refused", "true", "true", "true"]),
        (format!("{{mode: require, ca: \"{ca}\"}}"), ["refused", "true", "true", "refused"]),
        (format!("{{mode: verify-ca, ca: \"{ca}\"}}"), ["refused", "true", "true", "refused"]),
        (format!("{{mode: verify-full, ca: \"{ca}\"}}"), ["refused", "true", "refused", "refused"]),
    ] {
        for (server, expected) in servers.iter().zip(expected) {
            let proxy = Portcullis::start(&setup(server.address(), &mode));
            let found = match outcome(&proxy) {
                Ok(encrypted) => encrypted,
                Err(error) => {
                    assert_eq!(error.code(), "08001", "{error:?}");
                    "refused".to_owned()
                }
            };
            assert_eq!(found, expected, "{mode}\n{}", proxy.log());
        }
    }
}

#[test]
fn an_address_is_verified_like_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    let ca = ours.write(folder.path(), "ca");
    for (names, expected) in [(["127.0.0.1"], true), (["localhost"], false)] {
        let server = server(&ours.server(names), TRUST, None);
        let mut setup =
            setup(server.address(), &format!("{{mode: verify-full, ca: \"{}\"}}", ca.display()));
        setup.upstream_text = None;
        let proxy = Portcullis::start(&setup);
        assert_eq!(outcome(&proxy).is_ok(), expected, "{names:?}\n{}", proxy.log());
    }
}

#[test]
fn the_server_is_shown_our_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, strange) = (Authority::new("ours"), Authority::new("strange"));
    let server =
        server(&ours.server(["localhost"]), "hostssl all app 127.0.0.1/32 cert\n", Some(&ours));
    let ca = ours.write(folder.path(), "ca");
    let login = |pair: Option<Pair>| {
        let own = pair.map_or_else(String::new, |pair| {
            let (certificate, key) = pair.write(folder.path(), "own");
            format!(", certificate: \"{}\", key: \"{}\"", certificate.display(), key.display())
        });
        let mode = format!("{{mode: verify-full, ca: \"{}\"{own}}}", ca.display());
        outcome(&Portcullis::start(&setup(server.address(), &mode)))
    };
    assert_eq!(login(Some(ours.client("app"))).unwrap(), "true");
    assert_eq!(login(Some(ours.client("support"))).unwrap_err().code(), "28000");
    assert_eq!(login(None).unwrap_err().code(), "28000");
    assert!(login(Some(strange.client("app"))).is_err());
}

/// Sessions, cancels and the proxy's own login: none may go around TLS.
#[test]
fn nothing_of_a_session_its_cancel_or_the_catalog_login_is_in_plain_text() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    let server = server(
        &ours.server(["localhost"]),
        "hostssl all support 127.0.0.1/32 scram-sha-256\nhostssl all all 127.0.0.1/32 trust\n",
        None,
    );
    let recorder = Recorder::start(server.address());
    let ca = ours.write(folder.path(), "ca");
    let password = folder.path().join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let mut setup =
        setup(recorder.address(), &format!("{{mode: verify-full, ca: \"{}\"}}", ca.display()));
    setup.datasource_extra += &format!(
        "\x20   catalog: {{user: support, password_file: \"{}\", databases: demo}}\n",
        password.display()
    );
    // Ready means that the catalog was read, by SCRAM with channel binding.
    let proxy = Portcullis::start(&setup);
    let mut raw = Raw::login(proxy.address(), "app");
    raw.send_bytes(&query("select pg_sleep(20)"));
    server.wait_for_statement("pg_sleep(20)");
    cancel(proxy.address(), raw.key);
    assert_eq!(raw.reply().code(), "57014");
    let request = untyped_packet(SSL_REQUEST, &[]);
    let sent = recorder.to_server();
    let holds = |bytes: &[u8]| sent.windows(bytes.len()).any(|window| window == bytes);
    assert!(holds(&request));
    for plain in [&b"pg_sleep"[..], b"user\0", b"support", &CANCEL_REQUEST.to_be_bytes()] {
        assert!(!holds(plain), "{plain:?} in plain text");
    }
}

/// A server that answers whatever comes with these bytes, then reads on to the end; gives what it
/// got.
fn answering(answer: &'static [u8]) -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (told, got) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = vec![0; 8];
        stream.read_exact(&mut received).unwrap();
        stream.write_all(answer).unwrap();
        if answer.is_empty() {
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
        // A reset is an end too.
        let _ = stream.read_to_end(&mut received);
        let _ = told.send(received);
    });
    (address, got)
}

/// CVE-2021-23222 (bytes behind the `S`) and CVE-2024-10977 (an error before it is known who
/// speaks), and answers nobody should give.
#[test]
fn a_hostile_answer_to_the_tls_request_is_neither_believed_nor_shown() {
    const ERROR: &[u8] = b"E\0\0\0\x1eSFATAL\0C28000\0Mtrust me\0\0";
    const SMUGGLED: &[u8] = b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    for answer in [ERROR, SMUGGLED, b"X", b"s", b"\0", b""] {
        for mode in ["prefer", "require"] {
            let (address, got) = answering(answer);
            let proxy = Portcullis::start(&setup(address, &format!("{{mode: {mode}}}")));
            let error = outcome(&proxy).unwrap_err();
            assert_eq!(error.code(), "08001", "{mode} {answer:?}: {error:?}");
            assert!(!format!("{error:?}{}", proxy.log()).contains("trust me"));
            let received = got.recv_timeout(SOON).unwrap();
            assert_eq!(received[..8], untyped_packet(SSL_REQUEST, &[]));
            // At most a ClientHello or an alert: never the start of a session.
            let rest = &received[8..];
            assert!(rest.is_empty() || [0x15, 0x16].contains(&rest[0]), "{rest:?}");
            assert!(!rest.windows(4).any(|window| window == b"user"), "{rest:?}");
        }
    }
    let (address, got) = answering(b"N");
    let proxy = Portcullis::start(&setup(address, "{mode: require}"));
    assert_eq!(outcome(&proxy).unwrap_err().code(), "08001");
    assert_eq!(got.recv_timeout(SOON).unwrap().len(), 8);
    assert!(proxy.log().contains("upstream_tls: {mode: disable}"), "{}", proxy.log());
}
