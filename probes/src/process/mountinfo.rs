//! `/proc/PID/mountinfo`: proc_pid_mountinfo(5).

use serde::Serialize;

use super::{ProcessError, process_path, read_present};
use crate::Host;
use crate::name::Pid;

/// One mount, in the order of the file and in its words: evidence needs the options as the kernel printed them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// Field 1.
    pub id: u32,
    /// Field 2.
    pub parent: u32,
    /// Field 3: `MAJOR:MINOR`.
    pub device: String,
    /// Field 4: which directory of the file system is mounted.
    pub root: String,
    /// Field 5: where, seen from the process's root.
    pub mount_point: String,
    /// Field 6: per-mount options, comma separated.
    pub options: String,
    /// Field 7: `shared:N`, `master:N`, `propagate_from:N`, `unbindable`.
    pub optional_fields: Vec<String>,
    /// Field 9.
    pub file_system: String,
    /// Field 10.
    pub source: String,
    /// Field 11: per-superblock options.
    pub super_options: String,
}

/// Reads `/proc/PID/mountinfo`; empty once the process has ended.
///
/// # Errors
/// [`ProcessError`] when the kernel refuses (ptrace(2)) or a line is not what proc(5) says.
pub fn read_mountinfo(host: &Host, pid: Pid) -> Result<Option<Vec<Mount>>, ProcessError> {
    let path = process_path(host, pid, "mountinfo");
    let bytes = match read_present(&path) {
        // A zombie's mountinfo is EINVAL: it has no mount namespace any more.
        Err(ProcessError::Read { source, .. }) if source.kind() == std::io::ErrorKind::InvalidInput => None,
        other => other?,
    };
    let Some(bytes) = bytes else { return Ok(None) };
    let mut mounts = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mount = parse_line(line).ok_or_else(|| {
            ProcessError::parse(&path, "expected the fields of proc_pid_mountinfo(5)", line)
        })?;
        mounts.push(mount);
    }
    Ok(Some(mounts))
}

/// Parses the whole file, leaving out lines that are not what proc(5) says.
#[must_use]
pub fn parse_mountinfo(bytes: &[u8]) -> Vec<Mount> {
    bytes.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = text(fields.next()?);
    let root = unescape(fields.next()?);
    let mount_point = unescape(fields.next()?);
    let options = text(fields.next()?);
    let mut optional_fields = Vec::new();
    loop {
        match fields.next()? {
            b"-" => break,
            field => optional_fields.push(text(field)),
        }
    }
    let file_system = text(fields.next()?);
    let source = unescape(fields.next()?);
    let super_options = unescape(fields.next()?);
    Some(Mount {
        id,
        parent,
        device,
        root,
        mount_point,
        options,
        optional_fields,
        file_system,
        source,
        super_options,
    })
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The kernel writes blanks, newlines and backslashes as three octal digits (seq_escape).
fn unescape(field: &[u8]) -> String {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        match (first, octal(tail)) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                rest = &tail[3..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    text(&out)
}

fn octal(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits.get(..3)?).ok()?;
    u8::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_5_is_read_field_by_field() {
        let line =
            b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
        let mount = &parse_mountinfo(line)[0];
        assert_eq!((mount.id, mount.parent, mount.mount_point.as_str()), (36, 35, "/mnt 2"));
        assert_eq!(mount.optional_fields, ["master:1", "shared:2"]);
        assert_eq!(
            (mount.options.as_str(), mount.super_options.as_str()),
            ("rw,noatime", "rw,errors=continue")
        );
    }

    #[test]
    fn no_optional_field_and_an_empty_source_are_fine_and_a_short_line_is_not() {
        assert_eq!(parse_mountinfo(b"1 2 0:5 / / rw -  tmpfs none rw").len(), 1);
        assert!(parse_mountinfo(b"1 2 0:5 / / rw\n\nx\n").is_empty());
    }

    #[test]
    fn our_own_mounts_are_there() {
        let mounts = read_mountinfo(&Host::live(), Pid::new(std::process::id())).unwrap().unwrap();
        assert!(mounts.iter().any(|mount| mount.mount_point == "/proc"));
    }
}
