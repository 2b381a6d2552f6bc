//! The runtime's own process while a container is created: prepares, clones, watches, and cleans up if it fails.

mod announce;
mod answers;
mod helper;
mod ownership;

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Spec};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::channel::Channel;
use super::handover;
use super::init::{self, InitPlan, Network, SourcePlan};
use super::payload::SeccompListener;
use crate::cgroup::{self, Cgroup, CgroupError, CgroupPlan};
use crate::context::Context;
use crate::document;
use crate::error::RuntimeError;
use crate::hooks::HookPlan;
use crate::intel_rdt::ResourceClass;
use crate::namespaces::{self, NamespaceSteps};
use crate::net_devices::{self, NetDevice};
use crate::notify::{self, Notifications};
use crate::plan::{self, Plan, PlanOptions};
use crate::resolve::HostProc;
use crate::rootfs::{self, Sources};
use crate::scheduling::OuterLimits;
use crate::state::{State, StateDirectory, process_start_once};
use crate::step::{Step, StepError};
use crate::sys::{self, CloneRequest, Cloned};
use crate::user_namespace::{self, IdMaps};
use crate::validate::validate;

pub(crate) use announce::{send_pidfd, write_pid_file};

/// What `create` and `run` were asked for, in their words.
pub(crate) struct Request<'a> {
    pub(crate) context: &'a Context,
    pub(crate) id: &'a str,
    pub(crate) bundle: PathBuf,
    pub(crate) options: PlanOptions,
    pub(crate) new_keyring: bool,
    pub(crate) pid_file: Option<&'a Path>,
    pub(crate) pidfd_socket: Option<&'a Path>,
    /// Gets the terminal's master.
    pub(crate) console: Option<OwnedFd>,
    /// That is the runtime itself, which relays what is written and read.
    pub(crate) is_relayed: bool,
    /// Whether init is to wait for `start`.
    pub(crate) waits_for_start: bool,
    /// Blocked signals are needed before the clone: a child may end at once.
    pub(crate) is_foreground: bool,
}

/// A container whose init process is set up.
pub(crate) struct Created<'a> {
    pub(crate) directory: StateDirectory,
    pub(crate) state: State,
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) channel: Channel,
    pub(crate) hooks: HookPlan,
    pub(crate) resource_class: Option<ResourceClass>,
    pub(crate) seccomp: Option<SeccompListener>,
    /// What its program says, where somebody is to hear of it and it may say something before `start`.
    pub(crate) notifications: Option<Notifications<'a>>,
}

/// The spec of a bundle, and its text. `warn` is called with what of it is passed over.
pub(crate) fn load_spec(
    path: &Path,
    warn: &mut dyn FnMut(&str),
) -> Result<(Box<Spec>, Vec<u8>), RuntimeError> {
    let text = crate::file::read_once(path).map_err(|source| RuntimeError::File {
        operation: "read",
        path: path.to_path_buf(),
        source,
    })?;
    let mut spec: Box<Spec> = document::parse_warning(&text, warn)
        .map_err(|source| RuntimeError::Json { path: path.to_path_buf(), source })?;
    document::drop_absent_pids_limit(&mut spec, &text);
    Ok((spec, text))
}

