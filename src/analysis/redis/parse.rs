//! From the lines of the two files to commands.

use std::sync::Arc;

use crate::analysis::redis::channels::{Channels, Many};
use crate::analysis::redis::expiry;
use crate::analysis::redis::keys::{Counting, KeySpec, Keys, Place};
use crate::analysis::redis::shape::Replies;
use crate::analysis::redis::special::Special;
use crate::analysis::redis::{Answered, Arity, Command, CommandId, Role, Subscribed};
use crate::facts::{ChannelMode, CommandUse, Exposure, KeyMode, KnownBy, Unnamed};

/// One line of `commands.tsv` with its line of `reviewed.tsv`; `None` if one of them is not as the
/// head of its file says.
pub(super) fn command(id: CommandId, generated: &str, reviewed: &str) -> Option<Command> {
    let mut columns = generated.split('\t');
    let name = columns.next()?;
    let [_servers, _since, arity, _flags, categories, specs, differs] = columns.collect_array()?;
    let mut columns = reviewed.split('\t');
    if columns.next()? != name {
        return None;
    }
    let [kind, door, exposures, touches, reply] = columns.collect_array()?;
    let door = match door {
        "door" => true,
        "-" => false,
        _ => return None,
    };
    let may_block = [categories, differs].iter().any(|column| column.contains("blocking"));
    let categories = words(categories).map(Arc::from).collect();
    let (script, touches) = match touches.split_once('@') {
        Some(("script", place)) => (Some((place.parse().ok()?, KnownBy::Digest)), "reached"),
        Some(("function", place)) => (Some((place.parse().ok()?, KnownBy::Name)), "reached"),
        Some(_) | None => (None, touches),
    };
    let (unnamed, channels) = touched(touches)?;
    let counting = match unnamed {
        Unnamed::Reached if name.starts_with("fcall") => Counting::Function,
        Unnamed::Reached => Counting::Script,
        Unnamed::Untouched | Unnamed::Listed | Unnamed::Counted | Unnamed::Changed => {
            Counting::Plain
        }
    };
    let role = role(kind)?;
    Some(Command {
        id,
        fact: Arc::new(CommandUse {
            name: name.into(),
            categories,
            door,
            ends: expiry::ends(name),
            unruled: matches!(role, Role::Quit | Role::Auth | Role::Hello | Role::Reset),
        }),
        role,
        arities: arities(arity, differs)?,
        container: false,
        keys: keys(specs, exposures, counting)?,
        channels,
        unnamed,
        script,
        replies: Replies::parse(reply)?,
        may_block,
    })
}

fn words(column: &str) -> impl Iterator<Item = &str> {
    column.split(',').filter(|word| *word != "-")
}

fn arities(base: &str, differs: &str) -> Option<Box<[Arity]>> {
    let others =
        differs.split("; ").filter_map(|each| each.split_once(" arity=")).map(|(_, arity)| arity);
    std::iter::once(base).chain(others).map(arity).collect()
}

fn arity(text: &str) -> Option<Arity> {
    Some(match text.strip_prefix('-') {
        Some(least) => Arity::AtLeast(least.parse().ok()?),
        None => Arity::Exactly(text.parse().ok()?),
    })
}

fn role(text: &str) -> Option<Role> {
    Some(match text {
        "plain" => Role::Plain,
        "auth" => Role::Auth,
        "hello" => Role::Hello,
        "reset" => Role::Reset,
        "quit" => Role::Quit,
        "select" => Role::Select,
        "multi" => Role::Multi,
        "exec" => Role::Exec,
        "discard" => Role::Discard,
        "client-reply" => Role::ClientReply,
        "monitor" => Role::Monitor,
        "never" => Role::Never,
        _ => match text.split_once(':')? {
            ("subscribe", what) => Role::Subscribe(subscribed(what)?),
            ("unsubscribe", what) => Role::Unsubscribe(subscribed(what)?),
            ("answered", what) => Role::Answered(answered(what)?),
            _ => return None,
        },
    })
}

fn subscribed(text: &str) -> Option<Subscribed> {
    Some(match text {
        "channel" => Subscribed::Channel,
        "pattern" => Subscribed::Pattern,
        "shard" => Subscribed::Shard,
        _ => return None,
    })
}

