//! Which flags each command takes.

use super::parser::{Flag, Parsed, option, switch};
use super::topics::{TOPICS, Topic};
use super::{Command, CreateOptions, ExecOptions, UsageError};

pub(super) const GLOBAL: &[Flag] = &[
    option("root", ""),
    option("log", ""),
    option("log-format", ""),
    switch("debug", ""),
    switch("systemd-cgroup", ""),
    option("rootless", ""),
    switch("version", "v"),
    switch("help", "h"),
];

const CREATE: &[Flag] = &[
    option("bundle", "b"),
    option("console-socket", ""),
    option("pidfd-socket", ""),
    option("pid-file", ""),
    switch("no-pivot", ""),
    switch("no-new-keyring", ""),
    option("preserve-fds", ""),
];

const RUN: &[Flag] = &[
    option("bundle", "b"),
    option("console-socket", ""),
    option("pidfd-socket", ""),
    option("pid-file", ""),
    switch("no-pivot", ""),
    switch("no-new-keyring", ""),
    option("preserve-fds", ""),
    switch("detach", "d"),
    switch("keep", ""),
];

const EXEC: &[Flag] = &[
    option("console-socket", ""),
    option("pidfd-socket", ""),
    option("cwd", ""),
    option("env", "e"),
    switch("tty", "t"),
    option("user", "u"),
    option("additional-gids", "g"),
    option("process", "p"),
    switch("detach", "d"),
    option("pid-file", ""),
    option("process-label", ""),
    option("apparmor", ""),
    switch("no-new-privs", ""),
    option("cap", "c"),
    option("preserve-fds", ""),
    option("cgroup", ""),
    switch("ignore-paused", ""),
];

/// What a process is to be, which `--process` says as well.
const PROCESS: &[&str] =
    &["cwd", "env", "user", "additional-gids", "process-label", "apparmor", "no-new-privs", "cap"];

const UPDATE: &[Flag] = &[
    option("resources", "r"),
    option("blkio-weight", ""),
    option("cpu-period", ""),
    option("cpu-quota", ""),
    option("cpu-burst", ""),
    option("cpu-share", "cpu-shares"),
    option("cpu-rt-period", ""),
    option("cpu-rt-runtime", ""),
    option("cpuset-cpus", ""),
    option("cpuset-mems", ""),
    option("memory", ""),
    option("memory-reservation", ""),
    option("memory-swap", ""),
    option("kernel-memory", ""),
    option("kernel-memory-tcp", ""),
    option("pids-limit", ""),
    option("l3-cache-schema", ""),
    option("mem-bw-schema", ""),
    option("cpu-idle", ""),
];

const EVENTS: &[Flag] = &[option("interval", ""), switch("stats", "")];

/// Reads a command's own words.
pub(super) fn parse_command(command: &str, words: &[String]) -> Result<Command, UsageError> {
    if let Some(topic) = asked_for_help(command, words)? {
        return Ok(Command::Help { topic });
    }
    match command {
        "create" => Ok(Command::Create(create_options(command, Parsed::parse_anywhere(CREATE, words)?)?)),
        "run" => Ok(Command::Run(create_options(command, Parsed::parse_anywhere(RUN, words)?)?)),
        "exec" => exec_options(Parsed::parse(EXEC, words)?.0),
        "start" => Ok(Command::Start { id: only_id(command, &Parsed::parse_anywhere(&[], words)?)? }),
        "state" => Ok(Command::State { id: only_id(command, &Parsed::parse_anywhere(&[], words)?)? }),
        "pause" => Ok(Command::Pause { id: only_id(command, &Parsed::parse_anywhere(&[], words)?)? }),
        "resume" => Ok(Command::Resume { id: only_id(command, &Parsed::parse_anywhere(&[], words)?)? }),
        "kill" => kill(&Parsed::parse_anywhere(&[switch("all", "a")], words)?),
        "delete" => {
            let parsed = Parsed::parse_anywhere(&[switch("force", "f")], words)?;
            Ok(Command::Delete { id: only_id(command, &parsed)?, force: parsed.has("force") })
        }
        "ps" => ps(&Parsed::parse(&[option("format", "f")], words)?.0),
        "list" => {
            let parsed = Parsed::parse_anywhere(&[option("format", "f"), switch("quiet", "q")], words)?;
            no_words(command, &parsed)?;
            Ok(Command::List { json: is_json(&parsed)?, quiet: parsed.has("quiet") })
        }
        "update" => Parsed::parse_anywhere(UPDATE, words).map(Command::Update),
        "events" => Parsed::parse_anywhere(EVENTS, words).map(Command::Events),
        "spec" => {
            let parsed = Parsed::parse_anywhere(&[option("bundle", "b"), switch("rootless", "")], words)?;
            no_words(command, &parsed)?;
            Ok(Command::Spec { bundle: parsed.path("bundle"), rootless: parsed.has("rootless") })
        }
        "features" => {
            no_words(command, &Parsed::parse_anywhere(&[], words)?)?;
            Ok(Command::Features)
        }
        other => Err(UsageError::UnknownCommand { command: other.to_owned() }),
    }
}

