//! The only code that changes a node: plan → pre-flight → journal and backup → apply → restart → verify → commit, or
//! the very bytes that were there again.

mod apply;
mod binary;
mod census;
mod daemon;
mod dispatch;
mod docker;
mod docker_swap;
mod error;
mod execute;
mod journal;
mod lock;
mod plan;
mod preflight;
mod progress;
mod prove;
mod restart;
mod stand_in;
mod status;
mod transaction;
mod undo;

pub(crate) use dispatch::run_as_stand_in;
pub(crate) use docker_swap::{UNIT as DOCKER_UNIT, swap_docker};
pub(crate) use error::SwapError;
pub(crate) use plan::{CgroupDriver, Scope, SwapRequest};
pub(crate) use preflight::Verdict;
pub(crate) use progress::Progress;
pub(crate) use stand_in::{StandInStatus, read_stand_in};
pub(crate) use status::{StatusReport, read_status};
pub(crate) use transaction::{SwapReport, SwapState, swap};
pub(crate) use undo::{UndoReport, undo};
