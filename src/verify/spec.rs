//! The canary's spec: what containerd's client library generates by default, with limits and a seccomp filter to observe.

use inspect_probes::name::{ContainerId, ContainerdNamespace};
use serde_json::{Value, json};

use super::rootfs::PROGRAM;

/// The memory limit, bytes: little enough to be reached soon, enough for this program.
pub(super) const MEMORY_LIMIT: u64 = 64 << 20;
/// cpu.shares; 59 or 20 as cpu.weight, by the runtime's conversion.
pub(super) const CPU_SHARES: u64 = 512;
/// The most processes.
pub(super) const PIDS_LIMIT: u64 = 100;

/// containerd's default set (containerd 1.6 to 2.1, oci/spec.go defaultUnixCaps).
const CAPABILITIES: [&str; 14] = [
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
];

/// What a canary is asked to do, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct CanarySpec<'a> {
    pub(super) namespace: &'a ContainerdNamespace,
    pub(super) id: &'a ContainerId,
    pub(super) role: &'a str,
    pub(super) host_libraries: bool,
    pub(super) systemd_cgroup: bool,
}

/// The process of a canary or of an exec in it.
pub(super) fn process(role: &str) -> Value {
    json!({
        "user": {"uid": 0, "gid": 0},
        "args": [PROGRAM, "canary", role],
        "env": ["PATH=/usr/bin", "CANARY=1"],
        "cwd": "/",
        "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": true
    })
}

/// The whole config.json.
pub(super) fn spec(canary: CanarySpec<'_>) -> Value {
    let namespace = canary.namespace.as_str();
    let id = canary.id.as_str();
    let cgroups_path = if canary.systemd_cgroup {
        format!("system.slice:{namespace}:{id}")
    } else {
        format!("/{namespace}/{id}")
    };
    json!({
        "ociVersion": "1.0.2",
        "process": process(canary.role),
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "canary",
        "mounts": mounts(canary.host_libraries),
        "linux": {
            "resources": {
                "devices": [{"allow": false, "access": "rwm"}],
                "memory": {"limit": MEMORY_LIMIT, "swap": MEMORY_LIMIT},
                "cpu": {"shares": CPU_SHARES},
                "pids": {"limit": PIDS_LIMIT}
            },
            "cgroupsPath": cgroups_path,
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}, {"type": "cgroup"}
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": ["swapon", "swapoff"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]
            }
        }
    })
}

fn mounts(host_libraries: bool) -> Value {
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}),
        json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
    ];
    if host_libraries {
        for directory in ["/usr", "/lib", "/lib64"] {
            mounts.push(json!({"destination": directory, "type": "bind", "source": directory, "options": ["rbind", "ro"]}));
        }
    }
    Value::Array(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary(systemd_cgroup: bool) -> Value {
        let (namespace, id) = (ContainerdNamespace::new("n"), ContainerId::new("c"));
        spec(CanarySpec {
            namespace: &namespace,
            id: &id,
            role: "observe",
            host_libraries: true,
            systemd_cgroup,
        })
    }

    #[test]
    fn it_is_a_spec_to_the_published_types() {
        let spec: oci_spec::runtime::Spec = serde_json::from_value(canary(false)).expect("a spec");
        assert_eq!(spec.mounts().as_ref().map(Vec::len), Some(10));
    }

    #[test]
    fn the_systemd_driver_wants_its_own_form_of_path() {
        assert_eq!(canary(true)["linux"]["cgroupsPath"], "system.slice:n:c");
        assert_eq!(canary(false)["linux"]["cgroupsPath"], "/n/c");
    }
}
