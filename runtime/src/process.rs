//! The processes: the runtime's own, which prepares and watches, and those that become the container's.

pub(crate) mod channel;
pub(crate) mod exec;
pub(crate) mod finish;
pub(crate) mod foreground;
pub(crate) mod handover;
pub(crate) mod init;
pub(crate) mod parent;
pub(crate) mod payload;
pub(crate) mod program;
pub(crate) mod protect;
pub(crate) mod streams;
