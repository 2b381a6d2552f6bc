//! `spec`: a `config.json` to start from.

use std::io::Write as _;
use std::path::Path;

use crate::default_spec::{Owner, default_spec};
use crate::error::RuntimeError;

/// Writes `config.json` into the bundle; one that is there stays.
pub(super) fn run(bundle: Option<&Path>, rootless: bool) -> Result<u8, RuntimeError> {
    let path = bundle.unwrap_or(Path::new(".")).join("config.json");
    let failed = |source| RuntimeError::File { operation: "write", path: path.clone(), source };
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = match file {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let reason = format!("file {} exists. Remove it first", path.display());
            return Err(RuntimeError::Refused { operation: "write a spec", reason });
        }
        file => file.map_err(failed)?,
    };
    let owner =
        || Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let spec = default_spec(rootless.then(owner));
    let text = serde_json::to_string_pretty(&spec)
        .map_err(|source| RuntimeError::Json { path: path.clone(), source })?;
    file.write_all(format!("{text}\n").as_bytes()).map_err(failed)?;
    Ok(0)
}
