//! A further process in a running container: one setns(2) of the parent for the PID namespace, one of the child for all others.

use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::LinuxNamespace;
use rustix::process::{DumpableBehavior, Pid};

use super::channel::{Channel, Message};
use super::finish;
use crate::credentials;
use crate::plan::{self, CLONE_NEWTIME, ProcessPlan};
use crate::process::protect::PrivateMount;
use crate::resolve::HostProc;
use crate::scheduling::OuterLimits;
use crate::step::{Step, StepError};
use crate::sys::{self, CloneRequest, Cloned};
use crate::terminal::{self, TerminalPlan};

/// What the child needs.
#[derive(Debug)]
pub(crate) struct ExecPlan {
    pub(crate) process: ProcessPlan,
    /// The init process, through which its namespaces are joined.
    pub(crate) init: OwnedFd,
    /// The kinds of namespaces that the container has of its own.
    pub(crate) namespaces: i32,
    /// The root of a container whose mount namespace is another's too: joining that leads to the other's root.
    pub(crate) root: Option<OwnedFd>,
    pub(crate) procfs: HostProc,
    pub(crate) console: Option<OwnedFd>,
    /// The runtime itself gets the terminal of `console`.
    pub(crate) is_relayed: bool,
    pub(crate) groups_denied: bool,
    /// As init's: what the process sets for itself.
    pub(crate) own_limits: OuterLimits,
    /// The parent waits to hear that it is set up; otherwise that it runs is enough.
    pub(crate) says_ready: bool,
}

/// Clones the process into `cgroup` and the container's PID namespace.
pub(crate) fn clone(
    plan: &mut ExecPlan,
    cgroup: Option<std::os::fd::BorrowedFd<'_>>,
    private_mount: &PrivateMount,
) -> Result<(Pid, OwnedFd, Channel), StepError> {
    let (channel, other) = Channel::pair().step("make", "a channel")?;
    // The child is seen by the container's processes from its first moment: none of them may look into it.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).step("set", "PR_SET_DUMPABLE")?;
    let for_children = plan.namespaces & libc::CLONE_NEWPID;
    if for_children != 0 {
        sys::set_namespaces(plan.init.as_fd(), for_children).step("join", "the PID namespace")?;
    }
    match sys::clone_process(CloneRequest { flags: sys::CLONE_CLEAR_SIGHAND, cgroup })
        .step("clone", "the process")?
    {
        Cloned::Child => {
            private_mount.release();
            drop(channel);
            run(plan, &other)
        }
        Cloned::Parent(pid, pidfd) => Ok((pid, pidfd, channel)),
    }
}

fn run(plan: &mut ExecPlan, channel: &Channel) -> ! {
    if let Err(error) = prepare(plan) {
        finish::fail(channel, &error);
    }
    if plan.says_ready && channel.send(&Message::Ready).is_err() || channel.wait_for_go().is_err() {
        sys::exit_now(1);
    }
    let limited = plan.own_limits.apply_rlimits(None);
    if let Err(error) = limited.and_then(|()| finish::drop_privileges(&plan.process, plan.groups_denied)) {
        finish::fail(channel, &error);
    }
    let error = finish::become_payload(&plan.process, channel, || Ok(()));
    finish::fail(channel, &error)
}

fn prepare(plan: &mut ExecPlan) -> Result<(), StepError> {
    plan.procfs.leave_behind();
    let own = plan.namespaces & !libc::CLONE_NEWPID;
    sys::set_namespaces(plan.init.as_fd(), own).step("join", "the container's namespaces")?;
    if let Some(root) = &plan.root {
        crate::rootfs::pivot::change_root(root.as_fd())?;
    }
    if plan.namespaces & libc::CLONE_NEWUSER != 0 {
        credentials::become_user(0, 0)?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .step("set", "PR_SET_DUMPABLE")?;
    }
    rustix::process::setsid().step("start", "a session")?;
    let root = finish::open_root()?;
    if let (Some(size), Some(console)) = (plan.process.terminal, &plan.console) {
        let owner = plan.process.credentials.uid;
        let terminal = TerminalPlan { size, owner, is_relayed: plan.is_relayed };
        terminal::set_up(root.as_fd(), console.as_fd(), terminal)?;
    }
    finish::prepare(&mut plan.process, root.as_fd(), &plan.procfs)
}

/// Opens the root of the init process, through a magic link of the host's procfs.
pub(crate) fn open_root_of(init: i32) -> Result<OwnedFd, StepError> {
    use rustix::fs::{CWD, Mode, OFlags};
    let path = format!("/proc/{init}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path.as_str(), flags, Mode::empty()).step("open", path)
}

/// Every kind of namespace, with its name in `/proc/PID/ns`.
const KINDS: [(i32, &str); 8] = [
    (libc::CLONE_NEWNS, "mnt"),
    (libc::CLONE_NEWPID, "pid"),
    (libc::CLONE_NEWIPC, "ipc"),
    (libc::CLONE_NEWUTS, "uts"),
    (libc::CLONE_NEWNET, "net"),
    (libc::CLONE_NEWCGROUP, "cgroup"),
    (libc::CLONE_NEWUSER, "user"),
    (CLONE_NEWTIME, "time"),
];

/// The kinds of namespaces to join: the spec's. Root may join any of them, its own too. But joining one's own user namespace
/// is an error, and from another user namespace the host's cannot be joined: then they are those in which the init process
/// differs from the caller.
pub(crate) fn namespaces_to_join(of_spec: &[LinuxNamespace], init: i32) -> Result<i32, StepError> {
    let of_spec = plan::namespace_flags(of_spec);
    if of_spec & libc::CLONE_NEWUSER == 0 && sys::effective_user() == 0 {
        return Ok(of_spec);
    }
    let mut flags = 0;
    for (flag, name) in KINDS {
        let identify = |process: &str| {
            let path = format!("/proc/{process}/ns/{name}");
            match rustix::fs::stat(path.as_str()) {
                Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
                Err(rustix::io::Errno::NOENT) => Ok(None),
                Err(error) => Err(error).step("examine", path),
            }
        };
        if identify(&init.to_string())? != identify("self")? {
            flags |= flag;
        }
    }
    Ok(flags)
}
