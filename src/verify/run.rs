//! One canary from beginning to end: made, observed, signalled, executed into, starved of memory, removed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inspect_probes::containerd::{ApiError, DaemonChannel};
use inspect_probes::docker::DockerError;
use inspect_probes::events::{RuntimeExec, RuntimeExecWatch};
use inspect_probes::name::{ContainerId, ContainerdNamespace, Pid};
use inspect_probes::runtime_state::{RuntimeFamily, RuntimeState, read_runtime_state};
use inspect_probes::{Host, Node};
use serde::Serialize;
use thiserror::Error;

use super::canary::{EXEC_STATUS, TERMINATED_STATUS};
use super::containers::{self, RuncOptions};
use super::observe;
use super::rootfs::{CanaryDirectory, RootfsError, needs_host_libraries};
use super::sandbox_image::SandboxImageError;
use super::spec::{self, CanarySpec};
use super::tasks::{SIGKILL, SIGTERM, Task};

/// The containerd namespace of all canaries.
pub(super) const NAMESPACE: &str = "inspect-verify";
/// The shim that runs OCI runtimes.
const RUNTIME_TYPE: &str = "io.containerd.runc.v2";
/// How often a file is looked at that a canary writes.
const POLL: Duration = Duration::from_millis(10);
/// SIGKILL as an exit status: 128 + 9.
const KILLED_STATUS: u32 = 137;

/// The runtime to verify.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Subject {
    /// What the user called it.
    pub(crate) name: String,
    /// `BinaryName`; `None` leaves it to the shim's default.
    pub(crate) binary: Option<PathBuf>,
    /// The family that it must turn out to be, where its name says so.
    pub(crate) expected: Option<RuntimeFamily>,
    /// Whether to use the systemd cgroup driver.
    pub(crate) systemd_cgroup: bool,
}

/// What a canary showed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CanaryReport {
    pub(crate) subject: Subject,
    /// Whether it was a pod of the CRI plugin's.
    pub(crate) is_pod: bool,
    /// The family whose state was found while it ran.
    pub(crate) family: Option<RuntimeFamily>,
    /// The state that proves it.
    pub(crate) state: Option<PathBuf>,
    /// The runtime's process, as the kernel told of it live.
    pub(crate) executed: Option<RuntimeExec>,
    /// Whether that process ran the very file that was asked for; `None` when nothing was seen or asked for.
    pub(crate) same_file: Option<bool>,
    /// What the kernel showed, by name.
    pub(crate) facts: BTreeMap<String, String>,
    /// How long each step took, milliseconds.
    pub(crate) steps: Vec<(String, f64)>,
    /// What did not go as it must; empty when verified.
    pub(crate) failures: Vec<String>,
}

impl CanaryReport {
    /// Takes what proves the runtime: its own state, and its process as it was seen.
    pub(super) fn take_proof(&mut self, state: Option<RuntimeState>, watched: Option<RuntimeExec>) {
        self.family = state.as_ref().map(|state| state.family);
        self.state = state.map(|state| state.path);
        let asked = self.subject.binary.as_ref().and_then(|path| std::fs::metadata(path).ok());
        let seen = watched.as_ref().and_then(|exec| exec.file);
        self.same_file =
            asked.zip(seen).map(|(asked, seen)| (asked.dev(), asked.ino()) == (seen.device, seen.inode));
        self.executed = watched;
    }

    /// Whether the right runtime made it, as far as can be told.
    pub(super) fn judge_family(&mut self) {
        match (self.subject.expected, self.family) {
            (_, None) => self.failures.push("no runtime's state was found while the canary ran".to_owned()),
            (Some(expected), Some(found)) if expected != found => {
                self.failures.push(format!(
                    "asked for {}, but {} made it",
                    expected.as_str(),
                    found.as_str()
                ));
            }
            _ => {}
        }
        if self.same_file == Some(false) {
            self.failures.push("the binary that ran `create` is not the file that was asked for".to_owned());
        }
    }

