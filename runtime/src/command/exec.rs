//! `exec`.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Capability, LinuxCapabilities, LinuxNamespace, LinuxPersonality, Process, UserBuilder,
};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;

use crate::cgroup::Cgroup;
use crate::cli::ExecOptions;
use crate::context::Context;
use crate::document;
use crate::error::RuntimeError;
use crate::plan::{self, ProcessPlan};
use crate::process::channel::{Channel, Message};
use crate::process::exec::{self, ExecPlan};
use crate::process::foreground::{self, Console};
use crate::process::parent;
use crate::process::payload::{self, SeccompListener};
use crate::process::streams;
use crate::resolve::HostProc;
use crate::scheduling::{OuterLimits, plan_affinity, plan_personality};
use crate::seccomp::Program;
use crate::state::{State, StateDirectory, Status};
use crate::step::Step as _;
use crate::sys;
use crate::terminal;
use crate::user_namespace;
use crate::validate::validate_process;

/// What `exec` needs of a container's spec. The rest, most of which is the seccomp profile, is passed over.
#[derive(Deserialize)]
struct ContainerSpec {
    process: Option<Process>,
    linux: Option<ContainerLinux>,
}

#[derive(Deserialize)]
struct ContainerLinux {
    namespaces: Option<Vec<LinuxNamespace>>,
    seccomp: Option<Listener>,
    personality: Option<LinuxPersonality>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listener {
    listener_path: Option<PathBuf>,
    listener_metadata: Option<String>,
}

impl ContainerSpec {
    fn namespaces(&self) -> &[LinuxNamespace] {
        self.linux.as_ref().and_then(|linux| linux.namespaces.as_deref()).unwrap_or_default()
    }

    fn personality(&self) -> Option<&LinuxPersonality> {
        self.linux.as_ref()?.personality.as_ref()
    }

    fn seccomp(&self) -> Option<&Listener> {
        self.linux.as_ref()?.seccomp.as_ref()
    }
}

fn load_spec(path: &Path, context: &Context) -> Result<ContainerSpec, RuntimeError> {
    let failed = |source| RuntimeError::File { operation: "read", path: path.to_path_buf(), source };
    let text = crate::file::read_once(path).map_err(failed)?;
    document::parse_warning(&text, &mut |text| context.log.warning(text))
        .map_err(|source| RuntimeError::Json { path: path.to_path_buf(), source })
}

/// The filter that `create` has kept, or the profile compiled now.
fn load_filter(directory: &StateDirectory, state: &State) -> Result<Option<Program>, RuntimeError> {
    if let Some(program) = state.has_filter.then(|| directory.load_filter()).flatten() {
        return Ok(Some(program));
    }
    let (spec, _) = parent::load_spec(&directory.spec_path(), &mut |_| {})?;
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    profile.map(crate::seccomp::compile).transpose().map_err(|error| RuntimeError::Refused {
        operation: "compile the seccomp profile",
        reason: error.to_string(),
    })
}

/// Runs a further process in a container.
pub(super) fn run(options: &ExecOptions, context: &Context) -> Result<u8, RuntimeError> {
    let (directory, state) = super::load(&options.id, context)?;
    // Before its start time is looked at: so the pidfd is that process's, or it has ended.
    let init = Pid::from_raw(state.init_process_pid).ok_or(RuntimeError::ExecStopped)?;
    let init = pidfd_open(init, PidfdFlags::empty()).map_err(|_| RuntimeError::ExecStopped)?;
    match super::status(&directory, &state) {
        Status::Stopped | Status::Creating => return Err(RuntimeError::ExecStopped),
        Status::Paused if !options.ignore_paused => return Err(RuntimeError::ExecPaused),
        _ => {}
    }
    let spec = load_spec(&directory.spec_path(), context)?;
    let process = describe_process(options, &spec, context)?;
    validate_process("process", &process)?;
    let program = match spec.seccomp() {
        Some(_) => load_filter(&directory, &state)?,
        None => None,
    };
    let preserve_fds = streams::preserved(options.preserve_fds, context.listen_fds)?;
    let mut plan = plan::plan_process(&process, program, preserve_fds)?;
    user_namespace::check_groups(&plan.credentials.additional_gids, context.uid)?;
    context.log.warnings(plan.capabilities.warnings());
    plan.scheduling.outer.oom_score_adj =
        process.oom_score_adj().or_else(|| spec.process.as_ref()?.oom_score_adj());
    plan.scheduling.personality = spec.personality().map(plan_personality).transpose()?;
    let configured = spec.process.as_ref().and_then(|own| own.exec_cpu_affinity().as_ref());
    let affinity = plan_affinity(process.exec_cpu_affinity().as_ref().or(configured))?;
    affinity.begin()?;
    plan.scheduling.outer.affinity = affinity.last;
    let (console, sender) = open_console(options, &plan)?;
    let listener = spec.seccomp().and_then(|seccomp| {
        let metadata = seccomp.listener_metadata.clone().unwrap_or_default();
        Some(SeccompListener::new(seccomp.listener_path.clone()?, metadata))
    });
    let target = Target { context, spec: &spec, state: &state };
    // Closed at the end of this process, which is near.
    let started = ManuallyDrop::new(start(target, init, plan, sender, options)?);
    let pid = started.pid.as_raw_nonzero().get();
    if let Err(error) = payload::await_payload(&started.channel, &state, pid, listener.as_ref()) {
        reap(&started);
        return Err(error);
    }
    // The kernel waits here while the program runs.
    context.private_mount.release();
    if options.detach {
        return Ok(0);
    }
    Ok(foreground::wait(started.pidfd.as_fd(), console, None)?)
}

struct Started {
    pid: Pid,
    pidfd: OwnedFd,
    channel: Channel,
}

/// What a process enters.
#[derive(Clone, Copy)]
struct Target<'a> {
    context: &'a Context,
    spec: &'a ContainerSpec,
    state: &'a State,
}

