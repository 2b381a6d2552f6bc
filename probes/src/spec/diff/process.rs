//! ociVersion and the parts of `process` that are not capabilities.

use super::leaf::changed_unless;
use super::pair::{Node, Pair, text_member};
use super::report::{Draft, Report, SetDifference};
use super::text::count;
use super::walk_unknown;
use crate::escape::escape;
use crate::spec::change::{Section, Verdict};

/// runtimes use it where a spec names no umask.
const DEFAULT_UMASK: i128 = 0o022;

/// RLIM_INFINITY of getrlimit(2).
const UNLIMITED: i128 = u64::MAX as i128;

pub(super) fn compare_version(pair: &Pair<'_>, report: &mut Report) {
    let numbers = |text: &str| -> Vec<u64> {
        let release = text.split(['-', '+']).next().unwrap_or_default();
        release.split('.').map_while(|part| part.parse().ok()).collect()
    };
    let (left, right) = (numbers(pair.left.text_or_empty()), numbers(pair.right.text_or_empty()));
    let reason = match left.cmp(&right) {
        std::cmp::Ordering::Less => "the right is of a newer runtime-spec",
        std::cmp::Ordering::Greater => "the right is of an older runtime-spec",
        std::cmp::Ordering::Equal => "another pre-release of the same runtime-spec",
    };
    report.push(
        Draft::new(Section::Version, "ociVersion", pair)
            .why(format!("{reason}: it says what a generator knew, not what is enforced")),
    );
}

pub(super) fn compare_user(pair: &Pair<'_>, report: &mut Report) {
    compare_id(&pair.member("uid"), "uid", report);
    compare_id(&pair.member("gid"), "gid", report);
    compare_umask(&pair.member("umask"), report);
    compare_groups(pair, report);
    walk_unknown_user(pair, report);
}

/// 0 and absent are the same user.
fn compare_id(pair: &Pair<'_>, name: &str, report: &mut Report) {
    let (left, right) = (pair.left.integer().unwrap_or(0), pair.right.integer().unwrap_or(0));
    if left == right {
        return;
    }
    let verdict = Verdict::of_order(&(left == 0), &(right == 0));
    let draft = Draft::new(Section::User, name, pair).texts(left.to_string(), right.to_string());
    report.push(
        changed_unless(verdict, draft)
            .why("0 is root: it owns the image's files and gets capabilities when it executes a program")
            .kubernetes(if name == "uid" {
                "securityContext.runAsUser"
            } else {
                "securityContext.runAsGroup"
            })
            .kernel("Uid, Gid"),
    );
}

/// Each bit of a umask takes a permission from new files.
fn compare_umask(pair: &Pair<'_>, report: &mut Report) {
    let (left, right) =
        (pair.left.integer().unwrap_or(DEFAULT_UMASK), pair.right.integer().unwrap_or(DEFAULT_UMASK));
    let texts = (format!("{left:04o}"), format!("{right:04o}"));
    for (bits, verdict) in
        [(left & !right, Verdict::MorePermissive), (right & !left, Verdict::LessPermissive)]
    {
        if bits != 0 {
            let draft = Draft::new(Section::User, "umask", pair).texts(&texts.0, &texts.1);
            report.push(
                draft
                    .verdict(verdict)
                    .why("the permissions that new files do not get; 0022 where none is named"),
            );
        }
    }
}

/// The primary group counts too: containerd repeats it among the additional ones.
fn compare_groups(user: &Pair<'_>, report: &mut Report) {
    let groups = user.member("additionalGids");
    let primary = |side: &Node<'_>| side.member("gid").integer().unwrap_or(0).to_string();
    let all = |side: &Node<'_>, listed: &Node<'_>| -> Vec<String> {
        listed.items().iter().map(ToString::to_string).chain([primary(side)]).collect()
    };
    let mut difference = SetDifference::of(&all(&user.left, &groups.left), &all(&user.right, &groups.right));
    // A primary group that changed is said there and not twice.
    if primary(&user.left) != primary(&user.right) {
        difference.left_only.retain(|gid| *gid != primary(&user.left));
        difference.right_only.retain(|gid| *gid != primary(&user.right));
    }
    let counted = |node: &Node<'_>| count(node.items().len(), "group", "groups");
    difference.report(report, Verdict::MorePermissive, || {
        Draft::new(Section::User, "additional groups", &groups)
            .texts(counted(&groups.left), counted(&groups.right))
            .why("each group opens the files that it may read or write")
            .kubernetes("securityContext.supplementalGroups, fsGroup")
            .kernel("Groups")
    });
}

fn walk_unknown_user(pair: &Pair<'_>, report: &mut Report) {
    let username = pair.member("username");
    if username.left.text_or_empty() != username.right.text_or_empty() {
        report.push(
            Draft::new(Section::User, "username", &username).why("Windows only: runtimes on Linux ignore it"),
        );
    }
    walk_unknown(pair, &["uid", "gid", "umask", "additionalGids", "username"], report);
}

