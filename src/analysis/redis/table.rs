//! All commands, and finding one by its name.

use std::collections::BTreeMap;

use crate::analysis::redis::{Args, Command, CommandId, parse};

/// The commands, in the order of their numbers.
///
/// Built once and owned by whoever serves; looking up allocates nothing.
#[derive(Debug)]
pub struct Table {
    commands: Vec<Command>,
    /// Open addressing; a power of two long, and never full.
    slots: Box<[Option<Slot>]>,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// A command, a subcommand if it is one. A container without any further argument is itself.
    Command(&'a Command),
    /// No command of the table.
    Unknown,
    /// No subcommand of this container.
    UnknownSubcommand(&'a str),
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    name: Name,
    container: Option<CommandId>,
    command: CommandId,
}

impl Table {
    /// The commands that were generated and reviewed. A line that says nothing, or that has no
    /// partner in the other file, is left out: its command is unknown, and refused.
    pub fn builtin() -> Self {
        let reviewed: BTreeMap<&str, &str> = lines(REVIEWED).collect();
        let mut commands = Vec::new();
        for (name, line) in lines(GENERATED) {
            let Ok(number) = u16::try_from(commands.len()) else { break };
            let found = reviewed.get(name);
            commands.extend(found.and_then(|found| parse::command(CommandId(number), line, found)));
        }
        Self::of(commands)
    }

    fn of(mut commands: Vec<Command>) -> Self {
        let size = commands.len().saturating_mul(4).next_power_of_two();
        let mut slots = vec![None; size].into_boxed_slice();
        let mut containers = Vec::new();
        for command in &commands {
            let mut words = command.fact.name.split('|');
            let container = match (words.next(), words.next()) {
                (Some(first), Some(_)) => {
                    let found = commands.iter().find(|other| &*other.fact.name == first);
                    let Some(found) = found else { continue };
                    containers.push(found.id);
                    Some(found.id)
                }
                (_, _) => None,
            };
            let word = command.fact.name.rsplit('|').next().unwrap_or_default();
            let Some(name) = Name::new(word.as_bytes()) else { continue };
            let slot = Slot { name, container, command: command.id };
            let free = places(name, container, size)
                .find(|at| slots.get(*at).is_some_and(Option::is_none));
            if let Some(free) = free.and_then(|at| slots.get_mut(at)) {
                *free = Some(slot);
            }
        }
        for command in &mut commands {
            command.container = containers.contains(&command.id);
        }
        Self { commands, slots }
    }

    /// The command these arguments ask for. Upper and lower case are the same, as for the servers.
    #[inline]
    pub fn find(&self, args: &(impl Args + ?Sized)) -> Found<'_> {
        let Some(command) = args.get(0).and_then(|name| self.look_up(name, None)) else {
            return Found::Unknown;
        };
        if !command.container || args.len() == 1 {
            return Found::Command(command);
        }
        match args.get(1).and_then(|name| self.look_up(name, Some(command.id))) {
            Some(subcommand) => Found::Command(subcommand),
            None => Found::UnknownSubcommand(&command.fact.name),
        }
    }

    /// Whether the server may make a client wait that asks for the command of this full name, until
    /// others have said something.
    pub fn may_block(&self, name: &str) -> bool {
        self.commands.iter().any(|command| command.may_block && &*command.fact.name == name)
    }

    /// The command of this number.
    pub fn command(&self, id: CommandId) -> Option<&Command> {
        self.commands.get(usize::from(id.0))
    }

    /// All of them.
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    #[inline]
    fn look_up(&self, name: &[u8], container: Option<CommandId>) -> Option<&Command> {
        let name = Name::new(name)?;
        for at in places(name, container, self.slots.len()) {
            let slot = self.slots.get(at)?.as_ref()?;
            if slot.name == name && slot.container == container {
                return self.command(slot.command);
            }
        }
        None
    }
}

/// A name in lower case, filled up with zeros: three comparisons instead of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name([u64; NAME_BYTES_MAX / 8]);

impl Name {
    /// `None` for what is too long to be one, and for what a zero would shorten.
    #[inline]
    fn new(name: &[u8]) -> Option<Self> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(&0) {
            return None;
        }
        // Put together in registers: bytes that were just copied one by one are read as words late.
        let word = |bytes: &[u8]| {
            let low = bytes.iter().rev().map(|byte| u64::from(byte.to_ascii_lowercase()));
            low.fold(0, |word, byte| word << 8 | byte)
        };
        let mut words = [0; NAME_BYTES_MAX / 8];
        for (place, bytes) in words.iter_mut().zip(name.chunks(8)) {
            *place = word(bytes);
        }
        Some(Self(words))
    }
}

/// Where a name may be, the likeliest place first; each place once.
#[inline]
fn places(name: Name, container: Option<CommandId>, size: usize) -> impl Iterator<Item = usize> {
    let container = container.map_or(0, |id| u64::from(id.0) + 1);
    let mixed = name.0.iter().fold(container, |mixed, word| {
        (mixed ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    });
    let mask = size.wrapping_sub(1);
    let start = usize::try_from(mixed >> 32).unwrap_or_default();
    (0..size).map(move |step| start.wrapping_add(step) & mask)
}

/// The lines of a file with the first column of each.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once('\t').map(|(name, _)| (name, line)))
}

/// Longer than every name in the table.
const NAME_BYTES_MAX: usize = 24;

const GENERATED: &str = include_str!("commands.tsv");
const REVIEWED: &str = include_str!("reviewed.tsv");
