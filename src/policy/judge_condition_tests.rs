//! Judging the conditions of attestations, and `validate.deny`, with statements that are really signed.

use super::*;
use crate::policy::jmespath::{Budget, Clock};
use crate::policy::judge::judge_within;

/// An `.att` layer by a key with this predicate.
fn layer(signer: &Signer, kind: &str, predicate: &Value) -> SignatureEvidence {
    SignatureEvidence::AttestationLayer {
        envelope: signer.envelope(&said(kind, predicate)).into_bytes(),
        annotations: [("predicateType".to_owned(), kind.to_owned())].into(),
    }
}

fn said(kind: &str, predicate: &Value) -> String {
    test_signer::attestation(&image(), kind, &predicate.to_string())
}

fn bundled(signer: &Signer, kind: &str, predicate: &Value) -> SignatureEvidence {
    SignatureEvidence::Bundle { json: signer.bundle(&said(kind, predicate)).to_string().into_bytes() }
}

fn layers(found: Vec<SignatureEvidence>) -> Evidence {
    evidence(vec![], found, vec![])
}

fn condition(key: &str, operator: &str, value: Value) -> Value {
    json!({ "key": key, "operator": operator, "value": value, "message": format!("{key} is not {value}").replace("{{", "").replace("}}", "") })
}

fn equals(key: &str, value: Value) -> Value {
    json!([{ "all": [condition(key, "Equals", value)] }])
}

fn of(kind: &str, signer: &Signer, more: Value) -> Value {
    let mut attestation = json!({ "type": kind, "attestors": [{ "entries": [key(signer)] }] });
    attestation.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    attestation
}

fn attesting(attestations: Value) -> Arc<Entry> {
    entry(json!({ "attestations": attestations }))
}

fn conditional(signer: &Signer, conditions: Value) -> Arc<Entry> {
    attesting(json!([of(SBOM, signer, json!({ "conditions": conditions }))]))
}

fn detail(entry: &Entry, evidence: &Evidence) -> String {
    let denied = denial(judged(entry, evidence, day()));
    assert_eq!(denied.reason, DenialReason::ConditionFailed);
    denied.detail
}

const FAILED: &str = "image attestations verification failed, verifiedCount: 0, requiredCount: 1, error: .attestations[0].attestors[0].entries[0].keys: ";

#[test]
fn conditions_decide_over_the_predicate() {
    let signer = Signer::p256();
    let found = layers(vec![layer(&signer, SBOM, &json!({ "a": 1, "list": ["x"], "text": "t" }))]);
    let verdict = |conditions: Value| judged(&conditional(&signer, conditions), &found, day());
    for holds in [
        equals("{{ a }}", json!(1)),
        equals("{{ text }}", json!("t")),
        equals("{{ list }}", json!(["x"])),
        equals("{{ none || 'n' }}", json!("n")),
        equals("{{ image.name }}:{{ image.tag }}", json!("app:1")),
        json!([]),
        json!([{ "any": [condition("{{ a }}", "Equals", json!(2)), condition("{{ a }}", "Equals", json!(1))] }]),
    ] {
        assert_eq!(reason(&verdict(holds.clone())), None, "{holds}");
    }
    let denied = denial(verdict(equals("{{ a }}", json!(2))));
    assert_eq!(denied.reason, DenialReason::ConditionFailed);
    assert_eq!(denied.cause, "attestation conditions not met");
    assert_eq!(
        denied.detail,
        format!(
            "{FAILED}attestation checks failed for registry.test/app:1 and predicate {SBOM}:  a  is not 2"
        )
    );
    // Every block and every one of `all`; the messages of those that fail.
    let several = json!([
        { "all": [condition("{{ a }}", "Equals", json!(1))] },
        { "any": [condition("{{ a }}", "Equals", json!(3)), condition("{{ a }}", "Equals", json!(4))],
          "all": [condition("{{ text }}", "Equals", json!("t")), condition("{{ text }}", "Equals", json!("u"))] },
    ]);
    assert!(
        detail(&conditional(&signer, several), &found)
            .ends_with(":  a  is not 3;  a  is not 4;  text  is not \"u\"")
    );
}

