//! Reads tar archives: ustar, GNU and PAX, with sparse files, long names, binary attributes and negative times.
//!
//! The formats are those of POSIX.1-2024 `pax` and of the GNU tar manual ("Basic Tar Format", "Sparse Formats").
//! Memory is bounded whatever the archive says: extension headers by [`EXTENSION_LIMIT`], data is never held.

mod entry;
mod header;
mod pax;
mod reader;
mod sparse;

#[cfg(test)]
mod tests;

use std::io;

pub use entry::{Entry, EntryKind, Extent, Timestamp};
pub use reader::{Input, TarReader};

/// The size of a header, and what data is padded to.
pub const BLOCK: usize = 512;

/// The most bytes of one extension header (PAX records, a long name, a sparse map): what Go's reader takes too.
pub const EXTENSION_LIMIT: u64 = 1 << 20;

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The stream below failed.
    #[error("cannot read the archive at byte {offset}")]
    Read {
        /// Where in the archive.
        offset: u64,
        /// What the stream said.
        #[source]
        source: io::Error,
    },
    /// The archive ends inside a header or inside the data of an entry.
    #[error("cannot read the archive: it is truncated at byte {offset}")]
    Truncated {
        /// Where in the archive.
        offset: u64,
    },
    /// A header's checksum does not match its bytes.
    #[error("cannot read the archive: the header at byte {offset} has a wrong checksum")]
    Checksum {
        /// Where in the archive.
        offset: u64,
    },
    /// A field holds no number, or one out of its range.
    #[error("cannot read the archive: the header at byte {offset} has a bad `{field}`")]
    Field {
        /// Where in the archive.
        offset: u64,
        /// The field's name in the format.
        field: &'static str,
    },
    /// An extension header is larger than [`EXTENSION_LIMIT`].
    #[error("cannot read the archive: the extension header at byte {offset} is {size} bytes long")]
    ExtensionTooLong {
        /// Where in the archive.
        offset: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// A PAX record is not `LENGTH KEY=VALUE\n`.
    #[error("cannot read the archive: the PAX header before byte {offset} is malformed")]
    Pax {
        /// Where in the archive.
        offset: u64,
    },
    /// A sparse map that is out of order, overlaps, or disagrees with the size of the file.
    #[error("cannot read the archive: the sparse map before byte {offset} is malformed")]
    Sparse {
        /// Where in the archive.
        offset: u64,
    },
    /// More entries than the limit.
    #[error("cannot read the archive: it has more than {limit} entries")]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
}
