//! What was done to this node and how far it came: written before each step, so that the next run can finish or undo it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use inspect_probes::containerd::config::Hunk;
use serde::{Deserialize, Serialize};

use super::apply::{read_file, replace_file};
use super::error::SwapError;

/// Where the journal and the backups are.
pub(crate) const FOLDER: &str = "/var/lib/inspect/swap";

/// How far a swap came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    /// Written down; the files may or may not be changed.
    Planned,
    /// The files are changed; the daemon still has the old config.
    Applied,
    /// The daemon is being restarted.
    Restarting,
    /// The daemon runs with the new config, and that is being proven.
    Verifying,
    /// In force.
    Committed,
    /// The old bytes are being put back.
    RollingBack,
    /// The old bytes are back, because the swap failed.
    RolledBack,
    /// The old bytes are back, because the user said so.
    Undone,
}

impl Stage {
    /// Neither in force nor taken back.
    pub(crate) fn is_interrupted(self) -> bool {
        matches!(self, Self::Planned | Self::Applied | Self::Restarting | Self::Verifying | Self::RollingBack)
    }

    /// Whether the daemon may have started with the new config.
    pub(crate) fn may_have_restarted(self) -> bool {
        !matches!(self, Self::Planned | Self::Applied)
    }
}

/// A file that a swap changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    pub(crate) path: PathBuf,
    /// Whether there was a file before.
    pub(crate) existed: bool,
    /// Where its bytes are kept.
    pub(crate) backup: PathBuf,
    pub(crate) after_sha256: String,
    /// What stands there for a moment on the way back; ours as well.
    #[serde(default)]
    pub(crate) between_sha256: Option<String>,
    pub(crate) hunks: Vec<Hunk>,
}

/// One swap.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: u32,
    /// Seconds since 1970.
    pub(crate) began: u64,
    pub(crate) runtime: String,
    pub(crate) handler: String,
    pub(crate) binary: Option<PathBuf>,
    pub(crate) is_default: bool,
    pub(crate) unit: String,
    pub(crate) socket: PathBuf,
    pub(crate) restarted: bool,
    /// Whether every file was written.
    #[serde(default)]
    pub(crate) applied: bool,
    pub(crate) files: Vec<FileRecord>,
    /// Where this swap put a stand-in for runc (`--scope node`).
    #[serde(default)]
    pub(crate) stand_in: Option<PathBuf>,
    pub(crate) stage: Stage,
}

/// All swaps of this node, oldest first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Journal {
    pub(crate) entries: Vec<Entry>,
    #[serde(skip)]
    folder: PathBuf,
}

impl Journal {
    /// Reads the journal; a node without one has an empty one.
    pub(crate) fn load(folder: &Path) -> Result<Self, SwapError> {
        let path = folder.join("journal.json");
        let mut journal = match read_file(&path)? {
            None => Self::default(),
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| SwapError::Journal { path, source })?
            }
        };
        journal.folder = folder.to_owned();
        Ok(journal)
    }

    /// Writes the journal down for good.
    pub(crate) fn save(&self) -> Result<(), SwapError> {
        let path = self.folder.join("journal.json");
        let json = serde_json::to_vec_pretty(self)
            .map_err(|source| SwapError::Journal { path: path.clone(), source })?;
        let before = read_file(&path)?;
        replace_file(&path, before.as_deref(), &json)
    }

    /// Sets the stage of an entry and writes it down.
    pub(crate) fn advance(&mut self, id: u32, stage: Stage) -> Result<(), SwapError> {
        for entry in self.entries.iter_mut().filter(|entry| entry.id == id) {
            entry.stage = stage;
            entry.restarted |= stage.may_have_restarted();
            entry.applied |= stage == Stage::Applied;
        }
        self.save()
    }

    /// Writes down what will stand in a file for a moment on its way back.
    pub(crate) fn note_between(&mut self, path: &Path, sha256: &str) -> Result<(), SwapError> {
        let going_back = self.entries.iter_mut().filter(|entry| entry.stage == Stage::RollingBack);
        for record in going_back.flat_map(|entry| &mut entry.files).filter(|record| record.path == path) {
            record.between_sha256 = Some(sha256.to_owned());
        }
        self.save()
    }

    /// The swap that was interrupted, if one was.
    pub(crate) fn interrupted(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.stage.is_interrupted())
    }

    /// The swaps that are in force or were interrupted, oldest first.
    pub(crate) fn in_force(&self) -> Vec<&Entry> {
        let taken_back = [Stage::RolledBack, Stage::Undone];
        self.entries.iter().filter(|entry| !taken_back.contains(&entry.stage)).collect()
    }

    /// A number for the next swap.
    pub(crate) fn next_id(&self) -> u32 {
        self.entries.iter().map(|entry| entry.id).max().map_or(1, |id| id + 1)
    }

    /// Keeps the bytes of a file, on disk for good before anything is changed.
    pub(crate) fn keep(&self, id: u32, index: usize, bytes: &[u8]) -> Result<PathBuf, SwapError> {
        let path = self.folder.join(format!("{id:04}-{index}.before"));
        let before = read_file(&path)?;
        replace_file(&path, before.as_deref(), bytes)?;
        Ok(path)
    }

    /// Removes the backups of swaps that are taken back.
    pub(crate) fn forget_backups(&self) {
        let kept: Vec<&Path> = self
            .in_force()
            .into_iter()
            .flat_map(|entry| entry.files.iter().map(|file| file.backup.as_path()))
            .collect();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_backup = path.extension().is_some_and(|extension| extension == "before");
            if is_backup && !kept.contains(&path.as_path()) {
                // Only room on the disk is lost when it stays.
                match fs::remove_file(&path) {
                    Ok(()) | Err(_) => {}
                }
            }
        }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
