//! Kind selectors of `match` and `exclude`, and the pod controllers that rules about pods extend to.
//!
//! A selector is `Kind`, `Version/Kind` or `Group/Version/Kind`, with a subresource behind a slash or a
//! dot; each part is a wildcard pattern. `*/*` is everything, `*/status` any kind with that subresource.
//! A pull is of a v1 Pod and of its `ephemeralcontainers`. A resource of `pullgate apply` stands for itself
//! and, where it has a `status`, for a write of that: nothing else would tell `TaskRun.status` from `TaskRun`.
//!
//! What is no selector fits nothing, as upstream; loading says that such a rule is never applied.

use super::resource::Resource;
use super::wildcard;

/// One kind selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KindSelector {
    group: String,
    version: String,
    kind: String,
    subresource: String,
}

/// What a selector is held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KindOf<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    /// The empty one is the object itself.
    subresources: Vec<&'a str>,
}

/// A kind of the cluster's own that makes pods from a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PodController {
    CronJob,
    DaemonSet,
    Deployment,
    Job,
    ReplicaSet,
    ReplicationController,
    StatefulSet,
}

impl KindSelector {
    pub(super) fn parse(text: &str) -> Self {
        let (front, last) = text.rsplit_once('/').map_or((None, text), |(front, last)| (Some(front), last));
        let parts: Vec<&str> =
            front.into_iter().flat_map(|front| front.split('/')).chain(last.split('.')).collect();
        let of = |group: &str, version: &str, kind: &str, subresource: &str| Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            subresource: subresource.to_owned(),
        };
        match parts.as_slice() {
            [kind] => of("*", "*", kind, ""),
            ["*", "*"] => of("*", "*", "*", "*"),
            ["*", subresource] if subresource.to_lowercase() == *subresource => {
                of("*", "*", "*", subresource)
            }
            [version, kind] if is_version(version) => of("*", version, kind, ""),
            [kind, subresource] => of("*", "*", kind, subresource),
            // Upstream reads `*/v1/Pod` as subresource `Pod` of kind `v1`, which nothing is.
            [version, kind, subresource] if is_version(version) && !is_version(kind) => {
                of("*", version, kind, subresource)
            }
            [group, version, kind] => of(group, version, kind, ""),
            [group, version, kind, subresource] => of(group, version, kind, subresource),
            _ => of("", "", "", ""),
        }
    }

    /// The selector of one kind of pod controller, in whatever version.
    fn of_controller(controller: PodController) -> Self {
        Self {
            group: controller.group().to_owned(),
            version: "*".to_owned(),
            kind: controller.kind().to_owned(),
            subresource: String::new(),
        }
    }

    pub(super) fn fits(&self, of: &KindOf<'_>) -> bool {
        wildcard::matches(&self.group, of.group)
            && wildcard::matches(&self.version, of.version)
            && wildcard::matches(&self.kind, of.kind)
            && of.subresources.iter().any(|subresource| wildcard::matches(&self.subresource, subresource))
    }

    /// Whether it names kind Pod; patterns do not.
    fn names_pod(&self) -> bool {
        self.kind == "Pod"
    }
}

impl<'a> KindOf<'a> {
    /// What is pulled for.
    pub(super) fn pod() -> Self {
        KindOf { group: "", version: "v1", kind: "Pod", subresources: vec!["", "ephemeralcontainers"] }
    }

    pub(super) fn resource(resource: &'a Resource) -> Self {
        let (group, version) =
            resource.api_version().rsplit_once('/').unwrap_or(("", resource.api_version()));
        let mut subresources = vec![""];
        if resource.object().get("status").is_some() {
            subresources.push("status");
        }
        if (group, version, resource.kind()) == ("", "v1", "Pod") {
            subresources.push("ephemeralcontainers");
        }
        Self { group, version, kind: resource.kind(), subresources }
    }
}

impl PodController {
    pub(super) const ALL: [Self; 7] = [
        Self::CronJob,
        Self::DaemonSet,
        Self::Deployment,
        Self::Job,
        Self::ReplicaSet,
        Self::ReplicationController,
        Self::StatefulSet,
    ];

    /// The controller that is `kind`; any group, since only a known one is ever selected.
    pub(super) fn named(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|controller| controller.kind() == kind)
    }

    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::CronJob => "CronJob",
            Self::DaemonSet => "DaemonSet",
            Self::Deployment => "Deployment",
            Self::Job => "Job",
            Self::ReplicaSet => "ReplicaSet",
            Self::ReplicationController => "ReplicationController",
            Self::StatefulSet => "StatefulSet",
        }
    }

    const fn group(self) -> &'static str {
        match self {
            Self::CronJob | Self::Job => "batch",
            Self::DaemonSet | Self::Deployment | Self::ReplicaSet | Self::StatefulSet => "apps",
            Self::ReplicationController => "",
        }
    }

    /// Where its pod template is, as a JSON pointer.
    pub(super) const fn template(self) -> &'static str {
        match self {
            Self::CronJob => "/spec/jobTemplate/spec/template",
            Self::DaemonSet
            | Self::Deployment
            | Self::Job
            | Self::ReplicaSet
            | Self::ReplicationController
            | Self::StatefulSet => "/spec/template",
        }
    }

    /// The name of the rule that stands for `rule` there, cut as upstream cuts it.
    pub(super) fn rule_name(self, rule: &str) -> String {
        let prefix = match self {
            Self::CronJob => "autogen-cronjob-",
            Self::DaemonSet
            | Self::Deployment
            | Self::Job
            | Self::ReplicaSet
            | Self::ReplicationController
            | Self::StatefulSet => "autogen-",
        };
        prefix.chars().chain(rule.chars()).take(RULE_NAME_LIMIT).collect()
    }
}

