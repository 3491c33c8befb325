//! Names, label sets and counting.

use super::*;
use crate::event::tests as events;
use crate::event::{CommandRecord, CommandRun, RecordedVerdict, StatementRecord};

fn metrics() -> Arc<Metrics> {
    let build = Build { version: "0.1.0", commit: "abc", started_us: 1_500_000 };
    let datasource = DatasourceLabels { name: "demo", protocol: "postgresql" };
    Metrics::new(build, &[datasource]).expect("metrics")
}

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.render().expect("text")).expect("UTF-8")
}

#[track_caller]
fn assert_line(metrics: &Metrics, line: &str) {
    let text = text(metrics);
    assert!(text.lines().any(|found| found == line), "`{line}` not in:\n{text}");
}

#[test]
fn names_and_types_are_the_golden_list() {
    let text = text(&metrics());
    let ours = text.lines().filter_map(|line| line.strip_prefix("# TYPE portcullis_"));
    let found: String = ours.map(|line| format!("portcullis_{line}\n")).collect();
    // A renamed or vanished metric breaks dashboards and alerts: change the list on purpose.
    assert_eq!(found, include_str!("../../tests/golden/metrics.txt"));
}

#[test]
fn series_exist_from_start_and_stay_few() {
    let text = text(&metrics());
    let deny = "portcullis_requests_total{command=\"delete\",datasource=\"demo\",\
                decision=\"deny\",protocol=\"postgresql\"} 0";
    assert!(text.lines().any(|line| line == deny), "{text}");
    let series = text.lines().filter(|line| line.starts_with("portcullis_")).count();
    assert!(series < 700, "{series} series for one datasource");
}

#[test]
fn commands_are_counted_one_by_one_and_their_runs_timed() {
    let metrics = metrics();
    let observe = |kind| metrics.observe(&events::event(Some(events::store_session()), kind));
    let decided = |verdict, limited_by| EventKind::CommandsDecided {
        run: events::commands(verdict),
        limited_by,
    };
    observe(decided(RecordedVerdict::Modified, None));
    observe(decided(RecordedVerdict::Allowed, Some(events::rule("per-min"))));
    observe(events::completed(2));
    let denied = RecordedVerdict::Denied { code: "ERR".into(), reason: "unknown command".into() };
    let unknown = CommandRun {
        record: Arc::new(CommandRecord::unknown(denied)),
        ..events::commands(RecordedVerdict::Allowed)
    };
    observe(EventKind::CommandsDecided { run: unknown, limited_by: None });
    let requests = |command, decision| {
        format!(
            "portcullis_requests_total{{command=\"{command}\",datasource=\"demo\",\
             decision=\"{decision}\",protocol=\"postgresql\"}}"
        )
    };
    for line in [
        format!("{} 100", requests("read", "mask")),
        format!("{} 64", requests("read", "rate_limit")),
        format!("{} 64", requests("other", "deny")),
        "portcullis_request_duration_seconds_count{command=\"read\",datasource=\"demo\",\
         protocol=\"postgresql\"} 1"
            .to_owned(),
        "portcullis_errors_total{class=\"22\",datasource=\"demo\",protocol=\"postgresql\",\
         source=\"client\"} 2"
            .to_owned(),
    ] {
        assert_line(&metrics, &line);
    }
}

