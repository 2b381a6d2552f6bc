//! The lab's one writer: what it is doing, as spinners on a terminal and as plain lines elsewhere.

use std::error::Error as _;
use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::error::LabError;

/// Where progress goes: standard error, so that standard output stays the command's own.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    bars: Option<MultiProgress>,
}

/// One piece of work under way. Dropped without [`Step::done`], it says that it did not finish.
#[derive(Debug)]
pub(crate) struct Step {
    progress: Progress,
    label: String,
    begun: Instant,
    bar: Option<ProgressBar>,
    open: bool,
}

impl Progress {
    /// Spinners when standard error is a terminal, plain lines otherwise.
    pub(crate) fn new() -> Self {
        Self { bars: io::stderr().is_terminal().then(MultiProgress::new) }
    }

    /// Begins a step and says so.
    pub(crate) fn begin(&self, label: impl Into<String>) -> Step {
        let label = label.into();
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            let style = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_message(label.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            self.line(&format!("lab: {label} ..."));
        }
        Step { progress: self.clone(), label, begun: Instant::now(), bar, open: true }
    }

    /// One line on standard error, above the spinners.
    pub(crate) fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| write_line(io::stderr(), text)),
            None => write_line(io::stderr(), text),
        }
    }

    /// One line on standard output: results, tables.
    pub(crate) fn result(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| write_line(io::stdout(), text)),
            None => write_line(io::stdout(), text),
        }
    }
}

impl Progress {
    /// An error with its causes, as `inspect` itself reports one.
    pub(crate) fn report(&self, error: &LabError) {
        self.line(&format!("error: {error}"));
        let mut cause = error.source();
        while let Some(inner) = cause {
            self.line(&format!("caused by: {inner}"));
            cause = inner.source();
        }
    }
}

impl Step {
    /// What the step is at now. Shown on a terminal only: it may change many times a second.
    pub(crate) fn update(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {text}", self.label));
        }
    }

    /// The step is done; `note` says what came of it.
    pub(crate) fn done(mut self, note: &str) {
        let separator = if note.is_empty() { "" } else { ": " };
        self.close(&format!("{}{separator}{note}", self.label));
    }

    fn close(&mut self, text: &str) {
        self.open = false;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.progress.line(&format!("lab: {text} ({:.1} s)", self.begun.elapsed().as_secs_f64()));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.open {
            let text = format!("{}: not finished", self.label);
            self.close(&text);
        }
    }
}

/// A reader that went away (a closed pipe) is no reason to fail.
fn write_line(mut to: impl io::Write, text: &str) {
    drop(writeln!(to, "{text}").and_then(|()| to.flush()));
}
