//! The rows once more, by tag, through the built daemon in front of a real containerd, with the calls of
//! the kubelet: what the gate says (the first table) and what the kubelet then sees (the third).
//!
//! A row is one registry's address, and a repository for each column. Three daemons stand for the ages:
//! one with the built-in times, one for which nothing is fresh, one for which nothing is even stale.

use std::{
    fs,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use tokio::time::timeout;
use tonic::{Code, Status};

use super::{
    cell::State,
    stage::{NO_NAME, SILENT, Stage},
};
use crate::kit::{self, containerd::Containerd, front::Front, gate::Gate, image::Image, policy::Policy};

/// What the node knows of the image, in the order of the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    New,
    Fresh,
    /// Fresh, and no longer on the node.
    Removed,
    Stale,
    TooOld,
    OtherPolicy,
    OtherPolicyUnsigned,
    Restarted,
}

impl Known {
    pub(super) const ALL: [Self; 8] = [
        Self::New,
        Self::Fresh,
        Self::Removed,
        Self::Stale,
        Self::TooOld,
        Self::OtherPolicy,
        Self::OtherPolicyUnsigned,
        Self::Restarted,
    ];

    /// The column of the first table that says what the gate makes of it.
    pub(super) const fn state(self) -> State {
        match self {
            Self::New => State::New,
            Self::Fresh | Self::Removed => State::Fresh,
            Self::Stale => State::Stale,
            Self::TooOld => State::TooOld,
            Self::OtherPolicy => State::OtherPolicy,
            Self::OtherPolicyUnsigned => State::OtherPolicyUnsigned,
            Self::Restarted => State::Restarted,
        }
    }

    const fn repository(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Fresh => "fresh",
            Self::Removed => "removed",
            Self::Stale => "stale",
            Self::TooOld => "too-old",
            Self::OtherPolicy => "other-policy",
            Self::OtherPolicyUnsigned => "other-policy-unsigned",
            Self::Restarted => "restarted",
        }
    }

    const fn is_present(self) -> bool {
        !matches!(self, Self::New | Self::Removed)
    }
}

/// What was seen in a cell.
pub(super) struct Seen {
    pub(super) known: Known,
    /// The word of the gate's verdict, from its log.
    pub(super) word: String,
    /// What the kubelet got.
    pub(super) answer: String,
    pub(super) took: Duration,
    /// What its event says, if it was refused.
    pub(super) text: String,
    /// Whether the pull went on to containerd.
    pub(super) forwarded: bool,
    /// What else is not as it should be.
    pub(super) wrong: Vec<String>,
}

/// Fills in a row.
pub(super) fn see(fault: &'static str, version: &'static str) -> Vec<Seen> {
    let row = Row::set_up(fault, version);
    row.put(Registry::Failing);
    let mut seen = row.see(&[Known::New, Known::Fresh, Known::Removed, Known::Stale, Known::TooOld]);
    row.lasting.write_policies(&row.policies(Policies::Other));
    row.lasting.reload();
    seen.extend(row.see(&[Known::OtherPolicy, Known::OtherPolicyUnsigned]));
    row.lasting.restart();
    seen.extend(row.see(&[Known::Restarted]));
    row.put(Registry::Working);
    thread::scope(|scope| {
        for cell in &mut seen {
            scope.spawn(|| row.see_recovery(cell));
        }
    });
    seen.sort_by_key(|cell| Known::ALL.iter().position(|known| *known == cell.known));
    seen
}

