//! What is warned of, word for word, with the line in a policy as people write it; and what is not.

use std::sync::Arc;

use super::*;
use crate::policy::load::{Compatibility, LoadOptions, OnlineRekor, PolicySource, RootSource};
use crate::policy::tests::KEY;
use crate::policy::{PolicySet, Severity};
use crate::sigstore::TrustRoot;

/// Fields of the entry, from line 18 on.
const HEAD: &str = "\
apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata: {name: p}
spec:
  validationFailureAction: Enforce
  validationFailureActionOverrides:
  - action: Audit
    namespaces: [team-*, 'OVERRIDE']
  rules:
  - name: r
    match:
      any:
      - resources:
          kinds: [Pod]
          namespaces: ['MATCH']
    verifyImages:
    - type: Cosign
";

fn with(fields: &str, strict: bool) -> Vec<String> {
    let key = KEY.trim().replace('\n', "\\n");
    let fields =
        fields.replace("$KEYS", &format!("{{keys: {{publicKeys: \"{key}\", rekor: {{ignoreTlog: true}}}}}}"));
    load(&format!("{}{fields}", HEAD.replace("OVERRIDE", "a").replace("MATCH", "b-?")), strict)
}

fn load(text: &str, strict: bool) -> Vec<String> {
    let options = LoadOptions {
        compatibility: if strict { Compatibility::Strict } else { Compatibility::Default },
        trust_root: RootSource::Ready(Arc::new(TrustRoot::public_good().unwrap())),
        online_rekor: OnlineRekor::Never,
        now: std::time::SystemTime::UNIX_EPOCH,
    };
    let source = PolicySource { file: "p.yaml".into(), text: text.to_owned() };
    let remarks = match PolicySet::load(&[source], &options) {
        Ok(loaded) => loaded.notices,
        Err(errors) => errors,
    };
    remarks
        .iter()
        .filter(|remark| remark.severity != Severity::Notice)
        .map(|remark| remark.diagnostic().replace("p/r: verifyImages[0]", "…"))
        .collect()
}

const ATTESTORS: &str = "      attestors: [{entries: [$KEYS]}]\n";

#[test]
fn a_plain_policy_is_not_warned_of() {
    let plain = format!("      imageReferences: ['registry.test/a:*']\n{ATTESTORS}");
    assert_eq!(with(&plain, false), Vec::<String>::new());
}

#[test]
fn q7_a_pattern_that_a_digest_avoids_is_warned_of_where_it_stands() {
    let fields = format!(
        "      imageReferences:\n      - 'registry.test/a*'\n      - 'registry.test/a:*'\n{ATTESTORS}"
    );
    assert_eq!(
        with(&fields, true),
        [
            "p.yaml:20: warning: …: imageReferences `registry.test/a:*` does not fit a reference by digest under compatibility: strict, as upstream, so naming the digest avoids the rule; add `registry.test/a@*`"
        ]
    );
}

#[test]
fn counts_that_mean_all_or_too_many() {
    let fields = |count: i64| {
        format!(
            "      imageReferences: ['*']\n      attestors:\n      - entries: [$KEYS]\n        count: {count}\n"
        )
    };
    assert_eq!(
        with(&fields(0), false),
        [
            "p.yaml:21: warning: ….attestors[0]: count is 0, which means every one of its entries, as upstream; take it out, or say how many"
        ]
    );
    assert_eq!(
        with(&fields(2), false),
        ["p.yaml:21: error: ….attestors[0]: Count cannot exceed length of entries, nor be negative"]
    );
    assert_eq!(with(&fields(1), false), Vec::<String>::new());
}

#[test]
fn attestors_that_trust_anyone() {
    let fields = "      imageReferences: ['*']
      attestors:
      - entries:
        - keyless: {rekor: {url: 'https://rekor.sigstore.dev'}}
        - keyless: {rekor: {url: 'https://rekor.sigstore.dev'}, issuer: a, subjectRegExp: b}
      attestations:
      - type: t
";
    assert_eq!(
        with(fields, false),
        [
            "p.yaml:21: warning: ….attestors[0].entries[0]: keyless names neither subject nor issuer: anybody at all may have signed; add issuer and subject",
            "p.yaml:22: warning: ….attestors[0].entries[1]: keyless.subjectRegExp is not anchored, so it fits wherever it occurs in a longer text; begin it with ^ and end it with $",
            "p.yaml:24: warning: ….attestations[0]: it has no attestors, so anybody's attestation with a certificate of the trust root and a log entry counts; add attestors",
        ]
    );
}

