//! Puts the tree together.

use std::collections::{BTreeMap, BTreeSet};

use super::account::AccountIndex;
use super::container::{ContainerContext, InitFate, container_node, init_fate};
use super::model::{
    ApiSummary, ContainerNode, DaemonInfo, DaemonNode, Finding, FindingKind, HostSummary, NamespaceNode,
    SCHEMA_VERSION, ShimNode, TaskTree, Totals,
};
use super::owner::{
    DaemonSeed, find_owners, listens_on, owner_of_shim, owner_of_state, prove_ownership, unit_of_cgroup,
};
use super::place::{Placement, age};
use crate::containerd::ShimProcess;
use crate::name::{ContainerdNamespace, Pid};
use crate::observation::{Observation, ObservedContainer};

/// Everything worked out before the tree is written down.
struct Plan<'a> {
    seen: &'a Observation,
    seeds: Vec<DaemonSeed<'a>>,
    fates: Vec<Option<(Pid, InitFate)>>,
    placement: Placement,
    /// By container: the shim (its index) that serves it.
    shims: Vec<Option<usize>>,
    /// By container: its daemon (its index in `seeds`).
    daemons: Vec<Option<usize>>,
}

/// Builds the tree of what was seen.
#[must_use]
pub fn build_task_tree(seen: &Observation) -> TaskTree {
    let seeds = find_owners(seen);
    let fates: Vec<_> = seen.containers.iter().map(|container| init_fate(seen, container)).collect();
    let living: Vec<_> = fates.iter().map(|fate| living_init(*fate)).collect();
    let shims: Vec<_> = seen.containers.iter().map(|container| shim_of_container(seen, container)).collect();
    let daemons = seen.containers.iter().zip(&shims).map(|(container, shim)| {
        let of_shim = shim.and_then(|shim| owner_of_shim(&seeds, &seen.shims[shim]));
        let bundle = container.bundle.as_ref();
        of_shim.or_else(|| owner_of_state(&seeds, &bundle?.state_directory))
    });
    let daemons = daemons.collect();
    let placement = Placement::new(seen, &living);
    let plan = Plan { seen, seeds, fates, placement, shims, daemons };
    let mut tree = TaskTree {
        schema_version: SCHEMA_VERSION,
        host: host_summary(seen),
        daemons: (0..plan.seeds.len()).map(|index| daemon_node(&plan, index)).collect(),
        stray_cgroups: seen.stray_cgroups.clone(),
        other_engines: seen.other_engines.clone(),
        not_seen: seen.not_seen.clone(),
        totals: Totals::default(),
    };
    tree.count();
    tree
}

fn living_init(fate: Option<(Pid, InitFate)>) -> Option<Pid> {
    match fate {
        Some((pid, InitFate::Alive | InitFate::Zombie)) => Some(pid),
        _ => None,
    }
}

fn host_summary(seen: &Observation) -> HostSummary {
    HostSummary {
        init: seen.table.get(Pid::INIT).map(crate::process::Stat::name),
        boot_id: seen.boot_id.clone(),
        uptime_seconds: seen.uptime.map(|uptime| uptime.as_secs()),
        cgroup_mode: seen.cgroup_mode,
        bundles_seen: seen.bundles_seen,
        processes: seen.table.len(),
    }
}

/// The shim of a container: the parent of one of its processes, the one started for its id or for its sandbox's, or the
/// one that listens where its bundle says.
fn shim_of_container(seen: &Observation, container: &ObservedContainer) -> Option<usize> {
    let members = container.cgroup.iter().flat_map(|cgroup| &cgroup.members).map(|(pid, _)| *pid);
    let parents: BTreeSet<Pid> = container
        .init_pid()
        .into_iter()
        .chain(members)
        .filter_map(|pid| seen.table.get(pid).map(|stat| stat.parent))
        .collect();
    let same_namespace = |shim: &&ShimProcess| shim.containerd_namespace == container.containerd_namespace;
    let find = |fits: &dyn Fn(&ShimProcess) -> bool| {
        seen.shims.iter().position(|shim| same_namespace(&shim) && fits(shim))
    };
    let state = container.bundle.as_ref().map(|bundle| bundle.state_directory.as_path());
    let same_state = |shim: &ShimProcess| shim.state_directory().is_none_or(|own| Some(own) == state);
    let sandbox = sandbox_of(container);
    find(&|shim| parents.contains(&shim.pid))
        .or_else(|| find(&|shim| shim.id == container.id && same_state(shim)))
        .or_else(|| find(&|shim| Some(shim.id.as_str()) == sandbox && same_state(shim)))
        .or_else(|| find(&|shim| shares_address(seen, container, shim)))
}

