//! The swap from beginning to end.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use inspect_probes::Host;
use inspect_probes::systemd::Systemd;
use serde::Serialize;

use super::apply::{read_file, remove_file, remove_leftovers, replace_file, sha256};
use super::binary::install_builtin;
use super::census::{Census, CensusReport};
use super::daemon::find_daemon;
use super::error::SwapError;
use super::journal::{Entry, FOLDER, FileRecord, Journal, Stage, now};
use super::lock::SwapLock;
use super::plan::{Plan, Scope, SwapRequest, count_pod_tasks, plan};
use super::preflight::{self, Check, Verdict};
use super::progress::{Progress, Step};
use super::prove::{prove, prove_pod};
use super::restart::{self, compare_plugins, cri_plugins, journal_lines};
use super::stand_in;
use crate::render::diff::render_unified;
use crate::verify::CanaryReport;

/// A daemon that its new config kills does not always die at once: it is watched this long before the swap is committed.
const WATCH: Duration = Duration::from_secs(12);

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
    let stand_in = follow_by_name(host, request, &plan, progress, &mut report).await?;
    let done = execute(host, request, &plan, &systemd, &mut journal, progress, &mut report).await;
    if let (Err(_), Some(before)) = (&done, &stand_in) {
        stand_in::take_back(before)?;
    }
    done?;
    report.steps = progress.finish();
    Ok(report)
}

/// `--scope node`: the stand-in for runc, proven by a canary that asks for no runtime. It needs no restart.
async fn follow_by_name(
    host: &Host,
    request: &SwapRequest,
    plan: &Plan,
    progress: &mut Progress<'_>,
    report: &mut SwapReport,
) -> Result<Option<stand_in::Before>, SwapError> {
    if request.scope != Scope::Node {
        return Ok(None);
    }
    let path = stand_in::stand_in_path(&plan.before, &plan.loaded.files);
    progress.step(format!("stand-in for runc at {}", path.display()));
    let before = stand_in::put_in_place(&plan.daemon, &plan.chosen, &path)?;
    if request.verify {
        progress.step("canary that asks for no runtime, as `ctr run` does");
        match stand_in::prove(host, &plan.daemon, &plan.chosen, request.timeout).await {
            Ok(canary) => report.stand_in_canary = Some(canary),
            Err(error) => {
                stand_in::take_back(&before)?;
                return Err(error);
            }
        }
    }
    report.stand_in = Some(path.display().to_string());
    Ok(Some(before))
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
    let what =
        if request.restart { format!("restart {}", plan.daemon.unit) } else { "write the config".to_owned() };
    confirm(request.yes, &format!("{what}?"))
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

/// From the journal to the commit, or back.
async fn execute(
    host: &Host,
    request: &SwapRequest,
    plan: &Plan,
    systemd: &Systemd,
    journal: &mut Journal,
    progress: &mut Progress<'_>,
    report: &mut SwapReport,
) -> Result<(), SwapError> {
    if plan.is_empty() {
        return prove_what_is_there(host, request, plan, systemd, progress, report).await;
    }
    let signal = catch_signals()?;
    if let Some(source) = &plan.chosen.install_from
        && install_builtin(source)?
    {
        progress.note(&format!("  installed {}", super::binary::BUILTIN));
    }
    progress.step(format!("journal and backup in {FOLDER}"));
    let entry = open_entry(plan, request, journal)?;
    let id = entry.id;
    match go_forward(host, request, plan, systemd, (journal, id), progress, report, &signal).await {
        Ok(()) => Ok(()),
        Err(source) => {
            let runtime = request.runtime.clone();
            let journal_lines = journal_lines(&plan.daemon.unit, 4);
            progress.note(&format!("failed: {source}"));
            progress.step("put back what was there");
            match go_back(systemd, plan, journal, &entry, request.timeout).await {
                Ok(()) => Err(SwapError::RolledBack { runtime, source: Box::new(source), journal_lines }),
                Err(restore) => Err(SwapError::RollbackFailed {
                    runtime,
                    restore: Box::new(restore),
                    source: Box::new(source),
                }),
            }
        }
    }
}

/// The config says so already: nothing is written. A daemon that is older than its config is restarted.
async fn prove_what_is_there(
    host: &Host,
    request: &SwapRequest,
    plan: &Plan,
    systemd: &Systemd,
    progress: &mut Progress<'_>,
    report: &mut SwapReport,
) -> Result<(), SwapError> {
    progress.note("the config says so already: nothing is written");
    let daemon = &plan.daemon;
    let started = systemd.service(&daemon.unit).await?.started;
    report.state = SwapState::InForce;
    if plan.changed_at() > started {
        if !request.restart {
            report.state = SwapState::Written;
            return Ok(());
        }
        progress.step(format!("restart {}, which is older than its config", daemon.unit));
        restart::restart(systemd, &daemon.unit, &daemon.socket, Some(daemon.pid), request.timeout).await?;
    }
    if request.verify {
        prove_all(host, request, plan, progress, report).await?;
    }
    Ok(())
}

/// The runtime through containerd's own API, and the handler through CRI where that runs.
async fn prove_all(
    host: &Host,
    request: &SwapRequest,
    plan: &Plan,
    progress: &mut Progress<'_>,
    report: &mut SwapReport,
) -> Result<(), SwapError> {
    progress.step(format!("canary under `{}`", plan.chosen.handler));
    report.canary = Some(prove(host, plan, request.timeout).await?);
    if !plan.before.cri_is_disabled() {
        progress.step("canary pod through CRI");
        report.pod_canary = Some(prove_pod(host, plan, request.timeout).await?);
    }
    report.state = SwapState::Proven;
    Ok(())
}

/// A signal ends the swap between two steps, with everything put back, and never in the middle of one.
fn catch_signals() -> Result<Arc<AtomicBool>, SwapError> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag))
            .map_err(SwapError::file("catch signals of", "/proc/self"))?;
    }
    Ok(flag)
}

