//! `/proc/PID/ns/*` against those of the host's own init, and the id maps.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::{Value, json};

use super::edit::{items, set};
use super::{Reading, Step};
use crate::name::Pid;
use crate::process::{LinuxNamespace, NamespaceId, read_namespaces};

pub(super) fn read_linux_namespaces(reading: &mut Reading<'_>) -> Step {
    let host = read_namespaces(reading.host, Pid::INIT)?;
    let own = read_namespaces(reading.host, reading.pid)?;
    if own.is_empty() {
        return Ok(None);
    }
    let mut entries: Vec<Value> = items(reading.base, "/linux/namespaces").to_vec();
    let before = entries.clone();
    for (kind, actual) in &own {
        let shares_host = host.get(kind) == Some(actual);
        put_namespace(reading, &mut entries, *kind, *actual, shares_host);
    }
    if entries != before {
        set(&mut reading.enforced, "/linux/namespaces", entries);
    }
    Ok(Some(()))
}

fn put_namespace(
    reading: &Reading<'_>,
    entries: &mut Vec<Value>,
    kind: LinuxNamespace,
    actual: NamespaceId,
    shares_host: bool,
) {
    let name = kind.spec_name();
    let place = entries.iter().position(|entry| entry.get("type").and_then(Value::as_str) == Some(name));
    let path =
        place.and_then(|at| entries[at].get("path")).and_then(Value::as_str).filter(|path| !path.is_empty());
    match (place, path) {
        (None, _) if !shares_host => entries.push(json!({"type": name})),
        (Some(at), None) if shares_host => {
            entries.remove(at);
        }
        (Some(at), Some(path)) => {
            // A path that is gone (the sandbox's process ended) tells nothing.
            let named =
                std::fs::metadata(reading.host.resolve(Path::new(path))).ok().map(|metadata| metadata.ino());
            if named.is_some_and(|inode| NamespaceId(inode) != actual) {
                if shares_host {
                    entries.remove(at);
                } else {
                    entries[at] = json!({"type": name});
                }
            }
        }
        _ => {}
    }
}
