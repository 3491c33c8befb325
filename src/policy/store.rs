//! What rules say of commands of key-value stores: commands, keys, channels.
//!
//! Globs are compared with the bytes of keys and channels as they came; nothing is decoded, so that
//! no spelling is skipped. A client may ask for channels by a pattern of its own: where a rule takes
//! something away, a pattern that may reach a channel reaches it; where one gives something, it must
//! surely stay inside.

use std::sync::Arc;

use super::diagnostic::Span;
use crate::facts::{
    ChannelMode, ChannelUse, CommandUse, KeyUse, KnownBy, ScriptUse, StoreFacts, Unnamed,
};
use crate::name::Glob;
use crate::obligation::JsonPath;

mod containment;

pub(crate) use containment::{contains, may_overlap};

/// Commands as a rule writes them.
#[derive(Clone, Debug)]
pub(crate) struct CommandPattern {
    /// As written, in lower case.
    pub(crate) text: Arc<str>,
    pub(crate) span: Span,
    pub(crate) kind: CommandKind,
}

/// How a pattern finds its commands.
#[derive(Clone, Debug)]
pub(crate) enum CommandKind {
    /// By full name; a name that has subcommands stands for all of them.
    Name,
    /// By full name, subcommands after a bar.
    Glob(Glob),
    /// By category.
    Category(Box<str>),
    /// Every command that is closed until a rule opens it.
    Doors,
}

/// Where in values a mask works.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// Fields; `None`: whole values and every field.
    pub(crate) fields: Option<Arc<[Glob]>>,
    /// Paths in values that are JSON, each with its text; none: whole values.
    pub(crate) paths: Vec<(JsonPath, Box<str>)>,
}

/// What of a command a match fits.
#[derive(Debug, Default)]
pub(crate) struct StoreMatch {
    pub(crate) commands: Vec<CommandPattern>,
    pub(crate) except_commands: Vec<CommandPattern>,
    pub(crate) keys: Vec<Glob>,
    pub(crate) except_keys: Vec<Glob>,
    pub(crate) reads: Vec<Glob>,
    pub(crate) writes: Vec<Glob>,
    pub(crate) channels: Vec<Glob>,
    pub(crate) except_channels: Vec<Glob>,
    pub(crate) places: Places,
}

/// What of commands an allow rule lists.
#[derive(Debug, Default)]
pub(crate) struct StoreAllow {
    pub(crate) commands: Option<Vec<CommandPattern>>,
    pub(crate) keys: Option<Vec<Glob>>,
    pub(crate) reads: Option<Vec<Glob>>,
    pub(crate) writes: Option<Vec<Glob>>,
    pub(crate) channels: Option<Vec<Glob>>,
    /// Digests of scripts, in lower case, that reach only keys they are called with.
    pub(crate) scripts: Option<Vec<Arc<str>>>,
    /// Names of functions of libraries that do the same, as whoever names them says.
    pub(crate) functions: Option<Vec<Arc<str>>>,
    /// All it names are doors, one by one or all together; found out when the commands are known.
    pub(crate) only_doors: bool,
}

// === impl Places ===

impl Places {
    /// Whether it says nothing: whole values, in every field.
    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_none() && self.paths.is_empty()
    }
}

// === impl CommandPattern ===

impl CommandPattern {
    /// Reads the pattern as written; whether what it names exists is asked later.
    ///
    /// # Errors
    /// A message for the author.
    pub(crate) fn parse(text: &str, span: &Span) -> Result<Self, String> {
        let text = text.to_ascii_lowercase();
        let kind = match text.strip_prefix('@') {
            Some(DOORS) => CommandKind::Doors,
            Some(category) if category.contains(['*', '?']) => {
                return Err(format!("`{text}` is not a category: those are written out"));
            }
            Some(category) => CommandKind::Category(category.into()),
            None if text.contains(['*', '?']) => CommandKind::Glob(Glob::new(&text)),
            None => CommandKind::Name,
        };
        Ok(Self { text: text.into(), span: span.clone(), kind })
    }

    /// Whether the command is among those it stands for.
    pub(crate) fn names(&self, command: &CommandUse) -> bool {
        let CommandUse { name, categories, door, ends: _, unruled: _ } = command;
        match &self.kind {
            CommandKind::Name => {
                let rest = name.strip_prefix(&*self.text);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('|'))
            }
            CommandKind::Glob(glob) => glob.matches(name),
            CommandKind::Category(category) => categories.iter().any(|one| **one == **category),
            CommandKind::Doors => *door,
        }
    }

    /// Whether it opens the command's door: by its own full name, or by the word for all doors.
    pub(crate) fn opens(&self, command: &CommandUse) -> bool {
        match &self.kind {
            CommandKind::Name => *self.text == *command.name,
            CommandKind::Doors => command.door,
            CommandKind::Glob(_) | CommandKind::Category(_) => false,
        }
    }
}

