//! Why a command failed.

use std::io;
use std::path::PathBuf;

use crate::cgroup::CgroupError;
use crate::cli::UsageError;
use crate::command::events::EventsError;
use crate::command::update::UpdateError;
use crate::hooks::HookError;
use crate::state::StateError;
use crate::step::StepError;
use crate::validate::InvalidSpec;

/// Why a command failed. Where containerd, Docker or Podman look for runc's words, the text has them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeError {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Invalid(#[from] InvalidSpec),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Update(#[from] UpdateError),
    #[error(transparent)]
    Events(#[from] EventsError),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error("cannot {operation} `{path}`")]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read `{path}`")]
    Json {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// What the init process reported, with its causes.
    #[error("unable to start container process: {report}")]
    Init { report: String },
    /// It said nothing.
    #[error("unable to start container process: it ended during its set-up ({how})")]
    InitDied { how: String },
    #[error("container not running")]
    NotRunning,
    #[error("cannot start a container that has stopped")]
    StartStopped,
    #[error("cannot start an already running container")]
    StartRunning,
    #[error("cannot exec in a stopped container")]
    ExecStopped,
    #[error("cannot exec in a paused container (use --ignore-paused to override)")]
    ExecPaused,
    #[error("cannot delete container {id} that is not stopped: {status}")]
    DeleteRunning { id: String, status: &'static str },
    #[error("unknown signal {signal:?}")]
    Signal { signal: String },
    #[error("{reason}")]
    Console { reason: &'static str },
    #[error("cannot {operation}: {reason}")]
    Refused { operation: &'static str, reason: String },
    #[error("cannot write to stdout")]
    Output(#[source] io::Error),
}
