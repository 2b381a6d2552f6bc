//! Images made for tests, byte by byte where no tool would write them, and listings to compare trees with.

#![allow(dead_code, reason = "every test takes what it needs")]
#![allow(missing_docs, reason = "a test's own")]
#![allow(clippy::unwrap_used, reason = "what a test makes is there")]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A layer in the making: entries with names that are written as they are, however hostile.
pub(crate) struct Layer {
    builder: tar::Builder<Vec<u8>>,
}

impl Layer {
    pub(crate) fn new() -> Self {
        Self { builder: tar::Builder::new(Vec::new()) }
    }

    pub(crate) fn header(kind: EntryType, path: &str) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(0);
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header
    }

    pub(crate) fn raw(mut self, mut header: Header, data: &[u8]) -> Self {
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.builder.append(&header, data).unwrap();
        self
    }

    pub(crate) fn file(self, path: &str, data: &str) -> Self {
        self.raw(Self::header(EntryType::Regular, path), data.as_bytes())
    }

    pub(crate) fn file_mode(self, path: &str, mode: u32, uid: u64) -> Self {
        let mut header = Self::header(EntryType::Regular, path);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(uid);
        self.raw(header, b"data")
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        self.raw(Self::header(EntryType::Directory, path), b"")
    }

    pub(crate) fn directory_mode(self, path: &str, mode: u32, mtime: u64) -> Self {
        let mut header = Self::header(EntryType::Directory, path);
        header.set_mode(mode);
        header.set_mtime(mtime);
        self.raw(header, b"")
    }

    fn link(self, kind: EntryType, path: &str, target: &str) -> Self {
        let mut header = Self::header(kind, path);
        header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.raw(header, b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, path, target)
    }

    pub(crate) fn hardlink(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Link, path, target)
    }

    pub(crate) fn node(self, kind: EntryType, path: &str, major: u32, minor: u32) -> Self {
        let mut header = Self::header(kind, path);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.raw(header, b"")
    }

    pub(crate) fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.builder.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub(crate) fn archive(self) -> Vec<u8> {
        self.builder.into_inner().unwrap()
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// An image in the making.
pub(crate) struct Image {
    pub(crate) layers: Vec<(Vec<u8>, String)>,
    pub(crate) config: serde_json::Value,
}

impl Image {
    pub(crate) fn new() -> Self {
        Self { layers: Vec::new(), config: json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]}) }
    }

    /// A layer in a gzip stream.
    pub(crate) fn layer(self, layer: Layer) -> Self {
        let archive = layer.archive();
        self.blob(gzip(&archive), &archive)
    }

    /// A layer of these bytes, whose `diff_id` is that of `archive`.
    pub(crate) fn blob(mut self, blob: Vec<u8>, archive: &[u8]) -> Self {
        self.layers.push((blob, format!("sha256:{}", sha256(archive))));
        self
    }

    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        let mut blob = |bytes: Vec<u8>, media_type: &str| {
            let digest = sha256(&bytes);
            let descriptor =
                json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()});
            files.push((format!("blobs/sha256/{digest}"), bytes));
            descriptor
        };
        let diff_ids: Vec<&String> = self.layers.iter().map(|(_, diff_id)| diff_id).collect();
        let config = json!({"architecture": "amd64", "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = blob(config.to_string().into_bytes(), "application/vnd.oci.image.config.v1+json");
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|(bytes, _)| blob(bytes.clone(), "application/vnd.oci.image.layer.v1.tar+gzip"))
            .collect();
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers});
        let mut manifest = blob(manifest.to_string().into_bytes(), manifest_type);
        manifest["annotations"] = json!({
            "org.opencontainers.image.ref.name": "latest",
            "io.containerd.image.name": "test:latest",
        });
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        files
    }

    /// As a directory.
    pub(crate) fn write_layout(&self, directory: &Path) {
        for (name, bytes) in self.files() {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    /// As `ctr images export` writes it.
    pub(crate) fn write_archive(&self, path: &Path) {
        let mut builder = tar::Builder::new(fs::File::create(path).unwrap());
        for (name, bytes) in self.files() {
            let mut header = Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
        }
        builder.finish().unwrap();
    }
}

/// Everything of a tree that two unpackers must agree on: type, mode, owner, link count, size or target or device,
/// modification time, extended attributes, content.
pub(crate) fn listing(root: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    list(root, root, &mut lines);
    lines
}

fn list(root: &Path, path: &Path, lines: &mut BTreeMap<String, String>) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let kind = metadata.file_type();
    let is_directory = kind.is_dir();
    let detail = if kind.is_symlink() {
        fs::read_link(path).unwrap().display().to_string()
    } else if kind.is_file() {
        format!("{} {}", metadata.size(), sha256(&fs::read(path).unwrap()))
    } else {
        format!("{:x}", metadata.rdev())
    };
    // A directory's link count depends on the file system that it is on.
    let links = if is_directory { 0 } else { metadata.nlink() };
    let line = format!(
        "{:o} {}:{} links {links} {}.{:09} {detail} {}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        xattrs(path)
    );
    let name = path.strip_prefix(root).unwrap();
    lines.insert(String::from_utf8_lossy(name.as_os_str().as_bytes()).into_owned(), line);
    if is_directory {
        for entry in fs::read_dir(path).unwrap() {
            list(root, &entry.unwrap().path(), lines);
        }
    }
}

fn xattrs(path: &Path) -> String {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut names = vec![0_u8; 65536];
    let length = rustix::fs::llistxattr(&path, &mut names[..]).unwrap_or(0);
    let mut found: Vec<String> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && *name != b"security.selinux")
        .map(|name| {
            let mut value = vec![0_u8; 65536];
            let length = rustix::fs::lgetxattr(&path, name, &mut value[..]).unwrap();
            format!("{}={:?}", String::from_utf8_lossy(name), &value[..length])
        })
        .collect();
    found.sort();
    found.join(" ")
}

/// Which lines differ, for an assertion's text.
pub(crate) fn difference(left: &BTreeMap<String, String>, right: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for path in left.keys().chain(right.keys().filter(|path| !left.contains_key(*path))) {
        if left.get(path) != right.get(path) {
            text.push_str(&format!("{path}\n  - {:?}\n  + {:?}\n", left.get(path), right.get(path)));
        }
    }
    text
}
