//! API keys and signed tokens in the place of a password, through TLS to a real server.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use crate::harness::{Portcullis, SOON, Setup, portcullis, wait_until};
use crate::pg::{Hba, PASSWORD, Postgres, expect_success, psql};
use crate::recorder::{Recorder, contains};

/// What psql says to one statement, with this password.
fn ask(port: u16, user: &str, password: &str, sql: &str) -> Output {
    psql(port, user, "demo")
        .env("PGPASSWORD", password)
        .env("PGSSLMODE", "require")
        .args(["-Atq", "-c", sql])
        .output()
        .unwrap()
}

fn opens(port: u16, user: &str, password: &str) -> bool {
    ask(port, user, password, "select 1").status.success()
}

#[track_caller]
fn check_refused(port: u16, user: &str, password: &str) {
    let output = ask(port, user, password, "select 1");
    let text = String::from_utf8_lossy(&output.stderr);
    let told = format!("FATAL:  password authentication failed for user \"{user}\"");
    assert!(!output.status.success() && text.contains(&told), "{text}");
}

/// TLS, these entries, and an account of ours at the server.
fn setup(server: &Postgres, entries: &str, rules: &[(&str, String)]) -> (Setup, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    fs::write(place("server.crt"), made.cert.pem()).unwrap();
    fs::write(place("server.key"), made.signing_key.serialize_pem()).unwrap();
    fs::write(place("password"), PASSWORD).unwrap();
    let mut setup = Setup::open(server.address());
    setup.datasource_extra = format!(
        "\x20   tls: {{mode: allowed, certificate: \"{}\", key: \"{}\"}}\n\
         \x20   authentication:\n{entries}\
         \x20   upstream_login: [{{user: app, password_file: \"{}\"}}]\n",
        place("server.crt"),
        place("server.key"),
        place("password"),
    );
    for (name, text) in rules {
        setup.rules.push(((*name).to_owned(), text.clone()));
    }
    (setup, folder)
}

/// A key, and the lines of `identities.yaml` for it, as `portcullis auth new-key` shows them.
pub(crate) fn new_key(user: &str) -> (String, String) {
    let shown = portcullis(["auth", "new-key", "--user", user]);
    let text = expect_success(&shown, "new-key");
    let (key, lines) = text.split_once('\n').unwrap();
    (key.to_owned(), lines.to_owned())
}

/// Nothing that the process wrote holds one of these.
pub(crate) fn check_silence(proxy: Portcullis, secrets: &[&str]) {
    let shown =
        ["/metrics", "/keys", "/sessions", "/readyz"].map(|path| proxy.admin("GET", path).1);
    let log = proxy.log();
    let trail = proxy.finish().join("\n");
    for secret in secrets {
        // The signature alone is enough of a token, and the second half of a key. A signature may hold
        // the sign that parts a key.
        let sign = if secret.contains('.') { '.' } else { '_' };
        let tail = secret.rsplit(sign).next().unwrap();
        assert!(tail.len() >= 8, "too little to be found by: {tail}");
        for (place, text) in [("log", &log), ("audit", &trail)] {
            assert!(!text.contains(tail), "a secret is in the {place}");
        }
        assert!(shown.iter().all(|text| !text.contains(tail)), "a secret at the admin port");
    }
}

#[test]
fn a_password_in_clear_text_is_held_against_the_verifier() {
    let server = Postgres::with_hba(Hba::Scram);
    let sql = "select rolpassword from pg_authid where rolname = 'support'";
    let verifier = server.admin(sql).trim().to_owned();
    let identities = format!(
        "version: 1\nidentities:\n  - {{user: support, login: {{scram: \"{verifier}\"}}}}\n"
    );
    let entries = "\x20     - {method: password}\n";
    let (mut setup, _files) = setup(&server, entries, &[("identities.yaml", identities)]);
    setup.extra = "limits: {login_failures: 3}\n".into();
    let proxy = Portcullis::start(&setup);
    let port = proxy.port();
    let whom = ask(port, "support", PASSWORD, "select current_user");
    assert_eq!(expect_success(&whom, "login").trim(), "app", "the account of ours serves");
    let mut plain = psql(port, "support", "demo");
    plain.env("PGPASSWORD", PASSWORD).env("PGSSLMODE", "disable");
    let plain = plain.args(["-c", "select 1"]).output().unwrap();
    let text = String::from_utf8_lossy(&plain.stderr);
    assert!(!plain.status.success() && text.contains("TLS"), "{text}");
    check_refused(port, "nobody", PASSWORD);
    for wrong in ["wrong-one", "wrong-two", "wrong-three", "wrong-four"] {
        check_refused(port, "support", wrong);
    }
    let slowed = ask(port, "support", PASSWORD, "select 1");
    let text = String::from_utf8_lossy(&slowed.stderr);
    assert!(text.contains("too many failed logins"), "{text}");
    check_silence(proxy, &[PASSWORD, "wrong-one"]);
}

