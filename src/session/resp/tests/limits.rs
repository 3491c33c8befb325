//! Limits on what commands bring.

use super::super::fuzz::{Run, World};
use super::expiry::array;
use crate::event::EventKind;
use crate::session::Side;

const RULES: &str = "version: 1
rules:
  - {id: small, match: {writes: ['b:*']}, limit: {bytes: 20B/min}}
  - {id: few, match: {writes: ['a:*']}, limit: {arguments: 4/min}}
";

/// Whether the server got each of these commands.
fn passed(lines: &[&str]) -> Vec<bool> {
    let world = World::with_rules(RULES).expect("rules");
    let mut run = Run::new(&world);
    let each = lines.iter().map(|line| {
        run.feed(Side::Client, array(line).as_bytes());
        let sent = String::from_utf8(std::mem::take(&mut run.to_server)).unwrap();
        assert!(sent.is_empty() || sent == array(line), "{line}");
        !sent.is_empty()
    });
    each.collect()
}

#[test]
fn bytes_that_commands_bring_are_counted() {
    let ten = "set b:1 0123456789";
    assert_eq!(
        passed(&[ten, ten, ten, "get b:1", "del b:1", "set other 0123"]),
        [true, true, false, true, true, true]
    );
    // Keys and names are not; what is refused is not charged.
    assert_eq!(
        passed(&["set b:0123456789012345678901 x", "set b:1 01234567890123456789", ten]),
        [true, false, true]
    );
    assert_eq!(passed(&["mset b:1 0123456789 c 0123456789", "set b:1 x"]), [true, false]);
}

#[test]
fn arguments_that_commands_bring_are_counted() {
    assert_eq!(
        passed(&["rpush a:1 x y z", "rpush a:1 x y", "rpush a:1 x", "llen a:1"]),
        [true, false, true, true]
    );
}

#[test]
fn what_one_limit_refuses_is_charged_to_no_other() {
    let rules = "version: 1
rules:
  - {id: all, match: {writes: ['*']}, limit: {bytes: 25B/min}}
  - {id: few, match: {writes: ['a:*']}, limit: {rate: 1/min}}
  - {id: too, match: {writes: ['a:*']}, limit: {bytes: 1KiB/min}}
";
    let world = World::with_rules(rules).expect("rules");
    let mut run = Run::new(&world);
    let sent = |run: &mut Run<'_>, line: &str| {
        run.feed(Side::Client, array(line).as_bytes());
        !std::mem::take(&mut run.to_server).is_empty()
    };
    assert!(sent(&mut run, "set a:1 0123456789"));
    for _ in 0..3 {
        assert!(!sent(&mut run, "set a:1 0123456789"), "it may ask once");
    }
    assert!(sent(&mut run, "set b:1 0123456789"), "the others have their share");
    assert!(!sent(&mut run, "set b:1 0123456789"));
}

#[test]
fn each_of_many_equal_commands_is_charged() {
    let world = World::with_rules(RULES).expect("rules");
    let mut run = Run::new(&world);
    let one = array("set b:1 0123456789");
    run.feed(Side::Client, one.repeat(5).as_bytes());
    assert_eq!(run.to_server, one.repeat(2).as_bytes());
    let refused = run.events.iter().filter(|event| {
        matches!(&event.kind, EventKind::CommandsDecided { limited_by: Some(rule), .. } if &*rule.0 == "small")
    });
    assert_eq!(refused.count(), 3);
}

#[test]
fn more_than_a_limit_ever_gives_is_told_so() {
    let world = World::with_rules(RULES).expect("rules");
    let mut run = Run::new(&world);
    let head = "*3\r\n$3\r\nSET\r\n$3\r\nb:1\r\n$3000000\r\n";
    run.feed(Side::Client, head.as_bytes());
    assert!(run.to_server.is_empty());
    let told = String::from_utf8_lossy(&run.to_client).into_owned();
    assert!(told.starts_with("-NOPERM rule `small`: this is more at once than"), "{told}");
}
