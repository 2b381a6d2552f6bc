//! A container's part of the timeline: its steps as a tree with times.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use serde::Serialize;

use super::{Role, Timeline, TracedProcess};
use crate::events::invocation::{RuntimeOperation, ShimOperation};
use crate::events::proc_event::{ExitStatus, Timestamp};
use crate::events::process_image::{FileId, NamespaceInode, ProcessImage};
use crate::name::{CgroupPath, ContainerId, ContainerdNamespace, Pid};

/// A process of a container's life. Times are nanoseconds from the start of the trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What it is.
    pub step: Role,
    /// Whether that is known by its place alone: it was gone before it could be read.
    pub inferred: bool,
    /// Its pid.
    pub pid: Pid,
    /// Who made it.
    pub parent_pid: Option<Pid>,
    /// How deep below the first step: 0 is the outermost.
    pub depth: usize,
    /// Its arguments, from where [`Step::command_line_source`] says. Hostile.
    pub command_line: Vec<String>,
    /// Whose arguments these are.
    pub command_line_source: CommandLineSource,
    /// Its program.
    pub exe: Option<PathBuf>,
    /// Its program's file.
    pub file: Option<FileId>,
    /// The name it gave itself.
    pub comm: Option<String>,
    /// When it was made; `None` when it was there before the trace.
    pub started: Option<u64>,
    /// When it ran its last program.
    pub executed: Option<u64>,
    /// From its making to its end; `None` while it runs or when its making was not seen.
    pub duration: Option<u64>,
    /// How it ended.
    pub status: Option<ExitStatus>,
    /// Linux namespaces that it has and the runtime that made it had not.
    pub namespaces_created: Vec<NamespaceInode>,
    /// Linux namespaces that it joined by path.
    pub namespaces_joined: Vec<NamespaceInode>,
}

/// Where a command line was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandLineSource {
    /// `/proc/PID/cmdline` of the process itself.
    Process,
    /// `process.args` of the bundle: the init process was gone before it could be read.
    Bundle,
    /// The process that made it: it ran no program of its own, or was gone before it could be read.
    Parent,
    /// Nowhere.
    Unknown,
}

/// A cgroup of the container's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupStep {
    /// `unified`, or the legacy controller.
    pub hierarchy: &'static str,
    /// The cgroup.
    pub path: CgroupPath,
    /// When it was seen to be there.
    pub created: u64,
    /// When it was seen to be gone.
    pub removed: Option<u64>,
}

/// What was seen of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerTrace {
    /// The container.
    pub container: ContainerId,
    /// Its containerd namespace.
    pub containerd_namespace: Option<ContainerdNamespace>,
    /// Its processes: a tree in order of time, by [`Step::depth`].
    pub steps: Vec<Step>,
    /// Its cgroups that came or went.
    pub cgroups: Vec<CgroupStep>,
    /// Steps that a container's start has and that were not seen.
    pub missing: Vec<&'static str>,
    /// Processes in the container that ended and are not among the steps: only the first are kept.
    pub processes_omitted: u64,
}

impl ContainerTrace {
    /// The runtime that made the container: its first image.
    #[must_use]
    pub fn find_create(&self) -> Option<&Step> {
        self.steps
            .iter()
            .find(|step| matches!(step.step, Role::Runtime(RuntimeOperation::Create | RuntimeOperation::Run)))
    }
}

impl Timeline {
    /// The containers that something was done to, in order of their first step.
    #[must_use]
    pub fn containers(&self) -> Vec<ContainerTrace> {
        let mut members: BTreeMap<&ContainerId, Vec<usize>> = BTreeMap::new();
        for (number, process) in self.processes() {
            if let Some(container) = &process.container {
                members.entry(container).or_default().push(number);
            }
        }
        let mut traces: Vec<(usize, ContainerTrace)> = members
            .into_iter()
            // A shim that was there before and only forked has done nothing to its container.
            .filter(|(_, numbers)| numbers.iter().any(|number| self.is_step(*number)))
            .map(|(id, numbers)| (numbers.first().copied().unwrap_or_default(), self.container(id, &numbers)))
            .collect();
        traces.sort_by_key(|(first, _)| *first);
        traces.into_iter().map(|(_, trace)| trace).collect()
    }

    /// The command that the trace was made for and what it started, as a tree; the first few hundred of them.
    #[must_use]
    pub fn command_steps(&self) -> Vec<Step> {
        let of_command =
            |(number, process): (usize, &TracedProcess)| (process.role == Role::Command).then_some(number);
        self.tree(&self.processes().filter_map(of_command).collect())
    }

