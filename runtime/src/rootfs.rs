//! The container's file system. Everything below the root is reached from its descriptor, never by a path of the host.

pub(crate) mod devices;
mod masked_paths;
mod mounts;
pub(crate) mod options;
pub(crate) mod pivot;
mod targets;
mod tmpcopyup;

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, UnmountFlags, open_tree, unmount};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use self::targets::Targets;
use crate::namespaces::Joined;
use crate::plan::{IdmapPlan, MountKind, READ_ONLY, RootfsPlan};
use crate::process::init::LateNetwork;
use crate::resolve::HostProc;
use crate::step::{Step, StepError};
use crate::sys::{self, CloneRequest, Cloned, MountAttributes};
use crate::user_namespace::{self, IdMaps};

/// What the parent opens before the clone, while the host's paths still mean what the spec says.
#[derive(Debug)]
pub(crate) struct Sources {
    /// The root file system, as a detached copy of the host's tree there.
    pub(crate) root: OwnedFd,
    /// For each bind mount a detached copy of its source, with the ids of the spec mapped.
    trees: Vec<Option<OwnedFd>>,
    /// For a bind mount whose source is in the container, the user namespace with its map.
    idmaps: Vec<Option<OwnedFd>>,
    /// The host's devices, where the container may make none.
    devices: Vec<OwnedFd>,
}

impl Sources {
    /// Opens what `plan` names. `bind_devices`: in a user namespace device nodes cannot be made, only bound.
    pub(crate) fn open(plan: &RootfsPlan, bind_devices: bool) -> Result<Self, StepError> {
        let root = open_tree_at(&plan.path, true)?;
        let mut trees = Vec::with_capacity(plan.mounts.len());
        let mut idmaps = Vec::new();
        for mount in &plan.mounts {
            let MountKind::Bind { source, inner, recursive, idmap, .. } = &mount.kind else {
                trees.push(None);
                idmaps.push(None);
                continue;
            };
            let map = open_idmap(idmap.as_ref())?;
            if inner.is_some() {
                // In the container's own tree: opened when the mounts before it stand.
                trees.push(None);
                idmaps.push(map);
                continue;
            }
            let tree = open_tree_at(source, *recursive)?;
            // Here, not in init: it takes rights over the file system, which root of a user namespace lacks.
            if let (Some(idmap), Some(map)) = (idmap, map) {
                mounts::map_ids(&tree, idmap.recursive, map.as_fd())
                    .step("map the ids of", source.to_string_lossy())?;
            }
            trees.push(Some(tree));
            idmaps.push(None);
        }
        let mut device_trees = Vec::new();
        if bind_devices {
            for device in plan.devices.iter().flatten() {
                device_trees.push(open_tree_at(&device.host_path(), false)?);
            }
        }
        Ok(Sources { root, trees, idmaps, devices: device_trees })
    }
}

impl Sources {
    /// Hands everything on, in the order in which [`Self::receive`] takes it.
    pub(crate) fn send(
        &self,
        send: impl FnMut(BorrowedFd<'_>) -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        let of_mounts = self.trees.iter().zip(&self.idmaps).flat_map(|(tree, idmap)| [tree, idmap]);
        let all = std::iter::once(&self.root).chain(of_mounts.flatten()).chain(&self.devices);
        all.map(AsFd::as_fd).try_for_each(send)
    }

    /// Takes what [`Self::open`] with the same arguments opened elsewhere.
    pub(crate) fn receive(
        plan: &RootfsPlan,
        bind_devices: bool,
        mut next: impl FnMut() -> Result<OwnedFd, StepError>,
    ) -> Result<Self, StepError> {
        let root = next()?;
        let (mut trees, mut idmaps) = (Vec::new(), Vec::new());
        for mount in &plan.mounts {
            let (has_tree, has_map) = match &mount.kind {
                MountKind::Bind { inner: None, .. } => (true, false),
                MountKind::Bind { idmap: Some(IdmapPlan { maps: Some(_), .. }), .. } => (false, true),
                _ => (false, false),
            };
            trees.push(has_tree.then(&mut next).transpose()?);
            idmaps.push(has_map.then(&mut next).transpose()?);
        }
        let count = if bind_devices { plan.devices.as_ref().map_or(0, Vec::len) } else { 0 };
        let devices = std::iter::repeat_with(next).take(count).collect::<Result<_, _>>()?;
        Ok(Sources { root, trees, idmaps, devices })
    }
}

/// Maps the ids of a detached mount.
pub(crate) use mounts::{MapIds, map_ids};

fn open_idmap(idmap: Option<&IdmapPlan>) -> Result<Option<OwnedFd>, StepError> {
    match idmap {
        Some(IdmapPlan { maps: Some((uid, gid)), .. }) => {
            user_namespace::make_for_idmap(&IdMaps { uid: uid.clone(), gid: gid.clone() }).map(Some)
        }
        _ => Ok(None),
    }
}

fn open_tree_at(path: &CString, recursive: bool) -> Result<OwnedFd, StepError> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path.as_c_str(), flags).step("open the mount source", path.to_string_lossy())
}

