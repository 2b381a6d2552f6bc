//! Where a cgroup's files are: one directory in cgroup v2, one per controller in v1.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::file::{CgroupFileError, read_present_text};
use super::membership::{CgroupMode, Membership, read_cgroup_mode};
use crate::Host;
use crate::name::CgroupPath;

/// The controllers that are looked for on a host with v1 hierarchies; each may be mounted with others (`cpu,cpuacct`).
const LEGACY_CONTROLLERS: [&str; 9] =
    ["memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "hugetlb", "rdma", "misc"];

/// A cgroup and its directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupLocation {
    /// How the host mounts its hierarchies.
    pub mode: CgroupMode,
    /// The cgroup.
    pub path: CgroupPath,
    unified: PathBuf,
    legacy: BTreeMap<&'static str, PathBuf>,
}

/// A hierarchy, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hierarchy {
    /// The controller, or `unified`.
    pub controller: &'static str,
    /// The cgroup's directory in it, as the host names it.
    pub directory: PathBuf,
}

impl CgroupLocation {
    /// The cgroup `path` in every hierarchy; `memberships` (of a process in it) say where a v1 hierarchy has another path.
    /// `None` on a host without cgroups.
    #[must_use]
    pub fn find(host: &Host, path: &CgroupPath, memberships: &[Membership]) -> Option<Self> {
        let mode = read_cgroup_mode(host)?;
        let root = host.sys().join("fs/cgroup");
        let (unified, legacy) = match mode {
            CgroupMode::Unified => (below(&root, path), BTreeMap::new()),
            CgroupMode::Hybrid | CgroupMode::Legacy => {
                let unified = memberships.iter().find(|membership| membership.hierarchy == 0);
                let unified_path = unified.map_or(path, |membership| &membership.path);
                let of = |controller: &'static str| {
                    let named = |membership: &&Membership| {
                        membership.controllers.iter().any(|name| name == controller)
                    };
                    let path = memberships.iter().find(named).map_or(path, |membership| &membership.path);
                    (controller, below(&root.join(controller), path))
                };
                let legacy =
                    LEGACY_CONTROLLERS.into_iter().map(of).filter(|(_, directory)| directory.is_dir());
                (below(&root.join("unified"), unified_path), legacy.collect())
            }
        };
        Some(Self { mode, path: path.clone(), unified, legacy })
    }

    /// The directory that has a controller's files (`memory` of `memory.max`).
    #[must_use]
    pub fn directory(&self, controller: &str) -> Option<&Path> {
        match self.mode {
            CgroupMode::Unified => Some(&self.unified),
            CgroupMode::Hybrid | CgroupMode::Legacy => self.legacy.get(controller).map(PathBuf::as_path),
        }
    }

    /// Whether limits are in cgroup v2's files.
    #[must_use]
    pub fn is_unified(&self) -> bool {
        self.mode == CgroupMode::Unified
    }

    /// Whether the cgroup is there, in any hierarchy.
    #[must_use]
    pub fn exists(&self) -> bool {
        match self.mode {
            CgroupMode::Unified => self.unified.is_dir(),
            CgroupMode::Hybrid | CgroupMode::Legacy => !self.legacy.is_empty() || self.unified.is_dir(),
        }
    }

    /// A file's text without its last newline; the controller is the name's first part. `None` where there is no such file.
    ///
    /// # Errors
    /// [`CgroupFileError`] when the kernel refuses.
    pub fn read(&self, file: &str) -> Result<Option<String>, CgroupFileError> {
        let controller = file.split('.').next().unwrap_or_default();
        let directory = if controller == "cgroup" {
            Some(self.unified.as_path()).filter(|path| path.is_dir()).or(self
                .legacy
                .values()
                .next()
                .map(PathBuf::as_path))
        } else {
            self.directory(controller)
        };
        let Some(directory) = directory else { return Ok(None) };
        Ok(read_present_text(&directory.join(file))?.map(|text| text.trim_end_matches('\n').to_owned()))
    }

    /// The directories, for people and programs.
    #[must_use]
    pub fn hierarchies(&self, host: &Host) -> Vec<Hierarchy> {
        let shown =
            |controller, directory: &Path| Hierarchy { controller, directory: host.display_path(directory) };
        let unified = self.unified.is_dir().then(|| shown("unified", &self.unified));
        unified.into_iter().chain(self.legacy.iter().map(|(name, path)| shown(name, path))).collect()
    }

    /// The same cgroup's parent; `None` at the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let path = self.path.as_str().trim_end_matches('/');
        let cut = path.rfind('/')?;
        let parent = if cut == 0 { "/" } else { &path[..cut] };
        let up = |directory: &Path| directory.parent().map(Path::to_path_buf);
        Some(Self {
            mode: self.mode,
            path: CgroupPath::new(parent),
            unified: up(&self.unified)?,
            legacy: self.legacy.iter().filter_map(|(name, path)| Some((*name, up(path)?))).collect(),
        })
    }
}

/// A `..` (a process outside of our cgroup namespace) never climbs out.
fn below(mount: &Path, path: &CgroupPath) -> PathBuf {
    let mut directory = mount.to_path_buf();
    directory.extend(path.as_str().split('/').filter(|name| !matches!(*name, "" | "." | "..")));
    directory
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cgroup::parse_memberships;

    #[test]
    fn a_v1_host_has_a_directory_per_controller() {
        let root = tempfile::tempdir().unwrap();
        let cgroups = root.path().join("sys/fs/cgroup");
        for directory in ["memory/a/b", "pids/a/b", "cpu/other", "unified", "systemd"] {
            fs::create_dir_all(cgroups.join(directory)).unwrap();
        }
        fs::write(cgroups.join("unified/cgroup.procs"), "").unwrap();
        fs::write(cgroups.join("memory/a/b/memory.limit_in_bytes"), "9\n").unwrap();
        fs::write(cgroups.join("memory/a/memory.limit_in_bytes"), "5\n").unwrap();
        let host = Host::at(root.path());
        let memberships = parse_memberships(b"2:cpu:/other\n1:memory:/a/b\n0::/\n");
        let location = CgroupLocation::find(&host, &CgroupPath::new("/a/b"), &memberships).unwrap();
        assert_eq!(location.mode, CgroupMode::Hybrid);
        assert_eq!(location.read("memory.limit_in_bytes").unwrap().as_deref(), Some("9"));
        assert_eq!(location.read("memory.max").unwrap(), None);
        assert!(location.directory("cpu").unwrap().ends_with("cpu/other"));
        assert!(location.directory("rdma").is_none() && location.exists());
        let parent = location.parent().unwrap();
        assert_eq!(
            (parent.path.as_str(), parent.read("memory.limit_in_bytes").unwrap().as_deref()),
            ("/a", Some("5"))
        );
        assert_eq!(parent.parent().and_then(|root| root.parent()), None);
    }
}
