//! A CRI client with the manners of the kubelet, over Unix sockets.

use std::{collections::HashMap, fs, path::Path};

use hyper_util::rt::TokioIo;
use k8s_cri::v1::{
    AuthConfig, ContainerConfig, ContainerMetadata, ContainerStatusRequest, CreateContainerRequest, Image,
    ImageSpec, ImageStatusRequest, Int64Value, LinuxContainerConfig, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, ListImagesRequest, ListPodSandboxRequest,
    NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PullImageRequest,
    RemoveImageRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopPodSandboxRequest, VersionRequest, image_service_client::ImageServiceClient,
    runtime_service_client::RuntimeServiceClient,
};
use tokio::{net::UnixStream, time::timeout};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

use super::{PATIENCE, block_on, runtime, unique};

/// One client: images on one socket, containers on another, as the kubelet has them with a gate.
#[derive(Clone)]
pub(crate) struct Cri {
    images: ImageServiceClient<Channel>,
    runtime: RuntimeServiceClient<Channel>,
}

impl Cri {
    pub(crate) fn new(images: &Path, runtime: &Path) -> Self {
        Self {
            images: ImageServiceClient::new(channel(images)),
            runtime: RuntimeServiceClient::new(channel(runtime)),
        }
    }

    /// A pull to be sent: no credentials, no pod.
    pub(crate) fn pull(&self, image: impl Into<String>) -> Pull {
        let spec = spec(image.into());
        Pull { images: self.images.clone(), spec, auth: None, pod: None }
    }

    /// What ImageStatus says; `None` is absent.
    pub(crate) fn image_status(&self, image: impl Into<String>) -> Result<Option<Image>, Status> {
        let request = ImageStatusRequest { image: Some(spec(image.into())), verbose: false };
        let mut images = self.images.clone();
        call(async move { images.image_status(request).await }).map(|response| response.image)
    }

    /// ImageStatus of an image that must be there.
    pub(crate) fn present(&self, image: impl Into<String>) -> Image {
        let image = image.into();
        self.image_status(image.clone())
            .unwrap_or_else(|status| panic!("ImageStatus {image}: {status}"))
            .unwrap_or_else(|| panic!("{image} is absent"))
    }

    pub(crate) fn list_images(&self) -> Result<Vec<Image>, Status> {
        let mut images = self.images.clone();
        call(async move { images.list_images(ListImagesRequest { filter: None }).await })
            .map(|response| response.images)
    }

    pub(crate) fn remove_image(&self, image: impl Into<String>) -> Result<(), Status> {
        let request = RemoveImageRequest { image: Some(spec(image.into())) };
        let mut images = self.images.clone();
        call(async move { images.remove_image(request).await }).map(|_| ())
    }

    /// The runtime's name and version.
    pub(crate) fn version(&self) -> Result<String, Status> {
        let mut runtime = self.runtime.clone();
        call(async move { runtime.version(VersionRequest { version: String::new() }).await })
            .map(|response| format!("{} {}", response.runtime_name, response.runtime_version))
    }

    /// Starts a container of an image that is present, the way the kubelet does once the image was
    /// pulled: asks ImageStatus for the user and, when the answer is "absent", asks for **root**.
    pub(crate) fn run(&self, image: &str) -> Result<Running, Status> {
        let user = self.image_status(image)?;
        let id = user.as_ref().map_or_else(|| image.to_owned(), |image| image.id.clone());
        let root = Int64Value { value: 0 };
        let (uid, name) = match user {
            None => (Some(root), String::new()),
            Some(Image { uid: Some(uid), .. }) => (Some(uid), String::new()),
            Some(Image { username, .. }) if username.is_empty() => (Some(root), username),
            Some(Image { username, .. }) => (None, username),
        };
        self.start_container(
            id,
            image,
            LinuxContainerSecurityContext { run_as_user: uid, run_as_username: name, ..Default::default() },
        )
    }

    /// Starts a container in a pod of its own without saying a user: the image's own counts.
    pub(crate) fn run_as_image_says(&self, image: &str) -> Result<Running, Status> {
        self.start_container(image.to_owned(), image, LinuxContainerSecurityContext::default())
    }

    fn start_container(
        &self,
        image: String,
        named: &str,
        security: LinuxContainerSecurityContext,
    ) -> Result<Running, Status> {
        let sandbox = pod("default", &[]);
        let request = RunPodSandboxRequest { config: Some(sandbox.clone()), runtime_handler: String::new() };
        let mut runtime = self.runtime.clone();
        let pod = call(async move { runtime.run_pod_sandbox(request).await })?.pod_sandbox_id;
        // From here on the pod is removed, whatever fails.
        let mut running = Running { cri: self.clone(), pod: pod.clone(), container: String::new() };

        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "app".to_owned(), attempt: 0 }),
            labels: kubelet_labels(&sandbox),
            image: Some(ImageSpec { user_specified_image: named.to_owned(), ..spec(image) }),
            linux: Some(LinuxContainerConfig { security_context: Some(security), ..Default::default() }),
            ..Default::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: pod,
            config: Some(config),
            sandbox_config: Some(sandbox),
        };
        let mut runtime = self.runtime.clone();
        running.container = call(async move { runtime.create_container(request).await })?.container_id;
        let request = StartContainerRequest { container_id: running.container.clone() };
        let mut runtime = self.runtime.clone();
        call(async move { runtime.start_container(request).await })?;
        Ok(running)
    }

    /// The ids of all pods.
    pub(crate) fn pods(&self) -> Vec<String> {
        let mut runtime = self.runtime.clone();
        let listed =
            call(async move { runtime.list_pod_sandbox(ListPodSandboxRequest { filter: None }).await });
        listed.map(|pods| pods.items.into_iter().map(|pod| pod.id).collect()).unwrap_or_default()
    }

    /// Stops and removes a pod with its containers.
    pub(crate) fn remove_pod(&self, pod: &str) {
        let mut runtime = self.runtime.clone();
        let id = pod.to_owned();
        let _ = call(async move {
            runtime.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await?;
            runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id }).await
        });
    }
}

