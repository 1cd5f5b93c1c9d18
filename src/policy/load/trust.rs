//! Which logs, authorities and timestamps an attestor believes.
//!
//! Each of them is the policy's own or the node's trust root's, and never both: trust domains are not
//! merged. Own `roots` are the only authorities, `rekor.pubkey` the only log keys, `ctlog.pubkey` the
//! only certificate log keys, `ctlog.tsaCertChain` the only timestamp authority. An attestor without
//! anything of the trust root does not touch it (rule O3); one that needs it while it cannot be
//! loaded is kept as a fault, so that nothing is decided without it.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_saphyr::Spanned;

use super::{Loader, OnlineRekor, RootSource, yaml};
use crate::oci::Repository;
use crate::outcome::{Fault, FaultReason};
use crate::policy::entry::{RekorLookup, RootUse, Signer, SignerKind};
use crate::sigstore::{
    self, Attestor, Authorities, Certificate, CertificateSigner, HashAlgorithm, Identity, IdentitySigner,
    KeySigner, LogTrust, Logs, PublicKey, SctTrust, TimestampAuthorities, TrustRoot,
};

/// An attestor before its trust is resolved.
pub(super) struct Draft {
    pub(super) kind: SignerKind,
    pub(super) who: Who,
    pub(super) log: LogChoice,
    /// `ctlog.tsaCertChain`, where there is one.
    pub(super) timestamps: Option<Arc<TimestampAuthorities>>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) annotated: Annotated,
    pub(super) repository: Option<Repository>,
}

/// Which signature must carry the annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Annotated {
    /// The one that everything else holds of.
    Same,
    /// Any of the same authorities, as upstream.
    Any,
}

/// Who signs.
pub(super) enum Who {
    Key {
        key: PublicKey,
        hash: HashAlgorithm,
    },
    Certificate {
        certificate: Certificate,
        intermediates: Vec<Certificate>,
        authorities: Origin<Authorities>,
        hash: HashAlgorithm,
        sct: Logged,
    },
    Identity {
        identity: Identity,
        authorities: Origin<Authorities>,
        sct: Logged,
    },
}

/// Whose it is.
#[derive(Clone)]
pub(super) enum Origin<T> {
    /// The policy's own.
    Own(Arc<T>),
    /// The node's trust root's.
    Root,
}

/// Whether logs must know something.
#[derive(Clone)]
pub(super) enum Logged {
    Ignored,
    Required(Origin<Logs>),
}

/// Which logs must know a signature, and which may be asked.
#[derive(Clone)]
pub(super) struct LogChoice {
    pub(super) logs: Logged,
    pub(super) url: Option<String>,
}

impl LogChoice {
    /// Upstream's default, for a `rekor` that is not there at all.
    pub(super) fn public() -> Self {
        Self { logs: Logged::Required(Origin::Root), url: Some(PUBLIC_REKOR.to_owned()) }
    }
}

impl Origin<Authorities> {
    pub(super) fn roots(roots: Vec<Certificate>) -> Self {
        Self::Own(Arc::new(Authorities::from_roots(roots)))
    }
}

impl<T> Origin<T> {
    fn resolve(&self, root: &RootSource, of: fn(&TrustRoot) -> Arc<T>) -> Result<Arc<T>, Fault> {
        match (self, root) {
            (Self::Own(own), _) => Ok(Arc::clone(own)),
            (Self::Root, RootSource::Ready(root)) => Ok(of(root)),
            (Self::Root, RootSource::Unavailable(cause)) => {
                Err(Fault::new(FaultReason::TrustRootUnavailable, cause.clone()))
            }
        }
    }

    const fn root_use(&self) -> RootUse {
        match self {
            Self::Own(_) => RootUse::Untouched,
            Self::Root => RootUse::Needed,
        }
    }
}

impl Logged {
    const fn root_use(&self) -> RootUse {
        match self {
            Self::Ignored => RootUse::Untouched,
            Self::Required(logs) => logs.root_use(),
        }
    }

    fn scts(&self, root: &RootSource) -> Result<SctTrust, Fault> {
        Ok(match self {
            Self::Ignored => SctTrust::Ignored,
            Self::Required(logs) => SctTrust::Required(logs.resolve(root, TrustRoot::certificate_logs)?),
        })
    }
}

