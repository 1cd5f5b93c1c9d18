//! Which pods a rule is about: Kyverno's `match` and `exclude`, as far as a node can know.
//!
//! Namespace, name, labels and annotations come from the pull's sandbox config. A pull without a
//! namespace is judged as if in every namespace that a rule names (rule M3): a missing fact fits in
//! `match` and does not fit in `exclude`, so that leaving a fact out never avoids a rule. A resource
//! of `pullgate apply` brings its kind and the same facts of its own; of it nothing is missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::kinds::{self, KindOf, KindSelector, PodController};
use super::resource::{Resource, View};
use super::wildcard;
use crate::oci::{Digest, Reference};

/// What is known of the pod for which an image is pulled, or of the resource that names the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// Its namespace; `None` where the caller sent no sandbox config.
    pub namespace: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The resource, in `pullgate apply`; `None` for a pull.
    pub resource: Option<Arc<Resource>>,
}

impl PodFacts {
    /// Whether nothing is known of it: the caller sent no sandbox config.
    pub(super) fn is_unknown(&self) -> bool {
        self.resource.is_none()
            && self.namespace.is_none()
            && self.name.is_none()
            && self.labels.is_empty()
            && self.annotations.is_empty()
    }
}

/// Which facts of the pull a rule reads, beside repository and digest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PodFactsRead {
    pub(super) namespace: bool,
    pub(super) name: bool,
    pub(super) labels: bool,
    pub(super) annotations: bool,
    /// The reference's text: its tag, whether it carries a digest, how its registry is written.
    pub(super) reference: bool,
    /// What registries say at the time of the pull; what they said is part of what the entry is made of.
    pub(super) registries: bool,
}

impl PodFactsRead {
    /// Whatever there is of the pull.
    pub(super) const fn all() -> Self {
        Self {
            namespace: true,
            name: true,
            labels: true,
            annotations: true,
            reference: true,
            registries: false,
        }
    }

    pub(super) const fn any(self) -> bool {
        self.of_pod() || self.reference || self.registries
    }

    /// Whether any of them is the pod's.
    pub(super) const fn of_pod(self) -> bool {
        self.namespace || self.name || self.labels || self.annotations
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            namespace: self.namespace || other.namespace,
            name: self.name || other.name,
            labels: self.labels || other.labels,
            annotations: self.annotations || other.annotations,
            reference: self.reference || other.reference,
            registries: self.registries || other.registries,
        }
    }

    pub(super) fn fingerprint(self, pod: &PodFacts, view: View, reference: &Reference) -> Digest {
        let facts = json!({
            "namespace": self.namespace.then_some(&pod.namespace),
            "name": self.name.then_some(&pod.name),
            "labels": self.labels.then_some(&pod.labels),
            "annotations": self.annotations.then_some(&pod.annotations),
            "reference": self.reference.then(|| reference.text()),
        });
        let mut text = facts.to_string();
        if let Some(resource) = pod.resource.as_ref().filter(|_| self.any()) {
            text.push_str(&resource.seen(view).to_string());
        }
        Digest::of(text.as_bytes())
    }
}

/// How a filter's facts are read where they are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Fits,
    DoesNotFit,
}

/// A `match` or `exclude` block.
#[derive(Debug, Clone, Default)]
pub(super) struct PodMatch {
    pub(super) any: Vec<PodFilter>,
    pub(super) all: Vec<PodFilter>,
}

/// One filter: all of its parts must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PodFilter {
    /// None at all fit everything.
    pub(super) kinds: Vec<KindSelector>,
    /// Whether one of its operations is CREATE; none at all fit everything.
    pub(super) creates: bool,
    pub(super) names: Vec<String>,
    pub(super) namespaces: Vec<String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) selector: Option<LabelSelector>,
}

/// A Kubernetes label selector, with wildcards in `matchLabels`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LabelSelector {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) expressions: Vec<LabelExpression>,
}

