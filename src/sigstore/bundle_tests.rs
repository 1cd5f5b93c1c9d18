use serde_json::json;

use super::*;
use crate::oci::Digest;
use crate::sigstore::certificate::CertificateError;
use crate::sigstore::material::PAYLOAD_LIMIT;
use crate::sigstore::test_pki::Draft;
use crate::sigstore::test_signer::{Log, Signer, TIME, dsse_entry, statement};

const VERSIONS: [&str; 4] = [
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
];

/// A bundle with one logged entry, in which one thing is changed.
fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let (signer, log) = (Signer::p256(), Log::new());
    let statement = statement(&Digest::of(b"image"), "{}");
    let mut bundle = signer.bundle(&statement);
    let signature = bundle["dsseEnvelope"]["signatures"][0]["sig"].as_str().unwrap();
    let body = dsse_entry(statement.as_bytes(), signature, &signer.pem());
    bundle["verificationMaterial"]["tlogEntries"] = json!([log.entry("dsse", &body, TIME)]);
    change(&mut bundle);
    bundle
}

fn read_as(chains: Chains, bundle: &Value) -> Result<Material, Rejection> {
    read(bundle.to_string().as_bytes(), PAYLOAD_LIMIT, chains)
}

fn read_changed(change: impl FnOnce(&mut Value)) -> Result<Material, Rejection> {
    read_as(Chains::Specified, &changed(change))
}

/// A leaf, `between` intermediates and their root, as DER in base64.
fn chain(between: usize) -> Vec<Value> {
    let (root, leaf) = (Signer::p256(), Signer::p256());
    let mut chain = vec![Draft::new("leaf").issued(&leaf, "root", &root)];
    let intermediate = Draft::authority("between").issued(&Signer::p256(), "root", &root);
    chain.extend(std::iter::repeat_n(intermediate, between));
    chain.push(Draft::authority("root").self_signed(&root));
    chain.iter().map(|found| json!({"rawBytes": STANDARD.encode(found.der())})).collect()
}

fn with_chain(media_type: &str, certificates: Vec<Value>) -> Value {
    changed(|bundle| {
        bundle["mediaType"] = media_type.into();
        let material = &mut bundle["verificationMaterial"];
        material["publicKey"] = Value::Null;
        material["x509CertificateChain"] = json!({"certificates": certificates});
    })
}

fn field<T>(field: BundleField) -> Result<T, Rejection> {
    Err(Rejection::BundleField(field))
}

#[test]
fn wants_of_every_entry_the_proof_of_the_bundles_version() {
    for (version, promise, proof) in [(0, true, false), (1, false, true), (2, false, true), (3, false, true)]
    {
        let entries = |promised: bool, proven: bool| {
            let read = read_changed(|bundle| {
                bundle["mediaType"] = VERSIONS[version].into();
                let entry = &mut bundle["verificationMaterial"]["tlogEntries"][0];
                if !promised {
                    entry["inclusionPromise"] = Value::Null;
                }
                if !proven {
                    entry["inclusionProof"] = Value::Null;
                }
            });
            read.unwrap().entries.map(|entries| entries.len())
        };
        assert_eq!(entries(true, true), Ok(1), "{version}");
        assert_eq!(entries(promise, proof), Ok(1), "{version}");
        assert_eq!(entries(!promise, !proof), Err(Rejection::LogEntryUnproven), "{version}");
        assert_eq!(entries(false, false), Err(Rejection::LogEntryUnproven), "{version}");
    }
}

#[test]
fn reads_a_chain_before_version_0_3_only_unless_it_is_an_images() {
    let mut chain = chain(1);
    chain.pop();
    for (version, media_type) in VERSIONS.iter().enumerate() {
        let bundle = with_chain(media_type, chain.clone());
        let count = |chains| {
            let certificates = read_as(chains, &bundle)?.certificates?;
            Ok((certificates.leaf.is_some(), certificates.intermediates.len()))
        };
        assert_eq!(count(Chains::Found), Ok((true, 1)), "{media_type}");
        let specified = if version < 2 { Ok((true, 1)) } else { field(BundleField::Certificates) };
        assert_eq!(count(Chains::Specified), specified, "{media_type}");
    }
}

