//! `inspect verify [RUNTIME…]`: a canary per runtime, the proof of which one made it, and one table of what the kernel shows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use inspect_probes::containerd::DEFAULT_ADDRESS;
use inspect_probes::runtime_state::RuntimeFamily;
use inspect_probes::{Host, Node};

use crate::error::{CommandError, ErrorKind};
use crate::output::{Output, Status};
use crate::render::json::render_json;
use crate::render::style::Style;
use crate::render::verify::{Verification, render_verification};
use crate::verify::{CanaryError, CanaryReport, Subject, run_canary, run_cri_canary};

/// Where runtimes are looked up by name: the PATH that containerd's unit has.
const SERVICE_PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// The built-in runtime's binary.
const BUILTIN: &str = "inspect-runtime";

/// Run a canary container under each runtime through containerd, prove which binary made it, compare what the kernel shows
///
/// Without RUNTIME the defaults are verified: the shim's, and the CRI plugin's default handler where that plugin is served. The
/// canary needs no image: its only program is inspect itself. It runs in the
/// containerd namespace `inspect-verify` and is removed again. Exit status: 0 all verified, 1 not, 2 trouble.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// `builtin`, `runc`, `crun`, `youki`, or the path of a runtime
    #[arg(value_name = "RUNTIME")]
    runtimes: Vec<String>,
    /// Verify this runtime handler of the CRI plugin with a pod as well; `default` is the default handler
    #[arg(long, value_name = "HANDLER")]
    handler: Vec<String>,
    /// The daemon's socket
    #[arg(long, value_name = "SOCKET")]
    daemon: Option<PathBuf>,
    /// Have the runtimes use systemd for cgroups
    #[arg(long)]
    systemd_cgroup: bool,
    /// How long each step may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Show every observation, also those in which the runtimes agree
    #[arg(long)]
    all: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

pub(crate) fn run(args: &VerifyArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    if !host.is_live() {
        return Err(CommandError::usage("cannot run a canary on a captured host"));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(CommandError::trouble("cannot run a canary without root: containerd's socket is root's")
            .hint("sudo inspect verify"));
    }
    let socket = locate_socket(args, host)?;
    let subjects = resolve_subjects(args)?;
    let mut reports = Vec::new();
    for subject in &subjects {
        output.note(&format!("verifying {} …", subject.name));
        reports.push(block_on(run_canary(host, &socket, subject, Duration::from_secs(args.timeout)))?);
    }
    for handler in &args.handler {
        output.note(&format!("verifying CRI handler {handler} …"));
        let name = if handler == "default" { "" } else { handler.as_str() };
        let limit = Duration::from_secs(args.timeout);
        reports.push(block_on(run_cri_canary(host, &socket, name, None, limit))?);
    }
    if args.runtimes.is_empty() && args.handler.is_empty() {
        output.note("verifying CRI's default handler …");
        match block_on_canary(run_cri_canary(host, &socket, "", None, Duration::from_secs(args.timeout)))? {
            Err(CanaryError::NoCri { .. }) => output.note("  CRI is not served here: no pod is made"),
            outcome => reports.push(outcome.map_err(explain)?),
        }
    }
    let verified = reports.iter().all(CanaryReport::is_verified);
    let verification = Verification { daemon: socket, reports };
    output.print(&match args.format {
        Format::Json => render_json(&verification)?,
        Format::Text => {
            render_verification(&verification, args.all, Style::new(output.color()), output.width())
        }
    })?;
    Ok(if verified { Status::Success } else { Status::Negative })
}

fn block_on(
    canary: impl Future<Output = Result<CanaryReport, CanaryError>>,
) -> Result<CanaryReport, CommandError> {
    block_on_canary(canary)?.map_err(explain)
}

fn block_on_canary<T>(canary: impl Future<Output = T>) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::new(ErrorKind::Bug, error))?;
    Ok(runtime.block_on(canary))
}

fn explain(error: CanaryError) -> CommandError {
    CommandError::trouble(error).hint("inspect why error \"…\" explains many of containerd's messages")
}

/// The daemon's socket: what was typed, the only daemon's, or the usual one.
fn locate_socket(args: &VerifyArgs, host: &Host) -> Result<PathBuf, CommandError> {
    if let Some(socket) = &args.daemon {
        return Ok(socket.clone());
    }
    let node = Node::read(host).map_err(CommandError::trouble)?;
    let usual = Path::new(DEFAULT_ADDRESS);
    match node.daemons.as_slice() {
        [] => Err(CommandError::trouble("no containerd runs on this node")
            .hint("systemctl start containerd.service")),
        [only] => Ok(only.address.clone()),
        several if several.iter().any(|daemon| daemon.address == usual) => Ok(usual.to_path_buf()),
        several => {
            let names: Vec<_> =
                several.iter().map(|daemon| format!("`{}`", daemon.address.display())).collect();
            Err(CommandError::usage(format!("several daemons run: {}", names.join(", ")))
                .hint("name one: --daemon SOCKET"))
        }
    }
}

fn resolve_subjects(args: &VerifyArgs) -> Result<Vec<Subject>, CommandError> {
    if args.runtimes.is_empty() && !args.handler.is_empty() {
        return Ok(Vec::new());
    }
    if args.runtimes.is_empty() {
        let name = "the shim's default".to_owned();
        return Ok(vec![Subject { name, binary: None, expected: None, systemd_cgroup: args.systemd_cgroup }]);
    }
    args.runtimes.iter().map(|name| resolve_subject(name, args.systemd_cgroup)).collect()
}

fn resolve_subject(name: &str, systemd_cgroup: bool) -> Result<Subject, CommandError> {
    let expected = match name {
        "builtin" => Some(RuntimeFamily::InspectRuntime),
        "runc" => Some(RuntimeFamily::Runc),
        "crun" => Some(RuntimeFamily::Crun),
        "youki" => Some(RuntimeFamily::Youki),
        _ => None,
    };
    let binary = if name.contains('/') { existing(Path::new(name)) } else { find_binary(name) };
    let Some(binary) = binary else {
        let shown = inspect_probes::escape::quote(name.as_bytes());
        return Err(CommandError::usage(format!("cannot find the runtime {shown}"))
            .hint("give `builtin`, `runc`, `crun`, `youki` where it is installed, or an absolute path"));
    };
    Ok(Subject { name: name.to_owned(), binary: Some(binary), expected, systemd_cgroup })
}

fn existing(path: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(path).ok().filter(|path| path.is_file())
}

/// A name in the service's PATH; the built-in runtime first beside this program.
fn find_binary(name: &str) -> Option<PathBuf> {
    if name == "builtin" {
        let own = std::env::current_exe().ok();
        let beside = own.and_then(|own| existing(&own.with_file_name(BUILTIN)));
        return beside.or_else(|| find_binary(BUILTIN));
    }
    SERVICE_PATH.iter().find_map(|directory| existing(&Path::new(directory).join(name)))
}
