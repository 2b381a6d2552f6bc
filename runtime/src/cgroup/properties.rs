//! Limits as properties of a systemd unit, so that systemd, which owns the scope's cgroup, agrees with the files. Pure.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxBlockIo, LinuxResources};

use super::devices::{Device, Kind, Rules};
use super::error::CgroupError;
use super::resources::refuse;
use super::weight::{cpu_weight_from_shares, io_weight_from_blkio, swap_limit};

const INFINITY: u64 = u64::MAX;
/// 10 ms of a second: systemd keeps CPU quotas as whole per cents.
const ONE_PER_CENT: u64 = 10_000;
const SECOND: u64 = 1_000_000;
const DEFAULT_PERIOD: u64 = 100_000;

/// The value of a property.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// `b`
    Flag(bool),
    /// `t`
    Number(u64),
    /// `i`
    Integer(i32),
    /// `u`
    Unsigned(u32),
    /// `x`
    Long(i64),
    /// `d`
    Real(f64),
    /// `s`
    Text(String),
    /// `as`
    Texts(Vec<String>),
    /// `ay`
    Bytes(Vec<u8>),
    /// `au`
    Pids(Vec<u32>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
}

pub(super) type Properties = Vec<(String, Value)>;

/// The properties of a new scope around `pid`, but for its limits.
pub(super) fn scope_properties(description: &str, slice: &str, pid: u32) -> Properties {
    let mut properties = vec![
        ("Description".to_owned(), Value::Text(description.to_owned())),
        ("Slice".to_owned(), Value::Text(slice.to_owned())),
        ("Delegate".to_owned(), Value::Flag(true)),
        ("PIDs".to_owned(), Value::Pids(vec![pid])),
        ("DefaultDependencies".to_owned(), Value::Flag(false)),
    ];
    for accounting in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
        properties.push((accounting.to_owned(), Value::Flag(true)));
    }
    properties
}

/// `memory.oom.group` of `unified` as the unit's `OOMPolicy`, which can be set at its start alone (systemd 253 and later).
pub(super) fn oom_policy(resources: &LinuxResources, systemd: u32) -> Option<(String, Value)> {
    let value = resources.unified().as_ref()?.get("memory.oom.group")?;
    let policy = match (value.trim(), systemd) {
        ("0", 253..) => "continue",
        ("1", 253..) => "kill",
        _ => return None,
    };
    Some(("OOMPolicy".to_owned(), Value::Text(policy.to_owned())))
}

/// The limits. What systemd knows no property for is written to its file alone.
pub(super) fn limits(resources: &LinuxResources) -> Result<Properties, CgroupError> {
    let mut limits = Limits(Vec::new());
    limits.memory(resources)?;
    limits.cpu(resources)?;
    if let Some(pids) = resources.pids() {
        // systemd knows no limit of 0.
        limits.number("TasksMax", u64::try_from(pids.limit()).map_or(INFINITY, |limit| limit.max(1)));
    }
    if let Some(weight) = resources.block_io().as_ref().and_then(LinuxBlockIo::weight) {
        limits.io_weight(weight);
    }
    limits.unified(resources)?;
    Ok(limits.0)
}

struct Limits(Properties);

impl Limits {
    fn number(&mut self, name: &str, value: u64) {
        self.0.push((name.to_owned(), Value::Number(value)));
    }

    fn memory(&mut self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let Some(memory) = resources.memory() else { return Ok(()) };
        let limit = memory.limit().unwrap_or(0);
        let swap =
            swap_limit(memory.swap().unwrap_or(0), limit).map_err(|reason| refuse("memory.swap", reason))?;
        let set = [("MemoryMax", limit), ("MemoryLow", memory.reservation().unwrap_or(0))];
        for (name, value) in set.into_iter().filter(|(_, value)| *value != 0) {
            self.number(name, u64::try_from(value).unwrap_or(INFINITY));
        }
        if let Some(swap) = swap {
            self.number("MemorySwapMax", u64::try_from(swap).unwrap_or(INFINITY));
        }
        Ok(())
    }

