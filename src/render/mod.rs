//! Values in, text out: nothing here reads the host or writes to the terminal.

pub(crate) mod bundle;
pub(crate) mod cgroup;
pub(crate) mod chrome;
pub(crate) mod diff;
pub(crate) mod events;
pub(crate) mod image;
pub(crate) mod json;
pub(crate) mod openmetrics;
pub(crate) mod plot;
pub(crate) mod spec_diff;
pub(crate) mod style;
pub(crate) mod swap;
pub(crate) mod table;
pub(crate) mod trace;
pub(crate) mod tree;
pub(crate) mod units;
pub(crate) mod unpack;
pub(crate) mod verify;
pub(crate) mod why_error;
pub(crate) mod why_killed;
pub(crate) mod why_runtime;
pub(crate) mod wrap;
