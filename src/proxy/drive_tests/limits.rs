//! Time limits of sessions and statements, and what becomes of what is in flight.

use super::*;

fn short_statements() -> SessionLimits {
    let short = Some(Duration::from_millis(60));
    let cancel_grace = Duration::from_millis(300);
    SessionLimits { statement_timeout: short, cancel_grace, ..SessionLimits::default() }
}

/// The cancel the driver sends to the server; the server has taken it when this is dropped.
async fn cancel_of(bench: &mut Bench) -> DuplexStream {
    let mut cancel = within(bench.servers.recv()).await.unwrap();
    let mut request = [0; 16];
    within(cancel.read_exact(&mut request)).await.unwrap();
    assert_eq!(request[8..], [0, 0, 0, 7, b'r', b'e', b'a', b'l']);
    cancel
}

#[tokio::test]
async fn a_statement_over_its_time_is_cancelled_and_the_next_one_is_not_hit() {
    let mut bench = Bench::timed(short_statements());
    let (mut client, mut server) = bench.pair().await;
    say(&mut client, "slow\n").await;
    hear(&mut server, "slow\n").await;
    let cancel = cancel_of(&mut bench).await;
    // The answer comes, the next statement too; the server has not closed the cancel's connection.
    say(&mut server, "stopped\n").await;
    hear(&mut client, "overdue: stopped\n").await;
    say(&mut client, "next\n").await;
    let mut next = [0; 5];
    let early = tokio::time::timeout(Duration::from_millis(80), server.read_exact(&mut next)).await;
    assert!(early.is_err(), "the cancel would have hit it");
    drop(cancel);
    hear(&mut server, "next\n").await;
    say(&mut server, "1\n").await;
    hear(&mut client, "1\n").await;
}

#[tokio::test]
async fn a_server_that_does_not_stop_loses_the_session() {
    let mut bench = Bench::timed(short_statements());
    let (mut client, mut server) = bench.pair().await;
    say(&mut client, "slow\n").await;
    hear(&mut server, "slow\n").await;
    drop(cancel_of(&mut bench).await);
    assert_eq!(rest(client).await, "end StatementTimeout\n");
    assert_eq!(rest(server).await, "");
    assert_eq!(bench.end().await, End::Timeout);
    assert_eq!(bench.recorded().await, ["decided", "lost", "closed"]);
}

#[tokio::test]
async fn a_pipeline_that_moves_on_has_time() {
    let limit = Duration::from_millis(200);
    let limits = SessionLimits { statement_timeout: Some(limit), ..short_statements() };
    let mut bench = Bench::timed(limits);
    let (mut client, mut server) = bench.pair().await;
    say(&mut client, "1\n2\n3\n4\n").await;
    hear(&mut server, "1\n2\n3\n4\n").await;
    for _ in 0..4 {
        tokio::time::sleep(limit * 3 / 5).await;
        say(&mut server, "done\n").await;
        hear(&mut client, "done\n").await;
    }
    assert!(bench.servers.try_recv().is_err(), "no cancel was sent");
}

#[tokio::test]
async fn an_operators_end_cancels_what_is_left() {
    let mut bench = Bench::new(limits());
    let (mut client, mut server) = bench.pair().await;
    say(&mut client, "slow\n").await;
    hear(&mut server, "slow\n").await;
    let sessions = &bench.datasource.shared.sessions;
    let uid = sessions.list(bench.datasource.shared.clock.now()).remove(0).uid;
    assert!(sessions.end(&uid));
    drop(cancel_of(&mut bench).await);
    assert_eq!(rest(client).await, "end Operator\n");
    assert_eq!(bench.end().await, End::Operator);
}

#[tokio::test]
async fn a_client_that_goes_can_take_its_statement_along() {
    use crate::config::OnClientGone::{Cancel, Leave};
    for on_client_gone in [Leave, Cancel] {
        let mut bench = Bench::timed(SessionLimits { on_client_gone, ..SessionLimits::default() });
        let (mut client, mut server) = bench.pair().await;
        say(&mut client, "slow\n").await;
        hear(&mut server, "slow\n").await;
        drop(client);
        if on_client_gone == Cancel {
            drop(cancel_of(&mut bench).await);
        }
        assert_eq!(rest(server).await, "");
        assert_eq!(bench.end().await, End::Client);
        assert!(bench.servers.try_recv().is_err(), "no further cancel");
    }
}

#[tokio::test]
async fn a_lifetime_is_over_when_the_session_is_idle() {
    let lifetime = Some(Duration::from_millis(60));
    let mut bench =
        Bench::timed(SessionLimits { session_lifetime: lifetime, ..SessionLimits::default() });
    let (mut client, mut server) = bench.pair().await;
    say(&mut client, "slow\n").await;
    hear(&mut server, "slow\n").await;
    tokio::time::sleep(Duration::from_millis(120)).await;
    say(&mut server, "done\n").await;
    assert_eq!(rest(client).await, "done\nend Lifetime\n");
    assert_eq!(bench.end().await, End::Timeout);
}
