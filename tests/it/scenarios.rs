//! Kyverno's own conformance scenarios for verifyImages that need no Internet, with images, keys and a
//! Sigstore of our own: chainsaw's `verify-images/clusterpolicy` and the command-line tests of `images`. Each test
//! has the scenario's name. What a node cannot know (labels of namespaces) or has no need of (the
//! annotation that admission leaves behind) is said where it differs.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::kit::{
    Node, Space, folder, gate,
    image::Image,
    on_containerd,
    sigstore::{Identity, OtherSigstore, PrivateSigstore, Signer, Stamp},
};

/// Tests that ask no containerd: one is enough.
macro_rules! scenarios {
    ($($test:ident),* $(,)?) => {
        mod scenario {
            $(#[test] fn $test() { super::on_containerd("2", stringify!($test), super::$test); })*
        }
    };
}

scenarios!(
    keyed_basic,
    keyed_oci11,
    keyed_tsa,
    keyed_basic_namespace_selector,
    empty_image,
    skip_image_reference,
    configmap_context_lookup,
    noconfigmap_diffimage_success,
    failure_policy_test_noconfigmap_diffimage_success,
    mutate_digest_no_verify_digest_no_required,
    no_mutate_digest_verify_digest_no_required,
    boolean_matrix_of_mutate_verify_and_required,
    keyless_image_invalid_attestor,
    keyless_attestation_invalid_attestor,
    keyless_attestation_regexp,
    keyless_attestations_multiple_subjects,
    keyless_attestations_multiple_subjects_counts,
    sigstore_image_verification,
    sigstore_attestation_verification,
    image_extractors_none_simple_complex,
    update_multi_containers,
    cli_digest,
    cli_secure_images,
    cli_signatures,
    cli_verify_signature,
    cornercase_multiple_attestors,
);

const SLSA: &str = "https://slsa.dev/provenance/v1";

/// A policy of one rule for the images of a space.
fn policy(space: &Space<'_>, entry: Value, rule: Value) -> Value {
    let mut entry = entry;
    if entry["imageReferences"].is_null() {
        entry["imageReferences"] = json!([space.repository("*")]);
    }
    let mut whole = json!({
        "name": "rule", "match": {"any": [{"resources": {"kinds": ["Pod"]}}]}, "verifyImages": [entry],
    });
    for (name, value) in rule.as_object().into_iter().flatten() {
        whole[name] = value.clone();
    }
    json!({
        "apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": {"name": "policy"},
        "spec": {"validationFailureAction": "Enforce", "rules": [whole]},
    })
}

/// A key without a log, as an attestor's entry.
fn keys(public: &str) -> Value {
    json!({"keys": {
        "publicKeys": public, "rekor": {"url": "https://rekor.invalid", "ignoreTlog": true}, "ctlog": {"ignoreSCT": true},
    }})
}

fn files(documents: &[Value]) -> PathBuf {
    let file = folder().join("documents.yaml");
    let text: String = documents.iter().map(|document| format!("---\n{document:#}\n")).collect();
    fs::write(&file, text).expect("a file");
    file
}

fn pullgate(arguments: &[&str], policies: &[Value], root: Option<&PrivateSigstore>) -> Output {
    let mut command = Command::new(gate::binary());
    command.args(arguments).arg("-p").arg(files(policies)).env_remove("DOCKER_CONFIG");
    if let Some(sigstore) = root {
        command.arg("--trusted-root").arg(sigstore.trusted_root());
    }
    command.output().expect("pullgate")
}

/// The exit code of `pullgate verify`, with all that was said.
fn verify(policies: &[Value], root: Option<&PrivateSigstore>, image: &str) -> (Option<i32>, String) {
    said(&pullgate(&["verify", image, "--explain", "--namespace", "default"], policies, root))
}

/// The same of `pullgate apply` for a pod of these images.
fn apply(policies: &[Value], images: &[&str]) -> (Option<i32>, String) {
    let containers: Vec<_> = images
        .iter()
        .enumerate()
        .map(|(at, image)| json!({"name": format!("c{at}"), "image": image}))
        .collect();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", "namespace": "default"},
        "spec": {"containers": containers},
    });
    apply_to(policies, &pod)
}

