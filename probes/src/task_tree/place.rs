//! Which process belongs to which container, and in which order they are shown.
//!
//! The cgroup decides: that is the kernel's own account of a container. Descent only adds processes whose cgroup is no
//! container's. A parent decides nothing, because orphans are adopted across containers that share a pid namespace.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use super::model::{ProcessNode, ProcessRole};
use crate::escape::escape_bytes;
use crate::name::Pid;
use crate::observation::{Observation, ObservedContainer, is_at_or_below};
use crate::process::{LinuxNamespace, Stat, TICKS_PER_SECOND};

/// The processes of a host, placed.
#[derive(Debug, Default)]
pub(super) struct Placement {
    /// Container (its index in the observation) by pid.
    container_of: HashMap<Pid, usize>,
    /// The placed processes by container.
    members: Vec<BTreeSet<Pid>>,
    /// Processes of a container that are in none of its cgroups.
    pub(super) outside: Vec<BTreeSet<Pid>>,
}

impl Placement {
    /// Places every process whose details were read. `inits` are the containers' living inits.
    pub(super) fn new(seen: &Observation, inits: &[Option<Pid>]) -> Self {
        let count = seen.containers.len();
        let mut placement = Self {
            container_of: HashMap::new(),
            members: vec![BTreeSet::new(); count],
            outside: vec![BTreeSet::new(); count],
        };
        for (index, container) in seen.containers.iter().enumerate() {
            for (pid, _) in container.cgroup.iter().flat_map(|cgroup| &cgroup.members) {
                placement.place(*pid, index);
            }
            if let Some(init) = inits.get(index).copied().flatten() {
                placement.place(init, index);
            }
        }
        placement.place_by_own_cgroup(seen);
        placement.place_by_descent(seen);
        placement
    }

    /// The first account holds: an init that is in another container's cgroup is that container's.
    fn place(&mut self, pid: Pid, container: usize) {
        if let Entry::Vacant(vacant) = self.container_of.entry(pid) {
            vacant.insert(container);
            self.members[container].insert(pid);
        }
    }

    /// Zombies are not in `cgroup.procs`, and a process may have come between the two readings.
    fn place_by_own_cgroup(&mut self, seen: &Observation) {
        for (pid, details) in &seen.details {
            let (false, Some(own)) = (self.container_of.contains_key(pid), &details.cgroup) else { continue };
            let holds = |container: &ObservedContainer| {
                container.cgroup_path().is_some_and(|path| is_at_or_below(own, path))
            };
            if let Some(index) = seen.containers.iter().position(holds) {
                self.place(*pid, index);
            }
        }
    }

    fn place_by_descent(&mut self, seen: &Observation) {
        let mut waiting: Vec<(Pid, usize)> =
            self.container_of.iter().map(|(pid, index)| (*pid, *index)).collect();
        while let Some((parent, index)) = waiting.pop() {
            for child in seen.table.children(parent) {
                if self.container_of.contains_key(&child.pid) {
                    continue;
                }
                self.place(child.pid, index);
                if !child.state.has_ended() {
                    self.outside[index].insert(child.pid);
                }
                waiting.push((child.pid, index));
            }
        }
    }

    /// The processes that were placed in a container.
    pub(super) fn members(&self, index: usize) -> &BTreeSet<Pid> {
        &self.members[index]
    }

    /// The container that a process was placed in.
    pub(super) fn container_of(&self, pid: Pid) -> Option<usize> {
        self.container_of.get(&pid).copied()
    }

    /// The processes of a container, each after its parent: the init first, then by age.
    pub(super) fn processes(
        &self,
        seen: &Observation,
        index: usize,
        init: Option<Pid>,
        shim: Option<Pid>,
    ) -> Vec<ProcessNode> {
        let members = &self.members[index];
        let stats = members.iter().filter_map(|pid| seen.table.get(*pid));
        let mut roots: Vec<&Stat> = stats.filter(|stat| !members.contains(&stat.parent)).collect();
        roots.sort_by_key(|stat| (Some(stat.pid) != init, stat.start_time, stat.pid));
        let role = |stat: &Stat| role_of_root(seen, stat, init, shim);
        preorder(seen, &roots, &role, &|pid| members.contains(&pid))
    }

