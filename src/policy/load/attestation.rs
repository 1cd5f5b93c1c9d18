//! `attestations[]`: which statements must have been signed about an image, and by whom.
//!
//! An attestation without attestors asks only that *somebody* with a certificate of the trust root
//! signed it. That is what upstream does, so it loads, with a warning.

use std::collections::BTreeMap;

use serde_saphyr::Spanned;

use super::attestor::{Context, Purpose};
use super::trust::{Annotated, Draft, LogChoice, Logged, Origin, Who};
use super::{Loader, yaml};
use crate::policy::context::{RESERVED, UNKNOWN};
use crate::policy::entry::{Attestation, Attestor, AttestorSet, SignerKind};
use crate::sigstore::{Authorities, Identity};

impl Loader<'_> {
    /// One element. `legacy` is the set that the entry's deprecated fields stand for.
    pub(super) fn attestation(
        &mut self,
        place: &str,
        attestation: &Spanned<yaml::Attestation>,
        annotations: &BTreeMap<String, String>,
        legacy: Option<&AttestorSet>,
        roots: &Origin<Authorities>,
    ) -> Option<Attestation> {
        let (line, value) = (attestation.referenced.line(), &attestation.value);
        let given = |text: &&Spanned<String>| !text.value.is_empty();
        let kind = value.kind.as_ref().filter(given);
        let alias = value.predicate_type.as_ref().filter(given);
        if let (Some(kind), Some(alias)) = (kind, alias)
            && kind.value != alias.value
        {
            let line = alias.referenced.line();
            self.error(line, format!("{place}: type and predicateType differ; keep type"));
            return None;
        }
        let Some(predicate_type) = kind.or(alias) else {
            self.error(line, format!("{place}: missing type"));
            return None;
        };
        self.without_variables(predicate_type.referenced.line(), place, "type", &predicate_type.value);
        let before = self.errors.len();
        let blocks = value.conditions.as_ref().filter(|blocks| !blocks.is_empty());
        let conditions = blocks.and_then(|blocks| self.attestation_conditions(place, blocks));
        let name = value.name.as_ref().filter(given);
        if let Some(name) = name.filter(|name| {
            let name = name.value.as_str();
            RESERVED.contains(&name) || UNKNOWN.contains(&name)
        }) {
            let line = name.referenced.line();
            self.error(
                line,
                format!("{place}: name `{}` stands for something else already; choose another", name.value),
            );
        }
        if self.errors.len() > before {
            return None;
        }
        let context = Context { annotations, roots, purpose: Purpose::Attestation };
        let mut sets = Vec::new();
        for (index, set) in value.attestors.iter().enumerate() {
            sets.extend(self.attestor_set(line, &format!("{place}.attestors[{index}]"), set, context, 0));
        }
        sets.extend(legacy.cloned());
        if value.attestors.is_empty() && legacy.is_none() {
            self.warning(line, format!("{place}: it has no attestors, so anybody's attestation with a certificate of the trust root and a log entry counts; add attestors"));
            let anybody = self.anybody(annotations, roots, Logged::Ignored);
            sets.push(AttestorSet { required: 1, attestors: vec![anybody] });
        }
        let name = name.map(|name| name.value.clone());
        Some(Attestation { predicate_type: predicate_type.value.clone(), name, sets, conditions })
    }

    /// Any certificate of the authorities, known to the trust root's log. Upstream asks for no SCT where it
    /// is about an attestation.
    pub(super) fn anybody(
        &self,
        annotations: &BTreeMap<String, String>,
        authorities: &Origin<Authorities>,
        sct: Logged,
    ) -> Attestor {
        Attestor::Signer(self.signer(Draft {
            kind: SignerKind::Unnamed,
            who: Who::Identity { identity: Identity::Anyone, authorities: authorities.clone(), sct },
            log: LogChoice::public(),
            timestamps: None,
            annotations: annotations.clone(),
            annotated: Annotated::Same,
            repository: None,
        }))
    }
}
