//! The object that an expression starts from, put together without copying.
//!
//! Kyverno merges everything into one document: the image, the request, named predicates and, while
//! the conditions of an attestation are evaluated, the predicate's own fields. Here it stays in
//! layers, and the first layer that has a name wins. Reserved names go in first, so a predicate that
//! brings its own `image` or `request` does not replace the real one (upstream lets it).

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Map, Value};

/// Named values, in layers, and the time of the verdict.
#[derive(Debug)]
pub(in crate::policy) struct Scope<'a> {
    layers: Vec<Layer<'a>>,
    now: SystemTime,
}

#[derive(Debug)]
enum Layer<'a> {
    Name(&'a str, &'a Value),
    Object(&'a Map<String, Value>),
}

impl<'a> Scope<'a> {
    /// An empty scope at `now`, which is what the functions of the clock read.
    pub(in crate::policy) const fn new(now: SystemTime) -> Self {
        Self { layers: Vec::new(), now }
    }

    /// Adds one name, weaker than all that was added before.
    #[must_use]
    pub(in crate::policy) fn name(mut self, name: &'a str, value: &'a Value) -> Self {
        self.layers.push(Layer::Name(name, value));
        self
    }

    /// Adds every field of `object`, weaker than all that was added before.
    #[must_use]
    pub(in crate::policy) fn object(mut self, object: &'a Map<String, Value>) -> Self {
        self.layers.push(Layer::Object(object));
        self
    }

    /// The value of a name in the first layer that has it.
    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        self.layers.iter().find_map(|layer| match layer {
            Layer::Name(own, value) => (*own == name).then_some(*value),
            Layer::Object(object) => object.get(name),
        })
    }

    /// Every name with its value, sorted.
    pub(super) fn entries(&self) -> BTreeMap<&'a str, &'a Value> {
        let mut entries = BTreeMap::new();
        for layer in self.layers.iter().rev() {
            match layer {
                Layer::Name(name, value) => {
                    entries.insert(*name, *value);
                }
                Layer::Object(object) => {
                    entries.extend(object.iter().map(|(name, value)| (name.as_str(), value)));
                }
            }
        }
        entries
    }

    /// How many fields the layers have at most, shadowed ones included.
    pub(super) fn width(&self) -> usize {
        let width = |layer: &Layer<'_>| match layer {
            Layer::Name(..) => 1,
            Layer::Object(object) => object.len(),
        };
        self.layers.iter().map(width).sum()
    }

    /// The time of the verdict.
    pub(in crate::policy) const fn now(&self) -> SystemTime {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_layer_that_has_a_name_wins() {
        let (image, predicate) = (json!("real"), json!({"image": "forged", "scanner": "trivy"}));
        let scope =
            Scope::new(SystemTime::UNIX_EPOCH).name("image", &image).object(predicate.as_object().unwrap());
        assert_eq!(scope.value("image"), Some(&image));
        assert_eq!(scope.value("scanner"), Some(&json!("trivy")));
        assert_eq!(scope.value("other"), None);
        assert_eq!(
            scope.entries(),
            BTreeMap::from([("image", &json!("real")), ("scanner", &json!("trivy"))])
        );
        assert_eq!(scope.width(), 3);
    }
}
