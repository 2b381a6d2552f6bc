//! Parts of the tree: one container, one containerd namespace, what is around one process or cgroup.

use super::model::{
    ContainerNode, ContainerStatus, DaemonNode, NamespaceNode, ProcessNode, ShimNode, TaskTree, Totals,
};
use crate::bundle::{Candidate, LocateError, cgroup_belongs_to, choose_container};
use crate::name::{CgroupPath, ContainerId, ContainerdNamespace, Pid};
use crate::observation::is_at_or_below;
use crate::process::ProcessState;

/// What to keep of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// One containerd namespace.
    ContainerdNamespace(ContainerdNamespace),
    /// One container, with its shim and its daemon.
    Container(ContainerdNamespace, ContainerId),
    /// A shim and what it serves.
    Shim(Pid),
    /// A daemon and everything below it.
    Daemon(Pid),
}

impl TaskTree {
    /// Finds the container that `query` names: see [`choose_container`].
    ///
    /// # Errors
    /// [`LocateError`] when nothing or more than one matches.
    pub fn find_container(&self, query: &str) -> Result<Selection, LocateError> {
        let containers: Vec<&ContainerNode> = self.containers().collect();
        let chosen = choose_container(
            &containers,
            query,
            |node| Candidate { containerd_namespace: node.containerd_namespace.clone(), id: node.id.clone() },
            |node| node_names(node),
        )?;
        Ok(Selection::Container(chosen.containerd_namespace.clone(), chosen.id.clone()))
    }

    /// Finds what a process is part of: a container, a shim (itself or a helper), a daemon.
    #[must_use]
    pub fn find_process(&self, pid: Pid) -> Option<Selection> {
        let has = |container: &&ContainerNode| container.processes.iter().any(|process| process.pid == pid);
        if let Some(node) = self.containers().find(has) {
            return Some(Selection::Container(node.containerd_namespace.clone(), node.id.clone()));
        }
        let is = |shim: &&ShimNode| shim.pid == pid || shim.helpers.iter().any(|helper| helper.pid == pid);
        if let Some(shim) = self.shims().find(is) {
            return Some(Selection::Shim(shim.pid));
        }
        let mut daemons = self.daemons.iter().filter_map(|daemon| daemon.process.as_ref());
        daemons.find(|daemon| daemon.pid == pid).map(|daemon| Selection::Daemon(daemon.pid))
    }

    /// Finds the container whose cgroup is `cgroup`, or is above it.
    #[must_use]
    pub fn find_cgroup(&self, cgroup: &CgroupPath) -> Option<Selection> {
        let holds = |node: &&ContainerNode| match &node.cgroup {
            Some(own) => is_at_or_below(cgroup, own),
            None => cgroup_belongs_to(cgroup, &node.id),
        };
        let node = self.containers().find(holds)?;
        Some(Selection::Container(node.containerd_namespace.clone(), node.id.clone()))
    }

    /// Keeps what is selected and what leads to it; counts anew.
    pub fn retain(&mut self, selection: &Selection) {
        for daemon in &mut self.daemons {
            let whole = matches!(selection, Selection::Daemon(pid)
                if daemon.process.as_ref().is_some_and(|process| process.pid == *pid));
            if !whole {
                retain_below(daemon, selection);
            }
        }
        let whole = |daemon: &DaemonNode| match selection {
            Selection::Daemon(pid) => daemon.process.as_ref().is_some_and(|process| process.pid == *pid),
            _ => !daemon.containerd_namespaces.is_empty(),
        };
        self.daemons.retain(whole);
        self.stray_cgroups.clear();
        self.other_engines.clear();
        self.count();
    }

    /// Forgets ages and amounts: what changes while nothing happens. Two trees that then are equal show the same.
    pub fn forget_amounts(&mut self) {
        self.host.uptime_seconds = None;
        self.host.processes = 0;
        for daemon in &mut self.daemons {
            daemon.process.iter_mut().for_each(|process| process.uptime_seconds = None);
            for namespace in &mut daemon.containerd_namespaces {
                namespace.shims.iter_mut().for_each(forget_amounts_of_shim);
                namespace.orphans.iter_mut().for_each(forget_amounts_of_container);
            }
        }
    }

