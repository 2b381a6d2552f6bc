//! What is read of a process once it is known to be in the tree.

use std::collections::HashMap;
use std::num::NonZero;

use crate::Host;
use crate::cgroup::read_cgroup_path;
use crate::name::{CgroupPath, Pid};
use crate::process::{CommandLine, process_path, read_bounded, read_cmdline};

/// From this many processes on, several threads share the reading.
const PARALLEL_FROM: usize = 400;
/// The kernel's locks let few threads read `/proc` at once.
const MOST_THREADS: usize = 4;
/// `/proc/PID/status` is about 1.5 KB; `Uid:` and `NSpid:` stand in its first third.
const STATUS_LIMIT: u64 = 4096;

/// Details of one process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessDetails {
    /// Its cgroup.
    pub cgroup: Option<CgroupPath>,
    /// Its command line.
    pub command_line: CommandLine,
    /// Effective user id.
    pub uid: Option<u32>,
    /// Its pid in its own pid namespace, where that is not the host's.
    pub namespace_pid: Option<u32>,
}

/// Reads the details of `pids`; those that vanished have none. `cgroups` are memberships that are known already.
pub(super) fn read_details(
    host: &Host,
    pids: &[Pid],
    cgroups: &HashMap<Pid, CgroupPath>,
) -> HashMap<Pid, ProcessDetails> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
    if pids.len() < PARALLEL_FROM || threads == 1 {
        return read_some(host, pids, cgroups);
    }
    let share = pids.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let readers: Vec<_> =
            pids.chunks(share).map(|part| scope.spawn(move || read_some(host, part, cgroups))).collect();
        readers.into_iter().flat_map(|reader| reader.join().unwrap_or_default()).collect()
    })
}

fn read_some(host: &Host, pids: &[Pid], cgroups: &HashMap<Pid, CgroupPath>) -> HashMap<Pid, ProcessDetails> {
    let read = |pid: &Pid| Some((*pid, read_one(host, *pid, cgroups.get(pid))?));
    pids.iter().filter_map(read).collect()
}

fn read_one(host: &Host, pid: Pid, cgroup: Option<&CgroupPath>) -> Option<ProcessDetails> {
    let status = read_bounded(&process_path(host, pid, "status"), STATUS_LIMIT).ok().flatten()?;
    let cgroup = cgroup.cloned().or_else(|| read_cgroup_path(host, pid).ok().flatten());
    let mut namespace_pids = numbers(&status, b"\nNSpid:");
    let levels = namespace_pids.len();
    Some(ProcessDetails {
        cgroup,
        command_line: read_cmdline(host, pid).ok().flatten().unwrap_or_default(),
        // Real, effective, saved, file system.
        uid: numbers(&status, b"\nUid:").get(1).copied(),
        namespace_pid: namespace_pids.pop().filter(|_| levels > 1),
    })
}

/// The numbers behind a key. The kernel escapes newlines in `Name:`, so a name cannot forge a line.
fn numbers(status: &[u8], key: &[u8]) -> Vec<u32> {
    let Some(start) = status.windows(key.len()).position(|window| window == key) else { return Vec::new() };
    let line = status[start + key.len()..].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_searched_by_key() {
        let status = b"Name:\tsh\\nUid:\t7\nPid:\t9\nNSpid:\t9\t1\nUid:\t1000\t0\t0\t0\n";
        assert_eq!(numbers(status, b"\nNSpid:"), [9, 1]);
        assert_eq!(numbers(status, b"\nUid:"), [1000, 0, 0, 0]);
        assert!(numbers(status, b"\nNope:").is_empty());
    }

    #[test]
    fn details_of_ourselves_and_of_nobody() {
        let (own, gone) = (Pid::new(std::process::id()), Pid::new(u32::MAX));
        let details = read_details(&Host::live(), &[own, gone], &HashMap::new());
        assert_eq!(details.len(), 1);
        assert_eq!(details[&own].uid, Some(nix::unistd::geteuid().as_raw()));
        assert!(!details[&own].command_line.arguments.is_empty());
    }
}
