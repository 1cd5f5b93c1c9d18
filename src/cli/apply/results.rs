//! What `apply` found, for people, for programs, and as resources with digests.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::{complain, note, say, tree};
use super::{Decision, Exit, Judged, Reference};
use crate::policy::evaluate::Forward;
use crate::policy::{Answer, Coverage, Manifest, RuleReport, Status};

/// The results of all resources.
pub(super) struct Results<'a> {
    manifests: &'a [Manifest],
    judged: &'a [Judged],
    /// One list a resource, in their order.
    lines: Vec<Vec<Line>>,
}

/// What one rule says of one image of one resource.
struct Line {
    /// None where the rule cannot tell which images there are.
    image: Option<String>,
    report: RuleReport,
}

impl<'a> Results<'a> {
    pub(super) fn new(manifests: &'a [Manifest], judged: &'a [Judged]) -> Self {
        Self { manifests, judged, lines: judged.iter().map(lines).collect() }
    }

    /// One line a result, and how many there are of each kind.
    pub(super) fn print(&self) {
        self.texts().iter().for_each(say);
    }

    pub(super) fn print_json(&self) {
        let resources: Vec<_> = self.resources().map(|(judged, lines)| self.json(judged, lines)).collect();
        let report = json!({ "schemaVersion": 1, "resources": resources, "summary": self.counts() });
        say(tree::shown(&report));
    }

    /// The documents with digests; results and what is left out go to stderr.
    pub(super) fn print_yaml(&self) {
        self.texts().iter().for_each(note);
        for (index, manifest) in self.manifests.iter().enumerate() {
            let own = || self.resources().filter(|(judged, _)| judged.subject.manifest == index);
            let refused: Vec<_> = own()
                .map(|(judged, _)| judged)
                .filter(|judged| verdict(judged) != ALLOWED)
                .map(name)
                .collect();
            if !refused.is_empty() {
                let (file, line) = (manifest.file().display(), manifest.line());
                let left_out = format!("{file}:{line}: left out: {} did not pass", refused.join(", "));
                complain(tree::plain(&left_out));
                continue;
            }
            let changes = own().flat_map(|(judged, lines)| {
                digests(judged, lines)
                    .into_iter()
                    .map(|(pointer, text)| (format!("{}{pointer}", judged.subject.pointer), text))
            });
            say(manifest.with(&changes.collect()).trim_end());
        }
    }

    fn resources(&self) -> impl Iterator<Item = (&Judged, &Vec<Line>)> {
        self.judged.iter().zip(&self.lines)
    }

    fn texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for (judged, lines) in self.resources() {
            for Line { report, .. } in lines {
                let by = if report.policy.is_empty() {
                    String::new()
                } else {
                    format!("{}/{}: ", report.policy, report.rule)
                };
                let text = format!("{}: {by}{}: {}", name(judged), report.status.word(), report.message);
                texts.push(tree::plain(&text));
            }
        }
        let counts: Vec<_> =
            STATUSES.iter().map(|status| format!("{}: {}", status.word(), self.count(*status))).collect();
        texts.push(counts.join(", "));
        let without = self.judged.iter().filter(|judged| judged.is_about_nothing()).count();
        if without > 0 {
            texts.push(format!("without images, so not judged: {without}"));
        }
        texts
    }

    fn json(&self, judged: &Judged, lines: &[Line]) -> Value {
        let manifest = self.manifests.get(judged.subject.manifest);
        let facts = &judged.subject.facts;
        let results: Vec<_> = lines
            .iter()
            .map(|Line { image, report }| {
                json!({ "policy": report.policy, "rule": report.rule, "image": image,
                        "status": report.status, "message": report.message })
            })
            .collect();
        // A patch of what did not pass would only help to apply it.
        let digests = if verdict(judged) == ALLOWED { digests(judged, lines) } else { BTreeMap::new() };
        let patches: Vec<_> = digests
            .iter()
            .map(|(pointer, text)| json!({ "op": "replace", "path": pointer, "value": text }))
            .collect();
        json!({
            "file": manifest.map(|manifest| manifest.file().display().to_string()),
            "line": manifest.map(Manifest::line),
            "apiVersion": facts.resource.as_ref().map(|resource| resource.api_version()),
            "kind": facts.resource.as_ref().map(|resource| resource.kind()),
            "namespace": facts.namespace,
            "name": facts.name,
            "verdict": verdict(judged),
            "results": results,
            "patches": patches,
        })
    }

    fn counts(&self) -> BTreeMap<&'static str, usize> {
        STATUSES.iter().map(|status| (status.word(), self.count(*status))).collect()
    }

    fn count(&self, status: Status) -> usize {
        self.lines.iter().flatten().filter(|line| line.report.status == status).count()
    }
}

