//! `/proc/PID/status`: ids, capabilities, no_new_privs, seccomp.

use serde_json::Value;

use super::edit::{items, remove, set, texts};
use super::{Reading, Step};
use crate::process::{Status, read_status};

/// Capabilities by number (linux/capability.h at Linux 6.x).
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// `SECCOMP_MODE_FILTER` of prctl(2).
const SECCOMP_FILTER: u32 = 2;

pub(super) fn read_credentials(reading: &mut Reading<'_>) -> Step {
    let Some(status) = read_status(reading.host, reading.pid)? else { return Ok(None) };
    put_ids(reading, &status);
    put_capabilities(reading, &status);
    let no_new_privileges = status.no_new_privileges.unwrap_or(false);
    let asked = reading.base.pointer("/process/noNewPrivileges").and_then(Value::as_bool).unwrap_or(false);
    if asked != no_new_privileges {
        set(&mut reading.enforced, "/process/noNewPrivileges", no_new_privileges);
    }
    let filtered = status.seccomp == Some(SECCOMP_FILTER);
    match (reading.base.pointer("/linux/seccomp").is_some_and(Value::is_object), filtered) {
        (true, false) => remove(&mut reading.enforced, "/linux/seccomp"),
        (false, true) => reading
            .notes
            .push("a system call filter is active that the spec does not have: the program's own".to_owned()),
        _ => {}
    }
    Ok(Some(()))
}

fn put_ids(reading: &mut Reading<'_>, status: &Status) {
    let base = reading.base;
    let inside = |kind: &str, id: u32| to_inside(base, kind, id);
    for (pointer, kind, id) in
        [("/process/user/uid", "uidMappings", status.uid), ("/process/user/gid", "gidMappings", status.gid)]
    {
        let asked = base.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let actual = inside(kind, id);
        if actual != Some(asked) {
            set(&mut reading.enforced, pointer, actual.map_or_else(|| Value::from(id), Value::from));
        }
    }
    let sorted = |mut groups: Vec<u64>| {
        groups.sort_unstable();
        groups.dedup();
        groups
    };
    let primary = inside("gidMappings", status.gid);
    let beyond_primary = |groups: Vec<u64>| {
        sorted(groups).into_iter().filter(|group| Some(*group) != primary).collect::<Vec<_>>()
    };
    let asked = items(base, "/process/user/additionalGids").iter().filter_map(Value::as_u64).collect();
    let actual: Vec<u64> = status.groups.iter().filter_map(|group| inside("gidMappings", *group)).collect();
    if beyond_primary(asked) != beyond_primary(actual.clone()) {
        set(&mut reading.enforced, "/process/user/additionalGids", sorted(actual));
    }
}

/// The id inside the container's user namespace of an id outside; `None` where nothing maps to it.
fn to_inside(base: &Value, kind: &str, id: u32) -> Option<u64> {
    let ranges = items(base, &format!("/linux/{kind}"));
    if ranges.is_empty() {
        return Some(u64::from(id));
    }
    let member = |range: &Value, name: &str| range.get(name).and_then(Value::as_u64).unwrap_or(0);
    ranges.iter().find_map(|range| {
        let offset = u64::from(id).checked_sub(member(range, "hostID"))?;
        (offset < member(range, "size")).then(|| member(range, "containerID") + offset)
    })
}

/// Compares each set with what the kernel makes of the spec's at execve(2) (capabilities(7), "Transformation of
/// capabilities"): root gets inheritable and bounding, anyone else only the ambient ones.
fn put_capabilities(reading: &mut Reading<'_>, status: &Status) {
    let known = known_capabilities(reading);
    let asked = |name: &str| {
        let names = texts(reading.base, &format!("/process/capabilities/{name}"));
        to_bits(&names) & known
    };
    let inheritable = status.capabilities_inheritable & known;
    let bounding = status.capabilities_bounding.unwrap_or(0) & known;
    let ambient = status.capabilities_ambient.unwrap_or(0) & known;
    let root = to_inside(reading.base, "uidMappings", status.uid) == Some(0);
    let mut after_exec = if root { inheritable | bounding } else { ambient };
    if status.no_new_privileges == Some(true) {
        after_exec &= asked("permitted");
    }
    let expected_ambient = asked("ambient") & asked("permitted") & asked("inheritable");
    let sets = [
        ("bounding", bounding, asked("bounding")),
        ("inheritable", inheritable, asked("inheritable")),
        ("ambient", ambient, expected_ambient),
        ("permitted", status.capabilities_permitted & known, after_exec),
        ("effective", status.capabilities_effective & known, after_exec),
    ];
    for (name, actual, expected) in sets {
        if actual != expected {
            set(&mut reading.enforced, &format!("/process/capabilities/{name}"), to_names(actual));
        }
    }
}

/// The capabilities that this kernel has: a spec of `ALL` may name more.
fn known_capabilities(reading: &Reading<'_>) -> u64 {
    let path = reading.host.proc().join("sys/kernel/cap_last_cap");
    let last = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok());
    last.and_then(|last| 1_u64.checked_shl(last + 1)).map_or((1 << NAMES.len()) - 1, |above| above - 1)
}

fn to_bits(names: &[&str]) -> u64 {
    let bit = |name: &&str| NAMES.iter().position(|known| known == name).map(|number| 1_u64 << number);
    names.iter().filter_map(bit).fold(0, |bits, bit| bits | bit)
}

fn to_names(bits: u64) -> Vec<String> {
    let name =
        |number: usize| NAMES.get(number).map_or_else(|| format!("CAP_{number}"), |name| (*name).to_owned());
    (0..64).filter(|number| bits >> number & 1 == 1).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_are_the_kernels() {
        // CapBnd of a container that `ctr run` made.
        let names = to_names(0xa804_25fb);
        assert_eq!(names.len(), 14);
        assert!(
            names.contains(&"CAP_AUDIT_WRITE".to_owned()) && names.contains(&"CAP_SYS_CHROOT".to_owned())
        );
        assert_eq!(to_bits(&names.iter().map(String::as_str).collect::<Vec<_>>()), 0xa804_25fb);
    }
}
