//! Whether the runtime takes a config.json or a process.json: all that `create` and `exec` refuse before they do anything.
//! Pure.

use std::path::Path;

use oci_spec::runtime::{Process, Spec};

use crate::cgroup::{self, Cgroup, CgroupError, DeviceProgram, Driver};
use crate::plan::{self, PlanOptions};
use crate::validate::{InvalidSpec, validate, validate_process};

/// Why the runtime does not take a document.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is no JSON, or a field has a type that runtime-spec does not give it.
    #[error("cannot parse the document")]
    Json(#[from] serde_json::Error),
    /// A field cannot be honoured.
    #[error(transparent)]
    Invalid(#[from] InvalidSpec),
    /// The cgroup or a limit of it cannot be made.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

/// Checks a config.json as `create` does, up to the system calls.
///
/// # Errors
/// [`Refusal`] for the first thing that cannot be honoured.
pub fn check_config(text: &[u8], bundle: &Path, id: &str, driver: &Driver) -> Result<(), Refusal> {
    let spec: Spec = crate::document::parse(text)?;
    validate(&spec)?;
    let rootfs = spec.root().as_ref().map(|root| bundle.join(root.path())).unwrap_or_default();
    plan::plan(&spec, bundle, &rootfs, PlanOptions::default())?;
    let linux = spec.linux().as_ref();
    cgroup::plan(linux.and_then(|linux| linux.cgroups_path().as_deref()), id, driver)?;
    if let Some(resources) = linux.and_then(|linux| linux.resources().as_ref()) {
        DeviceProgram::compile(resources.devices().iter().flatten())?;
        if *driver != Driver::Cgroupfs {
            Cgroup::validate_for_systemd(resources)?;
        }
    }
    Ok(())
}

/// Checks a process.json as `exec --process` does, up to the system calls.
///
/// # Errors
/// [`Refusal`] for the first thing that cannot be honoured.
pub fn check_process(text: &[u8]) -> Result<(), Refusal> {
    let process: Process = crate::document::parse(text)?;
    validate_process("process", &process)?;
    plan::plan_process(&process, None, 0)?;
    Ok(())
}
