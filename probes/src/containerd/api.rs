//! The calls: Version, Introspection, Namespaces, Containers, Tasks.

use std::collections::{BTreeMap, HashMap};

use prost_types::{Any, Timestamp};
use serde::Serialize;

use super::channel::{ApiError, DaemonChannel};
use crate::name::{ContainerId, ContainerdNamespace, Pid};

/// `containerd.services.version.v1.VersionResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
pub struct Version {
    /// `1.7.24~ds1`
    #[prost(string, tag = "1")]
    pub version: String,
    /// The commit, or what the distribution put there.
    #[prost(string, tag = "2")]
    pub revision: String,
}

/// `containerd.services.introspection.v1.ServerResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
pub struct DaemonServer {
    /// Kept over restarts.
    #[prost(string, tag = "1")]
    pub uuid: String,
    /// The daemon's pid in its own pid namespace; 0 from containerd 1.6, which does not say.
    #[prost(uint64, tag = "2")]
    pub pid: u64,
    /// The inode of that pid namespace; 0 from containerd 1.6.
    #[prost(uint64, tag = "3")]
    pub pid_namespace: u64,
    /// What the daemon warns of (1.7 and later).
    #[prost(message, repeated, tag = "4")]
    pub deprecations: Vec<DeprecationWarning>,
}

/// `containerd.services.introspection.v1.DeprecationWarning`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
pub struct DeprecationWarning {
    /// `io.containerd.deprecation/…`
    #[prost(string, tag = "1")]
    pub id: String,
    /// What to do.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `containerd.services.introspection.v1.Plugin`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
pub struct Plugin {
    /// `io.containerd.grpc.v1`
    #[prost(string, tag = "1")]
    pub kind: String,
    /// `cri`
    #[prost(string, tag = "2")]
    pub id: String,
    /// Exported values: `root`, `address`, …
    #[prost(btree_map = "string, string", tag = "5")]
    pub exports: BTreeMap<String, String>,
    /// Why it is not there; `None` when it is.
    #[prost(message, optional, tag = "7")]
    pub init_error: Option<PluginError>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
pub struct PluginError {
    /// A gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The reason.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// containerd's record of a container: what was asked for. It outlives tasks and reboots.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerRecord {
    /// The id.
    pub id: ContainerId,
    /// Labels; the CRI plugin's begin with `io.cri-containerd.`.
    pub labels: BTreeMap<String, String>,
    /// The image's reference, `None` when the container was made without one.
    pub image: Option<String>,
    /// The runtime that was asked for.
    pub runtime: RuntimeRecord,
    /// config.json as it was stored (JSON).
    pub spec: Vec<u8>,
    /// `overlayfs`
    pub snapshotter: String,
    /// The snapshot that is its root file system.
    pub snapshot_key: String,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// The sandbox that it belongs to (containerd 1.7 and later).
    pub sandbox: Option<ContainerId>,
}

/// `containerd.services.containers.v1.Container.Runtime`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeRecord {
    /// `runtime_type`: `io.containerd.runc.v2`.
    pub name: String,
    /// The type of the options: `containerd.runc.v1.Options`.
    pub options_type: Option<String>,
    /// The options, encoded as their type says.
    pub options: Vec<u8>,
}

/// A task as the daemon and its shim tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRecord {
    /// The container's id.
    pub id: ContainerId,
    /// The init process; `None` while there is none.
    pub pid: Option<Pid>,
    /// Its state.
    pub status: TaskStatus,
    /// Meaningful once stopped.
    pub exit_status: u32,
    /// Seconds since 1970, once stopped.
    pub exited_at: Option<i64>,
}

