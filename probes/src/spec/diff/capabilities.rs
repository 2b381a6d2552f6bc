//! process.capabilities: five sets (capabilities(7)).
//!
//! Bounding, effective and permitted nearly always move together; then they are one change, counted as people count
//! them. Without the object a process has no capability at all, which runc and crun agree on.

use super::pair::{Node, Pair};
use super::report::{Draft, Report, SetDifference};
use super::text::count;
use super::walk_unknown;
use crate::spec::change::{Section, Verdict};

const TOGETHER: [&str; 3] = ["bounding", "effective", "permitted"];
const ALL: [&str; 5] = ["bounding", "effective", "permitted", "inheritable", "ambient"];

pub(super) fn compare_capabilities(pair: &Pair<'_>, report: &mut Report) {
    let sets = TOGETHER.map(|name| pair.member(name));
    let alike = |side: fn(&Pair<'_>) -> Vec<String>| {
        let first = side(&sets[0]);
        sets.iter().all(|set| side(set) == first)
    };
    let together = alike(|set| sorted(&set.left)) && alike(|set| sorted(&set.right));
    if together {
        let texts = (counted(&sets[0].left), counted(&sets[0].right));
        compare_set(&sets[0], report, || {
            Draft::new(Section::Capabilities, "capabilities", pair).texts(&texts.0, &texts.1)
        });
    }
    for name in ALL {
        if !(together && TOGETHER.contains(&name)) {
            let set = pair.member(name);
            compare_set(&set, report, || {
                let draft = Draft::new(Section::Capabilities, format!("{name} capabilities"), &set);
                draft.texts(counted(&set.left), counted(&set.right))
            });
        }
    }
    walk_unknown(pair, &ALL, report);
}

fn compare_set(set: &Pair<'_>, report: &mut Report, draft: impl Fn() -> Draft) {
    let difference = SetDifference::of(&set.left.texts(), &set.right.texts());
    difference.report(report, Verdict::MorePermissive, || {
        draft()
            .why("each capability is one part of root's power over the kernel; root in the container has those of the set and no others")
            .kubernetes("securityContext.capabilities")
            .kernel("CapBnd, CapEff, CapPrm, CapInh, CapAmb")
    });
}

fn sorted(node: &Node<'_>) -> Vec<String> {
    let mut names: Vec<String> = node.texts().iter().map(|name| (*name).to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

/// A set as people count it: `3 capabilities`.
pub(super) fn counted(node: &Node<'_>) -> String {
    count(sorted(node).len(), "capability", "capabilities")
}
