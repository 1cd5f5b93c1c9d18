//! Strict JSON: what two readers could understand differently is refused.
//!
//! A repeated key lets one parser see another document than the next one does, so that what was
//! checked is not what is used. serde_json keeps the last of two; this parser refuses both. Depth is
//! bounded by serde_json's own recursion limit (128), size by the callers, and the number of values here:
//! `[[],[],…]` takes some ten times its size in memory, and whoever stores it needs no key ([`parse`]). What
//! a signature holds for may have more of them ([`parse_signed`]).

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Why a text is not accepted as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not one JSON document.
    #[error("not valid JSON")]
    Malformed,
    /// An object names one key twice.
    #[error("an object in the JSON repeats a key")]
    RepeatedKey,
    /// More values than are read.
    #[error("the JSON has more than {limit} values")]
    TooManyValues {
        /// The limit.
        limit: usize,
    },
}

/// Parses exactly one JSON document in which no object repeats a key.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    parse_within(bytes, VALUES)
}

/// The same for what was signed by somebody who is believed.
pub(super) fn parse_signed(bytes: &[u8]) -> Result<Value, JsonError> {
    parse_within(bytes, SIGNED_VALUES)
}

fn parse_within(bytes: &[u8], limit: usize) -> Result<Value, JsonError> {
    let (found, fault) = (Cell::new(0), Cell::new(JsonError::Malformed));
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { limit, found: &found, fault: &fault }.deserialize(&mut deserializer);
    match value {
        Ok(value) if deserializer.end().is_ok() => Ok(value),
        Ok(_) => Err(JsonError::Malformed),
        Err(_) => Err(fault.get()),
    }
}

/// The field of an object; `null` counts as not there, as in the proto3 JSON mapping.
pub(super) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).filter(|value| !value.is_null())
}

/// Deserialises any value, counts it, and notes why it is refused.
#[derive(Clone, Copy)]
struct Strict<'a> {
    limit: usize,
    found: &'a Cell<usize>,
    fault: &'a Cell<JsonError>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.found.set(self.found.get() + 1);
        if self.found.get() > self.limit {
            self.fault.set(JsonError::TooManyValues { limit: self.limit });
            return Err(D::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(self)?;
            if map.insert(key, value).is_some() {
                self.fault.set(JsonError::RepeatedKey);
                return Err(A::Error::custom("repeated key"));
            }
        }
        Ok(Value::Object(map))
    }
}

/// A bundle with all the log entries that are read, and all their hashes, has some 3000.
const VALUES: usize = 1 << 16;
/// The SBOM of a large image in 10 MiB has half as many.
const SIGNED_VALUES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_serde_json_reads() {
        let text = br#"{"a":[1,-2,3.5,"x\u00e4",true,null,{}],"b":{"c":[]}}"#;
        assert_eq!(parse(text), Ok(serde_json::from_slice::<Value>(text).unwrap()));
    }

    #[test]
    fn refuses_a_repeated_key_at_any_depth() {
        assert_eq!(parse(br#"{"a":1,"a":1}"#), Err(JsonError::RepeatedKey));
        assert_eq!(parse(br#"[{"a":{"b":1,"\u0062":2}}]"#), Err(JsonError::RepeatedKey));
    }

    #[test]
    fn refuses_more_values_than_are_read() {
        let list = |values: usize| format!("[{}]", vec!["[]"; values - 1].join(",")).into_bytes();
        let object = |values: usize| {
            let members: Vec<_> = (1..values).map(|member| format!("\"{member}\":0")).collect();
            format!("{{{}}}", members.join(",")).into_bytes()
        };
        let too_many = Err(JsonError::TooManyValues { limit: VALUES });
        for text in [list, object] {
            assert!(parse(&text(VALUES)).is_ok());
            assert_eq!(parse(&text(VALUES + 1)), too_many);
            assert!(parse_signed(&text(VALUES + 1)).is_ok());
        }
        let too_many = Err(JsonError::TooManyValues { limit: SIGNED_VALUES });
        assert_eq!(parse_signed(&list(SIGNED_VALUES + 1)), too_many);
    }

    #[test]
    fn refuses_a_second_document_and_broken_text() {
        assert_eq!(parse(b"{} {}"), Err(JsonError::Malformed));
        assert_eq!(parse(b"{"), Err(JsonError::Malformed));
        assert_eq!(parse(b""), Err(JsonError::Malformed));
        assert_eq!(parse(&[b'['; 4096]), Err(JsonError::Malformed));
    }
}
