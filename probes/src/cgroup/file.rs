//! The formats of cgroup v2's files: single values, `max`, flat-keyed lines.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use thiserror::Error;

/// A limit: a number in the file's own unit, or `max` for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// A number.
    Value(u64),
    /// `max`: no limit.
    Max,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => fmt::Display::fmt(value, f),
            Self::Max => f.pad("max"),
        }
    }
}

impl Serialize for Limit {
    /// A number, or the string `max`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => serializer.serialize_u64(*value),
            Self::Max => serializer.serialize_str("max"),
        }
    }
}

/// Why a cgroup file could not be read. A cgroup that vanished, or a controller that is off, is no error.
#[derive(Debug, Error)]
pub enum CgroupFileError {
    /// The kernel refused.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file, as the host names it.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It does not look as cgroup-v2.rst says.
    #[error("cannot parse `{}`: expected {expected}, found {found}", path.display())]
    Parse {
        /// The file, as the host names it.
        path: PathBuf,
        /// What the file should hold.
        expected: &'static str,
        /// What it holds, quoted and bounded.
        found: String,
    },
}

/// A file's text, or `None` where the cgroup vanished or the controller is not enabled in it.
pub(crate) fn read_present_text(path: &Path) -> Result<Option<String>, CgroupFileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(source) => Err(CgroupFileError::Read { path: path.to_path_buf(), source }),
    }
}

/// A cgroup that is removed while its file is open reads as ENODEV.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

fn malformed(path: &Path, expected: &'static str, text: &str) -> CgroupFileError {
    CgroupFileError::Parse {
        path: path.to_path_buf(),
        expected,
        found: crate::escape::quote(text.as_bytes()),
    }
}

/// Reads a file with one limit: `memory.max`, `pids.max`.
///
/// # Errors
/// [`CgroupFileError`] when the kernel refuses or the text is neither `max` nor a number.
pub fn read_limit(path: &Path) -> Result<Option<Limit>, CgroupFileError> {
    let Some(text) = read_present_text(path)? else { return Ok(None) };
    parse_limit(&text).map(Some).ok_or_else(|| malformed(path, "`max` or a number", &text))
}

/// `max`, or a number.
#[must_use]
pub fn parse_limit(text: &str) -> Option<Limit> {
    match text.trim_end_matches('\n') {
        "max" => Some(Limit::Max),
        number => number.parse().ok().map(Limit::Value),
    }
}

/// Reads a file with one number: `memory.current`, `cgroup.freeze`.
///
/// # Errors
/// [`CgroupFileError`] when the kernel refuses or the text is not a number.
pub fn read_cgroup_value(path: &Path) -> Result<Option<u64>, CgroupFileError> {
    let Some(text) = read_present_text(path)? else { return Ok(None) };
    text.trim_end_matches('\n').parse().map(Some).map_err(|_| malformed(path, "a number", &text))
}

/// Reads a file of `KEY NUMBER` lines: `cgroup.events`, `memory.events`, `cpu.stat`.
///
/// # Errors
/// [`CgroupFileError`] when the kernel refuses or a line is not a key and a number.
pub fn read_flat_keyed(path: &Path) -> Result<Option<BTreeMap<String, u64>>, CgroupFileError> {
    let Some(text) = read_present_text(path)? else { return Ok(None) };
    parse_flat_keyed(&text).map(Some).ok_or_else(|| malformed(path, "lines of a key and a number", &text))
}

/// `KEY NUMBER` lines.
#[must_use]
pub fn parse_flat_keyed(text: &str) -> Option<BTreeMap<String, u64>> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.parse().ok()?))
    };
    text.lines().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_is_no_number() {
        assert_eq!(parse_limit("max\n"), Some(Limit::Max));
        assert_eq!(parse_limit("67108864\n"), Some(Limit::Value(67_108_864)));
        assert_eq!(parse_limit("-1"), None);
        assert_eq!(parse_limit(""), None);
        assert_eq!(serde_json::to_string(&[Limit::Max, Limit::Value(7)]).unwrap(), "[\"max\",7]");
    }

    #[test]
    fn flat_keyed_files_are_keys_and_numbers() {
        let events = parse_flat_keyed("low 0\noom_kill 3\n").unwrap();
        assert_eq!(events.get("oom_kill"), Some(&3));
        assert!(parse_flat_keyed("low\n").is_none());
        assert!(parse_flat_keyed("low x\n").is_none());
    }

    #[test]
    fn a_missing_file_is_absent_and_a_strange_one_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("memory.max");
        assert_eq!(read_limit(&path).unwrap(), None);
        fs::write(&path, "lots\n").unwrap();
        let error = read_limit(&path).unwrap_err().to_string();
        assert!(error.contains("expected `max` or a number, found \"lots\\n\""), "{error}");
        fs::write(&path, "5\n").unwrap();
        assert_eq!(read_cgroup_value(&path).unwrap(), Some(5));
    }
}
