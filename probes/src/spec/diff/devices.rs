//! Device nodes by path, and network devices that are moved in.

use super::leaf::changed_unless;
use super::pair::{Node, Pair, text_member};
use super::report::{Draft, Report};
use super::walk_unknown;
use crate::escape::escape;
use crate::spec::change::{Section, Verdict};

/// The nodes that runtime-spec has every runtime make.
const DEFAULT_DEVICES: [(&str, i128, i128); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

pub(super) fn compare_devices(pair: &Pair<'_>, report: &mut Report) {
    for item in pair.items_by_key(|item| text_member(item, "path")) {
        if item.pair.is_identical() {
            continue;
        }
        let subject = format!("device {}", escape(&item.key));
        if item.left.is_some() && item.right.is_some() {
            compare_both(&subject, &item.pair, report);
            continue;
        }
        let only = if item.left.is_some() { &item.pair.left } else { &item.pair.right };
        let verdict = if is_default(&item.key, only) {
            Verdict::SameEffect
        } else {
            Verdict::of_order(&item.left.is_some(), &item.right.is_some())
        };
        report.push(
            Draft::new(Section::Devices, subject, &item.pair)
                .texts(shown(&item.pair.left), shown(&item.pair.right))
                .verdict(verdict)
                .why("a device of the host, as far as the device rules let it be opened")
                .kubernetes("resources.limits (device plugins), securityContext.privileged"),
        );
    }
}

fn is_default(path: &str, node: &Node<'_>) -> bool {
    let number = |name: &str| node.member(name).integer();
    DEFAULT_DEVICES.iter().any(|(default, major, minor)| {
        *default == path && number("major") == Some(*major) && number("minor") == Some(*minor)
    })
}

fn compare_both(subject: &str, pair: &Pair<'_>, report: &mut Report) {
    if shown(&pair.left) != shown(&pair.right) {
        let draft = Draft::new(Section::Devices, subject, pair).texts(shown(&pair.left), shown(&pair.right));
        report.push(draft.verdict(Verdict::CannotTell).why("the same path is another device"));
    }
    compare_mode(subject, &pair.member("fileMode"), report);
    for name in ["uid", "gid"] {
        let owner = pair.member(name);
        if owner.left.integer().unwrap_or(0) != owner.right.integer().unwrap_or(0) {
            let draft = Draft::new(Section::Devices, format!("{subject} {name}"), &owner);
            report.push(draft.why("who owns the device node"));
        }
    }
    walk_unknown(pair, &["path", "type", "major", "minor", "fileMode", "uid", "gid"], report);
}

/// File modes are sets of permissions; 0666 is what runtimes make without one.
fn compare_mode(subject: &str, pair: &Pair<'_>, report: &mut Report) {
    let mode = |node: &Node<'_>| node.integer().unwrap_or(0o666);
    let (left, right) = (mode(&pair.left), mode(&pair.right));
    for (bits, verdict) in
        [(right & !left, Verdict::MorePermissive), (left & !right, Verdict::LessPermissive)]
    {
        if bits != 0 {
            let draft = Draft::new(Section::Devices, format!("{subject} mode"), pair);
            let draft = draft.texts(format!("{left:04o}"), format!("{right:04o}"));
            report.push(draft.verdict(verdict).why("who may read and write the device node"));
        }
    }
}

fn shown(node: &Node<'_>) -> String {
    if node.value().is_none() {
        return "-".to_owned();
    }
    let number = |name: &str| node.member(name).integer().map_or("?".to_owned(), |number| number.to_string());
    format!("{} {}:{}", escape(node.member("type").text_or_empty()), number("major"), number("minor"))
}

/// linux.netDevices (runtime-spec 1.3): interfaces of the host that are moved into the container.
pub(super) fn compare_net_devices(pair: &Pair<'_>, report: &mut Report) {
    for name in pair.member_names() {
        let device = pair.member(name);
        if device.is_identical() {
            continue;
        }
        let verdict = Verdict::of_order(&device.left.value().is_some(), &device.right.value().is_some());
        let draft = Draft::new(Section::Devices, format!("network device {}", escape(name)), &device);
        report.push(
            changed_unless(verdict, draft)
                .why("a network interface of the host is moved into the container's network namespace"),
        );
    }
}
