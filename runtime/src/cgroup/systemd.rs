//! The systemd driver: a transient scope over D-Bus.

use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;
use rustix::process::Pid;

use super::error::CgroupError;
use super::plan::Scope;

fn unavailable(scope: &Scope) -> CgroupError {
    CgroupError::Unit { operation: "reach", unit: scope.unit.clone(), source: "not built yet".into() }
}

pub(super) fn start_scope<'a>(
    scope: &Scope,
    _init: Pid,
    _resources: &LinuxResources,
    _annotations: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Option<PathBuf>, CgroupError> {
    Err(unavailable(scope))
}

pub(super) fn set_properties(scope: &Scope, _resources: &LinuxResources) -> Result<(), CgroupError> {
    Err(unavailable(scope))
}

pub(super) fn stop_scope(scope: &Scope) -> Result<(), CgroupError> {
    Err(unavailable(scope))
}
