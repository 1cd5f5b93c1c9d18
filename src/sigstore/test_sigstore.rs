//! A whole Sigstore instance for tests: authority, certificate log, transparency logs of both versions,
//! timestamp authority, and signatures by a certificate of it in every form. Like its parts it shares
//! no code with what it tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::oci::Digest;
use crate::sigstore::logs::{LogKey, Window};
use crate::sigstore::test_pki::{
    CODE_SIGNING, Draft, TIME_STAMPING, TokenDraft, algorithm, digits, email, fulcio, key_usage, names, sct,
    sct_list, usages,
};
use crate::sigstore::test_signer::{
    Log, Signer, TIME, TiledLog, Verifier, claim, dsse_entry, hashedrekord, hashedrekord_v2, pem, sha256,
    statement,
};
use crate::sigstore::{
    Attestor, Authorities, Certificate, CertificateSigner, HashAlgorithm, Identity, IdentitySigner,
    IdentityText, KeySigner, LogTrust, Logs, SctTrust, SignatureEvidence, Signer as Who,
    TimestampAuthorities,
};

pub(crate) const SUBJECT: &str = "alice@signer.test";
pub(crate) const ISSUER: &str = "https://issuer.test";

pub(crate) fn image() -> Digest {
    Digest::of(b"image")
}

pub(crate) struct Instance {
    root: Signer,
    between: Signer,
    certificate_log: Signer,
    stamper: Signer,
    pub(crate) log: Log,
    pub(crate) tiles: TiledLog,
    /// From when to when the intermediate certificate is valid.
    between_validity: (u64, u64),
}

impl Instance {
    pub(crate) fn new() -> Self {
        Self::with_intermediate((TIME - 90_000, TIME + 90_000))
    }

    /// One whose intermediate certificate is valid from and to these times.
    pub(crate) fn with_intermediate(between_validity: (u64, u64)) -> Self {
        Self {
            root: Signer::p384(),
            between: Signer::p256(),
            certificate_log: Signer::p256(),
            stamper: Signer::p256(),
            log: Log::new(),
            tiles: TiledLog::new(),
            between_validity,
        }
    }

    /// The same with other signers in the place of its own.
    pub(crate) fn with_signers(self, other: impl Fn(Signer) -> Signer) -> Self {
        Self {
            root: other(self.root),
            between: other(self.between),
            certificate_log: other(self.certificate_log),
            stamper: other(self.stamper),
            log: Log(other(self.log.0)),
            tiles: TiledLog(other(self.tiles.0)),
            between_validity: self.between_validity,
        }
    }

    pub(crate) fn root(&self) -> Certificate {
        self.root_as(&Draft::authority("root").valid(TIME - 100_000, TIME + 100_000))
    }

    /// The root's key with another certificate.
    pub(crate) fn root_as(&self, draft: &Draft) -> Certificate {
        draft.self_signed(&self.root)
    }

    pub(crate) fn intermediate(&self) -> Certificate {
        let (from, to) = self.between_validity;
        Draft::authority("between").valid(from, to).issued(&self.between, "root", &self.root)
    }

    /// What this instance certifies by default: half an hour before and after [`TIME`].
    pub(crate) fn draft() -> Draft {
        Draft::new("")
            .with(key_usage(0b1000_0000))
            .with(usages(false, &[CODE_SIGNING]))
            .with(names(true, &[email(SUBJECT)]))
            .with(fulcio(1, ISSUER))
    }

    /// A certificate that is in the certificate log.
    pub(crate) fn certify(&self, signer: &Signer, draft: &Draft) -> Certificate {
        let body = draft.body(signer, "between", &algorithm(&self.between));
        let promise = sct(&self.certificate_log, TIME * 1000, &self.between.spki, &body);
        draft.clone().with(sct_list(&[promise])).issued(signer, "between", &self.between)
    }

