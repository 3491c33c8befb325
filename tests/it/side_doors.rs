//! Ways around a mask or a filter that are not spellings of a column: functions that run text,
//! settings, roles, predicates, definitions, shadowed names.

use crate::harness::{Portcullis, Setup};
use crate::pg::Postgres;
use crate::raw::{Raw, Reply};
use crate::recorder::contains;

const RAW_MAIL: &str = "ada.wagner@example.com";

fn scene() -> (Postgres, Portcullis) {
    let server = Postgres::start();
    // A superuser on the server: whatever is refused, the proxy refuses.
    server.admin("ALTER ROLE support SUPERUSER");
    let proxy = Portcullis::start(&Setup::demo(server.address()));
    (server, proxy)
}

#[track_caller]
fn assert_refused(statement: &str, reply: &Reply) {
    assert!(
        ["42501", "0A000"].contains(&reply.code()),
        "`{statement}`: {:?} {:?}",
        reply.errors,
        reply.tags
    );
}

#[test]
fn functions_that_reach_around_the_tables_are_refused() {
    let (_server, proxy) = scene();
    for statement in [
        "select query_to_xml('select * from customers', true, false, '')",
        "select table_to_xml('customers', true, false, '')",
        "select * from ts_stat('select to_tsvector(email) from customers')",
        "select pg_read_file('/etc/passwd')",
        "select pg_ls_dir('.')",
        "select lo_get(1)",
        "select lo_import('/etc/passwd')",
        "select pg_sleep(0.01)",
        "select case when email like 'a%' then pg_sleep(0.01)::text end from customers",
        "select nextval('s')",
        "select pg_advisory_lock(1)",
        "select set_config('role', 'postgres', false)",
        "select set_config('ro' || 'le', 'postgres', false)",
        "select pg_terminate_backend(1)",
        "select current_setting('x'), dblink('host=127.0.0.1', 'select 1')",
    ] {
        let mut raw = Raw::login(proxy.address(), "support");
        assert_refused(statement, &raw.query(statement));
        assert_refused(statement, &raw.extended(statement, &[], false));
    }
}

#[test]
fn statements_that_open_side_doors_are_refused() {
    let (_server, proxy) = scene();
    for statement in [
        "set role postgres",
        "set session authorization postgres",
        "do $$ begin raise notice '%', (select email from customers limit 1); end $$",
        "call p()",
        "create function f() returns text language sql as 'select email from customers'",
        "create view v as select email from customers",
        "create table copied as select email from customers",
        "create temp table customers (id int)",
        "create rule r as on select to customers do instead nothing",
        "create index on customers (email)",
        "alter table customers rename column email to name2",
        "alter role support set standard_conforming_strings = off",
        "grant support to app",
        "truncate customers",
        "lock customers",
        "listen door",
        "load 'auto_explain'",
        "vacuum customers",
        "analyze customers",
        "copy customers to '/tmp/nowhere'",
        "copy customers to program 'cat'",
        "copy customers from program 'cat'",
        "prepare transaction 'x'",
        "explain analyze select * from customers",
        "explain select * from customers where email > 'm'",
        "select * from pg_stats",
        "select * from pg_statistic",
        "select query from pg_stat_activity",
        "select * from pg_authid",
        "select * from pg_largeobject",
        "update pg_settings set setting = 'off' where name = 'standard_conforming_strings'",
    ] {
        let mut raw = Raw::login(proxy.address(), "support");
        assert_refused(statement, &raw.query(statement));
    }
}

#[test]
fn settings_that_change_what_a_text_means_keep_their_values() {
    let (_server, proxy) = scene();
    for statement in [
        "set standard_conforming_strings = off",
        "set local standard_conforming_strings = off",
        "set session standard_conforming_strings to off",
        "select set_config('standard_conforming_strings', 'off', false)",
        "set client_encoding = 'SJIS'",
        "set names 'BIG5'",
        "set role = 'app'",
        "set session_replication_role = 'replica'",
        "set row_security = off",
        "begin; set local client_encoding = 'GBK'",
    ] {
        let mut raw = Raw::login(proxy.address(), "support");
        assert!(!raw.query(statement).code().is_empty(), "accepted: {statement}");
        raw.query("rollback");
        for (setting, value) in [
            ("standard_conforming_strings", "on"),
            ("client_encoding", "UTF8"),
            ("role", "none"),
            ("session_replication_role", "origin"),
            ("row_security", "on"),
        ] {
            assert_eq!(raw.query(&format!("show {setting}")).value(), value, "after {statement}");
        }
    }
}

