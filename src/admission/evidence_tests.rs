//! What is kept of evidence, and how it is read back.

use super::*;

#[test]
fn c6_what_is_stored_is_what_was_found() {
    let [one, two] = ["a.io/b", "a.io/signatures"].map(|name| Repository::parse(name).unwrap());
    let annotations = BTreeMap::from([("k\n".to_owned(), "line\nbreak \u{e9}".to_owned())]);
    let layer = |payload: &[u8]| SignatureEvidence::CosignLayer {
        payload: payload.to_vec(),
        annotations: annotations.clone(),
    };
    let attestation = SignatureEvidence::AttestationLayer {
        envelope: b"\n\xff\x00{}\n".to_vec(),
        annotations: BTreeMap::new(),
    };
    let bundle = |json: &[u8]| SignatureEvidence::Bundle { json: json.to_vec() };
    let mut evidence = Evidence::default();
    evidence.legacy.insert(one.clone(), Lookup::Found(vec![layer(b""), layer(b"payload")]));
    evidence.attestations.insert(two.clone(), Lookup::Found(vec![attestation.clone()]));
    let mixed = vec![bundle(b"1"), bundle(b"2"), layer(b"artifact"), attestation];
    evidence.bundles.insert(one.clone(), Lookup::Found(mixed));
    assert_eq!(decoded(&encoded(&evidence)), evidence);

    evidence.legacy.insert(two, Lookup::Unreachable(Fault::new(FaultReason::Timeout, "m")));
    evidence.attestations.insert(one.clone(), Lookup::Absent);
    let back = decoded(&encoded(&evidence));
    assert_eq!(back.legacy.keys().collect::<Vec<_>>(), [&one]);
    assert_eq!(back.attestations.len(), 1);
}

#[test]
fn what_two_hosts_have_counts_once() {
    let repository = Repository::parse("a.io/b").unwrap();
    let bundle = |json: &[u8]| SignatureEvidence::Bundle { json: json.to_vec() };
    let mut found = BTreeMap::from([(repository.clone(), Lookup::Found(vec![bundle(b"1"), bundle(b"2")]))]);
    extend(&mut found, &repository, vec![bundle(b"2"), bundle(b"3")]);
    assert_eq!(found[&repository], Lookup::Found(vec![bundle(b"1"), bundle(b"2"), bundle(b"3")]));
}

#[test]
fn c6_a_piece_that_does_not_decode_is_left_out() {
    let repository = Repository::parse("a.io/b").unwrap();
    let piece = SignatureEvidence::Bundle { json: b"{}".to_vec() };
    let good = encode(Form::Bundles, &repository, &piece).unwrap();
    let line = String::from_utf8(good.clone()).unwrap();
    let odd = [
        Vec::new(),
        b"{}".to_vec(),
        b"{}\n{}".to_vec(),
        line.replace("bundles", "elsewhere").into_bytes(),
        line.replace("\"kind\"", "\"more\":1,\"kind\"").into_bytes(),
    ];
    assert_eq!(decoded(&odd), Evidence::default());
    assert!(!decoded(&[good]).bundles.is_empty());
}
