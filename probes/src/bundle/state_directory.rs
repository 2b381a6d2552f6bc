//! Where containerd daemons keep the state of their tasks, and the bundles that are there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::files::{Bundle, BundleError, read_bundle};
use crate::Host;
use crate::containerd::{DEFAULT_STATE, DaemonProcess, ShimProcess, TASK_DIRECTORY};
use crate::name::{ContainerId, ContainerdNamespace};

/// State directories of the usual installations: containerd's own, Docker's managed daemon, k3s and rke2, k0s, microk8s.
const USUAL: [&str; 5] = [
    DEFAULT_STATE,
    "/run/docker/containerd/daemon",
    "/run/k3s/containerd",
    "/run/k0s/containerd",
    "/var/snap/microk8s/common/run/containerd",
];

/// A directory that a daemon keeps its tasks' state in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateDirectory {
    /// As the host names it.
    pub path: PathBuf,
    /// How it is known.
    pub source: StateSource,
}

/// How a state directory is known; the strongest that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateSource {
    /// A running daemon names it, by flag, config or built-in default.
    Daemon,
    /// A running shim works in a bundle below it.
    Shim,
    /// It is where an installation usually has it, and holds tasks.
    Usual,
}

/// The bundles of a host.
#[derive(Debug, Default)]
pub struct BundleSearch {
    /// Sorted by state directory, containerd namespace and id.
    pub bundles: Vec<Bundle>,
    /// What could not be looked into.
    pub unreadable: Vec<BundleError>,
}

/// Every state directory: those that daemons name, those that shims work in, and the usual ones that hold tasks.
#[must_use]
pub fn find_state_directories(
    host: &Host,
    daemons: &[DaemonProcess],
    shims: &[ShimProcess],
) -> Vec<StateDirectory> {
    let mut found: BTreeMap<PathBuf, StateSource> = BTreeMap::new();
    let usual = USUAL.iter().filter(|path| host.resolve(Path::new(path)).join(TASK_DIRECTORY).exists());
    let named = daemons
        .iter()
        .map(|daemon| (daemon.state.as_path(), StateSource::Daemon))
        .chain(shims.iter().filter_map(|shim| Some((shim.state_directory()?, StateSource::Shim))))
        .chain(usual.map(|path| (Path::new(*path), StateSource::Usual)));
    for (path, source) in named {
        found.entry(canonical(path)).and_modify(|known| *known = source.min(*known)).or_insert(source);
    }
    found.into_iter().map(|(path, source)| StateDirectory { path, source }).collect()
}

/// `/var/run` is a link to `/run` on every systemd host, and configs still say the former.
fn canonical(path: &Path) -> PathBuf {
    path.strip_prefix("/var/run").map_or_else(|_| path.to_path_buf(), |rest| Path::new("/run").join(rest))
}

/// Reads every bundle below the state directories.
#[must_use]
pub fn find_bundles(host: &Host, directories: &[StateDirectory]) -> BundleSearch {
    let mut search = BundleSearch::default();
    for directory in directories {
        let tasks = directory.path.join(TASK_DIRECTORY);
        for namespace in list(host, &tasks, &mut search.unreadable) {
            let below = tasks.join(&namespace);
            for id in list(host, &below, &mut search.unreadable) {
                let path = below.join(&id);
                let name = ContainerdNamespace::new(namespace.clone());
                search.bundles.push(read_bundle(host, &directory.path, name, ContainerId::new(id), path));
            }
        }
    }
    search
}

/// The directories in `path`, sorted. containerd renames a bundle that it removes to `.ID`: those are left out.
fn list(host: &Host, path: &Path, unreadable: &mut Vec<BundleError>) -> Vec<String> {
    let entries = match fs::read_dir(host.resolve(path)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(source) => {
            unreadable.push(BundleError::List { path: path.to_path_buf(), source });
            return Vec::new();
        }
    };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<_> = directories
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_directories_with_tasks_are_found_and_removed_bundles_are_not() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path());
        let tasks = root.path().join("run/containerd").join(TASK_DIRECTORY);
        fs::create_dir_all(tasks.join("default/web")).unwrap();
        fs::create_dir_all(tasks.join("default/.gone")).unwrap();
        fs::create_dir_all(tasks.join("k8s.io/pod")).unwrap();
        fs::create_dir_all(root.path().join("run/k3s/containerd")).unwrap();
        let directories = find_state_directories(&host, &[], &[]);
        assert_eq!(directories.len(), 1);
        assert_eq!(directories[0].source, StateSource::Usual);
        let search = find_bundles(&host, &directories);
        let ids: Vec<_> = search.bundles.iter().map(|bundle| bundle.id.as_str()).collect();
        assert_eq!(ids, ["web", "pod"]);
        assert!(search.unreadable.is_empty());
    }

    #[test]
    fn var_run_is_run() {
        assert_eq!(canonical(Path::new("/var/run/docker/x")), Path::new("/run/docker/x"));
        assert_eq!(canonical(Path::new("/var/lib/x")), Path::new("/var/lib/x"));
    }
}
