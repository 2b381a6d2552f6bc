//! From what a user typed (a container, a cgroup's path, a pid) to a cgroup and the spec's resources for it.

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::Host;
use crate::bundle::{
    Bundle, LocateError, locate_bundle_of_cgroup, locate_bundle_of_pid, read_spec_excerpt, spec_cgroup_path,
};
use crate::cgroup::{
    CgroupLocation, Membership, cgroup_directory, read_cgroup_path, read_memberships, read_present_text,
};
use crate::escape::quote;
use crate::name::{CgroupPath, ContainerId, ContainerdNamespace, Pid};
use crate::node::{Node, NodeError};
use crate::process::{ProcessError, read_stat};
use crate::runtime_state::read_runtime_state;

/// Where hierarchies are mounted: a path that was copied from there is taken as well.
const MOUNT: &str = "/sys/fs/cgroup/";

/// Limits of cgroup v2 and their values in a cgroup that nobody limits (cgroup-v2.rst).
const DEFAULTS: [(&str, &str); 5] = [
    ("memory.max", "max"),
    ("memory.low", "0"),
    ("memory.swap.max", "max"),
    ("cpu.weight", "100"),
    ("cpu.max", "max 100000"),
];

/// A container, as its bundle names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerName {
    /// Its containerd namespace.
    pub containerd_namespace: ContainerdNamespace,
    /// Its id.
    pub id: ContainerId,
}

/// A cgroup that was asked for.
#[derive(Debug, Clone)]
pub struct CgroupSubject {
    /// The container that it is of; a cgroup of the host's own has none.
    pub container: Option<ContainerName>,
    /// The bundle of that container.
    pub bundle: Option<Bundle>,
    /// Where its files are.
    pub location: CgroupLocation,
    /// The spec's `linux.resources`.
    pub resources: Option<Value>,
}

/// Why there is no cgroup to show.
#[derive(Debug, Error)]
pub enum CgroupSubjectError {
    /// No such container, or several.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// `/proc` would not say.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A pid of nobody.
    #[error("cannot find process {pid}")]
    NoProcess {
        /// The pid.
        pid: Pid,
    },
    /// The container left no word of its cgroup.
    #[error(
        "cannot find the cgroup of container `{id}`: neither its process, its runtime's record nor its spec names one"
    )]
    Unknown {
        /// The container.
        id: ContainerId,
    },
    /// It was removed, as runtimes do when a container is deleted, or was never there.
    #[error("cannot find cgroup {}: it is not there (any more)", quote(path.as_str().as_bytes()))]
    Gone {
        /// The cgroup.
        path: CgroupPath,
    },
    /// No hierarchy is mounted.
    #[error("cannot find a cgroup hierarchy on this host")]
    NoHierarchy,
}

/// Finds the cgroup that `query` names: a path that begins with `/`, a container (see [`Node::locate`]), or a pid.
///
/// # Errors
/// [`CgroupSubjectError`] when there is none.
pub fn locate_cgroup(host: &Host, node: &mut Node, query: &str) -> Result<CgroupSubject, CgroupSubjectError> {
    if query.starts_with('/') {
        let path = CgroupPath::new(strip_mount(host, query));
        let bundle = locate_bundle_of_cgroup(host, &node.bundles, &path).ok().cloned();
        return subject(host, path, &[], bundle);
    }
    match node.locate(host, query) {
        Ok(bundle) => of_bundle(host, bundle),
        Err(NodeError::Locate(LocateError::NoMatch { .. }))
            if query.parse::<u32>().is_ok_and(|pid| pid > 0) =>
        {
            let pid = Pid::new(query.parse().unwrap_or_default());
            let memberships = read_memberships(host, pid)?.ok_or(CgroupSubjectError::NoProcess { pid })?;
            let path = read_cgroup_path(host, pid)?.ok_or(CgroupSubjectError::NoProcess { pid })?;
            let bundle = locate_bundle_of_pid(host, &node.processes, &node.bundles, pid).ok().cloned();
            subject(host, path, &memberships, bundle)
        }
        Err(error) => Err(error.into()),
    }
}

/// The cgroup of a bundle: its init process's while that runs, else what its runtime recorded, else what its spec says.
///
/// # Errors
/// [`CgroupSubjectError`] when there is none.
pub fn of_bundle(host: &Host, bundle: Bundle) -> Result<CgroupSubject, CgroupSubjectError> {
    let init = find_running_init(host, &bundle);
    let memberships = match init {
        Some(pid) => read_memberships(host, pid)?.unwrap_or_default(),
        None => Vec::new(),
    };
    let of_init = match init {
        Some(pid) => read_cgroup_path(host, pid)?,
        None => None,
    };
    let path = of_init
        .or_else(|| read_runtime_state(host, &bundle).ok().flatten().and_then(|state| state.cgroup))
        .or_else(|| cgroup_of_spec(host, &bundle))
        .ok_or_else(|| CgroupSubjectError::Unknown { id: bundle.id.clone() })?;
    subject(host, limits_cgroup(host, path), &memberships, Some(bundle))
}

/// The bundle's init process, when it runs: a pid is used again, and the runtime's record says when its process began.
#[must_use]
pub fn find_running_init(host: &Host, bundle: &Bundle) -> Option<Pid> {
    let pid = bundle.init_pid?;
    let start = read_runtime_state(host, bundle).ok().flatten().and_then(|state| state.init_start_time);
    let now = read_stat(host, pid).ok().flatten()?;
    (!now.state.has_ended() && start.is_none_or(|start| start == now.start_time)).then_some(pid)
}