    /// A certificate that is in no log.
    pub(crate) fn certify_silently(&self, signer: &Signer, draft: &Draft) -> Certificate {
        draft.issued(signer, "between", &self.between)
    }

    pub(crate) fn stamp(&self, over: &[u8], time: u64) -> Vec<u8> {
        self.stamped(&TokenDraft { time: format!("{}Z", digits(time)), ..TokenDraft::new(over, "stamps") })
    }

    pub(crate) fn stamped(&self, draft: &TokenDraft) -> Vec<u8> {
        draft.signed(&self.stamper)
    }

    pub(crate) fn timestamps(&self) -> Arc<TimestampAuthorities> {
        Arc::new(TimestampAuthorities::from_chain(self.stamping_chain()))
    }

    fn stamping_chain(&self) -> Vec<Certificate> {
        let root = Draft::authority("stamps").valid(TIME - 100_000, TIME + 100_000);
        let leaf =
            Draft::new("stamper").valid(TIME - 90_000, TIME + 90_000).with(usages(true, &[TIME_STAMPING]));
        vec![leaf.issued(&self.stamper, "stamps", &self.root), root.self_signed(&self.root)]
    }

    /// The `trusted_root.json` of this instance.
    pub(crate) fn trusted_root(&self) -> Value {
        let window = json!({"start": "2023-01-01T00:00:00Z"});
        let log = |address: &str, id: &[u8], signer: &Signer, details: &str| {
            json!({
                "baseUrl": address,
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": STANDARD.encode(&signer.spki),
                    "keyDetails": details,
                    "validFor": window,
                },
                "logId": {"keyId": STANDARD.encode(id)},
            })
        };
        let authority = |uri: &str, chain: &[Certificate]| {
            let raw = |found: &Certificate| json!({"rawBytes": STANDARD.encode(found.der())});
            json!({
                "subject": {"organization": "test", "commonName": uri},
                "uri": uri,
                "certChain": {"certificates": chain.iter().map(raw).collect::<Vec<_>>()},
                "validFor": window,
            })
        };
        let v1 = |address: &str, signer: &Signer| {
            log(address, &sha256(&signer.spki), signer, "PKIX_ECDSA_P256_SHA_256")
        };
        let tiles = format!("https://{}", TiledLog::ORIGIN);
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [
                v1("https://log.test", &self.log.0),
                log(&tiles, &self.tiles.id(), &self.tiles.0, "PKIX_ED25519"),
            ],
            "certificateAuthorities": [authority("https://ca.test", &[self.intermediate(), self.root()])],
            "ctlogs": [v1("https://ct.test", &self.certificate_log)],
            "timestampAuthorities": [authority("https://stamps.test", &self.stamping_chain())],
        })
    }

    pub(crate) fn logs(&self) -> Arc<Logs> {
        self.logs_within(Window::ALWAYS)
    }

    /// Logs that are believed until this time.
    pub(crate) fn logs_until(&self, end: SystemTime) -> Arc<Logs> {
        self.logs_within(Window { start: None, end: Some(end) })
    }

    fn logs_within(&self, window: Window) -> Arc<Logs> {
        let tiles = LogKey {
            id: self.tiles.id(),
            key: self.tiles.0.key(),
            window,
            origin: Some(TiledLog::ORIGIN.to_owned()),
        };
        let log = self.log.0.key();
        let log = LogKey { id: log.fingerprint().as_bytes().to_vec(), key: log, window, origin: None };
        Arc::new(Logs::new(vec![log, tiles]))
    }

    pub(crate) fn authorities(&self) -> Arc<Authorities> {
        Arc::new(Authorities::from_roots(vec![self.root()]))
    }

    pub(crate) fn sct(&self) -> SctTrust {
        SctTrust::Required(Arc::new(Logs::from_keys(&[self.certificate_log.key()])))
    }

    /// Alice, logged; timestamps prove something.
    pub(crate) fn alice(&self) -> Attestor {
        let text = IdentityText { subject: SUBJECT, issuer: ISSUER, ..IdentityText::default() };
        self.attestor(Who::Identity(IdentitySigner {
            authorities: self.authorities(),
            identity: Identity::new(&text).unwrap(),
            sct: self.sct(),
        }))
    }

    /// The holder of this very certificate.
    pub(crate) fn holder(&self, certificate: &Certificate) -> Attestor {
        self.attestor(Who::Certificate(CertificateSigner {
            certificate: certificate.clone(),
            intermediates: vec![self.intermediate()],
            authorities: self.authorities(),
            hash: HashAlgorithm::Sha256,
            sct: self.sct(),
        }))
    }

    pub(crate) fn key(&self, signer: &Signer) -> Attestor {
        self.attestor(Who::Key(KeySigner { key: signer.key(), hash: HashAlgorithm::Sha256 }))
    }

    fn attestor(&self, signer: Who) -> Attestor {
        Attestor {
            signer,
            annotations: BTreeMap::new(),
            log: LogTrust::Required(self.logs()),
            timestamps: self.timestamps(),
        }
    }
}

