//! What an OCI runtime leaves on disk for a container, and which runtime it was: each writes its state in its own format.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::Host;
use crate::bundle::Bundle;
use crate::name::{CgroupPath, Pid};
use crate::process::{ProcessError, read_present};

/// The `--root` that containerd's runc shim gives when options name none; NAMESPACE follows.
const DEFAULT_ROOT: &str = "/run/containerd/runc";
/// Where runtimes find the cgroup hierarchies mounted; runc writes whole directories into its record.
const CGROUP_MOUNT: &str = "/sys/fs/cgroup";
/// What the built-in runtime writes into its state as `runtime`.
const BUILTIN: &str = "inspect-runtime";

/// A family of runtimes, told by the format of its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuntimeFamily {
    /// runc: `state.json` with `init_process_pid`.
    Runc,
    /// crun: `status`, without extension.
    Crun,
    /// youki: `state.json` with `pid` and `status`.
    Youki,
    /// The runtime of this project: `state.json` with `"runtime": "inspect-runtime"`.
    InspectRuntime,
}

impl RuntimeFamily {
    /// The runtime's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Youki => "youki",
            Self::InspectRuntime => BUILTIN,
        }
    }
}

/// A runtime's record of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuntimeState {
    /// Which runtime wrote it.
    pub family: RuntimeFamily,
    /// The file, as the host names it.
    pub path: PathBuf,
    /// The init process.
    pub init_pid: Option<Pid>,
    /// When the init process started, in ticks after boot: another start time under the same pid is another process.
    pub init_start_time: Option<u64>,
    /// The container's cgroup.
    pub cgroup: Option<CgroupPath>,
    /// When the container was created, RFC 3339.
    pub created: Option<String>,
}

/// Why a runtime's record could not be read.
#[derive(Debug, Error)]
pub enum RuntimeStateError {
    /// The kernel refused: mostly a missing privilege.
    #[error(transparent)]
    Read(#[from] ProcessError),
    /// It is not JSON.
    #[error("cannot parse `{}`", path.display())]
    Json {
        /// The file, as the host names it.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It is JSON of no runtime that is known.
    #[error("cannot tell which runtime wrote `{}`", path.display())]
    UnknownFormat {
        /// The file, as the host names it.
        path: PathBuf,
    },
}

impl RuntimeStateError {
    /// Whether a privilege is missing.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        match self {
            Self::Read(error) => error.is_permission_denied(),
            Self::Json { source, .. } => source.io_error_kind() == Some(io::ErrorKind::PermissionDenied),
            Self::UnknownFormat { .. } => false,
        }
    }
}

/// The directory in which the runtime of a bundle keeps its record: `ROOT/NAMESPACE/ID`.
#[must_use]
pub fn runtime_state_directory(bundle: &Bundle) -> PathBuf {
    let root = bundle.options.as_ref().map(|options| options.root.as_str()).filter(|root| !root.is_empty());
    let mut directory = PathBuf::from(root.unwrap_or(DEFAULT_ROOT));
    directory.push(bundle.containerd_namespace.as_str());
    directory.push(bundle.id.as_str());
    directory
}

/// Reads the record of the bundle's runtime; `None` where there is none (not created yet, deleted, another shim).
///
/// # Errors
/// [`RuntimeStateError`] when it cannot be read or understood.
pub fn read_runtime_state(host: &Host, bundle: &Bundle) -> Result<Option<RuntimeState>, RuntimeStateError> {
    let directory = runtime_state_directory(bundle);
    for name in ["state.json", "status"] {
        let path = directory.join(name);
        if let Some(json) = read_present(&host.resolve(&path))? {
            return parse_runtime_state(path, &json).map(Some);
        }
    }
    Ok(None)
}

/// The union of what the runtimes write; each has its own names.
#[derive(Deserialize)]
struct Document {
    runtime: Option<String>,
    init_process_pid: Option<u32>,
    init_process_start: Option<u64>,
    cgroup_paths: Option<std::collections::BTreeMap<String, String>>,
    #[serde(alias = "cgroup-path")]
    cgroup_path: Option<String>,
    created: Option<Value>,
    pid: Option<i64>,
    #[serde(rename = "process-start-time")]
    process_start_time: Option<u64>,
    status: Option<Value>,
}