#[test]
fn startup_parameters_open_no_door() {
    let (server, proxy) = scene();
    server.admin(
        "CREATE SCHEMA shadow; CREATE TABLE shadow.customers AS SELECT * FROM public.customers;
         GRANT ALL ON SCHEMA shadow TO support; GRANT ALL ON shadow.customers TO support",
    );
    for (name, value) in [
        ("options", "-c standard_conforming_strings=off"),
        ("options", "-c client_encoding=SJIS"),
        ("options", "--standard-conforming-strings=off"),
        ("options", "-c role=app"),
        ("options", "-c session_authorization=app"),
        ("options", "-crow_security=off -c session_replication_role=replica"),
        ("client_encoding", "SJIS"),
        ("standard_conforming_strings", "off"),
        ("role", "app"),
        ("session_replication_role", "replica"),
    ] {
        let parameters = [("user", "support"), ("database", "demo"), (name, value)];
        // Refused at login, refused per statement, or harmless; never the raw value.
        let Ok(mut raw) = Raw::try_login(proxy.address(), &parameters) else { continue };
        raw.query("select email from customers where id = 1");
        raw.query(r"select '\'' || email from customers where id = 1 -- '");
        assert!(!contains(&raw.received, RAW_MAIL.as_bytes()), "{name}={value}");
    }
}

#[test]
fn names_are_resolved_as_the_server_resolves_them() {
    let (server, proxy) = scene();
    server.admin(
        "CREATE SCHEMA first; CREATE TABLE first.customers (id int, email text);
         INSERT INTO first.customers VALUES (1, 'from the first schema');
         GRANT ALL ON SCHEMA first TO support; GRANT ALL ON first.customers TO support;
         CREATE SCHEMA closed; CREATE TABLE closed.customers (id int, email text);
         ALTER ROLE support NOSUPERUSER",
    );
    // The proxy hears of a definition made past it when it reads the catalog: at the next login
    // that needs one, or on its timer. A new proxy has none yet.
    drop(proxy);
    let proxy = Portcullis::start(&Setup::demo(server.address()));
    let sql = "select email from customers where id = 1";
    let mut raw = Raw::login(proxy.address(), "support");
    assert_eq!(raw.query(sql).value(), "a***@***.com");
    // The server leaves out a schema the user may not use, and what was meant for it reads another.
    raw.query("set search_path = closed, public");
    assert_eq!(raw.query(sql).value(), "a***@***.com");
    raw.query("set search_path = first, public");
    assert_eq!(raw.query(sql).value(), "from the first schema");
    raw.query("begin; set local search_path = public");
    assert_eq!(raw.query(sql).value(), "a***@***.com");
    raw.query("rollback");
    assert_eq!(raw.query(sql).value(), "from the first schema");
    let options = [("user", "support"), ("database", "demo"), ("options", "-c search_path=first")];
    let mut raw = Raw::try_login(proxy.address(), &options).unwrap();
    assert_eq!(raw.query(sql).value(), "from the first schema");
    assert_eq!(
        raw.query("select email from public.customers where id = 1").value(),
        "a***@***.com"
    );
}

