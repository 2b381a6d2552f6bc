//! The log, a file or stderr, in runc's two formats. The last line at level `error` is what containerd's shim shows the user.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use crate::cli::LogFormat;
use crate::time;

/// Where and how to log.
#[derive(Debug)]
pub(crate) struct Log {
    path: Option<PathBuf>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    /// A log into `path`, or none. The file is opened when there is something to write.
    #[must_use]
    pub(crate) fn new(path: Option<PathBuf>, format: LogFormat, debug: bool) -> Self {
        Log { path, format, debug }
    }

    /// Writes why a command failed. A log that cannot be written leaves stderr as the only place, where it goes anyway.
    pub(crate) fn error(&self, message: &str) {
        self.write("error", message);
    }

    /// Writes what will not have the effect that somebody might expect.
    pub(crate) fn warning(&self, message: &str) {
        self.write("warning", message);
    }

    /// Several of those.
    pub(crate) fn warnings(&self, messages: impl IntoIterator<Item = String>) {
        messages.into_iter().for_each(|message| self.warning(&message));
    }

    /// Writes what is done, with `--debug`.
    pub(crate) fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
        }
    }

    fn write(&self, level: &str, message: &str) {
        let line = format_line(self.format, level, message, &time::now());
        let Some(path) = &self.path else {
            // Whoever calls writes errors there as well, in a form of its own.
            if level != "error" {
                std::io::stderr().write_all(line.as_bytes()).ok();
            }
            return;
        };
        let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
        if let Ok(mut file) = file {
            // One write, so that lines of several calls do not mix.
            file.write_all(line.as_bytes()).ok();
        }
    }
}

fn format_line(format: LogFormat, level: &str, message: &str, time: &str) -> String {
    match format {
        LogFormat::Json => {
            let message = serde_json::Value::from(message);
            format!("{{\"level\":\"{level}\",\"msg\":{message},\"time\":\"{time}\"}}\n")
        }
        LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_runcs() {
        let json = format_line(LogFormat::Json, "error", "a \"b\"\nc", "T");
        assert_eq!(json, "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\\nc\",\"time\":\"T\"}\n");
        let text = format_line(LogFormat::Text, "error", "a \"b\"", "T");
        assert_eq!(text, "time=\"T\" level=error msg=\"a \\\"b\\\"\"\n");
    }
}