    /// Whether the canary behaved and the runtime is the one that was asked for.
    pub(crate) fn is_verified(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Why there is no report at all.
#[derive(Debug, Error)]
pub(crate) enum CanaryError {
    #[error("cannot {step} for the canary with runtime `{runtime}`")]
    Step {
        step: &'static str,
        runtime: String,
        #[source]
        source: ApiError,
    },
    #[error("cannot {step} for the canary with {runtime}")]
    Docker {
        step: &'static str,
        runtime: String,
        #[source]
        source: DockerError,
    },
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error("the canary with runtime `{runtime}` did not report within {} s", limit.as_secs())]
    Silent { runtime: String, limit: Duration },
    #[error(transparent)]
    SandboxImage(#[from] SandboxImageError),
    #[error("cannot run a pod: no CRI plugin serves on `{}`", socket.display())]
    NoCri { socket: PathBuf },
    #[error("cannot read the node")]
    Node {
        #[source]
        source: inspect_probes::process::ProcessError,
    },
}

/// Verifies one runtime with two containers: one that is observed, one that runs out of memory. Both are removed in any case.
pub(crate) async fn run_canary(
    host: &Host,
    socket: &Path,
    subject: &Subject,
    limit: Duration,
) -> Result<CanaryReport, CanaryError> {
    let step_error = |step, source| CanaryError::Step { step, runtime: subject.name.clone(), source };
    let namespace = ContainerdNamespace::new(NAMESPACE);
    let mut channel = DaemonChannel::connect(socket, limit)
        .await
        .map_err(|source| step_error("reach the daemon", source))?;
    remove_leftovers(host, &mut channel, &namespace).await;
    CanaryDirectory::remove_abandoned(host);
    containers::create_namespace(&mut channel, &namespace)
        .await
        .map_err(|source| step_error("create the containerd namespace", source))?;
    let mut report = empty_report(subject);
    let directory = CanaryDirectory::create(&ContainerId::new(format!("canary-{}", std::process::id())))?;
    let mut outcome = Ok(());
    for (number, role) in ["observe", "eat"].into_iter().enumerate() {
        let id = ContainerId::new(format!("canary-{}-{number}", std::process::id()));
        let mut canary = Canary::new(host, &channel, &namespace, id, subject, &directory, limit);
        outcome = match role {
            "observe" => canary.observe(&mut report).await,
            _ => canary.starve(&mut report).await,
        };
        canary.remove(&mut report).await;
        if outcome.is_err() {
            break;
        }
    }
    // Refused while another inspect's canary is there: that one removes it.
    match containers::delete_namespace(&mut channel, &namespace).await {
        Ok(()) | Err(_) => {}
    }
    observe::remove_parent_cgroup(host, &namespace);
    if let Err(error) = directory.remove() {
        report.failures.push(format!("{error}"));
    }
    outcome?;
    judge(&mut report);
    Ok(report)
}

pub(super) fn empty_report(subject: &Subject) -> CanaryReport {
    CanaryReport {
        subject: subject.clone(),
        is_pod: false,
        family: None,
        state: None,
        executed: None,
        same_file: None,
        facts: BTreeMap::new(),
        steps: Vec::new(),
        failures: Vec::new(),
    }
}

/// What an inspect that was killed left behind: its canaries carry its pid.
async fn remove_leftovers(host: &Host, channel: &mut DaemonChannel, namespace: &ContainerdNamespace) {
    let records = channel.containers(namespace).await.unwrap_or_default();
    for record in records {
        let owner = record.id.as_str().split('-').nth(1).and_then(|pid| pid.parse().ok()).map(Pid::new);
        if owner.is_some_and(|pid| host.proc().join(pid.to_string()).exists()) {
            continue;
        }
        let mut task = Task::new(channel.clone(), namespace.clone(), record.id.clone());
        end_task(&mut task).await;
        // Both canaries of one inspect use one directory. The record goes last: while it is there, the next verify tries again.
        let name = record.id.as_str().rsplit_once('-').map_or(record.id.as_str(), |(name, _)| name);
        if CanaryDirectory::left_by(&ContainerId::new(name)).remove().is_ok() {
            match containers::delete_container(channel, namespace, &record.id).await {
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// Kills and deletes a task in whatever state it is; what is not there needs no ending.
async fn end_task(task: &mut Task) {
    for attempt in
        [task.resume().await, task.kill(SIGKILL).await, task.wait("").await.map(|_| ()), task.delete().await]
    {
        match attempt {
            Ok(()) | Err(_) => {}
        }
    }
}

/// One container on its way.
struct Canary<'a> {
    host: &'a Host,
    channel: DaemonChannel,
    namespace: &'a ContainerdNamespace,
    id: ContainerId,
    subject: &'a Subject,
    directory: &'a CanaryDirectory,
    task: Task,
    limit: Duration,
    recorded: bool,
    ended: bool,
}

impl<'a> Canary<'a> {
    fn new(
        host: &'a Host,
        channel: &DaemonChannel,
        namespace: &'a ContainerdNamespace,
        id: ContainerId,
        subject: &'a Subject,
        directory: &'a CanaryDirectory,
        limit: Duration,
    ) -> Self {
        let task = Task::new(channel.clone(), namespace.clone(), id.clone());
        let channel = channel.clone();
        Self { host, channel, namespace, id, subject, directory, task, limit, recorded: false, ended: false }
    }

    fn failed(&self, step: &'static str) -> impl FnOnce(ApiError) -> CanaryError + use<> {
        let runtime = self.subject.name.clone();
        move |source| CanaryError::Step { step, runtime, source }
    }

    /// Records the container and has the runtime create and start it.
    async fn start(&mut self, role: &str, report: &mut CanaryReport) -> Result<Pid, CanaryError> {
        let spec = spec::spec(CanarySpec {
            namespace: self.namespace,
            id: &self.id,
            role,
            host_libraries: needs_host_libraries(),
            systemd_cgroup: self.subject.systemd_cgroup,
        });
        let binary = self.subject.binary.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let options = RuncOptions { binary_name: binary, systemd_cgroup: self.subject.systemd_cgroup };
        containers::create_container(
            &mut self.channel,
            self.namespace,
            &self.id,
            RUNTIME_TYPE,
            &options,
            &spec,
        )
        .await
        .map_err(self.failed("record the container"))?;
        self.recorded = true;
        let began = Instant::now();
        let (rootfs, stdout) = (self.directory.rootfs(), self.directory.stdout());
        let pid = self.task.create(&rootfs, &stdout).await.map_err(self.failed("create the task"))?;
        report.steps.push((format!("create {role}"), milliseconds(began)));
        let began = Instant::now();
        self.task.start("").await.map_err(self.failed("start the task"))?;
        report.steps.push((format!("start {role}"), milliseconds(began)));
        Ok(pid)
    }

    async fn observe(&mut self, report: &mut CanaryReport) -> Result<(), CanaryError> {
        let mut watch = RuntimeExecWatch::start(self.host).ok();
        let init = self.start("observe", report).await?;
        let watched =
            watch.as_mut().and_then(|watch| watch.find_create(&self.id, Duration::from_millis(500)));
        self.prove(watched, report)?;
        let began = Instant::now();
        let facts = self.wait_for_report(&self.directory.stdout()).await?;
        report.steps.push(("first output".to_owned(), milliseconds(began)));
        report.facts = facts;
        observe::observe_from_outside(self.host, init, &mut report.facts);
        self.exec(report).await?;
        self.pause_and_resume(init, report).await?;
        let began = Instant::now();
        self.task.kill(SIGTERM).await.map_err(self.failed("signal the init"))?;
        let status = self.task.wait("").await.map_err(self.failed("wait for the end"))?;
        report.steps.push(("SIGTERM to end".to_owned(), milliseconds(began)));
        report.facts.insert("exit status after SIGTERM".to_owned(), status.to_string());
        self.delete(report).await
    }

    /// The family by the state that the runtime keeps, the file by what was seen executing.
    fn prove(&self, watched: Option<RuntimeExec>, report: &mut CanaryReport) -> Result<(), CanaryError> {
        let node = Node::read(self.host).map_err(|source| CanaryError::Node { source })?;
        let bundle = node
            .bundles
            .iter()
            .find(|bundle| bundle.id == self.id && &bundle.containerd_namespace == self.namespace);
        let state = bundle.and_then(|bundle| read_runtime_state(self.host, bundle).ok().flatten());
        report.take_proof(state, watched);
        Ok(())
    }

    async fn wait_for_report(&self, stdout: &Path) -> Result<BTreeMap<String, String>, CanaryError> {
        let deadline = Instant::now() + self.limit;
        while Instant::now() < deadline {
            if let Some(facts) = observe::read_report(stdout) {
                return Ok(facts);
            }
            tokio::time::sleep(POLL).await;
        }
        Err(CanaryError::Silent { runtime: self.subject.name.clone(), limit: self.limit })
    }

    async fn exec(&mut self, report: &mut CanaryReport) -> Result<(), CanaryError> {
        let began = Instant::now();
        let stdout = self.directory.exec_stdout();
        self.task.exec("look", &spec::process("exec"), &stdout).await.map_err(self.failed("add an exec"))?;
        self.task.start("look").await.map_err(self.failed("start the exec"))?;
        let status = self.task.wait("look").await.map_err(self.failed("wait for the exec"))?;
        self.task.delete_exec("look").await.map_err(self.failed("delete the exec"))?;
        report.steps.push(("exec to its end".to_owned(), milliseconds(began)));
        report.facts.insert("exit status of exec".to_owned(), status.to_string());
        let inside = self.wait_for_report(&stdout).await?;
        for name in [
            "status CapEff",
            "status CapBnd",
            "status CapInh",
            "status NoNewPrivs",
            "status Seccomp",
            "cgroup",
        ] {
            let value = inside.get(name).cloned().unwrap_or_default();
            report.facts.insert(format!("exec {name}"), value);
        }
        Ok(())
    }

    async fn pause_and_resume(&mut self, init: Pid, report: &mut CanaryReport) -> Result<(), CanaryError> {
        let began = Instant::now();
        self.task.pause().await.map_err(self.failed("pause"))?;
        // The freezer may be the cgroup's or its parent's: cgroup.events tells of both.
        let frozen = observe::cgroup_of(self.host, init)
            .and_then(|directory| std::fs::read_to_string(directory.join("cgroup.events")).ok())
            .is_some_and(|events| events.lines().any(|line| line == "frozen 1"));
        self.task.resume().await.map_err(self.failed("resume"))?;
        report.steps.push(("pause and resume".to_owned(), milliseconds(began)));
        report.facts.insert("frozen while paused".to_owned(), frozen.to_string());
        Ok(())
    }

    /// Lets the second container reach its memory limit.
    async fn starve(&mut self, report: &mut CanaryReport) -> Result<(), CanaryError> {
        let init = self.start("eat", report).await?;
        let cgroup = observe::cgroup_of(self.host, init);
        let status = self.task.wait("").await.map_err(self.failed("wait for the OOM kill"))?;
        report.facts.insert("exit status out of memory".to_owned(), status.to_string());
        let kills = cgroup.as_deref().and_then(observe::read_oom_kills);
        let kills = kills.map_or_else(|| "unknown".to_owned(), |kills| kills.to_string());
        report.facts.insert("memory.events oom_kill".to_owned(), kills);
        self.delete(report).await
    }

    async fn delete(&mut self, report: &mut CanaryReport) -> Result<(), CanaryError> {
        let began = Instant::now();
        self.task.delete().await.map_err(self.failed("delete the task"))?;
        self.ended = true;
        report.steps.push(("delete".to_owned(), milliseconds(began)));
        Ok(())
    }

    /// Removes whatever is there of it; a removal that fails is told, not fatal.
    async fn remove(mut self, report: &mut CanaryReport) {
        if !self.ended {
            end_task(&mut self.task).await;
        }
        if self.recorded
            && let Err(error) =
                containers::delete_container(&mut self.channel, self.namespace, &self.id).await
        {
            report.failures.push(format!("the canary's record could not be removed: {error}"));
        }
    }
}

pub(super) fn milliseconds(began: Instant) -> f64 {
    // A tenth of a millisecond is more than a busy node repeats.
    (began.elapsed().as_secs_f64() * 10_000.0).round() / 10.0
}

/// What has to hold for every runtime.
fn judge(report: &mut CanaryReport) {
    report.judge_family();
    let musts = [
        ("exit status after SIGTERM", u32::from(TERMINATED_STATUS).to_string()),
        ("exit status of exec", u32::from(EXEC_STATUS).to_string()),
        ("exit status out of memory", KILLED_STATUS.to_string()),
        ("pid", "1".to_owned()),
        ("hostname", "canary".to_owned()),
        ("status CapEff", "00000000a80425fb".to_owned()),
        ("status NoNewPrivs", "1".to_owned()),
        ("status Seccomp", "2".to_owned()),
        ("exec status CapEff", "00000000a80425fb".to_owned()),
        ("limit max open files", "1024/1024".to_owned()),
        ("write /", "EROFS".to_owned()),
        ("frozen while paused", "true".to_owned()),
    ];
    for (name, wanted) in musts {
        let found = report.facts.get(name).map_or("nothing", String::as_str);
        if found != wanted {
            report.failures.push(format!("{name}: {wanted} was wanted, {found} was found"));
        }
    }
}
