//! The built-in OCI runtime: creates containers as runtime-spec 1.3 says, on Linux with cgroup v2.
//!
//! The binary `inspect-runtime` is a thin `main` around [`run`]. It starts no thread before its last clone.

pub mod acceptance;
mod capabilities;
pub mod cgroup;
pub mod cli;
mod command;
mod context;
mod credentials;
pub mod default_spec;
mod document;
mod error;
mod file;
mod hooks;
mod intel_rdt;
mod log;
mod namespaces;
mod net_devices;
mod notify;
mod plan;
mod process;
mod resolve;
mod rootfs;
mod scheduling;
pub mod seccomp;
mod start;
pub mod state;
mod step;
pub mod sys;
mod terminal;
mod time;
mod user_namespace;
pub mod validate;

use std::ffi::OsString;
use std::io::Write;

pub use context::Call;
use process::protect::PrivateMount;

/// What `exec` ends with when there is no status of a program to end with.
const EXEC_FAILED: u8 = 255;

/// What an unknown command ends with, as runc's does.
const NO_COMMAND: u8 = 3;

/// Runs one command of the runtime's command line and gives the exit status: the payload's where the command waits for
/// it, else 0, or 1 with the reason on `errors` and in the log.
pub fn run(call: &Call, output: &mut dyn Write, errors: &mut dyn Write) -> u8 {
    let arguments: &[OsString] = call.arguments.get(1..).unwrap_or_default();
    let protected = protect(arguments, call);
    let invocation = match cli::parse(arguments) {
        Ok(invocation) => invocation,
        Err(error) => {
            let message = error.to_string();
            if let Some(global) = cli::parse_global_alone(arguments) {
                context::Context::new(&global, call).log.error(&message);
            }
            let status = refuse(errors, &message);
            return if matches!(error, cli::UsageError::UnknownCommand { .. }) { NO_COMMAND } else { status };
        }
    };
    process::streams::ensure();
    let mut context = context::Context::new(&invocation.global, call);
    context.log.debug(&format!("called as {arguments:?}"));
    let result = protected.and_then(|private_mount| {
        context.private_mount = private_mount;
        command::run(&invocation.command, &context, output)
    });
    match result {
        Ok(status) => status,
        Err(error) => {
            let is_exec = matches!(invocation.command, cli::Command::Exec(_));
            let message = if is_exec { "exec failed: " } else { "" }.to_owned() + &step::chain(&error);
            context.log.error(&message);
            let status = refuse(errors, &message);
            // runc's: 1 could be the program's own.
            if is_exec { EXEC_FAILED } else { status }
        }
    }
}

/// What enters a container, or makes one, must not be writable from there. Comes first: it may start the program once more,
/// and everything of it that has been used before is mapped anew. So the command is not known yet; one of another name with
/// such a word in it is none the worse.
fn protect(arguments: &[OsString], call: &Call) -> Result<PrivateMount, error::RuntimeError> {
    if arguments.iter().any(|word| word == "create" || word == "run" || word == "exec") {
        Ok(process::protect::ensure(call)?)
    } else {
        Ok(PrivateMount::default())
    }
}

/// Writes why to stderr; there is nowhere left to say that this failed.
fn refuse(errors: &mut dyn Write, message: &str) -> u8 {
    writeln!(errors, "inspect-runtime: {}", step::printable(message)).ok();
    1
}
