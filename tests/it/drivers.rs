//! A driver that pipelines, caches statements and reads binary values: tokio-postgres.

use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

use crate::harness::{Portcullis, Setup};
use crate::pg::{PASSWORD, Postgres};

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