/// A PullImage in the making.
#[derive(Clone)]
pub(crate) struct Pull {
    images: ImageServiceClient<Channel>,
    spec: ImageSpec,
    auth: Option<AuthConfig>,
    pod: Option<PodSandboxConfig>,
}

impl Pull {
    pub(crate) fn credentials(mut self, username: &str, password: &str) -> Self {
        self.auth = Some(AuthConfig {
            username: username.to_owned(),
            password: password.to_owned(),
            ..Default::default()
        });
        self
    }

    /// An identity token, which is exchanged for tokens of a registry.
    pub(crate) fn identity_token(mut self, token: &str) -> Self {
        self.auth = Some(AuthConfig { identity_token: token.to_owned(), ..Default::default() });
        self
    }

    /// As what a pod's author named it.
    pub(crate) fn user_specified(mut self, image: &str) -> Self {
        image.clone_into(&mut self.spec.user_specified_image);
        self
    }

    /// For a pod of this namespace, with these labels.
    pub(crate) fn pod(mut self, namespace: &str, labels: &[(&str, &str)]) -> Self {
        self.pod = Some(pod(namespace, labels));
        self
    }

    /// Sends it; the answer is the image id, or a reference by digest.
    pub(crate) fn send(self) -> Result<String, Status> {
        block_on(self.sent())
    }

    /// Sends it and expects it to go through.
    pub(crate) fn expect(self) -> String {
        let image = self.spec.image.clone();
        self.send().unwrap_or_else(|status| panic!("PullImage {image}: {status}"))
    }

    /// Sends it and expects a refusal; gives the refusal.
    pub(crate) fn expect_refusal(self) -> Status {
        let image = self.spec.image.clone();
        self.send().expect_err(&format!("PullImage {image} went through"))
    }

    /// The future of it, for many at once.
    pub(crate) async fn sent(mut self) -> Result<String, Status> {
        let request = PullImageRequest { image: Some(self.spec), auth: self.auth, sandbox_config: self.pod };
        Box::pin(in_time(self.images.pull_image(request))).await.map(|response| response.image_ref)
    }
}

/// A container that runs in a pod of its own; both are removed when dropped.
pub(crate) struct Running {
    cri: Cri,
    pod: String,
    container: String,
}

impl Running {
    /// The user id that the container's process really has, as the host sees it.
    pub(crate) fn uid(&self) -> u32 {
        let request = ContainerStatusRequest { container_id: self.container.clone(), verbose: true };
        let mut runtime = self.cri.runtime.clone();
        let status = call(async move { runtime.container_status(request).await }).expect("ContainerStatus");
        let info: serde_json::Value = serde_json::from_str(&status.info["info"]).expect("JSON");
        let process = format!("/proc/{}/status", info["pid"].as_u64().expect("a pid"));
        let status = fs::read_to_string(&process).unwrap_or_else(|error| panic!("{process}: {error}"));
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("a Uid line");
        uid.split_whitespace().next().and_then(|uid| uid.parse().ok()).expect("a number")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cri.remove_pod(&self.pod);
    }
}

/// A channel that connects when it is used, and again after a restart of the other side.
pub(crate) fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let _in_runtime = runtime().enter();
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    }))
}

/// Runs one call to its end, within the kit's patience.
pub(crate) fn call<T>(future: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    block_on(in_time(future))
}

async fn in_time<T>(future: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    let answer = timeout(PATIENCE, future).await;
    answer.unwrap_or_else(|_| panic!("no answer within {PATIENCE:?}")).map(Response::into_inner)
}

fn spec(image: String) -> ImageSpec {
    ImageSpec { image, ..Default::default() }
}

/// How the kubelet finds its containers again.
fn kubelet_labels(pod: &PodSandboxConfig) -> HashMap<String, String> {
    let metadata = pod.metadata.clone().unwrap_or_default();
    let labels = [
        ("io.kubernetes.pod.name", metadata.name),
        ("io.kubernetes.pod.namespace", metadata.namespace),
        ("io.kubernetes.pod.uid", metadata.uid),
        ("io.kubernetes.container.name", "app".to_owned()),
    ];
    labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A pod on the host network, as CRI describes it.
fn pod(namespace: &str, labels: &[(&str, &str)]) -> PodSandboxConfig {
    let name = format!("pod-{}", unique());
    let options = NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Container.into(),
        ..Default::default()
    };
    let security = LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            uid: format!("uid-{name}"),
            name,
            namespace: namespace.to_owned(),
            attempt: 0,
        }),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect::<HashMap<_, _>>(),
        linux: Some(LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() }),
        ..Default::default()
    }
}
