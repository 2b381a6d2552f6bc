//! What one entry of an archive says.

/// A time in seconds and nanoseconds since 1970, before it when negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds above them, below 1 000 000 000.
    pub nanoseconds: u32,
}

/// A stretch of a sparse file that has data; between the extents are holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file of [`Entry::size`] bytes; where `extents` is given only these are stored.
    File {
        /// The stored stretches of a sparse file, in order.
        extents: Option<Vec<Extent>>,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Its text, unchecked.
        target: Vec<u8>,
    },
    /// Another name of a file that came before, in this archive or in a lower layer.
    Hardlink {
        /// The path of that file, unchecked.
        target: Vec<u8>,
    },
    /// A character device.
    CharacterDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A type of entry that this reader does not know.
    Unknown {
        /// The type flag.
        flag: u8,
    },
}

/// One entry. Paths are as the archive has them: hostile until resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path, unchecked; it holds no NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission, setuid, setgid and sticky bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When it was last modified.
    pub mtime: Timestamp,
    /// When it was last read, where the archive says.
    pub atime: Option<Timestamp>,
    /// The size of the file in bytes, holes included; 0 for everything else.
    pub size: u64,
    /// Extended attributes, names with their namespace (`security.capability`).
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}
