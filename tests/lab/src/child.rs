//! Programs of the host: each ends with the lab, has a bound in time, and shows its output when it fails.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::LabError;
use crate::interrupt;

/// How much of a failed program's output is shown, bytes.
const TAIL: u64 = 6000;

/// How long a program has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// A command that the kernel ends with SIGTERM when the lab dies, however that happens (`setpriv --pdeathsig`).
pub(crate) fn bound_to_us(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(program);
    command
}

/// Runs `command` to its end with its output in the file `log`; an error unless it succeeds.
pub(crate) fn run(command: &mut Command, purpose: &str, log: &Path, bound: Duration) -> Result<(), LabError> {
    let program = program_name(command);
    let status = run_for_status(command, purpose, log, bound)?;
    if status.success() {
        return Ok(());
    }
    Err(LabError::Failed { program, purpose: purpose.into(), status: status.to_string(), tail: tail_of(log) })
}

/// Like [`run`], for programs whose status is an answer.
pub(crate) fn run_for_status(
    command: &mut Command,
    purpose: &str,
    log: &Path,
    bound: Duration,
) -> Result<ExitStatus, LabError> {
    let program = program_name(command);
    let file = File::create(log).map_err(LabError::file("create", log))?;
    let twin = file.try_clone().map_err(LabError::file("duplicate", log))?;
    let spawned = command.stdin(Stdio::null()).stdout(file).stderr(twin).spawn();
    let mut child = spawned.map_err(|source| LabError::Spawn { program: program.clone(), source })?;
    match wait(&mut child, bound) {
        Ok(Some(status)) => Ok(status),
        Ok(None) => Err(LabError::TimedOut {
            program,
            purpose: purpose.into(),
            seconds: bound.as_secs(),
            tail: tail_of(log),
        }),
        Err(error) => Err(error),
    }
}

/// Waits for `child`; `None` when the time was up and the child was ended for that. Interrupted, it ends the child too.
pub(crate) fn wait(child: &mut Child, bound: Duration) -> Result<Option<ExitStatus>, LabError> {
    wait_watching(child, bound, &mut || true)
}

/// Like [`wait`], with a look at something else at every turn: `false` ends the child.
pub(crate) fn wait_watching(
    child: &mut Child,
    bound: Duration,
    look: &mut dyn FnMut() -> bool,
) -> Result<Option<ExitStatus>, LabError> {
    let deadline = Instant::now() + bound;
    loop {
        let waited = child.try_wait();
        if let Some(status) = waited.map_err(|source| LabError::Spawn { program: "wait".into(), source })? {
            return Ok(Some(status));
        }
        if !look() || Instant::now() >= deadline {
            end(child);
            return Ok(None);
        }
        if let Err(interrupted) = interrupt::tick() {
            end(child);
            return Err(interrupted);
        }
    }
}

/// SIGTERM, a while to clean up, SIGKILL.
pub(crate) fn end(child: &mut Child) {
    let Ok(raw) = i32::try_from(child.id()) else { return };
    kill(Pid::from_raw(raw), Signal::SIGTERM).ok();
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(child.kill());
    drop(child.wait());
}

/// The last lines of a file, as text that is safe to print.
pub(crate) fn tail_of(path: &Path) -> String {
    let Ok(mut file) = File::open(path) else { return format!("(no `{}`)", path.display()) };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::new();
    let from = SeekFrom::Start(length.saturating_sub(TAIL));
    drop(file.seek(from).and_then(|_| file.read_to_end(&mut bytes)));
    let text = printable(&String::from_utf8_lossy(&bytes));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Console output carries escape sequences and carriage returns: keep the text alone.
pub(crate) fn printable(text: &str) -> String {
    text.replace("\r\n", "\n").chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).collect()
}

/// The program's own name, behind a `setpriv` prefix.
fn program_name(command: &Command) -> String {
    let name = if command.get_program() == "setpriv" {
        command.get_args().nth(3).unwrap_or_default().to_owned()
    } else {
        command.get_program().to_owned()
    };
    name.to_string_lossy().into_owned()
}

/// Whether a program of that name is on `PATH` or in the administrator's directories.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut places = std::env::split_paths(&path).chain(admin);
    places.find_map(|place| {
        let candidate = place.join(name);
        fs::metadata(&candidate).is_ok_and(|metadata| metadata.is_file()).then_some(candidate)
    })
}
