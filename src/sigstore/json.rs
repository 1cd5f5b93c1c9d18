//! Strict JSON: what two readers could understand differently is refused.
//!
//! A repeated key lets one parser see another document than the next one does, so that what was
//! checked is not what is used. serde_json keeps the last of two; this parser refuses both. Depth is
//! bounded by serde_json's own recursion limit (128), size by the callers.

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
}

/// Parses exactly one JSON document in which no object repeats a key.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let repeated = Cell::new(false);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Unique(&repeated).deserialize(&mut deserializer);
    match value {
        Ok(value) if deserializer.end().is_ok() => Ok(value),
        Ok(_) => Err(JsonError::Malformed),
        Err(_) if repeated.get() => Err(JsonError::RepeatedKey),
        Err(_) => Err(JsonError::Malformed),
    }
}

/// The field of an object; `null` counts as not there, as in the proto3 JSON mapping.
pub(super) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).filter(|value| !value.is_null())
}

/// Deserialises any value and notes a repeated key in the cell.
#[derive(Clone, Copy)]
struct Unique<'a>(&'a Cell<bool>);

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
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
                self.0.set(true);
                return Err(A::Error::custom("repeated key"));
            }
        }
        Ok(Value::Object(map))
    }
}

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
    fn refuses_a_second_document_and_broken_text() {
        assert_eq!(parse(b"{} {}"), Err(JsonError::Malformed));
        assert_eq!(parse(b"{"), Err(JsonError::Malformed));
        assert_eq!(parse(b""), Err(JsonError::Malformed));
        assert_eq!(parse(&[b'['; 4096]), Err(JsonError::Malformed));
    }
}
