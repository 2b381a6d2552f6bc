//! The six hook points of runtime-spec: programs of the host or the container, with the container's state on their stdin.

use std::ffi::CString;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use oci_spec::runtime::{Hook, Hooks};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::log::Log;
use crate::plan::c_string;
use crate::state::State;
use crate::step::{Step, StepError};
use crate::sys::{self, CloneRequest, Cloned, StringList};
use crate::validate::{InvalidSpec, invalid};

/// A hook, laid out for execve(2).
#[derive(Debug)]
pub(crate) struct HookCommand {
    /// Its point, and which of that point's it is from 0, for messages.
    point: &'static str,
    number: usize,
    path: CString,
    display: PathBuf,
    arguments: StringList,
    /// `None`: that of the process that runs it.
    environment: Option<StringList>,
    timeout: Option<Timespec>,
}

/// The hooks of a container, by point.
#[derive(Debug, Default)]
pub(crate) struct HookPlan {
    /// `prestart` (deprecated) and then `createRuntime`: in the runtime's namespaces, before the root changes.
    pub(crate) create_runtime: Vec<HookCommand>,
    /// In the container's namespaces, before the root changes.
    pub(crate) create_container: Vec<HookCommand>,
    /// In the container, before its program.
    pub(crate) start_container: Vec<HookCommand>,
    /// In the runtime's namespaces, after the program runs.
    pub(crate) poststart: Vec<HookCommand>,
    /// In the runtime's namespaces, after the container is deleted.
    pub(crate) poststop: Vec<HookCommand>,
}

/// A hook that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HookError {
    /// It could not be run.
    #[error("error running {point} hook #{number}: `{path}`")]
    Run {
        point: &'static str,
        number: usize,
        path: PathBuf,
        #[source]
        source: StepError,
    },
    /// It ended otherwise than with status 0.
    #[error("error running {point} hook #{number}: `{path}`: {result}: {output:?}")]
    Failed { point: &'static str, number: usize, path: PathBuf, result: String, output: String },
    /// It ran longer than its `timeout`.
    #[error(
        "error running {point} hook #{number}: `{path}`: it did not end within {seconds} s and was killed"
    )]
    Timeout { point: &'static str, number: usize, path: PathBuf, seconds: i64 },
}

impl HookPlan {
    /// The hooks of the spec.
    pub(crate) fn from_spec(hooks: Option<&Hooks>) -> Result<Self, InvalidSpec> {
        let Some(hooks) = hooks else { return Ok(HookPlan::default()) };
        #[allow(deprecated, reason = "the spec keeps `prestart` for those who still use it")]
        let prestart = hooks.prestart();
        let mut create_runtime = plan_hooks("prestart", prestart.as_deref())?;
        create_runtime.extend(plan_hooks("createRuntime", hooks.create_runtime().as_deref())?);
        Ok(HookPlan {
            create_runtime,
            create_container: plan_hooks("createContainer", hooks.create_container().as_deref())?,
            start_container: plan_hooks("startContainer", hooks.start_container().as_deref())?,
            poststart: plan_hooks("poststart", hooks.poststart().as_deref())?,
            poststop: plan_hooks("poststop", hooks.poststop().as_deref())?,
        })
    }

    /// Whether a hook needs the host's tree around the container's: then the root changes after it.
    pub(crate) fn runs_before_pivot(&self) -> bool {
        !self.create_runtime.is_empty() || !self.create_container.is_empty()
    }

    /// Whether a hook runs in the namespaces that the runtime was called in.
    pub(crate) fn runs_outside(&self) -> bool {
        self.runs_before_pivot() || !self.poststart.is_empty() || !self.poststop.is_empty()
    }
}

fn plan_hooks(point: &'static str, hooks: Option<&[Hook]>) -> Result<Vec<HookCommand>, InvalidSpec> {
    hooks
        .unwrap_or_default()
        .iter()
        .enumerate()
        .map(|(number, hook)| plan_hook(point, number, hook))
        .collect()
}

