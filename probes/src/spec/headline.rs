//! The first lines of a comparison: what everybody looks at first, the same or not.

use serde::Serialize;
use serde_json::Value;

use super::change::Verdict;
use super::diff::{diff, summary};

/// One line: what each side has, and what that means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeadlineRow {
    /// `ociVersion`, `args`, `user`, `terminal`, `capabilities`.
    pub subject: &'static str,
    /// The left side, escaped.
    pub left: String,
    /// The right side, escaped.
    pub right: String,
    /// `None` when the sides are the same.
    pub verdict: Option<Verdict>,
}

/// The headline of a comparison.
#[must_use]
pub fn headline(left: &Value, right: &Value) -> Vec<HeadlineRow> {
    let changes = diff(left, right);
    let rows = summary::ROWS.iter().map(|row| {
        let verdicts = changes.iter().filter(|change| change.is_listed() && row.concerns(change));
        HeadlineRow {
            subject: row.subject,
            left: (row.show)(left),
            right: (row.show)(right),
            verdict: verdicts.map(|change| change.verdict).max(),
        }
    });
    rows.collect()
}

/// What each row of the headline shows for one spec.
pub(super) fn show_rows(spec: &Value) -> Vec<(&'static str, String)> {
    summary::ROWS.iter().map(|row| (row.subject, (row.show)(spec))).collect()
}
