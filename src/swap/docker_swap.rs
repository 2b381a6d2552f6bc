//! The swap of Docker's runtime: daemon.json, SIGHUP, the proof, and the way back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inspect_probes::Host;
use inspect_probes::docker::{DockerChannel, DockerInfo};

use super::apply::{read_file, remove_file, replace_file, sha256};
use super::binary::{BUILTIN, builtin_source, family_of, install_builtin, standalone_file};
use super::docker::{
    Dockerd, PlannedJson, RuntimesInFile, explicit_defaults, find_dockerd, plan_daemon_json, reload,
    runtimes_in_file,
};
use super::error::SwapError;
use super::journal::{Entry, FOLDER, FileRecord, Journal, Stage, now};
use super::lock::SwapLock;
use super::plan::SwapRequest;
use super::preflight::{self, Check, Verdict, check_file};
use super::progress::Progress;
use super::transaction::{FileDiff, SwapReport, SwapState, confirm};
use crate::render::diff::render_unified;
use crate::verify::run_docker_canary;

/// What the journal calls Docker's daemon; it is reloaded, never restarted.
pub(crate) const UNIT: &str = "docker.service";
/// How often dockerd is asked whether it has read its config.
const POLL: Duration = Duration::from_millis(200);

/// What is asked of dockerd.
struct Wanted {
    name: String,
    binary: PathBuf,
    is_default: bool,
    install_from: Option<PathBuf>,
}

/// Writes the runtime into daemon.json, has dockerd read it, and proves it; or puts everything back.
pub(crate) async fn swap_docker(
    host: &Host,
    request: &SwapRequest,
    progress: &mut Progress<'_>,
) -> Result<SwapReport, SwapError> {
    let _lock = if request.dry_run { None } else { Some(SwapLock::take()?) };
    let mut journal = Journal::load(Path::new(FOLDER))?;
    if let Some(entry) = journal.interrupted().filter(|_| !request.dry_run) {
        return Err(SwapError::Interrupted { id: entry.id, runtime: entry.runtime.clone() });
    }
    let dockerd = find_dockerd(host)?.ok_or(SwapError::NoDockerd)?;
    let wanted = resolve(request)?;
    progress.step(format!("plan for dockerd ({})", dockerd.config.display()));
    let planned = plan_daemon_json(&dockerd.config, &wanted.name, &wanted.binary, wanted.is_default)?;
    let mut report = SwapReport::empty(request, &wanted.name, UNIT);
    report.checks = checks(&dockerd, &wanted, request.timeout).await?;
    if let Some(planned) = &planned {
        let diff = render_unified(&dockerd.config, &planned.text_before(), &planned.after);
        report.diffs.push(FileDiff { path: dockerd.config.display().to_string(), diff });
    }
    if request.dry_run {
        return Ok(report);
    }
    for check in report.checks.iter().filter(|check| check.verdict != Verdict::Failure) {
        progress.note(&format!("  {}", check.text));
    }
    preflight::require(&report.checks)?;
    for diff in &report.diffs {
        progress.note(diff.diff.trim_end());
    }
    confirm(request.yes, "write this and have dockerd read it?")?;
    if let Some(source) = &wanted.install_from {
        install_builtin(source)?;
    }
    match planned {
        None => {
            progress.note("the config says so already: nothing is written");
            bring_into_force(host, &dockerd, &wanted, request, progress, &mut report).await?;
        }
        Some(planned) => {
            progress.step(format!("journal and backup in {FOLDER}"));
            let id = open_entry(&mut journal, request, &wanted, &dockerd, &planned)?;
            let done = async {
                progress.step(format!("write {}", dockerd.config.display()));
                replace_file(&dockerd.config, planned.before.as_deref(), planned.after.as_bytes())?;
                journal.advance(id, Stage::Applied)?;
                bring_into_force(host, &dockerd, &wanted, request, progress, &mut report).await
            };
            match done.await {
                Ok(()) => journal.advance(id, Stage::Committed)?,
                Err(source) => return Err(go_back(host, &mut journal, id, &planned, request, source).await),
            }
        }
    }
    report.steps = progress.finish();
    Ok(report)
}

