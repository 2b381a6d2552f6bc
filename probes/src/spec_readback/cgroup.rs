//! The limits in the files of the container's cgroup (cgroup v2) against linux.resources.

use std::fmt::Display;
use std::path::PathBuf;

use serde_json::Value;

use super::edit::{remove, set};
use super::{ReadbackError, Reading, Step};
use crate::bundle::spec_cgroup_path;
use crate::cgroup::{
    CgroupMode, Limit, cgroup_directory, conversions_matching, read_cgroup_mode, read_cgroup_path,
    read_limit, read_present_text,
};
use crate::escape::quote;
use crate::name::CgroupPath;

/// `cpu.weight` of a cgroup that nobody gave one (cgroup-v2.rst).
const DEFAULT_WEIGHT: u64 = 100;

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
    let cgroups = Cgroups::of_container(reading, &path);
    put_memory(reading, &cgroups)?;
    put_cpu_weight(reading, &cgroups)?;
    put_cpu_quota(reading, &cgroups)?;
    put_pids(reading, &cgroups)?;
    put_cpu_sets(reading, &cgroups)?;
    put_unified(reading, &cgroups)?;
    Ok(Some(()))
}

/// The container's own cgroups, from the outermost down to that of its process; mostly one.
///
/// With the systemd driver crun puts processes into `container` below the scope: 1.8 has the limits there, later releases
/// in the scope. A container that runs systemd moves its init deeper as well. Limits bind all along that way.
struct Cgroups {
    paths: Vec<CgroupPath>,
    directories: Vec<PathBuf>,
    /// Whether the outermost is a unit of systemd, which has defaults of its own.
    scope: bool,
}

impl Cgroups {
    fn of_container(reading: &Reading<'_>, process: &CgroupPath) -> Self {
        let asked = reading.base.pointer("/linux/cgroupsPath").and_then(Value::as_str).unwrap_or_default();
        let paths = container_cgroups(asked, process);
        let directories = paths.iter().map(|path| cgroup_directory(reading.host, path)).collect();
        let scope = paths.first().is_some_and(|path| path.as_str().ends_with(".scope"));
        Self { paths, directories, scope }
    }

    /// The limits that are there, outermost first.
    fn limits(&self, file: &str) -> Result<Vec<Limit>, ReadbackError> {
        let read = |directory: &PathBuf| read_limit(&directory.join(file)).transpose();
        Ok(self.directories.iter().filter_map(read).collect::<Result<_, _>>()?)
    }

    /// The limit that binds.
    fn tightest(&self, file: &str) -> Result<Option<Limit>, ReadbackError> {
        Ok(self.limits(file)?.into_iter().min())
    }

    /// The texts that are there, outermost first.
    fn texts(&self, file: &str) -> Result<Vec<String>, ReadbackError> {
        let read = |directory: &PathBuf| read_present_text(&directory.join(file)).transpose();
        Ok(self.directories.iter().filter_map(read).collect::<Result<_, _>>()?)
    }

    /// What is to be known of a value that stands only below the outermost cgroup, where it has no neighbour to be
    /// weighed against.
    fn note_inner(&self, reading: &mut Reading<'_>, file: &str, inner: impl Display, outer: impl Display) {
        let (Some(first), Some(last)) = (self.paths.first(), self.paths.last()) else { return };
        reading.notes.push(format!(
            "{file} is {inner} in {} alone; beside other cgroups {} counts, which has {outer}",
            quote(last.as_str().as_bytes()),
            quote(first.as_str().as_bytes()),
        ));
    }
}

