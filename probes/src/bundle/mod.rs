//! Bundles of containerd's runtime v2: `<state>/io.containerd.runtime.v2.task/NAMESPACE/ID`.
//!
//! A bundle is what containerd and the shim leave on tmpfs for each task: config.json, the pid of its init, the options
//! of the runtime, the shim's address. It is there without any daemon, and tells of tasks whose shim is dead.

mod cgroup;
mod contents;
mod excerpt;
mod files;
mod locate;
mod state_directory;

pub use cgroup::{cgroup_belongs_to, spec_cgroup_path};
pub use contents::{BundleContents, ExplainedFile, explain_bundle};
pub use excerpt::{SpecExcerpt, SpecNamespace, read_spec_excerpt};
pub use files::{Bundle, BundleError, RuntimeOptions, ShimAddress, read_bundle};
pub use locate::{
    Candidate, LocateError, bundle_names, choose_container, locate_bundle, locate_bundle_of_cgroup,
    locate_bundle_of_pid,
};
pub use state_directory::{BundleSearch, StateDirectory, StateSource, find_bundles, find_state_directories};
