//! Blobs: stretches of a file that are named by the digest of their bytes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256, Sha512};

/// The bytes of one blob, read without moving the file's own position: blobs of one archive can be read at once.
#[derive(Debug, Clone)]
pub struct BlobReader {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl BlobReader {
    /// The `size` bytes from `offset` of the file.
    #[must_use]
    pub fn new(file: Arc<File>, offset: u64, size: u64) -> Self {
        Self { file, position: offset, end: offset.saturating_add(size) }
    }

    /// Bytes left to read.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.end - self.position
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.remaining()).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = self.file.read_at(&mut buffer[..want], self.position)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += count as u64;
        Ok(count)
    }
}

/// Computes the digest of what it is given.
#[derive(Debug, Clone)]
pub enum Hasher {
    /// sha256, what every image uses.
    Sha256(Sha256),
    /// sha512, the other registered algorithm.
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// For the algorithm that `digest` names; `None` where the image spec registers no such algorithm.
    #[must_use]
    pub fn for_digest(digest: &Digest) -> Option<Self> {
        match digest.algorithm() {
            DigestAlgorithm::Sha256 => Some(Self::sha256()),
            DigestAlgorithm::Sha512 => Some(Self::Sha512(Box::default())),
            _ => None,
        }
    }

    /// For sha256.
    #[must_use]
    pub fn sha256() -> Self {
        Self::Sha256(Sha256::new())
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest as the image spec writes it, `sha256:` and 64 hexadecimal digits.
    #[must_use]
    pub fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => format!("sha256:{}", hexadecimal(&hasher.finalize())),
            Self::Sha512(hasher) => format!("sha512:{}", hexadecimal(&hasher.finalize())),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_written_as_the_spec_writes_them() {
        let mut hasher = Hasher::sha256();
        hasher.update(b"abc");
        assert_eq!(
            hasher.finish(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_blob_is_its_stretch_and_a_short_file_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"0123456789").unwrap();
        let file = Arc::new(file);
        let mut text = String::new();
        BlobReader::new(Arc::clone(&file), 3, 4).read_to_string(&mut text).unwrap();
        assert_eq!(text, "3456");
        let error = BlobReader::new(file, 8, 4).read_to_string(&mut text).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
