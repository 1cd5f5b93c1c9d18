use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::sigstore::test_pki::Draft;
use crate::sigstore::test_signer::Signer;

/// A root with these logs.
fn root(logs: &[Value]) -> Result<TrustRoot, TrustRootError> {
    let root = json!({"mediaType": format!("{MEDIA_TYPE}+json;version=0.1"), "tlogs": logs});
    TrustRoot::from_json(root.to_string().as_bytes())
}

fn log(key: &PublicKey) -> Value {
    json!({
        "baseUrl": "https://log.test",
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": STANDARD.encode(key.spki_der()),
            "keyDetails": "PKIX_ECDSA_P256_SHA_256",
            "validFor": {"start": "2023-11-14T22:13:20Z", "end": "2023-11-14T22:13:21Z"},
        },
        "logId": {"keyId": STANDARD.encode(key.fingerprint().as_bytes())},
    })
}

#[test]
fn reads_the_embedded_roots() {
    let root = TrustRoot::public_good().unwrap();
    let ids = |logs: &Logs| logs.all().iter().map(|log| STANDARD.encode(&log.id)).collect::<Vec<_>>();
    assert_eq!(
        ids(&root.logs()),
        ["wNI9atQGlz+VWfO6LRygH4QUfY/8W4RFwiT5i5WRgB0=", "zxGZFVvd0FEmjR8WrFwMdcAJ9vtaY/QXf44Y1wUeP6A="]
    );
    assert_eq!(
        ids(&root.certificate_logs()),
        ["CGCS8ChS/2hF0dFrJ4ScRWcYrBY9wzjSbea8IgY2b3I=", "3T0wasbHETJjGR4cmWc3AqJKXrjePK3/h4pygC8p7o4="]
    );
    assert_eq!(root.fingerprint(), TrustRoot::public_good().unwrap().fingerprint());
    assert_eq!(TrustRoot::staging().unwrap().logs().all().len(), 5);
}

#[test]
fn refuses_what_is_not_a_trust_root() {
    assert!(matches!(TrustRoot::from_json(b"{}"), Err(TrustRootError::MediaType)));
    assert!(matches!(
        TrustRoot::from_json(br#"{"mediaType":"a","mediaType":"b"}"#),
        Err(TrustRootError::Json(JsonError::RepeatedKey))
    ));
    let malformed =
        br#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[1]}"#;
    assert!(matches!(TrustRoot::from_json(malformed), Err(TrustRootError::Malformed(_))));
    let large = vec![b' '; TRUST_ROOT_LIMIT + 1];
    assert!(
        matches!(TrustRoot::from_json(&large), Err(TrustRootError::TooLarge { size }) if size == large.len())
    );
    let mut padded = br#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#.to_vec();
    padded.resize(TRUST_ROOT_LIMIT, b' ');
    assert!(TrustRoot::from_json(&padded).is_ok());
}

#[test]
fn reads_a_log_with_its_window_and_origin() {
    let key = Signer::p256().key();
    let logs = root(&[log(&key)]).unwrap().logs();
    let [found] = logs.all() else { panic!() };
    let at = |seconds| Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
    assert_eq!((&found.key, found.id.as_slice()), (&key, key.fingerprint().as_bytes().as_slice()));
    assert_eq!(found.window, Window { start: at(1_700_000_000), end: at(1_700_000_001) });
    assert_eq!(found.origin.as_deref(), Some("log.test"));
}

#[test]
fn refuses_a_log_that_cannot_be_used() {
    let key = Signer::p256().key();
    let changed = |change: fn(&mut Value)| {
        let mut log = log(&key);
        change(&mut log);
        root(&[log]).map(drop)
    };
    assert!(matches!(changed(|_| ()), Ok(())));
    let start = changed(|log| log["publicKey"]["validFor"] = Value::Null);
    assert!(matches!(start, Err(TrustRootError::LogWithoutStart { log }) if log == "https://log.test"));
    let start = changed(|log| log["publicKey"]["validFor"] = json!({"end": "2023-11-14T22:13:21Z"}));
    assert!(matches!(start, Err(TrustRootError::Malformed(_))));
    let spki = changed(|log| log["publicKey"]["rawBytes"] = "AAAA".into());
    assert!(matches!(spki, Err(TrustRootError::LogKey { source: KeyError::Malformed, .. })));
    let id = changed(|log| log["logId"]["keyId"] = "AAAA".into());
    assert!(matches!(id, Err(TrustRootError::LogId { .. })));
}

#[test]
fn refuses_a_log_that_is_there_twice() {
    let key = Signer::p256().key();
    let id = hex::encode(key.fingerprint().as_bytes());
    let other = log(&Signer::p256().key());
    assert!(root(&[log(&key), other]).is_ok());
    assert!(
        matches!(root(&[log(&key), log(&key)]), Err(TrustRootError::LogTwice { id: found }) if found == id)
    );
}

#[test]
fn refuses_an_authority_without_certificates() {
    let with = |certificates: Value| {
        let authority = json!({
            "uri": "https://ca.test",
            "certChain": {"certificates": certificates},
            "validFor": {"start": "2023-11-14T22:13:20Z"},
        });
        let root = json!({
            "mediaType": format!("{MEDIA_TYPE}+json;version=0.1"),
            "certificateAuthorities": [authority],
        });
        TrustRoot::from_json(root.to_string().as_bytes()).map(|root| root.authorities().all().len())
    };
    let der = Draft::authority("ca").der(&Signer::p256(), "ca", &Signer::p256());
    assert!(matches!(with(json!([{"rawBytes": STANDARD.encode(der)}])), Ok(1)));
    let none = with(json!([]));
    assert!(
        matches!(&none, Err(TrustRootError::NoCertificate { authority }) if authority == "https://ca.test"),
        "{none:?}"
    );
}

#[test]
fn a_log_signs_checkpoints_as_its_host_without_port() {
    for (address, name) in [
        ("https://log2025-1.rekor.sigstore.dev", Some("log2025-1.rekor.sigstore.dev")),
        ("http://127.0.0.1:3000/", Some("127.0.0.1")),
        ("http://[::1]:3000/log", Some("::1")),
        ("rekor.test", Some("rekor.test")),
        ("https://", None),
        ("", None),
    ] {
        assert_eq!(origin(address).as_deref(), name, "{address}");
    }
}
