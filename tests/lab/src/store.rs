//! Where the lab keeps things: images and machines below one cache directory, and the locks on them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::LabError;
use crate::interrupt;
use crate::progress::Progress;

/// The lab's cache directory: `$XDG_CACHE_HOME/inspect-lab` or `~/.cache/inspect-lab`, readable by its owner alone.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store, making it at first use.
    pub(crate) fn open() -> Result<Self, LabError> {
        let cache = std::env::var_os("XDG_CACHE_HOME").filter(|value| Path::new(value).is_absolute());
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
        let base = cache.map(PathBuf::from).or_else(home).ok_or(LabError::NoCacheDirectory)?;
        let store = Self { root: base.join("inspect-lab") };
        for directory in [store.root.clone(), store.images(), store.machines()] {
            make_private_directory(&directory)?;
        }
        Ok(store)
    }

    /// One directory per image, named by generation and recipe.
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// One directory per machine, named by the machine.
    pub(crate) fn machines(&self) -> PathBuf {
        self.root.join("machines")
    }

    /// The directory of the machine of that name.
    pub(crate) fn machine(&self, name: &str) -> PathBuf {
        self.machines().join(name)
    }

    /// The private key that every image's sshd lets in; its public half is beside it with `.pub`.
    pub(crate) fn ssh_key(&self) -> PathBuf {
        self.root.join("ssh_key")
    }

    /// What the accelerator trial found out, per kind of host.
    pub(crate) fn accelerator(&self) -> PathBuf {
        self.root.join("accelerator.json")
    }

    /// Waits for the exclusive lock `name`; it ends with the returned file.
    pub(crate) fn lock(&self, name: &str, progress: &Progress) -> Result<File, LabError> {
        let path = self.root.join(format!("{name}.lock"));
        let mut told = false;
        loop {
            if let Some(file) = try_lock(&path)? {
                return Ok(file);
            }
            if !told {
                progress.line(&format!("lab: waiting for another lab that holds `{name}`"));
                told = true;
            }
            interrupt::tick()?;
        }
    }
}

/// Takes the exclusive lock on `path`, made when absent; `None` when somebody else has it.
pub(crate) fn try_lock(path: &Path) -> Result<Option<File>, LabError> {
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let file = opened.map_err(LabError::file("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(LabError::file("lock", path)(source)),
    }
}

/// Makes a directory, and its parents, for its owner alone; present is fine.
pub(crate) fn make_private_directory(path: &Path) -> Result<(), LabError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(LabError::file("create", path))
}

/// Removes a directory and everything below; absent is fine.
pub(crate) fn remove_directory(path: &Path) -> Result<(), LabError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LabError::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Reads a JSON file of the lab's own; `None` when it is absent.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LabError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LabError::file("read", path)(error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| LabError::Json { path: path.into(), source })
}

/// Writes a JSON file whole: a reader sees the old one or the new one.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), LabError> {
    let text =
        serde_json::to_vec_pretty(value).map_err(|source| LabError::Json { path: path.into(), source })?;
    write_whole(path, &text)
}

/// Writes a file beside its place and renames it there.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), LabError> {
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&beside, bytes).map_err(LabError::file("write", &beside))?;
    fs::rename(&beside, path).map_err(LabError::file("replace", path))
}