/// Creates a container up to where its program could run. Nothing is left of it when this fails.
///
/// `spec` and `text` are the bundle's.
pub(crate) fn create<'a>(
    request: Request<'a>,
    spec: &'a Spec,
    text: &[u8],
) -> Result<Created<'a>, RuntimeError> {
    validate(spec)?;
    let rootfs = spec.root().as_ref().map(|root| request.bundle.join(root.path())).unwrap_or_default();
    let plan = plan::plan(spec, &request.bundle, &rootfs, request.options)?;
    check_console(&request, &plan)?;
    namespaces::check_sysctls(&plan)?;
    if let (Some(linux), Some(path)) = (spec.linux(), plan.namespace_path(libc::CLONE_NEWUSER)) {
        user_namespace::check_joined_maps(linux, path)?;
    }
    user_namespace::check_groups(&plan.process.credentials.additional_gids, request.context.uid)?;
    request.context.log.warnings(plan.process.capabilities.warnings());
    let driver = request.context.driver();
    let linux = spec.linux().as_ref();
    let cgroups_path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let mut cgroup_plan = cgroup::plan(cgroups_path, request.id, &driver)?.resolve()?;
    let directory = StateDirectory::locate(&request.context.root, request.id)?;
    let resource_class = ResourceClass::from_spec(spec, request.id)?;
    let mut state = State::new(request.id, spec.version(), &request.bundle, &rootfs);
    state.owner = request.context.uid;
    state.annotations =
        spec.annotations().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    cgroup_plan.mark_scope(&state.created);
    // Before it is made: whoever cleans up after a runtime that was killed looks for it there.
    state.cgroup_path = cgroup_plan.path().unwrap_or_default();
    state.set_scope(cgroup_plan.scope());
    state.systemd_cgroup = cgroup_plan.scope().is_some();
    state.needs_spec_to_delete = resource_class.is_some() || !plan.hooks.poststop.is_empty();
    state.shares_pids = plan.new_namespaces() & libc::CLONE_NEWPID == 0;
    directory.create()?;
    let context = request.context;
    let (cgroup, child) = (None, None);
    let mut creation = Creation {
        context,
        spec,
        directory,
        state,
        cgroup_plan,
        resource_class,
        cgroup,
        child,
        mapped_mounts: Vec::new(),
        has_run_hooks: Cell::new(false),
        notifications: None,
    };
    match creation.run(plan, text, request) {
        Ok((channel, hooks)) => creation.finish(channel, hooks),
        Err(error) => {
            creation.undo();
            Err(error)
        }
    }
}

/// runc's rules and words.
fn check_console(request: &Request<'_>, plan: &Plan) -> Result<(), RuntimeError> {
    match (plan.process.terminal.is_some(), request.console.is_some()) {
        (true, false) => Err(RuntimeError::Console {
            reason: "cannot allocate tty if runc will detach without setting console socket",
        }),
        (false, true) => Err(RuntimeError::Console {
            reason: "cannot use console socket if runc will not detach or allocate tty",
        }),
        _ => Ok(()),
    }
}

struct Creation<'s> {
    context: &'s Context,
    spec: &'s Spec,
    directory: StateDirectory,
    state: State,
    cgroup_plan: CgroupPlan,
    resource_class: Option<ResourceClass>,
    cgroup: Option<Cgroup>,
    child: Option<(Pid, OwnedFd)>,
    /// Mounts whose ids are mapped as the container's user namespace does, and whether those below are, too.
    mapped_mounts: Vec<(OwnedFd, bool)>,
    /// Hooks have run, perhaps one that failed: if it all fails now, those that undo what they did run as well.
    has_run_hooks: Cell<bool>,
    notifications: Option<Notifications<'s>>,
}

impl<'s> Creation<'s> {
    fn run(
        &mut self,
        mut plan: Plan,
        text: &[u8],
        request: Request<'_>,
    ) -> Result<(Channel, HookPlan), RuntimeError> {
        self.take_place(&plan, text, request.waits_for_start)?;
        let waits_for_scope = self.cgroup_plan.scope().is_some();
        let maps = self.id_maps(&plan);
        let (pid_file, pidfd_socket) = (request.pid_file, request.pidfd_socket);
        let (is_foreground, waits_for_start) = (request.is_foreground, request.waits_for_start);
        let offsets = time_offsets(self.spec);
        let mut steps = namespaces::prepare(&plan, offsets)?;
        let network = steps.joined_network()?;
        let owner = plan.cgroup_owner();
        let net_devices = std::mem::take(&mut plan.net_devices);
        let moves_devices = !net_devices.is_empty();
        let wait_first = maps.is_some() || waits_for_scope || steps.user.is_some() || moves_devices;
        // In a user namespace init could not set its own limits; with hooks both sides take turns; and what is left of a
        // runtime that is killed after `Go` is found by the cgroup.
        let goes_ahead = !plan.has_namespace(libc::CLONE_NEWUSER)
            && !plan.hooks.runs_before_pivot()
            && (waits_for_scope || self.cgroup.is_some());
        let (mut init, hooks, outer) = self.prepare_init(plan, request, &mut steps, wait_first)?;
        if goes_ahead {
            init.own_limits = outer.clone();
        }
        let makes_network =
            goes_ahead && !wait_first && steps.clone_flags & libc::CLONE_NEWNET != 0 && !hooks.runs_outside();
        if makes_network {
            steps.clone_flags &= !libc::CLONE_NEWNET;
            init.network = Network::Coming { runtime: self.open_own_process()?, private_mount: None };
        }
        if is_foreground {
            sys::block_signals();
        }
        let channel = self.clone_init(init, &steps, maps.as_ref())?;
        if makes_network {
            self.make_network(&channel)?;
        }
        if waits_for_scope {
            self.create_scope()?;
        }
        self.map_mounts()?;
        if moves_devices {
            self.move_devices(&net_devices, network)?;
        }
        if wait_first {
            channel.send_go().step("speak to", "the init process")?;
        }
        self.apply_to_child()?;
        self.give_cgroup(owner)?;
        self.describe(&hooks)?;
        // The kernel waits here while init mounts: it is the last to have it, if init has not taken that over.
        self.context.private_mount.release();
        self.let_go(&channel, &hooks, &outer, goes_ahead)?;
        if waits_for_start {
            self.await_drop(&channel)?;
        }
        self.publish(pid_file, pidfd_socket)?;
        Ok((channel, hooks))
    }