fn open_entry(plan: &Plan, request: &SwapRequest, journal: &mut Journal) -> Result<Entry, SwapError> {
    let id = journal.next_id();
    let mut files = Vec::new();
    for (index, file) in plan.files.iter().enumerate() {
        files.push(FileRecord {
            path: file.path.clone(),
            existed: file.existed,
            backup: journal.keep(id, index, file.edit.before.as_bytes())?,
            after_sha256: sha256(file.edit.after.as_bytes()),
            hunks: file.edit.hunks.clone(),
        });
    }
    let entry = Entry {
        id,
        began: now(),
        runtime: request.runtime.clone(),
        handler: plan.chosen.handler.clone(),
        binary: plan.chosen.file.clone(),
        is_default: plan.make_default,
        unit: plan.daemon.unit.as_str().to_owned(),
        socket: plan.daemon.socket.clone(),
        restarted: false,
        files,
        stage: Stage::Planned,
    };
    journal.entries.push(entry.clone());
    journal.save()?;
    Ok(entry)
}

#[expect(
    clippy::too_many_arguments,
    reason = "one straight line of steps; each argument is a part of the transaction"
)]
async fn go_forward(
    host: &Host,
    request: &SwapRequest,
    plan: &Plan,
    systemd: &Systemd,
    (journal, id): (&mut Journal, u32),
    progress: &mut Progress<'_>,
    report: &mut SwapReport,
    signal: &AtomicBool,
) -> Result<(), SwapError> {
    let unless_signalled = || if signal.load(Ordering::Relaxed) { Err(SwapError::Signal) } else { Ok(()) };
    for file in &plan.files {
        progress.step(format!("write {}", file.path.display()));
        let before = Some(file.edit.before.as_bytes()).filter(|_| file.existed);
        replace_file(&file.path, before, file.edit.after.as_bytes())?;
    }
    journal.advance(id, Stage::Applied)?;
    unless_signalled()?;
    report.state = SwapState::Written;
    if !request.restart {
        return journal.advance(id, Stage::Committed);
    }
    let served = restart_and_check(plan, systemd, (journal, id), request, progress, report).await?;
    unless_signalled()?;
    report.state = SwapState::InForce;
    if request.verify {
        prove_all(host, request, plan, progress, report).await?;
    }
    progress.step("watch that containerd stays up");
    let watched = served.elapsed();
    restart::watch(systemd, &plan.daemon.unit, WATCH.saturating_sub(watched)).await?;
    unless_signalled()?;
    journal.advance(id, Stage::Committed)
}

