//! Ctrl-C and SIGTERM: a flag that every wait in the lab looks at, so that destructors run.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, thread, time::Duration};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::LabError;

static PENDING: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// How often a wait looks at what it waits for.
const TICK: Duration = Duration::from_millis(50);

/// From now on the first SIGINT, SIGTERM or SIGHUP sets the flag; the second ends the process at once (its machine's
/// supervisor notices that too, and ends the machine).
pub(crate) fn install() -> io::Result<()> {
    let pending = Arc::clone(PENDING.get_or_init(Arc::default));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&pending))?;
        flag::register(signal, Arc::clone(&pending))?;
    }
    Ok(())
}

/// Whether a signal asked the lab to stop.
pub(crate) fn pending() -> bool {
    PENDING.get().is_some_and(|pending| pending.load(Ordering::Relaxed))
}

/// Sleeps for one tick of a wait loop; an error when a signal asked the lab to stop.
pub(crate) fn tick() -> Result<(), LabError> {
    if pending() {
        return Err(LabError::Interrupted);
    }
    thread::sleep(TICK);
    Ok(())
}
