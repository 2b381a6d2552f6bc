//! What happens in the moments that `ps` misses: process events from the kernel, cgroups as they appear, and the
//! timeline that containerd, the shim and the OCI runtime leave in them.
//!
//! The source is the kernel's process events connector (`CONFIG_PROC_EVENTS`, `include/uapi/linux/cn_proc.h`): a
//! netlink multicast group that tells of each fork, exec, comm change and exit. It names processes by pid only, so
//! that [`Recorder`] reads `/proc/PID` at the very moment an exec is told. What the kernel could not deliver is
//! counted by [`Loss`] and told as an event of its own.

mod cgroup_watch;
mod connector;
mod invocation;
mod loss;
mod proc_event;
mod process_image;
mod recorder;
mod runtime_exec;
pub mod timeline;

use std::path::PathBuf;

pub use cgroup_watch::{CgroupChange, CgroupWatch};
pub use connector::ProcConnector;
pub use invocation::{Invocation, RuntimeCall, RuntimeOperation, ShimCall, ShimOperation, parse_invocation};
pub use loss::Loss;
pub use proc_event::{ExitStatus, ParseProcEventError, ProcEvent, ProcEventKind, Timestamp, parse_datagram};
pub use process_image::{FileId, NAMESPACE_KINDS, NamespaceInode, ProcessImage, read_process_image};
pub use recorder::{Event, EventKind, RecordCgroups, Recorder};
pub use runtime_exec::{RuntimeExec, RuntimeExecWatch};

/// Why events cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The netlink socket.
    #[error("cannot open the kernel's process events connector")]
    Open {
        /// What the kernel said: `EPROTONOSUPPORT` without `CONFIG_CONNECTOR`.
        #[source]
        source: rustix::io::Errno,
    },
    /// The request to be told.
    #[error("cannot subscribe to the kernel's process events")]
    Subscribe {
        /// What the kernel said: `EPERM` without `CAP_NET_ADMIN`.
        #[source]
        source: rustix::io::Errno,
    },
    /// The kernel takes the request and never answers.
    #[error(
        "cannot subscribe to the kernel's process events: no answer (needs CONFIG_PROC_EVENTS and the first pid, user and network namespace)"
    )]
    NoAnswer,
    /// A datagram could not be received.
    #[error("cannot receive process events")]
    Receive {
        /// What the kernel said.
        #[source]
        source: rustix::io::Errno,
    },
    /// A cgroup hierarchy could not be watched.
    #[error("cannot watch the cgroups below `{}`", path.display())]
    WatchCgroups {
        /// The hierarchy's mount point.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: rustix::io::Errno,
    },
    /// The reading thread could not be started or ended in a bug.
    #[error("cannot run the thread that reads process events")]
    Thread {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The host is a captured one: nothing happens on it.
    #[error("cannot watch a captured host: events come from a running kernel only")]
    NotLive,
}
