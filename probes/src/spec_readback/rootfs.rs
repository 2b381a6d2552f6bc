//! What is mounted at a path of the container, which may lead through the container's own symbolic links.

use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, openat, openat2, statx,
};

use crate::Host;
use crate::name::Pid;
use crate::process::{Mount, ProcessError, process_path, read_mountinfo};

/// A container's mounts, and on the live host its root directory.
pub(super) struct Rootfs {
    /// Held open: every path is resolved below it and cannot leave it.
    root: Option<OwnedFd>,
    pub(super) mounts: Vec<Mount>,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// The path is a mount point.
    Mounted(&'a Mount),
    /// It exists, as a part of this mount.
    Within(&'a Mount),
    /// It does not exist in the container.
    Missing,
    /// It cannot be told.
    Unknown,
}

impl Rootfs {
    /// `None` when the process has ended.
    pub(super) fn read(host: &Host, pid: Pid) -> Result<Option<Self>, ProcessError> {
        let Some(mounts) = read_mountinfo(host, pid)?.filter(|mounts| !mounts.is_empty()) else {
            return Ok(None);
        };
        let open = || {
            openat(CWD, process_path(host, pid, "root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()
        };
        let root = if host.is_live() { open() } else { None };
        Ok(Some(Self { root, mounts }))
    }

    /// What is at an absolute path inside.
    pub(super) fn find(&self, path: &str) -> Found<'_> {
        let Some(root) = &self.root else { return self.find_by_name(path) };
        // O_PATH opens no device and starts no automount; IN_ROOT keeps every link inside.
        let opened =
            openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT);
        let opened = match opened {
            Ok(opened) => opened,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Found::Missing,
            Err(_) => return self.find_by_name(path),
        };
        let Ok(status) = statx(&opened, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) else {
            return self.find_by_name(path);
        };
        let Some(mount) = self.mounts.iter().find(|mount| u64::from(mount.id) == status.stx_mnt_id) else {
            return Found::Unknown;
        };
        if status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            Found::Mounted(mount)
        } else {
            Found::Within(mount)
        }
    }

    /// By the mount points' names alone; the last mount on a point is the visible one.
    fn find_by_name(&self, path: &str) -> Found<'_> {
        let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        let mount = self.mounts.iter().rev().find(|mount| mount.mount_point == path);
        mount.map_or(Found::Unknown, Found::Mounted)
    }
}
