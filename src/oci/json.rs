//! Strict JSON: what two readers could understand differently is refused.
//!
//! A repeated key lets one parser see another document than the next one does, so that what was
//! checked is not what is used. serde_json keeps the last of two; this parser refuses both. Depth is
//! bounded by serde_json's own recursion limit (128), size by the callers, and the number of values here:
//! `[[],[],…]` takes some ten times its size in memory, and whoever stores it needs no key ([`parse`]). What
//! a signature holds for may have more of them ([`parse_signed`]).
//!
//! containerd reads manifests and configurations without regard to the case of their fields, so there `User`
//! and `uſer` are one key too, and the second, which whoever looks for `User` does not see, is refused
//! ([`parse_of_image`]).

use std::cell::Cell;
use std::collections::BTreeSet;
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
    /// A key is a field of images for a reader in Go, and is not spelt as that.
    #[error("a key in the JSON is that of a known field in another spelling")]
    Respelt,
    /// More values than are read.
    #[error("the JSON has more than {limit} values")]
    TooManyValues {
        /// The limit.
        limit: usize,
    },
}

/// Parses exactly one JSON document in which no object repeats a key.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    parse_within(bytes, VALUES, Keys::Exact)
}

/// The same for what was signed by somebody who is believed.
pub(crate) fn parse_signed(bytes: &[u8]) -> Result<Value, JsonError> {
    parse_within(bytes, SIGNED_VALUES, Keys::Exact)
}

/// The same for an index, a manifest or a configuration: keys that a reader in Go takes for one are one, and
/// those that it takes for a known field are spelt as that.
pub(crate) fn parse_of_image(bytes: &[u8]) -> Result<Value, JsonError> {
    parse_within(bytes, VALUES, Keys::AnyCase)
}

fn parse_within(bytes: &[u8], limit: usize, keys: Keys) -> Result<Value, JsonError> {
    let (found, fault) = (Cell::new(0), Cell::new(JsonError::Malformed));
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { limit, keys, found: &found, fault: &fault }.deserialize(&mut deserializer);
    match value {
        Ok(value) if deserializer.end().is_ok() => Ok(value),
        Ok(_) => Err(JsonError::Malformed),
        Err(_) => Err(fault.get()),
    }
}

/// The field of an object; `null` counts as not there, as in the proto3 JSON mapping.
pub(crate) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).filter(|value| !value.is_null())
}

/// Which keys of an object are the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// Those that are equal.
    Exact,
    /// Those that Go takes for the same field of a struct.
    AnyCase,
}

impl Keys {
    /// Those below the member `key`: free names there are no fields.
    fn below(self, key: &str) -> Self {
        if FREE_NAMES.contains(&fold(key).as_str()) { Self::Exact } else { self }
    }
}

/// `ſ` is `s` and the Kelvin sign is `k`, as for Go.
fn fold(key: &str) -> String {
    key.to_uppercase().to_lowercase()
}

/// Whether Go takes it for a known field that it is not spelt as.
fn is_respelt(key: &str) -> bool {
    let folded = fold(key);
    FIELDS.iter().any(|field| *field != key && field.to_ascii_lowercase() == folded)
}

/// Deserialises any value, counts it, and notes why it is refused.
#[derive(Clone, Copy)]
struct Strict<'a> {
    limit: usize,
    keys: Keys,
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
        let (mut map, mut folded) = (Map::new(), BTreeSet::new());
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(Self { keys: self.keys.below(&key), ..self })?;
            let respelt = self.keys == Keys::AnyCase && is_respelt(&key);
            let clashes = self.keys == Keys::AnyCase && !folded.insert(fold(&key));
            if map.insert(key, value).is_some() || clashes {
                self.fault.set(JsonError::RepeatedKey);
                return Err(A::Error::custom("repeated key"));
            }
            if respelt {
                self.fault.set(JsonError::Respelt);
                return Err(A::Error::custom("known field in another spelling"));
            }
        }
        Ok(Value::Object(map))
    }
}

/// Members of manifests and configurations whose keys are the author's.
const FREE_NAMES: [&str; 4] = ["annotations", "labels", "volumes", "exposedports"];
/// The members of indexes, manifests and configurations in the OCI image specification, and Docker's more of
/// them: a reader in Go that takes them as fields takes any case.
#[rustfmt::skip]
const FIELDS: [&str; 51] = [
    // Index, manifest, descriptor, platform.
    "schemaVersion", "mediaType", "artifactType", "manifests", "config", "layers", "subject", "annotations",
    "digest", "size", "urls", "data", "platform", "architecture", "os", "os.version", "os.features", "variant",
    // Configuration.
    "created", "author", "rootfs", "type", "diff_ids", "history", "created_by", "comment", "empty_layer",
    "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal",
    "ArgsEscaped", "Healthcheck", "Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries",
    "OnBuild", "Shell", "container", "container_config", "docker_version", "parent", "id",
];
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
    fn refuses_keys_of_an_image_that_go_takes_for_one() {
        for text in [
            r#"{"config":{"User":"1000","user":"root"}}"#,
            "{\"config\":{\"User\":\"1000\",\"U\u{17f}er\":\"root\"}}",
            r#"{"config":{},"CONFIG":{}}"#,
            "{\"history\":[{\"created_by\":1,\"Created_By\":2}]}",
            r#"{"Labels":{"a":1,"a":2}}"#,
        ] {
            assert_eq!(parse_of_image(text.as_bytes()), Err(JsonError::RepeatedKey), "{text}");
        }
        for text in [
            r#"{"config":{"Labels":{"a":1,"A":2}},"other":1}"#,
            r#"{"annotations":{"a":{"b":1,"B":2}}}"#,
            r#"{"config":{"Volumes":{"/a":{},"/A":{}},"ExposedPorts":{"1/tcp":{},"1/TCP":{}}}}"#,
        ] {
            assert_eq!(parse_of_image(text.as_bytes()), Ok(serde_json::from_str(text).unwrap()), "{text}");
        }
        assert!(parse(br#"{"User":1,"user":2}"#).is_ok(), "only of images");
    }

    /// containerd runs what they say, and an expression on the field does not see them.
    #[test]
    fn refuses_keys_of_an_image_that_go_takes_for_a_field() {
        for text in [
            r#"{"config":{"user":"0"}}"#,
            r#"{"config":{"volumes":{"/a":{}}}}"#,
            "{\"config\":{\"U\u{17f}er\":\"0\"}}",
            r#"{"config":{"labels":{"a":"b"}}}"#,
            r#"{"Architecture":"arm64"}"#,
            r#"{"Manifests":[]}"#,
            r#"{"manifests":[{"Platform":{}}]}"#,
            r#"{"layers":[{"mediatype":"m"}]}"#,
            r#"{"rootfs":{"Diff_IDs":[]}}"#,
        ] {
            assert_eq!(parse_of_image(text.as_bytes()), Err(JsonError::Respelt), "{text}");
        }
        for text in [
            r#"{"config":{"User":"0","Volumes":{"user":{}},"Labels":{"USER":"x"}},"os.version":"1"}"#,
            r#"{"manifests":[{"platform":{"os.features":[]},"annotations":{"Digest":"x"}}]}"#,
        ] {
            assert_eq!(parse_of_image(text.as_bytes()), Ok(serde_json::from_str(text).unwrap()), "{text}");
        }
        assert!(parse(br#"{"user":2}"#).is_ok(), "only of images");
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
