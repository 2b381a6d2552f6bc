//! `delete`.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroup::{self, Cgroup, ScopeOwner};
use crate::context::Context;
use crate::error::RuntimeError;
use crate::hooks::{self, HookPlan};
use crate::intel_rdt::ResourceClass;
use crate::process::parent::load_spec;
use crate::state::{State, StateDirectory, StateError, Status, process_start};
use crate::step::Step as _;
use crate::sys;

/// Removes what a container left; with `force` a living one, too, and then one that is not there is no error.
pub(super) fn run(id: &str, force: bool, context: &Context) -> Result<u8, RuntimeError> {
    let directory = StateDirectory::locate(&context.root, id)?;
    let mut loaded = directory.load();
    if let Ok(state) = &loaded
        && force
        && state.status(&directory) == Status::Creating
    {
        end_creator(state, &directory)?;
        loaded = directory.load();
    }
    let state = match loaded {
        Ok(state) => state,
        Err(StateError::Missing { .. }) if force => {
            // The runtime was killed between making the directory and writing into it.
            if directory.exists() {
                directory.remove(false)?;
            }
            return Ok(0);
        }
        Err(error) => return Err(error.into()),
    };
    match (super::status(&directory, &state), force) {
        (Status::Stopped, _) => {}
        (_, true) => {}
        (status, false) => {
            return Err(RuntimeError::DeleteRunning { id: id.to_owned(), status: status.as_str() });
        }
    }
    remove(&directory, &state, context, Leftover { kill: force, known: None })?;
    Ok(0)
}

/// Ends the runtime that is still creating the container, as if it had been killed before: going on, it would take what others make in
/// the container's place for its own.
fn end_creator(state: &State, directory: &StateDirectory) -> Result<(), RuntimeError> {
    let creator = Pid::from_raw(state.creator_pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let Some(creator) = creator else { return Ok(()) };
    // Asked again now that the process cannot become another's; states without its time cannot tell.
    if state.creation_began == 0 || state.status(directory) != Status::Creating {
        return Ok(());
    }
    match sys::send_signal(creator.as_fd(), libc::SIGKILL) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
            Err(error).step("end the runtime that creates", &state.id)?;
        }
        _ => {}
    }
    loop {
        match poll(&mut [PollFd::new(&creator, PollFlags::IN)], None) {
            Err(Errno::INTR) => {}
            ended => return Ok(ended.map(drop).step("await the runtime that creates", &state.id)?),
        }
    }
}

/// What is known of a container that is to go.
pub(super) struct Leftover<'a> {
    /// Its init process may be alive, and is to be killed.
    pub(super) kill: bool,
    /// What need not be read from the spec.
    pub(super) known: Option<Known<'a>>,
}

/// What matters of a container's spec when it goes.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) hooks: &'a HookPlan,
    pub(super) resource_class: Option<&'a ResourceClass>,
}

/// Kills what is left of the container, removes its cgroup and its state, and runs its last hooks.
pub(super) fn remove(
    directory: &StateDirectory,
    state: &State,
    context: &Context,
    leftover: Leftover<'_>,
) -> Result<(), RuntimeError> {
    let path = Some(&state.cgroup_path).filter(|path| !path.as_os_str().is_empty());
    if leftover.kill && state.is_init_alive() {
        super::kill::signal_init(state, libc::SIGKILL).ok();
    }
    match (path, state.scope()) {
        (Some(path), _) => remove_cgroup(path, state)?,
        // Cut short before the user's systemd said where the scope's cgroup is.
        (None, Some(scope)) => cgroup::stop(&scope)?,
        (None, None) => {}
    }
    let (hooks, class) = if leftover.known.is_none() && state.needs_spec_to_delete {
        load_parts(&directory.spec_path(), &state.id)
    } else {
        (None, None)
    };
    let known = leftover.known;
    let hooks = known.map(|known| known.hooks).or(hooks.as_ref());
    if let Some(class) = known.and_then(|known| known.resource_class).or(class.as_ref()) {
        class.remove()?;
    }
    if let Some(root) = state.root_mount {
        crate::rootfs::detach(&state.rootfs, root, state.mount_namespace.as_deref())?;
    }
    directory.remove(state.has_filter)?;
    if let Some(hooks) = hooks {
        hooks::run_poststop(hooks, state, &context.log);
    }
    Ok(())
}

/// Most cgroups are empty by now and have none below: then one call does it.
fn remove_cgroup(path: &Path, state: &State) -> Result<(), RuntimeError> {
    let scope = state.scope();
    if scope.is_none() && rustix::fs::rmdir(path).is_ok() {
        return Ok(());
    }
    // The state names a scope before there is one, and after it has ended: by then its cgroup may be another's.
    if let Some(scope) = &scope
        && cgroup::owner(scope)? == ScopeOwner::Other
    {
        return Ok(());
    }
    match Cgroup::open(path, None) {
        Ok(cgroup) if cgroup.is_populated().unwrap_or(false) => {
            if is_anothers(&cgroup, state)? {
                return Ok(());
            }
            cgroup.kill_all()?;
        }
        _ => {}
    }
    Ok(cgroup::delete(path, scope.as_ref())?)
}

/// Creation was cut short, maybe before it found the cgroup in use: a process that is older than it is none of the container's.
fn is_anothers(cgroup: &Cgroup, state: &State) -> Result<bool, RuntimeError> {
    if state.init_process_pid != 0 {
        return Ok(false);
    }
    let starts = cgroup.processes()?.into_iter().filter_map(|pid| process_start(pid.as_raw_nonzero().get()));
    Ok(starts.min().is_some_and(|oldest| oldest < state.creation_began))
}

/// What of the spec matters now.
fn load_parts(path: &Path, id: &str) -> (Option<HookPlan>, Option<ResourceClass>) {
    let Ok((spec, _)) = load_spec(path, &mut |_| {}) else { return (None, None) };
    (HookPlan::from_spec(spec.hooks().as_ref()).ok(), ResourceClass::from_spec(&spec, id).ok().flatten())
}