fn apply_to(policies: &[Value], resource: &Value) -> (Option<i32>, String) {
    let resource = files(std::slice::from_ref(resource)).display().to_string();
    said(&pullgate(&["apply", "-r", &resource], policies, None))
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn assert_code((code, text): (Option<i32>, String), expected: i32, what: &str) {
    assert_eq!(code, Some(expected), "{what}: {text}");
}

fn keyed_basic(node: &Node) {
    let space = node.space();
    let [signed, unsigned] = ["signed", "unsigned"].map(|name| space.image(name).push("1"));
    node.key.sign(&signed);
    let policies = [policy(&space, json!({"attestors": [{"entries": [keys(&node.key.public)]}]}), json!({}))];
    assert_code(verify(&policies, None, &signed.by_tag()), 0, "signed");
    assert_code(verify(&policies, None, &unsigned.by_tag()), 1, "unsigned");
}

/// `cosignOCI11` reads the form; by default every form of a bundle registry is read anyway.
fn keyed_oci11(node: &Node) {
    let space = node.space();
    let [signed, theirs] = ["signed", "theirs"].map(|name| space.image(name).push("1"));
    node.key.sign_experimental(&signed);
    node.other_key.sign_experimental(&theirs);
    let entry = json!({"cosignOCI11": true, "attestors": [{"entries": [keys(&node.key.public)]}]});
    let policies = [policy(&space, entry, json!({}))];
    assert_code(verify(&policies, None, &signed.by_tag()), 0, "signed");
    assert_code(verify(&policies, None, &theirs.by_tag()), 1, "signed by another");
}

/// The timestamp must be of the authority that the policy names.
fn keyed_tsa(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("keyed_tsa") else { return };
    let space = node.space();
    let image = space.image("app").push("1");
    let builder = sigstore.certified("uri:https://builder.example/a");
    sigstore.sign_certified(Signer::Cosign2, &image, &builder, Stamp::Timestamp);
    let entry = |tsa: &str| {
        json!({"attestors": [{"entries": [{"certificates": {
            "certChain": builder.chain, "rekor": {"url": "https://rekor.invalid", "ignoreTlog": true},
            "ctlog": {"ignoreSCT": true, "tsaCertChain": tsa},
        }}]}]})
    };
    let good = policy(&space, entry(&sigstore.pem("tsa-chain")), json!({}));
    assert_code(verify(&[good], None, &image.by_tag()), 0, "its authority");
    let other = policy(&space, entry(&OtherSigstore::shared().pem("tsa-chain")), json!({}));
    assert_code(verify(&[other], None, &image.by_tag()), 1, "another's authority");
}

/// A node does not know the labels of namespaces: it says so when the policy is loaded.
fn keyed_basic_namespace_selector(node: &Node) {
    let space = node.space();
    let selector = json!({"namespaceSelector": {"matchLabels": {"signed": "true"}}, "kinds": ["Pod"]});
    let rule = json!({"match": {"any": [{"resources": selector}]}});
    let entry = json!({"attestors": [{"entries": [keys(&node.key.public)]}]});
    let answer = verify(&[policy(&space, entry, rule)], None, &format!("{}:1", space.repository("app")));
    assert!(answer.1.contains("a node does not know the labels of namespaces"), "{answer:?}");
    assert_code(answer, 2, "a load error");
}

fn empty_image(node: &Node) {
    let space = node.space();
    let policies = [policy(
        &space,
        json!({"imageReferences": ["*"], "attestors": [{"entries": [keys(&node.key.public)]}]}),
        json!({}),
    )];
    let answer = apply(&policies, &[" "]);
    assert!(answer.1.contains("without images, so not judged: 1"), "{answer:?}");
    assert_code(answer, 0, "no image at all");
}

fn skip_image_reference(node: &Node) {
    let space = node.space();
    let [skipped, unsigned] = ["skipped", "unsigned"].map(|name| space.image(name).push("1"));
    let entry = json!({
        "skipImageReferences": [space.repository("skipped*")], "attestors": [{"entries": [keys(&node.key.public)]}],
    });
    let policies = [policy(&space, entry, json!({}))];
    assert_code(apply(&policies, &[&skipped.by_tag()]), 0, "skipped");
    assert_code(apply(&policies, &[&skipped.by_tag(), &unsigned.by_tag()]), 1, "one that is not skipped");
}

/// A key from a ConfigMap, which lies beside the policies.
fn config_map(node: &Node) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "keys", "namespace": "default"},
        "data": {"production": node.key.public},
    })
}

