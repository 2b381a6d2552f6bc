//! Disk images: a Debian root by `mmdebstrap`, laid on ext4 by `mke2fs -d`, so that nothing is ever mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::child;
use crate::error::LabError;
use crate::generation::{ENABLED_UNITS, MASKED_UNITS, OVERLAY, Recipe};
use crate::progress::{Progress, Step};
use crate::store::{self, Store};

/// A finished image: what QEMU needs to boot it.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Where its files are.
    pub(crate) directory: PathBuf,
}

/// The disk's size, bytes: sparse, so that only what is used takes room.
const DISK_SIZE: &str = "8G";

/// Bounds for the two slow parts, on a loaded machine with a slow mirror.
const MMDEBSTRAP_BOUND: Duration = Duration::from_secs(20 * 60);
const DISK_BOUND: Duration = Duration::from_secs(5 * 60);

/// Debian's documentation, manuals and translations stay out: half of the files, and none is read.
const LEFT_OUT: &[&str] =
    &["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"];

impl Image {
    /// The root disk, raw ext4 without a partition table.
    pub(crate) fn disk(&self) -> PathBuf {
        self.directory.join("disk.raw")
    }

    /// The kernel.
    pub(crate) fn kernel(&self) -> PathBuf {
        self.directory.join("kernel")
    }

    /// The initramfs.
    pub(crate) fn initrd(&self) -> PathBuf {
        self.directory.join("initrd")
    }

    /// The statically linked busybox that container images are made of.
    pub(crate) fn busybox(&self) -> PathBuf {
        self.directory.join("busybox")
    }

    /// The public key that the guest's sshd identifies itself with, one line.
    pub(crate) fn host_key(&self) -> PathBuf {
        self.directory.join("host_key.pub")
    }
}

/// The image of `recipe`: from the cache, or made now.
pub(crate) fn obtain(store: &Store, recipe: Recipe, progress: &Progress) -> Result<Image, LabError> {
    let public_key = obtain_ssh_key(store, progress)?;
    let name = format!("{}-{}", recipe.name(), recipe.hash(&public_key));
    let image = Image { directory: store.images().join(&name) };
    if image.directory.exists() {
        return Ok(image);
    }
    let _lock = store.lock(&format!("image-{name}"), progress)?;
    if image.directory.exists() {
        return Ok(image);
    }
    let workplace = store.images().join(format!(".building-{name}"));
    store::remove_directory(&workplace)?;
    store::make_private_directory(&workplace)?;
    let step = progress.begin(format!("image of {}", recipe.name()));
    let made = build(&workplace, recipe, &public_key, &step);
    if made.is_ok() {
        let out = workplace.join("out");
        fs::rename(&out, &image.directory).map_err(LabError::file("move into place", &out))?;
    }
    store::remove_directory(&workplace)?;
    made?;
    step.done(&format!("made in {}", image.directory.display()));
    Ok(image)
}

/// Makes all files of the image in `workplace/out`.
fn build(workplace: &Path, recipe: Recipe, public_key: &str, step: &Step) -> Result<(), LabError> {
    let initramfs = workplace.join("initramfs.tar");
    let overlay = workplace.join("overlay.tar");
    write_overlay(&initramfs, "etc/initramfs-tools", &[])?;
    write_overlay(&overlay, "", &extra_files(recipe, public_key))?;
    step.update("mmdebstrap (downloads packages)");
    run_mmdebstrap(workplace, recipe, &initramfs)?;
    step.update("mke2fs");
    lay_on_ext4(workplace)
}

fn run_mmdebstrap(workplace: &Path, recipe: Recipe, initramfs: &Path) -> Result<(), LabError> {
    let mut command = child::bound_to_us("mmdebstrap");
    command.env("TMPDIR", workplace).args(["--variant=minbase", "--format=tar"]);
    command.arg(format!("--include={}", recipe.packages().join(",")));
    // A mirror's Release file of the testing release may be past its date; its signature is checked all the same.
    command.args(["--aptopt=Acquire::Check-Valid-Until \"false\"", "--aptopt=Acquire::Languages \"none\""]);
    command.args(LEFT_OUT.iter().map(|pattern| format!("--dpkgopt=path-exclude={pattern}")));
    command.arg(format!("--essential-hook=tar-in '{}' /", initramfs.display()));
    command.args([recipe.generation.name(), "root.tar"]).current_dir(workplace);
    let purpose = format!("install Debian {}", recipe.name());
    child::run(&mut command, &purpose, &workplace.join("mmdebstrap.log"), MMDEBSTRAP_BOUND)
}