fn start(
    target: Target<'_>,
    init: OwnedFd,
    plan: ProcessPlan,
    console: Option<OwnedFd>,
    options: &ExecOptions,
) -> Result<Started, RuntimeError> {
    let state = target.state;
    let namespaces = exec::namespaces_to_join(target.spec.namespaces(), state.init_process_pid)?;
    let root = state.root_mount.map(|_| exec::open_root_of(state.init_process_pid)).transpose()?;
    // What was looked up by the pid is that process's, too, or it has ended.
    let was_looked_up = root.is_some() || namespaces & libc::CLONE_NEWUSER != 0 || sys::effective_user() != 0;
    if was_looked_up && !state.is_init_alive() {
        return Err(RuntimeError::ExecStopped);
    }
    let cgroup = open_cgroup(state, options.cgroup.as_deref())?;
    let limits = plan.scheduling.outer.clone();
    // In a user namespace it may not raise its limits.
    let goes_ahead = namespaces & libc::CLONE_NEWUSER == 0;
    // Whoever waits for its end need not wait for its beginning.
    let is_told = options.detach || options.pid_file.is_some() || options.pidfd_socket.is_some();
    let groups_denied = namespaces & libc::CLONE_NEWUSER != 0 && user_namespace::groups_are_denied();
    let mut process = ExecPlan {
        procfs: if plan.has_labels() { HostProc::open()? } else { HostProc::closed() },
        process: plan,
        init,
        namespaces,
        root,
        console,
        is_relayed: !options.detach && options.console_socket.is_none(),
        groups_denied,
        says_ready: is_told || !goes_ahead,
        own_limits: if goes_ahead { limits.clone() } else { OuterLimits::default() },
    };
    if !options.detach {
        sys::block_signals();
    }
    let (pid, pidfd, channel) = clone_into(&mut process, target, cgroup.as_ref(), options.cgroup.is_some())?;
    // Memory that the child has a copy of would be copied to be freed, and this process ends soon.
    drop(process.console.take());
    std::mem::forget(process);
    let private_mount = &target.context.private_mount;
    let started = Started { pid, pidfd, channel };
    let let_go = || {
        if goes_ahead {
            limits.apply_others(started.pid)?;
            started.channel.send_go().step("speak to", "the process")?;
            if !is_told {
                return Ok(());
            }
            await_ready(&started)?;
            // The kernel makes the last one wait who has it. Nobody but the host's root can look into this process.
            private_mount.release();
        } else {
            private_mount.release();
            await_ready(&started)?;
            limits.apply(started.pid)?;
            started.channel.send_go().step("speak to", "the process")?;
        }
        publish(&started, options)
    };
    match let_go() {
        Ok(()) => Ok(started),
        Err(error) => {
            reap(&started);
            Err(error)
        }
    }
}

