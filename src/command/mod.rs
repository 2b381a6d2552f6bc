//! One file per subcommand: ask a probe, get a value, render it.

pub(crate) mod bundle;
pub(crate) mod cgroup;
mod container;
pub(crate) mod diff_spec;
pub(crate) mod events;
pub(crate) mod image;
pub(crate) mod run;
pub(crate) mod spec;
pub(crate) mod swap_runtime;
pub(crate) mod trace;
pub(crate) mod tree;
pub(crate) mod unpack;
pub(crate) mod verify;
pub(crate) mod why;

use inspect_probes::Host;

use crate::cli::{Cli, Command, Global};
use crate::error::CommandError;
use crate::output::{Output, Status};

/// Runs the command that was typed.
pub(crate) fn run(cli: &Cli, output: &mut Output) -> Result<Status, CommandError> {
    let host = host(&cli.global);
    match &cli.command {
        Command::Cgroup(args) => cgroup::run(args, &host, output),
        Command::Image(args) => image::run(args, output),
        Command::Run(args) => run::run(args, &host, output),
        Command::Spec(args) => spec::run(args, output),
        Command::Tree(args) => tree::run(args, &host, output),
        Command::Events(args) => events::run(args, &host, output),
        Command::Bundle(args) => bundle::run(args, &host, output),
        Command::DiffSpec(args) => diff_spec::run(args, &host, output),
        Command::Trace(args) => trace::run(args, &host, output),
        Command::SwapRuntime(args) => swap_runtime::run(args, &host, output),
        Command::Unpack(args) => unpack::run(args, &host, output),
        Command::Verify(args) => verify::run(args, &host, output),
        Command::Canary(args) => crate::verify::canary::run(args, output),
        Command::Why(args) => why::run(args, &host, output),
    }
}

/// The host that the command is to read: this machine, or what `--host-root` names.
fn host(global: &Global) -> Host {
    global.host_root.as_ref().map_or_else(Host::live, Host::at)
}