struct Row {
    fault: &'static str,
    stage: &'static Stage,
    images: &'static Images,
    containerd: &'static Containerd,
    front: Front,
    /// Verdicts are fresh for a day.
    lasting: Gate,
    /// Nothing is fresh.
    ageing: Gate,
    /// Nothing is fresh or stale after a second.
    forgetful: Gate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Registry {
    Working,
    Failing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policies {
    AtFirst,
    Other,
}

impl Row {
    fn set_up(fault: &'static str, version: &'static str) -> Self {
        let (stage, images, containerd) = (Stage::shared(), Images::shared(), node(version));
        let front = Front::before(stage.working(fault));
        let gate = |fresh: &str, stale: &str| {
            let builder = Gate::before(containerd).set("/cache/fresh", fresh).set("/cache/stale", stale);
            let verification = if is_waited_out(fault) { WAITED_OUT } else { Duration::from_secs(60) };
            let policies = policies(stage, &front.host(), Policies::AtFirst);
            builder
                .set("/limits/verification", format!("{}s", verification.as_secs()))
                .policies(&policies)
                .start()
        };
        let [lasting, ageing, forgetful] =
            [("24h", "168h"), ("0s", "168h"), ("1s", "1s")].map(|(f, s)| gate(f, s));
        let row = Self { fault, stage, images, containerd, front, lasting, ageing, forgetful };
        row.put(Registry::Working);
        let pull = |known| {
            let image = row.signed(known);
            assert_eq!(row.gate(known).cri().pull(image.by_tag()).expect(), image.id, "{fault}, {known:?}");
        };
        pull(Known::TooOld);
        let verified = Instant::now();
        Known::ALL.into_iter().filter(|known| ![Known::New, Known::TooOld].contains(known)).for_each(pull);
        let removed = row.signed(Known::Removed);
        containerd.cri().remove_image(removed.id.clone()).expect("removed");
        // Stamps are whole seconds.
        kit::until("a verdict to age", || (verified.elapsed() > Duration::from_millis(2100)).then_some(()));
        row
    }

    /// Lets the registry fail, or work again.
    fn put(&self, registry: Registry) {
        let fails = registry == Registry::Failing;
        let behind = if fails { self.stage.failing(self.fault) } else { self.stage.working(self.fault) };
        self.front.put(behind);
        let front = self.front.host();
        let host = match self.fault {
            // Both ask resolvers for it; nobody has a name below `invalid`.
            NO_NAME if fails => "http://registry.invalid:5000".to_owned(),
            fault if fault.contains("certificate") => format!("https://{front}"),
            _ => format!("http://{front}"),
        };
        let folder = self.containerd.certs().join(&front);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("ca.pem"), &self.stage.authority).expect("a file");
        let ca = if host.starts_with("https") { "ca = \"ca.pem\"\n" } else { "" };
        // containerd 1.7 takes no file without the last table.
        fs::write(folder.join("hosts.toml"), format!("server = \"{host}\"\n{ca}[host]\n")).expect("a file");
    }

    fn policies(&self, policies: Policies) -> Vec<Policy> {
        self::policies(self.stage, &self.front.host(), policies)
    }

    fn gate(&self, known: Known) -> &Gate {
        match known {
            Known::Stale => &self.ageing,
            Known::TooOld => &self.forgetful,
            Known::New
            | Known::Fresh
            | Known::Removed
            | Known::OtherPolicy
            | Known::OtherPolicyUnsigned
            | Known::Restarted => &self.lasting,
        }
    }

    fn signed(&self, known: Known) -> Image {
        let images = if known == Known::Removed { &self.images.removed } else { &self.images.signed };
        let name = if known == Known::Removed { self.fault } else { known.repository() };
        let (_, image) = images.iter().find(|(of, _)| *of == name).expect("an image for each");
        self.named(image)
    }

    fn unsigned(&self, known: Known) -> Image {
        self.named(&self.images.unsigned).at(format!("{}/{}", self.front.host(), known.repository()))
    }

    fn named(&self, image: &Image) -> Image {
        let (_, repository) = image.repository.split_once('/').expect("host/repository");
        image.at(format!("{}/{repository}", self.front.host()))
    }

    /// The cells of these columns, all at once.
    fn see(&self, columns: &[Known]) -> Vec<Seen> {
        thread::scope(|scope| {
            let cells: Vec<_> =
                columns.iter().map(|&known| scope.spawn(move || self.see_one(known))).collect();
            cells.into_iter().map(|cell| cell.join().expect("no panic")).collect()
        })
    }

    fn see_one(&self, known: Known) -> Seen {
        let (gate, image, unsigned) = (self.gate(known), self.signed(known), self.unsigned(known));
        let given_up = if is_waited_out(self.fault) { GIVEN_UP } else { kit::PATIENCE };
        let mut wrong = Vec::new();
        let mut check = |holds: bool, what: &str| {
            if !holds {
                wrong.push(what.to_owned());
            }
        };
        let before = self.containerd.tag_record(&image.by_tag());
        check(before.is_some() == known.is_present(), &format!("containerd begins with {before:?}"));

        let began = Instant::now();
        let answer = ask(gate, &image, given_up);
        let took = began.elapsed();
        let verdict = Verdict::of(gate, &image);
        let after = self.containerd.tag_record(&image.by_tag());
        check(is_well_said(answer.as_ref()), &format!("the kubelet is told {answer:?}"));
        let text = match &answer {
            Some(Err(status)) => {
                let text =
                    status.message().replace(&image.by_tag(), "IMAGE").replace(&image.by_digest(), "IMAGE");
                text.replace(&image.repository, "IMAGE")
            }
            Some(Ok(_)) | None => String::new(),
        };
        let answer = self.word_of(gate, &image, answer.as_ref());
        if answer == "pulled" {
            let target = after.as_ref().map(|record| record.target.as_str());
            check(target == Some(image.digest.as_str()), &format!("pulled, and the record is {after:?}"));
        } else {
            check(after == before, &format!("not pulled, and the record was written: {before:?}, {after:?}"));
        }
        let refused = verdict.word == "signature-invalid";
        if known.is_present() && !refused {
            for name in [image.by_tag(), image.by_digest()] {
                let shown = gate.cri().image_status(name.clone());
                let id = shown.as_ref().ok().and_then(|shown| shown.as_ref()).map(|shown| shown.id.clone());
                check(
                    id.as_ref() == Some(&image.id),
                    &format!("{name} is hidden from the kubelet: {shown:?}"),
                );
            }
        } else if !refused && answer != "pulled" {
            let shown = gate.cri().image_status(image.by_tag());
            check(matches!(shown, Ok(None)), &format!("the kubelet sees {shown:?}"));
        }

        let answer_of_unsigned = ask(gate, &unsigned, given_up);
        check(
            matches!(answer_of_unsigned, Some(Err(_))),
            &format!("an unsigned image: {answer_of_unsigned:?}"),
        );
        let record = self.containerd.tag_record(&unsigned.by_tag());
        check(record.is_none(), &format!("an unsigned image is on the node: {record:?}"));
        let shown = gate.cri().image_status(unsigned.by_tag());
        check(matches!(shown, Ok(None)), &format!("an unsigned image is shown: {shown:?}"));
        Seen { known, word: verdict.word, answer, took, text, forwarded: verdict.allowed, wrong }
    }

    /// Once the registry works again: the same calls, by nobody's hand.
    fn see_recovery(&self, cell: &mut Seen) {
        let (gate, image, unsigned) =
            (self.gate(cell.known), self.signed(cell.known), self.unsigned(cell.known));
        let refused = cell.known == Known::OtherPolicyUnsigned;
        let mut last = None;
        let recovered = kit::within(RECOVERY, || {
            let answer = gate.cri().pull(image.by_tag()).send();
            let as_it_should_be = match &answer {
                Ok(id) => !refused && *id == image.id,
                Err(status) => refused && is_denial(status, &image),
            };
            last = Some(answer);
            as_it_should_be.then_some(())
        });
        if recovered.is_none() {
            cell.wrong.push(format!("once the registry works again: {last:?}"));
        }
        if !refused {
            let shown = gate.cri().image_status(image.by_tag());
            if !matches!(&shown, Ok(Some(shown)) if shown.id == image.id) {
                cell.wrong.push(format!("once the registry works again the kubelet sees {shown:?}"));
            }
        }
        let unsigned_answer = gate.cri().pull(unsigned.by_tag()).send();
        if !matches!(&unsigned_answer, Err(status) if is_denial(status, &unsigned)) {
            cell.wrong.push(format!("once the registry works again, unsigned: {unsigned_answer:?}"));
        }
    }

    /// The word of the third table for what the kubelet got.
    fn word_of(&self, gate: &Gate, image: &Image, answer: Option<&Result<String, Status>>) -> String {
        match answer {
            None => "waits".to_owned(),
            Some(Ok(id)) if *id != image.id => format!("another image: {id}"),
            Some(Ok(_)) if Verdict::is_served(gate, image) => "served".to_owned(),
            Some(Ok(_)) => "pulled".to_owned(),
            Some(Err(status)) => {
                let text = status.message();
                let starts = |reason: &str| text.starts_with(&format!("{reason}{}: ", image.by_tag()));
                if starts("RegistryUnavailable: ") {
                    "RegistryUnavailable".to_owned()
                } else if starts("SignatureValidationFailed: ") {
                    "SignatureValidationFailed".to_owned()
                } else if starts("") && text.contains(": registry answered 40") {
                    "registry".to_owned()
                } else if text.contains(&image.by_digest()) {
                    "containerd".to_owned()
                } else {
                    format!("{status:?}")
                }
            }
        }
    }
}

/// Only what is tested by waiting is not waited for long.
fn is_waited_out(fault: &str) -> bool {
    [SILENT, "sends a byte at a time"].contains(&fault)
}

/// A pull of the kubelet; nothing if it was not answered by then. It is given up.
fn ask(gate: &Gate, image: &Image, given_up: Duration) -> Option<Result<String, Status>> {
    let pulling = gate.cri().pull(image.by_tag()).sent();
    kit::block_on(async { timeout(given_up, pulling).await }).ok()
}

/// Texts that say nothing of time and place, under the one code by which the kubelet knows its reasons;
/// containerd has codes of its own.
fn is_well_said(answer: Option<&Result<String, Status>>) -> bool {
    let Some(Err(status)) = answer else { return true };
    let ours = !status.message().contains("failed to ");
    !ours || (status.code() == Code::Unknown && status.message().len() < 400)
}

fn is_denial(status: &Status, image: &Image) -> bool {
    let start = format!("SignatureValidationFailed: {}: ", image.by_tag());
    status.code() == Code::Unknown && status.message().starts_with(&start)
}

/// What the gate logged of a pull.
struct Verdict {
    word: String,
    allowed: bool,
}

impl Verdict {
    /// Of the last pull of this image.
    fn of(gate: &Gate, image: &Image) -> Self {
        let line = lines(gate, image).rfind(|line| line["verdict"].is_string()).expect("a verdict is logged");
        let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let allowed = line["verdict"] == "allow";
        Self { word: if allowed { text("source") } else { text("reason") }, allowed }
    }

