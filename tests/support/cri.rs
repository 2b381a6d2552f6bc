//! A pod through containerd's CRI plugin, as the kubelet makes one: the messages of kubernetes/cri-api (runtime.v1) that it takes.
//! The pod has the host's network, so it needs no CNI.
#![allow(dead_code, reason = "every suite is a crate of its own and uses what it needs")]

use std::path::Path;
use std::time::Duration;

use inspect_probes::containerd::{ApiError, DaemonChannel};

/// Where containerd serves its CRI plugin.
const SOCKET: &str = "/run/containerd/containerd.sock";
/// How long a call may take under emulation.
const BOUND: Duration = Duration::from_secs(90);

/// `NamespaceMode`: shared by the pod, the container's own, the host's.
pub(crate) const POD: i32 = 0;
/// The container's own.
pub(crate) const CONTAINER: i32 = 1;
/// The host's.
pub(crate) const NODE: i32 = 2;

/// `ContainerState.CONTAINER_EXITED`.
pub(crate) const EXITED: i32 = 2;

/// Which Linux namespaces are whose.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NamespaceOption {
    #[prost(int32, tag = "1")]
    pub(crate) network: i32,
    #[prost(int32, tag = "2")]
    pub(crate) pid: i32,
    #[prost(int32, tag = "3")]
    pub(crate) ipc: i32,
    #[prost(message, optional, tag = "5")]
    pub(crate) userns_options: Option<UserNamespace>,
}

/// `UserNamespace`: the pod's own with these mappings, or the node's.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UserNamespace {
    #[prost(int32, tag = "1")]
    pub(crate) mode: i32,
    #[prost(message, repeated, tag = "2")]
    pub(crate) uids: Vec<IdMapping>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) gids: Vec<IdMapping>,
}

/// `IDMapping`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct IdMapping {
    #[prost(uint32, tag = "1")]
    pub(crate) host_id: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) container_id: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) length: u32,
}

/// `LinuxSandboxSecurityContext`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodSecurity {
    #[prost(message, optional, tag = "1")]
    pub(crate) namespace_options: Option<NamespaceOption>,
    #[prost(bool, tag = "6")]
    pub(crate) privileged: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Integer {
    #[prost(int64, tag = "1")]
    pub(crate) value: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Capabilities {
    #[prost(string, repeated, tag = "1")]
    pub(crate) add: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) drop: Vec<String>,
}

/// `SecurityProfile`; its default is the runtime's own profile, `RuntimeDefault`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SecurityProfile {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
}

/// `LinuxContainerSecurityContext`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerSecurity {
    #[prost(message, optional, tag = "1")]
    pub(crate) capabilities: Option<Capabilities>,
    #[prost(bool, tag = "2")]
    pub(crate) privileged: bool,
    #[prost(message, optional, tag = "3")]
    pub(crate) namespace_options: Option<NamespaceOption>,
    #[prost(message, optional, tag = "5")]
    pub(crate) run_as_user: Option<Integer>,
    #[prost(bool, tag = "7")]
    pub(crate) readonly_rootfs: bool,
    #[prost(int64, repeated, tag = "8")]
    pub(crate) supplemental_groups: Vec<i64>,
    #[prost(bool, tag = "11")]
    pub(crate) no_new_privs: bool,
    #[prost(message, optional, tag = "12")]
    pub(crate) run_as_group: Option<Integer>,
    #[prost(string, repeated, tag = "13")]
    pub(crate) masked_paths: Vec<String>,
    #[prost(string, repeated, tag = "14")]
    pub(crate) readonly_paths: Vec<String>,
    #[prost(message, optional, tag = "15")]
    pub(crate) seccomp: Option<SecurityProfile>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LinuxPod {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    security_context: Option<PodSecurity>,
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
struct PodConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodMetadata>,
    #[prost(string, tag = "3")]
    log_directory: String,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPod>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RunPodSandbox {
    #[prost(message, optional, tag = "1")]
    config: Option<PodConfig>,
    #[prost(string, tag = "2")]
    runtime_handler: String,
}

/// A message whose only field of interest is its first, a text.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Name {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

/// `LinuxContainerResources`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Resources {
    #[prost(int64, tag = "1")]
    pub(crate) cpu_period: i64,
    #[prost(int64, tag = "2")]
    pub(crate) cpu_quota: i64,
    #[prost(int64, tag = "3")]
    pub(crate) cpu_shares: i64,
    #[prost(int64, tag = "4")]
    pub(crate) memory_limit_in_bytes: i64,
    #[prost(int64, tag = "5")]
    pub(crate) oom_score_adj: i64,
    #[prost(string, tag = "6")]
    pub(crate) cpuset_cpus: String,
    #[prost(map = "string, string", tag = "9")]
    pub(crate) unified: std::collections::HashMap<String, String>,
}

