//! Files → [`RuleSet`]: reads all, checks rules against each other, freezes.

use std::collections::{BTreeMap, BTreeSet};

use super::decision::Counted;
use super::diagnostic::{Diagnostic, nearest};
use super::identity::Identities;
use super::predicate::LOGIN_VALUES;
use super::prefix;
use super::rule::{CountedBy, Effect, Mask, Rule, Written, class_exists};
use super::ruleset::{FieldDigest, RuleSet};
use super::source::{self, SourceFile};
use super::vocabulary::Vocabulary;
use super::yaml::Problems;
use crate::name::{Asks, Glob};
use crate::obligation::MaskFn;

/// Most rule files in one set.
const FILES_MAX: usize = 1_000;
/// Most rules in one set.
const RULES_MAX: usize = 10_000;

impl RuleSet {
    /// Compiles a set where no command is known and masks have no key. On success the diagnostics
    /// are warnings, sorted by place.
    ///
    /// # Errors
    /// As of [`Self::compile_for`].
    pub fn compile(
        files: &[SourceFile],
        identities: Option<&SourceFile>,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        Self::compile_for(files, identities, &Vocabulary::default())
    }

    /// Compiles a set against what is known. On success the diagnostics are warnings, sorted by
    /// place.
    ///
    /// # Errors
    /// Every problem of every file, sorted by place; at least one is an error.
    pub fn compile_for(
        files: &[SourceFile],
        identities: Option<&SourceFile>,
        vocabulary: &Vocabulary,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let mut problems = Problems::default();
        let mut set = Self { digest: digest(files, identities), ..Self::default() };
        for file in files.iter().take(FILES_MAX) {
            let found = source::read(file, &mut problems);
            set.rules.extend(found.rules);
            set.labels.extend(found.labels);
        }
        set.rules.sort_by(|a, b| (&a.id, &a.span).cmp(&(&b.id, &b.span)));
        set.labels.sort_by(|a, b| (&a.class, a.level).cmp(&(&b.class, b.level)));
        check_size(files, &set, &mut problems);
        check_ids(&set, &mut problems);
        check_classes(&set, &mut problems);
        check_protocols(&set, &mut problems);
        check_databases(&set, &mut problems);
        check_masks(&set, &mut problems);
        vocabulary.check(&mut set, &mut problems);
        prefix::check(&set, &mut problems);
        if let Some(file) = identities {
            set.identities = Identities::read(file, &mut problems);
            check_roles(&set, &mut problems);
            check_attributes(&set, &mut problems);
        }
        let failed = problems.has_errors();
        let list = problems.into_sorted();
        if failed { Err(list) } else { Ok((set, list)) }
    }
}

fn digest(files: &[SourceFile], identities: Option<&SourceFile>) -> String {
    let mut sorted: Vec<&SourceFile> = files.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut digest = FieldDigest::new();
    for file in sorted.into_iter().chain(identities) {
        digest.field(&file.name);
        digest.field(&file.text);
    }
    digest.hex()
}

fn check_size(files: &[SourceFile], set: &RuleSet, problems: &mut Problems) {
    let too_many = |what: &str, max: usize| format!("more than {max} {what} in one set");
    if let Some(file) = files.get(FILES_MAX) {
        let at = super::Span { file: file.name.as_str().into(), line: 1, column: 1 };
        problems.error(&at, too_many("rule files", FILES_MAX));
    }
    if let Some(rule) = set.rules.get(RULES_MAX) {
        problems.error(&rule.span, too_many("rules", RULES_MAX));
    }
}

fn check_ids(set: &RuleSet, problems: &mut Problems) {
    for (first, second) in set.rules.iter().zip(set.rules.iter().skip(1)) {
        if first.id == second.id {
            problems.push(
                Diagnostic::error(&second.span, format!("rule id `{}` is used twice", second.id))
                    .with_help(format!("the other rule is at {}", first.span)),
            );
        }
    }
}

/// A class that nothing carries would make a rule that never acts.
fn check_classes(set: &RuleSet, problems: &mut Problems) {
    let known: BTreeSet<&str> = set.labels.iter().map(|label| &*label.class).collect();
    for rule in &set.rules {
        let classes = &rule.object.classes;
        for glob in classes.any.iter().chain(&classes.except) {
            if !class_exists(glob, &set.labels) {
                let class = glob.as_str();
                let message = format!("rule `{}`: nothing is classified as `{class}`", rule.id);
                problems.push(
                    Diagnostic::error(&rule.span, message).suggest(class, known.iter().copied()),
                );
            }
        }
    }
}