fn answered(text: &str) -> Option<Answered> {
    Some(match text {
        "info" => Answered::Info,
        "role" => Answered::Role,
        "config-get" => Answered::ConfigGet,
        "cluster" => Answered::Cluster,
        "whoami" => Answered::WhoAmI,
        _ => return None,
    })
}

fn touched(text: &str) -> Option<(Unnamed, Option<Channels>)> {
    Some(match text {
        "-" => (Unnamed::Untouched, None),
        "listed" => (Unnamed::Listed, None),
        "counted" => (Unnamed::Counted, None),
        "changed" => (Unnamed::Changed, None),
        "reached" => (Unnamed::Reached, None),
        _ => (Unnamed::Untouched, Some(channels(text)?)),
    })
}

fn channels(text: &str) -> Option<Channels> {
    let (mode, place) = text.split_once('@')?;
    let mode = match mode {
        "publish" => ChannelMode::Publish,
        "subscribe" => ChannelMode::Subscribe,
        "pattern" => ChannelMode::SubscribePattern,
        _ => return None,
    };
    let (first, many) = match place.strip_suffix("..") {
        Some(first) => (first, Many::Rest),
        None => (place, Many::One),
    };
    Some(Channels { first: first.parse().ok()?, many, mode })
}

/// As many words on exposure as there are specifications of keys.
fn keys(specs: &str, exposures: &str, counting: Counting) -> Option<Keys> {
    if let Some(special) = exposures.strip_prefix('@') {
        return Some(Keys::Special(Special::parse(special)?));
    }
    let specs = specs.split(';').filter(|spec| *spec != "-" && !spec.starts_with("not_key@"));
    let mut exposures = exposures.split(';').filter(|word| *word != "-");
    let keys: Option<Box<[_]>> = specs.map(|spec| key(spec, exposures.next()?, counting)).collect();
    keys.filter(|_| exposures.next().is_none()).map(Keys::Specs)
}

fn key(spec: &str, reviewed: &str, counting: Counting) -> Option<KeySpec> {
    let (flags, place) = spec.split_once('@')?;
    let (begin, find) = place.split_once('/')?;
    let begin: usize = begin.parse().ok()?;
    let (exposure, mode) = match reviewed.strip_suffix("+rw") {
        Some(exposure) => (exposure, KeyMode::ReadWrite),
        None => (reviewed, mode(flags)),
    };
    let exposure = match exposure {
        "hidden" => Exposure::Hidden,
        "shown" => Exposure::Shown,
        "derived" => Exposure::Derived,
        "copied" => Exposure::Copied,
        _ => return None,
    };
    Some(KeySpec { place: found(begin, find, counting)?, mode, exposure })
}

/// What is only inserted, updated or deleted is written; what is accessed is read; what is neither
/// is read, too: something about it decides what happens.
fn mode(flags: &str) -> KeyMode {
    let has = |wanted: &str| flags.split(',').any(|flag| flag == wanted);
    let writes = has("insert") || has("update") || has("delete");
    match (has("access"), writes) {
        (true, true) => KeyMode::ReadWrite,
        (false, true) => KeyMode::Write,
        (_, false) => KeyMode::Read,
    }
}

fn found(begin: usize, find: &str, counting: Counting) -> Option<Place> {
    if let Some(numbers) = find.strip_prefix("num(").and_then(|rest| rest.strip_suffix(')')) {
        let [count, first, step] = numbers.split(',').collect_array()?;
        let count = begin.checked_add(count.parse().ok()?)?;
        let first = begin.checked_add(first.parse().ok()?)?;
        return Some(Place::Counted { count, first, step: step.parse().ok()?, counting });
    }
    let [last, step, limit] = find.split(',').collect_array()?;
    if limit != "0" {
        return None;
    }
    let step = step.parse().ok()?;
    Some(match last.strip_prefix('-') {
        Some(back) => Place::UntilEnd { first: begin, back: back.parse().ok()?, step },
        None => {
            let last = begin.checked_add(last.parse().ok()?)?;
            Place::Range { first: begin, last, step }
        }
    })
}

/// Exactly so many items.
trait CollectArray<'a>: Iterator<Item = &'a str> + Sized {
    fn collect_array<const N: usize>(mut self) -> Option<[&'a str; N]> {
        let mut items = [""; N];
        for place in &mut items {
            *place = self.next()?;
        }
        self.next().is_none().then_some(items)
    }
}

impl<'a, I: Iterator<Item = &'a str>> CollectArray<'a> for I {}
