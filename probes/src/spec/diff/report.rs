//! Collecting changes.

use std::collections::BTreeSet;

use super::pair::{Node, Pair};
use super::text::show;
use crate::spec::change::{Change, Detail, Fold, Section, Side, Verdict};
use crate::spec::joined::JoinedNamespaces;

/// The changes found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    changes: Vec<Change>,
    /// What is known of the namespaces that the left and the right spec join.
    pub(super) left_joins: JoinedNamespaces,
    pub(super) right_joins: JoinedNamespaces,
}

impl Report {
    pub(super) fn knowing(left_joins: JoinedNamespaces, right_joins: JoinedNamespaces) -> Self {
        Self { changes: Vec::new(), left_joins, right_joins }
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn push(&mut self, draft: Draft) {
        self.changes.push(draft.change);
    }

    /// In the order of the sections; within one, in the order in which they were found.
    pub(super) fn into_changes(mut self) -> Vec<Change> {
        self.changes.sort_by_key(|change| change.section);
        self.changes
    }
}

/// A change being written.
#[derive(Debug)]
pub(super) struct Draft {
    change: Change,
}

impl Draft {
    /// A change of a place, its sides shown as they are; `Changed` until a verdict is given.
    pub(super) fn new(section: Section, subject: impl Into<String>, pair: &Pair<'_>) -> Self {
        Self {
            change: Change {
                section,
                subject: subject.into(),
                left: side(&pair.left),
                right: side(&pair.right),
                verdict: Verdict::Changed,
                reason: String::new(),
                details: Vec::new(),
                kubernetes: None,
                kernel: None,
                fold: None,
            },
        }
    }

    pub(super) fn texts(mut self, left: impl Into<String>, right: impl Into<String>) -> Self {
        self.change.left.text = left.into();
        self.change.right.text = right.into();
        self
    }

    /// Leaves the values out: they are long, and the details say what differs.
    pub(super) fn without_values(mut self) -> Self {
        self.change.left.value = None;
        self.change.right.value = None;
        self
    }

    /// Sets the verdict; the same effect is not listed.
    pub(super) fn verdict(mut self, verdict: Verdict) -> Self {
        self.change.verdict = verdict;
        if verdict == Verdict::SameEffect && self.change.fold.is_none() {
            self.change.fold = Some(Fold::NoEffect);
        }
        self
    }

    pub(super) fn why(mut self, reason: impl Into<String>) -> Self {
        self.change.reason = reason.into();
        self
    }

    pub(super) fn kubernetes(mut self, field: &'static str) -> Self {
        self.change.kubernetes = Some(field);
        self
    }

    pub(super) fn kernel(mut self, interface: &'static str) -> Self {
        self.change.kernel = Some(interface);
        self
    }

    pub(super) fn detail(mut self, label: impl Into<String>, items: Vec<String>) -> Self {
        self.change.details.push(Detail { label: label.into(), items });
        self
    }

    pub(super) fn fold(mut self, fold: Fold) -> Self {
        self.change.fold = Some(fold);
        self
    }

    /// An id or a name of this one container: the same effect, and noise.
    pub(super) fn identity(self) -> Self {
        self.fold(Fold::Identity).verdict(Verdict::SameEffect)
    }
}

fn side(node: &Node<'_>) -> Side {
    let value = node.value().cloned();
    let text = value.as_ref().map_or_else(|| "-".to_owned(), show);
    Side { pointer: value.as_ref().map(|_| node.pointer.clone()), value, text }
}

/// What two sets do not share.
#[derive(Debug, Default)]
pub(super) struct SetDifference {
    pub(super) left_only: Vec<String>,
    pub(super) right_only: Vec<String>,
}

impl SetDifference {
    pub(super) fn of<T: AsRef<str>>(left: &[T], right: &[T]) -> Self {
        let in_left: BTreeSet<&str> = left.iter().map(AsRef::as_ref).collect();
        let in_right: BTreeSet<&str> = right.iter().map(AsRef::as_ref).collect();
        let shown = |text: &&str| crate::escape::escape(text).into_owned();
        Self {
            left_only: in_left.difference(&in_right).map(shown).collect(),
            right_only: in_right.difference(&in_left).map(shown).collect(),
        }
    }

    /// One draft for what the right has more, one for what it has less; `gained` is the verdict of the first.
    pub(super) fn report(self, report: &mut Report, gained: Verdict, draft: impl Fn() -> Draft) {
        if !self.right_only.is_empty() {
            report.push(draft().verdict(gained).detail("right only", self.right_only));
        }
        if !self.left_only.is_empty() {
            report.push(draft().verdict(gained.mirrored()).detail("left only", self.left_only));
        }
    }
}
