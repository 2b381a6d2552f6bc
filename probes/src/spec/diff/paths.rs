//! The root file system and the paths that are masked or read-only.

use super::leaf::{changed_unless, is_container_path};
use super::pair::{Node, Pair};
use super::report::{Draft, Report, SetDifference};
use super::text::count;
use crate::spec::change::{Section, Verdict};

pub(super) fn compare_root_path(pair: &Pair<'_>, report: &mut Report) {
    let (left, right) = (pair.left.text_or_empty(), pair.right.text_or_empty());
    if left == right {
        return;
    }
    // A path with `..` leaves the bundle, wherever it begins.
    let leaves = |path: &str| path.split('/').any(|name| name == "..");
    let in_bundle = |path: &str| !leaves(path) && (!path.starts_with('/') || is_container_path(path));
    let is_host = |path: &str| path.starts_with('/') && path.split('/').all(|name| matches!(name, "" | "."));
    let draft = Draft::new(Section::Root, "root path", pair);
    report.push(match (is_host(left), is_host(right)) {
        (left, right) if left != right => draft
            .verdict(Verdict::of_order(&left, &right))
            .why("`/` is the host's own root: all of its files are the container's"),
        _ if in_bundle(left) && in_bundle(right) => {
            draft.why("where the container's files are on the host").identity()
        }
        _ => draft.verdict(Verdict::CannotTell).why("which files of the host the container is made of"),
    });
}

pub(super) fn compare_root_readonly(pair: &Pair<'_>, report: &mut Report) {
    let (left, right) = (pair.left.flag(), pair.right.flag());
    if left == right {
        return;
    }
    let shown = |readonly: bool| if readonly { "read-only" } else { "writable" };
    report.push(
        Draft::new(Section::Root, "root file system", pair)
            .texts(shown(left), shown(right))
            .verdict(Verdict::of_order(&!left, &!right))
            .why("a writable root lets a break-in replace the program's own files")
            .kubernetes("securityContext.readOnlyRootFilesystem")
            .kernel("mountinfo"),
    );
}

/// maskedPaths and readonlyPaths: sets of paths that the container cannot read, or cannot write.
pub(super) fn compare_protected_paths(pair: &Pair<'_>, report: &mut Report) {
    let masked = pair.left.pointer.ends_with("maskedPaths");
    let subject = if masked { "masked paths" } else { "read-only paths" };
    let counted = |node: &Node<'_>| count(node.items().len(), "path", "paths");
    // A path more is a protection more.
    let difference = SetDifference::of(&pair.left.texts(), &pair.right.texts());
    difference.report(report, Verdict::LessPermissive, || {
        let draft = Draft::new(Section::Paths, subject, pair).texts(counted(&pair.left), counted(&pair.right));
        let draft = draft.kubernetes("securityContext.procMount").kernel("mountinfo");
        draft.why(if masked {
            "a masked path hides what /proc and /sys tell of the host (kcore is its memory); without it the container reads it"
        } else {
            "a read-only path keeps root in the container from setting the host's kernel parameters"
        })
    });
}

pub(super) fn compare_propagation(pair: &Pair<'_>, report: &mut Report) {
    let shared = |text: &str| text == "shared" || text == "rshared";
    let (left, right) = (pair.left.text_or_empty(), pair.right.text_or_empty());
    if left == right {
        return;
    }
    let draft = Draft::new(Section::Root, "rootfsPropagation", pair)
        .why("shared: what the container mounts appears on the host; slave: what the host mounts appears inside")
        .kubernetes("volumeMounts.mountPropagation");
    report.push(changed_unless(Verdict::of_order(&shared(left), &shared(right)), draft));
}