fn by_config_map(space: &Space<'_>) -> Value {
    let mut attestor = keys("");
    attestor["keys"]["publicKeys"] = json!("{{ keys.data.production }}");
    let context =
        json!({"context": [{"name": "keys", "configMap": {"name": "keys", "namespace": "default"}}]});
    policy(
        space,
        json!({"imageReferences": [space.repository("covered*")], "attestors": [{"entries": [attestor]}]}),
        context,
    )
}

fn configmap_context_lookup(node: &Node) {
    let space = node.space();
    let [signed, theirs] = ["covered-signed", "covered-theirs"].map(|name| space.image(name).push("1"));
    node.key.sign(&signed);
    node.other_key.sign(&theirs);
    let policies = [by_config_map(&space), config_map(node)];
    assert_code(verify(&policies, None, &signed.by_tag()), 0, "signed");
    assert_code(verify(&policies, None, &theirs.by_tag()), 1, "signed by another");
}

fn noconfigmap_diffimage_success(node: &Node) {
    let space = node.space();
    let [other, covered] = ["other", "covered"].map(|name| space.image(name).push("1"));
    node.key.sign(&covered);
    let policies = [by_config_map(&space)];
    assert_code(verify(&policies, None, &other.by_tag()), 0, "an image that the rule is not about");
    assert_unresolved(verify(&policies, None, &covered.by_tag()));
}

/// The rule cannot be evaluated: there is no such ConfigMap.
fn assert_unresolved(answer: (Option<i32>, String)) {
    assert!(
        answer.1.contains("policy/rule: ")
            && answer.1.contains("failed to get configmap default/keys: there is no such document"),
        "{answer:?}"
    );
    assert_code(answer, 3, "the rule cannot be evaluated");
}

/// Upstream lets every error pass under `Ignore`; here a missing ConfigMap does not (rule D4).
fn failure_policy_test_noconfigmap_diffimage_success(node: &Node) {
    let space = node.space();
    let [other, covered] = ["other", "covered"].map(|name| space.image(name).push("1"));
    node.key.sign(&covered);
    let mut document = by_config_map(&space);
    document["spec"]["failurePolicy"] = json!("Ignore");
    assert_code(verify(&[document.clone()], None, &other.by_tag()), 0, "an image that the rule is not about");
    assert_unresolved(verify(&[document], None, &covered.by_tag()));
}

fn mutate_digest_no_verify_digest_no_required(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    let policies = [policy(&space, json!({"verifyDigest": false, "required": false}), json!({}))];
    assert_code(apply(&policies, &[&image.by_tag()]), 0, "a tag");
}

fn no_mutate_digest_verify_digest_no_required(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    let policies = [policy(&space, json!({"mutateDigest": false, "required": false}), json!({}))];
    assert_code(apply(&policies, &[&image.by_tag()]), 1, "a tag");
    assert_code(apply(&policies, &[&image.by_digest()]), 0, "a digest");
}

/// `keyless-[no]mutatedigest-[no]verifydigest-[no]required`, with a key.
fn boolean_matrix_of_mutate_verify_and_required(node: &Node) {
    let space = node.space();
    let [signed, unsigned] = ["signed", "unsigned"].map(|name| space.image(name).push("1"));
    node.key.sign(&signed);
    for bits in 0..8 {
        let [mutate, verified, required] = [bits & 1 == 1, bits & 2 == 2, bits & 4 == 4];
        let entry = json!({
            "mutateDigest": mutate, "verifyDigest": verified, "required": required,
            "attestors": [{"entries": [keys(&node.key.public)]}],
        });
        let policies = [policy(&space, entry, json!({}))];
        let what = format!("mutateDigest {mutate}, verifyDigest {verified}, required {required}");
        let of_tag = i32::from(!mutate && verified);
        assert_code(verify(&policies, None, &signed.by_tag()), of_tag, &what);
        assert_code(verify(&policies, None, &signed.by_digest()), 0, &what);
        assert_code(verify(&policies, None, &unsigned.by_digest()), 1, &what);
    }
}

