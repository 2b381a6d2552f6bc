//! The command line, in runc's grammar: what was typed, checked, nothing done.
//!
//! Written by hand because start-up counts: containerd runs the runtime several times for each container.

mod grammar;
mod parser;
mod topics;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

pub use parser::Parsed;
pub(crate) use topics::TOPICS;
pub use topics::Topic;

/// What a call of the runtime was told.
#[derive(Debug)]
pub struct Invocation {
    /// The options before the command.
    pub global: Global,
    /// The command with its own options.
    pub command: Command,
}

/// The options before the command.
#[derive(Debug)]
pub struct Global {
    /// Where state is kept; `None` for the default.
    pub root: Option<PathBuf>,
    /// Where errors are logged besides stderr.
    pub log: Option<PathBuf>,
    /// How they are logged.
    pub log_format: LogFormat,
    /// Log what is done, too.
    pub debug: bool,
    /// Let systemd make the cgroups.
    pub systemd_cgroup: bool,
    /// `--rootless`; `None` for `auto`.
    pub rootless: Option<bool>,
}

/// The two formats of runc's log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// `time="…" level=error msg="…"`.
    #[default]
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`.
    Json,
}

/// The commands.
#[derive(Debug)]
pub enum Command {
    /// Prepares a container and waits for `start`.
    Create(CreateOptions),
    /// Runs the process of a created container.
    Start {
        /// The container.
        id: String,
    },
    /// Creates and starts.
    Run(CreateOptions),
    /// Writes the state as JSON.
    State {
        /// The container.
        id: String,
    },
    /// Sends a signal to the init process, or to all.
    Kill {
        /// The container.
        id: String,
        /// A number or a name with or without `SIG`.
        signal: String,
        /// To every process of the container.
        all: bool,
    },
    /// Removes what a container left.
    Delete {
        /// The container.
        id: String,
        /// Kill it first; a container that does not exist is no error.
        force: bool,
    },
    /// Runs a further process in a container.
    Exec(Box<ExecOptions>),
    /// Lists a container's processes.
    Ps {
        /// The container.
        id: String,
        /// JSON instead of ps(1)'s table.
        json: bool,
        /// Arguments for ps(1).
        arguments: Vec<String>,
    },
    /// Lists the containers of the root.
    List {
        /// JSON instead of a table.
        json: bool,
        /// IDs alone.
        quiet: bool,
    },
    /// Freezes a container.
    Pause {
        /// The container.
        id: String,
    },
    /// Thaws it.
    Resume {
        /// The container.
        id: String,
    },
    /// Changes limits.
    Update(Parsed),
    /// Writes figures and events.
    Events(Parsed),
    /// Writes a new `config.json`.
    Spec {
        /// Where to.
        bundle: Option<PathBuf>,
        /// For an ordinary user.
        rootless: bool,
    },
    /// Writes what the runtime can do.
    Features,
    /// Writes versions.
    Version,
    /// Writes the usage.
    Help {
        /// Of this command alone.
        topic: Option<&'static Topic>,
    },
}

/// Options of `create` and `run`.
#[derive(Debug, Default)]
pub struct CreateOptions {
    /// The container's ID.
    pub id: String,
    /// The bundle; `None` for the current directory.
    pub bundle: Option<PathBuf>,
    /// The socket that gets the terminal.
    pub console_socket: Option<PathBuf>,
    /// The socket that gets a pidfd of the init process.
    pub pidfd_socket: Option<PathBuf>,
    /// Where the pid is written.
    pub pid_file: Option<PathBuf>,
    /// Change the root with `MS_MOVE`.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors after 2 the process keeps.
    pub preserve_fds: u32,
    /// Do not wait for the process (`run`).
    pub detach: bool,
    /// Keep the state after the process ended (`run`).
    pub keep: bool,
}

/// Options of `exec`.
#[derive(Debug, Default)]
pub struct ExecOptions {
    /// The container's ID.
    pub id: String,
    /// The program and its arguments, without `--process`.
    pub arguments: Vec<String>,
    /// A file with the process as JSON.
    pub process: Option<PathBuf>,
    /// The socket that gets the terminal.
    pub console_socket: Option<PathBuf>,
    /// The socket that gets a pidfd of the process.
    pub pidfd_socket: Option<PathBuf>,
    /// Where the pid is written.
    pub pid_file: Option<PathBuf>,
    /// With a terminal.
    pub tty: bool,
    /// Do not wait for the process.
    pub detach: bool,
    /// `uid[:gid]`.
    pub user: Option<String>,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// The directory to start in.
    pub cwd: Option<String>,
    /// Added to the environment.
    pub env: Vec<String>,
    /// Added to the capabilities.
    pub capabilities: Vec<String>,
    /// Set no_new_privs.
    pub no_new_privileges: bool,
    /// An AppArmor profile.
    pub apparmor: Option<String>,
    /// An SELinux label.
    pub process_label: Option<String>,
    /// Go on in a paused container.
    pub ignore_paused: bool,
    /// A cgroup below the container's.
    pub cgroup: Option<PathBuf>,
    /// How many descriptors after 2 the process keeps.
    pub preserve_fds: u32,
}

/// A command line that is not understood.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// No flag of this name.
    #[error("flag provided but not defined: {flag}")]
    UnknownFlag {
        /// As it was given.
        flag: String,
    },
    /// No command of this name.
    #[error("No help topic for '{command}'")]
    UnknownCommand {
        /// As it was given.
        command: String,
    },
    /// A flag whose value is missing.
    #[error("flag needs an argument: --{flag}")]
    MissingValue {
        /// The flag.
        flag: &'static str,
    },
    /// A flag whose value makes no sense.
    #[error("invalid value {value:?} for flag --{flag}: {reason}")]
    InvalidValue {
        /// The flag.
        flag: &'static str,
        /// The value.
        value: String,
        /// What it should be.
        reason: &'static str,
    },
    /// Too few or too many arguments.
    #[error("\"{command}\" requires {expected}")]
    ArgumentCount {
        /// The command.
        command: String,
        /// How many.
        expected: &'static str,
    },
    /// An argument with bytes that are no UTF-8.
    #[error("argument {argument:?} is not UTF-8")]
    NotUtf8 {
        /// The argument.
        argument: OsString,
    },
    /// Flags that exclude each other.
    #[error("{reason}")]
    Conflict {
        /// What and why.
        reason: &'static str,
    },
}

/// Reads a command line (without the program's name).
///
/// # Errors
/// [`UsageError`] for whatever is not understood: nothing is ignored.
pub fn parse(arguments: &[OsString]) -> Result<Invocation, UsageError> {
    let words = arguments.iter().map(|word| utf8(word)).collect::<Result<Vec<_>, _>>()?;
    let (global, rest) = Parsed::parse(grammar::GLOBAL, &words)?;
    let command = match rest.split_first() {
        _ if global.has("version") => Command::Version,
        _ if global.has("help") => Command::Help { topic: None },
        None => Command::Help { topic: None },
        Some((command, rest)) => grammar::parse_command(command, rest)?,
    };
    Ok(Invocation { global: parse_global(&global)?, command })
}

/// The options before the command, if they are in order: they say where to log what is wrong with the rest.
#[must_use]
pub fn parse_global_alone(arguments: &[OsString]) -> Option<Global> {
    let words = arguments.iter().map(|word| utf8(word)).collect::<Result<Vec<_>, _>>().ok()?;
    let (global, _) = Parsed::parse(grammar::GLOBAL, &words).ok()?;
    parse_global(&global).ok()
}

fn utf8(word: &OsStr) -> Result<String, UsageError> {
    word.to_str().map(str::to_owned).ok_or_else(|| UsageError::NotUtf8 { argument: word.to_owned() })
}

fn parse_global(parsed: &Parsed) -> Result<Global, UsageError> {
    let log_format = match parsed.value("log-format") {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => return Err(invalid("log-format", other, "expected text or json")),
    };
    let rootless = match parsed.value("rootless") {
        None | Some("auto") => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(other) => return Err(invalid("rootless", other, "expected true, false or auto")),
    };
    Ok(Global {
        root: parsed.path("root"),
        log: parsed.path("log"),
        log_format,
        debug: parsed.has("debug"),
        systemd_cgroup: parsed.has("systemd-cgroup"),
        rootless,
    })
}

fn invalid(flag: &'static str, value: &str, reason: &'static str) -> UsageError {
    UsageError::InvalidValue { flag, value: value.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Invocation, UsageError> {
        parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn containerds_create_is_understood() {
        let line = [
            "--root",
            "/run/r",
            "--log",
            "/b/log.json",
            "--log-format",
            "json",
            "--systemd-cgroup",
            "create",
            "--bundle",
            "/b",
            "--pid-file",
            "/b/init.pid",
            "--console-socket",
            "/t",
            "c1",
        ];
        let invocation = parse_words(&line).unwrap();
        assert_eq!(invocation.global.log_format, LogFormat::Json);
        assert!(invocation.global.systemd_cgroup);
        let Command::Create(options) = invocation.command else { panic!("not create") };
        assert_eq!((options.id.as_str(), options.bundle), ("c1", Some(PathBuf::from("/b"))));
    }

    #[test]
    fn exec_keeps_the_payloads_own_flags() {
        let invocation = parse_words(&["exec", "-t", "--env", "A=1", "-e", "B=2", "c1", "ls", "-l"]).unwrap();
        let Command::Exec(options) = invocation.command else { panic!("not exec") };
        assert_eq!(options.arguments, ["ls", "-l"]);
        assert_eq!(options.env, ["A=1", "B=2"]);
        assert!(options.tty);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for line in [
            &["--nope", "state", "c1"][..],
            &["state", "--nope", "c1"],
            &["state"],
            &["state", "a", "b"],
            &["frobnicate"],
            &["create", "--bundle"],
            &["--log-format", "xml", "state", "c"],
            &["create", "--preserve-fds", "-1", "c"],
            &["exec", "--process", "p.json", "--user", "5", "c"],
            &["exec", "--no-new-privs", "-p", "p.json", "c"],
        ] {
            assert!(parse_words(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn every_command_tells_what_it_takes() {
        let topic = |words: &[&str]| match parse_words(words).unwrap().command {
            Command::Help { topic } => topic.map(|topic| topic.name),
            other => panic!("{other:?}"),
        };
        for one in TOPICS {
            assert_eq!(topic(&[one.name, "-h"]), Some(one.name));
            assert_eq!(topic(&["help", one.name]), Some(one.name));
            // Each is a command: without arguments it is either done or named in the refusal.
            assert!(
                !matches!(parse_words(&[one.name]), Err(UsageError::UnknownCommand { .. })),
                "{}",
                one.name
            );
        }
        assert_eq!(topic(&["update", "--memory=1", "--help", "c1"]), Some("update"));
        assert_eq!(topic(&["help"]), None);
        assert!(matches!(parse_words(&["foo", "-h"]), Err(UsageError::UnknownCommand { .. })));
        let Command::Exec(exec) = parse_words(&["exec", "c1", "ls", "-h"]).unwrap().command else { panic!() };
        assert_eq!(exec.arguments, ["ls", "-h"]);
        // What conmon and containerd's shim give beside it.
        let line =
            ["exec", "--pid-file", "p", "-p", "p.json", "--tty", "--detach", "--console-socket", "s", "c1"];
        assert!(matches!(parse_words(&line).unwrap().command, Command::Exec(_)));
    }

    #[test]
    fn flags_may_follow_the_container() {
        let line = ["kill", "c1", "--all", "-9"];
        let Command::Kill { id, signal, all } = parse_words(&line).unwrap().command else { panic!() };
        assert_eq!((id.as_str(), signal.as_str(), all), ("c1", "-9", true));
        let line = ["update", "c1", "--memory", "5m", "-r", "-"];
        let Command::Update(parsed) = parse_words(&line).unwrap().command else { panic!() };
        assert_eq!(
            (&parsed.words[..], parsed.value("memory"), parsed.value("resources")),
            (&["c1".to_owned()][..], Some("5m"), Some("-"))
        );
        let Command::Delete { id, force } = parse_words(&["delete", "c1", "-f"]).unwrap().command else {
            panic!()
        };
        assert_eq!((id.as_str(), force), ("c1", true));
        let Command::State { id } = parse_words(&["state", "--", "-c1"]).unwrap().command else { panic!() };
        assert_eq!(id, "-c1");
        for line in
            [&["delete", "c1", "--", "-f"][..], &["state", "c1", "another"], &["run", "c1", "--bundle"]]
        {
            assert!(parse_words(line).is_err(), "{line:?}");
        }
        for line in [["state", "c1", "--nope"], ["kill", "c1", "--al"], ["delete", "c1", "--froce"]] {
            assert!(matches!(parse_words(&line), Err(UsageError::UnknownFlag { .. })), "{line:?}");
        }
        let Command::Ps { arguments, .. } = parse_words(&["ps", "c1", "-f", "x"]).unwrap().command else {
            panic!()
        };
        assert_eq!(arguments, ["-f", "x"]);
    }

    #[test]
    fn an_empty_value_is_none() {
        let line = ["exec", "--cwd", "", "--apparmor=", "--process-label", "", "c1", "ls"];
        let Command::Exec(exec) = parse_words(&line).unwrap().command else { panic!() };
        assert_eq!((&exec.cwd, &exec.apparmor, &exec.process_label), (&None, &None, &None));
        let Command::Kill { signal, .. } = parse_words(&["kill", "c1", ""]).unwrap().command else {
            panic!()
        };
        assert_eq!(signal, "SIGTERM");
    }

    #[test]
    fn values_come_with_a_sign_or_a_space_and_one_dash_or_two() {
        for line in
            [&["kill", "--all=true", "c1", "9"][..], &["kill", "-a", "c1", "9"], &["kill", "-all", "c1", "9"]]
        {
            let Command::Kill { all, signal, .. } = parse_words(line).unwrap().command else { panic!() };
            assert!(all);
            assert_eq!(signal, "9");
        }
        let Command::Kill { signal, .. } = parse_words(&["kill", "c1"]).unwrap().command else { panic!() };
        assert_eq!(signal, "SIGTERM");
    }
}
