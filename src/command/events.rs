//! `inspect events`: what containerd tells of tasks, as it happens.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use inspect_probes::containerd::{DEFAULT_ADDRESS, DaemonChannel, DaemonEvent, DaemonEvents};
use inspect_probes::{Host, Node};

use super::trace::stop_flag;
use super::why::killed_finding;
use crate::error::CommandError;
use crate::output::{Output, Status};
use crate::render::events::{EventLine, render_event};
use crate::render::json::render_json_line;
use crate::render::style::Style;

/// How long the daemon may take to be connected to.
const DAEMON_LIMIT: Duration = Duration::from_secs(5);
/// How long a refusal may take; the daemon's consent comes with its first event only.
const SETTLE: Duration = Duration::from_millis(500);
/// How often a stop is looked for.
const TICK: Duration = Duration::from_millis(100);

/// Follow containerd's events: tasks created, started, killed for memory, ended
#[derive(Debug, Args)]
#[command(after_help = "\
When a container ends by a signal, the line says what killed it, while its cgroup is still there to tell.

Examples:
  inspect events
  inspect events --container web --format json
  inspect events --all             images, snapshots and containers too")]
pub(crate) struct EventsArgs {
    /// Only this container
    #[arg(long, short, value_name = "ID")]
    container: Option<String>,
    /// Only this containerd namespace
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    /// Every topic, not tasks alone
    #[arg(long)]
    all: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
    /// End after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after this many seconds
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
    /// The daemon's socket; without it that of the daemon that runs
    #[arg(long, value_name = "PATH")]
    address: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line each
    Text,
    /// A JSON document each, one a line
    Json,
}

/// Follows until Ctrl-C, the count, the time or the daemon ends it.
pub(crate) fn run(args: &EventsArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    if !host.is_live() {
        return Err(CommandError::usage("events come from a running daemon: --host-root has none"));
    }
    let address = match &args.address {
        Some(address) => address.clone(),
        None => {
            let node = Node::read(host).map_err(CommandError::trouble)?;
            node.daemons
                .first()
                .map_or_else(|| PathBuf::from(DEFAULT_ADDRESS), |daemon| daemon.address.clone())
        }
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::trouble)?;
    runtime.block_on(async {
        let mut daemon = DaemonChannel::connect(&address, DAEMON_LIMIT).await.map_err(refused)?;
        let events = daemon.subscribe(filters(args), SETTLE).await.map_err(refused)?;
        output.note(&format!("following {}; Ctrl-C ends it", address.display()));
        follow(args, host, events, output).await
    })
}

fn refused(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CommandError {
    CommandError::trouble(error).hint(
        "`systemctl status containerd` tells whether it runs; its socket is root's; --address names another",
    )
}

/// containerd's own filters: several are alternatives, selectors within one are conditions.
fn filters(args: &EventsArgs) -> Vec<String> {
    let mut conditions = Vec::new();
    if !args.all {
        conditions.push(r#"topic~="^/tasks/""#.to_owned());
    }
    if let Some(namespace) = &args.namespace {
        conditions.push(format!("namespace=={namespace:?}"));
    }
    if conditions.is_empty() { Vec::new() } else { vec![conditions.join(",")] }
}

async fn follow(
    args: &EventsArgs,
    host: &Host,
    mut events: DaemonEvents,
    output: &mut Output,
) -> Result<Status, CommandError> {
    let stop = stop_flag()?;
    let begin = Instant::now();
    let mut told = 0;
    loop {
        let late = args.duration.is_some_and(|seconds| begin.elapsed() > Duration::from_secs(seconds));
        let enough = args.count.is_some_and(|count| told >= count);
        if late || enough || stop.load(Ordering::Relaxed) || output.is_reader_gone() {
            return Ok(Status::Success);
        }
        let Ok(next) = tokio::time::timeout(TICK, events.next()).await else { continue };
        let Some(event) = next.map_err(refused)? else {
            return Err(CommandError::trouble(
                "cannot follow containerd's events further: the daemon ended the stream",
            ));
        };
        let wanted = args.container.as_deref();
        if wanted.is_some_and(|id| event.container.as_ref().is_none_or(|container| container.as_str() != id))
        {
            continue;
        }
        // The shim keeps the cgroup until the task is deleted: this is the moment to look.
        let finding = finding(&event).and_then(|query| find_out(host, &query));
        let line = EventLine { event, finding };
        output.print(&match args.format {
            Format::Text => render_event(&line, Style::new(output.color())),
            Format::Json => render_json_line(&line)?,
        })?;
        told += 1;
    }
}

/// Why it was killed. The daemon is asked with a runtime of its own, and a thread drives one runtime at a time.
fn find_out(host: &Host, query: &str) -> Option<String> {
    std::thread::scope(|scope| scope.spawn(|| killed_finding(host, query)).join().ok().flatten())
}

/// The container to look at: one whose init process ended by a signal.
fn finding(event: &DaemonEvent) -> Option<String> {
    let killed = event.topic == "/tasks/exit" && event.exec.is_none() && event.exit_status? > 128;
    let container = event.container.as_ref().filter(|_| killed)?;
    Some(format!("{}/{}", event.containerd_namespace.as_str(), container.as_str()))
}
