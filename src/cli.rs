//! What was typed: clap's types and nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Shows what containerd really made, says why, swaps the OCI runtime under it and proves that the swap took.
#[derive(Debug, Parser)]
#[command(name = "inspect", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Colour the output
    #[arg(long, global = true, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN")]
    pub(crate) color: ColorChoice,
    /// Read the host below DIR (proc, sys, run, etc) in place of this machine: a captured or mounted node
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) host_root: Option<PathBuf>,
}

/// When to colour: `auto` is on a terminal without `NO_COLOR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// One variant per subcommand; its arguments live in the subcommand's file.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Cgroup(crate::command::cgroup::CgroupArgs),
    SwapRuntime(crate::command::swap_runtime::SwapRuntimeArgs),
    Image(crate::command::image::ImageArgs),
    Run(crate::command::run::RunArgs),
    Spec(crate::command::spec::SpecArgs),
    Tree(crate::command::tree::TreeArgs),
    Events(crate::command::events::EventsArgs),
    Bundle(crate::command::bundle::BundleArgs),
    DiffSpec(crate::command::diff_spec::DiffSpecArgs),
    Trace(crate::command::trace::TraceArgs),
    Unpack(crate::command::unpack::UnpackArgs),
    Verify(crate::command::verify::VerifyArgs),
    Why(crate::command::why::WhyArgs),
    #[command(hide = true)]
    Canary(crate::verify::canary::CanaryArgs),
}
