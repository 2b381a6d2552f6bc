//! `start`.

use crate::context::Context;
use crate::error::RuntimeError;
use crate::hooks::HookPlan;
use crate::process::channel::Message;
use crate::process::parent::{self, SeccompListener};
use crate::start;
use crate::state::Status;
use crate::step::Step as _;

/// Lets the init process of a created container go on, and waits until its program runs.
pub(super) fn run(id: &str, context: &Context) -> Result<u8, RuntimeError> {
    let (directory, state) = super::load(id, context)?;
    match state.status(&directory) {
        Status::Created => {}
        Status::Stopped => return Err(RuntimeError::StartStopped),
        _ => return Err(RuntimeError::StartRunning),
    }
    let socket = directory.start_socket();
    let Some(channel) = start::call(&socket)? else { return Err(RuntimeError::StartStopped) };
    // Whoever removes the name is the one who starts: of two only one goes on.
    if std::fs::remove_file(&socket).is_err() {
        return Err(RuntimeError::StartRunning);
    }
    let (hooks, seccomp) = load_parts(&directory.spec_path())?;
    channel.send(&Message::Go).step("speak to", "the init process")?;
    parent::await_payload(&channel, &state, state.init_process_pid, seccomp.as_ref())?;
    if let Err(error) = super::create::run_poststart(&hooks, &state, state.init_process_pid) {
        context.log.warning(&crate::step::chain(&error));
    }
    Ok(0)
}

/// What of the spec matters now. Most specs have neither hooks nor a listener: then the text is not parsed.
fn load_parts(path: &std::path::Path) -> Result<(HookPlan, Option<SeccompListener>), RuntimeError> {
    let text = crate::file::read(path).map_err(|source| RuntimeError::File {
        operation: "read",
        path: path.to_path_buf(),
        source,
    })?;
    let has = |word: &[u8]| text.windows(word.len()).any(|window| window == word);
    if !has(b"\"poststart\"") && !has(b"\"listenerPath\"") {
        return Ok((HookPlan::default(), None));
    }
    let spec: oci_spec::runtime::Spec = serde_json::from_slice(&text)
        .map_err(|source| RuntimeError::Json { path: path.to_path_buf(), source })?;
    let seccomp =
        spec.linux().as_ref().and_then(|linux| SeccompListener::from_spec(linux.seccomp().as_ref()?));
    Ok((HookPlan::from_spec(spec.hooks().as_ref())?, seccomp))
}
