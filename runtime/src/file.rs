//! Whole files, with no more system calls than it takes: containerd starts the runtime several times for each container.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

/// Room for the usual spec.
const USUAL_SIZE: usize = 16 * 1024;

/// The content of a regular file.
///
/// # Errors
/// What the file system says.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_open(&open(path)?)
}

/// As [`read`], and leaves it to the end of the process, or to execve, to close the file: for one that is read once.
///
/// # Errors
/// What the file system says.
pub(crate) fn read_once(path: &Path) -> io::Result<Vec<u8>> {
    let file = ManuallyDrop::new(open(path)?);
    read_open(&file)
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn read_open(file: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(USUAL_SIZE);
    loop {
        let room = content.capacity() - content.len();
        match rustix::io::read(file, rustix::buffer::spare_capacity(&mut content)) {
            // A regular file gives less than it is asked for only at its end.
            Ok(length) if length < room => return Ok(content),
            Ok(_) => content.reserve(content.len()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes a file that only its owner may read, in the place of what is there.
///
/// # Errors
/// What the file system says.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, path, flags, Mode::from_raw_mode(0o600))?;
    let mut rest = content;
    while !rest.is_empty() {
        match rustix::io::write(&file, rest) {
            Ok(written) => rest = &rest[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The runtime writes few files in its life, whose end closes them.
    std::mem::forget(file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_comes_back_whatever_its_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for size in [0, 1, USUAL_SIZE - 1, USUAL_SIZE, USUAL_SIZE + 1, 100_000] {
            let content = vec![b'x'; size];
            write_private(&path, &content).unwrap();
            assert_eq!(read(&path).unwrap(), content);
        }
        assert_eq!(read(&directory.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
