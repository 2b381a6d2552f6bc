//! A pod through containerd's CRI plugin, as the kubelet makes one: the few messages of kubernetes/cri-api (runtime.v1) that it
//! takes. The pod has the host's network, so it needs no CNI.

use std::path::Path;
use std::time::Duration;

use inspect_probes::containerd::{ApiError, DaemonChannel};

/// Where containerd serves its CRI plugin.
const SOCKET: &str = "/run/containerd/containerd.sock";
/// How long a call may take under emulation.
const BOUND: Duration = Duration::from_secs(90);
/// `NamespaceMode.NODE`.
const NODE: i32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
struct NamespaceOption {
    #[prost(int32, tag = "1")]
    network: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodSecurity {
    #[prost(message, optional, tag = "1")]
    namespace_options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerSecurity {
    #[prost(message, optional, tag = "3")]
    namespace_options: Option<NamespaceOption>,
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
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPod>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RunPodSandbox {
    #[prost(message, optional, tag = "1")]
    config: Option<PodConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Name {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resources {
    #[prost(int64, tag = "4")]
    memory_limit_in_bytes: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LinuxContainer {
    #[prost(message, optional, tag = "1")]
    resources: Option<Resources>,
    #[prost(message, optional, tag = "2")]
    security_context: Option<ContainerSecurity>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Name>,
    #[prost(message, optional, tag = "2")]
    image: Option<Name>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(message, optional, tag = "15")]
    linux: Option<LinuxContainer>,
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let options = NamespaceOption { network: NODE };
        let config = PodConfig {
            metadata: Some(PodMetadata {
                name: name.into(),
                uid: format!("{name}-uid"),
                namespace: "shop".into(),
            }),
            linux: Some(LinuxPod {
                cgroup_parent: format!("/kubepods/{name}"),
                security_context: Some(PodSecurity { namespace_options: Some(options) }),
            }),
        };
        let connect = DaemonChannel::connect(Path::new(SOCKET), BOUND);
        let channel = runtime.block_on(connect).expect("containerd answers");
        let mut pod = Self { runtime, channel, config: config.clone(), sandbox: String::new() };
        let id: Name =
            pod.call("RunPodSandbox", RunPodSandbox { config: Some(config) }).expect("a sandbox runs");
        pod.sandbox = id.name;
        pod
    }

    /// Creates and starts a container in it; gives its id.
    pub(crate) fn start(&mut self, name: &str, image: &str, memory: i64, command: &[&str]) -> String {
        let options = NamespaceOption { network: NODE };
        let config = ContainerConfig {
            metadata: Some(Name { name: name.into() }),
            image: Some(Name { name: image.into() }),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            linux: Some(LinuxContainer {
                resources: Some(Resources { memory_limit_in_bytes: memory }),
                security_context: Some(ContainerSecurity { namespace_options: Some(options) }),
            }),
        };
        let request = CreateContainer {
            pod_sandbox_id: self.sandbox.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let id: Name = self.call("CreateContainer", request).expect("a container is created");
        let () = self.call("StartContainer", id.clone()).expect("a container starts");
        id.name
    }

    fn call<M, R>(&mut self, method: &str, message: M) -> Result<R, ApiError>
    where
        M: prost::Message + Clone + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let path: &'static str = match method {
            "RunPodSandbox" => "/runtime.v1.RuntimeService/RunPodSandbox",
            "CreateContainer" => "/runtime.v1.RuntimeService/CreateContainer",
            "StartContainer" => "/runtime.v1.RuntimeService/StartContainer",
            "StopPodSandbox" => "/runtime.v1.RuntimeService/StopPodSandbox",
            _ => "/runtime.v1.RuntimeService/RemovePodSandbox",
        };
        self.runtime.block_on(self.channel.unary(path, None, message))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            drop(self.call::<_, ()>(method, Name { name: self.sandbox.clone() }));
        }
    }
}
