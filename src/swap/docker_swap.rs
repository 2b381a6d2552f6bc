//! The swap of Docker's runtime: daemon.json, SIGHUP, and the way back.

use std::path::Path;

use inspect_probes::Host;

use super::apply::{replace_file, sha256};
use super::binary::{BUILTIN, builtin_source, install_builtin, standalone_file};
use super::docker::{Dockerd, PlannedJson, find_dockerd, hunk, plan_daemon_json, reload};
use super::error::SwapError;
use super::journal::{Entry, FOLDER, FileRecord, Journal, Stage, now};
use super::lock::SwapLock;
use super::plan::SwapRequest;
use super::progress::Progress;
use super::transaction::{FileDiff, SwapReport, SwapState, confirm};
use crate::render::diff::render_unified;

/// What the journal calls Docker's daemon; it is reloaded, never restarted.
pub(crate) const UNIT: &str = "docker.service";

/// Writes the runtime into daemon.json and has dockerd read it.
pub(crate) fn swap_docker(
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
    let builtin = request.runtime == "builtin";
    let binary = if builtin { Path::new(BUILTIN).to_owned() } else { standalone_file(&request.runtime)? };
    let name = request.handler.clone().unwrap_or_else(|| match binary.file_name() {
        Some(file) if !builtin => file.to_string_lossy().into_owned(),
        _ => request.runtime.clone(),
    });
    progress.step(format!("plan for dockerd ({})", dockerd.config.display()));
    let planned = plan_daemon_json(&dockerd.config, &name, &binary, request.make_default)?;
    let mut report = SwapReport::empty(request, &name, UNIT);
    let Some(PlannedJson { before, after }) = planned else {
        report.state = if request.dry_run { SwapState::Planned } else { SwapState::InForce };
        return Ok(report);
    };
    let text = String::from_utf8_lossy(before.as_deref().unwrap_or_default()).into_owned();
    let diff = render_unified(&dockerd.config, &text, &after);
    report.diffs.push(FileDiff { path: dockerd.config.display().to_string(), diff: diff.clone() });
    if request.dry_run {
        return Ok(report);
    }
    progress.note(diff.trim_end());
    confirm(request.yes, "write this and have dockerd read it again?")?;
    if builtin {
        install_builtin(&builtin_source()?)?;
    }
    progress.step("journal, write, SIGHUP");
    let id =
        open_entry(&mut journal, request, (&name, &binary), &dockerd, (before.as_deref(), &text, &after))?;
    replace_file(&dockerd.config, before.as_deref(), after.as_bytes())?;
    journal.advance(id, Stage::Applied)?;
    report.state = SwapState::Written;
    if request.restart {
        reload(&dockerd)?;
        report.state = SwapState::InForce;
    }
    journal.advance(id, Stage::Committed)?;
    report.steps = progress.finish();
    Ok(report)
}

fn open_entry(
    journal: &mut Journal,
    request: &SwapRequest,
    (name, binary): (&str, &Path),
    dockerd: &Dockerd,
    (before, text, after): (Option<&[u8]>, &str, &str),
) -> Result<u32, SwapError> {
    let id = journal.next_id();
    let record = FileRecord {
        path: dockerd.config.clone(),
        existed: before.is_some(),
        backup: journal.keep(id, 0, before.unwrap_or_default())?,
        after_sha256: sha256(after.as_bytes()),
        hunks: vec![hunk(text, after)],
    };
    journal.entries.push(Entry {
        id,
        began: now(),
        runtime: request.runtime.clone(),
        handler: name.to_owned(),
        binary: Some(binary.to_owned()),
        is_default: request.make_default,
        unit: UNIT.to_owned(),
        socket: dockerd.config.clone(),
        restarted: false,
        files: vec![record],
        stage: Stage::Planned,
    });
    journal.save()?;
    Ok(id)
}
