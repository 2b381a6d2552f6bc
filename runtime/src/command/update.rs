//! `update`: new limits for a container, from flags or from JSON.

use std::io::Read;
use std::str::FromStr;

use oci_spec::runtime::{
    Linux, LinuxBlockIo, LinuxCpu, LinuxIntelRdt, LinuxMemory, LinuxPids, LinuxResources, Spec,
};

use crate::cli::Parsed;
use crate::context::Context;
use crate::document;
use crate::error::RuntimeError;
use crate::intel_rdt::ResourceClass;
use crate::state::Status;

/// Applies new limits to a container and keeps them with its spec, so that the next update goes on from them.
pub(super) fn run(parsed: &Parsed, context: &Context, input: &mut dyn Read) -> Result<u8, RuntimeError> {
    let id = super::only_id("update", parsed)?;
    let (directory, state) = super::load(id, context)?;
    if super::status(&directory, &state) == Status::Stopped {
        return Err(RuntimeError::NotRunning);
    }
    let path = directory.spec_path();
    let json = |source| RuntimeError::Json { path: path.clone(), source };
    let text = std::fs::read(&path).map_err(|source| RuntimeError::File {
        operation: "read",
        path: path.clone(),
        source,
    })?;
    let mut spec: Spec = document::parse(&text).map_err(json)?;
    let mut linux = spec.linux().clone().unwrap_or_default();
    let current = linux.resources().clone().unwrap_or_default();
    let update = complete(&current, resources(|name| parsed.value(name), input)?);
    let class = new_class(&linux, &|name| parsed.value(name));
    linux.set_intel_rdt(class.or_else(|| linux.intel_rdt().clone()));
    let is_new_class = linux.intel_rdt() != spec.linux().as_ref().map_or(&None, |linux| linux.intel_rdt());
    linux.set_resources(Some(merge(&current, &update)));
    spec.set_linux(Some(linux));
    let class = if is_new_class { ResourceClass::from_spec(&spec, &state.id)? } else { None };
    let cgroup = super::open_cgroup(&state)?;
    if let Err(error) = cgroup.apply(&update) {
        // What was written before the one that is refused is taken back, as far as the spec says what it was. As with runc.
        cgroup.apply(&current).ok();
        return Err(error.into());
    }
    if let Some(class) = class {
        class.apply(state.init_process_pid)?;
    }
    directory.replace_spec(&serde_json::to_vec(&spec).map_err(json)?)?;
    Ok(0)
}

/// The container's resource class with the schemas that the flags give, if they give one.
fn new_class<'a>(linux: &Linux, flag: &impl Fn(&str) -> Option<&'a str>) -> Option<LinuxIntelRdt> {
    let given = |name| flag(name).filter(|value| !value.is_empty()).map(str::to_owned);
    let (cache, bandwidth) = (given("l3-cache-schema"), given("mem-bw-schema"));
    if cache.is_none() && bandwidth.is_none() {
        return None;
    }
    let mut class = linux.intel_rdt().clone().unwrap_or_default();
    if cache.is_some() {
        class.set_l3_cache_schema(cache);
    }
    if bandwidth.is_some() {
        class.set_mem_bw_schema(bandwidth);
    }
    Some(class)
}