/// The group of all commands that are doors.
pub(crate) const DOORS: &str = "doors";

// === impl StoreMatch ===

impl StoreMatch {
    /// Whether it says nothing: then the rule is not about commands by its own words.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { commands, except_commands, places, .. } = self;
        commands.is_empty()
            && except_commands.is_empty()
            && !self.about_keys()
            && !self.about_channels()
            && places.is_empty()
    }

    /// Whether it speaks of keys.
    pub(crate) fn about_keys(&self) -> bool {
        let Self { keys, except_keys, reads, writes, .. } = self;
        ![keys, except_keys, reads, writes].into_iter().all(Vec::is_empty)
    }

    /// Whether what it says of keys is about reading them.
    pub(crate) fn about_reads(&self) -> bool {
        self.about_keys() && (self.writes.is_empty() || !self.reads.is_empty())
    }

    /// Whether what it says of keys is about writing them.
    pub(crate) fn about_writes(&self) -> bool {
        self.about_keys() && (self.reads.is_empty() || !self.writes.is_empty())
    }

    /// Whether it speaks of channels.
    pub(crate) fn about_channels(&self) -> bool {
        !self.channels.is_empty() || !self.except_channels.is_empty()
    }

    /// Whether it fits: the command, and some key and some channel for each word about them.
    pub(crate) fn fits(&self, store: &StoreFacts) -> bool {
        let StoreFacts { command, keys, channels, unnamed: _, script: _ } = store;
        let Some(command) = command else { return false };
        self.admits_command(command)
            && (!self.about_keys() || self.fits_keys(keys))
            && (!self.about_channels() || channels.iter().any(|one| self.fits_channel(one)))
    }

    /// Whether `commands` and `except_commands` let the command through.
    pub(crate) fn admits_command(&self, command: &CommandUse) -> bool {
        let named = |patterns: &[CommandPattern]| patterns.iter().any(|one| one.names(command));
        (self.commands.is_empty() || named(&self.commands)) && !named(&self.except_commands)
    }

    fn fits_keys(&self, keys: &[KeyUse]) -> bool {
        let some = |globs: &[Glob], counts: &dyn Fn(&KeyUse) -> bool| {
            let hit = |one: &KeyUse| globs.is_empty() || any_fits(globs, &one.key);
            keys.iter().any(|one| !self.excepts_key(&one.key) && counts(one) && hit(one))
        };
        some(&self.keys, &|_| true)
            && (self.reads.is_empty() || some(&self.reads, &|one| one.mode.reads()))
            && (self.writes.is_empty() || some(&self.writes, &|one| one.mode.writes()))
    }

    /// Whether `keys` and `except_keys` let the key through, whatever is done with it.
    pub(crate) fn admits_key(&self, key: &[u8]) -> bool {
        (self.keys.is_empty() || any_fits(&self.keys, key)) && !self.excepts_key(key)
    }

    fn excepts_key(&self, key: &[u8]) -> bool {
        any_fits(&self.except_keys, key)
    }

    fn fits_channel(&self, one: &ChannelUse) -> bool {
        let ChannelUse { name, mode } = one;
        (self.channels.is_empty() || self.channels.iter().any(|glob| reaches(glob, name, *mode)))
            && !self.except_channels.iter().any(|glob| stays_inside(glob, name, *mode))
    }

    /// Every glob over keys.
    pub(crate) fn key_globs(&self) -> impl Iterator<Item = &Glob> {
        let Self { keys, except_keys, reads, writes, .. } = self;
        [keys, except_keys, reads, writes].into_iter().flatten()
    }

    /// Every glob over channels.
    pub(crate) fn channel_globs(&self) -> impl Iterator<Item = &Glob> {
        self.channels.iter().chain(&self.except_channels)
    }
}

// === impl StoreAllow ===

impl StoreAllow {
    /// Whether it says anything.
    pub(crate) fn is_written(&self) -> bool {
        self.commands.is_some()
            || self.names_keys()
            || self.channels.is_some()
            || self.vouches_for_some()
    }

    /// Whether it lists what may be done, as opposed to only opening doors.
    pub(crate) fn is_list(&self) -> bool {
        self.is_written() && !self.only_opens_doors()
    }

    fn only_opens_doors(&self) -> bool {
        // A list of scripts opens a door, too.
        let doors = self.only_doors || (self.commands.is_none() && self.vouches_for_some());
        doors && !self.names_keys() && self.channels.is_none()
    }

    /// Whether it gives these keys and no others.
    pub(crate) fn names_keys(&self) -> bool {
        self.keys.is_some() || self.reads.is_some() || self.writes.is_some()
    }

    /// Whether the command is in the list.
    pub(crate) fn lists(&self, command: &CommandUse) -> bool {
        match &self.commands {
            Some(patterns) => patterns.iter().any(|pattern| pattern.names(command)),
            None => self.is_written(),
        }
    }

