//! `verify`: one verdict an image, by the same pipeline as a pull, without containerd and cache.

use serde_json::{Value, json};

use super::args::{Output, Verify};
use super::judge::{Rules, exit, worst};
use super::{Exit, complain, runtime, say, tree};
use crate::admission::Judgement;
use crate::oci::{Reference, RequestedImage};
use crate::outcome::{Denial, Fault};
use crate::policy::evaluate::Decision;
use crate::policy::{PodFacts, cause};

/// `pullgate verify`
pub(super) fn run(arguments: &Verify) -> Exit {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("cannot start: {error}"));
            return Exit::Unknown;
        }
    };
    let judge = images(arguments).and_then(|images| {
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

fn images(arguments: &Verify) -> Result<Vec<Reference>, String> {
    let parse = |image: &String| match RequestedImage::parse(image) {
        Ok(RequestedImage::Reference(reference)) => Ok(reference),
        Ok(RequestedImage::Id(_)) => {
            Err(format!("`{image}` is an image id; name the image by its repository"))
        }
        Err(error) => Err(error.to_string()),
    };
    arguments.images.iter().map(parse).collect()
}

fn describe(image: &Reference, judgement: &Judgement) -> Value {
    let denials = |list: &[Denial]| {
        list.iter()
            .map(|denial| {
                json!({ "policy": denial.policy, "rule": denial.rule, "reason": denial.reason, "cause": denial.cause, "message": denial.detail })
            })
            .collect::<Vec<_>>()
    };
    let fault = |fault: &Fault| json!({ "reason": fault.reason, "message": fault.message });
    let (verdict, source, denied, faulty) = match &judgement.decision {
        Decision::Allow(permit) => (
            "allowed",
            Some(permit.source().word()),
            denials(permit.would_deny()),
            permit.would_fault().map(fault),
        ),
        Decision::Deny(list) => ("denied", None, denials(list), None),
        Decision::Undecided(found) => ("undecided", None, Vec::new(), Some(fault(found))),
    };
    json!({
        "image": image.text(),
        "digest": judgement.digest,
        "verdict": verdict,
        "source": source,
        "denials": denied,
        "fault": faulty,
        "skipped": judgement.applications.iter().filter_map(|application| {
            application.skipped.as_ref().map(|message| json!({ "policy": application.policy, "rule": application.rule, "message": message }))
        }).collect::<Vec<_>>(),
        "rules": judgement.applications.iter().map(|application| format!("{}/{}", application.policy, application.rule)).collect::<Vec<_>>(),
        "explanation": tree::described(judgement),
    })
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
        Decision::Undecided(fault) => line(&format!("{image}: undecided: {}", cause(image, fault))),
    }
    if explain {
        tree::lines(image, judgement).iter().for_each(say);
    }
}

fn by(denial: &Denial) -> String {
    match (denial.policy.as_str(), denial.rule.as_str()) {
        ("", _) => denial.cause.clone(),
        (policy, rule) => format!("{policy}/{rule}: {}", denial.cause),
    }
}
