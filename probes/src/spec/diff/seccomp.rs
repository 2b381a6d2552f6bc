//! linux.seccomp, compared by effect: which system calls each side lets through.

use super::pair::{Node, Pair};
use super::report::{Draft, Report, SetDifference};
use super::seccomp_policy::{Policy, compare_policies};
use super::text::count;
use super::walk_members;
use crate::escape::escape;
use crate::spec::change::{Section, Verdict};
use crate::spec::shape::{SPEC, Shape};

pub(super) fn compare_seccomp(pair: &Pair<'_>, report: &mut Report) {
    let (Some(left), Some(right)) = (pair.left.value(), pair.right.value()) else {
        let filtered = |node: &Node<'_>| node.value().is_some();
        let shown = |node: &Node<'_>| if filtered(node) { profile(node) } else { "no filter".to_owned() };
        report.push(
            draft("seccomp", pair)
                .texts(shown(&pair.left), shown(&pair.right))
                .verdict(Verdict::of_order(&!filtered(&pair.left), &!filtered(&pair.right)))
                .why("without a filter every system call of the kernel is open to the container"),
        );
        return;
    };
    for (verdict, names) in compare_policies(&Policy::of(left), &Policy::of(right)) {
        let named = |name: Option<String>| {
            name.map_or("every other system call".to_owned(), |name| escape(&name).into_owned())
        };
        let (label, reason) = meaning(verdict);
        let calls = count(names.len(), "system call", "system calls");
        report.push(
            draft(&format!("seccomp: {calls} {label}"), pair)
                .texts(profile(&pair.left), profile(&pair.right))
                .verdict(verdict)
                .why(reason)
                .detail(label, names.into_iter().map(named).collect()),
        );
    }
    compare_architectures(&pair.member("architectures"), report);
    compare_flags(&pair.member("flags"), report);
    let shape = ["linux", "seccomp"].iter().try_fold(&SPEC, |shape: &Shape, name| shape.member(name));
    let done = ["defaultAction", "defaultErrnoRet", "syscalls", "architectures", "flags"];
    walk_members(pair, shape, &done, report);
}

fn draft(subject: &str, pair: &Pair<'_>) -> Draft {
    let draft = Draft::new(Section::Seccomp, subject, pair).without_values();
    draft.kubernetes("securityContext.seccompProfile").kernel("Seccomp")
}

/// `SCMP_ACT_ERRNO, 61 rules`
fn profile(node: &Node<'_>) -> String {
    let default = node.member("defaultAction");
    format!(
        "{}, {}",
        escape(default.text_or_empty()),
        count(node.member("syscalls").items().len(), "rule", "rules")
    )
}

fn meaning(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::MorePermissive => ("allowed by the right only", "each system call is a way into the kernel"),
        Verdict::LessPermissive => ("allowed by the left only", "each system call is a way into the kernel"),
        Verdict::CannotTell => {
            ("under other conditions", "conditions on arguments, or another process, decide")
        }
        Verdict::Changed | Verdict::SameEffect => {
            ("answered otherwise", "let through or refused alike, with another errno, signal or log line")
        }
    }
}

/// Calls of an architecture that is not listed kill the process; no list is the native one.
fn compare_architectures(pair: &Pair<'_>, report: &mut Report) {
    let (left, right) = (pair.left.texts(), pair.right.texts());
    let reason = "a further architecture is a further entry to the kernel, with its own system call numbers";
    if left.is_empty() != right.is_empty() {
        let draft = Draft::new(Section::Seccomp, "seccomp architectures", pair);
        report
            .push(draft.verdict(Verdict::CannotTell).why("no list is the node's native architecture alone"));
        return;
    }
    SetDifference::of(&left, &right).report(report, Verdict::MorePermissive, || {
        let counted = |node: &Node<'_>| count(node.items().len(), "architecture", "architectures");
        Draft::new(Section::Seccomp, "seccomp architectures", pair)
            .texts(counted(&pair.left), counted(&pair.right))
            .why(reason)
    });
}

fn compare_flags(pair: &Pair<'_>, report: &mut Report) {
    let difference = SetDifference::of(&pair.left.texts(), &pair.right.texts());
    for (flags, label, gained) in
        [(difference.right_only, "right only", true), (difference.left_only, "left only", false)]
    {
        for flag in flags {
            let verdict = match (flag.as_str(), gained) {
                ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", true) => Verdict::MorePermissive,
                ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", false) => Verdict::LessPermissive,
                _ => Verdict::Changed,
            };
            let draft = Draft::new(Section::Seccomp, "seccomp flags", pair);
            report.push(
                draft
                    .verdict(verdict)
                    .why("SPEC_ALLOW switches off a protection against speculative execution; the others change no permission")
                    .detail(label, vec![flag]),
            );
        }
    }
}
