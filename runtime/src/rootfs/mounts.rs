//! One mount: its target is resolved inside the root and opened, and the mount is made on what was opened.
//!
//! New file systems are mounted on `.` after fchdir(2) to the target: two calls, and no path for anybody to swap.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree,
};

use super::options::BindAttributes;
use super::targets::{Targets, check_not_in_procfs, display};
use super::{Place, tmpcopyup};
use crate::plan::{IdmapPlan, MountKind, MountPlan};
use crate::resolve;
use crate::step::{Step, StepError};
use crate::sys::{self, MountAttributes};

const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

/// Maps the ids of a detached mount, and of those below it, as a user namespace does.
pub(crate) type MapIds<'a> = &'a dyn Fn(&OwnedFd, bool, BorrowedFd<'_>) -> std::io::Result<()>;

/// Makes a mount of the plan.
pub(super) fn apply(
    plan: &MountPlan,
    place: &Place<'_>,
    targets: &mut Targets<'_>,
    tree: Option<&OwnedFd>,
    idmap: Option<BorrowedFd<'_>>,
) -> Result<(), StepError> {
    let target = plan.target.as_c_str();
    let mounted = match (&plan.kind, tree) {
        (MountKind::Filesystem { kind, source, flags, data, strict, copy_up, .. }, _) => {
            // procfs and sysfs carry what is masked later: they go where the spec says, not where a symlink of the image
            // leads.
            let root = targets.root();
            let data = &inherit_mode(kind, data, root, target).step("examine", display(target))?;
            let directory = targets.open_directory(target, *strict)?;
            if needs_network(&plan.kind) {
                place.network.join()?;
            }
            let covered = if *copy_up { Some(tmpcopyup::open(root, target)?) } else { None };
            mount_on(&directory, source, kind, *flags, data)
                .step("mount", format_args!("{} on /{}", kind.to_string_lossy(), target.to_string_lossy()))?;
            if kind.as_c_str() == c"tmpfs" && covered.is_none() && *flags & libc::MS_REMOUNT == 0 {
                targets.mounted_empty(target, directory);
            } else {
                targets.mounted(target, directory);
            }
            if let Some(covered) = covered {
                tmpcopyup::copy(&covered, root, target)?;
            }
            None
        }
        (MountKind::Bind { attributes, .. }, Some(tree)) => {
            return bind(targets, target, tree, attributes, plan);
        }
        (MountKind::Cgroup { flags, attributes }, _) => {
            mount_cgroup(place, targets, target, *flags, attributes)?
        }
        (MountKind::Bind { inner, recursive, attributes, idmap: plan_idmap, .. }, None) => {
            let tree = open_inner(targets.root(), inner.as_deref().unwrap_or(c""), *recursive)?;
            set_idmap(&tree, plan_idmap.as_ref(), idmap, place.map_ids)
                .step("map the ids of", display(target))?;
            return bind(targets, target, &tree, attributes, plan);
        }
    };
    finish(plan, targets.root(), mounted)
}

/// Whether a file system belongs to the network namespace of who mounts it: sysfs shows its devices, others talk over it. Those
/// that containers usually have besides do not.
pub(super) fn needs_network(mount: &MountKind) -> bool {
    matches!(mount, MountKind::Filesystem { kind, .. } if !KERNELS_OWN.contains(&kind.to_bytes()))
}

/// Whether a mount can be made where the host's root is out of reach: from nothing, or from what is open. Sources and options of
/// others are paths. (The cgroup is bound by its path only where the container has no cgroup namespace.)
pub(super) fn needs_no_path(mount: &MountKind) -> bool {
    !needs_network(mount)
        || matches!(mount, MountKind::Filesystem { kind, .. } if kind.as_c_str() == c"sysfs")
}

const KERNELS_OWN: [&[u8]; 6] = [b"proc", b"tmpfs", b"devpts", b"mqueue", b"cgroup", b"cgroup2"];

/// Copies a source that is in the container's own tree, where a mount that the spec lists before may have brought it.
fn open_inner(root: BorrowedFd<'_>, source: &CStr, recursive: bool) -> Result<OwnedFd, StepError> {
    let opened = resolve::open_path(root, source).step("open the mount source", display(source))?;
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(&opened, c"", flags).step("copy the mount source", display(source))
}

/// A tmpfs without a mode of its own has that of the directory it covers, if one is there, as with other runtimes.
fn inherit_mode<'d>(
    kind: &CStr,
    data: &'d CStr,
    root: BorrowedFd<'_>,
    target: &CStr,
) -> Result<std::borrow::Cow<'d, CStr>, Errno> {
    let has_mode = data.to_bytes().split(|byte| *byte == b',').any(|one| one.starts_with(b"mode="));
    if kind != c"tmpfs" || has_mode {
        return Ok(data.into());
    }
    let covered = match resolve::open_path(root, target) {
        Err(Errno::NOENT) => return Ok(data.into()),
        result => result?,
    };
    let mode = rustix::fs::fstat(&covered)?.st_mode & 0o7777;
    let comma = if data.is_empty() { "" } else { "," };
    let text = format!("{}{comma}mode={mode:o}", data.to_string_lossy());
    Ok(std::ffi::CString::new(text).map_err(|_| Errno::INVAL)?.into())
}

