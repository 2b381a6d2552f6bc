//! mounts, by destination. Their order counts where one lies over another.

use std::collections::{BTreeSet, HashMap};

use super::leaf::{changed_unless, is_container_path};
use super::mount_options::{MountOptions, parse_size};
use super::pair::{Keyed, Node, Pair, text_member};
use super::report::{Draft, Report};
use super::walk_members;
use crate::escape::escape;
use crate::spec::change::{Section, Verdict};
use crate::spec::shape;

pub(super) fn compare_mounts(pair: &Pair<'_>, report: &mut Report) {
    let items = pair.items_by_key(|item| clean_path(&text_member(item, "destination")));
    for item in &items {
        if item.left.is_some() && item.right.is_some() {
            compare_both(item, report);
        } else {
            compare_one_sided(item, report);
        }
    }
    compare_order(&items, pair, report);
}

/// `/sys//fs/` and `/sys/fs` are one place.
fn clean_path(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

fn draft(item: &Keyed<'_>, aspect: &str, pair: &Pair<'_>) -> Draft {
    let subject = format!("mount {}{aspect}", escape(&item.key));
    let draft = Draft::new(Section::Mounts, subject, pair).kernel("mountinfo");
    let bind = |node: &Node<'_>| MountOptions::of(node).bind;
    if bind(&item.pair.left) || bind(&item.pair.right) { draft.kubernetes("volumeMounts") } else { draft }
}

fn compare_one_sided(item: &Keyed<'_>, report: &mut Report) {
    let only = if item.left.is_some() { &item.pair.left } else { &item.pair.right };
    let (opens, reason) = exposure(only);
    let verdict = match opens {
        Exposure::More => Verdict::of_order(&item.left.is_some(), &item.right.is_some()),
        Exposure::Unknown => Verdict::CannotTell,
        Exposure::Nothing => Verdict::Changed,
    };
    let draft = draft(item, "", &item.pair).texts(shown(&item.pair.left), shown(&item.pair.right));
    report.push(draft.verdict(verdict).why(reason));
}

enum Exposure {
    More,
    Unknown,
    Nothing,
}

/// What a mount opens to the container.
fn exposure(mount: &Node<'_>) -> (Exposure, &'static str) {
    let options = MountOptions::of(mount);
    let readonly = options.is_set("ro") || options.is_set("rro");
    if options.bind {
        return match readonly {
            true => (Exposure::More, "files of the host that the container can read"),
            false => (Exposure::More, "files of the host that the container can read and write"),
        };
    }
    match mount.member("type").text_or_empty() {
        "sysfs" | "cgroup" | "cgroup2" if !readonly => {
            (Exposure::More, "kernel files that the container can write: device settings, or its own limits")
        }
        "cgroup" | "cgroup2" => {
            (Exposure::Nothing, "shows the container its cgroup files, such as memory.max")
        }
        "sysfs" => (Exposure::Nothing, "shows the container the node's devices"),
        "proc" => (Exposure::Nothing, "the process files of the container's pid namespace"),
        "tmpfs" => (
            Exposure::Nothing,
            "memory that the container writes to as files, bounded by size and the memory limit",
        ),
        "devpts" | "mqueue" | "ramfs" => {
            (Exposure::Nothing, "made new for the container, shows nothing of the host")
        }
        _ => (Exposure::Unknown, "a file system whose content the spec does not tell"),
    }
}

fn shown(mount: &Node<'_>) -> String {
    if mount.value().is_none() {
        return "-".to_owned();
    }
    let options = MountOptions::of(mount);
    let source = mount.member("source").text_or_empty();
    let readonly = if options.is_set("ro") { " (ro)" } else { "" };
    if options.bind {
        return format!("{} bound{readonly}", escape(source));
    }
    format!("{}{readonly}", escape(mount.member("type").text_or_empty()))
}

fn compare_both(item: &Keyed<'_>, report: &mut Report) {
    let (left, right) = (MountOptions::of(&item.pair.left), MountOptions::of(&item.pair.right));
    compare_kind(item, left.bind, right.bind, report);
    compare_source(item, left.bind || right.bind, report);
    let options = item.pair.member("options");
    compare_restrictions(item, &options, (&left, &right), report);
    compare_data(item, &options, (&left, &right), report);
    let neutral = |options: &MountOptions<'_>| -> BTreeSet<String> {
        options.neutral.iter().filter(|(_, set)| **set).map(|(flag, _)| flag.clone()).collect()
    };
    let (left_flags, right_flags) = (neutral(&left), neutral(&right));
    if left_flags != right_flags || left.recursive != right.recursive && left.bind == right.bind {
        let draft = draft(item, " options", &options);
        report.push(
            draft.why("how times and writes are kept, or whether mounts below come along; no permission"),
        );
    }
    if left.propagation != right.propagation {
        let named =
            |options: &MountOptions<'_>| options.propagation.unwrap_or("rprivate (default)").to_owned();
        let draft = draft(item, " propagation", &options).texts(named(&left), named(&right));
        let verdict = Verdict::of_order(&left.is_shared(), &right.is_shared());
        report.push(
            changed_unless(verdict, draft).why("shared: what the container mounts here appears on the host"),
        );
    }
    let known = ["destination", "type", "source", "options"];
    walk_members(&item.pair, shape::SPEC.member("mounts").and_then(shape::Shape::item), &known, report);
}

