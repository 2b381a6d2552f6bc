//! Whose namespace is it that a container joins: the host's, a pod's, another container's, a process's.
//!
//! namespaces(7): equal inodes are the same namespace. A path in a spec is `/proc/PID/ns/KIND` (the CRI plugin writes
//! the sandbox's pid) or a file that a namespace was bind-mounted on (`/run/netns/NAME`, ip-netns(8)).

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::Value;

use crate::bundle::{Bundle, read_spec_excerpt};
use crate::escape::escape;
use crate::name::Pid;
use crate::process::{LinuxNamespace, NamespaceId, read_namespace};
use crate::spec::{JoinedNamespace, JoinedNamespaces, NamespaceOwner};
use crate::{Host, Node};

/// How a path that a spec names begins: words of the spec, whatever the host's root is.
const PROC: &str = "/proc/";

/// Finds whose namespaces the spec of `container` joins. What cannot be read (it takes root) is left out.
#[must_use]
pub fn find_joined_namespaces(
    host: &Host,
    node: &Node,
    container: &Bundle,
    spec: &Value,
) -> JoinedNamespaces {
    let entries = spec.pointer("/linux/namespaces").and_then(Value::as_array);
    let text =
        |entry: &Value, name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut found = BTreeMap::new();
    for entry in entries.into_iter().flatten() {
        let (kind, path) = (text(entry, "type"), text(entry, "path"));
        let kind = LinuxNamespace::ALL.into_iter().find(|one| one.spec_name() == kind);
        if let (Some(kind), false) = (kind, path.is_empty())
            && let Some(joined) = find_joined(host, node, container, kind, &path)
        {
            found.insert(path, joined);
        }
    }
    JoinedNamespaces(found)
}

fn find_joined(
    host: &Host,
    node: &Node,
    container: &Bundle,
    kind: LinuxNamespace,
    path: &str,
) -> Option<JoinedNamespace> {
    let Some(id) = read_id(host, kind, path)? else {
        return Some(JoinedNamespace { id: None, owner: NamespaceOwner::Gone });
    };
    let is_in = |pid: Pid| read_namespace(host, pid, kind).ok().flatten() == Some(id);
    let owner = if is_in(Pid::INIT) {
        NamespaceOwner::Host
    } else {
        find_container(host, node, container, &is_in)
            .or_else(|| find_process(node, container, process_of(path), &is_in))
            .unwrap_or(NamespaceOwner::Nobody)
    };
    Some(JoinedNamespace { id: Some(id), owner })
}

/// The namespace at a path: `Some(None)` where there is nothing any more, `None` where it cannot be told.
fn read_id(host: &Host, kind: LinuxNamespace, path: &str) -> Option<Option<NamespaceId>> {
    if let Some(pid) = process_of(path) {
        return read_namespace(host, pid, kind).ok();
    }
    match std::fs::metadata(host.resolve(Path::new(path))) {
        Ok(metadata) => Some(Some(NamespaceId(metadata.ino()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(None),
        Err(_) => None,
    }
}

/// Another container whose init is in it; a pod's sandbox before its other containers.
fn find_container(
    host: &Host,
    node: &Node,
    container: &Bundle,
    is_in: &dyn Fn(Pid) -> bool,
) -> Option<NamespaceOwner> {
    let others = node.bundles.iter().filter(|bundle| bundle.path != container.path);
    let sharing = others.filter(|bundle| bundle.init_pid.is_some_and(is_in));
    let mut named: Vec<_> = sharing
        .map(|bundle| (bundle, read_spec_excerpt(host, bundle).ok().flatten().unwrap_or_default()))
        .collect();
    named.sort_by_key(|(_, excerpt)| !excerpt.is_sandbox());
    let (bundle, excerpt) = named.first()?;
    let id = format!("{}/{}", bundle.containerd_namespace, bundle.id);
    Some(match excerpt.pod_name().filter(|_| excerpt.is_sandbox()) {
        Some(pod) => {
            NamespaceOwner::Of { name: format!("pod {}", escape(pod)), detail: format!("sandbox {id}") }
        }
        None => NamespaceOwner::Of { name: format!("container {id}"), detail: String::new() },
    })
}

/// A process that is not one of the container's own: the one that the path names, else the first.
fn find_process(
    node: &Node,
    container: &Bundle,
    named: Option<Pid>,
    is_in: &dyn Fn(Pid) -> bool,
) -> Option<NamespaceOwner> {
    let is_own = |pid: Pid| {
        let own = container.init_pid;
        own.is_some() && node.processes.ancestry(pid).iter().any(|stat| Some(stat.pid) == own)
    };
    let mut processes =
        named.and_then(|pid| node.processes.get(pid)).into_iter().chain(node.processes.iter());
    let stat = processes
        .find(|stat| is_in(stat.pid) && !is_own(stat.pid) && Some(stat.pid) != container.init_pid)?;
    Some(NamespaceOwner::Of {
        name: format!("process {} ({})", stat.pid, stat.name()),
        detail: String::new(),
    })
}

/// The process of `/proc/PID/ns/KIND`.
fn process_of(path: &str) -> Option<Pid> {
    let (pid, _) = path.strip_prefix(PROC)?.split_once("/ns/")?;
    pid.parse().ok().map(Pid::new)
}