/// `help`, `help COMMAND` and `COMMAND --help`: the topic.
fn asked_for_help(command: &str, words: &[String]) -> Result<Option<Option<&'static Topic>>, UsageError> {
    let find = |name: &str| TOPICS.iter().find(|topic| topic.name == name);
    if matches!(command, "help" | "h") {
        let Some(name) = words.first() else { return Ok(Some(None)) };
        let unknown = || UsageError::UnknownCommand { command: name.clone() };
        return find(name).map(|topic| Some(Some(topic))).ok_or_else(unknown);
    }
    let mut flags = words.iter().take_while(|word| word.starts_with('-') && *word != "--");
    let is_asked = flags.any(|word| matches!(word.as_str(), "-h" | "--help" | "-help"));
    Ok(if is_asked { find(command).map(Some) } else { None })
}

fn only_id(command: &str, parsed: &Parsed) -> Result<String, UsageError> {
    match parsed.words.as_slice() {
        [id] => Ok(id.clone()),
        _ => Err(UsageError::ArgumentCount { command: command.to_owned(), expected: "exactly 1 argument" }),
    }
}

fn no_words(command: &str, parsed: &Parsed) -> Result<(), UsageError> {
    if parsed.words.is_empty() {
        return Ok(());
    }
    Err(UsageError::ArgumentCount { command: command.to_owned(), expected: "exactly 0 arguments" })
}

fn create_options(command: &str, parsed: Parsed) -> Result<CreateOptions, UsageError> {
    Ok(CreateOptions {
        id: only_id(command, &parsed)?,
        bundle: parsed.path("bundle"),
        console_socket: parsed.path("console-socket"),
        pidfd_socket: parsed.path("pidfd-socket"),
        pid_file: parsed.path("pid-file"),
        no_pivot: parsed.has("no-pivot"),
        no_new_keyring: parsed.has("no-new-keyring"),
        preserve_fds: parsed.number("preserve-fds")?,
        detach: parsed.has("detach"),
        keep: parsed.has("keep"),
    })
}

fn exec_options(parsed: Parsed) -> Result<Command, UsageError> {
    let process = parsed.path("process");
    let (id, arguments) = match parsed.words.split_first() {
        Some((id, arguments)) if process.is_some() || !arguments.is_empty() => {
            (id.clone(), arguments.to_vec())
        }
        _ => {
            return Err(UsageError::ArgumentCount {
                command: "exec".to_owned(),
                expected: "a minimum of 2 arguments, or 1 with --process",
            });
        }
    };
    if process.is_some() && !arguments.is_empty() {
        return Err(UsageError::Conflict { reason: "exec takes no program beside --process" });
    }
    if process.is_some() && PROCESS.iter().any(|flag| parsed.has(flag)) {
        return Err(UsageError::Conflict {
            reason: "exec takes from --process alone who and what the process is to be: no --cwd, --env, --user, \
                     --additional-gids, --process-label, --apparmor, --no-new-privs or --cap beside it",
        });
    }
    let additional_gids = parsed
        .values("additional-gids")
        .map(|value| value.parse().map_err(|_| super::invalid("additional-gids", value, "expected a number")))
        .collect::<Result<_, _>>()?;
    Ok(Command::Exec(Box::new(ExecOptions {
        id,
        arguments,
        process,
        console_socket: parsed.path("console-socket"),
        pidfd_socket: parsed.path("pidfd-socket"),
        pid_file: parsed.path("pid-file"),
        tty: parsed.has("tty"),
        detach: parsed.has("detach"),
        user: parsed.value("user").map(str::to_owned),
        additional_gids,
        cwd: parsed.text("cwd"),
        env: parsed.values("env").map(str::to_owned).collect(),
        capabilities: parsed.values("cap").map(str::to_owned).collect(),
        no_new_privileges: parsed.has("no-new-privs"),
        apparmor: parsed.text("apparmor"),
        process_label: parsed.text("process-label"),
        ignore_paused: parsed.has("ignore-paused"),
        cgroup: parsed.path("cgroup"),
        preserve_fds: parsed.number("preserve-fds")?,
    })))
}

fn kill(parsed: &Parsed) -> Result<Command, UsageError> {
    let (id, signal) = match parsed.words.as_slice() {
        [id] => (id, "SIGTERM"),
        [id, signal] if signal.is_empty() => (id, "SIGTERM"),
        [id, signal] => (id, signal.as_str()),
        _ => {
            return Err(UsageError::ArgumentCount {
                command: "kill".to_owned(),
                expected: "1 or 2 arguments",
            });
        }
    };
    Ok(Command::Kill { id: id.clone(), signal: signal.to_owned(), all: parsed.has("all") })
}

fn ps(parsed: &Parsed) -> Result<Command, UsageError> {
    let Some((id, arguments)) = parsed.words.split_first() else {
        return Err(UsageError::ArgumentCount {
            command: "ps".to_owned(),
            expected: "a minimum of 1 argument",
        });
    };
    Ok(Command::Ps { id: id.clone(), json: is_json(parsed)?, arguments: arguments.to_vec() })
}

fn is_json(parsed: &Parsed) -> Result<bool, UsageError> {
    match parsed.value("format") {
        None | Some("table") => Ok(false),
        Some("json") => Ok(true),
        Some(other) => Err(super::invalid("format", other, "expected table or json")),
    }
}
