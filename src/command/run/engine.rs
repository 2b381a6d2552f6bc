//! The OCI runtime's command line, called as containerd's shim calls it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use inspect_probes::Host;
use inspect_probes::escape::escape;
use inspect_probes::name::Pid;

use super::{RunArgs, state_directory};
use crate::error::CommandError;

/// A runtime, with where it keeps its state, and the container that it is called for.
#[derive(Debug)]
pub(super) struct Engine {
    program: PathBuf,
    root: PathBuf,
    log: PathBuf,
    pid_file: PathBuf,
    systemd_cgroup: bool,
    id: String,
}

impl Engine {
    pub(super) fn find(args: &RunArgs, host: &Host, state: &Path, id: &str) -> Result<Self, CommandError> {
        let program = match args.runtime.as_str() {
            "builtin" => find_builtin()?,
            other => PathBuf::from(other),
        };
        let name = program.file_name().map_or_else(|| "runtime".into(), std::ffi::OsStr::to_os_string);
        let root = match &args.root {
            Some(root) => root.clone(),
            None => state_directory(host)?.join(name),
        };
        Ok(Self {
            program,
            root,
            log: state.join("log.json"),
            pid_file: state.join("pid"),
            systemd_cgroup: args.systemd_cgroup,
            id: id.to_owned(),
        })
    }

    /// Prepares the container; its process waits for [`Self::start`]. Without a console it has our own streams.
    pub(super) fn create(&self, bundle: &Path, console: Option<&Path>) -> Result<Pid, CommandError> {
        let mut command = self.command("create");
        command.arg("--bundle").arg(bundle).arg("--pid-file").arg(&self.pid_file);
        if let Some(socket) = console {
            command.arg("--console-socket").arg(socket).stdin(Stdio::null());
        }
        self.finish(command.arg(&self.id), "create")?;
        let text = std::fs::read_to_string(&self.pid_file).map_err(CommandError::trouble)?;
        let pid = text.trim().parse().map_err(|_| {
            CommandError::trouble(format!("the runtime wrote no pid into `{}`", self.pid_file.display()))
        })?;
        Ok(Pid::new(pid))
    }

    pub(super) fn start(&self) -> Result<(), CommandError> {
        self.finish(self.command("start").arg(&self.id).stdin(Stdio::null()), "start")
    }

    /// Sends a signal to the container's process. One that has ended takes none, and that is no trouble.
    pub(super) fn kill(&self, signal: i32) {
        let mut command = self.command("kill");
        command.arg(&self.id).arg(signal.to_string()).stdin(Stdio::null()).stderr(Stdio::null());
        match command.status() {
            Ok(_) | Err(_) => {}
        }
    }

    pub(super) fn delete(&self) -> Result<(), CommandError> {
        self.finish(self.command("delete").arg("--force").arg(&self.id).stdin(Stdio::null()), "delete")
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).arg("--log").arg(&self.log).args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.arg(verb);
        command
    }

    fn finish(&self, command: &mut Command, verb: &str) -> Result<(), CommandError> {
        let program = self.program.display();
        let status = command.status().map_err(|error| {
            CommandError::trouble(format!("cannot run `{program}`: {error}"))
                .hint("choose a runtime with `--runtime builtin|runc|crun|PATH`")
        })?;
        if status.success() {
            return Ok(());
        }
        let reason = self.last_error().unwrap_or_else(|| format!("it ended with {status}"));
        Err(CommandError::trouble(format!("`{program} {verb}` failed: {}", escape(&reason)))
            .hint("`inspect why error` explains many such texts: give it this one in quotes"))
    }

    /// The `msg` of the last error in the log: what containerd's shim shows as well.
    fn last_error(&self) -> Option<String> {
        let text = std::fs::read_to_string(&self.log).ok()?;
        text.lines().rev().find_map(|line| {
            let entry: serde_json::Value = serde_json::from_str(line).ok()?;
            (entry["level"] == "error").then(|| entry["msg"].as_str().map(str::to_owned))?
        })
    }
}

/// The built-in runtime's binary is installed beside ours.
fn find_builtin() -> Result<PathBuf, CommandError> {
    let own = std::env::current_exe().map_err(CommandError::trouble)?;
    let beside = own.with_file_name("inspect-runtime");
    if beside.exists() {
        return Ok(beside);
    }
    Err(CommandError::trouble(format!(
        "cannot find the built-in runtime: `{}` is not there",
        beside.display()
    ))
    .hint("`cargo install --path .` installs both binaries; `--runtime runc` takes another runtime"))
}
