//! Texts the grammar refuses never reach the server; a client must not be able to tell.

use std::fs;

use crate::harness::{Portcullis, Setup};
use crate::pg::Postgres;
use crate::raw::Raw;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/syntax_errors.sql");
/// Every field but file, line and routine of the server's own source.
const FIELDS: &[u8] = b"SVCMDHPpqWstcdn";

fn corpus() -> Vec<String> {
    let text = fs::read_to_string(CORPUS).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("--"));
    lines.map(|line| line.replace(r"\n", "\n")).collect()
}

#[test]
fn what_the_grammar_refuses_is_refused_in_the_servers_words() {
    let server = Postgres::start();
    let proxy = Portcullis::start(&Setup::open(server.address()));
    let mut ours = Raw::login(proxy.address(), "app");
    let mut theirs = Raw::login(server.address(), "app");
    let mut differences = Vec::new();
    for text in corpus() {
        let (mine, real) = (ours.query(&text), theirs.query(&text));
        let sequences = (mine.sequence.as_str(), real.sequence.as_str());
        if sequences != ("EZ", "EZ") {
            differences.push(format!("{text}\n  {sequences:?}"));
            continue;
        }
        for field in FIELDS {
            let pair = (mine.errors[0].get(*field), real.errors[0].get(*field));
            if pair.0 != pair.1 {
                let field = char::from(*field);
                differences.push(format!("{text}\n  {field} {:?} not {:?}", pair.0, pair.1));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