    fn is_step(&self, number: usize) -> bool {
        self.process(number)
            .is_some_and(|p| p.forked.is_some() && p.role != Role::Helper && p.role != Role::Other)
    }

    fn container(&self, id: &ContainerId, members: &[usize]) -> ContainerTrace {
        let mut shown: HashSet<usize> =
            members.iter().copied().filter(|n| self.is_step(*n) || !self.is_helper(*n)).collect();
        // The shim of a pod and the daemon above it belong to the picture, whoever's they are.
        for number in members {
            let mut parent = self.process(*number).and_then(|process| process.parent);
            while let Some(above) = parent {
                let Some(process) = self.process(above) else { break };
                if matches!(process.role, Role::Shim(_) | Role::Daemon) {
                    shown.insert(above);
                }
                parent = process.parent;
            }
        }
        let steps = self.tree(&shown);
        let namespace = members.iter().find_map(|number| self.process(*number)?.containerd_namespace.clone());
        ContainerTrace {
            container: id.clone(),
            containerd_namespace: namespace,
            missing: missing_steps(&steps),
            cgroups: self.cgroups_of(id, members),
            processes_omitted: self.omitted.get(id).copied().unwrap_or_default(),
            steps,
        }
    }

    fn is_helper(&self, number: usize) -> bool {
        self.process(number).is_none_or(|process| matches!(process.role, Role::Helper | Role::Other))
    }

    /// The shown processes, parents before their children, siblings by number (which is by time).
    fn tree(&self, shown: &HashSet<usize>) -> Vec<Step> {
        let mut children: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
        for number in shown {
            children.entry(self.shown_parent(*number, shown)).or_default().push(*number);
        }
        for list in children.values_mut() {
            list.sort_unstable();
        }
        let mut steps = Vec::with_capacity(shown.len());
        let mut stack: Vec<(usize, usize)> = Vec::new();
        let push = |stack: &mut Vec<(usize, usize)>, parent: Option<usize>, depth: usize| {
            stack.extend(children.get(&parent).into_iter().flatten().rev().map(|number| (*number, depth)));
        };
        push(&mut stack, None, 0);
        while let Some((number, depth)) = stack.pop() {
            steps.extend(self.process(number).map(|process| self.step(process, depth)));
            push(&mut stack, Some(number), depth + 1);
        }
        steps
    }

    fn shown_parent(&self, number: usize, shown: &HashSet<usize>) -> Option<usize> {
        let mut parent = self.process(number)?.parent;
        while let Some(above) = parent {
            if shown.contains(&above) {
                return Some(above);
            }
            parent = self.process(above)?.parent;
        }
        None
    }

    fn step(&self, process: &TracedProcess, depth: usize) -> Step {
        let since = |time: Timestamp| time.since(self.origin());
        let (image, executed) = image_of(process);
        let (command_line, command_line_source) = self.command_line(process);
        let (created, joined) = match process.role {
            Role::Init | Role::ExecProcess => self.namespaces(process),
            _ => (Vec::new(), Vec::new()),
        };
        Step {
            step: process.role,
            inferred: process.inferred,
            pid: process.pid,
            parent_pid: process.parent_pid,
            depth,
            command_line,
            command_line_source,
            exe: image.and_then(|image| image.exe.clone()),
            file: image.and_then(|image| image.file),
            comm: process.comm.clone(),
            started: process.forked.map(since),
            executed: executed.filter(|_| process.forked.is_some()).map(since),
            duration: process.forked.zip(process.ended).map(|(start, (end, _))| end.since(start)),
            status: process.ended.map(|(_, status)| status),
            namespaces_created: created,
            namespaces_joined: joined,
        }
    }

    /// Its own arguments, else what is known from the bundle or from who made it.
    fn command_line(&self, process: &TracedProcess) -> (Vec<String>, CommandLineSource) {
        if let Some(image) = image_of(process).0 {
            return (image.command_line.clone(), CommandLineSource::Process);
        }
        let runtime = self.find_ancestor(process, |role| matches!(role, Role::Runtime(_)));
        let planned =
            runtime.map(|runtime| &runtime.bundle.arguments).filter(|arguments| !arguments.is_empty());
        if let (Role::Init, Some(arguments), false) = (process.role, planned, process.executions.is_empty()) {
            return (arguments.clone(), CommandLineSource::Bundle);
        }
        let maker =
            process.parent.and_then(|number| self.process(number)).and_then(|maker| image_of(maker).0);
        match maker {
            Some(image) => (image.command_line.clone(), CommandLineSource::Parent),
            None => (Vec::new(), CommandLineSource::Unknown),
        }
    }

