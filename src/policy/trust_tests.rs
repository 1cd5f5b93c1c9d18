//! Loading what a policy says about trust: where each part comes from, and what `check` warns of.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::entry::{Attestor, RootUse, Signer};
use super::*;
use crate::sigstore::test_pki::{CODE_SIGNING, Draft, TIME_STAMPING, at, usages};
use crate::sigstore::test_signer::{self, TIME, pem};
use crate::sigstore::{LogTrust, SctTrust, TrustRoot};

fn key() -> String {
    test_signer::Signer::p256().pem()
}

fn options() -> LoadOptions {
    LoadOptions {
        compatibility: Compatibility::Default,
        trust_root: RootSource::Ready(Arc::new(TrustRoot::public_good().unwrap())),
        online_rekor: OnlineRekor::Never,
        now: at(TIME),
    }
}

/// YAML of a policy whose entry has these fields; JSON alone would be all on one line.
fn policy(entry: &Value) -> String {
    let mut fields = json!({ "imageReferences": ["*"] });
    fields.as_object_mut().unwrap().extend(entry.as_object().unwrap().clone());
    let text = serde_json::to_string_pretty(&fields).unwrap().replace('\n', "\n        ");
    format!(
        "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{name: p}}\nspec:\n  validationFailureAction: Enforce\n  rules:\n    - name: r\n      match: {{any: [{{resources: {{kinds: [Pod]}}}}]}}\n      verifyImages:\n      - {text}\n"
    )
}

fn try_load(entry: &Value, options: &LoadOptions) -> Result<Loaded, Vec<Remark>> {
    PolicySet::load(&[PolicySource { file: PathBuf::from("p.yaml"), text: policy(entry) }], options)
}

fn load_with(entry: &Value, options: &LoadOptions) -> Loaded {
    try_load(entry, options).unwrap()
}

fn the_entry(loaded: &Loaded) -> Arc<Entry> {
    Arc::clone(&loaded.set.policies[0].rules[0].entries[0])
}

fn one(attestor: Value) -> Value {
    json!({ "attestors": [{ "entries": [attestor] }] })
}

fn signer_of(entry: &Entry) -> &Signer {
    let sets = if entry.sets.is_empty() { &entry.attestations[0].sets } else { &entry.sets };
    match &sets[0].attestors[0] {
        Attestor::Signer(signer) => signer,
        Attestor::Set(_) => panic!("a set"),
    }
}

/// Warnings and notices, as `severity: message` from the field on.
fn remarks(entry: &Value, options: &LoadOptions) -> Vec<String> {
    let loaded = load_with(entry, options);
    let text = |remark: &Remark| {
        assert!(remark.line > 9, "{remark}: a line inside the entry");
        format!("{:?}: {}", remark.severity, remark.message.trim_start_matches("p/r: verifyImages[0]"))
    };
    loaded.notices.iter().map(text).collect()
}

/// A self-signed certificate that ends at `end`.
fn root(end: u64) -> String {
    let signer = test_signer::Signer::p256();
    pem("CERTIFICATE", &Draft::authority("root").valid(0, end).der(&signer, "root", &signer))
}

fn leaf(usage: &str) -> String {
    let signer = test_signer::Signer::p256();
    let draft = Draft::new("leaf").with(usages(usage == TIME_STAMPING, &[usage])).valid(0, TIME * 2);
    pem("CERTIFICATE", &draft.der(&signer, "root", &signer))
}

fn keyless(more: Value) -> Value {
    let mut keyless = json!({
        "subject": "a@b.test", "issuer": "https://issuer.test", "rekor": { "url": "https://rekor.sigstore.dev" },
    });
    keyless.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    one(json!({ "keyless": keyless }))
}