fn sandbox_of(container: &ObservedContainer) -> Option<&str> {
    let file = container.bundle.as_ref().and_then(|bundle| bundle.sandbox.as_ref());
    file.map(|id| id.as_str()).or_else(|| container.excerpt.as_ref()?.sandbox_id())
}

/// Whether the shim was started for another bundle with the same socket.
fn shares_address(seen: &Observation, container: &ObservedContainer, shim: &ShimProcess) -> bool {
    let address = |container: &ObservedContainer| {
        container.bundle.as_ref()?.shim_address.as_ref().map(|socket| socket.address.clone())
    };
    let own = address(container);
    let started_for = |other: &&ObservedContainer| {
        other.id == shim.id && other.containerd_namespace == shim.containerd_namespace
    };
    own.is_some() && seen.containers.iter().filter(started_for).any(|other| address(other) == own)
}

fn daemon_node(plan: &Plan<'_>, index: usize) -> DaemonNode {
    let seed = &plan.seeds[index];
    let account = AccountIndex::new(&plan.seen.accounts, seed.address.as_deref());
    let shims: Vec<usize> = (0..plan.seen.shims.len())
        .filter(|shim| owner_of_shim(&plan.seeds, &plan.seen.shims[*shim]) == Some(index))
        .collect();
    let own_cgroup = seed.process.and_then(|daemon| daemon.cgroup.as_ref());
    let shim_cgroup = shims.iter().find_map(|shim| plan.seen.shims[*shim].cgroup.as_ref());
    let process = seed.process.map(|daemon| DaemonInfo {
        pid: daemon.pid,
        uptime_seconds: age(plan.seen, daemon.start_time),
        exe: daemon.exe.clone(),
        command_line: daemon.command_line.clone(),
        config: daemon.config.clone(),
        cgroup: daemon.cgroup.clone(),
        listens: seed.address.as_deref().and_then(|address| listens_on(daemon, address)),
    });
    let containerd_namespaces = namespace_nodes(plan, index, &shims, &account);
    let findings = daemon_findings(plan, index, &shims, &account);
    DaemonNode {
        address: seed.address.clone(),
        state_directory: seed.state_directory.clone(),
        process,
        unit: own_cgroup.or(shim_cgroup).and_then(unit_of_cgroup),
        api: account.summary(),
        containerd_namespaces,
        findings,
    }
}

fn daemon_findings(
    plan: &Plan<'_>,
    index: usize,
    shims: &[usize],
    account: &AccountIndex<'_>,
) -> Vec<Finding> {
    let seed = &plan.seeds[index];
    let on_host = |namespace: &ContainerdNamespace, id: &crate::name::ContainerId| {
        plan.containers_of(index).any(|container| {
            let container = &plan.seen.containers[container];
            container.containerd_namespace == *namespace && container.id == *id
        })
    };
    let mut findings = account.unseen_tasks(&on_host);
    let answered = matches!(account.summary(), ApiSummary::Answered { .. });
    if seed.process.is_none() && !answered && !plan.seen.table.is_empty() {
        let message = match shims.len() {
            0 => "not running; its bundles are still there".to_owned(),
            1 => "not running; its shim runs on".to_owned(),
            count => format!("not running; its {count} shims run on"),
        };
        findings.push(Finding { kind: FindingKind::DaemonNotRunning, message });
    }
    findings
}

