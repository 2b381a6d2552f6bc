//! `inspect why`: the reasons behind what is seen on a node.

mod error;
mod killed;
mod runtime;

use clap::{Args, Subcommand};
use inspect_probes::Host;

use crate::error::CommandError;
use crate::output::{Output, Status};

/// Say why: which runtime made a container, what killed it, what an error text means
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct WhyArgs {
    /// Container to ask `why runtime` about: id, unique prefix, NAMESPACE/ID, container or pod name
    #[arg(value_name = "ID", required = true)]
    container: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = runtime::Format::Text, value_name = "FORMAT")]
    format: runtime::Format,
    #[command(subcommand)]
    question: Option<Question>,
}

#[derive(Debug, Subcommand)]
enum Question {
    Runtime(runtime::RuntimeArgs),
    Killed(killed::KilledArgs),
    Error(error::ErrorArgs),
}

/// Answers the question that was asked; a bare container asks for its runtime.
pub(crate) fn run(args: &WhyArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    match (&args.question, &args.container) {
        (Some(Question::Runtime(args)), _) => runtime::run(args, host, output),
        (Some(Question::Killed(args)), _) => killed::run(args, host, output),
        (Some(Question::Error(args)), _) => error::run(args, host, output),
        (None, Some(container)) => {
            runtime::run(&runtime::RuntimeArgs::about(container.clone(), args.format), host, output)
        }
        (None, None) => Err(CommandError::usage("why what? Name a container, or `error` and its text")),
    }
}

/// What killed a container, in a sentence, for who only names it; `None` when nothing or nothing that can be told.
pub(crate) fn killed_finding(host: &Host, query: &str) -> Option<String> {
    let report = killed::ask(host, query).ok()?;
    crate::render::why_killed::sentence(&report)
}
