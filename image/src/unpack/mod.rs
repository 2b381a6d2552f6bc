//! Makes a root file system of an image's layers.
//!
//! Layers are applied in order into one directory, as the image spec's "Applying Changesets" says: what a layer has
//! replaces what was there, a directory is kept and takes the new attributes, whiteouts take away what lower layers
//! have. Directories get their modes and times when all is done, so that putting files into them changes neither.

mod apply;
mod attributes;
pub mod path;
mod tree;
pub mod whiteout;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use inspect_probes::escape::{escape_bytes, quote};
use serde::Serialize;

use crate::layer::{Layer, LayerEnd, LayerError, Layers};
use crate::limits::Limits;
use crate::source::ImageSource;
use crate::summary::LayerSummary;
use crate::tar::{TarError, TarReader};
use apply::Applier;
pub(crate) use tree::open_file_in;

/// Why an image cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// A layer is damaged, over a limit or not what the image says.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The archive in a layer is damaged.
    #[error("cannot read the archive of the layer {}", quote(name.as_bytes()))]
    Archive {
        /// The layer's file within the image.
        name: String,
        /// Where.
        #[source]
        source: TarError,
    },
    /// An entry cannot be made.
    #[error("cannot unpack `{}` of the layer {}", escape_bytes(path), quote(name.as_bytes()))]
    Entry {
        /// The layer's file within the image.
        name: String,
        /// The entry's path.
        path: Vec<u8>,
        /// Why.
        #[source]
        source: EntryError,
    },
    /// A directory cannot get its mode and times.
    #[error("cannot finish the directory `{}`", escape_bytes(path))]
    Finish {
        /// The directory's path within the root file system.
        path: Vec<u8>,
        /// Why.
        #[source]
        source: EntryError,
    },
    /// It was stopped from outside.
    #[error("cannot unpack the image: interrupted")]
    Interrupted,
}

/// Why an entry cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The kernel refused.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The data cannot be read.
    #[error(transparent)]
    Archive(#[from] TarError),
    /// The root of the file system as something else than a directory.
    #[error("cannot replace the root of the file system by something that is no directory")]
    RootNotDirectory,
    /// A component on the way is neither a directory nor a link to one.
    #[error("cannot pass through `{}`: it is no directory", escape_bytes(path))]
    NotDirectory {
        /// The component's path within the root file system.
        path: Vec<u8>,
    },
    /// Symbolic links that lead in circles or too far.
    #[error("cannot resolve the path: too many symbolic links")]
    TooManyLinks,
    /// A path with more components than the limit.
    #[error("cannot take a path of {depth} components: the limit is {limit}")]
    TooDeep {
        /// How many.
        depth: usize,
        /// The limit.
        limit: usize,
    },
    /// A hard link to what no layer has.
    #[error("cannot link to `{}`: there is no such file", escape_bytes(target))]
    LinkTargetMissing {
        /// The target's path within the root file system.
        target: Vec<u8>,
    },
    /// A hard link to a directory.
    #[error("cannot link to `{}`: it is a directory", escape_bytes(target))]
    LinkToDirectory {
        /// The target's path within the root file system.
        target: Vec<u8>,
    },
    /// A whiteout that names no file.
    #[error("cannot hide {}: that names no file", quote(name))]
    WhiteoutName {
        /// What it names.
        name: Vec<u8>,
    },
}

/// Whether files get the owners that the image gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ownership {
    /// They do: we are root, of the machine or of a user namespace.
    Kept,
    /// All belong to whoever unpacks.
    Lost,
}

/// How to unpack.
#[derive(Debug, Clone)]
pub struct UnpackOptions {
    /// Bounds.
    pub limits: Limits,
    /// Whose the files become.
    pub ownership: Ownership,
    /// Set from outside to stop early.
    pub interrupted: Arc<AtomicBool>,
}

/// What could not be kept, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Files whose owner or group is another than the image says.
    pub owners: u64,
    /// Device nodes that were not made: that takes `CAP_MKNOD`.
    pub devices: u64,
    /// Extended attributes that the file system or the kernel did not take.
    pub xattrs: u64,
    /// Extended attributes that were refused: `trusted.overlay.*` would steer the overlay of whoever mounts this.
    pub refused_xattrs: u64,
    /// Entries of unknown types.
    pub unknown: u64,
}

/// What one layer was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpackedLayer {
    /// What was in it.
    pub summary: LayerSummary,
    /// What it was compressed as.
    pub end: LayerEnd,
}

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// The layers, lowest first.
    pub layers: Vec<UnpackedLayer>,
    /// What could not be kept.
    pub losses: Losses,
}

/// Unpacks the layers into the directory `root`, which must be empty and reachable by nobody else.
///
/// `progress` is told the number of blob bytes that were read so far.
///
/// # Errors
/// Where a layer is damaged, hostile or over a limit, or the file system refuses. Then `root` holds part of the image
/// and is to be thrown away.
pub fn unpack(
    source: Arc<ImageSource>,
    layers: &[Layer],
    root: OwnedFd,
    options: &UnpackOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Unpacked, UnpackError> {
    let mut streams = Layers::start(source, layers.to_vec(), options.limits)?;
    let mut applier = Applier::new(root, options.ownership, options.limits.depth);
    let mut unpacked = Vec::new();
    let mut entries = options.limits.entries;
    for layer in layers {
        let stream = streams.next_layer();
        let mut reader = TarReader::new(stream, entries);
        let mut summary = LayerSummary::default();
        applier.begin_layer();
        let applied = loop {
            if options.interrupted.load(Ordering::Relaxed) {
                return Err(UnpackError::Interrupted);
            }
            let entry = match reader.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => break Ok(()),
                Err(source) => break Err(UnpackError::Archive { name: layer.name.clone(), source }),
            };
            summary.take(&entry);
            if let Err(source) = applier.apply(&entry, &mut reader) {
                break Err(UnpackError::Entry { name: layer.name.clone(), path: entry.path, source });
            }
            progress(reader.input_mut().blob_bytes());
        };
        entries = entries.saturating_sub(reader.entries());
        let stream = reader.into_input();
        // Where the stream itself failed, its own error says more than that of its reader.
        if applied.is_err() && !stream.has_failed() {
            applied?;
        }
        let end = stream.finish()?;
        unpacked.push(UnpackedLayer { summary, end });
    }
    let losses = applier.finish().map_err(|(path, source)| UnpackError::Finish { path, source })?;
    Ok(Unpacked { layers: unpacked, losses })
}
