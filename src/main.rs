//! `inspect`: shows what containerd really made, says why, swaps the OCI runtime under it and proves the swap.

mod cli;
mod command;
mod error;
mod output;
mod render;
mod swap;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;

use crate::output::Output;

fn main() -> ExitCode {
    if let Some(status) = swap::run_as_stand_in() {
        return status;
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(refusal) => return output::print_usage(&refusal),
    };
    let mut output = Output::from_terminal(cli.global.color);
    match command::run(&cli, &mut output) {
        Ok(status) => status.into(),
        Err(error) => output.report(&error),
    }
}
