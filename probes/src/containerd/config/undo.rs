//! Takes an edit back out of a file that may have changed since: only the edit's own lines go.

use thiserror::Error;

use super::splice::Hunk;

/// Lines of ours that are no longer there as they were written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UndoError {
    /// Somebody changed or removed them.
    #[error("cannot find the lines that the swap wrote: {}", crate::escape::quote(first_line.as_bytes()))]
    LinesGone {
        /// The first of them that says something.
        first_line: String,
    },
    /// They are there more than once, and nothing tells which are ours.
    #[error("cannot tell which lines the swap wrote, they are there {count} times: {}", crate::escape::quote(first_line.as_bytes()))]
    LinesRepeated {
        /// The first of them that says something.
        first_line: String,
        /// How often.
        count: usize,
    },
}

/// The text without the edit's own lines: for each hunk its `added` lines become its `removed` lines again.
pub fn undo_lines(text: &str, hunks: &[Hunk]) -> Result<String, UndoError> {
    let mut text = text.to_owned();
    // From the bottom up, so that what is found is not moved by what was done.
    for hunk in hunks.iter().rev() {
        let at = locate(&text, hunk)?;
        text.replace_range(at..at + hunk.added.len(), &hunk.removed);
    }
    Ok(text)
}

/// Whether nothing of the edit is left in the text, however it is indented: none of the tables that it began, and none of its
/// lines where it began none.
#[must_use]
pub fn is_gone(text: &str, hunks: &[Hunk]) -> bool {
    let added: Vec<&str> = hunks.iter().flat_map(|hunk| hunk.added.lines()).map(str::trim).collect();
    let begins_table = |line: &&str| line.starts_with('[');
    let begun = added.iter().any(begins_table);
    let mut telling = added.iter().filter(|line| !line.is_empty() && (!begun || begins_table(line)));
    telling.all(|ours| text.lines().all(|line| line.trim() != *ours))
}

fn locate(text: &str, hunk: &Hunk) -> Result<usize, UndoError> {
    let first_line = || hunk.added.lines().find(|line| !line.trim().is_empty()).unwrap_or("").to_owned();
    let found: Vec<usize> = text
        .match_indices(&hunk.added)
        .map(|(at, _)| at)
        .filter(|at| *at == 0 || text[..*at].ends_with('\n'))
        .collect();
    match found[..] {
        [] => Err(UndoError::LinesGone { first_line: first_line() }),
        [at] => Ok(at),
        _ => {
            let below = |at: &usize| {
                text[..*at].lines().next_back().unwrap_or("") == hunk.above.trim_end_matches('\r')
            };
            let ours: Vec<_> = found.iter().copied().filter(below).collect();
            match ours[..] {
                [at] => Ok(at),
                _ => Err(UndoError::LinesRepeated { first_line: first_line(), count: found.len() }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hunk(above: &str, removed: &str, added: &str) -> Hunk {
        Hunk { above: above.to_owned(), removed: removed.to_owned(), added: added.to_owned() }
    }

    #[test]
    fn only_our_lines_go() {
        let hunks = [hunk("a", "b = 1\n", "b = 2\n"), hunk("z", "", "[t]\nk = 1\n")];
        let edited = "# new\na\nb = 2\nz\n[t]\nk = 1\n# later\n";
        assert_eq!(undo_lines(edited, &hunks).unwrap(), "# new\na\nb = 1\nz\n# later\n");
    }

    #[test]
    fn lines_that_somebody_changed_are_refused() {
        let hunks = [hunk("z", "", "[t]\nk = 1\n")];
        assert!(matches!(undo_lines("[t]\nk = 2\n", &hunks), Err(UndoError::LinesGone { .. })));
    }

    #[test]
    fn an_edit_is_gone_when_its_tables_are() {
        let hunks = [hunk("", "", "d = \"crun\"\n"), hunk("z", "", "  [t.crun]\n    k = 1\n")];
        assert!(is_gone("[t.runc]\nk = 1\n", &hunks));
        assert!(!is_gone("[t.crun]\nk = 2\n", &hunks));
        assert!(is_gone("d = \"runc\"\n", &hunks[..1]) && !is_gone("  d = \"crun\"\n", &hunks[..1]));
    }

    #[test]
    fn the_line_above_decides_between_equals() {
        let hunks = [hunk("two", "", "x = 1\n")];
        assert_eq!(undo_lines("one\nx = 1\ntwo\nx = 1\n", &hunks).unwrap(), "one\nx = 1\ntwo\n");
        let nowhere = [hunk("six", "", "x = 1\n")];
        let repeated = undo_lines("one\nx = 1\ntwo\nx = 1\n", &nowhere);
        assert!(matches!(repeated, Err(UndoError::LinesRepeated { count: 2, .. })));
    }
}
