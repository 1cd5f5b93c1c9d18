//! How long it takes to decide what many policies make of one image, in process and with the evidence
//! at hand; and the memory that conditions on a large attestation take.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use pullgate::{
    oci::{Digest, Reference},
    outcome::Lookup,
    policy::{
        Compatibility, EntryVerdict, Evidence, LoadOptions, OnlineRekor, PodFacts, PolicySet, PolicySource,
        Pull, RootSource, judge,
    },
    sigstore::SignatureEvidence,
};
use serde_json::{Value, json};

use crate::{
    kit::{self, Node, Space, cosign::Key, policy::Policy, registry::Registry},
    report::{Row, Samples, mib, time},
    verify::{Contender, ours},
};

/// Policies x rules against one image.
pub(crate) fn rules(node: &Node) -> Vec<Row> {
    [(10, 10), (100, 10), (1000, 10)]
        .into_iter()
        .flat_map(|(policies, rules)| rows(node.key, policies, rules))
        .collect()
}

fn rows(key: &Key, policies: usize, rules: usize) -> [Row; 2] {
    let reference = Reference::parse("registry.example/team/app:v1").expect("a reference");
    let pod = PodFacts { namespace: Some("default".to_owned()), ..PodFacts::default() };
    let start = Instant::now();
    let one = load(key, policies, rules, |number| {
        if number == 0 {
            "registry.example/team/app*".to_owned()
        } else {
            format!("registry.example/other{number}/*")
        }
    });
    let loading = start.elapsed();
    let all = load(key, policies, rules, |_| "registry.example/team/*".to_owned());
    let digest = Digest::of(b"image");
    // Nothing is stored for the image: every judged entry has to say so.
    let evidence = Evidence {
        legacy: BTreeMap::from([(reference.repository().clone(), Lookup::<Vec<SignatureEvidence>>::Absent)]),
        bundles: BTreeMap::from([(reference.repository().clone(), Lookup::Absent)]),
        ..Evidence::default()
    };
    let decide = |set: &PolicySet| {
        let mut denied = 0;
        for application in set.matching(&reference, &pod, SystemTime::UNIX_EPOCH) {
            for covered in &application.entries {
                let pull = Pull { reference: &reference, digest: &digest, pod: &pod };
                let (verdict, _) = judge(&covered.entry, pull, &evidence, SystemTime::UNIX_EPOCH);
                denied += usize::from(matches!(verdict, EntryVerdict::Denied(_)));
            }
        }
        denied
    };
    assert_eq!((decide(&one), decide(&all)), (1, policies * rules), "what is measured is what was meant");
    let what = format!("{policies} policies x {rules} rules against one image");
    let (one, all) = (median(|| decide(&one)), median(|| decide(&all)));
    [
        Row::plain(
            format!("{what}, one of them about it"),
            format!("{} (loaded in {})", time(one), time(loading)),
        ),
        Row::plain(format!("{what}, all about it, nothing signed"), time(all)),
    ]
}

fn load(key: &Key, policies: usize, rules: usize, pattern: impl Fn(usize) -> String) -> PolicySet {
    let documents: Vec<String> = (0..policies)
        .map(|policy| {
            let rules: Vec<Value> = (0..rules)
                .map(|rule| {
                    let document = Policy::new("policy", pattern(policy * rules + rule)).key(key).document();
                    let mut document = document["spec"]["rules"][0].clone();
                    document["name"] = json!(format!("rule-{rule}"));
                    document
                })
                .collect();
            let mut document = Policy::new(&format!("policy-{policy}"), "*").key(key).document();
            document["spec"]["rules"] = json!(rules);
            format!("---\n{document}\n")
        })
        .collect();
    let options = LoadOptions {
        compatibility: Compatibility::Default,
        trust_root: RootSource::Unavailable("not needed".to_owned()),
        online_rekor: OnlineRekor::Never,
        now: SystemTime::UNIX_EPOCH,
    };
    let sources: Vec<PolicySource> = documents
        .chunks(50)
        .enumerate()
        .map(|(number, texts)| PolicySource {
            file: PathBuf::from(format!("{number}.yaml")),
            text: texts.concat(),
        })
        .collect();
    PolicySet::load(&sources, &options).expect("policies").set
}

fn median(work: impl Fn() -> usize) -> Duration {
    let times = (0..50).map(|_| {
        let start = Instant::now();
        std::hint::black_box(work());
        start.elapsed()
    });
    Samples::new(times.collect()).median()
}

/// The largest attestation that is read (10 MiB of envelope), and 50 conditions on it.
pub(crate) fn sbom(node: &Node) -> Vec<Row> {
    let registry = Registry::olareg();
    let space = Space::on(&registry);
    let components: Vec<Value> = (0..35_500)
        .map(|number| {
            json!({
                "type": "library", "name": format!("package-{number}"), "version": "1.2.3",
                "purl": format!("pkg:deb/debian/package-{number}@1.2.3?arch=amd64&distro=debian-12"),
                "licenses": [{"license": {"id": "MIT"}}], "supplier": {"name": "A supplier of packages"},
            })
        })
        .collect();
    let predicate = json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components});
    let size = predicate.to_string().len();
    let [small, large] = ["small", "large"].map(|name| space.image(name).push("1"));
    node.key.attest_predicate(
        "cosign-2",
        &small,
        "cyclonedx",
        &json!({"bomFormat": "CycloneDX", "components": []}),
    );
    node.key.attest_predicate("cosign-2", &large, "cyclonedx", &predicate);
    let conditions: Vec<Value> = (0..50)
        .map(|number| {
            let key = format!("{{{{ components[?name == 'package-{number}'].licenses[].license.id }}}}");
            json!({"key": key, "operator": "AllNotIn", "value": ["GPL-3.0", "AGPL-3.0"]})
        })
        .collect();
    let mut document = space.policy("bom").document();
    let entry = &mut document["spec"]["rules"][0]["verifyImages"][0];
    entry.as_object_mut().expect("an entry").remove("attestors");
    entry["attestations"] = json!([{
        "type": "https://cyclonedx.org/bom",
        "attestors": [{"entries": [{"keys": {
            "publicKeys": node.key.public, "rekor": {"url": "https://rekor.invalid", "ignoreTlog": true},
            "ctlog": {"ignoreSCT": true},
        }}]}],
        "conditions": [{ "all": conditions }],
    }]);
    let policy = kit::folder().join("policy.yaml");
    fs::write(&policy, format!("{document:#}\n")).expect("a policy");
    let verifier: Contender = ours(&["verify", "-p", &policy.display().to_string()]);
    let figure = |image: &str| {
        let start = Instant::now();
        verifier.succeed(image);
        (start.elapsed(), verifier.memory(image))
    };
    let (without, least) = figure(&small.by_tag());
    let (with, most) = figure(&large.by_tag());
    vec![Row::plain(
        format!(
            "`verify` of an attestation of {:.1} MiB with 50 conditions",
            size as f64 / f64::from(1 << 20)
        ),
        format!(
            "{}, {:.1} MiB (an empty one: {}, {:.1} MiB)",
            time(with),
            mib(most),
            time(without),
            mib(least)
        ),
    )]
}
