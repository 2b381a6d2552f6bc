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

use super::options::ATTR_REPLACED;
use super::tmpcopyup;
use crate::plan::{IdmapPlan, MountKind, MountPlan};
use crate::resolve;
use crate::step::{Step, StepError};
use crate::sys::{self, MountAttributes};

const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

/// Where mounts are made.
#[derive(Clone, Copy)]
pub(super) struct Place<'fd> {
    pub(super) root: BorrowedFd<'fd>,
    /// The host's procfs.
    pub(super) procfs: BorrowedFd<'fd>,
    pub(super) has_cgroup_namespace: bool,
}

/// Makes a mount of the plan.
pub(super) fn apply(
    plan: &MountPlan,
    place: Place<'_>,
    tree: Option<&OwnedFd>,
    idmap: Option<BorrowedFd<'_>>,
) -> Result<(), StepError> {
    let target = plan.target.as_c_str();
    let mounted = match (&plan.kind, tree) {
        (MountKind::Filesystem { kind, source, flags, data, strict, copy_up }, _) => {
            let data = &inherit_mode(kind, data, place.root, target).step("examine", display(target))?;
            let directory = open_target(place.root, target, *strict)?;
            let covered = if *copy_up { Some(tmpcopyup::open(place.root, target)?) } else { None };
            mount_on(&directory, source, kind, *flags, data)
                .step("mount", format_args!("{} on /{}", kind.to_string_lossy(), target.to_string_lossy()))?;
            if let Some(covered) = covered {
                tmpcopyup::copy(&covered, place.root, target)?;
            }
            None
        }
        (MountKind::Bind { attributes, idmap: plan_idmap, .. }, Some(tree)) => {
            set_idmap(tree, plan_idmap.as_ref(), idmap).step("map the ids of", display(target))?;
            bind(place.root, target, tree, attributes, plan)?;
            return Ok(());
        }
        (MountKind::Cgroup { flags, attributes }, _) => mount_cgroup(place, target, *flags, attributes)?,
        (MountKind::Bind { inner, recursive, attributes, idmap: plan_idmap, .. }, None) => {
            let tree = open_inner(place.root, inner.as_deref().unwrap_or(c""), *recursive)?;
            set_idmap(&tree, plan_idmap.as_ref(), idmap).step("map the ids of", display(target))?;
            return bind(place.root, target, &tree, attributes, plan);
        }
    };
    finish(plan, place.root, mounted)
}

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

