//! Default specs: what `runc spec` writes, and what containerd writes for `ctr run` without options.

use std::fmt;

use serde_json::{Value, json};

/// Whose default spec to start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Like {
    /// containerd's, as seen in the bundles of 1.7 and 2.1: 14 capabilities, no cgroup namespace, a device list.
    Containerd,
    /// `runc spec`'s, of 1.1 to 1.3: 3 capabilities, a read-only root, a terminal.
    Runc,
}

impl fmt::Display for Like {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Containerd => "containerd",
            Self::Runc => "runc",
        })
    }
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The version that the specs claim: nothing in them is newer, and crun 1.8 refuses any above 1.0.
const VERSION: &str = "1.0.2";

/// The default spec.
#[must_use]
pub fn default_spec(like: Like) -> Value {
    let runc = like == Like::Runc;
    let mut process = json!({
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": [PATH],
        "cwd": "/",
        "capabilities": capabilities(like),
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": true,
    });
    if runc {
        process["terminal"] = json!(true);
        process["env"] = json!([PATH, "TERM=xterm"]);
    }
    let mut spec = json!({"ociVersion": VERSION, "process": process, "root": {"path": "rootfs"}});
    if runc {
        spec["root"]["readonly"] = json!(true);
        spec["hostname"] = json!("runc");
    }
    spec["mounts"] = mounts(like);
    spec["linux"] = json!({
        "resources": {"devices": devices(like)},
        "namespaces": namespaces(like),
        "maskedPaths": masked_paths(),
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    });
    if !runc {
        // ctr's own default.
        spec["linux"]["resources"]["cpu"] = json!({"shares": 1024});
    }
    spec
}

fn capabilities(like: Like) -> Value {
    let names: &[&str] = match like {
        Like::Runc => &["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
        Like::Containerd => &[
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FSETID",
            "CAP_FOWNER",
            "CAP_MKNOD",
            "CAP_NET_RAW",
            "CAP_SETGID",
            "CAP_SETUID",
            "CAP_SETFCAP",
            "CAP_SETPCAP",
            "CAP_NET_BIND_SERVICE",
            "CAP_SYS_CHROOT",
            "CAP_KILL",
            "CAP_AUDIT_WRITE",
        ],
    };
    json!({"bounding": names, "effective": names, "permitted": names})
}

fn mounts(like: Like) -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| {
        let mut mount = json!({"destination": destination, "type": kind, "source": source});
        if !options.is_empty() {
            mount["options"] = json!(options);
        }
        mount
    };
    let tmpfs = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    let devpts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let hardened = ["nosuid", "noexec", "nodev"];
    // runc leaves /proc to the kernel's defaults.
    let proc: &[&str] = if like == Like::Runc { &[] } else { &hardened };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", proc),
        mount("/dev", "tmpfs", "tmpfs", &tmpfs),
        mount("/dev/pts", "devpts", "devpts", &devpts),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &hardened),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    let cgroup = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    mounts.push(match like {
        Like::Runc => mount("/sys/fs/cgroup", "cgroup", "cgroup", &cgroup),
        Like::Containerd => mount("/run", "tmpfs", "tmpfs", &tmpfs),
    });
    Value::Array(mounts)
}

/// All is denied; containerd allows the devices that it makes, runc leaves that to its own rules.
fn devices(like: Like) -> Value {
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    if like == Like::Containerd {
        // null, random, full, tty, zero, urandom, console, pseudo-terminals, ptmx.
        let allowed = [(1, 3), (1, 8), (1, 7), (5, 0), (1, 5), (1, 9), (5, 1), (136, -1), (5, 2)];
        for (major, minor) in allowed {
            let mut rule = json!({"allow": true, "type": "c", "major": major});
            if minor >= 0 {
                rule["minor"] = json!(minor);
            }
            rule["access"] = json!("rwm");
            rules.push(rule);
        }
    }
    Value::Array(rules)
}

fn namespaces(like: Like) -> Value {
    let kinds: &[&str] = match like {
        Like::Runc => &["pid", "network", "ipc", "uts", "mount", "cgroup"],
        Like::Containerd => &["pid", "ipc", "uts", "mount", "network"],
    };
    kinds.iter().map(|kind| json!({"type": kind})).collect()
}

fn masked_paths() -> Value {
    json!([
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
        "/proc/scsi",
    ])
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Spec;

    use super::*;
    use crate::spec::to_config;

    #[test]
    fn both_are_specs() {
        for (like, capabilities) in [(Like::Containerd, 14), (Like::Runc, 3)] {
            let text = to_config(&default_spec(like)).unwrap();
            let spec: Spec = serde_json::from_str(&text).unwrap();
            let process = spec.process().as_ref().unwrap();
            let bounding = process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap();
            assert_eq!(bounding.len(), capabilities, "{like}");
        }
    }
}
