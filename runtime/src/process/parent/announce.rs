//! Tells the callers which process it is.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::error::RuntimeError;
use crate::process::channel::send_with_descriptors;
use crate::step::{Step, StepError};

/// Written beside and renamed: who waits for the file never sees it half written.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<(), RuntimeError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    let open = || std::fs::OpenOptions::new().write(true).create_new(true).open(&new);
    let file = match open() {
        // Left by a runtime that was killed; or a symlink, which in a directory of everybody's may be anybody's.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(&new).and_then(|()| open())
        }
        file => file,
    };
    let written = file
        .and_then(|mut file| std::io::Write::write_all(&mut file, pid.to_string().as_bytes()))
        .and_then(|()| std::fs::rename(&new, path));
    written.map_err(|source| RuntimeError::File { operation: "write", path: path.to_path_buf(), source })
}

/// Sends a pidfd to who listens at `path`.
pub(crate) fn send_pidfd(path: &Path, pidfd: &OwnedFd) -> Result<(), StepError> {
    let socket = crate::terminal::connect_socket(path)?;
    send_with_descriptors(socket.as_fd(), b"\0", &[pidfd.as_fd()]).step("send a pidfd to", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_written_through_no_symlink() {
        let directory = tempfile::tempdir().unwrap();
        let (file, victim) = (directory.path().join("pid"), directory.path().join("victim"));
        std::fs::write(&victim, "as it was").unwrap();
        std::os::unix::fs::symlink(&victim, directory.path().join(".pid.new")).unwrap();
        write_pid_file(&file, 7).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "7");
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "as it was");
    }
}
