//! One look at a host: everything that the task tree is made of, read once and kept as values.

mod container;
mod details;
mod engine;
mod stray;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use container::is_at_or_below;
pub use container::{ObservedCgroup, ObservedContainer};
pub use details::ProcessDetails;
pub use engine::OtherEngine;
pub use stray::StrayCgroup;

use crate::Host;
use crate::bundle::{StateDirectory, find_bundles, find_state_directories};
use crate::cgroup::{CgroupMode, read_cgroup_mode};
use crate::containerd::{DaemonAccount, DaemonProcess, ShimProcess, find_daemons, find_shims, read_accounts};
use crate::name::Pid;
use crate::process::{
    LinuxNamespace, NamespaceId, ProcessError, ProcessTable, UserNames, read_boot_id, read_namespace,
    read_namespaces, read_uptime,
};

/// What was seen of a host.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// Time since boot.
    pub uptime: Option<Duration>,
    /// Which boot.
    pub boot_id: Option<String>,
    /// How cgroups are mounted.
    pub cgroup_mode: Option<CgroupMode>,
    /// Every process.
    pub table: ProcessTable,
    /// Running daemons.
    pub daemons: Vec<DaemonProcess>,
    /// Running shims.
    pub shims: Vec<ShimProcess>,
    /// Where daemons keep their tasks' state.
    pub state_directories: Vec<StateDirectory>,
    /// Whether every directory of bundles could be listed.
    pub bundles_seen: bool,
    /// Containers: one for each bundle, and one for each cgroup of a shim's children that no bundle explains.
    pub containers: Vec<ObservedContainer>,
    /// Details of the processes that shims and inits have below them, and of those in containers' cgroups.
    pub details: HashMap<Pid, ProcessDetails>,
    /// The Linux namespaces of PID 1 and of every recorded init that lives; of shims' children at least `pid`.
    pub namespaces: HashMap<Pid, BTreeMap<LinuxNamespace, NamespaceId>>,
    /// The host's user names.
    pub users: UserNames,
    /// What daemons say, by address.
    pub accounts: Vec<DaemonAccount>,
    /// Cgroups that look like containers' and have no container.
    pub stray_cgroups: Vec<StrayCgroup>,
    /// Containers of other engines.
    pub other_engines: Vec<OtherEngine>,
    /// What could not be looked at.
    pub not_seen: Vec<String>,
}

/// Looks at the host. `ask` bounds each call to a daemon; `None` asks none.
///
/// # Errors
/// [`ProcessError`] when the processes cannot be listed. All else that cannot be read is said in
/// [`Observation::not_seen`].
pub fn observe(host: &Host, ask: Option<Duration>) -> Result<Observation, ProcessError> {
    let mut seen = Observation {
        uptime: read_uptime(host).ok().flatten(),
        boot_id: read_boot_id(host).ok().flatten(),
        cgroup_mode: read_cgroup_mode(host),
        table: ProcessTable::read(host)?,
        ..Observation::default()
    };
    seen.users = UserNames::read(host).unwrap_or_else(|error| {
        seen.not_seen.push(said(&error));
        UserNames::default()
    });
    seen.daemons = find_daemons(host, &seen.table);
    seen.shims = find_shims(host, &seen.table);
    observe_containers(host, &mut seen);
    observe_processes(host, &mut seen);
    seen.stray_cgroups = stray::find_stray_cgroups(host, &seen);
    if !seen.bundles_seen {
        // An empty one may be a stopped container's.
        seen.stray_cgroups.retain(|stray| !stray.pids.is_empty());
    }
    seen.other_engines = engine::find_other_engines(host, &seen.table);
    if let Some(limit) = ask {
        seen.accounts = read_accounts(host, &addresses(&seen), limit);
    }
    if seen.table.is_empty() {
        seen.not_seen.push("this host shows no processes: what runs is not known".to_owned());
    }
    Ok(seen)
}

