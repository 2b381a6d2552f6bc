//! From what a user typed, a pid or a cgroup to one bundle, or an error that says between which ones to choose.

use std::fmt;

use thiserror::Error;

use super::cgroup::{cgroup_belongs_to, spec_cgroup_path};
use super::excerpt::read_spec_excerpt;
use super::files::Bundle;
use crate::Host;
use crate::cgroup::read_cgroup_path;
use crate::escape::quote;
use crate::name::{CgroupPath, ContainerId, ContainerdNamespace, Pid};
use crate::process::ProcessTable;

/// A container that a query may have meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its containerd namespace.
    pub containerd_namespace: ContainerdNamespace,
    /// Its id.
    pub id: ContainerId,
}

impl fmt::Display for Candidate {
    /// `NAMESPACE/ID`, escaped: what picks it for sure.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.containerd_namespace, self.id)
    }
}

/// Why no bundle, or not one bundle, was found.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LocateError {
    /// Nothing matches.
    #[error("cannot find a container with ID, ID prefix or name {}", quote(query.as_bytes()))]
    NoMatch {
        /// What was asked for.
        query: String,
    },
    /// Several match.
    #[error("cannot choose between {} containers that match {}: {}", candidates.len(), quote(query.as_bytes()), list(candidates))]
    Ambiguous {
        /// What was asked for.
        query: String,
        /// Those that match, sorted.
        candidates: Vec<Candidate>,
    },
    /// No such process.
    #[error("cannot find process {pid}")]
    NoProcess {
        /// Its pid.
        pid: Pid,
    },
    /// The process is in no container of containerd's.
    #[error("cannot find a container around process {pid}")]
    ProcessOutside {
        /// Its pid.
        pid: Pid,
    },
    /// The cgroup is no container's of containerd.
    #[error("cannot find a container with cgroup {}", quote(cgroup.as_str().as_bytes()))]
    CgroupOutside {
        /// The cgroup.
        cgroup: CgroupPath,
    },
}

fn list(candidates: &[Candidate]) -> String {
    let names: Vec<_> = candidates.iter().map(|candidate| format!("`{candidate}`")).collect();
    names.join(", ")
}

/// Finds the bundle that `query` names: see [`choose_container`].
///
/// # Errors
/// [`LocateError`] when nothing or more than one matches.
pub fn locate_bundle<'a>(host: &Host, bundles: &'a [Bundle], query: &str) -> Result<&'a Bundle, LocateError> {
    choose_container(bundles, query, candidate, |bundle| bundle_names(host, bundle))
}

/// Chooses the container that `query` names: `ID`, a unique prefix of one, `NAMESPACE/ID` (or prefix), a container's or
/// pod's name from the annotations, `POD/CONTAINER`. An exact id wins over prefixes, ids win over names.
///
/// # Errors
/// [`LocateError`] when nothing or more than one matches.
pub fn choose_container<'a, T>(
    items: &'a [T],
    query: &str,
    candidate: impl Fn(&T) -> Candidate,
    names: impl Fn(&T) -> Vec<String>,
) -> Result<&'a T, LocateError> {
    let (namespace, id) = match query.split_once('/') {
        Some((namespace, id)) => (Some(namespace), id),
        None => (None, query),
    };
    let fits = |item: &T, fits_id: &dyn Fn(&str) -> bool| {
        let candidate = candidate(item);
        namespace.is_none_or(|name| candidate.containerd_namespace.as_str() == name)
            && fits_id(candidate.id.as_str())
    };
    let exact = |item: &T| fits(item, &|own| own == id);
    let prefix = |item: &T| !id.is_empty() && fits(item, &|own| own.starts_with(id));
    let named = |item: &T| names(item).iter().any(|name| name == query);
    for matches in [&exact as &dyn Fn(&T) -> bool, &prefix, &named] {
        let found: Vec<&T> = items.iter().filter(|item| matches(item)).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(*one),
            several => {
                let candidates = several.iter().map(|item| candidate(item)).collect();
                return Err(LocateError::Ambiguous { query: query.to_owned(), candidates });
            }
        }
    }
    Err(LocateError::NoMatch { query: query.to_owned() })
}

fn candidate(bundle: &Bundle) -> Candidate {
    Candidate { containerd_namespace: bundle.containerd_namespace.clone(), id: bundle.id.clone() }
}

/// What a user may call the container besides its id: `CONTAINER` and `POD/CONTAINER`, or `POD` for a sandbox.
#[must_use]
pub fn bundle_names(host: &Host, bundle: &Bundle) -> Vec<String> {
    let Ok(Some(excerpt)) = read_spec_excerpt(host, bundle) else { return Vec::new() };
    match (excerpt.container_name(), excerpt.pod_name()) {
        (Some(container), Some(pod)) => vec![container.to_owned(), format!("{pod}/{container}")],
        (Some(name), None) | (None, Some(name)) => vec![name.to_owned()],
        (None, None) => Vec::new(),
    }
}

