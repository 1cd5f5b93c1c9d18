//! JSON and YAML as texts, and back.
//!
//! Documents come from whoever signs, and a short text may stand for a large value (`[0,0,0,…]`), so the
//! value is built element by element and charged while it grows. Texts are written as Go's encoder
//! writes them: sorted keys, `<`, `>` and `&` escaped.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;

use super::Kind::{Any, Text};
use super::{Arguments, Function, row};
use crate::policy::jmespath::EvaluationError;
use crate::policy::jmespath::budget::Budget;
use crate::policy::jmespath::datum::{Datum, Fields, View};
use crate::policy::jmespath::interpret::{Evaluated, Interpreter};

pub(super) const FUNCTIONS: &[Function] = &[
    row("parse_json", &[&[Text]], parse_json),
    row("parse_yaml", &[&[Text]], parse_yaml),
    row("to_string", &[&[Any]], to_string),
];

fn parse_json<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let mut growing = Growing { run, limit: None };
    let mut json = serde_json::Deserializer::from_str(arguments.text(0)?);
    let parsed = (&mut growing).deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    match (growing.limit, parsed) {
        (Some(limit), _) => Err(limit),
        (None, Ok(value)) => Ok(value),
        (None, Err(error)) => Err(arguments.failed(error.to_string())),
    }
}

/// YAML 1.1 as upstream reads it: `yes` is true, `010` is 8, the last of equal keys counts. A second
/// document is an error; upstream drops it.
fn parse_yaml<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let text = arguments.text(0)?;
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_recorded_anchor_bytes: ANCHOR_LIMIT },
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    let mut growing = Growing { run, limit: None };
    let parsed = serde_saphyr::with_deserializer_from_str_with_options(text, options, |document| {
        (&mut growing).deserialize(document)
    });
    match (growing.limit, parsed) {
        (Some(limit), _) => Err(limit),
        (None, Ok(value)) => Ok(value),
        (None, Err(error)) => Err(arguments.failed(error.without_snippet().to_string())),
    }
}

/// A value that grows within the budget. The error of a limit is kept here: the parser's own error
/// type could only carry its text.
struct Growing<'g, 'a, 'b> {
    run: &'g mut Interpreter<'a, 'b>,
    limit: Option<EvaluationError>,
}

impl<'a> Growing<'_, 'a, '_> {
    fn charged<E: serde::de::Error>(&mut self, charge: Result<(), EvaluationError>) -> Result<(), E> {
        charge.map_err(|limit| {
            let error = E::custom(&limit);
            self.limit = Some(limit);
            error
        })
    }

    fn text<E: serde::de::Error>(&mut self, text: &str) -> Result<Datum<'a>, E> {
        let charge = self.run.budget.output(text.len());
        self.charged(charge)?;
        Ok(Datum::Text(text.into()))
    }
}

impl<'de, 'a> DeserializeSeed<'de> for &mut Growing<'_, 'a, '_> {
    type Value = Datum<'a>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Datum<'a>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, 'a> Visitor<'de> for &mut Growing<'_, 'a, '_> {
    type Value = Datum<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Datum<'a>, E> {
        Ok(Datum::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Datum<'a>, E> {
        Ok(Datum::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Datum<'a>, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Datum<'a>, E> {
        Ok(Datum::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Datum<'a>, E> {
        #[expect(clippy::cast_precision_loss, reason = "numbers are floats here")]
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Datum<'a>, E> {
        #[expect(clippy::cast_precision_loss, reason = "numbers are floats here")]
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Datum<'a>, E> {
        Datum::number(value).map_err(E::custom)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Datum<'a>, E> {
        self.text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Datum<'a>, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = sequence.next_element_seed(&mut *self)? {
            let charge = self.run.keep(&mut elements, element);
            self.charged(charge)?;
        }
        Ok(Datum::list(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Datum<'a>, A::Error> {
        let mut fields = Fields::new();
        while let Some(name) = map.next_key_seed(&mut *self)? {
            let name = match name.view() {
                View::Text(name) => name.to_owned(),
                View::Bool(name) => name.to_string(),
                View::Number(name) => json_number(name),
                View::Null | View::List(_) | View::Object(_) => {
                    return Err(A::Error::custom("a key is neither a text nor a number nor a boolean"));
                }
            };
            let value = map.next_value_seed(&mut *self)?;
            let charge = self.run.set(&mut fields, Cow::Owned(name), value);
            self.charged(charge)?;
        }
        Ok(Datum::object(fields))
    }
}

fn to_string<'a>(arguments: &Arguments<'a>, run: &mut Interpreter<'a, '_>) -> Evaluated<'a> {
    let value = arguments.value(0)?;
    if value.as_text().is_some() {
        return Ok(value.clone());
    }
    let mut text = String::new();
    write_json(&mut text, value, run.budget)?;
    Ok(Datum::Text(text.into()))
}

/// Compact JSON as Go writes it.
pub(in crate::policy) fn json_text(value: &Value, budget: &mut Budget) -> Result<String, EvaluationError> {
    let mut text = String::new();
    write_json(&mut text, &Datum::Json(value), budget)?;
    Ok(text)
}

fn write_json(out: &mut String, value: &Datum<'_>, budget: &mut Budget) -> Result<(), EvaluationError> {
    budget.step(1)?;
    let before = out.len();
    match value.view() {
        View::Null => out.push_str("null"),
        View::Bool(value) => out.push_str(if value { "true" } else { "false" }),
        View::Number(number) => out.push_str(&json_number(number)),
        View::Text(text) => write_text(out, text),
        View::List(list) => {
            budget.output(2 + list.len())?;
            out.push('[');
            for (index, element) in list.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_json(out, &element, budget)?;
            }
            out.push(']');
            return Ok(());
        }
        View::Object(object) => {
            budget.output(2 + 2 * object.width())?;
            out.push('{');
            for (index, (name, field)) in object.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                budget.output(name.len())?;
                write_text(out, &name);
                out.push(':');
                write_json(out, &field, budget)?;
            }
            out.push('}');
            return Ok(());
        }
    }
    budget.output(out.len() - before)
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

/// A number as Go's encoder writes it: the shortest digits, an exponent only for very small and very
/// large ones.
fn json_number(number: f64) -> String {
    let size = number.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{number:e}");
        return if size < 1.0 { text } else { text.replace('e', "e+") };
    }
    number.to_string()
}

/// Bytes that the parser may keep to repeat them for aliases; the rest of its limits are its own.
const ANCHOR_LIMIT: usize = 4 << 20;
