//! Reads a host and says what is there: processes, containerd's tasks and bundles, OCI specs, cgroups, systemd.
//!
//! Nothing here writes to the host, prints, reads the environment or exits. Every reader hangs from a
//! [`Host`], so that the same code reads the live machine, a captured fixture or a mounted disk of a dead node.

pub mod bundle;
pub mod cgroup;
pub mod container_cgroup;
pub mod containerd;
pub mod docker;
pub mod escape;
pub mod events;
pub mod host;
pub mod killed;
pub mod known_error;
pub mod name;
pub mod namespace_owner;
pub mod node;
pub mod observation;
pub mod process;
pub mod runtime_choice;
pub mod runtime_state;
pub mod spec;
pub mod spec_readback;
pub mod systemd;
pub mod task_tree;

pub use host::Host;
pub use node::Node;
