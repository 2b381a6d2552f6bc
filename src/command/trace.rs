//! `inspect trace`: what runs in the moments that `ps` misses.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use inspect_probes::Host;
use inspect_probes::escape::{escape, quote};
use inspect_probes::events::timeline::{Role, Timeline, TracedProcess};
use inspect_probes::events::{Event, EventError, EventKind, RecordCgroups, Recorder, Timestamp};
use inspect_probes::name::{ContainerId, Pid};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::error::CommandError;
use crate::output::{self, Output, Status};
use crate::render::chrome::chrome_trace;
use crate::render::json::render_json;
use crate::render::style::Style;
use crate::render::trace::{TraceReport, milliseconds, render_totals, render_trace};

/// How often the end is looked for while nothing happens.
const TICK: Duration = Duration::from_millis(20);
/// After the command ended, its shim may still be at work: until that is done, and no longer than this.
const LINGER: Duration = Duration::from_secs(3);
/// And at least this long: the last processes end at the same time as the command.
const SETTLE: Duration = Duration::from_millis(100);

/// Show every process that containerd, the shim and the OCI runtime start, with times
#[derive(Debug, Args)]
#[command(after_help = "\
With a COMMAND the trace ends with it, and the status is the command's (128 + N when signal N killed it). Without one it \
follows until Ctrl-C. The trace covers the whole host: what containerd does for the command is not the command's child.

Examples:
  inspect trace -- ctr run --rm docker.io/library/busybox:latest x true
  inspect trace --container web
  inspect trace --format chrome -- ctr run --rm IMAGE x true >trace.json")]
pub(crate) struct TraceArgs {
    /// Show only this container
    #[arg(long, value_name = "ID")]
    container: Option<String>,
    /// How to print; with `json` and `chrome` the COMMAND's output goes to standard error
    #[arg(long, value_enum, default_value_t = TraceFormat::Text, value_name = "FORMAT")]
    format: TraceFormat,
    /// End after this many seconds
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
    /// What to run
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TraceFormat {
    /// A tree with times
    Text,
    /// One JSON document
    Json,
    /// For chrome://tracing and ui.perfetto.dev
    Chrome,
}

/// Traces until the command, the time or the user ends it.
pub(crate) fn run(args: &TraceArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    let stop = stop_flag()?;
    let mut recorder = Recorder::start(host, RecordCgroups::Yes).map_err(refused)?;
    let mut child = match args.command.split_first() {
        Some((program, arguments)) => Some(spawn(program, arguments, args.format)?),
        None => None,
    };
    let command = child.as_ref().map(|child| Pid::new(child.id()));
    let live = child.is_none() && args.format == TraceFormat::Text;
    let filter = args.container.as_deref().map(ContainerId::new);
    let mut follower =
        Follower { timeline: Timeline::new(command), filter, live, style: Style::new(output.color()) };
    let status = follow(args, &mut recorder, &mut follower, child.as_mut(), &stop, output)?;
    let (rest, loss) = recorder.finish().map_err(refused)?;
    for event in rest {
        follower.take(event, output)?;
    }
    follower.timeline.apply(Event { time: Timestamp::default(), kind: EventKind::Lost(loss) });
    let report = follower.report();
    let text = match args.format {
        TraceFormat::Text if live => render_totals(report.counts, report.loss, follower.style),
        TraceFormat::Text => render_trace(&report, follower.style, output.width()),
        TraceFormat::Json => render_json(&report)?,
        TraceFormat::Chrome => render_json(&chrome_trace(&report))?,
    };
    output.print(&text)?;
    Ok(status.map_or(Status::Success, Status::Code))
}

/// Takes events until the end; gives the command's status.
fn follow(
    args: &TraceArgs,
    recorder: &mut Recorder,
    follower: &mut Follower,
    mut child: Option<&mut Child>,
    stop: &AtomicBool,
    output: &mut Output,
) -> Result<Option<u8>, CommandError> {
    let begin = Instant::now();
    let mut ended: Option<(Instant, u8)> = None;
    loop {
        let mut next = recorder.receive(TICK);
        while let Some(event) = next {
            follower.take(event, output)?;
            next = recorder.next_received();
        }
        if let (Some(child), None) = (child.as_deref_mut(), ended) {
            let status = child.try_wait().map_err(CommandError::trouble)?;
            ended = status.map(|status| (Instant::now(), exit_code(status)));
        }
        let over = match ended {
            Some((when, _)) => {
                let since = when.elapsed();
                since > LINGER || since > SETTLE && !follower.timeline.is_busy()
            }
            // Ctrl-C reaches the command as well: its end is awaited.
            None => child.is_none() && stop.load(Ordering::Relaxed),
        };
        let late = args.duration.is_some_and(|seconds| begin.elapsed() > Duration::from_secs(seconds));
        if over || late || output.is_reader_gone() || !recorder.is_running() {
            return Ok(ended.map(|(_, code)| code));
        }
    }
}

/// The timeline as it grows, told line by line where there is no command to wait for.
struct Follower {
    timeline: Timeline,
    filter: Option<ContainerId>,
    live: bool,
    style: Style,
}

impl Follower {
    fn take(&mut self, event: Event, output: &mut Output) -> Result<(), CommandError> {
        if !self.live {
            self.timeline.apply(event);
            return Ok(());
        }
        let (time, kind) = (event.time, event.kind.clone());
        let ending = match &kind {
            EventKind::Exit { pid, status } => self.line(*pid).map(|line| {
                let spent = self.timeline.find_live(*pid).and_then(|process| process.forked);
                let spent = spent
                    .map_or_else(String::new, |made| format!(" after {}", milliseconds(time.since(made))));
                format!("{line} {}{spent}", self.style.faint(&status.to_string()))
            }),
            _ => None,
        };
        self.timeline.apply(event);
        let line = match kind {
            EventKind::Exec { pid, .. } => self.line(pid),
            EventKind::CgroupCreated { path, .. } if self.filter_names(path.as_str()) => {
                Some(format!("{:>8}  cgroup {path} made", ""))
            }
            EventKind::CgroupRemoved { path, .. } if self.filter_names(path.as_str()) => {
                Some(format!("{:>8}  cgroup {path} gone", ""))
            }
            EventKind::Lost(_) => {
                Some(render_totals(self.timeline.counts(), self.timeline.loss(), self.style))
            }
            _ => ending,
        };
        match line {
            Some(line) => {
                let start = milliseconds(time.since(self.timeline.origin()));
                output.print(&format!("{start:>12} {}\n", line.trim_end()))
            }
            None => Ok(()),
        }
    }

