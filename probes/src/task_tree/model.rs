//! The tree as values: what `docs/tree.schema.json` describes, version [`SCHEMA_VERSION`].

use std::path::PathBuf;

use serde::Serialize;

use crate::cgroup::{CgroupMode, Limit};
use crate::containerd::TaskStatus;
use crate::name::{CgroupPath, ContainerId, ContainerdNamespace, Pid, UnitName};
use crate::observation::{OtherEngine, StrayCgroup};
use crate::process::{LinuxNamespace, ProcessState};
use crate::runtime_state::RuntimeFamily;

/// The version of the JSON form; it grows when a field is removed or changes its meaning, not when one is added.
pub const SCHEMA_VERSION: u32 = 1;

/// Every containerd on a host, with what it runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskTree {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The machine.
    pub host: HostSummary,
    /// Daemons, running or only known from what they left; by address.
    pub daemons: Vec<DaemonNode>,
    /// Cgroups that look like a container's and belong to none.
    pub stray_cgroups: Vec<StrayCgroup>,
    /// Containers of other engines, named and left at that.
    pub other_engines: Vec<OtherEngine>,
    /// What could not be looked at, one sentence each.
    pub not_seen: Vec<String>,
    /// Counts over the tree as it is shown.
    pub totals: Totals,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostSummary {
    /// The name of PID 1's program: `systemd`.
    pub init: Option<String>,
    /// Which boot this is.
    pub boot_id: Option<String>,
    /// Seconds since boot.
    pub uptime_seconds: Option<u64>,
    /// How cgroups are mounted.
    pub cgroup_mode: Option<CgroupMode>,
    /// Whether every bundle directory could be listed; without, a cgroup may have a container that is not shown.
    pub bundles_seen: bool,
    /// How many processes the host shows, in and out of containers.
    pub processes: usize,
}

/// A containerd daemon.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DaemonNode {
    /// The socket that it serves, or served: what shims name in `-address`. `None` where nothing names it.
    pub address: Option<PathBuf>,
    /// Where it keeps its tasks' state.
    pub state_directory: Option<PathBuf>,
    /// The running process; `None` when it is not running, or not to be seen.
    pub process: Option<DaemonInfo>,
    /// The systemd unit, from its own cgroup, or from its shims' when it is not running.
    pub unit: Option<UnitName>,
    /// What its API said.
    pub api: ApiSummary,
    /// The containerd namespaces in which something was found.
    pub containerd_namespaces: Vec<NamespaceNode>,
    /// What does not fit.
    pub findings: Vec<Finding>,
}

/// A running daemon.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DaemonInfo {
    /// Its pid.
    pub pid: Pid,
    /// Seconds since it started.
    pub uptime_seconds: Option<u64>,
    /// Its executable.
    pub exe: Option<PathBuf>,
    /// Its command line, escaped.
    pub command_line: String,
    /// Its config file.
    pub config: PathBuf,
    /// Its cgroup.
    pub cgroup: Option<CgroupPath>,
    /// Whether it was seen to listen on `address`; `None` without the right to look.
    pub listens: Option<bool>,
}

/// What a daemon's API added.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum ApiSummary {
    /// It answered.
    Answered {
        /// `1.7.24~ds1`
        version: String,
        /// What it answered to only in part: the call that failed.
        missing: Option<String>,
    },
    /// It was asked and did not answer.
    Silent {
        /// Why.
        reason: String,
    },
    /// It was not asked: `--offline`, not this machine, or no socket is known.
    NotAsked,
}

/// A containerd namespace of one daemon.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NamespaceNode {
    /// Its name.
    pub name: ContainerdNamespace,
    /// Shims by pid.
    pub shims: Vec<ShimNode>,
    /// Containers that no running shim serves.
    pub orphans: Vec<ContainerNode>,
    /// Records without a task: created and not started, or ended and not deleted. Only the API knows them.
    pub records_without_task: Vec<ContainerId>,
}

