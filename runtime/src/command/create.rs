//! `create` and `run`.

use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::delete::{Known, Leftover};
use crate::cli::CreateOptions;
use crate::context::Context;
use crate::error::RuntimeError;
use crate::hooks::{self, HookPlace};
use crate::notify;
use crate::plan::PlanOptions;
use crate::process::foreground::{self, Console};
use crate::process::parent::{self, Created, Request};
use crate::process::payload;
use crate::process::streams;
use crate::state::StateDirectory;
use crate::terminal;

/// `create`.
pub(super) fn create(options: &CreateOptions, context: &Context) -> Result<u8, RuntimeError> {
    let mut request = request(options, context)?;
    request.waits_for_start = true;
    request.console = connect_console(options)?;
    let (spec, text) = load_spec(&request)?;
    let (spec, text) = (ManuallyDrop::new(spec), ManuallyDrop::new(text));
    std::mem::forget(parent::create(request, &spec, &text)?);
    Ok(0)
}

/// `run`: the container starts as soon as it is set up; in the foreground it is deleted when its process ends.
pub(super) fn run(options: &CreateOptions, context: &Context) -> Result<u8, RuntimeError> {
    let mut request = request(options, context)?;
    request.is_foreground = !options.detach;
    let (spec, text) = load_spec(&request)?;
    // Nothing is freed or closed from here on: this process ends soon, and memory is shared with the container's process.
    let (spec, text) = (ManuallyDrop::new(spec), ManuallyDrop::new(text));
    let mut console = None;
    request.console = connect_console(options)?;
    if !options.detach && request.console.is_none() && wants_terminal(&spec) {
        let (receiver, sender) = Console::pair()?;
        console = Some(receiver);
        request.console = Some(sender);
        request.is_relayed = true;
    }
    let created = ManuallyDrop::new(parent::create(request, &spec, &text)?);
    let started = start(&created);
    let notifications = &created.notifications;
    if started.is_err() || !options.detach {
        let status = started
            .and_then(|()| Ok(foreground::wait(created.pidfd.as_fd(), console, notifications.as_ref())?));
        if status.is_err() || !options.keep {
            let known = Known { hooks: &created.hooks, resource_class: created.resource_class.as_ref() };
            let leftover = Leftover { kill: status.is_err(), known: Some(known) };
            let removed = super::delete::remove(&created.directory, &created.state, context, leftover);
            return status.and_then(|status| removed.map(|()| status));
        }
        return status;
    }
    if let Some(notifications) = notifications {
        notifications.await_ready(created.pid.as_raw_nonzero().get(), created.pidfd.as_fd())?;
    }
    Ok(0)
}

fn start(created: &Created<'_>) -> Result<(), RuntimeError> {
    let pid = created.pid.as_raw_nonzero().get();
    payload::await_payload(&created.channel, &created.state, pid, created.seccomp.as_ref())?;
    run_poststart(&created.hooks, &created.state, pid)
}

/// Hooks after the start. Where one fails, the caller stops the container and removes it, as runtime-spec says since 1.3.
pub(super) fn run_poststart(
    hooks: &hooks::HookPlan,
    state: &crate::state::State,
    pid: i32,
) -> Result<(), RuntimeError> {
    if hooks.poststart.is_empty() {
        return Ok(());
    }
    let place = HookPlace { environment: None, directory: Some(&state.bundle) };
    Ok(hooks::run(&hooks.poststart, place, &state.to_spec_json(pid, "running"))?)
}

fn request<'a>(options: &'a CreateOptions, context: &'a Context) -> Result<Request<'a>, RuntimeError> {
    let bundle = options.bundle.clone().unwrap_or_else(|| PathBuf::from("."));
    let bundle = absolute(&bundle)?;
    let preserve_fds = streams::preserved(options.preserve_fds, context.listen_fds)?;
    Ok(Request {
        context,
        id: &options.id,
        bundle,
        options: PlanOptions { no_pivot: options.no_pivot, preserve_fds, listen_fds: context.listen_fds },
        new_keyring: !options.no_new_keyring,
        pid_file: options.pid_file.as_deref(),
        pidfd_socket: options.pidfd_socket.as_deref(),
        console: None,
        is_relayed: false,
        waits_for_start: false,
        is_foreground: false,
    })
}

fn load_spec(request: &Request<'_>) -> Result<(Box<Spec>, Vec<u8>), RuntimeError> {
    let path = request.bundle.join("config.json");
    let (mut spec, text) = parent::load_spec(&path, &mut |text| request.context.log.warning(text))?;
    if request.context.notify_socket.is_some() {
        notify::add_to(&mut spec, StateDirectory::locate(&request.context.root, request.id)?.path());
    }
    Ok((spec, text))
}

fn absolute(path: &Path) -> Result<PathBuf, RuntimeError> {
    let absolute = std::path::absolute(path);
    let absolute = absolute.map_err(|source| RuntimeError::File {
        operation: "locate",
        path: path.to_path_buf(),
        source,
    })?;
    // `absolute` keeps a trailing `/.` out already; the rest is text that the kernel resolves.
    Ok(absolute.components().collect())
}

fn connect_console(options: &CreateOptions) -> Result<Option<std::os::fd::OwnedFd>, RuntimeError> {
    Ok(options.console_socket.as_deref().map(terminal::connect_socket).transpose()?)
}

fn wants_terminal(spec: &Spec) -> bool {
    spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false)
}
