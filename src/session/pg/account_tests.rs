//! A server that is not what it should be, at the other end of our own login.

use super::account::{Next, OwnLogin, is_about_settings, told, words};
use super::scram::server::{Binding, Exchange, Stored};
use super::scram::{Keys, Learned, salted_password, verifier};
use crate::session::auth::{Account, AccountProof, Request, Secret, ServerLeg};
use crate::session::{Effect, Outbox, TlsPeer};
use crate::wire::pg::message;

const SALT: &[u8] = &[7; 16];

fn account(proof: AccountProof) -> Account {
    Account { user: "service".to_owned(), proof, random: [4; 18] }
}

fn password() -> AccountProof {
    AccountProof::Password(Secret::new(b"s3cret".to_vec()))
}

fn plain() -> ServerLeg {
    ServerLeg { tls: None, local: false }
}

fn login(proof: AccountProof, leg: ServerLeg) -> OwnLogin {
    OwnLogin::new(account(proof), None, leg, 10_000)
}

/// The body of an Authentication message.
fn asks(kind: u32, rest: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), rest].concat()
}

fn sent(out: &mut Outbox) -> Vec<u8> {
    use bytes::Buf as _;
    let mut bytes = vec![0; out.to_server.len()];
    out.to_server.copy_to_slice(&mut bytes);
    bytes
}

/// What comes of these messages, one after another.
fn outcome(login: &mut OwnLogin, messages: &[Vec<u8>], out: &mut Outbox) -> Next {
    let mut last = Next::Wait;
    for body in messages {
        last = login.authentication(body, out).unwrap();
        if last != Next::Wait {
            break;
        }
        if let Some(Effect::Authenticate(request)) = out.effects.pop()
            && let Request::Derive { password, salt, iterations } = *request
        {
            let salted = salted_password(password.bytes(), &salt, iterations);
            assert!(!login.wants_server(), "the server waits while keys are derived");
            login.derived(&salted, out).unwrap();
        }
    }
    last
}

const OFFER: &[u8] = b"SCRAM-SHA-256\0\0";

/// An honest server's messages up to the end of the exchange.
fn scram(login: &mut OwnLogin, offer: &[u8], binding: &Binding, out: &mut Outbox) -> Vec<u8> {
    assert_eq!(login.authentication(&asks(10, offer), out), Ok(Next::Wait));
    let first = sent(out);
    let (mechanism, data) = message::read_sasl_initial_response(&first[5..]).unwrap();
    let stored = Stored::Real(verifier(b"s3cret", SALT.to_vec(), 5000));
    let (exchange, challenge) =
        Exchange::begin(binding, (mechanism, data), stored, &[9; 18]).unwrap();
    assert_eq!(outcome(login, &[asks(11, &challenge)], out), Next::Wait);
    let proof = sent(out);
    exchange.finish(&proof[5..]).unwrap().0
}

#[test]
fn a_server_proves_that_it_knows_the_account_before_it_is_trusted() {
    let mut out = Outbox::default();
    let mut honest = login(password(), plain());
    let signature = scram(&mut honest, OFFER, &Binding::None, &mut out);
    assert_eq!(honest.authentication(&asks(12, &signature), &mut out), Ok(Next::Wait));
    assert_eq!(honest.authentication(&asks(0, b""), &mut out), Ok(Next::Authenticated));
    // One that ends the exchange early, or cannot sign.
    let mut early = login(password(), plain());
    scram(&mut early, OFFER, &Binding::None, &mut out);
    assert!(matches!(early.authentication(&asks(0, b""), &mut out), Ok(Next::Failed(_))));
    let mut other = login(password(), plain());
    scram(&mut other, OFFER, &Binding::None, &mut out);
    let forged = b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(matches!(other.authentication(&asks(12, forged), &mut out), Ok(Next::Failed(_))));
}

#[test]
fn channel_binding_is_used_where_it_is_offered() {
    let mut out = Outbox::default();
    let tls = || TlsPeer { certificate: None, server_end_point: Some(vec![1; 32]) };
    let leg = || ServerLeg { tls: Some(tls()), local: false };
    let both = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    let signature =
        scram(&mut login(password(), leg()), both, &Binding::Offered(vec![1; 32]), &mut out);
    assert!(signature.starts_with(b"v="));
    // Without the offer we say that we could: `y`.
    let mut stripped = login(password(), leg());
    assert_eq!(stripped.authentication(&asks(10, OFFER), &mut out), Ok(Next::Wait));
    assert!(sent(&mut out).windows(3).any(|part| part == b"y,,"));
    let only_plus = asks(10, b"SCRAM-SHA-256-PLUS\0\0");
    let mut impossible = login(password(), plain());
    assert!(matches!(impossible.authentication(&only_plus, &mut out), Ok(Next::Failed(_))));
}

