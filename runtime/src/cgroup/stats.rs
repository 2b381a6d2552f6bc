//! What a cgroup has used, in the JSON that `runc events` writes (runc's `types/events.go`), which keeps the names of
//! cgroup v1.

use serde_json::{Map, Value, json};

use super::Cgroup;
use super::error::CgroupError;
use super::fs::Directory;

impl Cgroup {
    /// The figures of all controllers that the cgroup has. Times are nanoseconds, sizes bytes; no limit is `u64::MAX`, but 0
    /// for processes.
    ///
    /// # Errors
    /// What the kernel says; a missing file is a controller that is not there.
    pub fn stats(&self) -> Result<Value, CgroupError> {
        let cgroup = &self.directory;
        Ok(json!({
            "cpu": cpu(cgroup)?,
            "cpuset": cpuset(cgroup)?,
            "memory": memory(cgroup)?,
            "pids": pids(cgroup)?,
            "blkio": block_io(cgroup)?,
            "hugetlb": hugetlb(cgroup)?,
            "intel_rdt": {},
            "network_interfaces": null,
        }))
    }

    /// How often the kernel's OOM killer has killed in the cgroup or below it; `None` without a memory controller.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn oom_kills(&self) -> Result<Option<u64>, CgroupError> {
        self.directory.read_key("memory.events", "oom_kill")
    }
}

fn cpu(cgroup: &Directory) -> Result<Value, CgroupError> {
    let stat = flat_keyed(&cgroup.read_if_present("cpu.stat")?.unwrap_or_default());
    let count = |key: &str| stat.get(key).and_then(Value::as_u64).unwrap_or(0);
    let nanoseconds = |key: &str| count(key).saturating_mul(1000);
    let mut cpu = json!({
        "usage": {
            "total": nanoseconds("usage_usec"),
            "kernel": nanoseconds("system_usec"),
            "user": nanoseconds("user_usec"),
        },
        "throttling": {
            "periods": count("nr_periods"),
            "throttledPeriods": count("nr_throttled"),
            "throttledTime": nanoseconds("throttled_usec"),
        },
    });
    add_pressure(&mut cpu, cgroup, "cpu.pressure")?;
    Ok(cpu)
}

fn cpuset(cgroup: &Directory) -> Result<Value, CgroupError> {
    let list = |file| cgroup.read_if_present(file).map(|text| expand(&text.unwrap_or_default()));
    Ok(json!({ "cpus": list("cpuset.cpus.effective")?, "mems": list("cpuset.mems.effective")? }))
}

fn memory(cgroup: &Directory) -> Result<Value, CgroupError> {
    let raw = flat_keyed(&cgroup.read_if_present("memory.stat")?.unwrap_or_default());
    let usage =
        [number(cgroup, "memory.current")?, number(cgroup, "memory.max")?, number(cgroup, "memory.peak")?];
    let [current, limit, peak] = usage.map(|value| value.unwrap_or(0));
    let swap = number(cgroup, "memory.swap.current")?.unwrap_or(0);
    let swap_limit = number(cgroup, "memory.swap.max")?.unwrap_or(0);
    let failures = cgroup.read_key("memory.events", "max")?.unwrap_or(0);
    let mut memory = json!({
        "cache": raw.get("file").cloned().unwrap_or(Value::from(0)),
        "usage": { "limit": limit, "usage": current, "max": peak, "failcnt": failures },
        // Memory and swap together, as cgroup v1 counted them.
        "swap": { "limit": limit.saturating_add(swap_limit), "usage": current.saturating_add(swap), "failcnt": 0 },
        "kernel": { "limit": 0, "usage": raw.get("kernel").cloned().unwrap_or(Value::from(0)), "failcnt": 0 },
        "kernelTCP": { "limit": 0, "usage": raw.get("sock").cloned().unwrap_or(Value::from(0)), "failcnt": 0 },
        "raw": raw,
    });
    add_pressure(&mut memory, cgroup, "memory.pressure")?;
    Ok(memory)
}

fn pids(cgroup: &Directory) -> Result<Value, CgroupError> {
    let current = match number(cgroup, "pids.current")? {
        Some(current) => current,
        None => cgroup.processes()?.len() as u64,
    };
    let limit = number(cgroup, "pids.max")?.filter(|limit| *limit != u64::MAX).unwrap_or(0);
    Ok(json!({ "current": current, "limit": limit }))
}

fn block_io(cgroup: &Directory) -> Result<Value, CgroupError> {
    let text = cgroup.read_if_present("io.stat")?.unwrap_or_default();
    let mut block_io = json!({
        "ioServiceBytesRecursive": io_entries(&text, [("rbytes", "Read"), ("wbytes", "Write")]),
        "ioServicedRecursive": io_entries(&text, [("rios", "Read"), ("wios", "Write")]),
    });
    add_pressure(&mut block_io, cgroup, "io.pressure")?;
    Ok(block_io)
}