/// Parses a record that was found at `path`.
///
/// # Errors
/// [`RuntimeStateError`] when it is not JSON, or JSON of no runtime that is known.
pub fn parse_runtime_state(path: PathBuf, json: &[u8]) -> Result<RuntimeState, RuntimeStateError> {
    let parsed = serde_json::from_slice::<Document>(json);
    let document = match parsed {
        Ok(document) => document,
        Err(source) => return Err(RuntimeStateError::Json { path, source }),
    };
    let Some(family) = family(&path, &document) else {
        return Err(RuntimeStateError::UnknownFormat { path });
    };
    let pid = document.init_process_pid.or_else(|| document.pid.and_then(|pid| u32::try_from(pid).ok()));
    Ok(RuntimeState {
        family,
        init_pid: pid.filter(|pid| *pid > 0).map(Pid::new),
        init_start_time: document
            .init_process_start
            .or(document.process_start_time)
            .filter(|ticks| *ticks > 0),
        cgroup: cgroup(&document),
        created: document.created.as_ref().and_then(Value::as_str).map(str::to_owned),
        path,
    })
}

fn family(path: &Path, document: &Document) -> Option<RuntimeFamily> {
    if path.file_name().is_some_and(|name| name == "status") {
        return document.pid.map(|_| RuntimeFamily::Crun);
    }
    if document.runtime.as_deref() == Some(BUILTIN) {
        Some(RuntimeFamily::InspectRuntime)
    } else if document.init_process_pid.is_some() {
        Some(RuntimeFamily::Runc)
    } else if document.status.is_some() {
        Some(RuntimeFamily::Youki)
    } else {
        None
    }
}

/// runc writes directories (`/sys/fs/cgroup/default/web`, on v1 one per controller), the others paths in the hierarchy.
fn cgroup(document: &Document) -> Option<CgroupPath> {
    if let Some(path) = document.cgroup_path.as_deref().filter(|path| !path.is_empty()) {
        return Some(CgroupPath::new(path.strip_prefix(CGROUP_MOUNT).unwrap_or(path)));
    }
    let paths = document.cgroup_paths.as_ref()?;
    if let Some(unified) = paths.get("") {
        return Some(CgroupPath::new(unified.strip_prefix(CGROUP_MOUNT)?));
    }
    let inside = paths.get("memory")?.strip_prefix(CGROUP_MOUNT)?.strip_prefix("/memory")?;
    Some(CgroupPath::new(inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, json: &str) -> Result<RuntimeState, RuntimeStateError> {
        parse_runtime_state(Path::new("/run/x").join(name), json.as_bytes())
    }

    #[test]
    fn runc_is_told_by_init_process_pid() {
        let json = r#"{"id":"web","init_process_pid":462,"init_process_start":13428,"created":"2026-11-23T11:53:49Z",
            "cgroup_paths":{"":"/sys/fs/cgroup/default/web"}}"#;
        let state = parse("state.json", json).unwrap();
        assert_eq!((state.family, state.init_pid), (RuntimeFamily::Runc, Some(Pid::new(462))));
        assert_eq!(
            (state.init_start_time, state.cgroup),
            (Some(13428), Some(CgroupPath::new("/default/web")))
        );
    }

    #[test]
    fn crun_is_told_by_its_status_file_with_and_without_escaped_slashes() {
        for path in ["/default/c-crun", "\\/default\\/c-crun"] {
            let json =
                format!(r#"{{"pid": 462,"process-start-time": 13428,"cgroup-path": "{path}","scope": ""}}"#);
            let state = parse("status", &json).unwrap();
            assert_eq!((state.family, state.init_start_time), (RuntimeFamily::Crun, Some(13428)));
            assert_eq!(state.cgroup, Some(CgroupPath::new("/default/c-crun")));
        }
    }

    #[test]
    fn youki_and_the_built_in_runtime_have_formats_of_their_own() {
        let youki =
            parse("state.json", r#"{"ociVersion":"1.2.0","id":"w","status":"running","pid":5}"#).unwrap();
        assert_eq!((youki.family, youki.init_pid), (RuntimeFamily::Youki, Some(Pid::new(5))));
        let own = r#"{"runtime":"inspect-runtime","init_process_pid":5,"init_process_start":9}"#;
        assert_eq!(parse("state.json", own).unwrap().family, RuntimeFamily::InspectRuntime);
    }

    #[test]
    fn what_no_runtime_wrote_is_refused() {
        assert!(matches!(parse("state.json", "{}"), Err(RuntimeStateError::UnknownFormat { .. })));
        assert!(matches!(parse("status", "{"), Err(RuntimeStateError::Json { .. })));
        assert!(parse("status", r#"{"pid":-1}"#).unwrap().init_pid.is_none());
    }
}
