//! Reading kernel files whole, bounded and in one piece.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The most that one `/proc/PID` file is read for: a process can make its own command line, its environment and its list
/// of mounts as long as it likes.
const READ_LIMIT: u64 = 16 << 20;

/// What one read asks for at first: most kernel files are shorter.
const CHUNK: usize = 8 << 10;

/// Why something below `/proc` could not be read. A process that vanished is no error.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// The kernel did not let us read it: mostly a missing privilege.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file, as the host names it.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It does not look as the kernel's documentation says.
    #[error("cannot parse `{}`: {reason}, found {found}", path.display())]
    Parse {
        /// The file, as the host names it.
        path: PathBuf,
        /// What was expected.
        reason: &'static str,
        /// The offending text, quoted and bounded.
        found: String,
    },
}

impl ProcessError {
    /// Whether a privilege is missing: then the rest of the answer is still good.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    pub(crate) fn parse(path: &Path, reason: &'static str, found: &[u8]) -> Self {
        Self::Parse { path: path.to_path_buf(), reason, found: crate::escape::quote(found) }
    }
}

/// A file's whole content (at most 16 MiB), or `None` where it, or the process that it told of, is gone.
pub(crate) fn read_present(path: &Path) -> Result<Option<Vec<u8>>, ProcessError> {
    read_bounded(path, READ_LIMIT)
}

/// The first `limit` bytes of a file, or `None` where it, or the process that it told of, is gone.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, ProcessError> {
    let read = File::open(path).and_then(|file| read_whole(file, limit));
    present(path, read)
}

/// Kernel files say nothing of their size and make their text anew for each read: few large reads.
fn read_whole(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(usize::try_from(limit).unwrap_or(CHUNK).min(CHUNK));
    file.take(limit).read_to_end(&mut content)?;
    Ok(content)
}

/// Tells "gone" (no such file, no such process) from "not allowed" and the rest.
pub(crate) fn present<T>(path: &Path, result: io::Result<T>) -> Result<Option<T>, ProcessError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(source) => Err(ProcessError::Read { path: path.to_path_buf(), source }),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_absent_and_what_is_forbidden_is_an_error() {
        assert!(read_present(Path::new("/proc/4294967295/stat")).unwrap().is_none());
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = present::<()>(Path::new("/proc/1/environ"), Err(denied)).unwrap_err();
        assert!(error.is_permission_denied());
        assert_eq!(error.to_string(), "cannot read `/proc/1/environ`");
    }

    #[test]
    fn a_read_is_bounded() {
        let read = read_bounded(Path::new("/proc/self/maps"), 10).unwrap();
        assert_eq!(read.map(|bytes| bytes.len()), Some(10));
    }
}
