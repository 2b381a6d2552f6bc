//! What the lab needs of the machine it runs on, and how it gets it on Debian.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::child::{self, find_program};
use crate::error::LabError;
use crate::progress::Progress;
use crate::store::Store;

/// Programs, and the Debian packages they are in.
const NEEDED: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("setpriv", "util-linux"),
    ("tar", "tar"),
    ("zstd", "zstd"),
    ("strip", "binutils"),
];

/// mmdebstrap asks apt for Debian's keys; this is where they are.
const KEYRING: (&str, &str) = ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring");

const UPDATE_BOUND: Duration = Duration::from_secs(5 * 60);
const INSTALL_BOUND: Duration = Duration::from_secs(15 * 60);

/// Makes sure that every program the lab calls is there: installs Debian packages when it may, otherwise says how.
pub(crate) fn prepare(store: &Store, progress: &Progress) -> Result<(), LabError> {
    let is_root = nix::unistd::geteuid().is_root();
    let missing = missing_packages(is_root);
    if missing.is_empty() {
        return Ok(());
    }
    let command = format!("apt-get install --yes --no-install-recommends {}", missing.join(" "));
    if !is_root || find_program("apt-get").is_none() {
        let command = if is_root { command } else { format!("sudo {command}") };
        return Err(LabError::MissingPackages { missing: missing.join(", "), command });
    }
    let _lock = store.lock("packages", progress)?;
    let step = progress.begin(format!("packages of this machine: {}", missing.join(" ")));
    let log = store.images().join("apt.log");
    let mut update = apt_get();
    step.update("apt-get update");
    child::run(update.arg("update"), "update package lists", &log, UPDATE_BOUND)?;
    let mut install = apt_get();
    install.args(["install", "--yes", "--no-install-recommends"]).args(&missing);
    step.update("apt-get install");
    child::run(&mut install, "install packages", &log, INSTALL_BOUND)?;
    step.done("");
    Ok(())
}

/// apt-get that asks nothing and waits for another one's lock.
fn apt_get() -> Command {
    let mut command = child::bound_to_us("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-o", "DPkg::Lock::Timeout=300"]);
    command
}

/// The packages of the programs that are not there, each once. Without root, image making needs `fakeroot` and a user
/// namespace with its own ids.
fn missing_packages(is_root: bool) -> Vec<&'static str> {
    let unprivileged: &[(&str, &str)] =
        if is_root { &[] } else { &[("fakeroot", "fakeroot"), ("newuidmap", "uidmap")] };
    let programs = NEEDED.iter().chain(unprivileged);
    let absent = programs.filter(|(program, _)| find_program(program).is_none()).map(|(_, package)| *package);
    let mut missing: Vec<&str> = absent.collect();
    if !Path::new(KEYRING.0).exists() {
        missing.push(KEYRING.1);
    }
    missing.dedup();
    missing
}
