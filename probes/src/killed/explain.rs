//! From what was seen to a verdict. Pure.

use super::{DeathReport, Evidence, KernelLog, LevelEvents, OomConstraint, OomKill, Verdict, Victim};
use crate::container_cgroup::ContainerName;
use crate::escape::escape;
use crate::name::{CgroupPath, Pid};

/// SIGKILL.
const KILL: u8 = 9;

/// Who sends SIGKILL besides the OOM killer.
const OTHER_KILLERS: [&str; 5] = [
    "a stop that was not obeyed in time: kubelet's terminationGracePeriodSeconds (30 s unless set), `docker stop` (10 s), `nerdctl stop`",
    "a liveness or startup probe that failed: kubelet kills and restarts the container; its events say so (`kubectl describe pod`)",
    "somebody's `kill -9`, `ctr task kill -s SIGKILL`, `crictl stop --timeout 0`",
    "systemd: a stopped scope or slice, TimeoutStopSec, systemd-oomd (`journalctl -u systemd-oomd`)",
    "the program itself: an exit status of 137 can also be its own `exit 137`, as of a shell whose child was killed",
];

/// What is known of a container's end.
#[derive(Debug, Default)]
pub struct Known<'a> {
    /// What was asked for.
    pub query: &'a str,
    /// The container.
    pub container: Option<ContainerName>,
    /// Its cgroup, also when it is gone.
    pub cgroup: Option<CgroupPath>,
    /// Whether a process of it runs; `None` when nothing tells.
    pub running: Option<bool>,
    /// Its exit status, where a daemon or a shim still says.
    pub exit_status: Option<u32>,
    /// When it ended.
    pub exited_at: Option<i64>,
    /// Its init process.
    pub init_pid: Option<Pid>,
    /// The cgroup's events and those above it; empty when the cgroup is gone.
    pub levels: &'a [LevelEvents],
    /// The kernel's log, where it can be read.
    pub log: Option<&'a KernelLog>,
    /// What could not be asked, in sentences.
    pub not_known: Vec<String>,
}

/// Says why the container died.
#[must_use]
pub fn explain_death(known: Known<'_>) -> DeathReport {
    let kills = kills_of(&known);
    let own = known.levels.first();
    let oom_kills = own.map(|level| level.oom_kill);
    let signal = known.exit_status.and_then(signal_of);
    let verdict = verdict(&known, &kills, signal);
    let mut not_known = known.not_known.clone();
    not_known.extend(gaps(&known, &kills));
    let is_oom = kills.last().is_some() || oom_kills.is_some_and(|count| count > 0);
    DeathReport {
        query: known.query.to_owned(),
        exit_status: known.exit_status,
        exited_at: known.exited_at,
        oom_kills,
        limit: limit_of(&known, &verdict),
        peak: own.and_then(|level| level.peak),
        kubernetes: kubernetes_word(&known, is_oom),
        evidence: evidence(&known, &kills),
        other_causes: if verdict == (Verdict::Signal { signal: KILL }) {
            OTHER_KILLERS.to_vec()
        } else {
            Vec::new()
        },
        victims: kills.iter().rev().map(|kill| victim(kill, known.init_pid)).collect(),
        not_known,
        container: known.container,
        verdict,
    }
}