/// `LinuxContainerConfig`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxContainer {
    #[prost(message, optional, tag = "1")]
    pub(crate) resources: Option<Resources>,
    #[prost(message, optional, tag = "2")]
    pub(crate) security_context: Option<ContainerSecurity>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Variable {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Mount {
    #[prost(string, tag = "1")]
    pub(crate) container_path: String,
    #[prost(string, tag = "2")]
    pub(crate) host_path: String,
    #[prost(bool, tag = "3")]
    pub(crate) readonly: bool,
}

/// `ContainerConfig`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<Name>,
    #[prost(message, optional, tag = "2")]
    pub(crate) image: Option<Name>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) command: Vec<String>,
    #[prost(string, tag = "5")]
    pub(crate) working_dir: String,
    #[prost(message, repeated, tag = "6")]
    pub(crate) envs: Vec<Variable>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) mounts: Vec<Mount>,
    #[prost(string, tag = "11")]
    pub(crate) log_path: String,
    #[prost(bool, tag = "14")]
    pub(crate) tty: bool,
    #[prost(message, optional, tag = "15")]
    pub(crate) linux: Option<LinuxContainer>,
}

impl ContainerConfig {
    /// A container of an image that runs a command, with the host's network as its pod, and nothing else asked for.
    pub(crate) fn new(name: &str, image: &str, command: &[&str]) -> Self {
        let options = NamespaceOption { network: NODE, ..NamespaceOption::default() };
        Self {
            metadata: Some(Name { name: name.into() }),
            image: Some(Name { name: image.into() }),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            linux: Some(LinuxContainer {
                resources: None,
                security_context: Some(ContainerSecurity {
                    namespace_options: Some(options),
                    ..ContainerSecurity::default()
                }),
            }),
            ..Self::default()
        }
    }

    /// Its limits, to be changed.
    pub(crate) fn resources(&mut self) -> &mut Resources {
        self.linux.get_or_insert_default().resources.get_or_insert_default()
    }

    /// Its security context, to be changed.
    pub(crate) fn security(&mut self) -> &mut ContainerSecurity {
        self.linux.get_or_insert_default().security_context.get_or_insert_default()
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<PodConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StopContainer {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(int64, tag = "2")]
    timeout: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UpdateResources {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(message, optional, tag = "2")]
    linux: Option<Resources>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExecSync {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, repeated, tag = "2")]
    command: Vec<String>,
    #[prost(int64, tag = "3")]
    timeout: i64,
}

/// What a command in a container printed, and how it ended.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Executed {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) stdout: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) stderr: Vec<u8>,
    #[prost(int32, tag = "3")]
    pub(crate) exit_code: i32,
}

/// `ExecRequest`: the answer is an address to connect to.
#[derive(Clone, PartialEq, prost::Message)]
struct Exec {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, repeated, tag = "2")]
    command: Vec<String>,
    #[prost(bool, tag = "3")]
    tty: bool,
    #[prost(bool, tag = "4")]
    stdin: bool,
    #[prost(bool, tag = "5")]
    stdout: bool,
}

/// `ContainerStatus`, as far as the runtime has a part in it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerStatus {
    #[prost(int32, tag = "3")]
    pub(crate) state: i32,
    #[prost(int32, tag = "7")]
    pub(crate) exit_code: i32,
    #[prost(string, tag = "10")]
    pub(crate) reason: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerStatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<ContainerStatus>,
}

/// A pod that runs; dropped, it is stopped and removed with everything in it.
pub(crate) struct Pod {
    runtime: tokio::runtime::Runtime,
    channel: DaemonChannel,
    config: PodConfig,
    /// The sandbox's id.
    pub(crate) sandbox: String,
}

impl Pod {
    /// Runs a sandbox of that name in the Kubernetes namespace `shop`. The sandbox image has to be there.
    pub(crate) fn run(name: &str) -> Self {
        let options = NamespaceOption { network: NODE, ..NamespaceOption::default() };
        Self::run_with(name, "", PodSecurity { namespace_options: Some(options), privileged: false })
    }

