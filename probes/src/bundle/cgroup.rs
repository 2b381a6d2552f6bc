//! From a spec's `linux.cgroupsPath` to the cgroup that the runtime makes of it.

use crate::name::{CgroupPath, ContainerId};

/// The cgroup that a runtime makes of `cgroups_path`: with the systemd driver `SLICE:PREFIX:NAME` is a scope in its
/// slice, otherwise it is the path itself. `None` for a relative path: the runtime puts that below its own cgroup.
///
/// crun puts the processes into `container` below the scope.
#[must_use]
pub fn spec_cgroup_path(cgroups_path: &str, systemd_cgroup: bool) -> Option<CgroupPath> {
    if !systemd_cgroup {
        return cgroups_path.starts_with('/').then(|| CgroupPath::new(cgroups_path.trim_end_matches('/')));
    }
    let mut parts = cgroups_path.splitn(3, ':');
    let (slice, prefix, name) = (parts.next()?, parts.next()?, parts.next()?);
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    let unit = if name.ends_with(".slice") || prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}-{name}.scope")
    };
    Some(CgroupPath::new(format!("{}/{unit}", slice_path(slice))))
}

/// systemd.slice(5): `a-b.slice` lies in `a.slice`; `-.slice` is the root.
fn slice_path(slice: &str) -> String {
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    if name == "-" {
        return String::new();
    }
    let mut path = String::new();
    for (position, _) in name.match_indices('-').chain(std::iter::once((name.len(), ""))) {
        path.push('/');
        path.push_str(&name[..position]);
        path.push_str(".slice");
    }
    path
}

/// Whether a cgroup path names the container: a component is its id, or a scope of its id (`PREFIX-ID.scope`).
#[must_use]
pub fn cgroup_belongs_to(cgroup: &CgroupPath, id: &ContainerId) -> bool {
    cgroup.as_str().split('/').any(|component| {
        let scope = component.strip_suffix(".scope").and_then(|scope| scope.strip_suffix(id.as_str()));
        component == id.as_str() || scope.is_some_and(|rest| rest.is_empty() || rest.ends_with('-'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systemd_driver_makes_scopes_in_nested_slices() {
        let path = |text: &str| spec_cgroup_path(text, true).map(|path| path.as_str().to_owned());
        assert_eq!(path("machine.slice:foo:sc1").as_deref(), Some("/machine.slice/foo-sc1.scope"));
        assert_eq!(
            path("kubepods-pod7.slice:cri-containerd:ab").as_deref(),
            Some("/kubepods.slice/kubepods-pod7.slice/cri-containerd-ab.scope")
        );
        assert_eq!(path("-.slice:x:y").as_deref(), Some("/x-y.scope"));
        assert_eq!(path("/default/web"), None);
    }

    #[test]
    fn without_it_the_path_is_the_path() {
        assert_eq!(spec_cgroup_path("/default/web", false), Some(CgroupPath::new("/default/web")));
        assert_eq!(spec_cgroup_path("relative", false), None);
    }

    #[test]
    fn ids_are_whole_components() {
        let id = ContainerId::new("web");
        assert!(cgroup_belongs_to(&CgroupPath::new("/default/web/below"), &id));
        assert!(cgroup_belongs_to(&CgroupPath::new("/machine.slice/foo-web.scope/container"), &id));
        assert!(!cgroup_belongs_to(&CgroupPath::new("/default/web2"), &id));
        assert!(!cgroup_belongs_to(&CgroupPath::new("/machine.slice/foo-myweb.scope"), &id));
    }
}
