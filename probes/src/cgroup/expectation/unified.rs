//! cgroup v2.

use serde_json::Value;

use super::{Accepted, Expectation, device, integer, list, memory_values, text};
use crate::cgroup::conversion::{SharesConversion, io_weight, swap_max};

/// The fields for which cgroup v2 has no file, and why.
const WITHOUT_FILE: [(&str, &str); 11] = [
    ("/memory/kernel", "cgroup v2 counts kernel memory in memory.current: no file of its own"),
    ("/memory/kernelTCP", "cgroup v2 has no file for it"),
    ("/memory/swappiness", "cgroup v2 has no file for it"),
    ("/memory/disableOOMKiller", "cgroup v2 has no file for it"),
    ("/memory/useHierarchy", "cgroup v2 is always hierarchical"),
    ("/cpu/realtimeRuntime", "cgroup v2 has no file for it"),
    ("/cpu/realtimePeriod", "cgroup v2 has no file for it"),
    ("/blockIO/leafWeight", "cgroup v2 has no file for it"),
    ("/network/classID", "cgroup v2 has no file for it: match cgroup paths in nftables"),
    ("/network/priorities", "cgroup v2 has no file for it"),
    ("/devices", "cgroup v2 has no file for it: a BPF program checks devices"),
];

/// What `linux.resources` becomes in cgroup v2.
#[must_use]
pub fn unified_expectations(resources: &Value) -> Vec<Expectation> {
    let mut out = Vec::new();
    memory(resources, &mut out);
    cpu(resources, &mut out);
    if let Some(limit) = integer(resources, "/pids/limit") {
        let value = if limit > 0 { limit.to_string() } else { "max".to_owned() };
        let conversion = if limit > 0 { "" } else { "0 and below → max" };
        out.push(Expectation::converted("pids.limit", limit, "pids.max", conversion, value));
    }
    block_io(resources, &mut out);
    for entry in list(resources, "/hugepageLimits") {
        if let (Some(size), Some(limit)) =
            (entry.get("pageSize").and_then(Value::as_str), entry.get("limit").and_then(Value::as_u64))
        {
            let field = format!("hugepageLimits {size}");
            out.push(Expectation::plain(&field, limit, &format!("hugetlb.{size}.max"), limit));
        }
    }
    rdma(resources, &mut out);
    unified_files(resources, &mut out);
    for (pointer, why) in WITHOUT_FILE {
        if let Some(value) = resources.pointer(pointer) {
            let field = pointer.trim_start_matches('/').replace('/', ".");
            let given =
                value.as_array().map_or_else(|| value.to_string(), |list| format!("{} rules", list.len()));
            out.push(Expectation::without_file(&field, given, why));
        }
    }
    out
}

fn memory(resources: &Value, out: &mut Vec<Expectation>) {
    let limit = integer(resources, "/memory/limit");
    let swap = integer(resources, "/memory/swap");
    let in_bytes = |field: &str, value: i64, file: &str, conversion: &str| Expectation {
        accepted: memory_values(value),
        ..Expectation::converted(field, value, file, conversion, "")
    };
    if let Some(limit) = limit.filter(|limit| *limit != 0) {
        out.push(in_bytes("memory.limit", limit, "memory.max", if limit < 0 { "−1 → max" } else { "" }));
    }
    if let Some(given) = swap {
        match swap_max(limit, swap) {
            Ok(Some(value)) => out.push(Expectation {
                given: given.to_string(),
                ..in_bytes(
                    "memory.swap",
                    value,
                    "memory.swap.max",
                    if given < 0 { "−1 → max" } else { "swap − limit" },
                )
            }),
            Ok(None) => {}
            Err(error) => out.push(Expectation::without_file("memory.swap", given, &error.to_string())),
        }
    }
    if let Some(reservation) = integer(resources, "/memory/reservation").filter(|value| *value != 0) {
        out.push(in_bytes("memory.reservation", reservation, "memory.low", ""));
    }
}

