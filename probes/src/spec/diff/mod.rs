//! From two specs to the list of their differences with a verdict each. Pure: nothing is read, nothing is asked.
//!
//! The walk goes through both documents at once. A place whose meaning is known has a comparator (a set, a keyed list,
//! a limit); any other place is compared as it stands. Where two values differ and no comparator says anything, the
//! walk itself notes a difference of spelling: so there is no difference that is not in the list.

mod capabilities;
mod device_rules;
mod devices;
mod hooks;
mod leaf;
mod mount_options;
mod mounts;
mod namespaces;
mod pair;
mod paths;
mod process;
mod report;
mod resources;
mod seccomp;
mod seccomp_policy;
pub(super) mod summary;
mod text;

use serde_json::Value;

use super::change::{Change, Comparison, Fold, Section, Verdict};
use super::joined::JoinedNamespaces;
use super::shape::{self, Shape};
pub(crate) use mount_options::MountOptions;
use pair::Pair;
use report::{Draft, Report};

/// Compares two specs by meaning: every difference once, in the order of the sections. Empty for equal documents alone.
#[must_use]
pub fn diff(left: &Value, right: &Value) -> Vec<Change> {
    let mut report = Report::default();
    walk(&Pair::root(left, right), Some(&shape::SPEC), &mut report);
    report.into_changes()
}

/// [`diff`] with the overall verdict.
#[must_use]
pub fn compare(left: &Value, right: &Value) -> Comparison {
    Comparison::of(diff(left, right))
}

/// [`compare`] for specs of this host, whose joined namespaces were looked up.
#[must_use]
pub fn compare_on_host(left: (&Value, &JoinedNamespaces), right: (&Value, &JoinedNamespaces)) -> Comparison {
    let mut report = Report::knowing(left.1.clone(), right.1.clone());
    walk(&Pair::root(left.0, right.0), Some(&shape::SPEC), &mut report);
    Comparison::of(report.into_changes())
}

type Comparator = fn(&Pair<'_>, &mut Report);

/// The comparator of a place, by its JSON pointer.
fn comparator(pointer: &str) -> Option<Comparator> {
    Some(match pointer {
        "/ociVersion" => process::compare_version,
        "/process/user" => process::compare_user,
        "/process/env" => process::compare_env,
        "/process/rlimits" => process::compare_rlimits,
        "/process/noNewPrivileges" => process::compare_no_new_privileges,
        "/process/apparmorProfile" | "/process/selinuxLabel" => process::compare_security_label,
        "/process/capabilities" => capabilities::compare_capabilities,
        "/root/path" => paths::compare_root_path,
        "/root/readonly" => paths::compare_root_readonly,
        "/mounts" => mounts::compare_mounts,
        "/linux/maskedPaths" | "/linux/readonlyPaths" => paths::compare_protected_paths,
        "/linux/rootfsPropagation" => paths::compare_propagation,
        "/linux/namespaces" => namespaces::compare_namespaces,
        "/linux/uidMappings" | "/linux/gidMappings" => namespaces::compare_id_mappings,
        "/linux/devices" => devices::compare_devices,
        "/linux/netDevices" => devices::compare_net_devices,
        "/linux/resources/devices" => device_rules::compare_device_rules,
        "/linux/resources/cpu" => resources::compare_cpu,
        "/linux/resources/unified" => resources::compare_unified,
        "/linux/resources/hugepageLimits" => resources::compare_hugepage_limits,
        "/linux/seccomp" => seccomp::compare_seccomp,
        "/hooks/prestart"
        | "/hooks/createRuntime"
        | "/hooks/createContainer"
        | "/hooks/startContainer"
        | "/hooks/poststart"
        | "/hooks/poststop" => hooks::compare_hooks,
        _ => {
            return resources::is_limit(pointer).then_some(resources::compare_limit as Comparator).or_else(
                || resources::is_throttle(pointer).then_some(resources::compare_throttles as Comparator),
            );
        }
    })
}

/// Compares one place, which is the same place in both documents.
fn walk(pair: &Pair<'_>, shape: Option<&Shape>, report: &mut Report) {
    if pair.is_identical() {
        return;
    }
    let before = report.len();
    match comparator(&pair.left.pointer).filter(|_| pair.is_aligned()) {
        Some(compare) => {
            compare(pair, report);
            report_unknown_below(pair, shape, report);
        }
        None if pair.is_object() => walk_members(pair, shape, &[], report),
        None => leaf::compare_leaf(pair, shape.is_some(), report),
    }
    if report.len() == before {
        note_spelling(pair, report);
    }
}

/// Compares the members of an object, but for those that the caller has compared itself.
fn walk_members(pair: &Pair<'_>, shape: Option<&Shape>, done: &[&str], report: &mut Report) {
    for name in pair.member_names() {
        if !done.contains(&name) {
            walk(&pair.member(name), shape.and_then(|shape| shape.member(name)), report);
        }
    }
}

/// Compares what a comparator of list items leaves: the members that it does not know.
fn walk_unknown(pair: &Pair<'_>, known: &[&str], report: &mut Report) {
    walk_members(pair, None, known, report);
}

/// Lists that are compared by what they do as a whole; what they have besides is reported once.
const WHOLES: [&str; 3] = ["/linux/uidMappings", "/linux/gidMappings", "/linux/resources/devices"];

/// Compares the fields that runtime-spec does not know in the items of such a list, in whatever order.
fn report_unknown_below(pair: &Pair<'_>, shape: Option<&Shape>, report: &mut Report) {
    let pointer = pair.left.pointer.as_str();
    let (pair, shape) = match pointer {
        "/linux/seccomp" => (pair.member("syscalls"), shape.and_then(|shape| shape.member("syscalls"))),
        _ if WHOLES.contains(&pointer) => (pair.clone(), shape),
        _ => return,
    };
    let unknown = |node: &pair::Node<'_>| match (node.value(), shape) {
        (Some(value), Some(shape)) => shape::unknown_members(value, shape),
        _ => Vec::new(),
    };
    if unknown(&pair.left) != unknown(&pair.right) {
        report.push(
            Draft::new(Section::Other, format!("unknown fields in {}", text::subject_of(pointer)), &pair)
                .verdict(Verdict::CannotTell)
                .why("runtime-spec 1.3 does not know them"),
        );
    }
}

/// Notes that two values are written differently and mean the same.
fn note_spelling(pair: &Pair<'_>, report: &mut Report) {
    let draft = Draft::new(text::section_of(&pair.left.pointer), text::subject_of(&pair.left.pointer), pair);
    report.push(
        draft
            .verdict(Verdict::SameEffect)
            .why("order, null, an empty value or a default written out: enforced alike")
            .fold(Fold::Spelling),
    );
}

#[cfg(test)]
mod everything;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
