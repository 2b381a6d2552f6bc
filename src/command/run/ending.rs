//! How the container's process ended, and why, from what the kernel still has of it.

use inspect_probes::cgroup::{CgroupLocation, parse_flat_keyed};
use inspect_probes::name::ContainerId;
use rustix::process::WaitStatus;

use crate::render::units::bytes;

/// The end of a process.
#[derive(Debug)]
pub(super) struct Ending {
    /// What it exited with.
    code: Option<i32>,
    /// What killed it.
    signal: Option<i32>,
    memory: Option<MemoryEnd>,
}

/// What its cgroup says of memory after its end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MemoryEnd {
    directory: String,
    max: String,
    peak: Option<u64>,
    kills: u64,
}

impl Ending {
    /// To be called before the container is deleted: its cgroup goes with it.
    pub(super) fn new(status: WaitStatus, location: Option<&CgroupLocation>) -> Self {
        Self {
            code: status.exit_status(),
            signal: status.terminating_signal(),
            memory: location.and_then(MemoryEnd::read),
        }
    }

    /// The exit status as shells and containerd count it: 128 + N for signal N.
    pub(super) fn status(&self) -> u8 {
        let status = self.code.or(self.signal.map(|signal| 128 + signal)).unwrap_or(255);
        u8::try_from(status & 0xff).unwrap_or(255)
    }

    /// Sentences for whoever wonders; none for an end without trouble.
    pub(super) fn explain(&self, id: &ContainerId) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(signal) = self.signal {
            let name =
                nix::sys::signal::Signal::try_from(signal).map_or("a signal", |signal| signal.as_str());
            lines.push(format!("{id} ended with {} = 128 + {signal} ({name})", 128 + signal));
        }
        let Some(memory) = self.memory.as_ref().filter(|memory| memory.kills > 0) else { return lines };
        let victim = if self.signal == Some(9) { "it" } else { "a process in it" };
        lines.push(format!(
            "why: the kernel's OOM killer killed {victim}: memory.events has oom_kill {}, memory.max is {}{}",
            memory.kills,
            memory.max,
            memory.peak.map(|peak| format!(", memory.peak was {}", bytes(peak))).unwrap_or_default()
        ));
        lines.push(format!("     (in {}; Kubernetes calls this OOMKilled)", memory.directory));
        lines
    }
}

impl MemoryEnd {
    fn read(location: &CgroupLocation) -> Option<Self> {
        let read = |file: &str| location.read(file).ok().flatten();
        let events = parse_flat_keyed(&read("memory.events")?)?;
        let max = read("memory.max").unwrap_or_else(|| "unknown".to_owned());
        let max = max.parse().map(|number: u64| format!("{number} ({})", bytes(number))).unwrap_or(max);
        Some(Self {
            directory: location.directory("memory")?.display().to_string(),
            max,
            peak: read("memory.peak").and_then(|text| text.parse().ok()),
            kills: events.get("oom_kill").copied().unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn killed(kills: u64) -> Ending {
        let memory = MemoryEnd {
            directory: "/sys/fs/cgroup/inspect/x".to_owned(),
            max: "67108864 (64.0 MiB)".to_owned(),
            peak: None,
            kills,
        };
        Ending { code: None, signal: Some(9), memory: Some(memory) }
    }

    #[test]
    fn a_kill_for_memory_is_told_from_another_kill() {
        let id = ContainerId::new("x");
        let lines = killed(1).explain(&id);
        assert_eq!(killed(1).status(), 137);
        assert_eq!(lines[0], "x ended with 137 = 128 + 9 (SIGKILL)");
        assert!(lines[1].contains("oom_kill 1") && lines[1].contains("67108864"), "{lines:?}");
        assert_eq!(killed(0).explain(&id).len(), 1);
    }

    #[test]
    fn an_exit_is_its_code_and_needs_no_words() {
        let ending = Ending { code: Some(3), signal: None, memory: None };
        assert_eq!((ending.status(), ending.explain(&ContainerId::new("x"))), (3, Vec::new()));
    }
}