#[test]
fn refuses_a_root_in_a_chain_unless_it_is_an_images_where_it_does_not_count() {
    let bundle = with_chain(VERSIONS[0], chain(1));
    let specified = read_as(Chains::Specified, &bundle).unwrap().certificates.map(drop);
    assert_eq!(specified, field(BundleField::Certificates));
    let found = read_as(Chains::Found, &bundle).unwrap().certificates.unwrap();
    assert_eq!(found.intermediates.len(), 1);
    assert!(found.intermediates.iter().all(|certificate| !certificate.self_issued()));
}

#[test]
fn refuses_an_empty_chain() {
    for chains in [Chains::Specified, Chains::Found] {
        let read = read_as(chains, &with_chain(VERSIONS[0], Vec::new())).map(drop);
        assert_eq!(read, field(BundleField::Certificates));
    }
}

#[test]
fn pitfall_25_refuses_more_than_ten_intermediates_before_any_path_is_built() {
    let read_with = |between| read_as(Chains::Found, &with_chain(VERSIONS[1], chain(between)));
    let intermediates = read_with(10).unwrap().certificates.unwrap().intermediates;
    assert_eq!(intermediates.len(), 10);
    let exceeded = Err(Rejection::LimitExceeded { what: Limited::Intermediates, limit: 10 });
    // Eleven and a root, and more than are read at all.
    for between in [11, 40] {
        let mut chain = chain(between);
        if between == 11 {
            chain.pop();
        }
        assert_eq!(read_as(Chains::Found, &with_chain(VERSIONS[1], chain)).map(drop), exceeded);
    }
    // Roots do not count, and are not read without end.
    let rooted = |roots| {
        let mut chain = chain(0);
        let root = chain.pop().unwrap();
        chain.extend(std::iter::repeat_n(root, roots));
        read_as(Chains::Found, &with_chain(VERSIONS[1], chain)).map(drop)
    };
    assert_eq!((rooted(11), rooted(12)), (Ok(()), exceeded));
}

#[test]
fn a_self_issued_certificate_that_is_no_authority_is_no_root() {
    let mut chain = chain(0);
    let own = Draft::new("own").self_signed(&Signer::p256());
    chain[1] = json!({"rawBytes": STANDARD.encode(own.der())});
    let read = read_as(Chains::Specified, &with_chain(VERSIONS[0], chain)).unwrap();
    assert_eq!(read.certificates.unwrap().intermediates, [own]);
}

#[test]
fn keeps_a_broken_certificate_for_who_looks_at_it() {
    let broken = |certificate: Value| {
        let read = read_changed(|bundle| {
            bundle["verificationMaterial"]["publicKey"] = Value::Null;
            bundle["verificationMaterial"]["certificate"] = certificate;
        });
        read.unwrap().certificates.map(drop)
    };
    assert_eq!(broken(json!({"rawBytes": "AAAA"})), Err(Rejection::Certificate(CertificateError::Malformed)));
    assert_eq!(broken(json!({"rawBytes": "%"})), field(BundleField::Certificates));
    assert_eq!(broken(json!({})), field(BundleField::Certificates));
}

#[test]
fn keeps_a_broken_entry_or_timestamp_for_who_looks_at_it() {
    let material = read_changed(|bundle| {
        let material = &mut bundle["verificationMaterial"];
        material["tlogEntries"] = json!([{}]);
        material["timestampVerificationData"] = json!({"rfc3161Timestamps": [{}]});
    })
    .unwrap();
    assert_eq!(material.entries.map(drop), Err(Rejection::LogEntryMalformed));
    assert_eq!(material.timestamps, field(BundleField::Timestamps));
}

#[test]
fn pitfall_07_counts_entries_timestamps_and_hashes_while_reading() {
    let exceeded = |what, limit| Err(Rejection::LimitExceeded { what, limit });
    let entries = |count: usize| {
        read_changed(|bundle| bundle["verificationMaterial"]["tlogEntries"] = vec![json!({}); count].into())
    };
    assert!(entries(32).is_ok());
    assert_eq!(entries(33).map(drop), exceeded(Limited::LogEntries, 32));
    let timestamps = |count: usize| {
        let stamp = json!({"signedTimestamp": "AAAA"});
        read_changed(|bundle| {
            bundle["verificationMaterial"]["timestampVerificationData"] =
                json!({"rfc3161Timestamps": vec![stamp; count]});
        })
    };
    assert_eq!(timestamps(32).unwrap().timestamps.map(|found| found.len()), Ok(32));
    assert_eq!(timestamps(33).map(drop), exceeded(Limited::Timestamps, 32));
    let hashes = |count: usize| {
        read_changed(|bundle| {
            let proof = &mut bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"];
            proof["hashes"] = vec![Value::from(STANDARD.encode([0; 32])); count].into();
        })
    };
    assert!(hashes(64).is_ok());
    assert_eq!(hashes(65).map(drop), exceeded(Limited::ProofHashes, 64));
}

