//! The views of `inspect cgroup`: the table, and the live one with small plots.

use inspect_probes::cgroup::{
    Agreement, CgroupMode, CgroupReading, EffectiveLimit, Hierarchy, Limit, PressureLine, Row,
};
use inspect_probes::container_cgroup::ContainerName;
use inspect_probes::escape::escape;
use inspect_probes::name::{CgroupPath, UnitName};
use serde::Serialize;

use super::plot::sparkline;
use super::style::Style;
use super::table::render_table;
use super::units::bytes;
use super::wrap::wrap;

/// The columns of the table, and how many of them are the spec's.
const COLUMNS: [&str; 7] = ["SPEC", "GIVEN", "CONVERSION", "FILE", "KERNEL", "NOW", ""];
const OF_SPEC: usize = 3;

/// How many values a plot shows.
const PLOT: usize = 40;

/// Everything that is known of a cgroup.
#[derive(Debug, Serialize)]
pub(crate) struct CgroupReport {
    pub(crate) container: Option<ContainerName>,
    pub(crate) path: CgroupPath,
    pub(crate) mode: CgroupMode,
    pub(crate) hierarchies: Vec<Hierarchy>,
    /// The systemd unit whose cgroup it is.
    pub(crate) unit: Option<UnitName>,
    pub(crate) rows: Vec<Row>,
    pub(crate) effective: Vec<EffectiveLimit>,
    pub(crate) reading: CgroupReading,
    /// What is worth a look, in sentences.
    pub(crate) findings: Vec<String>,
}

/// The whole report as text.
pub(crate) fn render_cgroup(report: &CgroupReport, style: Style, width: Option<usize>) -> String {
    let mut text = header(report, style);
    for finding in &report.findings {
        for line in wrap(finding, width) {
            text.push_str(&format!("{}\n", style.warning(&line)));
        }
    }
    text.push('\n');
    table(report, style, width, &mut text);
    effective(report, style, width, &mut text);
    memory(report, style, width, &mut text);
    usage(&report.reading, style, &mut text);
    pressure(&report.reading, style, width, &mut text);
    text
}

fn header(report: &CgroupReport, style: Style) -> String {
    let version = match report.mode {
        CgroupMode::Unified => "cgroup v2",
        CgroupMode::Hybrid => "hybrid: limits in cgroup v1",
        CgroupMode::Legacy => "cgroup v1",
    };
    let mut text = format!("cgroup {} ({version})\n", style.strong(&report.path.to_string()));
    if let Some(container) = &report.container {
        text.push_str(&format!(
            "container {} in containerd namespace {}\n",
            container.id, container.containerd_namespace
        ));
    }
    if let Some(unit) = &report.unit {
        text.push_str(&format!("systemd unit {unit}\n"));
    }
    for hierarchy in &report.hierarchies {
        let directory = hierarchy.directory.display().to_string();
        text.push_str(&style.faint(&format!("{:<8} {}\n", hierarchy.controller, escape(&directory))));
    }
    text
}

/// The table. A cgroup that no spec is known of has no columns for one.
fn table(report: &CgroupReport, style: Style, width: Option<usize>, text: &mut String) {
    let has_spec = report.rows.iter().any(|row| row.field.is_some());
    let skipped = if has_spec { 0 } else { OF_SPEC };
    let rows: Vec<Vec<String>> = report.rows.iter().map(|row| cells(row, style).split_off(skipped)).collect();
    text.push_str(&render_table(COLUMNS.get(skipped..).unwrap_or_default(), &rows, width));
}

fn cells(row: &Row, style: Style) -> Vec<String> {
    let shown = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), one_line);
    let mark = match row.agreement {
        Agreement::Same => style.good("✓"),
        Agreement::Different => {
            style.bad(&format!("≠ expected {}", row.expected.as_deref().unwrap_or("another value")))
        }
        Agreement::NoFile => style.warning("no such file: controller off, or older kernel"),
        Agreement::NotApplicable | Agreement::NotInSpec => String::new(),
    };
    let drift = row.unit_drift.as_ref().map(|drift| {
        let text =
            format!("systemd has {}={}: a daemon-reload may reset the file", drift.property, drift.value);
        style.warning(&text)
    });
    let marks: Vec<String> =
        [Some(mark), drift].into_iter().flatten().filter(|mark| !mark.is_empty()).collect();
    vec![
        shown(&row.field),
        shown(&row.given),
        escape(&row.conversion).into_owned(),
        shown(&row.file),
        kernel(row),
        row.current.as_deref().map(|text| current(row, text)).unwrap_or_default(),
        marks.join("; "),
    ]
}

/// A file of several lines in one cell; an empty one is said to be.
fn one_line(text: &str) -> String {
    if text.is_empty() {
        return "(empty)".to_owned();
    }
    escape(&text.lines().collect::<Vec<_>>().join("; ")).into_owned()
}

