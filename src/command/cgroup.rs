//! `inspect cgroup`: what a spec's resources became in the kernel, and what is used of them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use inspect_probes::bundle::cgroup_belongs_to;
use inspect_probes::cgroup::{
    Agreement, CgroupLocation, EffectiveLimit, Row, UnitLimits, child_cgroups, read_cgroup,
    read_effective_limits, read_table, read_unit_limits, unit_of_cgroup,
};
use inspect_probes::container_cgroup::{CgroupSubject, CgroupSubjectError, locate_cgroup};
use inspect_probes::escape::escape;
use inspect_probes::events::CgroupWatch;
use inspect_probes::killed::{oom_finding, read_levels};
use inspect_probes::name::{CgroupPath, ContainerId, UnitName};
use inspect_probes::{Host, Node};

use super::trace::stop_flag;
use crate::error::CommandError;
use crate::output::{Output, Status};
use crate::render::cgroup::{CgroupReport, History, render_cgroup, render_live};
use crate::render::json::render_json;
use crate::render::openmetrics::render_openmetrics;
use crate::render::style::Style;

/// How often a cgroup that appeared is read, and for how long it has to stay as it is.
const APPEARING: Duration = Duration::from_millis(2);
const SETTLED: Duration = Duration::from_millis(300);
const APPEARED: Duration = Duration::from_secs(10);

/// Show what a container's resource limits became in the kernel's cgroup files, and what is used
#[derive(Debug, Args)]
#[command(after_help = "\
The table: a field of config.json → its conversion → the cgroup file → the kernel's value → what is used now.

Examples:
  inspect cgroup web
  inspect cgroup /kubepods.slice --format json
  inspect cgroup web --watch
  inspect cgroup --wait web        (then, elsewhere: ctr run … web)")]
pub(crate) struct CgroupArgs {
    /// A container, a cgroup's path (begins with `/`) or a pid
    #[arg(value_name = "ID|PATH|PID", required_unless_present = "wait")]
    target: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = CgroupFormat::Text, value_name = "FORMAT")]
    format: CgroupFormat,
    /// Follow with small plots until Ctrl-C or until the cgroup is gone
    #[arg(long)]
    watch: bool,
    /// Seconds between two readings of --watch
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    interval: f64,
    /// End --watch after this many readings
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Wait for the cgroup of a container that is not there yet, and show how it appears
    #[arg(long, value_name = "NAME", conflicts_with = "target")]
    wait: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CgroupFormat {
    /// A table
    Text,
    /// One JSON document; with --watch one after another
    Json,
    /// OpenMetrics text, as Prometheus reads it
    Openmetrics,
}

/// Reads and shows one cgroup.
pub(crate) fn run(args: &CgroupArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    let query = match (&args.wait, &args.target) {
        (Some(name), _) => {
            let path = await_cgroup(name, host, output)?;
            // By its name the container's limits are found also where its runtime puts them into a cgroup below.
            let found = find_by_whole_name(name, host)?;
            if found.is_some() { name.clone() } else { path }
        }
        (None, Some(target)) => target.clone(),
        (None, None) => return Err(CommandError::usage("no cgroup was named")),
    };
    let mut node = Node::read(host).map_err(CommandError::trouble)?;
    let subject = locate_cgroup(host, &mut node, &query).map_err(refused)?;
    if args.watch {
        return watch(args, host, &subject, output);
    }
    let report = read_report(host, &subject)?;
    output.print(&render(args.format, &report, output)?)?;
    Ok(Status::Success)
}

fn render(format: CgroupFormat, report: &CgroupReport, output: &Output) -> Result<String, CommandError> {
    Ok(match format {
        CgroupFormat::Text => render_cgroup(report, Style::new(output.color()), output.width()),
        CgroupFormat::Json => render_json(report)?,
        CgroupFormat::Openmetrics => render_openmetrics(report),
    })
}

fn refused(error: CgroupSubjectError) -> CommandError {
    let hint = match &error {
        CgroupSubjectError::Gone { .. } => {
            "a deleted container has no cgroup; `inspect why killed ID` says what else is known"
        }
        CgroupSubjectError::NoHierarchy => "`mount -t cgroup2` shows whether a hierarchy is mounted",
        _ => "run `inspect tree` to list the containers of this node, or name a path that begins with `/`",
    };
    CommandError::trouble(error).hint(hint)
}

