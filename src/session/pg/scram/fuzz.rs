//! What holds for any bytes a peer sends in an exchange; called by fuzzers and by tests.

use super::client::{Binding as ClientBinding, Opening};
use super::server::{Binding, Exchange, Stored};
use super::{Keys, MECHANISM, MECHANISM_PLUS, ScramError, verifier};

/// Bytes as a message of a hostile client in each place, and of a hostile server.
///
/// # Panics
/// A proof holds that nobody could make, or an exchange goes on with what it must refuse.
pub fn messages(input: &[u8]) {
    let stored = verifier(b"pencil", vec![7; 16], 1);
    let bindings = [Binding::None, Binding::Offered(vec![1; 32]), Binding::Required(vec![1; 32])];
    for binding in &bindings {
        for mechanism in [MECHANISM, MECHANISM_PLUS] {
            let chosen = (mechanism, input);
            let begun = Exchange::begin(binding, chosen, Stored::Real(stored.clone()), &[0; 18]);
            if let Ok((_, first)) = begun {
                assert!(first.starts_with(b"r="), "server-first-message begins with the nonce");
                let offered = binding.mechanisms().contains(&mechanism);
                assert!(offered, "a mechanism that was not offered was taken");
            }
        }
    }
    let opened = (MECHANISM, &b"n,,n=,r=abc"[..]);
    if let Ok((exchange, _)) =
        Exchange::begin(&Binding::None, opened, Stored::Real(stored.clone()), &[0; 18])
    {
        assert!(exchange.finish(input).is_err(), "a proof was guessed");
    }
    server(input, &stored);
}

fn server(input: &[u8], stored: &crate::policy::ScramVerifier) {
    let bound = [1; 32];
    for binding in
        [ClientBinding::Impossible, ClientBinding::NotOffered, ClientBinding::Used(&bound)]
    {
        let (opening, _, _) = Opening::new(binding, &[0; 18]);
        if let Ok(challenged) = opening.challenged(input, 1000) {
            assert!((1..=1000).contains(&challenged.iterations), "{challenged:?}");
            let keys = Keys { client_key: [0; 32], server_key: stored.server_key };
            let (closing, _) = challenged.prove(&keys);
            assert!(closing.verify(input).is_err(), "a signature was guessed");
        }
    }
}

/// Two honest ends agree whatever the password, and on nothing else than the same password.
///
/// # Panics
/// They do not.
pub fn agree(password: &[u8], other: &[u8], bound: &[u8]) {
    let salt = vec![3; 16];
    let stored = verifier(password, salt.clone(), 2);
    let run = |keys: &Keys, stored: Stored| -> Result<(), ScramError> {
        let (opening, mechanism, first) = Opening::new(ClientBinding::Used(bound), &[5; 18]);
        let binding = Binding::Required(bound.to_vec());
        let chosen = (mechanism, &first[..]);
        let (exchange, challenge) = Exchange::begin(&binding, chosen, stored, &[6; 18])?;
        let (closing, last) = opening.challenged(&challenge, 2)?.prove(keys);
        closing.verify(&exchange.finish(&last)?.0)
    };
    let keys = |password: &[u8]| Keys::of(&super::salted_password(password, &salt, 2));
    assert_eq!(run(&keys(password), Stored::Real(stored.clone())), Ok(()));
    assert_eq!(
        run(&keys(password), Stored::MadeUp(stored.clone())),
        Err(ScramError::WrongProof),
        "a made-up verifier let somebody in"
    );
    if super::prepared(password) != super::prepared(other) {
        assert_eq!(run(&keys(other), Stored::Real(stored)), Err(ScramError::WrongProof));
    }
}
