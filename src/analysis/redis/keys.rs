//! Where keys are among arguments, as far as specifications tell.

use crate::analysis::redis::special::Special;
use crate::analysis::redis::{Args, KeyAt, NotUnderstood, Uses};
use crate::facts::{Exposure, KeyMode};

/// How the keys of a command are found.
#[derive(Debug)]
pub(super) enum Keys {
    /// One specification after another.
    Specs(Box<[KeySpec]>),
    /// By code that reads the options.
    Special(Special),
}

/// A few arguments that are keys, all used alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeySpec {
    /// Where they are.
    pub(super) place: Place,
    /// What happens to them.
    pub(super) mode: KeyMode,
    /// What leaves their values.
    pub(super) exposure: Exposure,
}

/// Places of arguments, the command's name being at zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// From one to another, both included.
    Range { first: usize, last: usize, step: usize },
    /// From one to the so manieth from the end: 1 is the last argument.
    UntilEnd { first: usize, back: usize, step: usize },
    /// As many as the number at `count` says, from `first` on.
    Counted { count: usize, first: usize, step: usize, counting: Counting },
}

/// How servers complain about a number of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counting {
    /// As the commands of sets, lists and sorted sets do.
    Plain,
    /// As scripts do, which may have no keys.
    Script,
    /// As functions do: the same, in other words where it is no number.
    Function,
}

impl Keys {
    #[inline]
    pub(super) fn read(
        &self,
        args: &(impl Args + ?Sized),
        uses: &mut Uses,
    ) -> Result<(), NotUnderstood> {
        match self {
            Self::Specs(specs) => specs.iter().try_for_each(|spec| spec.read(args, uses)),
            Self::Special(special) => special.read(args, uses),
        }
    }
}

impl KeySpec {
    #[inline]
    fn read(&self, args: &(impl Args + ?Sized), uses: &mut Uses) -> Result<(), NotUnderstood> {
        let Self { place, mode, exposure } = *self;
        let len = args.len();
        let (first, end, step) = match place {
            Place::Range { first, last, step } => (first, last.saturating_add(1), step),
            Place::UntilEnd { first, back, step } => {
                (first, len.saturating_add(1).saturating_sub(back), step)
            }
            Place::Counted { count, first, step, counting } => {
                let keys = counted(args, count, counting)?;
                let end = keys.checked_mul(step).and_then(|keys| keys.checked_add(first));
                let end = end.filter(|end| *end <= len).ok_or(TOO_MANY_KEYS)?;
                (first, end, step)
            }
        };
        if end > len {
            return Err(TOO_FEW);
        }
        let places = (first..end).step_by(step.max(1));
        uses.keys.extend(places.map(|at| KeyAt { at, mode, exposure }));
        Ok(())
    }
}

fn counted(
    args: &(impl Args + ?Sized),
    at: usize,
    counting: Counting,
) -> Result<usize, NotUnderstood> {
    let (no_number, negative) = match counting {
        Counting::Plain => (NOT_POSITIVE, NOT_POSITIVE),
        Counting::Script => (NOT_INTEGER, NEGATIVE),
        Counting::Function => (BAD_NUMBER, NEGATIVE),
    };
    let number = integer(args.get(at).ok_or(TOO_FEW)?).ok_or(no_number)?;
    usize::try_from(number).ok().ok_or(negative)
}

/// A number as servers read the arguments of commands: no sign but a minus, no zeros in front, no
/// spaces. They would refuse what is `None` here, so that nobody has to guess how they read it.
pub(super) fn integer(bytes: &[u8]) -> Option<i64> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let plain = match digits {
        [] => false,
        [b'0'] => digits.len() == bytes.len(),
        [first, rest @ ..] => {
            *first != b'0' && first.is_ascii_digit() && rest.iter().all(u8::is_ascii_digit)
        }
    };
    if !plain {
        return None;
    }
    str::from_utf8(bytes).ok()?.parse().ok()
}

pub(super) const SYNTAX: NotUnderstood = NotUnderstood("syntax error");
pub(super) const TOO_FEW: NotUnderstood = NotUnderstood("wrong number of arguments");
const TOO_MANY_KEYS: NotUnderstood =
    NotUnderstood("Number of keys can't be greater than number of args");
const NOT_POSITIVE: NotUnderstood = NotUnderstood("numkeys should be greater than 0");
const NOT_INTEGER: NotUnderstood = NotUnderstood("value is not an integer or out of range");
const BAD_NUMBER: NotUnderstood = NotUnderstood("Bad number of keys provided");
const NEGATIVE: NotUnderstood = NotUnderstood("Number of keys can't be negative");
