//! Why a container died: its exit status, the OOM killer's traces in cgroup files and in the kernel's log, and what each of
//! them can and cannot prove.
//!
//! `memory.events.local` counts in the cgroup whose limit was reached (`oom`) and in the victim's (`oom_kill`); an OOM by an
//! ancestor's limit, or by the host's memory, leaves `oom_kill` without `oom` in the victim's cgroup (cgroup-v2.rst; the
//! kernel's mm/memcontrol.c). The kernel log's `oom-kill:` line names both cgroups and the victim.

mod explain;
mod kernel_log;

use serde::Serialize;

pub use explain::{Known, explain_death};
pub use kernel_log::{
    KernelLog, KernelLogError, OomConstraint, OomKill, parse_kernel_log, parse_oom_kill, read_kernel_log,
};

use crate::cgroup::{CgroupFileError, CgroupLocation, Limit, parse_flat_keyed, parse_limit};
use crate::container_cgroup::ContainerName;
use crate::name::{CgroupPath, Pid};

/// Memory events of one cgroup on the way to the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LevelEvents {
    /// The cgroup.
    pub path: CgroupPath,
    /// `memory.max` there.
    pub limit: Option<Limit>,
    /// `memory.peak` there (kernel 5.19 on).
    pub peak: Option<u64>,
    /// Times that its limit (or one below it) was reached and nothing could be freed: `oom` of `memory.events`.
    pub oom: u64,
    /// Processes in it and below it that an OOM killer killed: `oom_kill`.
    pub oom_kill: u64,
    /// `oom` of `memory.events.local`: its own limit; `None` where the kernel (before 5.2) has no such file.
    pub oom_local: Option<u64>,
    /// `oom_kill` of `memory.events.local`: processes in itself.
    pub oom_kill_local: Option<u64>,
    /// Processes that systemd-oomd killed: its `user.oomd_kill` attribute on the cgroup.
    pub oomd_kill: Option<u64>,
}

/// Reads the events from the cgroup up to the root; empty where the cgroup is gone. On v1 there is one count
/// (`memory.oom_control`), and no level can be told from it.
///
/// # Errors
/// [`CgroupFileError`] when the kernel refuses.
pub fn read_levels(location: &CgroupLocation) -> Result<Vec<LevelEvents>, CgroupFileError> {
    let mut levels = Vec::new();
    let mut at = Some(location.clone());
    while let Some(cgroup) = at {
        if let Some(level) = read_level(&cgroup)? {
            levels.push(level);
        }
        at = cgroup.parent();
    }
    Ok(levels)
}

fn read_level(cgroup: &CgroupLocation) -> Result<Option<LevelEvents>, CgroupFileError> {
    let keyed = |file: &str| -> Result<_, CgroupFileError> {
        Ok(cgroup.read(file)?.as_deref().and_then(parse_flat_keyed))
    };
    let number = |file: &str| -> Result<_, CgroupFileError> {
        Ok(cgroup.read(file)?.and_then(|text| text.parse().ok()))
    };
    let unified = cgroup.is_unified();
    let Some(events) = keyed(if unified { "memory.events" } else { "memory.oom_control" })? else {
        return Ok(None);
    };
    let local = if unified { keyed("memory.events.local")? } else { None };
    let get = |key: &str| events.get(key).copied().unwrap_or_default();
    let get_local = |key: &str| local.as_ref().map(|events| events.get(key).copied().unwrap_or_default());
    let limit = cgroup.read(if unified { "memory.max" } else { "memory.limit_in_bytes" })?;
    Ok(Some(LevelEvents {
        path: cgroup.path.clone(),
        limit: limit.as_deref().and_then(parse_limit).map(|limit| match limit {
            // v1's "no limit" is a number above all memory.
            Limit::Value(value) if value >= 1 << 62 => Limit::Max,
            limit => limit,
        }),
        peak: number(if unified { "memory.peak" } else { "memory.max_usage_in_bytes" })?,
        oom: get("oom"),
        oom_kill: get("oom_kill"),
        oom_local: get_local("oom"),
        oom_kill_local: get_local("oom_kill"),
        oomd_kill: cgroup.directory("memory").and_then(read_oomd_kill),
    }))
}

