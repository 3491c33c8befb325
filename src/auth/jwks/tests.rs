use serde_json::json;

use super::*;
use crate::auth::issuer_tests::{Signer, encode, key_set};

fn parse(keys: &[Value]) -> Result<KeySet, BadKeySet> {
    KeySet::parse(&key_set(keys))
}

#[test]
fn keys_of_every_kind_are_read_and_fit_their_algorithms_only() {
    let modulus = encode(&[0xc5; 256]);
    let set = parse(&[
        json!({"kty": "RSA", "kid": "r", "n": modulus, "e": "AQAB"}),
        json!({"kty": "RSA", "kid": "r256", "alg": "RS256", "n": modulus, "e": "AQAB"}),
        Signer::p256().jwk("p256"),
        Signer::p384().jwk("p384"),
        Signer::ed25519().jwk("ed"),
    ])
    .unwrap();
    assert_eq!(set.len(), 5);
    let fitting = |name: &str| {
        let algorithm = Algorithm::parse(name).unwrap();
        let ids = set.candidates(None, algorithm).map(|key| key.id.clone().unwrap());
        ids.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(fitting("RS256"), "r r256");
    assert_eq!(fitting("PS512"), "r");
    assert_eq!(fitting("ES256"), "p256");
    assert_eq!(fitting("ES384"), "p384");
    assert_eq!(fitting("EdDSA"), "ed");
    for name in ["HS256", "HS384", "HS512"] {
        assert_eq!(fitting(name), "", "a public key is no secret");
    }
    assert_eq!(set.candidates(Some("p256"), Algorithm::Es256).count(), 1);
    assert_eq!(set.candidates(Some("p256"), Algorithm::Rs256).count(), 0);
    assert_eq!(set.candidates(Some("gone"), Algorithm::Es256).count(), 0);
    assert_eq!(Algorithm::parse("none"), None);
    assert_eq!(Algorithm::parse("NONE"), None);
    assert_eq!(Algorithm::parse("rs256"), None);
}

#[test]
fn what_cannot_check_a_signature_is_left_out() {
    let good = Signer::ed25519().jwk("good");
    let modulus = encode(&[0xc5; 256]);
    for other in [
        json!({"kty": "oct", "kid": "x", "k": encode(&[7; 64])}),
        json!({"kty": "RSA", "use": "enc", "n": modulus, "e": "AQAB"}),
        json!({"kty": "RSA", "use": 1, "n": modulus, "e": "AQAB"}),
        json!({"kty": "RSA", "key_ops": ["encrypt"], "n": modulus, "e": "AQAB"}),
        json!({"kty": "RSA", "alg": "RSA-OAEP", "n": modulus, "e": "AQAB"}),
        json!({"kty": "RSA", "n": encode(&[0xc5; 128]), "e": "AQAB"}),
        json!({"kty": "RSA", "n": encode(&[0xc5; 2048]), "e": "AQAB"}),
        json!({"kty": "RSA", "n": "?", "e": "AQAB"}),
        json!({"kty": "RSA", "e": "AQAB"}),
        json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}),
        json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}),
        json!({"kty": "EC", "crv": "secp256k1", "x": encode(&[1; 32]), "y": encode(&[1; 32])}),
        json!({"kty": "OKP", "crv": "X25519", "x": encode(&[1; 32])}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": encode(&[1; 31])}),
        json!({"kty": "later"}),
        json!({}),
    ] {
        assert_eq!(parse(&[other.clone(), good.clone()]).unwrap().len(), 1, "{other}");
        assert_eq!(parse(std::slice::from_ref(&other)).unwrap_err(), BadKeySet::Empty, "{other}");
    }
}

#[test]
fn sets_that_are_none_are_refused() {
    let good = Signer::ed25519().jwk("good");
    for text in
        ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[1]}"#, "<html>", r#"{"keys":[],"keys":[]}"#]
    {
        assert_eq!(KeySet::parse(text.as_bytes()).unwrap_err(), BadKeySet::Malformed, "{text}");
    }
    assert_eq!(KeySet::parse(br#"{"keys":[]}"#).unwrap_err(), BadKeySet::Empty);
    let many = vec![good.clone(); KEYS_MAX + 1];
    assert_eq!(parse(&many).unwrap_err(), BadKeySet::TooMany);
    let long = vec![b' '; KEY_SET_BYTES_MAX + 1];
    assert_eq!(KeySet::parse(&long).unwrap_err(), BadKeySet::TooLong);
    let mut private = good;
    private["d"] = json!("AAAA");
    assert_eq!(parse(&[private]).unwrap_err(), BadKeySet::Private);
}

#[test]
fn a_short_secret_is_none() {
    assert!(KeySet::of_secret(vec![1; 31]).is_none());
    let set = KeySet::of_secret(vec![1; 32]).unwrap();
    assert_eq!(set.candidates(Some("any"), Algorithm::Hs256).count(), 1);
    for (name, algorithm) in Algorithm::ALL {
        let fits = set.candidates(None, algorithm).count() == 1;
        assert_eq!(fits, algorithm.is_shared_secret(), "{name}");
    }
    assert!(!format!("{set:?}").contains('1'), "a secret in a log");
}