    /// Sets the limits and lets init go on. Returns when it is set up.
    fn let_go(
        &self,
        channel: &Channel,
        hooks: &HookPlan,
        outer: &OuterLimits,
        goes_ahead: bool,
    ) -> Result<(), RuntimeError> {
        let pid = self.child.as_ref().map(|(pid, _)| *pid);
        if goes_ahead {
            pid.map_or(Ok(()), |pid| outer.apply_others(pid))?;
            channel.send_go().step("speak to", "the init process")?;
            self.await_ready(channel, hooks)?;
            // Not before: in a container whose root has not changed nobody may execute anything.
            self.directory.replace_with_new()?;
        } else {
            self.await_ready(channel, hooks)?;
            // Now, lest the setting up of the container is limited, too: in descriptors, in processes, in memory.
            pid.map_or(Ok(()), |pid| outer.apply(pid))?;
            self.directory.replace_with_new()?;
            channel.send_go().step("speak to", "the init process")?;
        }
        Ok(())
    }

    /// Writes the first state, and makes the cgroup, unless systemd makes it around a process.
    fn take_place(&mut self, plan: &Plan, text: &[u8], waits_for_start: bool) -> Result<(), RuntimeError> {
        self.directory.save_spec(text)?;
        // Whoever uses `create` may well use `exec`; a `run` ends soon.
        if let (Some(program), true) = (&plan.process.seccomp, waits_for_start) {
            self.directory.save_filter(program)?;
            self.state.has_filter = true;
        }
        self.directory.save_first(&self.state)?;
        if let Some(manager) = &self.context.notify_socket {
            notify::make_directory(self.directory.path())?;
            if !waits_for_start {
                let log = &self.context.log;
                self.notifications = Notifications::listen(self.directory.path(), manager, log)?;
            }
        }
        if self.cgroup_plan.scope().is_some() {
            return Ok(());
        }
        self.create_cgroup()?;
        self.apply_limits()
    }

    /// Makes the network namespace, which takes as long as most of what init has to mount meanwhile. The runtime stays in it:
    /// whatever it does from now on needs none.
    fn make_network(&self, channel: &Channel) -> Result<(), StepError> {
        self.context.private_mount.release();
        sys::unshare(libc::CLONE_NEWNET).step("make", "a network namespace")?;
        channel.send_go().step("speak to", "the init process")?;
        namespaces::bring_up_loopback()
    }

