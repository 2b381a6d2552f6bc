//! Freezing, thawing and killing all of a cgroup.

use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, kill_process};

use super::error::CgroupError;
use super::fs::Directory;

/// How long runc waits for a cgroup to freeze.
const BOUND: Duration = Duration::from_secs(10);

pub(super) fn freeze(cgroup: &Directory) -> Result<(), CgroupError> {
    cgroup.write("cgroup.freeze", "1")?;
    let frozen = cgroup.wait_for_event("frozen", 1, "freeze", BOUND);
    if frozen.is_err() {
        // Half a container standing is worse than one that runs.
        cgroup.write("cgroup.freeze", "0")?;
    }
    frozen
}

pub(super) fn thaw(cgroup: &Directory) -> Result<(), CgroupError> {
    cgroup.write("cgroup.freeze", "0")?;
    cgroup.wait_for_event("frozen", 0, "thaw", BOUND)
}

pub(super) fn is_frozen(cgroup: &Directory) -> Result<bool, CgroupError> {
    Ok(cgroup.read_if_present("cgroup.freeze")?.is_some_and(|text| text.trim() == "1"))
}

pub(super) fn kill_all(cgroup: &Directory) -> Result<(), CgroupError> {
    match cgroup.write("cgroup.kill", "1") {
        Err(CgroupError::Write { source, .. }) if super::fs::is_gone(&source) => kill_one_by_one(cgroup),
        result => result,
    }
}

/// A frozen process cannot fork; `SIGKILL` reaches it all the same.
fn kill_one_by_one(cgroup: &Directory) -> Result<(), CgroupError> {
    if cgroup.read_if_present("cgroup.freeze")?.is_none() {
        return Ok(());
    }
    cgroup.write("cgroup.freeze", "1")?;
    for process in cgroup.processes()? {
        match kill_process(process, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(cgroup.error("kill a process of", errno.into())),
        }
    }
    cgroup.write("cgroup.freeze", "0")
}
