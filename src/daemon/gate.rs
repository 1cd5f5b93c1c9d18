//! The relay's questions, answered by the admission layer and containerd's records.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tonic::Code;

use crate::admission::words::{Refusal as Words, RefusalCode};
use crate::admission::{self, Admitted, PullRequest, Record, Shown};
use crate::containerd;
use crate::cri::{
    self, Forward, ImageFacts, PullAnswer, PullCall, PullOutcome, PullPlan, Refusal, Visibility,
};
use crate::oci::{Digest, RequestedImage};
use crate::outcome::{Fault, FaultReason};
use crate::policy::PodFacts;
use crate::policy::evaluate::{self, Resolution};
use crate::registry::{AuthConfig, Credentials};

/// The gate as the relay sees it.
pub(super) struct NodeGate {
    gate: Arc<admission::Gate>,
    containerd: containerd::Client,
    /// Used by ImageStatus alone, whose thread drives its connection.
    records: containerd::Client,
    /// Numbers requests in the order in which they began to resolve (rule T1).
    order: AtomicU64,
}

impl NodeGate {
    pub(super) fn new(gate: Arc<admission::Gate>, containerd_socket: &Path) -> Self {
        let client = || containerd::Client::new(containerd_socket);
        Self { gate, containerd: client(), records: client(), order: AtomicU64::new(0) }
    }

    async fn target(&self, name: &str) -> Record {
        record_of(&self.containerd, name).await
    }

    /// Rule O4: our own request had no answer, containerd's pull had none either, and the digest is there.
    async fn present(&self, admitted: &Admitted, message: &str) -> Option<String> {
        if !had_no_answer(message) {
            return None;
        }
        let (digest, image_id) = self.gate.may_serve_present(admitted).await?;
        let pinned = admitted.permit.reference().pinned(digest);
        (self.target(&pinned).await == Record::Target(digest)).then_some(image_id)
    }
}

async fn record_of(client: &containerd::Client, name: &str) -> Record {
    match client.image_target(name).await {
        Ok(Some(target)) => Record::Target(target.digest),
        Ok(None) => Record::Absent,
        Err(error) => {
            tracing::warn!(%error, image = name, "containerd cannot be asked for an image record");
            Record::Unknown
        }
    }
}

/// An ImageStatus under way: what was asked for, and what containerd's record of it said meanwhile.
pub(super) struct Asked {
    image: Option<RequestedImage>,
    record: Record,
}

impl cri::Gate for NodeGate {
    type Ticket = Admitted;
    type Asked = Asked;

    async fn pull(&self, call: PullCall) -> Result<PullPlan<Admitted>, Refusal> {
        // Numbered before resolving: a pull that began later wins the tag, never one that began earlier.
        let order = self.order.fetch_add(1, Ordering::SeqCst);
        let host = call.image.repository().host().to_owned();
        let credentials = match &call.auth {
            None => Credentials::Anonymous,
            Some(auth) => Credentials::from_auth_config(&auth_config(auth), &host)
                .map_err(|error| Refusal::new(Code::InvalidArgument, format!("{}: {error}", call.image)))?,
        };
        let pod = PodFacts {
            namespace: call.pod.namespace,
            name: call.pod.name,
            labels: call.pod.labels,
            annotations: call.pod.annotations,
            resource: None,
        };
        let request = PullRequest { reference: call.image, pod, credentials };
        let admitted = self.gate.admit(request).await.map_err(refusal)?;
        let forward = match (admitted.permit.forward(), admitted.permit.digest()) {
            (evaluate::Forward::Pinned(name), Some(digest)) => Forward::Pinned {
                name: name.clone(),
                digest,
                resolved: (admitted.resolution == Resolution::Answered).then_some(order),
            },
            (evaluate::Forward::Pinned(_), None) => {
                return Err(refusal(Words::internal(admitted.permit.reference().text())));
            }
            (evaluate::Forward::AsSent, _) => Forward::AsSent,
        };
        Ok(PullPlan { forward, ticket: admitted })
    }

    async fn pulled(&self, ticket: Admitted, outcome: PullOutcome) -> Result<PullAnswer, Refusal> {
        match outcome {
            PullOutcome::Pulled { image_id } => {
                let reference = ticket.permit.reference();
                let target = match (ticket.permit.forward(), reference.containerd_tag_name()) {
                    (evaluate::Forward::AsSent, Some(name)) => match self.target(&name).await {
                        Record::Target(digest) => Some(digest),
                        Record::Absent | Record::Unknown => None,
                    },
                    (evaluate::Forward::AsSent | evaluate::Forward::Pinned(_), _) => None,
                };
                self.gate.pulled(&ticket, &image_id, target);
                Ok(PullAnswer::PassOn)
            }
            PullOutcome::Failed { code: _, message } => match self.present(&ticket, &message).await {
                Some(image_id) => {
                    tracing::warn!(image = %ticket.permit.reference(), image_id, "registry away: the present, verified image is served");
                    let digest: Option<Digest> = ticket.permit.digest();
                    self.gate.pulled(&ticket, &image_id, digest);
                    Ok(PullAnswer::Present { image_id })
                }
                // Nobody answered containerd: the kubelet has a reason of its own for that.
                None if had_no_answer(&message) => {
                    let reference = ticket.permit.reference();
                    let host = reference.repository().host();
                    let fault =
                        Fault::unanswered(FaultReason::RegistryUnreachable, format!("no answer from {host}"));
                    Err(refusal(Words::undecided(reference, &fault)))
                }
                None => Ok(PullAnswer::PassOn),
            },
        }
    }

