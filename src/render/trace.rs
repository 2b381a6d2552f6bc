//! The timeline of `inspect trace` as text.

use inspect_probes::escape::escape;
use inspect_probes::events::timeline::{CommandLineSource, ContainerTrace, Counts, Role, Step};
use inspect_probes::events::{Loss, NamespaceInode};
use serde::Serialize;

use super::style::Style;
use super::wrap::wrap;

/// Columns before the tree: start, duration, pid and the blanks between them.
const LEFT: usize = 33;

/// What a trace gives.
#[derive(Debug, Serialize)]
pub(crate) struct TraceReport {
    /// The command that was traced and its children: a tree by depth.
    pub(crate) command: Vec<Step>,
    /// How much was seen on the whole host.
    pub(crate) counts: Counts,
    /// What the kernel could not tell.
    pub(crate) loss: Loss,
    /// What was done to each container.
    pub(crate) containers: Vec<ContainerTrace>,
}

/// The whole report.
pub(crate) fn render_trace(report: &TraceReport, style: Style, width: Option<usize>) -> String {
    let mut text = String::new();
    if !report.command.is_empty() {
        render_steps(&report.command, style, width, &mut text);
        text.push('\n');
    }
    for container in &report.containers {
        render_container(container, style, width, &mut text);
        text.push('\n');
    }
    if report.containers.is_empty() {
        text.push_str("nothing was done to any container\n");
    }
    text.push_str(&render_totals(report.counts, report.loss, style));
    text
}

/// How much was seen, and what was not.
pub(crate) fn render_totals(counts: Counts, loss: Loss, style: Style) -> String {
    let seen = format!(
        "on this host: {} processes made, {} programs run, {} ended",
        counts.forks, counts.execs, counts.exits
    );
    let unread = match counts.execs_unread {
        0 => String::new(),
        count => format!(" ({count} programs were gone before they could be read)"),
    };
    let lost = if loss.is_none() {
        style.good("no event lost")
    } else {
        style.bad(&format!(
            "{} events LOST, {} buffer overruns, {} cgroup queue overflows: the trace has gaps",
            loss.events, loss.overruns, loss.cgroup_overflows
        ))
    };
    format!("{seen}{unread}; {lost}\n")
}

fn render_steps(steps: &[Step], style: Style, width: Option<usize>, text: &mut String) {
    let header = format!("{:>10} {:>10} {:>8}  {}", "START", "DURATION", "PID", "STEP");
    text.push_str(&format!("{}\n", style.strong(&header)));
    for (step, prefix) in steps.iter().zip(tree_prefixes(steps)) {
        render_step(step, &prefix, style, width, text);
    }
}

fn render_container(trace: &ContainerTrace, style: Style, width: Option<usize>, text: &mut String) {
    let namespace = trace
        .containerd_namespace
        .as_ref()
        .map_or_else(String::new, |name| format!(" in containerd namespace {name}"));
    text.push_str(&format!("container {}{namespace}\n", style.strong(&trace.container.to_string())));
    if let Some(create) = trace.find_create() {
        let exe = create.exe.as_ref().map_or_else(|| "not read".to_owned(), |exe| exe.display().to_string());
        let file = create
            .file
            .map_or_else(String::new, |file| format!(" (device {}, inode {})", file.device, file.inode));
        text.push_str(&format!("made by {}{file}\n", style.strong(&escape(&exe))));
    }
    render_steps(&trace.steps, style, width, text);
    for cgroup in &trace.cgroups {
        let removed =
            cgroup.removed.map_or_else(String::new, |time| format!(", gone at {}", milliseconds(time)));
        let line = format!("cgroup {} ({}) made{removed}", cgroup.path, cgroup.hierarchy);
        text.push_str(&format!("{:>10} {:>20}{line}\n", milliseconds(cgroup.created), ""));
    }
    if trace.processes_omitted > 0 {
        text.push_str(&format!("and {} more processes in the container\n", trace.processes_omitted));
    }
    if !trace.missing.is_empty() {
        text.push_str(&format!("{}\n", style.bad(&format!("not seen: {}", trace.missing.join(", ")))));
    }
}

fn render_step(step: &Step, prefix: &str, style: Style, width: Option<usize>, text: &mut String) {
    let start = step.started.map_or_else(|| "before".to_owned(), milliseconds);
    let duration = step.duration.map_or_else(|| "-".to_owned(), milliseconds);
    let status = match step.status {
        None => String::new(),
        Some(status) if status.is_success() => format!(" {}", style.faint(&status.to_string())),
        Some(status) => format!(" {}", style.bad(&status.to_string())),
    };
    let name = style.strong(step.step.name());
    text.push_str(&format!("{start:>10} {duration:>10} {:>8}  {prefix}{name}{status}\n", step.pid));
    let below = " ".repeat(LEFT + prefix.chars().count());
    let room = width.map(|columns| columns.saturating_sub(below.len()).max(20));
    for detail in details(step) {
        for line in wrap(&detail, room) {
            text.push_str(&format!("{below}{}\n", style.faint(&line)));
        }
    }
}

