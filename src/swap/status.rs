//! What swaps are in force on this node, and whether one was interrupted.

use std::path::{Path, PathBuf};

use serde::Serialize;

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

/// Reads the journal and looks at the files.
pub(crate) fn read_status() -> Result<StatusReport, SwapError> {
    let journal = Journal::load(Path::new(FOLDER))?;
    let swaps = journal.in_force().into_iter().map(status_of).collect::<Result<_, _>>()?;
    Ok(StatusReport { busy: SwapLock::is_taken(), stand_in: read_stand_in()?, swaps })
}

fn status_of(entry: &Entry) -> Result<SwapStatus, SwapError> {
    let mut files = Vec::new();
    for record in &entry.files {
        let state = match read_file(&record.path)? {
            None if record.existed => FileState::Gone,
            None => FileState::AsBefore,
            Some(bytes) if sha256(&bytes) == record.after_sha256 => FileState::AsWritten,
            Some(bytes) if read_file(&record.backup)?.as_deref() == Some(&bytes) => FileState::AsBefore,
            Some(_) => FileState::Changed,
        };
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
        files,
        stand_in: entry.stand_in.clone(),
    })
}
