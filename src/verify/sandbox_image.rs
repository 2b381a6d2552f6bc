//! A sandbox image of our own for nodes that lack theirs: one layer with a program that waits, imported under the name that the
//! CRI plugin asks for, and removed again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::rootfs::PROGRAM;

/// What the pause program executes: wait for a signal, for ever. `None` on an architecture that it is not written for: this whole
/// program is the pause program there, and its import takes longer.
///
/// The numbers of the system calls are those of the kernel's `syscall_64.tbl` and of its generic `unistd.h`.
#[cfg(target_arch = "x86_64")]
const PAUSE_CODE: Option<(&[u8], u16)> = Some((
    &[
        0xb8, 0x22, 0x00, 0x00, 0x00, // mov eax, 34 (pause)
        0x0f, 0x05, // syscall
        0xeb, 0xf7, // jmp to the start
    ],
    EM_X86_64,
));
#[cfg(target_arch = "aarch64")]
const PAUSE_CODE: Option<(&[u8], u16)> = Some((
    &[
        0x00, 0x00, 0x80, 0xd2, // mov x0, 0
        0x01, 0x00, 0x80, 0xd2, // mov x1, 0
        0x02, 0x00, 0x80, 0xd2, // mov x2, 0
        0x03, 0x00, 0x80, 0xd2, // mov x3, 0
        0x28, 0x09, 0x80, 0xd2, // mov x8, 73 (ppoll)
        0x01, 0x00, 0x00, 0xd4, // svc 0
        0xfa, 0xff, 0xff, 0x17, // b to the start
    ],
    EM_AARCH64,
));
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const PAUSE_CODE: Option<(&[u8], u16)> = None;

/// `e_machine` of elf(5).
#[cfg(target_arch = "x86_64")]
const EM_X86_64: u16 = 62;
#[cfg(target_arch = "aarch64")]
const EM_AARCH64: u16 = 183;

/// Where the pause program is mapped, and the sizes of an ELF file header and a program header (elf(5)).
const BASE: u64 = 0x40_0000;
const FILE_HEADER: u16 = 64;
const PROGRAM_HEADER: u16 = 56;
/// No architecture has larger pages.
const ALIGNMENT: u64 = 0x1_0000;

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
    if PAUSE_CODE.is_none() && super::rootfs::needs_host_libraries() {
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

/// An ELF program of one segment that is mapped readable and executable (elf(5)); `code` runs first.
fn elf(code: &[u8], machine: u16) -> Vec<u8> {
    let headers = FILE_HEADER + PROGRAM_HEADER;
    let size = u64::from(headers) + code.len() as u64;
    // ELFCLASS64, ELFDATA2LSB, EV_CURRENT, and the rest of e_ident.
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // e_type ET_EXEC, e_machine, e_version.
    file.extend([2_u16, machine].iter().flat_map(|field| field.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    // e_entry, e_phoff, e_shoff, e_flags.
    file.extend(
        [BASE + u64::from(headers), u64::from(FILE_HEADER), 0].iter().flat_map(|field| field.to_le_bytes()),
    );
    file.extend(0_u32.to_le_bytes());
    // e_ehsize, e_phentsize, e_phnum; no sections.
    file.extend([FILE_HEADER, PROGRAM_HEADER, 1, 0, 0, 0].iter().flat_map(|field| field.to_le_bytes()));
    // p_type PT_LOAD, p_flags PF_R | PF_X, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align.
    file.extend([1_u32, 5].iter().flat_map(|field| field.to_le_bytes()));
    file.extend([0, BASE, BASE, size, size, ALIGNMENT].iter().flat_map(|field| field.to_le_bytes()));
    file.extend_from_slice(code);
    file
}

fn layer() -> io::Result<Vec<u8>> {
    let program = match PAUSE_CODE {
        Some((code, machine)) => elf(code, machine),
        None => fs::read("/proc/self/exe")?,
    };
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
    fn the_pause_program_runs_until_it_is_killed() {
        use std::os::unix::fs::PermissionsExt as _;
        use std::os::unix::process::ExitStatusExt as _;
        let Some((code, machine)) = PAUSE_CODE else { return };
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pause");
        fs::write(&path, elf(code, machine)).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        let mut child = Command::new(&path).spawn().expect("the kernel takes it for a program");
        // One that crashed would have ended with another signal before this one.
        let state = || fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        while !state().contains(") S ") && !state().contains(") Z ") {
            std::thread::yield_now();
        }
        child.kill().expect("it can be killed");
        assert_eq!(child.wait().expect("it ends").signal(), Some(9));
    }

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
