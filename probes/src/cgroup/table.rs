//! The table of a cgroup: the spec's field → conversion → file → the kernel's value → what is used of it now.

use serde::Serialize;
use serde_json::Value;

use super::expectation::{Expectation, legacy_expectations, unified_expectations};
use super::file::CgroupFileError;
use super::location::CgroupLocation;
use super::unit::UnitLimits;

/// Files of cgroup v2 that are shown though no field names them, with the file that says what is used.
const UNIFIED_FILES: [(&str, &str); 18] = [
    ("memory.max", "memory.current"),
    ("memory.high", "memory.current"),
    ("memory.low", "memory.current"),
    ("memory.min", "memory.current"),
    ("memory.swap.max", "memory.swap.current"),
    ("memory.oom.group", ""),
    ("cpu.weight", ""),
    ("cpu.max", "cpu.stat"),
    ("cpu.max.burst", "cpu.stat"),
    ("cpu.idle", ""),
    ("cpuset.cpus", "cpuset.cpus.effective"),
    ("cpuset.mems", "cpuset.mems.effective"),
    ("io.weight", ""),
    ("io.bfq.weight", ""),
    ("io.max", "io.stat"),
    ("pids.max", "pids.current"),
    ("rdma.max", "rdma.current"),
    ("misc.max", "misc.current"),
];

const LEGACY_FILES: [(&str, &str); 9] = [
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"),
    ("memory.soft_limit_in_bytes", "memory.usage_in_bytes"),
    ("cpu.shares", ""),
    ("cpu.cfs_quota_us", "cpu.stat"),
    ("cpu.cfs_period_us", ""),
    ("cpuset.cpus", "cpuset.effective_cpus"),
    ("cpuset.mems", "cpuset.effective_mems"),
    ("pids.max", "pids.current"),
];

/// How a file's value stands to the spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// The kernel has what the spec says.
    Same,
    /// The kernel has something else.
    Different,
    /// The kernel has no such file: the controller is off, or the kernel too old.
    NoFile,
    /// The spec's field has no file in this version of cgroups.
    NotApplicable,
    /// The spec does not name it.
    NotInSpec,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `memory.limit`, below `linux.resources`.
    pub field: Option<String>,
    /// The spec's value.
    pub given: Option<String>,
    /// How it is converted; the one of several that the kernel's value matches.
    pub conversion: String,
    /// `memory.max`
    pub file: Option<String>,
    /// What it should be.
    pub expected: Option<String>,
    /// The file's text.
    pub kernel: Option<String>,
    /// The usage that the limit is compared with, from the kernel.
    pub current: Option<String>,
    /// How they stand to each other.
    pub agreement: Agreement,
    /// systemd's property for the same file, when it says otherwise: `daemon-reload` may set the file to it.
    pub unit_drift: Option<UnitDrift>,
}

/// A unit's property that is not what the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnitDrift {
    /// `MemoryMax`
    pub property: &'static str,
    /// Its value, as the file would have it.
    pub value: String,
}

/// Builds the table. `resources` is the spec's `linux.resources`, `unit` what systemd says where the cgroup is a unit's.
///
/// # Errors
/// [`CgroupFileError`] when the kernel refuses.
pub fn read_table(
    location: &CgroupLocation,
    resources: Option<&Value>,
    unit: Option<&UnitLimits>,
) -> Result<Vec<Row>, CgroupFileError> {
    let files: &[(&str, &str)] = if location.is_unified() { &UNIFIED_FILES } else { &LEGACY_FILES };
    let expectations = match resources {
        Some(resources) if location.is_unified() => unified_expectations(resources),
        Some(resources) => legacy_expectations(resources),
        None => Vec::new(),
    };
    let mut rows = Vec::new();
    for expectation in expectations {
        rows.push(row_of(location, files, expectation)?);
    }
    let named: Vec<Option<String>> = rows.iter().map(|row| row.file.clone()).collect();
    for (file, _) in files {
        if named.iter().flatten().any(|name| name == file) {
            continue;
        }
        if let Some(kernel) = location.read(file)? {
            rows.push(Row {
                current: read_current(location, files, file)?,
                ..blank(Some((*file).to_owned()), Some(kernel), Agreement::NotInSpec)
            });
        }
    }
    for row in &mut rows {
        row.unit_drift = drift(row, unit);
    }
    Ok(rows)
}

fn blank(file: Option<String>, kernel: Option<String>, agreement: Agreement) -> Row {
    Row {
        field: None,
        given: None,
        conversion: String::new(),
        file,
        expected: None,
        kernel,
        current: None,
        agreement,
        unit_drift: None,
    }
}