/// systemd-oomd.service(8) counts its kills in an extended attribute.
fn read_oomd_kill(directory: &std::path::Path) -> Option<u64> {
    let mut buffer = [0u8; 32];
    let length = rustix::fs::getxattr(directory, "user.oomd_kill", &mut buffer).ok()?;
    std::str::from_utf8(buffer.get(..length)?).ok()?.trim_end_matches('\0').parse().ok()
}

/// What killed a container, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Verdict {
    /// The kernel's OOM killer, for the container's own limit.
    OomOwnLimit,
    /// The kernel's OOM killer, for a limit above the container.
    OomAncestorLimit {
        /// The cgroup whose limit was reached; `None` when several come into question or the counts do not tell.
        cgroup: Option<CgroupPath>,
    },
    /// The kernel's OOM killer, because the host was out of memory.
    OomHost,
    /// The kernel's OOM killer; for whose limit cannot be told any more.
    OomSomewhere,
    /// systemd-oomd.
    SystemdOomd,
    /// A signal from somebody else.
    Signal {
        /// Its number.
        signal: u8,
    },
    /// It ended by itself.
    Exited {
        /// With this status.
        code: u32,
    },
    /// It runs.
    Running,
    /// Nothing tells.
    Unknown,
}

/// The process that the OOM killer chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Victim {
    /// Its pid on the host.
    pub pid: Pid,
    /// Its name; hostile.
    pub name: String,
    /// Its user id.
    pub uid: Option<u32>,
    /// Its anonymous resident memory in bytes.
    pub anon_rss: Option<u64>,
    /// Whether it was the container's init process; `None` when that is not known.
    pub is_init: Option<bool>,
    /// Seconds since boot.
    pub at: Option<u64>,
}

/// Something seen, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// `containerd`, `memory.events`, `kernel log`, …
    pub source: &'static str,
    /// What it says.
    pub text: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeathReport {
    /// The container, where a bundle or a record of it is left.
    pub container: Option<ContainerName>,
    /// What was asked for.
    pub query: String,
    /// What killed it.
    pub verdict: Verdict,
    /// Exit status as the shim reported it: above 128 it is 128 + signal, or the program's own choice.
    pub exit_status: Option<u32>,
    /// When, in seconds since 1970.
    pub exited_at: Option<i64>,
    /// Processes of the container that an OOM killer killed, over its life.
    pub oom_kills: Option<u64>,
    /// Those that the kernel's log still tells of, the last one first.
    pub victims: Vec<Victim>,
    /// The limit that was reached, in bytes.
    pub limit: Option<Limit>,
    /// The most memory that the container had, in bytes.
    pub peak: Option<u64>,
    /// What Kubernetes would call it.
    pub kubernetes: Option<&'static str>,
    /// What was seen.
    pub evidence: Vec<Evidence>,
    /// Who else sends this signal.
    pub other_causes: Vec<&'static str>,
    /// What cannot be known any more, and why.
    pub not_known: Vec<String>,
}

/// One sentence when the OOM killer was in a cgroup, for other views of it.
#[must_use]
pub fn oom_finding(levels: &[LevelEvents]) -> Option<String> {
    let own = levels.first().filter(|level| level.oom_kill > 0)?;
    let processes =
        if own.oom_kill == 1 { "1 process".to_owned() } else { format!("{} processes", own.oom_kill) };
    let whose = match explain::verdict_of_levels(levels) {
        Some(Verdict::OomOwnLimit) => "for its own memory limit".to_owned(),
        Some(Verdict::OomAncestorLimit { cgroup: Some(cgroup) }) => format!("for the limit of {cgroup}"),
        Some(Verdict::OomAncestorLimit { cgroup: None }) => "for a limit above it".to_owned(),
        Some(Verdict::OomHost) => "because the host was out of memory".to_owned(),
        _ => "for a limit that cannot be told".to_owned(),
    };
    Some(format!("the OOM killer killed {processes} in it {whose}"))
}
