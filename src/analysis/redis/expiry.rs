//! When the keys a command writes expire by it, and where it says so.
//!
//! Rules on expiry are kept by refusing, or by saying another one in the command's own words: an
//! option put in, a number exchanged. What is not surely understood counts as taking the expiry away,
//! and is not written anew: the server may read it differently.

use super::keys::integer;
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

impl Expiry {
    /// For how long its keys are left by it, milliseconds; `now_ms` is the Unix time. The longest of
    /// all where it leaves none, nothing where it changes none.
    pub fn left_ms(self, now_ms: u64) -> u64 {
        match self {
            Self::Kept => 0,
            Self::Removed => u64::MAX,
            Self::In(ms) => ms,
            Self::At(ms) => ms.saturating_sub(now_ms),
        }
    }
}

/// What a command says of expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// What it does.
    pub expiry: Expiry,
    /// Where another one can be said, if it can.
    pub place: Option<Place>,
}

/// Where a command says an expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An option in this place with its number behind it; past the last argument it is put in.
    Option(usize),
    /// The number in this place; whether it is seconds or milliseconds is in the command's name.
    Named {
        /// Place of the number.
        at: usize,
        /// The command with seconds.
        seconds: &'static str,
        /// The one with milliseconds.
        milliseconds: &'static str,
    },
    /// The number of milliseconds in this place.
    Milliseconds(usize),
}

/// Arguments of a command that go to the server with other bytes than the client's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amended(Vec<(usize, Box<[u8]>)>);

impl Place {
    /// The arguments with which a command says this expiry, from now, in this place.
    pub fn say(self, ms: u64) -> Amended {
        let (number, whole) =
            if ms.is_multiple_of(1_000) { (ms / 1_000, true) } else { (ms, false) };
        let word = |at: usize, text: &str| (at, Box::from(text.as_bytes()));
        let digits = |at: usize, number: u64| word(at, &number.to_string());
        Amended(match self {
            Self::Option(at) => {
                vec![
                    word(at, if whole { "EX" } else { "PX" }),
                    digits(at.saturating_add(1), number),
                ]
            }
            Self::Named { at, seconds, milliseconds } => {
                vec![word(0, if whole { seconds } else { milliseconds }), digits(at, number)]
            }
            Self::Milliseconds(at) => vec![digits(at, ms)],
        })
    }
}

impl Amended {
    /// The bytes for the argument in this place, if they are others than the client's.
    pub fn get(&self, at: usize) -> Option<&[u8]> {
        self.0.iter().find(|(place, _)| *place == at).map(|(_, bytes)| &**bytes)
    }

    /// Arguments behind the client's own, of which there are so many.
    pub fn behind(&self, args: usize) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |(place, _)| *place >= args).map(|(_, bytes)| &**bytes)
    }
}

impl Said {
    const KEPT: Self = Self { expiry: Expiry::Kept, place: None };
    const REMOVED: Self = Self { expiry: Expiry::Removed, place: None };

    /// An expiry that is said in this place; none if it is no number.
    fn at(place: Place, expiry: Option<Expiry>) -> Self {
        expiry.map_or(Self::REMOVED, |expiry| Self { expiry, place: Some(place) })
    }
}

impl Command {
    /// What it says of expiry with these arguments.
    pub fn expiry(&self, args: &(impl Args + ?Sized)) -> Said {
        let in_units = |seconds, milliseconds| Place::Named { at: 2, seconds, milliseconds };
        let (expire, setex) = (in_units("EXPIRE", "PEXPIRE"), in_units("SETEX", "PSETEX"));
        let after = |unit| number(args, 2, unit).map(Expiry::In);
        let until = |unit| number(args, 2, unit).map(Expiry::At);
        match &*self.fact.name {
            "set" => of_set(args),
            "getex" => of_getex(args),
            "restore" => of_restore(args),
            "setex" => Said::at(setex, after(1_000)),
            "psetex" => Said::at(setex, after(1)),
            "expire" => Said::at(expire, after(1_000)),
            "pexpire" => Said::at(expire, after(1)),
            "expireat" => Said::at(expire, until(1_000)),
            "pexpireat" => Said::at(expire, until(1)),
            "sort" if !has(args, 2, &["store"]) => Said::KEPT,
            "georadius" | "georadiusbymember" if !has(args, 5, &["store", "storedist"]) => {
                Said::KEPT
            }
            name if REMOVING.contains(&name) => Said::REMOVED,
            _ => Said::KEPT,
        }
    }

