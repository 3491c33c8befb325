//! Certificates that are replaced while sessions run.

use crate::harness::{Portcullis, SOON, Setup, wait_until};
use crate::pg::{Postgres, psql};
use crate::pki::Authority;
use crate::raw::Raw;

const PARAMETERS: [(&str, &str); 2] = [("user", "app"), ("database", "demo")];

/// Whether psql, which trusts this authority only, gets in.
fn trusted(proxy: &Portcullis, folder: &std::path::Path, authority: &Authority) -> bool {
    let ca = authority.write(folder, "trusted");
    let mut command = psql(proxy.port(), "app", "demo");
    command.args(["-h", "localhost", "-Atq", "-c", "select 1"]);
    command.env("PGHOSTADDR", "127.0.0.1").env("PGSSLMODE", "verify-full");
    command.env("PGSSLCERT", "/nowhere").env("PGSSLKEY", "/nowhere").env("PGSSLROOTCERT", ca);
    command.output().unwrap().status.success()
}

fn times(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn our_certificate_is_replaced_and_a_broken_one_is_not_taken() {
    let server = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let (certificate, key) = first.server(["localhost"]).write(folder, "server");
    let mut setup = Setup::open(server.address());
    setup.datasource_extra = format!(
        "\x20   tls: {{mode: allowed, certificate: \"{}\", key: \"{}\"}}\n",
        certificate.display(),
        key.display()
    );
    let proxy = Portcullis::start(&setup);
    assert!(trusted(&proxy, folder, &first) && !trusted(&proxy, folder, &second));
    let mut session = Raw::login(proxy.address(), "app");
    second.server(["localhost"]).write(folder, "server");
    wait_until("the second is in use", SOON, || trusted(&proxy, folder, &second));
    assert!(!trusted(&proxy, folder, &first));
    assert!(proxy.metric("portcullis_certificate_reloads_total") > 0.5);
    // The key of another certificate, as one that was copied by mistake.
    let stray = first.server(["localhost"]);
    std::fs::write(&key, &stray.key).unwrap();
    let detail = || proxy.admin("GET", "/readyz").1;
    wait_until("/readyz tells", SOON, || detail().contains("is not the key of the certificate"));
    let (status, answer) = proxy.admin("POST", "/-/reload");
    assert_eq!(status, 422, "{answer}");
    assert!(answer.contains("datasource `demo`: tls: key"), "{answer}");
    assert!(proxy.ready(), "what was in use serves on");
    assert!(trusted(&proxy, folder, &second));
    assert_eq!(times(&proxy.log(), "certificates were refused"), 1, "{}", proxy.log());
    first.server(["localhost"]).write(folder, "server");
    proxy.signal("HUP");
    wait_until("the third is in use", SOON, || trusted(&proxy, folder, &first));
    assert!(!detail().contains("is not the key"));
    assert_eq!(proxy.admin("POST", "/-/reload").0, 200);
    assert_eq!(session.query("select 1").value(), "1", "a session notices nothing");
}

#[test]
fn authorities_of_the_server_and_our_certificate_for_it_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let pair = first.server(["127.0.0.1"]);
    let server = Postgres::with_files(
        "hostssl all all 127.0.0.1/32 trust\n",
        &[("server.crt", &pair.certificate), ("server.key", &pair.key)],
        "ssl = on\n",
    );
    let ca = first.write(folder, "ca");
    let mut setup = Setup::open(server.address());
    setup.datasource_extra =
        format!("\x20   upstream_tls: {{mode: verify-full, ca: \"{}\"}}\n", ca.display());
    let proxy = Portcullis::start(&setup);
    let reached = || Raw::try_login(proxy.address(), &PARAMETERS).is_ok();
    let mut session = Raw::login(proxy.address(), "app");
    second.write(folder, "ca");
    wait_until("the server is a stranger", SOON, || !reached());
    assert_eq!(session.query("select 1").value(), "1", "a session notices nothing");
    first.write(folder, "ca");
    wait_until("the server is known again", SOON, reached);
}

/// Taking an authority away closes the door at once: nothing is resumed.
#[test]
fn clients_of_an_authority_that_is_gone_are_refused() {
    let server = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let (certificate, key) = first.server(["localhost"]).write(folder, "server");
    let ca = first.write(folder, "clients");
    let (own, own_key) = first.client("app").write(folder, "app");
    let mut setup = Setup::open(server.address());
    setup.datasource_extra = format!(
        "\x20   tls: {{mode: mutual, certificate: \"{}\", key: \"{}\", client_ca: \"{}\"}}\n",
        certificate.display(),
        key.display(),
        ca.display()
    );
    let proxy = Portcullis::start(&setup);
    let login = || {
        let mut command = psql(proxy.port(), "app", "demo");
        command.args(["-Atq", "-c", "select 1"]).env("PGSSLMODE", "require");
        command.env("PGSSLROOTCERT", "/nowhere").env("PGSSLCERT", &own).env("PGSSLKEY", &own_key);
        command.output().unwrap().status.success()
    };
    assert!(login());
    second.write(folder, "clients");
    wait_until("its clients are strangers", SOON, || !login());
}