fn mount_on(directory: &OwnedFd, source: &CStr, kind: &CStr, flags: u64, data: &CStr) -> Result<(), Errno> {
    rustix::process::fchdir(directory)?;
    let data = (!data.is_empty()).then_some(data);
    mount(source, c".", kind, mount_flags(flags), data)
}

fn mount_flags(flags: u64) -> MountFlags {
    // Every flag of the option table fits.
    MountFlags::from_bits_retain(u32::try_from(flags).unwrap_or(u32::MAX))
}

/// `MS_*` propagation as rustix has it.
pub(super) fn propagation_flags(flags: u64) -> MountPropagationFlags {
    MountPropagationFlags::from_bits_retain(u32::try_from(flags).unwrap_or(0))
}

/// Attaches a detached mount to what `path` names below `directory`.
pub(super) fn move_tree(tree: BorrowedFd<'_>, directory: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    if path.is_empty() {
        flags |= MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    }
    move_mount(tree, c"", directory, path, flags)
}

/// A bind mount: attributes are set on the detached copy, so that it is never there without them.
fn bind(
    targets: &mut Targets<'_>,
    target: &CStr,
    tree: &OwnedFd,
    attributes: &BindAttributes,
    plan: &MountPlan,
) -> Result<(), StepError> {
    let stat = rustix::fs::fstat(tree).step("examine the source of", display(target))?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    // A copy of a shared mount is its peer: unless the spec wants that, what happens in the container stays there.
    let (first, rest) = match plan.propagation.as_slice() {
        [] => (libc::MS_SLAVE, [].as_slice()),
        [flags] if flags & !libc::MS_REC != libc::MS_SHARED && flags & libc::MS_REC != 0 => {
            (flags & !libc::MS_REC, [].as_slice())
        }
        several => (libc::MS_SLAVE, several),
    };
    let whole_tree = MountAttributes { propagation: first, ..plan.recursive };
    set_bind_attributes(tree.as_fd(), is_directory, &whole_tree, attributes)
        .step("set the attributes of", display(target))?;
    let place = if is_directory {
        let place = targets.open_directory(target, false)?;
        check_not_in_procfs(&place, target)?;
        place
    } else {
        targets.open_file(target)?
    };
    move_tree(tree.as_fd(), place.as_fd(), c"").step("bind to", display(target))?;
    targets.mounted(target, place);
    for flags in rest {
        set_propagation(tree.as_fd(), *flags).step("change the propagation of", display(target))?;
    }
    Ok(())
}

/// Sets what is for the topmost mount, and then what is for the whole tree, which has the last word there, too: `rro` holds beside
/// `nosuid`, which asks for nothing else. A file has no mounts below: one call does both.
fn set_bind_attributes(
    tree: BorrowedFd<'_>,
    is_directory: bool,
    whole_tree: &MountAttributes,
    top: &BindAttributes,
) -> std::io::Result<()> {
    let both = MountAttributes {
        set: top.replaced.set & !whole_tree.clear | whole_tree.set,
        clear: top.replaced.clear & !whole_tree.set | whole_tree.clear,
        ..*whole_tree
    };
    if !is_directory
        && both.set & both.clear == 0
        && sys::set_mount_attributes(tree, c"", false, &both).is_ok()
    {
        return Ok(());
    }
    if *top != BindAttributes::default()
        && sys::set_mount_attributes(tree, c"", false, &top.replaced).is_err()
    {
        sys::set_mount_attributes(tree, c"", false, &top.added)?;
    }
    sys::set_mount_attributes(tree, c"", true, whole_tree)
}

