//! Commands of key-value stores: doors, allow lists, values that are masked, keys nobody names.

use std::sync::Arc;

use super::Question;
use crate::facts::{CommandUse, Exposure, KeyUse, KnownBy, StoreFacts, Unnamed};
use crate::obligation::{Bound, KeyGovernance, MaskFn, Tenancy, ValueMask};
use crate::policy::decision::{Denial, DenyReason};
use crate::policy::rule::{Allow, Effect, Mask, Rule};
use crate::policy::store::{Places, StoreAllow};

impl<'a> Question<'a> {
    /// What is closed to everybody until a rule opens it by name. Asked before allow lists, so that
    /// who knows a harmless answer can tell a closed door from what is not allowed otherwise.
    pub(super) fn check_command_door(&self) -> Result<(), Denial> {
        let Some(command) = self.facts.store.command.as_deref().filter(|one| one.door) else {
            return Ok(());
        };
        if self.opens(command) {
            return Ok(());
        }
        let or = match self.facts.store.script.as_ref().map(|script| script.known_by) {
            Some(KnownBy::Digest) => ", or the script in its scripts",
            Some(KnownBy::Name) => ", or the function in its library_functions",
            None => "",
        };
        let name = &command.name;
        let message = format!("`{name}` is not available unless a rule opens it");
        Err(Denial::new(DenyReason::ClosedDoor, message)
            .with_hint(format!("an allow rule opens it by naming `{name}` in its commands{or}")))
    }

    /// Whether an allow rule opens the command's door.
    fn opens(&self, command: &CommandUse) -> bool {
        // Scripts listed beside the command narrow it.
        let script = self.facts.store.script.as_ref();
        let narrowed =
            |store: &StoreAllow| script.is_some_and(|one| store.listed(one.known_by).is_some());
        let mut stores = self.allows().map(|allow| &allow.store);
        self.vouched() || stores.any(|store| store.opens(command) && !narrowed(store))
    }

    /// Whether an allow rule lists the script the command runs: then it reaches the keys it is called
    /// with, and no others.
    fn vouched(&self) -> bool {
        let script = self.facts.store.script.as_ref();
        script.is_some_and(|script| self.allows().any(|allow| allow.store.vouches(script)))
    }

    /// What the command does to keys it does not name.
    fn unnamed(&self) -> Unnamed {
        if self.vouched() { Unnamed::Untouched } else { self.facts.store.unnamed }
    }

    /// What the lists do not cover of a command.
    pub(super) fn uncovered_command(&self, lists: &[&Allow]) -> Option<Denial> {
        let StoreFacts { command, keys, channels, unnamed: _, script: _ } = &self.facts.store;
        let unnamed = self.unnamed();
        let command = command.as_deref()?;
        let name = &command.name;
        let refused = |what: String| Denial::new(DenyReason::NotAllowed, what);
        let stores = || lists.iter().map(|allow| &allow.store);
        let mut covering: Vec<&StoreAllow> = stores().filter(|one| one.lists(command)).collect();
        let own_upkeep = || is_upkeep(command) && !lists.is_empty();
        let opened = || command.door && self.opens(command);
        if covering.is_empty() {
            let needs_no_list = own_upkeep() || opened();
            if !needs_no_list {
                let message = format!("no rule allows you `{name}` here");
                return Some(refused(message).with_hint(way_out(lists)));
            }
            if lists.is_empty() {
                return None;
            }
            // Keys and channels are still those of the lists.
            covering = stores().collect();
        }
        if keys.iter().any(|key| !covering.iter().any(|one| one.covers_key(key))) {
            let message = format!("no rule allows you `{name}` on this key");
            return Some(refused(message).with_hint(ways(&covering, StoreAllow::keys_written)));
        }
        if channels.iter().any(|channel| !covering.iter().any(|one| one.covers_channel(channel))) {
            let message = format!("no rule allows you `{name}` on this channel");
            return Some(refused(message).with_hint(ways(&covering, StoreAllow::channels_written)));
        }
        if !covering.iter().any(|one| one.covers_unnamed(unnamed)) {
            let message = format!("`{name}` {}, and you are allowed some", reach(unnamed));
            return Some(refused(message).with_hint(INSTEAD));
        }
        None
    }

    /// Whether an allow rule lets something of this command through.
    pub(super) fn uses_for_command(&self, allow: &Allow, command: &CommandUse) -> bool {
        let StoreFacts { command: _, keys, channels, unnamed: _, script } = &self.facts.store;
        let store = &allow.store;
        let vouches = script.as_ref().is_some_and(|script| store.vouches(script));
        if vouches || (command.door && store.opens(command)) {
            return true;
        }
        let names_none = keys.is_empty() && channels.is_empty();
        allow.is_list()
            && store.lists(command)
            && (names_none
                || keys.iter().any(|key| store.covers_key(key))
                || channels.iter().any(|channel| store.covers_channel(channel)))
    }

