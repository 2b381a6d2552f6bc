//! Masked and read-only paths. Those in procfs and sysfs, which no image can prepare, are reached by name from a checked
//! mount; all others through the resolver.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::{MountFlags, OpenTreeFlags, mount, mount_bind_recursive, open_tree};

use super::{devices, mounts};
use crate::plan::READ_ONLY;
use crate::resolve;
use crate::step::{Step, StepError};
use crate::sys;

/// `/proc`, if a procfs is there, and the paths below it as the spec has them.
struct Procfs(OwnedFd);

impl Procfs {
    fn open(root: BorrowedFd<'_>) -> Option<Self> {
        let directory = resolve::open_path(root, c"proc").ok()?;
        resolve::is_procfs_root(directory.as_fd()).ok()?.then_some(Procfs(directory))
    }
}

/// The part of a path below `/proc`.
fn below_proc(path: &CStr) -> Option<&CStr> {
    let name = path.to_bytes_with_nul().strip_prefix(b"proc/")?;
    CStr::from_bytes_with_nul(name).ok()
}

/// Binds each path to itself, read-only. What is not there needs no protection.
pub(super) fn make_readonly(root: BorrowedFd<'_>, paths: &[CString]) -> Result<(), StepError> {
    if paths.is_empty() {
        return Ok(());
    }
    let procfs = Procfs::open(root);
    if let Some(procfs) = &procfs {
        rustix::process::fchdir(&procfs.0).step("enter", "/proc")?;
    }
    for path in paths {
        let display = path.to_string_lossy();
        match (below_proc(path), &procfs) {
            (Some(name), Some(procfs)) => match mount_bind_recursive(name, name) {
                Ok(()) => sys::set_mount_attributes(procfs.0.as_fd(), name, true, &READ_ONLY)
                    .step("make read-only", display)?,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error).step("make read-only", display),
            },
            _ => make_readonly_slowly(root, path)?,
        }
    }
    rustix::process::chdir(c"/").step("enter", "/")
}

fn make_readonly_slowly(root: BorrowedFd<'_>, path: &CStr) -> Result<(), StepError> {
    let display = path.to_string_lossy();
    let place = match resolve::open_path(root, path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        result => result.step("open", &display)?,
    };
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree =
        open_tree(&place, c"", flags | OpenTreeFlags::AT_RECURSIVE).step("copy the mount", &display)?;
    sys::set_mount_attributes(tree.as_fd(), c"", true, &READ_ONLY).step("make read-only", &display)?;
    mounts::move_tree(tree.as_fd(), place.as_fd(), c"").step("make read-only", &display)
}

/// Covers files with the container's `/dev/null`, which was made a moment ago and is checked here again, and directories
/// with an empty tmpfs.
pub(super) fn mask(root: BorrowedFd<'_>, paths: &[CString]) -> Result<(), StepError> {
    if paths.is_empty() {
        return Ok(());
    }
    let null = resolve::open_path(root, c"dev/null").step("open", "/dev/null")?;
    devices::check_null(null.as_fd())?;
    let procfs = Procfs::open(root);
    let mut source = [0_u8; 32];
    let source = descriptor_path(&mut source, null.as_fd());
    if let Some(procfs) = &procfs {
        rustix::process::fchdir(&procfs.0).step("enter", "/proc")?;
        for (path, name) in paths.iter().filter_map(|path| Some((path, below_proc(path)?))) {
            mask_in_proc(name, source).step("mask", path.to_string_lossy())?;
        }
    }
    for path in paths.iter().filter(|path| procfs.is_none() || below_proc(path).is_none()) {
        mask_slowly(root, path, null.as_fd())?;
    }
    rustix::process::chdir(c"/").step("enter", "/")
}

/// One call where the path is a file or not there, two for a directory. The source is a magic link below the same procfs.
fn mask_in_proc(name: &CStr, source: &CStr) -> Result<(), Errno> {
    match mount(source, name, c"", MountFlags::BIND, None) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTDIR) => mount(c"tmpfs", name, c"tmpfs", MountFlags::RDONLY, None),
        result => result,
    }
}

fn mask_slowly(root: BorrowedFd<'_>, path: &CStr, null: BorrowedFd<'_>) -> Result<(), StepError> {
    let display = path.to_string_lossy();
    let place = match resolve::open_path(root, path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        result => result.step("open", &display)?,
    };
    let stat = rustix::fs::fstat(&place).step("examine", &display)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        rustix::process::fchdir(&place).step("enter", &display)?;
        return mount(c"tmpfs", c".", c"tmpfs", MountFlags::RDONLY, None).step("mask", &display);
    }
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(null, c"", flags).step("copy the mount of", "/dev/null")?;
    mounts::move_tree(tree.as_fd(), place.as_fd(), c"").step("mask", &display)
}

/// `self/fd/N` without an allocation.
fn descriptor_path<'b>(buffer: &'b mut [u8; 32], descriptor: BorrowedFd<'_>) -> &'b CStr {
    use std::io::Write as _;
    let mut rest = &mut buffer[..];
    // The buffer has room for the longest descriptor.
    write!(rest, "self/fd/{}\0", descriptor.as_raw_fd()).ok();
    CStr::from_bytes_until_nul(buffer).unwrap_or(c"")
}
