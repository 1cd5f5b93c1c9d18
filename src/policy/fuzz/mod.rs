//! Fuzz targets of this layer.

mod expression;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use super::evaluate::Approved;
use super::manifest::Manifest;
use super::{Compatibility, Coverage, LoadOptions, Loaded, OnlineRekor, PodFacts, PolicySet, PolicySource};
use super::{Remark, RootSource};
use crate::oci::{Digest, Reference, Repository};
use crate::sigstore::TrustRoot;

pub(crate) use expression::{condition, jmespath, scalar};

/// A policy file.
pub(crate) fn policy(data: &[u8]) -> Option<()> {
    let text = str::from_utf8(data).ok()?;
    let loaded = load(text, Compatibility::Default);
    if let Err(errors) = &loaded {
        assert!(!errors.is_empty(), "refused without a word");
        // For YAML a carriage return alone ends a line too.
        let lines = text.split(['\n', '\r']).count() as u64 + 1;
        assert!(errors.iter().all(|error| error.line <= lines), "an error behind the end of the file");
    }
    let set = loaded.ok()?.set;
    let again = load(text, Compatibility::Default).expect("it was loaded before").set;
    assert_eq!(set.fingerprint(), again.fingerprint(), "the same policies, another fingerprint");
    let strict = load(text, Compatibility::Strict).ok().map(|loaded| loaded.set);

    for reference in &*REFERENCES {
        for pod in [PodFacts::default(), named_pod()] {
            let judged = judged(&set, reference, &pod);
            assert!(judged.is_empty() || set.covers(reference), "a rule applies that covers no image");
            let strict = strict.as_ref().map(|set| self::judged(set, reference, &pod)).unwrap_or_default();
            assert!(strict.is_subset(&judged), "strict compatibility judges what the default does not");
        }
    }
    Some(())
}

/// A file of resources.
pub(crate) fn resources(data: &[u8]) -> Option<()> {
    let read = |text: String| Manifest::read(&PolicySource { file: PathBuf::from("resources.yaml"), text });
    let manifests = read(str::from_utf8(data).ok()?.to_owned()).ok()?;
    for manifest in &manifests {
        let unchanged = read(manifest.with(&BTreeMap::new())).expect("what is written is read");
        let resources = unchanged.first().map(Manifest::resources);
        assert_eq!(resources, Some(manifest.resources()), "written without a change");
        let change = BTreeMap::from([("/spec/image".to_owned(), "a.io/b@sha256:0".to_owned())]);
        let changed = read(manifest.with(&change)).expect("what is written is read");
        let image = changed.first().and_then(|manifest| manifest.resources().first());
        let image = image.filter(|placed| placed.pointer.is_empty());
        let image = image.and_then(|placed| placed.resource.object().get("spec")?.get("image"));
        assert!(image.is_none_or(|image| image == "a.io/b@sha256:0"), "written with another change");
    }
    Some(())
}

/// The list of approved images.
pub(crate) fn approved(data: &[u8]) -> Option<()> {
    let text = str::from_utf8(data).ok()?;
    let approved = Approved::parse(text).ok()?;
    for image in approved.list() {
        let (repository, digest) = image.split_once('@').expect("printed with its digest");
        let repository = Repository::from_key(repository).expect("printed as a key");
        let digest: Digest = digest.parse().expect("printed as a digest");
        assert!(text.contains(&digest.hex()), "approves what is not in the list");
        assert!(approved.names(&repository) && approved.holds(&repository, digest));
    }
    Some(())
}

fn load(text: &str, compatibility: Compatibility) -> Result<Loaded, Vec<Remark>> {
    let options = LoadOptions {
        compatibility,
        trust_root: RootSource::Ready(Arc::clone(&TRUST_ROOT)),
        online_rekor: OnlineRekor::Never,
        now: SystemTime::UNIX_EPOCH,
    };
    PolicySet::load(&[PolicySource { file: PathBuf::from("policy.yaml"), text: text.to_owned() }], &options)
}

/// The rules that want something of the image, and of how many of their entries.
fn judged(set: &PolicySet, reference: &Reference, pod: &PodFacts) -> BTreeSet<(String, String, usize)> {
    let mut judged = BTreeSet::new();
    for application in set.matching(reference, pod, SystemTime::UNIX_EPOCH) {
        for at in 0..application.entries.iter().filter(|entry| entry.coverage == Coverage::Judged).count() {
            judged.insert((application.policy.clone(), application.rule.clone(), at));
        }
    }
    judged
}

fn named_pod() -> PodFacts {
    let pairs = || [("app".to_owned(), "web".to_owned())].into();
    PodFacts {
        namespace: Some("prod".to_owned()),
        name: Some("web-1".to_owned()),
        labels: pairs(),
        annotations: pairs(),
        ..PodFacts::default()
    }
}

static TRUST_ROOT: LazyLock<Arc<TrustRoot>> =
    LazyLock::new(|| Arc::new(TrustRoot::public_good().expect("the library carries it")));

/// Of every form.
static REFERENCES: LazyLock<Vec<Reference>> = LazyLock::new(|| {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let texts = [
        "nginx".to_owned(),
        "GHCR.io:443/org/app:v1".to_owned(),
        "ghcr.io/org/app:v1".to_owned(),
        format!("ghcr.io/org/app@{digest}"),
        format!("localhost:5000/a:b@{digest}"),
    ];
    texts.iter().map(|text| Reference::parse(text).expect("a reference")).collect()
});
