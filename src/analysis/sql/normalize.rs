//! Statement text for the audit trail: every literal replaced, comments dropped.

use super::parse::{self, Token};

/// Longest normalised text in bytes.
const NORMALIZED_BYTES_MAX: usize = 8 * 1024;

/// The text with `?` for every literal token, one space between tokens where there was any gap,
/// no comments, at most 8 KiB. Values of SET are replaced, too, and so is what follows a literal's
/// prefix. `None` when the text cannot be scanned: then nothing in it is known not to be a literal.
pub fn normalize(text: &str) -> Option<String> {
    use pg_query::protobuf::Token as Kind;
    if text.contains('\0') {
        return None;
    }
    let tokens = parse::scan(text)?;
    let mut out = String::with_capacity(text.len().min(NORMALIZED_BYTES_MAX));
    let mut end = 0;
    let mut setting = Setting::None;
    for token in tokens {
        let written = text.get(token.start..token.end)?;
        setting = setting.after(&token);
        let literal = matches!(
            token.kind,
            Kind::Sconst
                | Kind::Usconst
                | Kind::Bconst
                | Kind::Xconst
                | Kind::Fconst
                | Kind::Iconst
        );
        let shown = if literal || setting == Setting::Value { "?" } else { written };
        if out.len() + shown.len() + 1 > NORMALIZED_BYTES_MAX {
            break;
        }
        if token.start > end && end > 0 {
            out.push(' ');
        }
        out.push_str(shown);
        end = token.end;
    }
    Some(out)
}

/// Where in a SET statement a token stands; its values may be bare words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    /// Not in a SET, or in one that is not a statement (`UPDATE … SET`).
    None,
    /// At the start of a statement.
    Start,
    /// After SET, before `=` or TO.
    Name,
    /// `=` or TO itself.
    Separator,
    /// A value.
    Value,
    /// Any other statement.
    Other,
}

impl Setting {
    fn after(self, token: &Token) -> Self {
        use pg_query::protobuf::Token as Kind;
        match (self, token.kind) {
            (_, Kind::Ascii59) => Self::Start,
            (Self::None | Self::Start, Kind::Set) => Self::Name,
            (Self::None | Self::Start | Self::Other, _) => Self::Other,
            (Self::Name, Kind::Ascii61 | Kind::To) => Self::Separator,
            (Self::Name, _) => Self::Name,
            (Self::Separator | Self::Value, Kind::Ascii44) => Self::Separator,
            (Self::Separator | Self::Value, _) => Self::Value,
        }
    }
}
