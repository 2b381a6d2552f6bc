//! Changing the root: the old one is gone afterwards, not hidden.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_move, unmount};

use crate::step::{Step, StepError};

/// Makes the mount `root` the root of the mount namespace and detaches the old one.
///
/// pivot_root(".", ".") stacks the old root on the new one, so that neither a directory for it nor a path to it is needed.
pub(super) fn pivot(root: BorrowedFd<'_>, no_pivot: bool) -> Result<(), StepError> {
    rustix::process::fchdir(root).step("enter", "the root file system")?;
    if no_pivot {
        return move_root();
    }
    match rustix::process::pivot_root(c".", c".") {
        // The host runs from its initramfs, whose root cannot be exchanged.
        Err(Errno::INVAL) => return move_root(),
        result => result.step("pivot to", "the root file system")?,
    }
    // `.` leads through the mount stacked on it: to the old root, which `attach` has cut off from the host's mounts.
    unmount(c".", UnmountFlags::DETACH).step("detach", "the old root")?;
    rustix::process::chdir(c"/").step("enter", "the new root")
}

/// In a mount namespace that others live in, whose root stays theirs: the tree becomes the root of this process alone.
pub(crate) fn change_root(root: BorrowedFd<'_>) -> Result<(), StepError> {
    rustix::process::fchdir(root).step("enter", "the root file system")?;
    rustix::process::chroot(c".").step("change the root to", "the root file system")?;
    rustix::process::chdir(c"/").step("enter", "the new root")
}

/// The old way: the tree is moved over `/` and chroot(2) does the rest. Less strong, since the old root stays underneath.
fn move_root() -> Result<(), StepError> {
    match mount_move(c".", c"/") {
        // It was attached there to begin with.
        Ok(()) | Err(Errno::INVAL | Errno::LOOP) => {}
        Err(error) => return Err(error).step("move to `/`", "the root file system"),
    }
    rustix::process::chroot(c".").step("change the root to", "the root file system")?;
    rustix::process::chdir(c"/").step("enter", "the new root")
}
