//! The container images that a node without network imports: OCI layouts in a tar, made of Debian's static busybox.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use crate::error::LabError;

/// What a container of the image runs, and under which names it is imported.
struct Config<'a> {
    names: &'a [&'a str],
    command: &'a [&'a str],
}

/// A layer's bytes as they lie in the layout, and the digest of the tar within.
struct Layer {
    media_type: &'static str,
    blob: Vec<u8>,
    diff_id: String,
}

/// A gzip layer and a plain one are both in use; readers have to take either.
#[derive(Clone, Copy)]
enum Form {
    Gzip,
    Plain,
}

/// The names that the CRI plugins of the three generations' containerd have as the pause image by default.
const PAUSE_NAMES: [&str; 3] =
    ["registry.k8s.io/pause:3.6", "registry.k8s.io/pause:3.8", "registry.k8s.io/pause:3.10"];

/// Time of everything in the images, seconds since the epoch, so that the same busybox gives the same digests.
const TIME: u64 = 1_750_000_000;

/// Writes `busybox.tar`, `layers.tar` and `pause.tar` into `directory` and returns their paths.
pub(crate) fn write_images(busybox: &Path, directory: &Path) -> Result<Vec<PathBuf>, LabError> {
    let program = fs::read(busybox).map_err(LabError::file("read", busybox))?;
    let applets = list_applets(busybox)?;
    let base = busybox_layer(&program, &applets).map_err(LabError::file("pack", busybox))?;
    let second = second_layer().map_err(LabError::file("pack", busybox))?;
    let third = third_layer().map_err(LabError::file("pack", busybox))?;
    let shell = Config { names: &["docker.io/library/busybox:latest"], command: &["sh"] };
    let layers = Config { names: &["docker.io/library/layers:latest"], command: &["sh"] };
    let pause = Config { names: &PAUSE_NAMES, command: &["/bin/sleep", "2147483647"] };
    let images = [
        ("busybox.tar", shell, vec![&base]),
        ("layers.tar", layers, vec![&base, &second, &third]),
        ("pause.tar", pause, vec![&base]),
    ];
    let mut paths = Vec::new();
    for (name, config, layers) in images {
        let path = directory.join(name);
        write_layout(&path, &config, &layers).map_err(LabError::file("write", &path))?;
        paths.push(path);
    }
    Ok(paths)
}

/// busybox runs anywhere the lab does: it names its own applets.
fn list_applets(busybox: &Path) -> Result<Vec<String>, LabError> {
    let output = Command::new(busybox).arg("--list").output();
    let output =
        output.map_err(|source| LabError::Spawn { program: busybox.display().to_string(), source })?;
    let names = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    Ok(names)
}

