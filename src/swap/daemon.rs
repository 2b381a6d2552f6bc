//! The containerd that is to be changed: process, socket, unit, config, environment.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inspect_probes::containerd::config::ContainerdVersion;
use inspect_probes::containerd::{DaemonChannel, DaemonProcess};
use inspect_probes::name::{Pid, UnitName};
use inspect_probes::process::read_environ;
use inspect_probes::systemd::Systemd;
use inspect_probes::{Host, Node};

use super::error::SwapError;

/// How long one call to the daemon may take.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(20);

/// A running containerd.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    pub(crate) pid: Pid,
    pub(crate) socket: PathBuf,
    pub(crate) unit: UnitName,
    pub(crate) config: PathBuf,
    pub(crate) exe: PathBuf,
    pub(crate) version: ContainerdVersion,
    pub(crate) environment: Vec<(OsString, OsString)>,
}

impl Daemon {
    /// A variable of the daemon's environment.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        let found = self.environment.iter().find(|(key, _)| key == name)?;
        Some(found.1.to_string_lossy().into_owned())
    }

    /// A command that runs as the daemon would run it: in its environment, without its terminal.
    pub(crate) fn command(&self, program: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        command.env_clear().envs(self.environment.iter().cloned()).stdin(std::process::Stdio::null());
        // A runtime or daemon that believes that it is the service must not talk to systemd.
        for variable in ["NOTIFY_SOCKET", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS"] {
            command.env_remove(variable);
        }
        command
    }
}

/// Finds the daemon that `wanted` names (a socket or a unit), or the only one.
pub(crate) async fn find_daemon(
    host: &Host,
    systemd: &Systemd,
    wanted: Option<&str>,
    config: Option<&Path>,
) -> Result<Daemon, SwapError> {
    let mut candidates = Vec::new();
    for process in Node::read(host)?.daemons {
        // A daemon that systemd does not run cannot be restarted by it: it is no candidate.
        if let Ok(unit) = systemd.unit_of(process.pid).await {
            candidates.push((process, unit));
        }
    }
    let running: Vec<String> =
        candidates.iter().map(|(process, unit)| format!("{unit} on {}", process.address.display())).collect();
    if let Some(wanted) = wanted {
        candidates.retain(|(process, unit)| names(process, unit, wanted));
        if candidates.is_empty() {
            return Err(SwapError::NoSuchDaemon { wanted: wanted.to_owned(), running });
        }
    }
    match candidates.len() {
        0 => Err(SwapError::NoDaemon),
        1 => {
            let (process, unit) = candidates.swap_remove(0);
            describe(host, process, unit, config).await
        }
        _ => Err(SwapError::SeveralDaemons { running }),
    }
}

fn names(process: &DaemonProcess, unit: &UnitName, wanted: &str) -> bool {
    let socket = wanted.strip_prefix("unix://").unwrap_or(wanted);
    process.address == Path::new(socket)
        || unit.as_str() == wanted
        || unit.as_str().strip_suffix(".service") == Some(wanted)
}

async fn describe(
    host: &Host,
    process: DaemonProcess,
    unit: UnitName,
    config: Option<&Path>,
) -> Result<Daemon, SwapError> {
    let mut channel = DaemonChannel::connect(&process.address, CALL_LIMIT).await?;
    let text = channel.version().await?.version;
    let version = ContainerdVersion::parse(&text).ok_or(SwapError::UnknownVersion { text })?;
    let environment = read_environ(host, process.pid)?.unwrap_or_default();
    Ok(Daemon {
        pid: process.pid,
        socket: process.address,
        unit,
        config: config.map_or(process.config, Path::to_owned),
        exe: process.exe.unwrap_or_else(|| PathBuf::from("containerd")),
        version,
        environment: environment.into_iter().filter_map(split_variable).collect(),
    })
}

fn split_variable(entry: Vec<u8>) -> Option<(OsString, OsString)> {
    let at = entry.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    let value = entry[at + 1..].to_vec();
    let mut name = entry;
    name.truncate(at);
    Some((OsString::from_vec(name), OsString::from_vec(value)))
}
