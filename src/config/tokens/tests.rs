use std::path::Path;

use crate::auth::issuer_tests::{Signer, key_set};
use crate::config::Config;
use crate::policy::Diagnostic;

/// Checks a configuration with this entry in its `authentication`, in a folder with a key set.
fn check(entry: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("keys.json", &key_set(&[Signer::p256().jwk("a")]));
    write("empty.json", b"{\"keys\": []}");
    write("secret", b"0123456789abcdef0123456789abcdef\n");
    write("short", b"hunter2\n");
    std::fs::create_dir(folder.path().join("rules")).unwrap();
    let text = format!(
        "version: 1
datasources:
  - name: demo
    protocol: postgresql
    listen: \"127.0.0.1:6432\"
    upstream: \"127.0.0.1:5432\"
    default: allow
    authentication:
      - {{method: jwt, {entry}}}
    upstream_login:
      - {{user: app_ro, password_env: HOME}}
rules: {{directory: rules}}
audit: {{stdout: true}}
"
    );
    let lines =
        |list: Vec<Diagnostic>| list.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    Config::parse("p.yaml", &text, Path::new(folder.path()))
        .map(|(config, _)| config)
        .map_err(lines)
}

const WHO: &str = "issuer: 'https://id.example', audience: shop";

#[test]
fn tokens_are_accepted_from_one_source_of_keys() {
    for rest in [
        "algorithms: [RS256, ES256, EdDSA], jwks_file: keys.json",
        "algorithms: ES256, jwks_url: 'http://127.0.0.1:1/keys', cache: 1min, retry: 1s, keep: 1h",
        "algorithms: HS256, secret_file: secret",
        "algorithms: ES256, jwks_file: keys.json, user_claim: preferred_username, leeway: 1min",
        "algorithms: ES256, jwks_file: keys.json, users: [app_ro], user_must_match: false",
        "algorithms: ES256, jwks_file: keys.json, roles_claim: [realm_access, roles], \
         claims: {tenant: org.tenant, team: ['https://shop.example/team']}",
    ] {
        let config = check(&format!("{WHO}, {rest}")).unwrap();
        let issuers = &config.datasources[0].logins.issuers;
        assert_eq!((issuers.len(), issuers[0].is_some()), (1, true), "{rest}");
    }
}

#[test]
fn an_attribute_that_the_identities_do_not_allow_is_told() {
    use crate::policy::{RuleSet, SourceFile};
    let config = check(&format!(
        "{WHO}, algorithms: ES256, jwks_file: keys.json, claims: {{tenant: org.tenant}}"
    ));
    let config = config.unwrap();
    let set = |claims: &str| {
        let text = format!("version: 1\n{claims}\nidentities: []\n");
        let file = SourceFile { name: "identities.yaml".to_owned(), text };
        RuleSet::compile(&[], Some(&file)).unwrap().0
    };
    assert_eq!(config.fits(&set("claims: {attributes: [tenant]}")), Ok(()));
    let problem = config.fits(&set("claims: {attributes: [team]}")).unwrap_err();
    assert!(problem.contains("add `claims: {attributes: [tenant]}`"), "{problem}");
}

#[test]
fn mistakes_about_tokens_are_found() {
    for (entry, expected) in [
        ("audience: a, algorithms: ES256, jwks_file: keys.json", "`issuer` is missing"),
        ("issuer: i, algorithms: ES256, jwks_file: keys.json", "`audience` is missing"),
        ("issuer: i, audience: a, jwks_file: keys.json", "`algorithms` is missing"),
    ] {
        let problems = check(entry).unwrap_err();
        assert!(problems.contains(expected), "{entry}\n expected {expected}\n found {problems}");
    }
    for (rest, expected) in [
        ("algorithms: none, jwks_file: keys.json", "unknown algorithm `none`"),
        ("algorithms: [ES256, HS256], jwks_file: keys.json", "mixes shared secrets"),
        ("algorithms: HS256, jwks_file: keys.json", "comes from `secret_file` only"),
        ("algorithms: ES256, secret_file: secret", "needs algorithms that use it"),
        ("algorithms: HS256, secret_file: short", "fewer than 32 bytes"),
        ("algorithms: HS256, secret_file: nowhere", "nowhere"),
        ("algorithms: ES256", "one source of keys"),
        ("algorithms: ES256, jwks_file: keys.json, oidc: true", "one source of keys"),
        ("algorithms: ES256, jwks_file: nowhere.json", "nowhere.json"),
        ("algorithms: ES256, jwks_file: empty.json", "no key in it"),
        ("algorithms: ES256, jwks_file: keys.json, ca: system", "no effect on a file"),
        ("algorithms: ES256, jwks_url: 'http://id.example/keys'", "plain HTTP"),
        ("algorithms: ES256, jwks_url: 'https://id.example/keys', ca: nowhere.pem", "nowhere.pem"),
        ("algorithms: ES256, jwks_file: keys.json, leeway: 1h", "must be from"),
        ("algorithms: ES256, jwks_file: keys.json, keep: 0s", "must be from"),
        ("algorithms: ES256, jwks_file: keys.json, user_must_match: false", "every account"),
        (
            "algorithms: ES256, jwks_file: keys.json, users: ['app_*'], user_must_match: false",
            "every account",
        ),
        ("algorithms: ES256, jwks_file: keys.json, claims: {user: sub}", "not a name an attribute"),
        ("algorithms: ES256, jwks_file: keys.json, claims: {tenant: ''}", "name of a claim"),
        ("algorithms: ES256, jwks_file: keys.json, claims: {tenant: a..b}", "name of a claim"),
        ("algorithms: ES256, jwks_file: keys.json, binding: x", "unknown key `binding`"),
    ] {
        let problems = check(&format!("{WHO}, {rest}")).unwrap_err();
        assert!(problems.contains(expected), "{rest}\n expected {expected}\n found {problems}");
    }
}
