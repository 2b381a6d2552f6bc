//! What `inspect verify` shows: the proof per runtime, then one table of observations and times.

use std::collections::BTreeSet;
use std::path::PathBuf;

use inspect_probes::escape::escape;
use serde::Serialize;

use super::style::Style;
use super::table::render_table;
use super::wrap::wrap;
use crate::verify::CanaryReport;

/// The width of the labels before what is said of a canary.
const LABEL: usize = 19;

/// The canaries of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Verification {
    /// The socket of the daemon that ran them.
    pub(crate) daemon: PathBuf,
    /// One per runtime.
    pub(crate) reports: Vec<CanaryReport>,
}

/// Proofs, observations (all, or those that differ), times.
pub(crate) fn render_verification(
    verification: &Verification,
    all: bool,
    style: Style,
    width: Option<usize>,
) -> String {
    let reports = &verification.reports;
    let mut text = String::new();
    for report in reports {
        render_proof(report, style, width, &mut text);
    }
    // Pods take other steps and have another spec than plain containers: each kind has its own tables.
    let (pods, plain): (Vec<&CanaryReport>, Vec<&CanaryReport>) =
        reports.iter().partition(|report| report.is_pod);
    for kind in [plain, pods].iter().filter(|kind| !kind.is_empty()) {
        text.push('\n');
        text.push_str(&render_facts(kind, all, style, width));
        text.push('\n');
        text.push_str(&render_steps(kind, style, width));
    }
    text
}

fn render_proof(report: &CanaryReport, style: Style, width: Option<usize>, text: &mut String) {
    let name = style.strong(&escape(&report.subject.name));
    let verdict = if report.is_verified() { style.good("verified") } else { style.bad("not verified") };
    let family = report.family.map_or("an unknown runtime", |family| family.as_str());
    text.push_str(&format!("{name}: {verdict}, made by {family}\n"));
    if let Some(state) = &report.state {
        item("its state", &state.display().to_string(), width, text);
    }
    match (&report.executed, report.same_file) {
        (Some(exec), same) => {
            let exe = exec
                .exe
                .as_ref()
                .map_or_else(|| "?".to_owned(), |exe| escape(&exe.to_string_lossy()).into_owned());
            let same = match same {
                Some(true) => ", the very file that was asked for",
                Some(false) => ", NOT the file that was asked for",
                None => "",
            };
            let line = exec.command_line.first().map_or("", String::as_str);
            let seen = format!("{exe} as `{}` (pid {}){same}", escape(line), exec.pid);
            item("seen executing", &seen, width, text);
        }
        (None, _) => {
            item("seen executing", "nothing: the kernel's process events told of no runtime", width, text);
        }
    }
    for failure in &report.failures {
        item("failed", &style.bad(&escape(failure)), width, text);
    }
}

/// A label and what there is to say, folded beside it.
fn item(label: &str, value: &str, width: Option<usize>, text: &mut String) {
    let columns = width.map(|width| width.saturating_sub(LABEL).max(LABEL));
    for (index, line) in wrap(value, columns).iter().enumerate() {
        let label = if index == 0 { label } else { "" };
        text.push_str(&format!("  {label:<15}  {line}\n"));
    }
}

fn render_facts(reports: &[&CanaryReport], all: bool, style: Style, width: Option<usize>) -> String {
    let names: BTreeSet<&String> = reports.iter().flat_map(|report| report.facts.keys()).collect();
    let total = names.len();
    let mut rows = Vec::new();
    let mut different = 0;
    for name in names {
        let values: Vec<&str> =
            reports.iter().map(|report| report.facts.get(name).map_or("–", String::as_str)).collect();
        let differs = values.windows(2).any(|pair| pair[0] != pair[1]);
        different += usize::from(differs);
        if !all && !differs {
            continue;
        }
        let mark = if differs { style.warning("≠") } else { " ".to_owned() };
        let mut row = vec![format!("{mark} {}", escape(name))];
        row.extend(values.iter().map(|value| escape(value).into_owned()));
        rows.push(row);
    }
    let same = total - different;
    let summary = match (reports.len(), different) {
        (1, _) => format!("{total} observations\n"),
        (count, 0) => format!("{total} observations, the same under all {count} runtimes\n"),
        (count, _) => format!(
            "{total} observations: {same} the same under all {count} runtimes, {different} different\n"
        ),
    };
    if rows.is_empty() {
        return summary;
    }
    let mut header = vec!["  OBSERVED"];
    header.extend(reports.iter().map(|report| report.subject.name.as_str()));
    format!("{summary}\n{}", render_table(&header, &rows, width))
}

fn render_steps(reports: &[&CanaryReport], style: Style, width: Option<usize>) -> String {
    let Some(first) = reports.first() else { return String::new() };
    let mut header = vec!["MILLISECONDS"];
    header.extend(reports.iter().map(|report| report.subject.name.as_str()));
    let mut rows = Vec::new();
    for (index, (step, _)) in first.steps.iter().enumerate() {
        let mut row = vec![style.faint(step)];
        row.extend(reports.iter().map(|report| {
            report
                .steps
                .get(index)
                .map_or_else(|| "–".to_owned(), |(_, milliseconds)| format!("{milliseconds:.1}"))
        }));
        rows.push(row);
    }
    render_table(&header, &rows, width)
}
