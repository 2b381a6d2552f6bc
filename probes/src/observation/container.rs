//! What is on the host of one container.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Observation, said};
use crate::Host;
use crate::bundle::{Bundle, SpecExcerpt, cgroup_belongs_to, read_spec_excerpt, spec_cgroup_path};
use crate::cgroup::{
    CgroupLocation, Limit, cgroup_directory, child_cgroups, read_cgroup_path, read_cgroup_procs,
    read_cgroup_value, read_flat_keyed, read_limit,
};
use crate::killed::{oom_finding, read_levels};
use crate::name::{CgroupPath, ContainerId, ContainerdNamespace, Pid};
use crate::process::{ProcessTable, read_stat};
use crate::runtime_state::{RuntimeState, read_runtime_state, runtime_state_directory};

/// A container may run a systemd with cgroups of its own; more than this many are its own business.
const MOST_CGROUPS: usize = 4096;

/// A container as its files and its cgroup show it.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedContainer {
    /// Its containerd namespace.
    pub containerd_namespace: ContainerdNamespace,
    /// Its id.
    pub id: ContainerId,
    /// Its bundle; `None` when it is only known from a shim's children.
    pub bundle: Option<Bundle>,
    /// Parts of its spec.
    pub excerpt: Option<SpecExcerpt>,
    /// Its runtime's record.
    pub state: Option<RuntimeState>,
    /// Whether the runtime's `exec.fifo` is there: created, and waiting for `start`.
    pub awaits_start: bool,
    /// Its cgroup.
    pub cgroup: Option<ObservedCgroup>,
    /// When the process with the recorded init's pid started, read after the record: a container that is younger than
    /// the process table is no dead one.
    pub init_start_time: Option<u64>,
}

/// A container's cgroup.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedCgroup {
    /// Its path.
    pub path: CgroupPath,
    /// Every process in it and below it, with the very cgroup that it is in.
    pub members: Vec<(Pid, CgroupPath)>,
    /// `frozen` of `cgroup.events`.
    pub frozen: Option<bool>,
    /// `memory.current`, in bytes.
    pub memory_current: Option<u64>,
    /// `memory.max`, in bytes.
    pub memory_max: Option<Limit>,
    /// What the OOM killer did in it, in a sentence; `None` when nothing.
    pub oom: Option<String>,
}

impl ObservedContainer {
    /// The recorded init: the runtime's record, which has a start time too, before the bundle's.
    #[must_use]
    pub fn init_pid(&self) -> Option<Pid> {
        let recorded = self.state.as_ref().and_then(|state| state.init_pid);
        recorded.or_else(|| self.bundle.as_ref().and_then(|bundle| bundle.init_pid))
    }

    /// The path of its cgroup, where it has one.
    #[must_use]
    pub fn cgroup_path(&self) -> Option<&CgroupPath> {
        self.cgroup.as_ref().map(|cgroup| &cgroup.path)
    }
}

pub(super) fn observe_bundle(
    host: &Host,
    table: &ProcessTable,
    bundle: Bundle,
    unseen: &mut BTreeSet<String>,
) -> ObservedContainer {
    let excerpt = read_spec_excerpt(host, &bundle).unwrap_or_else(|error| {
        unseen.insert(said(&error));
        None
    });
    let state = read_runtime_state(host, &bundle).unwrap_or_else(|error| {
        unseen.insert(said(&error));
        None
    });
    let fifo = runtime_state_directory(&bundle).join("exec.fifo");
    let mut container = ObservedContainer {
        containerd_namespace: bundle.containerd_namespace.clone(),
        id: bundle.id.clone(),
        awaits_start: host.resolve(&fifo).exists(),
        bundle: Some(bundle),
        excerpt,
        state,
        cgroup: None,
        init_start_time: None,
    };
    container.init_start_time = container.init_pid().and_then(|pid| start_time(host, table, pid));
    container.cgroup = container_cgroup(host, &container).and_then(|path| observe_cgroup(host, path));
    container
}

fn start_time(host: &Host, table: &ProcessTable, pid: Pid) -> Option<u64> {
    let known = table.get(pid).map(|stat| stat.start_time);
    known.or_else(|| read_stat(host, pid).ok().flatten().map(|stat| stat.start_time))
}

/// The outermost cgroup that is the container's: crun's record names `container` below the scope that has the limits.
fn container_cgroup(host: &Host, container: &ObservedContainer) -> Option<CgroupPath> {
    let bundle = container.bundle.as_ref()?;
    let systemd_cgroup = bundle.options.as_ref().is_some_and(|options| options.systemd_cgroup);
    let asked = container.excerpt.as_ref().and_then(|excerpt| excerpt.cgroups_path.as_deref());
    let asked = asked.and_then(|path| spec_cgroup_path(path, systemd_cgroup));
    let recorded = container.state.as_ref().and_then(|state| state.cgroup.clone());
    let exists = |path: &CgroupPath| cgroup_directory(host, path).is_dir();
    if let Some(path) = [asked, recorded].into_iter().flatten().find(exists) {
        return Some(path);
    }
    let actual = read_cgroup_path(host, container.init_pid()?).ok().flatten()?;
    cgroup_belongs_to(&actual, &container.id).then(|| container_part(&actual, &container.id))
}

/// The part of a path up to the component that names the container.
fn container_part(path: &CgroupPath, id: &ContainerId) -> CgroupPath {
    let mut part = String::new();
    for component in path.as_str().split('/').skip(1) {
        part.push('/');
        part.push_str(component);
        if cgroup_belongs_to(&CgroupPath::new(component), id) {
            break;
        }
    }
    CgroupPath::new(part)
}