/// One signature with everything that is stored beside it, to be changed by tests.
pub(crate) struct Signature {
    pub(crate) signer: Signer,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) chain: Vec<Certificate>,
    pub(crate) payload: String,
    /// The signature over the payload, or over the encoding of the envelope around it.
    pub(crate) signature: Vec<u8>,
    /// The whole envelope as an `.att` layer stores it.
    pub(crate) envelope: String,
    /// The promise of a log, or its entry in a bundle.
    pub(crate) entries: Vec<Value>,
    pub(crate) stamps: Vec<Vec<u8>>,
}

impl Signature {
    /// Over cosign's simple-signing payload.
    pub(crate) fn claim(signer: Signer, certificate: Option<Certificate>, chain: Vec<Certificate>) -> Self {
        Self::simple(signer, certificate, chain, claim(&image(), "null"))
    }

    /// Over this simple-signing payload.
    pub(crate) fn simple(
        signer: Signer,
        certificate: Option<Certificate>,
        chain: Vec<Certificate>,
        payload: String,
    ) -> Self {
        let signature = signer.sign(payload.as_bytes());
        let (entries, stamps) = (vec![], vec![]);
        Self { signer, certificate, chain, payload, signature, envelope: String::new(), entries, stamps }
    }

    /// Over an envelope around this statement.
    pub(crate) fn statement(
        signer: Signer,
        certificate: Option<Certificate>,
        chain: Vec<Certificate>,
        payload: String,
    ) -> Self {
        let envelope = signer.envelope(&payload);
        let parsed: Value = serde_json::from_str(&envelope).unwrap();
        let signature = STANDARD.decode(parsed["signatures"][0]["sig"].as_str().unwrap()).unwrap();
        let (entries, stamps) = (vec![], vec![]);
        Self { signer, certificate, chain, payload, signature, envelope, entries, stamps }
    }

    /// cosign's statement over the image.
    pub(crate) fn cosign(signer: Signer, certificate: Option<Certificate>, chain: Vec<Certificate>) -> Self {
        Self::statement(signer, certificate, chain, statement(&image(), "{}"))
    }

    /// The PEM of who is said to have signed.
    pub(crate) fn verifier(&self) -> String {
        match &self.certificate {
            Some(certificate) => pem("CERTIFICATE", certificate.der()),
            None => self.signer.pem(),
        }
    }

    /// What the signature is over.
    pub(crate) fn signed(&self) -> Vec<u8> {
        if self.envelope.is_empty() {
            return self.payload.clone().into_bytes();
        }
        format!("DSSEv1 28 application/vnd.in-toto+json {} {}", self.payload.len(), self.payload).into_bytes()
    }

    pub(crate) fn hashedrekord(&self) -> String {
        hashedrekord(self.payload.as_bytes(), &self.signature, &self.verifier())
    }

