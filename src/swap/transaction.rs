//! The swap from beginning to end.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use inspect_probes::Host;
use inspect_probes::systemd::Systemd;
use serde::Serialize;

use super::census::CensusReport;
use super::daemon::find_daemon;
use super::error::SwapError;
use super::execute::Swapping;
use super::journal::{FOLDER, Journal};
use super::lock::SwapLock;
use super::plan::{Plan, SwapRequest, count_pod_tasks, plan};
use super::preflight::{self, Check, Verdict};
use super::progress::{Progress, Step};
use crate::render::diff::render_unified;
use crate::verify::CanaryReport;

/// Where a swap ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SwapState {
    /// `--dry-run`: nothing was written.
    Planned,
    /// The files are written; the daemon still runs with the old config (`--no-restart`).
    Written,
    /// In force, and not proven (`--no-verify`).
    InForce,
    /// In force and proven.
    Proven,
}

/// What was done.
#[derive(Debug, Serialize)]
pub(crate) struct SwapReport {
    pub(crate) state: SwapState,
    pub(crate) runtime: String,
    pub(crate) handler: String,
    pub(crate) is_default: bool,
    pub(crate) containerd: String,
    pub(crate) unit: String,
    pub(crate) diffs: Vec<FileDiff>,
    pub(crate) checks: Vec<Check>,
    pub(crate) steps: Vec<Step>,
    pub(crate) census: Option<CensusReport>,
    pub(crate) canary: Option<CanaryReport>,
    pub(crate) pod_canary: Option<CanaryReport>,
    /// Where the stand-in for runc is (`--scope node`).
    pub(crate) stand_in: Option<String>,
    pub(crate) stand_in_canary: Option<CanaryReport>,
}

impl SwapReport {
    /// A report in which nothing has happened yet.
    pub(crate) fn empty(request: &SwapRequest, handler: &str, unit: &str) -> Self {
        Self {
            state: SwapState::Planned,
            runtime: request.runtime.clone(),
            handler: handler.to_owned(),
            is_default: request.make_default,
            containerd: String::new(),
            unit: unit.to_owned(),
            diffs: Vec::new(),
            checks: Vec::new(),
            steps: Vec::new(),
            census: None,
            canary: None,
            pod_canary: None,
            stand_in: None,
            stand_in_canary: None,
        }
    }
}

/// The change of one file.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FileDiff {
    pub(crate) path: String,
    pub(crate) diff: String,
}

/// Swaps the runtime: exactly one of in force and proven, or everything as it was.
pub(crate) async fn swap(
    host: &Host,
    request: &SwapRequest,
    progress: &mut Progress<'_>,
) -> Result<SwapReport, SwapError> {
    let _lock = if request.dry_run { None } else { Some(SwapLock::take()?) };
    let mut journal = Journal::load(Path::new(FOLDER))?;
    if let Some(entry) = journal.interrupted().filter(|_| !request.dry_run) {
        return Err(SwapError::Interrupted { id: entry.id, runtime: entry.runtime.clone() });
    }
    let systemd = Systemd::connect().await?;
    let daemon = find_daemon(host, &systemd, request.daemon.as_deref(), request.config.as_deref()).await?;
    progress.step(format!(
        "plan for containerd {} ({}, {})",
        daemon.version,
        daemon.unit,
        daemon.socket.display()
    ));
    let plan = plan(host, daemon, request).await?;
    progress.step("pre-flight: the binary, the new config in this containerd");
    let checks = preflight::check(host, &plan);
    let mut report = report_of(&plan, request, checks);
    if request.dry_run {
        report.steps = progress.finish();
        return Ok(report);
    }
    for check in report.checks.iter().filter(|check| check.verdict != Verdict::Failure) {
        let mark = if check.verdict == Verdict::Warning { "warning: " } else { "  " };
        progress.note(&format!("{mark}{}", check.text));
    }
    preflight::require(&report.checks)?;
    announce(&plan, &report, request, progress).await?;
    let mut swapping = Swapping {
        host,
        request,
        plan: &plan,
        systemd: &systemd,
        journal: &mut journal,
        progress,
        report: &mut report,
    };
    swapping.execute().await?;
    report.steps = progress.finish();
    Ok(report)
}

fn report_of(plan: &Plan, request: &SwapRequest, checks: Vec<Check>) -> SwapReport {
    let diffs = plan.files.iter().map(|file| FileDiff {
        path: file.path.display().to_string(),
        diff: render_unified(&file.path, &file.edit.before, &file.edit.after),
    });
    SwapReport {
        containerd: plan.daemon.version.to_string(),
        diffs: diffs.collect(),
        checks,
        ..SwapReport::empty(request, &plan.chosen.handler, plan.daemon.unit.as_str())
    }
}

/// Says what will happen and asks for a yes.
async fn announce(
    plan: &Plan,
    report: &SwapReport,
    request: &SwapRequest,
    progress: &mut Progress<'_>,
) -> Result<(), SwapError> {
    for diff in &report.diffs {
        progress.note(diff.diff.trim_end());
    }
    let pods = count_pod_tasks(&plan.daemon).await?;
    if pods > 0 {
        progress.note(&format!("{pods} running tasks of pods keep the runtime that they were made with"));
    }
    let question = match (plan.is_empty(), request.restart) {
        (true, _) => "go on?".to_owned(),
        (false, true) => format!("write this and restart {}?", plan.daemon.unit),
        (false, false) => "write this?".to_owned(),
    };
    confirm(request.yes, &question)
}

/// Asks on the terminal unless `--yes` was given.
pub(super) fn confirm(yes: bool, question: &str) -> Result<(), SwapError> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(SwapError::NeedsYes);
    }
    let mut terminal = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(SwapError::file("open", "/dev/tty"))?;
    write!(terminal, "{question} [y/N] ").map_err(SwapError::file("write to", "/dev/tty"))?;
    let mut answer = String::new();
    let read = std::io::BufRead::read_line(&mut std::io::BufReader::new(terminal), &mut answer);
    read.map_err(SwapError::file("read", "/dev/tty"))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(SwapError::Declined) }
}
