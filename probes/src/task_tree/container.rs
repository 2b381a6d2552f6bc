//! One container: what its files, its cgroup and its processes say together.

use super::account::TaskAccount;
use super::model::{
    ContainerNode, ContainerStatus, Finding, FindingKind, InitProcess, InitSource, Pod, RuntimeSummary,
    SharedNamespace,
};
use super::place::{Placement, age};
use crate::bundle::cgroup_belongs_to;
use crate::name::{ContainerId, Pid};
use crate::observation::{Observation, ObservedContainer};
use crate::process::LinuxNamespace;

/// What became of a recorded init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InitFate {
    /// It is the recorded process.
    Alive,
    /// It has ended and nobody reaped it.
    Zombie,
    /// No process has its pid.
    Gone,
    /// Another process has its pid.
    Reused,
}

/// The recorded init and its fate; `None` where no init is recorded.
pub(super) fn init_fate(seen: &Observation, container: &ObservedContainer) -> Option<(Pid, InitFate)> {
    let pid = container.init_pid()?;
    let Some(start_time) = container.init_start_time else { return Some((pid, InitFate::Gone)) };
    let recorded = container.state.as_ref().and_then(|state| state.init_start_time);
    let fate = if recorded.map_or(is_foreign(seen, container, pid), |recorded| recorded != start_time) {
        InitFate::Reused
    } else if seen.table.get(pid).is_some_and(|stat| stat.state.has_ended()) {
        InitFate::Zombie
    } else {
        InitFate::Alive
    };
    Some((pid, fate))
}

/// Without a recorded start time the cgroup must do: a process outside of the container's is another one.
fn is_foreign(seen: &Observation, container: &ObservedContainer, pid: Pid) -> bool {
    let own = seen.details.get(&pid).and_then(|details| details.cgroup.as_ref());
    match (own, &container.cgroup) {
        (Some(own), Some(cgroup)) => {
            !cgroup.members.iter().any(|(member, _)| *member == pid) && !cgroup_belongs_to(own, &container.id)
        }
        (Some(own), None) => !cgroup_belongs_to(own, &container.id),
        (None, _) => false,
    }
}

/// Everything that a container's node is made of.
pub(super) struct ContainerContext<'a> {
    pub(super) seen: &'a Observation,
    pub(super) placement: &'a Placement,
    pub(super) fates: &'a [Option<(Pid, InitFate)>],
    pub(super) index: usize,
    pub(super) shim: Option<Pid>,
    pub(super) account: TaskAccount<'a>,
}

pub(super) fn container_node(context: &ContainerContext<'_>) -> ContainerNode {
    let container = &context.seen.containers[context.index];
    let excerpt = container.excerpt.as_ref();
    let init = init_process(context);
    let status = status(context, init.as_ref());
    let living = init.as_ref().filter(|init| init.alive).map(|init| init.pid);
    let processes = context.placement.processes(context.seen, context.index, living, context.shim);
    let image = context.account.record.and_then(|record| record.image.clone());
    let findings = findings(context, status);
    ContainerNode {
        id: container.id.clone(),
        containerd_namespace: container.containerd_namespace.clone(),
        name: excerpt.and_then(|excerpt| excerpt.container_name()).map(str::to_owned),
        pod: excerpt.and_then(|excerpt| {
            Some(Pod {
                name: excerpt.pod_name()?.to_owned(),
                namespace: excerpt.pod_namespace().map(str::to_owned),
                sandbox: excerpt.is_sandbox(),
            })
        }),
        image: image.or_else(|| excerpt.and_then(|excerpt| excerpt.image()).map(str::to_owned)),
        status,
        daemon_status: context.account.task.map(|task| format!("{:?}", task.status).to_lowercase()),
        shared_namespaces: living.map(|pid| shared_namespaces(context, pid)).unwrap_or_default(),
        init,
        runtime: runtime(context),
        bundle: container.bundle.as_ref().map(|bundle| bundle.path.clone()),
        cgroup: container.cgroup_path().cloned(),
        memory_bytes: container.cgroup.as_ref().and_then(|cgroup| cgroup.memory_current),
        memory_limit: container.cgroup.as_ref().and_then(|cgroup| cgroup.memory_max),
        terminal: excerpt.is_some_and(|excerpt| excerpt.terminal),
        processes,
        findings,
    }
}

