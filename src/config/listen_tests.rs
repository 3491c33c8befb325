//! `listen:` as people write it.

use super::tests::{GOOD, check, folder};
use super::{Config, ListenAt, Port};

#[test]
fn listen_entries_are_texts_or_mappings() {
    let dir = folder();
    let text = GOOD.replace(
        "127.0.0.1:6432",
        "[\"[::1]:1\", {address: \"0.0.0.0:2\", allow: [10.0.0.0/8, \"::ffff:10.0.0.0/104\", ::1], \
         proxy_protocol_from: 192.0.2.1, reuse_port: true}, \
         {unix: .s.PGSQL.3}, {unix: other, mode: \"0600\"}]",
    );
    let text = text.replace("allow\n", "allow\n    tls: {mode: off}\n");
    let (config, _) = Config::parse("p.yaml", &text, dir.path()).unwrap();
    let [six, tcp, unix, other] = &config.datasources[0].listen[..] else { panic!("{config:?}") };
    assert!(six.at.is_local() && six.allow.is_empty());
    assert!(!tcp.at.is_local());
    let networks: Vec<String> = tcp.allow.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "10.0.0.0/8", "::1/128"]);
    assert_eq!(tcp.proxies, ["192.0.2.1/32".parse().unwrap()]);
    assert_eq!((six.port, tcp.port), (Port::Own, Port::Shared));
    assert_eq!(config.shares_ports(), Port::Shared);
    let at = |name: &str, mode| ListenAt::Unix { path: dir.path().join(name), mode };
    assert_eq!((&unix.at, &other.at), (&at(".s.PGSQL.3", 0o660), &at("other", 0o600)));
}

#[test]
fn listen_entries_that_cannot_hold_are_refused() {
    for (entry, expected) in [
        ("/run/x", "p.yaml:5:13: error: `/run/x` is no address to listen on"),
        ("{unix: /none/x}", "p.yaml:5:20: error: the folder of `/none/x` does not exist"),
        ("{unix: '@x'}", "p.yaml:5:20: error: abstract sockets are not served"),
        ("{unix: x, mode: rw}", "p.yaml:5:29: error: `rw` is no mode"),
        ("{unix: x, mode: '01777'}", "p.yaml:5:29: error: `01777` is no mode"),
        (
            "{unix: x, allow: 10.0.0.0/8}",
            "p.yaml:5:13: error: a Unix socket has no addresses to admit",
        ),
        ("{unix: x, address: '[::1]:1'}", "p.yaml:5:13: error: an entry of `listen` has either"),
        ("{allow: 10.0.0.0/8}", "p.yaml:5:13: error: an entry of `listen` has either"),
        ("{address: '[::1]:1', mode: '0600'}", "p.yaml:5:40: error: `mode` is for Unix sockets"),
        ("{address: '[::1]:1', allow: []}", "p.yaml:5:13: error: `allow` names no network"),
        ("{address: '[::1]:1', allow: ten}", "p.yaml:5:41: error: `ten` is not a network"),
        (
            "{unix: x, proxy_protocol_from: 10.0.0.0/8}",
            "p.yaml:5:13: error: a Unix socket has no addresses to admit or trust",
        ),
        ("{unix: x, reuse_port: true}", "p.yaml:5:35: error: `reuse_port` is for TCP"),
        ("{address: '[::1]:1', port: 1}", "p.yaml:5:34: error: unknown key `port`"),
        ("[]", "p.yaml:3:5: error: `listen` names no address"),
        ("[{unix: x}, {unix: x}]", "p.yaml:5:25: error: `./x` is in use by `./x`"),
    ] {
        check("127.0.0.1:6432", entry, expected);
    }
}
