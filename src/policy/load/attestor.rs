//! Attestor sets: who must have signed. Keys, certificates and identities; sets in sets.
//!
//! Each attestor says by what it is known (its key, its certificate, or its authorities and identity);
//! [`super::trust`] says which logs and timestamps go with it. Nothing here trusts "any certificate"
//! unless the policy says so, and then it is a warning.

use std::collections::BTreeMap;

use serde_saphyr::{Location, Spanned};

use super::trust::{Annotated, Draft, Logged, Origin, Who};
use super::{Compatibility, Loader, yaml};
use crate::oci::Repository;
use crate::policy::entry::{Attestor, AttestorSet, SignerKind};
use crate::sigstore::{Authorities, Certificate, HashAlgorithm, Identity, IdentityText, PublicKey};

/// What the attestors of a set have in common.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// Annotations for attestors that have none of their own.
    pub(super) annotations: &'a BTreeMap<String, String>,
    /// Who issues the certificates of attestors that name nobody.
    pub(super) roots: &'a Origin<Authorities>,
    pub(super) purpose: Purpose,
}

/// What is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Image,
    Attestation,
}

/// What an attestor says besides its keys, certificates or identity.
struct Outer<'a> {
    line: u64,
    place: &'a str,
    annotations: &'a BTreeMap<String, String>,
    annotated: Annotated,
    repository: Option<Repository>,
    hash: Option<&'a Spanned<String>>,
}

