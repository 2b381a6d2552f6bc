//! A cgroup as OpenMetrics 1.0 text (the exposition format that Prometheus reads): families together, units named, `# EOF`.

use inspect_probes::cgroup::EffectiveLimit;

use super::cgroup::CgroupReport;

/// A family: name without `_total`, type, unit, help.
struct Family {
    name: &'static str,
    kind: &'static str,
    unit: &'static str,
    help: &'static str,
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

/// The exposition.
pub(crate) fn render_openmetrics(report: &CgroupReport) -> String {
    let mut writer = Writer { labels: common_labels(report), text: String::new() };
    memory(report, &mut writer);
    limits(&report.effective, &mut writer);
    cpu(report, &mut writer);
    tasks(report, &mut writer);
    pressure(report, &mut writer);
    io(report, &mut writer);
    writer.text.push_str("# EOF\n");
    writer.text
}

fn memory(report: &CgroupReport, writer: &mut Writer) {
    let Some(memory) = &report.reading.memory else { return };
    let used =
        memory.used.iter().map(|used| (vec![("definition", used.name.to_owned())], used.bytes.to_string()));
    writer.family(
        &Family {
            name: "inspect_cgroup_memory_used_bytes",
            kind: GAUGE,
            unit: "bytes",
            help: "Memory used, by each definition that tools print.",
        },
        used.collect(),
    );
    let single =
        |value: Option<u64>| value.map(|value| (Vec::new(), value.to_string())).into_iter().collect();
    writer.family(
        &Family {
            name: "inspect_cgroup_memory_peak_bytes",
            kind: GAUGE,
            unit: "bytes",
            help: "The most memory that was charged at once.",
        },
        single(memory.peak),
    );
    writer.family(
        &Family { name: "inspect_cgroup_swap_bytes", kind: GAUGE, unit: "bytes", help: "Swap used." },
        single(memory.swap),
    );
    let events = [("hierarchy", &memory.events), ("own", &memory.events_local)];
    let samples = events.into_iter().flat_map(|(scope, events)| {
        events.iter().map(move |(event, count)| {
            (vec![("event", event.clone()), ("scope", scope.to_owned())], count.to_string())
        })
    });
    writer.family(
        &Family {
            name: "inspect_cgroup_memory_events",
            kind: COUNTER,
            unit: "",
            help: "memory.events and memory.events.local.",
        },
        samples.collect(),
    );
}

fn limits(effective: &[EffectiveLimit], writer: &mut Writer) {
    let number = |text: &str| if text == "max" { "+Inf".to_owned() } else { text.to_owned() };
    let of = |prefix: &'static str| {
        let plain = |text: &str| text == "max" || text.parse::<u64>().is_ok();
        effective
            .iter()
            .filter(move |limit| limit.file.starts_with(prefix) && plain(&limit.effective))
            .map(|limit| {
                let bound = limit.bound_by.as_ref().map_or_else(String::new, |path| path.as_str().to_owned());
                (vec![("file", limit.file.to_owned()), ("bound_by", bound)], number(&limit.effective))
            })
            .collect()
    };
    writer.family(
        &Family {
            name: "inspect_cgroup_limit_bytes",
            kind: GAUGE,
            unit: "bytes",
            help: "The least memory limit up the tree.",
        },
        of("memory."),
    );
    writer.family(
        &Family {
            name: "inspect_cgroup_tasks_limit",
            kind: GAUGE,
            unit: "",
            help: "The least limit of tasks up the tree.",
        },
        of("pids."),
    );
}

fn cpu(report: &CgroupReport, writer: &mut Writer) {
    let Some(cpu) = &report.reading.cpu else { return };
    let mode =
        |mode: &str, time: Option<u64>| time.map(|time| (vec![("mode", mode.to_owned())], seconds(time)));
    writer.family(
        &Family {
            name: "inspect_cgroup_cpu_seconds",
            kind: COUNTER,
            unit: "seconds",
            help: "Processor time.",
        },
        [mode("user", cpu.user_microseconds), mode("system", cpu.system_microseconds)]
            .into_iter()
            .flatten()
            .collect(),
    );
    writer.family(
        &Family {
            name: "inspect_cgroup_cpu_usage_seconds",
            kind: COUNTER,
            unit: "seconds",
            help: "Processor time of all modes.",
        },
        vec![(Vec::new(), seconds(cpu.usage_microseconds))],
    );
    writer.family(
        &Family {
            name: "inspect_cgroup_cpu_periods",
            kind: COUNTER,
            unit: "",
            help: "Enforcement periods of the quota.",
        },
        vec![(Vec::new(), cpu.periods.to_string())],
    );
    writer.family(
        &Family {
            name: "inspect_cgroup_cpu_throttled_periods",
            kind: COUNTER,
            unit: "",
            help: "Periods in which the quota ran out.",
        },
        vec![(Vec::new(), cpu.throttled_periods.to_string())],
    );
    writer.family(
        &Family {
            name: "inspect_cgroup_cpu_throttled_seconds",
            kind: COUNTER,
            unit: "seconds",
            help: "Time waited for the next period.",
        },
        vec![(Vec::new(), seconds(cpu.throttled_microseconds))],
    );
}

fn tasks(report: &CgroupReport, writer: &mut Writer) {
    writer.family(
        &Family {
            name: "inspect_cgroup_processes",
            kind: GAUGE,
            unit: "",
            help: "Processes in the cgroup and below it.",
        },
        vec![(Vec::new(), report.reading.processes.to_string())],
    );
    if let Some(pids) = &report.reading.pids {
        writer.family(
            &Family {
                name: "inspect_cgroup_tasks",
                kind: GAUGE,
                unit: "",
                help: "Tasks (threads) that the pids controller counts.",
            },
            vec![(Vec::new(), pids.current.to_string())],
        );
    }
}

