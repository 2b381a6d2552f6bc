//! The last part of the conversation: until the container's program runs.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::channel::{Channel, Message, send_with_descriptors};
use crate::error::RuntimeError;
use crate::state::State;
use crate::step::{Step, StepError};

/// Where a seccomp listener goes.
pub(crate) struct SeccompListener {
    path: PathBuf,
    metadata: String,
}

impl SeccompListener {
    /// Where the profile says, if it does.
    pub(crate) fn from_spec(profile: &oci_spec::runtime::LinuxSeccomp) -> Option<Self> {
        let metadata = profile.listener_metadata().clone().unwrap_or_default();
        Some(Self::new(profile.listener_path().clone()?, metadata))
    }

    /// At `path`, with the text that goes with it.
    pub(crate) fn new(path: PathBuf, metadata: String) -> Self {
        SeccompListener { path, metadata }
    }

    /// Hands a listener on, with the container process state that runtime-spec's config-linux.md describes.
    pub(crate) fn send(
        &self,
        listener: &OwnedFd,
        state: &State,
        pid: i32,
        status: &str,
    ) -> Result<(), StepError> {
        let spec_state: serde_json::Value =
            serde_json::from_slice(&state.to_spec_json(state.init_process_pid, status)).unwrap_or_default();
        let message = serde_json::json!({
            "ociVersion": state.oci_version,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": self.metadata,
            "state": spec_state,
        });
        let socket = crate::terminal::connect_socket(&self.path)?;
        send_with_descriptors(socket.as_fd(), message.to_string().as_bytes(), &[listener.as_fd()])
            .step("send the seccomp listener to", self.path.display())
    }
}

/// Waits until the payload runs: the line ends with execve. Passes the seccomp listener on.
pub(crate) fn await_payload(
    channel: &Channel,
    state: &State,
    pid: i32,
    seccomp: Option<&SeccompListener>,
) -> Result<(), RuntimeError> {
    loop {
        match channel.receive().step("hear from", "the container's process")? {
            Message::End => return Ok(()),
            Message::Failed(report) => return Err(RuntimeError::Init { report }),
            Message::Listener(listener) => match seccomp {
                Some(target) => target.send(&listener, state, pid, "creating")?,
                None => {
                    let reason = "the profile has SCMP_ACT_NOTIFY but no listenerPath".to_owned();
                    return Err(RuntimeError::Refused { operation: "hand on the seccomp listener", reason });
                }
            },
            _ => return Err(RuntimeError::InitDied { how: "it spoke out of turn".to_owned() }),
        }
    }
}
