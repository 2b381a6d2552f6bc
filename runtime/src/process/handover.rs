//! What is done for an init process in a user namespace by those who have the host's rights.
//!
//! A mount that is copied in a mount namespace of the host's can be changed by whoever gets the copy: made writable, or taken
//! off what it covers. In the mount namespace of a user namespace the kernel has locked both (`MNT_LOCK_*`, mount_namespaces(7)).
//! So copies for such a container are made in its own, but with the host's rights, since its root may not walk the host's paths.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::channel::{Channel, MapRequest, Message};
use crate::error::RuntimeError;
use crate::namespaces;
use crate::plan::RootfsPlan;
use crate::rootfs::{self, Sources};
use crate::step::{Step, StepError, chain};
use crate::sys::{self, CloneRequest, Cloned};

/// In the runtime: has a helper open the plan's sources in the mount namespace of init, which waits, and send them there.
pub(crate) fn send(
    plan: &RootfsPlan,
    (pid, init): (Pid, BorrowedFd<'_>),
    to_init: &Channel,
) -> Result<(), RuntimeError> {
    let (channel, other) = Channel::pair().step("make", "a channel")?;
    // Another process: entering a mount namespace changes the root and the working directory.
    let request = CloneRequest { flags: sys::CLONE_CLEAR_SIGHAND, cgroup: None };
    match sys::clone_process(request).step("make", "a helper")? {
        Cloned::Child => {
            drop(channel);
            if let Err(error) = open_and_send(plan, (pid, init), to_init) {
                other.send(&Message::Failed(chain(&error))).ok();
            }
            sys::exit_now(0)
        }
        Cloned::Parent(_, pidfd) => {
            drop(other);
            let message = channel.receive().step("hear from", "the helper")?;
            let ended =
                waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).step("await", "the helper")?;
            match (message, ended.and_then(|status| status.exit_status())) {
                (Message::Failed(report), _) => Err(RuntimeError::Init { report }),
                (Message::End, Some(0)) => Ok(()),
                _ => Err(RuntimeError::InitDied { how: "its helper ended".to_owned() }),
            }
        }
    }
}

fn open_and_send(
    plan: &RootfsPlan,
    (pid, init): (Pid, BorrowedFd<'_>),
    to_init: &Channel,
) -> Result<(), StepError> {
    let namespace = namespaces::open_user_of(pid)?;
    sys::set_namespaces(init, libc::CLONE_NEWNS).step("join", "the mount namespace of the init process")?;
    let sources = Sources::open(plan, true)?;
    for (tree, recursive) in sources.mapped_as_container(plan) {
        rootfs::map_ids(tree, recursive, namespace.as_fd()).step("map the ids of", "a bind mount")?;
    }
    sources.send(|descriptor| to_init.send_source(descriptor).step("send", "what mounts are made from"))
}

/// In init: takes what the helper sends.
pub(crate) fn receive(plan: &RootfsPlan, channel: &Channel) -> Result<Sources, StepError> {
    Sources::receive(plan, true, || match channel.receive().step("hear from", "the helper")? {
        Message::Source(descriptor) => Ok(descriptor),
        _ => Err(StepError::refused("hear from", "the helper", "it spoke out of turn")),
    })
}

/// In init: maps the ids of a mount that it made itself. That takes rights over the file system, which root of a user namespace
/// lacks: then the runtime does it.
pub(crate) fn map_ids(
    tree: &OwnedFd,
    recursive: bool,
    namespace: BorrowedFd<'_>,
    runtime: Option<&Channel>,
) -> io::Result<()> {
    let Some(runtime) = runtime else { return rootfs::map_ids(tree, recursive, namespace) };
    let request =
        MapRequest { tree: tree.try_clone()?, namespace: namespace.try_clone_to_owned()?, recursive };
    runtime.send(&Message::Map(request))?;
    Ok(runtime.wait_for_go()?)
}