#[test]
fn conditions_that_cannot_be_evaluated_are_not_met() {
    let signer = Signer::p256();
    let found = layers(vec![layer(&signer, SBOM, &json!({ "a": 1 }))]);
    let unknown = "failed to check attestations: failed to substitute variables in attestation conditions: failed to resolve b.c at path /0/any/1/value: JMESPath query failed: Unknown key \"b\" in path";
    // One variable without a value fails all, even where it would not be looked at.
    let lazy = json!([{ "any": [condition("{{ a }}", "Equals", json!(1)), condition("{{ a }}", "Equals", json!("{{ b.c }}"))] }]);
    assert_eq!(detail(&conditional(&signer, lazy), &found), format!("{FAILED}{unknown}"));
    let message =
        json!([{ "all": [{ "key": "{{ a }}", "operator": "Equals", "value": 1, "message": "{{ b.c }}" }] }]);
    assert!(
        detail(&conditional(&signer, message), &found)
            .ends_with("at path /0/all/0/message: JMESPath query failed: Unknown key \"b\" in path")
    );
    let number =
        json!([{ "all": [{ "key": "{{ a }}", "operator": "Equals", "value": 1, "message": "{{ a }}" }] }]);
    assert!(
        detail(&conditional(&signer, number), &found)
            .ends_with("the message of condition [0].all[0] does not become a string")
    );
    // What a node does not know has no value.
    for path in [
        "request.userInfo.username",
        "request.oldObject",
        "request.object.spec.nodeName",
        "request.namespace",
    ] {
        let entry = conditional(&signer, equals(&format!("{{{{ {path} }}}}"), json!("x")));
        assert!(detail(&entry, &found).contains("Unknown key"), "{path}");
    }
}

#[test]
fn every_statement_of_the_attestor_must_meet_the_conditions() {
    let (signer, other) = (Signer::p256(), Signer::p256());
    let entry = conditional(&signer, equals("{{ a }}", json!(1)));
    let good = || layer(&signer, SBOM, &json!({ "a": 1 }));
    let bad = || layer(&signer, SBOM, &json!({ "a": 2 }));
    for failing in [vec![bad()], vec![bad(), good()], vec![good(), bad()], vec![good(), good(), bad()]] {
        assert_eq!(reason(&judged(&entry, &layers(failing), day())), Some(DenialReason::ConditionFailed));
    }
    // Of another type, by somebody else, about another image, or no attestation at all: not the attestor's.
    let elsewhere = test_signer::attestation(&Digest::of(b"other"), SBOM, "{\"a\":2}");
    let elsewhere = SignatureEvidence::AttestationLayer {
        envelope: signer.envelope(&elsewhere).into_bytes(),
        annotations: [].into(),
    };
    let garbage = SignatureEvidence::AttestationLayer { envelope: b"{}".to_vec(), annotations: [].into() };
    let others = vec![
        layer(&signer, OTHER, &json!({ "a": 2 })),
        layer(&other, SBOM, &json!({ "a": 2 })),
        elsewhere,
        garbage,
        good(),
    ];
    assert_eq!(reason(&judged(&entry, &layers(others.clone()), day())), None);
    let foreign = others.into_iter().take(4).collect();
    assert_eq!(reason(&judged(&entry, &layers(foreign), day())), Some(DenialReason::AttestationNotFound));
    // The tag decides where it has statements of the type; bundles where it has none.
    let both = |tag: Vec<_>, bundle: &Value| evidence(vec![], tag, vec![bundled(&signer, SBOM, bundle)]);
    assert_eq!(reason(&judged(&entry, &both(vec![good()], &json!({ "a": 2 })), day())), None);
    let denied = both(vec![bad()], &json!({ "a": 1 }));
    assert_eq!(reason(&judged(&entry, &denied, day())), Some(DenialReason::ConditionFailed));
    let none = vec![layer(&other, SBOM, &json!({ "a": 2 }))];
    assert_eq!(reason(&judged(&entry, &both(none.clone(), &json!({ "a": 1 })), day())), None);
    let denied = both(none, &json!({ "a": 2 }));
    assert_eq!(reason(&judged(&entry, &denied, day())), Some(DenialReason::ConditionFailed));
    let mut unasked = layers(vec![bad()]);
    unasked.bundles.clear();
    assert_eq!(reason(&judged(&entry, &unasked, day())), Some(DenialReason::ConditionFailed));
}