/// A running shim.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShimNode {
    /// Its pid.
    pub pid: Pid,
    /// Seconds since it started.
    pub uptime_seconds: Option<u64>,
    /// Its binary, from `/proc/PID/exe` or its command line.
    pub binary: Option<PathBuf>,
    /// The id that it was started for: a container's, or a pod's sandbox.
    pub id: ContainerId,
    /// Its command line, escaped.
    pub command_line: String,
    /// The parent that the kernel gives it.
    pub kernel_parent: Pid,
    /// The name of that parent.
    pub kernel_parent_name: Option<String>,
    /// Its own cgroup.
    pub cgroup: Option<CgroupPath>,
    /// The socket that it serves, as its bundle records it.
    pub address: Option<String>,
    /// What ties it to its daemon.
    pub ownership: Vec<OwnershipProof>,
    /// The containers that it serves, the sandbox first.
    pub containers: Vec<ContainerNode>,
    /// Its children that are in no container: a runtime that is running just now, a logger.
    pub helpers: Vec<ProcessNode>,
    /// What does not fit.
    pub findings: Vec<Finding>,
}

/// One tie between a shim and its daemon. The kernel's parent is none: that is PID 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OwnershipProof {
    /// What kind of evidence.
    pub kind: ProofKind,
    /// What was seen.
    pub detail: String,
}

/// Kinds of evidence for whose a shim is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProofKind {
    /// Its `-address` is the daemon's socket.
    Address,
    /// The name of its own socket is the SHA-256 of the daemon's address, containerd namespace and id.
    Socket,
    /// It is in the daemon's cgroup, or below the daemon's unit.
    Cgroup,
    /// It works in a bundle below the daemon's state directory.
    Bundle,
}

/// A container of containerd's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContainerNode {
    /// Its id.
    pub id: ContainerId,
    /// Its containerd namespace.
    pub containerd_namespace: ContainerdNamespace,
    /// Its name, from annotations.
    pub name: Option<String>,
    /// Its pod, from annotations.
    pub pod: Option<Pod>,
    /// Its image, from the daemon's record or annotations.
    pub image: Option<String>,
    /// What the kernel shows of it.
    pub status: ContainerStatus,
    /// What the daemon says of its task.
    pub daemon_status: Option<String>,
    /// Its init process.
    pub init: Option<InitProcess>,
    /// The runtime that made it.
    pub runtime: RuntimeSummary,
    /// Its bundle.
    pub bundle: Option<PathBuf>,
    /// Its cgroup.
    pub cgroup: Option<CgroupPath>,
    /// The Linux namespaces that it does not have of its own.
    pub shared_namespaces: Vec<SharedNamespace>,
    /// `memory.current`, in bytes.
    pub memory_bytes: Option<u64>,
    /// `memory.max`, in bytes or `max`.
    pub memory_limit: Option<Limit>,
    /// Whether its spec asks for a terminal.
    pub terminal: bool,
    /// Its processes, each after its parent.
    pub processes: Vec<ProcessNode>,
    /// What does not fit.
    pub findings: Vec<Finding>,
}

/// A CRI pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: Option<String>,
    /// Whether the container is the pod's sandbox.
    pub sandbox: bool,
}

/// What a container does, in OCI's words and containerd's `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerStatus {
    /// The runtime waits for `start`.
    Created,
    /// Its init runs.
    Running,
    /// Its init runs and its cgroup is frozen.
    Paused,
    /// Its init has ended.
    Stopped,
    /// No init is known, or not to be seen.
    Unknown,
}

impl ContainerStatus {
    /// One word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the daemon's word means the same.
    #[must_use]
    pub fn agrees_with(self, task: TaskStatus) -> bool {
        match task {
            TaskStatus::Created => self == Self::Created,
            TaskStatus::Running => self == Self::Running,
            TaskStatus::Paused => self == Self::Paused,
            TaskStatus::Stopped => self == Self::Stopped,
            TaskStatus::Pausing | TaskStatus::Unknown => true,
        }
    }
}

