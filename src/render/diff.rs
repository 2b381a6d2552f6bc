//! Unified diffs.

use std::path::Path;

use similar::TextDiff;

/// Lines around a change that are shown with it.
const CONTEXT: usize = 3;

/// A unified diff from `before` to `after` of the file at `path`; empty when they are the same.
pub(crate) fn render_unified(path: &Path, before: &str, after: &str) -> String {
    let shown = path.display().to_string();
    let diff = TextDiff::from_lines(before, after);
    let text = diff.unified_diff().context_radius(CONTEXT).header(&shown, &shown).to_string();
    // The text goes to a terminal: line by line, with what could command it escaped.
    text.lines().map(|line| format!("{}\n", inspect_probes::escape::escape(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_shows_changes_with_context_and_never_obeys_them() {
        let diff = render_unified(Path::new("/etc/x"), "a\nb\nc\n", "a\nB\x1b[2J\nc\n");
        assert_eq!(diff, "--- /etc/x\n+++ /etc/x\n@@ -1,3 +1,3 @@\n a\n-b\n+B\\x1b[2J\n c\n");
        assert_eq!(render_unified(Path::new("/etc/x"), "a\n", "a\n"), "");
    }
}
