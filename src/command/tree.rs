//! `inspect tree`: what runs below containerd, and what does not fit.

use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use inspect_probes::Host;
use inspect_probes::bundle::LocateError;
use inspect_probes::cgroup::read_cgroup_path;
use inspect_probes::escape::escape;
use inspect_probes::name::{CgroupPath, ContainerdNamespace, Pid};
use inspect_probes::observation::observe;
use inspect_probes::process::read_stat;
use inspect_probes::task_tree::{Selection, TaskTree, build_task_tree, unit_of_cgroup};

use crate::error::CommandError;
use crate::output::{Output, Status};
use crate::render::json::{render_json, render_json_line};
use crate::render::style::Style;
use crate::render::tree::{Detail, render_dot, render_tree};

/// Where the kernel's cgroup files are seen; a path that was copied from there is understood too.
const CGROUP_MOUNT: &str = "/sys/fs/cgroup";
/// Clears a terminal and goes to its upper left corner (ECMA-48: ED, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Show what runs below every containerd: daemon, shims, containers, processes
///
/// Everything comes from /proc, /run and the cgroup file system; a daemon that answers adds its version, images and
/// records without a task. What does not fit is marked with `!`: a daemon that is gone, a bundle without a shim, an init
/// whose pid belongs to another process, zombies, cgroups without a container.
#[derive(Debug, Args)]
pub(crate) struct TreeArgs {
    /// Show the evidence too: paths, sockets, cgroups, what proves whose a shim is, whole command lines
    #[arg(long, short)]
    all: bool,
    /// Only this container: its ID, a unique beginning of it, NAMESPACE/ID, its name, POD or POD/NAME
    #[arg(long, short, value_name = "ID", conflicts_with_all = ["pid", "cgroup"])]
    container: Option<String>,
    /// Only what this process of the host belongs to; status 1 when that is no containerd
    #[arg(long, short, value_name = "PID", conflicts_with = "cgroup")]
    pid: Option<u32>,
    /// Only the container of this cgroup
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// Only this containerd namespace
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    /// How to write it
    #[arg(long, short, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
    /// Follow: show it anew whenever it changes, until interrupted
    #[arg(long, short)]
    watch: bool,
    /// Look again every so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2, requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// Ask no daemon
    #[arg(long)]
    offline: bool,
    /// Wait so long for each answer of a daemon
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1500, conflicts_with = "offline")]
    timeout: u64,
}

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs: docs/tree.schema.json
    Json,
    /// For Graphviz
    Dot,
}

/// Shows the tree, once or for ever.
pub(crate) fn run(args: &TreeArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    if args.watch {
        return watch(args, host, output);
    }
    let tree = look(args, host)?;
    match select(args, tree)? {
        Selected::Tree(tree) => {
            output.print(&render(args, &tree, output, false)?)?;
            Ok(Status::Success)
        }
        Selected::Outside(pid, tree) => {
            let text = match args.format {
                Format::Text => outside(host, pid)?,
                Format::Json | Format::Dot => render(args, &tree, output, false)?,
            };
            output.print(&text)?;
            Ok(Status::Negative)
        }
    }
}

fn watch(args: &TreeArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    let mut shown = None;
    while !output.is_reader_gone() {
        let tree = match select(args, look(args, host)?)? {
            Selected::Tree(tree) => tree,
            Selected::Outside(_, tree) => tree,
        };
        let text = render(args, &tree, output, true)?;
        let now = comparable(tree);
        let terminal = output.is_terminal() && args.format == Format::Text;
        if terminal {
            output.print(&format!("{CLEAR}{text}"))?;
        } else if shown.as_ref() != Some(&now) {
            output.print(&text)?;
        }
        shown = Some(now);
        thread::sleep(Duration::from_secs(args.interval));
    }
    Ok(Status::Success)
}

/// The tree without what changes while nothing happens: ages and amounts.
fn comparable(mut tree: TaskTree) -> TaskTree {
    tree.forget_amounts();
    tree
}

/// Looks at the host. What does not fit may only have been on its way while we looked, so then the live host is looked
/// at once more.
fn look(args: &TreeArgs, host: &Host) -> Result<TaskTree, CommandError> {
    let ask = (!args.offline).then(|| Duration::from_millis(args.timeout));
    let mut tree = build_task_tree(&observe(host, ask).map_err(CommandError::trouble)?);
    if tree.totals.findings > 0 && host.is_live() {
        tree = build_task_tree(&observe(host, ask).map_err(CommandError::trouble)?);
    }
    Ok(tree)
}

/// What is left of the tree.
enum Selected {
    /// What was asked for.
    Tree(TaskTree),
    /// Nothing: the process is in no part of the tree.
    Outside(Pid, TaskTree),
}

fn select(args: &TreeArgs, mut tree: TaskTree) -> Result<Selected, CommandError> {
    if let Some(name) = &args.namespace {
        tree.retain(&Selection::ContainerdNamespace(ContainerdNamespace::new(name.clone())));
    }
    let selection = if let Some(query) = &args.container {
        Some(tree.find_container(query).map_err(hinted)?)
    } else if let Some(pid) = args.pid.map(Pid::new) {
        let Some(found) = tree.find_process(pid) else {
            tree.daemons.clear();
            return Ok(Selected::Outside(pid, tree));
        };
        Some(found)
    } else if let Some(path) = &args.cgroup {
        let cgroup = CgroupPath::new(path.strip_prefix(CGROUP_MOUNT).unwrap_or(path));
        let found = tree.find_cgroup(&cgroup);
        Some(found.ok_or(LocateError::CgroupOutside { cgroup }).map_err(hinted)?)
    } else {
        None
    };
    if let Some(selection) = selection {
        tree.retain(&selection);
    }
    Ok(Selected::Tree(tree))
}

fn hinted(error: LocateError) -> CommandError {
    let hint = match &error {
        LocateError::Ambiguous { .. } => "give more of the ID, or NAMESPACE/ID",
        _ => "run `inspect tree --all` to list every container on this host",
    };
    CommandError::trouble(error).hint(hint)
}

/// Says where a process is that is in no part of the tree.
fn outside(host: &Host, pid: Pid) -> Result<String, CommandError> {
    let Some(stat) = read_stat(host, pid).map_err(CommandError::trouble)? else {
        return Err(CommandError::trouble(LocateError::NoProcess { pid }));
    };
    let cgroup = read_cgroup_path(host, pid).ok().flatten();
    let unit = cgroup.as_ref().and_then(unit_of_cgroup);
    let mut text =
        format!("process {pid} (`{}`) belongs to no containerd: parent {}", stat.name(), stat.parent);
    text.extend(cgroup.map(|cgroup| format!(", cgroup {}", escape(cgroup.as_str()))));
    text.extend(unit.map(|unit| format!(", unit {unit}")));
    Ok(text + "\n")
}

fn render(args: &TreeArgs, tree: &TaskTree, output: &Output, stream: bool) -> Result<String, CommandError> {
    let detail = if args.all { Detail::All } else { Detail::Compact };
    match args.format {
        Format::Text => {
            let mark = args.pid.map(Pid::new);
            Ok(render_tree(tree, detail, mark, Style::new(output.color()), output.width()))
        }
        Format::Json if stream => render_json_line(tree),
        Format::Json => render_json(tree),
        Format::Dot => Ok(render_dot(tree)),
    }
}
