//! The only writer to the terminal: colour, width, broken pipes, errors.

use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::process::{ExitCode, Stdio};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::ColorChoice;
use crate::error::CommandError;

/// How a command ended that did what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Done, or "the same": 0.
    Success,
    /// "No", or "different": 1.
    Negative,
    /// A status of the command's own, said in its help.
    Code(u8),
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(match status {
            Status::Success => 0,
            Status::Negative => 1,
            Status::Code(code) => code,
        })
    }
}

/// Standard output and standard error, with what is known of the terminal behind them.
#[derive(Debug)]
pub(crate) struct Output {
    color: bool,
    terminal: bool,
    width: Option<usize>,
    reader_gone: bool,
}

impl Output {
    /// Looks at the terminal and at `NO_COLOR` (no-color.org), `COLUMNS`.
    pub(crate) fn from_terminal(choice: ColorChoice) -> Self {
        let terminal = io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !no_color,
        };
        Self { color, terminal, width: terminal_width(terminal), reader_gone: false }
    }

    /// Whether to colour.
    pub(crate) fn color(&self) -> bool {
        self.color
    }

    /// Whether standard output is a terminal: what is shown can be overwritten.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The columns to fit in; `None` when the output is not a terminal: then nothing is folded.
    pub(crate) fn width(&self) -> Option<usize> {
        self.width
    }

    /// Writes to standard output. A reader that went away (`| head`) ends the program quietly, as it ends others.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), CommandError> {
        self.print_bytes(text.as_bytes())
    }

    /// [`Self::print`] for what a container wrote to its own terminal, which passes as it is.
    pub(crate) fn print_bytes(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(CommandError::trouble(format!("cannot write to standard output: {error}")))
            }
            written => {
                self.reader_gone |= written.is_err();
                Ok(())
            }
        }
    }

    /// Writes a picture that replaces the last one: on a terminal in its place, otherwise below it.
    pub(crate) fn redraw(&mut self, text: &str) -> Result<(), CommandError> {
        // ED and CUP of ECMA-48: erase the screen, go to its upper left corner.
        let text = if self.terminal { format!("\x1b[2J\x1b[H{text}") } else { format!("{text}\n") };
        self.print(&text)
    }

    /// Whether nobody reads standard output any more: what would follow for ever ends then.
    pub(crate) fn is_reader_gone(&self) -> bool {
        self.reader_gone
    }

    /// Writes a line of progress or a warning to standard error.
    pub(crate) fn note(&mut self, line: &str) {
        write_stderr(&format!("{line}\n"));
    }

    /// A bar of bytes on standard error while something is read; nothing is shown where that is no terminal.
    pub(crate) fn progress(&self, total: u64, verb: &'static str) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let template = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {eta}";
        // The template is constant: where it does not parse, the bar's own default does.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_message(verb);
        Progress { bar }
    }

    /// Reports an error and gives the exit status.
    pub(crate) fn report(&mut self, error: &CommandError) -> ExitCode {
        let mut text = format!("error: {error}\n");
        for cause in error.causes() {
            text.push_str(&format!("caused by: {cause}\n"));
        }
        for hint in &error.hints {
            text.push_str(&format!("hint: {hint}\n"));
        }
        write_stderr(&text);
        ExitCode::from(error.status())
    }
}

/// Our standard error as the standard output of a command that we run, so that ours stays one document.
pub(crate) fn stderr_of_child() -> Result<Stdio, CommandError> {
    io::stderr().as_fd().try_clone_to_owned().map(Stdio::from).map_err(CommandError::trouble)
}

/// A bar that is wiped when it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// How many bytes are done.
    pub(crate) fn set(&self, bytes: u64) {
        if self.bar.position() != bytes {
            self.bar.set_position(bytes);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Prints clap's help, version or refusal: help and version succeed, a refusal is status 2.
pub(crate) fn print_usage(refusal: &clap::Error) -> ExitCode {
    // Where even this cannot be written there is nobody to tell: the status still says it.
    match refusal.print() {
        Ok(()) | Err(_) => ExitCode::from(if refusal.use_stderr() { 2 } else { 0 }),
    }
}

/// Writes a line to standard error where there is no `Output`: the stand-in for runc.
pub(crate) fn note_without_terminal(line: &str) {
    write_stderr(&format!("{line}\n"));
}

/// Standard error is the last resort: a failure to write there can be told to nobody.
fn write_stderr(text: &str) {
    match io::stderr().lock().write_all(text.as_bytes()) {
        Ok(()) | Err(_) => {}
    }
}

fn terminal_width(terminal: bool) -> Option<usize> {
    if let Some(columns) = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()) {
        return Some(columns).filter(|columns| *columns > 0);
    }
    if !terminal {
        return None;
    }
    rustix::termios::tcgetwinsize(io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
}
