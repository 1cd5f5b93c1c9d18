//! Looking for evidence host by host.
//!
//! Evidence of the first host that has any counts; a mirror without signatures is nothing more than that.
//! Where what was found does not satisfy, the hosts after it are asked too ([`Client::rest`]): a mirror
//! may be behind, and a hostile one must not be able to hide what the registry has. That they cannot be
//! asked then takes nothing from what was found, and is told: it keeps a denial from being definite.
//!
//! What a list of evidence names by digest is asked of the host of the list, then of the others.
//!
//! A host that gave no answer is not waited for again in the same verdict ([`Budget`](super::Budget)), as
//! long as there are others: each wait is a time-out.

use std::collections::BTreeSet;

use http::{Method, StatusCode};

use super::http::{Answer, Step};
use super::referrers::{UnreadReferrers, Wanted};
use super::route::{Endpoint, Failures, Route};
use super::signatures::{Layer, LayerKind};
use super::{
    ATTESTATION_LIMIT, Ask, Client, EvidenceRequest, Fetched, Later, Looked, MANIFEST_TYPES, ManifestAccess,
    RequestClass, Rest, check_digest,
};
use crate::oci::Digest;
use crate::outcome::{Contact, Fault, FaultReason, Lookup};
use crate::sigstore::SignatureEvidence;

/// What is looked for.
#[derive(Debug, Clone)]
pub(super) enum Question {
    /// Layers at a tag, of some predicate types.
    Tagged { kind: LayerKind, predicates: BTreeSet<String> },
    /// The list of referrers.
    Referrers(Wanted),
}

/// One look-up at one host.
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    /// The look-up at all hosts.
    pub(super) whole: &'a Step,
    pub(super) step: &'a Step,
    pub(super) request: &'a EvidenceRequest<'a>,
    pub(super) route: &'a Route,
    pub(super) at: &'a Endpoint,
}

/// What a host's own hints put off.
#[derive(Debug)]
pub(super) enum Unread {
    Layers { at: Endpoint, layers: Vec<Layer> },
    Referrers(Box<UnreadReferrers>),
}

/// The hosts that were not asked, and what for.
#[derive(Debug)]
pub(super) struct Further {
    hosts: Vec<Endpoint>,
    question: Question,
}

impl Client {
    /// The first evidence that a host has; none if one says that there is none, and no other has any.
    pub(super) async fn search(
        &self,
        step: &Step,
        request: &EvidenceRequest<'_>,
        question: &Question,
    ) -> Looked {
        let route = match self.route(step, request.repository).await {
            Ok(route) => route,
            Err(fault) => return Lookup::Unreachable(fault).into(),
        };
        route.expect_pulling(step);
        let hosts: Vec<&Endpoint> = route.pulling().collect();
        let none_left = hosts.iter().all(|at| request.budget.silence(at).is_some());
        let mut failures = Failures::default();
        let mut absent = false;
        for (asked, at) in hosts.iter().copied().enumerate() {
            if let Some(fault) = request.budget.silence(at).filter(|_| !none_left) {
                failures.add(fault);
                continue;
            }
            let here = route.step(step, at);
            let search = Search { whole: step, step: &here, request, route: &route, at };
            let last = asked + 1 == hosts.len();
            match self.transport.in_turn(&here, last, self.search_at(search, question)).await {
                Ok(Some(Fetched { pieces, rest })) => {
                    let hosts: Vec<Endpoint> = hosts.iter().skip(asked + 1).copied().cloned().collect();
                    let further = (!hosts.is_empty()).then(|| Further { hosts, question: question.clone() });
                    return Lookup::Found(Fetched { pieces, rest: Rest { further, ..rest } }).into();
                }
                Ok(None) => absent = true,
                Err(fault) => {
                    if matches!(fault.reason, FaultReason::RegistryUnreachable | FaultReason::Timeout) {
                        request.budget.note_silent(at, &fault);
                    }
                    failures.add(fault);
                }
            }
        }
        if absent {
            let doubt = (!failures.is_empty()).then(|| failures.fault(step));
            Looked { lookup: Lookup::Absent, doubt }
        } else {
            Lookup::Unreachable(failures.fault(step)).into()
        }
    }

    /// Reads what a look-up of the same request left for later, as far as it can be read.
    pub async fn rest(&self, request: EvidenceRequest<'_>, rest: Rest) -> Later {
        let mut later = Later::default();
        let step = Step::new(format!("evidence for {}@{}", request.repository, request.digest));
        let Rest { unread, further } = rest;
        if unread.is_none() && further.is_none() {
            return later;
        }
        let route = match self.route(&step, request.repository).await {
            Ok(route) => route,
            Err(fault) => return Later { fault: Some(fault), ..later },
        };
        route.expect_pulling(&step);
        if let Some(unread) = unread {
            later.add(self.unread(&step, &request, &route, unread).await);
        }
        if let Some(further) = further {
            self.further(&step, &request, &route, further, &mut later).await;
        }
        later
    }

    async fn search_at(&self, search: Search<'_>, question: &Question) -> Result<Option<Fetched>, Fault> {
        match question {
            Question::Tagged { kind, predicates } => {
                Box::pin(self.tagged_layers(search, *kind, predicates)).await
            }
            Question::Referrers(wanted) => Box::pin(self.first_referrers(search, wanted)).await,
        }
    }

    async fn unread(
        &self,
        step: &Step,
        request: &EvidenceRequest<'_>,
        route: &Route,
        unread: Unread,
    ) -> Result<Vec<SignatureEvidence>, Fault> {
        match unread {
            Unread::Layers { at, layers } => {
                let here = route.step(step, &at);
                let search = Search { whole: step, step: &here, request, route, at: &at };
                self.read_layers(search, layers, ATTESTATION_LIMIT).await
            }
            Unread::Referrers(unread) => {
                let at = unread.at.clone();
                let here = route.step(step, &at);
                self.later_referrers(Search { whole: step, step: &here, request, route, at: &at }, *unread)
                    .await
            }
        }
    }

