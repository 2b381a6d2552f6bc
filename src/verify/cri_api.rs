//! The writing half of the CRI runtime service (kubernetes/cri-api, runtime.v1), as far as a canary pod needs it.

use inspect_probes::containerd::{ApiError, DaemonChannel};
use inspect_probes::name::ContainerId;

/// `NamespaceMode.NODE`: the pod shares the host's network, and so needs no CNI.
const NODE: i32 = 2;
/// `NamespaceMode.CONTAINER`: a pid namespace of its own.
const CONTAINER: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodConfig>,
    #[prost(string, tag = "2")]
    runtime_handler: String,
}

/// `PodSandboxConfig`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PodConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodMetadata>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPod>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LinuxPod {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    security_context: Option<PodSecurity>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodSecurity {
    #[prost(message, optional, tag = "1")]
    namespace_options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NamespaceOption {
    #[prost(int32, tag = "1")]
    network: i32,
    #[prost(int32, tag = "2")]
    pid: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateContainerRequest {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<PodConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    image: Option<ImageSpec>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(message, repeated, tag = "7")]
    mounts: Vec<CriMount>,
    #[prost(message, optional, tag = "15")]
    linux: Option<LinuxContainer>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

/// `Mount`: a host directory in the container.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CriMount {
    #[prost(string, tag = "1")]
    pub(super) container_path: String,
    #[prost(string, tag = "2")]
    pub(super) host_path: String,
    #[prost(bool, tag = "3")]
    pub(super) readonly: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LinuxContainer {
    #[prost(message, optional, tag = "2")]
    security_context: Option<ContainerSecurity>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerSecurity {
    #[prost(message, optional, tag = "3")]
    namespace_options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct IdMessage {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExecSyncRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, repeated, tag = "2")]
    command: Vec<String>,
    #[prost(int64, tag = "3")]
    timeout: i64,
}

/// What a command in a container printed, and how it ended.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ExecSyncResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) stdout: Vec<u8>,
    #[prost(int32, tag = "3")]
    pub(super) exit_code: i32,
}

/// `ImageStatusRequest` and `RemoveImageRequest`: both begin so.
#[derive(Clone, PartialEq, prost::Message)]
struct ImageStatusRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageStatusResponse {
    #[prost(message, optional, tag = "1")]
    image: Option<IdMessage>,
}

/// The canary pod's config. With the systemd driver the cgroup's parent has to be a slice.
pub(super) fn pod_config(name: &str, systemd_cgroup: bool) -> PodConfig {
    let options = NamespaceOption { network: NODE, pid: CONTAINER };
    let cgroup_parent = if systemd_cgroup { "system.slice" } else { "/inspect-verify" };
    PodConfig {
        metadata: Some(PodMetadata {
            name: name.to_owned(),
            uid: name.to_owned(),
            namespace: "inspect-verify".to_owned(),
        }),
        linux: Some(LinuxPod {
            cgroup_parent: cgroup_parent.to_owned(),
            security_context: Some(PodSecurity { namespace_options: Some(options) }),
        }),
    }
}

/// Starts the pod's sandbox with a runtime handler; an empty one is the default.
pub(super) async fn run_pod_sandbox(
    channel: &mut DaemonChannel,
    config: &PodConfig,
    handler: &str,
) -> Result<ContainerId, ApiError> {
    let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.to_owned() };
    let response: IdMessage =
        channel.unary("/runtime.v1.RuntimeService/RunPodSandbox", None, request).await?;
    Ok(ContainerId::new(response.id))
}

/// Creates the canary's container in the pod.
pub(super) async fn create_container(
    channel: &mut DaemonChannel,
    sandbox: &ContainerId,
    pod: &PodConfig,
    image: &str,
    command: Vec<String>,
    mounts: Vec<CriMount>,
) -> Result<ContainerId, ApiError> {
    let options = NamespaceOption { network: NODE, pid: CONTAINER };
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "canary".to_owned() }),
        image: Some(ImageSpec { image: image.to_owned() }),
        command,
        mounts,
        linux: Some(LinuxContainer {
            security_context: Some(ContainerSecurity { namespace_options: Some(options) }),
        }),
    };
    let request = CreateContainerRequest {
        pod_sandbox_id: sandbox.as_str().to_owned(),
        config: Some(config),
        sandbox_config: Some(pod.clone()),
    };
    let response: IdMessage =
        channel.unary("/runtime.v1.RuntimeService/CreateContainer", None, request).await?;
    Ok(ContainerId::new(response.id))
}

/// Starts a created container.
pub(super) async fn start_container(channel: &mut DaemonChannel, id: &ContainerId) -> Result<(), ApiError> {
    channel.unary("/runtime.v1.RuntimeService/StartContainer", None, id_message(id)).await
}

/// Runs a command in a container to its end.
pub(super) async fn exec_sync(
    channel: &mut DaemonChannel,
    id: &ContainerId,
    command: Vec<String>,
    timeout_seconds: i64,
) -> Result<ExecSyncResponse, ApiError> {
    let request = ExecSyncRequest { container_id: id.as_str().to_owned(), command, timeout: timeout_seconds };
    channel.unary("/runtime.v1.RuntimeService/ExecSync", None, request).await
}

/// Ends and removes the pod with everything in it.
pub(super) async fn remove_pod(channel: &mut DaemonChannel, sandbox: &ContainerId) -> Result<(), ApiError> {
    channel.unary::<_, ()>("/runtime.v1.RuntimeService/StopPodSandbox", None, id_message(sandbox)).await?;
    channel.unary("/runtime.v1.RuntimeService/RemovePodSandbox", None, id_message(sandbox)).await
}

/// Whether the CRI plugin has an image of that name.
pub(super) async fn has_image(channel: &mut DaemonChannel, image: &str) -> Result<bool, ApiError> {
    let request = ImageStatusRequest { image: Some(ImageSpec { image: image.to_owned() }) };
    let response: ImageStatusResponse =
        channel.unary("/runtime.v1.ImageService/ImageStatus", None, request).await?;
    Ok(response.image.is_some_and(|image| !image.id.is_empty()))
}

/// Removes an image with all its names.
pub(super) async fn remove_image(channel: &mut DaemonChannel, image: &str) -> Result<(), ApiError> {
    let request = ImageStatusRequest { image: Some(ImageSpec { image: image.to_owned() }) };
    channel.unary("/runtime.v1.ImageService/RemoveImage", None, request).await
}

fn id_message(id: &ContainerId) -> IdMessage {
    IdMessage { id: id.as_str().to_owned() }
}