/// Why new limits were not understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpdateError {
    /// A flag's value.
    #[error("invalid value for {flag}: {value:?}")]
    Value {
        /// The flag without its dashes.
        flag: &'static str,
        /// What was given.
        value: String,
    },
    /// The file with new limits.
    #[error("cannot read resources from `{path}`")]
    Read {
        /// The file, `-` for standard input.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its content.
    #[error("cannot parse resources from `{path}`")]
    Parse {
        /// The file, `-` for standard input.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What the flags of `update` ask for; `flag` gives the value of one, if it was given. With `--resources` the file, or
/// `input` for `-`, counts alone. Devices are left as they are, as runc leaves them.
///
/// # Errors
/// [`UpdateError`] by the flag's name.
fn resources<'a>(
    flag: impl Fn(&str) -> Option<&'a str>,
    input: &mut dyn Read,
) -> Result<LinuxResources, UpdateError> {
    if let Some(path) = flag("resources").filter(|path| !path.is_empty()) {
        return read(path, input);
    }
    let mut resources = LinuxResources::default();
    resources.set_devices(None);
    resources.set_memory(memory(&flag)?);
    resources.set_cpu(cpu(&flag)?);
    if let Some(limit) = number(&flag, "pids-limit")? {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    if let Some(weight) = number(&flag, "blkio-weight")?.filter(|weight| *weight != 0) {
        let mut block_io = LinuxBlockIo::default();
        block_io.set_weight(Some(weight));
        resources.set_block_io(Some(block_io));
    }
    Ok(resources)
}

fn read(path: &str, input: &mut dyn Read) -> Result<LinuxResources, UpdateError> {
    let mut text = Vec::new();
    let result = match path {
        "-" => input.read_to_end(&mut text).map(|_| ()),
        path => std::fs::read(path).map(|content| text = content),
    };
    result.map_err(|source| UpdateError::Read { path: path.to_owned(), source })?;
    let mut resources: LinuxResources = serde_json::from_slice(&text)
        .map_err(|source| UpdateError::Parse { path: path.to_owned(), source })?;
    resources.set_devices(None);
    if resources.pids().as_ref().is_some_and(|pids| pids.limit() == 0)
        && !document::has_number(&text, "/pids/limit")
    {
        resources.set_pids(None);
    }
    Ok(resources)
}

fn memory<'a>(flag: &impl Fn(&str) -> Option<&'a str>) -> Result<Option<LinuxMemory>, UpdateError> {
    let names = ["memory", "memory-swap", "memory-reservation", "kernel-memory", "kernel-memory-tcp"];
    if names.iter().all(|name| flag(name).is_none()) {
        return Ok(None);
    }
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(bytes(flag, "memory")?)
        .set_swap(bytes(flag, "memory-swap")?)
        .set_reservation(bytes(flag, "memory-reservation")?)
        .set_kernel(bytes(flag, "kernel-memory")?)
        .set_kernel_tcp(bytes(flag, "kernel-memory-tcp")?);
    Ok(Some(memory))
}

fn cpu<'a>(flag: &impl Fn(&str) -> Option<&'a str>) -> Result<Option<LinuxCpu>, UpdateError> {
    let text = |name| flag(name).filter(|value| !value.is_empty()).map(str::to_owned);
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(number(flag, "cpu-share")?)
        .set_quota(number(flag, "cpu-quota")?)
        .set_period(number(flag, "cpu-period")?)
        .set_burst(number(flag, "cpu-burst")?)
        .set_idle(number(flag, "cpu-idle")?)
        .set_realtime_period(number(flag, "cpu-rt-period")?)
        .set_realtime_runtime(number(flag, "cpu-rt-runtime")?)
        .set_cpus(text("cpuset-cpus"))
        .set_mems(text("cpuset-mems"));
    Ok(Some(cpu).filter(|cpu| *cpu != LinuxCpu::default()))
}

fn number<'a, N: FromStr>(
    flag: &impl Fn(&str) -> Option<&'a str>,
    name: &'static str,
) -> Result<Option<N>, UpdateError> {
    let Some(value) = flag(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| UpdateError::Value { flag: name, value: value.to_owned() })
}

fn bytes<'a>(
    flag: &impl Fn(&str) -> Option<&'a str>,
    name: &'static str,
) -> Result<Option<i64>, UpdateError> {
    let Some(value) = flag(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    parse_bytes(value).map(Some).ok_or_else(|| UpdateError::Value { flag: name, value: value.to_owned() })
}

/// `-1`, or a number with a binary unit as Docker's units package reads it: `64m`, `1.5 GiB`, `512kb`, `1000`.
fn parse_bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    match number.split_once('.') {
        None => number.parse::<i64>().ok()?.checked_mul(1 << shift),
        Some(_) => {
            let value = number.parse::<f64>().ok()? * (1_u64 << shift) as f64;
            #[allow(clippy::cast_possible_truncation, reason = "checked against the largest exact integer")]
            (value < 9.0e15).then_some(value as i64)
        }
    }
}

/// `update` with what it leaves out of a pair taken from `current`: a swap limit is meaningless without the memory limit, a
/// quota without its period. What runc does, which takes them from the limits it remembers.
fn complete(current: &LinuxResources, mut update: LinuxResources) -> LinuxResources {
    if let (Some(old), Some(new)) = (current.memory(), *update.memory()) {
        let mut memory = new;
        let is_touched = memory.limit().is_some() || memory.swap().is_some();
        // Without a memory limit there is none for swap either, unless it is given.
        if is_touched && memory.swap().is_none() && memory.limit() != Some(-1) {
            memory.set_swap(old.swap());
        }
        if is_touched && memory.limit().is_none() {
            memory.set_limit(old.limit());
        }
        update.set_memory(Some(memory));
    }
    if let (Some(old), Some(new)) = (current.cpu(), update.cpu().clone()) {
        let mut cpu = new;
        match (cpu.quota().filter(|quota| *quota != 0), cpu.period().filter(|period| *period != 0)) {
            (Some(_), None) => drop(cpu.set_period(old.period())),
            (None, Some(_)) => drop(cpu.set_quota(old.quota())),
            _ => {}
        }
        update.set_cpu(Some(cpu));
    }
    update
}

