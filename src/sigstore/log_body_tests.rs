use serde_json::json;

use super::*;
use crate::sigstore::log_entry::Demand;
use crate::sigstore::test_signer::{
    Log, Signer, TIME, Verifier, hashedrekord_v2, intoto, intoto_v2, pem, rekord,
};
use crate::sigstore::test_sigstore::{Instance, Signature};
use crate::sigstore::{Rejection, verify_signature, verify_statement};

/// By whom a signature is.
#[derive(Clone, Copy)]
enum By {
    Key,
    Certificate,
}

/// A signature and its instance.
fn signature(by: By, form: Form) -> (Instance, Signature) {
    let (instance, signer) = (Instance::new(), Signer::p256());
    let certificate = match by {
        By::Key => None,
        By::Certificate => Some(instance.certify(&signer, &Instance::draft())),
    };
    let chain = match (by, form) {
        (By::Key, _) => vec![],
        (By::Certificate, _) => vec![instance.intermediate()],
    };
    let signature = match form {
        Form::Layer => Signature::claim(signer, certificate, chain),
        Form::Attestation | Form::Bundle => {
            let statement = crate::sigstore::test_signer::attestation(
                &crate::sigstore::test_sigstore::image(),
                "https://spdx.dev/Document",
                "{}",
            );
            Signature::statement(signer, certificate, chain, statement)
        }
    };
    (instance, signature)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `.sig`
    Layer,
    /// `.att`
    Attestation,
    Bundle,
}

/// Judges the signature with an entry that has the body which `write` makes of it.
fn judge(
    by: By,
    form: Form,
    (kind, version): (&str, &str),
    write: impl FnOnce(&Signature) -> String,
) -> Result<(), Rejection> {
    let (instance, mut signature) = signature(by, form);
    let body = write(&signature);
    signature.entries = match form {
        Form::Layer | Form::Attestation => vec![instance.log.annotation(&body, TIME)],
        Form::Bundle if version == "0.0.2" && kind == "hashedrekord" => vec![instance.tiles.entry(&body)],
        Form::Bundle => vec![instance.log.entry_of(kind, version, &body, TIME)],
    };
    if version == "0.0.2" && kind == "hashedrekord" {
        signature.stamps = vec![instance.stamp(&signature.signature, TIME)];
    }
    let attestor = match by {
        By::Key => instance.key(&signature.signer),
        By::Certificate => instance.alice(),
    };
    let image = crate::sigstore::test_sigstore::image();
    let now = crate::sigstore::test_pki::at(TIME + 1_000_000);
    match form {
        Form::Layer => verify_signature(&signature.layer(), &image, &attestor, now).map(drop),
        Form::Attestation => verify_statement(&signature.attestation_layer(), &image, &attestor, now)
            .map(drop)
            .map_err(|rejected| rejected.rejection),
        Form::Bundle => verify_statement(&signature.bundle_evidence(), &image, &attestor, now)
            .map(drop)
            .map_err(|rejected| rejected.rejection),
    }
}

/// The body that is right for the kind.
fn body(kind: (&str, &str), signature: &Signature) -> String {
    let (envelope, payload) = (signature.envelope.as_bytes(), signature.payload.as_bytes());
    match kind {
        HASHEDREKORD => signature.hashedrekord(),
        REKORD => rekord(payload, &signature.signature, &signature.verifier()),
        HASHEDREKORD_V2 => signature.hashedrekord_v2(),
        DSSE => signature.dsse(),
        INTOTO => intoto(envelope, &signature.verifier()),
        INTOTO_V2 => intoto_v2(envelope, payload, &signature.signature, &signature.verifier()),
        _ => unreachable!(),
    }
}

const HASHEDREKORD: (&str, &str) = ("hashedrekord", "0.0.1");
const REKORD: (&str, &str) = ("rekord", "0.0.1");
const HASHEDREKORD_V2: (&str, &str) = ("hashedrekord", "0.0.2");
const DSSE: (&str, &str) = ("dsse", "0.0.1");
const INTOTO: (&str, &str) = ("intoto", "0.0.1");
const INTOTO_V2: (&str, &str) = ("intoto", "0.0.2");

/// Every kind of entry in every form in which it is found.
const PLACES: [(Form, (&str, &str)); 8] = [
    (Form::Layer, HASHEDREKORD),
    (Form::Layer, REKORD),
    (Form::Bundle, HASHEDREKORD_V2),
    (Form::Bundle, DSSE),
    (Form::Bundle, INTOTO_V2),
    (Form::Attestation, DSSE),
    (Form::Attestation, INTOTO),
    (Form::Attestation, INTOTO_V2),
];