/// By rule and then by image; what no rule says of an image comes last.
fn lines(judged: &Judged) -> Vec<Line> {
    let of_image = |image: &Reference| {
        let reports = judged.judgement(image).map(|judgement| {
            let answer = Answer {
                reference: image,
                applications: &judgement.applications,
                decision: &judgement.decision,
                judged: &judgement.judged,
                mode: judged.mode,
            };
            answer.results()
        });
        reports.unwrap_or_default()
    };
    let reports: Vec<_> = judged.subject.images.iter().map(|image| (image, of_image(image))).collect();
    let mut lines = Vec::new();
    for rule in &judged.subject.found {
        let images = match &rule.images {
            Ok(images) => images.iter().map(|image| &image.reference).collect::<Vec<_>>(),
            Err(error) => {
                let status = if judged.refuses(rule.action) { Status::Error } else { Status::Warn };
                let message = format!("failed to extract images: {error}");
                let (policy, rule) = (rule.policy.clone(), rule.rule.clone());
                lines.push(Line { image: None, report: RuleReport { policy, rule, status, message } });
                continue;
            }
        };
        for (image, reports) in reports.iter().filter(|(image, _)| images.contains(image)) {
            let own =
                reports.iter().filter(|report| report.policy == rule.policy && report.rule == rule.rule);
            lines.extend(own.map(|report| Line { image: Some(image.to_string()), report: report.clone() }));
        }
    }
    for (image, reports) in &reports {
        let gate = reports.iter().filter(|report| report.policy.is_empty());
        lines.extend(gate.map(|report| Line { image: Some(image.to_string()), report: report.clone() }));
    }
    lines
}

/// The images that were verified and get their digest written (`mutateDigest`), by where they are written.
fn digests(judged: &Judged, lines: &[Line]) -> BTreeMap<String, String> {
    let mut changes = BTreeMap::new();
    for rule in &judged.subject.found {
        let passed = |image: &Reference| {
            lines.iter().any(|Line { image: of, report }| {
                of.as_deref() == Some(image.text())
                    && report.status == Status::Pass
                    && (&report.policy, &report.rule) == (&rule.policy, &rule.rule)
            })
        };
        let tags = rule.images.iter().flatten().filter(|image| image.reference.digest().is_none());
        for image in tags.filter(|image| passed(&image.reference)) {
            let Some(judgement) = judged.judgement(&image.reference) else { continue };
            let Decision::Allow(permit) = &judgement.decision else { continue };
            let (Forward::Pinned(_), Some(digest)) = (permit.forward(), permit.digest()) else { continue };
            let own = judgement
                .applications
                .iter()
                .filter(|application| (&application.policy, &application.rule) == (&rule.policy, &rule.rule));
            let mut judged = own.flat_map(|application| &application.entries);
            if judged.any(|covered| covered.coverage == Coverage::Judged && covered.entry.pins_digest()) {
                // As upstream writes it: registry/path:tag@digest.
                changes.insert(image.pointer.clone(), format!("{}@{digest}", image.reference.kyverno_form()));
            }
        }
    }
    changes
}

fn verdict(judged: &Judged) -> &'static str {
    match judged.exit(false) {
        Exit::Done => ALLOWED,
        Exit::No => "denied",
        Exit::Unknown | Exit::Usage => "undecided",
    }
}

/// As Kyverno names it: `Kind/namespace/name`.
fn name(judged: &Judged) -> String {
    let facts = &judged.subject.facts;
    let kind = facts.resource.as_ref().map_or("", |resource| resource.kind());
    let [namespace, name] = [&facts.namespace, &facts.name].map(|text| text.as_deref().unwrap_or_default());
    format!("{kind}/{namespace}/{name}")
}

const ALLOWED: &str = "allowed";
const STATUSES: [Status; 5] = [Status::Pass, Status::Fail, Status::Warn, Status::Error, Status::Skip];