/// One element of `matchExpressions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LabelExpression {
    pub(super) key: String,
    pub(super) operator: LabelOperator,
    pub(super) values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl PodMatch {
    /// Whether a rule with this `match` is about `pod`. An empty block is about none.
    pub(super) fn includes(&self, pod: &PodFacts) -> bool {
        self.fits(pod, Missing::Fits)
    }

    /// Whether a rule with this `exclude` leaves `pod` out. An empty block leaves none out.
    pub(super) fn excludes(&self, pod: &PodFacts) -> bool {
        self.fits(pod, Missing::DoesNotFit)
    }

    /// Whether a rule with this `match` is about `pod`, whatever is not known of it.
    pub(super) fn surely_includes(&self, pod: &PodFacts) -> bool {
        self.fits(pod, Missing::DoesNotFit)
    }

    /// Whether a rule with this `exclude` may leave `pod` out, where not everything is known of it.
    pub(super) fn may_exclude(&self, pod: &PodFacts) -> bool {
        self.fits(pod, Missing::Fits)
    }

    fn fits(&self, pod: &PodFacts, missing: Missing) -> bool {
        let kind = pod.resource.as_ref().map_or_else(KindOf::pod, |resource| KindOf::resource(resource));
        self.any.iter().any(|filter| filter.fits(&kind, pod, missing))
            || (!self.all.is_empty() && self.all.iter().all(|filter| filter.fits(&kind, pod, missing)))
    }

    fn filters(&self) -> impl Iterator<Item = &PodFilter> {
        self.any.iter().chain(&self.all)
    }

    /// Whether one of its filters names kind Pod.
    pub(super) fn names_pod(&self) -> bool {
        self.filters().any(|filter| kinds::name_pod(&filter.kinds))
    }

    /// Whether any of its filters names a kind.
    pub(super) fn names_kinds(&self) -> bool {
        self.filters().any(|filter| !filter.kinds.is_empty())
    }

    /// The block of the rule that stands for this one where `controller` makes the pods.
    pub(super) fn autogen_for(&self, controller: PodController) -> Self {
        let filters = |filters: &[PodFilter]| {
            let standing = |filter: &PodFilter| PodFilter {
                kinds: kinds::autogen_for(&filter.kinds, controller),
                ..filter.clone()
            };
            filters.iter().map(standing).collect()
        };
        Self { any: filters(&self.any), all: filters(&self.all) }
    }

    pub(super) fn reads(&self) -> PodFactsRead {
        self.filters().fold(PodFactsRead::default(), |reads, filter| {
            reads.and(PodFactsRead {
                namespace: !filter.namespaces.is_empty(),
                name: !filter.names.is_empty(),
                labels: filter.selector.is_some(),
                annotations: !filter.annotations.is_empty(),
                reference: false,
                registries: false,
            })
        })
    }

    /// Whether any pod at all can fit.
    pub(super) fn is_about_pods(&self) -> bool {
        let pod = KindOf::pod();
        let about = |filter: &PodFilter| filter.takes(&pod) && filter.creates;
        self.any.iter().any(about) || (!self.all.is_empty() && self.all.iter().all(about))
    }
}

impl PodFilter {
    fn takes(&self, kind: &KindOf<'_>) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|selector| selector.fits(kind))
    }

    fn fits(&self, kind: &KindOf<'_>, pod: &PodFacts, missing: Missing) -> bool {
        let known = |fact: &Option<String>, patterns: &[String]| match fact {
            _ if patterns.is_empty() => true,
            Some(fact) => patterns.iter().any(|pattern| wildcard::matches(pattern, fact)),
            None => missing == Missing::Fits,
        };
        // A caller without a sandbox config sends neither labels nor annotations.
        let no_pod = pod.is_unknown();
        let labels = match &self.selector {
            None => true,
            Some(_) if no_pod => missing == Missing::Fits,
            Some(selector) => selector.fits(&pod.labels),
        };
        let annotations = if self.annotations.is_empty() {
            true
        } else if no_pod {
            missing == Missing::Fits
        } else {
            self.annotations.iter().all(|(key, value)| any_pair(key, value, &pod.annotations))
        };
        self.takes(kind)
            && self.creates
            && known(&pod.name, &self.names)
            && known(&pod.namespace, &self.namespaces)
            && labels
            && annotations
    }
}

