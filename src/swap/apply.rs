//! Writing a file so that a crash leaves either the old or the new one: a temporary file beside it, fsync, rename,
//! fsync of the directory. Owner, mode and extended attributes stay; a symbolic link keeps leading there.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, XattrFlags, fchmod, fgetxattr, flistxattr, fsetxattr};
use sha2::{Digest as _, Sha256};

use super::error::SwapError;

/// The mode of a file that was not there before.
const NEW_FILE: u32 = 0o644;
/// The same of a program.
const NEW_PROGRAM: u32 = 0o755;

/// The bytes of a file; `None` when there is none.
pub(crate) fn read_file(path: &Path) -> Result<Option<Vec<u8>>, SwapError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SwapError::file("read", path)(error)),
    }
}

/// The SHA-256 of bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Replaces a file's content if it is still `expected` (`None`: if there is no file).
pub(crate) fn replace_file(path: &Path, expected: Option<&[u8]>, content: &[u8]) -> Result<(), SwapError> {
    replace(path, expected, content, NEW_FILE)
}

/// The same for a program: it is executable at every moment at which it is there.
pub(crate) fn replace_program(path: &Path, expected: Option<&[u8]>, content: &[u8]) -> Result<(), SwapError> {
    replace(path, expected, content, NEW_PROGRAM)
}

/// The same on the way back, where a full disk must not be in the way: bytes that need no more room than those that are
/// there are then written over them.
pub(crate) fn restore_file(path: &Path, expected: &[u8], content: &[u8]) -> Result<(), SwapError> {
    match replace_file(path, Some(expected), content) {
        Err(SwapError::File { source, .. }) if is_full(&source) && content.len() <= expected.len() => {
            overwrite(path, content).map_err(SwapError::file("write", path))
        }
        outcome => outcome,
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn overwrite(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.write_all(content)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()
}

fn replace(path: &Path, expected: Option<&[u8]>, content: &[u8], mode: u32) -> Result<(), SwapError> {
    let target = follow(path)?;
    let folder = target.parent().unwrap_or(Path::new("/")).to_owned();
    fs::create_dir_all(&folder).map_err(SwapError::file("create", &folder))?;
    // Whoever writes holds the lock: what lies there was left by an inspect that was killed.
    remove_leftovers(&target);
    let temporary = Temporary::create(&target)?;
    temporary.fill(content, &target, mode)?;
    if read_file(&target)?.as_deref() != expected {
        return Err(SwapError::ChangedMeanwhile { path: path.to_owned() });
    }
    temporary.rename_to(&target)?;
    sync_folder(&folder)
}

/// Removes a file if it is still `expected`.
pub(crate) fn remove_file(path: &Path, expected: &[u8]) -> Result<(), SwapError> {
    match read_file(path)? {
        None => return Ok(()),
        Some(bytes) if bytes != expected => {
            return Err(SwapError::ChangedMeanwhile { path: path.to_owned() });
        }
        Some(_) => {}
    }
    fs::remove_file(path).map_err(SwapError::file("remove", path))?;
    sync_folder(path.parent().unwrap_or(Path::new("/")))
}

/// Removes the temporary files that a killed inspect left beside `path`.
pub(crate) fn remove_leftovers(path: &Path) {
    let Ok(target) = follow(path) else { return };
    let Some((folder, prefix)) = target.parent().zip(temporary_prefix(&target)) else { return };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            // One that cannot be removed harms nobody: no daemon reads it.
            match fs::remove_file(entry.path()) {
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// Where a chain of symbolic links ends; a link is followed from its own directory.
fn follow(path: &Path) -> Result<PathBuf, SwapError> {
    match fs::canonicalize(path) {
        Ok(target) => Ok(target),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
            // A link to nowhere: the file is to be made where it points.
            Ok(target) => Ok(path.parent().unwrap_or(Path::new("/")).join(target)),
            Err(_) => Ok(path.to_owned()),
        },
        Err(error) => Err(SwapError::file("read", path)(error)),
    }
}

fn temporary_prefix(target: &Path) -> Option<String> {
    Some(format!(".{}.inspect-", target.file_name()?.to_string_lossy()))
}

pub(crate) fn sync_folder(folder: &Path) -> Result<(), SwapError> {
    let sync = File::open(folder).and_then(|folder| folder.sync_all());
    sync.map_err(SwapError::file("sync", folder))
}

/// A file beside the target; it is removed unless it was renamed.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn create(target: &Path) -> Result<Self, SwapError> {
        let prefix = temporary_prefix(target).unwrap_or_default();
        let path = target.with_file_name(format!("{prefix}{}", std::process::id()));
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
        Ok(Self { file: file.map_err(SwapError::file("create", &path))?, path })
    }

    fn fill(&self, content: &[u8], target: &Path, mode: u32) -> Result<(), SwapError> {
        let written = (&self.file).write_all(content);
        written.map_err(SwapError::file("write", &self.path))?;
        copy_attributes(target, &self.file, mode)
            .map_err(SwapError::file("set the attributes of", &self.path))?;
        self.file.sync_all().map_err(SwapError::file("sync", &self.path))
    }

    fn rename_to(&self, target: &Path) -> Result<(), SwapError> {
        fs::rename(&self.path, target).map_err(SwapError::file("replace", target))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is nothing left under this name.
        match fs::remove_file(&self.path) {
            Ok(()) | Err(_) => {}
        }
    }
}

/// Owner, mode and extended attributes of the file that is replaced; `mode` where there is none, and its execute bits in any case.
fn copy_attributes(from: &Path, to: &File, mode: u32) -> io::Result<()> {
    let source = match File::open(from) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(fchmod(to, Mode::from_raw_mode(mode))?);
        }
        Err(error) => return Err(error),
    };
    let metadata = source.metadata()?;
    fchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    fchmod(to, Mode::from_raw_mode(metadata.mode() & 0o7777 | mode & 0o111))?;
    copy_xattrs(&source, to)
}

