//! Changing the root: the old one is gone afterwards, not hidden.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_move, unmount,
};

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
    remove_host_procfs()?;
    match mount_move(c".", c"/") {
        // It was attached there to begin with.
        Ok(()) | Err(Errno::INVAL | Errno::LOOP) => {}
        Err(error) => return Err(error).step("move to `/`", "the root file system"),
    }
    rustix::process::chroot(c".").step("change the root to", "the root file system")?;
    rustix::process::chdir(c"/").step("enter", "the new root")
}

/// Takes the host's procfs and sysfs out of the mount namespace, where the old root stays. The kernel lets the root of a user
/// namespace mount a procfs while another is visible without masks: the host's would be, and so would the masks be undone.
fn remove_host_procfs() -> Result<(), StepError> {
    let path = "/proc/self/mountinfo";
    let text = std::fs::read(path).step("read", path)?;
    let own = rustix::process::getcwd(Vec::new()).step("examine", "the root file system")?;
    let mounts = text.split(|byte| *byte == b'\n').filter_map(parse_mount);
    for point in mounts.filter(|point| !is_below(point, own.to_bytes())) {
        let display = String::from_utf8_lossy(&point).into_owned();
        let propagation = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        match mount_change(point.as_slice(), propagation) {
            // One below another that is gone by now.
            Err(Errno::NOENT | Errno::INVAL) => continue,
            result => result.step("cut off", &display)?,
        }
        match unmount(point.as_slice(), UnmountFlags::DETACH) {
            // Locked by a user namespace above: then it is covered.
            Err(Errno::INVAL | Errno::PERM) => {
                mount(c"tmpfs", point.as_slice(), c"tmpfs", MountFlags::empty(), None)
                    .step("cover", &display)?;
            }
            result => result.step("detach", &display)?,
        }
    }
    Ok(())
}

/// Whether a mount point is a directory or anything below it; of `/` nothing is, which would be everything.
fn is_below(point: &[u8], directory: &[u8]) -> bool {
    let rest = point.strip_prefix(directory).filter(|_| directory != b"/");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// The mount point of a procfs or sysfs in a line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
fn parse_mount(line: &[u8]) -> Option<Vec<u8>> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = fields.nth(4)?;
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    matches!(kind, b"proc" | b"sysfs").then(|| unescape(point))
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                text.push(byte);
                rest = &after[3..];
            }
            None => {
                text.push(*first);
                rest = after;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_of_procfs_and_sysfs_are_found() {
        let line = br"36 35 0:22 / /a\040b/proc rw,nosuid shared:12 - proc proc rw";
        assert_eq!(parse_mount(line).unwrap(), b"/a b/proc");
        assert_eq!(parse_mount(b"1 2 0:1 / / rw - ext4 /dev/vda rw"), None);
        assert_eq!(parse_mount(b""), None);
        assert!(is_below(b"/b/rootfs/proc", b"/b/rootfs") && !is_below(b"/b/rootfs2", b"/b/rootfs"));
        assert!(!is_below(b"/proc", b"/"));
    }
}