/// Judges every place with a body in which one text is replaced.
fn judge_replaced(
    by: By,
    replace: impl Fn(&Signature) -> Vec<(String, String)>,
) -> Vec<Result<(), Rejection>> {
    let judge_one = |(form, kind): (Form, (&'static str, &'static str))| {
        judge(by, form, kind, |signature| {
            let good = body(kind, signature);
            let mut changed = good.clone();
            for (from, to) in replace(signature) {
                changed = changed.replace(&from, &to);
            }
            changed
        })
    };
    PLACES.into_iter().map(judge_one).collect()
}

fn sha(bytes: &[u8]) -> [u8; 32] {
    sha256(bytes).try_into().unwrap()
}

#[test]
fn accepts_each_kind_of_entry_by_a_key_and_by_a_certificate() {
    for by in [By::Key, By::Certificate] {
        assert_eq!(judge_replaced(by, |_| vec![]), vec![Ok(()); 8]);
    }
}

#[test]
fn pitfall_01_denies_an_entry_about_another_payload() {
    let other = |signature: &Signature| {
        let payload = signature.payload.as_bytes();
        let texts = |bytes: &[u8]| (hex::encode(sha(bytes)), STANDARD.encode(sha(bytes)));
        let (hex_payload, _) = texts(payload);
        let (_, base64_signed) = texts(&signature.signed());
        let (hex_envelope, _) = texts(signature.envelope.as_bytes());
        let (hex_other, base64_other) = texts(b"other");
        let mut replaced = vec![(hex_payload, hex_other.clone()), (base64_signed, base64_other)];
        // intoto 0.0.1 knows nothing but the envelope.
        replaced.push((hex_envelope, hex_other));
        replaced
    };
    for by in [By::Key, By::Certificate] {
        assert_eq!(judge_replaced(by, other), vec![Err(Rejection::LogEntryForeign); 8]);
    }
}

#[test]
fn pitfall_01_denies_an_entry_about_another_payload_in_the_same_envelope_hash() {
    let other = |signature: &Signature| {
        vec![(hex::encode(sha(signature.payload.as_bytes())), hex::encode(sha(b"other")))]
    };
    for (form, kind) in [(Form::Attestation, DSSE), (Form::Attestation, INTOTO_V2), (Form::Bundle, DSSE)] {
        let result = judge(By::Key, form, kind, |signature| {
            let [(from, to)] = other(signature).try_into().unwrap();
            body(kind, signature).replace(&from, &to)
        });
        assert_eq!(result, Err(Rejection::LogEntryForeign));
    }
}

#[test]
fn pitfall_01_denies_an_entry_about_another_envelope_where_its_bytes_are_known() {
    let judge_envelope = |form, kind| {
        judge(By::Key, form, kind, |signature| {
            let envelope = hex::encode(sha(signature.envelope.as_bytes()));
            body(kind, signature).replace(&envelope, &hex::encode(sha(b"other")))
        })
    };
    for kind in [DSSE, INTOTO, INTOTO_V2] {
        assert_eq!(judge_envelope(Form::Attestation, kind), Err(Rejection::LogEntryForeign));
    }
    // A bundle stores another JSON than the one that was hashed.
    for kind in [DSSE, INTOTO_V2] {
        assert_eq!(judge_envelope(Form::Bundle, kind), Ok(()));
    }
}

#[test]
fn pitfall_01_denies_an_entry_about_another_signature() {
    // By the same key over the same message: ECDSA signatures differ each time.
    let other = |signature: &Signature| {
        let once = STANDARD.encode(&signature.signature);
        let other = STANDARD.encode(signature.signer.sign(&signature.signed()));
        let twice = (STANDARD.encode(&once), STANDARD.encode(&other));
        vec![(once, other), twice]
    };
    for by in [By::Key, By::Certificate] {
        let mut expected = vec![Err(Rejection::LogEntryForeign); 8];
        // There the signature is within the envelope, which is hashed.
        expected[6] = Ok(());
        assert_eq!(judge_replaced(by, other), expected);
    }
}

#[test]
fn pitfall_01_denies_an_entry_about_another_key() {
    let other = Signer::p256();
    let replace = |signature: &Signature| {
        vec![
            (STANDARD.encode(signature.signer.pem()), STANDARD.encode(other.pem())),
            (STANDARD.encode(&signature.signer.spki), STANDARD.encode(&other.spki)),
        ]
    };
    assert_eq!(judge_replaced(By::Key, replace), vec![Err(Rejection::LogEntryForeign); 8]);
}