impl LabelSelector {
    fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        let exact = |key: &String, value: &String| labels.get(key) == Some(value);
        let pairs = self.labels.iter().all(|(key, value)| {
            if wildcard::is_pattern(key) || wildcard::is_pattern(value) {
                any_pair(key, value, labels)
            } else {
                exact(key, value)
            }
        });
        pairs && self.expressions.iter().all(|expression| expression.fits(labels))
    }
}

impl LabelExpression {
    fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            LabelOperator::In => value.is_some_and(|value| self.values.contains(value)),
            LabelOperator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

fn any_pair(key: &str, value: &str, pairs: &BTreeMap<String, String>) -> bool {
    pairs.iter().any(|(actual_key, actual_value)| {
        wildcard::matches(key, actual_key) && wildcard::matches(value, actual_value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: Option<&str>, labels: &[(&str, &str)]) -> PodFacts {
        PodFacts {
            namespace: namespace.map(str::to_owned),
            name: namespace.map(|_| "pod".to_owned()),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..PodFacts::default()
        }
    }

    fn filter() -> PodFilter {
        PodFilter { creates: true, ..PodFilter::default() }
    }

    fn any(filter: PodFilter) -> PodMatch {
        PodMatch { any: vec![filter], all: Vec::new() }
    }

    #[test]
    fn m3_a_pull_without_a_namespace_is_in_every_namespace() {
        let block = any(PodFilter { namespaces: vec!["prod-*".into()], ..filter() });
        for (namespace, included, excluded) in
            [(Some("prod-a"), true, true), (Some("dev"), false, false), (None, true, false)]
        {
            let pod = pod(namespace, &[]);
            assert_eq!((block.includes(&pod), block.excludes(&pod)), (included, excluded), "{namespace:?}");
        }
    }

    #[test]
    fn an_empty_block_is_about_no_pod() {
        assert!(!PodMatch::default().includes(&pod(Some("a"), &[])));
        assert!(!PodMatch::default().excludes(&pod(Some("a"), &[])));
        assert!(
            !any(PodFilter { kinds: vec![KindSelector::parse("Service")], ..filter() })
                .includes(&pod(Some("a"), &[]))
        );
    }

    #[test]
    fn all_wants_every_filter() {
        let in_a = PodFilter { namespaces: vec!["a".into()], ..filter() };
        let named = PodFilter { names: vec!["po?".into()], ..filter() };
        let block = PodMatch { any: Vec::new(), all: vec![in_a, named] };
        assert!(block.includes(&pod(Some("a"), &[])));
        assert!(!block.includes(&pod(Some("b"), &[])));
    }

    #[test]
    fn selectors_as_kubernetes_with_wildcards_in_match_labels() {
        let labels = |key: &str, value: &str| LabelSelector {
            labels: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            expressions: Vec::new(),
        };
        let expression = |operator, values: &[&str]| LabelSelector {
            labels: BTreeMap::new(),
            expressions: vec![LabelExpression {
                key: "app".into(),
                operator,
                values: values.iter().map(|value| (*value).to_owned()).collect(),
            }],
        };
        for (selector, fits) in [
            (labels("app", "web"), true),
            (labels("app", "w*"), true),
            (labels("a?p", "*"), true),
            (labels("app", "x*"), false),
            (labels("none", "web"), false),
            (expression(LabelOperator::In, &["web", "db"]), true),
            (expression(LabelOperator::NotIn, &["web"]), false),
            (expression(LabelOperator::Exists, &[]), true),
            (expression(LabelOperator::DoesNotExist, &[]), false),
        ] {
            let block = any(PodFilter { selector: Some(selector.clone()), ..filter() });
            assert_eq!(block.includes(&pod(Some("a"), &[("app", "web")])), fits, "{selector:?}");
        }
    }
}
