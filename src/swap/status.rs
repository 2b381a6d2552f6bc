//! What swaps are in force on this node, and whether one was interrupted.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use inspect_probes::name::UnitName;
use inspect_probes::systemd::Systemd;
use serde::Serialize;

use super::DOCKER_UNIT;
use super::apply::{read_file, sha256};
use super::error::SwapError;
use super::journal::{Entry, FOLDER, Journal, Stage};
use super::lock::SwapLock;
use super::stand_in::{StandInStatus, read_stand_in};

/// The swaps of this node.
#[derive(Debug, Serialize)]
pub(crate) struct StatusReport {
    /// Another inspect is at work.
    pub(crate) busy: bool,
    /// What stands in for runc (`--scope node`).
    pub(crate) stand_in: Option<StandInStatus>,
    /// In force or interrupted, oldest first.
    pub(crate) swaps: Vec<SwapStatus>,
}

/// One swap.
#[derive(Debug, Serialize)]
pub(crate) struct SwapStatus {
    pub(crate) id: u32,
    pub(crate) runtime: String,
    pub(crate) handler: String,
    pub(crate) is_default: bool,
    pub(crate) unit: String,
    pub(crate) stage: Stage,
    pub(crate) interrupted: bool,
    /// What it wrote is newer than the daemon that runs (`--no-restart`): not in force yet.
    pub(crate) awaits_restart: bool,
    pub(crate) files: Vec<FileStatus>,
    /// Where this swap put a stand-in for runc.
    pub(crate) stand_in: Option<PathBuf>,
}

/// One file of a swap.
#[derive(Debug, Serialize)]
pub(crate) struct FileStatus {
    pub(crate) path: String,
    pub(crate) state: FileState,
}

/// What became of the bytes that a swap wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FileState {
    /// They are there.
    AsWritten,
    /// The bytes from before the swap are there.
    AsBefore,
    /// Something else is there: a later swap, or somebody's edit.
    Changed,
    /// There is no file.
    Gone,
}

/// Reads the journal, looks at the files, and asks systemd since when the daemons run.
pub(crate) async fn read_status() -> Result<StatusReport, SwapError> {
    let journal = Journal::load(Path::new(FOLDER))?;
    let mut swaps = Vec::new();
    for entry in journal.in_force() {
        swaps.push(status_of(entry, started(entry).await)?);
    }
    Ok(StatusReport { busy: SwapLock::is_taken(), stand_in: read_stand_in()?, swaps })
}

/// When the entry's daemon was started, microseconds since 1970. `None` for Docker's, which reads its config anew without a restart,
/// and where systemd cannot be asked.
async fn started(entry: &Entry) -> Option<u64> {
    if entry.unit == DOCKER_UNIT {
        return None;
    }
    let systemd = Systemd::connect().await.ok()?;
    Some(systemd.service(&UnitName::new(entry.unit.clone())).await.ok()?.started)
}

/// When a file was changed, microseconds since 1970.
fn changed(path: &Path) -> Option<u128> {
    let time = std::fs::metadata(path).and_then(|file| file.modified()).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_micros())
}

fn status_of(entry: &Entry, started: Option<u64>) -> Result<SwapStatus, SwapError> {
    let mut files = Vec::new();
    let mut awaits_restart = false;
    for record in &entry.files {
        let state = match read_file(&record.path)? {
            None if record.existed => FileState::Gone,
            None => FileState::AsBefore,
            Some(bytes) if sha256(&bytes) == record.after_sha256 => FileState::AsWritten,
            Some(bytes) if read_file(&record.backup)?.as_deref() == Some(&bytes) => FileState::AsBefore,
            Some(_) => FileState::Changed,
        };
        let is_newer =
            started.zip(changed(&record.path)).is_some_and(|(started, changed)| changed > started.into());
        awaits_restart |= is_newer && state == FileState::AsWritten && !entry.stage.is_interrupted();
        files.push(FileStatus { path: record.path.display().to_string(), state });
    }
    Ok(SwapStatus {
        id: entry.id,
        runtime: entry.runtime.clone(),
        handler: entry.handler.clone(),
        is_default: entry.is_default,
        unit: entry.unit.clone(),
        stage: entry.stage,
        interrupted: entry.stage.is_interrupted(),
        awaits_restart,
        files,
        stand_in: entry.stand_in.clone(),
    })
}