/// Finds the container around a process: its nearest ancestor that is a recorded init, otherwise (an exec process, one
/// that was adopted) by its cgroup.
///
/// # Errors
/// [`LocateError`] when there is no such process or it is in no container.
pub fn locate_bundle_of_pid<'a>(
    host: &Host,
    table: &ProcessTable,
    bundles: &'a [Bundle],
    pid: Pid,
) -> Result<&'a Bundle, LocateError> {
    if table.get(pid).is_none() {
        return Err(LocateError::NoProcess { pid });
    }
    for stat in table.ancestry(pid) {
        if let Some(bundle) = bundles.iter().find(|bundle| bundle.init_pid == Some(stat.pid)) {
            return Ok(bundle);
        }
    }
    let cgroup = read_cgroup_path(host, pid).ok().flatten().ok_or(LocateError::ProcessOutside { pid })?;
    locate_bundle_of_cgroup(host, bundles, &cgroup).map_err(|error| match error {
        LocateError::CgroupOutside { .. } => LocateError::ProcessOutside { pid },
        other => other,
    })
}

/// Finds the container of a cgroup, or of a cgroup below its own: by the spec's `cgroupsPath`, otherwise by an id in the
/// path.
///
/// # Errors
/// [`LocateError`] when it is no container's, or its path does not tell between several.
pub fn locate_bundle_of_cgroup<'a>(
    host: &Host,
    bundles: &'a [Bundle],
    cgroup: &CgroupPath,
) -> Result<&'a Bundle, LocateError> {
    let named: Vec<&Bundle> = bundles.iter().filter(|bundle| cgroup_belongs_to(cgroup, &bundle.id)).collect();
    let exact = named.iter().copied().chain(bundles).find(|bundle| {
        expected_cgroup(host, bundle).is_some_and(|expected| is_at_or_below(cgroup, &expected))
    });
    match (exact, named.as_slice()) {
        (Some(bundle), _) => Ok(bundle),
        (None, [one]) => Ok(*one),
        (None, []) => Err(LocateError::CgroupOutside { cgroup: cgroup.clone() }),
        (None, several) => {
            let candidates = several.iter().map(|bundle| candidate(bundle)).collect();
            Err(LocateError::Ambiguous { query: cgroup.as_str().to_owned(), candidates })
        }
    }
}

fn expected_cgroup(host: &Host, bundle: &Bundle) -> Option<CgroupPath> {
    let excerpt = read_spec_excerpt(host, bundle).ok().flatten()?;
    let systemd_cgroup = bundle.options.as_ref().is_some_and(|options| options.systemd_cgroup);
    spec_cgroup_path(excerpt.cgroups_path.as_deref()?, systemd_cgroup)
}

fn is_at_or_below(cgroup: &CgroupPath, parent: &CgroupPath) -> bool {
    let rest = cgroup.as_str().strip_prefix(parent.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::super::{find_bundles, find_state_directories};
    use super::*;
    use std::fs;

    fn node(bundles: &[(&str, &str, &str)]) -> (tempfile::TempDir, Host, Vec<Bundle>) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path());
        for (namespace, id, spec) in bundles {
            let path = format!("run/containerd/io.containerd.runtime.v2.task/{namespace}/{id}");
            fs::create_dir_all(root.path().join(&path)).unwrap();
            fs::write(root.path().join(&path).join("config.json"), spec).unwrap();
        }
        let found = find_bundles(&host, &find_state_directories(&host, &[], &[])).bundles;
        (root, host, found)
    }

    const POD: &str = r#"{"annotations":{"io.kubernetes.cri.container-type":"sandbox","io.kubernetes.cri.sandbox-name":"shop"}}"#;
    const WEB: &str = r#"{"annotations":{"io.kubernetes.cri.container-name":"web","io.kubernetes.cri.sandbox-name":"shop"},
        "linux":{"cgroupsPath":"/kubepods/4f1c"}}"#;

    #[test]
    fn ids_prefixes_namespaces_and_names_find_one() {
        let (_root, host, bundles) = node(&[
            ("default", "a", "{}"),
            ("default", "ab", "{}"),
            ("k8s.io", "a", "{}"),
            ("k8s.io", "4f1b", POD),
            ("k8s.io", "4f1c", WEB),
        ]);
        let found =
            |query: &str| locate_bundle(&host, &bundles, query).map(|bundle| bundle.id.as_str().to_owned());
        assert_eq!(found("ab").unwrap(), "ab");
        assert_eq!(found("default/a").unwrap(), "a");
        assert_eq!(found("shop").unwrap(), "4f1b");
        assert_eq!(found("web").unwrap(), "4f1c");
        assert_eq!(found("shop/web").unwrap(), "4f1c");
        assert_eq!(
            found("4f1").unwrap_err().to_string(),
            "cannot choose between 2 containers that match \"4f1\": `k8s.io/4f1b`, `k8s.io/4f1c`"
        );
        assert!(matches!(found("a"), Err(LocateError::Ambiguous { .. })));
        assert!(matches!(found(""), Err(LocateError::NoMatch { .. })));
        assert!(matches!(found("\x1b[2J"), Err(error) if !error.to_string().contains('\x1b')));
    }

    #[test]
    fn a_cgroup_finds_its_container_by_the_spec_first() {
        let first = r#"{"linux":{"cgroupsPath":"/default/web"}}"#;
        let second = r#"{"linux":{"cgroupsPath":"/other/web"}}"#;
        let (_root, host, bundles) = node(&[("default", "web", first), ("other", "web", second)]);
        let cgroup = CgroupPath::new("/other/web/below");
        let bundle = locate_bundle_of_cgroup(&host, &bundles, &cgroup).unwrap();
        assert_eq!(bundle.containerd_namespace.as_str(), "other");
        let outside = locate_bundle_of_cgroup(&host, &bundles, &CgroupPath::new("/default/webb"));
        assert!(matches!(outside, Err(LocateError::CgroupOutside { .. })));
    }
}
