//! `state`.

use std::io::Write;

use crate::context::Context;
use crate::error::RuntimeError;
use crate::state::{State, StateDirectory, Status};

/// Writes the state as runc's JSON.
pub(super) fn run(id: &str, context: &Context, output: &mut dyn Write) -> Result<u8, RuntimeError> {
    let (directory, state) = super::load(id, context)?;
    super::write_json(output, &describe(&directory, &state))
}

/// runc's fields: those of runtime-spec, and `rootfs`, `created` and `owner`.
pub(super) fn describe(directory: &StateDirectory, state: &State) -> serde_json::Value {
    let status = super::status(directory, state);
    let pid = if status == Status::Stopped { 0 } else { state.init_process_pid };
    let mut value = serde_json::json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "pid": pid,
        "status": status.as_str(),
        "bundle": state.bundle,
        "rootfs": state.rootfs,
        "created": state.created,
        "owner": if state.owner == 0 { "root".to_owned() } else { state.owner.to_string() },
    });
    if !state.annotations.is_empty() {
        value["annotations"] = serde_json::json!(state.annotations);
    }
    value
}
