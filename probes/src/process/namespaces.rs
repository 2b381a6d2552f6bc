//! `/proc/PID/ns`: namespaces(7). Linux namespaces, not containerd's.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;

use serde::Serialize;

use super::ProcessError;
use super::descriptors::read_link;
use crate::Host;
use crate::name::Pid;

/// A kind of Linux namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinuxNamespace {
    /// cgroup_namespaces(7)
    Cgroup,
    /// ipc_namespaces(7)
    Ipc,
    /// mount_namespaces(7)
    Mount,
    /// network_namespaces(7)
    Network,
    /// pid_namespaces(7)
    Pid,
    /// time_namespaces(7)
    Time,
    /// user_namespaces(7)
    User,
    /// uts_namespaces(7)
    Uts,
}

impl LinuxNamespace {
    /// Every kind, in the order of their names.
    pub const ALL: [Self; 8] =
        [Self::Cgroup, Self::Ipc, Self::Mount, Self::Network, Self::Pid, Self::Time, Self::User, Self::Uts];

    /// The link's name in `/proc/PID/ns`.
    #[must_use]
    pub fn link_name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Mount => "mnt",
            Self::Network => "net",
            Self::Pid => "pid",
            Self::Time => "time",
            Self::User => "user",
            Self::Uts => "uts",
        }
    }

    /// The `type` in an OCI spec's `linux.namespaces`.
    #[must_use]
    pub fn spec_name(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Network => "network",
            other => other.link_name(),
        }
    }
}

/// A namespace's inode: equal inodes are the same namespace, for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct NamespaceId(pub u64);

/// The namespace of one kind that a process is in; `None` where the process is gone or a zombie, or the kernel lacks it.
///
/// # Errors
/// [`ProcessError`] when the kernel refuses (ptrace(2)) or the link is not `KIND:[INODE]`.
pub fn read_namespace(
    host: &Host,
    pid: Pid,
    kind: LinuxNamespace,
) -> Result<Option<NamespaceId>, ProcessError> {
    let name = format!("ns/{}", kind.link_name());
    let Some(link) = read_link(host, pid, &name)? else { return Ok(None) };
    let text = link.as_os_str().as_bytes();
    let malformed = || {
        ProcessError::parse(&super::process_path(host, pid, &name), "expected a link to KIND:[INODE]", text)
    };
    parse_namespace_link(text).map(|inode| Some(NamespaceId(inode))).ok_or_else(malformed)
}

/// Every namespace that a process is in.
///
/// # Errors
/// As [`read_namespace`].
pub fn read_namespaces(host: &Host, pid: Pid) -> Result<BTreeMap<LinuxNamespace, NamespaceId>, ProcessError> {
    let mut namespaces = BTreeMap::new();
    for kind in LinuxNamespace::ALL {
        if let Some(id) = read_namespace(host, pid, kind)? {
            namespaces.insert(kind, id);
        }
    }
    Ok(namespaces)
}

fn parse_namespace_link(link: &[u8]) -> Option<u64> {
    let (_, inode) = std::str::from_utf8(link).ok()?.split_once(":[")?;
    inode.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_names_its_inode() {
        assert_eq!(parse_namespace_link(b"mnt:[4026531841]"), Some(4_026_531_841));
        assert_eq!(parse_namespace_link(b"mnt:[x]"), None);
        assert_eq!(parse_namespace_link(b"/etc"), None);
    }

    #[test]
    fn we_are_in_namespaces() {
        let namespaces = read_namespaces(&Host::live(), Pid::new(std::process::id())).unwrap();
        assert!(namespaces.contains_key(&LinuxNamespace::Mount));
        assert!(read_namespaces(&Host::live(), Pid::new(u32::MAX)).unwrap().is_empty());
    }
}
