//! The last steps before the payload, which init and exec processes share. After them nothing of the runtime is left.

use std::ffi::CStr;
use std::io::Write as _;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, CWD, FileType, OFlags};
use rustix::io::Errno;
use rustix::process::DumpableBehavior;

use super::channel::{Channel, Message};
use crate::credentials;
use crate::plan::ProcessPlan;
use crate::resolve::{self, HostProc};
use crate::step::{EXECUTE, FIND_PROGRAM, Step, StepError};
use crate::sys;

/// What is done while a failure can still be told to `create`: the directory, the program, labels, the bounding set.
///
/// Gives the program's place.
pub(crate) fn prepare(
    plan: &mut ProcessPlan,
    root: BorrowedFd<'_>,
    procfs: &HostProc,
) -> Result<(), StepError> {
    if plan.needs_home {
        let home = credentials::find_home(root, plan.credentials.uid);
        plan.environment.push(home);
    }
    plan.cwd_is_open_to_root = enter_directory(&plan.cwd)?;
    let found = find_program(plan)?;
    plan.candidates.swap(0, found);
    plan.candidates.truncate(1);
    write_labels(plan, procfs)?;
    plan.scheduling.apply()?;
    // Takes `CAP_SETPCAP` and nothing that comes later: done while the runtime has something else to do.
    plan.capabilities.apply_bounding()
}

/// Changes to the working directory and makes sure that it is inside: a descriptor of the host leaked into `/proc/self/fd`
/// could have named a directory outside (CVE-2024-21626).
///
/// `false` where root may not enter it. The user may be allowed what root is not, on a network file system: then it is
/// entered later.
fn enter_directory(path: &CStr) -> Result<bool, StepError> {
    let display = path.to_string_lossy();
    match rustix::process::chdir(path) {
        Err(Errno::ACCESS) => return Ok(false),
        result => result.step("chdir to cwd", &display)?,
    }
    // The root itself cannot be outside.
    if path == c"/" { Ok(true) } else { check_directory(&display).map(|()| true) }
}

fn check_directory(display: &str) -> Result<(), StepError> {
    let inside = rustix::process::getcwd(Vec::new()).step("examine", display)?;
    if inside.to_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err(StepError::refused(
        "chdir to cwd",
        display,
        "current working directory is outside of container mount namespace root",
    ))
}

/// The first candidate that is a file with an execute bit. runc's callers look for these texts.
fn find_program(plan: &ProcessPlan) -> Result<usize, StepError> {
    let is_looked_up = !plan.program.contains('/');
    let mut refusal = Errno::NOENT;
    for (index, candidate) in plan.candidates.iter().enumerate() {
        match rustix::fs::statat(CWD, candidate.as_c_str(), AtFlags::empty()) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                refusal = Errno::ISDIR
            }
            Ok(stat) if stat.st_mode & 0o111 == 0 => refusal = Errno::ACCESS,
            Ok(_) => return Ok(index),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => refusal = error,
        }
    }
    // With an empty name each candidate is a directory of `PATH`.
    if is_looked_up && (refusal == Errno::NOENT || plan.program.is_empty()) {
        return Err(StepError::refused(FIND_PROGRAM, &plan.program, "executable file not found in $PATH"));
    }
    Err(refusal).step(FIND_PROGRAM, &plan.program)
}

/// Writes the labels that the next execve takes on, through the host's procfs: the container's could be anything.
fn write_labels(plan: &ProcessPlan, procfs: &HostProc) -> Result<(), StepError> {
    if !plan.has_labels() {
        return Ok(());
    }
    let procfs = procfs.get()?;
    if let Some(profile) = &plan.apparmor {
        let written = write_attribute(procfs, c"thread-self/attr/apparmor/exec", profile);
        match written {
            Err(Errno::NOENT) => write_attribute(procfs, c"thread-self/attr/exec", profile),
            written => written,
        }
        .step("apply the AppArmor profile", String::from_utf8_lossy(profile).trim_start_matches("exec "))?;
    }
    match &plan.selinux {
        Some(label) => write_attribute(procfs, c"thread-self/attr/exec", label)
            .step("set the SELinux label", String::from_utf8_lossy(label)),
        None => Ok(()),
    }
}