fn set_propagation(mount: BorrowedFd<'_>, flags: u64) -> std::io::Result<()> {
    let attributes = MountAttributes { propagation: flags & !libc::MS_REC, ..MountAttributes::default() };
    sys::set_mount_attributes(mount, c"", flags & libc::MS_REC != 0, &attributes)
}

/// Maps the ids of a source in the container's own tree, as its own map says.
fn set_idmap(
    tree: &OwnedFd,
    plan: Option<&IdmapPlan>,
    namespace: Option<BorrowedFd<'_>>,
    map_ids: MapIds<'_>,
) -> std::io::Result<()> {
    let (Some(plan), Some(namespace)) = (plan, namespace) else { return Ok(()) };
    map_ids(tree, plan.recursive, namespace)
}

/// Maps the ids of a detached mount as a user namespace does.
pub(crate) fn map_ids(tree: &OwnedFd, recursive: bool, namespace: BorrowedFd<'_>) -> std::io::Result<()> {
    let attributes = MountAttributes {
        set: MOUNT_ATTR_IDMAP,
        user_namespace: u64::from(std::os::fd::AsRawFd::as_raw_fd(&namespace).cast_unsigned()),
        ..MountAttributes::default()
    };
    sys::set_mount_attributes(tree.as_fd(), c"", recursive, &attributes)
}

/// The container's cgroup: a new cgroup2 instance is rooted in its cgroup namespace. Without one the host's mount is bound, whose
/// root is that of the paths in `/proc/self/cgroup`; a new instance from the host's namespace would show the same, and change
/// the options of the whole hierarchy. In a user namespace it is the container's own cgroup, as with runc.
fn mount_cgroup(
    place: &Place<'_>,
    targets: &mut Targets<'_>,
    target: &CStr,
    flags: u64,
    attributes: &MountAttributes,
) -> Result<Option<OwnedFd>, StepError> {
    let directory = targets.open_directory(target, false)?;
    if place.has_cgroup_namespace {
        match mount_on(&directory, c"cgroup", c"cgroup2", flags, c"") {
            // In a user namespace that does not own the cgroup namespace.
            Err(Errno::PERM | Errno::BUSY) => {}
            result => {
                targets.mounted(target, directory);
                return result.step("mount cgroup2 on", display(target)).map(|()| None);
            }
        }
    }
    let source =
        if place.has_host_rights { c"/sys/fs/cgroup".to_owned() } else { own_cgroup(place.procfs.get()?)? };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, source.as_c_str(), flags).step("open the cgroup", source.to_string_lossy())?;
    let private = MountAttributes { propagation: libc::MS_PRIVATE, ..*attributes };
    sys::set_mount_attributes(tree.as_fd(), c"", false, &private)
        .step("set the attributes of", display(target))?;
    move_tree(tree.as_fd(), directory.as_fd(), c"").step("bind to", display(target))?;
    targets.mounted(target, directory);
    Ok(Some(tree))
}

fn own_cgroup(procfs: BorrowedFd<'_>) -> Result<std::ffi::CString, StepError> {
    let file = resolve::open_own(procfs, c"self/cgroup", OFlags::RDONLY).step("open", "/proc/self/cgroup")?;
    let text = std::io::read_to_string(std::fs::File::from(file)).step("read", "/proc/self/cgroup")?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    std::ffi::CString::new(format!("/sys/fs/cgroup{own}"))
        .map_err(|_| Errno::INVAL)
        .step("use the cgroup", own)
}

/// What can be set only on a mount that is there.
fn finish(plan: &MountPlan, root: BorrowedFd<'_>, mounted: Option<OwnedFd>) -> Result<(), StepError> {
    if plan.recursive == MountAttributes::default() && plan.propagation.is_empty() {
        return Ok(());
    }
    let target = display(&plan.target).to_string();
    let mounted = match mounted {
        Some(mounted) => mounted,
        None => resolve::open_path(root, &plan.target).step("open", &target)?,
    };
    if plan.recursive != MountAttributes::default() {
        sys::set_mount_attributes(mounted.as_fd(), c"", true, &plan.recursive)
            .step("set the attributes of", &target)?;
    }
    for flags in &plan.propagation {
        set_propagation(mounted.as_fd(), *flags).step("change the propagation of", &target)?;
    }
    Ok(())
}
