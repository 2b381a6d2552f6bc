//! Keeps containers from writing to the runtime's own file (CVE-2019-5736).
//!
//! A container can get hold of the program that a process about to become its payload was started from: as `/proc/PID/exe`,
//! or by naming `/proc/self/exe` as its entry point or its script's interpreter. The file behind that link is open through
//! the mount that the program was started from. So before a command that makes or enters a container, the runtime starts
//! itself once more through a private, read-only copy of that mount, which is attached nowhere, and which nobody can make
//! writable any more once the descriptor that holds it is closed by execve. Commands that enter no container skip this.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::context::Call;
use crate::plan::READ_ONLY;
use crate::step::{Step, StepError};
use crate::sys;

const OWN_PROGRAM: &str = "/proc/self/exe";

/// Makes sure that the running program cannot be written to through `/proc/PID/exe`. Returns once that holds: at once in a
/// process started through the read-only copy, never in the first one, which becomes the second.
pub(crate) fn ensure(call: &Call) -> Result<(), StepError> {
    if is_mounted_readonly().step("examine", OWN_PROGRAM)? {
        return Ok(());
    }
    let copy = match clone_mount() {
        Ok(copy) => copy,
        // A file in memory is on no mount that could be copied, and an ordinary user may copy none.
        Err(_) if is_sealed() => return Ok(()),
        Err(_) => copy_to_memory().step("copy", OWN_PROGRAM)?,
    };
    let (arguments, environment) = call.to_lists();
    let error = sys::execute_file(copy.as_fd(), &arguments, &environment);
    Err::<(), _>(error).step("start again", OWN_PROGRAM)
}

/// Whether the program was started through a read-only mount. The kernel says; an environment variable could be forged.
fn is_mounted_readonly() -> Result<bool, Errno> {
    Ok(rustix::fs::statvfs(OWN_PROGRAM)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Whether the program was started from a copy in memory that nobody can change any more.
fn is_sealed() -> bool {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let seals =
        rustix::fs::openat(CWD, OWN_PROGRAM, flags, Mode::empty()).and_then(rustix::fs::fcntl_get_seals);
    seals.is_ok_and(|seals| seals.contains(SealFlags::WRITE | SealFlags::SHRINK))
}

fn clone_mount() -> Result<OwnedFd, std::io::Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let copy = open_tree(CWD, OWN_PROGRAM, flags)?;
    sys::set_mount_attributes(copy.as_fd(), c"", false, &READ_ONLY)?;
    Ok(copy)
}

fn copy_to_memory() -> Result<OwnedFd, Errno> {
    let own = rustix::fs::openat(CWD, OWN_PROGRAM, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let name: CString = c"inspect-runtime".to_owned();
    let copy = rustix::fs::memfd_create(name.as_c_str(), MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    while rustix::fs::sendfile(&copy, &own, None, 1 << 30)? > 0 {}
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy)
}
