//! Keeps containers from writing to the runtime's own file (CVE-2019-5736).
//!
//! A container can get hold of the program that a process about to become its payload was started from: as `/proc/PID/exe`,
//! or by naming `/proc/self/exe` as its entry point or its script's interpreter. The file behind that link is open through
//! the mount that the program was started from. So before a command that makes or enters a container, the runtime moves
//! itself to a private, read-only copy of that mount, which is attached nowhere, and which nobody can make writable any more
//! once the descriptor that holds it is closed. It maps itself from the file there and makes that its program
//! (`PR_SET_MM_MAP`); where the kernel does not let it, it starts itself once more from there. Commands that enter no
//! container skip this.

use std::cell::RefCell;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;

use crate::context::Call;
use crate::plan::READ_ONLY;
use crate::step::{Step, StepError};
use crate::sys::{self, OWN_PROGRAM, ProgramCopy};

/// For messages.
const PROGRAM: &str = "/proc/self/exe";

/// The private mount: letting go of it makes the kernel wait for all its processors. Processes of the container let go of it before
/// the container's program runs; the runtime's own may have it longer, where nobody but the host's root could get at it.
#[derive(Debug, Default)]
pub(crate) struct PrivateMount(RefCell<Option<ProgramCopy>>);

impl PrivateMount {
    /// Lets go of it. Every process that has a copy does so; whoever comes last waits for the kernel.
    pub(crate) fn release(&self) {
        drop(self.take());
    }

    /// Gives it to whoever is to let go of it.
    pub(crate) fn take(&self) -> Option<ProgramCopy> {
        self.0.take()
    }
}

/// Makes sure that the running program cannot be written to through `/proc/PID/exe`. Returns once that holds.
pub(crate) fn ensure(call: &Call) -> Result<PrivateMount, StepError> {
    let copy = ProgramCopy::new(&READ_ONLY);
    let has_moved = copy.as_ref().is_ok_and(|copy| sys::remap_program(copy, &call.arguments).is_ok());
    // The kernel is asked whether it took: this is what everything rests on.
    let is_readonly = is_mounted_readonly().step("examine", PROGRAM)?;
    if has_moved && is_readonly {
        return Ok(PrivateMount(RefCell::new(copy.ok())));
    }
    // Started again from a copy already, or never on anything that can be written to.
    if is_readonly || is_sealed() {
        return Ok(PrivateMount::default());
    }
    let place = match copy {
        Ok(copy) => copy.into_place(),
        Err(_) => copy_to_memory().step("copy", PROGRAM)?,
    };
    let (arguments, environment) = call.to_lists();
    let error = sys::execute_file(place.as_fd(), &arguments, &environment);
    Err::<(), _>(error).step("start again", PROGRAM).map(|()| PrivateMount::default())
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

fn copy_to_memory() -> Result<OwnedFd, Errno> {
    let own = rustix::fs::openat(CWD, OWN_PROGRAM, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let name: CString = c"inspect-runtime".to_owned();
    let copy = rustix::fs::memfd_create(name.as_c_str(), MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    while rustix::fs::sendfile(&copy, &own, None, 1 << 30)? > 0 {}
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy)
}
