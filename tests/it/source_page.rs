//! Every YAML document of Kyverno's page on Sigstore (`tests/page`): it loads as it is, and does what the
//! page says it does, with images, keys and a Sigstore of our own in place of the page's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::SystemTime,
};

use pullgate::policy::{
    Compatibility, LoadOptions, OnlineRekor, PolicySet, PolicySource, RootSource, Severity,
};
use serde_json::{Value, json};

use crate::kit::{
    Node, folder, gate,
    image::Image,
    on_each_containerd,
    sigstore::{Identity, PrivateSigstore, Signer, Stamp},
};

on_each_containerd!(
    page_01_key,
    page_02_attestation,
    page_03_and_04_certificates,
    page_05_keyless,
    page_06_keyless_workflow,
    page_07_annotations,
    page_11_signature_repository,
    page_12_and_13_without_log_and_sct,
    page_14_own_log_and_certificate_log,
    page_15_tekton_task,
    page_16_tekton_bundle,
    page_17_and_18_data_volume,
);

/// Documents that are policies, as they are on the page.
const POLICIES: [&str; 8] = [
    "01-key",
    "02-attestation",
    "03-certificate",
    "04-certificate-chain",
    "05-keyless",
    "07-annotations",
    "15-tekton-task",
    "16-tekton-bundle",
];

/// Fragments of a rule.
const FRAGMENTS: [&str; 5] =
    ["11-repository", "12-ignore-tlog", "13-ignore-sct", "14-rekor-and-ct-keys", "18-datavolume-extractor"];

/// Documents of a cluster that are no policies.
const OTHERS: [&str; 4] = [
    "08-pull-secrets-deployment",
    "09-certificates-config-map",
    "10-certificates-deployment",
    "17-datavolume-resource",
];

/// The text of one document.
fn page(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/page/{name}.yaml"));
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// A fragment in a policy of its own: below the rule, or below its one attestor list.
fn rule_of(fragment: &str) -> String {
    let text = page(fragment);
    let text = if fragment.starts_with("18") {
        format!("{text}verifyImages:\n- imageReferences: ['*']\n  mutateDigest: false\n")
    } else {
        text
    };
    let kind = if fragment.starts_with("18") { "DataVolume" } else { "Pod" };
    let indented: String = text.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata:\n  name: check-image\nspec:\n  \
         validationFailureAction: Enforce\n  rules:\n  - name: check-image\n    match:\n      any:\n      \
         - resources:\n          kinds:\n          - {kind}\n{indented}"
    )
}