/// The process that failed is killed and reaped: nothing of it stays in the container.
fn reap(started: &Started) {
    sys::send_signal(started.pidfd.as_fd(), libc::SIGKILL).ok();
    let id = rustix::process::WaitId::PidFd(started.pidfd.as_fd());
    rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED).ok();
}

fn await_ready(started: &Started) -> Result<(), RuntimeError> {
    match started.channel.receive().step("hear from", "the process")? {
        Message::Ready => Ok(()),
        Message::Failed(report) => Err(RuntimeError::Init { report }),
        _ => Err(RuntimeError::InitDied { how: "it ended".to_owned() }),
    }
}

/// Tells the callers which process it is.
fn publish(started: &Started, options: &ExecOptions) -> Result<(), RuntimeError> {
    if let Some(path) = &options.pid_file {
        parent::write_pid_file(path, started.pid.as_raw_nonzero().get())?;
    }
    match &options.pidfd_socket {
        Some(path) => Ok(parent::send_pidfd(path, &started.pidfd)?),
        None => Ok(()),
    }
}

/// `None` for a container that has none of its own: there the process stays in the caller's, as the init process did.
fn open_cgroup(state: &State, below: Option<&Path>) -> Result<Option<Cgroup>, RuntimeError> {
    let below = below.map(|below| below.strip_prefix("/").unwrap_or(below));
    let below = below.filter(|below| !below.as_os_str().is_empty());
    if state.cgroup_path.as_os_str().is_empty() && below.is_none() {
        return Ok(None);
    }
    let cgroup = Cgroup::open(&state.cgroup_path, None)?;
    match below {
        Some(below) => Ok(Some(cgroup.open_below(below)?)),
        None => Ok(Some(cgroup)),
    }
}

/// A container that has turned controllers on for cgroups below its own (systemd does) can no longer hold processes in it
/// (`EBUSY`): then, unless a cgroup was asked for, the new process goes where the init process is.
fn clone_into(
    plan: &mut ExecPlan,
    target: Target<'_>,
    cgroup: Option<&Cgroup>,
    is_chosen: bool,
) -> Result<(Pid, OwnedFd, Channel), RuntimeError> {
    let private_mount = &target.context.private_mount;
    match exec::clone(plan, cgroup.map(Cgroup::fd), private_mount) {
        Err(error) if error.is_busy() => match cgroup {
            Some(cgroup) if is_chosen => Err(RuntimeError::Refused {
                operation: "put the process into the cgroup",
                reason: format!(
                    "`{}` has controllers turned on for the cgroups below it, and the kernel lets no process be beside those; \
                     name one of them with --cgroup",
                    cgroup.path().display()
                ),
            }),
            _ => {
                let init = init_cgroup(target.state)?;
                Ok(exec::clone(plan, Some(init.fd()), private_mount)?)
            }
        },
        cloned => Ok(cloned?),
    }
}

fn init_cgroup(state: &State) -> Result<Cgroup, RuntimeError> {
    let path = format!("/proc/{}/cgroup", state.init_process_pid);
    let text = std::fs::read_to_string(&path).map_err(|source| RuntimeError::File {
        operation: "read",
        path: path.into(),
        source,
    })?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/")).ok_or(Errno::NOENT);
    let own = own.step("find the cgroup of", "the init process")?;
    Ok(Cgroup::open(&Path::new("/sys/fs/cgroup").join(own), None)?)
}

fn open_console(
    options: &ExecOptions,
    plan: &ProcessPlan,
) -> Result<(Option<Console>, Option<OwnedFd>), RuntimeError> {
    match (&options.console_socket, plan.terminal.is_some()) {
        (Some(path), true) => Ok((None, Some(terminal::connect_socket(path)?))),
        (Some(_), false) => Err(RuntimeError::Console {
            reason: "cannot use console socket if runc will not detach or allocate tty",
        }),
        (None, true) if options.detach => Err(RuntimeError::Console {
            reason: "cannot allocate tty if runc will detach without setting console socket",
        }),
        (None, true) => {
            let (receiver, sender) = Console::pair()?;
            Ok((Some(receiver), Some(sender)))
        }
        (None, false) => Ok((None, None)),
    }
}

