//! Drivers of other people: each does the same against a server and against the proxy, and has to
//! see the same. tokio-postgres here; psycopg, asyncpg and node-postgres by programs in
//! `tests/drivers` that print what they see.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, TryStreamExt as _};
use tokio::sync::mpsc;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{AsyncMessage, Client, NoTls, Notification};

use crate::harness::{Portcullis, Setup};
use crate::pg::{Hba, PASSWORD, Postgres, expect_success};
use crate::pki::Authority;

async fn connect(port: u16, user: &str) -> Client {
    let config = format!("host=127.0.0.1 port={port} user={user} password={PASSWORD} dbname=demo");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    // Ends with the client; its result is the client's result.
    tokio::spawn(async move { connection.await.is_ok() });
    client
}

fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("within a minute");
    });
}

#[test]
fn typed_values_statements_and_transactions() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::open(server.address()));
    block_on(async {
        let mut client = connect(proxy.port(), "app").await;
        let statement = client
            .prepare_typed(
                "select id, name, birth_date::text from customers where id = $1",
                &[Type::INT4],
            )
            .await
            .unwrap();
        for id in 1..=20_i32 {
            let row = client.query_one(&statement, &[&id]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), id);
        }
        let transaction = client.transaction().await.unwrap();
        transaction.execute("delete from orders where id = $1", &[&1_i32]).await.unwrap();
        let portal = transaction.bind("select id from customers order by id", &[]).await.unwrap();
        assert_eq!(transaction.query_portal(&portal, 7).await.unwrap().len(), 7);
        assert_eq!(transaction.query_portal(&portal, 100).await.unwrap().len(), 13);
        transaction.rollback().await.unwrap();
        let row = client.query_one("select count(*) from orders where id = 1", &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 1);
    });
}

#[test]
fn masked_columns_keep_their_types_for_a_driver() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::demo(server.address()));
    block_on(async {
        let client = connect(proxy.port(), "support").await;
        let sql = "select id, email, card_no, notes, tenant_id from customers where id = $1";
        let row = client.query_one(sql, &[&1_i32]).await.unwrap();
        assert_eq!(row.columns()[1].type_(), &Type::TEXT);
        assert_eq!(row.get::<_, String>("email"), "a***@***.com");
        assert_eq!(row.get::<_, String>("card_no"), "4111 11** **** 1111");
        assert_eq!(row.get::<_, Option<String>>("notes"), None);
        // Another tenant's row is not there at all.
        assert!(client.query_opt(sql, &[&3_i32]).await.unwrap().is_none());
        let app = connect(proxy.port(), "app").await;
        let row = app.query_one(sql, &[&1_i32]).await.unwrap();
        assert_eq!(row.get::<_, String>("email"), "ada.wagner@example.com");
    });
}

#[test]
fn concurrent_pipelined_queries_keep_their_answers_apart() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::demo(server.address()));
    block_on(async {
        let client = connect(proxy.port(), "support").await;
        let (a, b, c) = tokio::join!(
            client.query_one("select 1", &[]),
            client.execute("delete from orders", &[]),
            client.query_one("select count(*) from customers", &[]),
        );
        assert_eq!(a.unwrap().get::<_, i32>(0), 1);
        assert_eq!(b.unwrap_err().code().unwrap().code(), "42501");
        assert_eq!(c.unwrap().get::<_, i64>(0), 11, "customers of acme");
    });
}

// === Programs ===

/// What a driver's program prints when it talks to this port, over TLS that this authority vouches
/// for or else in plain text.
fn observe(program: &str, port: u16, authority: Option<&Path>) -> String {
    observe_at(program, &format!("postgresql://app@127.0.0.1:{port}/demo"), authority)
}

/// The same, where the server is told as a URL.
pub(crate) fn observe_at(program: &str, url: &str, authority: Option<&Path>) -> String {
    let home = drivers();
    let script = PathBuf::from(DRIVERS).join(program);
    let mut command = Command::new("timeout");
    command.arg("240");
    if program.ends_with(".js") {
        command.arg("node").env("NODE_PATH", home.join("node_modules"));
    } else {
        command.arg(home.join("venv/bin/python")).arg("-B");
    }
    command.arg(script).arg(url);
    command.env("PGPASSWORD", PASSWORD).env("NODE_OPTIONS", "--no-deprecation");
    if let Some(authority) = authority {
        command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", authority);
        command.env("DRIVER_CA", authority);
    }
    command.stdin(Stdio::null());
    expect_success(&command.output().unwrap(), program)
}

/// Where the drivers are installed; installs them when they are not.
fn drivers() -> PathBuf {
    let script = format!("{DRIVERS}/prepare.sh");
    let output = Command::new("bash").arg(&script).stdin(Stdio::null()).output().unwrap();
    PathBuf::from(expect_success(&output, &script).trim())
}

