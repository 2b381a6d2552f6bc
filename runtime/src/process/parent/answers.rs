//! What init answers, and how it ended if it does not.

use std::os::fd::AsFd;

use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::Creation;
use crate::error::RuntimeError;
use crate::hooks::{self, HookPlace, HookPlan};
use crate::process::channel::{Channel, Message};
use crate::rootfs;
use crate::step::Step;

impl Creation<'_> {
    pub(super) fn await_ready(&self, channel: &Channel, hooks: &HookPlan) -> Result<(), RuntimeError> {
        loop {
            match channel.receive().step("hear from", "the init process")? {
                Message::Ready => return Ok(()),
                Message::Hooks => {
                    let pid = self.child.as_ref().map_or(0, |(pid, _)| pid.as_raw_nonzero().get());
                    let place = HookPlace { environment: None, directory: Some(&self.state.bundle) };
                    self.has_run_hooks.set(true);
                    hooks::run(&hooks.create_runtime, place, &self.state.to_spec_json(pid, "creating"))?;
                    channel.send_go().step("speak to", "the init process")?;
                }
                Message::Map(request) => {
                    rootfs::map_ids(&request.tree, request.recursive, request.namespace.as_fd())
                        .step("map the ids of", "a bind mount")?;
                    channel.send_go().step("speak to", "the init process")?;
                }
                Message::Failed(report) => return Err(RuntimeError::Init { report }),
                _ => return Err(RuntimeError::InitDied { how: self.how_it_ended() }),
            }
        }
    }

    /// Waits until init is the container's user and waits for `start`.
    pub(super) fn await_drop(&mut self, channel: &Channel) -> Result<(), RuntimeError> {
        match channel.receive().step("hear from", "the init process")? {
            Message::End if self.has_ended() => Err(RuntimeError::InitDied { how: self.how_it_ended() }),
            Message::End => Ok(()),
            Message::Doubtful => {
                self.state.waits_for_payload = true;
                Ok(self.directory.save(&self.state)?)
            }
            Message::Failed(report) => Err(RuntimeError::Init { report }),
            _ => Err(RuntimeError::InitDied { how: "it spoke out of turn".to_owned() }),
        }
    }

    fn has_ended(&self) -> bool {
        let Some((_, pidfd)) = &self.child else { return true };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        matches!(waitid(WaitId::PidFd(pidfd.as_fd()), options), Ok(Some(_)))
    }

    fn how_it_ended(&self) -> String {
        let Some((_, pidfd)) = &self.child else { return "it never was".to_owned() };
        let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        match status.ok().flatten().and_then(|status| status.terminating_signal()) {
            Some(libc::SIGKILL) => "killed: perhaps the memory limit is too low".to_owned(),
            Some(signal) => format!("signal {signal}"),
            None => "it exited".to_owned(),
        }
    }
}