fn cpu(resources: &Value, out: &mut Vec<Expectation>) {
    if let Some(shares) =
        resources.pointer("/cpu/shares").and_then(Value::as_u64).filter(|shares| *shares > 0)
    {
        let accepted = |conversion: SharesConversion| {
            let value = conversion.weight(shares)?.to_string();
            Some(Accepted { value, by: Some(conversion.describe()) })
        };
        out.push(Expectation {
            accepted: SharesConversion::ALL.into_iter().filter_map(accepted).collect(),
            ..Expectation::converted("cpu.shares", shares, "cpu.weight", "shares → weight", "")
        });
    }
    let (quota, period) = (integer(resources, "/cpu/quota"), integer(resources, "/cpu/period"));
    if quota.is_some_and(|quota| quota != 0) || period.is_some_and(|period| period != 0) {
        let quota_text =
            quota.filter(|quota| *quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        let period_text = period.filter(|period| *period > 0).unwrap_or(100_000);
        let given = format!(
            "{}/{}",
            quota.map_or_else(|| "-".to_owned(), |q| q.to_string()),
            period.map_or_else(|| "-".to_owned(), |p| p.to_string())
        );
        out.push(Expectation::converted(
            "cpu.quota/period",
            given,
            "cpu.max",
            "quota and period in one file",
            format!("{quota_text} {period_text}"),
        ));
    }
    for (pointer, file) in [("/cpu/burst", "cpu.max.burst"), ("/cpu/idle", "cpu.idle")] {
        if let Some(value) = integer(resources, pointer) {
            out.push(Expectation::plain(&pointer[1..].replace('/', "."), value, file, value));
        }
    }
    for (pointer, file) in [("/cpu/cpus", "cpuset.cpus"), ("/cpu/mems", "cpuset.mems")] {
        if let Some(value) = text(resources, pointer) {
            out.push(Expectation::plain(&pointer[1..].replace('/', "."), value, file, value));
        }
    }
}

fn block_io(resources: &Value, out: &mut Vec<Expectation>) {
    if let Some(weight) =
        resources.pointer("/blockIO/weight").and_then(Value::as_u64).filter(|weight| *weight > 0)
    {
        let mut accepted = vec![
            Accepted { value: weight.to_string(), by: Some("io.bfq.weight: as it is") },
            Accepted { value: format!("default {weight}"), by: Some("io.bfq.weight: as it is") },
        ];
        if let Some(converted) = io_weight(weight) {
            let by = Some("io.weight: 1 + (weight − 10) × 9999 / 990");
            accepted.push(Accepted { value: format!("default {converted}"), by });
        }
        let conversion = "weight, for BFQ as it is";
        out.push(Expectation {
            accepted,
            ..Expectation::converted("blockIO.weight", weight, "io.weight", conversion, "")
        });
    }
    let throttles = [
        ("throttleReadBpsDevice", "rbps"),
        ("throttleWriteBpsDevice", "wbps"),
        ("throttleReadIOPSDevice", "riops"),
        ("throttleWriteIOPSDevice", "wiops"),
    ];
    for (name, key) in throttles {
        for entry in list(resources, &format!("/blockIO/{name}")) {
            if let (Some(device), Some(rate)) = (device(entry), entry.get("rate").and_then(Value::as_u64)) {
                let line = format!("{device} {key}={rate}");
                out.push(Expectation::converted(
                    &format!("blockIO.{name}"),
                    format!("{device} {rate}"),
                    "io.max",
                    "a line per device",
                    line,
                ));
            }
        }
    }
}

fn rdma(resources: &Value, out: &mut Vec<Expectation>) {
    for (name, limits) in resources.pointer("/rdma").and_then(Value::as_object).into_iter().flatten() {
        let mut line = name.clone();
        for (key, kernel) in [("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")] {
            if let Some(limit) = limits.get(key).and_then(Value::as_u64) {
                line.push_str(&format!(" {kernel}={limit}"));
            }
        }
        out.push(Expectation::converted(
            &format!("rdma.{name}"),
            limits,
            "rdma.max",
            "a line per device",
            line,
        ));
    }
}

/// `unified` names files itself. A name with a slash is refused by runtimes, and never read here.
fn unified_files(resources: &Value, out: &mut Vec<Expectation>) {
    for (file, value) in resources.pointer("/unified").and_then(Value::as_object).into_iter().flatten() {
        let Some(value) = value.as_str() else { continue };
        let field = format!("unified.{file}");
        if file.contains('/') || !file.contains('.') {
            out.push(Expectation::without_file(&field, value, "no name of a cgroup file"));
        } else {
            out.push(Expectation::plain(&field, value, file, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Vec<Expectation> {
        unified_expectations(&serde_json::from_str(json).unwrap())
    }

    fn one(json: &str) -> Expectation {
        let mut all = of(json);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    #[test]
    fn the_seeds_numbers() {
        let limit = one(r#"{"memory":{"limit":67108864}}"#);
        assert_eq!((limit.field.as_str(), limit.file.as_deref()), ("memory.limit", Some("memory.max")));
        assert_eq!(limit.matches("67108864"), Some(None));
        assert_eq!(limit.matches("max"), None);
        let shares = one(r#"{"cpu":{"shares":512}}"#);
        assert_eq!(shares.matches("59"), Some(Some(SharesConversion::Logarithmic.describe())));
        assert_eq!(shares.matches("20"), Some(Some(SharesConversion::Linear.describe())));
        assert_eq!(shares.matches("100"), None);
    }

    #[test]
    fn memory_is_in_pages_and_swap_is_what_is_left() {
        assert_eq!(one(r#"{"memory":{"limit":67108865}}"#).matches("67108864"), Some(None));
        assert_eq!(one(r#"{"memory":{"limit":-1}}"#).matches("max"), Some(None));
        let both = of(r#"{"memory":{"limit":67108864,"swap":134217728,"reservation":33554432}}"#);
        let files: Vec<_> =
            both.iter().filter_map(|e| Some((e.file.clone()?, e.accepted[0].value.clone()))).collect();
        let expected =
            [("memory.max", "67108864"), ("memory.swap.max", "67108864"), ("memory.low", "33554432")];
        assert_eq!(files, expected.map(|(file, value)| (file.to_owned(), value.to_owned())));
        assert_eq!(of(r#"{"memory":{"swap":5}}"#)[0].file, None);
    }

    #[test]
    fn quota_and_period_share_a_file() {
        assert_eq!(one(r#"{"cpu":{"quota":50000,"period":100000}}"#).matches("50000 100000"), Some(None));
        assert_eq!(one(r#"{"cpu":{"quota":-1}}"#).matches("max 100000"), Some(None));
        assert!(of(r#"{"cpu":{"quota":0,"period":0}}"#).is_empty());
    }

    #[test]
    fn a_devices_line_holds_more_keys_than_the_spec_names() {
        let json = r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1048576}]}}"#;
        let expectation = one(json);
        assert_eq!(expectation.matches("8:0 rbps=1048576 wbps=max riops=max wiops=max"), Some(None));
        assert_eq!(expectation.matches("8:16 rbps=1048576 wbps=max riops=max wiops=max"), None);
        let weight = one(r#"{"blockIO":{"weight":1000}}"#);
        assert!(weight.matches("default 10000").is_some() && weight.matches("default 100").is_none());
    }

    #[test]
    fn what_has_no_file_is_said_and_hostile_names_are_never_paths() {
        let all = of(
            r#"{"memory":{"swappiness":1},"devices":[{},{}],"unified":{"../../x.y":"1","memory.high":"9"}}"#,
        );
        let without: Vec<_> = all.iter().filter(|e| e.file.is_none()).map(|e| e.field.as_str()).collect();
        assert_eq!(without, ["unified.../../x.y", "memory.swappiness", "devices"]);
        assert_eq!(of("{}"), []);
        assert_eq!(of(r#"{"memory":7,"cpu":[],"unified":"x"}"#), []);
    }
}
