//! `pause` and `resume`: a container's processes stand, and go on.

use crate::context::Context;
use crate::error::RuntimeError;
use crate::state::Status;

/// Freezes a container that has processes; one that could not be frozen whole goes on.
pub(super) fn pause(id: &str, context: &Context) -> Result<u8, RuntimeError> {
    let (directory, state) = super::load(id, context)?;
    match super::status(&directory, &state) {
        Status::Running | Status::Created => {}
        status => {
            let reason = format!("container not running or created: {}", status.as_str());
            return Err(RuntimeError::Refused { operation: "pause", reason });
        }
    }
    super::open_cgroup(&state)?.freeze()?;
    Ok(0)
}

/// Thaws a paused container.
pub(super) fn resume(id: &str, context: &Context) -> Result<u8, RuntimeError> {
    let (directory, state) = super::load(id, context)?;
    if super::status(&directory, &state) == Status::Stopped {
        return Err(RuntimeError::NotRunning);
    }
    let cgroup = super::open_cgroup(&state)?;
    // A container that was paused between create and start is frozen too.
    if !cgroup.is_frozen()? {
        return Err(RuntimeError::Refused { operation: "resume", reason: "container not paused".to_owned() });
    }
    cgroup.thaw()?;
    Ok(0)
}