#[test]
fn trust_is_the_roots_or_the_policys_own_and_never_both() {
    let trust_root = TrustRoot::public_good().unwrap();
    let (own_roots, own_log, own_sct) = (root(TIME * 2), key(), key());
    let tsa = leaf(TIME_STAMPING) + &root(TIME * 2);
    // authorities, log, SCT, timestamps: whether each is the trust root's.
    for (more, expected) in [
        (json!({}), [true, true, true, true]),
        (json!({ "roots": own_roots }), [false, true, true, true]),
        (json!({ "rekor": { "url": "x", "pubkey": own_log } }), [true, false, true, true]),
        (json!({ "ctlog": { "pubkey": own_sct } }), [true, true, false, true]),
        (json!({ "ctlog": { "tsaCertChain": tsa } }), [true, true, true, false]),
        (
            json!({ "roots": own_roots, "rekor": { "url": "x", "pubkey": own_log } }),
            [false, false, true, false],
        ),
        (
            json!({ "roots": own_roots, "rekor": { "url": "x", "pubkey": own_log }, "ctlog": { "ignoreSCT": true } }),
            [false, false, false, false],
        ),
    ] {
        let entry = the_entry(&load_with(&keyless(more.clone()), &options()));
        let signer = signer_of(&entry);
        let attestor = signer.attestor.as_ref().unwrap();
        let crate::sigstore::Signer::Identity(identity) = &attestor.signer else { panic!("{attestor:?}") };
        let logs = match &attestor.log {
            LogTrust::Ignored => None,
            LogTrust::Required(logs) => Some(logs.fingerprint()),
        };
        let scts = match &identity.sct {
            SctTrust::Ignored => None,
            SctTrust::Required(logs) => Some(logs.fingerprint()),
        };
        let found = [
            identity.authorities.fingerprint() == trust_root.authorities().fingerprint(),
            logs == Some(trust_root.logs().fingerprint()),
            scts == Some(trust_root.certificate_logs().fingerprint()),
            attestor.timestamps.fingerprint() == trust_root.timestamps().fingerprint(),
        ];
        assert_eq!(found, expected, "{more}");
        let needed = expected.contains(&true);
        assert_eq!(signer.root == RootUse::Needed, needed, "{more}");
    }
}

#[test]
fn o3_what_needs_no_trust_root_never_sees_it() {
    let away = LoadOptions { trust_root: RootSource::Unavailable("away".into()), ..options() };
    let own = json!({ "roots": root(TIME * 2), "rekor": { "url": "x", "pubkey": key() }, "ctlog": { "pubkey": key() } });
    let cert = leaf(CODE_SIGNING);
    for (entry, needed) in [
        (one(json!({ "keys": { "publicKeys": key(), "rekor": { "ignoreTlog": true } } })), false),
        (one(json!({ "keys": { "publicKeys": key(), "rekor": { "pubkey": key() } } })), false),
        (one(json!({ "keys": { "publicKeys": key() } })), true),
        (one(json!({ "certificates": { "cert": cert, "rekor": { "ignoreTlog": true } } })), false),
        (
            one(
                json!({ "certificates": { "cert": cert, "certChain": root(TIME * 2), "rekor": { "ignoreTlog": true } } }),
            ),
            true,
        ),
        (keyless(own), false),
        (keyless(json!({})), true),
        (json!({ "attestations": [{ "type": "x" }] }), true),
        (json!({ "key": key() }), true),
    ] {
        let loaded = load_with(&entry, &away);
        assert_eq!(loaded.set.uses_trust_root(), needed, "{entry}");
        assert_eq!(signer_of(&the_entry(&loaded)).attestor.is_err(), needed, "{entry}");
        let ready = load_with(&entry, &options());
        let prints = |loaded: &Loaded| {
            let entry = the_entry(loaded);
            (entry.fingerprint(), entry.trust_fingerprint(), loaded.set.fingerprint())
        };
        assert_eq!(prints(&loaded) == prints(&ready), !needed, "c1: {entry}");
    }
}

#[test]
fn c1_every_field_about_trust_is_in_the_fingerprint() {
    let print = |entry: &Value| the_entry(&load_with(entry, &options())).fingerprint();
    let all = [
        keyless(json!({})),
        keyless(json!({ "subject": "c@b.test" })),
        keyless(json!({ "subjectRegExp": "^a@b[.]test$" })),
        keyless(json!({ "issuer": "https://other.test" })),
        keyless(json!({ "issuerRegExp": "^https://issuer[.]test$" })),
        keyless(json!({ "additionalExtensions": { "githubWorkflowRef": "x" } })),
        keyless(json!({ "roots": root(TIME * 2) })),
        keyless(json!({ "rekor": { "url": "https://rekor.sigstore.dev", "ignoreTlog": true } })),
        keyless(json!({ "rekor": { "url": "https://rekor.sigstore.dev", "pubkey": key() } })),
        keyless(json!({ "ctlog": { "ignoreSCT": true } })),
        keyless(json!({ "ctlog": { "pubkey": key() } })),
        keyless(json!({ "ctlog": { "tsaCertChain": leaf(TIME_STAMPING) } })),
        one(json!({ "certificates": { "cert": leaf(CODE_SIGNING) } })),
        one(json!({ "certificates": { "cert": leaf(CODE_SIGNING), "certChain": root(TIME * 2) } })),
        one(json!({ "certificates": { "certChain": root(TIME * 2) } })),
        json!({ "attestations": [{ "type": "x" }] }),
        json!({ "attestations": [{ "type": "y" }] }),
        json!({ "attestations": [{ "type": "x" }, { "type": "y" }] }),
        json!({ "attestations": [{ "type": "x" }], "roots": root(TIME * 2) }),
        json!({ "attestations": [{ "type": "x" }], "cosignOCI11": true }),
    ];
    let prints: BTreeSet<_> = all.iter().map(print).collect();
    assert_eq!(prints.len(), all.len());
}

