//! Namespaces: which the clone makes, which are joined, by whom and in which order.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::plan::{CLONE_NEWTIME, NamespacePlan, Plan};
use crate::step::{Step, StepError};
use crate::sys;
use crate::validate::{InvalidSpec, invalid};

/// The magic number of the file system that namespaces are files of (`linux/magic.h`).
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// An open namespace to join.
#[derive(Debug)]
pub(crate) struct Joined {
    flag: i32,
    namespace: OwnedFd,
    path: std::path::PathBuf,
}

impl Joined {
    /// Opens the namespace at a path of the spec; what is there must be a namespace.
    pub(crate) fn open(flag: i32, path: &Path) -> Result<Self, StepError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let namespace =
            rustix::fs::openat(CWD, path, flags, Mode::empty()).step("open the namespace", path.display())?;
        let magic = rustix::fs::fstatfs(&namespace).step("examine", path.display())?.f_type;
        if magic != NSFS_MAGIC && magic != libc::PROC_SUPER_MAGIC {
            return Err(StepError::refused("join", path.display(), "it is no namespace"));
        }
        Ok(Joined { flag, namespace, path: path.to_path_buf() })
    }

    /// Whether the runtime is in it, whose own namespace of the kind is at `own`.
    fn is_own(&self, own: &str) -> Result<bool, StepError> {
        let this = rustix::fs::fstat(&self.namespace).step("examine", self.path.display())?;
        let own = rustix::fs::stat(own).step("examine", own)?;
        Ok((this.st_dev, this.st_ino) == (own.st_dev, own.st_ino))
    }

    /// Enters it. The kernel checks that it is of the kind that the spec says.
    pub(crate) fn enter(&self) -> Result<(), StepError> {
        sys::set_namespaces(self.namespace.as_fd(), self.flag).step("join the namespace", self.path.display())
    }
}

/// Who does what about the namespaces of a container.
#[derive(Debug, Default)]
pub(crate) struct NamespaceSteps {
    /// Flags for the clone that makes the init process.
    pub(crate) clone_flags: i32,
    /// Joined by init before anything else, in this order: the user namespace gives the rights for the others.
    pub(crate) join: Vec<Joined>,
    /// PID namespaces are entered by children only: joined by the parent before the clone.
    pub(crate) join_for_children: Option<Joined>,
    /// A user namespace by path: a helper joins it, then makes init, so that the new namespaces belong to it.
    pub(crate) user: Option<Joined>,
    /// A new time namespace: made by the parent, whose next child is its first member, with these offsets.
    pub(crate) time_offsets: Option<String>,
    /// New namespaces that init makes itself: that of cgroups when it is in its cgroup, which becomes the namespace's root;
    /// that of IPC in a user namespace when it is root there, whose is the root of `/dev/mqueue` then.
    pub(crate) unshare: i32,
    /// The cgroup namespace will be another than the runtime's, new or joined.
    pub(crate) has_cgroup_namespace: bool,
}

impl NamespaceSteps {
    /// A further descriptor of the network namespace that is joined, if one is.
    pub(crate) fn joined_network(&self) -> Result<Option<OwnedFd>, StepError> {
        let joined = self.join.iter().find(|one| one.flag == libc::CLONE_NEWNET);
        joined
            .map(|one| one.namespace.try_clone().step("keep open the namespace", one.path.display()))
            .transpose()
    }
}

/// Plans and opens.
pub(crate) fn prepare(plan: &Plan, time_offsets: String) -> Result<NamespaceSteps, StepError> {
    let new = plan.new_namespaces();
    let is_mapped = plan.has_namespace(libc::CLONE_NEWUSER);
    let late = libc::CLONE_NEWCGROUP | if is_mapped { libc::CLONE_NEWIPC } else { 0 };
    let mut steps = NamespaceSteps {
        clone_flags: new & !late & !CLONE_NEWTIME,
        unshare: new & late,
        has_cgroup_namespace: new & libc::CLONE_NEWCGROUP != 0,
        time_offsets: (new & CLONE_NEWTIME != 0).then_some(time_offsets),
        ..NamespaceSteps::default()
    };
    for NamespacePlan { flag, path } in &plan.namespaces {
        let Some(path) = path else { continue };
        let joined = Joined::open(*flag, path)?;
        match *flag {
            libc::CLONE_NEWUSER => steps.user = Some(joined),
            libc::CLONE_NEWPID => steps.join_for_children = Some(joined),
            libc::CLONE_NEWCGROUP => {
                steps.has_cgroup_namespace = !joined.is_own("/proc/self/ns/cgroup")?;
                steps.join.push(joined);
            }
            _ => steps.join.push(joined),
        }
    }
    Ok(steps)
}