/// The lines below a step: what it ran, when, and what it has of its own.
fn details(step: &Step) -> Vec<String> {
    let mut details = Vec::new();
    let line = step.command_line.iter().map(|argument| escape(argument)).collect::<Vec<_>>().join(" ");
    let comm = step.comm.as_ref().map_or_else(String::new, |comm| format!(" as `{}`", escape(comm)));
    details.push(match step.command_line_source {
        CommandLineSource::Process => line,
        CommandLineSource::Bundle => {
            format!("{line} (gone before it could be read: from the bundle's process.args)")
        }
        CommandLineSource::Parent if step.executed.is_none() => format!("runs no program of its own{comm}"),
        CommandLineSource::Parent if step.inferred => {
            format!("gone before it could be read: told by its place among the calls of its maker, {line}")
        }
        CommandLineSource::Parent => format!("gone before it could be read; made by: {line}"),
        CommandLineSource::Unknown => format!("gone before its command line could be read{comm}"),
    });
    if let (Role::Init | Role::ExecProcess, Some(executed)) = (step.step, step.executed) {
        details.push(format!("ran its program at {}", milliseconds(executed)));
    }
    if !step.namespaces_created.is_empty() {
        details.push(format!("namespaces made: {}", namespaces(&step.namespaces_created)));
    }
    if !step.namespaces_joined.is_empty() {
        details.push(format!("namespaces joined: {}", namespaces(&step.namespaces_joined)));
    }
    details
}

fn namespaces(list: &[NamespaceInode]) -> String {
    list.iter()
        .map(|namespace| format!("{}:[{}]", namespace.kind, namespace.inode))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Branches before each step, from the depths in depth-first order.
fn tree_prefixes(steps: &[Step]) -> Vec<String> {
    let is_last = |index: usize, depth: usize| {
        let below = steps.iter().skip(index + 1).map(|step| step.depth);
        below.take_while(|other| *other >= depth).all(|other| other != depth)
    };
    let mut open: Vec<bool> = Vec::new();
    let mut prefixes = Vec::with_capacity(steps.len());
    for (index, step) in steps.iter().enumerate() {
        open.truncate(step.depth.saturating_sub(1));
        let mut prefix: String = open.iter().map(|more| if *more { "│ " } else { "  " }).collect();
        if step.depth > 0 {
            let last = is_last(index, step.depth);
            prefix.push_str(if last { "└ " } else { "├ " });
            open.push(!last);
        }
        prefixes.push(prefix);
    }
    prefixes
}

/// Nanoseconds for people.
pub(crate) fn milliseconds(nanoseconds: u64) -> String {
    let microseconds = nanoseconds / 1000;
    if microseconds < 10_000_000 {
        return format!("{}.{:02} ms", microseconds / 1000, microseconds % 1000 / 10);
    }
    format!("{}.{:02} s", microseconds / 1_000_000, microseconds % 1_000_000 / 10_000)
}

#[cfg(test)]
pub(crate) mod tests {
    use inspect_probes::events::timeline::Timeline;
    use inspect_probes::events::{Event, EventKind, ExitStatus, ProcessImage, Timestamp};
    use inspect_probes::name::Pid;

    use super::*;

    /// A shim that was there, and a runtime's `delete` that fails.
    pub(crate) fn report() -> TraceReport {
        let mut timeline = Timeline::new(None);
        let image = |line: &str| {
            let command_line = line.split(' ').map(str::to_owned).collect();
            Box::new(ProcessImage {
                command_line,
                exe: Some("/usr/sbin/runc".into()),
                ..ProcessImage::default()
            })
        };
        let (shim, runtime) = (Pid::new(7), Pid::new(8));
        let shim_line = "/usr/bin/containerd-shim-runc-v2 -namespace default -id w\x1beb";
        let events = [
            (0, EventKind::Present { pid: shim, image: image(shim_line) }),
            (1_000_000, EventKind::Fork { parent: shim, child: runtime }),
            (
                2_500_000,
                EventKind::Exec { pid: runtime, image: Some(image("runc --root /r delete w\x1beb")) },
            ),
            (5_000_000, EventKind::Exit { pid: runtime, status: ExitStatus::Exited(1) }),
        ];
        for (time, kind) in events {
            timeline.apply(Event { time: Timestamp(time), kind });
        }
        TraceReport {
            command: Vec::new(),
            counts: timeline.counts(),
            loss: Loss { events: 3, overruns: 1, cgroup_overflows: 0 },
            containers: timeline.containers(),
        }
    }

    #[test]
    fn a_trace_is_a_tree_with_times_and_says_what_was_lost() {
        let text = render_trace(&report(), Style::new(false), Some(60));
        let expected = "container w\\x1beb in containerd namespace default
     START   DURATION      PID  STEP
    before          -        7  shim
                                 /usr/bin/containerd-shim-runc-v2
                                 -namespace default -id
                                 w\\x1beb
   0.00 ms    4.00 ms        8  └ runtime delete exit 1
                                   runc --root /r delete
                                   w\\x1beb

on this host: 1 processes made, 1 programs run, 1 ended; 3 events LOST, 1 buffer overruns, 0 cgroup queue overflows: the trace has gaps
";
        assert_eq!(text, expected);
    }

    #[test]
    fn durations_keep_two_places() {
        assert_eq!(milliseconds(1_234_567), "1.23 ms");
        assert_eq!(milliseconds(12_345_678_901), "12.34 s");
    }
}
