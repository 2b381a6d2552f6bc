//! The init process, from the clone to the payload. `docs/runtime.md` says why in this order.

use std::cell::Cell;
use std::ffi::CString;
use std::io::Write as _;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::DumpableBehavior;

use super::channel::{Channel, Message};
use super::{finish, handover, program};
use crate::credentials;
use crate::hooks::{self, HookPlace};
use crate::namespaces::{self, Joined};
use crate::plan::Plan;
use crate::resolve::{self, HostProc};
use crate::rootfs::{self, Place, Populated, Sources};
use crate::scheduling::OuterLimits;
use crate::state::State;
use crate::step::{Step, StepError, chain};
use crate::sys::{self, ProgramCopy};
use crate::terminal::{self, TerminalPlan};

/// Who opens what mounts are made from.
#[derive(Debug)]
pub(crate) enum SourcePlan {
    /// The parent did.
    Opened(Sources),
    /// A helper in init's mount namespace, which sends it.
    Sent,
    /// Init itself, of an ordinary user's, who may copy mounts nowhere but in its user namespace.
    Own,
}

/// What init is given by the parent, whose memory and descriptors it starts with copies of.
#[derive(Debug)]
pub(crate) struct InitPlan {
    pub(crate) plan: Plan,
    /// What mounts are made from.
    pub(crate) sources: SourcePlan,
    /// The host's procfs.
    pub(crate) procfs: HostProc,
    /// Namespaces to join.
    pub(crate) join: Vec<Joined>,
    pub(crate) unshare: i32,
    /// Its cgroup namespace, new or joined, is another than the runtime's.
    pub(crate) has_cgroup_namespace: bool,
    pub(crate) network: Network,
    /// The parent has something to do before anything else: id maps, the systemd scope.
    pub(crate) wait_first: bool,
    /// In a user namespace, new or joined.
    pub(crate) is_mapped: bool,
    /// In no user namespace but the host's first.
    pub(crate) has_host_rights: bool,
    /// Its `setgroups` file says `deny`.
    pub(crate) groups_denied: bool,
    pub(crate) keyring: Option<CString>,
    /// Gets the terminal's master.
    pub(crate) console: Option<OwnedFd>,
    /// That is the runtime itself.
    pub(crate) is_relayed: bool,
    /// `create`: where `start` will call; `run`: none.
    pub(crate) start: Option<OwnedFd>,
    /// For hooks that run in init.
    pub(crate) state: State,
    /// The rlimits that init sets for itself; the runtime sets those of a process with fewer rights than its own.
    pub(crate) own_limits: OuterLimits,
}

/// Where init's network namespace comes from.
#[derive(Debug)]
pub(crate) enum Network {
    /// It is the runtime's, or one that is joined.
    Given,
    /// The clone made it.
    New,
    /// The runtime makes it while init mounts, for itself.
    Coming {
        /// The runtime's pidfd: init joins its namespace by it, once the runtime says so.
        runtime: OwnedFd,
        /// Init has time to let go of it before that.
        private_mount: Option<ProgramCopy>,
    },
}

/// A network namespace that is joined when it is needed.
pub(crate) struct LateNetwork<'a> {
    coming: Cell<Option<(OwnedFd, Option<ProgramCopy>)>>,
    channel: &'a Channel,
}

impl LateNetwork<'_> {
    /// Whether it has to be waited for.
    pub(crate) fn is_coming(&self) -> bool {
        let coming = self.coming.take();
        let is_coming = coming.is_some();
        self.coming.set(coming);
        is_coming
    }

    /// Waits for the namespace, and joins it, but for one that is there already.
    pub(crate) fn join(&self) -> Result<(), StepError> {
        let Some((runtime, private_mount)) = self.coming.take() else { return Ok(()) };
        drop(private_mount);
        self.channel.wait_for_go().step("hear from", "the runtime")?;
        sys::set_namespaces(runtime.as_fd(), libc::CLONE_NEWNET).step("join", "the new network namespace")?;
        // Execve closes it.
        std::mem::forget(runtime);
        Ok(())
    }
}

impl InitPlan {
    /// In the parent, when init has its copy.
    pub(crate) fn leave(mut self) {
        drop(self.console.take());
        std::mem::forget(self);
    }
}

