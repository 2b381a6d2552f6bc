//! Taking swaps back: the very bytes where nothing else changed them since, otherwise only the swap's own lines.

use std::path::{Path, PathBuf};
use std::time::Duration;

use inspect_probes::Host;
use inspect_probes::containerd::config::{Document, UndoError, is_gone, undo_lines};
use inspect_probes::name::UnitName;
use inspect_probes::systemd::Systemd;
use serde::Serialize;

use super::apply::{read_file, remove_file, remove_leftovers, replace_file, restore_file, sha256};
use super::census::{Census, CensusReport};
use super::docker::without_runtime;
use super::docker_swap;
use super::error::SwapError;
use super::journal::{Entry, FOLDER, FileRecord, Journal, Stage};
use super::lock::SwapLock;
use super::progress::{Progress, Step};
use super::restart::restart_for_rollback;
use super::stand_in::{self, read_stand_in};
use super::transaction::{FileDiff, confirm};
use crate::render::diff::render_unified;

/// What an undo did.
#[derive(Debug, Serialize)]
pub(crate) struct UndoReport {
    /// The swaps that were taken back, newest first.
    pub(crate) undone: Vec<String>,
    pub(crate) diffs: Vec<FileDiff>,
    /// Whether the files have the very bytes that they had before the first of these swaps.
    pub(crate) original_bytes: bool,
    pub(crate) restarted: bool,
    /// Whether dockerd has read its config again.
    pub(crate) reloaded_docker: bool,
    pub(crate) census: Option<CensusReport>,
    pub(crate) steps: Vec<Step>,
}

/// A file on its way back.
struct Return {
    path: PathBuf,
    now: Option<Vec<u8>>,
    /// `None`: there was no file.
    then: Option<Vec<u8>>,
    exact: bool,
}

/// Takes back every swap that is in force or was interrupted (`last_only`: the newest one).
pub(crate) async fn undo(
    host: &Host,
    last_only: bool,
    yes: bool,
    may_restart: bool,
    limit: Duration,
    progress: &mut Progress<'_>,
) -> Result<UndoReport, SwapError> {
    let _lock = SwapLock::take()?;
    let mut journal = Journal::load(Path::new(FOLDER))?;
    let many = if last_only { 1 } else { usize::MAX };
    let entries: Vec<Entry> = journal.in_force().into_iter().rev().take(many).cloned().collect();
    let has_stand_in = read_stand_in()?.is_some();
    if entries.is_empty() && !has_stand_in {
        return Err(SwapError::NothingToUndo);
    }
    progress.step("plan the way back");
    if entries.is_empty() {
        confirm(yes, "remove the stand-in for runc?")?;
        stand_in::retire(host, None, progress)?;
        return Ok(describe(&[], &[], false));
    }
    let returns = plan_returns(&entries)?;
    // A stand-in needs no restart: only what is in the config does.
    let has_new_config =
        |entry: &&Entry| !entry.files.is_empty() && (entry.restarted || entry.stage.may_have_restarted());
    let mut of_containerd = entries.iter().filter(|entry| entry.unit != docker_swap::UNIT);
    let restart = of_containerd.find(has_new_config).filter(|_| may_restart);
    let mut report = describe(&entries, &returns, restart.is_some());
    for diff in &report.diffs {
        progress.note(diff.diff.trim_end());
    }
    // The bytes that were there before need no second look; a mixture does.
    let question =
        restart.map_or("write this?".to_owned(), |entry| format!("write this and restart {}?", entry.unit));
    confirm(yes, &question)?;
    for entry in &entries {
        journal.advance(entry.id, Stage::RollingBack)?;
    }
    let of_docker: Vec<PathBuf> = entries
        .iter()
        .filter(|entry| entry.unit == docker_swap::UNIT && may_restart)
        .flat_map(|entry| entry.files.iter().map(|file| file.path.clone()))
        .collect();
    for file in returns.iter().filter(|file| file.now != file.then) {
        progress.step(format!("write {}", file.path.display()));
        let is_docker = of_docker.contains(&file.path);
        if is_docker {
            put_back(host, &mut journal, file, limit).await?
        } else {
            write(file)?
        }
        report.reloaded_docker |= is_docker;
    }
    if let Some(entry) = restart {
        report.census = restart_with_census(entry, limit, progress).await?;
    }
    for entry in &entries {
        journal.advance(entry.id, Stage::Undone)?;
    }
    if has_stand_in {
        stand_in::retire(host, remaining_stand_in(&journal).as_deref(), progress)?;
    }
    journal.forget_backups();
    report.steps = progress.finish();
    Ok(report)
}

/// What makes containers under the name `runc` once those swaps are gone.
fn remaining_stand_in(journal: &Journal) -> Option<PathBuf> {
    let remaining = journal.in_force().into_iter().rev().find(|entry| entry.stand_in.is_some());
    remaining.and_then(|entry| entry.binary.clone())
}