    fn cpu(&mut self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let Some(cpu) = resources.cpu() else { return Ok(()) };
        match (cpu.idle(), cpu.shares().and_then(cpu_weight_from_shares)) {
            // A weight of 0 is systemd's word for idle (252 and later).
            (Some(1), _) => self.number("CPUWeight", 0),
            (_, Some(weight)) => self.number("CPUWeight", weight),
            _ => {}
        }
        let quota = cpu.quota().filter(|quota| *quota != 0);
        self.quota(quota, cpu.period().filter(|period| *period != 0));
        for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
            if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                self.0.push((name.to_owned(), Value::Bytes(bits(name, list)?)));
            }
        }
        Ok(())
    }

    /// systemd writes a weight whenever a unit nearby asks for one: its own default for one that it has not been told.
    fn io_weight(&mut self, weight: u16) {
        if weight != 0 {
            self.number("IOWeight", io_weight_from_blkio(weight));
        }
    }

    /// Of `io.weight` the default alone: systemd leaves those of devices as they are.
    fn unified_io_weight(&mut self, value: &str) -> Result<(), CgroupError> {
        let line = value.lines().map(str::trim).rfind(|line| !line.contains(':'));
        let Some(line) = line else { return Ok(()) };
        self.number("IOWeight", parse("io.weight", line.trim_start_matches("default").trim())?);
        Ok(())
    }

    /// systemd rounds a quota to whole per cents; it is rounded up so that a child cgroup may have what was asked for.
    fn quota(&mut self, quota: Option<i64>, period: Option<u64>) {
        if let Some(period) = period {
            self.number("CPUQuotaPeriodUSec", period);
        }
        if quota.is_none() && period.is_none() {
            return;
        }
        let per_second = quota.and_then(|quota| u64::try_from(quota).ok()).map_or(INFINITY, |quota| {
            let per_second =
                u128::from(quota) * u128::from(SECOND) / u128::from(period.unwrap_or(DEFAULT_PERIOD));
            u64::try_from(per_second).unwrap_or(INFINITY / 2).div_ceil(ONE_PER_CENT) * ONE_PER_CENT
        });
        self.number("CPUQuotaPerSecUSec", per_second);
    }

    fn unified(&mut self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let files: BTreeMap<_, _> = resources.unified().iter().flatten().collect();
        for (file, value) in files {
            let value = value.trim();
            match file.as_str() {
                "cpu.idle" if value == "1" => self.number("CPUWeight", 0),
                "cpu.weight" => self.number("CPUWeight", parse(file, value)?),
                "cpu.max" => self.unified_quota(value)?,
                "cpuset.cpus" => self.0.push(("AllowedCPUs".to_owned(), Value::Bytes(bits(file, value)?))),
                "cpuset.mems" => {
                    self.0.push(("AllowedMemoryNodes".to_owned(), Value::Bytes(bits(file, value)?)))
                }
                "io.weight" => self.unified_io_weight(value)?,
                "memory.high" => self.number("MemoryHigh", parse(file, value)?),
                "memory.low" => self.number("MemoryLow", parse(file, value)?),
                "memory.min" => self.number("MemoryMin", parse(file, value)?),
                "memory.max" => self.number("MemoryMax", parse(file, value)?),
                "memory.swap.max" => self.number("MemorySwapMax", parse(file, value)?),
                "pids.max" => self.number("TasksMax", parse(file, value)?.max(1)),
                _ => {}
            }
        }
        Ok(())
    }

    fn unified_quota(&mut self, value: &str) -> Result<(), CgroupError> {
        let mut words = value.split_whitespace();
        let quota = match words.next() {
            Some("max") => -1,
            Some(word) => i64::try_from(parse("cpu.max", word)?).unwrap_or(-1),
            None => return Err(refuse("unified[cpu.max]", "it is empty")),
        };
        let period = words.next().map_or(Ok(DEFAULT_PERIOD), |word| parse("cpu.max", word))?;
        self.quota(Some(quota), Some(period));
        Ok(())
    }
}

fn parse(file: &str, value: &str) -> Result<u64, CgroupError> {
    if value == "max" {
        return Ok(INFINITY);
    }
    value.parse().map_err(|_| refuse(&format!("unified[{file}]"), format!("{value:?} is no number")))
}

/// A list such as `0-3,8` as a bit mask, least significant byte first.
fn bits(field: &str, list: &str) -> Result<Vec<u8>, CgroupError> {
    let wrong = || refuse(field, format!("{list:?} is not a list of numbers and ranges below 8192"));
    let mut mask = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number =
            |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number < 8192).ok_or_else(wrong);
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        mask.resize(mask.len().max(last / 8 + 1), 0);
        (first..=last).for_each(|bit| mask[bit / 8] |= 1 << (bit % 8));
    }
    if mask.is_empty() { Err(wrong()) } else { Ok(mask) }
}

