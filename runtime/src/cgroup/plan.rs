//! Where a container's cgroup goes: `cgroupsPath` and the driver's rules. Pure.

use std::path::{Component, Path, PathBuf};

use super::error::CgroupError;

/// Who makes the container's cgroup.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Driver {
    /// The runtime itself, in the cgroup file system.
    Cgroupfs,
    /// The system's systemd.
    Systemd,
    /// A user's systemd, for rootless containers, reached at this D-Bus address.
    SystemdUser {
        /// Such as `unix:path=/run/user/1000/bus`.
        address: String,
    },
}

/// A transient scope for a container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scope {
    /// The unit's name, ending in `.scope`.
    pub unit: String,
    /// The slice it goes into.
    pub slice: String,
    /// The address of a user's bus; `None` for the system's.
    pub user_bus: Option<String>,
    /// What systemd is to say of the unit: by it the container knows its own scope from another unit of that name.
    pub description: String,
}

/// Where a container's cgroup will be and who will make it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CgroupPlan {
    pub(super) place: Place,
    pub(super) scope: Option<Scope>,
}

/// A cgroup's place in the hierarchy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// Below the root, without a leading slash.
    BelowRoot(PathBuf),
    /// Below the parent of the runtime's own cgroup.
    BesideOwn(PathBuf),
    /// Below the cgroup of the user's systemd.
    BelowManager(PathBuf),
}

impl CgroupPlan {
    /// The scope, with the systemd driver. A scope is made around a process: see [`Cgroup::create_scope`](super::Cgroup::create_scope).
    #[must_use]
    pub fn scope(&self) -> Option<&Scope> {
        self.scope.as_ref()
    }

    /// Has the scope's description name the moment of creation, too: containers of the same ID below several roots may be planned
    /// into a unit of the same name.
    pub fn mark_scope(&mut self, created: &str) {
        if let Some(scope) = &mut self.scope {
            scope.description = format!("{} of {created}", scope.description);
        }
    }

    /// The same plan without the parts that depend on the runtime's own cgroup, so that the state can name the cgroup before
    /// it is made.
    ///
    /// # Errors
    /// What reading `/proc/self/cgroup` says.
    pub fn resolve(mut self) -> Result<Self, CgroupError> {
        if let Place::BesideOwn(path) = &self.place {
            let own = super::own_cgroup()?;
            self.place = Place::BelowRoot(own.parent().unwrap_or(Path::new("")).join(path));
        }
        Ok(self)
    }

    /// The cgroup's directory, where it is known before systemd has made it.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        match &self.place {
            Place::BelowRoot(path) => Some(Path::new(super::fs::MOUNT_POINT).join(path)),
            Place::BesideOwn(_) | Place::BelowManager(_) => None,
        }
    }
}

/// Plans the cgroup of container `id`, from `linux.cgroupsPath` as the spec has it.
///
/// With the cgroupfs driver an absolute path is taken from the hierarchy's root, a relative one from the parent of the
/// runtime's own cgroup, and none means the container's ID there. With systemd the path is `slice:prefix:name`; an empty
/// slice is `system.slice` (`user.slice` for a user's), and no path means the unit `runc-<id>.scope`. All as runc does.
///
/// # Errors
/// [`CgroupError`] for a path that the driver cannot use.
pub fn plan(cgroups_path: Option<&Path>, id: &str, driver: &Driver) -> Result<CgroupPlan, CgroupError> {
    let given = cgroups_path.filter(|path| !path.as_os_str().is_empty());
    match driver {
        Driver::Cgroupfs => Ok(CgroupPlan { place: plan_place(given, id)?, scope: None }),
        Driver::Systemd => plan_scope(given, id, None),
        Driver::SystemdUser { address } => plan_scope(given, id, Some(address.clone())),
    }
}

fn plan_place(given: Option<&Path>, id: &str) -> Result<Place, CgroupError> {
    let Some(path) = given else { return Ok(Place::BesideOwn(PathBuf::from(id))) };
    let clean = clean(path);
    if clean.as_os_str().is_empty() || path.to_str().is_none() {
        return Err(CgroupError::Path { path: path.to_path_buf() });
    }
    Ok(if path.is_absolute() { Place::BelowRoot(clean) } else { Place::BesideOwn(clean) })
}

/// Resolves `.` and `..` by the text alone, never above the beginning; a leading slash is dropped.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

fn plan_scope(given: Option<&Path>, id: &str, user_bus: Option<String>) -> Result<CgroupPlan, CgroupError> {
    let (slice, prefix, name) = match given {
        None => (String::new(), "runc".to_owned(), id.to_owned()),
        Some(path) => split_systemd_path(path)?,
    };
    let slice = match (slice.is_empty(), user_bus.is_some()) {
        (false, _) => slice,
        (true, false) => "system.slice".to_owned(),
        (true, true) => "user.slice".to_owned(),
    };
    let mut path = expand_slice(&slice)?;
    if name.ends_with(".slice") {
        return Err(CgroupError::SliceUnit { unit: name });
    }
    let unit = format!("{prefix}-{name}.scope");
    if unit.contains('/') {
        return Err(CgroupError::Path { path: PathBuf::from(unit) });
    }
    path.push(&unit);
    let place = if user_bus.is_some() { Place::BelowManager(path) } else { Place::BelowRoot(path) };
    Ok(CgroupPlan { place, scope: Some(Scope { unit, slice, user_bus, description: describe(id) }) })
}

