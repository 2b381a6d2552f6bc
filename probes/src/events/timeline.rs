//! From single events to what happened: who started whom, as what, for which container. Pure.
//!
//! containerd runs `shim … start`, which forks the serving shim and ends; the shim calls the OCI runtime's `create`; the
//! runtime makes the container's first process, which waits; the runtime's `start` lets it run the container's
//! program. [`Timeline::apply`] takes events in order and gives each process a [`Role`]; [`Timeline::containers`] is the
//! result. Only processes that have a role are kept, so that a long trace of a busy host stays small.

mod container;
mod role;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

pub use container::{CgroupStep, CommandLineSource, ContainerTrace, Step};
pub use role::Role;

use super::invocation::{Invocation, RuntimeOperation, parse_invocation};
use super::loss::Loss;
use super::proc_event::{ExitStatus, Timestamp};
use super::process_image::ProcessImage;
use super::recorder::{Event, EventKind};
use crate::name::{CgroupPath, ContainerId, ContainerdNamespace, Pid};

/// Processes inside one container that are kept after they ended: the first ones; the rest is counted.
const KEPT_CONTAINER_PROCESSES: usize = 64;

/// And of the command's own: the last to end is the command itself, which is kept in any case.
const KEPT_COMMAND_PROCESSES: usize = 256;

/// A program that a process ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// When.
    pub time: Timestamp,
    /// What; `None` when the process was gone before it could be read.
    pub image: Option<Box<ProcessImage>>,
}

/// What the bundle says that a runtime was called for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BundleSays {
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<String>,
    /// Namespaces that are joined by path, in the spec's names.
    pub joined_namespaces: Vec<String>,
    /// `process.args`.
    pub arguments: Vec<String>,
}

/// A process during the trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedProcess {
    /// Its pid then: pids are used again, numbers within the timeline are not.
    pub pid: Pid,
    /// Who made it, by number.
    pub parent: Option<usize>,
    /// Who made it, by pid.
    pub parent_pid: Option<Pid>,
    /// When it was made; `None` when it was there before.
    pub forked: Option<Timestamp>,
    /// What it ran, in order.
    pub executions: Vec<Execution>,
    /// The name it gave itself last.
    pub comm: Option<String>,
    /// When and how it ended.
    pub ended: Option<(Timestamp, ExitStatus)>,
    /// What it is.
    pub role: Role,
    /// Whether [`TracedProcess::role`] is known by its place alone: it was gone before `/proc` could be read.
    pub inferred: bool,
    /// For which container.
    pub container: Option<ContainerId>,
    /// In which containerd namespace.
    pub containerd_namespace: Option<ContainerdNamespace>,
    /// What the bundle says that it was called for.
    pub bundle: BundleSays,
}

/// A cgroup that came or went during the trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedCgroup {
    /// `None` in the unified hierarchy, else the legacy controller.
    pub hierarchy: Option<&'static str>,
    /// The cgroup.
    pub path: CgroupPath,
    /// When it was seen to be there.
    pub created: Timestamp,
    /// When it was seen to be gone.
    pub removed: Option<Timestamp>,
}

/// How much was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Processes made.
    pub forks: u64,
    /// Programs run.
    pub execs: u64,
    /// Programs run by processes that were gone before `/proc` could be read.
    pub execs_unread: u64,
    /// Processes ended.
    pub exits: u64,
}

/// Everything that was seen, in order.
#[derive(Debug, Default)]
pub struct Timeline {
    origin: Option<Timestamp>,
    command: Option<Pid>,
    next: usize,
    processes: BTreeMap<usize, TracedProcess>,
    live: HashMap<Pid, usize>,
    cgroups: Vec<TracedCgroup>,
    init_pids: HashMap<ContainerId, Pid>,
    kept: HashMap<ContainerId, usize>,
    kept_of_command: usize,
    omitted: HashMap<ContainerId, u64>,
    counts: Counts,
    loss: Loss,
}

impl Timeline {
    /// A timeline of everything; `command` is the process that the trace was made for.
    #[must_use]
    pub fn new(command: Option<Pid>) -> Self {
        Self { command, ..Self::default() }
    }

    /// The first event's time: what starts are counted from.
    #[must_use]
    pub fn origin(&self) -> Timestamp {
        self.origin.unwrap_or_default()
    }

    /// How much was seen.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What was not told.
    #[must_use]
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// The processes that are kept, oldest first.
    pub fn processes(&self) -> impl Iterator<Item = (usize, &TracedProcess)> {
        self.processes.iter().map(|(number, process)| (*number, process))
    }

    /// A process by its number.
    #[must_use]
    pub fn process(&self, number: usize) -> Option<&TracedProcess> {
        self.processes.get(&number)
    }

    /// The process that has a pid now.
    #[must_use]
    pub fn find_live(&self, pid: Pid) -> Option<&TracedProcess> {
        self.live.get(&pid).and_then(|number| self.processes.get(number))
    }

