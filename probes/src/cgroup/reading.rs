//! What a cgroup uses now: memory by each definition, processor time and throttling, pids, block I/O, pressure.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use super::file::{CgroupFileError, Limit, parse_flat_keyed, parse_limit};
use super::location::CgroupLocation;
use super::pressure::{Pressure, parse_pressure};
use crate::Host;
use crate::name::Pid;

/// A page of `/proc/PID/statm`.
const PAGE: u64 = 4096;

/// `memory.stat` has some fifty keys; these say where memory is.
const MAIN_PARTS: [&str; 16] = [
    "anon",
    "rss",
    "file",
    "cache",
    "kernel",
    "slab",
    "sock",
    "shmem",
    "file_mapped",
    "mapped_file",
    "file_dirty",
    "dirty",
    "inactive_file",
    "active_file",
    "pgfault",
    "pgmajfault",
];

/// What a cgroup uses.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct CgroupReading {
    /// Processes in it and below it.
    pub processes: usize,
    /// `cgroup.events`: populated, frozen.
    pub events: BTreeMap<String, u64>,
    /// Where the memory controller is on.
    pub memory: Option<MemoryReading>,
    /// Where the cpu controller is on, or at least `cpu.stat` is there.
    pub cpu: Option<CpuReading>,
    /// Where the pids controller is on.
    pub pids: Option<PidsReading>,
    /// `io.stat` by `MAJOR:MINOR`.
    pub io: BTreeMap<String, BTreeMap<String, u64>>,
    /// `cpu`, `memory`, `io`, `irq`, where the kernel accounts it.
    pub pressure: BTreeMap<&'static str, Pressure>,
}

/// Memory in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct MemoryReading {
    /// `memory.current`.
    pub current: u64,
    /// `memory.peak` (kernel 5.19 on), v1's `memory.max_usage_in_bytes`.
    pub peak: Option<u64>,
    /// `memory.swap.current`.
    pub swap: Option<u64>,
    /// `memory.max`.
    pub max: Option<Limit>,
    /// The main parts of `memory.stat`.
    pub stat: BTreeMap<String, u64>,
    /// `memory.events`: this cgroup and all below it.
    pub events: BTreeMap<String, u64>,
    /// `memory.events.local`: this cgroup alone.
    pub events_local: BTreeMap<String, u64>,
    /// What tools print as "memory used".
    pub used: Vec<MemoryUsed>,
}

/// A definition of "memory used" and what it gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryUsed {
    /// `working set`
    pub name: &'static str,
    /// Bytes.
    pub bytes: u64,
    /// How it is computed.
    pub definition: &'static str,
    /// Which tools print it.
    pub used_by: &'static str,
}

/// Processor time in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CpuReading {
    /// All of it.
    pub usage_microseconds: u64,
    /// In user mode.
    pub user_microseconds: Option<u64>,
    /// In the kernel.
    pub system_microseconds: Option<u64>,
    /// Enforcement periods that had something to run; 0 without a quota.
    pub periods: u64,
    /// Periods in which the quota ran out.
    pub throttled_periods: u64,
    /// Time that was waited for the next period.
    pub throttled_microseconds: u64,
}

/// Numbers of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PidsReading {
    /// `pids.current`: threads count.
    pub current: u64,
    /// `pids.peak` (kernel 6.1 on).
    pub peak: Option<u64>,
    /// `pids.max`.
    pub max: Option<Limit>,
    /// Forks that failed for the limit: `pids.events` `max`.
    pub refused: Option<u64>,
}

/// Reads what the cgroup uses. A file that is not there, or not as its document says, leaves its part out.
///
/// # Errors
/// [`CgroupFileError`] when the kernel refuses.
pub fn read_cgroup(host: &Host, location: &CgroupLocation) -> Result<CgroupReading, CgroupFileError> {
    let pids = all_processes(location);
    let mut reading = CgroupReading {
        processes: pids.len(),
        events: keyed(location, "cgroup.events")?,
        memory: read_memory(host, location, &pids)?,
        cpu: read_cpu(location)?,
        pids: read_pids(location)?,
        ..CgroupReading::default()
    };
    if let Some(text) = location.read("io.stat")? {
        reading.io = parse_io_stat(&text);
    }
    for resource in ["cpu", "memory", "io", "irq"] {
        // With psi=0 on the kernel's command line the files are there and give EOPNOTSUPP.
        let text = location.read(&format!("{resource}.pressure")).ok().flatten();
        if let Some(pressure) = text.as_deref().and_then(parse_pressure) {
            reading.pressure.insert(resource, pressure);
        }
    }
    Ok(reading)
}

fn keyed(location: &CgroupLocation, file: &str) -> Result<BTreeMap<String, u64>, CgroupFileError> {
    Ok(location.read(file)?.as_deref().and_then(parse_flat_keyed).unwrap_or_default())
}

fn number(location: &CgroupLocation, file: &str) -> Result<Option<u64>, CgroupFileError> {
    Ok(location.read(file)?.and_then(|text| text.parse().ok()))
}