#[test]
fn a_look_up_in_a_log_is_allowed_by_the_config_alone() {
    let allowed = LoadOptions { online_rekor: OnlineRekor::Allowed, ..options() };
    let lookups = |entry: &Value, options: &LoadOptions| {
        let lookups = the_entry(&load_with(entry, options)).rekor_lookups();
        lookups.into_iter().map(|lookup| (lookup.url, lookup.key.is_some())).collect::<Vec<_>>()
    };
    let public = "https://rekor.sigstore.dev".to_owned();
    let keys = |rekor: Value| one(json!({ "keys": { "publicKeys": key(), "rekor": rekor } }));
    assert_eq!(lookups(&keyless(json!({})), &options()), []);
    assert_eq!(lookups(&keyless(json!({})), &allowed), [(public.clone(), false)]);
    assert_eq!(
        lookups(&keys(json!({ "url": "http://log.test" })), &allowed),
        [("http://log.test".into(), true)]
    );
    assert_eq!(lookups(&keys(Value::Null), &allowed), [(public.clone(), true)]);
    assert_eq!(lookups(&keys(json!({ "pubkey": key() })), &allowed), []);
    assert_eq!(lookups(&keys(json!({ "url": public, "ignoreTlog": true })), &allowed), []);
    assert_eq!(lookups(&keys(json!({ "url": "log.test" })), &allowed), []);
    assert_eq!(
        remarks(&keys(json!({ "url": "log.test" })), &allowed),
        ["Warning: .attestors[0].entries[0]: rekor.url cannot be asked: it is not an http or https address"]
    );
    assert_eq!(
        remarks(&keys(json!({ "url": "https://log.test" })), &options()),
        [
            "Notice: .attestors[0].entries[0]: rekor.url is not asked: log entries are verified as they come with the signature (trust.onlineRekor: true looks others up)"
        ]
    );
}

#[test]
fn pitfall_14_a_regular_expression_without_anchors_is_a_warning() {
    let allowed = LoadOptions { online_rekor: OnlineRekor::Allowed, ..options() };
    let warned = |field: &str, text: &str| {
        remarks(&keyless(json!({ field: text })), &allowed).iter().any(|remark| {
            remark.starts_with("Warning: ") && remark.contains(&format!("keyless.{field} is not anchored"))
        })
    };
    for field in ["subjectRegExp", "issuerRegExp"] {
        assert!(warned(field, "github[.]com/org"), "{field}");
        assert!(warned(field, "^github[.]com/org"), "{field}");
        assert!(!warned(field, "^https://github[.]com/org/.*$"), "{field}");
    }
}

#[test]
fn whoever_trusts_anybody_is_warned() {
    let allowed = LoadOptions { online_rekor: OnlineRekor::Allowed, ..options() };
    let own = root(TIME * 2);
    for (more, says) in [
        (json!({}), None),
        (json!({ "subject": "" }), Some("names no subject: everybody with an account")),
        (json!({ "subject": "*" }), Some("names no subject: everybody with an account")),
        (
            json!({ "subject": "", "subjectRegExp": "^.*$" }),
            Some("names no subject: everybody with an account"),
        ),
        (json!({ "subject": "", "additionalExtensions": { "githubWorkflowRepository": "a/b" } }), None),
        (json!({ "issuer": "" }), Some("names no issuer")),
        (json!({ "issuer": "", "issuerRegExp": "^https://issuer[.]test$" }), None),
        (json!({ "issuer": "", "roots": own }), None),
        (json!({ "issuer": "", "subject": "" }), Some("neither subject nor issuer: anybody at all")),
        (json!({ "issuer": "*", "subject": "*" }), Some("neither subject nor issuer: anybody at all")),
        (
            json!({ "issuer": "", "subject": "", "roots": own }),
            Some("everybody who has a certificate of its roots"),
        ),
        (
            json!({ "issuer": "", "subject": "", "additionalExtensions": { "githubWorkflowRepository": "a/b" } }),
            Some("any issuer's certificate with these extensions"),
        ),
    ] {
        let found = remarks(&keyless(more.clone()), &allowed);
        let warnings: Vec<_> = found.iter().filter(|remark| remark.starts_with("Warning: ")).collect();
        match says {
            None => assert!(warnings.is_empty(), "{more}: {warnings:?}"),
            Some(says) => {
                assert!(warnings.len() == 1 && warnings[0].contains(says), "{more}: {warnings:?}");
            }
        }
    }
    let warned = |entry: &Value, says: &str| {
        let found = remarks(entry, &allowed);
        assert!(
            found.iter().any(|remark| remark.starts_with("Warning: ") && remark.contains(says)),
            "{found:?}"
        );
    };
    warned(&one(json!({ "certificates": { "certChain": own } })), "certChain without cert trusts everybody");
    warned(&json!({ "attestations": [{ "type": "x" }] }), ".attestations[0]: it has no attestors");
    warned(
        &json!({ "attestations": [{ "type": "x", "attestors": [{ "entries": [
            { "annotations": { "a": "b" }, "keys": { "publicKeys": key() } } ] }] }] }),
        ".attestations[0].attestors[0].entries[0]: annotations on an attestor of an attestation",
    );
}