/// The kernel's value. cgroup v1 has no word for "no limit": it shows the largest number of whole pages.
fn kernel(row: &Row) -> String {
    let Some(text) = row.kernel.as_deref() else { return "-".to_owned() };
    let is_bytes = row.file.as_deref().is_some_and(|file| file.ends_with("_in_bytes"));
    match text.parse::<u64>() {
        Ok(value) if is_bytes && value >= 1 << 62 => "no limit".to_owned(),
        _ => one_line(text),
    }
}

fn current(row: &Row, text: &str) -> String {
    let in_bytes =
        row.file.as_deref().is_some_and(|file| file.starts_with("memory.") || file.starts_with("hugetlb."));
    match text.parse::<u64>() {
        Ok(value) if in_bytes => format!("{value} ({})", bytes(value)),
        _ => one_line(text),
    }
}

fn effective(report: &CgroupReport, style: Style, width: Option<usize>, text: &mut String) {
    if report.effective.is_empty() {
        return;
    }
    text.push_str(&format!("\n{}\n", style.strong("limits as they hold (the least up the tree)")));
    let rows: Vec<Vec<String>> = report
        .effective
        .iter()
        .map(|limit| {
            let by = match &limit.bound_by {
                None => "no cgroup up to the root limits it".to_owned(),
                Some(path) if limit.is_inherited(&report.path) => {
                    style.warning(&format!("binds at {path}; here {}", limit.own.as_deref().unwrap_or("-")))
                }
                Some(_) => "set here".to_owned(),
            };
            vec![limit.file.to_owned(), one_line(&limit.effective), by]
        })
        .collect();
    text.push_str(&render_table(&["FILE", "EFFECTIVE", ""], &rows, width));
}

