//! What the spec says of CPU and memory scheduling: scheduler, I/O priority, personality, memory policy, rlimits.

use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, PosixRlimitType,
    Process, Scheduler,
};
use rustix::process::{Pid, Resource, Rlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use rustix::io::Errno;

use crate::step::{Step, StepError};
use crate::sys::{self, SchedulerAttributes};
use crate::validate::{InvalidSpec, invalid};

/// What is set for a process.
#[derive(Debug, Default)]
pub(crate) struct SchedulingPlan {
    scheduler: Option<SchedulerAttributes>,
    io_priority: Option<i32>,
    pub(crate) personality: Option<u64>,
    pub(crate) memory_policy: Option<(i32, [u64; 16])>,
    pub(crate) outer: OuterLimits,
}

/// What is set for a process from outside, because raising it takes a privilege of the host.
#[derive(Clone, Debug, Default)]
pub(crate) struct OuterLimits {
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) affinity: Affinity,
    rlimits: Vec<(Resource, u64, u64)>,
}

/// Which CPUs a process may run on, besides what its cgroup says.
#[derive(Clone, Debug, Default)]
pub(crate) enum Affinity {
    /// All: what the caller of the runtime is bound to is no matter of the container's.
    #[default]
    All,
    /// These.
    Only(CpuSet),
    /// What it was started with.
    Inherited,
}

/// `process.execCPUAffinity`.
#[derive(Clone, Debug, Default)]
pub(crate) struct AffinityPlan {
    /// For the runtime before it clones the process.
    pub(crate) initial: Option<CpuSet>,
    /// For the process in the container's cgroup.
    pub(crate) last: Affinity,
}

/// Plans what `execCPUAffinity` says. Without `final` the process keeps `initial`, as far as its cgroup allows.
pub(crate) fn plan_affinity(affinity: Option<&ExecCPUAffinity>) -> Result<AffinityPlan, InvalidSpec> {
    let Some(affinity) = affinity else { return Ok(AffinityPlan::default()) };
    let set = |name: &str, list: &Option<String>| {
        let list = list.as_deref().filter(|list| !list.is_empty());
        list.map(|list| {
            parse_cpus(list).ok_or_else(|| invalid(name, "it is no list of CPUs below 1024, such as `0,2-3`"))
        })
        .transpose()
    };
    let initial = set("process.execCPUAffinity.initial", affinity.initial())?;
    let last = set("process.execCPUAffinity.final", affinity.cpu_affinity_final())?;
    let last = match (last, &initial) {
        (Some(cpus), _) => Affinity::Only(cpus),
        (None, Some(_)) => Affinity::Inherited,
        (None, None) => Affinity::All,
    };
    Ok(AffinityPlan { initial, last })
}

fn parse_cpus(list: &str) -> Option<CpuSet> {
    let mask = parse_nodes(list)?;
    let mut cpus = CpuSet::new();
    (0..CpuSet::MAX_CPU).filter(|cpu| mask[cpu / 64] & 1 << (cpu % 64) != 0).for_each(|cpu| cpus.set(cpu));
    Some(cpus)
}

impl SchedulingPlan {
    /// What `process` says; personality and memory policy come from `linux` by [`Self::with_linux`].
    pub(crate) fn from_spec(process: &Process) -> Result<Self, InvalidSpec> {
        let io_priority = process.io_priority().as_ref().map(|one| {
            let class = match one.class() {
                IOPriorityClass::IoprioClassRt => 1,
                IOPriorityClass::IoprioClassBe => 2,
                IOPriorityClass::IoprioClassIdle => 3,
            };
            i32::try_from(one.priority())
                .ok()
                .filter(|level| (0..8).contains(level))
                .map(|level| class << 13 | level)
        });
        let io_priority = match io_priority {
            Some(None) => return Err(invalid("process.ioPriority.priority", "it is not between 0 and 7")),
            Some(value) => value,
            None => None,
        };
        let mut rlimits = Vec::new();
        for limit in process.rlimits().iter().flatten() {
            let resource = resource(limit.typ()).ok_or_else(|| {
                invalid("process.rlimits", "RLIMIT_RTTIME and others unknown to the runtime")
            })?;
            if rlimits.iter().any(|(other, _, _)| *other == resource) {
                return Err(invalid("process.rlimits", "a type is given twice"));
            }
            rlimits.push((resource, limit.soft(), limit.hard()));
        }
        Ok(SchedulingPlan {
            scheduler: process.scheduler().as_ref().map(plan_scheduler).transpose()?,
            io_priority,
            outer: OuterLimits {
                oom_score_adj: process.oom_score_adj(),
                affinity: Affinity::default(),
                rlimits,
            },
            ..SchedulingPlan::default()
        })
    }

    /// Sets what a process sets for itself. Comes while it still has its privileges.
    pub(crate) fn apply(&self) -> Result<(), StepError> {
        if let Some(attributes) = &self.scheduler {
            sys::set_scheduler(attributes).step("set", "the scheduler")?;
        }
        if let Some(value) = self.io_priority {
            sys::set_io_priority(value).step("set", "the I/O priority")?;
        }
        if let Some((mode, nodes)) = &self.memory_policy {
            sys::set_memory_policy(*mode, nodes).step("set", "the memory policy")?;
        }
        match self.personality {
            Some(domain) => sys::set_personality(domain).step("set", "the personality"),
            None => Ok(()),
        }
    }
}

impl OuterLimits {
    /// Sets the limits of `process`.
    pub(crate) fn apply(&self, process: Pid) -> Result<(), StepError> {
        self.apply_rlimits(Some(process))?;
        self.apply_others(process)
    }

