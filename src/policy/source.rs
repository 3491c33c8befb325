//! Rule files as people write them: text in, checked rules and labels out.
//!
//! Reading never stops at the first problem. What the language of later releases knows and this
//! release does not enforce is refused by name, so that no rule is silently without effect.

use std::sync::Arc;

use super::diagnostic::Diagnostic;
use super::pattern::ColumnPattern;
use super::rule::{Effect, Label, Level, Mode, Object, Rule};
use super::yaml::{Document, MapReader, Node, Problems};
use crate::name::RuleId;

mod effect;
mod matching;
mod store;

pub(crate) use effect::rate_of;
pub(crate) use matching::{kept, network};

/// One rule file, or the identities file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Name for messages, as the person knows it.
    pub name: String,
    /// Content.
    pub text: String,
}

/// What one file contributes.
#[derive(Debug, Default)]
pub(crate) struct Contribution {
    pub(crate) rules: Vec<Rule>,
    pub(crate) labels: Vec<Label>,
}

/// Most rules in one file.
const RULES_MAX: usize = 10_000;
/// Most items in one list of names or patterns.
const LIST_MAX: usize = 1_000;
/// Longest text a client or a log is shown, in characters.
const TEXT_CHARS_MAX: usize = 500;

/// Reads one rule file. `tests` are left to [`super::case`].
pub(crate) fn read(file: &SourceFile, problems: &mut Problems) -> Contribution {
    let mut found = Contribution::default();
    let root = match Document::parse(&file.name, &file.text) {
        Ok(root) => root,
        Err(list) => {
            problems.extend(list);
            return found;
        }
    };
    let Some(mut map) = MapReader::new(&root, problems) else { return found };
    version(&mut map, problems);
    if let Some(node) = map.optional("classification") {
        found.labels = bounded(node, problems).iter().filter_map(|n| label(n, problems)).collect();
    }
    if let Some(node) = map.optional("rules") {
        found.rules = bounded(node, problems).iter().filter_map(|n| rule(n, problems)).collect();
    }
    let _ = map.optional("tests");
    map.unsupported(&["unclassified"], problems);
    map.finish(problems);
    found
}

/// Requires `version: 1`.
pub(crate) fn version(map: &mut MapReader<'_>, problems: &mut Problems) {
    let Some(node) = map.required("version", problems) else { return };
    if let Some(version) = node.u64(problems)
        && version != 1
    {
        let message = format!("version {version} is not known; this release reads version 1");
        problems.error(&node.span, message);
    }
}

/// The items of a list that is not too long.
pub(crate) fn bounded<'n>(node: &'n Node, problems: &mut Problems) -> &'n [Node] {
    let items = node.items(problems).unwrap_or_default();
    if items.len() > RULES_MAX {
        problems.error(&node.span, format!("more than {RULES_MAX} entries"));
        return &[];
    }
    items
}

/// A text that may be shown to people: bounded and without control characters.
pub(crate) fn shown_text(node: &Node, problems: &mut Problems) -> Option<Box<str>> {
    let text = node.string(problems)?.trim();
    if text.is_empty() || text.chars().count() > TEXT_CHARS_MAX {
        problems.error(&node.span, format!("expected a text of 1 to {TEXT_CHARS_MAX} characters"));
        return None;
    }
    if text.chars().any(char::is_control) {
        problems
            .error(&node.span, "a text that is shown must be one line without control characters");
        return None;
    }
    Some(text.into())
}

/// One text, or a list of at least one.
pub(crate) fn one_or_many<'n>(
    node: &'n Node,
    problems: &mut Problems,
) -> Vec<(&'n str, &'n super::Span)> {
    if let super::yaml::Value::Scalar { text, .. } = &node.value {
        return vec![(text, &node.span)];
    }
    let texts = node.strings(problems);
    match texts {
        Some(texts) if texts.is_empty() => {
            problems.push(
                Diagnostic::error(&node.span, "an empty list matches nothing")
                    .with_help("leave the key out to match everything"),
            );
            Vec::new()
        }
        Some(texts) if texts.len() > LIST_MAX => {
            problems.error(&node.span, format!("more than {LIST_MAX} entries"));
            Vec::new()
        }
        texts => texts.unwrap_or_default(),
    }
}

fn label(node: &Node, problems: &mut Problems) -> Option<Label> {
    let mut map = MapReader::new(node, problems)?;
    let columns = map.optional("columns").map(|node| columns(node, problems));
    let keys = map.optional("keys").map(|node| store::globs(node, problems));
    let places = store::places(&mut map, problems);
    if columns.is_none() && keys.is_none() {
        problems.error(&node.span, "a classification needs `columns` or `keys`");
    }
    if keys.is_none() && !places.is_empty() {
        problems.error(&node.span, "`fields` and `paths` are places in values of `keys`");
    }
    let class = map.required("class", problems).and_then(|node| name(node, problems));
    let level = map.required("level", problems).and_then(|n| n.one_of(Level::NAMES, problems));
    map.finish(problems);
    Some(Label {
        columns: columns.unwrap_or_default(),
        keys: keys.unwrap_or_default(),
        places,
        class: class?,
        level: level?,
    })
}

fn columns(node: &Node, problems: &mut Problems) -> Vec<ColumnPattern> {
    let texts = one_or_many(node, problems);
    let read = |(text, span)| match ColumnPattern::parse(text, span) {
        Ok(pattern) => Some(pattern),
        Err(message) => {
            problems.error(span, message);
            None
        }
    };
    texts.into_iter().filter_map(read).collect()
}

fn name(node: &Node, problems: &mut Problems) -> Option<Arc<str>> {
    let text = shown_text(node, problems)?;
    if text.contains(['*', '?']) {
        problems.error(&node.span, "a class name cannot hold `*` or `?`");
        return None;
    }
    Some(text.into())
}

