//! The kernel's log (`/dev/kmsg`, Documentation/ABI/testing/dev-kmsg) and what the OOM killer writes there (mm/oom_kill.c).

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Host;
use crate::name::{CgroupPath, Pid};

/// The kernel's log as records.
const KMSG: &str = "/dev/kmsg";
/// `PRINTKRB_RECORD_MAX` is 8 KiB at most: a shorter buffer gets `EINVAL`.
const RECORD: usize = 8192;
/// Records are read until none is left, but a log that is written faster than read must end as well.
const RECORDS: usize = 200_000;

/// The messages that are left in the kernel's ring buffer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelLog {
    /// Microseconds since boot and text, oldest first.
    pub messages: Vec<(u64, String)>,
    /// Whether the oldest message is not the first of this boot: what is older is gone.
    pub wrapped: bool,
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`", path.display())]
pub struct KernelLogError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Reads the log; `None` where the host has none (a captured one).
///
/// # Errors
/// [`KernelLogError`] without the right to read it (`kernel.dmesg_restrict`).
pub fn read_kernel_log(host: &Host) -> Result<Option<KernelLog>, KernelLogError> {
    let path = host.resolve(Path::new(KMSG));
    let failed = |source| KernelLogError { path: PathBuf::from(KMSG), source };
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let mut text = String::new();
    let mut buffer = vec![0; RECORD];
    for _ in 0..RECORDS {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => text.push_str(&String::from_utf8_lossy(buffer.get(..length).unwrap_or_default())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // EPIPE: the record was overwritten before it was read; the next read goes on behind it.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::Interrupted) => {}
            Err(source) => return Err(failed(source)),
        }
    }
    Ok(Some(parse_kernel_log(&text)))
}

/// Parses records: `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;MESSAGE`, with lines of ` KEY=VALUE` behind some.
#[must_use]
pub fn parse_kernel_log(text: &str) -> KernelLog {
    let mut log = KernelLog::default();
    let mut first = None;
    for line in text.lines().filter(|line| !line.starts_with(' ')) {
        let Some((prefix, message)) = line.split_once(';') else { continue };
        let mut fields = prefix.split(',').skip(1);
        let (Some(sequence), Some(time)) = (fields.next(), fields.next()) else { continue };
        let (Ok(sequence), Ok(time)) = (sequence.parse::<u64>(), time.parse()) else { continue };
        first.get_or_insert(sequence);
        log.messages.push((time, message.to_owned()));
    }
    log.wrapped = first.is_some_and(|first| first > 0);
    log
}

/// For whose memory the OOM killer came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OomConstraint {
    /// A cgroup's limit: that cgroup.
    Cgroup(CgroupPath),
    /// The whole host's memory.
    Host,
    /// Another one: `CONSTRAINT_CPUSET`, `CONSTRAINT_MEMORY_POLICY`.
    Other(String),
}

/// A kill that the log tells of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OomKill {
    /// Microseconds since boot.
    pub time: u64,
    /// For whose memory.
    pub constraint: OomConstraint,
    /// The victim's cgroup.
    pub cgroup: CgroupPath,
    /// The victim's name; hostile.
    pub name: String,
    /// The victim.
    pub pid: Pid,
    /// Its user.
    pub uid: Option<u32>,
    /// From the `Killed process` line that follows: bytes.
    pub anon_rss: Option<u64>,
}

impl KernelLog {
    /// The kills, oldest first.
    #[must_use]
    pub fn oom_kills(&self) -> Vec<OomKill> {
        let mut kills: Vec<OomKill> = Vec::new();
        for (time, message) in &self.messages {
            if let Some(kill) = parse_oom_kill(*time, message) {
                kills.push(kill);
            } else if let Some((pid, anon_rss)) = parse_killed_process(message) {
                let last = kills.iter_mut().rev().find(|kill| kill.pid == pid && kill.anon_rss.is_none());
                if let Some(kill) = last {
                    kill.anon_rss = Some(anon_rss);
                }
            }
        }
        kills
    }
}

/// Parses `oom-kill:constraint=…,nodemask=…,cpuset=…,mems_allowed=…,(oom_memcg=…|global_oom),task_memcg=…,task=…,pid=…,uid=…`
/// (`dump_oom_summary`, kernel 5.1 on). Cgroup and task names may hold commas: fields are found from both ends.
#[must_use]
pub fn parse_oom_kill(time: u64, message: &str) -> Option<OomKill> {
    let rest = message.strip_prefix("oom-kill:constraint=")?;
    let (constraint, rest) = rest.split_once(',')?;
    let (rest, uid) = rest.rsplit_once(",uid=")?;
    let (rest, pid) = rest.rsplit_once(",pid=")?;
    let (rest, name) = rest.rsplit_once(",task=")?;
    let (rest, cgroup) = rest.rsplit_once(",task_memcg=")?;
    let constraint = match rest.split_once(",oom_memcg=") {
        Some((_, path)) => OomConstraint::Cgroup(CgroupPath::new(path)),
        None if rest.ends_with(",global_oom") && constraint == "CONSTRAINT_NONE" => OomConstraint::Host,
        None => OomConstraint::Other(constraint.to_owned()),
    };
    Some(OomKill {
        time,
        constraint,
        cgroup: CgroupPath::new(cgroup),
        name: name.to_owned(),
        pid: Pid::new(pid.parse().ok()?),
        uid: uid.trim().parse().ok(),
        anon_rss: None,
    })
}

/// `Memory cgroup out of memory: Killed process 7 (sh) total-vm:4kB, anon-rss:4kB, …`
fn parse_killed_process(message: &str) -> Option<(Pid, u64)> {
    let (_, rest) = message.split_once("Killed process ")?;
    let pid = rest.split(' ').next()?.parse().ok()?;
    let (_, rest) = rest.rsplit_once("anon-rss:")?;
    let kilobytes: u64 = rest.split("kB").next()?.parse().ok()?;
    Some((Pid::new(pid), kilobytes * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=web,mems_allowed=0,oom_memcg=/default/web,task_memcg=/default/web,task=sh,pid=812,uid=0";

    #[test]
    fn the_level_and_the_victim_are_in_one_line() {
        let kill = parse_oom_kill(7, OWN).unwrap();
        assert_eq!(kill.constraint, OomConstraint::Cgroup(CgroupPath::new("/default/web")));
        assert_eq!((kill.pid, kill.name.as_str(), kill.uid), (Pid::new(812), "sh", Some(0)));
        let parent = OWN.replace("oom_memcg=/default/web", "oom_memcg=/default");
        assert_eq!(
            parse_oom_kill(7, &parent).unwrap().constraint,
            OomConstraint::Cgroup(CgroupPath::new("/default"))
        );
        let host = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/a,b,task=x,y,pid=9,uid=1000";
        let kill = parse_oom_kill(7, host).unwrap();
        assert_eq!(
            (kill.constraint, kill.cgroup.as_str(), kill.name.as_str()),
            (OomConstraint::Host, "/a,b", "x,y")
        );
    }

    #[test]
    fn other_messages_and_cut_ones_are_left_out() {
        assert_eq!(parse_oom_kill(0, "oom_reaper: reaped process 7"), None);
        for cut in 1..OWN.len() - 6 {
            assert_eq!(parse_oom_kill(0, &OWN[..cut]), None, "{cut}");
        }
        assert!(parse_oom_kill(0, &OWN.replace("pid=812", "pid=x")).is_none());
    }

    #[test]
    fn records_have_a_prefix_and_lines_behind_them() {
        let text = format!(
            "6,1200,5000000,-;{OWN}\n SUBSYSTEM=x\n3,1201,5000010,-;Memory cgroup out of memory: Killed process 812 (sh) total-vm:70000kB, anon-rss:65000kB, file-rss:4kB\njunk\n"
        );
        let log = parse_kernel_log(&text);
        assert_eq!((log.messages.len(), log.wrapped), (2, true));
        let kills = log.oom_kills();
        assert_eq!((kills.len(), kills[0].time, kills[0].anon_rss), (1, 5_000_000, Some(65_000 * 1024)));
    }
}