#[test]
fn what_a_client_gave_away_serves_for_the_same_verifier_only() {
    let keys = Keys::of(&salted_password(b"s3cret", SALT, 5000));
    let with = |salt: &[u8], iterations| {
        let learned = Learned { keys: keys.clone(), salt: salt.to_vec(), iterations };
        let account = account(AccountProof::ClientsKeys);
        OwnLogin::new(account, Some(learned), plain(), 10_000)
    };
    let mut out = Outbox::default();
    let signature = scram(&mut with(SALT, 5000), OFFER, &Binding::None, &mut out);
    assert!(signature.starts_with(b"v="));
    for (salt, iterations) in [(&[8; 16][..], 5000), (SALT, 5001)] {
        let mut login = with(salt, iterations);
        assert_eq!(login.authentication(&asks(10, OFFER), &mut out), Ok(Next::Wait));
        let first = sent(&mut out);
        let chosen = message::read_sasl_initial_response(&first[5..]).unwrap();
        let stored = Stored::Real(verifier(b"s3cret", SALT.to_vec(), 5000));
        let (_, challenge) = Exchange::begin(&Binding::None, chosen, stored, &[9; 18]).unwrap();
        let next = login.authentication(&asks(11, &challenge), &mut out);
        assert!(matches!(next, Ok(Next::Failed(_))), "{next:?}");
        assert!(sent(&mut out).is_empty(), "a proof was sent for another verifier");
    }
    for kind in [3, 5] {
        let mut login = with(SALT, 5000);
        let next =
            login.authentication(&asks(kind, &[0; 4][..if kind == 5 { 4 } else { 0 }]), &mut out);
        assert!(matches!(next, Ok(Next::Failed(_))));
    }
}

#[test]
fn a_hostile_server_learns_nothing_and_makes_us_do_little() {
    let ours = "BAQEBAQEBAQEBAQEBAQEBAQE";
    let challenge = |text: String| vec![asks(10, OFFER), asks(11, text.as_bytes())];
    for messages in [
        challenge(format!("r={ours}x,s=AAAA,i=2147483648")),
        challenge(format!("r={ours}x,s=AAAA,i=10001")),
        challenge(format!("r={ours}x,s=AAAA,i=0")),
        challenge("r=other,s=AAAA,i=4096".to_owned()),
        challenge(format!("r={ours}x,s=AAAA")),
        challenge(String::new()),
        vec![asks(11, b"")],
        vec![asks(12, b"v=AAAA")],
        vec![asks(10, OFFER), asks(10, OFFER)],
        vec![asks(10, OFFER), asks(5, b"salt")],
        vec![asks(10, OFFER), asks(0, b"")],
        vec![asks(10, b"SCRAM-SHA-1\0\0")],
        vec![asks(10, b"\0")],
        vec![asks(3, b"")],
        vec![asks(7, b"")],
        vec![asks(9, b"")],
        vec![asks(99, b"")],
        vec![asks(5, b"salt"), asks(5, b"tlas")],
    ] {
        let mut out = Outbox::default();
        let mut login = login(password(), plain());
        let last = outcome(&mut login, &messages, &mut out);
        assert!(matches!(last, Next::Failed(_)), "{messages:?}: {last:?}");
        let sent = sent(&mut out);
        assert!(!sent.windows(6).any(|part| part == b"s3cret"), "the password was sent");
    }
    for malformed in [&b""[..], b"\0\0\0", b"\0\0\0\0x", b"\0\0\0\x05abc", b"\0\0\0\x0aSCRAM"] {
        let mut out = Outbox::default();
        assert!(login(password(), plain()).authentication(malformed, &mut out).is_err());
    }
}

#[test]
fn passwords_go_out_where_nobody_listens() {
    let mut out = Outbox::default();
    let local = ServerLeg { tls: None, local: true };
    assert_eq!(login(password(), local).authentication(&asks(3, b""), &mut out), Ok(Next::Wait));
    assert_eq!(sent(&mut out), b"p\0\0\0\x0bs3cret\0");
    let mut none = login(AccountProof::Nothing, plain());
    assert!(matches!(none.authentication(&asks(10, OFFER), &mut out), Ok(Next::Failed(_))));
    let mut trusted = login(AccountProof::Nothing, plain());
    assert_eq!(trusted.authentication(&asks(0, b""), &mut out), Ok(Next::Authenticated));
    // The example of the protocol's documentation: md5(md5(password + user) + salt).
    let mut md5 = login(password(), ServerLeg { tls: None, local: true });
    assert_eq!(md5.authentication(&asks(5, b"abcd"), &mut out), Ok(Next::Wait));
    let answer = sent(&mut out);
    assert!(
        answer.starts_with(b"p\0\0\0\x28md5") && answer.len() == 41,
        "{}",
        answer.escape_ascii()
    );
}

#[test]
fn what_the_server_says_is_for_the_log() {
    assert_eq!(words(b"C28P01\0Mno \"service\"\0\0"), "28P01: no \\\"service\\\"");
    assert_eq!(words(b"Mfirst\nsecond\0\0"), "XX000: first\\nsecond");
    assert_eq!(words(b"broken"), "XX000: ");
    assert!(words(&[b"M".to_vec(), vec![b'x'; 9000], vec![0, 0]].concat()).len() < 600);
    for (code, expected) in [
        ("28P01", "08004"),
        ("28000", "08004"),
        ("XX000", "08004"),
        ("", "08004"),
        ("3D000", "3D000"),
        ("53300", "53300"),
    ] {
        assert_eq!(told(code, "shop").code, expected, "{code}");
    }
    assert!(is_about_settings("22023") && is_about_settings("42704"));
    assert!(!is_about_settings("28P01") && !is_about_settings("42501"));
}
