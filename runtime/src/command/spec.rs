//! `spec`: a `config.json` to start from.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::RuntimeError;

/// Writes `config.json` into the bundle; one that is there stays.
pub(super) fn run(bundle: Option<&Path>, rootless: bool) -> Result<u8, RuntimeError> {
    let path = bundle.unwrap_or(Path::new(".")).join("config.json");
    let failed = |source| RuntimeError::File { operation: "write", path: path.clone(), source };
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = match file {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let reason = format!("file {} exists. Remove it first", path.display());
            return Err(RuntimeError::Refused { operation: "write a spec", reason });
        }
        file => file.map_err(failed)?,
    };
    file.write_all(format!("{:#}\n", template(rootless)).as_bytes()).map_err(failed)?;
    Ok(0)
}

/// A shell in a read-only root with the least capabilities; `rootless` maps the caller to root.
pub(crate) fn template(rootless: bool) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let kinds: &[&str] = if rootless {
        &["pid", "ipc", "uts", "mount", "cgroup", "user"]
    } else {
        &["pid", "network", "ipc", "uts", "mount", "cgroup"]
    };
    let mut linux = json!({
        "namespaces": kinds.iter().map(|kind| json!({"type": kind})).collect::<Vec<_>>(),
        "maskedPaths": [
            "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
            "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
        ],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    });
    if rootless {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
        linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    } else {
        linux["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
    }
    json!({
        "ociVersion": "1.3.0",
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "inspect",
        "mounts": mounts(rootless),
        "linux": linux
    })
}

fn mounts(rootless: bool) -> Value {
    let devpts = if rootless {
        json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"])
    } else {
        json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"])
    };
    // The host's network namespace has the host's sysfs: a user namespace may only bind it.
    let sys = if rootless {
        json!({"destination": "/sys", "type": "none", "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]})
    } else {
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]})
    };
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": devpts},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        sys,
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
    ])
}
