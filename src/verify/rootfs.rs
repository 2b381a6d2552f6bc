//! The canary's root file system: a directory with this very program in it, and nothing to pull.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use inspect_probes::Host;
use inspect_probes::name::ContainerId;
use nix::sys::statvfs::statvfs;
use thiserror::Error;

/// Where canaries live while they run: a tmpfs that a reboot empties.
const PARENT: &str = "/run/inspect";
/// Where they live on a node whose `/run` is mounted noexec, as Debian's initramfs does: what Docker and CRI bind into a
/// container from there runs under crun, which takes the flag away, and not under runc, which keeps it.
const EXECUTABLE_PARENT: &str = "/var/lib/inspect/canaries";
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

fn parent() -> &'static Path {
    let is_noexec =
        statvfs("/run").is_ok_and(|run| run.flags().contains(nix::sys::statvfs::FsFlags::ST_NOEXEC));
    Path::new(if is_noexec { EXECUTABLE_PARENT } else { PARENT })
}

impl CanaryDirectory {
    /// Makes the directory with mount points, the program and an empty report.
    pub(super) fn create(id: &ContainerId) -> Result<Self, RootfsError> {
        let path = parent().join(id.as_str());
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
        Self { path: parent().join(id.as_str()) }
    }

    /// Removes the directories of inspects that were killed before containerd knew of their canary.
    pub(super) fn remove_abandoned(host: &Host) {
        for entry in fs::read_dir(parent()).into_iter().flatten().flatten() {
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
                // Another canary may still live there, or what a swap keeps.
                let ours =
                    |directory: &&Path| directory.ends_with("canaries") || directory.ends_with("inspect");
                let _stays = parent().ancestors().take_while(ours).try_for_each(fs::remove_dir);
                Ok(())
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
