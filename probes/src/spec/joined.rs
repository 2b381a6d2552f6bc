//! Whose namespaces a spec joins: found out on the host that it is for, and used by the comparison.

use std::collections::BTreeMap;

use crate::process::NamespaceId;

/// Whose a namespace is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceOwner {
    /// The node's own.
    Host,
    /// That of a pod, a container or a process.
    Of {
        /// Whose, in few words, escaped: `pod shop`, `container default/web`, `process 4711 (sleep)`.
        name: String,
        /// More of it, escaped: `sandbox k8s.io/4f1a`; may be empty.
        detail: String,
    },
    /// It exists and no process is in it: a file keeps it.
    Nobody,
    /// There is nothing at the path any more.
    Gone,
}

/// A namespace that a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedNamespace {
    /// Which one; `None` where it is gone.
    pub id: Option<NamespaceId>,
    /// Whose.
    pub owner: NamespaceOwner,
}

/// The namespaces that a spec joins, by the paths in `linux.namespaces`. Empty for a spec of another host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinedNamespaces(pub BTreeMap<String, JoinedNamespace>);

impl JoinedNamespaces {
    /// What is known of the namespace at a path.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&JoinedNamespace> {
        self.0.get(path)
    }
}
