//! Masked and read-only paths. Those in procfs and sysfs, which no image can prepare, are reached by name from a checked
//! mount; all others through the resolver.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

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
        let magic = rustix::fs::fstatfs(&directory).ok()?.f_type;
        (magic == libc::PROC_SUPER_MAGIC).then_some(Procfs(directory))
    }
}

/// The part of a path below `/proc`.
fn below_proc(path: &CStr) -> Option<&CStr> {
    let name = path.to_bytes_with_nul().strip_prefix(b"proc/")?;
    CStr::from_bytes_with_nul(name).ok()
}

/// Binds each of the `readonly` paths to itself, read-only, and covers each of the `masked`: files with the container's
/// `/dev/null`, which was made a moment ago and is checked here again, directories with an empty tmpfs. What is not there
/// needs no protection. Leaves the current directory anywhere in the container: the working directory comes next.
pub(super) fn protect(
    root: BorrowedFd<'_>,
    readonly: &[CString],
    masked: &[CString],
) -> Result<(), StepError> {
    if readonly.is_empty() && masked.is_empty() {
        return Ok(());
    }
    let procfs = Procfs::open(root);
    if let Some(procfs) = &procfs {
        rustix::process::fchdir(&procfs.0).step("enter", "/proc")?;
        for (path, name) in readonly.iter().filter_map(|path| Some((path, below_proc(path)?))) {
            make_readonly_in_proc(procfs, name).step("make read-only", path.to_string_lossy())?;
        }
    }
    let is_elsewhere = |path: &&CString| procfs.is_none() || below_proc(path).is_none();
    for path in readonly.iter().filter(is_elsewhere) {
        make_readonly_slowly(root, path)?;
    }
    if !masked.is_empty() {
        let null = resolve::open_path(root, c"dev/null").step("open", "/dev/null")?;
        devices::check_null(null.as_fd())?;
        if procfs.is_some() {
            mask_all_in_proc(masked, null.as_fd())?;
        }
        for path in masked.iter().filter(is_elsewhere) {
            mask_slowly(root, path, null.as_fd())?;
        }
        // execve closes it, and the other one.
        std::mem::forget(null);
    }
    std::mem::forget(procfs);
    Ok(())
}

fn make_readonly_in_proc(procfs: &Procfs, name: &CStr) -> std::io::Result<()> {
    match mount_bind_recursive(name, name) {
        Ok(()) => sys::set_mount_attributes(procfs.0.as_fd(), name, true, &READ_ONLY),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Masks what is below `/proc`, which is the current directory.
fn mask_all_in_proc(masked: &[CString], null: BorrowedFd<'_>) -> Result<(), StepError> {
    let mut source = [0_u8; 32];
    let source = descriptor_path(&mut source, null);
    for (path, name) in masked.iter().filter_map(|path| Some((path, below_proc(path)?))) {
        mask_in_proc(name, source).step("mask", path.to_string_lossy())?;
    }
    Ok(())
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

/// What is a directory wherever it is there: tried as one first.
const DIRECTORIES: [&CStr; 3] = [c"acpi", c"asound", c"scsi"];

/// One call where the path is what it is expected to be or not there, two otherwise. The source is a magic link below the same procfs.
fn mask_in_proc(name: &CStr, source: &CStr) -> Result<(), Errno> {
    let cover_file = || mount(source, name, c"", MountFlags::BIND, None);
    let cover_directory = || mount(c"tmpfs", name, c"tmpfs", MountFlags::RDONLY, None);
    let is_directory = DIRECTORIES.contains(&name);
    match if is_directory { cover_directory() } else { cover_file() } {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTDIR) if is_directory => cover_file(),
        Err(Errno::NOTDIR) => cover_directory(),
        result => result,
    }
}

fn mask_slowly(root: BorrowedFd<'_>, path: &CStr, null: BorrowedFd<'_>) -> Result<(), StepError> {
    let display = path.to_string_lossy();
    let place = match resolve::open_path(root, path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        result => result.step("open", &display)?,
    };
    // Only a directory can be entered.
    match rustix::process::fchdir(&place) {
        Err(Errno::NOTDIR) => {}
        entered => {
            entered.step("enter", &display)?;
            // execve closes it.
            std::mem::forget(place);
            return mount(c"tmpfs", c".", c"tmpfs", MountFlags::RDONLY, None).step("mask", &display);
        }
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