    /// Whether the text names, or reaches, keys or channels of a store.
    pub(super) fn names_in_a_store(&self) -> bool {
        let StoreFacts { command: _, keys, channels, unnamed, script: _ } = &self.facts.store;
        !keys.is_empty() || !channels.is_empty() || *unnamed != Unnamed::Untouched
    }

    /// Where the names of the identity's keys and channels are, for a command.
    pub(super) fn tenancy(&self) -> Option<&'a Arc<Tenancy>> {
        self.facts.store.command.as_ref()?;
        self.class.tenancy()
    }

    /// Refuses what a prefix cannot be carried out on.
    fn check_tenancy(&self, command: &CommandUse) -> Result<(), Denial> {
        if !self.names_in_a_store() {
            return Ok(());
        }
        let Some(tenancy) = self.class.tenancy.as_ref().map_err(Clone::clone)? else {
            return Ok(());
        };
        let unnamed = self.unnamed();
        match unnamed {
            // Their names come back and can be left out.
            Unnamed::Untouched | Unnamed::Listed => Ok(()),
            // What the server tells of all keys it tells on channels that no prefix stands before.
            Unnamed::Counted if !self.facts.store.channels.is_empty() => Ok(()),
            Unnamed::Counted | Unnamed::Changed | Unnamed::Reached => {
                let message = format!("`{}` {}, not only yours", command.name, reach(unnamed));
                Err(side_door(message).by(&tenancy.rule).with_hint(INSTEAD))
            }
        }
    }

    /// Refuses what would go around a mask or a deny of keys; the first found is named.
    pub(super) fn check_command(&self, matched: &[&Rule]) -> Result<(), Denial> {
        let StoreFacts { command, keys, channels: _, unnamed: _, script: _ } = &self.facts.store;
        let Some(command) = command else { return Ok(()) };
        self.check_tenancy(command)?;
        let name = &command.name;
        if let Some(rule) = self.evaded().find(|rule| rule.enforced()) {
            let message =
                format!("`{name}` {}, and rules keep some from you", reach(self.unnamed()));
            return Err(side_door(message).by(&rule.id).with_hint(INSTEAD));
        }
        for key in keys {
            let (message, hint) = match key.exposure {
                Exposure::Hidden | Exposure::Shown => continue,
                Exposure::Derived => (
                    format!("`{name}` tells something about values that are masked for you"),
                    "read whole values, which come back masked",
                ),
                Exposure::Copied => (
                    format!("`{name}` takes values that are masked for you to another place"),
                    "read whole values, which come back masked",
                ),
            };
            let mut masks = matched.iter().filter(|rule| rule.enforced());
            if let Some(rule) = masks.find(|rule| self.masks_key(rule, key)) {
                return Err(side_door(message).by(&rule.id).with_hint(hint));
            }
        }
        Ok(())
    }

    /// Rules that what the command does to keys nobody names could go around, in whatever mode.
    pub(super) fn evaded(&self) -> impl Iterator<Item = &'a Rule> {
        let unnamed = self.unnamed();
        let labels = &self.set.labels;
        self.rules.iter().copied().filter(move |rule| {
            let object = &rule.object;
            let by_label = || object.labels(labels).any(|label| !label.keys.is_empty());
            let labelled = || !object.about_statements() && by_label();
            match (&rule.effect, unnamed) {
                (Effect::Deny { .. }, Unnamed::Listed | Unnamed::Counted) => {
                    object.store.about_reads() || labelled()
                }
                (Effect::Deny { .. }, Unnamed::Changed) => {
                    object.store.about_writes() || labelled()
                }
                (Effect::Deny { .. }, Unnamed::Reached) => {
                    object.store.about_keys() || object.store.about_channels() || labelled()
                }
                (Effect::Mask(_), Unnamed::Reached) => object.store.about_keys() || labelled(),
                (Effect::Mask(_), Unnamed::Listed | Unnamed::Counted | Unnamed::Changed) => false,
                (
                    Effect::Filter(_)
                    | Effect::Allow(_)
                    | Effect::Limit(_)
                    | Effect::Prefix(_)
                    | Effect::Bounds(_),
                    _,
                )
                | (_, Unnamed::Untouched) => false,
            }
        })
    }

    /// Whether a mask has something to do on what the command lets out of some key.
    pub(super) fn masks_some_key(&self, rule: &Rule) -> bool {
        let mut keys = self.facts.store.keys.iter();
        keys.any(|key| key.exposure != Exposure::Hidden && self.masks_key(rule, key))
    }

    fn masks_key(&self, rule: &Rule, key: &KeyUse) -> bool {
        match &rule.effect {
            Effect::Mask(mask) => !self.masks_by(rule, mask, key).is_empty(),
            Effect::Filter(_)
            | Effect::Allow(_)
            | Effect::Deny { .. }
            | Effect::Limit(_)
            | Effect::Prefix(_)
            | Effect::Bounds(_) => false,
        }
    }

    /// What the values of each key owe.
    pub(super) fn value_masks(&self, matched: &[&Rule]) -> Vec<KeyGovernance> {
        let shown = |key: &KeyUse| match key.exposure {
            Exposure::Hidden => false,
            Exposure::Shown | Exposure::Derived | Exposure::Copied => true,
        };
        let keys = self.facts.store.keys.iter().enumerate();
        keys.filter(|(_, key)| shown(key))
            .map(|(index, key)| {
                let enforced = matched.iter().filter_map(super::enforced_mask);
                let masks = enforced.flat_map(|(rule, mask)| self.masks_by(rule, mask, key));
                KeyGovernance { key: index, masks: masks.collect() }
            })
            .filter(|governance| !governance.masks.is_empty())
            .collect()
    }

    fn masks_by(&self, rule: &Rule, mask: &Mask, key: &KeyUse) -> Vec<ValueMask> {
        let object = &rule.object;
        if object.wants_labels() {
            let labels = object.labels_of_key(&self.set.labels, &key.key);
            let masks = labels.filter_map(|(label, glob)| {
                let function = mask.function(Some(label))?;
                let made = Made { rule, function, class: Some(&label.class), key: glob.as_str() };
                Some(made.on(&label.places))
            });
            return masks.flatten().collect();
        }
        let mut globs = object.store.keys.iter();
        let glob = globs.find(|glob| glob.matches_bytes(&key.key));
        let glob = glob.filter(|_| object.store.admits_key(&key.key));
        let function = mask.function(None);
        glob.zip(function).map_or_else(Vec::new, |(glob, function)| {
            let made = Made { rule, function, class: None, key: glob.as_str() };
            made.on(&object.store.places)
        })
    }
}