#[test]
fn a_label_of_another_type_waits() {
    let signer = Signer::p256();
    let entry = conditional(&signer, equals("{{ a }}", json!(1)));
    let mut mislabelled = layer(&signer, SBOM, &json!({ "a": 2 }));
    annotations_of(&mut mislabelled).insert("predicateType".into(), OTHER.into());
    let good = layer(&signer, SBOM, &json!({ "a": 1 }));
    assert_eq!(reason(&judged(&entry, &layers(vec![mislabelled.clone(), good]), day())), None);
    let alone = layers(vec![mislabelled]);
    assert_eq!(reason(&judged(&entry, &alone, day())), Some(DenialReason::ConditionFailed));
}

#[test]
fn an_identity_that_does_not_fit_fails_a_layer_and_is_passed_over_in_a_bundle() {
    let (world, stranger) = (World::new(), Signer::p256());
    let keyless = with(world.keyless(), "/rekor", json!({ "url": "https://log.test", "ignoreTlog": true }));
    let entry = |forms: &str| {
        let attestors = json!([{ "entries": [{ "keyless": keyless }] }]);
        entry(json!({ "type": forms, "attestations": [{ "type": SBOM, "attestors": attestors }] }))
    };
    let certificate = |subject: &str| {
        let leaf = world.leaf_of(subject);
        let mut layer = layer(&world.signer, SBOM, &json!({}));
        annotations_of(&mut layer).insert("dev.sigstore.cosign/certificate".into(), leaf);
        annotations_of(&mut layer)
            .insert("dev.sigstore.cosign/chain".into(), world.intermediate() + &world.root());
        layer
    };
    let (own, other) = (certificate(SUBJECT), certificate("somebody@else.test"));
    let verdict = |layers: Vec<SignatureEvidence>| judged(&entry("Cosign"), &self::layers(layers), at(TIME));
    assert_eq!(reason(&verdict(vec![own.clone()])), None);
    for found in [vec![own.clone(), other.clone()], vec![other.clone(), own.clone()]] {
        let denied = denial(verdict(found));
        assert_eq!(denied.reason, DenialReason::IdentityMismatch);
        assert!(
            denied.detail.contains(": subject mismatch: expected build@example.test, received"),
            "{}",
            denied.detail
        );
    }
    // Of another type, or by no certificate of the authorities, it does not matter.
    let mut foreign = layer(&world.signer, OTHER, &json!({}));
    annotations_of(&mut foreign).extend(annotations_of(&mut other.clone()).clone());
    assert_eq!(reason(&verdict(vec![foreign, layer(&stranger, SBOM, &json!({})), own])), None);
}

#[test]
fn a_named_predicate_is_known_to_later_conditions() {
    let signer = Signer::p256();
    let found = layers(vec![
        layer(&signer, SBOM, &json!({ "id": "first", "made": 1 })),
        layer(&signer, OTHER, &json!({ "of": "first", "id": "second" })),
    ]);
    let named =
        |name: &str, conditions: Value| of(SBOM, &signer, json!({ "name": name, "conditions": conditions }));
    let verdict = |attestations: Value| reason(&judged(&attesting(attestations), &found, day()));
    let later = |conditions: Value| of(OTHER, &signer, json!({ "conditions": conditions }));
    // Its own conditions know it too, and a name is stronger than a field of the predicate.
    let own = equals("{{ sbom.made }}", json!(1));
    assert_eq!(verdict(json!([named("sbom", own), later(equals("{{ sbom.id }}", json!("{{ of }}")))])), None);
    assert_eq!(verdict(json!([named("id", json!([])), later(equals("{{ id.id }}", json!("first")))])), None);
    let failed = Some(DenialReason::ConditionFailed);
    assert_eq!(
        verdict(json!([named("sbom", json!([])), later(equals("{{ sbom.id }}", json!("second")))])),
        failed
    );
    assert_eq!(
        verdict(json!([later(equals("{{ sbom.id }}", json!("first"))), named("sbom", json!([]))])),
        failed
    );
    // Without a name it is known by none.
    let unnamed = of(SBOM, &signer, json!({}));
    assert_eq!(
        verdict(json!([unnamed, later(equals("{{ sbom.id || made || 'none' }}", json!("none")))])),
        None
    );
}