#[test]
fn an_entry_that_asks_for_nothing() {
    assert_eq!(
        with("      imageReferences:\n      - '*'\n", false),
        [
            "p.yaml:19: warning: …: no attestors and no attestations, so every image that it covers is refused; add attestors"
        ]
    );
    assert_eq!(
        with("      imageReferences: ['*']\n      required: false\n", false),
        [
            "p.yaml:18: warning: …: no attestors and no attestations, and required is false, so it verifies nothing; add attestors"
        ]
    );
}

#[test]
fn enforce_refuses_every_tag_without_mutate_digest() {
    let fields = |patterns: &str, more: &str| {
        format!("      imageReferences: [{patterns}]\n      mutateDigest: false\n{more}{ATTESTORS}")
    };
    let warning = "p.yaml:19: warning: …: mutateDigest is false and verifyDigest is true, so every pull by a tag is refused, however it is signed; take mutateDigest out, or set verifyDigest to false";
    assert_eq!(with(&fields("'*'", ""), false), [warning]);
    assert_eq!(with(&fields("'a@*', 'a:*'", ""), false), [warning]);
    for (patterns, more) in
        [("'a@*'", ""), ("'*'", "      verifyDigest: false\n"), ("'*'", "      failureAction: Audit\n")]
    {
        assert_eq!(with(&fields(patterns, more), false), Vec::<String>::new(), "{patterns} {more}");
    }
}

#[test]
fn names_that_no_pull_gives_a_value() {
    let rule = |precondition: &str| {
        HEAD.replace("OVERRIDE", "a").replace("MATCH", "b").replace(
            "    verifyImages:\n",
            &format!("    context: [{{name: v, variable: {{value: x}}}}]\n    preconditions:\n      all: [{{key: '{precondition}', operator: Equals, value: '{{{{ v }}}}'}}]\n    verifyImages:\n"),
        )
    };
    let key = KEY.trim().replace('\n', "\\n");
    let entry = |who: &str| {
        format!(
            "      imageReferences: ['*']\n      attestors: [{{entries: [{{keys: {{publicKeys: \"{key}\", rekor: {{ignoreTlog: true}}}}, annotations: {{a: '{who}'}}}}]}}]\n"
        )
    };
    for known in [
        "{{ image.name }}",
        "{{ images.containers }}",
        "{{ request.namespace }}",
        "{{ v }}",
        "{{ lookup(@, image.name) }}",
    ] {
        assert_eq!(load(&format!("{}{}", rule(known), entry(known)), false), Vec::<String>::new(), "{known}");
    }
    assert_eq!(
        load(&format!("{}{}", rule("{{ element.a }}"), entry("{{ target || image.tag }}")), false),
        [
            "p.yaml:10: warning: p/r: preconditions read `element`, which has no value on a node; known are image, images, request and the names of the rule's context",
            "p.yaml:10: warning: …: fields read `target`, which has no value on a node; known are image, images, request and the names of the rule's context",
        ]
    );
}

#[test]
fn namespaces_that_no_pod_can_have() {
    let text = |matched: &str, overridden: &str| {
        let head = HEAD.replace("MATCH", matched).replace("OVERRIDE", overridden);
        format!("{head}      imageReferences: ['*']\n      required: false\n")
    };
    assert_eq!(
        load(&text("Team", "team_a"), false),
        [
            "p.yaml:8: warning: policy `p`: validationFailureActionOverrides.namespaces: no namespace can have the name `team_a`, so it fits no pod; a name is at most 63 of a-z, 0-9 and -, and neither begins nor ends with -",
            "p.yaml:15: warning: p/r: match.resources.namespaces: no namespace can have the name `Team`, so it fits no pod; a name is at most 63 of a-z, 0-9 and -, and neither begins nor ends with -",
            "p.yaml:18: warning: …: no attestors and no attestations, and required is false, so it verifies nothing; add attestors",
        ]
    );
}

#[test]
fn which_names_a_namespace_can_have() {
    let longest = "a".repeat(63);
    for name in ["*", "?", "a", "0", "team-*", "*-a", "a-?-*", longest.as_str(), &format!("*{longest}*")] {
        assert!(fits_some_namespace(name), "{name}");
    }
    for name in ["", "-", "-*", "*-", "A*", "a.b", "a_b", "{{a}}", "!a", "ä", &format!("?{longest}")] {
        assert!(!fits_some_namespace(name), "{name}");
    }
}