fn read_report(host: &Host, subject: &CgroupSubject) -> Result<CgroupReport, CommandError> {
    let location = &subject.location;
    let unit = unit_of_cgroup(&location.path);
    let (limits, unit_note) = unit.as_ref().filter(|_| host.is_live()).map_or((None, None), ask_systemd);
    let rows =
        read_table(location, subject.resources.as_ref(), limits.as_ref()).map_err(CommandError::trouble)?;
    let effective = read_effective_limits(location).map_err(CommandError::trouble)?;
    let reading = read_cgroup(host, location).map_err(CommandError::trouble)?;
    let mut findings = findings(&rows, &effective, &location.path);
    findings.extend(oom_finding(&read_levels(location).map_err(CommandError::trouble)?));
    findings.extend(unit_note);
    Ok(CgroupReport {
        container: subject.container.clone(),
        path: location.path.clone(),
        mode: location.mode,
        hierarchies: location.hierarchies(host),
        unit: unit.filter(|_| limits.is_some()),
        rows,
        effective,
        reading,
        findings,
    })
}

/// systemd's view of the unit, or a sentence on why it is not known.
fn ask_systemd(unit: &UnitName) -> (Option<UnitLimits>, Option<String>) {
    let asked = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(read_unit_limits(unit)));
    match asked {
        Ok(Ok(limits)) => (limits, None),
        Ok(Err(error)) => (None, Some(format!("drift against systemd is not checked: {error}"))),
        Err(error) => (None, Some(format!("drift against systemd is not checked: {error}"))),
    }
}

/// What is worth a look.
fn findings(rows: &[Row], effective: &[EffectiveLimit], path: &CgroupPath) -> Vec<String> {
    let mut findings = Vec::new();
    for row in rows {
        let file = row.file.as_deref().unwrap_or_default();
        if row.agreement == Agreement::Different {
            let (kernel, expected) =
                (row.kernel.as_deref().unwrap_or("-"), row.expected.as_deref().unwrap_or("-"));
            findings.push(format!(
                "drift: {file} is {}, the spec makes it {}",
                escape(kernel),
                escape(expected)
            ));
        }
        if let Some(drift) = &row.unit_drift {
            findings.push(format!(
                "drift: {file} is not what systemd's {} says ({})",
                drift.property, drift.value
            ));
        }
    }
    for limit in effective.iter().filter(|limit| limit.is_inherited(path)) {
        if let Some(by) = &limit.bound_by {
            findings.push(format!("{}: the limit that holds is {} of {by}", limit.file, limit.effective));
        }
    }
    findings
}

fn watch(
    args: &CgroupArgs,
    host: &Host,
    subject: &CgroupSubject,
    output: &mut Output,
) -> Result<Status, CommandError> {
    let stop = stop_flag()?;
    let interval = Duration::try_from_secs_f64(args.interval.max(0.01)).map_err(CommandError::usage)?;
    let begin = Instant::now();
    let mut history = History::default();
    let mut shown = 0;
    while !stop.load(Ordering::Relaxed) && !output.is_reader_gone() {
        if !subject.location.exists() {
            output.print(&format!("cgroup {} is gone\n", subject.location.path))?;
            break;
        }
        let report = read_report(host, subject)?;
        history.push(u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX), &report.reading);
        match args.format {
            CgroupFormat::Text => {
                output.redraw(&render_live(&report, &history, Style::new(output.color())))?
            }
            format => output.print(&render(format, &report, output)?)?,
        }
        shown += 1;
        if args.count.is_some_and(|count| shown >= count) {
            break;
        }
        let next = Instant::now() + interval;
        while Instant::now() < next && !stop.load(Ordering::Relaxed) {
            std::thread::sleep((next - Instant::now()).min(Duration::from_millis(50)));
        }
    }
    Ok(Status::Success)
}

