//! What the fuzz targets do, each a function of bytes that panics where the code under test is wrong.
//!
//! `fuzz_targets/` hands them libFuzzer's bytes; `tests/fuzz_targets.rs` of the tool includes this file and hands them
//! the seeds, so that they cannot rot. They know the crates' public interfaces alone.

mod archive;
mod containerd;
mod edits;
mod image;
mod kernel;
mod runtime;
mod seccomp;
pub mod seeds;
mod spec;

pub use containerd::containerd_config;
pub use image::{image_archive, image_documents, image_tar, image_unpack};
pub use kernel::{kernel_text, proc_events};
pub use runtime::{runtime_config, runtime_process, runtime_state};
pub use seccomp::seccomp;
pub use spec::{spec_bytes, spec_edits};

/// A target's name and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 13] = [
    ("containerd_config", containerd_config),
    ("image_archive", image_archive),
    ("image_documents", image_documents),
    ("image_tar", image_tar),
    ("image_unpack", image_unpack),
    ("kernel_text", kernel_text),
    ("proc_events", proc_events),
    ("runtime_config", runtime_config),
    ("runtime_process", runtime_process),
    ("runtime_state", runtime_state),
    ("seccomp", seccomp),
    ("spec_bytes", spec_bytes),
    ("spec_edits", spec_edits),
];