impl Draft {
    fn root_use(&self) -> RootUse {
        let mut uses = vec![self.log.logs.root_use()];
        match &self.who {
            Who::Key { .. } => {}
            Who::Certificate { authorities, sct, .. } | Who::Identity { authorities, sct, .. } => {
                uses.extend([authorities.root_use(), sct.root_use()]);
            }
        }
        if uses.contains(&RootUse::Needed) { RootUse::Needed } else { RootUse::Untouched }
    }

    /// The policy's own authority alone; else the trust root's, where it issues the certificates or
    /// keeps the log. A key needs no time.
    fn timestamps(&self, root: &RootSource) -> Result<Arc<TimestampAuthorities>, Fault> {
        if let Some(own) = &self.timestamps {
            return Ok(Arc::clone(own));
        }
        let origin = match &self.who {
            Who::Key { .. } => RootUse::Untouched,
            Who::Certificate { authorities, .. } | Who::Identity { authorities, .. } => {
                match authorities.root_use() {
                    RootUse::Needed => RootUse::Needed,
                    RootUse::Untouched => self.log.logs.root_use(),
                }
            }
        };
        match origin {
            RootUse::Needed => Origin::Root.resolve(root, TrustRoot::timestamps),
            RootUse::Untouched => Ok(Arc::new(TimestampAuthorities::none())),
        }
    }

    fn resolve(&self, root: &RootSource) -> Result<Attestor, Fault> {
        let signer = match &self.who {
            Who::Key { key, hash } => sigstore::Signer::Key(KeySigner { key: key.clone(), hash: *hash }),
            Who::Certificate { certificate, intermediates, authorities, hash, sct } => {
                sigstore::Signer::Certificate(CertificateSigner {
                    certificate: certificate.clone(),
                    intermediates: intermediates.clone(),
                    authorities: authorities.resolve(root, TrustRoot::authorities)?,
                    hash: *hash,
                    sct: sct.scts(root)?,
                })
            }
            Who::Identity { identity, authorities, sct } => sigstore::Signer::Identity(IdentitySigner {
                authorities: authorities.resolve(root, TrustRoot::authorities)?,
                identity: identity.clone(),
                sct: sct.scts(root)?,
            }),
        };
        let log = match &self.log.logs {
            Logged::Ignored => LogTrust::Ignored,
            Logged::Required(logs) => LogTrust::Required(logs.resolve(root, TrustRoot::logs)?),
        };
        let timestamps = self.timestamps(root)?;
        Ok(Attestor { signer, annotations: self.annotations.clone(), log, timestamps })
    }

    /// Takes the annotations out, for another attestor that asks for them alone.
    fn annotations_apart(&mut self) -> Option<Self> {
        let Who::Identity { authorities, sct, .. } = &self.who else { return None };
        if self.annotated == Annotated::Same || self.annotations.is_empty() {
            return None;
        }
        let who =
            Who::Identity { identity: Identity::Anyone, authorities: authorities.clone(), sct: sct.clone() };
        Some(Self {
            kind: self.kind,
            who,
            log: self.log.clone(),
            timestamps: self.timestamps.clone(),
            annotations: std::mem::take(&mut self.annotations),
            annotated: Annotated::Same,
            repository: None,
        })
    }

    fn key(&self) -> Option<PublicKey> {
        match &self.who {
            Who::Key { key, .. } => Some(key.clone()),
            Who::Certificate { certificate, .. } => Some(certificate.key().clone()),
            Who::Identity { .. } => None,
        }
    }
}

