//! What the lab needs of the machine it runs on, and how it gets it on Debian.

use std::collections::BTreeMap;
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
    let needed = needed_packages(is_root);
    let missing = missing_of(&needed);
    if missing.is_empty() {
        return Ok(());
    }
    // All of them, not only the missing ones: apt may remove a package that conflicts with a new one unless it is
    // asked for too (qemu-utils of another release goes when qemu-system-x86 comes).
    let wanted: Vec<&str> = needed.keys().copied().collect();
    let command = format!("apt-get install --yes --no-install-recommends {}", wanted.join(" "));
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
    step.update("apt-get install");
    match install(&wanted, &log) {
        // A package that is there in a newer version than the sources offer cannot stay beside what is missing: then the
        // missing ones come alone, and what had to go for them is asked for once more.
        Err(LabError::Failed { .. }) => {
            install(&missing, &log)?;
            let needed = needed_packages(is_root);
            let gone = missing_of(&needed);
            if !gone.is_empty() {
                step.update("apt-get install once more");
                install(&gone, &log)?;
            }
        }
        outcome => outcome?,
    }
    step.done("");
    Ok(())
}

fn missing_of(needed: &BTreeMap<&'static str, bool>) -> Vec<&'static str> {
    needed.iter().filter(|(_, there)| !**there).map(|(package, _)| *package).collect()
}

fn install(packages: &[&str], log: &Path) -> Result<(), LabError> {
    let mut install = apt_get();
    install.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    child::run(&mut install, "install packages", log, INSTALL_BOUND)
}

/// apt-get that asks nothing and waits for another one's lock.
fn apt_get() -> Command {
    let mut command = child::bound_to_us("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-o", "DPkg::Lock::Timeout=300"]);
    command
}

/// The packages of all programs, each once, and whether everything needed of them is there. Without root, image making
/// needs `fakeroot` and a user namespace with its own ids.
fn needed_packages(is_root: bool) -> BTreeMap<&'static str, bool> {
    let unprivileged: &[(&str, &str)] =
        if is_root { &[] } else { &[("fakeroot", "fakeroot"), ("newuidmap", "uidmap")] };
    let mut packages = BTreeMap::from([(KEYRING.1, Path::new(KEYRING.0).exists())]);
    for (program, package) in NEEDED.iter().chain(unprivileged) {
        let there = find_program(program).is_some();
        packages.entry(package).and_modify(|all| *all &= there).or_insert(there);
    }
    packages
}
