//! `cargo lab`: boots Debian nodes in a VM and runs commands and test suites in them.

mod accelerator;
mod binaries;
mod checks;
mod child;
mod cli;
mod demo;
mod error;
mod generation;
mod host;
mod image;
mod interrupt;
mod libtest;
mod machine;
mod node;
mod oci;
mod progress;
mod qemu;
mod qmp;
mod report;
mod snapshot;
mod ssh;
mod store;
mod suites;
mod supervisor;
mod sync;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Action, Cli};
use crate::error::LabError;
use crate::progress::Progress;
use crate::store::Store;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let progress = Progress::new();
    match act(&cli, &progress) {
        Ok(()) => ExitCode::SUCCESS,
        Err(LabError::GuestStatus { status }) => ExitCode::from(status),
        Err(error) => {
            progress.report(&error);
            ExitCode::from(error.status())
        }
    }
}

fn act(cli: &Cli, progress: &Progress) -> Result<(), LabError> {
    if let Action::Supervise { directory } = &cli.action {
        return supervisor::supervise(directory);
    }
    interrupt::install().map_err(LabError::file("handle signals of", "/proc/self"))?;
    let store = Store::open()?;
    match &cli.action {
        Action::Up(arguments) => node::up(&store, arguments, progress),
        Action::Sync(arguments) => node::sync(&store, arguments, progress),
        Action::Run(arguments) => node::run(&store, arguments),
        Action::Shell(arguments) => node::shell(&store, arguments),
        Action::Down(arguments) => node::down(&store, arguments, progress),
        Action::Test(arguments) => suites::test(&store, arguments, progress),
        Action::Demo(arguments) => demo::demo(&store, arguments, progress),
        Action::List => node::list(&store, progress),
        Action::Supervise { .. } => Ok(()),
    }
}