/// A small root file system: busybox under all its names, the users that tests switch to, the usual directories.
fn busybox_layer(program: &[u8], applets: &[String]) -> io::Result<Layer> {
    let mut layer = LayerTar::new();
    for (path, mode) in
        [("bin", 0o755), ("etc", 0o755), ("home", 0o755), ("root", 0o700), ("tmp", 0o1777), ("var", 0o755)]
    {
        layer.directory(path, mode)?;
    }
    layer.owned_directory("home/user", 0o755, 1000)?;
    layer.file("bin/busybox", 0o755, program)?;
    for applet in applets.iter().filter(|applet| *applet != "busybox") {
        layer.link(EntryType::Link, 0o755, &format!("bin/{applet}"), "bin/busybox")?;
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n\
                  nobody:x:65534:65534:nobody:/home:/bin/false\n";
    layer.file("etc/passwd", 0o644, passwd.as_bytes())?;
    layer.file("etc/group", 0o644, b"root:x:0:\nwheel:x:10:user\nuser:x:1000:\nnogroup:x:65534:\n")?;
    layer.file("data/keep", 0o644, b"from the first layer\n")?;
    layer.file("data/drop", 0o644, b"removed by the second layer\n")?;
    layer.file("opaque/old", 0o644, b"hidden by the second layer\n")?;
    layer.file("opaque/sub/old", 0o644, b"hidden by the second layer\n")?;
    layer.file("becomes-directory", 0o644, b"a file at first\n")?;
    layer.file("becomes-file/inside", 0o644, b"a directory at first\n")?;
    layer.finish(Form::Gzip)
}

/// What makes unpacking hard: whiteouts, an opaque directory, a path that changes its kind, links, special modes and
/// owners, a name longer than a tar header holds, an extended attribute, a device.
fn second_layer() -> io::Result<Layer> {
    let mut layer = LayerTar::new();
    layer.file("data/.wh.drop", 0o644, b"")?;
    layer.file("data/add", 0o600, b"from the second layer\n")?;
    layer.file("opaque/.wh..wh..opq", 0o644, b"")?;
    layer.file("opaque/new", 0o644, b"beside the opaque mark\n")?;
    layer.file("becomes-directory/inside", 0o644, b"a directory now\n")?;
    layer.file("becomes-file", 0o644, b"a file now\n")?;
    layer.file("modes/setuid", 0o4755, b"#!/bin/sh\nid\n")?;
    layer.file("modes/setgid", 0o2755, b"#!/bin/sh\nid\n")?;
    layer.directory("modes/sticky", 0o1777)?;
    layer.file("modes/none", 0o000, b"unreadable\n")?;
    layer.owned_directory("owned", 0o750, 1000)?;
    layer.link(EntryType::Link, 0o600, "links/hard", "data/add")?;
    layer.link(EntryType::Symlink, 0o777, "links/relative", "../data/keep")?;
    layer.link(EntryType::Symlink, 0o777, "links/absolute", "/data/keep")?;
    layer.link(EntryType::Symlink, 0o777, "links/outside", "../../../../etc/hostname")?;
    layer.file(&format!("long/{}/{}", "d".repeat(90), "f".repeat(120)), 0o644, b"a long name\n")?;
    layer.pax("SCHILY.xattr.user.lab", b"extended")?;
    layer.file("attributes/user", 0o644, b"has user.lab\n")?;
    layer.device("nodes/null", 1, 3)?;
    layer.fifo("nodes/fifo")?;
    layer.finish(Form::Gzip)
}

/// Removes what the second layer made, and brings back what it removed.
fn third_layer() -> io::Result<Layer> {
    let mut layer = LayerTar::new();
    layer.file("modes/.wh.sticky", 0o644, b"")?;
    layer.file("data/drop", 0o644, b"back in the third layer\n")?;
    layer.file("opaque/old", 0o644, b"back in the third layer\n")?;
    layer.finish(Form::Plain)
}

/// A layer's tar under construction. All entries are root's unless said otherwise.
struct LayerTar {
    archive: tar::Builder<Vec<u8>>,
}

impl LayerTar {
    fn new() -> Self {
        Self { archive: tar::Builder::new(Vec::new()) }
    }

    fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.append(path, entry(EntryType::Directory, mode), b"")
    }

    fn owned_directory(&mut self, path: &str, mode: u32, owner: u64) -> io::Result<()> {
        let mut header = entry(EntryType::Directory, mode);
        header.set_uid(owner);
        header.set_gid(owner);
        self.append(path, header, b"")
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.append(path, entry(EntryType::Regular, mode), content)
    }

    fn fifo(&mut self, path: &str) -> io::Result<()> {
        self.append(path, entry(EntryType::Fifo, 0o644), b"")
    }

    fn device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        let mut header = entry(EntryType::Char, 0o666);
        header.set_device_major(major)?;
        header.set_device_minor(minor)?;
        self.append(path, header, b"")
    }

    /// A hard link's mode is its file's: readers apply the last one they see.
    fn link(&mut self, kind: EntryType, mode: u32, path: &str, target: &str) -> io::Result<()> {
        let mut header = entry(kind, mode);
        header.set_size(0);
        self.archive.append_link(&mut header, path, target)
    }

    /// A PAX record for the entry that follows.
    fn pax(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        self.archive.append_pax_extensions([(key, value)])
    }

    fn append(&mut self, path: &str, mut header: Header, content: &[u8]) -> io::Result<()> {
        header.set_size(content.len() as u64);
        self.archive.append_data(&mut header, path, content)
    }

    fn finish(self, form: Form) -> io::Result<Layer> {
        let plain = self.archive.into_inner()?;
        let diff_id = digest_of(&plain);
        let (media_type, blob) = match form {
            Form::Plain => ("application/vnd.oci.image.layer.v1.tar", plain),
            Form::Gzip => {
                let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
                gzip.write_all(&plain)?;
                ("application/vnd.oci.image.layer.v1.tar+gzip", gzip.finish()?)
            }
        };
        Ok(Layer { media_type, blob, diff_id })
    }
}

