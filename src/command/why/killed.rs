//! `inspect why killed ID`: what killed a container, and what tells so.

use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use inspect_probes::bundle::{Bundle, LocateError};
use inspect_probes::cgroup::CgroupLocation;
use inspect_probes::container_cgroup::{CgroupSubjectError, ContainerName, find_running_init, of_bundle};
use inspect_probes::containerd::{DEFAULT_ADDRESS, DaemonChannel, TaskRecord, TaskStatus};
use inspect_probes::escape::quote;
use inspect_probes::killed::{DeathReport, Known, Verdict, explain_death, read_kernel_log, read_levels};
use inspect_probes::name::CgroupPath;
use inspect_probes::node::NodeError;
use inspect_probes::{Host, Node};

use crate::error::CommandError;
use crate::output::{Output, Status};
use crate::render::json::render_json;
use crate::render::style::Style;
use crate::render::why_killed::render_death;

/// How long the daemon may take: one that is gone refuses at once, and a node that is out of memory answers late.
const DAEMON_LIMIT: Duration = Duration::from_secs(5);

/// Say what killed a container: the OOM killer and for whose limit, a signal, or itself
#[derive(Debug, Args)]
#[command(after_help = "\
Status: 0 when something killed it, 1 when nothing did (it runs, or ended by itself), 2 when it cannot be looked at.
A container that is deleted is looked for in the kernel's log, by its whole ID.")]
pub(crate) struct KilledArgs {
    /// Container: id, unique prefix, NAMESPACE/ID, container or pod name
    #[arg(value_name = "ID")]
    container: String,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

pub(super) fn run(args: &KilledArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    let report = ask(host, &args.container)?;
    output.print(&match args.format {
        Format::Json => render_json(&report)?,
        Format::Text => render_death(&report, Style::new(output.color()), output.width()),
    })?;
    Ok(match report.verdict {
        Verdict::Running | Verdict::Exited { .. } | Verdict::Unknown => Status::Negative,
        _ => Status::Success,
    })
}

/// Asks everything that may know.
pub(crate) fn ask(host: &Host, query: &str) -> Result<DeathReport, CommandError> {
    let mut node = Node::read(host).map_err(CommandError::trouble)?;
    let mut not_known = Vec::new();
    let log = read_kernel_log(host).unwrap_or_else(|error| {
        not_known.push(format!("what the kernel's log says: {error}; it takes root"));
        None
    });
    let bundle = match node.locate(host, query) {
        Ok(bundle) => bundle,
        Err(error @ NodeError::Locate(LocateError::NoMatch { .. })) => {
            let known = Known { query, log: log.as_ref(), not_known, ..Known::default() };
            let report = explain_death(known);
            // A log that does not know it either leaves nothing to say.
            return if report.victims.is_empty() { Err(unknown(error)) } else { Ok(report) };
        }
        Err(error) => return Err(unknown(error)),
    };
    let task = ask_task(&node, host, &bundle).unwrap_or_else(|why| {
        not_known.push(why);
        None
    });
    let (cgroup, location) = cgroup_of(host, &bundle)?;
    let levels = match &location {
        Some(location) => read_levels(location).map_err(CommandError::trouble)?,
        None => Vec::new(),
    };
    let stopped = task.as_ref().filter(|task| task.status == TaskStatus::Stopped);
    let running = match &task {
        Some(task) if task.status != TaskStatus::Unknown => Some(task.status != TaskStatus::Stopped),
        _ => Some(find_running_init(host, &bundle).is_some()),
    };
    Ok(explain_death(Known {
        query,
        container: Some(ContainerName {
            containerd_namespace: bundle.containerd_namespace.clone(),
            id: bundle.id.clone(),
        }),
        cgroup,
        running,
        exit_status: stopped.map(|task| task.exit_status),
        exited_at: stopped.and_then(|task| task.exited_at),
        init_pid: bundle.init_pid,
        levels: &levels,
        log: log.as_ref(),
        not_known,
    }))
}

fn unknown(error: NodeError) -> CommandError {
    CommandError::trouble(error).hint(
        "a deleted container is known to the kernel's log alone, by its whole ID and only if the OOM killer came for it; \
         `inspect events` tells of the next one as it dies",
    )
}

/// The cgroup's path, and where it is when it is still there.
fn cgroup_of(
    host: &Host,
    bundle: &Bundle,
) -> Result<(Option<CgroupPath>, Option<CgroupLocation>), CommandError> {
    match of_bundle(host, bundle.clone()) {
        Ok(subject) => Ok((Some(subject.location.path.clone()), Some(subject.location))),
        Err(CgroupSubjectError::Gone { path }) => Ok((Some(path), None)),
        Err(CgroupSubjectError::Unknown { .. } | CgroupSubjectError::NoHierarchy) => Ok((None, None)),
        Err(error) => Err(CommandError::trouble(error)),
    }
}

/// The task as the daemon has it; a sentence when it does not answer.
fn ask_task(node: &Node, host: &Host, bundle: &Bundle) -> Result<Option<TaskRecord>, String> {
    if !host.is_live() {
        return Err("what containerd says: this is a captured host".to_owned());
    }
    let daemon = node.daemon_of(bundle);
    let address = daemon.map_or(Path::new(DEFAULT_ADDRESS), |daemon| daemon.address.as_path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("what containerd says: {error}"))?;
    runtime
        .block_on(async {
            let mut channel = DaemonChannel::connect(address, DAEMON_LIMIT).await?;
            channel.task(&bundle.containerd_namespace, &bundle.id).await
        })
        .map_err(|error| {
            format!("what containerd says: {error} ({})", quote(address.to_string_lossy().as_bytes()))
        })
}