/// The log's kills in the container's cgroup or below it; without a known cgroup, in one that has the query as a component.
fn kills_of(known: &Known<'_>) -> Vec<OomKill> {
    let belongs = |path: &str| match &known.cgroup {
        Some(cgroup) => {
            let rest = path.strip_prefix(cgroup.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        None => path.split('/').any(|component| {
            component == known.query
                || component.strip_suffix(".scope").is_some_and(|scope| {
                    scope
                        .strip_suffix(known.query)
                        .is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('-'))
                })
        }),
    };
    let kills = known.log.map(KernelLog::oom_kills).unwrap_or_default();
    kills.into_iter().filter(|kill| belongs(kill.cgroup.as_str())).collect()
}

/// 128 + N is how shims and shells report signal N.
fn signal_of(status: u32) -> Option<u8> {
    (129..=192).contains(&status).then(|| u8::try_from(status - 128).ok()).flatten()
}

fn verdict(known: &Known<'_>, kills: &[OomKill], signal: Option<u8>) -> Verdict {
    if known.running == Some(true) {
        return Verdict::Running;
    }
    // Another signal, or none, is not the OOM killer's, whatever it did to other processes of the container.
    let killed =
        signal.is_none_or(|signal| signal == KILL) && known.exit_status.is_none_or(|status| status > 128);
    if killed {
        if let Some(verdict) = kills.last().map(|kill| verdict_of_kill(known, kill)) {
            return verdict;
        }
        if let Some(verdict) = verdict_of_levels(known.levels) {
            return verdict;
        }
        if known.levels.first().is_some_and(|level| level.oomd_kill.is_some_and(|count| count > 0)) {
            return Verdict::SystemdOomd;
        }
    }
    match (signal, known.exit_status) {
        (Some(signal), _) => Verdict::Signal { signal },
        (None, Some(code)) => Verdict::Exited { code },
        (None, None) => Verdict::Unknown,
    }
}

/// The log's line names the level.
fn verdict_of_kill(known: &Known<'_>, kill: &OomKill) -> Verdict {
    match &kill.constraint {
        OomConstraint::Host => Verdict::OomHost,
        OomConstraint::Other(_) => Verdict::OomSomewhere,
        OomConstraint::Cgroup(limited) => {
            let own = known.cgroup.as_ref().unwrap_or(&kill.cgroup).as_str();
            let inside = limited
                .as_str()
                .strip_prefix(own)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if inside {
                Verdict::OomOwnLimit
            } else {
                Verdict::OomAncestorLimit { cgroup: Some(limited.clone()) }
            }
        }
    }
}

/// The counts tell the level when just one cgroup on the way up had its limit reached.
pub(super) fn verdict_of_levels(levels: &[LevelEvents]) -> Option<Verdict> {
    let (own, above) = levels.split_first()?;
    if own.oom_kill == 0 {
        return None;
    }
    if own.oom > 0 {
        return Some(Verdict::OomOwnLimit);
    }
    if own.oom_local.is_none() {
        return Some(Verdict::OomSomewhere);
    }
    let reached: Vec<&LevelEvents> =
        above.iter().filter(|level| level.oom_local.is_some_and(|count| count > 0)).collect();
    Some(match reached.as_slice() {
        [] => Verdict::OomHost,
        [one] => Verdict::OomAncestorLimit { cgroup: Some(one.path.clone()) },
        _ => Verdict::OomAncestorLimit { cgroup: None },
    })
}

fn limit_of(known: &Known<'_>, verdict: &Verdict) -> Option<crate::cgroup::Limit> {
    let limit_at = |path: &CgroupPath| known.levels.iter().find(|level| level.path == *path)?.limit;
    match verdict {
        Verdict::OomAncestorLimit { cgroup: Some(cgroup) } => limit_at(cgroup),
        Verdict::OomHost => None,
        _ => known.levels.first()?.limit,
    }
}

/// The CRI plugin's words: a task's OOM event makes it OOMKilled, whichever process it was and whatever the status is.
fn kubernetes_word(known: &Known<'_>, is_oom: bool) -> Option<&'static str> {
    match (known.running, known.exit_status) {
        (Some(true), _) => None,
        _ if is_oom => Some("OOMKilled"),
        (_, Some(0)) => Some("Completed"),
        (_, Some(_)) => Some("Error"),
        (_, None) => None,
    }
}

fn victim(kill: &OomKill, init: Option<Pid>) -> Victim {
    Victim {
        pid: kill.pid,
        name: kill.name.clone(),
        uid: kill.uid,
        anon_rss: kill.anon_rss,
        is_init: init.map(|init| init == kill.pid),
        at: Some(kill.time / 1_000_000),
    }
}

fn evidence(known: &Known<'_>, kills: &[OomKill]) -> Vec<Evidence> {
    let mut evidence = Vec::new();
    let mut say = |source: &'static str, text: String| evidence.push(Evidence { source, text });
    if let Some(status) = known.exit_status {
        let meaning = signal_of(status).map_or_else(String::new, |signal| format!(" = 128 + {signal}"));
        say("containerd", format!("exit status {status}{meaning}"));
    }
    for (index, level) in known.levels.iter().enumerate() {
        let counted = level.oom > 0 || level.oom_kill > 0;
        if !counted && index > 0 {
            continue;
        }
        let local = match (level.oom_local, level.oom_kill_local) {
            (Some(oom), Some(kill)) => format!(", of its own: oom {oom}, oom_kill {kill}"),
            _ => String::new(),
        };
        let limit = level.limit.map_or_else(String::new, |limit| format!("; its limit is {limit}"));
        say(
            "memory.events",
            format!("{}: oom {}, oom_kill {}{local}{limit}", level.path, level.oom, level.oom_kill),
        );
        if let Some(count) = level.oomd_kill.filter(|count| *count > 0) {
            say("user.oomd_kill", format!("{}: systemd-oomd killed {count}", level.path));
        }
    }
    for kill in kills {
        let whose = match &kill.constraint {
            OomConstraint::Cgroup(path) => format!("the limit of {path}"),
            OomConstraint::Host => "the host's memory".to_owned(),
            OomConstraint::Other(name) => escape(name).into_owned(),
        };
        let seconds = kill.time / 1_000_000;
        say(
            "kernel log",
            format!(
                "{seconds} s after boot, for {whose}: killed `{}` (pid {}) in {}",
                escape(&kill.name),
                kill.pid,
                kill.cgroup
            ),
        );
    }
    evidence
}

/// What the sources do not tell.
fn gaps(known: &Known<'_>, kills: &[OomKill]) -> Vec<String> {
    let mut gaps = Vec::new();
    if known.levels.is_empty() {
        gaps.push(
            "its cgroup is gone: the counts of memory.events, its limit and its peak went with it".to_owned(),
        );
    } else if known.levels.first().is_some_and(|level| level.oom_local.is_none() && level.oom_kill > 0) {
        gaps.push(
            "there is no memory.events.local: the counts do not tell whose limit was reached".to_owned(),
        );
    }
    if known.exit_status.is_none() && known.running != Some(true) {
        gaps.push("its exit status: containerd has it only until the task is deleted, and keeps no history of events".to_owned());
    }
    match known.log {
        None => gaps.push("which process was the victim: the kernel's log cannot be read".to_owned()),
        Some(log) if log.wrapped && kills.is_empty() => {
            gaps.push("whether the kernel's log told of it: its oldest messages are overwritten (`journalctl -k` may have them)".to_owned());
        }
        Some(_) => {}
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Limit;

    fn level(path: &str, oom: u64, kill: u64, local: Option<(u64, u64)>) -> LevelEvents {
        LevelEvents {
            path: CgroupPath::new(path),
            limit: Some(Limit::Value(67_108_864)),
            peak: Some(67_108_864),
            oom,
            oom_kill: kill,
            oom_local: local.map(|(oom, _)| oom),
            oom_kill_local: local.map(|(_, kill)| kill),
            oomd_kill: None,
        }
    }

    fn known<'a>(levels: &'a [LevelEvents], log: Option<&'a KernelLog>, status: Option<u32>) -> Known<'a> {
        Known {
            query: "web",
            cgroup: Some(CgroupPath::new("/pod/web")),
            running: Some(false),
            exit_status: status,
            init_pid: Some(Pid::new(812)),
            levels,
            log,
            ..Known::default()
        }
    }

    fn log(oom_memcg: &str) -> KernelLog {
        let line = format!(
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=web,mems_allowed=0,oom_memcg={oom_memcg},task_memcg=/pod/web,task=sh,pid=812,uid=0"
        );
        KernelLog { messages: vec![(9_000_000, line)], wrapped: false }
    }

    #[test]
    fn counts_alone_tell_the_level() {
        let own = [level("/pod/web", 1, 1, Some((1, 1))), level("/pod", 1, 1, Some((0, 0)))];
        let report = explain_death(known(&own, None, Some(137)));
        assert_eq!((report.verdict, report.kubernetes), (Verdict::OomOwnLimit, Some("OOMKilled")));
        assert_eq!(report.limit, Some(Limit::Value(67_108_864)));
        let parent = [
            level("/pod/web", 0, 1, Some((0, 1))),
            level("/pod", 1, 1, Some((1, 0))),
            level("/", 1, 1, Some((0, 0))),
        ];
        let ancestor = Verdict::OomAncestorLimit { cgroup: Some(CgroupPath::new("/pod")) };
        assert_eq!(explain_death(known(&parent, None, Some(137))).verdict, ancestor);
        let host = [level("/pod/web", 0, 1, Some((0, 1))), level("/pod", 0, 1, Some((0, 0)))];
        assert_eq!(explain_death(known(&host, None, Some(137))).verdict, Verdict::OomHost);
        let old = [level("/pod/web", 0, 1, None)];
        assert_eq!(explain_death(known(&old, None, Some(137))).verdict, Verdict::OomSomewhere);
        assert!(super::super::oom_finding(&parent).unwrap().contains("/pod"));
        assert_eq!(super::super::oom_finding(&[level("/a", 0, 0, Some((0, 0)))]), None);
    }

    #[test]
    fn the_log_names_the_victim_also_when_the_cgroup_is_gone() {
        let log = log("/pod");
        let report = explain_death(known(&[], Some(&log), Some(137)));
        assert_eq!(report.verdict, Verdict::OomAncestorLimit { cgroup: Some(CgroupPath::new("/pod")) });
        let victim = &report.victims[0];
        assert_eq!((victim.pid, victim.is_init, victim.at), (Pid::new(812), Some(true), Some(9)));
        assert!(report.not_known.iter().any(|gap| gap.contains("cgroup is gone")));
        let own = super::KernelLog { ..self::log("/pod/web") };
        assert_eq!(explain_death(known(&[], Some(&own), Some(137))).verdict, Verdict::OomOwnLimit);
    }

    #[test]
    fn a_deleted_container_is_found_by_its_id_in_the_log() {
        let log = log("/pod/web");
        let asked = Known { query: "web", log: Some(&log), ..Known::default() };
        assert_eq!(explain_death(asked).verdict, Verdict::OomOwnLimit);
        let other = Known { query: "we", log: Some(&log), ..Known::default() };
        assert_eq!(explain_death(other).verdict, Verdict::Unknown);
    }

    #[test]
    fn other_ends_are_not_the_oom_killers() {
        let quiet = [level("/pod/web", 0, 0, Some((0, 0)))];
        let killed = explain_death(known(&quiet, None, Some(137)));
        assert_eq!(
            (killed.verdict.clone(), killed.kubernetes),
            (Verdict::Signal { signal: 9 }, Some("Error"))
        );
        assert_eq!(killed.other_causes.len(), OTHER_KILLERS.len());
        assert_eq!(explain_death(known(&quiet, None, Some(143))).verdict, Verdict::Signal { signal: 15 });
        let done = explain_death(known(&quiet, None, Some(0)));
        assert_eq!((done.verdict, done.kubernetes), (Verdict::Exited { code: 0 }, Some("Completed")));
        // A child was killed for memory, and the init process ended by itself.
        let child = [level("/pod/web", 1, 1, Some((1, 1)))];
        let report = explain_death(known(&child, None, Some(1)));
        assert_eq!((report.verdict, report.kubernetes), (Verdict::Exited { code: 1 }, Some("OOMKilled")));
        let running = Known { running: Some(true), ..known(&child, None, None) };
        assert_eq!(explain_death(running).verdict, Verdict::Running);
    }
}
