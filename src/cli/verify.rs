//! `verify`: one verdict an image, by the same pipeline as a pull, without containerd and cache.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use prometheus_client::registry::Registry as MetricsRegistry;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::args::{DEFAULT_CONFIG, Output, UnmatchedArgument, Verify};
use super::{Exit, complain, runtime, say};
use crate::admission::audit::{Audit, Phases};
use crate::admission::words::cause;
use crate::admission::{Gate, Judgement, PullRequest, ServePresent, Settings, Snapshot};
use crate::cache::Store;
use crate::config::{self, Config};
use crate::daemon::loading::{self, Fresh, TrustUse};
use crate::daemon::{cache_options, read_sources, registry_options, roots};
use crate::oci::{Reference, RequestedImage};
use crate::outcome::{Denial, Fault};
use crate::policy::evaluate::Decision;
use crate::policy::{PodFacts, PolicySource};
use crate::registry::{self, Credentials, DockerConfig};
use crate::trust::{Anchor, Keeping, Origin};

/// `pullgate verify`
pub(super) fn run(arguments: &Verify) -> Exit {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("cannot start: {error}"));
            return Exit::Unknown;
        }
    };
    match Prepared::new(arguments, &runtime) {
        Ok(prepared) => runtime.block_on(prepared.verify_all(arguments)),
        Err(error) => {
            complain(error);
            Exit::Usage
        }
    }
}

struct Prepared {
    images: Vec<Reference>,
    gate: Gate,
    snapshot: Arc<Snapshot>,
    pod: PodFacts,
}

