//! linux.namespaces and id mappings.
//!
//! runtime-spec: a type that is not listed is the runtime's own namespace, which is the host's; a type without a path
//! is made new; with a path it is joined.

use std::fmt;

use super::pair::{Keyed, Node, Pair, text_member};
use super::report::{Draft, Report};
use super::walk_unknown;
use crate::escape::escape;
use crate::spec::change::{Section, Verdict};
use crate::spec::joined::{JoinedNamespace, JoinedNamespaces, NamespaceOwner};

/// A spec that joins a namespace of these joins the host's.
const INIT_NAMESPACES: &str = "/proc/1/ns/";

/// Where a container's namespace of one type comes from, from the most shared to the least.
#[derive(Debug, Clone, Copy)]
enum Origin<'a> {
    Own,
    Joined(&'a str, Option<&'a JoinedNamespace>),
    Host,
}

impl<'a> Origin<'a> {
    fn of(node: &Node<'a>, joins: &'a JoinedNamespaces) -> Origin<'a> {
        let path = node.member("path").text_or_empty();
        let known = joins.find(path);
        match node.value() {
            None => Origin::Host,
            Some(_) if path.is_empty() => Origin::Own,
            Some(_) if path.starts_with(INIT_NAMESPACES) => Origin::Host,
            Some(_) if known.is_some_and(|joined| joined.owner == NamespaceOwner::Host) => Origin::Host,
            Some(_) => Origin::Joined(path, known),
        }
    }

    /// How many others are in the namespace: larger is more permissive.
    fn sharing(self) -> u8 {
        match self {
            Origin::Own => 0,
            Origin::Joined(..) => 1,
            Origin::Host => 2,
        }
    }

    /// The very same one: the same words, or another path to it.
    fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Origin::Joined(path, known), Origin::Joined(other_path, other)) => {
                let id = |known: Option<&JoinedNamespace>| known.and_then(|joined| joined.id);
                path == other_path || (id(known).is_some() && id(known) == id(other))
            }
            (one, other) => one.sharing() == other.sharing(),
        }
    }

    /// How the path leads to whom, where that is known.
    fn explain(self) -> Option<String> {
        let Origin::Joined(path, Some(joined)) = self else { return None };
        let path = escape(path);
        Some(match &joined.owner {
            NamespaceOwner::Of { name, detail } if detail.is_empty() => format!("{name}, by {path}"),
            NamespaceOwner::Of { name, detail } => format!("{name} ({detail}), by {path}"),
            NamespaceOwner::Nobody => format!("{path}: no process is in that namespace now"),
            NamespaceOwner::Gone => format!("{path}: there is no such namespace any more"),
            NamespaceOwner::Host => return None,
        })
    }
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Own => f.write_str("its own"),
            Origin::Host => f.write_str("the host's"),
            Origin::Joined(path, known) => match known.map(|joined| &joined.owner) {
                Some(NamespaceOwner::Of { name, .. }) => write!(f, "that of {name}"),
                Some(NamespaceOwner::Nobody) => write!(f, "kept by {}", escape(path)),
                _ => write!(f, "joins {}", escape(path)),
            },
        }
    }
}

pub(super) fn compare_namespaces(pair: &Pair<'_>, report: &mut Report) {
    let (left_joins, right_joins) = (report.left_joins.clone(), report.right_joins.clone());
    for item in pair.items_by_key(|item| text_member(item, "type")) {
        let (left, right) =
            (Origin::of(&item.pair.left, &left_joins), Origin::of(&item.pair.right, &right_joins));
        if !left.is_same(right) {
            report.push(draft(&item, left, right));
        }
        walk_unknown(&item.pair, &["type", "path"], report);
    }
}

fn draft(item: &Keyed<'_>, left: Origin<'_>, right: Origin<'_>) -> Draft {
    let kind = item.key.as_str();
    let verdict = match (left, right, kind) {
        (Origin::Joined(..), Origin::Joined(..), _) | (_, _, "time") => Verdict::Changed,
        _ => Verdict::of_order(&left.sharing(), &right.sharing()),
    };
    let mut draft = Draft::new(Section::Namespaces, format!("{} namespace", escape(kind)), &item.pair)
        .texts(left.to_string(), right.to_string())
        .verdict(verdict)
        .why(reason(kind))
        .kernel("ns/");
    for (label, origin) in [("left joins", left), ("right joins", right)] {
        if let Some(whose) = origin.explain() {
            draft = draft.detail(label, vec![whose]);
        }
    }
    match kubernetes_field(kind) {
        Some(field) => draft.kubernetes(field),
        None => draft,
    }
}

fn reason(kind: &str) -> &'static str {
    match kind {
        "pid" => "who shares it sees and may signal the same processes",
        "network" => {
            "who shares it has the same interfaces, ports and abstract sockets; the host's reaches every local daemon"
        }
        "mount" => "who shares it has the same mounts; the host's is the host's file system itself",
        "ipc" => "who shares it reads and writes the same shared memory and queues",
        "uts" => "who shares it has, and with CAP_SYS_ADMIN sets, the same host name",
        "user" => "in a user namespace root inside is an ordinary user outside; in the host's, root is root",
        "cgroup" => "who shares the host's sees the paths of all cgroups of the node",
        "time" => "which offsets the monotonic and boot-time clocks have",
        _ => "a type that runtime-spec 1.3 does not have: runtimes refuse it",
    }
}

fn kubernetes_field(kind: &str) -> Option<&'static str> {
    match kind {
        "pid" => Some("hostPID, shareProcessNamespace"),
        "network" => Some("hostNetwork"),
        "ipc" => Some("hostIPC"),
        "user" => Some("hostUsers"),
        _ => None,
    }
}

/// uidMappings and gidMappings: what the ids inside are outside.
pub(super) fn compare_id_mappings(pair: &Pair<'_>, report: &mut Report) {
    let kind = if pair.left.pointer.ends_with("uidMappings") { "uidMappings" } else { "gidMappings" };
    let (left, right) = (Ranges::of(&pair.left), Ranges::of(&pair.right));
    if left == right {
        return;
    }
    let verdict = match (left.maps_host_root(), right.maps_host_root()) {
        (left, right) if left != right => Verdict::of_order(&left, &right),
        _ => Verdict::Changed,
    };
    report.push(
        Draft::new(Section::Namespaces, kind, pair)
            .texts(left.to_string(), right.to_string())
            .verdict(verdict)
            .why("which ids of the host the container's ids are; a range with the host's 0 makes root outside of root inside")
            .kubernetes("hostUsers")
            .kernel(if kind == "uidMappings" { "uid_map" } else { "gid_map" }),
    );
}

/// Ranges `(first id inside, first id outside, how many)`, ordered.
#[derive(Debug, PartialEq, Eq)]
struct Ranges(Vec<(i128, i128, i128)>);

impl Ranges {
    fn of(node: &Node<'_>) -> Self {
        let member = |item: &serde_json::Value, name: &str| {
            item.get(name).and_then(serde_json::Value::as_u64).map_or(0, i128::from)
        };
        let range = |item| (member(item, "containerID"), member(item, "hostID"), member(item, "size"));
        let mut ranges: Vec<_> = node.items().iter().map(range).collect();
        ranges.sort_unstable();
        Self(ranges)
    }

    fn maps_host_root(&self) -> bool {
        self.0.iter().any(|(_, outside, size)| *outside == 0 && *size > 0)
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, (inside, outside, size)) in self.0.iter().enumerate() {
            write!(f, "{}{inside} is {outside} ({size})", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