pub(super) fn compare_no_new_privileges(pair: &Pair<'_>, report: &mut Report) {
    let (left, right) = (pair.left.flag(), pair.right.flag());
    if left == right {
        return;
    }
    report.push(
        Draft::new(Section::Privileges, "noNewPrivileges", pair)
            .texts(left.to_string(), right.to_string())
            .verdict(Verdict::of_order(&!left, &!right))
            .why("without it a setuid program or one with file capabilities gains what its caller lacks")
            .kubernetes("securityContext.allowPrivilegeEscalation (the opposite)")
            .kernel("NoNewPrivs"),
    );
}

/// An AppArmor profile or an SELinux label. Whether one profile allows more than another only its text says.
pub(super) fn compare_security_label(pair: &Pair<'_>, report: &mut Report) {
    let apparmor = pair.left.pointer.ends_with("apparmorProfile");
    let confined = |text: &str| !text.is_empty() && text != "unconfined";
    let (left, right) = (pair.left.text_or_empty(), pair.right.text_or_empty());
    if left == right {
        return;
    }
    let verdict = match (confined(left), confined(right)) {
        (true, true) => Verdict::CannotTell,
        (left, right) => Verdict::of_order(&!left, &!right),
    };
    let subject = if apparmor { "apparmorProfile" } else { "selinuxLabel" };
    let shown = |text: &str| if text.is_empty() { "none".to_owned() } else { escape(text).into_owned() };
    let draft =
        Draft::new(Section::Privileges, subject, pair).texts(shown(left), shown(right)).verdict(verdict);
    report.push(if apparmor {
        draft
            .why("the profile limits files, capabilities and mounts beyond everything else; none confines nothing")
            .kubernetes("securityContext.appArmorProfile")
            .kernel("attr/apparmor/current")
    } else {
        draft
            .why("the label decides what SELinux lets the process touch")
            .kubernetes("securityContext.seLinuxOptions")
            .kernel("attr/current")
    });
}

pub(super) fn compare_env(pair: &Pair<'_>, report: &mut Report) {
    let name_of = |entry: &serde_json::Value| {
        let entry = entry.as_str().unwrap_or_default();
        entry.split_once('=').map_or(entry, |(name, _)| name).to_owned()
    };
    for item in pair.items_by_key(name_of) {
        if !item.pair.is_identical() {
            let value = |text: &str| text.split_once('=').map_or("", |(_, value)| value).to_owned();
            let shown =
                |text: Option<&str>| text.map_or("-".to_owned(), |text| escape(&value(text)).into_owned());
            report.push(
                Draft::new(Section::Env, escape(&item.key), &item.pair)
                    .texts(shown(item.pair.left.text()), shown(item.pair.right.text()))
                    .why("what the program finds in its environment")
                    .kubernetes("env"),
            );
        }
    }
}

pub(super) fn compare_rlimits(pair: &Pair<'_>, report: &mut Report) {
    for item in pair.items_by_key(|item| text_member(item, "type")) {
        let kind = escape(&item.key).into_owned();
        if item.left.is_none() || item.right.is_none() {
            report.push(
                draft_rlimit(&kind, &item.pair)
                    .texts(shown_pair(&item.pair.left), shown_pair(&item.pair.right))
                    .verdict(Verdict::CannotTell)
                    .why("without an entry the process inherits the limit of whoever starts the runtime: for a shim that is containerd's unit"),
            );
            continue;
        }
        for bound in ["soft", "hard"] {
            compare_bound(&kind, bound, &item.pair.member(bound), report);
        }
        walk_unknown(&item.pair, &["type", "soft", "hard"], report);
    }
}

fn compare_bound(kind: &str, bound: &str, pair: &Pair<'_>, report: &mut Report) {
    let (left, right) = (pair.left.integer().unwrap_or(0), pair.right.integer().unwrap_or(0));
    if left != right {
        let draft =
            draft_rlimit(&format!("{kind} {bound}"), pair).texts(shown_bound(left), shown_bound(right));
        report.push(
            draft.verdict(Verdict::of_order(&left, &right)).why("how much of this one process may have"),
        );
    }
}

fn draft_rlimit(subject: &str, pair: &Pair<'_>) -> Draft {
    Draft::new(Section::Rlimits, subject, pair).kernel("limits")
}

fn shown_bound(value: i128) -> String {
    if value == UNLIMITED { "unlimited".to_owned() } else { value.to_string() }
}

fn shown_pair(node: &Node<'_>) -> String {
    if node.value().is_none() {
        return "inherited".to_owned();
    }
    let bound = |name: &str| shown_bound(node.member(name).integer().unwrap_or(0));
    format!("soft {}, hard {}", bound("soft"), bound("hard"))
}