    async fn ask(&self, name: &str) -> Asked {
        let image = RequestedImage::parse(name).ok();
        let record = match image.as_ref().and_then(tag_of) {
            Some(tag) if !self.gate.shows_everything() => record_of(&self.records, &tag).await,
            Some(_) | None => Record::Absent,
        };
        Asked { image, record }
    }

    async fn image_status(&self, name: &str, asked: Asked, answer: Option<ImageFacts>) -> Visibility {
        let Some(facts) = answer else { return Visibility::Show };
        if !self.gate.shows_everything() && !self.gate.store().opened(CACHE_PATIENCE).await {
            let message = format!("{name}: the cache is being opened, try again");
            return Visibility::Refuse(Refusal::new(Code::Unknown, message));
        }
        let Asked { image, record: beside } = asked;
        // The record was read beside the answer, and the tag may have moved between the two: then the
        // record's digest may be admitted while the answer is another image. It counts only if the
        // answer itself carries that digest among its names; the image of an answer is immutable, so
        // that holds in whatever order the two were read. Everything else is read again, after the
        // answer: a record that is not there, could not be read, or names something else.
        let record = match (beside, image.as_ref().and_then(tag_of)) {
            (Record::Target(digest), Some(_)) if carries(&facts, digest) => beside,
            (_, Some(tag)) if !self.gate.shows_everything() => record_of(&self.records, &tag).await,
            (_, Some(_) | None) => Record::Absent,
        };
        let mut names = facts.repo_tags;
        names.extend(facts.repo_digests);
        let facts = admission::ImageFacts { id: facts.id, names };
        match self.gate.image_status(name, image.as_ref(), record, &facts) {
            Shown::Show => Visibility::Show,
            Shown::Hide => Visibility::Hide,
            Shown::Refuse(message) => Visibility::Refuse(Refusal::new(Code::Unknown, message)),
        }
    }
}

/// The name of the record that a reference by tag goes through.
fn tag_of(image: &RequestedImage) -> Option<String> {
    match image {
        RequestedImage::Reference(reference) => reference.containerd_tag_name(),
        RequestedImage::Id(_) => None,
    }
}

/// Whether containerd's answer is the image that `digest` names.
fn carries(facts: &ImageFacts, digest: Digest) -> bool {
    let digest = digest.to_string();
    let of = |name: &String| name.rsplit_once('@').is_some_and(|(_, found)| found == digest);
    facts.repo_digests.iter().any(of)
}

/// Well under the kubelet's two minutes for ImageStatus.
const CACHE_PATIENCE: Duration = Duration::from_secs(10);

fn auth_config(auth: &cri::AuthConfig) -> AuthConfig {
    AuthConfig {
        username: auth.username.clone(),
        password: auth.password.clone(),
        auth: auth.auth.clone(),
        server_address: auth.server_address.clone(),
        identity_token: auth.identity_token.clone(),
        registry_token: auth.registry_token.clone(),
    }
}

fn refusal(words: Words) -> Refusal {
    let code = match words.code {
        RefusalCode::Unknown => Code::Unknown,
        RefusalCode::InvalidArgument => Code::InvalidArgument,
        RefusalCode::Unavailable => Code::Unavailable,
        RefusalCode::Internal => Code::Internal,
    };
    Refusal::new(code, words.message)
}

/// Whether containerd's failure shows that no registry answered it: Go's dial errors, and nothing
/// that any status line could have caused. Anything else counts as an answer.
fn had_no_answer(message: &str) -> bool {
    let dialled = ["dial tcp", "dial unix"].iter().any(|word| message.contains(word));
    let failed =
        ["connection refused", "no such host", "i/o timeout", "no route to host", "network is unreachable"]
            .iter()
            .any(|word| message.contains(word));
    let answered =
        ["unexpected status", "401", "403", "404", "429", "500", "502", "503", "504"].iter().any(|word| {
            message.contains(&format!("{word} "))
                || message.contains(&format!("status: {word}"))
                || message.contains("unexpected status")
        });
    // A registry that sends to a token server has answered.
    let token = message.contains("failed to authorize") || message.contains("token");
    dialled && failed && !answered && !token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s1_a_record_read_beside_the_answer_counts_only_if_the_answer_carries_its_digest() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let facts = |repo_digests| ImageFacts {
            id: one.to_string(),
            repo_tags: vec!["a.io/b:1".into()],
            repo_digests,
        };
        assert!(carries(&facts(vec![format!("c.io/d@{two}"), format!("a.io/b@{one}")]), one));
        assert!(!carries(&facts(vec![format!("a.io/b@{two}")]), one), "the tag moved between the two");
        assert!(!carries(&facts(Vec::new()), one), "an imported image has no digest");
    }

    #[test]
    fn o4_only_a_failed_dial_counts_as_no_answer() {
        let dial = "failed to resolve reference \"127.0.0.1:5000/a@sha256:00\": failed to do request: Head \"http://127.0.0.1:5000/v2/a\": dial tcp 127.0.0.1:5000: connect: connection refused";
        assert!(had_no_answer(dial));
        for message in [
            "",
            "connection refused",
            "failed to resolve: unexpected status from HEAD request: 503 Service Unavailable",
            "pull access denied: 403 Forbidden",
            "unexpected status code 500; dial tcp 127.0.0.1:5000: connection refused",
            "read tcp 127.0.0.1:5000: connection reset by peer",
            "failed to authorize: failed to fetch anonymous token: dial tcp 127.0.0.1:5001: connect: connection refused",
        ] {
            assert!(!had_no_answer(message), "{message}");
        }
    }
}
