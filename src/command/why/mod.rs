//! `inspect why`: the reasons behind what is seen on a node.

mod error;

use clap::{Args, Subcommand};
use inspect_probes::Host;

use crate::error::CommandError;
use crate::output::{Output, Status};

/// Say why: which runtime made a container, what an error text means
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    Error(error::ErrorArgs),
}

/// Answers the question that was asked.
pub(crate) fn run(args: &WhyArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    match &args.question {
        Question::Error(args) => error::run(args, host, output),
    }
}
