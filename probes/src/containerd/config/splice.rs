//! Text with recorded changes: what was replaced where, so that it can be taken back line by line.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Whole lines that were replaced: what an edit did, and what an undo needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hunk {
    /// The line above in the file before the edit; empty at the top.
    pub above: String,
    /// The lines that were there.
    pub removed: String,
    /// The lines that are there now.
    pub added: String,
}

/// A region of the current text and what stood there at first.
#[derive(Debug, Clone)]
struct Change {
    now: Range<usize>,
    original: String,
}

/// A text under edit.
#[derive(Debug, Clone)]
pub(super) struct Splicer {
    text: String,
    changes: Vec<Change>,
}

impl Splicer {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), changes: Vec::new() }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Replaces `range` of the current text. A range that touches an earlier change becomes part of it.
    pub(super) fn replace(&mut self, range: Range<usize>, with: &str) {
        let mut merged = Change { now: range.clone(), original: self.text[range.clone()].to_owned() };
        let mut rest = Vec::new();
        for change in self.changes.drain(..) {
            if change.now.start <= merged.now.end && merged.now.start <= change.now.end {
                merged = join(&self.text, change, merged);
            } else {
                rest.push(change);
            }
        }
        self.text.replace_range(range.clone(), with);
        for change in &mut rest {
            if change.now.start >= range.end {
                change.now = shift(change.now.start, &range, with)..shift(change.now.end, &range, with);
            }
        }
        merged.now.end = shift(merged.now.end, &range, with);
        rest.push(merged);
        rest.sort_by_key(|change| change.now.start);
        self.changes = rest;
    }

    /// The changes as whole lines, top to bottom; changes on one line are one.
    pub(super) fn hunks(&self) -> Vec<Hunk> {
        let mut lines: Vec<Change> = Vec::new();
        for change in &self.changes {
            match lines.last_mut() {
                Some(last) if !self.text[last.now.end..change.now.start].contains('\n') => {
                    last.original.push_str(&self.text[last.now.end..change.now.start]);
                    last.original.push_str(&change.original);
                    last.now.end = change.now.end;
                }
                _ => lines.push(change.clone()),
            }
        }
        let whole = lines.iter().map(|change| self.whole_lines(change));
        whole.map(|change| self.hunk(&change)).filter(|hunk| hunk.removed != hunk.added).collect()
    }

    fn whole_lines(&self, change: &Change) -> Change {
        let start = self.text[..change.now.start].rfind('\n').map_or(0, |at| at + 1);
        let ends_a_line = change.now.end > start && self.text[..change.now.end].ends_with('\n');
        let originally = change.original.is_empty() || change.original.ends_with('\n');
        let end = if ends_a_line && originally {
            change.now.end
        } else {
            self.text[change.now.end..].find('\n').map_or(self.text.len(), |at| change.now.end + at + 1)
        };
        let head = &self.text[start..change.now.start];
        let tail = &self.text[change.now.end..end];
        Change { now: start..end, original: format!("{head}{}{tail}", change.original) }
    }

    fn hunk(&self, change: &Change) -> Hunk {
        let above = &self.text[..change.now.start];
        let above =
            above.strip_suffix('\n').map_or("", |text| &text[text.rfind('\n').map_or(0, |at| at + 1)..]);
        Hunk {
            above: above.to_owned(),
            removed: change.original.clone(),
            added: self.text[change.now.clone()].to_owned(),
        }
    }
}

/// The union of an earlier change and a new one that touch, in the text before the new one is applied.
fn join(text: &str, earlier: Change, new: Change) -> Change {
    let start = earlier.now.start.min(new.now.start);
    let end = earlier.now.end.max(new.now.end);
    let head = &text[start..earlier.now.start];
    let tail = &text[earlier.now.end..end];
    Change { now: start..end, original: format!("{head}{}{tail}", earlier.original) }
}

fn shift(at: usize, range: &Range<usize>, with: &str) -> usize {
    at + with.len() - range.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_value_and_an_inserted_line_are_two_hunks() {
        let mut splicer = Splicer::new("a = 1 # one\nb = 2\nc = 3\n");
        splicer.replace(4..5, "10");
        splicer.replace(25..25, "d = 4\n");
        assert_eq!(splicer.text(), "a = 10 # one\nb = 2\nc = 3\nd = 4\n");
        let hunks = splicer.hunks();
        assert_eq!(hunks.len(), 2, "{hunks:?}");
        assert_eq!((hunks[0].removed.as_str(), hunks[0].added.as_str()), ("a = 1 # one\n", "a = 10 # one\n"));
        assert_eq!((hunks[1].removed.as_str(), hunks[1].added.as_str()), ("", "d = 4\n"));
        assert_eq!(hunks[1].above, "c = 3");
    }

    #[test]
    fn a_text_without_last_newline_is_taken_back_exactly() {
        let mut splicer = Splicer::new("a = 1");
        splicer.replace(5..5, "\nb = 2");
        let hunks = splicer.hunks();
        assert_eq!((hunks[0].removed.as_str(), hunks[0].added.as_str()), ("a = 1", "a = 1\nb = 2"));
    }

    #[test]
    fn an_insertion_into_an_insertion_is_one_hunk() {
        let mut splicer = Splicer::new("x\n");
        splicer.replace(2..2, "[t]\n");
        splicer.replace(6..6, "k = 1\n");
        splicer.replace(2..2, "[s]\n");
        assert_eq!(splicer.hunks().len(), 1);
        assert_eq!(splicer.hunks()[0].added, "[s]\n[t]\nk = 1\n");
        assert_eq!(splicer.hunks()[0].removed, "");
    }
}
