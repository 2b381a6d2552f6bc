//! What can go wrong in the lab, one variant per operation.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the lab could not do what it was asked.
#[derive(Debug, Error)]
pub(crate) enum LabError {
    /// Ctrl-C, SIGTERM or SIGHUP.
    #[error("interrupted; what this lab started was ended")]
    Interrupted,
    /// Neither `XDG_CACHE_HOME` nor `HOME` says where to keep images.
    #[error("cannot find a cache directory: neither `XDG_CACHE_HOME` nor `HOME` is set")]
    NoCacheDirectory,
    /// A file or directory of the lab's own.
    #[error("cannot {verb} `{}`", path.display())]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    /// A program of the host could not be started or waited for.
    #[error("cannot run `{program}`")]
    Spawn { program: String, source: io::Error },
    /// A program of the host said no. `tail` is the end of what it printed.
    #[error("`{program}` failed while it should {purpose}: {status}\n{tail}")]
    Failed { program: String, purpose: String, status: String, tail: String },
    /// A program of the host did not come to an end in time.
    #[error("`{program}` did not {purpose} within {seconds} s\n{tail}")]
    TimedOut { program: String, purpose: String, seconds: u64, tail: String },
    /// Programs the lab needs are absent and could not be installed.
    #[error("missing on this machine: {missing}\ninstall them with: {command}")]
    MissingPackages { missing: String, command: String },
    /// The name of a machine that is up already.
    #[error("a machine named `{name}` is up already: use it, take it down, or give `--name` another name")]
    NameTaken { name: String },
    /// A name that cannot be a file name and a host name.
    #[error("`{name}` cannot name a machine: use 1 to 40 letters, digits, `-` and `_`")]
    BadName { name: String },
    /// No machine of that name.
    #[error("no machine named `{name}` is up; up are: {up}\nstart one with: cargo lab up --name {name}")]
    NoSuchMachine { name: String, up: String },
    /// `--name` was left out and there is not exactly one machine.
    #[error("which machine? up are: {up}\nsay `--name NAME`, or start one with: cargo lab up")]
    WhichMachine { up: String },
    /// The guest never reported that it is up, or QEMU ended first. `console` is the tail of the serial console.
    #[error("machine `{name}` did not come up: {reason}\nend of its serial console:\n{console}")]
    NoBoot { name: String, reason: String, console: String },
    /// QEMU's machine protocol.
    #[error("cannot {verb} through QEMU's machine protocol: {reply}")]
    Qmp { verb: &'static str, reply: String },
    /// A file of the lab's own holds what the lab does not understand.
    #[error("cannot read `{}` as JSON", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    /// A suite that no test target is named after.
    #[error("no suite named `{name}`; there are: {known}")]
    NoSuchSuite { name: String, known: String },
    /// The command in the machine ended with a status of its own: passed on, nothing more to say.
    #[error("the command in the machine ended with status {status}")]
    GuestStatus { status: u8 },
    /// Tests failed; the table above says which.
    #[error("{what}")]
    TestsFailed { what: String },
}

impl LabError {
    /// For `map_err` on the lab's own files.
    pub(crate) fn file(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { verb, path, source }
    }

    /// The exit status: the guest command's own, 1 for failed tests, 130 after Ctrl-C, else 2.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::GuestStatus { status } => *status,
            Self::TestsFailed { .. } => 1,
            Self::Interrupted => 130,
            _ => 2,
        }
    }
}
