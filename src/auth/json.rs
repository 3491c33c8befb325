//! JSON that somebody else wrote and a login depends on: objects that name a member twice are
//! refused, because two readers could take it for two different things.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// One JSON value and nothing after it; `None` for anything else. The depth is bounded by the
/// parser (128), the size by the caller.
pub(super) fn strict(text: &[u8]) -> Option<Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Strict.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(value)
}

/// The same, for an object.
pub(super) fn strict_object(text: &[u8]) -> Option<Map<String, Value>> {
    match strict(text)? {
        Value::Object(members) => Some(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            None
        }
    }
}

/// Reads a value whose objects have no member twice.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value without repeated members")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Self)?;
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("a repeated member"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_members_and_leftovers_are_refused_at_every_depth() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"[{"x":[{"a":1,"a":1}]}]"#,
            r#"{"a":1} {}"#,
            r#"{"a":1}x"#,
            r#"{"a":1,}"#,
            "",
            "{",
            "\u{feff}{}",
        ] {
            assert_eq!(strict(text.as_bytes()), None, "{text}");
        }
        assert_eq!(strict(b"\"\xff\""), None, "not UTF-8");
        let deep = "[".repeat(10_000);
        assert_eq!(strict(deep.as_bytes()), None);
    }

    #[test]
    fn anything_else_is_what_it_is() {
        let text = r#" {"a":{"a":[1,-2,1.5,null,true,"x"]},"b":18446744073709551615} "#;
        let plain: Value = serde_json::from_str(text).unwrap();
        assert_eq!(strict(text.as_bytes()), Some(plain));
        assert_eq!(strict_object(b"[]"), None);
        assert_eq!(strict_object(b"{}"), Some(Map::new()));
    }
}