/// Refuses sysctls whose namespace, although it is given by path, is the runtime's own: they would change the host, as runc says of
/// those of the network.
pub(crate) fn check_sysctls(plan: &Plan) -> Result<(), InvalidSpec> {
    for (path, _) in &plan.sysctls {
        let name = path.to_string_lossy();
        let (flag, own) = if name.starts_with("sys/net/") {
            (libc::CLONE_NEWNET, "/proc/self/ns/net")
        } else if name == "sys/kernel/domainname" {
            (libc::CLONE_NEWUTS, "/proc/self/ns/uts")
        } else if name.starts_with("sys/user/") {
            (libc::CLONE_NEWUSER, "/proc/self/ns/user")
        } else {
            (libc::CLONE_NEWIPC, "/proc/self/ns/ipc")
        };
        let inode = |path: &Path| rustix::fs::stat(path).map(|stat| (stat.st_dev, stat.st_ino)).ok();
        // One that is not there is told of when it is opened.
        let joined = plan.namespace_path(flag).and_then(inode);
        if joined.is_some() && joined == inode(Path::new(own)) {
            let field = format!("linux.sysctl.{}", name.trim_start_matches("sys/").replace('/', "."));
            return Err(invalid(&field, "its namespace is the runtime's own: it would change the host"));
        }
    }
    Ok(())
}

/// Brings up the loopback device of a new network namespace, as runc and crun do: nobody else would for one that no network
/// plugin is told of.
pub(crate) fn bring_up_loopback() -> Result<(), StepError> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    let socket = socket.step("make", "a socket")?;
    sys::bring_up_loopback(socket.as_fd()).step("bring up", "the loopback device")?;
    // The process ends or becomes another program soon, and closes it.
    std::mem::forget(socket);
    Ok(())
}

/// Opens the network namespace of a child that was just cloned.
pub(crate) fn open_network_of(process: rustix::process::Pid) -> Result<OwnedFd, StepError> {
    let path = format!("/proc/{}/ns/net", process.as_raw_nonzero());
    rustix::fs::openat(CWD, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step("open", path)
}

/// Opens the user namespace of a child.
pub(crate) fn open_user_of(process: rustix::process::Pid) -> Result<OwnedFd, StepError> {
    let path = format!("/proc/{}/ns/user", process.as_raw_nonzero());
    rustix::fs::openat(CWD, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step("open", path)
}

/// Makes the time namespace that the next child is born in, and sets its offsets while it is empty.
pub(crate) fn make_time_namespace(offsets: &str) -> Result<(), StepError> {
    sys::unshare(CLONE_NEWTIME).step("make", "a time namespace")?;
    if offsets.is_empty() {
        return Ok(());
    }
    let path = "/proc/self/timens_offsets";
    std::fs::write(path, offsets).step("write", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_of_the_runtimes_own_namespaces_are_refused() {
        let check = |path: &str| {
            let mut spec = serde_json::to_value(crate::default_spec::default_spec(None)).unwrap();
            spec["linux"]["sysctl"] = serde_json::json!({"net.ipv4.ip_forward": "1"});
            spec["linux"]["namespaces"] = serde_json::json!([{"type": "network", "path": path}]);
            let spec = serde_json::from_value(spec).unwrap();
            let plan = crate::plan::plan(&spec, Path::new("/b"), Path::new("/b/rootfs"), Default::default());
            check_sysctls(&plan.unwrap()).map_err(|error| error.to_string())
        };
        assert!(check("/proc/self/ns/net").unwrap_err().contains("`linux.sysctl.net.ipv4.ip_forward`"));
        assert_eq!(check("/proc/self/ns/uts"), Ok(()));
        assert_eq!(check("/nonexistent"), Ok(()));
    }
}
