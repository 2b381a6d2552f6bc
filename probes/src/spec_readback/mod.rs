//! What the kernel enforces on a container's init now, as a spec.
//!
//! The container's own spec is the start. Every field that can be read from outside is compared with what the kernel
//! holds; where the kernel does as the spec says (in whatever way the runtime put it: shares as a weight, a limit
//! rounded to pages, a bind mount with further restrictions), the spec's own words stay, and where it does not, the
//! kernel's value takes their place. So the difference between the two is drift, and nothing else is.

mod cgroup;
mod credentials;
mod edit;
mod limits;
mod mounts;
mod namespaces;
mod rootfs;

use serde_json::Value;
use thiserror::Error;

use crate::Host;
use crate::bundle::Bundle;
use crate::cgroup::CgroupFileError;
use crate::name::{ContainerId, Pid};
use crate::process::{ProcessError, read_stat};
use crate::spec::Spec;

/// What no file tells of a running container.
const UNREADABLE: &str = "the kernel does not show args, env, cwd, terminal, hostname, sysctl, system call and device rules, \
                          hooks, annotations, I/O and huge page limits: those are taken from its spec and not checked";

/// A spec of what is enforced.
#[derive(Debug, Clone, PartialEq)]
pub struct Readback {
    /// The spec.
    pub spec: Spec,
    /// What the reader should know: what was not read, and why.
    pub notes: Vec<String>,
}

/// Why nothing could be read back.
#[derive(Debug, Error)]
pub enum ReadbackError {
    /// The container has no init process.
    #[error("cannot read back container `{id}`: it is not running")]
    NotRunning {
        /// The container.
        id: ContainerId,
    },
    /// Its init ended while it was being read.
    #[error("cannot read back container `{id}`: it stopped meanwhile")]
    Stopped {
        /// The container.
        id: ContainerId,
    },
    /// The kernel refused: mostly a missing privilege.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A cgroup file could not be read.
    #[error(transparent)]
    Cgroup(#[from] CgroupFileError),
}

/// The spec being corrected, with what every reader needs.
struct Reading<'a> {
    host: &'a Host,
    pid: Pid,
    /// The container's own spec.
    base: &'a Value,
    /// What is enforced.
    enforced: Value,
    notes: Vec<String>,
}

/// A reader's answer: `None` when the process has ended.
type Step = Result<Option<()>, ReadbackError>;

/// Reads back what is enforced on the container's init.
///
/// # Errors
/// [`ReadbackError`] when the container does not run, stops meanwhile, or the kernel refuses.
pub fn read_back(host: &Host, bundle: &Bundle, base: &Spec) -> Result<Readback, ReadbackError> {
    let id = || bundle.id.clone();
    let pid = bundle.init_pid.ok_or_else(|| ReadbackError::NotRunning { id: id() })?;
    let started = || -> Result<Option<u64>, ReadbackError> {
        Ok(read_stat(host, pid)?.filter(|stat| !stat.state.has_ended()).map(|stat| stat.start_time))
    };
    let before = started()?.ok_or_else(|| ReadbackError::NotRunning { id: id() })?;
    let mut reading = Reading {
        host,
        pid,
        base: &base.value,
        enforced: base.value.clone(),
        notes: vec![UNREADABLE.to_owned()],
    };
    for read in [
        credentials::read_credentials,
        namespaces::read_linux_namespaces,
        limits::read_limits,
        mounts::read_mounts,
        cgroup::read_cgroup,
    ] {
        read(&mut reading)?.ok_or_else(|| ReadbackError::Stopped { id: id() })?;
    }
    // Another start time is another process under the same pid.
    if started()? != Some(before) {
        return Err(ReadbackError::Stopped { id: id() });
    }
    let origin = format!("kernel, process {pid}");
    let spec = Spec { origin, value: reading.enforced, unknown_fields: base.unknown_fields.clone() };
    Ok(Readback { spec, notes: reading.notes })
}