/// A proxy at which logins end: SCRAM over TLS, with the server's own verifiers.
fn terminating(server: &Postgres, folder: &Path) -> (Portcullis, PathBuf) {
    let authority = Authority::new("drivers");
    let (certificate, key) = authority.server(["127.0.0.1"]).write(folder, "server");
    let mut setup = Setup::open(server.address());
    setup.datasource_extra = format!(
        "\x20   tls: {{mode: required, certificate: {certificate:?}, key: {key:?}}}\n\
         \x20   authentication: [{{method: scram-sha-256, verifiers: auth_query}}]\n\
         \x20   auth_query: {{user: postgres}}\n"
    );
    (Portcullis::start(&setup), authority.write(folder, "authority"))
}

/// Runs the program directly, with the login relayed, and with the login ended at the proxy, all at
/// once, and compares line by line.
fn sees_the_same(program: &str) {
    let server = Postgres::with_hba(Hba::Scram);
    let relay = Portcullis::start(&Setup::open(server.address()));
    let folder = tempfile::tempdir().unwrap();
    let (terminated, authority) = terminating(&server, folder.path());
    let (direct, relayed, ended) = thread::scope(|scope| {
        let direct = scope.spawn(|| observe(program, server.port(), None));
        let relayed = scope.spawn(|| observe(program, relay.port(), None));
        let ended = observe(program, terminated.port(), Some(&authority));
        (direct.join().unwrap(), relayed.join().unwrap(), ended)
    });
    compare(program, &direct, &[("relayed", relayed), ("ended at the proxy", ended)]);
}

/// Every line that came through a proxy beside what came directly.
pub(crate) fn compare(program: &str, direct: &str, proxied: &[(&str, String)]) {
    assert!(direct.ends_with("end\n"), "{program} did not come to its end:\n{direct}");
    for (way, seen) in proxied {
        for (ours, theirs) in seen.lines().zip(direct.lines()) {
            assert_eq!(ours, theirs, "{program}: login {way}, and directly");
        }
        assert_eq!(seen.lines().count(), direct.lines().count(), "{program}: login {way}");
    }
}

#[test]
fn psycopg_cannot_tell() {
    sees_the_same("psycopg_driver.py");
}

#[test]
fn psycopg_cannot_tell_in_other_encodings() {
    sees_the_same("psycopg_encodings.py");
}

#[test]
fn asyncpg_cannot_tell() {
    sees_the_same("asyncpg_driver.py");
}

#[test]
fn node_postgres_cannot_tell() {
    sees_the_same("node_driver.js");
}

#[test]
fn two_gigabytes_each_way_leave_the_proxys_memory_as_it_was() {
    let server = Postgres::with_hba(Hba::Scram);
    let proxy = Portcullis::start(&Setup::open(server.address()));
    let before = proxy.peak_memory_bytes();
    let seen = observe("volume.py", proxy.port(), None);
    let growth = proxy.peak_memory_bytes() - before;
    assert!(growth < 64 * 1024 * 1024, "grew by {growth} bytes: {seen}");
}

// === tokio-postgres ===

/// A value in the server's own binary form, of any type.
#[derive(Clone, Debug, PartialEq)]
struct Binary(Vec<u8>);

impl<'a> FromSql<'a> for Binary {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl ToSql for Binary {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut bytes::BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// What tokio-postgres sees, one line an observation.
struct Observer {
    client: Client,
    notifications: mpsc::UnboundedReceiver<Notification>,
    seen: Vec<String>,
}

impl Observer {
    async fn connect(port: u16) -> Self {
        let config = format!("host=127.0.0.1 port={port} user=app password={PASSWORD} dbname=demo");
        let (client, mut connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
        let (sender, notifications) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                if let Ok(AsyncMessage::Notification(notification)) = message {
                    sender.send(notification).unwrap();
                }
            }
        });
        Self { client, notifications, seen: Vec::new() }
    }

    fn say(&mut self, what: &str, seen: impl Debug) {
        self.seen.push(format!("{what} {seen:?}"));
    }