fn init_process(context: &ContainerContext<'_>) -> Option<InitProcess> {
    let (seen, container) = (context.seen, &context.seen.containers[context.index]);
    if let Some((pid, fate)) = context.fates[context.index] {
        let recorded = container.state.as_ref().is_some_and(|state| state.init_pid.is_some());
        let alive = fate == InitFate::Alive;
        return Some(InitProcess {
            pid,
            alive,
            uptime_seconds: container.init_start_time.filter(|_| alive).and_then(|start| age(seen, start)),
            source: if recorded { InitSource::RuntimeState } else { InitSource::InitPid },
        });
    }
    if let Some(pid) = context.account.task.and_then(|task| task.pid) {
        let stat = seen.table.get(pid);
        let alive = stat.is_some_and(|stat| !stat.state.has_ended());
        let uptime_seconds = stat.and_then(|stat| age(seen, stat.start_time));
        return Some(InitProcess { pid, alive, uptime_seconds, source: InitSource::Daemon });
    }
    let children = seen.table.children(context.shim?);
    let own = children.filter(|child| context.placement.container_of(child.pid) == Some(context.index));
    let oldest = own.min_by_key(|child| (child.start_time, child.pid))?;
    Some(InitProcess {
        pid: oldest.pid,
        alive: !oldest.state.has_ended(),
        uptime_seconds: age(seen, oldest.start_time),
        source: InitSource::OldestChild,
    })
}

fn status(context: &ContainerContext<'_>, init: Option<&InitProcess>) -> ContainerStatus {
    let container = &context.seen.containers[context.index];
    let frozen = container.cgroup.as_ref().and_then(|cgroup| cgroup.frozen);
    match init {
        None => ContainerStatus::Unknown,
        Some(init) if !init.alive => ContainerStatus::Stopped,
        Some(_) if frozen == Some(true) => ContainerStatus::Paused,
        Some(_) if container.awaits_start => ContainerStatus::Created,
        Some(_) => ContainerStatus::Running,
    }
}

fn runtime(context: &ContainerContext<'_>) -> RuntimeSummary {
    let container = &context.seen.containers[context.index];
    let bundle = container.bundle.as_ref();
    let options = bundle.and_then(|bundle| bundle.options.as_ref());
    let verbatim = bundle.and_then(|bundle| bundle.runtime.clone());
    RuntimeSummary {
        family: container.state.as_ref().map(|state| state.family),
        state_file: container.state.as_ref().map(|state| state.path.clone()),
        requested: verbatim.or_else(|| options.map(|options| options.binary_name.clone())),
        runtime_type: context.account.record.map(|record| record.runtime.name.clone()),
    }
}

/// Namespaces that are the host's, or that an older container has too: that one made them.
fn shared_namespaces(context: &ContainerContext<'_>, init: Pid) -> Vec<SharedNamespace> {
    let namespaces = &context.seen.namespaces;
    let Some(own) = namespaces.get(&init) else { return Vec::new() };
    let shared = |(kind, id): (&LinuxNamespace, _)| {
        if namespaces.get(&Pid::INIT).and_then(|host| host.get(kind)) == Some(id) {
            return Some(SharedNamespace { kind: *kind, with: None });
        }
        let with = owner_of_namespace(context, *kind, init)?;
        Some(SharedNamespace { kind: *kind, with: Some(with) })
    };
    own.iter().filter_map(shared).collect()
}

/// The oldest container in the same namespace, when that is another one.
fn owner_of_namespace(
    context: &ContainerContext<'_>,
    kind: LinuxNamespace,
    init: Pid,
) -> Option<ContainerId> {
    let namespace = |pid: Pid| context.seen.namespaces.get(&pid).and_then(|own| own.get(&kind));
    let alive =
        context.fates.iter().zip(&context.seen.containers).filter_map(|(fate, container)| match fate {
            Some((pid, InitFate::Alive)) => Some((*pid, container)),
            _ => None,
        });
    let same = alive.filter(|(pid, _)| namespace(*pid) == namespace(init));
    let (pid, oldest) = same.min_by_key(|(pid, container)| (container.init_start_time, *pid))?;
    (pid != init).then(|| oldest.id.clone())
}

