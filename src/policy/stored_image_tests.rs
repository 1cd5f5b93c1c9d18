//! What rules read of images in registries, and what they ask for.

use std::time::SystemTime;

use super::*;
use crate::outcome::FaultReason;
use crate::policy::evaluate::{Decision, Forward, Mode, Source, before_verifying};
use crate::policy::tests::{KEY, Pull, denied, fault, load, none, permit, pod, policy, reference, set};
use crate::policy::{Basis, Coverage, PolicySet};

const APP: &str = "ghcr.io/org/app:v1";

fn digest() -> Digest {
    Digest::of(b"image")
}

fn image(configuration: Value) -> Stored {
    let manifest = json!({ "layers": [{ "size": 2 }, { "size": 3 }] });
    let read = StoredImage::read(
        digest(),
        None,
        manifest.to_string().as_bytes(),
        configuration.to_string().as_bytes(),
    );
    Stored::Found(Arc::new(read.unwrap()))
}

fn runs_as(user: &str) -> Stored {
    image(json!({ "config": { "User": user } }))
}

fn known(images: &[(&str, Stored)]) -> StoredImages {
    let mut known = StoredImages::default();
    images.iter().for_each(|(name, stored)| known.insert(&reference(name), stored.clone()));
    known
}

/// An entry of `context`: the image, and an expression on it.
fn entry(name: &str, image: &str, path: &str) -> Value {
    json!({ "name": name, "imageRegistry": { "reference": image, "jmesPath": path } })
}

fn rule(context: &[Value], key: &str, value: &str) -> Value {
    let condition = json!({ "key": key, "operator": "Equals", "value": value });
    json!({ "context": context, "preconditions": { "all": [condition] } })
}

/// The rule counts for images that run as root.
fn only_root() -> Value {
    rule(&[entry("data", "{{ image.reference }}", "")], "{{ data.configData.config.User || '' }}", "")
}

/// What becomes of the rule: skipped, judged, what it asks for, or why it cannot be said.
fn standing(set: &PolicySet, images: &StoredImages) -> Result<&'static str, String> {
    let found = set.matching_with(&reference(APP), &pod("prod"), SystemTime::UNIX_EPOCH, images);
    let covered = &found[0].entries[0];
    match (&found[0].asks_for, covered.entry.undecidable()) {
        (Some(wanted), Some(fault)) => {
            assert_eq!((fault.reason, covered.coverage), (FaultReason::Internal, Coverage::Judged));
            Err(format!("asks for {wanted}"))
        }
        (Some(wanted), None) => panic!("it is decided without {wanted}"),
        (None, Some(fault)) => Err(format!("{} {:?}: {}", fault.reason, fault.contact, fault.message)),
        (None, None) if covered.coverage == Coverage::Skipped => Ok("skipped"),
        (None, None) => Ok("judged"),
    }
}

#[test]
fn a_rule_asks_for_the_image_it_reads_and_then_knows_it() {
    let set = set(&policy(none(), only_root(), none()));
    let unresolved = "check/rule: failed to load context: failed to fetch image descriptor: ";
    let away =
        Fault { message: "m".into(), reason: FaultReason::RegistryUnreachable, ..fault(Contact::None) };
    for (images, expected) in [
        (known(&[]), Err(format!("asks for {APP}"))),
        (known(&[("ghcr.io/org/other:v1", runs_as(""))]), Err(format!("asks for {APP}"))),
        (known(&[(APP, runs_as(""))]), Ok("judged")),
        (known(&[(APP, image(json!({ "config": {} })))]), Ok("judged")),
        (known(&[(APP, runs_as("1000"))]), Ok("skipped")),
        (
            known(&[(APP, Stored::Nothing("not there".into()))]),
            Err(format!("policy-unresolved Answered: {unresolved}{APP}, error: not there")),
        ),
        (
            known(&[(APP, Stored::Unreachable(away.clone()))]),
            Err(format!("registry-unreachable None: {unresolved}m")),
        ),
    ] {
        assert_eq!(standing(&set, &images), expected, "{images:?}");
    }
    let mut images = known(&[(APP, Stored::Unreachable(away))]);
    images.answered();
    assert_eq!(standing(&set, &images), Err(format!("registry-unreachable Answered: {unresolved}m")), "d4");
}

