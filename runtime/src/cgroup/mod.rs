//! The container's cgroup: cgroup v2 alone, made by the runtime itself or by systemd.
//!
//! [`plan`] says where it goes and touches nothing. [`Cgroup::create`] makes it before the container's first process, which
//! is then born inside it (`CLONE_INTO_CGROUP`); [`Cgroup::create_scope`] has systemd make it around a process that waits.

mod devices;
mod error;
mod freezer;
mod fs;
mod plan;
mod properties;
mod resources;
pub mod stats;
mod systemd;
mod weight;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use rustix::process::Pid;

pub use devices::{DeviceProgram, default_rules};
pub use error::CgroupError;
use fs::Directory;
use plan::Place;
pub(crate) use plan::describe;
pub use plan::{CgroupPlan, Driver, Scope, plan};
pub use systemd::ScopeOwner;
pub use weight::cpu_weight_from_shares;

/// An open cgroup of a container.
#[derive(Debug)]
pub struct Cgroup {
    directory: Directory,
    scope: Option<Scope>,
}

impl Cgroup {
    /// Makes the planned cgroup in the file system, with every controller the host has. One that exists is taken if it is
    /// empty and not frozen. For the cgroupfs driver.
    ///
    /// # Errors
    /// [`CgroupError::NotUnified`] on a cgroup v1 or hybrid host, and what the kernel says.
    pub fn create(plan: &CgroupPlan) -> Result<Self, CgroupError> {
        let root = fs::open_root()?;
        let (directory, created) = root.create_below(&place_below_root(&plan.place, None)?)?;
        // Closed by the end of this process.
        std::mem::forget(root);
        let cgroup = Cgroup { directory, scope: None };
        if !created {
            cgroup.check_unused()?;
        }
        Ok(cgroup)
    }

    /// Has systemd make the planned scope around `init`, with `resources` as the unit's properties. For the systemd driver;
    /// `annotations` are the spec's, of which `org.systemd.property.*` become properties of the unit.
    ///
    /// # Errors
    /// What D-Bus and systemd say, and an annotation that is no property.
    pub fn create_scope<'a>(
        plan: &CgroupPlan,
        init: Pid,
        resources: &LinuxResources,
        annotations: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, CgroupError> {
        let root = fs::open_root()?;
        root.read_controllers()?;
        let Some(scope) = &plan.scope else { return Self::create(plan) };
        let manager = systemd::start_scope(scope, init, resources, annotations)?;
        let (directory, _) = root.create_below(&place_below_root(&plan.place, manager.as_deref())?)?;
        Ok(Cgroup { directory, scope: Some(scope.clone()) })
    }

    /// Opens the cgroup of a container made earlier: its directory, and its scope if systemd made it.
    ///
    /// # Errors
    /// [`CgroupError::File`] where it is not there.
    pub fn open(path: &Path, scope: Option<Scope>) -> Result<Self, CgroupError> {
        Ok(Cgroup { directory: Directory::open(path)?, scope })
    }

    /// The cgroup's directory, below `/sys/fs/cgroup`.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The directory's descriptor, for `CLONE_INTO_CGROUP`.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Checks `resources` without touching anything.
    ///
    /// # Errors
    /// [`CgroupError::Resource`] for what cgroup v2 cannot do.
    pub fn validate(resources: &LinuxResources) -> Result<(), CgroupError> {
        resources::settings(resources)?;
        devices::Rules::from_spec(resources.devices().iter().flatten())?;
        Ok(())
    }

    /// Whether `resources` ask for anything that only a cgroup of the container's own can give. Device rules are no limits, as
    /// with runc: without rights over a cgroup there are none over devices to take away.
    ///
    /// # Errors
    /// [`CgroupError::Resource`] for what cgroup v2 cannot do.
    pub fn has_limits(resources: &LinuxResources) -> Result<bool, CgroupError> {
        Ok(!resources::settings(resources)?.is_empty())
    }

    /// Checks that systemd can be told `resources`, without telling it.
    ///
    /// # Errors
    /// [`CgroupError::Resource`] for what no property of a unit can say.
    pub fn validate_for_systemd(resources: &LinuxResources) -> Result<(), CgroupError> {
        properties::limits(resources)?;
        Ok(())
    }

    /// Writes the limits of `resources`; device rules are [`Self::apply_devices`]'s. With systemd the unit's properties are
    /// set first, so that systemd does not undo the files later.
    ///
    /// # Errors
    /// A limit that is refused, by its file and value.
    pub fn apply(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let settings = resources::settings(resources)?;
        self.check_memory_in_use(resources)?;
        if let Some(scope) = &self.scope {
            systemd::set_properties(scope, resources)?;
        }
        if resources::needs_domain(&settings) {
            self.check_domain()?;
        }
        self.directory.apply(&settings)
    }

    /// Attaches the device rules of the spec (and those every container has) in the place of earlier ones.
    ///
    /// # Errors
    /// A rule that cannot be expressed, and what bpf(2) says.
    pub fn apply_devices(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        DeviceProgram::compile(resources.devices().iter().flatten())?.attach(self)
    }