#[test]
fn an_expired_certificate_is_a_warning() {
    let (good, expired) = (root(TIME * 2), root(TIME - 1));
    let allowed = LoadOptions { online_rekor: OnlineRekor::Allowed, ..options() };
    let says = |entry: &Value| {
        let found = remarks(entry, &allowed);
        found.into_iter().filter(|remark| remark.contains("expired")).collect::<Vec<_>>()
    };
    let warning = |field: &str| {
        vec![format!(
            "Warning: .attestors[0].entries[0]: a certificate of {field} has expired: only signatures that are proven to be older verify"
        )]
    };
    let certificates =
        |cert: &str, chain: &str| one(json!({ "certificates": { "cert": cert, "certChain": chain } }));
    let none: Vec<String> = Vec::new();
    assert_eq!(says(&keyless(json!({ "roots": good }))), none);
    assert_eq!(says(&keyless(json!({ "roots": expired }))), warning("keyless.roots"));
    assert_eq!(says(&certificates(&good, &good)), none);
    assert_eq!(says(&certificates(&expired, &good)), warning("certificates.cert"));
    assert_eq!(says(&certificates(&good, &expired)), warning("certificates.certChain"));
    let alone = says(&one(json!({ "certificates": { "cert": expired } })));
    assert_eq!(
        alone,
        [
            "Warning: .attestors[0].entries[0]: certificates.cert has expired; without certChain only its key is looked at, so it goes on counting; add certChain, or replace it"
        ]
    );
}

#[test]
fn fields_without_effect_are_named() {
    let allowed = LoadOptions { online_rekor: OnlineRekor::Allowed, ..options() };
    let keys = |more: Value| {
        let mut keys = json!({ "publicKeys": key() });
        keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        one(json!({ "keys": keys }))
    };
    let mut algorithm = keyless(json!({}));
    algorithm["attestors"][0]["entries"][0]["signatureAlgorithm"] = json!("sha512");
    let mut bundles = keys(json!({}));
    (bundles["type"], bundles["cosignOCI11"]) = (json!("SigstoreBundle"), json!(true));
    for (entry, says) in [
        (
            keys(json!({ "rekor": { "ignoreTlog": true, "pubkey": key() } })),
            "rekor.pubkey has no effect beside ignoreTlog",
        ),
        (keys(json!({ "rekor": { "pubKey": key() } })), "rekor.pubKey is read as pubkey"),
        (keys(json!({ "ctlog": { "pubkey": key() } })), "ctlog.pubkey means nothing for a key"),
        (keys(json!({ "ctlog": { "ignoreSCT": true } })), "ctlog.ignoreSCT means nothing for a key"),
        (
            keyless(json!({ "ctlog": { "ignoreSCT": true, "pubkey": key() } })),
            "ctlog.pubkey has no effect beside ignoreSCT",
        ),
        (keyless(json!({ "ctlog": { "pubKey": key() } })), "ctlog.pubKey is read as pubkey"),
        (algorithm, "signatureAlgorithm means nothing for keyless"),
        (bundles, "cosignOCI11 has no effect for type SigstoreBundle"),
        (json!({ "attestations": [{ "type": "x" }], "key": key() }), "key is asked of every attestation"),
    ] {
        let found = remarks(&entry, &allowed);
        assert!(
            found.iter().any(|remark| remark.starts_with("Notice: ") && remark.contains(says)),
            "{found:?}"
        );
    }
}

