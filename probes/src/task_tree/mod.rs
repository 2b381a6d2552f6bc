//! systemd → daemon → containerd namespace → shim → container → processes, put together from what was read.
//!
//! Pure: an [`Observation`](crate::observation::Observation) in, a [`TaskTree`] out.

mod account;
mod build;
mod container;

mod model;
mod owner;
mod place;
mod select;
#[cfg(test)]
mod tests;

pub use build::build_task_tree;
pub use model::{
    ApiSummary, ContainerNode, ContainerStatus, DaemonInfo, DaemonNode, Finding, FindingKind, HostSummary,
    InitProcess, InitSource, NamespaceNode, OwnershipProof, Pod, ProcessNode, ProcessRole, ProofKind,
    RuntimeSummary, SCHEMA_VERSION, SharedNamespace, ShimNode, TaskTree, Totals,
};
pub use owner::unit_of_cgroup;
pub use select::Selection;
