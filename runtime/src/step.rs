//! One step of setting up a container that failed: which operation, on what, and why.

use std::fmt::Display;
use std::io;

/// A step that failed. Made on the way out only: steps that succeed allocate nothing.
#[derive(Debug)]
pub(crate) struct StepError {
    operation: &'static str,
    object: String,
    source: io::Error,
}

/// The program that cannot be found is told in runc's words, which its callers look for.
pub(crate) const FIND_PROGRAM: &str = "exec:";
/// The same of a program that the kernel refuses.
pub(crate) const EXECUTE: &str = "exec";

impl Display for StepError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let StepError { operation, object, .. } = self;
        match *operation {
            FIND_PROGRAM => write!(formatter, "exec: {object:?}"),
            EXECUTE => write!(formatter, "exec {object}"),
            operation => write!(formatter, "cannot {operation} `{object}`"),
        }
    }
}

impl std::error::Error for StepError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl StepError {
    /// For an object that fails a check rather than a system call.
    pub(crate) fn refused(operation: &'static str, object: impl Display, reason: &'static str) -> Self {
        StepError { operation, object: object.to_string(), source: io::Error::other(reason) }
    }
}

impl StepError {
    /// Whether what was asked for is in use.
    pub(crate) fn is_busy(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EBUSY)
    }

    /// Whether the caller lacks the right.
    pub(crate) fn is_permission(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EPERM)
    }
}

/// Names the step that a system call was for.
pub(crate) trait Step<T> {
    /// `operation` is a verb, `object` what it was done to.
    fn step(self, operation: &'static str, object: impl Display) -> Result<T, StepError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, operation: &'static str, object: impl Display) -> Result<T, StepError> {
        self.map_err(|error| StepError { operation, object: object.to_string(), source: error.into() })
    }
}

/// An error's text with those of its causes, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&describe(cause));
        next = cause.source();
    }
    text
}

/// A text for a terminal or a log of lines: names that come from a container or its image may hold control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, letter| {
        if letter.is_control() {
            shown.extend(letter.escape_default())
        } else {
            shown.push(letter)
        }
        shown
    })
}

/// Rust adds `(os error 2)` to the kernel's reasons; runc's callers look for the bare text in lower case.
pub(crate) fn describe(cause: &dyn std::error::Error) -> String {
    let text = cause.to_string();
    match (text.rfind(" (os error "), text.chars().next()) {
        (Some(end), Some(first)) => {
            let lower = first.to_lowercase().to_string();
            format!("{lower}{}", &text[first.len_utf8()..end])
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_reads_as_runc_writes_it() {
        let failed: Result<(), StepError> =
            Err(io::Error::from_raw_os_error(libc::ENOENT)).step("open", "/a");
        assert_eq!(chain(&failed.unwrap_err()), "cannot open `/a`: no such file or directory");
        let absent = StepError::refused(FIND_PROGRAM, "x", "executable file not found in $PATH");
        assert_eq!(chain(&absent), "exec: \"x\": executable file not found in $PATH");
    }

    #[test]
    fn control_characters_reach_no_terminal() {
        assert_eq!(printable("`/a\u{1b}[31m\nb\u{9b}ä`"), "`/a\\u{1b}[31m\\nb\\u{9b}ä`");
    }
}
