//! One file a command: asks the modules that know, says what came of it.

mod create;
mod delete;
pub(crate) mod events;
mod exec;
mod features;
mod help;
mod kill;
mod list;
mod pause;
mod ps;
mod spec;
mod start;
mod state;
pub(crate) mod update;

use std::io::Write;

use crate::cgroup::Cgroup;
use crate::cli::{Command, Parsed, UsageError};
use crate::context::Context;
use crate::error::RuntimeError;
use crate::state::{State, StateDirectory, Status};

/// Runs a command; gives the exit status.
pub(crate) fn run(command: &Command, context: &Context, output: &mut dyn Write) -> Result<u8, RuntimeError> {
    match command {
        Command::Create(options) => apart(|| create::create(options, context)),
        Command::Run(options) => apart(|| create::run(options, context)),
        Command::Exec(options) => apart(|| exec::run(options, context)),
        Command::Start { id } => apart(|| start::run(id, context)),
        Command::State { id } => apart(|| state::run(id, context, output)),
        Command::Kill { id, signal, all } => apart(|| kill::run(id, signal, *all, context)),
        Command::Delete { id, force } => apart(|| delete::run(id, *force, context)),
        Command::Ps { id, json, arguments } => apart(|| ps::run(id, *json, arguments, context, output)),
        Command::List { json, quiet } => apart(|| list::run(*json, *quiet, context, output)),
        Command::Spec { bundle, rootless } => apart(|| spec::run(bundle.as_deref(), *rootless)),
        Command::Features => apart(|| features::run(output)),
        Command::Version => write(output, &version()),
        Command::Help { topic } => write(output, &help::text(*topic)),
        Command::Pause { id } => apart(|| pause::pause(id, context)),
        Command::Resume { id } => apart(|| pause::resume(id, context)),
        Command::Update(parsed) => apart(|| update::run(parsed, context, &mut std::io::stdin())),
        Command::Events(parsed) => apart(|| events::run(parsed, context, output)),
    }
}

/// Keeps a command's code out of its caller's, whose stack would be as large as that of all commands together.
#[inline(never)]
fn apart<T>(command: impl FnOnce() -> T) -> T {
    command()
}

/// The lines of runc, which Docker reads for `docker info`. As with a distribution's package, the version stands for the commit,
/// which a build need not know.
fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("inspect-runtime version {version}\ncommit: v{version}\nspec: 1.3.0\n")
}

fn write(output: &mut dyn Write, text: &str) -> Result<u8, RuntimeError> {
    output.write_all(text.as_bytes()).map_err(RuntimeError::Output)?;
    Ok(0)
}

/// Writes a value as indented JSON.
pub(crate) fn write_json(output: &mut dyn Write, value: &serde_json::Value) -> Result<u8, RuntimeError> {
    write(output, &format!("{value:#}\n"))
}

/// A container's directory and state.
pub(crate) fn load(id: &str, context: &Context) -> Result<(StateDirectory, State), RuntimeError> {
    let directory = StateDirectory::locate(&context.root, id)?;
    let state = directory.load()?;
    Ok((directory, state))
}

/// The one word a command takes, which is a container's ID.
fn only_id<'a>(command: &str, parsed: &'a Parsed) -> Result<&'a str, RuntimeError> {
    match parsed.words.as_slice() {
        [id] => Ok(id),
        _ => {
            let command = command.to_owned();
            Err(UsageError::ArgumentCount { command, expected: "exactly 1 argument" }.into())
        }
    }
}

/// The container's cgroup.
fn open_cgroup(state: &State) -> Result<Cgroup, RuntimeError> {
    if state.cgroup_path.as_os_str().is_empty() {
        let reason = "it has none: who made it may make no cgroups (with --systemd-cgroup the user's systemd makes them)";
        return Err(RuntimeError::Refused {
            operation: "open the container's cgroup",
            reason: reason.to_owned(),
        });
    }
    Ok(Cgroup::open(&state.cgroup_path, state.scope())?)
}

/// The status, with `Paused` told from `Running`, and from `Created`: a container that is frozen before its start is paused for runc, too,
/// and a process that entered it would stand with it.
pub(crate) fn status(directory: &StateDirectory, state: &State) -> Status {
    match state.status(directory) {
        Status::Running | Status::Created if is_frozen(state) => Status::Paused,
        status => status,
    }
}

fn is_frozen(state: &State) -> bool {
    let cgroup = Cgroup::open(&state.cgroup_path, None);
    cgroup.and_then(|cgroup| cgroup.is_frozen()).unwrap_or(false)
}
