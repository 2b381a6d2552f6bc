//! What a user sees when a command cannot do what was asked: message, causes, hints, exit status.

use std::error::Error;
use std::fmt;

/// The kind of trouble: it decides the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// What was typed does not make sense: status 2.
    Usage,
    /// The host, a file or a daemon did not allow it: status 2.
    Trouble,
    /// A bug of ours: status 70 (`EX_SOFTWARE` of sysexits.h).
    Bug,
}

/// An error on its way to the terminal.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) kind: ErrorKind,
    pub(crate) source: Box<dyn Error + Send + Sync>,
    pub(crate) hints: Vec<String>,
}

impl CommandError {
    pub(crate) fn new(kind: ErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, source: source.into(), hints: Vec::new() }
    }

    /// Trouble with the host, a file or a daemon.
    pub(crate) fn trouble(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Trouble, source)
    }

    /// What was typed does not make sense.
    pub(crate) fn usage(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Usage, source)
    }

    /// Adds a hint: what to do next, pasteable.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The exit status of the program.
    pub(crate) fn status(&self) -> u8 {
        match self.kind {
            ErrorKind::Usage | ErrorKind::Trouble => 2,
            ErrorKind::Bug => 70,
        }
    }

    /// The causes below the message, outermost first.
    pub(crate) fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut cause = self.source.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        causes
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_decides_the_status() {
        assert_eq!(CommandError::usage("x").status(), 2);
        assert_eq!(CommandError::trouble("x").status(), 2);
        assert_eq!(CommandError::new(ErrorKind::Bug, "x").status(), 70);
    }
}
