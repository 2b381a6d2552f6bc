//! cgroup v1: the spec's fields are this version's own (Documentation/admin-guide/cgroup-v1).

use serde_json::Value;

use super::{Accepted, Expectation, device, integer, list, memory_values, text};

/// v1's "no limit" is the largest number of whole pages in an i64.
const UNLIMITED: [&str; 2] = ["9223372036854771712", "9223372036854710272"];

/// Fields that go into a file as they are.
const PLAIN: [(&str, &str); 10] = [
    ("/memory/swappiness", "memory.swappiness"),
    ("/cpu/shares", "cpu.shares"),
    ("/cpu/quota", "cpu.cfs_quota_us"),
    ("/cpu/period", "cpu.cfs_period_us"),
    ("/cpu/burst", "cpu.cfs_burst_us"),
    ("/cpu/idle", "cpu.idle"),
    ("/cpu/realtimeRuntime", "cpu.rt_runtime_us"),
    ("/cpu/realtimePeriod", "cpu.rt_period_us"),
    ("/blockIO/weight", "blkio.weight"),
    ("/blockIO/leafWeight", "blkio.leaf_weight"),
];

/// Memory in bytes, rounded to pages; −1 is no limit.
const MEMORY: [(&str, &str); 5] = [
    ("/memory/limit", "memory.limit_in_bytes"),
    ("/memory/swap", "memory.memsw.limit_in_bytes"),
    ("/memory/reservation", "memory.soft_limit_in_bytes"),
    ("/memory/kernel", "memory.kmem.limit_in_bytes"),
    ("/memory/kernelTCP", "memory.kmem.tcp.limit_in_bytes"),
];

/// What `linux.resources` becomes in cgroup v1.
#[must_use]
pub fn legacy_expectations(resources: &Value) -> Vec<Expectation> {
    let mut out = Vec::new();
    for (pointer, file) in MEMORY {
        if let Some(value) = integer(resources, pointer).filter(|value| *value != 0) {
            let unlimited = UNLIMITED.map(|value| Accepted { value: value.to_owned(), by: None });
            let accepted = if value < 0 { unlimited.to_vec() } else { memory_values(value) };
            let field = pointer[1..].replace('/', ".");
            out.push(Expectation { accepted, ..Expectation::plain(&field, value, file, "") });
        }
    }
    for (pointer, file) in PLAIN {
        if let Some(value) = integer(resources, pointer).filter(|value| *value != 0) {
            out.push(Expectation::plain(&pointer[1..].replace('/', "."), value, file, value));
        }
    }
    for (pointer, file) in [("/cpu/cpus", "cpuset.cpus"), ("/cpu/mems", "cpuset.mems")] {
        if let Some(value) = text(resources, pointer) {
            out.push(Expectation::plain(&pointer[1..].replace('/', "."), value, file, value));
        }
    }
    if let Some(limit) = integer(resources, "/pids/limit") {
        let value = if limit > 0 { limit.to_string() } else { "max".to_owned() };
        out.push(Expectation::plain("pids.limit", limit, "pids.max", value));
    }
    for entry in list(resources, "/blockIO/throttleReadBpsDevice") {
        if let (Some(device), Some(rate)) = (device(entry), entry.get("rate").and_then(Value::as_u64)) {
            let line = format!("{device} {rate}");
            let file = "blkio.throttle.read_bps_device";
            out.push(Expectation::plain("blockIO.throttleReadBpsDevice", &line, file, &line));
        }
    }
    if resources.pointer("/unified").is_some_and(Value::is_object) {
        out.push(Expectation::without_file("unified", "set", "these are files of cgroup v2"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_one_takes_the_numbers_as_they_are() {
        let json = r#"{"memory":{"limit":67108864,"swap":-1},"cpu":{"shares":512},"pids":{"limit":-1}}"#;
        let all = legacy_expectations(&serde_json::from_str(json).unwrap());
        let matching = ["67108864", UNLIMITED[0], "512", "max"];
        assert_eq!(all.len(), matching.len());
        for (expectation, value) in all.iter().zip(matching) {
            assert!(expectation.matches(value).is_some(), "{expectation:?}");
            assert_eq!(expectation.matches("7"), None);
        }
        assert!(legacy_expectations(&serde_json::json!({"memory": "x"})).is_empty());
    }
}