#[test]
fn q14_a_name_stands_for_the_first_statement_of_the_type_by_the_attestor_that_satisfied() {
    let (signer, other) = (Signer::p256(), Signer::p256());
    let found = layers(vec![
        layer(&signer, OTHER, &json!({ "by": "other type" })),
        layer(&other, SBOM, &json!({ "by": "other", "ok": false })),
        layer(&signer, SBOM, &json!({ "by": "first", "ok": true })),
        layer(&signer, SBOM, &json!({ "by": "second", "ok": true })),
    ]);
    let verdict = |keys: Vec<Value>, count: u32, conditions: Value, by: Value| {
        let set = json!([{ "count": count, "entries": keys }]);
        let first = json!({ "type": SBOM, "name": "sbom", "attestors": set, "conditions": conditions });
        let second = of(OTHER, &signer, json!({ "conditions": equals("{{ sbom.by }}", by) }));
        reason(&judged(&attesting(json!([first, second])), &found, day()))
    };
    let (own, others) = (key(&signer), key(&other));
    assert_eq!(verdict(vec![own.clone()], 1, json!([]), json!("first")), None);
    // The first attestor's statement does not meet the conditions: it stands for nothing.
    let ok = equals("{{ ok }}", json!(true));
    assert_eq!(verdict(vec![others.clone(), own.clone()], 1, ok, json!("first")), None);
    // Of several satisfied attestors the last one counts, as upstream.
    assert_eq!(verdict(vec![own.clone(), others.clone()], 2, json!([]), json!("other")), None);
    assert_eq!(verdict(vec![others, own], 2, json!([]), json!("first")), None);
}

#[test]
fn q18_variables_in_a_predicate_are_text() {
    let signer = Signer::p256();
    let predicate = json!({ "a": "{{ request.object.metadata.name }}", "b": "{{ image.tag }}", "c": ["{{ image.tag }}"] });
    let found = layers(vec![layer(&signer, SBOM, &predicate)]);
    let verdict =
        |key: &str, value: Value| reason(&judged(&conditional(&signer, equals(key, value)), &found, day()));
    assert_eq!(verdict("{{ a }}", json!("\\{{ request.object.metadata.name }}")), None);
    assert_eq!(verdict("{{ b }}", json!("1")), Some(DenialReason::ConditionFailed));
    assert_eq!(verdict("x{{ b }}", json!("x\\{{ image.tag }}")), None);
    assert_eq!(verdict("{{ c }}", json!(["\\{{ image.tag }}"])), None);
    assert_eq!(verdict("{{ '{{ b }}' }}", json!("\\{{ image.tag }}")), None);
}

#[test]
fn q19_a_predicate_does_not_stand_in_for_the_image_or_the_request() {
    let signer = Signer::p256();
    let forged = json!({ "registry": "trusted.test", "tag": "good", "operation": "UPDATE", "userInfo": {}, "containers": {} });
    let predicate = json!({ "image": forged, "images": forged, "request": forged, "own": 1 });
    let found = layers(vec![layer(&signer, SBOM, &predicate)]);
    let verdict =
        |key: &str, value: Value| reason(&judged(&conditional(&signer, equals(key, value)), &found, day()));
    assert_eq!(verdict("{{ own }}", json!(1)), None);
    for (key, real, forged) in [
        ("{{ image.registry }}", "registry.test", "trusted.test"),
        ("{{ image.tag }}", "1", "good"),
        ("{{ images.containers.container.registry }}", "registry.test", "trusted.test"),
        ("{{ request.operation }}", "CREATE", "UPDATE"),
        ("{{ request.userInfo || 'none' }}", "none", "{}"),
        ("{{ images.registry || 'none' }}", "none", "trusted.test"),
    ] {
        assert_eq!(verdict(key, json!(real)), None, "{key}");
        assert_eq!(verdict(key, json!(forged)), Some(DenialReason::ConditionFailed), "{key}");
    }
}