fn plan_hook(point: &'static str, number: usize, hook: &Hook) -> Result<HookCommand, InvalidSpec> {
    let field = |name: &str| format!("hooks.{point}.{name}");
    if !hook.path().is_absolute() {
        return Err(invalid(&field("path"), "it is not absolute"));
    }
    let list = |name: &str, strings: &[String]| -> Result<StringList, InvalidSpec> {
        let strings = strings.iter().map(|one| c_string(&field(name), one.as_bytes()));
        Ok(StringList::new(strings.collect::<Result<_, _>>()?))
    };
    let path = c_string(&field("path"), hook.path().as_os_str().as_encoded_bytes())?;
    let arguments = match hook.args().as_deref() {
        Some(arguments) if !arguments.is_empty() => list("args", arguments)?,
        _ => StringList::new(vec![path.clone()]),
    };
    let timeout = match hook.timeout() {
        Some(seconds) if seconds <= 0 => return Err(invalid(&field("timeout"), "it is not above 0")),
        Some(seconds) => Some(Timespec { tv_sec: seconds, tv_nsec: 0 }),
        None => None,
    };
    Ok(HookCommand {
        point,
        number,
        path,
        display: hook.path().clone(),
        arguments,
        environment: hook.env().as_deref().map(|env| list("env", env)).transpose()?,
        timeout,
    })
}

/// Where a hook runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HookPlace<'a> {
    /// What a hook without an environment of its own gets: the container's process's for `startContainer`, else nothing of
    /// the caller's.
    pub(crate) environment: Option<&'a StringList>,
    /// The directory that a hook of the runtime's namespaces starts in.
    pub(crate) directory: Option<&'a Path>,
}

/// Runs hooks one after the other; the first that fails ends it.
pub(crate) fn run(hooks: &[HookCommand], place: HookPlace<'_>, state: &[u8]) -> Result<(), HookError> {
    if !hooks.is_empty() {
        sys::ignore_broken_pipes();
    }
    hooks.iter().try_for_each(|hook| run_one(hook, place, state))
}

/// Runs the hooks of a container that is gone. runtime-spec: a failure is logged, and the remaining hooks run.
pub(crate) fn run_poststop(hooks: &HookPlan, state: &State, log: &Log) {
    let place = HookPlace { environment: None, directory: Some(&state.bundle) };
    for hook in &hooks.poststop {
        if let Err(error) = run(std::slice::from_ref(hook), place, &state.to_spec_json(0, "stopped")) {
            log.warning(&crate::step::chain(&error));
        }
    }
}

fn run_one(hook: &HookCommand, place: HookPlace<'_>, state: &[u8]) -> Result<(), HookError> {
    let failed = |source| HookError::Run {
        point: hook.point,
        number: hook.number,
        path: hook.display.clone(),
        source,
    };
    let (pidfd, input, output) = spawn(hook, place).map_err(failed)?;
    let mut pipes = Pipes { input: Some(input), state, output: Some(output), text: Vec::new() };
    let is_over = pipes.attend(&pidfd, hook.timeout).map_err(failed)?;
    if !is_over {
        sys::send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
    }
    let status =
        waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).step("wait for", "it").map_err(failed)?;
    if !is_over {
        let seconds = hook.timeout.map_or(0, |timeout| timeout.tv_sec);
        let (point, number) = (hook.point, hook.number);
        return Err(HookError::Timeout { point, number, path: hook.display.clone(), seconds });
    }
    let result = match status.as_ref().map(|status| (status.exit_status(), status.terminating_signal())) {
        Some((Some(0), _)) => return Ok(()),
        Some((Some(code), _)) => format!("exit status {code}"),
        Some((_, Some(signal))) => format!("signal {signal}"),
        _ => "it ended".to_owned(),
    };
    Err(HookError::Failed {
        point: hook.point,
        number: hook.number,
        path: hook.display.clone(),
        result,
        output: String::from_utf8_lossy(&pipes.text).trim_end().to_owned(),
    })
}

/// How much of what a hook writes to stderr a message bears.
const MAX_OUTPUT: usize = 1024;

/// What goes to a hook and comes from it. A hook may read its state late or never, and write more than a pipe holds: neither stops
/// it, nor its timeout.
struct Pipes<'s> {
    input: Option<OwnedFd>,
    /// What is left to write.
    state: &'s [u8],
    output: Option<OwnedFd>,
    /// The beginning of what it wrote.
    text: Vec<u8>,
}