/// Waits until a cgroup of that name is made, and tells each value as the runtime writes it. Gives the cgroup's path.
fn await_cgroup(name: &str, host: &Host, output: &mut Output) -> Result<String, CommandError> {
    let stop = stop_flag()?;
    let mut watch = CgroupWatch::open(host).map_err(CommandError::trouble)?;
    // Who was here before the watch is not waited for.
    if let Some(found) = find_by_whole_name(name, host)? {
        return Ok(found.as_str().to_owned());
    }
    let id = ContainerId::new(name);
    output.note(&format!("waiting for a cgroup of {}", escape(name)));
    while !stop.load(Ordering::Relaxed) {
        watch.wait(Duration::from_millis(200)).map_err(CommandError::trouble)?;
        let made = watch.drain().map_err(CommandError::trouble)?.into_iter().filter(|change| change.created);
        for change in made {
            if change.path.as_str() == name || cgroup_belongs_to(&change.path, &id) {
                let hierarchy = change.hierarchy.unwrap_or("unified");
                output.print(&format!("{:>12} cgroup {} made ({hierarchy})\n", "0.00 ms", change.path))?;
                follow_appearance(host, &change.path, output)?;
                return Ok(change.path.as_str().to_owned());
            }
        }
    }
    Err(CommandError::trouble(format!("no cgroup of {} was made before the wait was ended", escape(name))))
}

/// The cgroup of a container with exactly this id, or of exactly this path: one whose id only begins so is another.
fn find_by_whole_name(name: &str, host: &Host) -> Result<Option<CgroupPath>, CommandError> {
    let mut node = Node::read(host).map_err(CommandError::trouble)?;
    let found = locate_cgroup(host, &mut node, name).ok().filter(|found| {
        found.location.path.as_str() == name
            || found.container.as_ref().is_some_and(|container| container.id.as_str() == name)
    });
    Ok(found.map(|found| found.location.path))
}

/// Tells the files of a new cgroup as they change, until it has processes and stays as it is.
fn follow_appearance(host: &Host, path: &CgroupPath, output: &mut Output) -> Result<(), CommandError> {
    let begin = Instant::now();
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut last_change = begin;
    let tell = |output: &mut Output, line: &str| {
        let time = begin.elapsed().as_micros();
        output.print(&format!("{:>6}.{:02} ms {line}\n", time / 1000, time % 1000 / 10))
    };
    while begin.elapsed() < APPEARED {
        let Some(location) = CgroupLocation::find(host, path, &[]).filter(CgroupLocation::exists) else {
            break;
        };
        // A cgroup that is just being made or removed may refuse a read: the next one tells.
        let rows = read_table(&location, None, None).unwrap_or_default();
        let mut first = Vec::new();
        for (file, value) in rows.into_iter().filter_map(|row| row.file.zip(row.kernel)) {
            match known.insert(file.clone(), value.clone()) {
                None => first.push(format!("{file} {}", escape(&value))),
                Some(before) if before != value => {
                    last_change = Instant::now();
                    tell(output, &format!("{file}: {} → {}", escape(&before), escape(&value)))?;
                }
                Some(_) => {}
            }
        }
        if !first.is_empty() {
            tell(output, &format!("found with: {}", first.join(", ")))?;
        }
        let mut is_populated = false;
        for (cgroup, procs) in processes_in(host, &location) {
            is_populated = true;
            let key = format!("cgroup.procs {cgroup}");
            if known.insert(key, procs.clone()).as_ref() != Some(&procs) {
                last_change = Instant::now();
                let place = if cgroup == *path { String::new() } else { format!(" in {cgroup}") };
                tell(output, &format!("processes{place}: {}", procs.lines().collect::<Vec<_>>().join(" ")))?;
            }
        }
        if is_populated && last_change.elapsed() > SETTLED {
            break;
        }
        std::thread::sleep(APPEARING);
    }
    Ok(())
}

/// The text of `cgroup.procs` of a cgroup and of those one level below, where crun with systemd's driver has the
/// container's; what is empty, or was just removed, is left out.
fn processes_in(host: &Host, location: &CgroupLocation) -> Vec<(CgroupPath, String)> {
    let below = child_cgroups(host, &location.path).unwrap_or_default();
    let below = below.iter().filter_map(|path| CgroupLocation::find(host, path, &[]));
    let read = |location: CgroupLocation| {
        let procs = location.read("cgroup.procs").ok().flatten().filter(|procs| !procs.is_empty())?;
        Some((location.path, procs))
    };
    std::iter::once(location.clone()).chain(below).filter_map(read).collect()
}
