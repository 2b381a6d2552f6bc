//! `/proc/PID/cmdline` and `/proc/PID/environ`: what the process wrote there, which may be anything.

use super::{ProcessError, process_path, read_bounded};
use crate::Host;
use crate::escape::escape_bytes;
use crate::name::Pid;

/// The most of a command line that is read: a process may have megabytes of it, and thousands of processes may.
const CMDLINE_LIMIT: u64 = 4096;
/// The most of an environment that is read.
const ENVIRON_LIMIT: u64 = 256 << 10;

/// A command line: empty for kernel threads and zombies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The arguments, argv\[0\] first.
    pub arguments: Vec<Vec<u8>>,
    /// Whether there was more than was read; the last argument is then incomplete.
    pub truncated: bool,
}

impl CommandLine {
    /// Takes the bytes of `/proc/PID/cmdline` apart: arguments end with NUL; a process that wrote over its arguments
    /// (setproctitle) leaves one string padded with NULs.
    #[must_use]
    pub fn parse(bytes: &[u8], truncated: bool) -> Self {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // The NUL after the last argument is no separator, those of empty last arguments are.
        let text = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        let text = if is_padding(bytes, end) { &bytes[..end] } else { text };
        if text.is_empty() && end == 0 {
            return Self { arguments: Vec::new(), truncated };
        }
        Self { arguments: text.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect(), truncated }
    }

    /// The value after `flag` (`-id ID` and `--id ID`) or behind its `=`, as Go's flag package takes them.
    #[must_use]
    pub fn flag(&self, flag: &str) -> Option<&[u8]> {
        let mut arguments = self.arguments.iter().skip(1);
        while let Some(argument) = arguments.next() {
            let Some(name) = argument.strip_prefix(b"-") else { continue };
            let name = name.strip_prefix(b"-").unwrap_or(name);
            let Some(rest) = name.strip_prefix(flag.as_bytes()) else { continue };
            match rest {
                [] => return arguments.next().map(Vec::as_slice),
                [b'=', value @ ..] => return Some(value),
                _ => {}
            }
        }
        None
    }

    /// One printable line: escaped, arguments apart by spaces, those with blanks or nothing inside in single quotes.
    #[must_use]
    pub fn to_line(&self) -> String {
        let words: Vec<String> = self.arguments.iter().map(|argument| word(argument)).collect();
        words.join(" ")
    }
}

/// More than 8 NULs at the end are a title's padding: no program is called with that many empty last arguments.
fn is_padding(bytes: &[u8], end: usize) -> bool {
    bytes.len() - end > 8
}

fn word(argument: &[u8]) -> String {
    let text = escape_bytes(argument);
    if text.is_empty() || text.contains(char::is_whitespace) {
        format!("'{text}'")
    } else {
        text.into_owned()
    }
}

/// Reads `/proc/PID/cmdline`, at most 4 KiB of it.
///
/// # Errors
/// [`ProcessError`] when the kernel refuses.
pub fn read_cmdline(host: &Host, pid: Pid) -> Result<Option<CommandLine>, ProcessError> {
    let bytes = read_bounded(&process_path(host, pid, "cmdline"), CMDLINE_LIMIT + 1)?;
    Ok(bytes.map(|mut bytes| {
        let limit = usize::try_from(CMDLINE_LIMIT).unwrap_or(usize::MAX);
        let truncated = bytes.len() > limit;
        bytes.truncate(limit);
        CommandLine::parse(&bytes, truncated)
    }))
}

/// Reads `/proc/PID/environ` (at most 256 KiB): the environment that the program was started with, `NAME=value` each.
///
/// # Errors
/// [`ProcessError`] when the kernel refuses: it takes the right to trace the process (ptrace(2)).
pub fn read_environ(host: &Host, pid: Pid) -> Result<Option<Vec<Vec<u8>>>, ProcessError> {
    let bytes = read_bounded(&process_path(host, pid, "environ"), ENVIRON_LIMIT)?;
    Ok(bytes.map(|bytes| {
        bytes.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()).map(<[u8]>::to_vec).collect()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_go_reads_them() {
        let line =
            CommandLine::parse(b"/usr/bin/shim\0-namespace\0default\0--id=web\0-address\0/run/x\0", false);
        assert_eq!(line.flag("namespace"), Some(b"default".as_slice()));
        assert_eq!(line.flag("id"), Some(b"web".as_slice()));
        assert_eq!(line.flag("address"), Some(b"/run/x".as_slice()));
        assert_eq!(line.flag("debug"), None);
    }

    #[test]
    fn a_command_line_is_one_line() {
        let line = CommandLine::parse(b"sh\0-c\0echo a;\n\x1b[31mid\0\0", false);
        assert_eq!(line.to_line(), "sh -c 'echo a;\\n\\x1b[31mid' ''");
        assert_eq!(CommandLine::parse(b"", false).to_line(), "");
        let title = CommandLine::parse(b"nginx: worker\0\0\0\0\0\0\0\0\0\0\0\0", false);
        assert_eq!(title.arguments.len(), 1);
    }

    #[test]
    fn our_own_command_line_and_environment_are_there() {
        let own = Pid::new(std::process::id());
        assert!(!read_cmdline(&Host::live(), own).unwrap().unwrap().arguments.is_empty());
        assert!(read_environ(&Host::live(), own).unwrap().is_some());
    }
}
