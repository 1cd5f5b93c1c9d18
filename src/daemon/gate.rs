//! The relay's questions, answered by the admission layer and containerd's records.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tonic::Code;

use crate::admission::words::{Refusal as Words, RefusalCode};
use crate::admission::{self, Admitted, PullRequest, Record, Servable, Shown};
use crate::containerd;
use crate::cri::{
    self, Forward, ImageFacts, PullAnswer, PullCall, PullOutcome, PullPlan, Refusal, Visibility,
};
use crate::oci::RequestedImage;
use crate::outcome::{Fault, FaultReason};
use crate::policy::PodFacts;
use crate::policy::evaluate::{self, Resolution};
use crate::registry::{AuthConfig, Credentials};

/// The gate as the relay sees it.
pub(super) struct NodeGate {
    gate: Arc<admission::Gate>,
    socket: PathBuf,
    containerd: containerd::Client,
    /// Used by ImageStatus alone, whose thread drives its connection.
    records: containerd::Client,
    /// Numbers requests in the order in which they began to resolve (rule T1).
    order: AtomicU64,
}

impl NodeGate {
    pub(super) fn new(gate: Arc<admission::Gate>, containerd_socket: &Path) -> Self {
        let client = || containerd::Client::new(containerd_socket);
        let socket = containerd_socket.to_owned();
        Self { gate, socket, containerd: client(), records: client(), order: AtomicU64::new(0) }
    }

    async fn target(&self, name: &str) -> Record {
        record_of(&self.containerd, name).await
    }

    /// Rule O4: containerd's pull had no answer, our own request has none either, and the image is there
    /// under the name that was asked for. By that name the kubelet asks next whose user the container gets,
    /// and takes one that is not there for root. No record is written here.
    async fn present(&self, admitted: &Admitted) -> Option<String> {
        let Servable { digest, image_id: known } = self.gate.may_serve_present(admitted).await?;
        let reference = admitted.permit.reference();
        let name = reference.containerd_tag_name().unwrap_or_else(|| reference.pinned(digest));
        if self.target(&name).await != Record::Target(digest) {
            return None;
        }
        let image_id = cri::image_id(&self.socket, &name).await;
        let image_id = image_id.inspect_err(|error| say_unasked(&name, error)).ok().flatten()?;
        let belongs = match known {
            Some(known) => known == image_id,
            // CRI hears of records later than we do: the image that it shows may be the one before.
            None => {
                let asked = self.containerd.is_image_id_of(&image_id, &digest).await;
                asked.inspect_err(|error| say_unasked(&name, error)).unwrap_or(false)
            }
        };
        belongs.then_some(image_id)
    }
}

async fn record_of(client: &containerd::Client, name: &str) -> Record {
    match client.image_target(name).await {
        Ok(Some(target)) => Record::Target(target.digest),
        Ok(None) => Record::Absent,
        Err(error) => {
            say_unasked(name, &error);
            Record::Unknown
        }
    }
}

fn say_unasked(name: &str, error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(error, image = name, "containerd cannot be asked for an image");
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
            PullOutcome::Failed { code: _, message } if !had_no_answer(&message) => Ok(PullAnswer::PassOn),
            PullOutcome::Failed { .. } => match self.present(&ticket).await {
                Some(image_id) => {
                    tracing::warn!(image = %ticket.permit.reference(), image_id, "registry away: the present, verified image is served");
                    self.gate.served(&ticket, &image_id);
                    Ok(PullAnswer::Present { image_id })
                }
                // Nobody answered containerd: the kubelet has a reason of its own for that.
                None => {
                    let reference = ticket.permit.reference();
                    let host = reference.repository().host();
                    let fault =
                        Fault::unanswered(FaultReason::RegistryUnreachable, format!("no answer from {host}"));
                    Err(refusal(Words::undecided(reference, &fault)))
                }
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
        // answer itself carries that digest. Everything else is read again, after the answer: a record
        // that is not there, could not be read, or names something else.
        let mut names = facts.repo_tags;
        names.extend(facts.repo_digests);
        let facts = admission::ImageFacts { id: facts.id, names };
        let record = match (beside, image.as_ref().and_then(tag_of)) {
            (Record::Target(digest), Some(_)) if facts.carries(digest) => beside,
            (_, Some(tag)) if !self.gate.shows_everything() => record_of(&self.records, &tag).await,
            (_, Some(_) | None) => Record::Absent,
        };
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

/// Whether containerd's failure shows that no registry answered it: its very first request, that for the
/// manifest, broke in Go's network code. Anything else counts as an answer. Names and addresses are quoted in
/// the text; they are passed over, since whoever writes a pod or sends a redirect chooses them.
fn had_no_answer(message: &str) -> bool {
    let Some(text) = without_quoted(message) else { return false };
    let resolving = text.strip_prefix("failed to pull and unpack image : failed to resolve ");
    let of_version = |text: &'_ str| {
        // 1.7 and 2.
        ["reference : ", "image: "].iter().find_map(|words| text.strip_prefix(words)).map(str::to_owned)
    };
    let failed = resolving.and_then(of_version);
    let cause = failed.as_deref().and_then(|text| text.strip_prefix("failed to do request: Head : "));
    cause.is_some_and(|cause| cause == "EOF" || NO_ANSWER.iter().any(|start| cause.starts_with(start)))
}

/// The text without what Go quoted in it; none if a quote does not end.
fn without_quoted(text: &str) -> Option<String> {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '"' {
            plain.push(character);
            continue;
        }
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => drop(characters.next()?),
                _ => {}
            }
        }
    }
    Some(plain)
}