    /// Sets the rlimits of a process, of the calling one with `None`.
    pub(crate) fn apply_rlimits(&self, process: Option<Pid>) -> Result<(), StepError> {
        for (resource, soft, hard) in &self.rlimits {
            // All ones is how getrlimit(2) writes "unlimited", and rustix as `None`.
            let value = |limit: u64| (limit != u64::MAX).then_some(limit);
            let limit = Rlimit { current: value(*soft), maximum: value(*hard) };
            rustix::process::prlimit(process, *resource, limit)
                .step("set", format_args!("{resource:?} to {soft}/{hard}"))?;
        }
        Ok(())
    }

    /// Sets what limits nobody who is setting up a container.
    pub(crate) fn apply_others(&self, process: Pid) -> Result<(), StepError> {
        self.affinity.apply(process).step("set the CPU affinity of", process.as_raw_nonzero())?;
        let Some(value) = self.oom_score_adj else { return Ok(()) };
        let path = format!("/proc/{}/oom_score_adj", process.as_raw_nonzero());
        std::fs::write(&path, value.to_string()).step("write", path)
    }
}

impl AffinityPlan {
    /// Binds the calling process to the initial CPUs; what it clones inherits them.
    pub(crate) fn begin(&self) -> Result<(), StepError> {
        match &self.initial {
            Some(cpus) => sched_setaffinity(None, cpus).step("set the CPU affinity of", "the runtime"),
            None => Ok(()),
        }
    }
}

impl Affinity {
    fn apply(&self, process: Pid) -> Result<(), Errno> {
        match self {
            Affinity::Inherited => Ok(()),
            Affinity::Only(cpus) => sched_setaffinity(Some(process), cpus),
            Affinity::All => {
                let mut all = CpuSet::new();
                (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
                match sched_setaffinity(Some(process), &all) {
                    // A host that forbids it (a filter, no right over the process) has bound it for good.
                    Err(Errno::PERM | Errno::NOSYS) => Ok(()),
                    result => result,
                }
            }
        }
    }
}

fn plan_scheduler(scheduler: &Scheduler) -> Result<SchedulerAttributes, InvalidSpec> {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flags = scheduler.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSchedulerFlag::SchedResetOnFork => 1,
                LinuxSchedulerFlag::SchedFlagReclaim => 2,
                LinuxSchedulerFlag::SchedFlagDLOverrun => 4,
                LinuxSchedulerFlag::SchedFlagKeepPolicy => 8,
                LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
                LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
                LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
            }
    });
    let nice = scheduler.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(invalid("process.scheduler.nice", "it is not between -20 and 19"));
    }
    let priority = scheduler.priority().unwrap_or(0);
    if priority != 0 && !matches!(policy, 1 | 2) {
        return Err(invalid("process.scheduler.priority", "only SCHED_FIFO and SCHED_RR have one"));
    }
    let (runtime, deadline, period) = (scheduler.runtime(), scheduler.deadline(), scheduler.period());
    if policy != 6 && [runtime, deadline, period].iter().any(|one| one.is_some_and(|value| value != 0)) {
        return Err(invalid("process.scheduler", "runtime, deadline and period belong to SCHED_DEADLINE"));
    }
    Ok(SchedulerAttributes {
        size: 48,
        policy,
        flags,
        nice,
        priority: u32::try_from(priority)
            .map_err(|_| invalid("process.scheduler.priority", "it is below 0"))?,
        runtime: runtime.unwrap_or(0),
        deadline: deadline.unwrap_or(0),
        period: period.unwrap_or(0),
    })
}

/// The argument of personality(2).
pub(crate) fn plan_personality(personality: &LinuxPersonality) -> Result<u64, InvalidSpec> {
    if personality.flags().iter().flatten().next().is_some() {
        return Err(invalid("linux.personality.flags", "runtime-spec defines no flags yet"));
    }
    Ok(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

/// The arguments of set_mempolicy(2).
pub(crate) fn plan_memory_policy(policy: &LinuxMemoryPolicy) -> Result<(i32, [u64; 16]), InvalidSpec> {
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            }
    });
    let nodes = parse_nodes(policy.nodes().as_deref().unwrap_or("")).ok_or_else(|| {
        invalid("linux.memoryPolicy.nodes", "it is no list of nodes below 1024, such as `0,2-3`")
    })?;
    Ok((mode | flags, nodes))
}

fn parse_nodes(list: &str) -> Option<[u64; 16]> {
    let mut mask = [0_u64; 16];
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if first > last || last >= 1024 {
            return None;
        }
        for node in first..=last {
            mask[node / 64] |= 1 << (node % 64);
        }
    }
    Some(mask)
}

fn resource(kind: PosixRlimitType) -> Option<Resource> {
    Some(match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_lists_are_read() {
        assert_eq!(parse_nodes("0,2-3,64").unwrap()[..2], [0b1101, 1]);
        assert_eq!(parse_nodes("3-1"), None);
        assert_eq!(parse_nodes("1024"), None);
    }

    #[test]
    fn an_affinity_without_final_stays_the_initial_one() {
        let plan = |json: &str| plan_affinity(Some(&serde_json::from_str(json).unwrap()));
        let both = plan(r#"{"initial":"0-1","final":"3"}"#).unwrap();
        assert!(both.initial.is_some_and(|cpus| cpus.count() == 2 && cpus.is_set(1)));
        assert!(matches!(both.last, Affinity::Only(cpus) if cpus.count() == 1 && cpus.is_set(3)));
        assert!(matches!(plan(r#"{"initial":"0"}"#).unwrap().last, Affinity::Inherited));
        assert!(matches!(plan_affinity(None).unwrap().last, Affinity::All));
        assert!(plan(r#"{"final":"5-2"}"#).is_err());
    }
}