    /// Whether the last that was said of this image is that it was served from the node (rule O4).
    fn is_served(gate: &Gate, image: &Image) -> bool {
        let last = lines(gate, image).next_back();
        last.is_some_and(|line| {
            line["message"].as_str().is_some_and(|text| text.starts_with("registry away"))
        })
    }
}

/// The lines of the log about an image, as it was asked for.
fn lines(gate: &Gate, image: &Image) -> std::vec::IntoIter<serde_json::Value> {
    let name = image.by_tag();
    let log = gate.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.filter(|line| line["image"] == *name).collect::<Vec<_>>().into_iter()
}

/// One policy a repository, so that some may change.
fn policies(stage: &Stage, host: &str, policies: Policies) -> Vec<Policy> {
    let policy = |known: Known| {
        let key = match (known, policies) {
            (Known::OtherPolicy, Policies::Other) => &stage.later_key,
            (Known::OtherPolicyUnsigned, Policies::Other) => &stage.foreign_key,
            _ => &stage.key,
        };
        Policy::new(known.repository(), format!("{host}/{}:*", known.repository())).key(key)
    };
    Known::ALL.into_iter().map(policy).collect()
}

/// The containerd of all rows. What it waits for a registry that says nothing is five minutes by default.
fn node(version: &'static str) -> &'static Containerd {
    static NODE: OnceLock<Containerd> = OnceLock::new();
    NODE.get_or_init(|| Containerd::impatient(version, CONTAINERDS_PATIENCE))
}

/// The images of all rows, in the registry of the stage.
struct Images {
    /// By repository.
    signed: Vec<(&'static str, Image)>,
    /// By row: removed from the node, it must not be there under another name.
    removed: Vec<(&'static str, Image)>,
    /// In every repository.
    unsigned: Image,
}

impl Images {
    fn shared() -> &'static Self {
        static IMAGES: OnceLock<Images> = OnceLock::new();
        IMAGES.get_or_init(|| {
            let stage = Stage::shared();
            let present = Known::ALL.into_iter().filter(|known| *known != Known::Removed);
            let signed: Vec<_> = present
                .map(|known| (known.repository(), stage.image(known.repository()).push("signed")))
                .collect();
            let removed: Vec<_> = super::ROWS
                .iter()
                .enumerate()
                .map(|(row, fault)| (*fault, stage.image("removed").push(&format!("row-{row}"))))
                .collect();
            let all: Vec<_> = signed.iter().chain(&removed).map(|(_, image)| image.clone()).collect();
            stage.sign(&all);
            let unsigned = stage.image("new").push("unsigned");
            Known::ALL.into_iter().for_each(|known| stage.copy(&unsigned, known.repository()));
            Self { signed, removed, unsigned }
        })
    }
}

/// Instead of 60 s, where all of it is waited out.
const WAITED_OUT: Duration = Duration::from_secs(4);
/// Instead of five minutes.
pub(super) const CONTAINERDS_PATIENCE: Duration = Duration::from_secs(3);
/// A pull that was not answered by then waits for as long as the registry keeps containerd waiting.
const GIVEN_UP: Duration = Duration::from_secs(15);
/// A denial is remembered for five seconds; the rest is patience with a busy machine.
const RECOVERY: Duration = Duration::from_secs(20);
