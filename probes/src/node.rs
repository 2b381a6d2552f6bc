//! The containerd side of a node in one reading: daemons, shims and bundles, with the process table that they were found in.

use thiserror::Error;

use crate::Host;
use crate::bundle::{
    Bundle, BundleError, LocateError, StateDirectory, find_bundles, find_state_directories, locate_bundle,
    read_spec_excerpt,
};
use crate::containerd::{DaemonProcess, ShimProcess, find_daemons, find_shims};
use crate::name::Pid;
use crate::process::{ProcessError, ProcessTable};

/// What containerd made on a node, at about one moment.
#[derive(Debug)]
pub struct Node {
    /// Every process.
    pub processes: ProcessTable,
    /// Every running containerd.
    pub daemons: Vec<DaemonProcess>,
    /// Every running shim.
    pub shims: Vec<ShimProcess>,
    /// Where bundles were looked for.
    pub state_directories: Vec<StateDirectory>,
    /// Every bundle.
    pub bundles: Vec<Bundle>,
    /// What could not be read of the state directories.
    pub unreadable: Vec<BundleError>,
}

/// Why no one container could be given.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The query names none or several.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// It may be there, but the state directories cannot be read.
    #[error("cannot look for containers")]
    Unreadable {
        /// The first directory that could not be listed.
        #[source]
        source: BundleError,
    },
}

impl Node {
    /// Reads the node.
    ///
    /// # Errors
    /// [`ProcessError`] when `/proc` cannot be read.
    pub fn read(host: &Host) -> Result<Self, ProcessError> {
        let processes = ProcessTable::read(host)?;
        let daemons = find_daemons(host, &processes);
        let shims = find_shims(host, &processes);
        let state_directories = find_state_directories(host, &daemons, &shims);
        let search = find_bundles(host, &state_directories);
        Ok(Self {
            processes,
            daemons,
            shims,
            state_directories,
            bundles: search.bundles,
            unreadable: search.unreadable,
        })
    }

    /// The one container that `query` names: an id, a unique prefix, `NAMESPACE/ID`, a container's or pod's name.
    ///
    /// # Errors
    /// [`NodeError`] when there is none or more than one, or the state directories cannot be read.
    pub fn locate(&mut self, host: &Host, query: &str) -> Result<Bundle, NodeError> {
        match locate_bundle(host, &self.bundles, query) {
            Ok(bundle) => Ok(bundle.clone()),
            // Without the right to look, "there is none" would be a guess.
            Err(LocateError::NoMatch { .. }) if !self.unreadable.is_empty() => {
                Err(NodeError::Unreadable { source: self.unreadable.swap_remove(0) })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The shim that serves a bundle: the parent of its init, or the one that was started for it or for its sandbox.
    #[must_use]
    pub fn shim_of(&self, host: &Host, bundle: &Bundle) -> Option<&ShimProcess> {
        let parent = |pid: Pid| self.processes.get(pid).map(|stat| stat.parent);
        let by_parent = bundle.init_pid.and_then(parent);
        if let Some(shim) = self.shims.iter().find(|shim| Some(shim.pid) == by_parent) {
            return Some(shim);
        }
        let spec = read_spec_excerpt(host, bundle).ok().flatten().unwrap_or_default();
        let sandbox = bundle.sandbox.as_ref().map(|id| id.as_str()).or_else(|| spec.sandbox_id());
        self.shims.iter().find(|shim| {
            shim.containerd_namespace == bundle.containerd_namespace
                && shim.state_directory().is_none_or(|state| state == bundle.state_directory)
                && (shim.id == bundle.id || sandbox == Some(shim.id.as_str()))
        })
    }

    /// The daemon that a bundle belongs to, while it runs.
    #[must_use]
    pub fn daemon_of(&self, bundle: &Bundle) -> Option<&DaemonProcess> {
        self.daemons.iter().find(|daemon| daemon.state == bundle.state_directory)
    }
}
