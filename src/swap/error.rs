//! What keeps a swap from happening, or from staying.

use std::io;
use std::path::PathBuf;

use inspect_probes::containerd::ApiError;
use inspect_probes::containerd::config::{DocumentError, EditError, LoadError, SchemaError, UndoError};
use inspect_probes::docker::DockerError;
use inspect_probes::process::ProcessError;
use inspect_probes::systemd::SystemdError;
use thiserror::Error;

use crate::verify::CanaryError;

/// An error of a swap or an undo.
#[derive(Debug, Error)]
pub(crate) enum SwapError {
    #[error("cannot change a node that is not running: `--host-root` names its files only")]
    NotLive,
    #[error("cannot change this node without root")]
    NotRoot,
    #[error("cannot find a running containerd")]
    NoDaemon,
    #[error("cannot find a running dockerd")]
    NoDockerd,
    #[error("cannot find a running containerd that `{wanted}` names; running: {}", list(.running))]
    NoSuchDaemon { wanted: String, running: Vec<String> },
    #[error("cannot tell which containerd is meant: {}", list(.running))]
    SeveralDaemons { running: Vec<String> },
    #[error("cannot tell the release of containerd from its version `{text}`")]
    UnknownVersion { text: String },
    #[error("cannot read the processes of this node")]
    Process(#[from] ProcessError),
    #[error("cannot ask containerd")]
    Api(#[from] ApiError),
    #[error("cannot ask systemd")]
    Systemd(#[from] SystemdError),
    #[error("cannot load containerd's config")]
    Load(#[from] LoadError),
    #[error("cannot read the config as containerd does")]
    Schema(#[from] SchemaError),
    #[error("cannot edit `{}`", path.display())]
    Edit { path: PathBuf, source: EditError },
    #[error("cannot edit `{}`: {by} generates it anew at each start; edit `{}` ({note})", path.display(), template.display())]
    Generated { path: PathBuf, by: &'static str, template: PathBuf, note: &'static str },
    #[error("cannot add a drop-in file: containerd {version} lets it replace the whole CRI section")]
    DropInReplaces { version: String },
    #[error("cannot find a runtime `{name}`: no such file in PATH ({search}) and no such handler ({})", list(.handlers))]
    UnknownRuntime { name: String, search: String, handlers: Vec<String> },
    #[error("cannot put a stand-in for runc at `{}`: there is a file that is not ours", path.display())]
    NotOurStandIn { path: PathBuf },
    #[error("cannot find `inspect-runtime` beside `{}`", inspect.display())]
    NoBuiltin { inspect: PathBuf },
    #[error("cannot swap: {}", list(.failures))]
    Preflight { failures: Vec<String> },
    #[error("cannot {verb} `{}`", path.display())]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot replace `{}`: somebody changed it since it was read", path.display())]
    ChangedMeanwhile { path: PathBuf },
    #[error("cannot parse the journal `{}`", path.display())]
    Journal { path: PathBuf, source: serde_json::Error },
    #[error("cannot swap while another inspect does (its lock is on `{}`)", lock.display())]
    Busy { lock: PathBuf },
    #[error(
        "cannot swap: the swap to `{runtime}` (number {id}) was interrupted and is neither done nor undone"
    )]
    Interrupted { id: u32, runtime: String },
    #[error("containerd did not serve `{}` within {seconds} s", socket.display())]
    NotServing { socket: PathBuf, seconds: u64 },
    #[error("containerd stopped again after its start: `{unit}` is {state}")]
    Died { unit: String, state: String },
    #[error("containerd's plugin `{plugin}` failed: {message}")]
    Plugin { plugin: String, message: String },
    #[error("containerd's plugin `{plugin}` is gone")]
    PluginGone { plugin: String },
    #[error("containers did not survive the restart: {}", list(.lost))]
    Lost { lost: Vec<String> },
    #[error("the handler `{handler}` is not in force: {reason}")]
    NotInForce { handler: String, reason: String },
    #[error("cannot ask dockerd")]
    Docker(#[from] DockerError),
    #[error("dockerd did not take its config over: its default runtime is `{default}`, its runtimes are {}", list(.runtimes))]
    DockerNotInForce { default: String, runtimes: Vec<String> },
    #[error("cannot run a canary")]
    Canary(#[from] CanaryError),
    #[error("the canary did not prove it: {}", list(.failures))]
    NotProven { failures: Vec<String> },
    #[error("interrupted by a signal")]
    Signal,
    #[error("cannot put runtime `{runtime}` in force; everything is as it was before")]
    RolledBack { runtime: String, source: Box<SwapError>, journal_lines: Vec<String> },
    #[error("cannot put runtime `{runtime}` in force; its lines were taken out of {} again, which somebody else changed meanwhile", paths(.edited))]
    RolledBackLines {
        runtime: String,
        edited: Vec<PathBuf>,
        source: Box<SwapError>,
        journal_lines: Vec<String>,
    },
    #[error("cannot put runtime `{runtime}` in force; what was there before is back, but the journal does not say so: {}", chain(.journal))]
    RolledBackUntold { runtime: String, journal: Box<SwapError>, source: Box<SwapError> },
    #[error("cannot put runtime `{runtime}` in force, nor restore what was there: {}", chain(.restore))]
    RollbackFailed { runtime: String, restore: Box<SwapError>, source: Box<SwapError> },
    #[error("cannot undo: no swap is in force")]
    NothingToUndo,
    #[error("cannot undo the lines in `{}`", path.display())]
    UndoLines { path: PathBuf, source: UndoError },
    #[error("cannot undo the edit of `{}`: it is not JSON any more", path.display())]
    UndoBreaksJson { path: PathBuf, source: serde_json::Error },
    #[error("cannot undo the edit of `{}`: the result would not be TOML", path.display())]
    UndoBreaks { path: PathBuf, source: DocumentError },
    #[error("cannot change the node without a yes: this is no terminal")]
    NeedsYes,
    #[error("not confirmed: nothing was changed")]
    Declined,
}

fn paths(items: &[PathBuf]) -> String {
    let quoted: Vec<String> = items.iter().map(|path| format!("`{}`", path.display())).collect();
    quoted.join(", ")
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join("; ") }
}

impl SwapError {
    /// What to do next, pasteable.
    pub(crate) fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::NotRoot => "run it with sudo",
            Self::Systemd(SystemdError::Connect { .. }) => {
                "systemd restarts containerd for a swap: it takes a node on which systemd is PID 1 and D-Bus runs"
            }
            Self::NoDaemon => {
                "start it (`systemctl start containerd`), or undo a swap with `inspect swap-runtime --undo`"
            }
            Self::SeveralDaemons { .. } => "name one: `--daemon SOCKET` or `--daemon UNIT`",
            Self::DropInReplaces { .. } => "leave `--drop-in` out",
            Self::Interrupted { .. } => {
                "`inspect swap-runtime --undo` restores what was there; `--status` shows how far it came"
            }
            Self::DockerNotInForce { .. } => {
                "`journalctl -u docker.service -n 20` shows what it thinks of its config; its own flags win over daemon.json"
            }
            Self::NeedsYes | Self::Declined => "see it with `--dry-run`, then add `--yes`",
            Self::Preflight { .. } => "nothing was written",
            Self::ChangedMeanwhile { .. } => "nothing was written there; look at it and try again",
            Self::Busy { .. } => "wait for it to end; `inspect swap-runtime --status` shows what it does",
            Self::RollbackFailed { .. } => {
                "look at `inspect swap-runtime --status`, then `inspect swap-runtime --undo`"
            }
            Self::RolledBackUntold { .. } => {
                "make room, then `inspect swap-runtime --undo`: it finds nothing left to put back and closes the journal"
            }
            Self::RolledBack { journal_lines, .. } | Self::RolledBackLines { journal_lines, .. } => {
                let lines = journal_lines.iter().map(|line| format!("the daemon said: {line}"));
                return lines.chain(["nothing of the swap is left".to_owned()]).collect();
            }
            _ => return Vec::new(),
        };
        vec![hint.to_owned()]
    }

    /// A file operation that failed.
    pub(crate) fn file(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { verb, path, source }
    }
}

/// An error with its causes in one line: for a second error inside another's text.
fn chain(error: &SwapError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
