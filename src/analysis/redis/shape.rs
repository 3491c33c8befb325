//! What stands where in the reply to a command.

use crate::analysis::redis::Args;

/// What the parts of a reply are.
///
/// An error instead of a reply, and a null instead of any part of it, fit every shape. What does
/// not fit is taken for a value of a key: in doubt it is masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing that came out of a key and no key's name, however deep it goes.
    Other,
    /// A value of the key at hand, in the field at hand if there is one. Of an aggregate: all that is
    /// in it.
    Value,
    /// The name of a key, which is the key at hand for what follows beside it.
    Key,
    /// The name of a field of the key at hand, which is the field at hand for the next value.
    Field,
    /// Any number of elements of one shape.
    Each(Box<Self>),
    /// One element after the other; elements beyond are like the last one.
    Tuple(Box<[Self]>),
    /// Pairs: one after the other in one array, or a map, or an array of arrays of two.
    Pairs(Box<Self>, Box<Self>),
    /// The first element is a value of the first key the command names, the second of the second.
    ByKey,
    /// A value of the field that this argument names. If there is no such argument, of a field that
    /// cannot be told: HVALS shows values of any.
    OfField(usize),
    /// The first element is a value of the field that this argument names, the second of the field
    /// that the next one names.
    ByField(usize),
}

/// The shapes of the replies to one command: the first whose condition holds.
#[derive(Debug)]
pub(super) struct Replies(Box<[(Condition, Shape)]>);

/// On which arguments a reply depends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    /// There are more arguments than so many, the name included.
    MoreThan(usize),
    /// One from this place on is this option.
    Option(Box<str>, usize),
}

impl Replies {
    /// As `reviewed.tsv` writes them; `None` if that is no grammar, or if none holds at last.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let replies: Box<[_]> = text.split("; ").map(condition_and_shape).collect::<Option<_>>()?;
        matches!(replies.last(), Some((Condition::Always, _))).then_some(Self(replies))
    }

    pub(super) fn shape(&self, args: &(impl Args + ?Sized)) -> Shape {
        let holding = self.0.iter().find(|(condition, _)| condition.holds(args));
        holding.map_or(Shape::Value, |(_, shape)| shape.clone())
    }
}

impl Condition {
    fn holds(&self, args: &(impl Args + ?Sized)) -> bool {
        match self {
            Self::Always => true,
            Self::MoreThan(count) => args.len() > *count,
            Self::Option(word, from) => {
                let mut at = *from;
                while let Some(argument) = args.get(at) {
                    if argument.eq_ignore_ascii_case(word.as_bytes()) {
                        return true;
                    }
                    let has_value =
                        WITH_VALUE.iter().any(|with| argument.eq_ignore_ascii_case(with));
                    at = at.saturating_add(if has_value { 2 } else { 1 });
                }
                false
            }
        }
    }
}

fn condition_and_shape(text: &str) -> Option<(Condition, Shape)> {
    let Some((condition, shape)) = text.split_once(' ') else {
        return Some((Condition::Always, Shape::parse(text)?));
    };
    let (word, number) = condition.split_once('>')?;
    let number = number.parse().ok()?;
    let condition = if word.is_empty() {
        Condition::MoreThan(number)
    } else {
        Condition::Option(word.into(), number)
    };
    Some((condition, Shape::parse(shape)?))
}

impl Shape {
    fn parse(text: &str) -> Option<Self> {
        let (shape, rest) = shape(text)?;
        rest.is_empty().then_some(shape)
    }
}

/// The shape a text begins with, and what follows.
fn shape(text: &str) -> Option<(Shape, &str)> {
    if let Some(pair) = text.strip_prefix('{') {
        let (first, rest) = shape(pair)?;
        let (second, rest) = shape(rest.strip_prefix(':')?)?;
        return Some((Shape::Pairs(Box::new(first), Box::new(second)), rest.strip_prefix('}')?));
    }
    if let Some(elements) = text.strip_prefix('[') {
        return list(elements);
    }
    let end = text.find([',', ':', ']', '}']).unwrap_or(text.len());
    let (word, rest) = text.split_at_checked(end)?;
    let plain = match word {
        "other" => Shape::Other,
        "value" => Shape::Value,
        "key" => Shape::Key,
        "field" => Shape::Field,
        "by-key" => Shape::ByKey,
        _ => match word.split_once('@')? {
            ("field", at) => Shape::OfField(at.parse().ok()?),
            ("fields", at) => Shape::ByField(at.parse().ok()?),
            _ => return None,
        },
    };
    Some((plain, rest))
}

fn list(text: &str) -> Option<(Shape, &str)> {
    let (first, mut rest) = shape(text)?;
    let mut elements = vec![first];
    while let Some(more) = rest.strip_prefix(',') {
        let (next, after) = shape(more)?;
        elements.push(next);
        rest = after;
    }
    let rest = rest.strip_prefix(']')?;
    if elements.len() > 1 {
        return Some((Shape::Tuple(elements.into()), rest));
    }
    Some((Shape::Each(Box::new(elements.pop()?)), rest))
}

/// Options that another argument belongs to, which is no option whatever it says.
const WITH_VALUE: [&[u8]; 11] = [
    b"MATCH",
    b"COUNT",
    b"EX",
    b"PX",
    b"EXAT",
    b"PXAT",
    b"IFEQ",
    b"IDLE",
    b"TIME",
    b"RETRYCOUNT",
    b"LASTID",
];
