//! The relay between the kubelet and containerd.
//!
//! Every call of `runtime.v1` passes through byte by byte, both directions, with its metadata, its
//! deadline, its trailers and its cancellation. Two methods of the image service are looked at:
//!
//! 1. `PullImage`: the [`Gate`] is asked before anything reaches containerd; the original bytes go on
//!    with only the image exchanged; after a pull by tag the tag record is written; the answer is
//!    containerd's own.
//! 2. `ImageStatus`: containerd is asked first; the gate decides whether the answer is shown.
//!
//! The relay has a thread of its own: between the kubelet and containerd no call waits for a
//! verification, or for another thread to wake up. Pulls are judged on the caller's runtime.
//!
//! Trusted: containerd, and the peers whose user id is allowed (the kubelet, root). Not trusted: the
//! content of requests, which is read strictly (`wire`, `frame`).
//!
//! Failing: what cannot be read, judged or relayed is answered with a gRPC status, never let through.
//! containerd away is UNAVAILABLE, our own deadline DEADLINE_EXCEEDED, a panic INTERNAL.
//!
//! Rules: M1, M5, M6, M7, T1 to T3, E1, E6. Wire: gRPC over HTTP/2, CRI `runtime.v1`.

mod ask;
mod body;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod image_status;
mod proxy;
mod pull_image;
mod route;
mod running;
mod runtime;
pub mod socket;
mod tags;
mod unary;
mod wire;

use std::collections::BTreeMap;
use std::future::Future;

use tonic::Code;

use crate::containerd::connection::{Connection, ConnectionError};
use crate::oci::{Digest, Reference};

pub use self::ask::image_id;
pub use self::proxy::{Counts, Proxy, ProxyOptions};
pub use self::running::{Container, running_of};
pub use self::runtime::{is_crio, runtime_name};
pub use self::wire::AuthConfig;

/// Who decides. The relay asks; the decision and its records are made elsewhere.
///
/// A call that the kubelet gives up drops the future that is running, and the ticket with it.
pub trait Gate: Send + Sync + 'static {
    /// What the gate wants to have back once containerd has answered.
    type Ticket: Send + 'static;
    /// What the gate found out about a name beside containerd's answer to ImageStatus.
    type Asked: Send;

    /// Judges a pull before anything is forwarded.
    fn pull(&self, call: PullCall) -> impl Future<Output = Result<PullPlan<Self::Ticket>, Refusal>> + Send;

    /// Hears how the forwarded pull ended, before the kubelet does and before a tag record is written.
    ///
    /// An `Err` is answered in place of containerd's answer.
    fn pulled(
        &self,
        ticket: Self::Ticket,
        outcome: PullOutcome,
    ) -> impl Future<Output = Result<PullAnswer, Refusal>> + Send;

    /// Finds out what the decision about `name` needs, while containerd is asked for its answer.
    ///
    /// It may be older or newer than the answer: [`Gate::image_status`] must see to it that the two
    /// belong together.
    fn ask(&self, name: &str) -> impl Future<Output = Self::Asked> + Send;

    /// Decides whether containerd's answer about `name` is shown; `None` if containerd has no such image.
    fn image_status(
        &self,
        name: &str,
        asked: Self::Asked,
        answer: Option<ImageFacts>,
    ) -> impl Future<Output = Visibility> + Send;
}

/// A pull, as the kubelet asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullCall {
    /// `ImageSpec.image`; image ids do not get here (rule M5).
    pub image: Reference,
    /// The pod of `sandbox_config`.
    pub pod: PodIdentity,
    /// The credentials of this very request.
    pub auth: Option<AuthConfig>,
}

/// What `sandbox_config` says about the pod; empty without one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodIdentity {
    /// Namespace, unless missing or empty.
    pub namespace: Option<String>,
    /// Name, unless missing or empty.
    pub name: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A pull that may be forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullPlan<T> {
    /// In which form.
    pub forward: Forward,
    /// Handed back to [`Gate::pulled`].
    pub ticket: T,
}

/// In which form a pull is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// The bytes of the request, unchanged.
    AsSent,
    /// With the image exchanged for a name that carries the digest.
    Pinned {
        /// `name@digest` in containerd's form, as [`Reference::pinned`] writes it.
        name: String,
        /// The digest in it.
        digest: Digest,
        /// When this request resolved the digest from the registry, as a number that grows with every
        /// resolution. Nothing if it did not: then no tag record is written (rule T2).
        resolved: Option<u64>,
    },
}

/// How a forwarded pull ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullOutcome {
    /// The image is there, under this id.
    Pulled {
        /// `PullImageResponse.image_ref`.
        image_id: String,
    },
    /// containerd refused, failed or is away.
    Failed {
        /// Its code; UNAVAILABLE if it is away.
        code: Code,
        /// Its message.
        message: String,
    },
}

/// What the kubelet is answered after a forwarded pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullAnswer {
    /// containerd's own answer, byte for byte.
    PassOn,
    /// The image is present and may be used although the pull failed (rule O4).
    Present {
        /// Its id.
        image_id: String,
    },
}

/// What containerd says about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// The image id (digest of the config).
    pub id: String,
    /// `name:tag` of its records.
    pub repo_tags: Vec<String>,
    /// `name@digest` of its records.
    pub repo_digests: Vec<String>,
}

/// Whether an image is shown to the kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    /// containerd's answer, byte for byte.
    Show,
    /// As absent.
    Hide,
    /// An error (rule S2).
    Refuse(Refusal),
}

/// An answer that is not containerd's: a gRPC status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The status code.
    pub code: Code,
    /// The text for the kubelet (rules E1 to E4).
    pub message: String,
}

impl Refusal {
    /// A refusal with `code` and `message`.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The trailers-only answer; a longer text is cut, control characters become blanks (rule E4).
    fn response(self) -> http::Response<body::RelayBody> {
        let message: String = self
            .message
            .char_indices()
            .take_while(|(at, char)| at + char.len_utf8() < MESSAGE_LIMIT)
            .map(|(_, char)| if char.is_control() { ' ' } else { char })
            .collect();
        tonic::Status::new(self.code, message).into_http::<()>().map(|()| body::RelayBody::Empty)
    }
}

/// The connection to containerd that belongs to one accepted connection.
type Upstream = Connection<body::RelayBody>;

impl From<ConnectionError> for Refusal {
    /// E6: containerd away is UNAVAILABLE.
    fn from(error: ConnectionError) -> Self {
        Self::new(Code::Unavailable, format!("pullgate: containerd is not available: {error}"))
    }
}

/// In bytes (rule E4).
const MESSAGE_LIMIT: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4_a_refusal_is_short_and_has_no_control_characters() {
        let response = Refusal::new(Code::Unknown, format!("a\n\u{1b}b{}", "é".repeat(500))).response();
        let status = tonic::Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::Unknown);
        assert!(status.message().starts_with("a  bé"), "{status:?}");
        assert!((390..400).contains(&status.message().len()), "{}", status.message().len());
        assert_eq!(response.headers()["content-type"], "application/grpc");
    }
}
