//! Commands and files in a machine, through its sshd on the forwarded port.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::child;
use crate::error::LabError;
use crate::machine::Machine;
use crate::store::Store;

/// The way into one machine.
#[derive(Debug)]
pub(crate) struct Connection {
    options: Vec<OsString>,
    environment: String,
    directory: PathBuf,
    shares: bool,
}

/// A key exchange takes about two seconds under TCG, and many times that on a loaded machine.
const CONNECT_BOUND: Duration = Duration::from_secs(90);

/// A path of a Unix socket holds 107 bytes, and ssh adds 17 of its own while it makes one.
const SOCKET_PATH_LIMIT: usize = 90;

impl Connection {
    /// The connection to `machine`; nothing is sent yet.
    pub(crate) fn to(store: &Store, machine: &Machine) -> Self {
        let directory = machine.directory.clone();
        let known_hosts = directory.join("known_hosts");
        let host_key = fs::read_to_string(machine.image.host_key()).unwrap_or_default();
        let mut options: Vec<OsString> = Vec::new();
        let mut option = |text: String| options.extend(["-o".into(), OsString::from(text)]);
        drop(fs::write(&known_hosts, format!("inspect-lab {host_key}")));
        option(format!("UserKnownHostsFile=\"{}\"", known_hosts.display()));
        option(format!("IdentityFile=\"{}\"", store.ssh_key().display()));
        for fixed in ["HostKeyAlias=inspect-lab", "IdentitiesOnly=yes", "BatchMode=yes", "LogLevel=ERROR"] {
            option(fixed.into());
        }
        option(format!("Port={}", machine.state.port));
        option("ConnectTimeout=60".into());
        option("ServerAliveInterval=30".into());
        option("ServerAliveCountMax=20".into());
        let socket = directory.join("ssh");
        let shares = socket.as_os_str().len() <= SOCKET_PATH_LIMIT;
        if shares {
            option(format!("ControlPath=\"{}\"", socket.display()));
        }
        let environment = format!("export INSPECT_LAB_GENERATION={}; ", machine.recipe.generation);
        Self { options, environment, directory, shares }
    }

    /// Opens the connection that all later commands share, which saves each its key exchange, and sets the node's clock:
    /// a restored node takes the time it was kept for the present. The connection ends with the machine.
    pub(crate) fn open_shared(&self) -> Result<(), LabError> {
        if self.shares {
            let mut command = Command::new("ssh");
            command.args(["-F", "none", "-M", "-N", "-f", "-o", "ControlPersist=yes"]).args(&self.options);
            command.arg("root@127.0.0.1").current_dir("/");
            let log = self.directory.join("ssh.log");
            child::run(&mut command, "connect to the node", &log, CONNECT_BOUND)?;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let line = format!("date -s @{}.{:09}", now.as_secs(), now.subsec_nanos());
        self.capture(&line, "set the node's clock", CONNECT_BOUND).map(drop)
    }

    /// `ssh` with everything but the command. It dies with the lab.
    fn ssh(&self) -> Command {
        let mut command = child::bound_to_us("ssh");
        command.args(["-F", "none"]).args(&self.options);
        command
    }

    /// A command line for the node's shell, with this process's standard input, output and error.
    pub(crate) fn shell_command(&self, line: &str) -> Command {
        let mut command = self.ssh();
        command.arg("root@127.0.0.1").arg(format!("{}{line}", self.environment));
        command
    }

    /// A login shell on a terminal.
    pub(crate) fn interactive(&self) -> Command {
        let mut command = self.ssh();
        command.args(["-t", "root@127.0.0.1"]).arg(format!("{}cd; exec bash -l", self.environment));
        command
    }

    /// Runs a command line to its end and returns its standard output; an error unless it succeeds.
    pub(crate) fn capture(&self, line: &str, purpose: &str, bound: Duration) -> Result<String, LabError> {
        let out = self.directory.join(format!("capture-{}.log", std::process::id()));
        let mut command = self.shell_command(line);
        child::run(&mut command, purpose, &out, bound)?;
        let text = fs::read(&out).map_err(LabError::file("read", &out))?;
        drop(fs::remove_file(&out));
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Unpacks the tar archive `archive` below `/` of the node.
    pub(crate) fn unpack(&self, archive: &Path, bound: Duration) -> Result<(), LabError> {
        let log = self.directory.join("unpack.log");
        let file = fs::File::open(archive).map_err(LabError::file("open", archive))?;
        let log_file = fs::File::create(&log).map_err(LabError::file("create", &log))?;
        let mut command = self.shell_command("tar -C / -xf - --zstd --unlink-first");
        let spawned = command.stdin(file).stdout(Stdio::null()).stderr(log_file).spawn();
        let mut copying = spawned.map_err(|source| LabError::Spawn { program: "ssh".into(), source })?;
        let purpose = || "copy files into the node".to_owned();
        match child::wait(&mut copying, bound)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(LabError::Failed {
                program: "ssh".into(),
                purpose: purpose(),
                status: status.to_string(),
                tail: child::tail_of(&log),
            }),
            None => Err(LabError::TimedOut {
                program: "ssh".into(),
                purpose: purpose(),
                seconds: bound.as_secs(),
                tail: child::tail_of(&log),
            }),
        }
    }
}

/// One argument is a line for the node's shell; several are one command, each argument kept whole.
pub(crate) fn command_line(arguments: &[String]) -> String {
    match arguments {
        [line] => line.clone(),
        many => many.iter().map(|argument| quote(argument)).collect::<Vec<_>>().join(" "),
    }
}

/// Quotes for a POSIX shell.
pub(crate) fn quote(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_arguments_stay_whole() {
        let arguments = ["sh", "-c", "echo \"it's\" $HOME"].map(str::to_owned);
        assert_eq!(command_line(&arguments), r#"sh -c 'echo "it'\''s" $HOME'"#);
    }

    #[test]
    fn one_argument_is_a_shell_line() {
        assert_eq!(command_line(&["ls | wc -l".to_owned()]), "ls | wc -l");
        assert_eq!(command_line(&[String::new(), "a".to_owned()]), "'' a");
    }
}