fn pressure(report: &CgroupReport, writer: &mut Writer) {
    let samples = report.reading.pressure.iter().flat_map(|(resource, pressure)| {
        [("some", pressure.some), ("full", pressure.full)].into_iter().filter_map(|(kind, line)| {
            let labels = vec![("resource", (*resource).to_owned()), ("kind", kind.to_owned())];
            line.map(|line| (labels, seconds(line.total)))
        })
    });
    writer.family(
        &Family {
            name: "inspect_cgroup_pressure_waiting_seconds",
            kind: COUNTER,
            unit: "seconds",
            help: "Time that some or all tasks waited for a resource.",
        },
        samples.collect(),
    );
}

fn io(report: &CgroupReport, writer: &mut Writer) {
    let of = |keys: [(&'static str, &'static str); 2]| {
        report.reading.io.iter().flat_map(move |(device, counts)| {
            keys.into_iter().filter_map(move |(direction, key)| {
                let labels = vec![("device", device.clone()), ("direction", direction.to_owned())];
                counts.get(key).map(|count| (labels, count.to_string()))
            })
        })
    };
    writer.family(
        &Family {
            name: "inspect_cgroup_io_bytes",
            kind: COUNTER,
            unit: "bytes",
            help: "Bytes read and written by device.",
        },
        of([("read", "rbytes"), ("write", "wbytes")]).collect(),
    );
    writer.family(
        &Family {
            name: "inspect_cgroup_io_operations",
            kind: COUNTER,
            unit: "",
            help: "Operations by device.",
        },
        of([("read", "rios"), ("write", "wios")]).collect(),
    );
}

type Sample = (Vec<(&'static str, String)>, String);

struct Writer {
    labels: Vec<(&'static str, String)>,
    text: String,
}

impl Writer {
    /// A family with its samples; without samples nothing is written.
    fn family(&mut self, family: &Family, samples: Vec<Sample>) {
        if samples.is_empty() {
            return;
        }
        let name = family.name;
        self.text.push_str(&format!("# TYPE {name} {}\n", family.kind));
        if !family.unit.is_empty() {
            self.text.push_str(&format!("# UNIT {name} {}\n", family.unit));
        }
        self.text.push_str(&format!("# HELP {name} {}\n", family.help));
        let suffix = if family.kind == COUNTER { "_total" } else { "" };
        for (labels, value) in samples {
            let all: Vec<String> = self
                .labels
                .iter()
                .chain(&labels)
                .map(|(key, value)| format!("{key}=\"{}\"", escape_label(value)))
                .collect();
            self.text.push_str(&format!("{name}{suffix}{{{}}} {value}\n", all.join(",")));
        }
    }
}

fn common_labels(report: &CgroupReport) -> Vec<(&'static str, String)> {
    let mut labels = vec![("cgroup", report.path.as_str().to_owned())];
    if let Some(container) = &report.container {
        labels.push(("container", container.id.as_str().to_owned()));
        labels.push(("containerd_namespace", container.containerd_namespace.as_str().to_owned()));
    }
    labels
}

/// Backslash, quote and newline, as the format escapes them; other controls are made visible, as everywhere.
fn escape_label(value: &str) -> String {
    let text = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    if text.chars().any(char::is_control) {
        return text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    }
    text
}

fn seconds(microseconds: u64) -> String {
    format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000)
}

#[cfg(test)]
mod tests {
    use inspect_probes::cgroup::{CgroupMode, CgroupReading, CpuReading, MemoryReading, MemoryUsed};
    use inspect_probes::container_cgroup::ContainerName;
    use inspect_probes::name::{CgroupPath, ContainerId, ContainerdNamespace};

    use super::*;

    fn report() -> CgroupReport {
        let used = MemoryUsed { name: "current", bytes: 4096, definition: "", used_by: "" };
        let memory = MemoryReading { current: 4096, used: vec![used], ..MemoryReading::default() };
        let cpu = CpuReading { usage_microseconds: 1_500_000, ..CpuReading::default() };
        let limit = EffectiveLimit { file: "memory.max", own: None, effective: "max".into(), bound_by: None };
        CgroupReport {
            container: Some(ContainerName {
                containerd_namespace: ContainerdNamespace::new("default"),
                id: ContainerId::new("we\"b\n"),
            }),
            path: CgroupPath::new("/default/web"),
            mode: CgroupMode::Unified,
            hierarchies: Vec::new(),
            unit: None,
            rows: Vec::new(),
            effective: vec![limit],
            reading: CgroupReading { memory: Some(memory), cpu: Some(cpu), ..CgroupReading::default() },
            findings: Vec::new(),
        }
    }

    #[test]
    fn families_are_declared_before_their_samples_and_the_text_ends_with_eof() {
        let text = render_openmetrics(&report());
        assert!(text.ends_with("# EOF\n"));
        let common = r#"cgroup="/default/web",container="we\"b\n",containerd_namespace="default""#;
        assert!(
            text.contains(&format!("inspect_cgroup_cpu_usage_seconds_total{{{common}}} 1.500000\n")),
            "{text}"
        );
        assert!(text.contains(r#"file="memory.max",bound_by=""} +Inf"#), "{text}");
        let mut declared = std::collections::BTreeSet::new();
        let mut current = String::new();
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                current = rest.split(' ').next().unwrap().to_owned();
                assert!(declared.insert(current.clone()), "declared twice: {current}");
            } else if !line.starts_with('#') {
                let name = line.split('{').next().unwrap();
                assert_eq!(name.strip_suffix("_total").unwrap_or(name), current);
            }
        }
        assert!(declared.len() > 5);
    }
}
