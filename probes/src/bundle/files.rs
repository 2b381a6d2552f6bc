//! The small files of one bundle.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Host;
use crate::name::{ContainerId, ContainerdNamespace, Pid};
use crate::process::{ProcessError, read_bounded};

/// The small files are lines; whoever made one longer did not make a bundle.
const SMALL_FILE: u64 = 64 << 10;

/// What the files of a bundle say. Which ones there are differs between containerd 1.6, 1.7 and 2.x.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bundle {
    /// The state directory of the daemon that made it, as the host names it.
    pub state_directory: PathBuf,
    /// The containerd namespace.
    pub containerd_namespace: ContainerdNamespace,
    /// The container's id.
    pub id: ContainerId,
    /// The bundle's directory, as the host names it.
    pub path: PathBuf,
    /// `init.pid`, that the OCI runtime wrote.
    pub init_pid: Option<Pid>,
    /// The mode of `init.pid`, permission bits alone: 0644 from runc, 0700 from crun; a weak hint.
    pub init_pid_mode: Option<u32>,
    /// `options.json`, that containerd wrote: what was asked for.
    pub options: Option<RuntimeOptions>,
    /// `runtime`, that the shim wrote: BinaryName verbatim. Empty means that none was asked for (the shim then looks
    /// `runc` up in its PATH) and is `Some("")`.
    pub runtime: Option<String>,
    /// `shim-binary-path`; containers of CRI pods have none in containerd 2.x.
    pub shim_binary: Option<PathBuf>,
    /// `bootstrap.json` (2.x) or `address` (before).
    pub shim_address: Option<ShimAddress>,
    /// `sandbox` (2.x, containers of CRI pods): the id of the pod's sandbox.
    pub sandbox: Option<ContainerId>,
}

/// `options.json`: `containerd.runc.v1.Options` as JSON, the fields that decide what runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeOptions {
    /// BinaryName.
    #[serde(alias = "BinaryName")]
    pub binary_name: String,
    /// The runtime's `--root`, below which the shim puts NAMESPACE.
    #[serde(alias = "Root")]
    pub root: String,
    /// SystemdCgroup.
    #[serde(alias = "SystemdCgroup")]
    pub systemd_cgroup: bool,
}

/// Where the shim that serves the bundle listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimAddress {
    /// `unix:///run/containerd/s/…`
    pub address: String,
    /// `ttrpc` or `grpc`.
    #[serde(default)]
    pub protocol: String,
    /// The version of the shim's task API: 2 before containerd 2.0.
    #[serde(default)]
    pub version: u32,
}

/// Why a bundle, or the directory of bundles, could not be read.
#[derive(Debug, Error)]
pub enum BundleError {
    /// The directory could not be listed: mostly a missing privilege.
    #[error("cannot list `{}`", path.display())]
    List {
        /// The directory, as the host names it.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] ProcessError),
    /// A JSON file is none.
    #[error("cannot parse `{}`", path.display())]
    Json {
        /// The file, as the host names it.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl BundleError {
    /// Whether a privilege is missing: then the rest of the answer is still good.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        match self {
            Self::List { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Read(error) => error.is_permission_denied(),
            Self::Json { .. } => false,
        }
    }
}

/// Reads the small files of the bundle at `path` (as the host names it). A file that is missing, cut short (the bundle is
/// being made or removed) or not readable is `None`.
#[must_use]
pub fn read_bundle(
    host: &Host,
    state_directory: &Path,
    containerd_namespace: ContainerdNamespace,
    id: ContainerId,
    path: PathBuf,
) -> Bundle {
    let directory = host.resolve(&path);
    let text = |name: &str| read_text(&directory.join(name));
    let init_pid = text("init.pid").and_then(|digits| digits.trim().parse().ok()).map(Pid::new);
    let init_pid_mode = fs::metadata(directory.join("init.pid")).ok().map(|metadata| metadata.mode() & 0o777);
    let shim_address = text("bootstrap.json")
        .and_then(|json| serde_json::from_str(&json).ok())
        .or_else(|| text("address").map(|address| old_address(&address)));
    Bundle {
        state_directory: state_directory.to_path_buf(),
        containerd_namespace,
        id,
        init_pid,
        init_pid_mode,
        options: text("options.json").and_then(|json| serde_json::from_str(&json).ok()),
        runtime: text("runtime"),
        shim_binary: text("shim-binary-path").map(PathBuf::from),
        shim_address,
        sandbox: text("sandbox").map(ContainerId::new),
        path,
    }
}

fn read_text(path: &Path) -> Option<String> {
    let bytes = read_bounded(path, SMALL_FILE).ok().flatten()?;
    Some(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

fn old_address(address: &str) -> ShimAddress {
    ShimAddress { address: address.to_owned(), protocol: "ttrpc".to_owned(), version: 2 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn read(files: &[(&str, &str)]) -> Bundle {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("run/b");
        fs::create_dir_all(&directory).unwrap();
        for (name, content) in files {
            fs::write(directory.join(name), content).unwrap();
            fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        let (namespace, id) = (ContainerdNamespace::new("default"), ContainerId::new("web"));
        read_bundle(&Host::at(root.path()), Path::new("/run"), namespace, id, PathBuf::from("/run/b"))
    }

    #[test]
    fn the_files_of_containerd_1_7_are_read() {
        let bundle = read(&[
            ("init.pid", "462"),
            ("options.json", "{\"binary_name\":\"crun\",\"systemd_cgroup\":true}"),
            ("runtime", "crun"),
            ("address", "unix:///run/containerd/s/84"),
            ("shim-binary-path", "/usr/bin/containerd-shim-runc-v2"),
        ]);
        assert_eq!((bundle.init_pid, bundle.init_pid_mode), (Some(Pid::new(462)), Some(0o644)));
        let options = bundle.options.unwrap();
        assert!(options.systemd_cgroup && options.binary_name == "crun" && options.root.is_empty());
        assert_eq!(bundle.shim_address.unwrap().version, 2);
        assert_eq!(bundle.sandbox, None);
    }

    #[test]
    fn the_files_of_containerd_2_are_read() {
        let bootstrap = "{\"version\":3,\"address\":\"unix:///run/containerd/s/84\",\"protocol\":\"ttrpc\"}";
        let bundle = read(&[
            ("bootstrap.json", bootstrap),
            ("runtime", ""),
            ("sandbox", "pod"),
            ("options.json", "{}"),
        ]);
        assert_eq!(bundle.shim_address.unwrap().version, 3);
        assert_eq!(bundle.runtime.as_deref(), Some(""));
        assert_eq!(bundle.sandbox, Some(ContainerId::new("pod")));
        assert_eq!(bundle.options, Some(RuntimeOptions::default()));
    }

    #[test]
    fn files_that_are_none_are_absent() {
        let bundle = read(&[("init.pid", "x\x1b"), ("options.json", "{"), ("bootstrap.json", "[]")]);
        assert_eq!((bundle.init_pid, bundle.options, bundle.shim_address), (None, None, None));
    }
}