#[test]
fn a_predicate_must_be_an_object() {
    let signer = Signer::p256();
    let odd = || layer(&signer, SBOM, &json!(["a"]));
    let good = || layer(&signer, SBOM, &json!({ "a": 1 }));
    let plain = attesting(json!([of(SBOM, &signer, json!({}))]));
    let denied = denial(judged(&plain, &layers(vec![odd(), layer(&signer, SBOM, &json!(null))]), day()));
    assert_eq!(denied.reason, DenialReason::AttestationInvalid);
    assert_eq!(denied.detail, format!("{FAILED}predicate not found in any statement"));
    assert_eq!(reason(&judged(&plain, &layers(vec![odd(), good()]), day())), None);
    let entry = conditional(&signer, equals("{{ a }}", json!(1)));
    assert_eq!(
        detail(&entry, &layers(vec![good(), odd()])),
        format!("{FAILED}failed to check attestations: failed to extract predicate from statement")
    );
    // The name is that of the first object.
    let named = of(SBOM, &signer, json!({ "name": "n" }));
    let later = of(OTHER, &signer, json!({ "conditions": equals("{{ n.a }}", json!(1)) }));
    let found = layers(vec![odd(), good(), layer(&signer, OTHER, &json!({}))]);
    assert_eq!(reason(&judged(&attesting(json!([named, later])), &found, day())), None);
}

#[test]
fn q15_the_data_of_a_custom_predicate_stays_a_text() {
    let signer = Signer::p256();
    let custom = json!({ "Data": "{\"foo\":{\"bar\":\"baz\"}}\n", "Timestamp": "2022-04-26T13:20:10Z" });
    let kind = "https://cosign.sigstore.dev/attestation/v1";
    let found = layers(vec![layer(&signer, kind, &custom)]);
    let verdict = |key: &str, value: &str| {
        let attestation = of(kind, &signer, json!({ "conditions": equals(key, json!(value)) }));
        reason(&judged(&attesting(json!([attestation])), &found, day()))
    };
    assert_eq!(verdict("{{ Data.foo.bar || 'text' }}", "text"), None);
    assert_eq!(verdict("{{ Data.foo.bar || 'text' }}", "baz"), Some(DenialReason::ConditionFailed));
}

#[test]
fn a_budget_that_is_spent_is_a_denial() {
    let signer = Signer::p256();
    let found =
        layers(vec![layer(&signer, SBOM, &json!({ "list": vec![json!({ "a": "x".repeat(50) }); 200] }))]);
    let entry =
        conditional(&signer, json!([{ "all": [condition("{{ list[*].a }}", "NotEquals", json!([]))] }]));
    let pull = Pull { reference: &reference(), digest: &image(), pod: &PodFacts::default() };
    let within = |steps, output| judge_within(&entry, pull, &found, day(), Budget::limited(steps, output)).0;
    assert_eq!(reason(&within(10_000, 1 << 20)), None);
    let denied = denial(within(100, 1 << 20));
    assert_eq!(denied.reason, DenialReason::ConditionFailed);
    assert!(
        denied.detail.ends_with("JMESPath query failed: it takes more than 100 steps"),
        "{}",
        denied.detail
    );
    let denied = denial(within(10_000, 1000));
    assert!(
        denied.detail.ends_with("JMESPath query failed: it makes more than 1000 bytes"),
        "{}",
        denied.detail
    );
    // It is one for all conditions of the verdict, and comparing is charged too.
    let times = |count| {
        let conditions =
            json!([{ "all": vec![condition("{{ list[*].a }}", "NotEquals", json!([])); count] }]);
        let entry = conditional(&signer, conditions);
        reason(&judge_within(&entry, pull, &found, day(), Budget::limited(3000, 1 << 20)).0)
    };
    assert_eq!((times(1), times(3)), (None, Some(DenialReason::ConditionFailed)));
    let compared = json!([{ "all": [condition("{{ list[*].a }}", "AnyIn", json!(["{{ list[*].a }}", "{{ list[*].a }}"]))] }]);
    let entry = conditional(&signer, compared);
    let denied = denial(judge_within(&entry, pull, &found, day(), Budget::limited(3000, 1 << 20)).0);
    assert!(
        denied.detail.contains("condition [0].all[0]: JMESPath query failed: it takes more than 3000 steps"),
        "{}",
        denied.detail
    );
}

