use proptest::prelude::*;

use super::client::{Binding as ClientBinding, Opening};
use super::server::{Binding, Exchange, Stored};
use super::*;

/// RFC 7677, section 3.
const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";

fn pencil() -> ScramVerifier {
    verifier(b"pencil", message::decode(SALT).unwrap(), 4096)
}

#[test]
fn hmac_is_that_of_rfc_4231() {
    let cases: [(&[u8], &[u8], &str); 3] = [
        (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c7"),
        (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b"),
        (
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f",
        ),
    ];
    for (key, data, expected) in cases {
        let found: String = hmac(key, &[data]).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn the_example_of_rfc_7677_comes_out() {
    let keys = Keys::of(&salted_password(b"pencil", &message::decode(SALT).unwrap(), 4096));
    let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let signed =
        format!("n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s={SALT},i=4096,c=biws,r={nonce}");
    let signature = hmac(&sha256(&keys.client_key), &[signed.as_bytes()]);
    let proof = message::encode(&xor(&keys.client_key, &signature));
    assert_eq!(proof, "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    let server = message::encode(&hmac(&keys.server_key, &[signed.as_bytes()]));
    assert_eq!(server, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    assert_eq!(
        pencil().to_string(),
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
         WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    );
}

#[test]
fn passwords_are_prepared_as_the_server_prepares_them() {
    assert_eq!(&*prepared("I\u{ad}X".as_bytes()), b"IX", "soft hyphens go");
    assert_eq!(&*prepared("\u{aa}".as_bytes()), b"a", "compatibility forms are folded");
    assert_eq!(&*prepared(b"\xff\xfe"), b"\xff\xfe", "not UTF-8: as it is");
    assert_eq!(&*prepared(b"a\x07b"), b"a\x07b", "prohibited: as it is");
    assert_eq!(&*prepared("\u{ad}".as_bytes()), "\u{ad}".as_bytes(), "empty: as it is");
}

fn begin(
    binding: &Binding,
    mechanism: &[u8],
    first: &str,
) -> Result<(Exchange, Vec<u8>), ScramError> {
    let chosen = (mechanism, first.as_bytes());
    Exchange::begin(binding, chosen, Stored::Real(pencil()), &[9; 18])
}

#[test]
fn a_hostile_clients_first_message_is_refused() {
    let (none, offered) = (Binding::None, Binding::Offered(vec![1; 32]));
    let required = Binding::Required(vec![1; 32]);
    let fine = [
        (&none, MECHANISM, "n,,n=,r=abc"),
        (&none, MECHANISM, "y,,n=user,r=abc"),
        (&none, MECHANISM, "n,,n=,r=abc,x=extension"),
        (&offered, MECHANISM, "n,,n=,r=abc"),
        (&offered, MECHANISM_PLUS, "p=tls-server-end-point,,n=,r=abc"),
        (&required, MECHANISM_PLUS, "p=tls-server-end-point,,n=,r=abc"),
    ];
    for (binding, mechanism, first) in fine {
        assert!(begin(binding, mechanism, first).is_ok(), "{} {first}", mechanism.escape_ascii());
    }
    let long = format!("n,,n=,r={}", "a".repeat(MESSAGE_BYTES_MAX));
    let refused = [
        // Downgrades.
        (&offered, MECHANISM, "y,,n=,r=abc"),
        (&required, MECHANISM, "n,,n=,r=abc"),
        (&required, MECHANISM, "y,,n=,r=abc"),
        // Bogus bindings.
        (&none, MECHANISM, "p=tls-server-end-point,,n=,r=abc"),
        (&none, MECHANISM_PLUS, "p=tls-server-end-point,,n=,r=abc"),
        (&offered, MECHANISM, "p=tls-server-end-point,,n=,r=abc"),
        (&offered, MECHANISM_PLUS, "n,,n=,r=abc"),
        (&offered, MECHANISM_PLUS, "y,,n=,r=abc"),
        (&offered, MECHANISM_PLUS, "p=tls-unique,,n=,r=abc"),
        (&offered, MECHANISM_PLUS, "p=,,n=,r=abc"),
        (&offered, MECHANISM_PLUS, "p=tls-server-end-point ,,n=,r=abc"),
        // Mechanisms nobody offered.
        (&none, b"SCRAM-SHA-1", "n,,n=,r=abc"),
        (&none, b"", "n,,n=,r=abc"),
        // Malformed.
        (&none, MECHANISM, ""),
        (&none, MECHANISM, "n"),
        (&none, MECHANISM, "n,"),
        (&none, MECHANISM, "n,,"),
        (&none, MECHANISM, "N,,n=,r=abc"),
        (&none, MECHANISM, "n,a=admin,n=,r=abc"),
        (&none, MECHANISM, "n,x,n=,r=abc"),
        (&none, MECHANISM, "n,,r=abc,n="),
        (&none, MECHANISM, "n,,n="),
        (&none, MECHANISM, "n,,n=,r="),
        (&none, MECHANISM, "n,,n=,r=a b"),
        (&none, MECHANISM, "n,,n=,r=é"),
        (&none, MECHANISM, "n,,m=must,n=,r=abc"),
        (&none, MECHANISM, "n,,n=,r=abc,m=must"),
        (&none, MECHANISM, "n,,n=,r=abc,"),
        (&none, MECHANISM, "n,,n=,r=abc\0"),
        (&none, MECHANISM, &long),
    ];
    for (binding, mechanism, first) in refused {
        assert!(begin(binding, mechanism, first).is_err(), "{} {first}", mechanism.escape_ascii());
    }
}

/// An honest client's last message, changed.
fn finish(change: impl FnOnce(&str) -> String) -> Result<(), ScramError> {
    let (opening, mechanism, first) = Opening::new(ClientBinding::Impossible, &[4; 18]);
    let chosen = (mechanism, &first[..]);
    let (exchange, challenge) =
        Exchange::begin(&Binding::None, chosen, Stored::Real(pencil()), &[9; 18]).unwrap();
    let challenged = opening.challenged(&challenge, 4096).unwrap();
    let keys = Keys::of(&salted_password(b"pencil", &challenged.salt, challenged.iterations));
    let (closing, last) = challenged.prove(&keys);
    let changed = change(std::str::from_utf8(&last).unwrap());
    let (message, learned) = exchange.finish(changed.as_bytes())?;
    assert_eq!(learned.keys, keys, "the client's key is learned");
    closing.verify(&message)
}

#[test]
fn a_hostile_clients_last_message_is_refused() {
    assert_eq!(finish(str::to_owned), Ok(()));
    assert_eq!(finish(|last| last.replace(",p=", ",x=y,p=")), Err(ScramError::WrongProof));
    let malformed: [fn(&str) -> String; 12] = [
        |last| last.replace("c=biws", "c=eSws"),
        |last| last.replace("c=biws", "c=biw"),
        |last| last.replace("c=biws,", ""),
        |last| last.replace(",r=", ",r=x"),
        |last| last.replace(",p=", "x,p="),
        |last| last.replace(",p=", ",m=x,p="),
        |last| last.replace(",p=", ",p=AAAA"),
        |last| last.replace(",p=", ",q="),
        |last| format!("{last},x=trailing"),
        |last| format!("{last}="),
        |last| last.split(",p=").next().unwrap().to_owned(),
        |_| String::new(),
    ];
    for (at, change) in malformed.into_iter().enumerate() {
        let found = finish(change);
        assert!(!matches!(found, Ok(()) | Err(ScramError::WrongProof)), "{at}: {found:?}");
    }
}

fn challenged(message: &str) -> Result<(), ScramError> {
    let (opening, _, _) = Opening::new(ClientBinding::Impossible, &[4; 18]);
    let ours = message::encode(&[4; 18]);
    let message = message.replace("{ours}", &ours);
    opening.challenged(message.as_bytes(), 1_000_000).map(|_| ())
}

#[test]
fn a_hostile_servers_challenge_is_refused() {
    let salt = |bytes: usize| message::encode(&vec![1; bytes]);
    for bytes in [1, 16, 32, 256] {
        assert_eq!(challenged(&format!("r={{ours}}x,s={},i=4096", salt(bytes))), Ok(()));
    }
    assert_eq!(challenged("r={ours}x,s=AAAA,i=1"), Ok(()));
    for count in ["0", "1000001", "2147483648", "99999999999999999999"] {
        let found = challenged(&format!("r={{ours}}x,s=AAAA,i={count}"));
        assert_eq!(found, Err(ScramError::Iterations), "{count}");
    }
    let long = format!("r={{ours}}x,s={},i=1", salt(257));
    let longer = format!("r={{ours}}{},s=AAAA,i=1", "x".repeat(MESSAGE_BYTES_MAX));
    for message in [
        "",
        "r={ours}x",
        "r={ours}x,s=AAAA",
        "r={ours}x,i=1,s=AAAA",
        "r={ours},s=AAAA,i=1",
        "r=other,s=AAAA,i=1",
        "r={ours}x,s=,i=1",
        "r={ours}x,s=AAA,i=1",
        "r={ours}x,s=AAAA,i=",
        "r={ours}x,s=AAAA,i=-1",
        "r={ours}x,s=AAAA,i=+1",
        "r={ours}x,s=AAAA,i= 1",
        "r={ours}x,s=AAAA,i=0x10",
        "m=x,r={ours}x,s=AAAA,i=1",
        "r={ours}x,s=AAAA,i=1,m=x",
        "e=other-error",
        &long,
        &longer,
    ] {
        assert!(challenged(message).is_err(), "{message}");
    }
}

#[test]
fn a_server_that_does_not_know_us_is_found_out() {
    let verify = |change: fn(&str) -> String| {
        let (opening, mechanism, first) = Opening::new(ClientBinding::Impossible, &[4; 18]);
        let chosen = (mechanism, &first[..]);
        let (exchange, challenge) =
            Exchange::begin(&Binding::None, chosen, Stored::Real(pencil()), &[9; 18]).unwrap();
        let challenged = opening.challenged(&challenge, 4096).unwrap();
        let keys = Keys::of(&salted_password(b"pencil", &challenged.salt, 4096));
        let (closing, last) = challenged.prove(&keys);
        let (message, _) = exchange.finish(&last).unwrap();
        closing.verify(change(std::str::from_utf8(&message).unwrap()).as_bytes())
    };
    assert_eq!(verify(str::to_owned), Ok(()));
    let zero = || format!("v={}", message::encode(&[0; 32]));
    assert_eq!(verify(|_| format!("v={}", message::encode(&[0; 32]))), Err(ScramError::WrongProof));
    assert_eq!(verify(|_| "e=invalid-proof".to_owned()), Err(ScramError::WrongProof));
    assert_eq!(verify(|_| "v=".to_owned()), Err(ScramError::WrongProof));
    for change in [
        (|_: &str| String::new()) as fn(&str) -> String,
        |message| message.replace("v=", "w="),
        |message| format!("{message},m=x"),
        |message| format!("{message}\0"),
    ] {
        assert!(verify(change).is_err());
    }
    assert_eq!(zero().len(), 46);
}

#[test]
fn a_made_up_verifier_stays_the_same_and_looks_like_the_others() {
    let one = server::made_up(&[1; 32], "nobody", (4096, 16));
    assert_eq!(one, server::made_up(&[1; 32], "nobody", (4096, 16)));
    assert_ne!(one.salt, server::made_up(&[1; 32], "somebody", (4096, 16)).salt);
    assert_ne!(one.salt, server::made_up(&[2; 32], "nobody", (4096, 16)).salt);
    let long = server::made_up(&[1; 32], "nobody", (5000, 40));
    assert_eq!((long.iterations, long.salt.len()), (5000, 40));
    assert_ne!(long.salt[..8], long.salt[32..]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_honest_ends_agree(
        password in prop::collection::vec(1_u8.., 1..40),
        other in prop::collection::vec(1_u8.., 1..40),
        bound in prop::collection::vec(any::<u8>(), 32..64),
    ) {
        fuzz::agree(&password, &other, &bound);
    }

    #[test]
    fn any_bytes_are_refused_or_understood(
        text in "[nyp]?,?[,=a-zA-Z0-9+/-]{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        fuzz::messages(text.as_bytes());
        fuzz::messages(&bytes);
    }
}