/// The device rules, as far as systemd can say them (its rules name a device, all of a major number, or all of a kind). The
/// program that the runtime attaches itself is what counts; without these systemd would add a narrower one of its own. So it would
/// with rules that leave one out: then it is told none.
pub(super) fn devices(rules: &Rules) -> Properties {
    let policy = |policy: &str, allowed| {
        vec![
            ("DevicePolicy".to_owned(), Value::Text(policy.to_owned())),
            ("DeviceAllow".to_owned(), Value::Pairs(allowed)),
        ]
    };
    let allowed =
        rules.exceptions.iter().map(|(device, access)| Some((device_name(device)?, letters(*access))));
    match allowed.collect() {
        Some(allowed) if !rules.allows_by_default => policy("strict", allowed),
        _ => policy("auto", Vec::new()),
    }
}

fn device_name(device: &Device) -> Option<String> {
    let (directory, kind) = match device.kind {
        Kind::Block => ("block", "block"),
        Kind::Character => ("char", "char"),
    };
    match (device.major, device.minor) {
        (None, None) => Some(format!("{kind}-*")),
        (Some(major), None) => Some(format!("{kind}-{major}")),
        (Some(major), Some(minor)) => Some(format!("/dev/{directory}/{major}:{minor}")),
        (None, Some(_)) => None,
    }
}

fn letters(access: u8) -> String {
    [(2, 'r'), (4, 'w'), (1, 'm')]
        .into_iter()
        .filter(|(bit, _)| access & bit != 0)
        .map(|(_, letter)| letter)
        .collect()
}

/// The properties that annotations `org.systemd.property.NAME` ask for, their values in GVariant text format. A name that
/// ends in `Sec` is in seconds and becomes the `USec` property, as with runc.
pub(super) fn from_annotations<'a>(
    annotations: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Properties, CgroupError> {
    let mut properties = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix("org.systemd.property.") else { continue };
        let wrong = || CgroupError::Property { annotation: key.to_owned(), value: text.to_owned() };
        let is_name = name.len() > 2 && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        let value = parse_gvariant(text.trim()).filter(|_| is_name).ok_or_else(wrong)?;
        let seconds =
            name.strip_suffix("Sec").filter(|stem| stem.ends_with(|last: char| last.is_ascii_lowercase()));
        properties.push(match seconds {
            Some(stem) => (format!("{stem}USec"), Value::Number(microseconds(&value).ok_or_else(wrong)?)),
            None => (name.to_owned(), value),
        });
    }
    properties.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(properties)
}

fn microseconds(value: &Value) -> Option<u64> {
    let seconds = match value {
        Value::Number(number) => *number,
        Value::Unsigned(number) => u64::from(*number),
        Value::Integer(number) => u64::try_from(*number).ok()?,
        Value::Long(number) => u64::try_from(*number).ok()?,
        Value::Real(number) if *number >= 0.0 && *number < 1e12 => return whole_microseconds(*number),
        _ => return None,
    };
    seconds.checked_mul(SECOND)
}

fn whole_microseconds(seconds: f64) -> Option<u64> {
    u64::try_from(std::time::Duration::try_from_secs_f64(seconds).ok()?.as_micros()).ok()
}

/// The part of GVariant's text format that properties of units are written in: booleans, numbers with or without a type,
/// strings, and arrays of strings.
fn parse_gvariant(text: &str) -> Option<Value> {
    if let Some(string) = parse_string(text) {
        return Some(Value::Text(string));
    }
    if let Some(inner) = text.strip_prefix("@as").unwrap_or(text).trim().strip_prefix('[') {
        let inner = inner.strip_suffix(']')?.trim();
        let items = inner.split(',').map(str::trim).filter(|item| !item.is_empty());
        return items.map(parse_string).collect::<Option<_>>().map(Value::Texts);
    }
    match text.split_once(' ').map_or((text, ""), |(kind, rest)| (kind, rest.trim())) {
        ("true", "") => Some(Value::Flag(true)),
        ("false", "") => Some(Value::Flag(false)),
        ("boolean", value) => value.parse().ok().map(Value::Flag),
        ("uint32", value) => value.parse().ok().map(Value::Unsigned),
        ("uint64", value) => value.parse().ok().map(Value::Number),
        ("int32", value) => value.parse().ok().map(Value::Integer),
        ("int64", value) => value.parse().ok().map(Value::Long),
        ("double", value) => value.parse().ok().map(Value::Real),
        (value, "") => {
            let integer = value.parse().ok().map(Value::Integer);
            integer.or_else(|| value.parse().ok().filter(|real: &f64| real.is_finite()).map(Value::Real))
        }
        _ => None,
    }
}

