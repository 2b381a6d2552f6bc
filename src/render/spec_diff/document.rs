//! The comparison for programs; docs/diff-spec.md tells the format.

use inspect_probes::spec::{Change, HeadlineRow, Verdict};
use serde::Serialize;

use super::SpecDiff;

/// The JSON document.
#[derive(Serialize)]
pub(crate) struct Document<'a> {
    left: &'a str,
    right: &'a str,
    /// `null`: the same in effect.
    overall: Option<Verdict>,
    headline: &'a [HeadlineRow],
    changes: Vec<&'a Change>,
    /// How many differences have no effect, listed (`--all`) or not.
    without_effect: usize,
    notes: &'a [String],
}

impl SpecDiff {
    pub(crate) fn document(&self, all: bool) -> Document<'_> {
        Document {
            left: &self.left,
            right: &self.right,
            overall: self.comparison.overall,
            headline: &self.headline,
            changes: self.shown(all).collect(),
            without_effect: self.comparison.folded(),
            notes: &self.notes,
        }
    }
}
