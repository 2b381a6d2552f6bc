//! Cgroups that look like a container's and belong to none: left behind, or holding processes that lost their container.

use std::collections::{BTreeSet, HashSet};

use serde::Serialize;

use super::Observation;
use super::container::{ObservedContainer, read_members};
use crate::Host;
use crate::cgroup::child_cgroups;
use crate::name::{CgroupPath, Pid};

/// Scopes that only containerd's clients make: `PREFIX-ID.scope`.
const SCOPE_PREFIXES: [&str; 3] = ["cri-containerd-", "docker-", "nerdctl-"];
/// Namespaces that containerd's usual clients use; with the cgroupfs driver a container is `/NAMESPACE/ID`.
const USUAL_NAMESPACES: [&str; 4] = ["default", "k8s.io", "moby", "buildkit"];
/// How deep slices are looked into.
const DEEPEST: usize = 6;

/// A cgroup that looks like a container's and belongs to none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StrayCgroup {
    /// Its path.
    pub cgroup: CgroupPath,
    /// The processes in it and below it; none when it was only left behind.
    pub pids: Vec<Pid>,
}

pub(super) fn find_stray_cgroups(host: &Host, seen: &Observation) -> Vec<StrayCgroup> {
    let parents = parents_of_containers(seen);
    let known = Known::new(seen);
    let mut found = Vec::new();
    let mut waiting = vec![(CgroupPath::new("/"), 0)];
    while let Some((parent, depth)) = waiting.pop() {
        for cgroup in child_cgroups(host, &parent).unwrap_or_default() {
            if known.has(&cgroup) {
                continue;
            }
            if parents.contains(&parent) || is_container_scope(&cgroup) {
                let pids = read_members(host, &cgroup).into_iter().map(|(pid, _)| pid).collect();
                found.push(StrayCgroup { cgroup, pids });
            } else if depth < DEEPEST && may_hold_containers(&cgroup, &parents) {
                waiting.push((cgroup, depth + 1));
            }
        }
    }
    found.sort_by(|one, other| one.cgroup.cmp(&other.cgroup));
    found
}

/// The cgroups whose children are containers, each: containerd namespaces at the root, and CRI pods without systemd.
/// A slice has other children too.
fn parents_of_containers(seen: &Observation) -> BTreeSet<CgroupPath> {
    let names = seen.containers.iter().map(|container| container.containerd_namespace.as_str());
    let mut parents: BTreeSet<CgroupPath> =
        names.chain(USUAL_NAMESPACES).map(|name| CgroupPath::new(format!("/{name}"))).collect();
    for path in seen.containers.iter().filter_map(ObservedContainer::cgroup_path) {
        let parent = path.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
        if !parent.is_empty() && !parent.ends_with(".slice") && !parent.ends_with(".service") {
            parents.insert(CgroupPath::new(parent));
        }
    }
    parents
}

/// The cgroups and ids of the containers that are known.
struct Known<'a> {
    paths: HashSet<&'a str>,
    ids: HashSet<&'a str>,
}

impl<'a> Known<'a> {
    fn new(seen: &'a Observation) -> Self {
        let paths = seen.containers.iter().filter_map(ObservedContainer::cgroup_path);
        Self {
            paths: paths.map(CgroupPath::as_str).collect(),
            ids: seen.containers.iter().map(|container| container.id.as_str()).collect(),
        }
    }

    /// A container's own cgroup (what is below it is its own business), or one named after a container: its id, or a
    /// scope `PREFIX-ID.scope`.
    fn has(&self, cgroup: &CgroupPath) -> bool {
        let name = cgroup.as_str().rsplit('/').next().unwrap_or_default();
        let scope = name.strip_suffix(".scope").unwrap_or_default();
        let ends = scope.match_indices('-').map(|(dash, _)| &scope[dash + 1..]);
        self.paths.contains(cgroup.as_str())
            || self.ids.contains(name)
            || std::iter::once(scope).chain(ends).any(|id| !id.is_empty() && self.ids.contains(id))
    }
}

fn is_container_scope(cgroup: &CgroupPath) -> bool {
    let name = cgroup.as_str().rsplit('/').next().unwrap_or_default();
    let Some(scope) = name.strip_suffix(".scope") else { return false };
    let id = SCOPE_PREFIXES.iter().find_map(|prefix| scope.strip_prefix(prefix));
    id.is_some_and(|id| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Services and scopes hold no containers of others; slices, and what is not systemd's, may.
fn may_hold_containers(cgroup: &CgroupPath, parents: &BTreeSet<CgroupPath>) -> bool {
    let name = cgroup.as_str().rsplit('/').next().unwrap_or_default();
    parents.contains(cgroup) || name.ends_with(".slice") || !name.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn host(cgroups: &[&str]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let mount = root.path().join("sys/fs/cgroup");
        fs::create_dir_all(&mount).unwrap();
        fs::write(mount.join("cgroup.controllers"), "").unwrap();
        for cgroup in cgroups {
            fs::create_dir_all(mount.join(cgroup)).unwrap();
            fs::write(mount.join(cgroup).join("cgroup.procs"), "9\n").unwrap();
        }
        let host = Host::at(root.path());
        (root, host)
    }

    #[test]
    fn what_looks_like_a_container_and_is_none_is_found() {
        let id = "a".repeat(64);
        let scope = format!("kubepods.slice/kubepods-pod7.slice/cri-containerd-{id}.scope");
        let (_root, host) = host(&[
            "default/left",
            "system.slice/ssh.service",
            &scope,
            "user.slice/user-0.slice/session-1.scope",
        ]);
        let stray = find_stray_cgroups(&host, &Observation::default());
        let paths: Vec<_> = stray.iter().map(|stray| stray.cgroup.as_str()).collect();
        assert_eq!(paths, ["/default/left", format!("/{scope}").as_str()]);
        assert_eq!(stray[0].pids, [Pid::new(9)]);
    }

    #[test]
    fn a_container_is_known_by_its_path_and_by_its_name() {
        let known = Known { paths: ["/a/b"].into(), ids: ["web", "my-web"].into() };
        let has = |path: &str| known.has(&CgroupPath::new(path));
        assert!(
            has("/a/b")
                && has("/default/web")
                && has("/x.slice/cri-containerd-my-web.scope")
                && has("/web.scope")
        );
        assert!(!has("/default/web2") && !has("/x.slice/cri-myweb.scope") && !has("/web/below"));
    }

    #[test]
    fn a_host_without_cgroups_has_none() {
        assert!(find_stray_cgroups(&Host::at("/nonexistent"), &Observation::default()).is_empty());
    }
}
