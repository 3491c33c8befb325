use super::*;
use crate::policy::{Asserted, RuleSet, SourceFile};

const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
    WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

fn compiled(identities: &str) -> Result<RuleSet, Vec<String>> {
    let rules = SourceFile { name: "r.yaml".into(), text: "version: 1\nrules: []\n".into() };
    let text = format!("version: 1\nidentities:\n{identities}");
    let identities = SourceFile { name: "i.yaml".into(), text };
    let compiled = RuleSet::compile(&[rules], Some(&identities));
    compiled.map(|(set, _)| set).map_err(|all| all.iter().map(ToString::to_string).collect())
}

fn login(user: &str, address: Option<&str>) -> Login {
    Login {
        datasource: "d".into(),
        protocol: Protocol::POSTGRESQL,
        default_deny: false,
        user: user.to_owned(),
        database: "shop".to_owned(),
        address: address.map(|text| text.parse().unwrap()),
        application: String::new(),
        credential: Credential::default(),
    }
}

#[test]
fn a_login_is_let_in_by_every_entry_that_speaks_of_it() {
    let set = compiled(
        "  - {user: \"app_*\", login: {networks: [10.0.0.0/8, 192.0.2.1], not_after: 2030-06-30}}\n  \
           - {user: app_old, login: {revoked: true}}\n  \
           - {user: other, login: {revoked: false, not_after: \"2030-06-30T12:00:00Z\"}}\n",
    )
    .unwrap();
    let admit = |user, address, now_us| set.admit(&login(user, address), now_us);
    assert_eq!(admit("app_a", Some("10.1.1.1"), 0), Ok(()));
    assert_eq!(admit("app_a", Some("::ffff:192.0.2.1"), 0), Ok(()));
    assert_eq!(admit("app_a", Some("192.0.2.2"), 0), Err(NotAdmitted::Network));
    assert_eq!(admit("app_a", None, 0), Err(NotAdmitted::Network));
    assert_eq!(admit("app_old", Some("10.1.1.1"), 0), Err(NotAdmitted::Revoked));
    assert_eq!(admit("nobody", None, u64::MAX), Ok(()));
    let end = crate::policy::instant::instant_us("2030-06-30").unwrap();
    assert_eq!(admit("app_a", Some("10.1.1.1"), end - 1), Ok(()));
    assert_eq!(admit("app_a", Some("10.1.1.1"), end), Err(NotAdmitted::Expired));
    assert_eq!(admit("other", None, end), Err(NotAdmitted::Expired));
}

#[test]
fn a_verifier_belongs_to_one_user_and_is_never_shown() {
    let set = compiled(&format!("  - {{user: app, login: {{scram: \"{VERIFIER}\"}}}}\n")).unwrap();
    assert_eq!(set.verifier("app").unwrap().to_string(), VERIFIER);
    assert_eq!(set.verifier("App"), None);
    assert_eq!(set.usual_verifier(), (4096, 16));
    assert!(!format!("{set:?}").contains("WG5d"));
    let twice = format!("  - {{user: app, login: {{scram: \"{VERIFIER}\"}}}}\n").repeat(2);
    for (identities, expected) in [
        (twice.as_str(), "i.yaml:4:5: error: `app` has another verifier already"),
        ("  - {user: app, login: {scram: hunter2}}\n", "i.yaml:3:32: error: this is no verifier"),
        ("  - {user: app, login: {scram: \"\"}}\n", "i.yaml:3:32: error"),
        ("  - {user: \"a*\", login: {scram: x}}\n", "i.yaml:3:33: error: a verifier belongs"),
        ("  - {user: a, login: {password: x}}\n", "i.yaml:3:23: error: unknown key `password`"),
        ("  - {user: a, login: {not_after: soon}}\n", "i.yaml:3:34: error: `soon` is no day"),
        ("  - {user: a, database: d, login: {}}\n", "i.yaml:3:35: error: `login` speaks of"),
    ] {
        let found = compiled(identities).unwrap_err();
        assert!(found[0].starts_with(expected), "{found:#?}");
        assert!(!found[0].contains("hunter2"));
    }
}

#[test]
fn what_a_proof_asserts_counts_as_one_more_entry() {
    let set =
        compiled("  - {user: app, roles: [a], attributes: {tenant: one, region: eu}}\nclaims: {roles: b, attributes: [tenant, team]}\n").unwrap();
    let asserted = Asserted {
        roles: ["b".into()].into(),
        attributes: [("tenant".into(), "two".into()), ("team".into(), "x".into())].into(),
    };
    let credential = Credential::Token(Arc::new(asserted));
    let login = Login { credential, ..login("app", None) };
    let identity = set.identify(login);
    assert_eq!(identity.roles, ["a", "b"].map(Arc::<str>::from));
    let attributes: Vec<_> = identity.attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(attributes, ["region=eu", "team=x"], "who says two tenants has none");
}
