//! The writing half of containerd's Tasks service, as far as a canary needs it.

use std::path::Path;

use inspect_probes::containerd::{ApiError, DaemonChannel};
use inspect_probes::name::{ContainerId, ContainerdNamespace, Pid};
use prost_types::Any;

/// The type of an exec's process (containerd's typeurl of runtime-spec).
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// The signals that are sent, as signal(7) numbers them.
pub(super) const SIGTERM: u32 = 15;
pub(super) const SIGKILL: u32 = 9;

#[derive(Clone, PartialEq, prost::Message)]
struct CreateTaskRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(message, repeated, tag = "3")]
    rootfs: Vec<MountMessage>,
    #[prost(string, tag = "5")]
    stdout: String,
    #[prost(string, tag = "6")]
    stderr: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MountMessage {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    source: String,
    #[prost(string, repeated, tag = "4")]
    options: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateTaskResponse {
    #[prost(uint32, tag = "2")]
    pid: u32,
}

/// Start, Wait, Delete, Pause and Resume all begin so.
#[derive(Clone, PartialEq, prost::Message)]
struct ProcessRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    exec_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KillRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    exec_id: String,
    #[prost(uint32, tag = "3")]
    signal: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExecRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "3")]
    stdout: String,
    #[prost(string, tag = "4")]
    stderr: String,
    #[prost(message, optional, tag = "6")]
    spec: Option<Any>,
    #[prost(string, tag = "7")]
    exec_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WaitResponse {
    #[prost(uint32, tag = "1")]
    exit_status: u32,
}

/// One task of the canary's: the calls on it.
#[derive(Clone)]
pub(super) struct Task {
    channel: DaemonChannel,
    namespace: ContainerdNamespace,
    id: ContainerId,
}

impl Task {
    pub(super) fn new(channel: DaemonChannel, namespace: ContainerdNamespace, id: ContainerId) -> Self {
        Self { channel, namespace, id }
    }

    /// Has the shim start and the runtime create the container; `rootfs` is bound read-only as its root.
    pub(super) async fn create(&mut self, rootfs: &Path, stdout: &Path) -> Result<Pid, ApiError> {
        let mount = MountMessage {
            kind: "bind".to_owned(),
            source: rootfs.display().to_string(),
            options: vec!["rbind".to_owned(), "ro".to_owned()],
        };
        let request = CreateTaskRequest {
            container_id: self.id.as_str().to_owned(),
            rootfs: vec![mount],
            stdout: file_url(stdout),
            stderr: file_url(stdout),
        };
        let response: CreateTaskResponse =
            self.call("/containerd.services.tasks.v1.Tasks/Create", request).await?;
        Ok(Pid::new(response.pid))
    }

    /// Starts the init, or an exec that was added.
    pub(super) async fn start(&mut self, exec: &str) -> Result<(), ApiError> {
        self.call("/containerd.services.tasks.v1.Tasks/Start", self.process(exec)).await
    }

    /// Waits for the init's or an exec's end, and gives its exit status (128 + N when signal N killed it).
    pub(super) async fn wait(&mut self, exec: &str) -> Result<u32, ApiError> {
        let response: WaitResponse =
            self.call("/containerd.services.tasks.v1.Tasks/Wait", self.process(exec)).await?;
        Ok(response.exit_status)
    }

    /// Sends a signal to the init.
    pub(super) async fn kill(&mut self, signal: u32) -> Result<(), ApiError> {
        let request =
            KillRequest { container_id: self.id.as_str().to_owned(), exec_id: String::new(), signal };
        self.call("/containerd.services.tasks.v1.Tasks/Kill", request).await
    }

    /// Adds a process to the running container; `start` runs it.
    pub(super) async fn exec(
        &mut self,
        exec: &str,
        process: &serde_json::Value,
        stdout: &Path,
    ) -> Result<(), ApiError> {
        let spec = Any { type_url: PROCESS_TYPE.to_owned(), value: process.to_string().into_bytes() };
        let request = ExecRequest {
            container_id: self.id.as_str().to_owned(),
            stdout: file_url(stdout),
            stderr: file_url(stdout),
            spec: Some(spec),
            exec_id: exec.to_owned(),
        };
        self.call("/containerd.services.tasks.v1.Tasks/Exec", request).await
    }

    /// Freezes every process of the container.
    pub(super) async fn pause(&mut self) -> Result<(), ApiError> {
        self.call("/containerd.services.tasks.v1.Tasks/Pause", self.process("")).await
    }

    /// Thaws them.
    pub(super) async fn resume(&mut self) -> Result<(), ApiError> {
        self.call("/containerd.services.tasks.v1.Tasks/Resume", self.process("")).await
    }

    /// Removes an exec that has ended.
    pub(super) async fn delete_exec(&mut self, exec: &str) -> Result<(), ApiError> {
        self.call("/containerd.services.tasks.v1.Tasks/DeleteProcess", self.process(exec)).await
    }

    /// Removes the task; its shim ends.
    pub(super) async fn delete(&mut self) -> Result<(), ApiError> {
        self.call("/containerd.services.tasks.v1.Tasks/Delete", self.process("")).await
    }

    fn process(&self, exec: &str) -> ProcessRequest {
        ProcessRequest { container_id: self.id.as_str().to_owned(), exec_id: exec.to_owned() }
    }

    async fn call<M, R>(&mut self, method: &'static str, message: M) -> Result<R, ApiError>
    where
        M: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        self.channel.unary(method, Some(&self.namespace), message).await
    }
}

/// The shim appends to a file that is there when stdout is given as a `file` URL. It sends stderr there as well, and panics when
/// stderr was not asked for (nil pointer in copyPipes; seen with containerd 1.7.24): both are always given.
fn file_url(path: &Path) -> String {
    format!("file://{}", path.display())
}
