//! Layers as streams of tar bytes: decompressed, hashed and bounded on a thread of their own, checked at their end.
//!
//! A layer has two digests: the descriptor's, of the blob as it lies in the image, and the config's `diff_id`, of the
//! tar archive inside. Both are computed while the bytes go by; the error of a mismatch comes at the end of the
//! stream, so whoever writes what a layer says must be able to take it back.

pub mod decode;
mod pipeline;

use std::io;

use inspect_probes::escape::quote;
use oci_spec::image::Digest;

pub use decode::Compression;
pub use pipeline::{LayerEnd, LayerStream, Layers};

use crate::source::SourceError;

/// What an image says of one of its layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its file within the image: `blobs/sha256/…`.
    pub name: String,
    /// What the descriptor calls it; `docker save` has no descriptors.
    pub media_type: Option<String>,
    /// The digest of the blob, where a descriptor gives it.
    pub digest: Option<Digest>,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The digest of the tar archive inside, from the image's config.
    pub diff_id: Option<Digest>,
    /// The command that made it, from the config's history.
    pub created_by: Option<String>,
}

/// Why a layer is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The blob is not there or cannot be opened.
    #[error("cannot open the layer {}", quote(name.as_bytes()))]
    Open {
        /// Its file within the image.
        name: String,
        /// Why.
        #[source]
        source: SourceError,
    },
    /// The blob cannot be read or decompressed.
    #[error("cannot decompress the layer {}", quote(name.as_bytes()))]
    Decompress {
        /// Its file within the image.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The descriptor names a digest algorithm that the image spec does not register.
    #[error("cannot check the layer {}: no such digest algorithm as in {}", quote(name.as_bytes()), quote(digest.as_bytes()))]
    Algorithm {
        /// Its file within the image.
        name: String,
        /// The digest.
        digest: String,
    },
    /// The blob has another size than its descriptor says.
    #[error("cannot trust the layer {}: it has {actual} bytes, its descriptor says {expected}", quote(name.as_bytes()))]
    Size {
        /// Its file within the image.
        name: String,
        /// What the descriptor says.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// The blob has another digest than its descriptor says.
    #[error("cannot trust the layer {}: its digest is {actual}, its descriptor says {expected}", quote(name.as_bytes()))]
    Digest {
        /// Its file within the image.
        name: String,
        /// What the descriptor says.
        expected: String,
        /// What was computed.
        actual: String,
    },
    /// The archive inside has another digest than the image's config says.
    #[error("cannot trust the layer {}: its archive has the digest {actual}, the config's diff_id says {expected}", quote(name.as_bytes()))]
    DiffId {
        /// Its file within the image.
        name: String,
        /// What the config says.
        expected: String,
        /// What was computed.
        actual: String,
    },
    /// All layers together are larger than the limit.
    #[error("cannot unpack the layer {}: the image grows beyond {limit} bytes", quote(name.as_bytes()))]
    TooLarge {
        /// Its file within the image.
        name: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The layer grows more by decompression than the limit.
    #[error("cannot unpack the layer {}: it grows more than {limit} times when decompressed", quote(name.as_bytes()))]
    Ratio {
        /// Its file within the image.
        name: String,
        /// The limit.
        limit: u64,
    },
    /// The thread that decompresses ended without a word.
    #[error("cannot decompress the layer: the thread for it could not be started or died")]
    Thread,
}
