//! When the keys a command writes expire by it.
//!
//! Rules on expiry are kept by refusing: a command that takes an expiry away, or gives one that is
//! too long. What is not surely harmless counts as taking it away.

use super::{Args, Command};

/// What a command does about the expiry of the keys it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing: what there was stays, and a key it makes has none.
    Kept,
    /// Afterwards there is none, or none that can be told.
    Removed,
    /// So many milliseconds from now.
    In(u64),
    /// At this time, in milliseconds of Unix time.
    At(u64),
}

impl Command {
    /// What it does with these arguments.
    pub fn expiry(&self, args: &(impl Args + ?Sized)) -> Expiry {
        match &*self.fact.name {
            "set" => of_set(args),
            "getex" => of_getex(args),
            "setex" | "expire" => number(args, 2, 1_000).map_or(Expiry::Removed, Expiry::In),
            "psetex" | "pexpire" => number(args, 2, 1).map_or(Expiry::Removed, Expiry::In),
            "expireat" => number(args, 2, 1_000).map_or(Expiry::Removed, Expiry::At),
            "pexpireat" => number(args, 2, 1).map_or(Expiry::Removed, Expiry::At),
            "sort" if !has(args, 2, &["store"]) => Expiry::Kept,
            "georadius" | "georadiusbymember" if !has(args, 5, &["store", "storedist"]) => {
                Expiry::Kept
            }
            name if REMOVING.contains(&name) => Expiry::Removed,
            _ => Expiry::Kept,
        }
    }
}

/// Commands that write a whole value, which has no expiry then, or that of another key.
const REMOVING: &[&str] = &[
    "bitop",
    "copy",
    "georadius",
    "georadiusbymember",
    "geosearchstore",
    "getset",
    "migrate",
    "move",
    "mset",
    "msetnx",
    "persist",
    "rename",
    "renamenx",
    "restore",
    "restore-asking",
    "sdiffstore",
    "setnx",
    "sinterstore",
    "sort",
    "sunionstore",
    "zdiffstore",
    "zinterstore",
    "zrangestore",
    "zunionstore",
];

/// SET: none unless an option says so.
fn of_set(args: &(impl Args + ?Sized)) -> Expiry {
    let mut found = Expiry::Removed;
    let mut at = 3;
    while at < args.len() {
        let Some(word) = args.get(at) else { return Expiry::Removed };
        let is = |option: &str| word.eq_ignore_ascii_case(option.as_bytes());
        if is("keepttl") {
            found = Expiry::Kept;
        } else if let Some(expiry) = option(args, at) {
            found = expiry;
            at += 1;
        } else if is("ifeq") {
            at += 1;
        } else if !(is("nx") || is("xx") || is("get")) {
            // An option of a later server.
            return Expiry::Removed;
        }
        at += 1;
    }
    found
}

/// GETEX: it stays unless an option says otherwise.
fn of_getex(args: &(impl Args + ?Sized)) -> Expiry {
    match args.len() {
        0..=2 => Expiry::Kept,
        4 => option(args, 2).unwrap_or(Expiry::Removed),
        _ => Expiry::Removed,
    }
}

/// The expiry an option with its number says, if it is one.
fn option(args: &(impl Args + ?Sized), at: usize) -> Option<Expiry> {
    let word = args.get(at)?;
    let is = |option: &str| word.eq_ignore_ascii_case(option.as_bytes());
    let after = |unit| number(args, at + 1, unit);
    if is("ex") {
        Some(after(1_000).map_or(Expiry::Removed, Expiry::In))
    } else if is("px") {
        Some(after(1).map_or(Expiry::Removed, Expiry::In))
    } else if is("exat") {
        Some(after(1_000).map_or(Expiry::Removed, Expiry::At))
    } else if is("pxat") {
        Some(after(1).map_or(Expiry::Removed, Expiry::At))
    } else {
        None
    }
}

/// A number of units as milliseconds; what is past is now.
fn number(args: &(impl Args + ?Sized), at: usize, unit: u64) -> Option<u64> {
    let number: i64 = std::str::from_utf8(args.get(at)?).ok()?.parse().ok()?;
    Some(u64::try_from(number).unwrap_or(0).saturating_mul(unit))
}

fn has(args: &(impl Args + ?Sized), from: usize, words: &[&str]) -> bool {
    let is = |arg: &[u8]| words.iter().any(|word| arg.eq_ignore_ascii_case(word.as_bytes()));
    // What is not at hand may be one of them.
    (from..args.len()).any(|at| args.get(at).is_none_or(is))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::redis::{Found, Table};

    #[test]
    fn the_expiry_of_a_command_is_read_from_its_options() {
        let table = Table::builtin();
        for (line, expected) in [
            ("set k v", Expiry::Removed),
            ("set k v nx get", Expiry::Removed),
            ("set k v keepttl", Expiry::Kept),
            ("SET k v NX EX 10", Expiry::In(10_000)),
            ("set k v px 10 xx", Expiry::In(10)),
            ("set k v exat 10", Expiry::At(10_000)),
            ("set k v pxat 10", Expiry::At(10)),
            ("set k v ifeq keepttl", Expiry::Removed),
            ("set k v ifeq x ex 1", Expiry::In(1_000)),
            ("set k v ex", Expiry::Removed),
            ("set k v ex ten", Expiry::Removed),
            ("set k v later", Expiry::Removed),
            ("set k ex 10", Expiry::Removed),
            ("setex k 10 v", Expiry::In(10_000)),
            ("psetex k 10 v", Expiry::In(10)),
            ("expire k 10", Expiry::In(10_000)),
            ("expire k -1", Expiry::In(0)),
            ("expire k 9223372036854775807", Expiry::In(u64::MAX)),
            ("pexpireat k 10 gt", Expiry::At(10)),
            ("persist k", Expiry::Removed),
            ("getex k", Expiry::Kept),
            ("getex k persist", Expiry::Removed),
            ("getex k ex 1", Expiry::In(1_000)),
            ("getex k other 1", Expiry::Removed),
            ("sort k", Expiry::Kept),
            ("sort k limit 0 1 store d", Expiry::Removed),
            ("rename a b", Expiry::Removed),
            ("mset a b", Expiry::Removed),
            ("hset k f v", Expiry::Kept),
            ("get k", Expiry::Kept),
        ] {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let Found::Command(command) = table.find(words.as_slice()) else { panic!("{line}") };
            assert_eq!(command.expiry(words.as_slice()), expected, "{line}");
        }
        for name in REMOVING {
            let known = table.commands().iter().any(|command| *command.fact.name == **name);
            assert!(known, "{name} is no command of the table");
        }
    }
}