fn display(target: &CStr) -> String {
    format!("/{}", target.to_string_lossy())
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

/// procfs and sysfs carry what is masked later: they go where the spec says, not where a symlink of the image leads.
fn open_target(root: BorrowedFd<'_>, target: &CStr, strict: bool) -> Result<OwnedFd, StepError> {
    let directory = resolve::open_or_make_directory(root, target)?;
    if strict && !resolve::is_ordinary(root, target).step("examine", display(target))? {
        return Err(StepError::refused(
            "mount on",
            display(target),
            "there is a symlink in the path, and it must be mounted on ordinary directory",
        ));
    }
    Ok(directory)
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
    root: BorrowedFd<'_>,
    target: &CStr,
    tree: &OwnedFd,
    attributes: &MountAttributes,
    plan: &MountPlan,
) -> Result<(), StepError> {
    // A copy of a shared mount is its peer: unless the spec wants that, what happens in the container stays there.
    let own = plan.propagation.last().copied().unwrap_or(libc::MS_SLAVE | libc::MS_REC);
    let first = MountAttributes { propagation: libc::MS_SLAVE, ..plan.recursive };
    sys::set_mount_attributes(tree.as_fd(), c"", true, &first)
        .step("set the attributes of", display(target))?;
    if *attributes != MountAttributes::default() {
        // With any option given, a bind mount has just those, as after the remount of other runtimes: a source on a
        // noexec file system can be executed from. A read-only source stays so. In a user namespace the kernel keeps the
        // source's options locked: then what is asked for is added to them.
        let replaced = ATTR_REPLACED & !attributes.set;
        let whole = MountAttributes { clear: attributes.clear | replaced, ..*attributes };
        if sys::set_mount_attributes(tree.as_fd(), c"", false, &whole).is_err() {
            sys::set_mount_attributes(tree.as_fd(), c"", false, attributes)
                .step("set the attributes of", display(target))?;
        }
    }
    let stat = rustix::fs::fstat(tree).step("examine the source of", display(target))?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let place = if is_directory {
        resolve::open_or_make_directory(root, target)?
    } else {
        resolve::open_or_make_file(root, target)?
    };
    check_not_in_procfs(&place, target)?;
    move_tree(tree.as_fd(), place.as_fd(), c"").step("bind to", display(target))?;
    if own == libc::MS_SLAVE | libc::MS_REC {
        return Ok(());
    }
    for flags in &plan.propagation {
        set_propagation(tree.as_fd(), *flags).step("change the propagation of", display(target))?;
    }
    Ok(())
}

/// A symlink in the image may lead a bind into `/proc`, where the spec alone was checked: the opened target decides.
fn check_not_in_procfs(place: &OwnedFd, target: &CStr) -> Result<(), StepError> {
    if target.to_bytes().starts_with(b"proc") {
        return Ok(());
    }
    let magic = rustix::fs::fstatfs(place).step("examine", display(target))?.f_type;
    if magic == libc::PROC_SUPER_MAGIC {
        return Err(StepError::refused("bind to", display(target), "it leads into procfs"));
    }
    Ok(())
}

fn set_propagation(mount: BorrowedFd<'_>, flags: u64) -> std::io::Result<()> {
    let attributes = MountAttributes { propagation: flags & !libc::MS_REC, ..MountAttributes::default() };
    sys::set_mount_attributes(mount, c"", flags & libc::MS_REC != 0, &attributes)
}

fn set_idmap(
    tree: &OwnedFd,
    plan: Option<&IdmapPlan>,
    namespace: Option<BorrowedFd<'_>>,
) -> std::io::Result<()> {
    let Some(plan) = plan else { return Ok(()) };
    let Some(namespace) = namespace else {
        return Err(std::io::Error::other("the container has no user namespace"));
    };
    let attributes = MountAttributes {
        set: MOUNT_ATTR_IDMAP,
        user_namespace: u64::from(std::os::fd::AsRawFd::as_raw_fd(&namespace).cast_unsigned()),
        ..MountAttributes::default()
    };
    sys::set_mount_attributes(tree.as_fd(), c"", plan.recursive, &attributes)
}

/// The container's cgroup: a new cgroup2 instance is rooted in its cgroup namespace; without one the host's is bound, since a
/// new one from the host's namespace would show, and change the options of, the whole hierarchy.
fn mount_cgroup(
    place: Place<'_>,
    target: &CStr,
    flags: u64,
    attributes: &MountAttributes,
) -> Result<Option<OwnedFd>, StepError> {
    let directory = resolve::open_or_make_directory(place.root, target)?;
    if place.has_cgroup_namespace {
        match mount_on(&directory, c"cgroup", c"cgroup2", flags, c"") {
            // In a user namespace without a network or cgroup namespace of its own.
            Err(Errno::PERM) => {}
            result => return result.step("mount cgroup2 on", display(target)).map(|()| None),
        }
    }
    let own = own_cgroup(place.procfs)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, own.as_c_str(), flags).step("open the cgroup", own.to_string_lossy())?;
    let cut = MountAttributes { propagation: libc::MS_SLAVE, ..*attributes };
    sys::set_mount_attributes(tree.as_fd(), c"", false, &cut)
        .step("set the attributes of", display(target))?;
    move_tree(tree.as_fd(), directory.as_fd(), c"").step("bind to", display(target))?;
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
    let target = display(&plan.target);
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
