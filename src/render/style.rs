//! Text styles by meaning, so that a colour is chosen once: SGR sequences of ECMA-48, or none.

/// Styles text, or leaves it plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    color: bool,
}

impl Style {
    /// Styles when `color`, otherwise every method gives its text back.
    pub(crate) fn new(color: bool) -> Self {
        Self { color }
    }

    /// A heading, or the name that the line is about.
    pub(crate) fn strong(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// Detail that may be skipped.
    pub(crate) fn faint(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// Good: running, same, proven.
    pub(crate) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// Worth a look: changed, inferred, paused.
    pub(crate) fn warning(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// Bad: dead, weaker, orphaned.
    pub(crate) fn bad(self, text: &str) -> String {
        self.wrap("31", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_output_carries_no_escape() {
        assert_eq!(Style::new(false).bad("x"), "x");
        assert_eq!(Style::new(true).bad("x"), "\x1b[31mx\x1b[0m");
    }
}
