//! What rules may speak of that only the layers above know: commands, and whether there is a key
//! for masks that need one.
//!
//! A typing error must not open a door: a word nobody knows is an error when the rules are compiled,
//! and a vocabulary that was not given knows nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::diagnostic::Diagnostic;
use super::rule::{Effect, Mask, Rule};
use super::ruleset::RuleSet;
use super::store::{CommandKind, CommandPattern, DOORS, StoreAllow};
use super::yaml::Problems;
use crate::facts::CommandUse;
use crate::obligation::{Bounded, MaskFn};

/// Commands that rules may name, and whether masks may use a key.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    commands: Vec<Arc<CommandUse>>,
    mask_keys: bool,
}

impl Vocabulary {
    /// The same with these commands besides.
    #[must_use]
    pub fn with_commands<'a>(
        mut self,
        commands: impl IntoIterator<Item = &'a Arc<CommandUse>>,
    ) -> Self {
        self.commands.extend(commands.into_iter().cloned());
        self
    }

    /// The same where the configuration gives masks a key.
    #[must_use]
    pub fn with_mask_keys(mut self) -> Self {
        self.mask_keys = true;
        self
    }

    /// Compares the rules with what is known.
    pub(crate) fn check(&self, set: &mut RuleSet, problems: &mut Problems) {
        for rule in &mut set.rules {
            let object = &rule.object.store;
            let matched = object.commands.iter().chain(&object.except_commands);
            self.check_commands(matched, problems);
            match &mut rule.effect {
                Effect::Allow(allow) => {
                    self.check_commands(allow.store.commands.iter().flatten(), problems);
                    allow.store.only_doors = self.only_doors(&allow.store);
                }
                Effect::Mask(_)
                | Effect::Filter(_)
                | Effect::Deny { .. }
                | Effect::Limit(_)
                | Effect::Prefix(_)
                | Effect::Bounds(_) => {}
            }
        }
        for rule in &set.rules {
            match &rule.effect {
                Effect::Mask(mask) => self.check_mask(set, rule, mask, problems),
                Effect::Bounds(bounds) => self.check_bounds(rule, bounds, problems),
                Effect::Deny { .. } | Effect::Limit(_) => self.check_asked(rule, problems),
                Effect::Filter(_) | Effect::Allow(_) | Effect::Prefix(_) => {}
            }
        }
    }

    fn check_commands<'a>(
        &self,
        patterns: impl Iterator<Item = &'a CommandPattern>,
        problems: &mut Problems,
    ) {
        for pattern in patterns {
            if self.commands.iter().any(|command| pattern.names(command)) {
                continue;
            }
            let CommandPattern { text, span, kind } = pattern;
            let problem = match kind {
                CommandKind::Category(category) => {
                    let known = self.categories();
                    Diagnostic::error(span, format!("unknown category `@{category}`"))
                        .suggest(category, known.iter().copied())
                        .with_help(format!("known here: {}", list(known.iter().copied())))
                }
                CommandKind::Name => Diagnostic::error(span, format!("unknown command `{text}`"))
                    .suggest(text, self.commands.iter().map(|command| &*command.name))
                    .with_help("write a subcommand behind a bar: `client|list`"),
                CommandKind::Glob(_) | CommandKind::Doors => {
                    Diagnostic::error(span, format!("no command is known that is `{text}`"))
                }
            };
            problems.push(problem);
        }
    }

    fn categories(&self) -> BTreeSet<&str> {
        let all = self.commands.iter().flat_map(|command| &command.categories);
        all.map(|category| &**category).chain([DOORS]).collect()
    }

    /// Whether every command the rule names is a door by its own name, or the group of all doors.
    fn only_doors(&self, allow: &StoreAllow) -> bool {
        let door = |pattern: &CommandPattern| match &pattern.kind {
            CommandKind::Doors => true,
            CommandKind::Name => {
                let mut named = self.commands.iter().filter(|command| pattern.names(command));
                named.all(|command| command.door && pattern.opens(command))
            }
            CommandKind::Glob(_) | CommandKind::Category(_) => false,
        };
        allow.commands.as_ref().is_some_and(|patterns| patterns.iter().all(door))
    }

    /// Rules that refuse act on commands about which rules are asked.
    fn check_asked(&self, rule: &Rule, problems: &mut Problems) {
        let store = &rule.object.store;
        let named = self.commands.iter().filter(|command| store.admits_command(command));
        let (asked, not): (Vec<_>, Vec<_>) = named.partition(|command| !command.unruled);
        if !store.commands.is_empty() && asked.is_empty() && !not.is_empty() {
            let names: Vec<&str> = not.iter().map(|command| &*command.name).collect();
            let message =
                format!("the rule would never act: no rule is asked about {}", names.join(", "));
            problems.push(
                Diagnostic::error(&rule.span, message)
                    .with_help("who may log in, and how, is said by `authentication`"),
            );
        }
    }

    /// Rules on expiry act on commands that say something of it.
    fn check_bounds(&self, rule: &Rule, bounds: &[(Bounded, u64)], problems: &mut Problems) {
        let store = &rule.object.store;
        let mut named = self.commands.iter().filter(|command| store.admits_command(command));
        let about_expiry = bounds.iter().any(|(what, _)| *what == Bounded::ExpiryMs);
        if about_expiry && !store.commands.is_empty() && !named.any(|command| command.ends) {
            let message = "`ttl` would never act: no command of this match says when a key expires";
            problems.push(
                Diagnostic::error(&rule.span, message)
                    .with_help("deny commands that cannot say it, where keys must expire"),
            );
        }
    }

    /// Masks that need a key want one, and are for values only: columns are masked by the server.
    fn check_mask(&self, set: &RuleSet, rule: &Rule, mask: &Mask, problems: &mut Problems) {
        let functions: Vec<(Option<&str>, &MaskFn)> = match mask {
            Mask::All(function) => vec![(None, function)],
            Mask::ByClass(by_class) => {
                by_class.iter().map(|(class, function)| (Some(&**class), function)).collect()
            }
        };
        for (class, function) in functions.into_iter().filter(|(_, one)| one.needs_key()) {
            let name = function.name();
            if !self.mask_keys {
                problems.push(
                    Diagnostic::error(
                        &rule.span,
                        format!("`{name}` needs a key, and there is none"),
                    )
                    .with_help("give the configuration `mask_keys`"),
                );
            }
            let labels = rule.object.labels(&set.labels);
            let mut of_columns = labels.filter(|label| {
                class.is_none_or(|class| class == &*label.class) && !label.columns.is_empty()
            });
            let on_columns = rule.object.store.is_empty()
                && (!rule.object.wants_labels() || of_columns.next().is_some());
            if on_columns {
                problems.push(
                    Diagnostic::error(&rule.span, format!("`{name}` cannot mask columns"))
                        .with_help("narrow the rule to values of keys, for instance `keys: ['*']`"),
                );
            }
        }
    }
}

fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("@{word}")).collect::<Vec<_>>().join(", ")
}