/// The description of a container's scope, but for its moment of creation, which earlier versions left out.
pub(crate) fn describe(id: &str) -> String {
    format!("inspect-runtime container {id}")
}

fn split_systemd_path(path: &Path) -> Result<(String, String, String), CgroupError> {
    let wrong = || CgroupError::SystemdPath { path: path.to_string_lossy().into_owned() };
    let text = path.to_str().ok_or_else(wrong)?;
    let mut parts = text.split(':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(slice), Some(prefix), Some(name), None) => {
            Ok((slice.to_owned(), prefix.to_owned(), name.to_owned()))
        }
        _ => Err(wrong()),
    }
}

/// The directory of a slice: `test-a-b.slice` is `test.slice/test-a.slice/test-a-b.slice`, `-.slice` the root
/// (systemd.slice(5)).
fn expand_slice(slice: &str) -> Result<PathBuf, CgroupError> {
    let wrong = || CgroupError::SliceName { slice: slice.to_owned() };
    let name = slice.strip_suffix(".slice").ok_or_else(wrong)?;
    if name == "-" {
        return Ok(PathBuf::new());
    }
    if name.contains('/') || name.split('-').any(str::is_empty) {
        return Err(wrong());
    }
    let ends = name.match_indices('-').map(|(index, _)| index).chain([name.len()]);
    Ok(ends.map(|end| format!("{}.slice", &name[..end])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroupfs(path: Option<&str>) -> Place {
        plan(path.map(Path::new), "c1", &Driver::Cgroupfs).unwrap().place
    }

    #[test]
    fn an_absolute_path_is_below_the_root() {
        assert_eq!(cgroupfs(Some("/default/c1")), Place::BelowRoot("default/c1".into()));
    }

    #[test]
    fn a_relative_path_or_none_is_beside_the_own_cgroup() {
        assert_eq!(cgroupfs(Some("a/b")), Place::BesideOwn("a/b".into()));
        assert_eq!(cgroupfs(None), Place::BesideOwn("c1".into()));
        assert_eq!(cgroupfs(Some("")), Place::BesideOwn("c1".into()));
    }

    #[test]
    fn no_path_leads_above_the_root_or_is_the_root_itself() {
        assert_eq!(cgroupfs(Some("/../../a/./x/../b")), Place::BelowRoot("a/b".into()));
        assert!(matches!(
            plan(Some(Path::new("/..")), "c1", &Driver::Cgroupfs),
            Err(CgroupError::Path { .. })
        ));
    }

    #[test]
    fn a_systemd_path_names_the_scope_and_its_slices() {
        let planned = plan(Some(Path::new("machine-a.slice:foo:sc1")), "c1", &Driver::Systemd).unwrap();
        assert_eq!(planned.place, Place::BelowRoot("machine.slice/machine-a.slice/foo-sc1.scope".into()));
        let scope = planned.scope().unwrap();
        assert_eq!((scope.unit.as_str(), scope.slice.as_str()), ("foo-sc1.scope", "machine-a.slice"));
    }

    #[test]
    fn scopes_of_the_same_name_are_told_apart() {
        let mut planned = plan(Some(Path::new("a.slice:p:n")), "c1", &Driver::Systemd).unwrap();
        assert_eq!(planned.scope().unwrap().description, "inspect-runtime container c1");
        planned.mark_scope("2026-11-23T22:44:12.000000001Z");
        let description = "inspect-runtime container c1 of 2026-11-23T22:44:12.000000001Z";
        assert_eq!(planned.scope().unwrap().description, description);
    }

    #[test]
    fn a_systemd_path_may_leave_out_the_slice_or_everything() {
        let place = |path: Option<&str>, driver| plan(path.map(Path::new), "c1", &driver).unwrap().place;
        let user = Driver::SystemdUser { address: "unix:path=/run/user/1/bus".into() };
        assert_eq!(place(Some(":p:n"), Driver::Systemd), Place::BelowRoot("system.slice/p-n.scope".into()));
        assert_eq!(place(None, Driver::Systemd), Place::BelowRoot("system.slice/runc-c1.scope".into()));
        assert_eq!(place(None, user), Place::BelowManager("user.slice/runc-c1.scope".into()));
        assert_eq!(place(Some("-.slice:p:n"), Driver::Systemd), Place::BelowRoot("p-n.scope".into()));
    }

    #[test]
    fn a_wrong_systemd_path_is_refused_in_runc_s_words() {
        let error = plan(Some(Path::new("/default/c1")), "c1", &Driver::Systemd).unwrap_err();
        let expected = "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, \
                        got \"/default/c1\" instead";
        assert_eq!(error.to_string(), expected);
        for slice in ["x", ".slice", "a--b.slice", "-a.slice", "a/b.slice"] {
            let path = format!("{slice}:p:n");
            let refused = plan(Some(Path::new(&path)), "c1", &Driver::Systemd);
            assert!(matches!(refused, Err(CgroupError::SliceName { .. })), "{slice}");
        }
        let slice = plan(Some(Path::new("a.slice:p:n.slice")), "c1", &Driver::Systemd);
        assert!(matches!(slice, Err(CgroupError::SliceUnit { .. })));
    }
}
