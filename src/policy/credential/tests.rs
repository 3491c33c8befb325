use super::*;
use crate::policy::{Decision, Identity, Login, RuleSet, SourceFile};

const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn compile(identities: &str, rules: &str) -> Result<(RuleSet, Vec<Diagnostic>), String> {
    let file = |name: &str, text: &str| SourceFile {
        name: name.to_owned(),
        text: format!("version: 1\n{text}\n"),
    };
    let identities = file("identities.yaml", identities);
    RuleSet::compile(&[file("r.yaml", rules)], Some(&identities))
        .map_err(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

fn set(identities: &str) -> RuleSet {
    match compile(identities, "") {
        Ok((set, _)) => set,
        Err(problems) => panic!("{problems}"),
    }
}

fn login(user: &str, credential: Credential) -> Login {
    Login {
        datasource: "shop".into(),
        protocol: crate::name::Protocol::POSTGRESQL,
        default_deny: false,
        user: user.to_owned(),
        database: "orders".to_owned(),
        address: None,
        application: String::new(),
        credential,
    }
}

fn token(roles: &[&str], attributes: &[(&str, &str)]) -> Credential {
    Credential::Token(Arc::new(Asserted {
        roles: roles.iter().map(|role| Arc::from(*role)).collect(),
        attributes: attributes
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
    }))
}

fn one_key(keys: &str) -> RuleSet {
    set(&format!(
        "identities:\n  - {{user: app, keys: [{{prefix: abcdef, sha256: {DIGEST}, {keys}}}]}}"
    ))
}

fn roles(identity: &Identity) -> Vec<&str> {
    identity.roles.iter().map(|role| &**role).collect()
}

#[test]
fn a_key_is_read_with_everything_that_narrows_it() {
    let set = one_key(
        "scopes: ['datasource:shop', 'database:ord*', 'role:reader'], allowed_ips: [10.0.0.0/8, ::1], \
         not_after: 2027-01-31, rate: 10/min, description: nightly report",
    );
    let key = set.key("abcdef").unwrap();
    assert_eq!(
        (&*key.user, key.revoked, key.sha256[0], key.sha256[31]),
        ("app", false, 0x9f, 0x08)
    );
    assert_eq!(key.description.as_deref(), Some("nightly report"));
    let end = 1_801_440_000_000_000;
    assert!(!key.expired(end - 1));
    assert!(key.expired(end));
    for (address, inside) in [
        (Some("10.1.2.3"), true),
        (Some("::ffff:10.1.2.3"), true),
        (Some("::1"), true),
        (Some("192.0.2.1"), false),
        (None, false),
    ] {
        let parsed = address.map(|text| text.parse().unwrap());
        assert_eq!(key.admits_address(parsed), inside, "{address:?}");
    }
    assert!(key.admits_database("shop", "orders"));
    assert!(!key.admits_database("shop", "payroll"));
    assert!(!key.admits_database("other", "orders"));
    let limit = key.limit().unwrap();
    assert_eq!((&*limit.rule.0, limit.count, limit.per_us), ("key:abcdef", 10, 60_000_000));
    assert!(set.key("abcdeg").is_none());
    assert!(!format!("{key:?}").contains("159"), "no digest in a log");
}

#[test]
fn a_bare_key_is_good_everywhere_and_always() {
    let set = one_key("");
    let key = set.key("abcdef").unwrap();
    assert!(!key.expired(u64::MAX));
    assert!(key.admits_address(None));
    assert!(key.admits_database("any", "thing"));
    assert!(key.limit().is_none());
}

#[test]
fn mistakes_in_keys_and_claims_are_load_errors() {
    let entry = |rest: &str| format!("identities:\n  - {{user: app, {rest}}}");
    let key = |rest: &str| entry(&format!("keys: [{{prefix: abcdef, sha256: {DIGEST}, {rest}}}]"));
    for (text, expected) in [
        (entry("keys: [{prefix: abcdef}]"), "`sha256` is missing"),
        (entry(&format!("keys: [{{sha256: {DIGEST}}}]")), "`prefix` is missing"),
        (entry(&format!("keys: [{{prefix: Ab_1, sha256: {DIGEST}}}]")), "6 to 32 lower-case"),
        (entry("keys: [{prefix: abcdef, sha256: pk_abcdef_secret}]"), "64 hexadecimal"),
        (key("scopes: read-only"), "allow rule with `statements: [read]`"),
        (key("scopes: ['table:x']"), "unknown scope `table:x`"),
        (key("scopes: ['database:']"), "names nothing"),
        (key("scopes: []"), "empty list"),
        (key("allowed_ips: [10.0.0.0/33]"), "not a network"),
        (key("allowed_ips: []"), "empty list"),
        (key("not_after: soon"), "not a date"),
        (key("rate: often"), "not a rate"),
        (key("secret: x"), "unknown key `secret`"),
        (
            entry(&format!(
                "keys: [{{prefix: abcdef, sha256: {DIGEST}}}, {{prefix: abcdef, sha256: {DIGEST}}}]"
            )),
            "a second key has the prefix `abcdef`",
        ),
        (
            format!(
                "identities:\n  - {{user: 'app_*', keys: [{{prefix: abcdef, sha256: {DIGEST}}}]}}"
            ),
            "keys belong to one user",
        ),
        (
            entry(&format!("networks: 10.0.0.0/8, keys: [{{prefix: abcdef, sha256: {DIGEST}}}]")),
            "keys belong to one user",
        ),
        ("identities: []\nclaims: {attributes: [user]}".to_owned(), "cannot be asserted"),
        ("identities: []\nclaims: {attributes: ['a-b']}".to_owned(), "not an attribute name"),
        ("identities: []\nclaims: {tenant: x}".to_owned(), "unknown key `tenant`"),
    ] {
        let problems = compile(&text, "").unwrap_err();
        assert!(problems.contains(expected), "{text}\n expected {expected}\n found {problems}");
        assert!(!problems.contains("pk_abcdef_secret"), "a key in a message: {problems}");
    }
}

#[test]
fn a_key_brings_its_roles_and_a_withdrawn_one_refuses_everything() {
    let set = one_key("scopes: 'role:reader'");
    let with =
        |prefix: &str, user: &str| set.identify(login(user, Credential::ApiKey(prefix.into())));
    assert_eq!(roles(&with("abcdef", "app")), ["reader"]);
    assert!(!with("abcdef", "app").withdrawn);
    assert_eq!(roles(&set.identify(login("app", Credential::Name))), Vec::<&str>::new());

    let revoked = one_key("revoked: true");
    let gone = self::set("identities: []");
    for (set, what) in [(&revoked, "revoked"), (&gone, "removed")] {
        let identity = set.identify(login("app", Credential::ApiKey("abcdef".into())));
        assert!(identity.withdrawn, "{what}");
        let class = set.classify(identity);
        assert!(class.concerned, "{what}");
        let facts = crate::facts::Facts {
            certainty: crate::facts::Certainty::Known,
            actions: Vec::new(),
            accesses: Vec::new(),
            functions: Vec::new(),
            settings: Vec::new(),
            store: crate::facts::StoreFacts::default(),
        };
        let Decision::Deny(denial) = set.decide(&class, &facts) else { panic!("{what}: allowed") };
        assert!(denial.message.contains("withdrawn"), "{what}");
        let other = set.classify(set.identify(login("app", Credential::Name)));
        assert_ne!(class.digest, other.digest, "a plan of one is no plan of the other");
    }
    assert!(with("abcdef", "somebody").withdrawn, "a key of another user");
}

const CLAIMS: &str = "claims: {attributes: [tenant, team], roles: [support]}\n\
                      identities:\n  - {user: maria, attributes: {tenant: acme}, roles: [staff]}";

#[test]
fn a_token_asserts_what_the_file_lets_it_and_nothing_else() {
    let set = set(CLAIMS);
    let credential =
        token(&["support", "admin"], &[("team", "blue"), ("tenant", "acme"), ("level", "9")]);
    let identity = set.identify(login("maria", credential.clone()));
    assert_eq!(roles(&identity), ["staff", "support"]);
    let attributes: Vec<_> = identity.attributes.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(attributes, [("team", "blue"), ("tenant", "acme")]);
    assert_eq!(set.contradicted(&login("maria", credential)), None);
}

#[test]
fn a_token_that_contradicts_the_file_is_told_and_gives_no_value() {
    let set = set(CLAIMS);
    let login = login("maria", token(&[], &[("tenant", "other")]));
    assert_eq!(set.contradicted(&login).as_deref(), Some("tenant"));
    assert!(set.identify(login).attributes.is_empty());
}

#[test]
fn rules_check_knows_what_tokens_and_keys_can_bring() {
    let identities = format!(
        "claims: {{attributes: [tenant], roles: [support]}}\n\
         identities:\n  - {{user: app, keys: [{{prefix: abcdef, sha256: {DIGEST}, scopes: 'role:reader'}}]}}"
    );
    let rules = "rules:\n  - {id: a, match: {roles: [support, reader], relations: [public.t]}, \
                 filter: 'tenant_id = :identity.tenant'}";
    let (set, warnings) = compile(&identities, rules).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(set.claimed_attributes().len(), 1);
    let (_, warnings) = compile("identities: []", rules).unwrap();
    assert_eq!(warnings.len(), 3);
}