#[test]
fn reads_the_digest_of_a_message_in_the_words_of_protobuf() {
    let digest = |digest: Value| {
        let read = read_changed(|bundle| {
            bundle["dsseEnvelope"] = Value::Null;
            bundle["messageSignature"] = json!({"signature": "AAAA", "messageDigest": digest});
        })?;
        match read.message {
            Message::Artifact(digest) => Ok(digest),
            Message::Claim(_) | Message::Envelope(_) => panic!(),
        }
    };
    for (name, algorithm) in [
        ("SHA2_256", HashAlgorithm::Sha256),
        ("SHA2_384", HashAlgorithm::Sha384),
        ("SHA2_512", HashAlgorithm::Sha512),
    ] {
        let found = digest(json!({"algorithm": name, "digest": "AAAA"}));
        assert_eq!(found, Ok(Some((algorithm, vec![0; 3]))));
    }
    assert_eq!(digest(Value::Null), Ok(None));
    for broken in [
        json!({"algorithm": "SHA3_256", "digest": "AAAA"}),
        json!({"algorithm": "SHA2_256"}),
        json!({"digest": "AAAA"}),
        json!({"algorithm": "SHA2_256", "digest": "%"}),
    ] {
        assert_eq!(digest(broken), field(BundleField::MessageDigest));
    }
}

#[test]
fn refuses_a_message_without_a_signature() {
    let read = |message: Value| {
        let read = read_changed(|bundle| {
            bundle["dsseEnvelope"] = Value::Null;
            bundle["messageSignature"] = message;
        });
        read.map(drop)
    };
    assert_eq!(read(json!({})), field(BundleField::Signatures));
    assert_eq!(read(json!({"signature": "%"})), Err(Rejection::SignatureEncoding));
}

#[test]
fn takes_null_for_absent_and_texts_for_numbers() {
    let null = |bundle: &mut Value| {
        bundle["messageSignature"] = Value::Null;
        bundle["verificationMaterial"]["certificate"] = Value::Null;
        bundle["verificationMaterial"]["timestampVerificationData"] = Value::Null;
        bundle["verificationMaterial"]["tlogEntries"] = Value::Null;
    };
    let material = read_changed(null).unwrap();
    assert_eq!(material.entries.map(|entries| entries.len()), Ok(0));
    assert_eq!(material.timestamps, Ok(Vec::new()));
    let number = |index: Value| {
        let read =
            read_changed(|bundle| bundle["verificationMaterial"]["tlogEntries"][0]["logIndex"] = index);
        read.unwrap().entries.map(|entries| entries[0].index)
    };
    assert_eq!((number(json!(7)), number(json!("7")), number(Value::Null)), (Ok(7), Ok(7), Ok(0)));
    for broken in [json!(-1), json!("-1"), json!("x"), json!(1.5)] {
        assert_eq!(number(broken), Err(Rejection::LogEntryMalformed));
    }
}

#[test]
fn pitfall_16_survives_any_changed_byte_and_any_cut() {
    let mut whole = with_chain(VERSIONS[1], chain(1));
    whole["verificationMaterial"]["timestampVerificationData"] =
        json!({"rfc3161Timestamps": [{"signedTimestamp": "MAMCAQA="}]});
    let good = whole.to_string().into_bytes();
    let read = |bytes: &[u8]| read(bytes, PAYLOAD_LIMIT, Chains::Found).map(drop);
    assert_eq!(read(&good), Ok(()));
    for at in 0..good.len() {
        assert!(read(&good[..at]).is_err());
        for mask in [1, 0x20, 0x80] {
            let mut changed = good.clone();
            changed[at] ^= mask;
            // Whatever it says: it does not panic.
            let _ = read(&changed);
        }
    }
}