#[test]
fn an_api_key_opens_until_it_is_revoked() {
    let server = Postgres::with_hba(Hba::Scram);
    let (key, lines) = new_key("support");
    let (other, _) = new_key("support");
    let identities = |extra: &str| {
        format!("version: 1\nidentities:\n{}", lines.replace('}', &format!("{extra}}}")))
    };
    let entries = "\x20     - {method: api-key}\n";
    let (setup, _files) = setup(&server, entries, &[("identities.yaml", identities(""))]);
    let proxy = Portcullis::start(&setup);
    let port = proxy.port();
    let whom = ask(port, "support", &key, "select current_user");
    assert_eq!(expect_success(&whom, "login").trim(), "app", "the account of ours serves");
    check_refused(port, "support", &other);
    check_refused(port, "support", "hunter2");
    check_refused(port, "analyst", &key);
    let prefix = key.split('_').nth(1).unwrap();
    let (code, listed) = proxy.admin("GET", "/keys");
    assert_eq!(code, 200);
    assert!(listed.contains(prefix) && listed.contains("\"logins\": 1"), "{listed}");
    assert!(listed.contains("\"refused\": 1"), "used for another user: {listed}");

    // In plain text it is not asked for.
    let mut plain = psql(port, "support", "demo");
    plain.env("PGPASSWORD", &key).env("PGSSLMODE", "disable");
    let plain = plain.args(["-c", "select 1"]).output().unwrap();
    let text = String::from_utf8_lossy(&plain.stderr);
    assert!(!plain.status.success() && text.contains("TLS"), "{text}");

    for (extra, reason) in [
        (", not_after: 2020-01-01", "API key expired"),
        (", allowed_ips: 192.0.2.1", "API key not allowed from this address"),
        (", scopes: \"database:other\"", "API key not for this database"),
        (", revoked: true", "API key revoked"),
    ] {
        proxy.write_rules("identities.yaml", &identities(extra));
        wait_until(reason, SOON, || !opens(port, "support", &key));
        check_refused(port, "support", &key);
        wait_until(reason, SOON, || proxy.audit_lines().join("\n").contains(reason));
        // A success again, so that the throttle does not hide the next reason.
        proxy.write_rules("identities.yaml", &identities(""));
        wait_until("it opens again", SOON, || opens(port, "support", &key));
    }
    let trail = proxy.audit_lines().join("\n");
    assert!(trail.contains(&format!("\"auth_subject\":\"{prefix}\"")), "{trail}");
    check_silence(proxy, &[&key, &other]);
}

