//! Restarting the daemon and waiting until the new one serves.

use std::path::Path;
use std::time::{Duration, Instant};

use inspect_probes::containerd::{DaemonChannel, Plugin};
use inspect_probes::name::{Pid, UnitName};
use inspect_probes::systemd::{Systemd, SystemdError};

use super::error::SwapError;

/// How often the socket is tried while the daemon starts.
const POLL: Duration = Duration::from_millis(100);
/// How often a daemon that serves is looked at: a new process tells of a death between two looks as well.
const WATCH_POLL: Duration = Duration::from_millis(500);
/// How long a restart may take at least that brings the old config back, however little was given for the new one.
const ROLLBACK_LIMIT: Duration = Duration::from_secs(60);
/// How often a restart is tried that brings the old config back, and the pause before another try.
const ROLLBACK_TRIES: u32 = 3;
const ROLLBACK_PAUSE: Duration = Duration::from_secs(1);

/// Restarts the unit and waits until a daemon other than `old` serves the socket; gives its process.
pub(crate) async fn restart(
    systemd: &Systemd,
    unit: &UnitName,
    socket: &Path,
    old: Option<Pid>,
    limit: Duration,
) -> Result<Pid, SwapError> {
    systemd.restart(unit, limit).await?;
    wait_until_serving(systemd, unit, socket, old, limit).await
}

/// For putting things back: also out of a state in which systemd refuses starts, and of a start that hangs.
///
/// systemd tells of a failed job before the unit has come to rest: a failure that is forgotten too early counts again.
pub(crate) async fn restart_for_rollback(
    systemd: &Systemd,
    unit: &UnitName,
    socket: &Path,
    limit: Duration,
) -> Result<(), SwapError> {
    let limit = limit.max(ROLLBACK_LIMIT);
    let mut tries = 1;
    loop {
        match systemd.reset_failed(unit).await {
            // A unit that has not failed has nothing to forget.
            Ok(()) | Err(SystemdError::Call { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match restart(systemd, unit, socket, None, limit).await {
            Err(SwapError::Systemd(SystemdError::Job { .. })) if tries < ROLLBACK_TRIES => tries += 1,
            outcome => return outcome.map(|_pid| ()),
        }
        tokio::time::sleep(ROLLBACK_PAUSE).await;
    }
}

async fn wait_until_serving(
    systemd: &Systemd,
    unit: &UnitName,
    socket: &Path,
    old: Option<Pid>,
    limit: Duration,
) -> Result<Pid, SwapError> {
    let start = Instant::now();
    loop {
        let state = systemd.service(unit).await?;
        let new = state.main_pid.filter(|pid| Some(*pid) != old && state.active == "active");
        if let Some(pid) = new
            && serves(socket).await
        {
            return Ok(pid);
        }
        if start.elapsed() > limit {
            let seconds = limit.as_secs();
            return Err(SwapError::NotServing { socket: socket.to_owned(), seconds });
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn serves(socket: &Path) -> bool {
    match DaemonChannel::connect(socket, Duration::from_secs(2)).await {
        Ok(mut channel) => channel.version().await.is_ok(),
        Err(_) => false,
    }
}

/// Watches until `end` that `daemon` stays the process that runs.
pub(crate) async fn watch(
    systemd: &Systemd,
    unit: &UnitName,
    daemon: Pid,
    end: Instant,
) -> Result<(), SwapError> {
    loop {
        let state = systemd.service(unit).await?;
        if state.main_pid != Some(daemon) || state.active != "active" {
            let state = format!("{} ({}, result `{}`)", state.active, state.sub, state.result);
            return Err(SwapError::Died { unit: unit.to_string(), state });
        }
        if Instant::now() >= end {
            return Ok(());
        }
        tokio::time::sleep(WATCH_POLL).await;
    }
}

/// The plugins without which CRI is not served, with their failures.
pub(crate) async fn cri_plugins(socket: &Path) -> Result<Vec<Plugin>, SwapError> {
    let mut channel = DaemonChannel::connect(socket, super::daemon::CALL_LIMIT).await?;
    let mut plugins = channel.plugins().await?;
    plugins.retain(|plugin| {
        (plugin.kind == "io.containerd.grpc.v1" && plugin.id == "cri")
            || plugin.kind == "io.containerd.cri.v1"
    });
    Ok(plugins)
}

/// Fails when a CRI plugin that worked before is gone or failed. "Active" and "serving" do not say that it works.
pub(crate) fn compare_plugins(before: &[Plugin], after: &[Plugin]) -> Result<(), SwapError> {
    for plugin in before.iter().filter(|plugin| plugin.init_error.is_none()) {
        let name = format!("{}.{}", plugin.kind, plugin.id);
        let now = after.iter().find(|now| now.kind == plugin.kind && now.id == plugin.id);
        match now {
            None => return Err(SwapError::PluginGone { plugin: name }),
            Some(now) => {
                if let Some(error) = &now.init_error {
                    let message = inspect_probes::escape::escape(&error.message).into_owned();
                    return Err(SwapError::Plugin { plugin: name, message });
                }
            }
        }
    }
    Ok(())
}

/// The last lines that the unit logged: what a person would look at first.
pub(crate) fn journal_lines(unit: &UnitName, count: usize) -> Vec<String> {
    let output = std::process::Command::new("journalctl")
        .args(["--no-pager", "--output=cat", "--lines=40", "--unit", unit.as_str()])
        .stdin(std::process::Stdio::null())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let telling = |line: &&str| {
        ["level=error", "level=fatal", "containerd: ", "Failed with result", "start request repeated"]
            .iter()
            .any(|mark| line.contains(mark))
    };
    let lines: Vec<String> =
        text.lines().filter(telling).map(|line| inspect_probes::escape::escape(line).into_owned()).collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}