/// `containerd.v1.types.Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum TaskStatus {
    /// The shim did not say.
    Unknown = 0,
    /// Made, not started.
    Created = 1,
    /// Its init runs.
    Running = 2,
    /// Its init has ended.
    Stopped = 3,
    /// Frozen.
    Paused = 4,
    /// On its way there.
    Pausing = 5,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PluginsResponse {
    #[prost(message, repeated, tag = "1")]
    plugins: Vec<Plugin>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListNamespacesResponse {
    #[prost(message, repeated, tag = "1")]
    namespaces: Vec<NamespaceMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NamespaceMessage {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListContainersRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<ContainerMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GetContainerRequest {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GetContainerResponse {
    #[prost(message, optional, tag = "1")]
    container: Option<ContainerMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerMessage {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(map = "string, string", tag = "2")]
    labels: HashMap<String, String>,
    #[prost(string, tag = "3")]
    image: String,
    #[prost(message, optional, tag = "4")]
    runtime: Option<RuntimeMessage>,
    #[prost(message, optional, tag = "5")]
    spec: Option<Any>,
    #[prost(string, tag = "6")]
    snapshotter: String,
    #[prost(string, tag = "7")]
    snapshot_key: String,
    #[prost(message, optional, tag = "8")]
    created_at: Option<Timestamp>,
    #[prost(string, tag = "11")]
    sandbox: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    options: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListTasksRequest {
    #[prost(string, tag = "1")]
    filter: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListTasksResponse {
    #[prost(message, repeated, tag = "1")]
    tasks: Vec<ProcessMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GetTaskRequest {
    #[prost(string, tag = "1")]
    container_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GetTaskResponse {
    #[prost(message, optional, tag = "1")]
    process: Option<ProcessMessage>,
}

/// `containerd.v1.types.Process`. A task's own entry has the container's id in `id` and nothing in `container_id`.
#[derive(Clone, PartialEq, prost::Message)]
struct ProcessMessage {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(uint32, tag = "3")]
    pid: u32,
    #[prost(enumeration = "TaskStatus", tag = "4")]
    status: i32,
    #[prost(uint32, tag = "9")]
    exit_status: u32,
    #[prost(message, optional, tag = "10")]
    exited_at: Option<Timestamp>,
}

impl DaemonChannel {
    /// `Version/Version`.
    ///
    /// # Errors
    /// [`ApiError`] when the daemon refuses or does not answer in time; so for all of these calls.
    pub async fn version(&mut self) -> Result<Version, ApiError> {
        self.unary("/containerd.services.version.v1.Version/Version", None, ()).await
    }

    /// `Introspection/Server`.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn server(&mut self) -> Result<DaemonServer, ApiError> {
        self.unary("/containerd.services.introspection.v1.Introspection/Server", None, ()).await
    }

    /// `Introspection/Plugins`, all of them.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn plugins(&mut self) -> Result<Vec<Plugin>, ApiError> {
        let method = "/containerd.services.introspection.v1.Introspection/Plugins";
        let response: PluginsResponse = self.unary(method, None, ()).await?;
        Ok(response.plugins)
    }

    /// `Namespaces/List`.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn namespaces(&mut self) -> Result<Vec<ContainerdNamespace>, ApiError> {
        let method = "/containerd.services.namespaces.v1.Namespaces/List";
        let response: ListNamespacesResponse = self.unary(method, None, ()).await?;
        Ok(response
            .namespaces
            .into_iter()
            .map(|namespace| ContainerdNamespace::new(namespace.name))
            .collect())
    }

    /// `Containers/List` in one containerd namespace.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn containers(
        &mut self,
        namespace: &ContainerdNamespace,
    ) -> Result<Vec<ContainerRecord>, ApiError> {
        let method = "/containerd.services.containers.v1.Containers/List";
        let request = ListContainersRequest { filters: Vec::new() };
        let response: ListContainersResponse = self.unary(method, Some(namespace), request).await?;
        Ok(response.containers.into_iter().map(ContainerRecord::from).collect())
    }

    /// `Containers/Get`; `None` when the daemon has no such record.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn container(
        &mut self,
        namespace: &ContainerdNamespace,
        id: &ContainerId,
    ) -> Result<Option<ContainerRecord>, ApiError> {
        let method = "/containerd.services.containers.v1.Containers/Get";
        let request = GetContainerRequest { id: id.as_str().to_owned() };
        match self.unary::<_, GetContainerResponse>(method, Some(namespace), request).await {
            Ok(response) => Ok(response.container.map(ContainerRecord::from)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `Tasks/List` in one containerd namespace. The daemon asks every shim, and leaves out those that do not answer.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn tasks(&mut self, namespace: &ContainerdNamespace) -> Result<Vec<TaskRecord>, ApiError> {
        let method = "/containerd.services.tasks.v1.Tasks/List";
        let request = ListTasksRequest { filter: String::new() };
        let response: ListTasksResponse = self.unary(method, Some(namespace), request).await?;
        Ok(response.tasks.into_iter().map(TaskRecord::from).collect())
    }

    /// `Tasks/Get`; `None` when the container has no task.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn task(
        &mut self,
        namespace: &ContainerdNamespace,
        id: &ContainerId,
    ) -> Result<Option<TaskRecord>, ApiError> {
        let method = "/containerd.services.tasks.v1.Tasks/Get";
        let request = GetTaskRequest { container_id: id.as_str().to_owned() };
        match self.unary::<_, GetTaskResponse>(method, Some(namespace), request).await {
            Ok(response) => Ok(response.process.map(TaskRecord::from)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl From<ContainerMessage> for ContainerRecord {
    fn from(message: ContainerMessage) -> Self {
        let present = |text: String| Some(text).filter(|text| !text.is_empty());
        let runtime = message.runtime.unwrap_or_default();
        let options = runtime.options.unwrap_or_default();
        Self {
            id: ContainerId::new(message.id),
            labels: message.labels.into_iter().collect(),
            image: present(message.image),
            runtime: RuntimeRecord {
                name: runtime.name,
                options_type: present(options.type_url),
                options: options.value,
            },
            spec: message.spec.unwrap_or_default().value,
            snapshotter: message.snapshotter,
            snapshot_key: message.snapshot_key,
            created_at: message.created_at.map(|time| time.seconds),
            sandbox: present(message.sandbox).map(ContainerId::new),
        }
    }
}

impl From<ProcessMessage> for TaskRecord {
    fn from(message: ProcessMessage) -> Self {
        let status = message.status();
        let id = if message.id.is_empty() { message.container_id } else { message.id };
        Self {
            id: ContainerId::new(id),
            pid: Some(message.pid).filter(|pid| *pid != 0).map(Pid::new),
            status,
            exit_status: message.exit_status,
            // A zero time of Go's (year 1) is "not yet".
            exited_at: message.exited_at.map(|time| time.seconds).filter(|seconds| *seconds > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn a_container_record_is_read_from_the_wire() {
        // id "web", runtime {"io.containerd.runc.v2", Any{"containerd.runc.v1.Options", 2:"\r/usr/bin/crun"}}.
        let mut wire =
            b"\x0a\x03web\x22\x46\x0a\x15io.containerd.runc.v2\x12\x2d\x0a\x1acontainerd.runc.v1.Options"
                .to_vec();
        wire.extend_from_slice(b"\x12\x0f\x32\x0d/usr/bin/crun");
        let record = ContainerRecord::from(ContainerMessage::decode(wire.as_slice()).unwrap());
        assert_eq!(record.id.as_str(), "web");
        assert_eq!(record.runtime.name, "io.containerd.runc.v2");
        assert_eq!(record.runtime.options_type.as_deref(), Some("containerd.runc.v1.Options"));
        assert_eq!(record.runtime.options, b"\x32\x0d/usr/bin/crun");
        assert_eq!((record.image, record.sandbox), (None, None));
    }

    #[test]
    fn a_task_without_a_process_has_no_pid() {
        let wire = b"\x12\x03web\x20\x03\x52\x0b\x08\x80\x92\xb8\xc3\x98\xfe\xff\xff\xff\x01";
        let task = TaskRecord::from(ProcessMessage::decode(wire.as_slice()).unwrap());
        assert_eq!((task.pid, task.status, task.exited_at), (None, TaskStatus::Stopped, None));
    }
}