impl Loader<'_> {
    pub(super) fn signer(&self, mut draft: Draft) -> Signer {
        let besides = draft.annotations_apart();
        let besides =
            besides.map(|besides| besides.resolve(&self.options.trust_root).map(Box::new)).transpose();
        let lookup = match (&draft.log.logs, self.options.online_rekor) {
            (Logged::Required(_), OnlineRekor::Allowed) => {
                draft.log.url.clone().map(|url| RekorLookup { url, key: draft.key() })
            }
            (Logged::Ignored, _) | (Logged::Required(_), OnlineRekor::Never) => None,
        };
        Signer {
            kind: draft.kind,
            // What one of them lacks, both lack.
            attestor: besides.clone().and_then(|_| draft.resolve(&self.options.trust_root).map(Box::new)),
            besides: besides.ok().flatten(),
            root: draft.root_use(),
            repository: draft.repository,
            lookup,
        }
    }

    /// `rekor`: which transparency logs must know the signature.
    pub(super) fn log(&mut self, place: &str, rekor: Option<&Spanned<yaml::Rekor>>) -> Option<LogChoice> {
        let Some(rekor) = rekor.map(|rekor| &rekor.value) else {
            return Some(LogChoice::public());
        };
        let ignored = rekor.ignore_tlog.as_ref().is_some_and(|flag| flag.value);
        let key = self.either(place, "rekor", rekor.pubkey.as_ref(), rekor.pub_key.as_ref())?;
        if ignored {
            if let Some(key) = key {
                self.notice(
                    key.referenced.line(),
                    format!("{place}: rekor.pubkey has no effect beside ignoreTlog"),
                );
            }
            return Some(LogChoice { logs: Logged::Ignored, url: None });
        }
        let url = self.url(place, rekor.url.as_ref());
        let logs = match key {
            None => Origin::Root,
            Some(key) => {
                Origin::Own(Arc::new(Logs::from_keys(&self.pem_keys(place, "rekor.pubkey", key)?)))
            }
        };
        Some(LogChoice { logs: Logged::Required(logs), url })
    }

    fn url(&mut self, place: &str, url: Option<&Spanned<String>>) -> Option<String> {
        let url = url.filter(|url| !url.value.trim().is_empty())?;
        let (line, text) = (url.referenced.line(), url.value.trim());
        match self.options.online_rekor {
            OnlineRekor::Never => {
                self.notice(line, format!("{place}: rekor.url is not asked: log entries are verified as they come with the signature (trust.onlineRekor: true looks others up)"));
            }
            OnlineRekor::Allowed if !(text.starts_with("https://") || text.starts_with("http://")) => {
                self.warning(
                    line,
                    format!("{place}: rekor.url cannot be asked: it is not an http or https address"),
                );
                return None;
            }
            OnlineRekor::Allowed => {}
        }
        Some(text.to_owned())
    }

    /// `ctlog`: which certificate transparency logs must know the certificate.
    pub(super) fn certificate_logs(&mut self, place: &str, ctlog: Option<&yaml::CtLog>) -> Option<Logged> {
        let Some(ctlog) = ctlog else { return Some(Logged::Required(Origin::Root)) };
        let key = self.either(place, "ctlog", ctlog.pubkey.as_ref(), ctlog.pub_key.as_ref())?;
        if ctlog.ignore_sct.as_ref().is_some_and(|flag| flag.value) {
            if let Some(key) = key {
                self.notice(
                    key.referenced.line(),
                    format!("{place}: ctlog.pubkey has no effect beside ignoreSCT"),
                );
            }
            return Some(Logged::Ignored);
        }
        Some(Logged::Required(match key {
            None => Origin::Root,
            Some(key) => {
                Origin::Own(Arc::new(Logs::from_keys(&self.pem_keys(place, "ctlog.pubkey", key)?)))
            }
        }))
    }

    /// A key has no certificate, so no SCT either.
    pub(super) fn without_certificate(&mut self, place: &str, ctlog: Option<&yaml::CtLog>) {
        let Some(ctlog) = ctlog else { return };
        let given = [
            ("ignoreSCT", ctlog.ignore_sct.as_ref().filter(|flag| flag.value).map(|flag| flag.referenced)),
            ("pubkey", ctlog.pubkey.as_ref().map(|key| key.referenced)),
            ("pubKey", ctlog.pub_key.as_ref().map(|key| key.referenced)),
        ];
        for (field, at) in given {
            if let Some(at) = at {
                self.notice(at.line(), format!("{place}: ctlog.{field} means nothing for a key: it has no certificate whose log entry could be asked for"));
            }
        }
    }

    /// `ctlog.tsaCertChain`; none where it is not given.
    #[expect(clippy::option_option, reason = "an error is no answer, no chain is one")]
    pub(super) fn timestamps(
        &mut self,
        place: &str,
        ctlog: Option<&yaml::CtLog>,
    ) -> Option<Option<Arc<TimestampAuthorities>>> {
        let chain = ctlog.and_then(|ctlog| ctlog.tsa_cert_chain.as_ref());
        let Some(chain) = chain.filter(|chain| !chain.value.trim().is_empty()) else { return Some(None) };
        let before = self.errors.len();
        let certificates =
            self.pem_certificates(place, "ctlog.tsaCertChain", Some(chain), TIMESTAMP_CHAIN_LIMIT);
        let leaves = certificates.iter().filter(|certificate| !certificate.is_authority()).count();
        let between = certificates
            .iter()
            .filter(|certificate| certificate.is_authority() && !certificate.self_issued())
            .count();
        if leaves > 1 || between > INTERMEDIATES_LIMIT {
            self.error(chain.referenced.line(), format!("{place}: ctlog.tsaCertChain holds {leaves} leaves and {between} intermediates; at most 1 and {INTERMEDIATES_LIMIT} are read"));
        }
        (self.errors.len() == before).then(|| Some(Arc::new(TimestampAuthorities::from_chain(certificates))))
    }

    /// The schema says `pubkey`, the documentation `pubKey`.
    #[expect(clippy::option_option, reason = "an error is no answer, no key is one")]
    fn either<'a>(
        &mut self,
        place: &str,
        field: &str,
        schema: Option<&'a Spanned<String>>,
        documented: Option<&'a Spanned<String>>,
    ) -> Option<Option<&'a Spanned<String>>> {
        let given = |key: &&Spanned<String>| !key.value.trim().is_empty();
        if let (Some(_), Some(second)) = (schema, documented) {
            let line = second.referenced.line();
            self.error(line, format!("{place}: {field}.pubkey and {field}.pubKey are both set; keep pubkey"));
            return None;
        }
        if let Some(spelling) = documented {
            let line = spelling.referenced.line();
            self.notice(
                line,
                format!("{place}: {field}.pubKey is read as pubkey; a cluster ignores this spelling"),
            );
        }
        Some(schema.or(documented).filter(given))
    }

    /// Every key of a PEM text, cut behind each END line as upstream does; at least one.
    pub(super) fn pem_keys(
        &mut self,
        place: &str,
        field: &str,
        text: &Spanned<String>,
    ) -> Option<Vec<PublicKey>> {
        let mut found = Vec::new();
        let before = self.errors.len();
        let pieces = text.value.trim().split_inclusive(END_OF_KEY);
        for piece in pieces.map(str::trim).filter(|piece| !piece.is_empty()) {
            match PublicKey::from_pem(piece) {
                Ok(key) => found.push(key),
                Err(error) => self.error(text.referenced.line(), format!("{place}: {field}: {error}")),
            }
        }
        (self.errors.len() == before && !found.is_empty()).then_some(found)
    }

    /// Every certificate of a PEM text, or of PEM in base64; none only where the field is not given
    /// or the text is an error.
    pub(super) fn pem_certificates(
        &mut self,
        place: &str,
        field: &str,
        text: Option<&Spanned<String>>,
        limit: usize,
    ) -> Vec<Certificate> {
        let Some(text) = text.filter(|text| !text.value.trim().is_empty()) else { return Vec::new() };
        let packed: String = text.value.split_ascii_whitespace().collect();
        let decoded = STANDARD.decode(packed).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match Certificate::list_from_pem(decoded.as_deref().unwrap_or(&text.value), limit) {
            Ok(certificates) => certificates,
            Err(error) => {
                self.error(text.referenced.line(), format!("{place}: {field}: {error}"));
                Vec::new()
            }
        }
    }
}

const END_OF_KEY: &str = "-----END PUBLIC KEY-----";
pub(super) const PUBLIC_REKOR: &str = "https://rekor.sigstore.dev";
/// Upstream's limits.
const TIMESTAMP_CHAIN_LIMIT: usize = 12;
const INTERMEDIATES_LIMIT: usize = 10;