    /// What to do instead, where it leaves its keys without an expiry.
    pub fn ending_instead(&self) -> &'static str {
        match &*self.fact.name {
            "set" => "say one in the same command: SET with EX, or XX with KEEPTTL",
            "setnx" => "say one in the same command: SET with NX and EX",
            "getset" => "say one in the same command: SET with GET and EX",
            "mset" | "msetnx" => "say one for each key: SET with EX",
            "persist" | "getex" => "say another one: EXPIRE, GETEX with EX",
            "restore" => "say one in the same command, in its third place, without ABSTTL",
            _ => "write the key by a command that says one: SET with EX, SETEX",
        }
    }
}

/// Whether a command of this name may say when a key expires, or take that away.
pub(super) fn ends(name: &str) -> bool {
    SAYING.contains(&name) || REMOVING.contains(&name)
}

/// Commands whose arguments say it.
const SAYING: &[&str] =
    &["expire", "expireat", "getex", "pexpire", "pexpireat", "psetex", "restore", "set", "setex"];

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

/// SET: none unless an option says so. KEEPTTL keeps none where the key is new, and only another option
/// says that it is not.
fn of_set(args: &(impl Args + ?Sized)) -> Said {
    let (mut said, mut kept, mut exists) = (None, false, false);
    let mut at = 3;
    while at < args.len() {
        let Some(word) = args.get(at) else { return Said::REMOVED };
        let is = |option: &str| word.eq_ignore_ascii_case(option.as_bytes());
        if is("keepttl") {
            kept = true;
        } else if let Some(option) = option(args, at) {
            if said.replace(option).is_some() {
                // Servers differ in which of two holds.
                return Said::REMOVED;
            }
            at += 1;
        } else if is("ifeq") {
            exists = true;
            at += 1;
        } else if is("xx") {
            exists = true;
        } else if !(is("nx") || is("get")) {
            // An option of a later server.
            return Said::REMOVED;
        }
        at += 1;
    }
    match (said, kept) {
        (Some(said), false) => said,
        (None, false) => Said { expiry: Expiry::Removed, place: Some(Place::Option(args.len())) },
        (None, true) if exists => Said::KEPT,
        (Some(_) | None, true) => Said::REMOVED,
    }
}

/// GETEX: it stays unless an option says otherwise.
fn of_getex(args: &(impl Args + ?Sized)) -> Said {
    match args.len() {
        0..=2 => Said::KEPT,
        4 => option(args, 2).unwrap_or(Said::REMOVED),
        _ => Said::REMOVED,
    }
}

/// RESTORE: a number of milliseconds, and none for zero; a time of the clock only by an option.
fn of_restore(args: &(impl Args + ?Sized)) -> Said {
    let refused = args.get(2).is_some_and(|number| number.starts_with(b"-"));
    if refused || has(args, 4, &["absttl"]) {
        return Said::REMOVED;
    }
    let expiry =
        number(args, 2, 1).map(|ms| if ms == 0 { Expiry::Removed } else { Expiry::In(ms) });
    Said::at(Place::Milliseconds(2), expiry)
}

/// What an option with its number says, if it is one.
fn option(args: &(impl Args + ?Sized), at: usize) -> Option<Said> {
    let word = args.get(at)?;
    let is = |option: &str| word.eq_ignore_ascii_case(option.as_bytes());
    let number = |unit| number(args, at + 1, unit);
    let expiry = if is("ex") {
        number(1_000).map(Expiry::In)
    } else if is("px") {
        number(1).map(Expiry::In)
    } else if is("exat") {
        number(1_000).map(Expiry::At)
    } else if is("pxat") {
        number(1).map(Expiry::At)
    } else {
        return None;
    };
    Some(Said::at(Place::Option(at), expiry))
}

