//! The limits in the files of the container's cgroup (cgroup v2) against linux.resources.

use std::path::PathBuf;

use serde_json::Value;

use super::edit::{remove, set};
use super::{ReadbackError, Reading, Step};
use crate::cgroup::{
    CgroupMode, Limit, cgroup_directory, conversions_matching, read_cgroup_mode, read_cgroup_path,
    read_limit, read_present_text,
};
use crate::name::CgroupPath;

/// The kernel counts memory in pages; every architecture that containerd runs on has them of 4096 bytes or a multiple.
const PAGE: u64 = 4096;

pub(super) fn read_cgroup(reading: &mut Reading<'_>) -> Step {
    let Some(path) = read_cgroup_path(reading.host, reading.pid)? else { return Ok(None) };
    if read_cgroup_mode(reading.host) != Some(CgroupMode::Unified) {
        reading
            .notes
            .push("this host has cgroup v1: limits are taken from the spec and not checked".to_owned());
        return Ok(Some(()));
    }
    let (path, scope) = limited_cgroup(&path);
    let cgroup = Cgroup { directory: cgroup_directory(reading.host, &path), scope };
    put_memory(reading, &cgroup)?;
    put_cpu(reading, &cgroup)?;
    put_pids(reading, &cgroup)?;
    put_cpu_sets(reading, &cgroup)?;
    put_unified(reading, &cgroup)?;
    Ok(Some(()))
}

/// With the systemd driver crun puts processes into `container` below the scope; the limits are the scope's.
fn limited_cgroup(path: &CgroupPath) -> (CgroupPath, bool) {
    let own = path.as_str().strip_suffix("/container").filter(|above| above.ends_with(".scope"));
    let own = own.unwrap_or(path.as_str());
    (CgroupPath::new(own), own.ends_with(".scope"))
}

struct Cgroup {
    directory: PathBuf,
    /// Whether it is a unit of systemd, which has defaults of its own.
    scope: bool,
}

impl Cgroup {
    fn limit(&self, file: &str) -> Result<Option<Limit>, ReadbackError> {
        Ok(read_limit(&self.directory.join(file))?)
    }

    fn text(&self, file: &str) -> Result<Option<String>, ReadbackError> {
        Ok(read_present_text(&self.directory.join(file))?)
    }
}

/// A limit of the spec; absent, negative and 0 are none.
fn asked(base: &Value, pointer: &str) -> Option<u64> {
    base.pointer(pointer).and_then(Value::as_u64).filter(|number| *number > 0)
}

fn is_limit(actual: Limit, wanted: Option<u64>) -> bool {
    match (actual, wanted) {
        (Limit::Max, None) => true,
        (Limit::Value(actual), Some(wanted)) => actual == wanted || actual == wanted / PAGE * PAGE,
        _ => false,
    }
}

fn put(reading: &mut Reading<'_>, pointer: &str, actual: Limit) {
    match actual {
        Limit::Max => remove(&mut reading.enforced, pointer),
        Limit::Value(number) => set(&mut reading.enforced, pointer, number),
    }
}

fn put_memory(reading: &mut Reading<'_>, cgroup: &Cgroup) -> Result<(), ReadbackError> {
    const LIMIT: &str = "/linux/resources/memory/limit";
    const SWAP: &str = "/linux/resources/memory/swap";
    const RESERVATION: &str = "/linux/resources/memory/reservation";
    let limit = asked(reading.base, LIMIT);
    let maximum = cgroup.limit("memory.max")?;
    if let Some(actual) = maximum.filter(|actual| !is_limit(*actual, limit)) {
        put(reading, LIMIT, actual);
    }
    // runtime-spec counts memory and swap together, cgroup v2 swap alone.
    let swap = asked(reading.base, SWAP).zip(limit).map(|(swap, limit)| swap.saturating_sub(limit));
    if let Some(actual) = cgroup.limit("memory.swap.max")?.filter(|actual| !is_limit(*actual, swap)) {
        match (actual, maximum) {
            (Limit::Value(swap), Some(Limit::Value(memory))) => {
                put(reading, SWAP, Limit::Value(swap.saturating_add(memory)))
            }
            (Limit::Max, _) => put(reading, SWAP, Limit::Max),
            _ => {}
        }
    }
    let wanted = asked(reading.base, RESERVATION).unwrap_or(0);
    if let Some(actual) = cgroup.limit("memory.low")?.filter(|actual| !is_limit(*actual, Some(wanted))) {
        put(reading, RESERVATION, if actual == Limit::Value(0) { Limit::Max } else { actual });
    }
    Ok(())
}

fn put_cpu(reading: &mut Reading<'_>, cgroup: &Cgroup) -> Result<(), ReadbackError> {
    const SHARES: &str = "/linux/resources/cpu/shares";
    let idle = reading.base.pointer("/linux/resources/cpu/idle").and_then(Value::as_i64).unwrap_or(0) != 0;
    let weight = cgroup.text("cpu.weight")?.and_then(|text| text.trim().parse::<u64>().ok());
    if let Some(weight) = weight.filter(|_| !idle) {
        let fits = match asked(reading.base, SHARES) {
            None => weight == 100,
            Some(shares) => !conversions_matching(shares, weight).is_empty(),
        };
        if !fits {
            set(&mut reading.enforced, SHARES, shares_of(weight));
        }
    }
    let Some(text) = cgroup.text("cpu.max")? else { return Ok(()) };
    let Some((quota, period)) = parse_cpu_max(&text) else { return Ok(()) };
    let wanted = asked(reading.base, "/linux/resources/cpu/quota");
    let wanted_period = asked(reading.base, "/linux/resources/cpu/period").unwrap_or(100_000);
    let fits = match (quota, wanted) {
        (None, None) => true,
        (Some(quota), Some(wanted)) => is_same_share((quota, period), (wanted, wanted_period), cgroup.scope),
        _ => false,
    };
    if !fits {
        match quota {
            None => remove(&mut reading.enforced, "/linux/resources/cpu/quota"),
            Some(quota) => {
                set(&mut reading.enforced, "/linux/resources/cpu/quota", quota);
                set(&mut reading.enforced, "/linux/resources/cpu/period", period);
            }
        }
    }
    Ok(())
}