impl Prepared {
    fn new(arguments: &Verify, runtime: &Runtime) -> Result<Self, String> {
        let mut images = Vec::new();
        for image in &arguments.images {
            match RequestedImage::parse(image) {
                Ok(RequestedImage::Reference(reference)) => images.push(reference),
                Ok(RequestedImage::Id(_)) => {
                    return Err(format!("`{image}` is an image id; name the image by its repository"));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        let config = read_config(arguments, &images)?;
        let sources = read_sources(&config.policy.paths).map_err(|error| error.to_string())?;
        let fresh = with_trust_root(arguments, &config, &sources, runtime)?;
        let snapshot = Arc::new(fresh.snapshot);
        if snapshot.policies.is_empty() {
            return Err(
                "no policy loaded: name one with --policy, or put it where the config's policy.paths say"
                    .to_owned(),
            );
        }
        let mut options = registry_options(&config).map_err(|error| error.to_string())?;
        options.docker_configs = docker_configs(arguments, options.docker_configs)?;
        let registry = registry::Client::new(&options).map_err(|error| error.to_string())?;
        let settings = Settings {
            verification: config.limits.verification,
            concurrency: config.limits.concurrency.get(),
            serve_present: ServePresent::Never,
            shown: None,
            salt: Vec::new(),
        };
        let audit = Arc::new(Audit::new(&mut MetricsRegistry::default()));
        let store = Store::in_memory(cache_options(&config));
        let gate = Gate::new(Arc::clone(&snapshot), Arc::new(registry), store, audit, settings);
        let pod = PodFacts {
            namespace: arguments.namespace.clone(),
            labels: arguments.pod_label.iter().cloned().collect(),
            ..PodFacts::default()
        };
        Ok(Self { images, gate, snapshot, pod })
    }

    async fn verify_all(&self, arguments: &Verify) -> Exit {
        let progress = progress(self.images.len());
        let verdicts: Vec<_> = futures_util::stream::iter(&self.images)
            .map(|reference| async {
                let judgement = self.verify(reference).await;
                progress.inc(1);
                judgement
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        progress.finish_and_clear();
        match arguments.output {
            Output::Json => {
                let images: Vec<_> = self
                    .images
                    .iter()
                    .zip(&verdicts)
                    .map(|(image, judgement)| describe(image, judgement))
                    .collect();
                say(json!({ "schemaVersion": 1, "images": images }));
            }
            Output::Text => {
                for (image, judgement) in self.images.iter().zip(&verdicts) {
                    print(image, judgement, arguments.explain);
                }
            }
        }
        worst(&verdicts, arguments.fail_on_audit)
    }

    async fn verify(&self, reference: &Reference) -> Judgement {
        // The registry client finds those of the docker config files.
        let credentials = Credentials::Anonymous;
        let request = PullRequest { reference: reference.clone(), pod: self.pod.clone(), credentials };
        self.gate.judge(&self.snapshot, &request, &mut Phases::start()).await
    }
}

/// The policies with the trust root that the command line or else the config names. A mirror is asked only
/// where a policy needs it, and what the daemon on this machine has is younger than a day no more.
fn with_trust_root(
    arguments: &Verify,
    config: &Config,
    sources: &[PolicySource],
    runtime: &Runtime,
) -> Result<Fresh, String> {
    let (origin, keeping) = match (&arguments.trusted_root, &arguments.tuf_mirror, &arguments.tuf_root) {
        (Some(path), _, _) => (Origin::File(path.clone()), Keeping::Nowhere),
        (None, Some(mirror), Some(root)) => {
            (Origin::Tuf { mirror: mirror.clone(), root: root.clone() }, Keeping::Nowhere)
        }
        (None, _, _) => {
            let state = config.cache.path.parent().unwrap_or_else(|| Path::new("/"));
            (config.trust.root.clone(), Keeping::ReadOnly(roots::folder(state)))
        }
    };
    let domain = roots::domain(config, origin, keeping).map_err(|error| error.to_string())?;
    let domain = domain.within(config.limits.verification);
    let now = SystemTime::now();
    let build = |rooted: &_| loading::build(config, sources, rooted).map_err(|error| error.to_string());
    let mut rooted = domain.root(now);
    let mut fresh = build(&rooted)?;
    let old = |anchor: &Anchor| now.duration_since(anchor.confirmed).is_ok_and(|age| age > DAY);
    let ask = match &fresh.trust {
        TrustUse::Unused => false,
        TrustUse::Anchored(anchor) => old(anchor),
        TrustUse::Missing => true,
    };
    if ask && matches!(domain.origin(), Origin::Tuf { .. }) {
        match (runtime.block_on(domain.refresh(now)), &rooted) {
            (Err(error), Ok(_)) => {
                complain(format_args!("{}; what was fetched before is used", domain.origin().explain(&error)))
            }
            (refreshed, _) => {
                rooted = refreshed;
                fresh = build(&rooted)?;
            }
        }
    }
    if let (TrustUse::Missing, Err(error)) = (&fresh.trust, &rooted) {
        let missing = domain.origin().explain(error);
        if error.is_settled() {
            return Err(missing);
        }
        complain(missing);
    }
    Ok(fresh)
}

fn read_config(arguments: &Verify, images: &[Reference]) -> Result<Config, String> {
    let mut config = match (&arguments.config, arguments.policy.is_empty()) {
        (Some(path), _) => Config::load(path).map_err(|error| error.to_string())?,
        (None, true) => Config::load(Path::new(DEFAULT_CONFIG))
            .map_err(|error| format!("{error}; name policies with --policy, or a config with --config"))?,
        (None, false) => Config::with_policies(arguments.policy.clone()),
    };
    if !arguments.policy.is_empty() {
        config.policy.paths.clone_from(&arguments.policy);
    }
    if let Some(unmatched) = arguments.unmatched {
        config.policy.unmatched = match unmatched {
            UnmatchedArgument::Allow => config::Unmatched::Allow,
            UnmatchedArgument::Deny => config::Unmatched::Deny,
        };
    }
    if arguments.plain_http {
        config.registry.plain_http.extend(images.iter().map(|image| image.repository().host().to_owned()));
    }
    Ok(config)
}

/// `--docker-config`, the config's files, then the user's own; a missing file of the user is no error.
fn docker_configs(arguments: &Verify, of_config: Vec<DockerConfig>) -> Result<Vec<DockerConfig>, String> {
    let mut configs = Vec::new();
    if let Some(folder) = &arguments.docker_config {
        let path = folder.join("config.json");
        configs.push(DockerConfig::read(&path).map_err(|error| error.to_string())?);
    }
    configs.extend(of_config);
    let own = std::env::var_os("DOCKER_CONFIG")
        .map(std::path::PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker")));
    if let Some(text) = own.and_then(|folder| std::fs::read_to_string(folder.join("config.json")).ok()) {
        configs.extend(DockerConfig::parse(&text).ok());
    }
    Ok(configs)
}

/// A bar for several images on a terminal; nothing otherwise.
fn progress(images: usize) -> ProgressBar {
    if images < 2 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(u64::try_from(images).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("verifying {pos}/{len} [{bar:30}] {elapsed}") {
        bar.set_style(style);
    }
    bar
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
        "explanation": judgement.explanations,
    })
}

fn print(image: &Reference, judgement: &Judgement, explain: bool) {
    let digest = judgement.digest.map(|digest| format!(" {digest}")).unwrap_or_default();
    match &judgement.decision {
        Decision::Allow(permit) => {
            match permit.would_fault() {
                Some(fault) if permit.source().word() == "ignored" => {
                    say(format_args!("{image}: allowed (ignored: {})", cause(image, fault)))
                }
                Some(fault) => {
                    say(format_args!("{image}: allowed, an Audit rule is undecided: {}", cause(image, fault)))
                }
                None if permit.would_deny().is_empty() => {
                    say(format_args!("{image}: allowed ({}){digest}", permit.source()))
                }
                None => {}
            }
            for denial in permit.would_deny() {
                say(format_args!("{image}: would deny: {}", by(denial)));
            }
        }
        Decision::Deny(denials) => {
            for denial in denials {
                say(format_args!("{image}: denied: {}", by(denial)));
            }
        }
        Decision::Undecided(fault) => say(format_args!("{image}: undecided: {}", cause(image, fault))),
    }
    if explain {
        print_tree(judgement);
    }
}

fn by(denial: &Denial) -> String {
    match (denial.policy.as_str(), denial.rule.as_str()) {
        ("", _) => denial.cause.clone(),
        (policy, rule) => format!("{policy}/{rule}: {}", denial.cause),
    }
}

/// Policies, rules, attestors, and each signature that was found, with why it did not count.
fn print_tree(judgement: &Judgement) {
    for application in &judgement.applications {
        say(format_args!("  {}/{} ({:?})", application.policy, application.rule, application.action));
        if let Some(message) = &application.skipped {
            say(format_args!("    {message}"));
        }
        let rule = format!("{}/{}", application.policy, application.rule);
        for tree in judgement.explanations.iter().filter(|tree| tree.rule == rule) {
            for leaf in &tree.attestors {
                let verdict = if leaf.satisfied { "satisfied" } else { "not satisfied" };
                say(format_args!(
                    "    verifyImages[{}]{}: {verdict}, {} signatures in {}",
                    tree.entry, leaf.path, leaf.signatures, leaf.repository
                ));
                for cause in &leaf.causes {
                    say(format_args!("      {cause}"));
                }
            }
        }
    }
    let denials = match &judgement.decision {
        Decision::Allow(permit) => permit.would_deny(),
        Decision::Deny(denials) => denials,
        Decision::Undecided(_) => &[],
    };
    for denial in denials {
        say(format_args!("  {}", denial.detail));
    }
}

/// A denial outweighs what could not be found out.
fn worst(verdicts: &[Judgement], fail_on_audit: bool) -> Exit {
    let exits = verdicts.iter().map(|judgement| match &judgement.decision {
        Decision::Allow(permit) if fail_on_audit && !permit.would_deny().is_empty() => Exit::No,
        Decision::Allow(_) => Exit::Done,
        Decision::Deny(_) => Exit::No,
        Decision::Undecided(_) => Exit::Unknown,
    });
    let exits: Vec<_> = exits.collect();
    [Exit::No, Exit::Unknown].into_iter().find(|exit| exits.contains(exit)).unwrap_or(Exit::Done)
}

/// Images verified at once; the registry client bounds requests to one host.
const AT_ONCE: usize = 8;
/// Sigstore signs its timestamp metadata anew every few days.
const DAY: Duration = Duration::from_secs(24 * 3600);
