//! One inspect at a time changes a node.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::error::SwapError;

const FOLDER: &str = "/run/inspect";
const LOCK: &str = "/run/inspect/swap.lock";

/// The lock; the kernel releases it with the process, however that ends.
#[derive(Debug)]
pub(crate) struct SwapLock {
    _file: File,
}

impl SwapLock {
    /// Takes the lock or says that it is taken.
    pub(crate) fn take() -> Result<Self, SwapError> {
        fs::create_dir_all(FOLDER).map_err(SwapError::file("create", FOLDER))?;
        let open = File::options().create(true).truncate(false).write(true).open(LOCK);
        let file = open.map_err(SwapError::file("open", LOCK))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(SwapError::Busy { lock: Path::new(LOCK).to_owned() }),
            Err(error) => Err(SwapError::file("lock", LOCK)(error.into())),
        }
    }

    /// Whether another process holds the lock now.
    pub(crate) fn is_taken() -> bool {
        File::open(LOCK).is_ok_and(|file| {
            flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
        })
    }
}
