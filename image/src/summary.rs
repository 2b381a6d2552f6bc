//! What one layer holds, counted while it is read.

use serde::Serialize;

use crate::layer::{LayerEnd, LayerError, LayerStream};
use crate::tar::{Entry, EntryKind, TarError, TarReader};
use crate::unpack::whiteout::{Whiteout, whiteout_of};

/// How many whiteouts and top-level names are kept to be shown.
const SHOWN: usize = 20;

/// Counts of one layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LayerSummary {
    /// Entries of the archive, whatever they are.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Hard links.
    pub hardlinks: u64,
    /// Device nodes and named pipes.
    pub special_files: u64,
    /// Paths that hide one of a lower layer.
    pub whiteouts: u64,
    /// Directories that hide all that lower layers have in them.
    pub opaque_directories: u64,
    /// Files that run as their owner or group, whoever starts them.
    pub setuid_files: u64,
    /// Bytes of the regular files.
    pub file_bytes: u64,
    /// The first names below the root, escaped by nobody.
    pub top_level: Vec<String>,
    /// The first hidden paths, escaped by nobody; a directory that hides everything ends in `/`.
    pub hidden: Vec<String>,
}

/// Why a layer cannot be summed up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SummaryError {
    /// The archive in it is damaged.
    #[error("cannot read the layer's archive")]
    Tar(
        /// Where.
        #[from]
        TarError,
    ),
    /// The layer is not what the image says.
    #[error(transparent)]
    Layer(#[from] LayerError),
}

impl LayerSummary {
    /// Reads the layer to its end, counting, and checks its digests.
    ///
    /// # Errors
    /// Where the layer or its archive is damaged, over a limit, or not what the image says. `progress` is told the
    /// number of blob bytes that were read.
    pub fn read(
        stream: LayerStream<'_>,
        entries: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(Self, LayerEnd), SummaryError> {
        let mut summary = Self::default();
        let mut reader = TarReader::new(stream, entries);
        let read = loop {
            match reader.next_entry() {
                Ok(Some(entry)) => summary.take(&entry),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
            progress(reader.input_mut().blob_bytes());
        };
        let stream = reader.into_input();
        if read.is_err() && !stream.has_failed() {
            read?;
        }
        Ok((summary, stream.finish()?))
    }

    /// Counts one entry.
    pub fn take(&mut self, entry: &Entry) {
        self.entries += 1;
        if let Some(whiteout) = whiteout_of(&entry.path) {
            return self.take_whiteout(&whiteout);
        }
        match &entry.kind {
            EntryKind::File { .. } => {
                self.files += 1;
                self.file_bytes = self.file_bytes.saturating_add(entry.size);
                self.setuid_files += u64::from(entry.mode & 0o6000 != 0);
            }
            EntryKind::Directory => self.directories += 1,
            EntryKind::Symlink { .. } => self.symlinks += 1,
            EntryKind::Hardlink { .. } => self.hardlinks += 1,
            EntryKind::CharacterDevice { .. } | EntryKind::BlockDevice { .. } | EntryKind::Fifo => {
                self.special_files += 1;
            }
            EntryKind::Unknown { .. } => return,
        }
        let mut components =
            entry.path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        if let Some(first) = components.next() {
            let first = String::from_utf8_lossy(first).into_owned();
            if self.top_level.len() < SHOWN && !self.top_level.contains(&first) {
                self.top_level.push(first);
            }
        }
    }

    fn take_whiteout(&mut self, whiteout: &Whiteout) {
        let shown = match whiteout {
            Whiteout::Path(path) => {
                self.whiteouts += 1;
                String::from_utf8_lossy(path).into_owned()
            }
            Whiteout::Opaque(directory) => {
                self.opaque_directories += 1;
                format!("{}/", String::from_utf8_lossy(directory))
            }
            Whiteout::Ignored => return,
        };
        if self.hidden.len() < SHOWN {
            self.hidden.push(shown);
        }
    }
}