async fn put_back(
    host: &Host,
    journal: &mut Journal,
    file: &Return,
    limit: Duration,
) -> Result<(), SwapError> {
    let (now, then) = (file.now.as_deref(), file.then.as_deref());
    docker_swap::put_back(host, journal, &file.path, now, then, limit).await
}

fn plan_returns(entries: &[Entry]) -> Result<Vec<Return>, SwapError> {
    let mut returns: Vec<Return> = Vec::new();
    let records = entries.iter().flat_map(|entry| entry.files.iter().map(move |file| (entry, file)));
    for (entry, record) in records {
        remove_leftovers(&record.path);
        let at = match returns.iter().position(|file| file.path == record.path) {
            Some(at) => at,
            None => {
                let now = read_file(&record.path)?;
                let path = record.path.clone();
                returns.push(Return { path, then: now.clone(), now, exact: true });
                returns.len() - 1
            }
        };
        step_back(&mut returns[at], record, entry)?;
    }
    Ok(returns)
}

/// One swap back: the backup where the bytes are those that the swap wrote, its lines out otherwise.
fn step_back(file: &mut Return, record: &FileRecord, entry: &Entry) -> Result<(), SwapError> {
    let backup = read_file(&record.backup)?;
    let Some(current) = file.then.clone() else { return Ok(()) };
    let sum = sha256(&current);
    if sum == record.after_sha256 || record.between_sha256.as_ref() == Some(&sum) {
        file.then = backup.filter(|_| record.existed);
        return Ok(());
    }
    // An interrupted swap may not have written this file at all.
    if record.existed && backup.as_deref() == Some(&current) {
        return Ok(());
    }
    file.exact = false;
    file.then = Some(if entry.unit == docker_swap::UNIT {
        let undone = without_runtime(&current, &backup.unwrap_or_default(), &entry.handler);
        undone.map_err(|source| SwapError::UndoBreaksJson { path: record.path.clone(), source })?.into_bytes()
    } else {
        match without_lines(record, &current) {
            // Somebody else's file, in which this swap has no lines: never written, or taken out by hand.
            Err(SwapError::UndoLines { source: UndoError::LinesGone { .. }, .. })
                if !entry.applied || is_gone(&String::from_utf8_lossy(&current), &record.hunks) =>
            {
                current
            }
            outcome => outcome?,
        }
    });
    Ok(())
}

/// The bytes without the lines that the swap wrote; they must still be what the file is to hold.
fn without_lines(record: &FileRecord, current: &[u8]) -> Result<Vec<u8>, SwapError> {
    let path = || record.path.clone();
    let text = String::from_utf8_lossy(current).into_owned();
    let undone =
        undo_lines(&text, &record.hunks).map_err(|source| SwapError::UndoLines { path: path(), source })?;
    Document::parse(&record.path, undone.as_bytes())
        .map_err(|source| SwapError::UndoBreaks { path: path(), source })?;
    Ok(undone.into_bytes())
}

/// Takes the swap's lines out of a file that somebody else changed while the swap was made; a file that they removed stays so.
pub(super) fn take_out_lines(record: &FileRecord) -> Result<(), SwapError> {
    let Some(current) = read_file(&record.path)? else { return Ok(()) };
    replace_file(&record.path, Some(&current), &without_lines(record, &current)?)
}

fn describe(entries: &[Entry], returns: &[Return], restarted: bool) -> UndoReport {
    let text =
        |bytes: &Option<Vec<u8>>| String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
    let changed = returns.iter().filter(|file| file.now != file.then);
    let diffs = changed.map(|file| FileDiff {
        path: file.path.display().to_string(),
        diff: render_unified(&file.path, &text(&file.now), &text(&file.then)),
    });
    UndoReport {
        undone: entries.iter().map(|entry| entry.runtime.clone()).collect(),
        diffs: diffs.collect(),
        original_bytes: returns.iter().all(|file| file.exact),
        restarted,
        reloaded_docker: false,
        census: None,
        steps: Vec::new(),
    }
}

fn write(file: &Return) -> Result<(), SwapError> {
    match (&file.now, &file.then) {
        (Some(now), Some(then)) => restore_file(&file.path, now, then),
        (None, Some(then)) => replace_file(&file.path, None, then),
        (Some(now), None) => remove_file(&file.path, now),
        (None, None) => Ok(()),
    }
}

async fn restart_with_census(
    entry: &Entry,
    limit: Duration,
    progress: &mut Progress<'_>,
) -> Result<Option<CensusReport>, SwapError> {
    let unit = UnitName::new(entry.unit.clone());
    // A daemon that is down cannot be asked: then there is nothing to compare with.
    let before = Census::take(&entry.socket).await.ok();
    progress.step(format!("restart {unit} and wait until it serves"));
    let systemd = Systemd::connect().await?;
    restart_for_rollback(&systemd, &unit, &entry.socket, limit).await?;
    match before {
        None => Ok(None),
        Some(before) => {
            let report = before.compare(&Census::take(&entry.socket).await?);
            if report.lost.is_empty() { Ok(Some(report)) } else { Err(SwapError::Lost { lost: report.lost }) }
        }
    }
}