/// A rule for one protocol that speaks of what only others have would never act.
fn check_protocols(set: &RuleSet, problems: &mut Problems) {
    for rule in &set.rules {
        let Some(protocol) = rule.subject.protocol else { continue };
        let Speaks { of_statements, of_commands } = Speaks::read(rule);
        let (mistaken, foreign, own) = match protocol.asks() {
            Asks::ByCommands => (of_statements, "statements, relations or functions", "commands"),
            Asks::ByStatements => (of_commands, "commands, keys or channels", "statements"),
        };
        if mistaken {
            let name = protocol.name();
            let message = format!("rule `{}` speaks of {foreign}, which {name} has not", rule.id);
            problems.push(
                Diagnostic::error(&rule.span, message)
                    .with_help(format!("name {own}, or leave `protocol` out")),
            );
        }
    }
}

/// A rule that can only act where databases have numbers, and names one that has none, would never
/// act; and what it excepts by such a name, it would not except.
fn check_databases(set: &RuleSet, problems: &mut Problems) {
    for rule in &set.rules {
        let Speaks { of_statements, of_commands } = Speaks::read(rule);
        let (numbered, whose) = match rule.subject.protocol {
            Some(protocol) => (protocol.asks() == Asks::ByCommands, protocol.name()),
            None => (of_commands && !of_statements, "what is asked by commands"),
        };
        let names = rule.subject.databases.any.iter().chain(&rule.subject.databases.except);
        for name in names.filter(|name| numbered && !name.matches_a_number()) {
            let name = name.as_str();
            let message = format!("rule `{}`: no database of {whose} is called `{name}`", rule.id);
            problems.push(
                Diagnostic::error(&rule.span, message)
                    .with_help("databases have numbers there: write `databases: [0]`"),
            );
        }
    }
}

/// What a rule is about.
struct Speaks {
    of_statements: bool,
    of_commands: bool,
}

impl Speaks {
    fn read(rule: &Rule) -> Self {
        let (of_statements, of_commands) = match &rule.effect {
            Effect::Allow(allow) => {
                let texts = allow.statements.is_some() || allow.relations.is_some();
                (texts || !allow.functions.is_empty(), allow.store.is_written())
            }
            Effect::Filter(_) => (true, false),
            Effect::Prefix(_) => (false, true),
            Effect::Bounds(_) => (rule.object.about_statements(), true),
            Effect::Limit(rate) if rate.of != Counted::Uses => {
                (rule.object.about_statements(), true)
            }
            Effect::Mask(_) | Effect::Deny { .. } | Effect::Limit(_) => {
                (rule.object.about_statements(), !rule.object.store.is_empty())
            }
        };
        Self { of_statements, of_commands }
    }
}

/// One column, two mask functions: the strongest wins when the decision is made, but two rules
/// that match exactly alike contradict each other, and that is a mistake.
fn check_masks(set: &RuleSet, problems: &mut Problems) {
    let mut alike: BTreeMap<(&Written, String), (&MaskFn, &Rule)> = BTreeMap::new();
    let mut same_people: BTreeMap<(Written, String), (&MaskFn, &Rule)> = BTreeMap::new();
    for rule in set.rules.iter().filter(|rule| rule.enforced()) {
        for (target, function) in mask_targets(rule) {
            let (other, first) =
                *alike.entry((&rule.written, target.clone())).or_insert((function, rule));
            if other != function {
                let message = format!(
                    "rules `{}` and `{}` match alike but mask `{target}` with `{}` and `{}`",
                    first.id,
                    rule.id,
                    other.name(),
                    function.name(),
                );
                problems.push(
                    Diagnostic::error(&rule.span, message)
                        .with_help(format!("keep one of them; the other is at {}", first.span)),
                );
                continue;
            }
            let (other, first) =
                *same_people.entry((people(rule), target.clone())).or_insert((function, rule));
            if other != function && first.written != rule.written {
                let message = format!(
                    "rules `{}` and `{}` mask `{target}` differently for the same identities",
                    first.id, rule.id,
                );
                let strongest = other.max(function).name();
                problems.push(
                    Diagnostic::warning(&rule.span, message)
                        .with_help(format!("where both match, the strongest wins: `{strongest}`")),
                );
            }
        }
    }
}