/// A number of units as milliseconds; what is past is now. Written as the servers want it: what they
/// refuse is not made to run.
fn number(args: &(impl Args + ?Sized), at: usize, unit: u64) -> Option<u64> {
    let number = integer(args.get(at)?)?;
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
            ("set k v keepttl", Expiry::Removed),
            ("set k v keepttl nx", Expiry::Removed),
            ("set k v keepttl get", Expiry::Removed),
            ("set k v keepttl xx", Expiry::Kept),
            ("set k v XX KeepTtl", Expiry::Kept),
            ("set k v ifeq x keepttl", Expiry::Kept),
            ("set k v xx keepttl ex 1", Expiry::Removed),
            ("SET k v NX EX 10", Expiry::In(10_000)),
            ("set k v px 10 xx", Expiry::In(10)),
            ("set k v exat 10", Expiry::At(10_000)),
            ("set k v pxat 10", Expiry::At(10)),
            ("set k v ifeq keepttl", Expiry::Removed),
            ("set k v ifeq x ex 1", Expiry::In(1_000)),
            ("set k v ex 1 ex 99999999", Expiry::Removed),
            ("set k v ex 1 px 99999999", Expiry::Removed),
            ("set k v ex", Expiry::Removed),
            ("set k v ex ten", Expiry::Removed),
            ("set k v ex 9223372036854775807", Expiry::In(u64::MAX)),
            ("set k v ex 9223372036854775808", Expiry::Removed),
            ("set k v pxat 18446744073709551616", Expiry::Removed),
            ("set k v ex\0 10", Expiry::Removed),
            ("set k v ex +10", Expiry::Removed),
            ("set k v ex 010", Expiry::Removed),
            ("set k v ex -0", Expiry::Removed),
            ("set k v later", Expiry::Removed),
            ("set k ex 10", Expiry::Removed),
            ("setex k 10 v", Expiry::In(10_000)),
            ("setex k 1e3 v", Expiry::Removed),
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
            ("getex k ex 1 persist", Expiry::Removed),
            ("restore k 0 x", Expiry::Removed),
            ("restore k 10 x replace", Expiry::In(10)),
            ("restore k 10 x AbsTtl", Expiry::Removed),
            ("restore k -10 x", Expiry::Removed),
            ("sort k", Expiry::Kept),
            ("sort k limit 0 1 store d", Expiry::Removed),
            ("rename a b", Expiry::Removed),
            ("copy a b", Expiry::Removed),
            ("mset a b", Expiry::Removed),
            ("hset k f v", Expiry::Kept),
            ("get k", Expiry::Kept),
        ] {
            let (_, said) = said(&table, line);
            assert_eq!(said.expiry, expected, "{line}");
        }
        for name in SAYING.iter().chain(REMOVING) {
            let known = table.commands().iter().any(|command| *command.fact.name == **name);
            assert!(known, "{name} is no command of the table");
        }
    }

    #[test]
    fn another_expiry_is_said_in_the_words_of_the_command() {
        let table = Table::builtin();
        let amended = |line: &str, ms: u64| {
            let (words, said) = said(&table, line);
            let Some(amended) = said.place.map(|place| place.say(ms)) else { return "-".into() };
            let own = words.iter().enumerate();
            let own = own.map(|(at, word)| amended.get(at).unwrap_or(word));
            let all: Vec<&[u8]> = own.chain(amended.behind(words.len())).collect();
            String::from_utf8(all.join(&b' ')).unwrap()
        };
        for (line, whole, parted) in [
            ("set k v", "set k v EX 60", "set k v PX 1500"),
            ("set k v nx get", "set k v nx get EX 60", "set k v nx get PX 1500"),
            ("set k v ifeq ex", "set k v ifeq ex EX 60", "set k v ifeq ex PX 1500"),
            ("set k v ex 99 nx", "set k v EX 60 nx", "set k v PX 1500 nx"),
            ("set k v nx pxat 9", "set k v nx EX 60", "set k v nx PX 1500"),
            ("getex k px 99999", "getex k EX 60", "getex k PX 1500"),
            ("setex k 99 v", "SETEX k 60 v", "PSETEX k 1500 v"),
            ("psetex k 99 v", "SETEX k 60 v", "PSETEX k 1500 v"),
            ("pexpire k 99 lt", "EXPIRE k 60 lt", "PEXPIRE k 1500 lt"),
            ("expireat k 99", "EXPIRE k 60", "PEXPIRE k 1500"),
            ("restore k 0 x", "restore k 60000 x", "restore k 1500 x"),
            ("set k v keepttl", "-", "-"),
            ("set k v ex 1 ex 2", "-", "-"),
            ("set k v ex ten", "-", "-"),
            ("set k v later 1", "-", "-"),
            ("getex k", "-", "-"),
            ("getex k persist", "-", "-"),
            ("restore k 9 x absttl", "-", "-"),
            ("setnx k v", "-", "-"),
            ("persist k", "-", "-"),
        ] {
            assert_eq!(amended(line, 60_000), whole, "{line}");
            assert_eq!(amended(line, 1_500), parted, "{line}");
        }
    }

    fn said<'a>(table: &Table, line: &'a str) -> (Vec<&'a [u8]>, Said) {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let Found::Command(command) = table.find(words.as_slice()) else { panic!("{line}") };
        let said = command.expiry(words.as_slice());
        assert!(command.fact.ends || said == Said::KEPT, "{line}: rules would pass it over");
        (words, said)
    }
}