impl Pipes<'_> {
    /// Serves the hook until it ends; `false` if it does not in time.
    fn attend(&mut self, pidfd: &OwnedFd, timeout: Option<Timespec>) -> Result<bool, StepError> {
        let timeout = timeout.and_then(|timeout| std::time::Duration::try_from(timeout).ok());
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let mut ready = vec![PollFd::new(pidfd, PollFlags::IN)];
            ready.extend(self.input.iter().map(|input| PollFd::new(input, PollFlags::OUT)));
            ready.extend(self.output.iter().map(|output| PollFd::new(output, PollFlags::IN)));
            match poll(&mut ready, left.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).step("wait for", "it"),
            }
            let has_ended = !ready[0].revents().is_empty();
            self.write();
            self.read();
            if has_ended {
                return Ok(true);
            }
        }
    }

    /// Writes what there is room for, and closes the pipe behind the last byte. That nobody reads is no failure.
    fn write(&mut self) {
        let Some(input) = &self.input else { return };
        match rustix::io::write(input, self.state) {
            Ok(length) => self.state = &self.state[length..],
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => self.state = &[],
        }
        if self.state.is_empty() {
            self.input = None;
        }
    }

    /// Reads what is there.
    fn read(&mut self) {
        let mut block = [0_u8; 4096];
        while let Some(output) = &self.output {
            match rustix::io::read(output, &mut block) {
                Ok(length @ 1..) => {
                    let wanted = length.min(MAX_OUTPUT - self.text.len());
                    self.text.extend_from_slice(&block[..wanted]);
                }
                Err(Errno::AGAIN | Errno::INTR) => return,
                Ok(_) | Err(_) => self.output = None,
            }
        }
    }
}

fn spawn(hook: &HookCommand, place: HookPlace<'_>) -> Result<(OwnedFd, OwnedFd, OwnedFd), StepError> {
    let (child_input, input) = pipe_with(PipeFlags::CLOEXEC).step("make", "a pipe")?;
    let (output, child_output) = pipe_with(PipeFlags::CLOEXEC).step("make", "a pipe")?;
    for end in [&input, &output] {
        rustix::fs::fcntl_setfl(end, rustix::fs::OFlags::NONBLOCK).step("prepare", "a pipe")?;
    }
    let request = CloneRequest { flags: sys::CLONE_CLEAR_SIGHAND, cgroup: None };
    match sys::clone_process(request).step("start", hook.display.display())? {
        Cloned::Parent(_, pidfd) => Ok((pidfd, input, output)),
        Cloned::Child => {
            run_child(hook, place, child_input.as_fd(), child_output.as_fd());
            sys::exit_now(127)
        }
    }
}

/// In the hook's process: returns only when the hook cannot be executed.
fn run_child(hook: &HookCommand, place: HookPlace<'_>, input: BorrowedFd<'_>, output: BorrowedFd<'_>) {
    if rustix::stdio::dup2_stdin(input).is_err() || rustix::stdio::dup2_stderr(output).is_err() {
        return;
    }
    if place.directory.is_some_and(|directory| rustix::process::chdir(directory).is_err()) {
        return;
    }
    if sys::close_on_exec_from(3).is_err() {
        return;
    }
    sys::reset_signals();
    let empty = StringList::new(Vec::new());
    let environment = hook.environment.as_ref().or(place.environment).unwrap_or(&empty);
    let error = sys::execute(&hook.path, &hook.arguments, environment);
    std::fs::File::from(output.try_clone_to_owned().unwrap_or_else(|_| sys::exit_now(127)))
        .write_all(crate::step::describe(&error).as_bytes())
        .ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_line(line: &str, state: &[u8], timeout: Option<i64>) -> Result<(), String> {
        let hook = serde_json::json!({"path": "/bin/sh", "args": ["sh", "-c", line], "timeout": timeout});
        let hook = plan_hook("prestart", 0, &serde_json::from_value(hook).unwrap()).unwrap();
        let place = HookPlace { environment: None, directory: None };
        run(&[hook], place, state).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_pipe_does_not_hold_stops_no_hook() {
        let state = vec![b'x'; 300_000];
        let line = "head -c 200000 /dev/zero >&2; [ $(wc -c) = 300000 ]";
        assert_eq!(run_line(&format!("PATH=/usr/bin:/bin; {line}"), &state, None), Ok(()));
        let failed = run_line("echo why >&2; exit 3", &state, None).unwrap_err();
        assert!(failed.ends_with("exit status 3: \"why\""), "{failed}");
        let absent = serde_json::from_value(serde_json::json!({"path": "/nonexistent"})).unwrap();
        let hooks = plan_hooks("prestart", Some(&[absent])).unwrap();
        let absent =
            run(&hooks, HookPlace { environment: None, directory: None }, b"").unwrap_err().to_string();
        assert!(absent.ends_with("exit status 127: \"no such file or directory\""), "{absent}");
        let late = run_line("exec /bin/sleep 30", &state, Some(1)).unwrap_err();
        assert!(late.contains("did not end within 1 s"), "{late}");
    }
}
