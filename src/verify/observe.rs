//! What the kernel shows of a canary from outside: its Linux namespaces, its cgroup's files, its state.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use inspect_probes::Host;
use inspect_probes::cgroup::{cgroup_directory, read_cgroup_path};
use inspect_probes::name::{CgroupPath, ContainerdNamespace, Pid};
use inspect_probes::process::read_namespaces;

use super::canary::END_OF_REPORT;

/// The files of cgroup-v2.rst that the canary's spec sets, or that a runtime might.
const CGROUP_FILES: [&str; 10] = [
    "cpu.weight",
    "cpu.max",
    "cpuset.cpus",
    "memory.max",
    "memory.high",
    "memory.low",
    "memory.swap.max",
    "memory.oom.group",
    "pids.max",
    "cgroup.freeze",
];

/// The canary's own report, once it is whole.
pub(super) fn read_report(stdout: &Path) -> Option<BTreeMap<String, String>> {
    let text = fs::read_to_string(stdout).ok()?;
    let (json, _) = text.split_once(END_OF_REPORT)?;
    serde_json::from_str(json.trim()).ok()
}

/// Adds what is seen of the running init from outside.
pub(super) fn observe_from_outside(host: &Host, init: Pid, facts: &mut BTreeMap<String, String>) {
    let own = read_namespaces(host, Pid::new(std::process::id())).unwrap_or_default();
    for (kind, id) in read_namespaces(host, init).unwrap_or_default() {
        let verdict = if own.get(&kind) == Some(&id) { "the host's" } else { "its own" };
        facts.insert(format!("namespace {}", kind.spec_name()), verdict.to_owned());
    }
    let Some(cgroup) = read_cgroup_path(host, init).ok().flatten() else { return };
    let directory = cgroup_directory(host, &cgroup);
    for file in CGROUP_FILES {
        // A limit that the leaf leaves open may stand in its parent: crun's systemd driver makes a cgroup below the scope.
        let value = fs::read_to_string(directory.join(file))
            .map_or_else(|_| "absent".to_owned(), |text| text.trim().to_owned());
        facts.insert(format!("cgroup {file}"), value);
    }
    facts.insert("cgroup path".to_owned(), generalise(&cgroup));
}

/// The path with the canary's changing id left out: what is left can be compared.
fn generalise(cgroup: &CgroupPath) -> String {
    let parts = cgroup.as_str().split('/').map(|part| {
        let (name, suffix) = part.strip_suffix(".scope").map_or((part, ""), |name| (name, ".scope"));
        match name.split_once("canary-") {
            Some((before, _)) => format!("{before}ID{suffix}"),
            None => part.to_owned(),
        }
    });
    parts.collect::<Vec<_>>().join("/")
}

/// `oom_kill` of the cgroup's memory.events: how many of its processes the kernel killed for memory.
pub(super) fn read_oom_kills(directory: &Path) -> Option<u64> {
    let text = fs::read_to_string(directory.join("memory.events")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.parse().ok())
}

/// The directory of the canary's cgroup, while its init lives.
pub(super) fn cgroup_of(host: &Host, init: Pid) -> Option<PathBuf> {
    let cgroup = read_cgroup_path(host, init).ok().flatten()?;
    Some(cgroup_directory(host, &cgroup))
}

/// The cgroup that a runtime made for the containerd namespace stays when the last canary goes; only we use it.
/// While another inspect's canary is in it the kernel refuses.
pub(super) fn remove_parent_cgroup(host: &Host, namespace: &ContainerdNamespace) {
    let directory = cgroup_directory(host, &CgroupPath::new(format!("/{namespace}")));
    match fs::remove_dir(directory) {
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_left_out_of_cgroup_paths() {
        let path = |text: &str| generalise(&CgroupPath::new(text));
        assert_eq!(path("/inspect-verify/canary-7-0"), "/inspect-verify/ID");
        assert_eq!(
            path("/system.slice/inspect-verify-canary-7-0.scope/container"),
            "/system.slice/inspect-verify-ID.scope/container"
        );
    }

    #[test]
    fn half_a_report_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("stdout");
        fs::write(&path, "{\"a\":\"b\"}\n").expect("a file");
        assert_eq!(read_report(&path), None);
        fs::write(&path, format!("{{\"a\":\"b\"}}\n{END_OF_REPORT}\n")).expect("a file");
        assert_eq!(read_report(&path), Some(BTreeMap::from([("a".to_owned(), "b".to_owned())])));
    }
}