/// The first process of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InitProcess {
    /// Its pid, as recorded.
    pub pid: Pid,
    /// Whether that very process lives.
    pub alive: bool,
    /// Seconds since it started.
    pub uptime_seconds: Option<u64>,
    /// How it is known.
    pub source: InitSource,
}

/// How an init is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitSource {
    /// The runtime's record, with the start time.
    RuntimeState,
    /// The bundle's init.pid.
    InitPid,
    /// The daemon's API.
    Daemon,
    /// It is the oldest child of the shim in its cgroup.
    OldestChild,
}

/// The runtime of a container and how it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RuntimeSummary {
    /// Told by the format of its record.
    pub family: Option<RuntimeFamily>,
    /// That record.
    pub state_file: Option<PathBuf>,
    /// BinaryName as it was asked for; empty when none was: `runc` from the shim's PATH.
    pub requested: Option<String>,
    /// `io.containerd.runc.v2`, from the daemon's record.
    pub runtime_type: Option<String>,
}

/// A Linux namespace that a container shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SharedNamespace {
    /// Its kind.
    pub kind: LinuxNamespace,
    /// The id of the container that it is shared with; `None` is the host.
    pub with: Option<ContainerId>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProcessNode {
    /// Its pid on the host.
    pub pid: Pid,
    /// Its pid inside its own pid namespace, where that is another one.
    pub namespace_pid: Option<u32>,
    /// Its parent on the host.
    pub parent: Pid,
    /// How deep below the container (or shim) it stands: 0 for init and exec processes.
    pub depth: usize,
    /// What it is to the container.
    pub role: ProcessRole,
    /// Effective user id.
    pub uid: Option<u32>,
    /// The host's name for that user.
    pub user: Option<String>,
    /// Its name (`comm`), escaped.
    pub name: String,
    /// Its command line, escaped; empty for zombies.
    pub command_line: String,
    /// Whether the command line is longer than what was read.
    pub command_line_cut: bool,
    /// What it does.
    pub state: ProcessState,
    /// Seconds since it started.
    pub uptime_seconds: Option<u64>,
}

/// What a process is to its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessRole {
    /// The first process.
    Init,
    /// Entered later (`ctr task exec`): a child of the shim, in the container's pid namespace.
    Exec,
    /// A child of the shim that may be an exec process, or an orphan that the shim adopted: the container has no pid
    /// namespace of its own, so the kernel does not tell.
    ExecOrAdopted,
    /// In the container, and its parent is outside of it: adopted by PID 1 or another subreaper.
    Adopted,
    /// A child of another process of the container.
    Child,
    /// The shim's, and in no container.
    Helper,
}

/// Something that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind.
    pub kind: FindingKind,
    /// One sentence; may carry names from the container.
    pub message: String,
}

/// Kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// The daemon that its shims name is not running.
    DaemonNotRunning,
    /// A bundle that no running shim serves.
    BundleWithoutShim,
    /// A shim without a bundle.
    ShimWithoutBundle,
    /// The recorded init is gone.
    InitGone,
    /// The recorded init's pid belongs to another process.
    InitReused,
    /// The init has ended and was not reaped.
    InitZombie,
    /// Ended processes that were not reaped.
    Zombies,
    /// A process of the container that is in another cgroup.
    OutsideCgroup,
    /// The kernel's OOM killer killed processes of the container.
    OomKilled,
    /// The daemon says another status than the kernel shows.
    StatusDiffers,
    /// The daemon has a task of which the host shows nothing.
    TaskNotFound,
}

/// Counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Daemons, running or not.
    pub daemons: usize,
    /// Running shims.
    pub shims: usize,
    /// Containers.
    pub containers: usize,
    /// Containers that run.
    pub running: usize,
    /// Containers that are paused.
    pub paused: usize,
    /// Processes in containers.
    pub processes: usize,
    /// Findings and stray cgroups.
    pub findings: usize,
}
