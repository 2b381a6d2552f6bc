//! What can be typed after `cargo lab`.

use std::path::PathBuf;
use std::str::FromStr;

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
    /// A variable for the suites in the nodes, such as INSPECT_STRESS=full; may be given more than once
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<Variable>,
    /// Only the tests of the named suites whose names contain this; may be given more than once
    #[arg(long, value_name = "TEST", requires = "suites")]
    pub(crate) only: Vec<String>,
    /// What the nodes are made of.
    #[command(flatten)]
    pub(crate) hardware: HardwareArgs,
}

/// A variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    /// Letters, digits and underscores, no digit first.
    pub(crate) name: String,
    /// What it is set to.
    pub(crate) value: String,
}

/// What the lab itself sets in a node begins so.
const OWN_PREFIX: &str = "INSPECT_LAB_";

/// Why a text is no variable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum VariableError {
    /// There is no `=`.
    #[error("it is not of the form NAME=VALUE")]
    Form,
    /// No shell can set it.
    #[error("a name has letters, digits and underscores alone, and no digit first")]
    Name,
    /// It is the lab's.
    #[error("variables whose names begin with {OWN_PREFIX} are set by the lab")]
    Own,
    /// It would end up in another line of a log, or hide one.
    #[error("a value has no control characters")]
    Value,
}

impl FromStr for Variable {
    type Err = VariableError;

    fn from_str(text: &str) -> Result<Self, VariableError> {
        let (name, value) = text.split_once('=').ok_or(VariableError::Form)?;
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !name.bytes().all(is_allowed) || name.bytes().next().is_none_or(|first| first.is_ascii_digit()) {
            return Err(VariableError::Name);
        }
        if name.starts_with(OWN_PREFIX) {
            return Err(VariableError::Own);
        }
        if value.chars().any(char::is_control) {
            return Err(VariableError::Value);
        }
        Ok(Variable { name: name.to_owned(), value: value.to_owned() })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_has_a_name_and_a_value() {
        let variable = |name: &str, value: &str| Ok(Variable { name: name.into(), value: value.into() });
        assert_eq!("INSPECT_STRESS=full".parse(), variable("INSPECT_STRESS", "full"));
        assert_eq!("_a1=".parse(), variable("_a1", ""));
        assert_eq!("A=b=c 'd' $e".parse(), variable("A", "b=c 'd' $e"));
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        let refused = |text: &str| text.parse::<Variable>().unwrap_err();
        assert_eq!(refused("INSPECT_STRESS"), VariableError::Form);
        for name in ["=x", "1A=x", "A B=x", "A;reboot=x", "A-B=x", "\u{c4}=x"] {
            assert_eq!(refused(name), VariableError::Name, "{name}");
        }
        assert_eq!(refused("INSPECT_LAB_GENERATION=sid"), VariableError::Own);
        assert_eq!(refused("A=one\ntwo"), VariableError::Value);
    }

    #[test]
    fn variables_are_given_one_by_one() {
        let arguments = ["cargo lab", "test", "trace", "--env", "A=1", "--env", "B=2"];
        let Action::Test(test) = Cli::try_parse_from(arguments).unwrap().action else { panic!("not a test") };
        let names: Vec<&str> = test.env.iter().map(|variable| &*variable.name).collect();
        assert_eq!((names, test.suites), (vec!["A", "B"], vec!["trace".to_owned()]));
        assert!(Cli::try_parse_from(["cargo lab", "test", "--env", "A"]).is_err());
    }

    #[test]
    fn some_tests_alone_are_those_of_a_named_suite() {
        let arguments = ["cargo lab", "test", "tree", "--only", "one", "--only", "two"];
        let Action::Test(test) = Cli::try_parse_from(arguments).unwrap().action else { panic!("not a test") };
        assert_eq!(test.only, ["one", "two"]);
        assert!(Cli::try_parse_from(["cargo lab", "test", "--only", "one"]).is_err());
    }
}