fn keyless_image_invalid_attestor(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("keyless_image_invalid_attestor") else { return };
    let space = node.space();
    let image = space.image("app").push("1");
    let (alice, eve) = (Identity::email("alice@example.com"), Identity::email("eve@example.com"));
    sigstore.sign_keyless(Signer::Cosign3, &image, &alice);
    let fields = PrivateSigstore::fields(Signer::Cosign3);
    let entries = json!([sigstore.entry(&eve, &fields), sigstore.entry(&alice, &fields)]);
    for (count, code) in [(1, 0), (2, 1)] {
        let policies =
            [policy(&space, json!({"attestors": [{"count": count, "entries": entries}]}), json!({}))];
        assert_code(verify(&policies, Some(sigstore), &image.by_tag()), code, &format!("count {count}"));
    }
}

/// An image with one provenance, by the workflow `org/app`.
fn attested<'a>(space: &Space<'a>, sigstore: &PrivateSigstore) -> (Image, Identity) {
    let image = space.image("app").push("1");
    let ci = Identity::workflow("org/app", "main");
    let predicate = json!({
        "buildDefinition": {"buildType": "https://build.example/v1", "externalParameters": {}},
        "runDetails": {"builder": {"id": "https://builder.example"}},
    });
    sigstore.attest(Signer::Cosign3, &image, &ci, "slsaprovenance1", &predicate);
    (image, ci)
}

fn keyless_attestation_invalid_attestor(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("keyless_attestation_invalid_attestor") else { return };
    let space = node.space();
    let (image, ci) = attested(&space, sigstore);
    let fields = PrivateSigstore::fields(Signer::Cosign3);
    let entries =
        json!([sigstore.entry(&Identity::email("eve@example.com"), &fields), sigstore.entry(&ci, &fields)]);
    let entry = json!({"attestations": [{"type": SLSA, "attestors": [{"count": 1, "entries": entries}]}]});
    assert_code(
        verify(&[policy(&space, entry, json!({}))], Some(sigstore), &image.by_tag()),
        0,
        "one of two",
    );
}

fn keyless_attestation_regexp(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("keyless_attestation_regexp") else { return };
    let space = node.space();
    let (image, ci) = attested(&space, sigstore);
    for (pattern, code) in [
        ("^https://git\\.example/org/.+/build\\.yml@refs/heads/main$", 0),
        ("^https://git\\.example/other/", 1),
    ] {
        let keyless = json!({"keyless": {
            "subjectRegExp": pattern, "issuerRegExp": format!("^{}$", sigstore.issuer(&ci)),
            "rekor": {"url": "https://rekor.invalid"},
        }});
        let conditions = json!([{"all": [
            {"key": "{{ runDetails.builder.id }}", "operator": "Equals", "value": "https://builder.example"},
        ]}]);
        let entry = json!({"attestations": [{"type": SLSA, "attestors": [{"entries": [keyless]}], "conditions": conditions}]});
        assert_code(
            verify(&[policy(&space, entry, json!({}))], Some(sigstore), &image.by_tag()),
            code,
            pattern,
        );
    }
}

/// Several types, each by its own signer; the wrong signer for a type; no attestors at all.
fn keyless_attestations_multiple_subjects(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("keyless_attestations_multiple_subjects") else { return };
    let space = node.space();
    let (image, ci) = attested(&space, sigstore);
    let auditor = Identity::email("auditor@example.com");
    sigstore.attest(Signer::Cosign3, &image, &auditor, "openvex", &json!({"statements": []}));
    let fields = PrivateSigstore::fields(Signer::Cosign3);
    let vex = "https://openvex.dev/ns";
    let by = |who: &Identity| json!([{"entries": [sigstore.entry(who, &fields)]}]);
    for (attestations, code, what) in [
        (json!([{"type": SLSA, "attestors": by(&ci)}, {"type": vex, "attestors": by(&auditor)}]), 0, "1, 2"),
        (json!([{"type": SLSA, "attestors": by(&ci)}, {"type": vex, "attestors": by(&ci)}]), 1, "3"),
        (json!([{"type": SLSA}, {"type": vex}]), 0, "4"),
    ] {
        let policies = [policy(&space, json!({ "attestations": attestations }), json!({}))];
        assert_code(verify(&policies, Some(sigstore), &image.by_tag()), code, what);
    }
}

