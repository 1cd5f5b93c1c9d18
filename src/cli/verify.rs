//! `verify`: one verdict an image, by the same pipeline as a pull, without containerd and cache.

use serde_json::{Value, json};

use super::args::{Output, Verify};
use super::judge::{Rules, exit, worst};
use super::{Exit, complain, runtime, say, tree};
use crate::admission::Judgement;
use crate::daemon::cache::{judged, reference};
use crate::oci::Reference;
use crate::outcome::Denial;
use crate::policy::evaluate::Decision;
use crate::policy::{Application, PodFacts, cause, told};

/// `pullgate verify`
pub(super) fn run(arguments: &Verify) -> Exit {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("cannot start: {error}"));
            return Exit::Unknown;
        }
    };
    let images: Result<Vec<_>, _> = arguments.images.iter().map(|image| reference(image)).collect();
    let judge = images.and_then(|images| {
        let judge = Rules::load(&arguments.basis, &runtime)?.judge(&arguments.basis, &images)?;
        Ok((images, judge))
    });
    let (images, judge) = match judge {
        Ok(prepared) => prepared,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    let pod = PodFacts {
        namespace: arguments.namespace.clone(),
        labels: arguments.pod_label.iter().cloned().collect(),
        ..PodFacts::default()
    };
    let requests: Vec<_> = images.iter().map(|image| (image.clone(), pod.clone())).collect();
    let judgements = runtime.block_on(judge.all(&requests));
    let judged = images.iter().zip(&judgements);
    match arguments.output {
        Output::Json => {
            let images: Vec<_> = judged.map(|(image, judgement)| describe(image, judgement)).collect();
            say(tree::shown(&json!({ "schemaVersion": 1, "images": images })));
        }
        Output::Text => {
            judged.for_each(|(image, judgement)| print(image, judgement, arguments.explain));
        }
    }
    worst(judgements.iter().map(|judgement| exit(judgement, arguments.basis.fail_on_audit)))
}

fn describe(image: &Reference, judgement: &Judgement) -> Value {
    let mut members = judged(image, judgement);
    let skipped = judgement.applications.iter().filter_map(|application| {
        let Application { policy, rule, skipped, .. } = application;
        skipped.as_ref().map(|message| json!({ "policy": policy, "rule": rule, "message": message }))
    });
    members.insert("skipped".to_owned(), skipped.collect());
    let rules = judgement.applications.iter().map(|rule| format!("{}/{}", rule.policy, rule.rule));
    members.insert("rules".to_owned(), rules.collect());
    members.insert("explanation".to_owned(), tree::described(judgement));
    Value::Object(members)
}

fn print(image: &Reference, judgement: &Judgement, explain: bool) {
    let line = |text: &str| say(tree::plain(text));
    let digest = judgement.digest.map(|digest| format!(" {digest}")).unwrap_or_default();
    match &judgement.decision {
        Decision::Allow(permit) => {
            match permit.would_fault() {
                Some(fault) if permit.source().word() == "ignored" => {
                    line(&format!("{image}: allowed (ignored: {})", cause(image, fault)))
                }
                Some(fault) => {
                    line(&format!("{image}: allowed, an Audit rule is undecided: {}", cause(image, fault)))
                }
                None if permit.would_deny().is_empty() => {
                    line(&format!("{image}: allowed ({}){digest}", permit.source()))
                }
                None => {}
            }
            for denial in permit.would_deny() {
                line(&format!("{image}: would deny: {}", by(denial)));
            }
        }
        Decision::Deny(denials) => {
            for denial in denials {
                line(&format!("{image}: denied: {}", by(denial)));
            }
        }
        Decision::Undecided(fault) => line(&format!("{image}: undecided: {}", told(image, fault))),
    }
    if explain {
        tree::lines(image, judgement).iter().for_each(say);
    }
}

fn by(denial: &Denial) -> String {
    match (denial.policy.as_str(), denial.rule.as_str()) {
        ("", _) => denial.told(),
        (policy, rule) => format!("{policy}/{rule}: {}", denial.told()),
    }
}