    /// The children of a shim that are in no container, and what is below them.
    pub(super) fn helpers(&self, seen: &Observation, shim: Pid) -> Vec<ProcessNode> {
        let unplaced = |pid: Pid| !self.container_of.contains_key(&pid);
        let roots: Vec<&Stat> = seen.table.children(shim).filter(|child| unplaced(child.pid)).collect();
        preorder(seen, &roots, &|_| ProcessRole::Helper, &unplaced)
    }
}

fn role_of_root(seen: &Observation, stat: &Stat, init: Option<Pid>, shim: Option<Pid>) -> ProcessRole {
    if Some(stat.pid) == init {
        return ProcessRole::Init;
    }
    if Some(stat.parent) != shim {
        return ProcessRole::Adopted;
    }
    let pid_namespace = |pid: Pid| seen.namespaces.get(&pid).and_then(|own| own.get(&LinuxNamespace::Pid));
    let own = init.and_then(pid_namespace);
    // Where the container has a pid namespace of its own, its orphans go to its init and never to the shim.
    match (own, pid_namespace(Pid::INIT), pid_namespace(stat.pid)) {
        (Some(own), Some(host), Some(of_process)) if own != host && own == of_process => ProcessRole::Exec,
        (Some(own), Some(host), None) if own != host => ProcessRole::Exec,
        _ => ProcessRole::ExecOrAdopted,
    }
}

/// Parents before children, without recursion: a fork bomb makes deep trees.
fn preorder(
    seen: &Observation,
    roots: &[&Stat],
    role: &dyn Fn(&Stat) -> ProcessRole,
    belongs: &dyn Fn(Pid) -> bool,
) -> Vec<ProcessNode> {
    let mut nodes = Vec::new();
    let mut shown = BTreeSet::new();
    let mut waiting: Vec<(&Stat, usize)> = roots.iter().rev().map(|stat| (*stat, 0)).collect();
    while let Some((stat, depth)) = waiting.pop() {
        if !shown.insert(stat.pid) {
            continue;
        }
        let role = if depth == 0 { role(stat) } else { ProcessRole::Child };
        nodes.push(process_node(seen, stat, depth, role));
        let mut children: Vec<&Stat> =
            seen.table.children(stat.pid).filter(|child| belongs(child.pid)).collect();
        children.sort_by_key(|child| std::cmp::Reverse((child.start_time, child.pid)));
        waiting.extend(children.into_iter().map(|child| (child, depth + 1)));
    }
    // A helper's children are helpers.
    if let Some(ProcessRole::Helper) = roots.first().map(|stat| role(stat)) {
        nodes.iter_mut().for_each(|node| node.role = ProcessRole::Helper);
    }
    nodes
}

fn process_node(seen: &Observation, stat: &Stat, depth: usize, role: ProcessRole) -> ProcessNode {
    let details = seen.details.get(&stat.pid);
    let uid = details.and_then(|details| details.uid);
    ProcessNode {
        pid: stat.pid,
        namespace_pid: details.and_then(|details| details.namespace_pid),
        parent: stat.parent,
        depth,
        role,
        uid,
        user: uid.and_then(|uid| seen.users.name(uid)).map(str::to_owned),
        name: escape_bytes(&stat.comm).into_owned(),
        command_line: details.map(|details| details.command_line.to_line()).unwrap_or_default(),
        command_line_cut: details.is_some_and(|details| details.command_line.truncated),
        state: stat.state,
        uptime_seconds: age(seen, stat.start_time),
    }
}

/// Seconds since a start time in ticks after boot.
pub(super) fn age(seen: &Observation, start_time: u64) -> Option<u64> {
    let started = start_time / TICKS_PER_SECOND;
    seen.uptime.map(|uptime| uptime.as_secs().saturating_sub(started))
}