fn findings(context: &ContainerContext<'_>, status: ContainerStatus) -> Vec<Finding> {
    let container = &context.seen.containers[context.index];
    let mut findings = Vec::new();
    let mut find = |kind, message: String| findings.push(Finding { kind, message });
    if context.shim.is_none() && !context.seen.table.is_empty() {
        find(FindingKind::BundleWithoutShim, "no running shim serves this bundle".to_owned());
    }
    match context.fates[context.index] {
        Some((pid, InitFate::Zombie)) => {
            find(FindingKind::InitZombie, format!("init {pid} has ended and was not reaped"));
        }
        Some((pid, InitFate::Reused)) => find(FindingKind::InitReused, reused(context.seen, container, pid)),
        // A stopped task that its shim still holds is no surprise.
        Some((pid, InitFate::Gone)) if context.shim.is_none() && !context.seen.table.is_empty() => {
            find(FindingKind::InitGone, format!("the recorded init {pid} is gone"));
        }
        _ => {}
    }
    for (kind, message) in process_findings(context) {
        find(kind, message);
    }
    if let Some(oom) = container.cgroup.as_ref().and_then(|cgroup| cgroup.oom.clone()) {
        find(FindingKind::OomKilled, oom);
    }
    if let Some(task) = context.account.task.filter(|task| !status.agrees_with(task.status)) {
        let said = format!("{:?}", task.status).to_lowercase();
        find(
            FindingKind::StatusDiffers,
            format!("the daemon says {said}, the kernel shows {}", status.as_str()),
        );
    }
    findings
}

fn reused(seen: &Observation, container: &ObservedContainer, pid: Pid) -> String {
    let now = seen.table.get(pid).map(crate::process::Stat::name).unwrap_or_default();
    let recorded = container.state.as_ref().and_then(|state| state.init_start_time);
    match (recorded, container.init_start_time) {
        (Some(recorded), Some(actual)) => format!(
            "the recorded init {pid} is gone; its pid belongs to another process, `{now}` (started at tick {actual}, not {recorded})"
        ),
        _ => format!("the recorded init {pid} is gone; its pid belongs to `{now}` in another cgroup"),
    }
}

fn process_findings(context: &ContainerContext<'_>) -> Vec<(FindingKind, String)> {
    let mut findings = Vec::new();
    let init = context.seen.containers[context.index].init_pid();
    let members = context.placement.members(context.index);
    let ended = |pid: &&Pid| context.seen.table.get(**pid).is_some_and(|stat| stat.state.has_ended());
    let zombies: Vec<String> =
        members.iter().filter(|pid| Some(**pid) != init).filter(ended).map(Pid::to_string).collect();
    if !zombies.is_empty() {
        findings
            .push((FindingKind::Zombies, format!("{}: {}", plural(zombies.len(), "zombie"), list(&zombies))));
    }
    let outside: Vec<String> = context.placement.outside[context.index].iter().map(Pid::to_string).collect();
    if !outside.is_empty() {
        let count = plural(outside.len(), "process");
        findings
            .push((FindingKind::OutsideCgroup, format!("{count} outside of its cgroup: {}", list(&outside))));
    }
    findings
}

/// A fork bomb leaves thousands: the first few name the kind, the tree has them all.
fn list(names: &[String]) -> String {
    const NAMED: usize = 10;
    if names.len() <= NAMED {
        return names.join(", ");
    }
    format!("{} and {} more", names[..NAMED].join(", "), names.len() - NAMED)
}

fn plural(count: usize, word: &str) -> String {
    match (count, word) {
        (1, word) => format!("1 {word}"),
        (count, "process") => format!("{count} processes"),
        (count, word) => format!("{count} {word}s"),
    }
}