/// Restarts unless nothing was written, then looks at the plugins, the tasks and the config that is read now.
async fn restart_and_check(
    plan: &Plan,
    systemd: &Systemd,
    (journal, id): (&mut Journal, u32),
    request: &SwapRequest,
    progress: &mut Progress<'_>,
    report: &mut SwapReport,
) -> Result<Instant, SwapError> {
    let daemon = &plan.daemon;
    progress.step("census of the running tasks");
    let (tasks, plugins) = (Census::take(&daemon.socket).await?, cri_plugins(&daemon.socket).await?);
    journal.advance(id, Stage::Restarting)?;
    progress.step(format!("restart {} and wait until it serves", daemon.unit));
    restart::restart(systemd, &daemon.unit, &daemon.socket, Some(daemon.pid), request.timeout).await?;
    let served = Instant::now();
    journal.advance(id, Stage::Verifying)?;
    progress.step("plugins, config in force, census");
    compare_plugins(&plugins, &cri_plugins(&daemon.socket).await?)?;
    let not_in_force = |reason| SwapError::NotInForce { handler: plan.chosen.handler.clone(), reason };
    let (effective, _warnings) = preflight::dump(plan, &daemon.config).map_err(not_in_force)?;
    preflight::in_force(plan, &effective).map_err(not_in_force)?;
    let census = tasks.compare(&Census::take(&daemon.socket).await?);
    let lost = census.lost.clone();
    report.census = Some(census);
    if lost.is_empty() { Ok(served) } else { Err(SwapError::Lost { lost }) }
}

/// Puts the bytes back and restarts where the daemon may have read the new ones.
async fn go_back(
    systemd: &Systemd,
    plan: &Plan,
    journal: &mut Journal,
    entry: &Entry,
    limit: Duration,
) -> Result<(), SwapError> {
    let stage =
        journal.entries.iter().find(|known| known.id == entry.id).map_or(entry.stage, |known| known.stage);
    // A full disk must not keep the old bytes from coming back: the journal is only told.
    let told = journal.advance(entry.id, Stage::RollingBack);
    for (record, file) in entry.files.iter().zip(&plan.files) {
        restore(record, file.edit.before.as_bytes(), file.edit.after.as_bytes())?;
    }
    if stage.may_have_restarted() {
        restart::restart_for_rollback(systemd, &plan.daemon.unit, &plan.daemon.socket, limit).await?;
    }
    told?;
    journal.advance(entry.id, Stage::RolledBack)?;
    journal.forget_backups();
    Ok(())
}

/// Puts one file back to the bytes that were there, unless somebody else changed it meanwhile.
pub(super) fn restore(record: &FileRecord, before: &[u8], after: &[u8]) -> Result<(), SwapError> {
    remove_leftovers(&record.path);
    let current = read_file(&record.path)?;
    if current.as_deref() == Some(after) {
        return if record.existed {
            replace_file(&record.path, Some(after), before)
        } else {
            remove_file(&record.path, after)
        };
    }
    let untouched = if record.existed { current.as_deref() == Some(before) } else { current.is_none() };
    if untouched { Ok(()) } else { Err(SwapError::ChangedMeanwhile { path: record.path.clone() }) }
}
