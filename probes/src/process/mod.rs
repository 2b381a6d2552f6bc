//! `/proc`: the processes of a host, as proc(5) and the kernel's Documentation/filesystems/proc.rst describe it.
//!
//! [`ProcessTable`] is one pass over every process. Everything else is read for one pid, when it is asked for.
//!
//! A process may vanish while it is read: that is `Ok(None)`, absent by nature. What it says of itself (its name, its
//! arguments, its environment) is hostile and stays bytes: escape it before printing.

mod cmdline;
mod descriptors;
mod mountinfo;
mod namespaces;
mod read;
mod stat;
mod status;
mod table;
mod unix_socket;
mod uptime;
mod user;

pub use cmdline::{CommandLine, read_cmdline, read_environ};
pub use descriptors::{find_socket_inodes, read_cwd, read_exe};
pub use mountinfo::{Mount, parse_mountinfo, read_mountinfo};
pub use namespaces::{LinuxNamespace, NamespaceId, read_namespace, read_namespaces};
pub use read::ProcessError;
pub(crate) use read::{read_bounded, read_present};
pub use stat::{ProcessState, Stat, TICKS_PER_SECOND, parse_stat, read_stat};
pub use status::{Status, parse_status, read_status};
pub use table::ProcessTable;
pub use unix_socket::{UnixSocket, parse_unix_sockets, read_unix_sockets};
pub use uptime::{read_boot_id, read_uptime};
pub use user::{UserNames, parse_passwd};

use std::path::PathBuf;

use crate::Host;
use crate::name::Pid;

/// `/proc/PID/FILE` on this host.
#[must_use]
pub fn process_path(host: &Host, pid: Pid, file: &str) -> PathBuf {
    let mut path = host.proc();
    path.push(pid.to_string());
    path.push(file);
    path
}
