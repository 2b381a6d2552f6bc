//! containerd itself: its daemons and shims among the processes, its configuration, and its API over gRPC.
//!
//! The API's messages are declared by hand, with the fields that are used and the numbers of containerd's
//! `api/services/*.proto` (v1: the same in containerd 1.6 to 2.x).

pub mod config;

mod account;
mod api;
mod channel;
mod cri;
mod daemon;
mod events;
mod shim;

pub use account::{DaemonAccount, NamespaceAccount, read_accounts};
pub use api::{
    ContainerRecord, DaemonServer, DeprecationWarning, Plugin, PluginError, RuntimeRecord, TaskRecord,
    TaskStatus, Version,
};
pub use channel::{ApiError, DaemonChannel};
pub use cri::{CriHandler, CriStatus};
pub use daemon::{DEFAULT_ADDRESS, DEFAULT_CONFIG, DEFAULT_STATE, DaemonProcess, find_daemons};
pub use events::{DaemonEvent, DaemonEvents};
pub use shim::{ShimProcess, TASK_DIRECTORY, find_shims};
