use serde_json::{Value, json};

use super::*;
use crate::analysis::sql::Predicates;
use crate::auth::api_key::NewKey;
use crate::auth::issuer_tests::{Signer, key_set};
use crate::auth::jwks::{Algorithm, KeySet};
use crate::auth::jwt::{ClaimPath, UserMatch};
use crate::policy::{RuleSet, SourceFile};
use crate::session::auth::Method;
use crate::session::pg::scram;

const NOW: Now = Now { wall_us: 1_790_000_000_000_000, mono_us: 1_000_000 };

fn rules(identities: &str) -> ArcSwap<ActiveRules> {
    let text = format!("version: 1\n{identities}\n");
    let file = SourceFile { name: "identities.yaml".to_owned(), text };
    let set = RuleSet::compile(&[], Some(&file)).unwrap().0;
    ArcSwap::from_pointee(ActiveRules {
        set,
        predicates: Predicates::default(),
        digest: String::new(),
        generation: 1,
    })
}

fn attempt(kind: PasswordKind) -> Attempt {
    Attempt {
        user: "maria".to_owned(),
        database: "orders".to_owned(),
        address: None,
        entry: 1,
        method: Method::Password(kind),
    }
}

fn path(name: &str) -> ClaimPath {
    ClaimPath(vec![name.to_owned()])
}

fn judge(signer: &Signer) -> Judge {
    let keys = KeySet::parse(&key_set(&[signer.jwk("a")])).unwrap();
    let expected = Expectations {
        issuer: "i".to_owned(),
        audience: vec!["shop".to_owned()],
        algorithms: [Algorithm::Es256].into(),
        leeway_s: 0,
        user_claim: path("sub"),
        user: UserMatch::Same,
        attributes: [("tenant".into(), path("tenant"))].into(),
        roles_claim: None,
    };
    let issuer = Issuer { expected, source: KeySource::fixed("i", keys) };
    Judge {
        datasource: "shop".into(),
        issuers: vec![None, Some(Arc::new(issuer))],
        desk: Arc::default(),
        decoy: [7; 32],
        derivation: Derivation::default(),
    }
}

fn token(signer: &Signer, tenant: &str) -> Secret {
    let claims: Value = json!({
        "iss": "i", "aud": "shop", "sub": "maria", "exp": 1_790_000_100, "tenant": tenant,
    });
    Secret::new(signer.sign(&json!({"alg": "ES256", "kid": "a"}), &claims).into_bytes())
}

#[tokio::test]
async fn a_stored_password_opens_for_its_user_alone() {
    let verifier = scram::verifier(b"right", b"salt".to_vec(), 4096);
    let identities = format!("identities:\n  - {{user: maria, login: {{scram: '{verifier}'}}}}");
    let (judge, in_force) = (judge(&Signer::p256()), rules(&identities));
    let of = |user: &str| Attempt { user: user.into(), ..attempt(PasswordKind::Stored) };
    let refused = Reply::Refused("the password is wrong, or no such user");
    let granted = Reply::Granted(Grant { credential: Credential::Name, subject: None });
    for (user, password, expected) in [
        ("maria", "right", &granted),
        ("maria", "right ", &refused),
        ("maria", "wrong", &refused),
        ("jonas", "right", &refused),
    ] {
        let (attempt, password) = (of(user), Secret::new(password.into()));
        let reply = judge.judge(&in_force, (&attempt, PasswordKind::Stored), &password, NOW).await;
        assert_eq!(&reply, expected, "{user}");
    }
    // Nothing that could be the made-up verifier's password lets anybody in.
    let unknown =
        scram::server::made_up(&judge.decoy, "jonas", in_force.load().set.usual_verifier());
    assert_eq!((unknown.iterations, unknown.salt.len()), (4096, 4));
}

#[tokio::test]
async fn a_key_opens_and_its_uses_are_remembered() {
    let key = NewKey::generate().unwrap();
    let identities = format!(
        "identities:\n  - {{user: maria, keys: [{{prefix: {}, sha256: {}, scopes: 'datasource:shop'}}]}}",
        key.prefix, key.sha256
    );
    let judge = judge(&Signer::p256());
    let attempt = attempt(PasswordKind::ApiKey);
    let ask = async |rules: &ArcSwap<ActiveRules>, key: &str| {
        let password = Secret::new(key.as_bytes().to_vec());
        judge.judge(rules, (&attempt, PasswordKind::ApiKey), &password, NOW).await
    };
    let in_force = rules(&identities);
    let Reply::Granted(grant) = ask(&in_force, &key.key).await else { panic!("refused") };
    assert_eq!(grant.credential, Credential::ApiKey(key.prefix.as_str().into()));
    assert_eq!(grant.subject.as_deref(), Some(&*key.prefix));
    let other = NewKey::generate().unwrap();
    assert_eq!(ask(&in_force, &other.key).await, Reply::Refused("unknown API key"));
    let revoked = rules(&identities.replace("scopes:", "revoked: true, scopes:"));
    assert_eq!(ask(&revoked, &key.key).await, Reply::Refused("API key revoked"));
    let used = judge.desk.of(&key.prefix).unwrap();
    assert_eq!((used.logins, used.refused), (1, 1));
    assert_eq!(judge.desk.of(&other.prefix), None, "only known keys are remembered");
}

#[tokio::test]
async fn a_token_brings_its_claims_unless_the_file_says_otherwise() {
    let signer = Signer::p256();
    let judge = judge(&signer);
    let in_force = rules(
        "claims: {attributes: [tenant]}\nidentities:\n  - {user: maria, attributes: {tenant: acme}}",
    );
    let attempt = attempt(PasswordKind::Jwt);
    let ask = async |token: Secret, entry: usize| {
        let attempt = Attempt { entry, ..attempt.clone() };
        judge.judge(&in_force, (&attempt, PasswordKind::Jwt), &token, NOW).await
    };
    let Reply::Granted(grant) = ask(token(&signer, "acme"), 1).await else { panic!("refused") };
    assert_eq!(grant.subject.as_deref(), Some("maria"));
    let Credential::Token(asserted) = grant.credential else { panic!("no token") };
    assert_eq!(asserted.attributes.get("tenant").map(|value| &**value), Some("acme"));
    let contradicts = Reply::Refused("token contradicts the identities file");
    assert_eq!(ask(token(&signer, "other"), 1).await, contradicts);
    let forged = token(&Signer::p256(), "acme");
    assert_eq!(ask(forged, 1).await, Reply::Refused("token with a wrong signature"));
    for entry in [0, 2] {
        let reply = ask(token(&signer, "acme"), entry).await;
        assert!(matches!(reply, Reply::Refused(_)), "an entry without an issuer");
    }
}

#[tokio::test]
async fn without_keys_nothing_can_be_said() {
    use crate::auth::key_source::{Bounds, Origin};
    let signer = Signer::p256();
    let mut judge = judge(&signer);
    let second = std::time::Duration::from_secs(1);
    let bounds = Bounds { cache: second, retry: second, keep: second };
    let source = KeySource::new("i", Origin::File("/nowhere".into()), bounds);
    source.tried(NOW.mono_us);
    let expected = judge.issuers[1].as_ref().unwrap().expected.clone();
    judge.issuers[1] = Some(Arc::new(Issuer { expected, source }));
    let attempt = attempt(PasswordKind::Jwt);
    let rules = rules("identities: []");
    let asked = (&attempt, PasswordKind::Jwt);
    let reply = judge.judge(&rules, asked, &token(&signer, "acme"), NOW).await;
    assert!(matches!(reply, Reply::Unavailable(_)), "{reply:?}");
}