fn memory(report: &CgroupReport, style: Style, width: Option<usize>, text: &mut String) {
    let Some(memory) = &report.reading.memory else { return };
    text.push_str(&format!("\n{}\n", style.strong("memory used, by each definition")));
    let rows: Vec<Vec<String>> = memory
        .used
        .iter()
        .map(|used| {
            let value = format!("{} ({})", used.bytes, bytes(used.bytes));
            vec![used.name.to_owned(), value, used.definition.to_owned(), used.used_by.to_owned()]
        })
        .collect();
    text.push_str(&render_table(&["NAME", "BYTES", "DEFINITION", "PRINTED BY"], &rows, width));
    let parts: Vec<String> = memory
        .stat
        .iter()
        .map(|(key, value)| {
            if key.starts_with("pg") { format!("{key} {value}") } else { format!("{key} {}", bytes(*value)) }
        })
        .collect();
    let peak = memory.peak.map_or_else(String::new, |peak| format!("peak {} ({}) · ", peak, bytes(peak)));
    for line in wrap(&format!("{peak}{}", parts.join(" · ")), width) {
        text.push_str(&format!("{}\n", style.faint(&line)));
    }
    let told = |events: &std::collections::BTreeMap<String, u64>| {
        events
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(key, count)| format!("{key} {count}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (all, local) = (told(&memory.events), told(&memory.events_local));
    if !all.is_empty() {
        let local = if local.is_empty() { "none of its own".to_owned() } else { format!("its own: {local}") };
        text.push_str(&format!("memory events: {} ({local})\n", style.bad(&all)));
    }
}

fn usage(reading: &CgroupReading, style: Style, text: &mut String) {
    text.push('\n');
    text.push_str(&format!("{} {}", style.strong("processes"), reading.processes));
    if let Some(pids) = &reading.pids {
        let max = pids.max.map_or_else(String::new, |max| format!(" of {max}"));
        let peak = pids.peak.map_or_else(String::new, |peak| format!(", peak {peak}"));
        let refused = pids.refused.filter(|count| *count > 0);
        let refused = refused.map_or_else(String::new, |count| format!(", {count} forks refused"));
        text.push_str(&format!(" · tasks {}{max}{peak}{}", pids.current, style.bad(&refused)));
    }
    text.push('\n');
    if let Some(cpu) = &reading.cpu {
        let seconds = |microseconds: u64| {
            format!("{}.{:03} s", microseconds / 1_000_000, microseconds % 1_000_000 / 1000)
        };
        text.push_str(&format!("{} {}", style.strong("cpu time"), seconds(cpu.usage_microseconds)));
        if cpu.periods > 0 {
            let throttled = format!(
                " · throttled in {} of {} periods, for {}",
                cpu.throttled_periods,
                cpu.periods,
                seconds(cpu.throttled_microseconds)
            );
            text.push_str(&if cpu.throttled_periods > 0 { style.warning(&throttled) } else { throttled });
        }
        text.push('\n');
    }
    for (device, counts) in &reading.io {
        let get = |key: &str| counts.get(key).copied().unwrap_or_default();
        text.push_str(&format!(
            "{} {device} · read {} in {} · written {} in {}\n",
            style.strong("io"),
            bytes(get("rbytes")),
            get("rios"),
            bytes(get("wbytes")),
            get("wios")
        ));
    }
}

fn pressure(reading: &CgroupReading, style: Style, width: Option<usize>, text: &mut String) {
    if reading.pressure.is_empty() {
        return;
    }
    text.push_str(&format!(
        "\n{}\n",
        style.strong("pressure: time in which tasks waited, % (10 s / 60 s / 300 s)")
    ));
    let cell = |line: &Option<PressureLine>| {
        line.map_or_else(
            || "-".to_owned(),
            |line| format!("{:.2} / {:.2} / {:.2}", line.avg10, line.avg60, line.avg300),
        )
    };
    let rows: Vec<Vec<String>> = reading
        .pressure
        .iter()
        .map(|(resource, pressure)| vec![(*resource).to_owned(), cell(&pressure.some), cell(&pressure.full)])
        .collect();
    text.push_str(&render_table(&["", "SOME", "FULL"], &rows, width));
}

/// The last values of each plot.
#[derive(Debug, Default)]
pub(crate) struct History {
    memory: Vec<u64>,
    cpu: Vec<u64>,
    throttled: Vec<u64>,
    pids: Vec<u64>,
    stalled: Vec<u64>,
    last: Option<(u64, CgroupReading)>,
}

impl History {
    /// Takes what was read at a time in microseconds.
    pub(crate) fn push(&mut self, at: u64, reading: &CgroupReading) {
        let before = self.last.as_ref();
        let elapsed = before.map_or(0, |(time, _)| at.saturating_sub(*time)).max(1);
        let rate =
            |now: u64, then: Option<u64>| then.map_or(0, |then| now.saturating_sub(then) * 1000 / elapsed);
        let cpu_before = before.and_then(|(_, reading)| reading.cpu.as_ref());
        let stall = |reading: &CgroupReading| {
            reading.pressure.get("memory").and_then(|p| p.some).map(|line| line.total)
        };
        let add = |series: &mut Vec<u64>, value: u64| {
            series.push(value);
            let surplus = series.len().saturating_sub(PLOT);
            series.drain(..surplus);
        };
        if let Some(memory) = &reading.memory {
            add(&mut self.memory, memory.current);
        }
        if let Some(cpu) = &reading.cpu {
            // Thousandths of one processor.
            add(&mut self.cpu, rate(cpu.usage_microseconds, cpu_before.map(|cpu| cpu.usage_microseconds)));
            add(
                &mut self.throttled,
                rate(cpu.throttled_microseconds, cpu_before.map(|cpu| cpu.throttled_microseconds)),
            );
        }
        if let Some(pids) = &reading.pids {
            add(&mut self.pids, pids.current);
        }
        if let Some(total) = stall(reading) {
            add(&mut self.stalled, rate(total, before.and_then(|(_, reading)| stall(reading))));
        }
        self.last = Some((at, reading.clone()));
    }
}

/// The live view.
pub(crate) fn render_live(report: &CgroupReport, history: &History, style: Style) -> String {
    let mut text = header(report, style);
    let reading = &report.reading;
    let mut line = |name: &str, series: &[u64], full: Option<u64>, now: String| {
        if !series.is_empty() {
            let bars = style.good(&sparkline(series, full));
            let pad = " ".repeat(PLOT.saturating_sub(series.len()));
            text.push_str(&format!("{name:<14} {pad}{bars} {now}\n"));
        }
    };
    let percent = |thousandths: Option<&u64>| {
        let value = thousandths.copied().unwrap_or_default();
        format!("{}.{} %", value / 10, value % 10)
    };
    if let Some(memory) = &reading.memory {
        let limit = match memory.max {
            Some(Limit::Value(value)) => Some(value),
            _ => None,
        };
        let of = limit.map_or_else(|| "no limit here".to_owned(), |limit| format!("of {}", bytes(limit)));
        let swap = memory
            .swap
            .filter(|swap| *swap > 0)
            .map_or_else(String::new, |swap| format!(", swap {}", bytes(swap)));
        line("memory", &history.memory, limit, format!("{} {of}{swap}", bytes(memory.current)));
    }
    line("cpu", &history.cpu, None, percent(history.cpu.last()));
    line("throttled", &history.throttled, Some(1000), percent(history.throttled.last()));
    line("memory stalls", &history.stalled, Some(1000), percent(history.stalled.last()));
    if let Some(pids) = &reading.pids {
        let full = match pids.max {
            Some(Limit::Value(value)) => Some(value),
            _ => None,
        };
        let max = pids.max.map_or_else(String::new, |max| format!(" of {max}"));
        line("tasks", &history.pids, full, format!("{}{max}", pids.current));
    }
    for finding in &report.findings {
        text.push_str(&format!("{}\n", style.warning(finding)));
    }
    text
}
