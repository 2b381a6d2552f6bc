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
            mask_all_from_proc(root, masked, null.as_fd())?;
        } else {
            masked.iter().try_for_each(|path| mask_slowly(root, path, null.as_fd()))?;
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

/// Masks everything from `/proc`, the current directory, where descriptors have names.
fn mask_all_from_proc(
    root: BorrowedFd<'_>,
    masked: &[CString],
    null: BorrowedFd<'_>,
) -> Result<(), StepError> {
    let mut cover = Cover { null: DescriptorPath::new(null), directory: Directory::None };
    for (path, name) in masked.iter().filter_map(|path| Some((path, below_proc(path)?))) {
        cover.mask_in_proc(name).step("mask", path.to_string_lossy())?;
    }
    let mut places = Vec::new();
    for path in masked.iter().filter(|path| below_proc(path).is_none()) {
        let place = match resolve::open_path(root, path) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            result => result.step("open", path.to_string_lossy())?,
        };
        cover.mask_place(root, path, place.as_fd()).step("mask", path.to_string_lossy())?;
        // Closed together, or by execve.
        if places.len() == KEPT {
            places.clear();
        }
        places.push(place);
    }
    std::mem::forget((places, cover));
    Ok(())
}

/// How many descriptors stay open before they are closed.
const KEPT: usize = 32;

/// What is put over masked paths. All directories share one file system, as with runc: Docker masks one for each processor.
struct Cover<'p> {
    null: DescriptorPath,
    directory: Directory<'p>,
}

/// Where the empty directory is mounted already.
enum Directory<'p> {
    None,
    /// Below the current directory.
    Named(&'p CStr),
    /// Below the root, and not yet opened.
    Elsewhere(&'p CStr),
    Opened(OwnedFd),
}

impl<'p> Cover<'p> {
    /// One call where the path is what it is expected to be or not there, two otherwise. The source is a magic link below the
    /// same procfs.
    fn mask_in_proc(&mut self, name: &'p CStr) -> Result<(), Errno> {
        let is_directory = DIRECTORIES.contains(&name);
        match if is_directory { self.cover_directory(name) } else { self.cover_file(name) } {
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTDIR) if is_directory => return self.cover_file(name),
            Err(Errno::NOTDIR) => self.cover_directory(name)?,
            Ok(()) if is_directory => {}
            result => return result,
        }
        if matches!(self.directory, Directory::None) {
            self.directory = Directory::Named(name);
        }
        Ok(())
    }

    /// Masks what was opened at `path`: tried as a directory first.
    fn mask_place(
        &mut self,
        root: BorrowedFd<'_>,
        path: &'p CStr,
        place: BorrowedFd<'_>,
    ) -> Result<(), Errno> {
        if let Directory::Elsewhere(first) = self.directory {
            self.directory = Directory::Opened(resolve::open_path(root, first)?);
        }
        let target = DescriptorPath::new(place);
        match self.cover_directory(target.as_c_str()) {
            Err(Errno::NOTDIR) => return self.cover_file(target.as_c_str()),
            result => result?,
        }
        if matches!(self.directory, Directory::None) {
            self.directory = Directory::Elsewhere(path);
        }
        Ok(())
    }

    fn cover_file(&self, target: &CStr) -> Result<(), Errno> {
        mount(self.null.as_c_str(), target, c"", MountFlags::BIND, None)
    }

    /// A bind mount has the read-only attribute of its source.
    fn cover_directory(&self, target: &CStr) -> Result<(), Errno> {
        let opened;
        let source = match &self.directory {
            Directory::Named(name) => name,
            Directory::Opened(directory) => {
                opened = DescriptorPath::new(directory.as_fd());
                opened.as_c_str()
            }
            Directory::None | Directory::Elsewhere(_) => {
                return mount(c"tmpfs", target, c"tmpfs", MountFlags::RDONLY, None);
            }
        };
        mount(source, target, c"", MountFlags::BIND, None)
    }
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

/// Without a procfs to name descriptors in.
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

/// `self/fd/N`, without an allocation.
struct DescriptorPath([u8; 32]);

impl DescriptorPath {
    fn new(descriptor: BorrowedFd<'_>) -> Self {
        use std::io::Write as _;
        let mut buffer = [0_u8; 32];
        // The buffer has room for the longest descriptor.
        write!(&mut buffer[..], "self/fd/{}", descriptor.as_raw_fd()).ok();
        DescriptorPath(buffer)
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}