fn keyless_attestations_multiple_subjects_counts(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("keyless_attestations_multiple_subjects_counts") else {
        return;
    };
    let space = node.space();
    let (image, ci) = attested(&space, sigstore);
    let fields = PrivateSigstore::fields(Signer::Cosign3);
    let entries =
        json!([sigstore.entry(&ci, &fields), sigstore.entry(&Identity::email("eve@example.com"), &fields)]);
    for (count, code) in [(json!(1), 0), (json!(2), 1), (Value::Null, 1)] {
        let mut set = json!({ "entries": entries });
        if !count.is_null() {
            set["count"] = count.clone();
        }
        let entry = json!({"attestations": [{"type": SLSA, "attestors": [set]}]});
        let what = format!("count {count}");
        assert_code(
            verify(&[policy(&space, entry, json!({}))], Some(sigstore), &image.by_tag()),
            code,
            &what,
        );
    }
}

/// Bundles alone, as `type: SigstoreBundle` reads them.
fn sigstore_image_verification(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("sigstore_image_verification") else { return };
    let space = node.space();
    let alice = Identity::email("alice@example.com");
    let entry = sigstore.entry(&alice, &PrivateSigstore::fields(Signer::Cosign3));
    let policies =
        [policy(&space, json!({"type": "SigstoreBundle", "attestors": [{"entries": [entry]}]}), json!({}))];
    for (signer, code) in [(Signer::Cosign3, 0), (Signer::Cosign2, 1)] {
        let image = space.image(&format!("app{code}")).push("1");
        sigstore.sign_keyless(signer, &image, &alice);
        assert_code(verify(&policies, Some(sigstore), &image.by_tag()), code, &format!("{signer:?}"));
    }
}

fn sigstore_attestation_verification(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("sigstore_attestation_verification") else { return };
    let space = node.space();
    let (image, ci) = attested(&space, sigstore);
    let signer = sigstore.entry(&ci, &PrivateSigstore::fields(Signer::Cosign3));
    for (build, code) in [("https://build.example/*", 0), ("https://elsewhere.example/*", 1)] {
        let conditions = json!([{"all": [{"key": "{{ buildDefinition.buildType }}", "operator": "Equals", "value": build}]}]);
        let entry = json!({"type": "SigstoreBundle", "attestations": [
            {"type": SLSA, "attestors": [{"entries": [signer]}], "conditions": conditions},
        ]});
        assert_code(
            verify(&[policy(&space, entry, json!({}))], Some(sigstore), &image.by_tag()),
            code,
            build,
        );
    }
}

/// A Tekton task: no extractor, one for its steps, one with every field.
fn image_extractors_none_simple_complex(node: &Node) {
    let space = node.space();
    let [signed, unsigned] = ["signed", "unsigned"].map(|name| space.image(name).push("1"));
    node.key.sign(&signed);
    let task = |image: &Image| {
        json!({
            "apiVersion": "tekton.dev/v1beta1", "kind": "Task", "metadata": {"name": "task", "namespace": "default"},
            "spec": {"steps": [{"name": "step", "image": image.by_tag()}]},
        })
    };
    let entry = json!({"attestors": [{"entries": [keys(&node.key.public)]}]});
    let with = |extractors: Value| {
        let mut rule = json!({"match": {"any": [{"resources": {"kinds": ["Task"]}}]}});
        if !extractors.is_null() {
            rule["imageExtractors"] = json!({ "Task": extractors });
        }
        [policy(&space, entry.clone(), rule)]
    };
    let simple = json!([{"path": "/spec/steps/*/image"}]);
    let complex = json!([{"name": "steps", "path": "/spec/steps/*", "value": "image", "key": "name"}]);
    assert_code(apply_to(&with(Value::Null), &task(&unsigned)), 0, "none: nothing is looked at");
    for extractors in [simple, complex] {
        assert_code(apply_to(&with(extractors.clone()), &task(&signed)), 0, "signed");
        assert_code(apply_to(&with(extractors), &task(&unsigned)), 1, "unsigned");
    }
}

