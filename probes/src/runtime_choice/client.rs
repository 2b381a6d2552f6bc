//! Who asked containerd for the container: only that client's settings count.

use serde::Serialize;

use super::{Evidence, Strength};
use crate::bundle::{Bundle, SpecExcerpt};

/// The client that made a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Client {
    /// Which one.
    pub kind: ClientKind,
    /// How that is known.
    pub evidence: Evidence,
}

/// A client of containerd, as far as it matters for the choice of a runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientKind {
    /// Kubernetes' kubelet or crictl, through the CRI plugin: its runtimes table applies.
    Cri,
    /// Docker: its daemon.json applies.
    Docker,
    /// nerdctl: its own flags apply.
    Nerdctl,
    /// ctr, or another client of the plain API: its own flags apply.
    Plain,
}

impl ClientKind {
    /// The client's name for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cri => "the CRI plugin (kubelet, crictl)",
            Self::Docker => "Docker",
            Self::Nerdctl => "nerdctl",
            Self::Plain => "a client of the plain API (ctr, or another)",
        }
    }
}

/// Tells the client by what each writes into the containers that it makes.
pub(super) fn tell_client(bundle: &Bundle, spec: &SpecExcerpt, has_cri_label: bool) -> Client {
    let config = bundle.path.join("config.json").display().to_string();
    let namespace = bundle.containerd_namespace.as_str();
    let annotated = |prefix: &str| spec.annotations.keys().any(|key| key.starts_with(prefix));
    let (kind, evidence) = if annotated("io.kubernetes.cri.") {
        let says = "its annotations begin with io.kubernetes.cri.";
        (ClientKind::Cri, Evidence::new(config, says, Strength::Proof))
    } else if has_cri_label {
        let says = "its labels are the CRI plugin's";
        (ClientKind::Cri, Evidence::new("containerd's record of the container", says, Strength::Proof))
    } else if annotated("nerdctl/") {
        let says = "its annotations begin with nerdctl/";
        (ClientKind::Nerdctl, Evidence::new(config, says, Strength::Proof))
    } else if namespace == "moby" {
        let says = "containerd namespace `moby` is Docker's";
        (ClientKind::Docker, Evidence::new(bundle.path.display().to_string(), says, Strength::Indication))
    } else {
        let says = "no annotation of the CRI plugin, nerdctl or Docker";
        (ClientKind::Plain, Evidence::new(config, says, Strength::Indication))
    };
    Client { kind, evidence }
}