#[test]
fn a_predicate_of_seven_mebibytes_is_judged() {
    let signer = Signer::p256();
    // Base64 in the envelope makes ten of it.
    let packages: Vec<Value> = (0..50_000)
        .map(|at| json!({ "name": format!("package-{at}"), "version": "1.0.0", "supplier": "x".repeat(90) }))
        .collect();
    let predicate = json!({ "packages": packages, "made": "by" });
    assert!(predicate.to_string().len() > 7_000_000);
    let found = layers(vec![layer(&signer, SBOM, &predicate)]);
    let named = of(
        SBOM,
        &signer,
        json!({
            "name": "sbom",
            "conditions": [{ "all": [
                condition("{{ packages[?name=='package-49999'].version | [0] }}", "Equals", json!("1.0.0")),
                condition("{{ length(packages) }}", "Equals", json!(50_000)),
                condition("{{ made }}", "Equals", json!("by")),
            ] }],
        }),
    );
    let (verdict, explanation) = explained(&attesting(json!([named])), &found, day());
    assert_eq!(reason(&verdict), None);
    assert!(serde_json::to_string(&explanation).unwrap().len() < 5000);
}

#[test]
fn what_could_not_be_reached_may_be_what_conditions_read() {
    let signer = Signer::p256();
    let elsewhere =
        json!([{ "entries": [with(key(&signer), "/repository", json!("registry.test/elsewhere"))] }]);
    let fault = Fault::unanswered(FaultReason::RegistryUnreachable, "away");
    let mut found = layers(vec![layer(&signer, OTHER, &json!({ "a": 1 }))]);
    let away = Repository::parse("registry.test/elsewhere").unwrap();
    found.attestations.insert(away.clone(), Lookup::Unreachable(fault.clone()));
    found.bundles.insert(away, Lookup::Absent);
    let entry = |name: Value, conditions: Value| {
        let first = with(json!({ "type": SBOM, "attestors": elsewhere }), "/name", name);
        attesting(json!([first, of(OTHER, &signer, json!({ "conditions": conditions }))]))
    };
    let undecided = EntryVerdict::Undecided(fault);
    let reading = equals("{{ sbom.id || 'none' }}", json!("x"));
    assert_eq!(judged(&entry(json!("sbom"), reading.clone()), &found, day()), undecided);
    assert_eq!(judged(&entry(json!("sbom"), equals("{{ a }}", json!(1))), &found, day()), undecided);
    // Without a name there is nothing that they could read.
    let denied = judged(&entry(Value::Null, reading), &found, day());
    assert_eq!(reason(&denied), Some(DenialReason::ConditionFailed));
}

#[test]
fn not_all_verified_is_not_enough() {
    let signer = Signer::p256();
    let entry = conditional(&signer, equals("{{ a }}", json!(1)));
    let good = layer(&signer, SBOM, &json!({ "a": 1 }));
    assert_eq!(reason(&judged(&entry, &layers(vec![good.clone(); 100]), day())), None);
    let denied = denial(judged(&entry, &layers(vec![good.clone(); 101]), day()));
    assert_eq!(denied.reason, DenialReason::LimitExceeded);
    // What is proven to be of another type does not count.
    let mut many = vec![bundled(&signer, OTHER, &json!({ "a": 2 })); 150];
    many.push(bundled(&signer, SBOM, &json!({ "a": 1 })));
    assert_eq!(reason(&judged(&entry, &evidence(vec![], vec![], many), day())), None);
}