#[test]
fn pitfall_01_denies_an_entry_about_another_certificate_of_the_same_key() {
    let replace = |signature: &Signature| {
        // Nobody asks who issued it.
        let other = Instance::new().certify(&signature.signer, &Instance::draft());
        let certificate = signature.certificate.as_ref().unwrap();
        vec![
            (
                STANDARD.encode(pem("CERTIFICATE", certificate.der())),
                STANDARD.encode(pem("CERTIFICATE", other.der())),
            ),
            (STANDARD.encode(certificate.der()), STANDARD.encode(other.der())),
        ]
    };
    assert_eq!(judge_replaced(By::Certificate, replace), vec![Err(Rejection::LogEntryForeign); 8]);
}

#[test]
fn denies_an_entry_about_the_bare_key_of_a_certificate() {
    let replace = |signature: &Signature| {
        let certificate = signature.certificate.as_ref().unwrap();
        vec![(
            STANDARD.encode(pem("CERTIFICATE", certificate.der())),
            STANDARD.encode(signature.signer.pem()),
        )]
    };
    let mut expected = vec![Err(Rejection::LogEntryForeign); 8];
    expected[2] = Ok(());
    assert_eq!(judge_replaced(By::Certificate, replace), expected);
    let result = judge(By::Certificate, Form::Bundle, HASHEDREKORD_V2, |signature| {
        hashedrekord_v2(&signature.signed(), &signature.signature, &Verifier::Key(&signature.signer.spki))
    });
    assert_eq!(result, Err(Rejection::LogEntryForeign));
}

#[test]
fn accepts_an_entry_about_a_certificate_of_the_attestors_key_and_no_other() {
    let logged = |same: bool, (form, kind): (Form, (&'static str, &'static str))| {
        judge(By::Key, form, kind, |signature| {
            let other = Signer::p256();
            let certified = if same { &signature.signer } else { &other };
            let certificate = Instance::new().certify(certified, &Instance::draft());
            let good = body(kind, signature);
            if kind == HASHEDREKORD_V2 {
                let verifier = Verifier::Certificate(certificate.der());
                return hashedrekord_v2(&signature.signed(), &signature.signature, &verifier);
            }
            good.replace(
                &STANDARD.encode(signature.signer.pem()),
                &STANDARD.encode(pem("CERTIFICATE", certificate.der())),
            )
        })
    };
    for place in PLACES {
        assert_eq!(logged(true, place), Ok(()));
        assert_eq!(logged(false, place), Err(Rejection::LogEntryForeign));
    }
}

#[test]
fn denies_an_entry_whose_verifier_cannot_be_read() {
    let two = |signature: &Signature| {
        vec![(STANDARD.encode(signature.verifier()), STANDARD.encode(signature.verifier().repeat(2)))]
    };
    let none = |signature: &Signature| vec![(STANDARD.encode(signature.verifier()), "AAAA".to_owned())];
    let text = |signature: &Signature| vec![(STANDARD.encode(signature.verifier()), "%".to_owned())];
    let mut expected = vec![Err(Rejection::LogEntryMalformed); 8];
    expected[2] = Ok(());
    for by in [By::Key, By::Certificate] {
        assert_eq!(judge_replaced(by, two), expected);
        assert_eq!(judge_replaced(by, none), expected);
        assert_eq!(judge_replaced(by, text), expected);
    }
}