    /// Stops all processes of the cgroup and waits until they stand.
    ///
    /// # Errors
    /// [`CgroupError::Timeout`] where one of them does not, for instance in an uninterruptible system call.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        freezer::freeze(&self.directory)
    }

    /// Lets the processes go on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        freezer::thaw(&self.directory)
    }

    /// Whether the cgroup itself has been told to freeze.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        freezer::is_frozen(&self.directory)
    }

    /// Kills every process of the cgroup and of those below it, and waits until they are gone: with `cgroup.kill` at once,
    /// before Linux 5.14 one by one while frozen, so that none forks away.
    ///
    /// # Errors
    /// What the kernel says; [`CgroupError::Timeout`] where one does not die.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        freezer::kill_all(&self.directory)?;
        self.directory.wait_for_event("populated", 0, "empty", Duration::from_secs(10))
    }

    /// The processes of the cgroup and of those below it, as this PID namespace numbers them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn processes(&self) -> Result<Vec<Pid>, CgroupError> {
        self.directory.processes()
    }

    /// Whether any process is left in the cgroup or below it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_populated(&self) -> Result<bool, CgroupError> {
        Ok(self.directory.read_key("cgroup.events", "populated")? == Some(1))
    }

    /// Moves a process into the cgroup, or into one below it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add(&self, process: Pid, below: Option<&Path>) -> Result<(), CgroupError> {
        let pid = process.as_raw_nonzero().to_string();
        match below {
            None => self.directory.write("cgroup.procs", &pid),
            Some(name) => self.directory.open_below(name)?.write("cgroup.procs", &pid),
        }
    }

    /// Opens a cgroup below this one, for a process that is to be born there. `name` must have no `..` in it.
    ///
    /// # Errors
    /// [`CgroupError::Path`] for a name that leads out, and what the kernel says.
    pub fn open_below(&self, name: &Path) -> Result<Self, CgroupError> {
        let is_plain = name.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !is_plain {
            return Err(CgroupError::Path { path: name.to_path_buf() });
        }
        Ok(Cgroup { directory: self.directory.open_below(name)?, scope: None })
    }

    /// Gives the cgroup to the owner of a user namespace: the directory and the files that the kernel lets a delegate write
    /// (`/sys/kernel/cgroup/delegate`).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn delegate(&self, owner: u32) -> Result<(), CgroupError> {
        self.directory.delegate(owner)
    }

    /// Removes the cgroup and what the container made below it, and with systemd the scope. Processes must be gone.
    ///
    /// # Errors
    /// What the kernel and systemd say; no error where it is gone already.
    pub fn delete(self) -> Result<(), CgroupError> {
        delete(self.path(), self.scope.as_ref())
    }

    fn check_unused(&self) -> Result<(), CgroupError> {
        let path = || self.path().to_path_buf();
        if self.is_populated()? {
            return Err(CgroupError::NotEmpty { path: path() });
        }
        if self.is_frozen()? { Err(CgroupError::Frozen { path: path() }) } else { Ok(()) }
    }

    fn check_domain(&self) -> Result<(), CgroupError> {
        let kind = self.directory.read_if_present("cgroup.type")?.unwrap_or_default();
        match kind.trim() {
            "" | "domain" => Ok(()),
            kind => Err(CgroupError::Type { path: self.path().to_path_buf(), kind: kind.to_owned() }),
        }
    }

    /// `checkBeforeUpdate`: refuses a limit below what is in use, which would have the kernel kill.
    fn check_memory_in_use(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let Some(memory) =
            resources.memory().as_ref().filter(|memory| memory.check_before_update() == Some(true))
        else {
            return Ok(());
        };
        let Some(text) = self.directory.read_if_present("memory.current")? else { return Ok(()) };
        let usage = text.trim().parse::<u64>().unwrap_or(0);
        for (what, limit) in [("memory+swap limit", memory.swap()), ("memory limit", memory.limit())] {
            match limit {
                Some(limit) if limit > 0 && limit.cast_unsigned() <= usage => {
                    return Err(CgroupError::MemoryInUse { what, limit, usage });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// [`Cgroup::delete`] by path, where the cgroup may be gone already. A scope that is another's is left alone.
///
/// # Errors
/// What the kernel and systemd say.
pub fn delete(path: &Path, scope: Option<&Scope>) -> Result<(), CgroupError> {
    if let Some(scope) = scope
        && systemd::stop_scope(scope)? == ScopeOwner::Other
    {
        return Ok(());
    }
    // Most are empty and have none below: one call, and one that takes no descriptor where there is none left.
    if rustix::fs::rmdir(path).is_ok() {
        return Ok(());
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(CgroupError::Path { path: path.to_path_buf() });
    };
    match Directory::open(parent) {
        Ok(parent) => parent.remove_below(Path::new(name)),
        Err(CgroupError::File { source, .. }) if fs::is_gone(&source) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Ends a scope whose cgroup is not known.
///
/// # Errors
/// What D-Bus and systemd say; no error where it is gone already, or another's.
pub fn stop(scope: &Scope) -> Result<(), CgroupError> {
    systemd::stop_scope(scope).map(drop)
}

/// Whose the unit is that a scope was planned to be.
///
/// # Errors
/// What D-Bus and systemd say.
pub fn owner(scope: &Scope) -> Result<ScopeOwner, CgroupError> {
    systemd::owner(scope)
}

fn place_below_root(place: &Place, manager: Option<&Path>) -> Result<PathBuf, CgroupError> {
    match place {
        Place::BelowRoot(path) => Ok(path.clone()),
        Place::BesideOwn(path) => {
            let own = own_cgroup()?;
            let parent = own.parent().unwrap_or(Path::new(""));
            Ok(parent.join(path))
        }
        Place::BelowManager(path) => Ok(manager.unwrap_or(Path::new("")).join(path)),
    }
}

/// The runtime's own cgroup, without its leading slash.
fn own_cgroup() -> Result<PathBuf, CgroupError> {
    let path = Path::new("/proc/self/cgroup");
    let text = std::fs::read_to_string(path).map_err(|source| CgroupError::File {
        operation: "read",
        path: path.to_path_buf(),
        source,
    })?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
    own.map(PathBuf::from).ok_or(CgroupError::OwnCgroup)
}