fn rule(node: &Node, problems: &mut Problems) -> Option<Rule> {
    let mut map = MapReader::new(node, problems)?;
    let id = map.required("id", problems).and_then(|node| rule_id(node, problems));
    let description = map.optional("description").and_then(|node| shown_text(node, problems));
    let owner = map.optional("owner").and_then(|node| shown_text(node, problems));
    let controls = map.optional("controls").map(|node| one_or_many(node, problems));
    let matched = map.required("match", problems).and_then(|n| matching::read(n, problems));
    let mode = match map.optional("mode") {
        Some(node) => node.one_of(MODES, problems),
        None => Some(Mode::Enforce),
    };
    let effect = effect::read(&mut map, problems);
    predicates(&mut map, effect.as_ref(), problems);
    map.unsupported(&["when", "require", "not_after", "ticket", "unclassified"], problems);
    map.finish(problems);
    let (subject, object, written) = matched?;
    let effect = effect?;
    fits_effect(node, &object, &effect, problems);
    let applications = &subject.applications;
    let by_name = !applications.any.is_empty() || !applications.except.is_empty();
    if by_name && matches!(effect, Effect::Prefix(_)) {
        let message = "a prefix cannot depend on `applications`: the client chooses that name";
        problems.error(&node.span, message);
    }
    let watched = mode.is_some_and(|mode| mode != Mode::Enforce);
    if watched && matches!(effect, Effect::Prefix(_) | Effect::Bounds(_)) {
        let message = format!("`{}` can only be enforced: leave `mode` out", effect.name());
        problems.error(&node.span, message);
    }
    Some(Rule {
        id: id?,
        span: node.span.clone(),
        description,
        owner,
        controls: controls.unwrap_or_default().iter().map(|(text, _)| (*text).into()).collect(),
        mode: mode?,
        subject,
        object,
        effect,
        written,
    })
}

const MODES: &[(&str, Mode)] =
    &[("enforce", Mode::Enforce), ("warn", Mode::Warn), ("shadow", Mode::Shadow)];

fn rule_id(node: &Node, problems: &mut Problems) -> Option<RuleId> {
    let text = node.string(problems)?;
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = text.starts_with(letter)
        && text.len() <= ID_BYTES_MAX
        && text.chars().all(|c| letter(c) || matches!(c, '_' | '-'));
    if !fits {
        problems.push(
            Diagnostic::error(&node.span, "a rule id needs lower-case letters, digits, `-` or `_`")
                .with_help(format!("at most {ID_BYTES_MAX}, beginning with a letter or digit")),
        );
        return None;
    }
    Some(RuleId(text.into()))
}

/// Longest rule id: it appears in every message and event.
const ID_BYTES_MAX: usize = 64;

fn predicates(map: &mut MapReader<'_>, effect: Option<&Effect>, problems: &mut Problems) {
    let Some(entry) = map.entry("predicates") else { return };
    let Some(text) = entry.value.string(problems) else { return };
    match text {
        "masked" if matches!(effect, Some(Effect::Mask(_)) | None) => {}
        "masked" => problems.error(&entry.key_span, "`predicates` belongs to a mask"),
        "deny" | "equality" | "raw" => {
            let message = format!("`predicates: {text}` is not enforced yet by this version");
            problems.push(
                Diagnostic::error(&entry.value.span, message)
                    .with_help("`masked`, the default: conditions see the masked value"),
            );
        }
        other => problems.error(&entry.value.span, format!("unknown value `{other}`")),
    }
}

/// Refuses criteria that mean nothing, or something else than they seem to, for an effect.
fn fits_effect(node: &Node, object: &Object, effect: &Effect, problems: &mut Problems) {
    let span = &node.span;
    let by_column =
        !object.columns.is_empty() || !object.levels.is_empty() || !object.classes.any.is_empty();
    let by_call = !object.functions.is_empty() || !object.except_functions.is_empty();
    match effect {
        Effect::Mask(mask) => {
            if !by_column && object.store.keys.is_empty() {
                let needs = "a mask needs `columns`, `keys`, `classes` or `levels` in its match";
                problems.error(span, needs);
            }
            effect::fits_classes(span, object, mask, problems);
        }
        Effect::Filter(_) => {
            if object.relations.is_empty() {
                problems.error(span, "a filter needs `relations` in its match");
            }
            if by_column || !object.except_columns.is_empty() {
                problems.error(span, "a filter is matched by `relations`, not by columns");
            }
            for pattern in object.relations.iter().filter(|pattern| pattern.is_everything()) {
                problems.error(&pattern.span, "a filter cannot stand on every relation; name them");
            }
        }
        Effect::Allow(_) => {
            if by_column || object.about_statements() || !object.store.is_empty() {
                problems.push(
                    Diagnostic::error(span, "the match of an allow rule says whom, not what")
                        .with_help(
                            "list statements, relations, functions, commands, keys under `allow`",
                        ),
                );
            }
        }
        Effect::Deny { .. } | Effect::Limit(_) | Effect::Prefix(_) | Effect::Bounds(_) => {}
    }
    let on_rows = matches!(effect, Effect::Mask(_) | Effect::Filter(_));
    if on_rows && (by_call || object.without_where) {
        problems.error(span, "`functions` and `without` do not go with a mask or a filter");
    }
    if on_rows && !object.statements.is_everything() {
        problems.push(
            Diagnostic::warning(span, "this rule leaves other statements unmasked or unfiltered")
                .with_help("leave `statements` out, so that no spelling goes around it"),
        );
    }
    store::fits_effect(span, object, effect, problems);
    if object.classes.any.is_empty() && !object.classes.except.is_empty() {
        problems.error(span, "`except_classes` needs `classes`");
    }
}