/// The values of two keys of `io.stat` for each device.
fn io_entries(text: &str, keys: [(&str, &str); 2]) -> Vec<Value> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let device = words.next().and_then(|device| device.split_once(':'));
        let Some((Ok(major), Ok(minor))) =
            device.map(|(major, minor)| (major.parse::<u64>(), minor.parse::<u64>()))
        else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let operation = keys.iter().find(|(own, _)| *own == key);
            if let (Some((_, operation)), Ok(value)) = (operation, value.parse::<u64>()) {
                entries.push(json!({ "major": major, "minor": minor, "op": operation, "value": value }));
            }
        }
    }
    entries
}

fn hugetlb(cgroup: &Directory) -> Result<Value, CgroupError> {
    let mut sizes = Map::new();
    let Ok(pools) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Ok(Value::Object(sizes)) };
    for pool in pools.flatten() {
        let name = pool.file_name().to_string_lossy().into_owned();
        let kilobytes =
            name.strip_prefix("hugepages-").and_then(|rest| rest.strip_suffix("kB")?.parse().ok());
        let Some(size) = kilobytes.map(page_size) else { continue };
        let usage = match number(cgroup, &format!("hugetlb.{size}.rsvd.current"))? {
            Some(usage) => Some(usage),
            None => number(cgroup, &format!("hugetlb.{size}.current"))?,
        };
        if let Some(usage) = usage {
            let failures = cgroup.read_key(&format!("hugetlb.{size}.events"), "max")?.unwrap_or(0);
            sizes.insert(size, json!({ "usage": usage, "failcnt": failures }));
        }
    }
    Ok(Value::Object(sizes))
}

/// The kernel's name of a huge page size (`hugetlb_cgroup.c`).
fn page_size(kilobytes: u64) -> String {
    match kilobytes {
        0x10_0000.. => format!("{}GB", kilobytes >> 20),
        0x400.. => format!("{}MB", kilobytes >> 10),
        _ => format!("{kilobytes}KB"),
    }
}

/// A file with one number or `max`.
fn number(cgroup: &Directory, file: &str) -> Result<Option<u64>, CgroupError> {
    let text = cgroup.read_if_present(file)?;
    Ok(text.and_then(|text| match text.trim() {
        "max" => Some(u64::MAX),
        number => number.parse().ok(),
    }))
}

fn flat_keyed(text: &str) -> Map<String, Value> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .filter_map(|(key, value)| Some((key.to_owned(), Value::from(value.trim().parse::<u64>().ok()?))))
        .collect()
}

fn add_pressure(to: &mut Value, cgroup: &Directory, file: &str) -> Result<(), CgroupError> {
    // Where the kernel was booted without pressure accounting, reading says EOPNOTSUPP.
    let text = match cgroup.read_if_present(file) {
        Ok(text) => text.unwrap_or_default(),
        Err(CgroupError::File { source, .. }) if source.kind() == std::io::ErrorKind::Unsupported => {
            String::new()
        }
        Err(error) => return Err(error),
    };
    let pressure = pressure(&text);
    if !pressure.is_empty() {
        to["psi"] = Value::Object(pressure);
    }
    Ok(())
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and a line `full` of that kind (psi.rst).
fn pressure(text: &str) -> Map<String, Value> {
    let parse = |value: &str| match value.parse::<u64>() {
        Ok(whole) => Value::from(whole),
        Err(_) => value.parse::<f64>().map_or(Value::Null, Value::from),
    };
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let fields = |rest: &str| -> Map<String, Value> {
        let pairs = rest.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), parse(value))).collect()
    };
    lines.map(|(kind, rest)| (kind.to_owned(), Value::Object(fields(rest)))).collect()
}

/// The numbers of a list such as `0-2,7`.
fn expand(list: &str) -> Vec<u16> {
    let mut numbers = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            numbers.extend(first..=last);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_is_split_by_device_and_direction() {
        let text = "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5\n8:0\nnonsense\n";
        let entries = io_entries(text, [("rbytes", "Read"), ("wbytes", "Write")]);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1], json!({ "major": 8, "minor": 16, "op": "Write", "value": 2 }));
    }

    #[test]
    fn pressure_keeps_its_numbers() {
        let pressure = pressure("some avg10=1.50 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 total=5\n");
        assert_eq!(pressure["some"]["avg10"], 1.5);
        assert_eq!(pressure["full"]["total"], 5);
    }

    #[test]
    fn lists_and_sizes_are_read_as_the_kernel_writes_them() {
        assert_eq!(expand("0-2,7\n"), [0, 1, 2, 7]);
        assert_eq!(expand("\n"), Vec::<u16>::new());
        assert_eq!([page_size(64), page_size(2048), page_size(1_048_576)], ["64KB", "2MB", "1GB"]);
    }
}
