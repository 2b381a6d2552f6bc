//! A sandbox image of our own for nodes that lack theirs: one layer with this program in it, imported under the name that the CRI
//! plugin asks for, and removed again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::rootfs::PROGRAM;

/// The CRI plugin's containerd namespace.
const CRI_NAMESPACE: &str = "k8s.io";

/// Why the image is not there.
#[derive(Debug, Error)]
pub(crate) enum SandboxImageError {
    #[error(
        "cannot make a sandbox image `{name}`: this build of inspect needs shared libraries, which the image would lack"
    )]
    Dynamic { name: String },
    #[error("cannot write `{}`", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot run `ctr` to import the sandbox image")]
    Run {
        #[source]
        source: io::Error,
    },
    #[error("cannot import the sandbox image `{name}`: ctr said {said}")]
    Import { name: String, said: String },
}

/// Builds an image below `directory` and has `ctr`, which comes with every containerd, import it as `name`.
pub(super) fn import_sandbox_image(
    socket: &Path,
    name: &str,
    directory: &Path,
) -> Result<(), SandboxImageError> {
    if super::rootfs::needs_host_libraries() {
        return Err(SandboxImageError::Dynamic { name: name.to_owned() });
    }
    let path = directory.join("sandbox.tar");
    build(&path, name).map_err(|source| SandboxImageError::Write { path: path.clone(), source })?;
    let output = Command::new("ctr")
        .arg("--address")
        .arg(socket)
        .args(["--namespace", CRI_NAMESPACE, "images", "import"])
        .arg(&path)
        .output()
        .map_err(|source| SandboxImageError::Run { source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = inspect_probes::escape::quote(output.stderr.trim_ascii());
    Err(SandboxImageError::Import { name: name.to_owned(), said })
}

/// A part of an image with its digest, which is computed once: the layer is this whole program.
struct Blob {
    content: Vec<u8>,
    digest: String,
}

impl Blob {
    fn new(content: Vec<u8>) -> Self {
        let digest = digest(&content);
        Self { content, digest }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.content.len()})
    }
}

/// Writes an image as a tar in the OCI layout (image-spec v1.1, image-layout.md).
fn build(path: &Path, name: &str) -> io::Result<()> {
    let layer = Blob::new(layer()?);
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": [PROGRAM, "canary", "observe"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]}
    });
    let config = Blob::new(config.to_string().into_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")]
    });
    let manifest = Blob::new(manifest.to_string().into_bytes());
    let mut entry = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
    entry["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes();
    let mut tar = tar::Builder::new(fs::File::create(path)?);
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    append(&mut tar, "index.json", &index, 0o644)?;
    for blob in [&config, &manifest, &layer] {
        append(&mut tar, &format!("blobs/{}", blob.digest.replace(':', "/")), &blob.content, 0o644)?;
    }
    tar.into_inner()?.sync_all()
}

fn layer() -> io::Result<Vec<u8>> {
    let program = fs::read("/proc/self/exe")?;
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, PROGRAM.trim_start_matches('/'), &program, 0o755)?;
    tar.into_inner()
}

fn append<W: io::Write>(tar: &mut tar::Builder<W>, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_cksum();
    tar.append_data(&mut header, name, content)
}

fn digest(content: &[u8]) -> String {
    let sum = Sha256::digest(content);
    let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_sha256_in_hexadecimal() {
        assert_eq!(digest(b""), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn every_blob_of_the_layout_is_under_its_digest() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("image.tar");
        build(&path, "example.test/pause:1").expect("an image");
        let mut archive = tar::Archive::new(fs::File::open(&path).expect("a file"));
        let mut blobs = 0;
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a path").display().to_string();
            let mut content = Vec::new();
            io::Read::read_to_end(&mut entry, &mut content).expect("content");
            if let Some(hex) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(digest(&content), format!("sha256:{hex}"));
                blobs += 1;
            }
        }
        assert_eq!(blobs, 3);
    }
}