/// What a mask rule names, as written, with the function for each.
fn mask_targets(rule: &Rule) -> Vec<(String, &MaskFn)> {
    match &rule.effect {
        Effect::Mask(Mask::ByClass(functions)) => {
            functions.iter().map(|(class, function)| (class.to_string(), function)).collect()
        }
        Effect::Mask(Mask::All(function)) => {
            let written = |keys: &[&str]| {
                let texts = keys.iter().filter_map(|key| rule.written.0.get(key)).flatten();
                texts.map(ToString::to_string).collect::<Vec<_>>()
            };
            let mut targets = written(&["columns", "classes", "levels"]);
            // A mask on one field of a key says nothing of another field.
            let places = written(&["fields", "paths"]).join(" ");
            if targets.is_empty() {
                let keys = written(&["keys"]).into_iter();
                targets.extend(keys.map(|key| format!("{key} {places}").trim_end().to_owned()));
            }
            targets.into_iter().map(|target| (target, function)).collect()
        }
        Effect::Filter(_)
        | Effect::Allow(_)
        | Effect::Deny { .. }
        | Effect::Limit(_)
        | Effect::Prefix(_)
        | Effect::Bounds(_) => Vec::new(),
    }
}

/// The part of a match that says whom the rule concerns.
fn people(rule: &Rule) -> Written {
    const ABOUT_DATA: [&str; 21] = [
        "relations",
        "except_relations",
        "columns",
        "except_columns",
        "classes",
        "except_classes",
        "levels",
        "statements",
        "except_statements",
        "functions",
        "except_functions",
        "commands",
        "except_commands",
        "keys",
        "except_keys",
        "reads",
        "writes",
        "channels",
        "except_channels",
        "fields",
        "paths",
    ];
    let about_people = rule.written.0.iter().filter(|(key, _)| !ABOUT_DATA.contains(key));
    Written(about_people.map(|(key, texts)| (*key, texts.clone())).collect())
}

/// A role nobody has makes a rule that concerns nobody.
fn check_roles(set: &RuleSet, problems: &mut Problems) {
    let known = set.identities.roles();
    let given = |glob: &Glob| known.iter().any(|role| glob.matches(role));
    for rule in &set.rules {
        let roles = &rule.subject.roles;
        for glob in roles.any.iter().chain(&roles.except).filter(|glob| !given(glob)) {
            let role = glob.as_str();
            let message =
                format!("rule `{}`: the identities file gives nobody role `{role}`", rule.id);
            problems.push(
                Diagnostic::warning(&rule.span, message).suggest(role, known.iter().copied()),
            );
        }
    }
}

/// An attribute nobody has makes a filter that refuses everybody.
fn check_attributes(set: &RuleSet, problems: &mut Problems) {
    let known = set.identities.attributes();
    for rule in &set.rules {
        let (span, names): (_, Vec<&str>) = match &rule.effect {
            Effect::Filter(filter) => {
                (&filter.span, filter.references.iter().map(|name| &**name).collect())
            }
            Effect::Prefix(prefix) => {
                (&rule.span, prefix.references().map(|name| &**name).collect())
            }
            Effect::Limit(rate) => match &rate.by {
                CountedBy::Attribute(name) => (&rule.span, vec![name]),
                CountedBy::User | CountedBy::Address | CountedBy::Database => continue,
            },
            Effect::Mask(_) | Effect::Allow(_) | Effect::Deny { .. } | Effect::Bounds(_) => {
                continue;
            }
        };
        for name in names {
            if known.contains(name) || LOGIN_VALUES.contains(&name) {
                continue;
            }
            let message = format!("rule `{}`: the identities file gives nobody `{name}`", rule.id);
            let all = known.iter().copied().chain(LOGIN_VALUES.iter().copied());
            let help = nearest(name, all).map(|near| format!("did you mean `{near}`?"));
            let problem = Diagnostic::warning(span, message);
            problems.push(Diagnostic { help, ..problem });
        }
    }
}

#[cfg(test)]
mod tests;