    /// Whatever the hosts have that were not asked before.
    async fn further(
        &self,
        step: &Step,
        request: &EvidenceRequest<'_>,
        route: &Route,
        further: Further,
        later: &mut Later,
    ) {
        for at in &further.hosts {
            if let Some(fault) = request.budget.silence(at) {
                // The host that has some has answered since.
                later.add(Err(Fault { contact: Contact::Answered, ..fault }));
                continue;
            }
            let here = route.step(step, at);
            let search = Search { whole: step, step: &here, request, route, at };
            match self.search_at(search, &further.question).await {
                Ok(Some(Fetched { pieces, rest })) => {
                    later.pieces.extend(pieces);
                    if let Some(unread) = rest.unread {
                        later.add(self.unread(step, request, route, unread).await);
                    }
                }
                Ok(None) => {}
                Err(fault) => later.add(Err(fault)),
            }
        }
    }

    /// The bytes of a digest that a list names: from the host of the list, or else from another.
    pub(super) async fn listed(
        &self,
        search: Search<'_>,
        ask: &Ask,
        digest: &Digest,
    ) -> Result<Answer, Failures> {
        let mut failures = Failures::default();
        let budget = search.request.budget;
        let others =
            search.route.pulling().filter(|other| !other.is(search.at) && budget.silence(other).is_none());
        let hosts: Vec<&Endpoint> = std::iter::once(search.at).chain(others).collect();
        for (asked, at) in hosts.iter().copied().enumerate() {
            let here = search.route.step(search.whole, at);
            let asking = self.content_at(Search { step: &here, at, ..search }, ask, digest);
            let last = asked + 1 == hosts.len() || search.route.is_last(at);
            match self.transport.in_turn(&here, last, asking).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => failures.add(fault),
            }
        }
        Err(failures)
    }

    /// What one host gives for a digest; its bytes were hashed.
    async fn content_at(&self, search: Search<'_>, ask: &Ask, digest: &Digest) -> Result<Answer, Fault> {
        let answer = search.ask(self, ask).await?;
        if !answer.status.is_success() {
            return Err(search.step.status_fault(&answer));
        }
        check_digest(search.step, &answer.body, digest)?;
        Ok(answer)
    }

    /// The blob of that digest and of at most `size` bytes, which a manifest lists.
    pub(super) async fn blob(
        &self,
        search: Search<'_>,
        digest: &Digest,
        size: usize,
    ) -> Result<Vec<u8>, Fault> {
        let ask = Ask {
            class: RequestClass::Blob,
            method: Method::GET,
            tail: format!("blobs/{digest}"),
            accept: "*/*",
            limit: size,
            link: None,
        };
        match self.listed(search, &ask, digest).await {
            Ok(answer) => Ok(answer.body),
            // The registry is broken then, and the image itself may well be there.
            Err(failures) if failures.not_there => Err(not_there(search.step)),
            Err(failures) => Err(failures.fault(search.step)),
        }
    }

    /// Whether a 401 or 403 of this host means that something is not there: it served the image's manifest
    /// to the same credentials (rule D4). Of several hosts it is not known which of them did, and of an image
    /// that is pulled by digest none was asked yet.
    pub(super) async fn serves_manifest(&self, search: Search<'_>) -> bool {
        let Search { step, request, route, at, .. } = search;
        match request.manifest {
            ManifestAccess::Unknown => false,
            ManifestAccess::Served if route.is_single() => true,
            ManifestAccess::Served | ManifestAccess::NotAsked => {
                let head = Ask {
                    class: RequestClass::Resolve,
                    method: Method::HEAD,
                    tail: format!("manifests/{}", request.digest),
                    accept: MANIFEST_TYPES,
                    limit: 0,
                    link: None,
                };
                let answer = self.ask_at(step, at, request.repository, request.credentials, &head).await;
                answer.is_ok_and(|answer| answer.status.is_success())
            }
        }
    }
}

impl Later {
    fn add(&mut self, read: Result<Vec<SignatureEvidence>, Fault>) {
        match read {
            Ok(pieces) => self.pieces.extend(pieces),
            Err(fault) => {
                self.fault.get_or_insert(fault);
            }
        }
    }
}

impl Search<'_> {
    /// Takes bytes of the verdict's budget, of which half is the registry's: what mirrors list must not
    /// leave nothing for it.
    pub(super) fn take(self, bytes: usize) -> Option<()> {
        self.request.budget.take_beside(self.kept(), bytes)
    }

    /// What this host may still use of the verdict's budget.
    pub(super) fn remaining(self) -> usize {
        self.request.budget.remaining().saturating_sub(self.kept())
    }

    fn kept(self) -> usize {
        if self.route.is_last(self.at) { 0 } else { self.request.budget.whole / 2 }
    }

    /// Asks the host of this look-up.
    pub(super) async fn ask(self, client: &Client, ask: &Ask) -> Result<Answer, Fault> {
        let Search { step, request, at, .. } = self;
        client.ask_at(step, at, request.repository, request.credentials, ask).await
    }
}

/// The fault for an answer about something that a list names.
pub(super) fn stored_fault(step: &Step, answer: &Answer) -> Fault {
    if answer.status == StatusCode::NOT_FOUND { not_there(step) } else { step.status_fault(answer) }
}

fn not_there(step: &Step) -> Fault {
    step.fault(FaultReason::RegistryError, "registry lists what it does not have")
}