    /// Runs a sandbox with a runtime handler (an empty one is the default) and a security context. Logs of its containers are
    /// in `/var/log/pods/NAME`.
    pub(crate) fn run_with(name: &str, handler: &str, security: PodSecurity) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let config = PodConfig {
            metadata: Some(PodMetadata {
                name: name.into(),
                uid: format!("{name}-uid"),
                namespace: "shop".into(),
            }),
            log_directory: format!("/var/log/pods/{name}"),
            linux: Some(LinuxPod {
                cgroup_parent: format!("/kubepods/{name}"),
                security_context: Some(security),
            }),
        };
        let channel = connect(&runtime);
        let mut pod = Self { runtime, channel, config: config.clone(), sandbox: String::new() };
        let request = RunPodSandbox { config: Some(config), runtime_handler: handler.into() };
        let id: Name = pod.call("/runtime.v1.RuntimeService/RunPodSandbox", request).expect("a sandbox runs");
        pod.sandbox = id.name;
        pod
    }

    /// Speaks to the daemon that serves now.
    pub(crate) fn reconnect(&mut self) {
        self.channel = connect(&self.runtime);
    }

    /// Creates and starts a container in it; gives its id.
    pub(crate) fn start(&mut self, name: &str, image: &str, memory: i64, command: &[&str]) -> String {
        let mut config = ContainerConfig::new(name, image, command);
        config.resources().memory_limit_in_bytes = memory;
        self.start_with(config)
    }

    /// The same of any config.
    pub(crate) fn start_with(&mut self, config: ContainerConfig) -> String {
        let id = self.create(config);
        self.start_created(&id).expect("a container starts");
        id
    }

    /// Creates a container in it; gives its id.
    pub(crate) fn create(&mut self, config: ContainerConfig) -> String {
        let request = CreateContainer {
            pod_sandbox_id: self.sandbox.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let id: Name =
            self.call("/runtime.v1.RuntimeService/CreateContainer", request).expect("a container is created");
        id.name
    }

    /// Starts a container that was created.
    pub(crate) fn start_created(&mut self, id: &str) -> Result<(), ApiError> {
        self.call("/runtime.v1.RuntimeService/StartContainer", Name { name: id.into() })
    }

    /// Ends a container: asks it to, and kills it after so many seconds.
    pub(crate) fn stop(&mut self, id: &str, grace: i64) {
        let request = StopContainer { container_id: id.into(), timeout: grace };
        self.call::<_, ()>("/runtime.v1.RuntimeService/StopContainer", request)
            .expect("a container is stopped");
    }

    /// Removes a container.
    pub(crate) fn remove(&mut self, id: &str) {
        self.call::<_, ()>("/runtime.v1.RuntimeService/RemoveContainer", Name { name: id.into() })
            .expect("a container is removed");
    }

    /// Asks after a container.
    pub(crate) fn status(&mut self, id: &str) -> ContainerStatus {
        let status: ContainerStatusResponse = self
            .call("/runtime.v1.RuntimeService/ContainerStatus", Name { name: id.into() })
            .expect("a container has a status");
        status.status.expect("a status is in the answer")
    }

    /// Changes the limits of a container.
    pub(crate) fn update(&mut self, id: &str, resources: Resources) -> Result<(), ApiError> {
        let request = UpdateResources { container_id: id.into(), linux: Some(resources) };
        self.call("/runtime.v1.RuntimeService/UpdateContainerResources", request)
    }

    /// Runs a command in a container to its end, for at most so many seconds.
    pub(crate) fn exec(&mut self, id: &str, command: &[&str], seconds: i64) -> Result<Executed, ApiError> {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        let request = ExecSync { container_id: id.into(), command, timeout: seconds };
        self.call("/runtime.v1.RuntimeService/ExecSync", request)
    }

    /// Asks for a command on a terminal; gives the address where it begins when somebody connects.
    pub(crate) fn exec_on_terminal(&mut self, id: &str, command: &[&str]) -> String {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        let request = Exec { container_id: id.into(), command, tty: true, stdin: true, stdout: true };
        let address: Name = self.call("/runtime.v1.RuntimeService/Exec", request).expect("an address");
        address.name
    }

    fn call<M, R>(&mut self, path: &'static str, message: M) -> Result<R, ApiError>
    where
        M: prost::Message + Clone + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        self.runtime.block_on(self.channel.unary(path, None, message))
    }
}

fn connect(runtime: &tokio::runtime::Runtime) -> DaemonChannel {
    runtime.block_on(DaemonChannel::connect(Path::new(SOCKET), BOUND)).expect("containerd answers")
}

impl Drop for Pod {
    fn drop(&mut self) {
        for path in
            ["/runtime.v1.RuntimeService/StopPodSandbox", "/runtime.v1.RuntimeService/RemovePodSandbox"]
        {
            drop(self.call::<_, ()>(path, Name { name: self.sandbox.clone() }));
        }
    }
}