/// Each image of a pod is judged for itself.
fn update_multi_containers(node: &Node) {
    let space = node.space();
    let [first, second, unsigned] = ["first", "second", "unsigned"].map(|name| space.image(name).push("1"));
    node.key.sign_all(&[first.clone(), second.clone()]);
    let policies = [policy(&space, json!({"attestors": [{"entries": [keys(&node.key.public)]}]}), json!({}))];
    assert_code(apply(&policies, &[&first.by_tag(), &second.by_tag()]), 0, "both signed");
    assert_code(apply(&policies, &[&first.by_tag(), &unsigned.by_tag()]), 1, "one unsigned");
}

fn cli_digest(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    let entry = json!({"verifyDigest": true, "mutateDigest": false, "required": false});
    let policies = [policy(&space, entry, json!({}))];
    assert_code(apply(&policies, &[&image.by_digest()]), 0, "a digest");
    assert_code(apply(&policies, &[&image.by_tag()]), 1, "a tag");
}

fn cli_secure_images(node: &Node) {
    let space = node.space();
    let image = space.image("app").push("1");
    let entry = json!({"required": true, "mutateDigest": false, "verifyDigest": false});
    let policies = [policy(&space, entry, json!({}))];
    assert_code(apply(&policies, &[&image.by_tag()]), 1, "nobody is asked for, and it is required");
}

fn cli_signatures(node: &Node) {
    let space = node.space();
    let [signed, theirs, unsigned] = ["signed", "theirs", "unsigned"].map(|name| space.image(name).push("1"));
    node.key.sign(&signed);
    node.other_key.sign(&theirs);
    let policies = [policy(&space, json!({"attestors": [{"entries": [keys(&node.key.public)]}]}), json!({}))];
    for (image, code) in [(&signed, 0), (&theirs, 1), (&unsigned, 1)] {
        assert_code(apply(&policies, &[&image.by_tag()]), code, &image.repository);
    }
}

/// A pod, and a DataVolume whose URL has a prefix.
fn cli_verify_signature(node: &Node) {
    let space = node.space();
    let [signed, unsigned] = ["signed", "unsigned"].map(|name| space.image(name).push("1"));
    node.key.sign(&signed);
    let entry = json!({
        "mutateDigest": false, "verifyDigest": false, "attestors": [{"entries": [keys(&node.key.public)]}],
    });
    let rule = json!({
        "match": {"any": [{"resources": {"kinds": ["Pod", "DataVolume"]}}]},
        "imageExtractors": {"DataVolume": [
            {"path": "/spec/source/registry/url", "jmesPath": "trim_prefix(@, 'docker://')"},
        ]},
    });
    let policies = [policy(&space, entry, rule)];
    for (image, code) in [(&signed, 0), (&unsigned, 1)] {
        assert_code(apply(&policies, &[&image.by_tag()]), code, "pod");
        let volume = json!({
            "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume",
            "metadata": {"name": "volume", "namespace": "default"},
            "spec": {"source": {"registry": {"url": format!("docker://{}", image.by_tag())}}},
        });
        assert_code(apply_to(&policies, &volume), code, "volume");
    }
}

fn cornercase_multiple_attestors(node: &Node) {
    let space = node.space();
    let [both, one] = ["both", "one"].map(|name| space.image(name).push("1"));
    node.key.sign_all(&[both.clone(), one.clone()]);
    node.other_key.sign(&both);
    let sets = json!([
        {"entries": [keys(&node.key.public)]}, {"count": 1, "entries": [keys(&node.other_key.public)]},
    ]);
    let policies = [policy(&space, json!({ "attestors": sets }), json!({}))];
    assert_code(verify(&policies, None, &both.by_tag()), 0, "both");
    assert_code(verify(&policies, None, &one.by_tag()), 1, "one");
}
