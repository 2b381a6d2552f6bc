//! The canary's root file system: a directory below `/run` with this very program in it, and nothing to pull.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use inspect_probes::Host;
use inspect_probes::name::ContainerId;
use thiserror::Error;

/// Where canaries live while they run: a tmpfs that a reboot empties.
const PARENT: &str = "/run/inspect";
/// The program's place inside.
pub(super) const PROGRAM: &str = "/canary";
/// Where mounts go.
const MOUNT_POINTS: [&str; 8] = ["proc", "dev", "sys", "run", "tmp", "usr", "lib", "lib64"];

/// Why the canary's directory could not be made or removed.
#[derive(Debug, Error)]
pub(crate) enum RootfsError {
    #[error("cannot create `{}`", path.display())]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot copy this program to `{}`", path.display())]
    Copy {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot remove `{}`", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The directory of one canary.
#[derive(Debug)]
pub(super) struct CanaryDirectory {
    path: PathBuf,
}

impl CanaryDirectory {
    /// Makes the directory with mount points, the program and an empty report.
    pub(super) fn create(id: &ContainerId) -> Result<Self, RootfsError> {
        let path = Path::new(PARENT).join(id.as_str());
        let directory = Self { path };
        for point in MOUNT_POINTS {
            let path = directory.rootfs().join(point);
            fs::create_dir_all(&path).map_err(|source| RootfsError::Create { path, source })?;
        }
        let program = directory.rootfs().join(PROGRAM.trim_start_matches('/'));
        // /proc/self/exe is this program even when its file was replaced meanwhile.
        fs::copy("/proc/self/exe", &program).map_err(|source| RootfsError::Copy { path: program, source })?;
        for path in [directory.stdout(), directory.exec_stdout()] {
            fs::File::create(&path).map_err(|source| RootfsError::Create { path, source })?;
        }
        Ok(directory)
    }

    /// The directory of a canary whose inspect was killed: to be removed.
    pub(super) fn left_by(id: &ContainerId) -> Self {
        Self { path: Path::new(PARENT).join(id.as_str()) }
    }

    /// Removes the directories of inspects that were killed before containerd knew of their canary.
    pub(super) fn remove_abandoned(host: &Host) {
        for entry in fs::read_dir(PARENT).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix("canary-").and_then(|rest| rest.split('-').next());
            if owner.is_some_and(|pid| !host.proc().join(pid).exists()) {
                // Only room is lost when it stays.
                match fs::remove_dir_all(entry.path()) {
                    Ok(()) | Err(_) => {}
                }
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    pub(super) fn stdout(&self) -> PathBuf {
        self.path.join("stdout")
    }

    pub(super) fn exec_stdout(&self) -> PathBuf {
        self.path.join("exec-stdout")
    }

    /// Removes the directory, and the parent when it was the last.
    pub(super) fn remove(&self) -> Result<(), RootfsError> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RootfsError::Remove { path: self.path.clone(), source: error })
            }
            _ => {
                // Another canary may still live there.
                match fs::remove_dir(PARENT) {
                    Ok(()) | Err(_) => Ok(()),
                }
            }
        }
    }
}

/// Whether this program needs a loader and shared libraries: then the host's are bound into the canary, read-only.
pub(super) fn needs_host_libraries() -> bool {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().any(|line| {
        line.rsplit('/')
            .next()
            .is_some_and(|name| name.starts_with("ld-linux") || name.starts_with("libc.so"))
    })
}