    /// Every container.
    pub fn containers(&self) -> impl Iterator<Item = &ContainerNode> {
        self.namespaces().flat_map(|namespace| {
            let served = namespace.shims.iter().flat_map(|shim| &shim.containers);
            served.chain(&namespace.orphans)
        })
    }

    fn shims(&self) -> impl Iterator<Item = &ShimNode> {
        self.namespaces().flat_map(|namespace| &namespace.shims)
    }

    fn namespaces(&self) -> impl Iterator<Item = &NamespaceNode> {
        self.daemons.iter().flat_map(|daemon| &daemon.containerd_namespaces)
    }

    /// Counts what the tree holds now.
    pub(super) fn count(&mut self) {
        let status = |wanted: ContainerStatus| self.containers().filter(|node| node.status == wanted).count();
        let findings = self.daemons.iter().map(|daemon| daemon.findings.len()).sum::<usize>()
            + self.shims().map(|shim| shim.findings.len()).sum::<usize>()
            + self.containers().map(|container| container.findings.len()).sum::<usize>();
        self.totals = Totals {
            daemons: self.daemons.len(),
            shims: self.shims().count(),
            containers: self.containers().count(),
            running: status(ContainerStatus::Running),
            paused: status(ContainerStatus::Paused),
            processes: self.containers().map(|container| container.processes.len()).sum(),
            findings: findings + if self.host.bundles_seen { self.stray_cgroups.len() } else { 0 },
        };
    }
}

fn forget_amounts_of_shim(shim: &mut ShimNode) {
    shim.uptime_seconds = None;
    shim.helpers.iter_mut().for_each(forget_amounts_of_process);
    shim.containers.iter_mut().for_each(forget_amounts_of_container);
}

fn forget_amounts_of_container(container: &mut ContainerNode) {
    container.memory_bytes = None;
    container.init.iter_mut().for_each(|init| init.uptime_seconds = None);
    container.processes.iter_mut().for_each(forget_amounts_of_process);
}

/// Whether it runs or sleeps just now is no change; whether it is a zombie is.
fn forget_amounts_of_process(process: &mut ProcessNode) {
    process.uptime_seconds = None;
    if matches!(process.state, ProcessState::Running | ProcessState::Sleeping | ProcessState::DiskSleep) {
        process.state = ProcessState::Sleeping;
    }
}

fn retain_below(daemon: &mut DaemonNode, selection: &Selection) {
    for namespace in &mut daemon.containerd_namespaces {
        let keep = |node: &ContainerNode| match selection {
            Selection::Container(name, id) => node.containerd_namespace == *name && node.id == *id,
            _ => false,
        };
        let whole = *selection == Selection::ContainerdNamespace(namespace.name.clone());
        if whole {
            continue;
        }
        namespace.records_without_task.clear();
        namespace.orphans.retain(keep);
        for shim in &mut namespace.shims {
            if *selection != Selection::Shim(shim.pid) {
                shim.containers.retain(keep);
            }
        }
        namespace.shims.retain(|shim| *selection == Selection::Shim(shim.pid) || !shim.containers.is_empty());
    }
    daemon.containerd_namespaces.retain(|namespace| {
        let whole = *selection == Selection::ContainerdNamespace(namespace.name.clone());
        whole || !namespace.shims.is_empty() || !namespace.orphans.is_empty()
    });
}

/// What a user may call a container besides its id.
fn node_names(node: &ContainerNode) -> Vec<String> {
    match (&node.name, &node.pod) {
        (Some(name), Some(pod)) => vec![name.clone(), format!("{}/{name}", pod.name)],
        (Some(name), None) => vec![name.clone()],
        (None, Some(pod)) => vec![pod.name.clone()],
        (None, None) => Vec::new(),
    }
}