// `validate.deny`.

fn denying(attestations: Value, validate: Value) -> Arc<Entry> {
    entry(json!({ "attestations": attestations, "validate": validate }))
}

#[test]
fn deny_is_asked_once_all_attestations_are_satisfied() {
    let signer = Signer::p256();
    let found = layers(vec![
        layer(&signer, SBOM, &json!({ "made": "2023" })),
        layer(&signer, OTHER, &json!({ "scanned": "2022" })),
    ]);
    let attestations =
        json!([of(SBOM, &signer, json!({ "name": "sbom" })), of(OTHER, &signer, json!({ "name": "scan" })),]);
    let deny = |conditions: Value| json!({ "message": "image {{ image.name }} is old", "deny": { "conditions": conditions } });
    let verdict = |conditions: Value| judged(&denying(attestations.clone(), deny(conditions)), &found, day());
    let older = condition("{{ scan.scanned }}", "NotEquals", json!("{{ sbom.made }}"));
    let same = condition("{{ scan.scanned }}", "Equals", json!("{{ sbom.made }}"));
    let denied = denial(verdict(json!({ "all": [older] })));
    assert_eq!((denied.reason, denied.cause.as_str()), (DenialReason::ConditionFailed, "validation failed"));
    assert_eq!(
        denied.detail,
        "validation in verifyImages failed: image app is old;  scan.scanned  is not \" sbom.made \""
    );
    for allowing in [
        json!({ "all": [same] }),
        json!({ "any": [same] }),
        json!([same]),
        json!({ "all": [older, same] }),
        json!({ "any": [] }),
    ] {
        assert_eq!(reason(&verdict(allowing.clone())), None, "{allowing}");
    }
    for denying in [json!([older]), json!({ "any": [same, older] }), json!({})] {
        assert_eq!(reason(&verdict(denying.clone())), Some(DenialReason::ConditionFailed), "{denying}");
    }
    // Conditions are reached one by one, so what comes behind one that decides needs no value.
    let unknown = condition("{{ scan.none }}", "Equals", json!(1));
    assert_eq!(reason(&verdict(json!({ "all": [same, unknown] }))), None);
    let failing = denial(verdict(json!({ "any": [unknown, older] })));
    assert_eq!(
        failing.detail,
        "validation in verifyImages failed: failed to check deny conditions: failed to substitute variables in condition key: failed to resolve scan.none at path /0/any/0/key: JMESPath query failed: Unknown key \"none\" in path"
    );
    // No predicate is judged here, so no field of one can be read.
    assert_eq!(reason(&verdict(json!([condition("{{ made || 'x' }}", "Equals", json!("2023"))]))), None);
    // An attestation that is not satisfied comes first.
    let missing = denying(json!([of("https://none.test", &signer, json!({}))]), deny(json!([older])));
    assert_eq!(reason(&judged(&missing, &found, day())), Some(DenialReason::AttestationNotFound));
}

#[test]
fn deny_without_words_says_so() {
    let signer = Signer::p256();
    let found = layers(vec![layer(&signer, SBOM, &json!({}))]);
    let bare = json!({ "deny": { "conditions": [{ "key": "a", "operator": "Equals", "value": "a" }] } });
    let denied = denial(judged(&denying(json!([of(SBOM, &signer, json!({}))]), bare), &found, day()));
    assert_eq!(denied.detail, "validation in verifyImages failed: validation error: imageVerify failed");
}

#[test]
fn q20_deny_is_not_asked_without_attestations() {
    let signer = Signer::p256();
    let always = json!({ "deny": { "conditions": [{ "key": "a", "operator": "Equals", "value": "a" }] } });
    let entry = entry(json!({ "attestors": [{ "entries": [key(&signer)] }], "validate": always }));
    let found = signed(signer.layer(&test_signer::claim(&image(), "null")));
    assert_eq!(reason(&judged(&entry, &found, day())), None);
}