    async fn values(&mut self) {
        // Text to the value to its binary form, and that as a parameter back to text.
        for (kind, text) in [
            ("numeric", "-12345678901234567890.000123400"),
            ("numeric", "NaN"),
            ("timestamptz", "2026-07-31 12:00:00.000001+00"),
            ("uuid", "01234567-89ab-cdef-0123-456789abcdef"),
            ("jsonb", r#"{"a": [1, null, "ü"]}"#),
            ("int4[]", "{1,NULL,3}"),
            ("text[]", r#"{{a,"b\""},{"","c,d"}}"#),
            ("bytea", r"\x00ff10"),
            ("interval", "-3 days +00:00:00.000001"),
        ] {
            let sql = format!("select $1::text::{kind}");
            let row = self.client.query_one(&sql, &[&text]).await.unwrap();
            let binary: Binary = row.get(0);
            let sql = format!("select $1::{kind}::text");
            let back: String = self.client.query_one(&sql, &[&binary]).await.unwrap().get(0);
            assert_eq!(back, text, "{kind}");
            self.say(kind, (row.columns()[0].type_().name(), binary));
        }
        let nothing: Option<String> = None;
        let sql = "select $1::text, $2::int4[]";
        let row = self.client.query_one(sql, &[&nothing, &vec![1, 2]]).await.unwrap();
        self.say("null", (row.get::<_, Option<String>>(0), row.get::<_, Vec<i32>>(1)));
    }

    async fn cursors_and_pipelines(&mut self) {
        let transaction = self.client.transaction().await.unwrap();
        let sql = "select g from generate_series(1, 100) g";
        let portal = transaction.bind(sql, &[]).await.unwrap();
        let mut sizes = Vec::new();
        for _ in 0..3 {
            sizes.push(transaction.query_portal(&portal, 40).await.unwrap().len());
        }
        transaction.commit().await.unwrap();
        self.say("portal", sizes);
        let client = &self.client;
        let (a, b, c) = tokio::join!(
            client.query_one("select 1", &[]),
            client.query_one("select 1/0", &[]),
            client.query_one("select 3", &[]),
        );
        let codes = (a.unwrap().get::<_, i32>(0), problem(b), c.unwrap().get::<_, i32>(0));
        self.say("pipeline", codes);
    }

    async fn copies(&mut self) {
        let create = "create temp table copied(id int, name text)";
        self.client.batch_execute(create).await.unwrap();
        for (options, data) in
            [("", "1\tone\n2\t\\N\n"), ("(format csv)", "3,\"a \"\"b\"\", c\"\n")]
        {
            let sql = format!("copy copied from stdin {options}");
            let mut sink = pin!(self.client.copy_in::<_, Bytes>(&sql).await.unwrap());
            sink.send(Bytes::from_static(data.as_bytes())).await.unwrap();
            let rows = sink.finish().await.unwrap();
            self.say("copied in", rows);
        }
        for options in ["", "(format csv, header)", "(format binary)"] {
            let sql = format!("copy copied to stdout {options}");
            let stream = self.client.copy_out(&sql).await.unwrap();
            let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
            let data = chunks.concat();
            if options == "(format binary)" {
                let sql = "copy copied from stdin (format binary)";
                let mut sink = pin!(self.client.copy_in::<_, Bytes>(sql).await.unwrap());
                sink.send(Bytes::from(data.clone())).await.unwrap();
                let rows = sink.finish().await.unwrap();
                self.say("copied in", rows);
            }
            self.say("copied out", (options, data));
        }
        let mut sink =
            pin!(self.client.copy_in::<_, Bytes>("copy copied from stdin").await.unwrap());
        sink.send(Bytes::from_static(b"x\n")).await.unwrap();
        let failed = problem(sink.finish().await);
        self.say("copy error", failed);
    }

    async fn notifications(&mut self) {
        self.client.batch_execute("listen door; notify door, 'knock'").await.unwrap();
        let heard = self.notifications.recv().await.unwrap();
        let pid: i32 = self.client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
        let seen = (heard.channel().to_owned(), heard.payload().to_owned());
        self.say("notify", (seen, heard.process_id() == pid));
    }

    async fn cancel(&mut self) {
        let token = self.client.cancel_token();
        let (slept, ()) = tokio::join!(self.client.query("select pg_sleep(30)", &[]), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            token.cancel_query(NoTls).await.unwrap();
        });
        let cancelled = problem(slept);
        self.say("cancel", cancelled);
    }

    async fn errors(&mut self) {
        for sql in [
            "select 1 frm a b c",
            "select 'ü', nowhere from customers",
            "drop operator === (int4)",
            "insert into customers (id) values (1)",
            "select 1/0",
        ] {
            let failed = problem(self.client.query(sql, &[]).await);
            self.say("error", failed);
            let failed = problem(self.client.simple_query(sql).await);
            self.say("simple error", failed);
        }
    }

    async fn big(&mut self) {
        let sql = "select repeat('x', 100 * 1024 * 1024)";
        let text: String = self.client.query_one(sql, &[]).await.unwrap().get(0);
        let sql = "select length($1::text)";
        let length: i32 = self.client.query_one(sql, &[&text]).await.unwrap().get(0);
        self.say("big", (text.len(), length));
    }
}

/// An error with everything it says.
fn problem<T>(result: Result<T, tokio_postgres::Error>) -> String {
    let Err(error) = result else { return "no error".to_owned() };
    match error.as_db_error() {
        Some(error) => format!(
            "{} {} {:?} {:?} {:?} {:?} {:?}",
            error.code().code(),
            error.message(),
            error.position(),
            error.detail(),
            error.hint(),
            error.where_(),
            error.constraint(),
        ),
        None => error.to_string(),
    }
}

fn observe_tokio(port: u16) -> Vec<String> {
    let mut seen = Vec::new();
    block_on(async {
        let mut observer = Observer::connect(port).await;
        observer.values().await;
        observer.cursors_and_pipelines().await;
        observer.copies().await;
        observer.notifications().await;
        observer.cancel().await;
        observer.errors().await;
        observer.big().await;
        seen = observer.seen;
    });
    seen
}

#[test]
fn tokio_postgres_cannot_tell() {
    let server = Postgres::with_hba(Hba::Scram);
    let proxy = Portcullis::start(&Setup::open(server.address()));
    let direct = observe_tokio(server.port());
    assert_eq!(observe_tokio(proxy.port()), direct);
}

const DRIVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/drivers");