/// Reads a cgroup and the memberships below it; `None` where there is no such cgroup.
fn observe_cgroup(host: &Host, path: CgroupPath) -> Option<ObservedCgroup> {
    let directory = cgroup_directory(host, &path);
    let events = read_flat_keyed(&directory.join("cgroup.events")).ok().flatten();
    let members = read_members(host, &path);
    (directory.is_dir()).then(|| ObservedCgroup {
        members,
        frozen: events.and_then(|events| events.get("frozen").map(|value| *value != 0)),
        memory_current: read_cgroup_value(&directory.join("memory.current")).ok().flatten(),
        memory_max: read_limit(&directory.join("memory.max")).ok().flatten(),
        oom: CgroupLocation::find(host, &path, &[])
            .and_then(|location| read_levels(&location).ok())
            .and_then(|levels| oom_finding(&levels)),
        path,
    })
}

/// Every process in the cgroup and below it.
pub(super) fn read_members(host: &Host, path: &CgroupPath) -> Vec<(Pid, CgroupPath)> {
    let mut members = Vec::new();
    let mut waiting = vec![path.clone()];
    let mut visited = 0;
    while let Some(cgroup) = waiting.pop() {
        visited += 1;
        let pids = read_cgroup_procs(host, &cgroup).ok().flatten().unwrap_or_default();
        members.extend(pids.into_iter().filter(|pid| pid.get() != 0).map(|pid| (pid, cgroup.clone())));
        if visited < MOST_CGROUPS {
            waiting.extend(child_cgroups(host, &cgroup).unwrap_or_default());
        }
    }
    members
}

/// Containers that no bundle tells of: cgroups of shims' children that are neither the shim's own nor a known
/// container's. That is what is left without the right to read bundles, or after they were removed.
pub(super) fn observe_unrecorded(host: &Host, seen: &Observation) -> Vec<ObservedContainer> {
    let known: Vec<&CgroupPath> = seen.containers.iter().filter_map(ObservedContainer::cgroup_path).collect();
    let cgroups = seen.containers.iter().filter_map(|container| container.cgroup.as_ref());
    let members = cgroups.flat_map(|cgroup| cgroup.members.iter().map(|(pid, _)| *pid));
    let recorded: HashSet<Pid> =
        seen.containers.iter().filter_map(ObservedContainer::init_pid).chain(members).collect();
    let mut found: BTreeMap<CgroupPath, ObservedContainer> = BTreeMap::new();
    for shim in &seen.shims {
        for child in seen.table.children(shim.pid).filter(|child| !recorded.contains(&child.pid)) {
            let cgroup = read_cgroup_path(host, child.pid).ok().flatten();
            let Some(cgroup) =
                cgroup.filter(|path| path.as_str() != "/" && Some(path) != shim.cgroup.as_ref())
            else {
                continue;
            };
            if known.iter().any(|path| is_at_or_below(&cgroup, path)) {
                continue;
            }
            let id = container_id_of_cgroup(&cgroup, &shim.id);
            let path = container_part(&cgroup, &id);
            found.entry(path.clone()).or_insert_with(|| ObservedContainer {
                containerd_namespace: shim.containerd_namespace.clone(),
                bundle: None,
                excerpt: None,
                state: None,
                awaits_start: false,
                cgroup: observe_cgroup(host, path),
                init_start_time: Some(child.start_time),
                id,
            });
        }
    }
    found.into_values().collect()
}

/// Whether `path` is `parent` or below it.
pub(crate) fn is_at_or_below(path: &CgroupPath, parent: &CgroupPath) -> bool {
    let parent = parent.as_str().trim_end_matches('/');
    path.as_str().strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The id in a cgroup's path: the shim's own, or what stands in the scope's name, or the last component.
fn container_id_of_cgroup(path: &CgroupPath, shim: &ContainerId) -> ContainerId {
    if cgroup_belongs_to(path, shim) {
        return shim.clone();
    }
    let components = || path.as_str().split('/').filter(|component| !component.is_empty());
    let scope = components().rev().find_map(|component| component.strip_suffix(".scope"));
    let name =
        scope.map(|scope| scope.rsplit('-').next().unwrap_or(scope)).or_else(|| components().next_back());
    ContainerId::new(name.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_off_a_cgroup() {
        let id = |path: &str| container_id_of_cgroup(&CgroupPath::new(path), &ContainerId::new("pod"));
        assert_eq!(id("/kubepods/pod/init").as_str(), "pod");
        assert_eq!(id("/kubepods.slice/cri-containerd-4f1c.scope/container").as_str(), "4f1c");
        assert_eq!(id("/kubepods/4f1c").as_str(), "4f1c");
    }

    #[test]
    fn the_containers_part_of_a_path_ends_with_its_name() {
        let part = |path: &str| container_part(&CgroupPath::new(path), &ContainerId::new("web"));
        assert_eq!(part("/a/foo-web.scope/container"), CgroupPath::new("/a/foo-web.scope"));
        assert_eq!(part("/a/b"), CgroupPath::new("/a/b"));
    }

    #[test]
    fn below_is_by_whole_components() {
        let below = |path: &str| is_at_or_below(&CgroupPath::new(path), &CgroupPath::new("/default/web"));
        assert!(below("/default/web") && below("/default/web/x"));
        assert!(!below("/default/web2") && !below("/default"));
    }
}
