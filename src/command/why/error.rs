//! `inspect why error "TEXT"`: what an error text of containerd, a shim or an OCI runtime means on this node.

use std::io::Read as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use inspect_probes::Host;
use inspect_probes::known_error::{self, node};

use crate::error::CommandError;
use crate::output::{Output, Status};
use crate::render::json::render_json;
use crate::render::style::Style;
use crate::render::why_error::{ErrorAnswer, render_answer};

/// The most that is read of an error text: more than any log line.
const TEXT_LIMIT: u64 = 1 << 20;

/// Explain an error text of containerd, a shim, runc or crun: cause, the line on this node, the fix
///
/// Exit status: 0 the text is known, 1 it is not, 2 trouble.
#[derive(Debug, Args)]
pub(crate) struct ErrorArgs {
    /// The error text as it was printed or logged; `-` reads it from standard input
    #[arg(required = true, allow_hyphen_values = true, value_name = "TEXT")]
    text: Vec<String>,
    /// containerd's config
    #[arg(long, value_name = "PATH", default_value = "/etc/containerd/config.toml")]
    config: PathBuf,
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

pub(super) fn run(args: &ErrorArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    let text = if args.text == ["-"] { read_stdin()? } else { args.text.join(" ") };
    if text.trim().is_empty() {
        return Err(CommandError::usage("the error text is empty")
            .hint("inspect why error \"no runtime for \\\"kata\\\" is configured\""));
    }
    let answers: Vec<ErrorAnswer> = known_error::explain(&text)
        .into_iter()
        .map(|explanation| {
            let findings = node::examine(host, &args.config, &explanation.checks);
            ErrorAnswer { explanation, findings }
        })
        .collect();
    let shown = match args.format {
        Format::Json => render_json(&answers)?,
        Format::Text => render_answer(&answers, Style::new(output.color()), output.width()),
    };
    output.print(&shown)?;
    Ok(if answers.is_empty() { Status::Negative } else { Status::Success })
}

fn read_stdin() -> Result<String, CommandError> {
    let mut bytes = Vec::new();
    std::io::stdin().take(TEXT_LIMIT).read_to_end(&mut bytes).map_err(|error| {
        CommandError::trouble(format!("cannot read the error text from standard input: {error}"))
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