/// Runs in the new process, to its end.
pub(crate) fn run(mut init: InitPlan, channel: Channel) -> ! {
    if let Err(error) = prepare(&mut init, &channel) {
        // A runtime that has gone has told why, and what ends with it has nothing to add in the container's output.
        channel.send(&Message::Failed(chain(&error))).ok();
        sys::exit_now(1);
    }
    if channel.send(&Message::Ready).is_err() || channel.wait_for_go().is_err() {
        sys::exit_now(1);
    }
    // Not before that: until then the runtime limits this process, which it may not do to everybody's, or it does so itself.
    let limited = init.own_limits.apply_rlimits(None);
    if let Err(error) = limited.and_then(|()| finish::drop_privileges(&init.plan.process, init.groups_denied))
    {
        finish::fail(&channel, &error);
    }
    let channel = match init.start.take() {
        None => channel,
        Some(listener) => {
            if !program::is_sure_to_run(&init.plan.process) && channel.send(&Message::Doubtful).is_err() {
                sys::exit_now(1);
            }
            // The end of the line tells `create` that all went well.
            drop(channel);
            match await_start(&init, &listener) {
                Ok(channel) => channel,
                Err(_) => sys::exit_now(1),
            }
        }
    };
    let start_hooks = || run_start_hooks(&init);
    let error = finish::become_payload(&init.plan.process, &channel, start_hooks);
    finish::fail(&channel, &error)
}

/// Everything that can be done before `start` with the runtime's privileges.
fn prepare(init: &mut InitPlan, channel: &Channel) -> Result<(), StepError> {
    if let SourcePlan::Sent = init.sources {
        init.sources = SourcePlan::Opened(handover::receive(&init.plan.rootfs, channel)?);
    }
    if init.wait_first {
        channel.wait_for_go().step("hear from", "the runtime")?;
    }
    for joined in &init.join {
        joined.enter()?;
    }
    if init.is_mapped {
        credentials::become_user(0, 0)?;
    }
    // From here on nobody in the container may look into this process: it still has the host's files open.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).step("set", "PR_SET_DUMPABLE")?;
    rustix::process::setsid().step("start", "a session")?;
    let network = match std::mem::replace(&mut init.network, Network::Given) {
        Network::Given => None,
        Network::New => {
            namespaces::bring_up_loopback()?;
            None
        }
        Network::Coming { runtime, private_mount } => Some((runtime, private_mount)),
    };
    let network = LateNetwork { coming: Cell::new(network), channel };
    if init.unshare != 0 {
        sys::unshare(init.unshare).step("make", "namespaces")?;
    }
    if let Some(name) = &init.keyring {
        join_keyring(name)?;
    }
    let sources = match std::mem::replace(&mut init.sources, SourcePlan::Own) {
        SourcePlan::Opened(sources) => sources,
        SourcePlan::Sent | SourcePlan::Own => {
            let sources = Sources::open(&init.plan.rootfs, !init.has_host_rights)?;
            if sources.mapped_as_container(&init.plan.rootfs).next().is_some() {
                return Err(StepError::refused("make", "an id-mapped mount", "that takes root of the host"));
            }
            sources
        }
    };
    // Closed all at once, when nothing can fail any more.
    let sources = ManuallyDrop::new(sources);
    let populated = set_up_rootfs(init, &sources, &network)?;
    set_names(&init.plan)?;
    write_sysctls(init)?;
    init.procfs.leave_behind();
    let root = sources.root.as_fd();
    // Before anything is made read-only.
    make_working_directory(&init.plan, root)?;
    rootfs::enter(&init.plan.rootfs, &sources, &populated)?;
    finish::prepare(&mut init.plan.process, root, &init.procfs)
}

/// A kernel without keys has nothing to keep apart.
fn join_keyring(name: &CString) -> Result<(), StepError> {
    match sys::join_session_keyring(name) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        result => result.step("join the session keyring", name.to_string_lossy()),
    }
}

