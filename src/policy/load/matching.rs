//! `match` and `exclude`: which pods a rule is about, as far as a node can know.

use super::{Loader, yaml};
use crate::policy::kinds::KindSelector;
use crate::policy::pods::{LabelExpression, LabelOperator, LabelSelector, PodFilter, PodMatch};

impl Loader<'_> {
    pub(super) fn pod_match(
        &mut self,
        line: u64,
        place: &str,
        block: &yaml::MatchResources,
        side: Side,
    ) -> PodMatch {
        let word = side.word();
        let legacy = yaml::Filter {
            resources: block.resources.clone(),
            roles: block.roles.clone(),
            cluster_roles: block.cluster_roles.clone(),
            subjects: block.subjects.clone(),
        };
        let inline = legacy.resources.is_some()
            || legacy.roles.is_some()
            || legacy.cluster_roles.is_some()
            || legacy.subjects.is_some();
        let (any, all) = match (&block.any, &block.all, inline) {
            (Some(any), None, false) => (any.clone(), Vec::new()),
            (None, Some(all), false) => (Vec::new(), all.clone()),
            (None, None, true) => (vec![legacy], Vec::new()),
            (None, None, false) => {
                if side == Side::Match {
                    self.error(line, format!("{place}: match cannot be empty"));
                }
                (Vec::new(), Vec::new())
            }
            _ => {
                self.error(line, format!("{place}: {word} takes one of any, all or resources"));
                (Vec::new(), Vec::new())
            }
        };
        PodMatch {
            any: any.iter().filter_map(|filter| self.filter(line, place, filter, side)).collect(),
            all: all.iter().filter_map(|filter| self.filter(line, place, filter, side)).collect(),
        }
    }

    fn filter(&mut self, line: u64, place: &str, filter: &yaml::Filter, side: Side) -> Option<PodFilter> {
        let word = side.word();
        for (field, value) in [
            ("roles", &filter.roles),
            ("clusterRoles", &filter.cluster_roles),
            ("subjects", &filter.subjects),
        ] {
            match side {
                // Without it a pull would be judged as if nobody were excluded, or everybody matched.
                Side::Exclude => self.refuse(
                    place,
                    &format!("exclude.{field}"),
                    value,
                    "a node does not know who created a pod",
                ),
                Side::Match => self.refuse(
                    place,
                    &format!("match.{field}"),
                    value,
                    "a node does not know who created a pod; match on resources",
                ),
            }
        }
        let Some(resources) = &filter.resources else {
            self.error(line, format!("{place}: {word} has a filter without resources"));
            return None;
        };
        self.refuse(
            place,
            &format!("{word}.resources.namespaceSelector"),
            &resources.namespace_selector,
            "a node does not know the labels of namespaces; name the namespaces",
        );
        // An empty name asks for nothing, as upstream.
        let name = resources.name.as_ref().filter(|name| !name.is_empty());
        if name.is_some() && !resources.names.is_empty() {
            self.error(
                line,
                format!("{place}: {word}: Both name and names can not be specified together; keep names"),
            );
        }
        let unspecific = |selector: &yaml::Selector| {
            selector.match_labels.is_empty() && selector.match_expressions.is_empty()
        };
        if resources.selector.as_ref().is_some_and(unspecific) {
            self.error(line, format!("{place}: {word}: The requirements are not specified in selector; it would fit every pod, so leave it out"));
        }
        let mut names = resources.names.clone();
        names.extend(name.cloned());
        let empty = resources.kinds.is_empty()
            && names.is_empty()
            && resources.namespaces.is_empty()
            && resources.annotations.is_empty()
            && resources.selector.is_none()
            && resources.operations.is_empty();
        if empty {
            self.error(line, format!("{place}: {word} has an empty filter"));
            return None;
        }
        self.warn_of_namespaces(place, &format!("{word}.resources.namespaces"), &resources.namespaces);
        let selector = resources.selector.as_ref().map(|selector| LabelSelector {
            labels: selector.match_labels.clone(),
            expressions: selector
                .match_expressions
                .iter()
                .filter_map(|expression| self.expression(place, expression))
                .collect(),
        });
        Some(PodFilter {
            kinds: resources.kinds.iter().map(|kind| KindSelector::parse(kind)).collect(),
            creates: resources.operations.is_empty()
                || resources.operations.iter().any(|operation| operation == "CREATE"),
            names,
            namespaces: resources.namespaces.iter().map(|name| name.value.clone()).collect(),
            annotations: resources.annotations.clone(),
            selector,
        })
    }

    fn expression(&mut self, place: &str, expression: &yaml::Expression) -> Option<LabelExpression> {
        let Some(operator) = &expression.operator else {
            self.error(0, format!("{place}: a selector expression on `{}` has no operator", expression.key));
            return None;
        };
        let line = operator.referenced.line();
        let (operator, takes_values) = match operator.value.as_str() {
            "In" => (LabelOperator::In, true),
            "NotIn" => (LabelOperator::NotIn, true),
            "Exists" => (LabelOperator::Exists, false),
            "DoesNotExist" => (LabelOperator::DoesNotExist, false),
            other => {
                self.error(
                    line,
                    format!("{place}: selector operator `{other}` is not In, NotIn, Exists or DoesNotExist"),
                );
                return None;
            }
        };
        if takes_values == expression.values.is_empty() || expression.key.is_empty() {
            self.error(
                line,
                format!(
                    "{place}: selector expression on `{}` has the wrong values for its operator",
                    expression.key
                ),
            );
            return None;
        }
        Some(LabelExpression { key: expression.key.clone(), operator, values: expression.values.clone() })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Match,
    Exclude,
}

impl Side {
    const fn word(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Exclude => "exclude",
        }
    }
}
