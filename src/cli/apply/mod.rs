//! `apply`: the images that Kubernetes resources name, judged as pulls of them would be.
//!
//! Files are read whole and wrong ones refused before anything is asked of a registry. Which images a
//! resource names is each rule's own question (`imageExtractors`); each distinct image of a resource is
//! judged once, by the gate that judges pulls. A rule that cannot tell which images there are is an
//! error of the resource: an image could hide there. With `-o yaml` only documents come out in which
//! nothing was refused, so that what is piped on holds no image that did not pass.

mod results;

use std::io::Read;
use std::path::{Path, PathBuf};

use super::args::{Apply, ResourceOutput};
use super::judge::{Rules, exit, worst};
use super::{Exit, complain, runtime};
use crate::admission::{Judgement, Snapshot};
use crate::daemon::read_sources;
use crate::oci::Reference;
use crate::policy::evaluate::{Decision, Mode};
use crate::policy::{Action, Manifest, PodFacts, PolicySource, RuleImages};
use results::Results;

/// `pullgate apply`
pub(super) fn run(arguments: &Apply) -> Exit {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("cannot start: {error}"));
            return Exit::Unknown;
        }
    };
    let manifests = match read(&arguments.resource) {
        Ok(manifests) => manifests,
        Err(errors) => {
            errors.iter().for_each(complain);
            return Exit::Usage;
        }
    };
    let prepared = Rules::load(&arguments.basis, &runtime).and_then(|rules| {
        let subjects = subjects(&manifests, rules.snapshot(), &arguments.namespace);
        let mode = rules.snapshot().mode;
        let images: Vec<_> = subjects.iter().flat_map(|subject| &subject.images).collect();
        let judge = rules.judge(&arguments.basis, images)?;
        Ok((subjects, mode, judge))
    });
    let (subjects, mode, judge) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    let requests: Vec<_> = subjects
        .iter()
        .flat_map(|subject| subject.images.iter().map(|image| (image.clone(), subject.facts.clone())))
        .collect();
    let mut judgements = runtime.block_on(judge.all(&requests)).into_iter();
    let judged: Vec<_> = subjects
        .into_iter()
        .map(|subject| {
            let judgements = judgements.by_ref().take(subject.images.len()).collect();
            Judged { subject, judgements, mode }
        })
        .collect();
    let results = Results::new(&manifests, &judged);
    match arguments.output {
        ResourceOutput::Text => results.print(),
        ResourceOutput::Json => results.print_json(),
        ResourceOutput::Yaml => results.print_yaml(),
    }
    worst(judged.iter().map(|judged| judged.exit(arguments.basis.fail_on_audit)))
}

/// One resource with what the rules find in it.
struct Subject {
    /// Its document.
    manifest: usize,
    /// Where it is in there.
    pointer: String,
    facts: PodFacts,
    found: Vec<RuleImages>,
    /// Each image once, those of no rule too.
    images: Vec<Reference>,
}

/// A resource after judging.
struct Judged {
    subject: Subject,
    /// One an image, in their order.
    judgements: Vec<Judgement>,
    mode: Mode,
}

impl Judged {
    fn exit(&self, fail_on_audit: bool) -> Exit {
        let images = self.judgements.iter().map(|judgement| exit(judgement, fail_on_audit));
        let unclear =
            self.subject.found.iter().filter(|rule| rule.images.is_err() && self.refuses(rule.action));
        worst(images.chain(unclear.map(|_| Exit::Unknown)))
    }

    fn is_about_nothing(&self) -> bool {
        self.subject.images.is_empty() && self.subject.found.iter().all(|rule| rule.images.is_ok())
    }

    fn refuses(&self, action: Action) -> bool {
        action == Action::Enforce && self.mode == Mode::Enforce
    }

    fn judgement(&self, image: &Reference) -> Option<&Judgement> {
        let at = self.subject.images.iter().position(|known| known == image)?;
        self.judgements.get(at)
    }
}

/// The documents of all files; nothing is judged unless all of them can be read.
fn read(paths: &[PathBuf]) -> Result<Vec<Manifest>, Vec<String>> {
    let (mut manifests, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        let sources = if path == Path::new("-") {
            standard_input().map(|source| vec![source])
        } else {
            read_sources(std::slice::from_ref(path)).map_err(|error| error.to_string())
        };
        match sources {
            Ok(sources) => {
                for source in &sources {
                    match Manifest::read(source) {
                        Ok(mut read) => manifests.append(&mut read),
                        Err(remarks) => errors.extend(remarks.iter().map(ToString::to_string)),
                    }
                }
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() && manifests.iter().all(|manifest| manifest.resources().is_empty()) {
        let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        errors.push(format!(
            "no resource in {}: files end in .yaml, .yml or .json and hold Kubernetes resources",
            paths.join(", ")
        ));
    }
    if errors.is_empty() { Ok(manifests) } else { Err(errors) }
}

fn standard_input() -> Result<PolicySource, String> {
    let mut text = String::new();
    let read = std::io::stdin().take(INPUT_LIMIT + 1).read_to_string(&mut text);
    read.map_err(|error| format!("cannot read standard input: {error}"))?;
    if u64::try_from(text.len()).is_ok_and(|length| length > INPUT_LIMIT) {
        return Err(format!("standard input is larger than {INPUT_LIMIT} bytes; split it"));
    }
    Ok(PolicySource { file: PathBuf::from("<stdin>"), text })
}

fn subjects(manifests: &[Manifest], snapshot: &Snapshot, namespace: &str) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for (manifest, document) in manifests.iter().enumerate() {
        for placed in document.resources() {
            let facts = placed.resource.clone().facts(namespace);
            let found = snapshot.policies.extract(&facts);
            let built_in = placed.resource.images();
            let mut images: Vec<Reference> = Vec::new();
            for image in found.iter().map(|rule| &rule.images).chain([&built_in]).flatten().flatten() {
                if !images.contains(&image.reference) {
                    images.push(image.reference.clone());
                }
            }
            subjects.push(Subject { manifest, pointer: placed.pointer.clone(), facts, found, images });
        }
    }
    subjects
}

/// The same as for a file.
const INPUT_LIMIT: u64 = 8 << 20;