fn resolve(request: &SwapRequest) -> Result<Wanted, SwapError> {
    let builtin = request.runtime == "builtin";
    let binary = if builtin { Path::new(BUILTIN).to_owned() } else { standalone_file(&request.runtime)? };
    let name = request.handler.clone().unwrap_or_else(|| match binary.file_name() {
        Some(file) if !builtin => file.to_string_lossy().into_owned(),
        _ => request.runtime.clone(),
    });
    let install_from = if builtin { Some(builtin_source()?) } else { None };
    Ok(Wanted { name, binary, is_default: request.make_default, install_from })
}

async fn checks(dockerd: &Dockerd, wanted: &Wanted, limit: Duration) -> Result<Vec<Check>, SwapError> {
    let file = wanted.install_from.as_deref().unwrap_or(&wanted.binary);
    let mut checks = Vec::new();
    check_file(file, |file| std::process::Command::new(file), &mut checks);
    let info = DockerChannel::new(&dockerd.socket, limit).info().await?;
    let text = format!(
        "dockerd {} makes containers with `{}` by default; those that run keep their runtime",
        info.version, info.default_runtime
    );
    checks.push(Check { verdict: Verdict::Good, text });
    Ok(checks)
}

/// SIGHUP, dockerd's own word that it has read the config, and a canary container.
async fn bring_into_force(
    host: &Host,
    dockerd: &Dockerd,
    wanted: &Wanted,
    request: &SwapRequest,
    progress: &mut Progress<'_>,
    report: &mut SwapReport,
) -> Result<(), SwapError> {
    report.state = SwapState::Written;
    if !request.restart {
        return Ok(());
    }
    progress.step("have dockerd read its config (SIGHUP)");
    reload(dockerd)?;
    let binary = wanted.binary.display().to_string();
    let info = wait_for(&dockerd.socket, request.timeout, |info| {
        let has = info.runtimes.get(&wanted.name).is_some_and(|path| path.as_deref() == Some(&binary));
        has && (!wanted.is_default || info.default_runtime == wanted.name)
    });
    report.containerd = format!("Docker {}", info.await?.version);
    report.state = SwapState::InForce;
    if request.verify {
        progress.step("canary container through dockerd");
        let runtime = if wanted.is_default { None } else { Some(wanted.name.as_str()) };
        let (file, family) = (Some(wanted.binary.clone()), family_of(&wanted.binary));
        let canary = run_docker_canary(host, &dockerd.socket, runtime, file, family, request.timeout).await?;
        if !canary.is_verified() {
            return Err(SwapError::NotProven { failures: canary.failures });
        }
        report.canary = Some(canary);
        report.state = SwapState::Proven;
    }
    Ok(())
}