fn load(text: &str) -> Result<Vec<(Severity, String)>, Vec<String>> {
    let options = LoadOptions {
        compatibility: Compatibility::Default,
        trust_root: RootSource::Unavailable("not asked for".to_owned()),
        online_rekor: OnlineRekor::Never,
        now: SystemTime::now(),
    };
    let source = PolicySource { file: PathBuf::from("page.yaml"), text: text.to_owned() };
    match PolicySet::load(&[source], &options) {
        Ok(loaded) => Ok(loaded.notices.iter().map(|notice| (notice.severity, notice.to_string())).collect()),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn every_policy_of_the_page_loads_as_it_is() {
    for name in POLICIES {
        assert!(load(&page(name)).is_ok(), "{name}: {:?}", load(&page(name)));
    }
    for name in FRAGMENTS {
        assert!(load(&rule_of(name)).is_ok(), "{name}: {:?}", load(&rule_of(name)));
    }
}

#[test]
fn documents_of_the_page_that_are_no_policies_are_passed_over_with_a_notice() {
    for name in OTHERS {
        let notices = load(&page(name)).unwrap_or_else(|errors| panic!("{name}: {errors:?}"));
        // A ConfigMap is kept for the context of rules.
        let expected = usize::from(name != "09-certificates-config-map");
        assert_eq!(notices.len(), expected, "{name}: {notices:?}");
    }
}

/// The page's placeholders in double braces are no YAML; in quotes they are variables that no pull has.
#[test]
fn placeholders_of_the_page_are_an_error_with_the_line() {
    let attestors = |text: &str| {
        let indented: String = text.lines().map(|line| format!("  {line}\n")).collect();
        format!("verifyImages:\n- imageReferences: ['*']\n{indented}")
    };
    let wrapped = |text: &str| {
        let indented: String = attestors(text).lines().map(|line| format!("    {line}\n")).collect();
        rule_of("12-ignore-tlog").split("    verifyImages:").next().expect("a head").to_owned() + &indented
    };
    let errors = load(&wrapped(&page("06-keyless-workflow"))).expect_err("no YAML");
    assert!(errors[0].starts_with("page.yaml:"), "{errors:?}");
}

/// What is ours in place of what is the page's.
struct Ours<'a> {
    space: crate::kit::Space<'a>,
}

impl Ours<'_> {
    /// The page's text for images of this space, with each of its PEM blocks replaced by the next of `pems`.
    fn adapt(&self, text: &str, images: &[&str], pems: &[&str]) -> String {
        let mut text = text.to_owned();
        for image in images {
            text = text.replace(image, &self.space.repository("app"));
        }
        let mut adapted = String::new();
        let mut pems = pems.iter().cycle();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(indent) = line.find("-----BEGIN") else {
                adapted.push_str(line);
                adapted.push('\n');
                continue;
            };
            for own in pems.next().expect("a PEM block").trim().lines() {
                adapted.push_str(&format!("{}{own}\n", " ".repeat(indent)));
            }
            lines.by_ref().find(|line| line.contains("-----END")).expect("the end of a PEM block");
        }
        adapted
    }
}

/// `pullgate verify` by this policy; trusts the private Sigstore where one is given.
fn verify(policy: &str, root: Option<PathBuf>, image: &Image) -> Output {
    let file = folder().join("policy.yaml");
    fs::write(&file, policy).expect("a policy file");
    let mut command = Command::new(gate::binary());
    command.args(["verify", "--explain", "-p"]).arg(file).env_remove("DOCKER_CONFIG");
    if let Some(root) = root {
        command.arg("--trusted-root").arg(root);
    }
    command.arg(image.by_tag()).output().expect("pullgate")
}

