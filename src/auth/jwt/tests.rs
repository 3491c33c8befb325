use serde_json::json;

use super::*;
use crate::auth::issuer_tests::{Signer, encode, key_set};

const NOW: u64 = 1_790_000_000;

fn path(names: &[&str]) -> ClaimPath {
    ClaimPath(names.iter().map(|name| (*name).to_owned()).collect())
}

fn expectations() -> Expectations {
    Expectations {
        issuer: "https://id.example".to_owned(),
        audience: vec!["shop".to_owned(), "shop-batch".to_owned()],
        algorithms: [Algorithm::Es256, Algorithm::EdDsa].into(),
        leeway_s: 30,
        user_claim: path(&["sub"]),
        user: UserMatch::Same,
        attributes: [("tenant".into(), path(&["https://shop.example/org", "tenant"]))].into(),
        roles_claim: Some(path(&["groups"])),
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example",
        "aud": "shop",
        "sub": "maria",
        "exp": NOW + 300,
        "iat": NOW - 5,
        "https://shop.example/org": {"tenant": "acme"},
        "groups": ["support", "staff"],
    })
}

/// A set with one key of each kind, and what signs with the P-256 one.
struct Issuer {
    p256: Signer,
    ed25519: Signer,
    keys: KeySet,
}

impl Issuer {
    fn new() -> Self {
        let (p256, ed25519) = (Signer::p256(), Signer::ed25519());
        let keys = KeySet::parse(&key_set(&[p256.jwk("a"), ed25519.jwk("b")])).unwrap();
        Self { p256, ed25519, keys }
    }

    fn token(&self, claims: &Value) -> String {
        self.p256.sign(&json!({"alg": "ES256", "kid": "a", "typ": "JWT"}), claims)
    }

    fn judge(&self, token: &str) -> Result<Holder, Refused> {
        verify(token.as_bytes(), &self.keys, &expectations(), "maria", NOW)
    }
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = claims();
    change(&mut claims);
    claims
}

#[test]
fn a_good_token_says_who_and_what() {
    let issuer = Issuer::new();
    let holder = issuer.judge(&issuer.token(&claims())).unwrap();
    assert_eq!(holder.subject, "maria");
    let attributes: Vec<_> = holder.asserted.attributes.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(attributes, [("tenant", "acme")]);
    let roles: Vec<_> = holder.asserted.roles.iter().map(|role| &**role).collect();
    assert_eq!(roles, ["staff", "support"]);
    let other = issuer.ed25519.sign(&json!({"alg": "EdDSA", "kid": "b"}), &claims());
    assert!(issuer.judge(&other).is_ok());
}

/// Claims may come in several forms.
#[test]
fn what_is_still_good() {
    let issuer = Issuer::new();
    for (what, claims) in [
        ("a list of audiences", with(|c| c["aud"] = json!(["other", "shop-batch"]))),
        ("an end with a fraction", with(|c| c["exp"] = json!(1_790_000_300.25))),
        ("just ended, within the leeway", with(|c| c["exp"] = json!(NOW - 29))),
        ("good in a moment", with(|c| c["nbf"] = json!(NOW + 30))),
        ("no attribute", with(|c| c["https://shop.example/org"] = json!({}))),
        ("a number", with(|c| c["https://shop.example/org"]["tenant"] = json!(-7))),
        ("no roles", with(|c| c["groups"] = json!(null))),
        ("roles as a text", with(|c| c["groups"] = json!("support staff"))),
    ] {
        assert!(issuer.judge(&issuer.token(&claims)).is_ok(), "{what}");
    }
}