    fn filter_names(&self, cgroup: &str) -> bool {
        self.filter.as_ref().is_none_or(|id| cgroup.contains(id.as_str()))
    }

    /// A process as one line, when it is part of what is traced.
    fn line(&self, pid: Pid) -> Option<String> {
        let process = self.timeline.find_live(pid).filter(|process| self.is_shown(process))?;
        let image = process.executions.last().and_then(|execution| execution.image.as_ref());
        let line = image.map_or_else(
            || "(gone before it could be read)".to_owned(),
            |image| image.command_line.iter().map(|argument| escape(argument)).collect::<Vec<_>>().join(" "),
        );
        let container = process.container.as_ref().map_or_else(String::new, ToString::to_string);
        Some(format!("{pid:>8}  {:<14} {container} {line}", process.role.name()))
    }

    fn is_shown(&self, process: &TracedProcess) -> bool {
        let told = !matches!(process.role, Role::Other | Role::Helper | Role::Daemon);
        told && self.filter.as_ref().is_none_or(|id| process.container.as_ref() == Some(id))
    }

    fn report(&self) -> TraceReport {
        let mut containers = self.timeline.containers();
        containers.retain(|trace| self.filter.as_ref().is_none_or(|id| trace.container == *id));
        TraceReport {
            command: self.timeline.command_steps(),
            counts: self.timeline.counts(),
            loss: self.timeline.loss(),
            containers,
        }
    }
}

/// Runs the command. Where standard output is to carry a document, the command's goes to standard error.
fn spawn(program: &str, arguments: &[String], format: TraceFormat) -> Result<Child, CommandError> {
    let mut command = Command::new(program);
    command.args(arguments);
    if format != TraceFormat::Text {
        command.stdout(output::stderr_of_child()?);
    }
    command.spawn().map_err(|error| {
        CommandError::trouble(format!("cannot run {}: {error}", quote(program.as_bytes())))
            .hint("the command stands behind `--`: `inspect trace -- ctr run …`")
    })
}

fn exit_code(status: std::process::ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(70);
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Set by the first SIGINT or SIGTERM.
pub(crate) fn stop_flag() -> Result<Arc<AtomicBool>, CommandError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(CommandError::trouble)?;
    }
    Ok(stop)
}

fn refused(error: EventError) -> CommandError {
    let hint = match &error {
        EventError::Subscribe { .. } => {
            Some("run it as root, on the host itself: it takes CAP_NET_ADMIN in the first namespaces")
        }
        EventError::Open { .. } | EventError::NoAnswer => Some(
            "`zgrep PROC_EVENTS /proc/config.gz /boot/config-$(uname -r)` tells whether this kernel has the connector",
        ),
        EventError::WatchCgroups { .. } => {
            Some("`sysctl fs.inotify.max_user_watches` may be too low for this many cgroups")
        }
        _ => None,
    };
    let error = CommandError::trouble(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
