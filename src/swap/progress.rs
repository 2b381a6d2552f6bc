//! What is being done, line by line and for the report.

use std::time::Instant;

use serde::Serialize;

use crate::output::Output;

/// A step that was done.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Step {
    pub(crate) step: String,
    pub(crate) milliseconds: u128,
}

/// Says each step on standard error as it begins, and keeps them for the report.
pub(crate) struct Progress<'a> {
    output: &'a mut Output,
    steps: Vec<Step>,
    begun: Option<(String, Instant)>,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(output: &'a mut Output) -> Self {
        Self { output, steps: Vec::new(), begun: None }
    }

    /// A step begins, and the one before has ended.
    pub(crate) fn step(&mut self, what: impl Into<String>) {
        self.end();
        let what = what.into();
        self.output.note(&format!("{what} ..."));
        self.begun = Some((what, Instant::now()));
    }

    /// Something to know that is no step.
    pub(crate) fn note(&mut self, what: &str) {
        self.output.note(what);
    }

    /// The steps so far.
    pub(crate) fn finish(&mut self) -> Vec<Step> {
        self.end();
        std::mem::take(&mut self.steps)
    }

    fn end(&mut self) {
        if let Some((step, start)) = self.begun.take() {
            self.steps.push(Step { step, milliseconds: start.elapsed().as_millis() });
        }
    }
}