#[test]
fn every_claim_that_refuses() {
    let issuer = Issuer::new();
    let tenant = |value: Value| with(|c| c["https://shop.example/org"]["tenant"] = value);
    let without = |name: &str| {
        with(|c| {
            c.as_object_mut().unwrap().remove(name);
        })
    };
    for (claims, reason) in [
        (with(|c| c["iss"] = json!("https://id.example/")), Refused::Issuer),
        (with(|c| c["iss"] = json!(["https://id.example"])), Refused::Issuer),
        (without("iss"), Refused::Issuer),
        (with(|c| c["aud"] = json!("Shop")), Refused::Audience),
        (with(|c| c["aud"] = json!([])), Refused::Audience),
        (with(|c| c["aud"] = json!([["shop"]])), Refused::Audience),
        (without("aud"), Refused::Audience),
        (without("exp"), Refused::NoExpiry),
        (with(|c| c["exp"] = json!(NOW - 30)), Refused::Expired),
        (with(|c| c["exp"] = json!((NOW + 300).to_string())), Refused::Malformed),
        (with(|c| c["exp"] = json!(-1)), Refused::Malformed),
        (with(|c| c["exp"] = json!(1e300)), Refused::Malformed),
        (with(|c| c["exp"] = json!(null)), Refused::Malformed),
        (with(|c| c["nbf"] = json!(NOW + 31)), Refused::NotYet),
        (with(|c| c["nbf"] = json!("now")), Refused::Malformed),
        (with(|c| c["iat"] = json!(NOW + 31)), Refused::FromFuture),
        (with(|c| c["sub"] = json!("Maria")), Refused::OtherUser),
        (with(|c| c["sub"] = json!("")), Refused::NoUser),
        (with(|c| c["sub"] = json!(["maria"])), Refused::NoUser),
        (without("sub"), Refused::NoUser),
        (tenant(json!(["acme"])), Refused::Claim),
        (tenant(json!({"a": 1})), Refused::Claim),
        (tenant(json!(null)), Refused::Claim),
        (tenant(json!(1.5)), Refused::Claim),
        (tenant(json!("")), Refused::Claim),
        (tenant(json!("a\u{0}b")), Refused::Claim),
        (tenant(json!("x".repeat(VALUE_BYTES_MAX + 1))), Refused::Claim),
        (with(|c| c["groups"] = json!([1])), Refused::Claim),
        (with(|c| c["groups"] = json!(7)), Refused::Claim),
        (with(|c| c["groups"] = json!(vec!["r"; ROLES_MAX + 1])), Refused::Claim),
    ] {
        assert_eq!(issuer.judge(&issuer.token(&claims)).unwrap_err(), reason, "{claims}");
    }
    let twice = issuer.p256.sign_text(
        r#"{"alg":"ES256","kid":"a"}"#,
        &claims().to_string().replace(r#""sub":"#, r#""sub":"root","sub":"#),
    );
    assert_eq!(issuer.judge(&twice).unwrap_err(), Refused::Malformed);
}

#[test]
fn every_header_that_refuses() {
    let issuer = Issuer::new();
    for (header, reason) in [
        (json!({"alg": "none"}), Refused::Algorithm),
        (json!({"alg": "None", "kid": "a"}), Refused::Algorithm),
        (json!({"alg": "HS256", "kid": "a"}), Refused::Algorithm),
        (json!({"alg": "ES384", "kid": "a"}), Refused::Algorithm),
        (json!({"alg": "RS256", "kid": "a"}), Refused::Algorithm),
        (json!({"kid": "a"}), Refused::Malformed),
        (json!({"alg": ["ES256"], "kid": "a"}), Refused::Malformed),
        (json!({"alg": "ES256", "kid": 7}), Refused::Malformed),
        (json!({"alg": "ES256", "kid": "z"}), Refused::UnknownKey),
        (json!({"alg": "EdDSA", "kid": "a"}), Refused::UnknownKey),
        (json!({"alg": "EdDSA", "kid": "b"}), Refused::Signature),
        (json!({"alg": "ES256", "kid": "a", "crit": ["exp"]}), Refused::Critical),
        (json!({"alg": "ES256", "kid": "a", "crit": []}), Refused::Critical),
        (json!({"alg": "ES256", "kid": "a", "typ": "logout+jwt"}), Refused::Type),
        (json!({"alg": "ES256", "kid": "a", "typ": 1}), Refused::Malformed),
    ] {
        let token = issuer.p256.sign(&header, &claims());
        assert_eq!(issuer.judge(&token).unwrap_err(), reason, "{header}");
    }
    for kind in ["jwt", "JWT", "application/jwt", "at+JWT"] {
        let header = json!({"alg": "ES256", "kid": "a", "typ": kind});
        assert!(issuer.judge(&issuer.p256.sign(&header, &claims())).is_ok(), "{kind}");
    }
}

/// Keys that a token brings along are nobody's.
#[test]
fn a_key_in_the_header_is_not_used() {
    let issuer = Issuer::new();
    let forger = Signer::p256();
    for extra in [
        json!({"jwk": forger.jwk("a")}),
        json!({"jku": "https://forger.example/keys"}),
        json!({"x5u": "https://forger.example/cert"}),
    ] {
        let mut header = json!({"alg": "ES256", "kid": "a"});
        header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let token = forger.sign(&header, &claims());
        assert_eq!(issuer.judge(&token).unwrap_err(), Refused::Signature, "{header}");
    }
}

/// The public key taken for an HMAC secret, the classic confusion, even if HMAC were allowed.
#[test]
fn a_public_key_is_never_a_secret() {
    let issuer = Issuer::new();
    let Signer::P256(pair) = &issuer.p256 else { panic!("another key") };
    let public = ring::signature::KeyPair::public_key(pair).as_ref().to_vec();
    let token = Signer::Hmac(public).sign(&json!({"alg": "HS256", "kid": "a"}), &claims());
    let mut lax = expectations();
    lax.algorithms.insert(Algorithm::Hs256);
    let judged = verify(token.as_bytes(), &issuer.keys, &lax, "maria", NOW);
    assert_eq!(judged.unwrap_err(), Refused::UnknownKey);
}

#[test]
fn a_shared_secret_signs_where_it_is_configured() {
    let secret = vec![7; 32];
    let keys = KeySet::of_secret(secret.clone()).unwrap();
    let expected = Expectations { algorithms: [Algorithm::Hs256].into(), ..expectations() };
    let judge = |signer: Signer, header: Value| {
        let token = signer.sign(&header, &claims());
        verify(token.as_bytes(), &keys, &expected, "maria", NOW)
    };
    let header = || json!({"alg": "HS256", "kid": "whatever"});
    assert!(judge(Signer::Hmac(secret), header()).is_ok());
    assert_eq!(judge(Signer::Hmac(vec![8; 32]), header()).unwrap_err(), Refused::Signature);
    assert_eq!(judge(Signer::p256(), json!({"alg": "ES256"})).unwrap_err(), Refused::Algorithm);
}

#[test]
fn without_a_key_id_one_key_must_fit() {
    let issuer = Issuer::new();
    let token = issuer.p256.sign(&json!({"alg": "ES256"}), &claims());
    assert!(issuer.judge(&token).is_ok());
    let keys = [issuer.p256.jwk("a"), Signer::p256().jwk("c")];
    let two = KeySet::parse(&key_set(&keys)).unwrap();
    let judged = verify(token.as_bytes(), &two, &expectations(), "maria", NOW);
    assert_eq!(judged.unwrap_err(), Refused::WhichKey);
    // Two keys of one name: either may have signed.
    let keys = [Signer::p256().jwk("a"), issuer.p256.jwk("a")];
    let twins = KeySet::parse(&key_set(&keys)).unwrap();
    let token = issuer.token(&claims());
    assert!(verify(token.as_bytes(), &twins, &expectations(), "maria", NOW).is_ok());
}

#[test]
fn a_token_of_any_holder_opens_a_listed_account_where_it_is_configured() {
    let issuer = Issuer::new();
    let expected = Expectations { user: UserMatch::Any, ..expectations() };
    let token = issuer.token(&claims());
    let holder = verify(token.as_bytes(), &issuer.keys, &expected, "app_ro", NOW).unwrap();
    assert_eq!(holder.subject, "maria");
    assert_eq!(issuer.judge(&token).map(|holder| holder.subject).as_deref(), Ok("maria"));
    let judged = verify(token.as_bytes(), &issuer.keys, &expectations(), "app_ro", NOW);
    assert_eq!(judged.unwrap_err(), Refused::OtherUser);
}

#[test]
fn changed_and_misshapen_tokens_are_refused() {
    let issuer = Issuer::new();
    let token = issuer.token(&claims());
    let parts: Vec<&str> = token.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let root = encode(with(|c| c["sub"] = json!("root")).to_string().as_bytes());
    let none = encode(br#"{"alg":"none"}"#);
    for (what, text, reason) in [
        ("another payload", format!("{header}.{root}.{signature}"), Refused::Signature),
        ("no signature", format!("{header}.{payload}."), Refused::Signature),
        ("none", format!("{none}.{payload}."), Refused::Algorithm),
        ("two parts", format!("{header}.{payload}"), Refused::Malformed),
        ("four parts", format!("{token}.x"), Refused::Malformed),
        ("five parts", format!("{header}..{payload}.{payload}.{signature}"), Refused::Malformed),
        ("padding", format!("{header}.{payload}.{signature}="), Refused::Malformed),
        ("a space", format!("{token} "), Refused::Malformed),
        ("a line", format!("{header}.{payload}\n.{signature}"), Refused::Malformed),
        ("nothing", String::new(), Refused::Malformed),
        ("dots", "..".to_owned(), Refused::Malformed),
        ("a password", "hunter2".to_owned(), Refused::Malformed),
        ("too long", "x".repeat(TOKEN_BYTES_MAX + 1), Refused::TooLong),
    ] {
        assert_eq!(issuer.judge(&text).unwrap_err(), reason, "{what}");
    }
    let judged = verify(b"\xff.\xff.\xff", &issuer.keys, &expectations(), "maria", NOW);
    assert_eq!(judged.unwrap_err(), Refused::Malformed);
    // The last letter of 64 bytes holds four bits that mean nothing: they must be zero.
    let last = signature.chars().last().unwrap();
    let twin = char::from_u32(u32::from(last) + 1).unwrap();
    let trailing = format!("{header}.{payload}.{}{twin}", signature.strip_suffix(last).unwrap());
    assert!(issuer.judge(&trailing).is_err());
}

/// Signed by OpenSSL with one RSA key, one token for each algorithm.
#[test]
fn rsa_signatures_of_another_implementation_are_checked() {
    let lines: BTreeMap<&str, &str> =
        include_str!("rsa_tokens.txt").lines().filter_map(|line| line.split_once(' ')).collect();
    let jwk = json!({"kty": "RSA", "kid": "rsa", "n": lines["n"], "e": "AQAB"});
    let keys = KeySet::parse(&key_set(&[jwk])).unwrap();
    for name in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        let algorithm = Algorithm::parse(name).unwrap();
        let expected = Expectations { algorithms: [algorithm].into(), ..expectations() };
        let judge = |token: &str| verify(token.as_bytes(), &keys, &expected, "maria", NOW);
        assert!(judge(lines[name]).is_ok(), "{name}");
        let (message, signature) = lines[name].rsplit_once('.').unwrap();
        let (first, rest) = signature.split_at(1);
        let forged = format!("{message}.{}{rest}", if first == "A" { "B" } else { "A" });
        assert_eq!(judge(&forged).unwrap_err(), Refused::Signature, "{name}");
    }
}