fn set_up_rootfs(
    init: &InitPlan,
    sources: &Sources,
    network: &LateNetwork<'_>,
) -> Result<Populated, StepError> {
    let plan = &init.plan;
    let has_hooks = plan.hooks.runs_before_pivot();
    rootfs::attach(&plan.rootfs, sources, has_hooks)?;
    let has_any_hooks = has_hooks || !plan.hooks.start_container.is_empty();
    let map_ids = |tree: &OwnedFd, recursive, namespace: BorrowedFd<'_>| {
        handover::map_ids(tree, recursive, namespace, init.is_mapped.then_some(network.channel))
    };
    let place = Place {
        procfs: &init.procfs,
        map_ids: &map_ids,
        has_cgroup_namespace: init.has_cgroup_namespace,
        has_host_rights: init.has_host_rights,
        has_hooks: has_any_hooks,
        network,
        // Sysctls are written through the host's procfs.
        // In a user namespace the kernel lets procfs and sysfs be mounted only while others are there.
        may_enter: init.has_host_rights
            && init.has_cgroup_namespace
            && plan.sysctls.is_empty()
            && !plan.rootfs.no_pivot
            && !plan.rootfs.shares_mounts,
    };
    let populated = rootfs::populate(&plan.rootfs, sources, &place)?;
    if let (Some(size), Some(console)) = (plan.process.terminal, &init.console) {
        let root = sources.root.as_fd();
        let owner = plan.process.credentials.uid;
        let terminal = TerminalPlan { size, owner, is_relayed: init.is_relayed };
        let slave = terminal::set_up(root, console.as_fd(), terminal)?;
        terminal::bind_console(root, slave.as_fd())?;
    }
    if !has_hooks {
        return Ok(populated);
    }
    network.channel.send(&Message::Hooks).step("report to", "the runtime")?;
    network.channel.wait_for_go().step("hear from", "the runtime")?;
    // As with runc they start in the container's root, where hooks look for its files by relative paths.
    rustix::process::fchdir(&sources.root).step("enter", "the root file system")?;
    let place = HookPlace { environment: None, directory: None };
    hooks::run(&plan.hooks.create_container, place, &hook_state(init, "creating"))
        .map_err(|error| std::io::Error::other(chain(&error)))
        .step("create", "the container")?;
    Ok(populated)
}

fn set_names(plan: &Plan) -> Result<(), StepError> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.to_bytes()).step("set the hostname", name.to_string_lossy())?;
    }
    match &plan.domainname {
        Some(name) => {
            rustix::system::setdomainname(name.to_bytes()).step("set the domainname", name.to_string_lossy())
        }
        None => Ok(()),
    }
}

fn write_sysctls(init: &InitPlan) -> Result<(), StepError> {
    for (path, value) in &init.plan.sysctls {
        let display = path.to_string_lossy();
        let file = resolve::open_strictly(init.procfs.get()?, path, OFlags::WRONLY).step("open", &display)?;
        std::fs::File::from(file).write_all(value).step("write", &display)?;
    }
    Ok(())
}

/// As runc, a working directory that is not there is made.
fn make_working_directory(plan: &Plan, root: BorrowedFd<'_>) -> Result<(), StepError> {
    let cwd = &plan.process.cwd;
    if cwd.to_bytes() == b"/" {
        return Ok(());
    }
    resolve::open_or_make_directory(root, cwd).map(|_| ())
}

/// Waits for `start` to call. The line to go on with.
fn await_start(init: &InitPlan, listener: &OwnedFd) -> Result<Channel, std::io::Error> {
    // It may be long until `start`: nothing of the host's and of the caller's stays open meanwhile.
    let mut kept = vec![listener.as_fd()];
    kept.extend(init.procfs.descriptor());
    sys::close_all_but(3 + init.plan.process.preserve_fds, &kept)?;
    // The first process of a PID namespace ignores what it does not handle: a created container ends when it is told to.
    sys::end_on_signals();
    loop {
        let Ok(caller) = accept_with(listener, SocketFlags::CLOEXEC) else { continue };
        let channel = Channel::from_socket(caller);
        // Whoever calls and hangs up did not mean it.
        if channel.wait_for_go().is_ok() {
            return Ok(channel);
        }
    }
}

fn run_start_hooks(init: &InitPlan) -> Result<(), StepError> {
    if init.plan.hooks.start_container.is_empty() {
        return Ok(());
    }
    let place = HookPlace { environment: Some(&init.plan.process.environment), directory: None };
    let state = hook_state(init, "created");
    hooks::run(&init.plan.hooks.start_container, place, &state)
        .map_err(|error| std::io::Error::other(chain(&error)))
        .step("start", "the container")
}

/// The state with this process's pid as the host numbers it, which the host's procfs tells.
fn hook_state(init: &InitPlan, status: &str) -> Vec<u8> {
    let own =
        init.procfs.get().ok().and_then(|procfs| rustix::fs::readlinkat(procfs, c"self", Vec::new()).ok());
    let pid = own.and_then(|own| own.to_str().ok()?.parse().ok()).unwrap_or(0);
    init.state.to_spec_json(pid, status)
}