/// The process: from `--process`, or the spec's with what the command line changes.
fn describe_process(
    options: &ExecOptions,
    spec: &ContainerSpec,
    context: &Context,
) -> Result<Process, RuntimeError> {
    if let Some(path) = &options.process {
        let text = std::fs::read(path).map_err(|source| RuntimeError::File {
            operation: "read",
            path: path.clone(),
            source,
        })?;
        return parse_process(&text, context)
            .map_err(|source| RuntimeError::Json { path: path.clone(), source });
    }
    let mut process = spec.process.clone().unwrap_or_default();
    process.set_args(Some(options.arguments.clone()));
    process.set_terminal(Some(options.tty));
    if !options.tty {
        process.set_console_size(None);
    }
    if let Some(cwd) = &options.cwd {
        process.set_cwd(cwd.into());
    }
    if let Some(profile) = &options.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &options.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if options.no_new_privileges {
        process.set_no_new_privileges(Some(true));
    }
    let mut environment = process.env().clone().unwrap_or_default();
    environment.extend(options.env.iter().cloned());
    process.set_env(Some(environment));
    add_capabilities(&mut process, &options.capabilities)?;
    set_user(&mut process, options)?;
    Ok(process)
}

/// A process without a user is root's, as for runc.
fn parse_process(text: &[u8], context: &Context) -> serde_json::Result<Process> {
    let mut value: serde_json::Value = serde_json::from_slice(text)?;
    if let Some(fields) = value.as_object_mut() {
        fields.entry("user").or_insert_with(|| serde_json::json!({"uid": 0, "gid": 0}));
    }
    document::parse_warning(&serde_json::to_vec(&value)?, &mut |text| context.log.warning(text))
}

fn add_capabilities(process: &mut Process, names: &[String]) -> Result<(), RuntimeError> {
    if names.is_empty() {
        return Ok(());
    }
    let mut sets: LinuxCapabilities = process.capabilities().clone().unwrap_or_default();
    for name in names {
        let capability: Capability = parse_capability(name)?;
        let with = |set: &Option<std::collections::HashSet<Capability>>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let (bounding, effective, permitted) =
            (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
        sets.set_bounding(bounding);
        sets.set_effective(effective);
        sets.set_permitted(permitted);
        // What may not be inherited cannot be ambient, and nothing is added to what may.
        if sets.inheritable().as_ref().is_some_and(|set| set.contains(&capability)) {
            let ambient = with(sets.ambient());
            sets.set_ambient(ambient);
        }
    }
    process.set_capabilities(Some(sets));
    Ok(())
}

fn parse_capability(name: &str) -> Result<Capability, RuntimeError> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    serde_json::from_value(serde_json::Value::String(full)).map_err(|_| RuntimeError::Refused {
        operation: "add the capability",
        reason: format!("{name:?} is none that the runtime knows"),
    })
}

fn set_user(process: &mut Process, options: &ExecOptions) -> Result<(), RuntimeError> {
    let old = process.user().clone();
    let (mut uid, mut gid) = (old.uid(), old.gid());
    if let Some(user) = &options.user {
        let number = |text: &str| {
            text.parse::<u32>().map_err(|_| RuntimeError::Refused {
                operation: "use --user",
                reason: format!("{user:?} is not of the form UID[:GID]"),
            })
        };
        let (first, second) =
            user.split_once(':').map_or((user.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        uid = number(first)?;
        gid = second.map(number).transpose()?.unwrap_or(gid);
    }
    let mut groups = old.additional_gids().clone().unwrap_or_default();
    groups.extend(&options.additional_gids);
    let mut user = UserBuilder::default().uid(uid).gid(gid).additional_gids(groups);
    if let Some(mask) = old.umask() {
        user = user.umask(mask);
    }
    let user = user
        .build()
        .map_err(|error| RuntimeError::Refused { operation: "use --user", reason: error.to_string() })?;
    process.set_user(user);
    Ok(())
}