fn row_of(
    location: &CgroupLocation,
    files: &[(&str, &str)],
    expectation: Expectation,
) -> Result<Row, CgroupFileError> {
    let Some(mut file) = expectation.file.clone() else {
        return Ok(Row {
            field: Some(expectation.field),
            given: Some(expectation.given),
            conversion: expectation.conversion,
            ..blank(None, None, Agreement::NotApplicable)
        });
    };
    let mut kernel = location.read(&file)?;
    if file == "io.weight" && kernel.is_none() {
        "io.bfq.weight".clone_into(&mut file);
        kernel = location.read(&file)?;
    }
    let found = kernel.as_deref().map(|text| expectation.matches(text));
    let agreement = match found {
        None => Agreement::NoFile,
        Some(None) => Agreement::Different,
        Some(Some(_)) => Agreement::Same,
    };
    let conversion = match found {
        Some(Some(Some(by))) => by.to_owned(),
        _ => expectation.conversion.clone(),
    };
    let expected = expectation.accepted.iter().map(|accepted| accepted.value.as_str()).collect::<Vec<_>>();
    Ok(Row {
        field: Some(expectation.field.clone()),
        given: Some(expectation.given.clone()),
        conversion,
        expected: (!expected.is_empty()).then(|| expected.join(" or ")),
        current: read_current(location, files, &file)?,
        ..blank(Some(file), kernel, agreement)
    })
}

/// The usage beside a limit; `cpu.stat` and `io.stat` are told in words.
fn read_current(
    location: &CgroupLocation,
    files: &[(&str, &str)],
    file: &str,
) -> Result<Option<String>, CgroupFileError> {
    let hugetlb = file.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(".max"));
    let usage = match (files.iter().find(|(name, _)| *name == file), hugetlb) {
        (_, Some(size)) => format!("hugetlb.{size}.current"),
        (Some((_, usage)), None) if !usage.is_empty() => (*usage).to_owned(),
        _ => return Ok(None),
    };
    let Some(text) = location.read(&usage)? else { return Ok(None) };
    Ok(Some(match usage.as_str() {
        "cpu.stat" => throttling(&text),
        "io.stat" => format!("{} devices used", super::reading::parse_io_stat(&text).len()),
        _ => text,
    }))
}

fn throttling(stat: &str) -> String {
    let get = |key: &str| {
        stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse::<u64>().ok())
    };
    let (throttled, periods) = (get("nr_throttled").unwrap_or(0), get("nr_periods").unwrap_or(0));
    format!("throttled in {throttled} of {periods} periods")
}

fn drift(row: &Row, unit: Option<&UnitLimits>) -> Option<UnitDrift> {
    let (file, kernel) = (row.file.as_deref()?, row.kernel.as_deref()?);
    let (property, value) = unit?.for_file(file)?;
    (value != kernel).then_some(UnitDrift { property, value })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Host;
    use crate::name::CgroupPath;

    fn location(files: &[(&str, &str)]) -> (tempfile::TempDir, CgroupLocation) {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("sys/fs/cgroup/web");
        fs::create_dir_all(&directory).unwrap();
        fs::write(root.path().join("sys/fs/cgroup/cgroup.controllers"), "memory\n").unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
        let location = CgroupLocation::find(&Host::at(root.path()), &CgroupPath::new("/web"), &[]).unwrap();
        (root, location)
    }

    #[test]
    fn rows_say_what_became_of_each_field_and_which_conversion_it_was() {
        let (_root, location) = location(&[
            ("memory.max", "67108864\n"),
            ("memory.current", "4096\n"),
            ("cpu.weight", "20\n"),
            ("cpu.max", "max 100000\n"),
            ("cpu.stat", "nr_periods 9\nnr_throttled 4\n"),
            ("pids.max", "7\n"),
        ]);
        let resources = serde_json::json!({
            "memory": {"limit": 67_108_864}, "cpu": {"shares": 512}, "pids": {"limit": 100}, "devices": [{}],
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
        });
        let rows = read_table(&location, Some(&resources), None).unwrap();
        let told: Vec<_> =
            rows.iter().map(|row| (row.file.as_deref().unwrap_or("-"), row.agreement)).collect();
        let expected = [
            ("memory.max", Agreement::Same),
            ("cpu.weight", Agreement::Same),
            ("pids.max", Agreement::Different),
            ("hugetlb.2MB.max", Agreement::NoFile),
            ("-", Agreement::NotApplicable),
            ("cpu.max", Agreement::NotInSpec),
        ];
        assert_eq!(told, expected);
        assert_eq!(rows[0].current.as_deref(), Some("4096"));
        assert!(rows[1].conversion.starts_with("linear"), "{}", rows[1].conversion);
        assert_eq!(rows[2].expected.as_deref(), Some("100"));
        assert_eq!(rows[5].current.as_deref(), Some("throttled in 4 of 9 periods"));
    }

    #[test]
    fn a_units_property_that_says_otherwise_is_drift() {
        let (_root, location) = location(&[("memory.max", "67108864\n"), ("pids.max", "7\n")]);
        let unit = UnitLimits { memory_max: Some(u64::MAX), tasks_max: Some(7), ..UnitLimits::default() };
        let rows = read_table(&location, None, Some(&unit)).unwrap();
        let drift = UnitDrift { property: "MemoryMax", value: "max".to_owned() };
        assert_eq!(rows[0].unit_drift, Some(drift));
        assert_eq!(rows[1].unit_drift, None);
    }
}
