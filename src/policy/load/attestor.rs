//! Attestor sets: who must have signed, with which keys, known to which logs.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_saphyr::{Location, Spanned};

use super::{Loader, yaml};
use crate::policy::entry::{Attestor, AttestorSet};
use crate::sigstore::{
    self, HashAlgorithm, KeySigner, LogTrust, Logs, PublicKey, Signer, TimestampAuthorities,
};

impl Loader<'_> {
    pub(super) fn attestor_set(
        &mut self,
        line: u64,
        place: &str,
        set: &yaml::AttestorSet,
        annotations: &BTreeMap<String, String>,
        depth: usize,
    ) -> Option<AttestorSet> {
        if depth > NESTING {
            self.error(line, format!("{place}: attestor sets are nested deeper than {NESTING}"));
            return None;
        }
        let Some(entries) = set.entries.as_ref().filter(|entries| !entries.value.is_empty()) else {
            self.error(line, format!("{place}: An entry is required"));
            return None;
        };
        let line = entries.referenced.line();
        let mut attestors = Vec::new();
        let before = self.errors.len();
        for (index, attestor) in entries.value.iter().enumerate() {
            self.attestor(
                line,
                &format!("{place}.entries[{index}]"),
                attestor,
                annotations,
                depth,
                &mut attestors,
            );
        }
        let required = match &set.count {
            None => attestors.len(),
            Some(count) if count.value == 0 => attestors.len(),
            Some(count) => match usize::try_from(count.value) {
                Ok(wanted) if wanted <= entries.value.len() => wanted,
                _ => {
                    self.error(
                        count.referenced.line(),
                        format!("{place}: Count cannot exceed length of entries, nor be negative"),
                    );
                    return None;
                }
            },
        };
        (self.errors.len() == before && !attestors.is_empty()).then_some(AttestorSet { required, attestors })
    }

    fn attestor(
        &mut self,
        line: u64,
        place: &str,
        attestor: &yaml::Attestor,
        annotations: &BTreeMap<String, String>,
        depth: usize,
        out: &mut Vec<Attestor>,
    ) {
        self.unsupported(place, &[("certificates", &attestor.certificates), ("keyless", &attestor.keyless)]);
        let kinds = [
            attestor.certificates.is_some(),
            attestor.keyless.is_some(),
            attestor.keys.is_some(),
            attestor.attestor.is_some(),
        ];
        if kinds.into_iter().filter(|there| *there).count() != 1 {
            return self.error(line, format!("{place}: keys, certificates, keyless, or a nested attestor is required, and only one of them"));
        }
        let repository = self.repository(place, attestor.repository.as_ref());
        if let Some(nested) = &attestor.attestor {
            if repository.is_some() || !attestor.annotations.is_empty() {
                self.error(line, format!("{place}: repository and annotations have no effect beside a nested attestor; put them inside"));
            }
            out.extend(
                self.attestor_set(line, &format!("{place}.attestor"), nested, annotations, depth + 1)
                    .map(Attestor::Set),
            );
            return;
        }
        let Some(keys) = &attestor.keys else { return };
        let annotations = if attestor.annotations.is_empty() { annotations } else { &attestor.annotations };
        // Kyverno: the algorithm beside the keys is the one that is read for keys.
        let hash = self
            .hash(place, keys.value.signature_algorithm.as_ref().or(attestor.signature_algorithm.as_ref()));
        let log = self.log(place, &keys.value);
        let (Some(hash), Some(log)) = (hash, log) else { return };
        for key in self.public_keys(keys.referenced, place, &keys.value) {
            let signer = sigstore::Attestor {
                signer: Signer::Key(KeySigner { key, hash }),
                annotations: annotations.clone(),
                log: log.clone(),
                timestamps: Arc::new(TimestampAuthorities::none()),
            };
            out.push(Attestor::Signer { signer: Box::new(signer), repository: repository.clone() });
        }
    }

    fn public_keys(&mut self, at: Location, place: &str, keys: &yaml::Keys) -> Vec<PublicKey> {
        self.unsupported(place, &[("keys.kms", &keys.kms), ("keys.secret", &keys.secret)]);
        let Some(text) = keys.public_keys.as_ref().filter(|text| !text.value.trim().is_empty()) else {
            if keys.kms.is_none() && keys.secret.is_none() {
                self.error(at.line(), format!("{place}: A public key, kms key or secret is required"));
            }
            return Vec::new();
        };
        let line = text.referenced.line();
        let trimmed = text.value.trim();
        if !trimmed.starts_with("-----BEGIN") {
            let reference: String = trimmed.chars().take(60).collect();
            self.error(line, format!("{place}: keys.publicKeys `{reference}` is a key reference, which is not supported yet; write the PEM of the public key"));
            return Vec::new();
        }
        // As upstream: cut behind each END line; one attestor a key.
        let mut found = Vec::new();
        for piece in trimmed.split_inclusive(END_OF_KEY).filter(|piece| !piece.trim().is_empty()) {
            match PublicKey::from_pem(piece.trim()) {
                Ok(key) => found.push(key),
                Err(error) => self.error(line, format!("{place}: keys.publicKeys: {error}")),
            }
        }
        found
    }

    fn hash(&mut self, place: &str, text: Option<&Spanned<String>>) -> Option<HashAlgorithm> {
        match text.map(|text| text.value.as_str()) {
            None | Some("" | "sha256") => Some(HashAlgorithm::Sha256),
            Some("sha384") => Some(HashAlgorithm::Sha384),
            Some("sha512") => Some(HashAlgorithm::Sha512),
            Some(other) => {
                let line = text.map_or(0, |text| text.referenced.line());
                self.error(line, format!("{place}: invalid signature algorithm provided {other} (sha256, sha384 and sha512 are supported)"));
                None
            }
        }
    }

    fn log(&mut self, place: &str, keys: &yaml::Keys) -> Option<LogTrust> {
        if let Some(ctlog) = &keys.ctlog {
            // A key has no certificate, so no SCT either: ignoreSCT says nothing about it.
            self.unsupported(place, &[("ctlog.tsaCertChain", &ctlog.tsa_cert_chain)]);
            self.meaningless(place, &[("ctlog.pubkey", &ctlog.pubkey), ("ctlog.pubKey", &ctlog.pub_key)]);
            if ctlog.ignore_sct {
                self.notice(
                    0,
                    format!("{place}: ctlog.ignoreSCT means nothing for keys: they have no certificate"),
                );
            }
        }
        let Some(rekor) = &keys.rekor else {
            return Some(LogTrust::Required(self.options.trust_root.logs()));
        };
        if let Some(url) = rekor.url.as_ref().filter(|url| !url.value.is_empty()) {
            self.notice(url.referenced.line(), format!("{place}: rekor.url is not asked: log entries are verified as they come with the signature"));
        }
        if rekor.pubkey.is_some() && rekor.pub_key.is_some() {
            self.error(0, format!("{place}: rekor.pubkey and rekor.pubKey are both set; keep pubkey"));
            return None;
        }
        if let Some(spelling) = &rekor.pub_key {
            self.notice(
                spelling.referenced.line(),
                format!("{place}: rekor.pubKey is read as pubkey; a cluster ignores this spelling"),
            );
        }
        if rekor.ignore_tlog {
            return Some(LogTrust::Ignored);
        }
        let Some(pem) =
            rekor.pubkey.as_ref().or(rekor.pub_key.as_ref()).filter(|pem| !pem.value.trim().is_empty())
        else {
            return Some(LogTrust::Required(self.options.trust_root.logs()));
        };
        let line = pem.referenced.line();
        let mut found = Vec::new();
        for piece in pem.value.trim().split_inclusive(END_OF_KEY).filter(|piece| !piece.trim().is_empty()) {
            match PublicKey::from_pem(piece.trim()) {
                Ok(key) => found.push(key),
                Err(error) => {
                    self.error(line, format!("{place}: rekor.pubkey: {error}"));
                    return None;
                }
            }
        }
        Some(LogTrust::Required(Arc::new(Logs::from_keys(&found))))
    }
}

const END_OF_KEY: &str = "-----END PUBLIC KEY-----";
/// Deeper nesting than anyone writes; bounds recursion.
const NESTING: usize = 16;