// Time.

#[test]
fn d8_a_verdict_that_reads_the_clock_holds_an_hour() {
    let signer = Signer::p256();
    let found = layers(vec![layer(&signer, SBOM, &json!({}))]);
    let until = |clock| {
        let entry = attesting(json!([of(SBOM, &signer, json!({}))]));
        let entry = Entry { clock, ..Entry::clone(&entry) };
        match judged(&entry, &found, day()) {
            EntryVerdict::Satisfied(satisfied) => satisfied.holds_until(),
            other @ (EntryVerdict::Denied(_) | EntryVerdict::Undecided(_) | EntryVerdict::NeedsBundles) => {
                panic!("{other:?}")
            }
        }
    };
    assert_eq!(until(Clock::Read), Some(day() + std::time::Duration::from_secs(3600)));
    assert_eq!(until(Clock::Ignored), None);
}

#[test]
fn times_are_those_of_the_verdict() {
    let signer = Signer::p256();
    let key = "{{ time_since('', '{{ at }}', '') }}";
    let recent = json!([{ "all": [{ "key": key, "operator": "LessThanOrEquals", "value": "24h" }] }]);
    let verdict = |at: &str| {
        let found = layers(vec![layer(&signer, SBOM, &json!({ "at": at }))]);
        reason(&judged(&conditional(&signer, recent.clone()), &found, day()))
    };
    // The tests' day is 2023-11-15T22:13:20Z.
    assert_eq!(verdict("2023-11-14T22:13:20Z"), None);
    assert_eq!(verdict("2023-11-14T22:13:19Z"), Some(DenialReason::ConditionFailed));
    assert_eq!(verdict("yesterday"), Some(DenialReason::ConditionFailed));
}

// Explanations.

#[test]
fn explanations_show_each_statement_and_what_was_compared() {
    let signer = Signer::p256();
    let long = "x".repeat(5000);
    let conditions = json!([{ "all": [
        condition("{{ a }}", "Equals", json!("{{ a }}")),
        condition("{{ b.{{ a }} }}", "Equals", json!(1)),
    ] }]);
    let deny = json!({ "deny": { "conditions": [condition("{{ s.a }}", "NotEquals", json!("y"))] } });
    let entry = denying(json!([of(SBOM, &signer, json!({ "name": "s", "conditions": conditions }))]), deny);
    let predicate = |b: u32| json!({ "a": "y", "b": { "y": b }, "long": long });
    let tree = |found: Vec<SignatureEvidence>| {
        serde_json::to_value(explained(&entry, &layers(found), day()).1).unwrap()
    };
    let checked = |place: &str, key: &str, operator: &str, value: &str, outcome: &str| json!({ "condition": place, "key": key, "operator": operator, "value": value, "outcome": outcome });
    let found = tree(vec![layer(&signer, SBOM, &predicate(1)), layer(&signer, SBOM, &predicate(2))]);
    let mut statements = found["attestors"][0]["statements"].clone();
    for conditions in statements.as_array_mut().unwrap() {
        for condition in conditions["conditions"].as_array_mut().unwrap() {
            assert!(condition.as_object_mut().unwrap().remove("message").is_some());
        }
    }
    let first = checked("[0].all[0]", "\"y\"", "Equals", "\"y\"", "holds");
    assert_eq!(
        statements,
        json!([
            { "outcome": "holds", "conditions": [first, checked("[0].all[1]", "1", "Equals", "1", "holds")] },
            { "outcome": "fails",
              "cause": format!("attestation checks failed for registry.test/app:1 and predicate {SBOM}:  b. a   is not 1"),
              "conditions": [first, checked("[0].all[1]", "2", "Equals", "1", "fails")] },
        ])
    );
    assert_eq!(found["denies"], Value::Null);
    let passed = tree(vec![layer(&signer, SBOM, &predicate(1))]);
    let mut denies = passed["denies"][0].clone();
    denies.as_object_mut().unwrap().remove("message");
    assert_eq!(denies, checked("[0].all[0]", "\"y\"", "NotEquals", "\"y\"", "fails"));
}