    pub(crate) fn hashedrekord_v2(&self) -> String {
        let verifier = match &self.certificate {
            Some(certificate) => Verifier::Certificate(certificate.der()),
            None => Verifier::Key(&self.signer.spki),
        };
        hashedrekord_v2(&self.signed(), &self.signature, &verifier)
    }

    pub(crate) fn dsse(&self) -> String {
        let body = dsse_entry(self.payload.as_bytes(), &STANDARD.encode(&self.signature), &self.verifier());
        let hash = |text: &str| hex::encode(sha256(text.as_bytes()));
        body.replace(&hash("not looked at"), &hash(&self.envelope))
    }

    /// As a `.sig` layer.
    pub(crate) fn layer(&self) -> SignatureEvidence {
        let mut annotations = self.annotations();
        annotations.insert("dev.cosignproject.cosign/signature".to_owned(), STANDARD.encode(&self.signature));
        SignatureEvidence::CosignLayer { payload: self.payload.clone().into_bytes(), annotations }
    }

    /// As an `.att` layer.
    pub(crate) fn attestation_layer(&self) -> SignatureEvidence {
        let mut annotations = self.annotations();
        annotations.insert("dev.cosignproject.cosign/signature".to_owned(), String::new());
        SignatureEvidence::AttestationLayer { envelope: self.envelope.clone().into_bytes(), annotations }
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        let pems = |list: &[Certificate]| list.iter().map(|found| pem("CERTIFICATE", found.der())).collect();
        let mut annotations = BTreeMap::new();
        if let Some(certificate) = &self.certificate {
            annotations
                .insert("dev.sigstore.cosign/certificate".to_owned(), pem("CERTIFICATE", certificate.der()));
            annotations.insert("dev.sigstore.cosign/chain".to_owned(), pems(&self.chain));
        }
        if let Some(entry) = self.entries.first() {
            annotations.insert("dev.sigstore.cosign/bundle".to_owned(), entry.to_string());
        }
        if let Some(stamp) = self.stamps.first() {
            let response = json!({"SignedRFC3161Timestamp": STANDARD.encode(stamp)});
            annotations.insert("dev.sigstore.cosign/rfc3161timestamp".to_owned(), response.to_string());
        }
        annotations
    }

    /// As a bundle: with a key, a certificate, or a chain in version 0.2.
    pub(crate) fn bundle(&self) -> Value {
        let raw = |found: &Certificate| json!({"rawBytes": STANDARD.encode(found.der())});
        let mut material = match &self.certificate {
            None => json!({"publicKey": {"hint": "a claim"}}),
            Some(leaf) if self.chain.is_empty() => json!({"certificate": raw(leaf)}),
            Some(leaf) => {
                let list: Vec<_> = [leaf].into_iter().chain(&self.chain).map(raw).collect();
                json!({"x509CertificateChain": {"certificates": list}})
            }
        };
        material["tlogEntries"] = self.entries.clone().into();
        let stamps: Vec<_> =
            self.stamps.iter().map(|stamp| json!({"signedTimestamp": STANDARD.encode(stamp)})).collect();
        material["timestampVerificationData"] = json!({"rfc3161Timestamps": stamps});
        let version = if self.chain.is_empty() { "0.3" } else { "0.2" };
        let mut bundle = json!({
            "mediaType": format!("application/vnd.dev.sigstore.bundle+json;version={version}"),
            "verificationMaterial": material,
        });
        if self.envelope.is_empty() {
            bundle["messageSignature"] = json!({"signature": STANDARD.encode(&self.signature)});
        } else {
            bundle["dsseEnvelope"] = serde_json::from_str(&self.envelope).unwrap();
        }
        bundle
    }

    pub(crate) fn bundle_evidence(&self) -> SignatureEvidence {
        SignatureEvidence::Bundle { json: self.bundle().to_string().into_bytes() }
    }
}