    /// Namespaces that differ from the runtime's: made, or joined where the bundle names a path.
    fn namespaces(&self, process: &TracedProcess) -> (Vec<NamespaceInode>, Vec<NamespaceInode>) {
        let Some(image) = image_of(process).0 else { return Default::default() };
        let Some(runtime) = self.find_ancestor(process, |role| matches!(role, Role::Runtime(_))) else {
            return Default::default();
        };
        let Some(before) = image_of(runtime).0 else { return Default::default() };
        let exec = matches!(runtime.role, Role::Runtime(RuntimeOperation::Exec));
        image
            .namespaces
            .iter()
            .filter(|namespace| before.namespace(namespace.kind) != Some(namespace.inode))
            .partition(|namespace| {
                !exec
                    && !runtime
                        .bundle
                        .joined_namespaces
                        .iter()
                        .any(|joined| same_kind(joined, namespace.kind))
            })
    }

    /// Cgroups named after the container, or that its init process was seen in, and those made above them at the time.
    fn cgroups_of(&self, id: &ContainerId, members: &[usize]) -> Vec<CgroupStep> {
        let own: Vec<&str> = members
            .iter()
            .filter_map(|number| self.process(*number))
            .filter(|process| matches!(process.role, Role::Init))
            .filter_map(|process| image_of(process).0?.cgroup.as_ref())
            .map(CgroupPath::as_str)
            .filter(|path| *path != "/")
            .collect();
        let belongs = |path: &str| {
            path.contains(id.as_str())
                || own.iter().any(|own| {
                    own.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
        };
        self.cgroups()
            .iter()
            .filter(|cgroup| belongs(cgroup.path.as_str()))
            .map(|cgroup| CgroupStep {
                hierarchy: cgroup.hierarchy.unwrap_or("unified"),
                path: cgroup.path.clone(),
                created: cgroup.created.since(self.origin()),
                removed: cgroup.removed.map(|time| time.since(self.origin())),
            })
            .collect()
    }
}

/// The image that says most of a process: a runtime's first, as later ones are protected copies; anything else's last.
fn image_of(process: &TracedProcess) -> (Option<&ProcessImage>, Option<Timestamp>) {
    let mut read = process.executions.iter().filter(|execution| execution.image.is_some());
    let told = match process.role {
        Role::Runtime(_) | Role::RuntimeStage => read.next(),
        _ => read.next_back(),
    };
    // That it ran something is known even when what was not read.
    let executed = told.or(process.executions.last()).map(|execution| execution.time);
    (told.and_then(|execution| execution.image.as_deref()), executed)
}

/// The spec's names (`network`, `mount`) and those of `/proc/PID/ns`.
fn same_kind(spec: &str, kind: &str) -> bool {
    match spec {
        "network" => kind == "net",
        "mount" => kind == "mnt",
        other => kind == other,
    }
}

/// What the start of a container is made of, as far as it was not there before.
fn missing_steps(steps: &[Step]) -> Vec<&'static str> {
    let has = |role: Role| steps.iter().any(|step| step.step == role);
    if has(Role::Runtime(RuntimeOperation::Run)) || !steps.iter().any(|step| step.step.is_part_of_start()) {
        return Vec::new();
    }
    let shim_was_there =
        steps.iter().any(|step| step.step == Role::Shim(ShimOperation::Serve) && step.started.is_none());
    let mut expected = vec![Role::Runtime(RuntimeOperation::Create), Role::Runtime(RuntimeOperation::Start)];
    if !shim_was_there {
        expected.extend([Role::Shim(ShimOperation::Start), Role::Shim(ShimOperation::Serve)]);
    }
    let mut missing: Vec<&'static str> =
        expected.into_iter().filter(|role| !has(*role)).map(Role::name).collect();
    let init_ran = steps.iter().any(|step| step.step == Role::Init && step.executed.is_some());
    if !init_ran {
        missing.push(Role::Init.name());
    }
    missing
}

impl Role {
    /// Whether it is seen only when a container starts.
    fn is_part_of_start(self) -> bool {
        matches!(
            self,
            Self::Shim(ShimOperation::Start) | Self::Runtime(RuntimeOperation::Create) | Self::Init
        )
    }
}