    fn open_own_process(&self) -> Result<OwnedFd, StepError> {
        let own = Pid::from_raw(self.state.creator_pid).ok_or(rustix::io::Errno::SRCH);
        own.and_then(|own| rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()))
            .step("open", "the runtime's own process")
    }

    /// Makes the cgroup. Who is not root, may make none and asks for none goes on in the caller's, as with runc and crun.
    fn create_cgroup(&mut self) -> Result<(), RuntimeError> {
        match Cgroup::create(&self.cgroup_plan) {
            Ok(cgroup) => self.cgroup = Some(cgroup),
            Err(error) if error.is_permission() && self.can_do_without_cgroup()? => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn can_do_without_cgroup(&self) -> Result<bool, CgroupError> {
        let is_named = self.spec.linux().as_ref().is_some_and(|linux| linux.cgroups_path().is_some());
        let has_limits = self.resources().map(Cgroup::has_limits).transpose()?.unwrap_or(false);
        Ok(!is_named && !has_limits && user_namespace::is_unprivileged())
    }

    fn resources(&self) -> Option<&LinuxResources> {
        self.spec.linux().as_ref()?.resources().as_ref()
    }

    fn apply_limits(&self) -> Result<(), RuntimeError> {
        if let (Some(cgroup), Some(resources)) = (&self.cgroup, self.resources()) {
            cgroup.apply(resources)?;
        }
        Ok(())
    }

    fn id_maps(&self, plan: &Plan) -> Option<IdMaps> {
        let is_new = plan.new_namespaces() & libc::CLONE_NEWUSER != 0;
        let linux = self.spec.linux().as_ref().filter(|_| is_new)?;
        let format = |maps: &Option<Vec<_>>| user_namespace::format_map(maps.as_deref().unwrap_or_default());
        Some(IdMaps { uid: format(linux.uid_mappings()), gid: format(linux.gid_mappings()) })
    }

    /// Opens everything while host paths can be reached. Gives init's part, the hooks, and what is set from outside.
    fn prepare_init(
        &mut self,
        mut plan: Plan,
        request: Request<'_>,
        steps: &mut NamespaceSteps,
        wait_first: bool,
    ) -> Result<(InitPlan, HookPlan, OuterLimits), RuntimeError> {
        let is_mapped = plan.has_namespace(libc::CLONE_NEWUSER);
        let has_host_rights = !is_mapped && !user_namespace::is_entered();
        let sources = self.open_sources(&plan, is_mapped, !has_host_rights)?;
        if let (true, SourcePlan::Opened(sources)) = (plan.rootfs.shares_mounts, &sources) {
            self.state.root_mount = Some(sources.root_mount()?);
            self.state.mount_namespace = plan.namespace_path(libc::CLONE_NEWNS).map(Path::to_path_buf);
            // Before it is attached: whoever cleans up after a runtime that was killed looks for it.
            self.directory.save(&self.state)?;
        }
        let keyring = format!("_inspect.{}", request.id);
        let outer = std::mem::take(&mut plan.process.scheduling.outer);
        // Hooks are not copied: the child has its own copy of all memory, this process keeps those it runs.
        let hooks = HookPlan::from_spec(self.spec.hooks().as_ref())?;
        let start = if request.waits_for_start {
            Some(crate::start::listen(&self.directory.start_socket())?)
        } else {
            None
        };
        let needs_proc = plan.needs_host_proc_inside();
        let init = InitPlan {
            sources,
            procfs: if needs_proc { HostProc::open()? } else { HostProc::closed() },
            join: std::mem::take(&mut steps.join),
            unshare: steps.unshare,
            has_cgroup_namespace: steps.has_cgroup_namespace,
            wait_first,
            is_mapped,
            has_host_rights,
            groups_denied: is_mapped && user_namespace::groups_are_denied(),
            keyring: request.new_keyring.then(|| std::ffi::CString::new(keyring).unwrap_or_default()),
            console: request.console,
            is_relayed: request.is_relayed,
            start,
            state: self.state.clone(),
            own_limits: OuterLimits::default(),
            network: if steps.clone_flags & libc::CLONE_NEWNET != 0 { Network::New } else { Network::Given },
            plan,
        };
        Ok((init, hooks, outer))
    }

    /// What mounts are made from, unless that is opened later.
    fn open_sources(
        &mut self,
        plan: &Plan,
        is_mapped: bool,
        binds_devices: bool,
    ) -> Result<SourcePlan, RuntimeError> {
        if is_mapped && !plan.rootfs.shares_mounts && rustix::process::geteuid().is_root() {
            return Ok(SourcePlan::Sent);
        }
        let sources = match Sources::open(&plan.rootfs, binds_devices) {
            // A plain user may copy mounts in a user namespace of his own: init does.
            Err(error) if error.is_permission() && plan.new_namespaces() & libc::CLONE_NEWUSER != 0 => {
                return Ok(SourcePlan::Own);
            }
            sources => sources?,
        };
        for (tree, recursive) in sources.mapped_as_container(&plan.rootfs) {
            self.mapped_mounts.push((tree.try_clone().step("keep open", "a bind mount")?, recursive));
        }
        Ok(SourcePlan::Opened(sources))
    }

    /// The one clone. With a user namespace by path a helper stands between, and init becomes this process's child all
    /// the same (`CLONE_PARENT`).
    fn clone_init(
        &mut self,
        mut init: InitPlan,
        steps: &NamespaceSteps,
        maps: Option<&IdMaps>,
    ) -> Result<Channel, RuntimeError> {
        let (channel, other) = Channel::pair().step("make", "a channel")?;
        if let Some(offsets) = &steps.time_offsets {
            namespaces::make_time_namespace(offsets)?;
        }
        // Namespaces by path may belong to the host's user namespace: from a new one they could not be joined any more.
        let makes_user = steps.clone_flags & libc::CLONE_NEWUSER != 0;
        let has_helper = steps.user.is_some() || (makes_user && !init.join.is_empty());
        if let (Some(joined), false) = (&steps.join_for_children, has_helper) {
            joined.enter()?;
        }
        let namespace_flags = u64::from(steps.clone_flags.cast_unsigned());
        let flags = sys::CLONE_CLEAR_SIGHAND | if has_helper { 0 } else { namespace_flags };
        let cgroup = self.cgroup.as_ref().map(Cgroup::fd);
        match sys::clone_process(CloneRequest { flags, cgroup }).step("clone", "the init process")? {
            Cloned::Child => {
                drop(channel);
                let private_mount = self.context.private_mount.take();
                if let Network::Coming { private_mount: place, .. } = &mut init.network {
                    *place = private_mount;
                } else {
                    drop(private_mount);
                }
                if has_helper { helper::help(init, other, steps) } else { init::run(init, other) }
            }
            Cloned::Parent(pid, pidfd) => self.child = Some((pid, pidfd)),
        }
        // What would be missed here is the end of the line, or of the terminal's socket. Everything else stays as it is until
        // this process ends: closing it costs calls, and freeing memory that is shared with init copies it.
        drop(other);
        if has_helper {
            self.adopt(&channel)?;
        }
        if let (Some(maps), Some((pid, _))) = (maps, &self.child) {
            maps.write(*pid, rustix::process::geteuid().is_root())?;
        }
        if let (SourcePlan::Sent, Some((pid, pidfd))) = (&init.sources, &self.child) {
            handover::send(&init.plan.rootfs, (*pid, pidfd.as_fd()), &channel)?;
        }
        init.leave();
        Ok(channel)
    }

    fn create_scope(&mut self) -> Result<(), RuntimeError> {
        let Some((pid, _)) = &self.child else { return Ok(()) };
        let default = LinuxResources::default();
        let annotations = self.spec.annotations().iter().flatten();
        let annotations = annotations.map(|(key, value)| (key.as_str(), value.as_str()));
        let resources = self.resources().unwrap_or(&default);
        self.cgroup = Some(Cgroup::create_scope(&self.cgroup_plan, *pid, resources, annotations)?);
        self.apply_limits()
    }

    /// What is done to the child from outside, while it mounts: device rules, its resource class.
    fn apply_to_child(&self) -> Result<(), RuntimeError> {
        let Some((pid, _)) = &self.child else { return Ok(()) };
        let default = LinuxResources::default();
        if let Some(cgroup) = &self.cgroup {
            match cgroup.apply_devices(self.resources().unwrap_or(&default)) {
                // As with runc: the kernel takes such rules from nobody but the host's root, and whoever else asks for a
                // container can open the devices of its own user alone.
                Err(error) if error.is_permission() && user_namespace::is_unprivileged() => {}
                result => result?,
            }
        }
        match &self.resource_class {
            Some(class) => Ok(class.apply(pid.as_raw_nonzero().get())?),
            None => Ok(()),
        }
    }

    fn map_mounts(&mut self) -> Result<(), StepError> {
        let mounts = std::mem::take(&mut self.mapped_mounts);
        let (Some((pid, _)), false) = (&self.child, mounts.is_empty()) else { return Ok(()) };
        let namespace = namespaces::open_user_of(*pid)?;
        mounts.iter().try_for_each(|(tree, recursive)| {
            rootfs::map_ids(tree, *recursive, namespace.as_fd()).step("map the ids of", "a bind mount")
        })
    }

    /// Before init writes sysctls, which may be the devices', and before any hook.
    fn move_devices(&self, devices: &[NetDevice], joined: Option<OwnedFd>) -> Result<(), RuntimeError> {
        let Some((pid, _)) = &self.child else { return Ok(()) };
        let namespace = match joined {
            Some(namespace) => namespace,
            None => namespaces::open_network_of(*pid)?,
        };
        Ok(net_devices::move_all(devices, namespace.as_fd())?)
    }

    /// Writes the state with the pid, while the child mounts.
    fn describe(&mut self, hooks: &HookPlan) -> Result<(), RuntimeError> {
        let pid = self.child.as_ref().map_or(0, |(pid, _)| pid.as_raw_nonzero().get());
        self.state.init_process_pid = pid;
        self.state.init_process_start = process_start_once(pid).unwrap_or(0);
        self.state.creator_pid = 0;
        self.state.cgroup_path =
            self.cgroup.as_ref().map(|cgroup| cgroup.path().to_path_buf()).unwrap_or_default();
        let seccomp = self.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let has_listener = seccomp.is_some_and(|profile| profile.listener_path().is_some());
        self.state.waits_for_payload = has_listener || !hooks.poststart.is_empty();
        Ok(self.directory.write_new(&self.state)?)
    }

    /// Tells the callers which process it is, now that there is a container.
    fn publish(&self, pid_file: Option<&Path>, pidfd_socket: Option<&Path>) -> Result<(), RuntimeError> {
        let Some((pid, pidfd)) = &self.child else { return Ok(()) };
        if let Some(path) = pid_file {
            write_pid_file(path, pid.as_raw_nonzero().get())?;
        }
        match pidfd_socket {
            Some(path) => send_pidfd(path, pidfd).map_err(RuntimeError::from),
            None => Ok(()),
        }
    }

    fn finish(self, channel: Channel, hooks: HookPlan) -> Result<Created<'s>, RuntimeError> {
        let Some((pid, pidfd)) = self.child else { return Err(RuntimeError::NotRunning) };
        std::mem::forget(self.cgroup);
        let seccomp = self
            .spec
            .linux()
            .as_ref()
            .and_then(|linux| SeccompListener::from_spec(linux.seccomp().as_ref()?));
        let Creation { directory, state, resource_class, notifications, .. } = self;
        Ok(Created { directory, state, pid, pidfd, channel, hooks, resource_class, seccomp, notifications })
    }

    /// Takes back whatever was done. Its own failures would hide the first one and are left.
    fn undo(self) {
        if let Some((_, pidfd)) = &self.child {
            sys::send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
            waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).ok();
        }
        if let Some(cgroup) = self.cgroup {
            if cgroup.is_populated().unwrap_or(false) {
                cgroup.kill_all().ok();
            }
            cgroup.delete().ok();
        }
        if let Some(class) = &self.resource_class {
            class.remove().ok();
        }
        if let Some(root) = self.state.root_mount {
            rootfs::detach(&self.state.rootfs, root, self.state.mount_namespace.as_deref()).ok();
        }
        // Deleted meanwhile and created once more, it is another's.
        let is_others = self.directory.load().is_ok_and(|state| state.created != self.state.created);
        if !is_others {
            self.directory.remove(self.state.has_filter).ok();
        }
        // runtime-spec, "Lifecycle": where a hook of `create` fails, the container is destroyed and these run.
        if self.has_run_hooks.get()
            && let Ok(hooks) = HookPlan::from_spec(self.spec.hooks().as_ref())
        {
            crate::hooks::run_poststop(&hooks, &self.state, &self.context.log);
        }
    }
}

fn time_offsets(spec: &Spec) -> String {
    use std::fmt::Write as _;
    let offsets = spec.linux().as_ref().and_then(|linux| linux.time_offsets().as_ref());
    offsets.into_iter().flatten().fold(String::new(), |mut text, (clock, offset)| {
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        writeln!(text, "{clock} {seconds} {nanoseconds}").ok();
        text
    })
}
