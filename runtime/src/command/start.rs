//! `start`.

use std::os::fd::AsFd as _;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::delete::Leftover;
use crate::context::Context;
use crate::error::RuntimeError;
use crate::hooks::HookPlan;
use crate::notify::Notifications;
use crate::process::channel::Message;
use crate::process::parent;
use crate::process::payload::{self, SeccompListener};
use crate::start;
use crate::state::{State, Status};
use crate::step::Step as _;

/// Lets the init process of a created container go on, and where its program may fail to run, waits until it runs.
pub(super) fn run(id: &str, context: &Context) -> Result<u8, RuntimeError> {
    let (directory, state) = super::load(id, context)?;
    let socket = directory.start_socket();
    // While it is being created init listens already, but nobody may call.
    let is_created = state.init_process_pid != 0;
    let Some(channel) = start::call(&socket)?.filter(|_| is_created) else {
        return Err(match state.status(&directory) {
            Status::Stopped | Status::Created => RuntimeError::StartStopped,
            _ => RuntimeError::StartRunning,
        });
    };
    // Whoever removes the name is the one who starts: of two only one goes on.
    if std::fs::remove_file(&socket).is_err() {
        return Err(RuntimeError::StartRunning);
    }
    // Only now: of two callers one alone may take the place of what the program speaks to.
    let notifications = match &context.notify_socket {
        Some(manager) => Notifications::listen(directory.path(), manager, &context.log)?,
        None => None,
    };
    if !state.waits_for_payload {
        channel.send(&Message::Go).step("speak to", "the init process")?;
        return pass_on(notifications.as_ref(), &state);
    }
    let (hooks, seccomp) = load_parts(&directory.spec_path())?;
    channel.send(&Message::Go).step("speak to", "the init process")?;
    payload::await_payload(&channel, &state, state.init_process_pid, seccomp.as_ref())?;
    if let Err(error) = super::create::run_poststart(&hooks, &state, state.init_process_pid) {
        // runtime-spec 1.3, "Lifecycle": the container is stopped and destroyed. Versions before had it go on.
        let leftover = Leftover { kill: true, known: None };
        super::delete::remove(&directory, &state, context, leftover)?;
        return Err(error);
    }
    pass_on(notifications.as_ref(), &state)
}

/// Where the service manager wants to know: returns when the program is ready.
fn pass_on(notifications: Option<&Notifications<'_>>, state: &State) -> Result<u8, RuntimeError> {
    let Some(notifications) = notifications else { return Ok(0) };
    // One that has ended already will never be ready.
    let init = Pid::from_raw(state.init_process_pid).map(|init| pidfd_open(init, PidfdFlags::empty()));
    if let Some(Ok(init)) = init {
        notifications.await_ready(state.init_process_pid, init.as_fd())?;
    }
    Ok(0)
}

/// What of the spec matters now.
fn load_parts(path: &std::path::Path) -> Result<(HookPlan, Option<SeccompListener>), RuntimeError> {
    let (spec, _) = parent::load_spec(path, &mut |_| {})?;
    let seccomp =
        spec.linux().as_ref().and_then(|linux| SeccompListener::from_spec(linux.seccomp().as_ref()?));
    Ok((HookPlan::from_spec(spec.hooks().as_ref())?, seccomp))
}