impl Loader<'_> {
    pub(super) fn attestor_set(
        &mut self,
        line: u64,
        place: &str,
        set: &yaml::AttestorSet,
        context: Context<'_>,
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
            let place = format!("{place}.entries[{index}]");
            self.attestor(line, &place, attestor, context, depth, &mut attestors);
        }
        let required = match &set.count {
            None => attestors.len(),
            Some(count) if count.value == 0 => {
                self.warning(count.referenced.line(), format!("{place}: count is 0, which means every one of its entries, as upstream; take it out, or say how many"));
                attestors.len()
            }
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
        context: Context<'_>,
        depth: usize,
        out: &mut Vec<Attestor>,
    ) {
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
        let own = attestor.annotations.as_ref().filter(|annotations| !annotations.value.is_empty());
        let strict = self.options.compatibility == Compatibility::Strict;
        let in_attestation = context.purpose == Purpose::Attestation;
        if attestor.attestor.is_some() && in_attestation && strict {
            // Upstream does not look into it and is left with an attestor without anybody in it.
            self.warning(line, format!("{place}: a nested attestor of an attestation is not read under compatibility: strict, as upstream, so anybody's certificate counts; list its entries here"));
            let annotations = own.map_or(context.annotations, |own| &own.value);
            out.push(self.anybody(annotations, context.roots, Logged::Ignored));
            return;
        }
        if let Some(nested) = &attestor.attestor {
            if repository.is_some() || own.is_some() {
                self.error(line, format!("{place}: repository and annotations have no effect beside a nested attestor; put them inside"));
            }
            let nested = self.attestor_set(line, &format!("{place}.attestor"), nested, context, depth + 1);
            out.extend(nested.map(Attestor::Set));
            return;
        }
        let annotations = own.map_or(context.annotations, |own| &own.value);
        for value in annotations.values() {
            self.without_variables(line, place, "annotations", value);
        }
        if in_attestation && !annotations.is_empty() {
            let line = own.map_or(line, |own| own.referenced.line());
            self.warning(line, format!("{place}: annotations on an attestor of an attestation: cosign's attestations carry none, so upstream nothing ever satisfies it; take them out"));
        }
        if strict && !in_attestation && attestor.keyless.is_some() && !annotations.is_empty() {
            let line = own.map_or(line, |own| own.referenced.line());
            self.warning(line, format!("{place}: under compatibility: strict its annotations may stand on another signature than the identity's, as upstream, by anybody with a certificate of the same authorities"));
        }
        let annotated = if strict && !in_attestation { Annotated::Any } else { Annotated::Same };
        let hash = attestor.signature_algorithm.as_ref();
        let outer = Outer { line, place, annotations, annotated, repository, hash };
        // Upstream takes a text of several keys apart for signatures alone.
        let keys_read = if in_attestation && strict { 1 } else { usize::MAX };
        if let Some(keys) = &attestor.keys {
            self.keys(&outer, keys, keys_read, out);
        } else if let Some(certificates) = &attestor.certificates {
            self.certificates(&outer, certificates, out);
        } else if let Some(keyless) = &attestor.keyless {
            out.extend(self.keyless(&outer, keyless));
        }
    }

    /// At most `limit` keys of one text are read.
    fn keys(&mut self, outer: &Outer<'_>, keys: &Spanned<yaml::Keys>, limit: usize, out: &mut Vec<Attestor>) {
        let place = outer.place;
        // Kyverno: the algorithm beside the keys is the one that is read for keys.
        let hash = self.hash(place, keys.value.signature_algorithm.as_ref().or(outer.hash));
        let log = self.log(place, keys.value.rekor.as_ref());
        let timestamps = self.timestamps(place, keys.value.ctlog.as_ref());
        self.without_certificate(place, keys.value.ctlog.as_ref());
        let found = self.public_keys(keys.referenced, place, &keys.value);
        let (Some(hash), Some(log), Some(timestamps)) = (hash, log, timestamps) else { return };
        if found.len() > limit {
            let line = keys.referenced.line();
            self.warning(line, format!("{place}: keys.publicKeys holds {} keys; under compatibility: strict the first alone counts for an attestation, as upstream; write each as an entry of its own", found.len()));
        }
        for key in found.into_iter().take(limit) {
            let draft = Draft {
                kind: SignerKind::Keys,
                who: Who::Key { key, hash },
                log: log.clone(),
                timestamps: timestamps.clone(),
                annotations: outer.annotations.clone(),
                annotated: outer.annotated,
                repository: outer.repository.clone(),
            };
            out.push(Attestor::Signer(self.signer(draft)));
        }
    }

    fn public_keys(&mut self, at: Location, place: &str, keys: &yaml::Keys) -> Vec<PublicKey> {
        let way_out = "keys of key services and of the cluster are not read yet; write the PEM of the public key into keys.publicKeys, or into a ConfigMap document that the rule's context reads";
        for (field, value) in [("keys.kms", &keys.kms), ("keys.secret", &keys.secret)] {
            self.refuse(place, field, value, way_out);
        }
        let Some(text) = keys.public_keys.as_ref().filter(|text| !text.value.trim().is_empty()) else {
            if keys.kms.is_none() && keys.secret.is_none() {
                self.error(at.line(), format!("{place}: A public key, kms key or secret is required"));
            }
            return Vec::new();
        };
        let trimmed = text.value.trim();
        if !trimmed.starts_with("-----BEGIN") {
            let reference: String = trimmed.chars().take(60).collect();
            self.error(text.referenced.line(), format!("{place}: keys.publicKeys `{reference}` is a key reference, which is not supported yet; write the PEM of the public key"));
            return Vec::new();
        }
        self.pem_keys(place, "keys.publicKeys", text).unwrap_or_default()
    }

    fn certificates(
        &mut self,
        outer: &Outer<'_>,
        certificates: &Spanned<yaml::Certificates>,
        out: &mut Vec<Attestor>,
    ) {
        let (place, value) = (outer.place, &certificates.value);
        let before = self.errors.len();
        let cert = self.pem_certificates(place, "certificates.cert", value.cert.as_ref(), CHAIN_LIMIT);
        let chain =
            self.pem_certificates(place, "certificates.certChain", value.cert_chain.as_ref(), CHAIN_LIMIT);
        let hash = self.hash(place, outer.hash);
        let log = self.log(place, value.rekor.as_ref());
        let timestamps = self.timestamps(place, value.ctlog.as_ref());
        let (Some(hash), Some(log), Some(timestamps)) = (hash, log, timestamps) else { return };
        if self.errors.len() > before {
            return;
        }
        // As upstream: the first certificate of `cert` counts.
        let cert = cert.into_iter().next();
        let cert_line = value.cert.as_ref().map_or(outer.line, |text| text.referenced.line());
        let chain_line = value.cert_chain.as_ref().map_or(outer.line, |text| text.referenced.line());
        let who = match (cert, chain.split_last()) {
            (None, None) => {
                let line = certificates.referenced.line();
                return self.error(line, format!("{place}: cert or certChain required"));
            }
            // Nothing but its key is looked at, as upstream: no end, no chain, no SCT.
            (Some(certificate), None) => {
                self.without_certificate(place, value.ctlog.as_ref());
                if certificate.not_after() < self.options.now {
                    self.warning(cert_line, format!("{place}: certificates.cert has expired; without certChain only its key is looked at, so it goes on counting; add certChain, or replace it"));
                }
                Who::Key { key: certificate.key().clone(), hash }
            }
            (Some(certificate), Some((root, intermediates))) => {
                let Some(sct) = self.certificate_logs(place, value.ctlog.as_ref()) else { return };
                self.warn_of_expiry(cert_line, place, "certificates.cert", [&certificate]);
                self.warn_of_expiry(chain_line, place, "certificates.certChain", &chain);
                Who::Certificate {
                    certificate,
                    intermediates: intermediates.to_vec(),
                    authorities: Origin::roots(vec![root.clone()]),
                    hash,
                    sct,
                }
            }
            (None, Some(_)) => {
                let Some(sct) = self.certificate_logs(place, value.ctlog.as_ref()) else { return };
                self.warn_of_expiry(chain_line, place, "certificates.certChain", &chain);
                self.warning(chain_line, format!("{place}: certificates.certChain without cert trusts everybody who has a certificate of it; add cert, or keyless with roots and a subject"));
                Who::Identity { identity: Identity::Anyone, authorities: Origin::roots(chain.clone()), sct }
            }
        };
        let draft = Draft {
            kind: SignerKind::Certificates,
            who,
            log,
            timestamps,
            annotations: outer.annotations.clone(),
            annotated: outer.annotated,
            repository: outer.repository.clone(),
        };
        out.push(Attestor::Signer(self.signer(draft)));
    }

    fn keyless(&mut self, outer: &Outer<'_>, keyless: &Spanned<yaml::Keyless>) -> Option<Attestor> {
        let (place, value, line) = (outer.place, &keyless.value, keyless.referenced.line());
        let before = self.errors.len();
        let roots_text = value.roots.as_ref().filter(|roots| !roots.value.trim().is_empty());
        let roots = self.pem_certificates(place, "keyless.roots", roots_text, ROOTS_LIMIT);
        match &value.rekor {
            None if roots_text.is_none() => {
                self.error(line, format!("{place}: Either Rekor URL or roots are required"));
            }
            Some(rekor) if text(rekor.value.url.as_ref()).is_empty() => {
                self.error(rekor.referenced.line(), format!("{place}: rekor.url: An URL is required"));
            }
            Some(_) | None => {}
        }
        if let Some(hash) = outer.hash.filter(|hash| !hash.value.is_empty()) {
            self.notice(
                hash.referenced.line(),
                format!(
                    "{place}: signatureAlgorithm means nothing for keyless: the certificate's key says it"
                ),
            );
        }
        let log = self.log(place, value.rekor.as_ref());
        let sct = self.certificate_logs(place, value.ctlog.as_ref());
        let timestamps = self.timestamps(place, value.ctlog.as_ref());
        let identity = self.identity(place, line, value, roots_text.is_some());
        if let Some(roots_text) = roots_text {
            self.warn_of_expiry(roots_text.referenced.line(), place, "keyless.roots", &roots);
        }
        let (Some(log), Some(sct), Some(timestamps), Some(identity)) = (log, sct, timestamps, identity)
        else {
            return None;
        };
        if self.errors.len() > before {
            return None;
        }
        let authorities = if roots_text.is_some() { Origin::roots(roots) } else { Origin::Root };
        let draft = Draft {
            kind: SignerKind::Keyless,
            who: Who::Identity { identity, authorities, sct },
            log,
            timestamps,
            annotations: outer.annotations.clone(),
            annotated: outer.annotated,
            repository: outer.repository.clone(),
        };
        Some(Attestor::Signer(self.signer(draft)))
    }

    fn identity(
        &mut self,
        place: &str,
        line: u64,
        keyless: &yaml::Keyless,
        own_roots: bool,
    ) -> Option<Identity> {
        let empty = BTreeMap::new();
        let extensions = keyless.additional_extensions.as_ref();
        let wanted = IdentityText {
            subject: text(keyless.subject.as_ref()),
            subject_regexp: text(keyless.subject_regexp.as_ref()),
            issuer: text(keyless.issuer.as_ref()),
            issuer_regexp: text(keyless.issuer_regexp.as_ref()),
            extensions: extensions
                .map_or(&empty, |extensions| &extensions.value)
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
        };
        let patterns = [
            ("subject", wanted.subject),
            ("subjectRegExp", wanted.subject_regexp),
            ("issuer", wanted.issuer),
            ("issuerRegExp", wanted.issuer_regexp),
        ];
        let values = wanted.extensions.values().map(|value| ("additionalExtensions", *value));
        for (field, text) in patterns.into_iter().chain(values) {
            self.without_variables(line, place, &format!("keyless.{field}"), text);
        }
        let identity = match Identity::new(&wanted) {
            Ok(identity) => identity,
            Err(error) => {
                self.error(line, format!("{place}: keyless: {error}"));
                return None;
            }
        };
        for field in identity.unanchored() {
            let line = match field {
                "subjectRegExp" => keyless.subject_regexp.as_ref(),
                _ => keyless.issuer_regexp.as_ref(),
            }
            .map_or(line, |text| text.referenced.line());
            self.warning(line, format!("{place}: keyless.{field} is not anchored, so it fits wherever it occurs in a longer text; begin it with ^ and end it with $"));
        }
        self.warn_of_anyone(place, line, &wanted, own_roots);
        Some(identity)
    }

    /// An identity that leaves open who it is, as upstream allows.
    fn warn_of_anyone(&mut self, place: &str, line: u64, wanted: &IdentityText<'_>, own_roots: bool) {
        let names = |pattern: &str, regexp: &str| {
            let pattern = pattern.trim_matches('*');
            !pattern.is_empty() || !matches!(regexp, "" | ".*" | "^.*$" | ".+" | "^.+$")
        };
        let subject = names(wanted.subject, wanted.subject_regexp);
        let issuer = names(wanted.issuer, wanted.issuer_regexp);
        let says = match (subject, issuer, wanted.extensions.is_empty(), own_roots) {
            (true, true, _, _) | (_, true, false, _) | (true, false, _, true) => return,
            (false, _, false, true) => return,
            (true, false, _, false) => {
                "names no issuer: whoever gets a certificate for that subject from any issuer counts; add issuer"
            }
            (false, true, true, _) => {
                "names no subject: everybody with an account at the issuer counts; add subject"
            }
            (false, false, false, false) => {
                "names neither subject nor issuer: any issuer's certificate with these extensions counts; add issuer and subject"
            }
            (false, false, true, true) => {
                "names neither subject nor issuer: everybody who has a certificate of its roots counts; add subject"
            }
            (false, false, true, false) => {
                "names neither subject nor issuer: anybody at all may have signed; add issuer and subject"
            }
        };
        self.warning(line, format!("{place}: keyless {says}"));
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

    fn warn_of_expiry<'c>(
        &mut self,
        line: u64,
        place: &str,
        field: &str,
        certificates: impl IntoIterator<Item = &'c Certificate>,
    ) {
        if certificates.into_iter().any(|certificate| certificate.not_after() < self.options.now) {
            self.warning(line, format!("{place}: a certificate of {field} has expired: only signatures that are proven to be older verify"));
        }
    }
}

/// The text of a field, empty where it is not given.
fn text(field: Option<&Spanned<String>>) -> &str {
    field.map_or("", |text| text.value.trim())
}

/// Deeper nesting than anyone writes; bounds recursion.
const NESTING: usize = 16;
/// As upstream: a leaf and ten intermediates.
const CHAIN_LIMIT: usize = 11;
/// More roots than any one trust domain has.
pub(super) const ROOTS_LIMIT: usize = 64;