#[test]
fn q3_deprecated_fields_are_asked_of_every_attestation() {
    let entry = json!({ "attestations": [{ "type": "x" }, { "type": "y", "attestors": [{ "entries": [
        { "keys": { "publicKeys": key() } } ] }] }], "key": key() });
    let entry = the_entry(&load_with(&entry, &options()));
    assert!(entry.sets.is_empty(), "as upstream");
    let sets: Vec<_> = entry.attestations.iter().map(|attestation| attestation.sets.len()).collect();
    assert_eq!(sets, [1, 2], "no set of anybody beside it");
    // Without attestations they are an attestor of the image.
    let roots = root(TIME * 2);
    let issuer = json!({ "issuer": "https://issuer.test", "subject": "a@b.test", "roots": roots });
    assert_eq!(the_entry(&load_with(&issuer, &options())).sets.len(), 1);
}

#[test]
fn what_cannot_be_trusted_is_a_load_error() {
    let roots = root(TIME * 2);
    let many = |count: usize| root(TIME * 2).repeat(count);
    let tsa = |chain: String| keyless(json!({ "ctlog": { "tsaCertChain": chain } }));
    let certificates = |chain: &str| one(json!({ "certificates": { "certChain": chain } }));
    for (entry, says) in [
        (keyless(json!({ "subjectRegExp": "(" })), "subjectRegExp"),
        (keyless(json!({ "issuerRegExp": "(" })), "issuerRegExp"),
        (
            keyless(json!({ "additionalExtensions": { "unheard": "of" } })),
            "invalid certificate extension unheard",
        ),
        (keyless(json!({ "subject": "{{ a. }}@b.test" })), "/attestors/0/entries/0/keyless/subject: "),
        (
            keyless(json!({ "roots": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----" })),
            "keyless.roots: ",
        ),
        (keyless(json!({ "roots": "nothing" })), "keyless.roots: "),
        (keyless(json!({ "rekor": { "url": "x", "pubkey": "nothing" } })), "rekor.pubkey: "),
        (
            keyless(json!({ "rekor": { "url": "x", "pubkey": key(), "pubKey": key() } })),
            "rekor.pubkey and rekor.pubKey are both set",
        ),
        (keyless(json!({ "rekor": { "url": "" } })), "An URL is required"),
        (keyless(json!({ "ctlog": { "pubkey": "nothing" } })), "ctlog.pubkey: "),
        (tsa("nothing".into()), "ctlog.tsaCertChain: "),
        (tsa(many(13)), "ctlog.tsaCertChain: "),
        (tsa(leaf(TIME_STAMPING) + &leaf(TIME_STAMPING) + &roots), "holds 2 leaves and 0 intermediates"),
        (certificates(&many(12)), "certificates.certChain: "),
        (json!({ "issuer": "https://x", "roots": "nothing" }), "keyless.roots: "),
        (json!({ "attestations": [{ "type": "x" }], "roots": "nothing" }), "roots: "),
        (json!({ "attestations": [{ "type": "x" }], "annotations": { "a": "b" } }), "annotations need a key"),
        (
            json!({ "attestations": [{ "type": "x", "attestors": [{ "entries": [{}] }] }] }),
            "keys, certificates, keyless, or a nested attestor is required",
        ),
    ] {
        let errors = try_load(&entry, &options()).expect_err(says);
        assert!(errors.iter().all(|error| error.severity == Severity::Error));
        assert!(errors.iter().any(|error| error.message.contains(says)), "{says}: {errors:?}");
    }
}

#[test]
fn the_shipped_examples_load_without_a_warning_or_a_field_that_means_nothing() {
    for (name, text) in [
        ("01", include_str!("../../config/policies/01-one-key.yaml")),
        ("02", include_str!("../../config/policies/02-two-keys.yaml")),
        ("03", include_str!("../../config/policies/03-keyless.yaml")),
        ("04", include_str!("../../config/policies/04-attestation.yaml")),
    ] {
        let source = PolicySource { file: PathBuf::from(name), text: text.to_owned() };
        let loaded = PolicySet::load(&[source], &options()).unwrap();
        let warnings: Vec<_> =
            loaded.notices.iter().filter(|remark| remark.severity != Severity::Notice).collect();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(loaded.set.counts(), Counts { policies: 1, refusing: 0, reporting: 1 }, "{name}");
        let text = text.replace("failureAction: Audit", "failureAction: Enforce");
        let enforced =
            PolicySet::load(&[PolicySource { file: PathBuf::from(name), text }], &options()).unwrap();
        // Keyless needs an address of the log, here and in a cluster, and it is said not to be asked.
        let notices: Vec<_> = enforced
            .notices
            .iter()
            .filter(|notice| !notice.message.contains("rekor.url is not asked"))
            .collect();
        assert!(notices.is_empty(), "{name}: {notices:?}");
    }
}