fn entry(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(TIME);
    header
}

fn digest_of(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest_of(blob), "size": blob.len() })
}

/// An OCI image layout (image-spec, image-layout.md), with the `manifest.json` that `docker load` reads beside it, as
/// `ctr images export` writes both.
fn write_layout(path: &Path, config: &Config<'_>, layers: &[&Layer]) -> io::Result<()> {
    let config_blob = config_json(config, layers).to_string().into_bytes();
    let described: Vec<Value> =
        layers.iter().map(|layer| descriptor(layer.media_type, &layer.blob)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config_blob),
        "layers": described,
    });
    let manifest_blob = manifest.to_string().into_bytes();
    let mut archive = LayerTar::new();
    archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.file("index.json", 0o644, index_json(config.names, &manifest_blob).to_string().as_bytes())?;
    archive.file(
        "manifest.json",
        0o644,
        docker_json(config.names, &config_blob, layers).to_string().as_bytes(),
    )?;
    let blobs = layers.iter().map(|layer| layer.blob.as_slice());
    for blob in blobs.chain([config_blob.as_slice(), manifest_blob.as_slice()]) {
        archive.file(&blob_path(blob), 0o644, blob)?;
    }
    fs::write(path, archive.archive.into_inner()?)
}

fn blob_path(blob: &[u8]) -> String {
    format!("blobs/{}", digest_of(blob).replace(':', "/"))
}

fn config_json(config: &Config<'_>, layers: &[&Layer]) -> Value {
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    json!({
        "created": "2025-06-15T15:06:40Z",
        "architecture": "amd64",
        "os": "linux",
        "config": { "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": config.command },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
}

fn index_json(names: &[&str], manifest: &[u8]) -> Value {
    let manifests: Vec<Value> = names.iter().map(|name| named_manifest(name, manifest)).collect();
    json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests })
}

fn named_manifest(name: &str, manifest: &[u8]) -> Value {
    let tag = name.rsplit(':').next().unwrap_or(name);
    let mut described = descriptor("application/vnd.oci.image.manifest.v1+json", manifest);
    described["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    described["annotations"] =
        json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
    described
}

fn docker_json(names: &[&str], config: &[u8], layers: &[&Layer]) -> Value {
    let paths: Vec<String> = layers.iter().map(|layer| blob_path(&layer.blob)).collect();
    json!([{ "Config": blob_path(config), "RepoTags": names, "Layers": paths }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_hold_every_blob_they_name() {
        let layer = second_layer().unwrap();
        let third = third_layer().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        let config = Config { names: &PAUSE_NAMES, command: &["sh"] };
        write_layout(&path, &config, &[&layer, &third]).unwrap();
        let mut archive = tar::Archive::new(fs::File::open(&path).unwrap());
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
            .collect();
        let index = index_json(&PAUSE_NAMES, b"");
        assert_eq!(index["manifests"].as_array().unwrap().len(), 3);
        assert!(names.contains(&blob_path(&layer.blob)), "{names:?}");
        assert!(names.contains(&blob_path(&third.blob)), "{names:?}");
        assert_eq!(names.iter().filter(|name| name.starts_with("blobs/")).count(), 4);
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        assert_eq!(second_layer().unwrap().diff_id, second_layer().unwrap().diff_id);
    }
}
