//! What an image may cost: bounds that a decompression bomb runs into before the disk is full.

/// Bounds on one image. The defaults are far above every image in use and far below what hurts a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all layers after decompression.
    pub bytes: u64,
    /// Entries of all layers.
    pub entries: u64,
    /// Bytes after decompression for each byte before it.
    pub ratio: u64,
    /// Bytes after decompression from which the ratio is judged: a small layer of zeros may compress a thousandfold
    /// and harm nobody.
    pub ratio_from: u64,
    /// Components in one path.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4_000_000, ratio: 200, ratio_from: 256 << 20, depth: 256 }
    }
}