/// A mask on values of a key, but for the place in them.
struct Made<'a> {
    rule: &'a Rule,
    function: &'a MaskFn,
    class: Option<&'a Arc<str>>,
    key: &'a str,
}

impl Made<'_> {
    /// One mask for whole values, or one for each path.
    fn on(&self, places: &Places) -> Vec<ValueMask> {
        let Self { rule, function, class, key } = *self;
        let Places { fields, paths } = places;
        let mut pattern = key.to_owned();
        if let Some(fields) = fields {
            let names: Vec<&str> = fields.iter().map(|field| field.as_str()).collect();
            pattern = format!("{pattern} {}", names.join(","));
        }
        let mask = |pattern: String, path| ValueMask {
            pattern: pattern.into(),
            fields: fields.clone(),
            path,
            function: function.clone(),
            class: class.cloned(),
            rule: rule.id.clone(),
        };
        if paths.is_empty() {
            return vec![mask(pattern, None)];
        }
        let each = paths.iter();
        each.map(|(path, text)| mask(format!("{pattern} {text}"), Some(path.clone()))).collect()
    }
}

/// Commands no list needs to name: the control of one's own connection and transaction, without
/// which clients and their pools do not work. Their keys and channels are judged all the same.
fn is_upkeep(command: &CommandUse) -> bool {
    let own = |category: &Arc<str>| matches!(&**category, "connection" | "transaction");
    !command.door && command.categories.iter().any(own)
}

/// The bounds that rules which fit put on the arguments of a command.
pub(super) fn bounds(matched: &[&Rule]) -> Vec<Bound> {
    let bounds = matched.iter().filter_map(|rule| match &rule.effect {
        Effect::Bounds(bounds) if rule.enforced() => Some((rule, bounds)),
        Effect::Bounds(_)
        | Effect::Mask(_)
        | Effect::Filter(_)
        | Effect::Allow(_)
        | Effect::Deny { .. }
        | Effect::Limit(_)
        | Effect::Prefix(_) => None,
    });
    let each = bounds.flat_map(|(rule, bounds)| bounds.iter().map(move |bound| (rule, bound)));
    each.map(|(rule, (what, max))| Bound { what: *what, max: *max, rule: rule.id.clone() })
        .collect()
}

fn side_door(message: impl Into<String>) -> Denial {
    Denial::new(DenyReason::SideDoor, message)
}

/// What a command does beyond the keys it names.
fn reach(unnamed: Unnamed) -> &'static str {
    match unnamed {
        Unnamed::Untouched => "names its keys",
        Unnamed::Listed => "shows names of all keys",
        Unnamed::Counted => "tells something about all keys",
        Unnamed::Changed => "changes all keys",
        Unnamed::Reached => "reaches keys that it does not name",
    }
}

const INSTEAD: &str = "use a command that names its keys";

fn way_out(lists: &[&Allow]) -> String {
    let stores: Vec<&StoreAllow> = lists.iter().map(|allow| &allow.store).collect();
    ways(&stores, StoreAllow::commands_written)
}

/// What may be done instead, as the lists write it.
fn ways(lists: &[&StoreAllow], written: impl Fn(&StoreAllow) -> Vec<&str>) -> String {
    let mut texts: Vec<&str> = lists.iter().flat_map(|list| written(list)).collect();
    texts.sort_unstable();
    texts.dedup();
    if texts.is_empty() {
        return "ask for an allow rule, or for one with `protocol` or `datasource` \
                that leaves you alone here"
            .to_owned();
    }
    format!("allowed: {}", texts.join(", "))
}