#[test]
fn definitions_that_lead_to_masked_values_are_followed() {
    let server = Postgres::start();
    server.admin(
        "ALTER ROLE support SUPERUSER;
         CREATE TABLE log (id int, o oid); INSERT INTO log VALUES (1, 1); CREATE VIEW logged AS TABLE log;
         CREATE TABLE plain (id int);
         CREATE RULE also AS ON UPDATE TO log DO ALSO SELECT email FROM customers;
         ALTER TABLE customers ADD up text GENERATED ALWAYS AS (upper(email)) STORED;
         CREATE FUNCTION mail(oid) RETURNS xml LANGUAGE sql AS
           'SELECT xmlelement(name m, (SELECT email FROM customers WHERE id = $1::int))';
         CREATE CAST (oid AS xml) WITH FUNCTION mail(oid);
         CREATE FUNCTION \"json_object\"(oid) RETURNS text LANGUAGE sql AS
           'SELECT email FROM customers WHERE id = $1::int'",
    );
    let proxy = Portcullis::start(&Setup::demo(server.address()));
    let mail = RAW_MAIL.to_lowercase();
    for (statement, refused) in [
        ("update log set id = 2 where id = 1", true),
        ("update logged set id = 2 where id = 1", true),
        ("update plain set id = 2 where id = 1", false),
        ("select o::xml from log", true),
        ("select array[o]::xml[] from log", true),
        ("select json_object(o) from log", true),
        ("update customers set city = city where id = 1 returning up", true),
        ("select lower(up), * from customers where id = 1", false),
        ("select id, o::text, '<a/>'::xml from log", false),
    ] {
        let mut raw = Raw::login(proxy.address(), "support");
        let reply = raw.query(statement);
        if refused {
            assert_refused(statement, &reply);
        } else {
            assert!(reply.errors.is_empty(), "`{statement}`: {:?}", reply.errors);
        }
        let received = String::from_utf8_lossy(&raw.received).to_lowercase();
        assert!(!received.contains(&mail), "`{statement}`");
    }
}

#[test]
fn predicates_see_the_masked_value() {
    let (_server, proxy) = scene();
    let mut raw = Raw::login(proxy.address(), "support");
    for (statement, expected) in [
        ("select count(*) from customers where email = 'ada.wagner@example.com'", "0"),
        ("select count(*) from customers where email like 'ada%'", "0"),
        ("select count(*) from customers where email > 'ad' and email < 'ae'", "0"),
        ("select count(*) from customers where email = 'a***@***.com'", "1"),
        ("select count(*) from customers where notes is not null", "0"),
        ("select count(distinct notes) from customers", "0"),
        ("select count(*) from customers where card_no = '4111 1111 1111 1111'", "0"),
        (
            "select count(*) from customers c join (values ('ada.wagner@example.com')) v(m) on c.email = v.m",
            "0",
        ),
        ("select count(*) from customers where tenant_id = 'globex'", "0"),
        ("select count(*) from orders where tenant_id <> 'acme'", "0"),
        ("select bool_or(tenant_id = 'globex') from orders", "f"),
        ("select max(id) from customers", "20"),
        ("select count(*) from customers where id = 3", "0"),
    ] {
        assert_eq!(raw.query(statement).value(), expected, "{statement}");
        assert_eq!(raw.extended(statement, &[], false).value(), expected, "{statement}");
    }
}

#[test]
fn rows_of_others_cannot_be_changed_or_planted() {
    let (server, proxy) = scene();
    let mut raw = Raw::login(proxy.address(), "support");
    let before =
        server.admin("select count(*), sum(amount) from orders where tenant_id = 'globex'");
    for statement in [
        "update orders set status = 'stolen' where id is not null",
        "delete from orders where id > 0",
        "update orders set amount = 0 where tenant_id = 'globex'",
        "delete from orders using customers c where c.id = customer_id",
    ] {
        raw.query("begin");
        raw.query(statement);
        raw.query("commit");
    }
    let sql = "select count(*), sum(amount) from orders where tenant_id = 'globex'";
    assert_eq!(server.admin(sql), before, "another tenant's rows changed");
    for statement in [
        "insert into orders values (901, 'globex', 1, 1, 'open', now())",
        "update customers set tenant_id = 'globex' where id = 1",
        "insert into customers select id + 1000, 'globex', name, email, card_no from customers",
    ] {
        assert!(!raw.query(statement).code().is_empty(), "{statement}");
    }
    assert_eq!(
        server.admin("select count(*) from customers where tenant_id = 'globex'").trim(),
        "9"
    );
}
