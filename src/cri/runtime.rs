//! Which runtime answers behind the image socket.
//!
//! CRI-O keeps its images where containerd's API does not reach, so tag records could not be written
//! and every pull by tag would fail one by one; it is refused at start instead. A runtime that does
//! not answer, or cannot be understood, is not refused here: it may come up later, and nothing is
//! allowed because of it.

use std::path::Path;
use std::time::Duration;

use prost::Message;
use tonic::Code;

use super::{Refusal, Upstream, unary};

/// What the runtime on `socket` calls itself, such as `containerd` or `cri-o`.
///
/// # Errors
/// The [`Refusal`] that a call would have got: nobody there, no answer in time, or an error.
pub async fn runtime_name(socket: &Path) -> Result<String, Refusal> {
    let upstream = Upstream::new(socket.into());
    let metadata = unary::own_metadata();
    let asking = unary::exchange(&upstream, VERSION, &metadata, &[]);
    let answer = tokio::time::timeout(PATIENCE, asking)
        .await
        .map_err(|_| Refusal::new(Code::DeadlineExceeded, "the runtime does not answer in time"))??;
    let status = answer.status();
    if status.code() != Code::Ok {
        return Err(Refusal::new(status.code(), status.message()));
    }
    Ok(answer.message::<VersionResponse>("Version")?.runtime_name)
}

/// Whether a runtime of that name is CRI-O.
#[must_use]
pub const fn is_crio(name: &str) -> bool {
    name.eq_ignore_ascii_case("cri-o")
}

/// `VersionResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
struct VersionResponse {
    #[prost(string, tag = "2")]
    runtime_name: String,
}

const VERSION: &str = "/runtime.v1.RuntimeService/Version";
/// A runtime answers in milliseconds; one that hangs must not hold the start up.
const PATIENCE: Duration = Duration::from_secs(2);