impl Sources {
    /// The mounts whose ids are to be mapped as the container's own user namespace does, once that has its maps.
    pub(crate) fn mapped_as_container<'s>(
        &'s self,
        plan: &'s RootfsPlan,
    ) -> impl Iterator<Item = (&'s OwnedFd, bool)> {
        plan.mounts.iter().zip(&self.trees).filter_map(|(mount, tree)| match &mount.kind {
            MountKind::Bind { idmap: Some(IdmapPlan { recursive, maps: None }), .. } => {
                Some((tree.as_ref()?, *recursive))
            }
            _ => None,
        })
    }

    /// The root's mount, by which it is found again in a mount namespace that is not the container's own.
    pub(crate) fn root_mount(&self) -> Result<u64, StepError> {
        mount_at(self.root.as_fd(), Path::new("")).step("examine", "the root file system")
    }
}

/// The mount that is on top at a path.
fn mount_at(directory: BorrowedFd<'_>, path: &Path) -> Result<u64, Errno> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    Ok(statx(directory, path, flags, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// Takes the root of a container out of a mount namespace that it shares, if it is still on top there: the runtime's own, or
/// the one at `namespace`, which is gone if nothing is there any more.
pub(crate) fn detach(path: &Path, root_mount: u64, namespace: Option<&Path>) -> Result<(), StepError> {
    let Some(namespace) = namespace else { return detach_here(path, root_mount) };
    if !namespace.exists() {
        return Ok(());
    }
    let joined = Joined::open(libc::CLONE_NEWNS, namespace)?;
    // Another process: entering a mount namespace changes the root and the working directory.
    let request = CloneRequest { flags: sys::CLONE_CLEAR_SIGHAND, cgroup: None };
    match sys::clone_process(request).step("make", "a helper")? {
        Cloned::Child => {
            let detached = joined.enter().and_then(|()| detach_here(path, root_mount));
            sys::exit_now(u8::from(detached.is_err()).into())
        }
        Cloned::Parent(_, pidfd) => {
            let ended =
                waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).step("await", "a helper")?;
            match ended.and_then(|status| status.exit_status()) {
                Some(0) => Ok(()),
                _ => Err(StepError::refused(
                    "detach",
                    path.display(),
                    "its mount namespace could not be changed",
                )),
            }
        }
    }
}

fn detach_here(path: &Path, root_mount: u64) -> Result<(), StepError> {
    match mount_at(CWD, path) {
        Ok(top) if top == root_mount => {}
        // Somebody took it away, or covered it.
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(error) => return Err(error).step("examine", path.display()),
    }
    unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).step("detach", path.display())
}

/// In the init process: cuts the tree off from the host's and attaches it where it can become the root.
///
/// On `/`, so that no path of the host is walked (the bundle's directory may be closed to a mapped root); at its own place
/// where hooks expect it there.
pub(crate) fn attach(plan: &RootfsPlan, sources: &Sources, at_own_place: bool) -> Result<(), StepError> {
    if !plan.shares_mounts {
        let flags = mounts::propagation_flags(plan.propagation);
        rustix::mount::mount_change(c"/", flags).step("change the propagation of", "/")?;
    }
    // The copy is a peer of the host's mounts: what is mounted in it would appear there, and the other way round. With runc the
    // root is private whatever the spec says, and mounts below it follow the host's: as here where the spec asks for that.
    let follows = plan.root_propagation.is_some_and(|flags| flags & libc::MS_PRIVATE == 0);
    if follows {
        let cut = MountAttributes { propagation: libc::MS_SLAVE, ..MountAttributes::default() };
        sys::set_mount_attributes(sources.root.as_fd(), c"", true, &cut)
            .step("cut off", "the root file system")?;
    }
    let private = MountAttributes { propagation: libc::MS_PRIVATE, ..MountAttributes::default() };
    sys::set_mount_attributes(sources.root.as_fd(), c"", !follows, &private)
        .step("make private", "the root file system")?;
    let place = if at_own_place || plan.shares_mounts { plan.path.as_c_str() } else { c"/" };
    match mounts::move_tree(sources.root.as_fd(), CWD, place) {
        // What the kernel says of one that is no directory does not tell.
        Err(_) if !is_directory(&sources.root) => Err(StepError::refused(
            "use as root file system",
            plan.path.to_string_lossy(),
            "it is not a directory",
        )),
        attached => attached.step("attach the root file system to", place.to_string_lossy()),
    }
}

