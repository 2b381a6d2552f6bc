//! The spec that `spec` writes: a shell with a terminal and few rights, as runc's is.

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The user that a rootless container's root is on the host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner {
    /// The effective user ID.
    pub uid: u32,
    /// The effective group ID.
    pub gid: u32,
}

/// A spec for a bundle whose root file system is in `rootfs`. For a rootless container its owner is mapped to root in a user
/// namespace, the network is the host's, `/sys` is the host's too, and nothing is limited.
#[must_use]
pub fn default_spec(rootless: Option<Owner>) -> Spec {
    let value = json!({
        "ociVersion": "1.3.0",
        "process": process(),
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "inspect-runtime",
        "mounts": mounts(rootless.is_some()),
        "linux": linux(rootless),
    });
    serde_json::from_value(value).unwrap_or_default()
}

fn process() -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "terminal": true,
        "user": { "uid": 0, "gid": 0 },
        "args": ["sh"],
        "env": [PATH, "TERM=xterm"],
        "cwd": "/",
        "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
        "noNewPrivileges": true,
    })
}

fn mounts(rootless: bool) -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    // A group outside the one that is mapped cannot own the terminals.
    let terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let terminals = if rootless { &terminals[..5] } else { &terminals[..] };
    let system = if rootless {
        // sysfs shows the devices of a network namespace, and only who owns that may mount it.
        mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"])
    } else {
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
    };
    json!([
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", terminals),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        system,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ])
}

fn linux(rootless: Option<Owner>) -> Value {
    let mut linux = json!({
        "maskedPaths": [
            "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
            "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/sys/devices/virtual/powercap", "/proc/scsi",
        ],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    });
    let kinds = match rootless {
        None => ["pid", "network", "ipc", "uts", "mount", "cgroup"],
        Some(_) => ["pid", "ipc", "uts", "mount", "cgroup", "user"],
    };
    linux["namespaces"] = kinds.iter().map(|kind| json!({ "type": kind })).collect();
    match rootless {
        None => linux["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] }),
        Some(owner) => {
            linux["uidMappings"] = json!([{ "containerID": 0, "hostID": owner.uid, "size": 1 }]);
            linux["gidMappings"] = json!([{ "containerID": 0, "hostID": owner.gid, "size": 1 }]);
        }
    }
    linux
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxNamespaceType;

    #[test]
    fn the_default_is_whole() {
        let spec = default_spec(None);
        assert_eq!(spec.version(), "1.3.0");
        assert_eq!(spec.mounts().as_ref().unwrap().len(), 7);
        assert_eq!(spec.process().as_ref().unwrap().args().as_deref(), Some(&["sh".to_owned()][..]));
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 6);
        assert!(linux.resources().as_ref().unwrap().devices().is_some());
    }

    #[test]
    fn the_rootless_one_maps_its_owner_and_asks_for_nothing_that_takes_rights() {
        let spec = default_spec(Some(Owner { uid: 1000, gid: 100 }));
        let linux = spec.linux().as_ref().unwrap();
        let kinds: Vec<_> = linux.namespaces().iter().flatten().map(|namespace| namespace.typ()).collect();
        assert!(kinds.contains(&LinuxNamespaceType::User) && !kinds.contains(&LinuxNamespaceType::Network));
        assert_eq!(linux.uid_mappings().as_ref().unwrap()[0].host_id(), 1000);
        assert!(linux.resources().is_none());
        let options = spec.mounts().iter().flatten().flat_map(|mount| mount.options().iter().flatten());
        assert!(
            options.clone().all(|option| !option.starts_with("gid="))
                && options.clone().any(|option| option == "rbind")
        );
    }
}
