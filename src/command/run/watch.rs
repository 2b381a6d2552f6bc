//! The container's cgroup and processes, shown beside it when they change.

use inspect_probes::Host;
use inspect_probes::cgroup::{CgroupLocation, Limit, read_cgroup, read_cgroup_path, read_cgroup_procs};
use inspect_probes::escape::escape;
use inspect_probes::name::Pid;

use crate::output::Output;
use crate::render::units::bytes;

/// What is watched.
#[derive(Debug)]
pub(super) struct Watch {
    host: Host,
    location: Option<CgroupLocation>,
    on: bool,
    last: String,
}

impl Watch {
    pub(super) fn new(host: &Host, pid: Pid, on: bool) -> Self {
        let path = read_cgroup_path(host, pid).ok().flatten();
        let location = path.and_then(|path| CgroupLocation::find(host, &path, &[]));
        Self { host: host.clone(), location, on, last: String::new() }
    }

    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// The container's cgroup, which is there until the container is deleted.
    pub(super) fn location(&self) -> Option<&CgroupLocation> {
        self.location.as_ref()
    }

    /// Writes what has changed since the last look.
    pub(super) fn show(&mut self, output: &mut Output) {
        if !self.on {
            return;
        }
        let Some(location) = &self.location else { return };
        let text = self.describe(location);
        if text != self.last {
            output.note(&text);
            self.last = text;
        }
    }

    fn describe(&self, location: &CgroupLocation) -> String {
        let directory = location.directory("memory").map(|path| path.display().to_string());
        let mut text = format!("[watch] {}", directory.unwrap_or_else(|| location.path.to_string()));
        let Ok(reading) = read_cgroup(&self.host, location) else { return text };
        if let Some(memory) = &reading.memory {
            let max = limit(memory.max, bytes);
            text.push_str(&format!(
                "\n[watch]   memory.current {} of memory.max {max}",
                bytes(memory.current)
            ));
        }
        if let Some(cpu) = &reading.cpu {
            text.push_str(&format!("\n[watch]   cpu.stat usage {} ms", cpu.usage_microseconds / 1000));
        }
        if let Some(pids) = &reading.pids {
            let max = limit(pids.max, |count| count.to_string());
            text.push_str(&format!("\n[watch]   pids.current {} of pids.max {max}", pids.current));
        }
        for pid in read_cgroup_procs(&self.host, &location.path).ok().flatten().unwrap_or_default() {
            let comm = std::fs::read_to_string(self.host.proc().join(format!("{pid}/comm")));
            let comm = comm.unwrap_or_default();
            text.push_str(&format!("\n[watch]   process {pid} {}", escape(comm.trim_end())));
        }
        text
    }
}

fn limit(limit: Option<Limit>, show: impl Fn(u64) -> String) -> String {
    match limit {
        Some(Limit::Value(value)) => show(value),
        Some(Limit::Max) => "max".to_owned(),
        None => "-".to_owned(),
    }
}