/// Its exit code and what it says of the image.
fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn assert_allowed(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

fn assert_denied(output: &Output, words: &str) {
    let (code, text) = said(output);
    assert_eq!(code, Some(1), "{output:?}");
    assert!(text.contains(words), "{words}: {text}");
}

/// Signed by the key: it runs. Unsigned, or signed by another key: the page's two causes.
fn page_01_key(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("page_01_key") else { return };
    let ours = Ours { space: node.space() };
    let [signed, unsigned, other] = ["app-signed", "app-unsigned", "app-signed-by-someone-else"]
        .map(|name| ours.space.image(name).push("1"));
    sigstore.sign_by_key(&signed, node.key, &[]);
    sigstore.sign_by_key(&other, node.other_key, &[]);
    let policy =
        ours.adapt(&page("01-key"), &["ghcr.io/kyverno/test-verify-image"], &[node.key.public.as_str()]);
    let root = || Some(sigstore.trusted_root());
    let output = verify(&policy, root(), &signed);
    assert_allowed(&output);
    assert!(said(&output).1.contains(&signed.digest), "pinned: {output:?}");
    assert_denied(&verify(&policy, root(), &unsigned), "check-image/check-image: signature not found");
    assert_denied(&verify(&policy, root(), &other), "check-image/check-image: invalid signature");
}

/// Repository, branch and reviewers are those that the conditions want.
fn page_02_attestation(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("page_02_attestation") else { return };
    let ours = Ours { space: node.space() };
    let review = |branch: &str, reviewer: &str| {
        json!({
            "author": "alice@example.com",
            "repo": {"branch": branch, "type": "git", "uri": "https://git-repo.com/org/app"},
            "reviewers": [reviewer],
        })
    };
    let kind = "https://example.com/CodeReview/v1";
    let policy = ours.adapt(&page("02-attestation"), &["registry.io/org/app"], &[node.key.public.as_str()]);
    for (name, predicate, code) in [
        ("app-reviewed", review("main", "bob@example.com"), 0),
        ("app-branch", review("dev", "bob@example.com"), 1),
        ("app-reviewer", review("main", "eve@example.com"), 1),
    ] {
        let image = ours.space.image(name).push("1");
        sigstore.attest_by_key(&image, node.key, kind, &predicate);
        let output = verify(&policy, Some(sigstore.trusted_root()), &image);
        assert_eq!(output.status.code(), Some(code), "{name}: {output:?}");
        if code == 1 {
            let words = format!("attestation checks failed for {} and predicate {kind}", image.by_tag());
            assert_denied(&output, &words);
        }
    }
    let image = ours.space.image("app-other-key").push("1");
    sigstore.attest_by_key(&image, node.other_key, kind, &review("main", "bob@example.com"));
    assert_denied(&verify(&policy, Some(sigstore.trusted_root()), &image), "invalid attestation");
    let image = ours.space.image("app-without").push("1");
    assert_denied(&verify(&policy, Some(sigstore.trusted_root()), &image), "attestation not found");
}

/// By its certificate, and by the root alone. The page asks for a log entry, which cosign makes for
/// these certificates on the public log only: it is left out here.
fn page_03_and_04_certificates(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("page_03_and_04_certificates") else { return };
    let ours = Ours { space: node.space() };
    let builder = sigstore.certified("uri:https://builder.example/a");
    let other = sigstore.certified("uri:https://builder.example/b");
    let signed = ours.space.image("app").push("signed-cert");
    sigstore.sign_certified(Signer::Cosign2, &signed, &builder, Stamp::None);
    let without_log = "            rekor:\n              ignoreTlog: true\n            ctlog:\n              ignoreSCT: true\n";
    let policy = |name: &str, pems: &[&str]| {
        let pattern = "ghcr.io/kyverno/test-verify-image";
        ours.adapt(&page(name), &[pattern], pems) + without_log
    };
    let [leaf, chain] = [builder.certificate.as_str(), builder.chain.as_str()];
    assert_allowed(&verify(&policy("03-certificate", &[leaf, chain]), None, &signed));
    assert_allowed(&verify(&policy("04-certificate-chain", &[chain]), None, &signed));
    let foreign = policy("03-certificate", &[other.certificate.as_str(), chain]);
    assert_denied(&verify(&foreign, None, &signed), "invalid signature");
}

fn page_05_keyless(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("page_05_keyless") else { return };
    let ours = Ours { space: node.space() };
    let alice = Identity::email("alice@nirmata.com");
    let policy = ours
        .adapt(&page("05-keyless"), &["ghcr.io/kyverno/test-verify-image"], &[])
        .replace("https://accounts.google.com", &sigstore.issuer(&alice));
    let signed = ours.space.image("app").push("signed-keyless");
    sigstore.sign_keyless(Signer::Cosign3, &signed, &alice);
    assert_allowed(&verify(&policy, Some(sigstore.trusted_root()), &signed));
    for other in [Identity::email("alice@example.com"), alice.at_other_issuer()] {
        let image = Ours { space: node.space() };
        let policy = image
            .adapt(&page("05-keyless"), &["ghcr.io/kyverno/test-verify-image"], &[])
            .replace("https://accounts.google.com", &sigstore.issuer(&Identity::email("alice@nirmata.com")));
        let image = image.space.image("app").push("signed-keyless");
        sigstore.sign_keyless(Signer::Cosign3, &image, &other);
        assert_denied(&verify(&policy, Some(sigstore.trusted_root()), &image), "invalid signature");
    }
}

/// With the placeholders filled in, as its reader does.
fn page_06_keyless_workflow(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("page_06_keyless_workflow") else { return };
    let ours = Ours { space: node.space() };
    let workflow = Identity::workflow("org/app", "main");
    let image = ours.space.image("app").push("1");
    sigstore.sign_keyless(Signer::Cosign3, &image, &workflow);
    let policy = |repository: &str| {
        let fragment: String = page("06-keyless-workflow")
            .replace("https://github.com/{{ORGANIZATION}}/{{REPOSITORY}}", "https://git.example/org/app")
            .replace("{{WORKFLOW}}@refs/tags/*", "build.yml@refs/heads/*")
            .replace("https://token.actions.githubusercontent.com", &sigstore.issuer(&workflow))
            .replace("{{WORKFLOW_COMMIT_SHA}}", "\"*\"")
            .replace("{{WORKFLOW_NAME}}", "\"*\"")
            .replace("{{WORKFLOW_ORGANIZATION}}/{{WORKFLOW_REPOSITORY}}", repository)
            .lines()
            .map(|line| format!("      {line}\n"))
            .collect();
        let head = rule_of("12-ignore-tlog");
        let head = head.split("    verifyImages:").next().expect("a head").to_owned();
        format!(
            "{head}    verifyImages:\n    - imageReferences: ['{}*']\n{fragment}",
            ours.space.repository("")
        )
    };
    assert_allowed(&verify(&policy("org/app"), Some(sigstore.trusted_root()), &image));
    assert_denied(&verify(&policy("org/other"), Some(sigstore.trusted_root()), &image), "invalid signature");
}

fn page_07_annotations(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("page_07_annotations") else { return };
    let ours = Ours { space: node.space() };
    let policy = ours.adapt(&page("07-annotations"), &["ghcr.io/myorg/myimage"], &[node.key.public.as_str()]);
    for (name, value, code) in [("app-original", "original", 0), ("app-copy", "copy", 1)] {
        let image = ours.space.image(name).push("1");
        sigstore.sign_by_key(&image, node.key, &[("sig", value)]);
        let output = verify(&policy, Some(sigstore.trusted_root()), &image);
        assert_eq!(output.status.code(), Some(code), "{name}: {output:?}");
    }
}

/// Signatures are looked for in the repository that the policy names, and nowhere else.
fn page_11_signature_repository(node: &Node) {
    let ours = Ours { space: node.space() };
    let signatures = ours.space.repository("signatures");
    let [signed, beside] = ["app-signed", "app-beside"].map(|name| ours.space.image(name).push("1"));
    node.key.sign_legacy(&signed, &[], Some(&signatures));
    node.key.sign_legacy(&beside, &[], None);
    let policy = ours
        .adapt(
            &rule_of("11-repository"),
            &["ghcr.io/kyverno/test-verify-image"],
            &[node.key.public.as_str()],
        )
        .replace("registry.io/signatures", &signatures)
        // What cosign signs offline has no log entry.
        + "            rekor:\n              ignoreTlog: true\n";
    assert_allowed(&verify(&policy, None, &signed));
    assert_denied(&verify(&policy, None, &beside), "signature not found");
}

fn page_12_and_13_without_log_and_sct(node: &Node) {
    for name in ["12-ignore-tlog", "13-ignore-sct"] {
        let ours = Ours { space: node.space() };
        let policy = ours.adapt(&rule_of(name), &[], &[node.key.public.as_str()]);
        let [signed, unsigned] = ["app-signed", "app-unsigned"].map(|name| ours.space.image(name).push("1"));
        node.key.sign(&signed);
        assert_allowed(&verify(&policy, None, &signed));
        assert_denied(&verify(&policy, None, &unsigned), "signature not found");
    }
}

/// The log's key is in the policy: no other trust is needed, and a signature that is in no log, or in
/// another one, does not count.
fn page_14_own_log_and_certificate_log(node: &Node) {
    let Some(sigstore) = PrivateSigstore::available("page_14_own_log_and_certificate_log") else { return };
    let ours = Ours { space: node.space() };
    let (log, certificates) = (sigstore.pem("rekor"), sigstore.pem("ct"));
    let policy = |log: &str| {
        ours.adapt(
            &rule_of("14-rekor-and-ct-keys"),
            &[],
            &[node.key.public.as_str(), log, certificates.as_str()],
        )
    };
    let logged = ours.space.image("app").push("1");
    sigstore.sign_by_key(&logged, node.key, &[]);
    assert_allowed(&verify(&policy(&log), None, &logged));
    assert_denied(&verify(&policy(&node.other_key.public), None, &logged), "invalid signature");
    let silent = ours.space.image("app-silent").push("1");
    node.key.sign(&silent);
    assert_denied(&verify(&policy(&log), None, &silent), "invalid signature");
}

/// `pullgate apply` of a policy to a resource.
fn apply(policy: &str, resource: &str, root: Option<PathBuf>) -> Output {
    let folder = folder();
    let (policies, resources) = (folder.join("policy.yaml"), folder.join("resource.yaml"));
    fs::write(&policies, policy).expect("a policy file");
    fs::write(&resources, resource).expect("a resource file");
    let mut command = Command::new(gate::binary());
    command.arg("apply").arg("-p").arg(policies).arg("-r").arg(resources).env_remove("DOCKER_CONFIG");
    if let Some(root) = root {
        let config = folder.join("config.yaml");
        fs::write(
            &config,
            format!("policy: {{paths: [{}]}}\ntrust: {{root: {}}}\n", folder.display(), root.display()),
        )
        .expect("a config file");
        command.arg("--config").arg(config);
    }
    command.output().expect("pullgate")
}

/// The signed and the unsigned image of a space, as steps of a resource made of each.
fn signed_and_unsigned(node: &Node, sigstore: &PrivateSigstore) -> [(Image, i32); 2] {
    let space = node.space();
    let [signed, unsigned] = ["app-signed", "app-unsigned"].map(|name| space.image(name).push("1"));
    sigstore.sign_by_key(&signed, node.key, &[]);
    [(signed, 0), (unsigned, 1)]
}

fn page_15_tekton_task(node: &Node) {
    tekton(node, "page_15_tekton_task", "15-tekton-task", |image| {
        json!({
            "apiVersion": "tekton.dev/v1beta1", "kind": "TaskRun", "metadata": {"name": "build"},
            "status": {"taskSpec": {"steps": [{"name": "compile", "image": image}]}},
        })
    });
}

fn page_16_tekton_bundle(node: &Node) {
    tekton(node, "page_16_tekton_bundle", "16-tekton-bundle", |image| {
        json!({
            "apiVersion": "tekton.dev/v1beta1", "kind": "PipelineRun", "metadata": {"name": "build"},
            "spec": {"pipelineRef": {"name": "build", "bundle": image}},
        })
    });
}

/// The page's policy passes a resource that names a signed image, and no other.
fn tekton(node: &Node, test: &str, name: &str, resource: impl Fn(&str) -> Value) {
    let Some(sigstore) = PrivateSigstore::available(test) else { return };
    let policy = Ours { space: node.space() }.adapt(&page(name), &[], &[node.key.public.as_str()]);
    for (image, code) in signed_and_unsigned(node, sigstore) {
        let resource = resource(&image.by_tag()).to_string();
        let output = apply(&policy, &resource, Some(sigstore.trusted_root()));
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}

/// The prefix of the URL is taken off before the image is looked at.
fn page_17_and_18_data_volume(node: &Node) {
    let ours = Ours { space: node.space() };
    let [signed, unsigned] = ["app-signed", "app-unsigned"].map(|name| ours.space.image(name).push("1"));
    node.key.sign(&signed);
    let attestors =
        page("12-ignore-tlog").replace("- '*'", "- '*'\n  mutateDigest: false\n  verifyDigest: false");
    let rule: String = format!("{}{attestors}", page("18-datavolume-extractor"))
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    let head = rule_of("18-datavolume-extractor");
    let head = head.split("    imageExtractors:").next().expect("a head").to_owned();
    let policy = ours.adapt(&format!("{head}{rule}"), &[], &[node.key.public.as_str()]);
    for (image, code) in [(&signed, 0), (&unsigned, 1)] {
        let resource = page("17-datavolume-resource")
            .replace("kubevirt/fedora-cloud-registry-disk-demo", &image.by_tag());
        let output = apply(&policy, &resource, None);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}
