//! Device nodes and the links of `/dev`.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, makedev};
use rustix::io::Errno;

use super::mounts;
use crate::plan::relative;
use crate::resolve;
use crate::step::{Step, StepError};
use crate::sys::{self, MountAttributes};
use crate::validate::{InvalidSpec, invalid};

/// A device node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct DevicePlan {
    /// Below the root, without a leading slash.
    path: CString,
    kind: FileType,
    major: u32,
    minor: u32,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl DevicePlan {
    /// A device of the spec.
    pub(crate) fn from_spec(device: &LinuxDevice) -> Result<Self, InvalidSpec> {
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::A => return Err(invalid("linux.devices.type", "no device has type `a`")),
        };
        let number =
            |value| u32::try_from(value).map_err(|_| invalid("linux.devices", "a number is below 0"));
        // A FIFO has no numbers.
        let is_fifo = kind == FileType::Fifo;
        Ok(DevicePlan {
            path: relative("linux.devices.path", device.path())?,
            kind,
            major: if is_fifo { 0 } else { number(device.major())? },
            minor: if is_fifo { 0 } else { number(device.minor())? },
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        })
    }

    /// Whether the node is at this path of the container.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        relative("linux.devices.path", path).is_ok_and(|path| path == self.path)
    }

    /// The same device on the host, to be bound.
    pub(super) fn host_path(&self) -> CString {
        CString::new([b"/", self.path.as_bytes()].concat()).unwrap_or_default()
    }

    fn display(&self) -> String {
        format!("/{}", self.path.to_string_lossy())
    }
}

/// The devices of runtime-spec's config-linux.md, "Default Devices".
pub(crate) fn default_devices() -> Vec<DevicePlan> {
    let numbers: [(&CStr, u32, u32); 6] = [
        (c"dev/null", 1, 3),
        (c"dev/random", 1, 8),
        (c"dev/full", 1, 7),
        (c"dev/tty", 5, 0),
        (c"dev/zero", 1, 5),
        (c"dev/urandom", 1, 9),
    ];
    let plan = |(path, major, minor): (&CStr, u32, u32)| DevicePlan {
        path: path.to_owned(),
        kind: FileType::CharacterDevice,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    numbers.into_iter().map(plan).collect()
}

/// Those of runtime-spec's runtime-linux.md, "Dev symbolic links", and `core`, which runc and crun make too.
const LINKS: [(&CStr, &CStr); 6] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"/proc/kcore", c"core"),
    (c"pts/ptmx", c"ptmx"),
];

/// Makes the nodes, or binds the host's (`trees`, in a user namespace), and the links. The file creation mask, which is none
/// for them, is the caller's again only with `restore_mask`: the container's process gets its own in the end.
pub(super) fn make(
    root: BorrowedFd<'_>,
    devices: &[DevicePlan],
    trees: &[OwnedFd],
    restore_mask: bool,
) -> Result<(), StepError> {
    let dev = resolve::open_or_make_directory(root, c"dev")?;
    let old_mask = rustix::process::umask(Mode::empty());
    for (index, device) in devices.iter().enumerate() {
        match trees.get(index) {
            Some(tree) => bind_device(root, device, tree)?,
            None => make_device(root, dev.as_fd(), device)?,
        }
    }
    for (target, name) in LINKS {
        link(dev.as_fd(), target, name)?;
    }
    if restore_mask {
        rustix::process::umask(old_mask);
    }
    // execve closes it.
    std::mem::forget(dev);
    Ok(())
}

fn make_device(root: BorrowedFd<'_>, dev: BorrowedFd<'_>, device: &DevicePlan) -> Result<(), StepError> {
    let path = device.path.to_bytes();
    match path.strip_prefix(b"dev/").filter(|name| !name.contains(&b'/')) {
        Some(_) => {
            let name = CStr::from_bytes_with_nul(&device.path.as_bytes_with_nul()[4..]).unwrap_or(c"");
            make_node(dev, name, device)
        }
        None => {
            let (parent, name) = resolve::open_parent(root, &device.path)?;
            make_node(parent.as_fd(), &name, device)
        }
    }
}

fn make_node(directory: BorrowedFd<'_>, name: &CStr, device: &DevicePlan) -> Result<(), StepError> {
    let number = makedev(device.major, device.minor);
    match rustix::fs::mknodat(directory, name, device.kind, Mode::from_raw_mode(device.mode), number) {
        Ok(()) => {}
        Err(Errno::EXIST) => return check_node(directory, name, device),
        Err(error) => return Err(error).step("make the device", device.display()),
    }
    if device.uid == 0 && device.gid == 0 {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .step("change the owner of", device.display())
}

/// An image may bring something of that name: only the very device is taken for it.
fn check_node(directory: BorrowedFd<'_>, name: &CStr, device: &DevicePlan) -> Result<(), StepError> {
    let stat =
        rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).step("examine", device.display())?;
    let is_same = FileType::from_raw_mode(stat.st_mode) == device.kind
        && (device.kind == FileType::Fifo || stat.st_rdev == makedev(device.major, device.minor));
    if is_same {
        Ok(())
    } else {
        Err(StepError::refused("make the device", device.display(), "something else is there"))
    }
}

fn bind_device(root: BorrowedFd<'_>, device: &DevicePlan, tree: &OwnedFd) -> Result<(), StepError> {
    let stat = rustix::fs::fstat(tree).step("examine the host's", device.display())?;
    let is_same = FileType::from_raw_mode(stat.st_mode) == device.kind
        && stat.st_rdev == makedev(device.major, device.minor);
    if !is_same {
        return Err(StepError::refused("bind the host's", device.display(), "it is another device there"));
    }
    let cut = MountAttributes { propagation: libc::MS_SLAVE, ..MountAttributes::default() };
    sys::set_mount_attributes(tree.as_fd(), c"", false, &cut).step("cut off", device.display())?;
    let place = resolve::open_or_make_file(root, &device.path)?;
    mounts::move_tree(tree.as_fd(), place.as_fd(), c"").step("bind to", device.display())
}

/// A link that is there already stays where it says the same.
pub(super) fn link(directory: BorrowedFd<'_>, target: &CStr, name: &CStr) -> Result<(), StepError> {
    match rustix::fs::symlinkat(target, directory, name) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => {
            let present = rustix::fs::readlinkat(directory, name, Vec::new());
            // A regular devpts node `ptmx` and the like are the image's own choice; a link elsewhere is not.
            match present {
                Ok(present) if present.as_c_str() != target => {
                    let name = name.to_string_lossy();
                    Err(StepError::refused("make the link /dev/", name, "another link is there"))
                }
                _ => Ok(()),
            }
        }
        Err(error) => Err(error).step("make the link", name.to_string_lossy()),
    }
}

/// Whether a descriptor is the device 1:3 (CVE-2025-31133: a symlink in its place had anything bound over masked paths).
pub(super) fn check_null(null: BorrowedFd<'_>) -> Result<(), StepError> {
    let stat = rustix::fs::fstat(null).step("examine", "/dev/null")?;
    let is_null =
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3);
    if is_null {
        Ok(())
    } else {
        Err(StepError::refused("mask with", "/dev/null", "it is not the device 1:3"))
    }
}