fn cgroup_of_spec(host: &Host, bundle: &Bundle) -> Option<CgroupPath> {
    let excerpt = read_spec_excerpt(host, bundle).ok().flatten()?;
    let systemd_cgroup = bundle.options.as_ref().is_some_and(|options| options.systemd_cgroup);
    spec_cgroup_path(excerpt.cgroups_path.as_deref()?, systemd_cgroup)
}

/// crun with systemd's driver puts processes into `container` below the scope. The limits stand in the scope; crun 1.8 has
/// them in `container`, and leaves the scope with what it gets from systemd.
fn limits_cgroup(host: &Host, path: CgroupPath) -> CgroupPath {
    let scope = path.as_str().strip_suffix("/container").filter(|scope| scope.ends_with(".scope"));
    let Some(scope) = scope.map(CgroupPath::new) else { return path };
    let read = |cgroup: &CgroupPath, file: &str| {
        read_present_text(&cgroup_directory(host, cgroup).join(file)).ok().flatten()
    };
    let is_limited_below = |(file, default): &(&str, &str)| {
        let is_default = |text: String| text.trim() == *default;
        read(&path, file).is_some_and(|text| !is_default(text)) && read(&scope, file).is_some_and(is_default)
    };
    if DEFAULTS.iter().any(is_limited_below) { path } else { scope }
}

fn subject(
    host: &Host,
    path: CgroupPath,
    memberships: &[Membership],
    bundle: Option<Bundle>,
) -> Result<CgroupSubject, CgroupSubjectError> {
    // A membership tells where a hierarchy has the process, which may be below the cgroup that is asked for.
    let same: Vec<Membership> = memberships
        .iter()
        .filter(|membership| !membership.path.as_str().ends_with("/container"))
        .cloned()
        .collect();
    let location = CgroupLocation::find(host, &path, &same).ok_or(CgroupSubjectError::NoHierarchy)?;
    if !location.exists() {
        return Err(CgroupSubjectError::Gone { path });
    }
    let resources = bundle.as_ref().and_then(|bundle| read_resources(host, bundle));
    let container = bundle.as_ref().map(|bundle| ContainerName {
        containerd_namespace: bundle.containerd_namespace.clone(),
        id: bundle.id.clone(),
    });
    Ok(CgroupSubject { container, bundle, location, resources })
}

/// `linux.resources` of the bundle's config.json; a spec that cannot be read leaves the table without it.
fn read_resources(host: &Host, bundle: &Bundle) -> Option<Value> {
    let bytes = std::fs::read(host.resolve(&bundle.path).join("config.json")).ok()?;
    let mut spec: Value = serde_json::from_slice(&bytes).ok()?;
    spec.pointer_mut("/linux/resources").map(Value::take)
}

/// A directory that was copied from the mount: without the mount, and on a hybrid host without the hierarchy's name.
fn strip_mount(host: &Host, query: &str) -> String {
    let Some(inside) = query.strip_prefix(MOUNT) else { return query.to_owned() };
    let unified = host.sys().join("fs/cgroup/cgroup.controllers").exists();
    let inside = if unified { inside } else { inside.split_once('/').map_or("", |(_, rest)| rest) };
    format!("/{}", inside.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_path_is_found_with_and_without_its_mount() {
        let root = tempfile::tempdir().unwrap();
        let task = root.path().join("run/containerd/io.containerd.runtime.v2.task/default/web");
        fs::create_dir_all(&task).unwrap();
        let spec = r#"{"linux":{"cgroupsPath":"/default/web","resources":{"pids":{"limit":7}}}}"#;
        fs::write(task.join("config.json"), spec).unwrap();
        fs::create_dir_all(root.path().join("sys/fs/cgroup/default/web")).unwrap();
        fs::write(root.path().join("sys/fs/cgroup/cgroup.controllers"), "pids\n").unwrap();
        fs::create_dir_all(root.path().join("proc")).unwrap();
        let host = Host::at(root.path());
        let mut node = Node::read(&host).unwrap();
        for query in ["/default/web", "/sys/fs/cgroup/default/web/", "web", "default/web"] {
            let found = locate_cgroup(&host, &mut node, query).unwrap();
            assert_eq!(found.location.path.as_str(), "/default/web", "{query}");
            assert_eq!(found.container.map(|name| name.id.as_str().to_owned()).as_deref(), Some("web"));
            assert_eq!(found.resources.unwrap()["pids"]["limit"], 7);
        }
        let gone = locate_cgroup(&host, &mut node, "/default/gone").unwrap_err().to_string();
        assert!(gone.contains("not there"), "{gone}");
        assert!(matches!(locate_cgroup(&host, &mut node, "4711"), Err(CgroupSubjectError::NoProcess { .. })));
        assert!(matches!(locate_cgroup(&host, &mut node, "nobody"), Err(CgroupSubjectError::Node(_))));
    }

    #[test]
    fn limits_stand_in_the_scope_unless_they_are_only_below_it() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path());
        let limits = |path: &str| limits_cgroup(&host, CgroupPath::new(path)).as_str().to_owned();
        let inner = "/machine.slice/foo-a.scope/container";
        assert_eq!(limits(inner), "/machine.slice/foo-a.scope");
        assert_eq!(limits("/default/container"), "/default/container");
        let write = |scope: &str, container: &str| {
            let directory = root.path().join("sys/fs/cgroup/machine.slice/foo-a.scope");
            fs::create_dir_all(directory.join("container")).unwrap();
            fs::write(directory.join("memory.max"), scope).unwrap();
            fs::write(directory.join("container/memory.max"), container).unwrap();
        };
        write("67108864\n", "max\n");
        assert_eq!(limits(inner), "/machine.slice/foo-a.scope");
        write("67108864\n", "67108864\n");
        assert_eq!(limits(inner), "/machine.slice/foo-a.scope");
        write("max\n", "67108864\n");
        assert_eq!(limits(inner), inner);
    }
}
