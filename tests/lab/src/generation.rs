//! The three Debian releases a node under test is made of, and the recipe of its disk image.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A Debian release: its containerd, systemd and kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Generation {
    /// containerd 1.6, systemd 252, Linux 6.1
    Bookworm,
    /// containerd 1.7, systemd 257, Linux 6.12
    Trixie,
    /// containerd 2.1, systemd 262, Linux 7
    Forky,
}

/// A node's software: its release, and whether other container engines live on it beside containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    /// The Debian release.
    pub(crate) generation: Generation,
    /// Whether Docker, Podman and systemd-nspawn are installed too: three times the packages.
    #[serde(default)]
    pub(crate) engines: bool,
}

/// Raised when the way an image is made changes in a manner that the recipe's other parts do not show.
const IMAGE_FORMAT: u32 = 1;

/// What every image holds beyond Debian's essential packages.
const PACKAGES: &[&str] = &[
    "apparmor",
    "busybox-static",
    "ca-certificates",
    "containerd",
    "crun",
    "dbus",
    "iproute2",
    "jq",
    "kmod",
    "linux-image-cloud-amd64",
    "openssh-server",
    "procps",
    "psmisc",
    "python3-minimal",
    "runc",
    "strace",
    "systemd",
    "systemd-sysv",
    "udev",
    "util-linux",
    "zstd",
];

/// What a node with other engines holds beyond that.
const ENGINE_PACKAGES: &[&str] = &[
    "conmon",
    "docker.io",
    "initramfs-tools",
    "iptables",
    "podman",
    "slirp4netns",
    "systemd-container",
    "uidmap",
    "umoci",
];

/// The files laid over Debian's own: path, mode, content. They go in before the packages, so that the initramfs that
/// the kernel package makes is already the lab's small one.
pub(crate) const OVERLAY: &[(&str, u32, &str)] = &[
    ("etc/hostname", 0o644, "inspect-lab\n"),
    ("etc/hosts", 0o644, "127.0.0.1 localhost\n127.0.1.1 inspect-lab\n::1 localhost\n"),
    ("etc/fstab", 0o644, "/dev/vda / ext4 defaults 0 0\n"),
    ("etc/initramfs-tools/conf.d/lab", 0o644, include_str!("../guest/initramfs.conf")),
    ("etc/initramfs-tools/hooks/lab", 0o755, include_str!("../guest/initramfs-hook.sh")),
    ("etc/systemd/network/80-lab.network", 0o644, include_str!("../guest/lab.network")),
    ("etc/systemd/system/lab-ready.service", 0o644, include_str!("../guest/lab-ready.service")),
    ("etc/ssh/sshd_config.d/lab.conf", 0o644, include_str!("../guest/sshd.conf")),
];

/// Units to switch on, and units that only cost time on a node that lives for minutes.
pub(crate) const ENABLED_UNITS: &[&str] = &["systemd-networkd.service", "lab-ready.service"];
pub(crate) const MASKED_UNITS: &[&str] = &[
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-networkd-wait-online.service",
];

impl Generation {
    /// All of them, oldest first.
    pub(crate) const ALL: [Self; 3] = [Self::Bookworm, Self::Trixie, Self::Forky];

    /// Debian's name for the release.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Forky => "forky",
        }
    }
}

impl Recipe {
    /// `trixie`, `trixie-engines`.
    pub(crate) fn name(self) -> String {
        let suffix = if self.engines { "-engines" } else { "" };
        format!("{}{suffix}", self.generation)
    }

    /// The packages of its image.
    pub(crate) fn packages(self) -> Vec<&'static str> {
        let engines = if self.engines { ENGINE_PACKAGES } else { &[] };
        // From trixie on the client is a package of its own, which docker.io only recommends.
        let client = self.engines && self.generation != Generation::Bookworm;
        PACKAGES.iter().chain(engines).copied().chain(client.then_some("docker-cli")).collect()
    }

    /// Tells images of different recipes apart. `public_key` is let in by the image's sshd.
    pub(crate) fn hash(self, public_key: &str) -> String {
        let recipe = format!(
            "{IMAGE_FORMAT} {} {:?} {OVERLAY:?} {ENABLED_UNITS:?} {MASKED_UNITS:?} {public_key}",
            self.generation,
            self.packages()
        );
        let digest = Sha256::digest(recipe.as_bytes());
        digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_differ_by_generation_engines_and_key() {
        let plain = |generation| Recipe { generation, engines: false };
        let hashes = Generation::ALL.map(|generation| plain(generation).hash("key"));
        assert_ne!(hashes[0], hashes[1]);
        assert_ne!(hashes[1], hashes[2]);
        assert_eq!(hashes[0].len(), 12);
        let trixie = plain(Generation::Trixie);
        assert_ne!(trixie.hash("a"), trixie.hash("b"));
        assert_ne!(trixie.hash("a"), Recipe { engines: true, ..trixie }.hash("a"));
    }
}