/// `50000 100000`, `max 100000`.
fn parse_cpu_max(text: &str) -> Option<(Option<u64>, u64)> {
    let (quota, period) = text.trim().split_once(' ')?;
    let quota = if quota == "max" { None } else { Some(quota.parse().ok()?) };
    Some((quota, period.parse().ok()?))
}

/// systemd rounds a quota up to 10 ms a second.
fn is_same_share(actual: (u64, u64), wanted: (u64, u64), scope: bool) -> bool {
    if actual == wanted {
        return true;
    }
    let per_second = |(quota, period): (u64, u64)| u128::from(quota) * 1_000_000 / u128::from(period.max(1));
    scope && per_second(actual).abs_diff(per_second(wanted)) <= 10_000
}

/// Shares that the older conversion makes this weight of: a weight on either side of both conversions' weights stays
/// on that side.
fn shares_of(weight: u64) -> u64 {
    2 + weight.saturating_sub(1) * 262_142 / 9999
}

fn put_pids(reading: &mut Reading<'_>, cgroup: &Cgroup) -> Result<(), ReadbackError> {
    const LIMIT: &str = "/linux/resources/pids/limit";
    let wanted = asked(reading.base, LIMIT);
    let Some(actual) = cgroup.limit("pids.max")? else { return Ok(()) };
    let fits = match (actual, wanted) {
        (Limit::Value(actual), Some(wanted)) => actual == wanted,
        (actual, wanted) => is_limit(actual, wanted),
    };
    match actual {
        _ if fits => {}
        Limit::Value(number) if cgroup.scope && wanted.is_none() => {
            reading
                .notes
                .push(format!("pids.max is {number}: systemd's (DefaultTasksMax, or the unit's own TasksMax), as the spec names no limit"));
        }
        _ => put(reading, LIMIT, actual),
    }
    Ok(())
}

fn put_cpu_sets(reading: &mut Reading<'_>, cgroup: &Cgroup) -> Result<(), ReadbackError> {
    for (file, pointer) in
        [("cpuset.cpus", "/linux/resources/cpu/cpus"), ("cpuset.mems", "/linux/resources/cpu/mems")]
    {
        let Some(text) = cgroup.text(file)? else { continue };
        let wanted = reading.base.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if expand(&text) != expand(wanted) {
            match text.trim() {
                "" => remove(&mut reading.enforced, pointer),
                text => set(&mut reading.enforced, pointer, text),
            }
        }
    }
    Ok(())
}

/// The numbers of a list such as `0-2,7` (cpuset(7)); `None` for what is no list.
fn expand(text: &str) -> Option<std::collections::BTreeSet<u32>> {
    let mut numbers = std::collections::BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // No node has so many: a hostile range is not unrolled.
        if last >= 1 << 16 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

fn put_unified(reading: &mut Reading<'_>, cgroup: &Cgroup) -> Result<(), ReadbackError> {
    let Some(files) = reading.base.pointer("/linux/resources/unified").and_then(Value::as_object) else {
        return Ok(());
    };
    for (file, wanted) in files {
        // The name comes from the spec: a file of this cgroup and no path.
        if file.contains('/') || file.starts_with('.') {
            continue;
        }
        let wanted = wanted.as_str().unwrap_or_default().trim();
        let Some(actual) = cgroup.text(file)? else { continue };
        let actual = actual.trim();
        let same_pages = || match (actual.parse(), wanted.parse::<u64>()) {
            (Ok(actual), Ok(wanted)) => is_limit(Limit::Value(actual), Some(wanted)),
            _ => false,
        };
        // Files of several lines hold more than was written.
        if !actual.contains('\n') && actual != wanted && !same_pages() {
            set(&mut reading.enforced, &format!("/linux/resources/unified/{file}"), actual);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_whole_pages() {
        assert!(is_limit(Limit::Value(29_999_104), Some(30_000_000)));
        assert!(!is_limit(Limit::Value(30_000_000), None));
        assert!(!is_limit(Limit::Max, Some(1)));
    }

    #[test]
    fn crun_keeps_the_limits_in_the_scope() {
        let path = |text: &str| limited_cgroup(&CgroupPath::new(text)).0.as_str().to_owned();
        assert_eq!(path("/machine.slice/foo-sc2.scope/container"), "/machine.slice/foo-sc2.scope");
        assert_eq!(path("/default/container"), "/default/container");
    }

    #[test]
    fn lists_of_processors_are_sets() {
        assert_eq!(expand("0-2,4"), expand("4,2,1,0\n"));
        assert_eq!(expand("0-4000000000"), None);
    }
}