/// An error and its cause as one sentence of what was not seen.
fn said(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// The sockets that daemons serve and shims report to.
fn addresses(seen: &Observation) -> Vec<PathBuf> {
    let daemons = seen.daemons.iter().map(|daemon| daemon.address.clone());
    let shims = seen.shims.iter().filter_map(|shim| shim.address.clone());
    daemons.chain(shims).collect::<BTreeSet<_>>().into_iter().collect()
}

fn observe_containers(host: &Host, seen: &mut Observation) {
    seen.state_directories = find_state_directories(host, &seen.daemons, &seen.shims);
    let search = find_bundles(host, &seen.state_directories);
    seen.bundles_seen = search.unreadable.is_empty();
    seen.not_seen.extend(search.unreadable.iter().map(|error| said(error)));
    let mut unseen = BTreeSet::new();
    for bundle in search.bundles {
        seen.containers.push(container::observe_bundle(host, &seen.table, bundle, &mut unseen));
    }
    seen.not_seen.extend(unseen);
    let unknown = container::observe_unrecorded(host, seen);
    seen.containers.extend(unknown);
}

fn observe_processes(host: &Host, seen: &mut Observation) {
    let mut cgroups = HashMap::new();
    for cgroup in seen.containers.iter().filter_map(|container| container.cgroup.as_ref()) {
        cgroups.extend(cgroup.members.iter().cloned());
    }
    let mut roots: Vec<Pid> = seen.containers.iter().filter_map(ObservedContainer::init_pid).collect();
    roots.extend(seen.shims.iter().map(|shim| shim.pid));
    let mut pids: BTreeSet<Pid> = cgroups.keys().copied().collect();
    for root in roots {
        descend(&seen.table, root, &mut pids);
    }
    for shim in &seen.shims {
        pids.remove(&shim.pid);
    }
    let pids: Vec<Pid> = pids.into_iter().collect();
    seen.details = details::read_details(host, &pids, &cgroups);
    observe_namespaces(host, seen);
}

/// Adds `root` and all that is below it, without recursion: a fork bomb makes deep trees.
fn descend(table: &ProcessTable, root: Pid, pids: &mut BTreeSet<Pid>) {
    let mut waiting = vec![root];
    while let Some(pid) = waiting.pop() {
        if pids.insert(pid) {
            waiting.extend(table.children(pid).map(|child| child.pid));
        }
    }
}

/// An init's namespaces are all compared with the host's; of the shims' other children only the pid namespace matters,
/// and a shim may have adopted thousands.
fn observe_namespaces(host: &Host, seen: &mut Observation) {
    let inits = seen.containers.iter().filter_map(ObservedContainer::init_pid);
    let whole: BTreeSet<Pid> = std::iter::once(Pid::INIT).chain(inits).collect();
    let children = seen.shims.iter().flat_map(|shim| seen.table.children(shim.pid)).map(|child| child.pid);
    let children: BTreeSet<Pid> = children.filter(|pid| !whole.contains(pid)).collect();
    let pid_namespace = |pid: Pid| {
        let id = read_namespace(host, pid, LinuxNamespace::Pid)?;
        Ok(id.map(|id| (LinuxNamespace::Pid, id)).into_iter().collect::<BTreeMap<_, _>>())
    };
    let read = whole.iter().map(|pid| (*pid, read_namespaces(host, *pid)));
    let read: Vec<_> = read.chain(children.iter().map(|pid| (*pid, pid_namespace(*pid)))).collect();
    let mut denied = false;
    for (pid, namespaces) in read {
        match namespaces {
            Ok(namespaces) if namespaces.is_empty() => {}
            Ok(namespaces) => {
                seen.namespaces.insert(pid, namespaces);
            }
            Err(error) => denied |= error.is_permission_denied(),
        }
    }
    if denied {
        seen.not_seen.push(
            "without the right to trace other users' processes: executables, sockets and Linux namespaces"
                .to_owned(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_nothing_on_it_is_observed() {
        let root = tempfile::tempdir().unwrap();
        let seen = observe(&Host::at(root.path()), Some(Duration::from_secs(1))).unwrap();
        assert!(seen.containers.is_empty() && seen.accounts.is_empty() && seen.shims.is_empty());
        assert_eq!(seen.not_seen.len(), 1, "{:?}", seen.not_seen);
    }

    #[test]
    fn this_machine_is_observed() {
        let seen = observe(&Host::live(), None).unwrap();
        assert!(seen.table.get(Pid::INIT).is_some());
        assert!(seen.uptime.is_some());
    }
}