#[test]
fn what_a_rule_reads_of_an_image_is_named_as_upstream_names_it() {
    let digest = digest().to_string();
    let documents = |index: Option<&[u8]>| {
        StoredImage::read(self::digest(), index, br#"{"layers":[]}"#, br#"{"config":{}}"#).unwrap()
    };
    for (text, registry, repository, identifier) in [
        ("ghcr.io/org/app:v1", "ghcr.io", "org/app", "v1".to_owned()),
        ("GHCR.io:443/org/app", "ghcr.io", "org/app", "latest".to_owned()),
        ("nginx", "index.docker.io", "library/nginx", "latest".to_owned()),
        (&format!("localhost:5000/a@{digest}"), "localhost:5000", "a", digest.clone()),
        (&format!("r.test/a:1@{digest}"), "r.test", "a", format!("1@{digest}")),
    ] {
        let seen = json!({
            "image": text, "resolvedImage": format!("{registry}/{repository}@{digest}"), "registry": registry,
            "repository": repository, "identifier": identifier, "manifestList": null,
            "manifest": { "layers": [] }, "configData": { "config": {} },
        });
        assert_eq!(documents(None).seen(&reference(text)), seen, "{text}");
    }
    let list = documents(Some(br#"{"manifests":[1]}"#)).seen(&reference(APP));
    assert_eq!(list["manifestList"], json!({ "manifests": [1] }));
}

#[test]
fn an_expression_is_on_what_is_known_of_the_image() {
    let failed = |path: &str, cause: &str| {
        Err(format!(
            "policy-unresolved Answered: check/rule: failed to load context: failed to apply JMESPath ({path}) results to context entry size, error: {cause}"
        ))
    };
    let images = known(&[(APP, runs_as("0"))]);
    for (path, expected) in [
        ("to_string(sum(manifest.layers[*].size))", Ok("judged")),
        ("length(manifest.layers)", Ok("skipped")),
        ("manifestList", Ok("skipped")),
        ("nothing.there", failed("nothing.there", "JMESPath query failed: Unknown key \"nothing\" in path")),
        // Names of the pull are none of the image.
        (
            "request.namespace",
            failed("request.namespace", "JMESPath query failed: Unknown key \"request\" in path"),
        ),
    ] {
        let set = set(&policy(none(), rule(&[entry("size", APP, path)], "{{ size }}", "5"), none()));
        assert_eq!(standing(&set, &images), expected, "{path}");
    }
}

#[test]
fn what_all_names_of_a_rule_hold_of_images_is_bounded() {
    let images = known(&[(APP, runs_as(&"x".repeat(3 << 20)))]);
    for (entries, path, expected) in
        [(10, "image", Ok("skipped")), (10, "", Ok("skipped")), (11, "", Err(())), (11, "image", Err(()))]
    {
        let context: Vec<_> = (0..entries).map(|number| entry(&format!("data{number}"), APP, path)).collect();
        let read: Vec<_> = (0..entries).map(|number| format!("(data{number} == `1`)")).collect();
        let key = format!("{{{{ to_string({}) }}}}", read.join(" || "));
        let set = set(&policy(none(), rule(&context, &key, "true"), none()));
        let cause = "failed to fetch image descriptor: ghcr.io/org/app:v1, error: JMESPath query failed: it makes more than 33554432 bytes";
        let expected = expected
            .map_err(|()| format!("policy-unresolved Answered: check/rule: failed to load context: {cause}"));
        assert_eq!(standing(&set, &images), expected, "{entries} {path}");
    }
}

/// The sample of the documentation: names prove nothing, and neither do numbers that are read as 0.
#[test]
fn the_sample_against_images_that_run_as_root_counts_for_all_that_may() {
    let key = "{{ regex_match('^[1-9][0-9]{0,8}(:|$)', data.User || '') }}";
    let line = format!("{{key: \"{key}\", operator: Equals, value: false}}");
    assert!(include_str!("../../docs/policies.md").contains(&line), "{line}");
    let condition = json!({ "key": key, "operator": "Equals", "value": false });
    let data = entry("data", "{{ image.reference }}", "configData.config");
    let set =
        set(&policy(none(), json!({ "context": [data], "preconditions": { "any": [condition] } }), none()));
    for (user, expected) in [
        ("1000", "skipped"),
        ("65532:0", "skipped"),
        ("", "judged"),
        ("0", "judged"),
        ("00", "judged"),
        ("0:1000", "judged"),
        ("root:root", "judged"),
        ("nobody", "judged"),
        ("1o", "judged"),
        ("-1", "judged"),
        // Cut to 32 bits it is 0.
        ("4294967296", "judged"),
    ] {
        assert_eq!(standing(&set, &known(&[(APP, runs_as(user))])), Ok(expected), "{user}");
    }
    assert_eq!(standing(&set, &known(&[(APP, image(json!({ "config": {} })))])), Ok("judged"));
}

#[test]
fn a_reference_may_hold_what_an_earlier_image_says() {
    let base = "{{ data.configData.config.Labels.base }}";
    let context = [entry("data", APP, ""), entry("base", base, "configData.config.User")];
    let set = set(&policy(none(), rule(&context, "{{ base }}", "0"), none()));
    let labelled = |name: &str| image(json!({ "config": { "Labels": { "base": name } } }));
    let app = |name: &str| (APP, labelled(name));
    assert_eq!(standing(&set, &known(&[])), Err(format!("asks for {APP}")));
    let asks = standing(&set, &known(&[app("ghcr.io/org/base:1")]));
    assert_eq!(asks, Err("asks for ghcr.io/org/base:1".to_owned()));
    let base = |user: &str| ("ghcr.io/org/base:1", runs_as(user));
    assert_eq!(standing(&set, &known(&[app("ghcr.io/org/base:1"), base("0")])), Ok("judged"));
    assert_eq!(standing(&set, &known(&[app("ghcr.io/org/base:1"), base("1")])), Ok("skipped"));
    let written =
        "failed to substitute variables in context entry base {{ data.configData.config.Labels.base }}";
    for (app, cause) in [
        (app("A b"), "`A b` is not an image reference"),
        ((APP, image(json!({ "config": { "Labels": { "base": 1 } } }))), "image reference must be a string"),
        (
            (APP, runs_as("0")),
            "failed to resolve data.configData.config.Labels.base at path : JMESPath query failed: Unknown key \"Labels\" in path",
        ),
    ] {
        let text =
            format!("policy-unresolved Answered: check/rule: failed to load context: {written}: {cause}");
        assert_eq!(standing(&set, &known(&[app])), Err(text));
    }
}

#[test]
fn pitfall_15_the_judged_tag_is_looked_up_as_the_judged_digest() {
    let (judged, other) = (digest(), Digest::of(b"other"));
    let with_digest = format!("ghcr.io/org/app:v1@{other}");
    for (wanted, of, expected) in [
        ("ghcr.io/org/app:v1", "ghcr.io/org/app:v1", Some(judged)),
        ("GHCR.io:443/org/app:v1", "ghcr.io/org/app:v1", Some(judged)),
        ("docker.io/library/nginx:latest", "nginx", Some(judged)),
        ("ghcr.io/org/app:v2", "ghcr.io/org/app:v1", None),
        ("ghcr.io/org/app", "ghcr.io/org/app:v1", None),
        ("ghcr.io/org/base:v1", "ghcr.io/org/app:v1", None),
        ("quay.io/org/app:v1", "ghcr.io/org/app:v1", None),
        // Rule M6: the tag beside a digest is text, also where a policy takes it out of there.
        ("ghcr.io/org/app:v1", &with_digest, Some(judged)),
        (&with_digest, "ghcr.io/org/app:v1", Some(other)),
    ] {
        let found = StoredImages::judged_as(&reference(wanted), &reference(of), judged);
        assert_eq!(found, expected, "{wanted} for {of}");
    }
}

#[test]
fn documents_that_containerd_reads_differently_are_refused() {
    let read = |index: Option<&[u8]>, manifest: &[u8], configuration: &[u8]| {
        StoredImage::read(digest(), index, manifest, configuration).map_err(|error| error.to_string())
    };
    let repeated = br#"{"config":{"User":"1000","user":"root"}}"#;
    let cause =
        |document: &str| Err(format!("{document} cannot be read: an object in the JSON repeats a key"));
    assert_eq!(read(None, b"{}", repeated), cause("configuration"));
    assert_eq!(read(None, repeated, b"{}"), cause("manifest"));
    assert_eq!(read(Some(repeated), b"{}", b"{}"), cause("index"));
    assert_eq!(read(None, b"{}", b""), Err("configuration cannot be read: not valid JSON".to_owned()));
}

#[test]
fn s3_a_rule_that_asks_registries_is_enforced_at_pull_only() {
    let basis = |rule: Value| {
        let set = set(&policy(none(), rule, none()));
        let found = set.matching(&reference(APP), &pod("prod"), SystemTime::UNIX_EPOCH);
        (set.pull_only_rules(), found[0].basis)
    };
    let named = |rule: &str| vec![rule.to_owned()];
    assert_eq!(basis(only_root()), (named("check/rule"), Basis::Registries));
    // Also where nothing of the pull is read.
    let fixed = rule(&[entry("user", "ghcr.io/org/base:1", "configData.config.User")], "{{ user }}", "0");
    assert_eq!(basis(fixed), (named("check/rule"), Basis::Registries));
    let unread = json!({ "context": [entry("user", APP, "")] });
    assert_eq!(basis(unread), (Vec::new(), Basis::Image));
}

#[test]
fn c1_what_images_hold_is_part_of_what_an_entry_asks() {
    let deny = json!({ "all": [{ "key": "{{ data.configData.config.User }}", "operator": "Equals", "value": "0" }] });
    let keys = json!({ "publicKeys": KEY, "rekor": { "ignoreTlog": true } });
    let signed = json!([{ "entries": [{ "keys": keys }] }]);
    let conditions = json!({ "attestations": [{ "type": "t", "attestors": signed }], "validate": { "deny": { "conditions": deny } } });
    let field = json!({ "attestors": [{ "entries": [{ "annotations": { "user": "{{ data.configData.config.User }}" }, "keys": keys }] }] });
    for entry in [conditions, field] {
        let context = json!({ "context": [self::entry("data", "{{ image.reference }}", "")] });
        let set = set(&policy(none(), context, entry.clone()));
        let print = |user: &str| {
            let images = known(&[(APP, runs_as(user))]);
            let found = set.matching_with(&reference(APP), &pod("prod"), SystemTime::UNIX_EPOCH, &images);
            let entry = &found[0].entries[0].entry;
            assert_eq!(entry.undecidable(), None);
            entry.fingerprint()
        };
        assert_eq!(print("0"), print("0"));
        assert_ne!(print("0"), print("1000"), "{entry}");
    }
}

#[test]
fn what_a_registry_decided_holds_for_the_digest_alone() {
    let decide = |rule: Value, mode: Mode| {
        let mut pull = Pull::new(&policy(none(), rule, none()));
        pull.mode = mode;
        pull.images = known(&[(APP, runs_as("1000"))]);
        let permit = permit(pull.ask(|case| before_verifying(case, digest())).unwrap());
        assert_eq!((permit.source(), permit.digest()), (Source::Skipped, Some(digest())));
        permit.forward().clone()
    };
    let pinned = Forward::Pinned(format!("ghcr.io/org/app@{}", digest()));
    assert_eq!(decide(only_root(), Mode::Enforce), pinned);
    assert_eq!(decide(only_root(), Mode::Audit), Forward::AsSent, "d1");
    let by_name = json!({ "preconditions": { "all": [{ "key": "{{ image.name }}", "operator": "Equals", "value": "x" }] } });
    assert_eq!(decide(by_name, Mode::Enforce), Forward::AsSent);
    // An Audit rule beside it says nothing against the image, and does not unpin it.
    let two = |name: &str, rule: Value, action: &str| {
        let text = policy(none(), rule, json!({ "failureAction": action }));
        let mut rule = serde_json::from_str::<Value>(&text).unwrap()["spec"]["rules"][0].clone();
        rule["name"] = json!(name);
        rule
    };
    let rules = json!({ "rules": [two("a", only_root(), "Enforce"), two("b", none(), "Audit")] });
    let mut pull = Pull::new(&policy(rules, none(), none()));
    pull.images = known(&[(APP, runs_as("1000"))]);
    let permit = permit(pull.decide(denied));
    assert_eq!((permit.source(), permit.forward()), (Source::Audited, &pinned));
}

#[test]
fn d4_a_registry_that_is_away_is_no_reason_to_let_pass_what_another_answered() {
    let text = policy(json!({ "failurePolicy": "Ignore" }), only_root(), none());
    for (contact, passes) in [(Contact::None, true), (Contact::Answered, false)] {
        let mut pull = Pull::new(&text);
        pull.images = known(&[(APP, Stored::Unreachable(fault(contact)))]);
        let verdict = |entry: &crate::policy::Entry| {
            crate::policy::EntryVerdict::Undecided(entry.undecidable().unwrap())
        };
        let answered = pull.decide(verdict);
        assert!(matches!(answered, Decision::Undecided(_)), "the tag was resolved: {answered:?}");
        pull.reference = reference(&format!("ghcr.io/org/app@{}", digest()));
        pull.images = known(&[(pull.reference.text(), Stored::Unreachable(fault(contact)))]);
        let unasked = pull.decide_unasked(verdict);
        assert_eq!(matches!(unasked, Decision::Allow(_)), passes, "{unasked:?}");
    }
}

#[test]
fn what_is_wrong_with_an_image_registry_is_a_load_error() {
    let with = |fields: Value| {
        let context = json!({ "context": [{ "name": "data", "imageRegistry": fields }] });
        load(&policy(
            none(),
            context,
            json!({ "attestors": [{ "entries": [{ "annotations": { "x": "{{ data }}" }, "keys": { "publicKeys": KEY } }] }] }),
        ))
    };
    for (fields, expected) in [
        (
            json!({}),
            "check/rule: context[0]: imageRegistry.reference is missing: it names the image that is asked for",
        ),
        (
            json!({ "reference": "A b" }),
            "check/rule: context[0]: imageRegistry.reference: `A b` is not an image reference",
        ),
        (json!({ "reference": "a", "jmesPath": "b." }), "check/rule: context[0]: imageRegistry.jmesPath: "),
        (
            json!({ "reference": "a", "jmesPath": "{{ image.tag }}" }),
            "check/rule: context[0]: imageRegistry.jmesPath must not hold variables",
        ),
        (json!({ "reference": "{{ serviceAccountName }}" }), "is not known on a node"),
        (json!({ "reference": "a", "bogus": 1 }), "bogus"),
        (
            json!({ "reference": "a", "imageRegistryCredentials": { "providers": ["other"] } }),
            "check/rule: context[0]: imageRegistry: imageRegistryCredentials.providers: `other` is not one of default, amazon",
        ),
    ] {
        let errors = with(fields).err().unwrap_or_default();
        let found = |error: &crate::policy::Remark| error.line > 0 && error.message.contains(expected);
        assert!(errors.iter().any(found), "{expected:?}, got {errors:?}");
    }
    assert_eq!(with(json!({ "reference": "{{ image.reference }}" })).map(|_| ()), Ok(()));
}
