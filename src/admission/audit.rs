//! What the gate says about its own decisions: one log line a verdict, and the metrics.
//!
//! Every decision passes through [`Audit::verdict`] once. The log line carries the same fields for
//! allow and deny (journald fields where journald listens); it never carries credentials. Metric
//! labels come from closed sets only, so that no image name can grow the number of series.

use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Labels of `pullgate_verdicts_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    verdict: &'static str,
    reason: &'static str,
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// The metrics of the gate, and the writer of its verdict lines.
pub struct Audit {
    verdicts: Family<VerdictLabels, Counter>,
    phases: Family<PhaseLabels, Histogram, fn() -> Histogram>,
    faults: Family<ReasonLabels, Counter>,
    hidden: Counter,
    verifications: Counter,
    /// Rules that are enforced at pull only (rule S3).
    pub pull_only_rules: Gauge,
    /// Present images that a new snapshot has not decided yet (rule S5).
    pub undecided_images: Gauge,
    /// Present images that would be refused, or are.
    pub denied_images: Gauge,
    /// Containers that run of such images.
    pub denied_containers: Gauge,
    /// Tag records that did not become visible (rule T3).
    pub tag_records_failed: Counter,
    /// 1 while containerd answers.
    pub upstream_up: Gauge,
    /// When the snapshot was loaded, in seconds since 1970.
    pub snapshot_loaded: Gauge<i64, AtomicI64>,
}

/// The phases of one pull whose durations are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Tag to digest.
    Resolve,
    /// Looking verdicts up.
    Cached,
    /// Fetching and verifying.
    Verify,
    /// containerd's own pull.
    Forward,
}

impl Phase {
    const fn word(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Cached => "cached",
            Self::Verify => "verify",
            Self::Forward => "forward",
        }
    }
}

/// How long each phase of one request took, in the order they ended.
#[derive(Debug)]
pub struct Phases {
    last: Instant,
    taken: Vec<(Phase, Duration)>,
}

impl Phases {
    /// Starts the clock.
    #[must_use]
    pub fn start() -> Self {
        Self { last: Instant::now(), taken: Vec::new() }
    }

    /// Ends one phase and starts the next.
    pub fn end(&mut self, phase: Phase) {
        let now = Instant::now();
        self.taken.push((phase, now.duration_since(self.last)));
        self.last = now;
    }

    fn text(&self) -> String {
        let each = self.taken.iter().map(|(phase, time)| format!("{}={}us", phase.word(), time.as_micros()));
        each.collect::<Vec<_>>().join(" ")
    }
}

/// One decision, as it is logged.
#[derive(Debug)]
pub struct VerdictLine<'a> {
    /// The image as it was asked for.
    pub image: &'a str,
    /// The digest it was resolved to.
    pub digest: Option<String>,
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Name of the pod.
    pub pod: &'a str,
    /// First failing (or first covering) policy.
    pub policy: &'a str,
    /// Its rule.
    pub rule: &'a str,
    /// `allow`, `deny` or `undecided`.
    pub verdict: &'static str,
    /// Reason code; empty for a plain allow.
    pub reason: &'static str,
    /// Where an allow comes from; empty for a denial.
    pub source: &'static str,
    /// Every failing rule with its cause.
    pub causes: &'a str,
    /// Whether enforcing would have refused.
    pub would_deny: bool,
}

impl Audit {
    /// Makes the metrics and registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        // 50 us to 100 s: a cached verdict takes microseconds, a slow registry seconds.
        let phases = Family::new_with_constructor(
            (|| Histogram::new(exponential_buckets(0.000_05, 4.0, 11))) as fn() -> _,
        );
        let audit = Self {
            verdicts: Family::default(),
            phases,
            faults: Family::default(),
            hidden: Counter::default(),
            verifications: Counter::default(),
            pull_only_rules: Gauge::default(),
            undecided_images: Gauge::default(),
            denied_images: Gauge::default(),
            denied_containers: Gauge::default(),
            tag_records_failed: Counter::default(),
            upstream_up: Gauge::default(),
            snapshot_loaded: Gauge::default(),
        };
        registry.register("verdicts", "Decisions by verdict, reason and source", audit.verdicts.clone());
        registry.register("phase_seconds", "Time of each phase of a pull", audit.phases.clone());
        registry.register("faults", "Decisions that were not reached, by reason", audit.faults.clone());
        registry.register(
            "image_status_hidden",
            "ImageStatus answers that hid an image",
            audit.hidden.clone(),
        );
        registry.register("verifications", "Verifications that were run", audit.verifications.clone());
        registry.register("pull_only_rules", "Rules enforced at pull only", audit.pull_only_rules.clone());
        registry.register(
            "undecided_images",
            "Present images not decided yet",
            audit.undecided_images.clone(),
        );
        registry.register("denied_images", "Present images that policy refuses", audit.denied_images.clone());
        registry.register(
            "denied_containers",
            "Containers that run of present images that policy refuses",
            audit.denied_containers.clone(),
        );
        registry.register(
            "tag_records_failed",
            "Tag records that stayed invisible",
            audit.tag_records_failed.clone(),
        );
        registry.register("upstream_up", "1 while containerd answers", audit.upstream_up.clone());
        registry.register(
            "snapshot_loaded_timestamp_seconds",
            "Load time of the policies",
            audit.snapshot_loaded.clone(),
        );
        audit
    }

    /// Counts and logs one decision.
    pub fn verdict(&self, line: &VerdictLine<'_>, phases: &Phases) {
        let labels = VerdictLabels { verdict: line.verdict, reason: line.reason, source: line.source };
        self.verdicts.get_or_create(&labels).inc();
        if line.verdict == "undecided" {
            self.faults.get_or_create(&ReasonLabels { reason: line.reason }).inc();
        }
        for (phase, time) in &phases.taken {
            self.phases.get_or_create(&PhaseLabels { phase: phase.word() }).observe(time.as_secs_f64());
        }
        let message = match (line.verdict, line.would_deny) {
            ("allow", true) => "would deny",
            ("allow", false) => "allowed",
            ("deny", _) => "denied",
            _ => "undecided",
        };
        let digest = line.digest.as_deref().unwrap_or("");
        let times = phases.text();
        // An allow has no causes; journald and JSON then have no such field.
        let causes = (!line.causes.is_empty()).then_some(line.causes);
        macro_rules! say {
            ($level:ident) => {
                tracing::$level!(
                    image = line.image,
                    digest,
                    namespace = line.namespace,
                    pod = line.pod,
                    policy = line.policy,
                    rule = line.rule,
                    verdict = line.verdict,
                    reason = line.reason,
                    source = line.source,
                    causes,
                    times,
                    "{message}"
                )
            };
        }
        if line.verdict == "allow" && !line.would_deny { say!(info) } else { say!(warn) }
    }

    /// Adds the time of one phase that ended after the verdict was logged.
    pub fn phase(&self, phase: Phase, time: Duration) {
        self.phases.get_or_create(&PhaseLabels { phase: phase.word() }).observe(time.as_secs_f64());
    }

    /// Counts one verification that was really run (not answered from the cache).
    pub fn verification(&self) {
        self.verifications.inc();
    }

    /// How many verifications were run since the start.
    #[must_use]
    pub fn verifications(&self) -> u64 {
        self.verifications.get()
    }

    /// Counts one ImageStatus answer that hid an image.
    pub fn hidden(&self, name: &str) {
        self.hidden.inc();
        tracing::info!(image = name, "present on the node, never admitted: answered as absent");
    }
}
