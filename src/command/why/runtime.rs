//! `inspect why ID`: which runtime really made a container, with evidence, and why that one.

use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use inspect_probes::bundle::Bundle;
use inspect_probes::containerd::{ContainerRecord, DEFAULT_CONFIG, DaemonChannel};
use inspect_probes::node::NodeError;
use inspect_probes::runtime_choice::{self, Known};
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
    pub(super) fn about(container: String) -> Self {
        Self { container, format: Format::Text }
    }
}

pub(super) fn run(args: &RuntimeArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    let mut node = Node::read(host).map_err(CommandError::trouble)?;
    let bundle = node.locate(host, &args.container).map_err(refuse)?;
    let daemon = node.daemon_of(&bundle);
    let (record, daemon_note) = match daemon.filter(|_| host.is_live()) {
        Some(daemon) => ask_daemon(&daemon.address, &bundle),
        None => (None, Some("its daemon is not running: what it recorded is not known".to_owned())),
    };
    let has_cri_label = record.as_ref().is_some_and(has_cri_label);
    let known = Known {
        shim: node.shim_of(host, &bundle),
        record: record.as_ref().map(|record| &record.runtime),
        has_cri_label,
    };
    let config = daemon.map_or(Path::new(DEFAULT_CONFIG), |daemon| daemon.config.as_path());
    let answer = RuntimeAnswer {
        choice: runtime_choice::explain_runtime(host, &bundle, known),
        configured: runtime_choice::read_configured_default(host, config),
        config: config.to_path_buf(),
        daemon_note,
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

/// containerd's record, or a sentence on why there is none.
fn ask_daemon(socket: &Path, bundle: &Bundle) -> (Option<ContainerRecord>, Option<String>) {
    let asked = tokio::runtime::Builder::new_current_thread().enable_all().build().map(|runtime| {
        runtime.block_on(async {
            let mut channel = DaemonChannel::connect(socket, DAEMON_LIMIT).await?;
            channel.container(&bundle.containerd_namespace, &bundle.id).await
        })
    });
    match asked {
        Ok(Ok(Some(record))) => (Some(record), None),
        Ok(Ok(None)) => (None, Some("its daemon has no record of it: the container was removed".to_owned())),
        Ok(Err(error)) => (None, Some(format!("its daemon did not say: {error}"))),
        Err(error) => (None, Some(format!("its daemon could not be asked: {error}"))),
    }
}