/// How Go's network code says that a connection, or TLS on it, did not come about or broke off before the
/// first byte of an answer.
const NO_ANSWER: [&str; 9] = [
    "dial tcp",
    "proxyconnect tcp: dial tcp",
    "read tcp ",
    "write tcp ",
    "net/http: TLS handshake timeout",
    "net/http: timeout awaiting response headers",
    // `image_pull_progress_timeout`.
    "context canceled",
    "tls: ",
    "remote error: tls: ",
];

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "failed to pull and unpack image \"a.io/org/token-service:1\": failed to resolve reference \"a.io/org/token-service:1\": ";
    const TWO: &str =
        "failed to pull and unpack image \"a.io/org/token-service:1\": failed to resolve image: ";
    const HEAD: &str = "failed to do request: Head \"https://a.io/v2/org/token-service/manifests/1\": ";

    /// What containerd 1.7.24, 2.1.9 and 2.4.2 say of each fault, after their own words.
    #[test]
    fn o4_only_a_first_request_without_an_answer_counts_as_none() {
        let silent = [
            "dial tcp 127.0.0.1:33557: connect: connection refused",
            "dial tcp: lookup a.io on 10.255.255.53:53: no such host",
            "dial tcp: lookup token.a.io on 10.255.255.53:53: server misbehaving",
            "dial tcp 10.0.0.1:443: i/o timeout",
            "dial tcp 10.0.0.1:443: connect: no route to host",
            "dial tcp 10.0.0.1:443: connect: network is unreachable",
            "dial tcp 10.0.0.1:443: connect: connection timed out",
            "proxyconnect tcp: dial tcp 10.0.0.1:3128: connect: connection refused",
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            "remote error: tls: handshake failure",
            "net/http: TLS handshake timeout",
            "net/http: timeout awaiting response headers",
            "context canceled",
            "EOF",
            "read tcp 127.0.0.1:48862->127.0.0.1:35873: read: connection reset by peer",
        ];
        let heard = [
            "http: server gave HTTP response to HTTPS client",
            "net/http: HTTP/1.x transport connection broken: unexpected EOF",
            "proxyconnect tcp: EOF",
            "Forbidden",
            "",
        ];
        for version in [ONE, TWO] {
            for cause in silent {
                assert!(had_no_answer(&format!("{version}{HEAD}{cause}")), "{cause}");
            }
            for cause in heard {
                assert!(!had_no_answer(&format!("{version}{HEAD}{cause}")), "{cause}");
            }
            for text in [
                "unexpected status from HEAD request to http://a.io/v2/org/token-service/manifests/1: 503 dial tcp 1.2.3.4:5: connect: connection refused",
                "failed to authorize: failed to fetch anonymous token: Get \"http://b.io/token?scope=%5BREDACTED%5D\": dial tcp 127.0.0.1:60739: connect: connection refused",
                "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: dial tcp",
                "a.io/org/token-service:1: not found",
            ] {
                assert!(!had_no_answer(&format!("{version}{text}")), "{text}");
            }
        }
        let dial = "dial tcp 127.0.0.1:35789: connect: connection refused";
        for message in [
            String::new(),
            dial.to_owned(),
            format!("{HEAD}{dial}"),
            // It had an answer to its first request.
            format!(
                "failed to pull and unpack image \"a.io/b:1\": failed to copy: httpReadSeeker: failed open: failed to do request: Get \"http://a.io/v2/b/manifests/1\": {dial}"
            ),
            // Of a quote that does not end nothing is known.
            format!("{TWO}{HEAD}{dial}\""),
            format!("{TWO}failed to do request: Head \"http://a.io/\\\": {dial}"),
        ] {
            assert!(!had_no_answer(&message), "{message}");
        }
    }
}