fn limit(location: &CgroupLocation, file: &str) -> Result<Option<Limit>, CgroupFileError> {
    Ok(location.read(file)?.as_deref().and_then(parse_limit))
}

fn read_memory(
    host: &Host,
    location: &CgroupLocation,
    pids: &[Pid],
) -> Result<Option<MemoryReading>, CgroupFileError> {
    let unified = location.is_unified();
    let current = number(location, if unified { "memory.current" } else { "memory.usage_in_bytes" })?;
    let Some(current) = current else { return Ok(None) };
    let stat = keyed(location, "memory.stat")?;
    let used = memory_used(unified, current, &stat, resident(host, pids));
    let mut memory = MemoryReading { current, used, ..MemoryReading::default() };
    if unified {
        memory.peak = number(location, "memory.peak")?;
        memory.swap = number(location, "memory.swap.current")?;
        memory.max = limit(location, "memory.max")?;
        memory.events = keyed(location, "memory.events")?;
        memory.events_local = keyed(location, "memory.events.local")?;
    } else {
        memory.peak = number(location, "memory.max_usage_in_bytes")?;
        memory.max = number(location, "memory.limit_in_bytes")?.map(legacy_limit);
        memory.events = legacy_events(location)?;
        let with_swap = number(location, "memory.memsw.usage_in_bytes")?;
        memory.swap = with_swap.map(|both| both.saturating_sub(current));
    }
    memory.stat =
        MAIN_PARTS.iter().filter_map(|part| Some(((*part).to_owned(), *stat.get(*part)?))).collect();
    Ok(Some(memory))
}

/// v1 has no `max`: whatever is above all memory is none.
fn legacy_limit(bytes: u64) -> Limit {
    if bytes >= 1 << 62 { Limit::Max } else { Limit::Value(bytes) }
}

/// v1 counts in two files what v2 has in `memory.events`.
fn legacy_events(location: &CgroupLocation) -> Result<BTreeMap<String, u64>, CgroupFileError> {
    let mut events = keyed(location, "memory.oom_control")?;
    events.retain(|key, _| key == "oom_kill");
    events.extend(number(location, "memory.failcnt")?.map(|count| ("max".to_owned(), count)));
    Ok(events)
}

/// Each definition that tools print; v1's hierarchical counts begin with `total_`.
fn memory_used(unified: bool, current: u64, stat: &BTreeMap<String, u64>, resident: u64) -> Vec<MemoryUsed> {
    let part = |names: [&str; 2]| names.iter().find_map(|name| stat.get(*name).copied());
    let mut used = vec![MemoryUsed {
        name: "current",
        bytes: current,
        definition: if unified {
            "memory.current: everything that is charged, page cache included"
        } else {
            "memory.usage_in_bytes: everything that is charged, page cache included"
        },
        used_by: "the limit itself, systemd, ctr metrics",
    }];
    if let Some(inactive) = part(["total_inactive_file", "inactive_file"]) {
        used.push(MemoryUsed {
            name: "working set",
            bytes: current.saturating_sub(inactive),
            definition: if unified {
                "memory.current − inactive_file"
            } else {
                "memory.usage_in_bytes − total_inactive_file"
            },
            used_by: "kubelet's evictions, kubectl top, crictl stats, docker stats",
        });
    }
    if let Some(anon) = part(["total_rss", "anon"]) {
        used.push(MemoryUsed {
            name: "anon",
            bytes: anon,
            definition: if unified {
                "memory.stat anon: what can only be swapped, never dropped"
            } else {
                "memory.stat total_rss: what can only be swapped, never dropped"
            },
            used_by: "the OOM killer's reckoning, cAdvisor's rss",
        });
    }
    used.push(MemoryUsed {
        name: "sum of RSS",
        bytes: resident,
        definition: "resident pages of each process added up: shared pages count more than once",
        used_by: "ps, top",
    });
    used
}

fn read_cpu(location: &CgroupLocation) -> Result<Option<CpuReading>, CgroupFileError> {
    let stat = keyed(location, "cpu.stat")?;
    let get = |key: &str| stat.get(key).copied();
    if location.is_unified() {
        let Some(usage_microseconds) = get("usage_usec") else { return Ok(None) };
        return Ok(Some(CpuReading {
            usage_microseconds,
            user_microseconds: get("user_usec"),
            system_microseconds: get("system_usec"),
            periods: get("nr_periods").unwrap_or_default(),
            throttled_periods: get("nr_throttled").unwrap_or_default(),
            throttled_microseconds: get("throttled_usec").unwrap_or_default(),
        }));
    }
    let Some(nanoseconds) = number(location, "cpuacct.usage")? else { return Ok(None) };
    Ok(Some(CpuReading {
        usage_microseconds: nanoseconds / 1000,
        user_microseconds: number(location, "cpuacct.usage_user")?.map(|time| time / 1000),
        system_microseconds: number(location, "cpuacct.usage_sys")?.map(|time| time / 1000),
        periods: get("nr_periods").unwrap_or_default(),
        throttled_periods: get("nr_throttled").unwrap_or_default(),
        throttled_microseconds: get("throttled_time").unwrap_or_default() / 1000,
    }))
}