/// The limits that hold after `update`: `current` with every field that was given replaced. For the container's record.
fn merge(current: &LinuxResources, update: &LinuxResources) -> LinuxResources {
    let value = |resources: &LinuxResources| serde_json::to_value(resources).unwrap_or_default();
    let mut merged = value(current);
    overlay(&mut merged, value(update));
    serde_json::from_value(merged).unwrap_or_else(|_| current.clone())
}

fn overlay(below: &mut serde_json::Value, above: serde_json::Value) {
    match (below, above) {
        (serde_json::Value::Object(below), serde_json::Value::Object(above)) => {
            for (key, value) in above.into_iter().filter(|(_, value)| !value.is_null()) {
                overlay(below.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (below, above) => *below = above,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_flags(flags: &[(&str, &'static str)]) -> Result<LinuxResources, UpdateError> {
        let value = |name: &str| flags.iter().find(|(own, _)| *own == name).map(|(_, value)| *value);
        resources(value, &mut std::io::empty())
    }

    #[test]
    fn every_flag_reaches_its_field() {
        let resources = from_flags(&[
            ("memory", "64m"),
            ("memory-swap", "-1"),
            ("memory-reservation", "1.5KiB"),
            ("cpu-share", "512"),
            ("cpu-quota", "-1"),
            ("cpu-period", "50000"),
            ("cpu-burst", "7"),
            ("cpu-idle", "1"),
            ("cpuset-cpus", "0-1"),
            ("cpuset-mems", "0"),
            ("pids-limit", "-1"),
            ("blkio-weight", "500"),
        ])
        .unwrap();
        let memory = resources.memory().unwrap();
        assert_eq!(
            (memory.limit(), memory.swap(), memory.reservation()),
            (Some(64 << 20), Some(-1), Some(1536))
        );
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.shares(), cpu.quota(), cpu.period()), (Some(512), Some(-1), Some(50_000)));
        assert_eq!((cpu.burst(), cpu.idle(), cpu.cpus().as_deref()), (Some(7), Some(1), Some("0-1")));
        assert_eq!(resources.pids().unwrap().limit(), -1);
        assert_eq!(resources.block_io().as_ref().unwrap().weight(), Some(500));
        assert!(resources.devices().is_none());
    }

    #[test]
    fn nothing_given_is_nothing_changed_and_nonsense_is_named() {
        let nothing = from_flags(&[]).unwrap();
        assert!(nothing.memory().is_none() && nothing.cpu().is_none() && nothing.pids().is_none());
        for (flag, value) in [("memory", "x"), ("memory", "1q"), ("cpu-share", "-1"), ("pids-limit", "many")]
        {
            assert!(from_flags(&[(flag, value)]).unwrap_err().to_string().contains(flag));
        }
        let flag = |name: &str| (name == "mem-bw-schema").then_some("MB:0=20");
        let class = new_class(&Linux::default(), &flag).unwrap();
        assert_eq!((class.mem_bw_schema().as_deref(), class.l3_cache_schema()), (Some("MB:0=20"), &None));
        assert!(from_flags(&[("resources", "/nonexistent")]).is_err());
    }

    #[test]
    fn json_is_read_from_standard_input() {
        let value = |name: &str| (name == "resources").then_some("-");
        let read = |text: &str| resources(value, &mut text.as_bytes());
        assert_eq!(read(r#"{"memory": {"limit": 5}}"#).unwrap().memory().unwrap().limit(), Some(5));
        assert!(matches!(read("{"), Err(UpdateError::Parse { .. })));
    }

    #[test]
    fn half_a_pair_is_completed_from_what_holds() {
        let current = serde_json::from_str(
            r#"{"memory": {"limit": 100, "swap": 200}, "cpu": {"quota": 5000, "period": 10000, "shares": 2}}"#,
        )
        .unwrap();
        let completed = complete(&current, from_flags(&[("memory", "150"), ("cpu-quota", "7000")]).unwrap());
        let memory = completed.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(150), Some(200)));
        let cpu = completed.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.period(), cpu.shares()), (Some(7000), Some(10_000), None));
        let unlimited = complete(&current, from_flags(&[("memory", "-1")]).unwrap());
        assert_eq!(unlimited.memory().unwrap().swap(), None);
        let merged = merge(&current, &completed);
        assert_eq!(merged.cpu().as_ref().unwrap().shares(), Some(2));
        assert_eq!(merged.memory().unwrap().limit(), Some(150));
    }
}