#[test]
fn denies_a_rekor_v2_entry_with_two_verifiers_or_none() {
    let judge_v2 = |from: &'static str, to: &'static str| {
        judge(By::Key, Form::Bundle, HASHEDREKORD_V2, |signature| {
            body(HASHEDREKORD_V2, signature).replace(from, to)
        })
    };
    assert_eq!(judge_v2("publicKey", "other"), Err(Rejection::LogEntryMalformed));
    let two = judge_v2(r#""publicKey":"#, r#""x509Certificate":{"rawBytes":"AAAA"},"publicKey":"#);
    assert_eq!(two, Err(Rejection::LogEntryMalformed));
    assert_eq!(judge_v2("SHA2_256", "SHA2_999"), Err(Rejection::LogEntryMalformed));
    assert_eq!(judge_v2("SHA2_256", "SHA2_512"), Err(Rejection::LogEntryForeign));
}

#[test]
fn pitfall_01_denies_an_entry_with_the_hash_of_another_algorithm() {
    for (kind, form) in [(HASHEDREKORD, Form::Layer), (REKORD, Form::Layer), (DSSE, Form::Bundle)] {
        let with = |algorithm: &str| {
            judge(By::Key, form, kind, |signature| {
                let hash = match algorithm {
                    "sha512" => hex::encode(hash(HashAlgorithm::Sha512, signature.payload.as_bytes())),
                    _ => hex::encode(sha(signature.payload.as_bytes())),
                };
                body(kind, signature)
                    .replace("sha256", algorithm)
                    .replace(&hex::encode(sha(signature.payload.as_bytes())), &hash)
            })
        };
        assert_eq!(with("sha512"), Err(Rejection::LogEntryForeign));
        assert_eq!(with("sha1"), Err(Rejection::LogEntryMalformed));
    }
}

#[test]
fn denies_a_rekord_entry_of_another_format() {
    let result = judge(By::Key, Form::Layer, REKORD, |signature| {
        body(REKORD, signature).replace(r#""format":"x509""#, r#""format":"pgp""#)
    });
    assert_eq!(result, Err(Rejection::LogEntryMalformed));
}

#[test]
fn pitfall_12_denies_an_entry_about_more_or_less_than_one_signature() {
    for (form, kind) in [(Form::Bundle, DSSE), (Form::Bundle, INTOTO_V2)] {
        for count in [0, 2] {
            let result = judge(By::Key, form, kind, |signature| {
                let mut body: Value = serde_json::from_str(&body(kind, signature)).unwrap();
                let list =
                    if kind == DSSE { "/spec/signatures" } else { "/spec/content/envelope/signatures" };
                let list = body.pointer_mut(list).unwrap().as_array_mut().unwrap();
                let one = list.remove(0);
                list.extend(std::iter::repeat_n(one, count));
                body.to_string()
            });
            assert_eq!(result, Err(Rejection::LogEntryForeign));
        }
    }
}

#[test]
fn denies_an_intoto_entry_about_another_payload_type() {
    let result = judge(By::Key, Form::Bundle, INTOTO_V2, |signature| {
        body(INTOTO_V2, signature).replace("application/vnd.in-toto+json", "text/plain")
    });
    assert_eq!(result, Err(Rejection::LogEntryForeign));
}

#[test]
fn denies_an_entry_of_a_kind_that_does_not_fit() {
    for (form, kind) in [
        (Form::Layer, DSSE),
        (Form::Layer, INTOTO),
        (Form::Layer, INTOTO_V2),
        (Form::Attestation, HASHEDREKORD),
        (Form::Attestation, REKORD),
        (Form::Bundle, HASHEDREKORD),
        // The hash of this entry is over a JSON that a bundle does not hold.
        (Form::Bundle, INTOTO),
    ] {
        let result = judge(By::Key, form, kind, |signature| body(kind, signature));
        assert_eq!(result, Err(Rejection::LogUnsupported));
    }
}

#[test]
fn denies_an_entry_without_a_part() {
    for place in PLACES {
        let (form, kind) = place;
        let result = judge(By::Key, form, kind, |signature| {
            let mut body: Value = serde_json::from_str(&body(kind, signature)).unwrap();
            body["spec"] = json!({});
            body.to_string()
        });
        assert_eq!(result, Err(Rejection::LogEntryMalformed));
    }
}

#[test]
fn binds_a_prehashed_signature_to_its_own_hash() {
    let logged = |scheme, algorithm| {
        let signed = Signed::Bytes(b"message".as_slice().into());
        let (signer, key) = (Signer::ed25519(), Signer::p256().key());
        let signature = signer.sign(b"message");
        let logged = Logged {
            signed: &signed,
            envelope: None,
            signature: &signature,
            scheme,
            key: &key,
            certificate: None,
        };
        logged.hashes_to(algorithm, &hash(algorithm, b"message"))
    };
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    assert!(logged(Scheme::Ed25519ph, Sha512));
    assert!(!logged(Scheme::Ed25519ph, Sha256));
    assert!(logged(Scheme::Ed25519, Sha256) && logged(Scheme::Ed25519, Sha512));
    assert!(logged(Scheme::RsaPss(Sha384), Sha384) && !logged(Scheme::RsaPss(Sha384), Sha256));
}

#[test]
fn reads_a_bundles_entry_only_as_the_kind_that_the_bundle_says() {
    let (_, signature) = signature(By::Key, Form::Bundle);
    let body = signature.dsse();
    let read = |kind, version| {
        Entry::of_bundle(&Log::new().entry_of(kind, version, &body, TIME), Demand::Proof)
            .map(|entry| entry.kind)
    };
    assert_eq!(read("dsse", "0.0.1"), Ok(Kind::Dsse));
    assert_eq!(read("intoto", "0.0.1"), Err(Rejection::LogEntryMalformed));
    assert_eq!(read("dsse", "0.0.2"), Err(Rejection::LogEntryMalformed));
}