fn read_pids(location: &CgroupLocation) -> Result<Option<PidsReading>, CgroupFileError> {
    let Some(current) = number(location, "pids.current")? else { return Ok(None) };
    Ok(Some(PidsReading {
        current,
        peak: number(location, "pids.peak")?,
        max: limit(location, "pids.max")?,
        refused: keyed(location, "pids.events")?.get("max").copied(),
    }))
}

/// `io.stat`: `MAJOR:MINOR rbytes=… wbytes=… rios=… wios=… dbytes=… dios=…`. A device alone has done nothing.
#[must_use]
pub fn parse_io_stat(text: &str) -> BTreeMap<String, BTreeMap<String, u64>> {
    let parse = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let device = words.next().filter(|device| device.contains(':'))?.to_owned();
        let pair = |word: &str| {
            word.split_once('=').and_then(|(key, value)| Some((key.to_owned(), value.parse().ok()?)))
        };
        let counts: BTreeMap<String, u64> = words.filter_map(pair).collect();
        (!counts.is_empty()).then_some((device, counts))
    };
    text.lines().filter_map(parse).collect()
}

/// Every process in the cgroup and below it.
pub(super) fn all_processes(location: &CgroupLocation) -> Vec<Pid> {
    let top = ["memory", "pids", "cpu"].iter().find_map(|controller| location.directory(controller));
    let mut directories = top.map(|path| vec![path.to_path_buf()]).unwrap_or_default();
    let mut pids = Vec::new();
    while let Some(directory) = directories.pop() {
        // What vanishes meanwhile has no processes.
        let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse().ok().map(Pid::new)));
        let below = fs::read_dir(&directory).into_iter().flatten().flatten();
        directories.extend(
            below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
    }
    pids
}

/// Resident bytes: the second field of `/proc/PID/statm`, in pages.
fn resident(host: &Host, pids: &[Pid]) -> u64 {
    let of = |pid: &Pid| {
        let text = fs::read_to_string(host.proc().join(pid.to_string()).join("statm")).ok()?;
        text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    };
    pids.iter().filter_map(of).sum::<u64>() * PAGE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::CgroupPath;

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, CgroupLocation) {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("sys/fs/cgroup/default/web");
        fs::create_dir_all(&directory).unwrap();
        fs::write(root.path().join("sys/fs/cgroup/cgroup.controllers"), "cpu memory\n").unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
        let location =
            CgroupLocation::find(&Host::at(root.path()), &CgroupPath::new("/default/web"), &[]).unwrap();
        (root, location)
    }

    #[test]
    fn each_definition_of_memory_used_is_told_apart() {
        let (root, location) = host(&[
            ("memory.current", "1000\n"),
            ("memory.stat", "anon 300\ninactive_file 400\n"),
            ("memory.events", "oom 1\noom_kill 1\n"),
            ("memory.peak", "2000\n"),
            ("cgroup.procs", "7\n"),
        ]);
        fs::create_dir_all(root.path().join("proc/7")).unwrap();
        fs::write(root.path().join("proc/7/statm"), "9 2 0 0 0 0 0\n").unwrap();
        let reading = read_cgroup(&Host::at(root.path()), &location).unwrap();
        let memory = reading.memory.unwrap();
        let used: Vec<_> = memory.used.iter().map(|used| (used.name, used.bytes)).collect();
        assert_eq!(used, [("current", 1000), ("working set", 600), ("anon", 300), ("sum of RSS", 8192)]);
        assert_eq!((memory.events["oom_kill"], memory.peak), (1, Some(2000)));
        assert_eq!((reading.processes, reading.cpu, reading.pids), (1, None, None));
    }

    #[test]
    fn throttling_and_pids_are_read_and_odd_files_left_out() {
        let (root, location) = host(&[
            (
                "cpu.stat",
                "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_periods 9\nnr_throttled 4\nthrottled_usec 77\n",
            ),
            ("pids.current", "3\n"),
            ("pids.max", "100\n"),
            ("pids.events", "max 2\n"),
            ("memory.current", "junk\n"),
            ("cpu.pressure", "junk\n"),
        ]);
        let reading = read_cgroup(&Host::at(root.path()), &location).unwrap();
        let cpu = reading.cpu.unwrap();
        assert_eq!((cpu.periods, cpu.throttled_periods, cpu.throttled_microseconds), (9, 4, 77));
        let pids = reading.pids.unwrap();
        assert_eq!((pids.current, pids.max, pids.refused), (3, Some(Limit::Value(100)), Some(2)));
        assert!(reading.memory.is_none() && reading.pressure.is_empty());
    }

    #[test]
    fn io_is_by_device() {
        let io = parse_io_stat("8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n7:0\njunk\n");
        assert_eq!(io.len(), 1);
        assert_eq!(io["8:0"]["rbytes"], 4096);
    }
}