fn copy_xattrs(from: &File, to: &File) -> io::Result<()> {
    let mut names = vec![0; 64 << 10];
    let length = match flistxattr(from.as_fd(), names.as_mut_slice()) {
        Ok(length) => length,
        // A file system without extended attributes has none to keep.
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let length = fgetxattr(from.as_fd(), name, value.as_mut_slice())?;
        fsetxattr(to.as_fd(), name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_through_its_link_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("real.toml");
        let link = folder.path().join("config.toml");
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real.toml", &link).unwrap();
        replace_file(&link, Some(b"old"), b"new").unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o7777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn a_program_is_executable_whatever_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runc");
        replace_program(&path, None, b"one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(path.with_file_name(".runc.inspect-1"), "half").unwrap();
        replace_program(&path, Some(b"one"), b"two").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "what a killed inspect left is gone");
    }

    #[test]
    fn old_bytes_are_written_over_the_new_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        fs::write(&path, "new and longer").unwrap();
        overwrite(&path, b"old").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn what_somebody_changed_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        fs::write(&path, "theirs").unwrap();
        assert!(matches!(replace_file(&path, Some(b"old"), b"new"), Err(SwapError::ChangedMeanwhile { .. })));
        assert!(matches!(replace_file(&path, None, b"new"), Err(SwapError::ChangedMeanwhile { .. })));
        assert!(matches!(remove_file(&path, b"ours"), Err(SwapError::ChangedMeanwhile { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_new_file_gets_its_folder_and_leftovers_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("containerd/config.toml");
        replace_file(&path, None, b"x").unwrap();
        fs::write(path.with_file_name(".config.toml.inspect-1"), "half").unwrap();
        remove_leftovers(&path);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        remove_file(&path, b"x").unwrap();
        assert_eq!(read_file(&path).unwrap(), None);
    }
}