/// Polls dockerd until it says what is wanted.
async fn wait_for(
    socket: &Path,
    limit: Duration,
    wanted: impl Fn(&DockerInfo) -> bool,
) -> Result<DockerInfo, SwapError> {
    let channel = DockerChannel::new(socket, limit);
    let start = Instant::now();
    loop {
        let info = channel.info().await?;
        if wanted(&info) {
            return Ok(info);
        }
        if start.elapsed() > limit {
            let names: Vec<String> = info.runtimes.into_keys().collect();
            return Err(SwapError::DockerNotInForce { default: info.default_runtime, runtimes: names });
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn go_back(
    host: &Host,
    journal: &mut Journal,
    id: u32,
    planned: &PlannedJson,
    request: &SwapRequest,
    source: SwapError,
) -> SwapError {
    let runtime = request.runtime.clone();
    let back = async {
        journal.advance(id, Stage::RollingBack)?;
        let record =
            journal.entries.iter().find(|entry| entry.id == id).and_then(|entry| entry.files.first());
        let Some(path) = record.map(|record| record.path.clone()) else { return Ok(()) };
        let now = read_file(&path)?;
        let (after, before) = (planned.after.as_bytes(), planned.before.as_deref());
        if now.as_deref() == Some(after) {
            put_back(host, journal, &path, Some(after), before, request.timeout).await?;
        } else if now.as_deref() != before && !matches!(source, SwapError::ChangedMeanwhile { .. }) {
            return Err(SwapError::ChangedMeanwhile { path });
        }
        journal.advance(id, Stage::RolledBack)
    };
    match back.await {
        Ok(()) => SwapError::RolledBack { runtime, source: Box::new(source), journal_lines: Vec::new() },
        Err(restore) => {
            SwapError::RollbackFailed { runtime, restore: Box::new(restore), source: Box::new(source) }
        }
    }
}

/// Puts daemon.json back to `then` and has dockerd follow.
///
/// dockerd leaves alone what its config does not name any more: a default runtime that is just taken out of daemon.json stays
/// in force until its next start. So a file that names the built-in defaults comes first, and the old bytes after it was read.
pub(super) async fn put_back(
    host: &Host,
    journal: &mut Journal,
    path: &Path,
    now: Option<&[u8]>,
    then: Option<&[u8]>,
    limit: Duration,
) -> Result<(), SwapError> {
    let Some(dockerd) = find_dockerd(host)? else { return write(path, now, then) };
    let json = |source| SwapError::Journal { path: path.to_owned(), source };
    let between = explicit_defaults(then.unwrap_or_default()).map_err(json)?;
    let names: Vec<String> = journal
        .entries
        .iter()
        .filter(|entry| entry.unit == UNIT && entry.stage == Stage::RollingBack)
        .map(|entry| entry.handler.clone())
        .collect();
    journal.note_between(path, &sha256(between.as_bytes()))?;
    write(path, now, Some(between.as_bytes()))?;
    reload(&dockerd)?;
    let RuntimesInFile { default, runtimes } = runtimes_in_file(between.as_bytes()).map_err(json)?;
    let settled = wait_for(&dockerd.socket, limit, |info| {
        let gone = |name: &String| runtimes.contains(name) || !info.runtimes.contains_key(name);
        Some(&info.default_runtime) == default.as_ref() && names.iter().all(gone)
    });
    // The bytes come back whatever dockerd says.
    let settled = settled.await;
    write(path, Some(between.as_bytes()), then)?;
    settled.map(|_info| ())
}

fn write(path: &Path, now: Option<&[u8]>, then: Option<&[u8]>) -> Result<(), SwapError> {
    match (now, then) {
        (now, Some(then)) => replace_file(path, now, then),
        (Some(now), None) => remove_file(path, now),
        (None, None) => Ok(()),
    }
}

fn open_entry(
    journal: &mut Journal,
    request: &SwapRequest,
    wanted: &Wanted,
    dockerd: &Dockerd,
    planned: &PlannedJson,
) -> Result<u32, SwapError> {
    let id = journal.next_id();
    let record = FileRecord {
        path: dockerd.config.clone(),
        existed: planned.before.is_some(),
        backup: journal.keep(id, 0, planned.before.as_deref().unwrap_or_default())?,
        after_sha256: sha256(planned.after.as_bytes()),
        between_sha256: None,
        hunks: Vec::new(),
    };
    journal.entries.push(Entry {
        id,
        began: now(),
        runtime: request.runtime.clone(),
        handler: wanted.name.clone(),
        binary: Some(wanted.binary.clone()),
        is_default: wanted.is_default,
        unit: UNIT.to_owned(),
        socket: dockerd.socket.clone(),
        restarted: false,
        applied: false,
        files: vec![record],
        stand_in: None,
        stage: Stage::Planned,
    });
    journal.save()?;
    Ok(id)
}