fn is_directory(file: &OwnedFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// What matters of the process that mounts.
pub(crate) struct Place<'a> {
    /// The host's procfs.
    pub(crate) procfs: &'a HostProc,
    pub(crate) map_ids: MapIds<'a>,
    pub(crate) has_cgroup_namespace: bool,
    /// In no user namespace but the host's first.
    pub(crate) has_host_rights: bool,
    /// Programs of others will run before the container's.
    pub(crate) has_hooks: bool,
    pub(crate) network: &'a LateNetwork<'a>,
    /// Nothing but mounts needs the host's root any more.
    pub(crate) may_enter: bool,
}

/// What [`populate`] leaves to those who come after it.
pub(crate) struct Populated {
    /// The process is in its root.
    pub(crate) has_entered: bool,
    /// Mounts that are to be read-only when nothing is left to be made in them, by their places among the spec's.
    open: Vec<(usize, OwnedFd)>,
}

/// In the init process: mounts what the spec says, and makes the devices. At the end it is in its network namespace, and perhaps
/// in its root: while it has to wait anyway, and if all that is left to mount comes from the kernel or was opened before.
pub(crate) fn populate(
    plan: &RootfsPlan,
    sources: &Sources,
    place: &Place<'_>,
) -> Result<Populated, StepError> {
    let root = sources.root.as_fd();
    let mut targets = Targets::below(root);
    let mut populated = Populated { has_entered: false, open: Vec::new() };
    for (index, mount) in plan.mounts.iter().enumerate() {
        if place.may_enter
            && place.network.is_coming()
            && mounts::needs_network(&mount.kind)
            && plan.mounts[index..].iter().all(|mount| mounts::needs_no_path(&mount.kind))
        {
            pivot::pivot(root, false)?;
            place.procfs.leave_behind();
            populated.has_entered = true;
        }
        let idmap = sources.idmaps[index].as_ref().map(AsFd::as_fd);
        mounts::apply(mount, place, &mut targets, sources.trees[index].as_ref(), idmap)?;
        if matches!(mount.kind, MountKind::Filesystem { is_closed: true, .. }) {
            let mounted = crate::resolve::open_path(root, &mount.target);
            populated.open.push((index, mounted.step("open", mount.target.to_string_lossy())?));
        }
    }
    targets.finish();
    place.network.join()?;
    if let Some(devices) = &plan.devices {
        devices::make(root, devices, &sources.devices, place.has_hooks)?;
    }
    Ok(populated)
}

/// In the init process, when everything is made: makes the tree the root, if it is not, and read-only what the spec has so, and
/// covers what the container may not see or change.
pub(crate) fn enter(plan: &RootfsPlan, sources: &Sources, populated: &Populated) -> Result<(), StepError> {
    let root = sources.root.as_fd();
    for (index, mount) in &populated.open {
        sys::set_mount_attributes(mount.as_fd(), c"", false, &READ_ONLY)
            .step("make read-only", plan.mounts[*index].target.to_string_lossy())?;
    }
    match (populated.has_entered, plan.shares_mounts) {
        (true, _) => {}
        (false, true) => pivot::change_root(root)?,
        (false, false) => pivot::pivot(root, plan.no_pivot)?,
    }
    masked_paths::protect(root, &plan.readonly_paths, &plan.masked)?;
    if let Some(flags) = plan.root_propagation.filter(|_| !plan.shares_mounts) {
        let flags = mounts::propagation_flags(flags);
        rustix::mount::mount_change(c"/", flags).step("change the propagation of", "the new root")?;
    }
    if plan.readonly {
        sys::set_mount_attributes(root, c"", false, &READ_ONLY)
            .step("make read-only", "the root file system")?;
    }
    Ok(())
}
