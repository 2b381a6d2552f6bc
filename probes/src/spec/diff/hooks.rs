//! Hooks: programs that run around the container's own, all but startContainer's from the host's files.

use super::pair::{Node, Pair, text_member};
use super::report::{Draft, Report};
use super::text::count;
use crate::escape::escape;
use crate::spec::change::{Section, Verdict};

pub(super) fn compare_hooks(pair: &Pair<'_>, report: &mut Report) {
    let stage = pair.left.pointer.rsplit('/').next().unwrap_or_default();
    let items = pair.items_by_key(|item| text_member(item, "path"));
    let mut last_right = None;
    let mut reordered = false;
    for item in &items {
        let subject = format!("{stage} hook {}", escape(&item.key));
        if item.left.is_none() || item.right.is_none() {
            let runs = |there: bool| if there { "runs" } else { "-" };
            let verdict = match stage {
                "startContainer" => Verdict::Changed,
                _ => Verdict::of_order(&item.left.is_some(), &item.right.is_some()),
            };
            let draft = Draft::new(Section::Hooks, subject, &item.pair);
            report.push(
                draft
                    .texts(runs(item.left.is_some()), runs(item.right.is_some()))
                    .verdict(verdict)
                    .why(reason(stage)),
            );
            continue;
        }
        if !item.pair.is_identical() {
            let draft = Draft::new(Section::Hooks, &subject, &item.pair)
                .texts(invocation(&item.pair.left), invocation(&item.pair.right));
            report.push(
                draft
                    .verdict(Verdict::CannotTell)
                    .why("other arguments, environment or timeout for the same program"),
            );
        }
        reordered |= last_right > item.right;
        last_right = last_right.max(item.right);
    }
    if reordered {
        let draft = Draft::new(Section::Hooks, format!("{stage} hooks"), pair);
        report.push(
            draft
                .texts(order(&pair.left), order(&pair.right))
                .why("hooks of a stage run in the order of the list"),
        );
    }
}

/// The programs in their order.
fn order(node: &Node<'_>) -> String {
    let paths: Vec<_> =
        node.items().iter().map(|hook| escape(&text_member(hook, "path")).into_owned()).collect();
    paths.join(", then ")
}

/// Arguments and time limit; the environment may hold secrets and is only counted.
fn invocation(node: &Node<'_>) -> String {
    let arguments: Vec<_> = node.member("args").texts().iter().map(|argument| escape(argument)).collect();
    let timeout = node.member("timeout").integer().map_or(String::new(), |seconds| format!(", {seconds} s"));
    let variables = count(node.member("env").items().len(), "variable", "variables");
    format!("[{}], {variables}{timeout}", arguments.join(" "))
}

fn reason(stage: &str) -> &'static str {
    match stage {
        "startContainer" => "it runs inside the container, before the container's own program",
        "createContainer" => {
            "it runs a program of the host, as root, in the container's namespaces before its root is changed"
        }
        _ => "it runs a program of the host, as root, in the host's namespaces",
    }
}