/// The type; for a bind mount it is ignored.
fn compare_kind(item: &Keyed<'_>, left_bind: bool, right_bind: bool, report: &mut Report) {
    let kind = item.pair.member("type");
    let effective = |bind: bool, node: &Node<'_>| {
        if bind { "bind".to_owned() } else { escape(node.text_or_empty()).into_owned() }
    };
    let (left, right) = (effective(left_bind, &kind.left), effective(right_bind, &kind.right));
    if left != right {
        let verdict = match (left_bind, right_bind) {
            (false, false) => Verdict::CannotTell,
            _ => Verdict::of_order(&left_bind, &right_bind),
        };
        let draft = draft(item, " type", &kind).texts(left, right).verdict(verdict);
        report.push(draft.why("a bind mount shows files of the host, another type a file system of its own"));
    }
}

/// The source; without a bind mount it is only a name.
fn compare_source(item: &Keyed<'_>, bind: bool, report: &mut Report) {
    let source = item.pair.member("source");
    let (left, right) = (source.left.text_or_empty(), source.right.text_or_empty());
    if left == right {
        return;
    }
    let draft = draft(item, " source", &source);
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let own = is_container_path(left) && is_container_path(right) && last(left) == last(right);
    report.push(match (bind, own) {
        (_, true) => draft.identity().why("the same file of another container"),
        (true, false) => draft.verdict(Verdict::CannotTell).why("other files of the host"),
        (false, false) => draft.why("which device, or for a file system without one only a name"),
    });
}

/// One change for the flags that only the left sets, and one for those that only the right sets.
fn compare_restrictions(
    item: &Keyed<'_>,
    options: &Pair<'_>,
    (left, right): (&MountOptions<'_>, &MountOptions<'_>),
    report: &mut Report,
) {
    let beyond = |has: &MountOptions<'_>, lacks: &MountOptions<'_>| -> Vec<String> {
        has.restrictions.keys().filter(|flag| has.is_set(flag) && !lacks.is_set(flag)).cloned().collect()
    };
    let without = |flags: &[String]| if flags == ["ro"] { "rw" } else { "-" };
    let (left_only, right_only) = (beyond(left, right), beyond(right, left));
    if !left_only.is_empty() {
        let draft = draft(item, "", options).texts(left_only.join(","), without(&left_only));
        report.push(draft.verdict(Verdict::MorePermissive).why(restriction_reason(&left_only)));
    }
    if !right_only.is_empty() {
        let draft = draft(item, "", options).texts(without(&right_only), right_only.join(","));
        report.push(draft.verdict(Verdict::LessPermissive).why(restriction_reason(&right_only)));
    }
}

fn restriction_reason(flags: &[String]) -> String {
    let reason = |flag: &String| match flag.as_str() {
        "ro" | "rro" => "ro keeps the container from writing there",
        "nosuid" | "rnosuid" => "nosuid keeps setuid programs found there from running as their owner",
        "nodev" | "rnodev" => "nodev keeps device nodes found there from opening devices",
        "noexec" | "rnoexec" => "noexec keeps programs found there from being run",
        _ => "nosymfollow keeps symbolic links found there from being followed",
    };
    flags.iter().map(reason).collect::<Vec<_>>().join("; ")
}

/// `size=`, `mode=`, `gid=` and whatever else the file system takes.
fn compare_data(
    item: &Keyed<'_>,
    options: &Pair<'_>,
    (left, right): (&MountOptions<'_>, &MountOptions<'_>),
    report: &mut Report,
) {
    let names: BTreeSet<&&str> = left.data.keys().chain(right.data.keys()).collect();
    for name in names {
        let (left, right) = (left.data.get(*name), right.data.get(*name));
        if left == right {
            continue;
        }
        let shown = |value: Option<&Option<&str>>| match value {
            None => "-".to_owned(),
            Some(None) => "set".to_owned(),
            Some(Some(text)) => escape(text).into_owned(),
        };
        let verdict = data_verdict(name, left.copied().flatten(), right.copied().flatten());
        let draft = draft(item, &format!(" {}", escape(name)), options).texts(shown(left), shown(right));
        report.push(draft.verdict(verdict).why(match *name {
            "size" => "how much of the node's memory its files may take; half of it where no size is named",
            _ => "an option of the file system",
        }));
    }
}

fn data_verdict(name: &str, left: Option<&str>, right: Option<&str>) -> Verdict {
    if name != "size" {
        return Verdict::Changed;
    }
    // Without a size it is half of the node's memory: more than anybody writes out.
    let size = |text: Option<&str>| text.map_or(Some(i128::MAX), parse_size);
    match (size(left), size(right)) {
        (Some(left), Some(right)) => Verdict::of_order(&left, &right),
        _ => Verdict::CannotTell,
    }
}

/// Where a mount on one side comes after what is mounted below it, it hides that.
fn compare_order(items: &[Keyed<'_>], pair: &Pair<'_>, report: &mut Report) {
    let both = items.iter().filter_map(|item| Some((item.key.as_str(), (item.left?, item.right?))));
    let places: HashMap<&str, (usize, usize)> = both.collect();
    for (path, (left, right)) in &places {
        let mut upper = *path;
        while let Some(at) = upper.rfind('/').filter(|_| upper != "/") {
            upper = if at == 0 { "/" } else { &upper[..at] };
            let Some((upper_left, upper_right)) = places.get(upper) else { continue };
            let (hidden_left, hidden_right) = (upper_left > left, upper_right > right);
            if hidden_left != hidden_right {
                let shown = |hidden: bool| {
                    if hidden { format!("hidden by {}", escape(upper)) } else { "visible".to_owned() }
                };
                let subject = format!("mount {} order", escape(path));
                report.push(
                    Draft::new(Section::Mounts, subject, pair)
                        .texts(shown(hidden_left), shown(hidden_right))
                        .verdict(Verdict::CannotTell)
                        .why(
                            "mounts are made in the order of the list: a later one on a path above hides it",
                        ),
                );
            }
        }
    }
}