fn namespace_nodes(
    plan: &Plan<'_>,
    daemon: usize,
    shims: &[usize],
    account: &AccountIndex<'_>,
) -> Vec<NamespaceNode> {
    let mut nodes: BTreeMap<ContainerdNamespace, NamespaceNode> = BTreeMap::new();
    fn entry<'m>(
        nodes: &'m mut BTreeMap<ContainerdNamespace, NamespaceNode>,
        name: &ContainerdNamespace,
    ) -> &'m mut NamespaceNode {
        nodes.entry(name.clone()).or_insert_with(|| NamespaceNode {
            name: name.clone(),
            shims: Vec::new(),
            orphans: Vec::new(),
            records_without_task: Vec::new(),
        })
    }
    for shim in shims {
        let name = &plan.seen.shims[*shim].containerd_namespace;
        entry(&mut nodes, name).shims.push(shim_node(plan, daemon, *shim, account));
    }
    for container in plan.containers_of(daemon).filter(|container| plan.shims[*container].is_none()) {
        let name = &plan.seen.containers[container].containerd_namespace;
        entry(&mut nodes, name).orphans.push(node_of_container(plan, container, None, account));
    }
    for name in account.namespaces() {
        let on_host = |id: &crate::name::ContainerId| {
            plan.seen.containers.iter().any(|known| known.containerd_namespace == *name && known.id == *id)
        };
        let records = account.records_without_task(name, &on_host);
        if !records.is_empty() || nodes.contains_key(name) {
            entry(&mut nodes, name).records_without_task = records;
        }
    }
    nodes.into_values().collect()
}

fn node_of_container(
    plan: &Plan<'_>,
    index: usize,
    shim: Option<Pid>,
    account: &AccountIndex<'_>,
) -> ContainerNode {
    let container = &plan.seen.containers[index];
    container_node(&ContainerContext {
        seen: plan.seen,
        placement: &plan.placement,
        fates: &plan.fates,
        index,
        shim,
        account: account.get(&container.containerd_namespace, &container.id),
    })
}

fn shim_node(plan: &Plan<'_>, daemon: usize, index: usize, account: &AccountIndex<'_>) -> ShimNode {
    let shim = &plan.seen.shims[index];
    let served: Vec<usize> =
        (0..plan.shims.len()).filter(|served| plan.shims[*served] == Some(index)).collect();
    let observed: Vec<&ObservedContainer> =
        served.iter().map(|served| &plan.seen.containers[*served]).collect();
    let mut containers: Vec<ContainerNode> =
        served.iter().map(|container| node_of_container(plan, *container, Some(shim.pid), account)).collect();
    // The one that the shim was started for is the pod's sandbox.
    containers
        .sort_by_key(|container| (container.id != shim.id, container.name.clone(), container.id.clone()));
    let mut findings = Vec::new();
    if !observed.iter().any(|container| container.bundle.is_some()) && plan.seen.bundles_seen {
        let message = "no bundle is there for this shim".to_owned();
        findings.push(Finding { kind: FindingKind::ShimWithoutBundle, message });
    }
    let first = shim.command_line.split(' ').next().unwrap_or_default();
    ShimNode {
        pid: shim.pid,
        uptime_seconds: age(plan.seen, shim.start_time),
        binary: shim.exe.clone().or_else(|| Some(first.into())),
        id: shim.id.clone(),
        command_line: shim.command_line.clone(),
        kernel_parent: shim.kernel_parent,
        kernel_parent_name: plan.seen.table.get(shim.kernel_parent).map(crate::process::Stat::name),
        cgroup: shim.cgroup.clone(),
        address: observed.iter().find_map(|container| {
            container.bundle.as_ref()?.shim_address.as_ref().map(|socket| socket.address.clone())
        }),
        ownership: prove_ownership(&plan.seeds[daemon], shim, &observed),
        helpers: plan.placement.helpers(plan.seen, shim.pid),
        containers,
        findings,
    }
}

impl Plan<'_> {
    fn containers_of(&self, daemon: usize) -> impl Iterator<Item = usize> {
        let daemons = &self.daemons;
        (0..daemons.len()).filter(move |container| daemons[*container] == Some(daemon))
    }
}
