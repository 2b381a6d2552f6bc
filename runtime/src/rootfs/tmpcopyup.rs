//! `tmpcopyup`: a tmpfs that starts with what the directory under it holds.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use crate::resolve;
use crate::step::{Step, StepError};

/// Opens the directory that is about to be covered.
pub(super) fn open(root: BorrowedFd<'_>, target: &CStr) -> Result<OwnedFd, StepError> {
    resolve::open_with(root, target, OFlags::RDONLY | OFlags::DIRECTORY)
        .step("open", target.to_string_lossy())
}

/// Copies what `covered` holds into the tmpfs now at `target`.
pub(super) fn copy(covered: &OwnedFd, root: BorrowedFd<'_>, target: &CStr) -> Result<(), StepError> {
    let tmpfs = open(root, target)?;
    copy_directory(covered.as_fd(), tmpfs.as_fd()).step("copy up", target.to_string_lossy())
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(from, to, name)?;
        }
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let inside = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, mode)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | inside;
            let below = rustix::fs::openat(from, name, flags, Mode::empty())?;
            let new = rustix::fs::openat(to, name, flags, Mode::empty())?;
            copy_directory(below.as_fd(), new.as_fd())?;
            own(&new, &stat, mode)
        }
        FileType::RegularFile => {
            let source = rustix::fs::openat(from, name, OFlags::RDONLY | inside, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | inside;
            let new = rustix::fs::openat(to, name, flags, mode)?;
            copy_content(&source, &new)?;
            own(&new, &stat, mode)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(&target, to, name)?;
            chown(to, name, &stat)
        }
        kind => {
            rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
            chown(to, name, &stat)
        }
    }
}

fn copy_content(source: &OwnedFd, new: &OwnedFd) -> Result<(), Errno> {
    while rustix::fs::sendfile(new, source, None, 1 << 20)? > 0 {}
    Ok(())
}

/// The mode comes last: changing the owner takes set-id bits away.
fn own(file: &OwnedFd, stat: &Stat, mode: Mode) -> Result<(), Errno> {
    rustix::fs::fchown(file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(file, mode)
}

fn chown(directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}