fn parse_string(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let is_plain = !inner.contains(quote) && !inner.contains('\\');
    is_plain.then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits_of(json: &str) -> Properties {
        limits(&serde_json::from_str(json).unwrap()).unwrap()
    }

    fn number(name: &str, value: u64) -> (String, Value) {
        (name.to_owned(), Value::Number(value))
    }

    #[test]
    fn limits_become_the_properties_that_runc_sets() {
        let json = r#"{"memory": {"limit": 67108864, "swap": 134217728, "reservation": 33554432},
            "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0-1,8"}, "pids": {"limit": 0},
            "blockIO": {"weight": 500}}"#;
        let expected = [
            number("MemoryMax", 67_108_864),
            number("MemoryLow", 33_554_432),
            number("MemorySwapMax", 67_108_864),
            number("CPUWeight", 59),
            number("CPUQuotaPeriodUSec", 100_000),
            number("CPUQuotaPerSecUSec", 500_000),
            ("AllowedCPUs".to_owned(), Value::Bytes(vec![3, 1])),
            number("TasksMax", 1),
            number("IOWeight", 4950),
        ];
        assert_eq!(limits_of(json), expected);
    }

    #[test]
    fn no_limit_is_infinity_and_quotas_are_rounded_up() {
        assert_eq!(
            limits_of(r#"{"memory": {"limit": -1}, "pids": {"limit": -1}}"#)[0],
            number("MemoryMax", u64::MAX)
        );
        assert_eq!(limits_of(r#"{"cpu": {"quota": -1}}"#), [number("CPUQuotaPerSecUSec", u64::MAX)]);
        let odd = limits_of(r#"{"cpu": {"quota": 1001, "period": 100000}}"#);
        assert_eq!(odd[1], number("CPUQuotaPerSecUSec", 20_000));
        assert_eq!(limits_of(r#"{"cpu": {"idle": 1, "shares": 5}}"#), [number("CPUWeight", 0)]);
    }

    #[test]
    fn unified_files_become_properties_too() {
        let json = r#"{"unified": {"memory.high": "1000", "cpu.max": "max 50000", "pids.max": "0", "io.max": "5",
            "io.weight": "default 7\n8:0 9"}}"#;
        let expected = [
            number("CPUQuotaPeriodUSec", 50_000),
            number("CPUQuotaPerSecUSec", u64::MAX),
            number("IOWeight", 7),
            number("MemoryHigh", 1000),
            number("TasksMax", 1),
        ];
        assert_eq!(limits_of(json), expected);
        assert!(limits(&serde_json::from_str(r#"{"unified": {"memory.high": "x"}}"#).unwrap()).is_err());
        assert_eq!(limits_of(r#"{"unified": {"io.weight": "8:0 9"}}"#), []);
    }

    #[test]
    fn annotations_become_properties() {
        let annotations = [
            ("org.systemd.property.TimeoutStopSec", "uint64 5"),
            ("org.systemd.property.CollectMode", "'inactive-or-failed'"),
            ("org.systemd.property.After", "['a.service', 'b.service']"),
            ("other", "nonsense"),
        ];
        let texts = Value::Texts(vec!["a.service".to_owned(), "b.service".to_owned()]);
        let expected = [
            ("After".to_owned(), texts),
            ("CollectMode".to_owned(), Value::Text("inactive-or-failed".to_owned())),
            number("TimeoutStopUSec", 5_000_000),
        ];
        assert_eq!(from_annotations(annotations.into_iter()).unwrap(), expected);
        for wrong in ["", "'", "[1, 2]", "uint64 -1", "nonsense"] {
            assert!(
                from_annotations([("org.systemd.property.Xyz", wrong)].into_iter()).is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn devices_are_named_as_systemd_names_them() {
        let json = r#"{"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "major": 8, "access": "r"}]}"#;
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let properties = devices(&Rules::from_spec(resources.devices().iter().flatten()).unwrap());
        let Value::Pairs(allowed) = &properties[1].1 else { panic!() };
        assert_eq!(properties[0].1, Value::Text("strict".to_owned()));
        let has = |name: &str, access: &str| allowed.contains(&(name.to_owned(), access.to_owned()));
        assert!(
            has("block-8", "r")
                && has("char-*", "m")
                && has("/dev/char/1:3", "rwm")
                && has("char-136", "rwm")
        );
        let json = r#"{"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "minor": 1, "access": "r"}]}"#;
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let properties = devices(&Rules::from_spec(resources.devices().iter().flatten()).unwrap());
        assert_eq!(properties[0].1, Value::Text("auto".to_owned()));
    }
}
