//! What can be typed after `cargo lab`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::generation::Generation;
use crate::qemu::{DEFAULT_CPUS, DEFAULT_MEMORY};
use crate::suites::DEFAULT_JOBS;

/// Boots Debian nodes with systemd, containerd, runc and crun in a VM, and runs commands and test suites in them
#[derive(Debug, Parser)]
#[command(name = "cargo lab", bin_name = "cargo lab", disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: Action,
}

/// The lab's subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Boot a node, copy in fresh builds, and leave it up
    Up(UpArgs),
    /// Copy fresh builds into a node that is up
    Sync(NameArgs),
    /// Run a command in a node: one argument is a line for its shell, several are a command and its arguments
    Run(RunArgs),
    /// Open a shell in a node
    Shell(NameArgs),
    /// End a node, and remove what dead ones left
    Down(DownArgs),
    /// Run checks on this machine and test suites in nodes of all generations, and say what came of them
    Test(TestArgs),
    /// Boot a node, start containers as a user would, and show them with `inspect`
    Demo(DemoArgs),
    /// List the nodes that are up, and what dead ones left
    List,
    /// A machine's supervisor; started by the others
    #[command(hide = true)]
    Supervise {
        /// The machine's directory.
        directory: PathBuf,
    },
}

/// Which node.
#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// The node's name [default: the only one that is up]
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// `up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The Debian release
    #[arg(value_enum, default_value_t = Generation::Trixie)]
    pub(crate) generation: Generation,
    /// Install Docker, Podman and systemd-nspawn too
    #[arg(long)]
    pub(crate) engines: bool,
    /// A name for the node [default: the release]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// What the node is made of.
    #[command(flatten)]
    pub(crate) hardware: HardwareArgs,
}

/// What a node is made of.
#[derive(Debug, Args)]
pub(crate) struct HardwareArgs {
    /// Virtual processors
    #[arg(long, default_value_t = DEFAULT_CPUS, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) cpus: u32,
    /// Memory, MiB
    #[arg(long, default_value_t = DEFAULT_MEMORY, value_parser = clap::value_parser!(u32).range(512..=262_144))]
    pub(crate) memory: u32,
    /// Boot anew instead of restoring the node that was kept after its first boot
    #[arg(long)]
    pub(crate) cold: bool,
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Which node.
    #[command(flatten)]
    pub(crate) name: NameArgs,
    /// The command
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

/// `down`.
#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Which node.
    #[command(flatten)]
    pub(crate) name: NameArgs,
    /// End all nodes
    #[arg(long, conflicts_with = "name")]
    pub(crate) all: bool,
}

/// `test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Checks (fmt, clippy, tests) and VM suites (vm_tree or tree) [default: all of them]
    pub(crate) suites: Vec<String>,
    /// Only this Debian release; may be given more than once [default: all three]
    #[arg(long, value_enum)]
    pub(crate) generation: Vec<Generation>,
    /// Seconds a suite may take on a node
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=7200))]
    pub(crate) bound: u64,
    /// How many nodes run suites at the same time
    #[arg(long, default_value_t = DEFAULT_JOBS, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) jobs: u8,
    /// What the nodes are made of.
    #[command(flatten)]
    pub(crate) hardware: HardwareArgs,
}

/// `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The Debian release
    #[arg(value_enum, default_value_t = Generation::Trixie)]
    pub(crate) generation: Generation,
    /// Leave the node up
    #[arg(long)]
    pub(crate) keep: bool,
    /// What the node is made of.
    #[command(flatten)]
    pub(crate) hardware: HardwareArgs,
}
