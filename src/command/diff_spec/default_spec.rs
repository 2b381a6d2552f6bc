//! `default:RUNTIME`: what a runtime's own `spec` command writes, from the runtime itself.

use std::io;
use std::path::PathBuf;
use std::process::Command;

use inspect_probes::escape::escape_bytes;
use inspect_probes::spec::{Spec, load_spec};
use thiserror::Error;

use crate::error::CommandError;

/// Why a runtime's default could not be had.
#[derive(Debug, Error)]
enum DefaultSpecError {
    #[error("cannot make the default spec of {name:?}: it is not one of runc, crun, builtin")]
    UnknownRuntime { name: String },
    #[error("cannot make a temporary directory for `{program} spec`")]
    Directory {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot run `{program} spec`")]
    Run {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot make a spec: `{program} spec` ended with {status}: {message}")]
    Failed { program: String, status: std::process::ExitStatus, message: String },
    #[error("cannot find this program's own path")]
    OwnPath {
        #[source]
        source: io::Error,
    },
}

/// Runs `RUNTIME spec` in a temporary directory and loads what it wrote.
pub(super) fn make_default_spec(runtime: &str) -> Result<Spec, CommandError> {
    let program = match runtime {
        "runc" | "crun" => PathBuf::from(runtime),
        "builtin" => builtin_path().map_err(CommandError::trouble)?,
        other => {
            return Err(CommandError::usage(DefaultSpecError::UnknownRuntime { name: other.to_owned() }));
        }
    };
    let shown = program.display().to_string();
    let directory = tempfile::tempdir().map_err(|source| {
        CommandError::trouble(DefaultSpecError::Directory { program: shown.clone(), source })
    })?;
    let ran =
        Command::new(&program).arg("spec").current_dir(directory.path()).output().map_err(|source| {
            CommandError::trouble(DefaultSpecError::Run { program: shown.clone(), source })
                .hint(format!("`default:{runtime}` needs {runtime} on this machine"))
        })?;
    if !ran.status.success() {
        let message = escape_bytes(ran.stderr.trim_ascii()).into_owned();
        return Err(CommandError::trouble(DefaultSpecError::Failed {
            program: shown,
            status: ran.status,
            message,
        }));
    }
    let mut spec = load_spec(&directory.path().join("config.json")).map_err(CommandError::trouble)?;
    spec.origin = format!("{shown} spec");
    Ok(spec)
}

/// The built-in runtime is installed beside this program.
fn builtin_path() -> Result<PathBuf, DefaultSpecError> {
    let own = std::env::current_exe().map_err(|source| DefaultSpecError::OwnPath { source })?;
    Ok(own.with_file_name("inspect-runtime"))
}