/// Whether one of `kinds` is a pod by name.
pub(super) fn name_pod(kinds: &[KindSelector]) -> bool {
    kinds.iter().any(KindSelector::names_pod)
}

/// `kinds` as a rule that stands for one about pods has them.
pub(super) fn autogen_for(kinds: &[KindSelector], controller: PodController) -> Vec<KindSelector> {
    if name_pod(kinds) { vec![KindSelector::of_controller(controller)] } else { kinds.to_vec() }
}

/// `v1`, `v1beta1`, `*`, and what can be nothing else: a kind begins with a capital, a group has a dot.
fn is_version(part: &str) -> bool {
    part == "*"
        || part.strip_prefix('v').is_some_and(|rest| {
            rest.starts_with(|first: char| first.is_ascii_digit() || wildcard::is_pattern(&first.to_string()))
                && rest
                    .chars()
                    .all(|c| c.is_ascii_digit() || c.is_ascii_lowercase() || matches!(c, '*' | '?'))
        })
}

/// A rule name is at most as long as a label's value.
const RULE_NAME_LIMIT: usize = 63;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(api_version: &str, kind: &str, status: bool) -> Resource {
        let mut object = json!({ "apiVersion": api_version, "kind": kind });
        if status {
            object.as_object_mut().unwrap().insert("status".to_owned(), json!({}));
        }
        Resource::new(object).unwrap()
    }

    #[test]
    fn selectors_as_upstream() {
        let task_run = resource("tekton.dev/v1beta1", "TaskRun", false);
        let with_status = resource("tekton.dev/v1beta1", "TaskRun", true);
        let deployment = resource("apps/v1", "Deployment", false);
        let (pod, task_run, with_status, deployment) = (
            KindOf::pod(),
            KindOf::resource(&task_run),
            KindOf::resource(&with_status),
            KindOf::resource(&deployment),
        );
        // Which of them each selector fits: a pod, a TaskRun, one with a status, a Deployment.
        for (selector, fits) in [
            ("Pod", [true, false, false, false]),
            ("P*", [true, false, false, false]),
            ("*", [true, true, true, true]),
            ("*/*", [true, true, true, true]),
            ("v1/Pod", [true, false, false, false]),
            ("v?/Pod", [true, false, false, false]),
            ("*/Pod", [true, false, false, false]),
            ("/v1/Pod", [true, false, false, false]),
            ("*/v1/Pod", [true, false, false, false]),
            ("v2/Pod", [false, false, false, false]),
            ("apps/v1/Pod", [false, false, false, false]),
            ("Pod/ephemeralcontainers", [true, false, false, false]),
            ("Pod.ephemeralcontainers", [true, false, false, false]),
            ("v1/Pod.ephemeralcontainers", [true, false, false, false]),
            ("Pod/exec", [false, false, false, false]),
            ("TaskRun", [false, true, true, false]),
            ("v1beta1/TaskRun", [false, true, true, false]),
            ("tekton.dev/v1beta1/TaskRun", [false, true, true, false]),
            ("tekton.dev/*/TaskRun", [false, true, true, false]),
            ("*.dev/v1beta1/Task*", [false, true, true, false]),
            ("tekton.dev/v1beta1/TaskRun.status", [false, false, true, false]),
            ("tekton.dev/v1beta1/TaskRun/status", [false, false, true, false]),
            ("v1beta1/TaskRun/status", [false, false, true, false]),
            ("TaskRun/status", [false, false, true, false]),
            ("TaskRun/*", [false, true, true, false]),
            ("*/status", [false, false, true, false]),
            ("other.dev/v1beta1/TaskRun", [false, false, false, false]),
            ("apps/v1/Deployment", [false, false, false, true]),
            ("taskrun", [false, false, false, false]),
            ("a/b/c/d/e", [false, false, false, false]),
            ("", [false, false, false, false]),
        ] {
            let parsed = KindSelector::parse(selector);
            let found = [&pod, &task_run, &with_status, &deployment].map(|of| parsed.fits(of));
            assert_eq!(found, fits, "{selector}: {parsed:?}");
        }
    }

    #[test]
    fn rules_for_controllers_are_named_as_upstream() {
        assert_eq!(PodController::Deployment.rule_name("check"), "autogen-check");
        assert_eq!(PodController::CronJob.rule_name("check"), "autogen-cronjob-check");
        assert_eq!(PodController::Job.rule_name(&"x".repeat(80)).len(), 63);
        assert_eq!(PodController::named("CronJob"), Some(PodController::CronJob));
        assert_eq!(PodController::named("Pod"), None);
    }
}