/// The cgroup that `cgroupsPath` asks for, where the process is in or below it, and all down to the process's own.
fn container_cgroups(asked: &str, process: &CgroupPath) -> Vec<CgroupPath> {
    let is_systemd = !asked.starts_with('/') && asked.matches(':').count() == 2;
    let below = |top: &str| {
        process.as_str().strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let of_spec =
        spec_cgroup_path(asked, is_systemd).filter(|path| path.as_str().len() > 1 && below(path.as_str()));
    let scope = || {
        let above = process.as_str().strip_suffix("/container").filter(|above| above.ends_with(".scope"));
        CgroupPath::new(above.unwrap_or(process.as_str()))
    };
    let top = of_spec.unwrap_or_else(scope);
    let rest = process.as_str().strip_prefix(top.as_str()).unwrap_or_default();
    let mut path = top.as_str().to_owned();
    let mut paths = vec![top];
    for name in rest.split('/').filter(|name| !name.is_empty()) {
        path.push('/');
        path.push_str(name);
        paths.push(CgroupPath::new(path.clone()));
    }
    paths
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

fn put_memory(reading: &mut Reading<'_>, cgroups: &Cgroups) -> Result<(), ReadbackError> {
    const LIMIT: &str = "/linux/resources/memory/limit";
    const SWAP: &str = "/linux/resources/memory/swap";
    const RESERVATION: &str = "/linux/resources/memory/reservation";
    let limit = asked(reading.base, LIMIT);
    let maximum = cgroups.tightest("memory.max")?;
    if let Some(actual) = maximum.filter(|actual| !is_limit(*actual, limit)) {
        put(reading, LIMIT, actual);
    }
    // runtime-spec counts memory and swap together, cgroup v2 swap alone.
    let swap = asked(reading.base, SWAP).zip(limit).map(|(swap, limit)| swap.saturating_sub(limit));
    if let Some(actual) = cgroups.tightest("memory.swap.max")?.filter(|actual| !is_limit(*actual, swap)) {
        match (actual, maximum) {
            (Limit::Value(swap), Some(Limit::Value(memory))) => {
                put(reading, SWAP, Limit::Value(swap.saturating_add(memory)))
            }
            (Limit::Max, _) => put(reading, SWAP, Limit::Max),
            _ => {}
        }
    }
    let wanted = asked(reading.base, RESERVATION).unwrap_or(0);
    let protections = cgroups.limits("memory.low")?;
    let fits = |actual: &Limit| is_limit(*actual, Some(wanted));
    match (protections.first(), protections.iter().any(fits)) {
        (Some(outer), true) if wanted > 0 && !fits(outer) => {
            cgroups.note_inner(reading, "memory.low", wanted, outer);
        }
        (Some(Limit::Value(0)), false) => remove(&mut reading.enforced, RESERVATION),
        (Some(actual), false) => put(reading, RESERVATION, *actual),
        _ => {}
    }
    Ok(())
}

fn put_cpu_weight(reading: &mut Reading<'_>, cgroups: &Cgroups) -> Result<(), ReadbackError> {
    const SHARES: &str = "/linux/resources/cpu/shares";
    let idle = reading.base.pointer("/linux/resources/cpu/idle").and_then(Value::as_i64).unwrap_or(0) != 0;
    let texts = cgroups.texts("cpu.weight")?;
    let weights: Vec<u64> = texts.iter().filter_map(|text| text.trim().parse().ok()).collect();
    let Some(outer) = weights.first().copied().filter(|_| !idle) else { return Ok(()) };
    let shares = asked(reading.base, SHARES);
    let fits = |weight: &u64| match shares {
        None => *weight == DEFAULT_WEIGHT,
        Some(shares) => !conversions_matching(shares, *weight).is_empty(),
    };
    match weights.iter().find(|weight| fits(weight)) {
        // Only a weight that was asked for can be in the wrong place.
        Some(inner) if !fits(&outer) && shares.is_some() && outer == DEFAULT_WEIGHT => {
            cgroups.note_inner(reading, "cpu.weight", inner, outer);
        }
        Some(_) if fits(&outer) => {}
        _ => set(&mut reading.enforced, SHARES, shares_of(outer)),
    }
    Ok(())
}

fn put_cpu_quota(reading: &mut Reading<'_>, cgroups: &Cgroups) -> Result<(), ReadbackError> {
    const QUOTA: &str = "/linux/resources/cpu/quota";
    const PERIOD: &str = "/linux/resources/cpu/period";
    let texts = cgroups.texts("cpu.max")?;
    let tightest =
        texts.iter().filter_map(|text| parse_cpu_max(text)).min_by_key(|actual| per_second(*actual));
    let Some((quota, period)) = tightest else { return Ok(()) };
    let wanted = asked(reading.base, QUOTA);
    let wanted_period = asked(reading.base, PERIOD).unwrap_or(100_000);
    let fits = match (quota, wanted) {
        (None, None) => true,
        (Some(_), Some(_)) => is_same_share((quota, period), (wanted, wanted_period), cgroups.scope),
        _ => false,
    };
    match quota {
        _ if fits => {}
        None => remove(&mut reading.enforced, QUOTA),
        Some(quota) => {
            set(&mut reading.enforced, QUOTA, quota);
            set(&mut reading.enforced, PERIOD, period);
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

/// Microseconds of processor time a second; no quota is more than any.
fn per_second((quota, period): (Option<u64>, u64)) -> u128 {
    quota.map_or(u128::MAX, |quota| u128::from(quota) * 1_000_000 / u128::from(period.max(1)))
}

/// systemd rounds a quota up to 10 ms a second.
fn is_same_share(actual: (Option<u64>, u64), wanted: (Option<u64>, u64), scope: bool) -> bool {
    actual == wanted || scope && per_second(actual).abs_diff(per_second(wanted)) <= 10_000
}

/// Shares that the older conversion makes this weight of: a weight on either side of both conversions' weights stays
/// on that side.
fn shares_of(weight: u64) -> u64 {
    2 + weight.saturating_sub(1) * 262_142 / 9999
}

fn put_pids(reading: &mut Reading<'_>, cgroups: &Cgroups) -> Result<(), ReadbackError> {
    const LIMIT: &str = "/linux/resources/pids/limit";
    let wanted = asked(reading.base, LIMIT);
    let limits = cgroups.limits("pids.max")?;
    let Some(actual) = limits.iter().min().copied() else { return Ok(()) };
    let fits = |actual: Limit| actual == wanted.map_or(Limit::Max, Limit::Value);
    // A scope has a limit that nobody asked the runtime for: an inner cgroup then shows what it made of the spec's.
    let by_systemd = cgroups.scope
        && limits.first() == Some(&actual)
        && (wanted.is_none() || limits.iter().skip(1).any(|inner| fits(*inner)));
    match actual {
        _ if fits(actual) => {}
        Limit::Value(number) if by_systemd => {
            let asks = wanted.map_or_else(
                || "names no limit".to_owned(),
                |wanted| format!("asks for {wanted}, which an inner cgroup has"),
            );
            reading.notes.push(format!(
                "pids.max is {number}: systemd's (DefaultTasksMax, or the unit's own TasksMax), as the spec {asks}"
            ));
        }
        _ => put(reading, LIMIT, actual),
    }
    Ok(())
}

fn put_cpu_sets(reading: &mut Reading<'_>, cgroups: &Cgroups) -> Result<(), ReadbackError> {
    for (file, pointer) in
        [("cpuset.cpus", "/linux/resources/cpu/cpus"), ("cpuset.mems", "/linux/resources/cpu/mems")]
    {
        // An empty file takes over what is above. Runtimes write the same into each of their cgroups.
        let texts = cgroups.texts(file)?;
        let Some(text) = texts.iter().rev().find(|text| !text.trim().is_empty()).or(texts.first()) else {
            continue;
        };
        let wanted = reading.base.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if expand(text) != expand(wanted) {
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

fn put_unified(reading: &mut Reading<'_>, cgroups: &Cgroups) -> Result<(), ReadbackError> {
    let Some(files) = reading.base.pointer("/linux/resources/unified").and_then(Value::as_object) else {
        return Ok(());
    };
    for (file, wanted) in files {
        // The name comes from the spec: a file of this cgroup and no path.
        if file.contains('/') || file.starts_with('.') {
            continue;
        }
        let wanted = wanted.as_str().unwrap_or_default().trim();
        let texts = cgroups.texts(file)?;
        // Files of several lines hold more than was written.
        let fits = |actual: &str| {
            let same_pages = || match (actual.parse(), wanted.parse::<u64>()) {
                (Ok(actual), Ok(wanted)) => is_limit(Limit::Value(actual), Some(wanted)),
                _ => false,
            };
            actual.contains('\n') || actual == wanted || same_pages()
        };
        // What a file of any name means is not known: the runtime may have written it into either cgroup.
        if let Some(actual) = texts.first().map(|text| text.trim())
            && !texts.iter().any(|text| fits(text.trim()))
        {
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
    fn all_cgroups_from_the_containers_to_its_process_bind() {
        let cgroups = |asked: &str, process: &str| {
            let paths = container_cgroups(asked, &CgroupPath::new(process));
            paths.iter().map(CgroupPath::as_str).collect::<Vec<_>>().join(" ")
        };
        let scope = "/machine.slice/foo-sc2.scope";
        let inner = format!("{scope}/container");
        for asked in ["machine.slice:foo:sc2", "", "/elsewhere"] {
            assert_eq!(cgroups(asked, &inner), format!("{scope} {inner}"), "{asked}");
        }
        assert_eq!(cgroups("/default/web", "/default/web"), "/default/web");
        assert_eq!(
            cgroups("/default/web", "/default/web/init.scope"),
            "/default/web /default/web/init.scope"
        );
        assert_eq!(cgroups("/default/web", "/default/website"), "/default/website");
        assert_eq!(cgroups("/", "/default/container"), "/default/container");
    }

    /// The files of crun 1.8 under the systemd driver: the scope has systemd's own limits, the cgroup in it the spec's.
    #[test]
    fn limits_of_an_inner_cgroup_are_no_drift_and_a_change_there_is() {
        let root = tempfile::tempdir().unwrap();
        let scope = root.path().join("sys/fs/cgroup/machine.slice/x-web.scope");
        let write = |directory: &str, files: &[(&str, &str)]| {
            let directory = scope.join(directory);
            std::fs::create_dir_all(&directory).unwrap();
            for (name, text) in files {
                std::fs::write(directory.join(name), text).unwrap();
            }
        };
        write("", &[("memory.max", "max\n"), ("memory.low", "0\n"), ("pids.max", "2320\n")]);
        write("", &[("cpu.weight", "100\n"), ("cpu.max", "max 100000\n")]);
        write("container", &[("memory.max", "67108864\n"), ("memory.low", "4096\n"), ("pids.max", "5000\n")]);
        write("container", &[("cpu.weight", "20\n"), ("cpu.max", "50000 100000\n")]);
        std::fs::write(root.path().join("sys/fs/cgroup/cgroup.controllers"), "memory\n").unwrap();
        std::fs::create_dir_all(root.path().join("proc/7")).unwrap();
        std::fs::write(root.path().join("proc/7/cgroup"), "0::/machine.slice/x-web.scope/container\n")
            .unwrap();
        let base = serde_json::json!({"linux": {"cgroupsPath": "machine.slice:x:web", "resources": {
            "memory": {"limit": 67_108_864, "reservation": 4096},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000},
            "pids": {"limit": 5000},
        }}});
        let host = crate::Host::at(root.path());
        let read = || {
            let (pid, notes) = (crate::name::Pid::new(7), Vec::new());
            let mut reading = Reading { host: &host, pid, base: &base, enforced: base.clone(), notes };
            assert!(read_cgroup(&mut reading).unwrap().is_some());
            (reading.enforced, reading.notes)
        };
        let (enforced, notes) = read();
        assert_eq!(enforced, base);
        assert_eq!(notes.len(), 3, "{notes:#?}");
        assert!(
            notes[0].starts_with("memory.low is 4096 in ") && notes[1].ends_with("which has 100"),
            "{notes:#?}"
        );
        assert!(notes[2].contains("asks for 5000, which an inner cgroup has"), "{notes:#?}");
        write("", &[("cpu.max", "10000 100000\n"), ("cpu.weight", "1000\n")]);
        write("container", &[("memory.max", "max\n"), ("pids.max", "7\n")]);
        let (enforced, _) = read();
        let resources = &enforced["linux"]["resources"];
        assert_eq!(resources["memory"].get("limit"), None);
        assert_eq!((&resources["cpu"]["quota"], &resources["pids"]["limit"]), (&10_000.into(), &7.into()));
        assert!(resources["cpu"]["shares"].as_u64() > Some(512), "{resources}");
    }

    #[test]
    fn lists_of_processors_are_sets() {
        assert_eq!(expand("0-2,4"), expand("4,2,1,0\n"));
        assert_eq!(expand("0-4000000000"), None);
    }
}
