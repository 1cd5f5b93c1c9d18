//! Which containers run of an image, for reports: a container that runs is never touched (rule S6).
//!
//! Asked of containerd itself, by `RuntimeService/ListContainers`: what stands on the image socket need
//! not know of containers. A container names its image by id, so the ids of images are asked for by name.
//! What cannot be asked or read is an error for the caller, who reports less then, and decides nothing by it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use prost::Message;
use tonic::Code;

use super::wire::{ImageSpec, ImageStatusRequest, ImageStatusResponse};
use super::{Refusal, Upstream, unary};

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// The name of its image.
    pub image: String,
    /// The pod's namespace; empty if the runtime was asked by somebody else than the kubelet.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// Its name in the pod.
    pub container: String,
}

/// The containers that run of one of these images, in order.
///
/// # Errors
/// The [`Refusal`] that a call would have got: nobody there, no answer in time, or an error.
pub async fn running_of(
    socket: &Path,
    images: impl IntoIterator<Item = String>,
) -> Result<Vec<Container>, Refusal> {
    let upstream = Upstream::new(socket.into());
    let request = ListContainersRequest {
        filter: Some(ContainerFilter { state: Some(ContainerStateValue { state: RUNNING }) }),
    };
    let listed: ListContainersResponse = call(&upstream, LIST_CONTAINERS, &request).await?;
    if listed.containers.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = BTreeSet::new();
    for name in images {
        let image = Some(ImageSpec { image: name.clone(), ..ImageSpec::default() });
        let request = ImageStatusRequest { image, verbose: false };
        let status: ImageStatusResponse = call(&upstream, unary::IMAGE_STATUS, &request).await?;
        // Gone since it was looked at.
        let Some(id) = status.image.map(|image| image.id).filter(|id| !id.is_empty()) else { continue };
        let own = listed.containers.iter().filter(|container| container.image_ref == id);
        found.extend(own.map(|container| Container {
            image: name.clone(),
            namespace: container.label("io.kubernetes.pod.namespace"),
            pod: container.label("io.kubernetes.pod.name"),
            container: container.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default(),
        }));
    }
    Ok(found.into_iter().collect())
}

async fn call<M: Message + Default>(
    upstream: &Upstream,
    method: &'static str,
    request: &impl Message,
) -> Result<M, Refusal> {
    let (metadata, message) = (unary::own_metadata(), request.encode_to_vec());
    let asking = unary::exchange(upstream, method, &metadata, &message);
    let answer = tokio::time::timeout(PATIENCE, asking)
        .await
        .map_err(|_| Refusal::new(Code::DeadlineExceeded, "containerd does not answer in time"))??;
    let status = answer.status();
    if status.code() != Code::Ok {
        return Err(Refusal::new(status.code(), status.message()));
    }
    answer.message(method)
}

/// `ListContainersRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
struct ListContainersRequest {
    #[prost(message, optional, tag = "1")]
    filter: Option<ContainerFilter>,
}

/// `ContainerFilter`.
#[derive(Clone, PartialEq, Eq, Message)]
struct ContainerFilter {
    #[prost(message, optional, tag = "2")]
    state: Option<ContainerStateValue>,
}

/// `ContainerStateValue`.
#[derive(Clone, PartialEq, Eq, Message)]
struct ContainerStateValue {
    #[prost(int32, tag = "1")]
    state: i32,
}

/// `ListContainersResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<ListedContainer>,
}

/// `Container`.
#[derive(Clone, PartialEq, Eq, Message)]
struct ListedContainer {
    #[prost(message, optional, tag = "3")]
    metadata: Option<ContainerMetadata>,
    #[prost(string, tag = "5")]
    image_ref: String,
    #[prost(btree_map = "string, string", tag = "8")]
    labels: BTreeMap<String, String>,
}

/// `ContainerMetadata`.
#[derive(Clone, PartialEq, Eq, Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
}

impl ListedContainer {
    fn label(&self, name: &str) -> String {
        self.labels.get(name).cloned().unwrap_or_default()
    }
}

const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
/// `ContainerState.CONTAINER_RUNNING`.
const RUNNING: i32 = 1;
/// containerd lists hundreds of containers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
