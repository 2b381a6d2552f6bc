//! Image archives in the making.

use sha2::{Digest as _, Sha256};

/// Bytes that are named by their digest.
pub struct Blob {
    pub bytes: Vec<u8>,
    digest: String,
}

impl Blob {
    pub fn of(bytes: Vec<u8>) -> Self {
        let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { bytes, digest }
    }

    /// Its file within an image.
    pub fn name(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    /// `text` with `<PLACEHOLDER>_DIGEST` and `<PLACEHOLDER>_SIZE` replaced by this blob's.
    pub fn fill(&self, text: &[u8], placeholder: &str) -> Vec<u8> {
        let digest = format!("sha256:{}", self.digest);
        let text = replace(text, &format!("{placeholder}_DIGEST"), &digest);
        replace(&text, &format!("{placeholder}_SIZE"), &self.bytes.len().to_string())
    }
}

fn replace(text: &[u8], pattern: &str, replacement: &str) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        match rest.strip_prefix(pattern.as_bytes()) {
            Some(after) => {
                replaced.extend_from_slice(replacement.as_bytes());
                rest = after;
            }
            None => {
                replaced.push(rest[0]);
                rest = &rest[1..];
            }
        }
    }
    replaced
}

/// A tar archive of the files.
pub fn write(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).expect("memory takes the bytes");
    }
    builder.into_inner().expect("memory takes the bytes")
}
