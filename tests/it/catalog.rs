//! What the proxy learns of the database over a login of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::harness::{Portcullis, READY_TIMEOUT, Setup, wait_until};
use crate::pg::{Hba, PASSWORD, Postgres, psql};

const MASK: &str = "version: 1
rules:
  - id: hide-mail
    match: {users: [support], columns: [public.customers.email]}
    mask: nullify
";

#[test]
fn a_login_of_its_own_reads_the_catalog_before_any_client_comes() {
    let server = Postgres::with_hba(Hba::Scram);
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), format!("{PASSWORD}\n")).unwrap();
    fs::set_permissions(secret.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let mut setup = Setup::with_rules(server.address(), MASK);
    setup.datasource_extra = format!(
        "    catalog: {{user: app, password_file: \"{}\", databases: [demo], refresh: 1s}}\n",
        secret.path().display()
    );
    let proxy = Portcullis::start(&setup);
    // Ready waits for it.
    let (_, ready) = proxy.admin("GET", "/readyz");
    assert!(ready.contains("\"demo\""), "{ready}");
    let ask = |sql: &str| {
        let output = psql(proxy.port(), "support", "demo").args(["-Atqc", sql]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(ask("select id, email from customers where id = 1"), "1|\n");
    // A column made past the proxy is known after the next reading.
    server.admin("ALTER TABLE customers ADD COLUMN shoe_size int DEFAULT 42");
    wait_until("the new column is known", READY_TIMEOUT, || {
        ask("select shoe_size from customers where id = 1") == "42\n"
    });
}
