//! `inspect swap-runtime`: another OCI runtime under containerd, proven, or everything as it was.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use inspect_probes::Host;
use serde::Serialize;

use crate::error::CommandError;
use crate::output::{Output, Status};
use crate::render::json::render_json;
use crate::render::style::Style;
use crate::render::swap::{render_status, render_swap, render_undo};
use crate::swap::{self, CgroupDriver, Progress, Scope, SwapError, SwapRequest, Verdict};

/// Swap the OCI runtime that containerd runs, prove the swap, or put everything back
#[derive(Debug, Args)]
#[command(after_help = "\
A swap is a transaction: plan, pre-flight, journal and backup, write, restart, verify; on any failure the very bytes that \
were there come back. The status is 0 only when the swap is in force and proven.

Examples:
  inspect swap-runtime crun --dry-run
  inspect swap-runtime crun --yes
  inspect swap-runtime builtin --no-default
  inspect swap-runtime --status
  inspect swap-runtime --undo")]
pub(crate) struct SwapRuntimeArgs {
    /// `builtin`, `runc`, `crun`, `youki`, a path, or the name of a configured handler
    #[arg(value_name = "RUNTIME", required_unless_present_any = ["undo", "status"], conflicts_with_all = ["undo", "status"])]
    runtime: Option<String>,
    /// Whose containers follow
    #[arg(long, value_enum, default_value_t = Scope::Cri, value_name = "SCOPE")]
    scope: Scope,
    /// Name of the handler in containerd's config [default: the runtime's name]
    #[arg(long, value_name = "HANDLER")]
    name: Option<String>,
    /// Also make it the default handler; this is the default
    #[arg(long, overrides_with = "no_default")]
    default: bool,
    /// Leave the default handler as it is
    #[arg(long)]
    no_default: bool,
    /// Which cgroup driver the handler uses
    #[arg(long, value_enum, default_value_t = CgroupDriver::Auto, value_name = "WHEN")]
    systemd_cgroup: CgroupDriver,
    /// Edit this config in place of the one that the daemon names
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Which containerd, where several run: its socket or its unit
    #[arg(long, value_name = "SOCKET|UNIT")]
    daemon: Option<String>,
    /// Write a drop-in file and leave the main config alone (containerd 2.x)
    #[arg(long)]
    drop_in: bool,
    /// Show what would be written and checked, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Write the config, and leave the restart to somebody else
    #[arg(long)]
    no_restart: bool,
    /// Do not run a canary container
    #[arg(long)]
    no_verify: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// How long a restart and each step of the canary may take, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Put back what was there before: before every swap in force, or before the last one
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "all", value_name = "WHICH", conflicts_with = "status")]
    undo: Option<Undo>,
    /// Show which swaps are in force, and whether one was interrupted
    #[arg(long)]
    status: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Undo {
    /// Every swap in force
    All,
    /// The last swap
    Last,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines
    Text,
    /// One JSON document
    Json,
}

/// Swaps, undoes or shows.
pub(crate) fn run(args: &SwapRuntimeArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    if !host.is_live() {
        return Err(failed(SwapError::NotLive));
    }
    if !args.status && !rustix::process::geteuid().is_root() {
        return Err(failed(SwapError::NotRoot));
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::trouble)?;
    let outcome = match args.undo {
        _ if args.status => runtime.block_on(show_status(args, output)),
        Some(which) => runtime.block_on(undo(args, host, which, output)),
        None => runtime.block_on(swap(args, host, output)),
    };
    if let (Err(error), Format::Json) = (&outcome, args.format) {
        let refusal =
            Refusal { error: error.to_string(), caused_by: error.causes(), hints: error.hints.clone() };
        output.print(&render_json(&refusal)?)?;
    }
    outcome
}

/// An error for automation: what standard error says, as a document.
#[derive(Debug, Serialize)]
struct Refusal {
    error: String,
    caused_by: Vec<String>,
    hints: Vec<String>,
}

/// What of containerd's config has no counterpart in daemon.json would be silently left out.
fn refuse_for_docker(args: &SwapRuntimeArgs) -> Result<(), CommandError> {
    let given = [
        ("--drop-in", args.drop_in),
        ("--daemon", args.daemon.is_some()),
        ("--systemd-cgroup", args.systemd_cgroup != CgroupDriver::Auto),
    ];
    match given.into_iter().find(|(_, given)| args.scope == Scope::Docker && *given) {
        None => Ok(()),
        Some((option, _)) => Err(CommandError::usage(format!(
            "`{option}` is for containerd's config: `--scope docker` writes dockerd's daemon.json"
        ))
        .hint(format!("leave `{option}` out"))),
    }
}

async fn swap(args: &SwapRuntimeArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    refuse_for_docker(args)?;
    let request = SwapRequest {
        runtime: args.runtime.clone().unwrap_or_default(),
        scope: args.scope,
        handler: args.name.clone(),
        make_default: args.default || !args.no_default,
        cgroup_driver: args.systemd_cgroup,
        config: args.config.clone(),
        daemon: args.daemon.clone(),
        drop_in: args.drop_in,
        dry_run: args.dry_run,
        restart: !args.no_restart,
        verify: !args.no_verify,
        yes: args.yes,
        timeout: Duration::from_secs(args.timeout),
    };
    let mut progress = Progress::new(output);
    let report = match args.scope {
        Scope::Docker => swap::swap_docker(host, &request, &mut progress).await,
        Scope::Cri | Scope::Node => swap::swap(host, &request, &mut progress).await,
    };
    let report = report.map_err(failed)?;
    let refused = args.dry_run && report.checks.iter().any(|check| check.verdict == Verdict::Failure);
    let text = match args.format {
        Format::Text => render_swap(&report, Style::new(output.color())),
        Format::Json => render_json(&report)?,
    };
    output.print(&text)?;
    Ok(if refused { Status::Negative } else { Status::Success })
}

async fn undo(
    args: &SwapRuntimeArgs,
    host: &Host,
    which: Undo,
    output: &mut Output,
) -> Result<Status, CommandError> {
    let limit = Duration::from_secs(args.timeout);
    let last_only = which == Undo::Last;
    let mut progress = Progress::new(output);
    let report = swap::undo(host, last_only, args.yes, !args.no_restart, limit, &mut progress);
    let report = report.await.map_err(failed)?;
    let text = match args.format {
        Format::Text => render_undo(&report, Style::new(output.color())),
        Format::Json => render_json(&report)?,
    };
    output.print(&text)?;
    Ok(Status::Success)
}

/// 0: none or all in force; 1: one was interrupted.
async fn show_status(args: &SwapRuntimeArgs, output: &mut Output) -> Result<Status, CommandError> {
    let report = swap::read_status().await.map_err(failed)?;
    let text = match args.format {
        Format::Text => render_status(&report, Style::new(output.color())),
        Format::Json => render_json(&report)?,
    };
    output.print(&text)?;
    let interrupted = !report.busy && report.swaps.iter().any(|swap| swap.interrupted);
    Ok(if interrupted { Status::Negative } else { Status::Success })
}

fn failed(error: SwapError) -> CommandError {
    let hints = error.hints();
    hints.into_iter().fold(CommandError::trouble(error), CommandError::hint)
}
