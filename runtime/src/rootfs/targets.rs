//! The places of mounts below the root, opened with as few system calls as it takes: several targets often have one
//! parent, which is opened once.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::resolve;
use crate::step::{Step, StepError};

/// How many descriptors stay open before they are closed together. Those left when init becomes its payload close then.
const KEPT: usize = 32;

/// Opens targets below a root.
pub(super) struct Targets<'fd> {
    root: BorrowedFd<'fd>,
    /// The parent of the last target that was missing, and its path. Valid until something is mounted elsewhere.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// The target of the last mount, if it was of an empty file system: nothing is to be looked for below it.
    empty: Option<Vec<u8>>,
    used: Vec<OwnedFd>,
}

impl<'fd> Targets<'fd> {
    pub(super) fn below(root: BorrowedFd<'fd>) -> Self {
        Targets { root, parent: None, empty: None, used: Vec::with_capacity(KEPT) }
    }

    /// The root.
    pub(super) fn root(&self) -> BorrowedFd<'fd> {
        self.root
    }

    /// Opens the directory `target`, made if it is missing. With `strict` no part of the path may be a symlink.
    pub(super) fn open_directory(&mut self, target: &CStr, strict: bool) -> Result<OwnedFd, StepError> {
        let (parent, name) = resolve::split(target.to_bytes());
        if self.parent.as_ref().is_none_or(|(path, _)| path != parent) {
            self.forget_parent();
            let is_missing = self.empty.as_deref() == Some(parent);
            match self.open_unless(is_missing, target) {
                Err(Errno::NOENT) => {}
                Err(Errno::LOOP) if strict => {
                    return Err(StepError::refused(
                        "mount on",
                        display(target),
                        "there is a symlink in the path, and it must be mounted on ordinary directory",
                    ));
                }
                Err(Errno::LOOP) => return self.follow(target),
                result => return result.step("open the directory", display(target)),
            }
            if strict || name.is_empty() {
                // Rare: made in the general way, then looked at.
                resolve::open_or_make_directory(self.root, target)?;
                return self.open_from_root(target).step("open the directory", display(target));
            }
            let text = String::from_utf8_lossy(parent);
            let path = CString::new(parent).map_err(|_| Errno::INVAL).step("use the path", &text)?;
            self.parent = Some((parent.to_vec(), resolve::open_or_make_directory(self.root, &path)?));
        }
        match self.make_in_parent(name) {
            // Something else is there, a symlink perhaps: the resolver knows what may be followed.
            Err(Errno::LOOP | Errno::NOTDIR) => {
                self.forget_parent();
                if strict {
                    resolve::open_or_make_directory(self.root, target)?;
                    return self.open_from_root(target).step("mount on", display(target));
                }
                self.follow(target)
            }
            result => result.step("make the directory", display(target)),
        }
    }

    fn open_unless(&self, is_missing: bool, target: &CStr) -> Result<OwnedFd, Errno> {
        if is_missing { Err(Errno::NOENT) } else { self.open_from_root(target) }
    }

    fn open_from_root(&self, target: &CStr) -> Result<OwnedFd, Errno> {
        resolve::open_ordinary(self.root, target, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Opens a directory with a symlink in its path, which may lead anywhere in the container but into procfs.
    #[cold]
    fn follow(&self, target: &CStr) -> Result<OwnedFd, StepError> {
        let directory = resolve::open_or_make_directory(self.root, target)?;
        check_not_in_procfs(&directory, target)?;
        Ok(directory)
    }

    fn make_in_parent(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        let Some((_, parent)) = &self.parent else { return Err(Errno::NOTDIR) };
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        match rustix::fs::mkdirat(parent, &name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        resolve::open_plain(parent.as_fd(), &name, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Opens the target of a file's mount, made if it is missing. On another mount than the root's it must not be in procfs,
    /// where a symlink in the image may have led.
    pub(super) fn open_file(&mut self, target: &CStr) -> Result<OwnedFd, StepError> {
        match resolve::open_on_same_mount(self.root, target) {
            Ok(place) => Ok(place),
            Err(_) => {
                let place = resolve::open_or_make_file(self.root, target)?;
                check_not_in_procfs(&place, target)?;
                Ok(place)
            }
        }
    }

    /// Something was mounted on `target`. What was opened by another path may now be covered.
    pub(super) fn mounted(&mut self, target: &CStr, place: OwnedFd) {
        self.empty = None;
        let (parent, _) = resolve::split(target.to_bytes());
        if self.parent.as_ref().is_some_and(|(path, _)| path != parent) {
            self.forget_parent();
        }
        self.keep(place);
    }

    /// As [`Self::mounted`], and it was a new and empty file system.
    pub(super) fn mounted_empty(&mut self, target: &CStr, place: OwnedFd) {
        self.mounted(target, place);
        self.empty = Some(target.to_bytes().to_vec());
    }

    fn forget_parent(&mut self) {
        if let Some((_, descriptor)) = self.parent.take() {
            self.keep(descriptor);
        }
    }

    /// Closes the descriptor some time: alone it would cost a system call.
    fn keep(&mut self, descriptor: OwnedFd) {
        if self.used.len() == KEPT {
            self.used.clear();
        }
        self.used.push(descriptor);
    }

    /// Leaves what is still open to execve, which closes it.
    pub(super) fn finish(self) {
        std::mem::forget(self.used);
        std::mem::forget(self.parent);
    }
}

/// A symlink in the image may lead a mount into `/proc`, where the spec alone was checked: the opened target decides. `/procx` is
/// not in `/proc`, whatever the image makes of it.
pub(super) fn check_not_in_procfs(place: &OwnedFd, target: &CStr) -> Result<(), StepError> {
    let below = target.to_bytes().strip_prefix(b"proc");
    if below.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")) {
        return Ok(());
    }
    let magic = rustix::fs::fstatfs(place).step("examine", display(target))?.f_type;
    if magic == libc::PROC_SUPER_MAGIC {
        return Err(StepError::refused("mount on", display(target), "it leads into procfs"));
    }
    Ok(())
}

/// A target as a path of the container, for messages: made only when one is shown.
pub(super) fn display(target: &CStr) -> impl std::fmt::Display + '_ {
    std::fmt::from_fn(move |formatter| write!(formatter, "/{}", target.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::CWD;

    use super::*;

    #[test]
    fn symlinks_lead_no_mount_into_procfs() {
        let root = rustix::fs::openat(CWD, c"/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        symlink("/proc", directory.path().join("procx")).unwrap();
        symlink("/dev", directory.path().join("elsewhere")).unwrap();
        let open = |name: &str| {
            let target = directory.path().strip_prefix("/").unwrap().join(name);
            let target = CString::new(target.to_str().unwrap()).unwrap();
            Targets::below(root.as_fd()).open_directory(&target, false).map(drop)
        };
        for name in ["procx", "procx/sys"] {
            assert!(open(name).unwrap_err().to_string().contains("mount on"), "{name}");
        }
        open("elsewhere").unwrap();
    }

    #[test]
    fn a_name_that_begins_like_proc_is_not_in_it() {
        let procfs = rustix::fs::openat(CWD, c"/proc/sys", OFlags::PATH, Mode::empty()).unwrap();
        assert!(check_not_in_procfs(&procfs, c"procx/sys").is_err());
        for allowed in [c"proc", c"proc/cpuinfo"] {
            check_not_in_procfs(&procfs, allowed).unwrap();
        }
    }
}
