//! `inspect why ID`: which runtime really made a container, with evidence, and why that one.

use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use inspect_probes::bundle::Bundle;
use inspect_probes::containerd::config::ContainerdVersion;
use inspect_probes::containerd::{ApiError, ContainerRecord, DEFAULT_CONFIG, DaemonChannel};
use inspect_probes::node::NodeError;
use inspect_probes::runtime_choice::{self, Known, read_configured_default};
use inspect_probes::{Host, Node};

use crate::error::CommandError;
use crate::output::{Output, Status};
use crate::render::json::render_json;
use crate::render::style::Style;
use crate::render::why_runtime::{RuntimeAnswer, render_answer};

/// How long the daemon may take: everything needed is on disk as well.
const DAEMON_LIMIT: Duration = Duration::from_secs(2);

/// Say which OCI runtime made a container and why that one: client → shim → BinaryName → PATH → file
#[derive(Debug, Args)]
pub(crate) struct RuntimeArgs {
    /// Container: id, unique prefix, NAMESPACE/ID, container or pod name
    #[arg(value_name = "ID")]
    pub(super) container: String,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

impl RuntimeArgs {
    /// The question in its short form, `inspect why ID`.
    pub(super) fn about(container: String, format: Format) -> Self {
        Self { container, format }
    }
}

pub(super) fn run(args: &RuntimeArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    let mut node = Node::read(host).map_err(CommandError::trouble)?;
    let bundle = node.locate(host, &args.container).map_err(refuse)?;
    let daemon = node.daemon_of(&bundle);
    let Answer { record, version, note: daemon_note } = match daemon.filter(|_| host.is_live()) {
        Some(daemon) => ask_daemon(&daemon.address, &bundle),
        None => Answer::none("its daemon is not running: what it recorded is not known"),
    };
    let has_cri_label = record.as_ref().is_some_and(has_cri_label);
    // One whose rules cannot be read is told of as any other program under that name.
    let stand_in = if host.is_live() { crate::swap::read_stand_in().ok().flatten() } else { None };
    let known = Known {
        stand_in: stand_in.as_ref().map(|stand_in| stand_in.path.as_path()),
        shim: node.shim_of(host, &bundle),
        record: record.as_ref().map(|record| &record.runtime),
        has_cri_label,
    };
    let config = daemon.map_or(Path::new(DEFAULT_CONFIG), |daemon| daemon.config.as_path());
    let answer = RuntimeAnswer {
        choice: runtime_choice::explain_runtime(host, &bundle, known),
        configured: version.and_then(|version| read_configured_default(host, config, version)),
        config: config.to_path_buf(),
        daemon_note,
        stand_in,
    };
    output.print(&match args.format {
        Format::Json => render_json(&answer)?,
        Format::Text => render_answer(&answer, Style::new(output.color()), output.width()),
    })?;
    Ok(Status::Success)
}

fn refuse(error: NodeError) -> CommandError {
    let hint = match &error {
        NodeError::Locate(_) => "run `inspect tree` to list every container on this node",
        NodeError::Unreadable { .. } => "containerd's state is root's: run it with sudo",
    };
    CommandError::trouble(error).hint(hint)
}

fn has_cri_label(record: &ContainerRecord) -> bool {
    record.labels.keys().any(|label| label.starts_with("io.cri-containerd."))
}

/// What the daemon said about a container.
#[derive(Default)]
struct Answer {
    record: Option<ContainerRecord>,
    version: Option<ContainerdVersion>,
    /// Why there is no record.
    note: Option<String>,
}

impl Answer {
    fn none(note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..Self::default() }
    }
}

fn ask_daemon(socket: &Path, bundle: &Bundle) -> Answer {
    let asked = tokio::runtime::Builder::new_current_thread().enable_all().build().map(|runtime| {
        runtime.block_on(async {
            let mut channel = DaemonChannel::connect(socket, DAEMON_LIMIT).await?;
            let version = channel.version().await?;
            let record = channel.container(&bundle.containerd_namespace, &bundle.id).await?;
            Ok::<_, ApiError>((ContainerdVersion::parse(&version.version), record))
        })
    });
    match asked {
        Ok(Ok((version, Some(record)))) => Answer { record: Some(record), version, note: None },
        Ok(Ok((version, None))) => {
            Answer { version, ..Answer::none("its daemon has no record of it: the container was removed") }
        }
        Ok(Err(error)) => Answer::none(format!("its daemon did not say: {error}")),
        Err(error) => Answer::none(format!("its daemon could not be asked: {error}")),
    }
}