    /// Whether it opens the command's door.
    pub(crate) fn opens(&self, command: &CommandUse) -> bool {
        self.commands.iter().flatten().any(|pattern| pattern.opens(command))
    }

    fn vouches_for_some(&self) -> bool {
        self.scripts.is_some() || self.functions.is_some()
    }

    /// The scripts it lists that are known so, if it lists any.
    pub(crate) fn listed(&self, known_by: KnownBy) -> Option<&[Arc<str>]> {
        match known_by {
            KnownBy::Digest => self.scripts.as_deref(),
            KnownBy::Name => self.functions.as_deref(),
        }
    }

    /// Whether it vouches for the script.
    pub(crate) fn vouches(&self, script: &ScriptUse) -> bool {
        let ScriptUse { name, known_by } = script;
        let mut listed = self.listed(*known_by).into_iter().flatten();
        listed.any(|script| is_script(script, name, *known_by))
    }

    /// Whether it gives the key for this use. What names channels and no keys gives no key.
    pub(crate) fn covers_key(&self, one: &KeyUse) -> bool {
        if !self.names_keys() {
            return self.is_written() && self.channels.is_none();
        }
        let listed = |globs: &Option<Vec<Glob>>| globs.iter().any(|all| any_fits(all, &one.key));
        listed(&self.keys)
            || ((!one.mode.reads() || listed(&self.reads))
                && (!one.mode.writes() || listed(&self.writes)))
    }

    /// Whether it gives the channel for this use. What names keys and no channels gives none.
    pub(crate) fn covers_channel(&self, one: &ChannelUse) -> bool {
        let ChannelUse { name, mode } = one;
        match &self.channels {
            Some(globs) => globs.iter().any(|glob| stays_inside(glob, name, *mode)),
            None => self.is_written() && !self.names_keys(),
        }
    }

    /// Whether it gives what is done to keys that the command does not name.
    pub(crate) fn covers_unnamed(&self, unnamed: Unnamed) -> bool {
        let all = |globs: &Option<Vec<Glob>>| globs.iter().flatten().any(is_everything);
        let unnarrowed = self.is_written() && !self.names_keys() && self.channels.is_none();
        match unnamed {
            Unnamed::Untouched => true,
            Unnamed::Listed | Unnamed::Counted => unnarrowed || all(&self.keys) || all(&self.reads),
            Unnamed::Changed => unnarrowed || all(&self.keys) || all(&self.writes),
            // A script publishes, too.
            Unnamed::Reached => unnarrowed || (all(&self.keys) && all(&self.channels)),
        }
    }

    /// Every glob over keys.
    pub(crate) fn key_globs(&self) -> impl Iterator<Item = &Glob> {
        [&self.keys, &self.reads, &self.writes].into_iter().flatten().flatten()
    }

    /// Commands as its author writes them.
    pub(crate) fn commands_written(&self) -> Vec<&str> {
        self.commands.iter().flatten().map(|pattern| &*pattern.text).collect()
    }

    /// Patterns of keys as its author writes them.
    pub(crate) fn keys_written(&self) -> Vec<&str> {
        self.key_globs().map(Glob::as_str).collect()
    }

    /// Patterns of channels as its author writes them.
    pub(crate) fn channels_written(&self) -> Vec<&str> {
        self.channels.iter().flatten().map(Glob::as_str).collect()
    }
}

/// Whether the client's name is that of a script as a rule lists it. Servers compare names of
/// functions without capitals or with them; what is written alike is the same for all.
pub(crate) fn is_script(listed: &str, name: &[u8], known_by: KnownBy) -> bool {
    match known_by {
        KnownBy::Digest => name.eq_ignore_ascii_case(listed.as_bytes()),
        KnownBy::Name => name == listed.as_bytes(),
    }
}

fn is_everything(glob: &Glob) -> bool {
    !glob.as_str().is_empty() && glob.as_str().bytes().all(|byte| byte == b'*')
}

/// Whether one of the globs fits the key.
pub(crate) fn any_fits(globs: &[Glob], key: &[u8]) -> bool {
    globs.iter().any(|glob| glob.matches_bytes(key))
}

/// Whether the use may reach a channel that the glob fits.
pub(crate) fn reaches(glob: &Glob, name: &[u8], mode: ChannelMode) -> bool {
    match mode {
        ChannelMode::Publish | ChannelMode::Subscribe => glob.matches_bytes(name),
        ChannelMode::SubscribePattern => may_overlap(glob, name),
    }
}

/// Whether every channel the use can reach is one that the glob fits.
pub(crate) fn stays_inside(glob: &Glob, name: &[u8], mode: ChannelMode) -> bool {
    match mode {
        ChannelMode::Publish | ChannelMode::Subscribe => glob.matches_bytes(name),
        ChannelMode::SubscribePattern => contains(glob, name),
    }
}
