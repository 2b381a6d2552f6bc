//! Bundles: made beside their place and renamed into it when complete, so that one is all there or not there.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use inspect_probes::escape::escape;
use rustix::fs::{Mode, OFlags, RenameFlags};

/// Why a bundle cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// There is something already.
    #[error("will not overwrite `{}`", escape(&path.to_string_lossy()))]
    Exists {
        /// The bundle's path.
        path: PathBuf,
    },
    /// There is something that is no bundle: not even `--force` takes it away.
    #[error("will not replace `{}`: it is not a bundle (no `config.json` and no `rootfs`)", escape(&path.to_string_lossy()))]
    NotABundle {
        /// Its path.
        path: PathBuf,
    },
    /// A path that names no new directory: `/`, `..`.
    #[error("cannot make a bundle at `{}`", escape(&path.to_string_lossy()))]
    NoName {
        /// The path.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {action} `{}`", escape(&path.to_string_lossy()))]
    System {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// A bundle in the making. Dropped before [`Self::commit`], it is gone.
#[derive(Debug)]
pub struct StagedBundle {
    parent: OwnedFd,
    parent_path: PathBuf,
    name: OsString,
    staged: OsString,
    force: bool,
    committed: bool,
}

impl StagedBundle {
    /// Makes a directory beside `path`, for its owner alone, with an empty `rootfs` in it.
    ///
    /// # Errors
    /// Where there is something at `path` (with `force`: something that is no bundle), or no directory can be made.
    pub fn create(path: &Path, force: bool) -> Result<Self, BundleError> {
        let no_name = || BundleError::NoName { path: path.to_path_buf() };
        let name = path.file_name().ok_or_else(no_name)?.to_owned();
        let parent_path = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        check_place(path, force)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::open(&parent_path, flags, Mode::empty())
            .map_err(|errno| failed("open", &parent_path)(errno.into()))?;
        let staged = tempfile::Builder::new()
            .prefix(&staging_prefix(&name))
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .tempdir_in(&parent_path)
            .map_err(failed("make a directory in", &parent_path))?
            .keep();
        let staged = staged.file_name().map(OsStr::to_owned).ok_or_else(no_name)?;
        let bundle = Self { parent, parent_path, name, staged, force, committed: false };
        let rootfs = bundle.path().join("rootfs");
        DirBuilder::new().mode(0o755).create(&rootfs).map_err(failed("make", &rootfs))?;
        Ok(bundle)
    }

    /// Where it is being made.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.parent_path.join(&self.staged)
    }

    /// Its root file system, to be unpacked into.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open_rootfs(&self) -> Result<OwnedFd, BundleError> {
        let path = self.path().join("rootfs");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| failed("open", &path)(errno.into()))
    }

    /// Writes its `config.json`.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_config(&self, config: &[u8]) -> Result<(), BundleError> {
        let path = self.path().join("config.json");
        let write = || {
            let mut file = File::create_new(&path)?;
            file.write_all(config)?;
            file.sync_all()
        };
        write().map_err(failed("write", &path))
    }

    /// Puts it in its place with one rename; what was there before goes away afterwards.
    ///
    /// # Errors
    /// Where there is something in its place by now, or the rename fails; then nothing has changed.
    pub fn commit(mut self) -> Result<(), BundleError> {
        let target = self.parent_path.join(&self.name);
        check_place(&target, self.force)?;
        let rename =
            |flags| rustix::fs::renameat_with(&self.parent, &self.staged, &self.parent, &self.name, flags);
        match rename(RenameFlags::NOREPLACE) {
            Ok(()) => self.committed = true,
            // The old one changes places with the new one, and is dropped with `self`.
            Err(rustix::io::Errno::EXIST) if self.force => {
                rename(RenameFlags::EXCHANGE).map_err(|errno| failed("replace", &target)(errno.into()))?;
            }
            Err(rustix::io::Errno::EXIST) => return Err(BundleError::Exists { path: target }),
            Err(errno) => return Err(failed("make", &target)(errno.into())),
        }
        Ok(())
    }
}

impl Drop for StagedBundle {
    fn drop(&mut self) {
        if !self.committed {
            // Nobody is left to be told; the directory's name says what it is.
            match remove_tree(&self.parent, &self.staged) {
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// `.NAME.unpacking-`, cut so that the whole stays a valid name.
fn staging_prefix(name: &OsStr) -> OsString {
    let short: String = name.to_string_lossy().chars().take(40).collect();
    OsString::from(format!(".{short}.unpacking-"))
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> BundleError {
    move |source| BundleError::System { action, path: path.to_path_buf(), source }
}

fn check_place(path: &Path, force: bool) -> Result<(), BundleError> {
    let Ok(metadata) = path.symlink_metadata() else { return Ok(()) };
    if !force {
        return Err(BundleError::Exists { path: path.to_path_buf() });
    }
    let has = |name: &str| path.join(name).symlink_metadata().is_ok();
    let is_empty = || std::fs::read_dir(path).is_ok_and(|mut names| names.next().is_none());
    if metadata.is_dir() && (has("config.json") || has("rootfs") || is_empty()) {
        Ok(())
    } else {
        Err(BundleError::NotABundle { path: path.to_path_buf() })
    }
}

/// Takes a directory away with all in it, following no link and entering no mount: what is mounted below stays.
fn remove_tree(parent: &OwnedFd, name: &OsStr) -> Result<(), rustix::io::Errno> {
    use rustix::fs::{AtFlags, ResolveFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let directory = match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
        Err(rustix::io::Errno::ACCESS) => {
            // Its owner may have taken the right to read it from himself.
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)?
        }
        other => other?,
    };
    rustix::fs::fchmod(&directory, Mode::RWXU)?;
    for entry in rustix::fs::Dir::read_from(&directory)? {
        use std::os::unix::ffi::OsStrExt as _;
        let entry = entry?;
        let child = OsStr::from_bytes(entry.file_name().to_bytes());
        if child == "." || child == ".." {
            continue;
        }
        match rustix::fs::unlinkat(&directory, child, AtFlags::empty()) {
            Err(rustix::io::Errno::ISDIR) => remove_tree(&directory, child)?,
            other => other?,
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_is_not_committed_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b");
        let staged = StagedBundle::create(&path, false).unwrap();
        std::fs::create_dir_all(staged.path().join("rootfs/a/b")).unwrap();
        drop(staged);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_force_replaces_and_only_a_bundle() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b");
        StagedBundle::create(&path, false).unwrap().commit().unwrap();
        assert!(matches!(StagedBundle::create(&path, false), Err(BundleError::Exists { .. })));
        std::fs::write(path.join("old"), "").unwrap();
        let staged = StagedBundle::create(&path, true).unwrap();
        staged.write_config(b"{}").unwrap();
        staged.commit().unwrap();
        assert!(path.join("config.json").exists() && !path.join("old").exists());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "the old one is gone");
        let home = directory.path().join("home");
        std::fs::create_dir(&home).unwrap();
        std::fs::write(home.join("letter"), "dear").unwrap();
        assert!(matches!(StagedBundle::create(&home, true), Err(BundleError::NotABundle { .. })));
        assert!(matches!(StagedBundle::create(Path::new("/"), true), Err(BundleError::NoName { .. })));
    }

    #[test]
    fn what_appears_meanwhile_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b");
        let staged = StagedBundle::create(&path, false).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(staged.commit(), Err(BundleError::Exists { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }
}
