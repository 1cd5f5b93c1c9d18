//! `kind: List`: what `kubectl get -o yaml` writes. Its items are read as documents of their own.
//!
//! The items are looked at twice: once for their kinds, once each as its kind, both from the same text,
//! so that every line number is that of the file.

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::with_deserializer_from_str;

use super::Loader;
use super::document::{self, Head, Item, Sort};

/// The heads of the items.
#[derive(serde::Deserialize)]
struct Heads {
    #[serde(default)]
    items: Vec<Head>,
}

impl Loader<'_> {
    pub(super) fn list(&mut self, line: u64, text: &str) {
        let heads = match serde_saphyr::from_str::<Heads>(text) {
            Ok(heads) => heads.items,
            Err(error) => return self.yaml_error(&error),
        };
        let before = self.errors.len();
        let sorts: Vec<(u64, Option<Sort>)> = heads
            .iter()
            .map(|head| {
                let sort = self.sort(head);
                if sort == Some(Sort::List) {
                    self.error(head.line(), "a List inside a List is not read; take it out".to_owned());
                }
                (head.line(), sort)
            })
            .collect();
        if heads.is_empty() {
            self.notice(line, "kind `List` is empty".to_owned());
        }
        if self.errors.len() > before {
            return;
        }
        match with_deserializer_from_str(text, |yaml| List(&sorts).deserialize(yaml)) {
            Ok(items) => {
                let raw = document::raw(text);
                for (index, ((line, _), item)) in sorts.iter().zip(items).enumerate() {
                    if let Some(item) = item {
                        let raw = raw.as_ref().and_then(|raw| raw.get("items")?.get(index));
                        self.parsed(*line, item, raw.cloned());
                    }
                }
            }
            Err(error) => self.yaml_error(&error),
        }
    }
}

/// The whole List, given the kinds of its items.
#[derive(Clone, Copy)]
struct List<'a>(&'a [(u64, Option<Sort>)]);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = Vec<Option<Item>>;

    fn deserialize<D: Deserializer<'de>>(self, yaml: D) -> Result<Vec<Option<Item>>, D::Error> {
        yaml.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = Vec<Option<Item>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a List")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Option<Item>>, A::Error> {
        let mut items = Vec::new();
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "items" => items = map.next_value_seed(Items(self.0))?,
                "apiVersion" | "kind" | "metadata" => drop(map.next_value::<IgnoredAny>()?),
                other => return Err(A::Error::custom(format!("unknown field `{other}` of a List"))),
            }
        }
        Ok(items)
    }
}

struct Items<'a>(&'a [(u64, Option<Sort>)]);

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = Vec<Option<Item>>;

    fn deserialize<D: Deserializer<'de>>(self, yaml: D) -> Result<Vec<Option<Item>>, D::Error> {
        yaml.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = Vec<Option<Item>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the items of a List")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Option<Item>>, A::Error> {
        let mut items = Vec::new();
        for (_, sort) in self.0 {
            let item = match sort {
                Some(Sort::Policy) => list.next_element()?.map(Item::Policy).map(Some),
                Some(Sort::Exception) => list.next_element()?.map(Item::Exception).map(Some),
                Some(Sort::ConfigMap) => list.next_element()?.map(Item::ConfigMap).map(Some),
                Some(Sort::List) | None => list.next_element::<IgnoredAny>()?.map(|_| None),
            };
            items.push(item.ok_or_else(|| A::Error::custom("the items of a List have changed"))?);
        }
        match list.next_element::<IgnoredAny>()? {
            None => Ok(items),
            Some(_) => Err(A::Error::custom("the items of a List have changed")),
        }
    }
}
