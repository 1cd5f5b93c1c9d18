//! Which containers run of an image, for reports: a container that runs is never touched (rule S6).
//!
//! Asked of containerd itself, by `RuntimeService/ListContainers`: what stands on the image socket need
//! not know of containers. A container names its image by id, so the ids of images are asked for by name.
//! What cannot be asked or read is an error for the caller, who reports less then, and decides nothing by it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use prost::Message;

use super::ask::{call, image_id_on};
use super::{Refusal, Upstream};

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
        // Gone since it was looked at.
        let Some(id) = image_id_on(&upstream, &name).await? else { continue };
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