#[test]
fn events_are_counted_once_where_they_belong() {
    let metrics = metrics();
    let observe = |kind| metrics.observe(&events::event(Some(events::session()), kind));
    observe(EventKind::SessionOpened { method: "SCRAM-SHA-256" });
    observe(EventKind::LoginFailed { code: "28P01".into(), method: Some("md5"), reason: None });
    observe(events::decision(events::denied(), None));
    observe(events::decision(events::masked(), None));
    observe(events::decision(events::masked(), Some(events::rule("per-min"))));
    observe(events::outcome(Some(*b"53100")));
    observe(EventKind::SessionClosed { end: "timeout" });
    let demo = "datasource=\"demo\"";
    let pg = "protocol=\"postgresql\"";
    for line in [
        format!(
            "portcullis_auth_attempts_total{{{demo},method=\"scram-sha-256\",{pg},\
             result=\"success\"}} 1"
        ),
        format!(
            "portcullis_auth_attempts_total{{{demo},method=\"md5\",{pg},result=\"failure\"}} 1"
        ),
        format!("portcullis_requests_total{{command=\"delete\",{demo},decision=\"deny\",{pg}}} 1"),
        format!("portcullis_requests_total{{command=\"select\",{demo},decision=\"mask\",{pg}}} 1"),
        format!(
            "portcullis_requests_total{{command=\"select\",{demo},decision=\"rate_limit\",{pg}}} 1"
        ),
        format!("portcullis_errors_total{{class=\"28\",{demo},{pg},source=\"client\"}} 1"),
        format!("portcullis_errors_total{{class=\"53\",{demo},{pg},source=\"server\"}} 1"),
        format!("portcullis_rows_total{{{demo},{pg}}} 250"),
        format!("portcullis_request_duration_seconds_count{{command=\"select\",{demo},{pg}}} 1"),
        "portcullis_sessions_ended_total{end=\"timeout\"} 1".to_owned(),
    ] {
        assert_line(&metrics, &line);
    }
}

#[test]
fn a_text_that_was_not_understood_is_a_parse_failure() {
    let metrics = metrics();
    for (code, normalized, reason, count) in [
        ("42601", None, "syntax", 1),
        ("22021", None, "encoding", 1),
        ("54000", None, "too_complex", 1),
        ("0A000", None, "unsupported", 1),
        // Understood, and refused for another reason.
        ("42501", Some("SELECT ?".to_owned()), "unsupported", 1),
    ] {
        let verdict = RecordedVerdict::Denied { code: code.into(), reason: "no".into() };
        let record = StatementRecord { normalized, verdict, ..events::masked() };
        let decision = events::decision(record, None);
        metrics.observe(&events::event(Some(events::session()), decision));
        assert_line(
            &metrics,
            &format!(
                "portcullis_parse_failures_total{{datasource=\"demo\",protocol=\"postgresql\",\
                 reason=\"{reason}\"}} {count}"
            ),
        );
    }
}

#[test]
fn a_connection_is_counted_while_its_guard_lives() {
    let metrics = metrics();
    let demo = metrics.datasource("demo").expect("datasource");
    let open = "portcullis_client_connections{datasource=\"demo\",protocol=\"postgresql\"}";
    let guard = demo.connection_opened();
    assert_line(&metrics, &format!("{open} 1"));
    drop(guard);
    assert_line(&metrics, &format!("{open} 0"));
}

#[test]
fn only_the_digest_in_force_is_shown() {
    let metrics = metrics();
    metrics.rules_accepted(RulesInForce { rules: 3, generation: 1, digest: "aa" });
    metrics.rules_accepted(RulesInForce { rules: 4, generation: 2, digest: "bb" });
    metrics.rules_rejected();
    let text = text(&metrics);
    assert!(!text.contains("digest=\"aa\"") && text.contains("digest=\"bb\"} 1"), "{text}");
    assert_line(&metrics, "portcullis_rules_generation 2");
    assert_line(&metrics, "portcullis_rules_last_reload_success 0");
    assert_line(&metrics, "portcullis_rules_reloads_total{result=\"rejected\"} 1");
}

#[test]
fn cache_counters_follow_totals_and_never_go_back() {
    let metrics = metrics();
    for (hits, misses) in [(5, 1), (9, 1), (2, 0)] {
        metrics.decision_cache(hits, misses);
    }
    assert_line(&metrics, "portcullis_decision_cache_hits_total 9");
    assert_line(&metrics, "portcullis_decision_cache_misses_total 1");
}
