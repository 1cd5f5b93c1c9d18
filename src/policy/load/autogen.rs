//! To which pod controllers a policy's rules about pods extend: Kyverno's autogen.
//!
//! Upstream generates such rules where no rule of the policy selects by name, label or annotation
//! (they mean the controller's there, not the pod's), mixes Pod with other kinds in one filter, or is of
//! a kind that cannot be rewritten; the annotation `pod-policies.kyverno.io/autogen-controllers` narrows
//! them down. Pulls are of pods, so this matters to `pullgate apply` alone.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Loader, yaml};
use crate::policy::kinds::{KindSelector, PodController, name_pod};

impl Loader<'_> {
    /// The controllers for which the policy's rules about pods have rules standing for them.
    pub(super) fn controllers(
        &mut self,
        line: u64,
        name: &str,
        metadata: Option<&Value>,
        spec: &yaml::Spec,
    ) -> BTreeSet<PodController> {
        let annotation = metadata.and_then(|metadata| metadata.get("annotations")?.get(ANNOTATION));
        if annotation.is_some() {
            self.notice(line, format!("{name}: the annotation {ANNOTATION} means nothing on a node: a pull is always for a pod, never for its controller"));
        }
        let annotation = annotation.and_then(Value::as_str);
        let mut controllers = BTreeSet::new();
        for kind in annotation.unwrap_or("all").split(',').map(str::trim) {
            match (kind, PodController::named(kind)) {
                ("all", _) => controllers.extend(PodController::ALL),
                ("none" | "", _) => {}
                (_, Some(controller)) => drop(controllers.insert(controller)),
                (_, None) => self.warning(
                    line,
                    format!(
                        "policy `{name}`: annotation {ANNOTATION} names `{kind}`, which is no pod controller"
                    ),
                ),
            }
        }
        let rules = || spec.rules.iter().map(|rule| &rule.value);
        if rules().all(can_be_rewritten) && rules().any(names_pods) { controllers } else { BTreeSet::new() }
    }
}

fn can_be_rewritten(rule: &yaml::Rule) -> bool {
    let patches = |value: &Value| value.get("patchesJson6902").is_some_and(|patch| patch != "");
    let mutates_by_patches = rule.mutate.as_ref().is_some_and(|mutate| {
        let each = mutate.value.get("foreach").and_then(Value::as_array);
        patches(&mutate.value) || each.into_iter().flatten().any(patches)
    });
    rule.generate.is_none() && !mutates_by_patches && resources(rule).all(selects_by_kind_alone)
}

/// What would mean the controller's own where the pod's is meant.
fn selects_by_kind_alone(resources: &yaml::Resources) -> bool {
    let kinds: Vec<_> = resources.kinds.iter().map(|kind| KindSelector::parse(kind)).collect();
    resources.name.as_ref().is_none_or(String::is_empty)
        && resources.names.is_empty()
        && resources.selector.is_none()
        && resources.annotations.is_empty()
        && !(kinds.len() > 1 && name_pod(&kinds))
}

/// As upstream, which looks for bare names here: `v1/Pod` alone generates nothing.
fn names_pods(rule: &yaml::Rule) -> bool {
    let bare = |kind: &String| kind == "Pod" || PodController::named(kind).is_some();
    resources(rule).any(|resources| resources.kinds.iter().any(bare))
}

fn resources(rule: &yaml::Rule) -> impl Iterator<Item = &yaml::Resources> {
    rule.match_resources.iter().chain(&rule.exclude).flat_map(|block| {
        let filters = block.any.iter().chain(&block.all).flatten();
        block.resources.iter().chain(filters.filter_map(|filter| filter.resources.as_ref()))
    })
}

const ANNOTATION: &str = "pod-policies.kyverno.io/autogen-controllers";
