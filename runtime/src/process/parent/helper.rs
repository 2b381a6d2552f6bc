//! The process between the runtime and init where init's user namespace has to be entered first.

use std::os::fd::AsFd;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::Creation;
use crate::error::RuntimeError;
use crate::namespaces::NamespaceSteps;
use crate::process::channel::{Channel, Message};
use crate::process::finish;
use crate::process::init::{self, InitPlan};
use crate::step::{Step, StepError};
use crate::sys::{self, CloneRequest, Cloned};

impl Creation<'_> {
    /// Learns init's pid from the helper, and reaps the helper.
    pub(super) fn adopt(&mut self, channel: &Channel) -> Result<(), RuntimeError> {
        let message = channel.receive().step("hear from", "the helper")?;
        if let Some((_, helper)) = self.child.take() {
            waitid(WaitId::PidFd(helper.as_fd()), WaitIdOptions::EXITED).step("await", "the helper")?;
        }
        match message {
            Message::Pid(pid) => {
                let pid =
                    Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH).step("adopt", "the init process")?;
                let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
                self.child = Some((pid, pidfd.step("adopt", "the init process")?));
                Ok(())
            }
            Message::Failed(report) => Err(RuntimeError::Init { report }),
            _ => Err(RuntimeError::InitDied { how: "its helper ended".to_owned() }),
        }
    }
}

/// The helper for a user namespace by path, and for a new one beside other namespaces by path. What of those can be joined
/// from the host's user namespace is joined before; init tries the rest.
pub(super) fn help(mut init: InitPlan, channel: Channel, steps: &NamespaceSteps) -> ! {
    init.join.retain(|joined| joined.enter().is_err());
    let cloned = enter_user_namespace(steps).and_then(|()| {
        let flags =
            sys::CLONE_CLEAR_SIGHAND | u64::from((steps.clone_flags | libc::CLONE_PARENT).cast_unsigned());
        sys::clone_process(CloneRequest { flags, cgroup: None }).step("clone", "the init process")
    });
    match cloned {
        Ok(Cloned::Child) => {
            // The first word on the line is the helper's: init waits until it is asked.
            init::run(init, channel)
        }
        Ok(Cloned::Parent(pid, _)) => {
            channel.send(&Message::Pid(pid.as_raw_nonzero().get())).ok();
            sys::exit_now(0)
        }
        Err(error) => finish::fail(&channel, &error),
    }
}

fn enter_user_namespace(steps: &NamespaceSteps) -> Result<(), StepError> {
    for joined in steps.user.iter().chain(&steps.join_for_children) {
        joined.enter()?;
    }
    Ok(())
}