/// A session does not outlive its key, and one that is idle does not wait for its next statement.
#[test]
fn a_session_whose_key_is_revoked_ends() {
    let server = Postgres::with_hba(Hba::Scram);
    let (key, lines) = new_key("support");
    let identities = |lines: &str| format!("version: 1\nidentities:\n{lines}");
    let entries = "\x20     - {method: api-key}\n";
    let (setup, _files) = setup(&server, entries, &[("identities.yaml", identities(&lines))]);
    let proxy = Portcullis::start(&setup);
    let mut session = psql(proxy.port(), "support", "demo")
        .env("PGPASSWORD", &key)
        .env("PGSSLMODE", "require")
        .args(["-At"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = session.stdin.take().unwrap();
    input.write_all(b"select 'before';\n").unwrap();
    wait_until("the first statement", SOON, || proxy.audit_lines().join("").contains("select ?"));
    let (generation, revoked) =
        (proxy.metric("portcullis_rules_generation"), lines.replace('}', ", revoked: true}"));
    proxy.write_rules("identities.yaml", &identities(&revoked));
    wait_until("the reload", SOON, || proxy.metric("portcullis_rules_generation") > generation);
    wait_until("the end of the session", SOON, || crate::operator::sessions(&proxy, "").is_empty());
    input.write_all(b"select 'after';\n").unwrap();
    drop(input);
    let output = session.wait_with_output().unwrap();
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("before") && !said.contains("after"), "{said}");
    assert!(errors.contains("terminating connection due to administrator command"), "{errors}");
}

/// An issuer of tokens: a key pair, and a server that publishes whatever the test says.
struct Issuer {
    url: String,
    answer: Arc<Mutex<Option<String>>>,
    asked: Arc<Mutex<u32>>,
}

pub(crate) struct Signer {
    id: &'static str,
    pair: Ed25519KeyPair,
}

impl Signer {
    pub(crate) fn new(id: &'static str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { id, pair: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap() }
    }

    /// A key set with this key alone.
    pub(crate) fn published(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        let id = self.id;
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{id}","x":"{x}"}}]}}"#)
    }

    /// A token for this user of this tenant, good for so many seconds.
    pub(crate) fn token(&self, user: &str, tenant: &str, seconds: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let end = i64::try_from(now).unwrap() + seconds;
        let header = format!(r#"{{"alg":"EdDSA","kid":"{}","typ":"JWT"}}"#, self.id);
        let claims = format!(
            r#"{{"iss":"https://id.example","aud":["demo"],"sub":"{user}","exp":{end},
                "org":{{"tenant":"{tenant}"}},"groups":["support","admin"]}}"#
        );
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.pair.sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl Issuer {
    fn start(keys: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (answer, asked) = (Arc::new(Mutex::new(Some(keys))), Arc::new(Mutex::new(0)));
        let (shown, count) = (Arc::clone(&answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                *count.lock().unwrap() += 1;
                let (status, body) = match &*shown.lock().unwrap() {
                    Some(body) => ("200 OK", body.clone()),
                    None => ("503 Service Unavailable", String::new()),
                };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        Self { url, answer, asked }
    }

    fn publishes(&self, keys: Option<String>) {
        *self.answer.lock().unwrap() = keys;
    }
}

const OWN_TENANT: &str = "version: 1
rules:
  - id: own-tenant
    match: {roles: [support], relations: [public.customers]}
    filter: tenant_id = :identity.tenant
";

fn token_setup(server: &Postgres, url: &str) -> (Setup, tempfile::TempDir) {
    let entries = format!(
        "\x20     - {{method: jwt, issuer: 'https://id.example', audience: demo, \
         algorithms: [EdDSA], jwks_url: '{url}', retry: 1s, claims: {{tenant: org.tenant}}, \
         roles_claim: groups}}\n"
    );
    let identities = "version: 1\n\
        claims: {attributes: [tenant], roles: [support]}\n\
        identities:\n  - {user: analyst, attributes: {tenant: acme}}\n";
    let rules = [("identities.yaml", identities.to_owned()), ("own.yaml", OWN_TENANT.to_owned())];
    setup(server, &entries, &rules)
}

#[test]
fn a_token_opens_and_its_claims_filter() {
    let server = Postgres::with_hba(Hba::Scram);
    let signer = Signer::new("a");
    let issuer = Issuer::start(signer.published());
    let (setup, _files) = token_setup(&server, &issuer.url);
    let recorder = Recorder::start(setup.upstream);
    let proxy = Portcullis::start(&Setup { upstream: recorder.address(), ..setup });
    let port = proxy.port();
    let tenants = "select distinct tenant_id from customers order by 1";
    let mut secrets = Vec::new();
    for tenant in ["acme", "globex"] {
        let token = signer.token("support", tenant, 60);
        let rows = ask(port, "support", &token, tenants);
        assert_eq!(expect_success(&rows, "token").trim(), tenant, "only the tenant of the token");
        secrets.push(token);
    }
    // A value of the token that is no tenant has no rows: it enters as a constant.
    let odd = signer.token("support", "x' or '1'='1", 60);
    assert_eq!(expect_success(&ask(port, "support", &odd, tenants), "token").trim(), "");
    recorder.clear();
    for (why, token, user) in [
        ("token expired", signer.token("support", "acme", -60), "support"),
        ("token of another user", signer.token("support", "acme", 60), "app"),
        ("token with a wrong signature", Signer::new("a").token("support", "acme", 60), "support"),
        ("token contradicts the identities file", signer.token("analyst", "globex", 60), "analyst"),
        ("malformed token", PASSWORD.to_owned(), "support"),
    ] {
        check_refused(port, user, &token);
        wait_until(why, SOON, || proxy.audit_lines().join("\n").contains(why));
        secrets.push(token);
    }
    // The end of the session before may still come; a start-up names the account.
    let started = contains(&recorder.to_server(), b"user\0app");
    assert!(!started, "a client without a proof reached the server");
    let held = signer.token("analyst", "acme", 60);
    assert_eq!(expect_success(&ask(port, "analyst", &held, tenants), "token").trim(), "acme");
    let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
    check_silence(proxy, &secrets);
}

#[test]
fn keys_are_rotated_and_an_outage_of_the_issuer_is_none_of_ours() {
    let server = Postgres::with_hba(Hba::Scram);
    let (first, second) = (Signer::new("a"), Signer::new("b"));
    let issuer = Issuer::start(first.published());
    let (setup, _files) = token_setup(&server, &issuer.url);
    let proxy = Portcullis::start(&setup);
    let port = proxy.port();
    wait_until("the first key", SOON, || {
        opens(port, "support", &first.token("support", "acme", 60))
    });
    issuer.publishes(Some(second.published()));
    // A token of the new key makes the proxy read the set again.
    wait_until("the second key", SOON, || {
        opens(port, "support", &second.token("support", "acme", 60))
    });
    check_refused(port, "support", &first.token("support", "acme", 60));
    issuer.publishes(None);
    let unknown = Signer::new("c").token("support", "acme", 60);
    check_refused(port, "support", &unknown);
    assert!(opens(port, "support", &second.token("support", "acme", 60)), "keys outlive an outage");
    let asked = *issuer.asked.lock().unwrap();
    assert!((2..30).contains(&asked), "the issuer was asked {asked} times");
}