fn write_attribute(procfs: BorrowedFd<'_>, path: &CStr, value: &[u8]) -> Result<(), Errno> {
    let file = resolve::open_own(procfs, path, OFlags::WRONLY)?;
    let mut file = std::fs::File::from(file);
    file.write_all(value).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Gives up what the payload is not to have and becomes its user. Without no_new_privs a filter takes `CAP_SYS_ADMIN` to load:
/// then the capabilities stay until it is.
///
/// The order is what each step needs: changing ids takes `CAP_SETUID`. What [`prepare`] did last took `CAP_SETPCAP`.
pub(crate) fn drop_privileges(plan: &ProcessPlan, groups_denied: bool) -> Result<(), StepError> {
    plan.credentials.apply(groups_denied)?;
    if !plan.credentials.is_root() {
        // The change of ids makes it what the host's `fs.suid_dumpable` says.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .step("set", "PR_SET_DUMPABLE")?;
    }
    enter_directory_as_user(plan)?;
    if keeps_capabilities(plan) { regain_permitted() } else { plan.capabilities.apply() }
}

fn keeps_capabilities(plan: &ProcessPlan) -> bool {
    plan.seccomp.is_some() && !plan.no_new_privileges
}

/// Becomes the payload, after [`drop_privileges`]. Returns only an error. `last` comes when nothing but execve is left: as in
/// runc, hooks of the container's own have no more rights than its program.
pub(crate) fn become_payload(
    plan: &ProcessPlan,
    channel: &Channel,
    last: impl FnOnce() -> Result<(), StepError>,
) -> StepError {
    match take_last_steps(plan, channel).and_then(|()| last()) {
        Ok(()) => {
            let path = plan.candidates.first().map_or(c"", |path| path.as_c_str());
            let error = sys::execute(path, &plan.arguments, &plan.environment);
            match Err::<(), _>(error).step(EXECUTE, &plan.program) {
                Err(error) => error,
                Ok(()) => StepError::refused(EXECUTE, &plan.program, "it returned"),
            }
        }
        Err(error) => error,
    }
}

/// A filter is loaded when as little as can be is left to pass it.
fn take_last_steps(plan: &ProcessPlan, channel: &Channel) -> Result<(), StepError> {
    // What the caller left open stays outside: all but the standard streams and those asked for.
    sys::close_on_exec_from(3 + plan.preserve_fds).step("close", "inherited descriptors")?;
    sys::reset_signals();
    if plan.no_new_privileges {
        rustix::thread::set_no_new_privs(true).step("set", "no_new_privs")?;
    }
    if let Some(program) = &plan.seccomp {
        install(program, channel)?;
    }
    if keeps_capabilities(plan) { plan.capabilities.apply() } else { Ok(()) }
}

/// Enters the working directory once more as the user, who may not be allowed what root was, and the other way round.
fn enter_directory_as_user(plan: &ProcessPlan) -> Result<(), StepError> {
    if plan.credentials.uid == 0 && plan.cwd_is_open_to_root {
        return Ok(());
    }
    match rustix::process::chdir(plan.cwd.as_c_str()) {
        Err(Errno::ACCESS) if plan.credentials.uid != 0 => check_directory(&plan.cwd.to_string_lossy()),
        result => result.step("chdir to cwd", plan.cwd.to_string_lossy()),
    }
}

/// After the change of ids the permitted capabilities are kept but not effective.
fn regain_permitted() -> Result<(), StepError> {
    let mut sets = rustix::thread::capabilities(None).step("read", "capabilities")?;
    sets.effective = sets.permitted;
    rustix::thread::set_capabilities(None, sets).step("raise", "capabilities")
}

/// Loads the filter. The listener goes to the other side, which hands it on; the payload never has it.
fn install(program: &crate::seccomp::Program, channel: &Channel) -> Result<(), StepError> {
    let listener = program.install().step("load", "the seccomp filter")?;
    match listener {
        Some(listener) => channel.send(&Message::Listener(listener)).step("hand on", "the seccomp listener"),
        None => Ok(()),
    }
}

/// Tells the other side why it ends, and ends. Where `start` has not waited, the reason goes where the program's output would
/// have gone, as with runc.
pub(crate) fn fail(channel: &Channel, error: &StepError) -> ! {
    let message = crate::step::chain(error);
    if let Err(Errno::PIPE | Errno::CONNRESET) = channel.send(&Message::Failed(message.clone())) {
        let line = format!("inspect-runtime: {}\n", crate::step::printable(&message));
        rustix::io::write(rustix::stdio::stderr(), line.as_bytes()).ok();
    }
    sys::exit_now(1)
}

/// Opens the root of the calling process.
pub(crate) fn open_root() -> Result<std::os::fd::OwnedFd, StepError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, c"/", flags, rustix::fs::Mode::empty()).step("open", "/")
}
