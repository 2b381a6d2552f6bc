//! Owners, modes, times and extended attributes, set through descriptors or on one name that is not followed.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::tree::{Directory, action};
use super::{EntryError, Losses, Ownership};
use crate::tar::{Entry, Timestamp};

/// Names of extended attributes that no image may set: they tell overlayfs what to show of a directory.
const REFUSED: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// The most bytes of all attribute names of one file: the kernel's `XATTR_LIST_MAX`.
const NAMES_LIMIT: usize = 65536;

pub(super) fn mode_of(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode)
}

/// Access and modification time. Without an access time that of modification serves, as in the other unpackers.
pub(super) fn times_of(entry: &Entry) -> [Timespec; 2] {
    let timespec = |time: Timestamp| Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) };
    [timespec(entry.atime.unwrap_or(entry.mtime)), timespec(entry.mtime)]
}

pub(super) fn timestamps(times: [Timespec; 2]) -> Timestamps {
    let [last_access, last_modification] = times;
    Timestamps { last_access, last_modification }
}

/// Gives attributes and counts what is lost.
#[derive(Debug)]
pub(super) struct Attributes {
    pub(super) ownership: Ownership,
    pub(super) losses: Losses,
}

impl Attributes {
    /// All of a regular file's, in the order that keeps them: chown drops setuid bits and file capabilities.
    pub(super) fn give_file(&mut self, fd: &OwnedFd, entry: &Entry) -> Result<(), EntryError> {
        self.give_owner(fd, c"", AtFlags::EMPTY_PATH, entry)?;
        self.give_xattrs(entry, |name, value| rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()))?;
        rustix::fs::fchmod(fd, mode_of(entry)).map_err(action("set the mode"))?;
        rustix::fs::futimens(fd, &timestamps(times_of(entry))).map_err(action("set the times"))
    }

    /// Owner and extended attributes of a directory, those of a lower layer gone; mode and times come at the end.
    pub(super) fn give_directory(
        &mut self,
        fd: &OwnedFd,
        entry: &Entry,
        is_new: bool,
    ) -> Result<(), EntryError> {
        self.give_owner(fd, c"", AtFlags::EMPTY_PATH, entry)?;
        if !is_new {
            drop_other_xattrs(fd, entry).map_err(action("remove an extended attribute"))?;
        }
        self.give_xattrs(entry, |name, value| rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()))
    }

    /// All of a symbolic link, a device node or a named pipe that was just made.
    pub(super) fn give_special(
        &mut self,
        directory: &Directory,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), EntryError> {
        self.give_owner(&directory.fd, name, AtFlags::SYMLINK_NOFOLLOW, entry)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&directory.fd, name, flags, Mode::empty()).map_err(action("open"))?;
        // A descriptor that opens nothing takes neither fsetxattr nor fchmod: its entry in /proc leads to the file.
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        self.give_xattrs(entry, |name, value| {
            rustix::fs::setxattr(link.as_str(), name, value, XattrFlags::empty())
        })?;
        let stat = rustix::fs::fstat(&fd).map_err(action("look at"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            rustix::fs::chmod(link.as_str(), mode_of(entry)).map_err(action("set the mode"))?;
        }
        let times = timestamps(times_of(entry));
        rustix::fs::utimensat(&directory.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(action("set the times"))
    }

    fn give_owner(
        &mut self,
        fd: &OwnedFd,
        name: impl rustix::path::Arg,
        flags: AtFlags,
        entry: &Entry,
    ) -> Result<(), EntryError> {
        if self.ownership == Ownership::Lost {
            self.losses.owners += u64::from(!is_own(entry));
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        match rustix::fs::chownat(fd, name, Some(uid), Some(gid), flags) {
            Ok(()) => Ok(()),
            // In a user namespace: an id that is not mapped there.
            Err(Errno::INVAL) => {
                self.losses.owners += 1;
                Ok(())
            }
            Err(errno) => Err(action("set the owner")(errno)),
        }
    }

    fn give_xattrs(
        &mut self,
        entry: &Entry,
        set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
    ) -> Result<(), EntryError> {
        for (name, value) in &entry.xattrs {
            if REFUSED.iter().any(|refused| name.starts_with(refused)) {
                self.losses.refused_xattrs += 1;
                continue;
            }
            match set(name, value) {
                Ok(()) => {}
                // Not taken by this file system, this kind of file, or this user; the file itself is whole.
                Err(Errno::NOTSUP | Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::RANGE) => {
                    self.losses.xattrs += 1
                }
                Err(errno) => return Err(action("set an extended attribute")(errno)),
            }
        }
        Ok(())
    }
}

/// Whether the image gives the file to root: who unpacks is the container's root, so nothing is lost.
fn is_own(entry: &Entry) -> bool {
    entry.uid == 0 && entry.gid == 0
}

/// A layer that lists a directory again says all of its attributes: others of a lower layer are gone.
fn drop_other_xattrs(fd: impl AsFd, entry: &Entry) -> Result<(), Errno> {
    let mut names = vec![0; NAMES_LIMIT];
    let length = match rustix::fs::flistxattr(&fd, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // The label is the host's to give.
        if name == b"security.selinux" || entry.xattrs.iter().any(|(given, _)| given == name) {
            continue;
        }
        match rustix::fs::fremovexattr(&fd, name) {
            Ok(()) | Err(Errno::PERM | Errno::ACCESS | Errno::NODATA | Errno::NOTSUP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