/// Unpacks the root and the overlay, takes out what QEMU wants beside the disk, and fills the file system.
/// Whoever is not root does it under `fakeroot`, which remembers the owners.
fn lay_on_ext4(workplace: &Path) -> Result<(), LabError> {
    const SCRIPT: &str = "set -eu
        mkdir root out
        tar --numeric-owner -xpf root.tar -C root --exclude './dev/*'
        tar --numeric-owner -xpf overlay.tar -C root
        cp root/boot/vmlinuz-* out/kernel
        cp root/boot/initrd.img-* out/initrd
        cp root/etc/ssh/ssh_host_ed25519_key.pub out/host_key.pub
        if [ -e root/usr/bin/busybox ]; then cp root/usr/bin/busybox out/; else cp root/bin/busybox out/; fi
        chmod 0644 out/kernel out/initrd
        mke2fs -q -t ext4 -O ^has_journal -m 0 -L lab -d root out/disk.raw \"$1\"
        rm -rf root root.tar";
    let root = nix::unistd::geteuid().is_root();
    let mut command = child::bound_to_us(if root { "env" } else { "fakeroot" });
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    command.args(["sh", "-c", SCRIPT, "lay-on-ext4", DISK_SIZE]).env("PATH", path).current_dir(workplace);
    child::run(&mut command, "fill the file system", &workplace.join("mke2fs.log"), DISK_BOUND)
}

/// Files of the overlay that depend on the recipe or the cache: path, mode, content.
fn extra_files(recipe: Recipe, public_key: &str) -> Vec<(String, u32, String)> {
    let generation = recipe.generation;
    let mut files = vec![
        ("root/.ssh/authorized_keys".into(), 0o600, format!("{public_key}\n")),
        // A fixed id: an absent one makes systemd treat every boot as the first, with presets applied anew.
        ("etc/machine-id".into(), 0o444, "1a2b3c4d5e6f40718293a4b5c6d7e8f9\n".into()),
        ("etc/environment".into(), 0o644, format!("INSPECT_LAB_GENERATION={generation}\n")),
    ];
    if recipe.engines {
        let after_docker = "[Unit]\nAfter=docker.service\n".into();
        files.push(("etc/systemd/system/lab-ready.service.d/engines.conf".into(), 0o644, after_docker));
    }
    files
}

/// Writes the overlay's files whose path starts with `prefix`, and for the whole overlay also `extra` and the units.
fn write_overlay(to: &Path, prefix: &str, extra: &[(String, u32, String)]) -> Result<(), LabError> {
    let file = fs::File::create(to).map_err(LabError::file("create", to))?;
    let mut archive = tar::Builder::new(file);
    let fixed = OVERLAY.iter().map(|(path, mode, text)| (*path, *mode, *text));
    let given = extra.iter().map(|(path, mode, text)| (path.as_str(), *mode, text.as_str()));
    let written = fixed.chain(given).filter(|(path, ..)| path.starts_with(prefix)).try_for_each(
        |(path, mode, text)| {
            let mut header = root_header(mode);
            header.set_size(text.len() as u64);
            archive.append_data(&mut header, path, text.as_bytes())
        },
    );
    written.map_err(LabError::file("write", to))?;
    if prefix.is_empty() {
        write_units(&mut archive).map_err(LabError::file("write", to))?;
    }
    archive.finish().map_err(LabError::file("write", to))
}

/// Enabled units are links from the target that wants them, masked ones links to /dev/null.
fn write_units(archive: &mut tar::Builder<fs::File>) -> std::io::Result<()> {
    let units = "etc/systemd/system";
    for unit in ENABLED_UNITS {
        let place = if *unit == "lab-ready.service" { "/etc/systemd/system" } else { "/lib/systemd/system" };
        link(archive, &format!("{units}/multi-user.target.wants/{unit}"), &format!("{place}/{unit}"))?;
    }
    MASKED_UNITS.iter().try_for_each(|unit| link(archive, &format!("{units}/{unit}"), "/dev/null"))
}

fn link(archive: &mut tar::Builder<fs::File>, path: &str, target: &str) -> std::io::Result<()> {
    let mut header = root_header(0o777);
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    archive.append_link(&mut header, path, target)
}

fn root_header(mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// The public half of the lab's key, one line; the key is made at first use.
fn obtain_ssh_key(store: &Store, progress: &Progress) -> Result<String, LabError> {
    let key = store.ssh_key();
    let public = key.with_extension("pub");
    let _lock = store.lock("ssh_key", progress)?;
    if !public.exists() {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-C", "inspect-lab", "-f"]).arg(&key);
        child::run(&mut command, "make a key", &key.with_extension("log"), Duration::from_secs(30))?;
    }
    let text = fs::read_to_string(&public).map_err(LabError::file("read", &public))?;
    Ok(text.trim().to_owned())
}
