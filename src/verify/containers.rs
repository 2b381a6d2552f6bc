//! The writing half of containerd's Namespaces and Containers services, as far as a canary needs it.

use std::collections::HashMap;

use inspect_probes::containerd::{ApiError, DaemonChannel};
use inspect_probes::name::{ContainerId, ContainerdNamespace};
use prost_types::Any;

/// The type of a spec in containerd's records (containerd's typeurl of runtime-spec).
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// The options that containerd-shim-runc-v2 understands.
const OPTIONS_TYPE: &str = "containerd.runc.v1.Options";

/// `containerd.runc.v1.Options`: what the shim is told about the OCI runtime.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RuncOptions {
    #[prost(string, tag = "6")]
    pub(super) binary_name: String,
    #[prost(bool, tag = "9")]
    pub(super) systemd_cgroup: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NamespaceRequest {
    #[prost(message, optional, tag = "1")]
    namespace: Option<NamespaceMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NamespaceMessage {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NameRequest {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateContainerRequest {
    #[prost(message, optional, tag = "1")]
    container: Option<ContainerMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerMessage {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(map = "string, string", tag = "2")]
    labels: HashMap<String, String>,
    #[prost(message, optional, tag = "4")]
    runtime: Option<RuntimeMessage>,
    #[prost(message, optional, tag = "5")]
    spec: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    options: Option<Any>,
}

/// Makes the canary's containerd namespace; one that is there already is as good. containerd 1.6 wants the call itself to name a
/// containerd namespace: it publishes the event there ("namespace is required" otherwise).
pub(super) async fn create_namespace(
    channel: &mut DaemonChannel,
    namespace: &ContainerdNamespace,
) -> Result<(), ApiError> {
    let method = "/containerd.services.namespaces.v1.Namespaces/Create";
    let message = NamespaceMessage { name: namespace.as_str().to_owned() };
    let request = NamespaceRequest { namespace: Some(message) };
    match channel.unary::<_, NamespaceRequest>(method, Some(namespace), request).await {
        Ok(_) => Ok(()),
        Err(ApiError::Call { status, .. }) if status.code() as i32 == ALREADY_EXISTS => Ok(()),
        Err(error) => Err(error),
    }
}

/// gRPC's code ALREADY_EXISTS.
const ALREADY_EXISTS: i32 = 6;

/// Removes a containerd namespace; containerd refuses while anything is left in it.
pub(super) async fn delete_namespace(
    channel: &mut DaemonChannel,
    namespace: &ContainerdNamespace,
) -> Result<(), ApiError> {
    let method = "/containerd.services.namespaces.v1.Namespaces/Delete";
    let request = NameRequest { name: namespace.as_str().to_owned() };
    channel.unary::<_, ()>(method, Some(namespace), request).await
}

/// Records a container without image and snapshot: its root file system comes with the task.
pub(super) async fn create_container(
    channel: &mut DaemonChannel,
    namespace: &ContainerdNamespace,
    id: &ContainerId,
    runtime_type: &str,
    options: &RuncOptions,
    spec: &serde_json::Value,
) -> Result<(), ApiError> {
    let method = "/containerd.services.containers.v1.Containers/Create";
    let options = Any { type_url: OPTIONS_TYPE.to_owned(), value: prost::Message::encode_to_vec(options) };
    let spec = Any { type_url: SPEC_TYPE.to_owned(), value: spec.to_string().into_bytes() };
    let container = ContainerMessage {
        id: id.as_str().to_owned(),
        labels: HashMap::new(),
        runtime: Some(RuntimeMessage { name: runtime_type.to_owned(), options: Some(options) }),
        spec: Some(spec),
    };
    let request = CreateContainerRequest { container: Some(container) };
    channel.unary::<_, CreateContainerRequest>(method, Some(namespace), request).await.map(|_| ())
}

/// Removes the record of a container.
pub(super) async fn delete_container(
    channel: &mut DaemonChannel,
    namespace: &ContainerdNamespace,
    id: &ContainerId,
) -> Result<(), ApiError> {
    let method = "/containerd.services.containers.v1.Containers/Delete";
    let request = NameRequest { name: id.as_str().to_owned() };
    channel.unary::<_, ()>(method, Some(namespace), request).await
}
