//! The only code that changes a node: plan → pre-flight → journal and backup → apply → restart → verify → commit, or
//! the very bytes that were there again.

mod apply;
mod binary;
mod census;
mod daemon;
mod error;
mod journal;
mod lock;
mod plan;
mod preflight;
mod progress;
mod prove;
mod restart;
mod status;
mod transaction;
mod undo;

pub(crate) use error::SwapError;
pub(crate) use plan::{CgroupDriver, SwapRequest};
pub(crate) use preflight::Verdict;
pub(crate) use progress::Progress;
pub(crate) use status::{StatusReport, read_status};
pub(crate) use transaction::{SwapReport, SwapState, swap};
pub(crate) use undo::{UndoReport, undo};