    /// Cgroups that came or went.
    #[must_use]
    pub fn cgroups(&self) -> &[TracedCgroup] {
        &self.cgroups
    }

    /// Whether a shim's `start` or a runtime is at work now.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.live.values().filter_map(|number| self.processes.get(number)).any(|p| p.role.is_transient())
    }

    /// Takes the next event.
    pub fn apply(&mut self, event: Event) {
        let time = event.time;
        match event.kind {
            EventKind::Present { pid, image } => self.present(time, pid, image),
            EventKind::Fork { parent, child } => {
                self.origin.get_or_insert(time);
                self.fork(time, parent, child);
            }
            EventKind::Exec { pid, image } => {
                self.origin.get_or_insert(time);
                self.exec(time, pid, image);
            }
            EventKind::Comm { pid, comm } => {
                if let Some(process) = self.live_mut(pid) {
                    process.comm = Some(comm);
                }
            }
            EventKind::Exit { pid, status } => self.exit(time, pid, status),
            EventKind::Bundle { pid, cgroups_path, joined_namespaces, arguments } => {
                if let Some(process) = self.live_mut(pid) {
                    process.bundle = BundleSays { cgroups_path, joined_namespaces, arguments };
                }
            }
            EventKind::InitPid { container, pid } => self.init_pid(container, pid),
            EventKind::CgroupCreated { hierarchy, path } => {
                self.cgroups.push(TracedCgroup { hierarchy, path, created: time, removed: None });
            }
            EventKind::CgroupRemoved { hierarchy, path } => {
                let same = |cgroup: &&mut TracedCgroup| {
                    cgroup.hierarchy == hierarchy && cgroup.path == path && cgroup.removed.is_none()
                };
                if let Some(cgroup) = self.cgroups.iter_mut().rev().find(same) {
                    cgroup.removed = Some(time);
                }
            }
            EventKind::Lost(loss) => self.loss = loss,
        }
    }

    fn live_mut(&mut self, pid: Pid) -> Option<&mut TracedProcess> {
        self.live.get(&pid).and_then(|number| self.processes.get_mut(number))
    }

    fn insert(&mut self, process: TracedProcess) -> usize {
        let number = self.next;
        self.next += 1;
        self.live.insert(process.pid, number);
        self.processes.insert(number, process);
        number
    }

    fn present(&mut self, time: Timestamp, pid: Pid, image: Box<ProcessImage>) {
        if self.live.contains_key(&pid) {
            return;
        }
        let mut process = blank(pid, image.parent);
        let invocation = parse_invocation(&image.command_line);
        role::take_invocation(&mut process, invocation.as_ref());
        process.executions.push(Execution { time, image: Some(image) });
        self.insert(process);
    }

    fn fork(&mut self, time: Timestamp, parent: Pid, child: Pid) {
        self.counts.forks += 1;
        let parent_number = self.live.get(&parent).copied();
        let maker = parent_number.and_then(|number| self.processes.get(&number));
        let mut process = blank(child, Some(parent));
        process.forked = Some(time);
        process.parent = parent_number;
        if let Some(maker) = maker {
            process.role = maker.role.of_child();
            process.container.clone_from(&maker.container);
            process.containerd_namespace.clone_from(&maker.containerd_namespace);
        }
        if self.command == Some(child) {
            process.role = Role::Command;
        }
        self.insert(process);
    }

    fn exec(&mut self, time: Timestamp, pid: Pid, image: Option<Box<ProcessImage>>) {
        self.counts.execs += 1;
        self.counts.execs_unread += u64::from(image.is_none());
        if !self.live.contains_key(&pid) {
            let mut process = blank(pid, image.as_ref().and_then(|image| image.parent));
            process.parent = process.parent_pid.and_then(|parent| self.live.get(&parent).copied());
            self.insert(process);
        }
        let Some(number) = self.live.get(&pid).copied() else { return };
        if let Some(image) = &image {
            let invocation = parse_invocation(&image.command_line);
            self.take_role(number, image, invocation.as_ref());
        } else {
            self.infer_role(number);
        }
        if let Some(process) = self.processes.get_mut(&number) {
            process.executions.push(Execution { time, image });
        }
    }

    /// What an exec makes of a process.
    fn take_role(&mut self, number: usize, image: &ProcessImage, invocation: Option<&Invocation>) {
        let Some(process) = self.processes.get(&number) else { return };
        let role = match process.role {
            // A runtime that executes itself anew, and a container's own programs, stay what they are.
            Role::Runtime(_) | Role::Init | Role::ContainerProcess => return,
            // `inspect trace -- runc run …`: the command is itself a step.
            Role::Command if !matches!(invocation, Some(Invocation::Runtime(_))) => return,
            Role::RuntimeStage if invocation == Some(&Invocation::RuntimeInit) => return,
            Role::RuntimeStage => Some(self.role_of_program(process, image)),
            _ => None,
        };
        let Some(process) = self.processes.get_mut(&number) else { return };
        match role {
            Some(role) => process.role = role,
            None => role::take_invocation(process, invocation),
        }
    }

    /// What a shim's child was that ended before it could be read: on a host under load a runtime's `start` lives for less
    /// time than a reader may have to wait for a processor.
    ///
    /// containerd's shim for runc calls `create` first and, when that has succeeded, `start`: nothing comes before or between
    /// the two. What it calls later is not guessed.
    fn infer_role(&mut self, number: usize) {
        let Some(process) = self.processes.get(&number) else { return };
        let shim = process.parent.and_then(|parent| self.processes.get(&parent));
        let begun_here = shim.is_some_and(|shim| shim.role.serves() && shim.forked.is_some());
        if process.role != Role::Helper || !process.executions.is_empty() || !begun_here {
            return;
        }
        let of_container = self.processes.values().filter(|other| other.container == process.container);
        let mut calls = of_container.filter_map(|other| match other.role {
            Role::Runtime(operation) => Some((operation, other.ended.map(|(_, status)| status.is_success()))),
            _ => None,
        });
        let operation = match (calls.next(), calls.next()) {
            (None, _) => RuntimeOperation::Create,
            (Some((RuntimeOperation::Create, Some(true))), None) => RuntimeOperation::Start,
            _ => return,
        };
        if let Some(process) = self.processes.get_mut(&number) {
            process.role = Role::Runtime(operation);
            process.inferred = true;
        }
    }

    /// What a process of a runtime's becomes when it runs a program: the container's init, an exec's process, or a hook.
    ///
    /// Where the runtime's pid file was read it decides. Else a hook is told by the runtime's own mount namespace, and
    /// from the init process's children by the depth: runtimes make the init process their own child (`CLONE_PARENT`).
    fn role_of_program(&self, process: &TracedProcess, image: &ProcessImage) -> Role {
        let runtime = self.find_ancestor(process, |role| matches!(role, Role::Runtime(_)));
        if let Some(Role::Runtime(operation)) = runtime.map(|runtime| runtime.role)
            && !operation.makes_init()
        {
            return Role::ExecProcess;
        }
        let known = process.container.as_ref().and_then(|id| self.init_pids.get(id));
        if let Some(init) = known {
            return if *init == process.pid { Role::Init } else { Role::Hook };
        }
        let runtime_mounts = runtime
            .and_then(|runtime| runtime.executions.first())
            .and_then(|execution| execution.image.as_ref()?.namespace("mnt"));
        if runtime_mounts.is_some() && runtime_mounts == image.namespace("mnt") {
            return Role::Hook;
        }
        Role::Init
    }

    fn find_ancestor(&self, process: &TracedProcess, is: impl Fn(Role) -> bool) -> Option<&TracedProcess> {
        let mut parent = process.parent;
        // Bounded: a parent has a lower number than its child.
        while let Some(ancestor) = parent.and_then(|number| self.processes.get(&number)) {
            if is(ancestor.role) {
                return Some(ancestor);
            }
            parent = ancestor.parent;
        }
        None
    }

    fn init_pid(&mut self, container: ContainerId, pid: Pid) {
        if let Some(process) = self.live_mut(pid)
            && process.container.as_ref() == Some(&container)
        {
            process.role = Role::Init;
        }
        self.init_pids.insert(container, pid);
    }

    fn exit(&mut self, time: Timestamp, pid: Pid, status: ExitStatus) {
        self.counts.exits += 1;
        let Some(number) = self.live.remove(&pid) else { return };
        let Some(process) = self.processes.get_mut(&number) else { return };
        process.ended = Some((time, status));
        if !self.is_kept(number) {
            self.processes.remove(&number);
        }
    }

    fn is_kept(&mut self, number: usize) -> bool {
        let Some(process) = self.processes.get(&number) else { return false };
        let Some(container) = &process.container else {
            if process.role == Role::Command {
                self.kept_of_command += 1;
            }
            let room = self.kept_of_command <= KEPT_COMMAND_PROCESSES || self.command == Some(process.pid);
            return process.role != Role::Other && room;
        };
        if process.role != Role::ContainerProcess {
            return true;
        }
        let kept = self.kept.entry(container.clone()).or_default();
        if *kept < KEPT_CONTAINER_PROCESSES {
            *kept += 1;
            return true;
        }
        *self.omitted.entry(container.clone()).or_default() += 1;
        false
    }
}

fn blank(pid: Pid, parent_pid: Option<Pid>) -> TracedProcess {
    TracedProcess {
        pid,
        parent: None,
        parent_pid,
        forked: None,
        executions: Vec::new(),
        comm: None,
        ended: None,
        role: Role::Other,
        inferred: false,
        container: None,
        containerd_namespace: None,
        bundle: BundleSays::default(),
    }
}
