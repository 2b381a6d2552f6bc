//! What `/proc/PID` says of a process at the moment that it is told of.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::host::Host;
use crate::name::{CgroupPath, Pid};

/// The most of a command line that is read: `ARG_MAX` allows megabytes, a runtime's is below one kilobyte.
const COMMAND_LINE_LIMIT: u64 = 256 << 10;

/// The links of `/proc/PID/ns` that are read, as namespaces(7) names them.
pub const NAMESPACE_KINDS: [&str; 8] = ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time"];

/// A file's identity: it stays the same under another path, a bind mount or a rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct FileId {
    /// The device, `st_dev` of stat(2).
    pub device: u64,
    /// The inode, `st_ino`.
    pub inode: u64,
}

/// A Linux namespace that a process is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct NamespaceInode {
    /// One of [`NAMESPACE_KINDS`].
    pub kind: &'static str,
    /// The number in `mnt:[4026531840]`.
    pub inode: u64,
}

/// A process as `/proc` showed it just after its exec.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ProcessImage {
    /// Its parent then.
    pub parent: Option<Pid>,
    /// Its arguments; what is not UTF-8 is replaced. Hostile: escape before printing.
    pub command_line: Vec<String>,
    /// Its program, as the kernel names it: `/` or `/memfd:…` for a runtime that runs a protected copy of itself.
    pub exe: Option<PathBuf>,
    /// Its program's file.
    pub file: Option<FileId>,
    /// Its cgroup: the unified hierarchy's, or on a legacy host the first that is not the root.
    pub cgroup: Option<CgroupPath>,
    /// Its Linux namespaces.
    pub namespaces: Vec<NamespaceInode>,
    /// When it began, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    #[serde(skip)]
    pub start_ticks: u64,
}

impl ProcessImage {
    /// The inode of its namespace of a kind.
    #[must_use]
    pub fn namespace(&self, kind: &str) -> Option<u64> {
        self.namespaces.iter().find(|namespace| namespace.kind == kind).map(|namespace| namespace.inode)
    }
}

/// Reads a process. `None` when it is gone, or a zombie that has nothing to show any more.
#[must_use]
pub fn read_process_image(host: &Host, pid: Pid) -> Option<ProcessImage> {
    let directory = host.proc().join(pid.to_string());
    let command_line = read_command_line(&directory)?;
    let exe_link = directory.join("exe");
    let exe = fs::read_link(&exe_link).ok();
    if command_line.is_empty() && exe.is_none() {
        return None;
    }
    let stat = fs::read(directory.join("stat")).ok()?;
    let (parent, start_ticks) = parse_stat(&stat)?;
    Some(ProcessImage {
        parent: Some(parent).filter(|parent| parent.get() != 0),
        command_line,
        exe,
        file: fs::metadata(&exe_link).ok().map(|meta| FileId { device: meta.dev(), inode: meta.ino() }),
        cgroup: fs::read_to_string(directory.join("cgroup")).ok().and_then(|text| parse_cgroup(&text)),
        namespaces: read_namespaces(&directory),
        start_ticks,
    })
}

fn read_command_line(directory: &Path) -> Option<Vec<String>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(directory.join("cmdline")).ok()?;
    file.take(COMMAND_LINE_LIMIT).read_to_end(&mut bytes).ok()?;
    Some(parse_command_line(&bytes))
}

/// `/proc/PID/cmdline`: arguments that each end in NUL.
fn parse_command_line(bytes: &[u8]) -> Vec<String> {
    let whole = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if whole.is_empty() {
        return Vec::new();
    }
    whole.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

/// Parent and start time: fields 4 and 22 of proc_pid_stat(5). The name before them may hold spaces and parentheses.
fn parse_stat(bytes: &[u8]) -> Option<(Pid, u64)> {
    let after_name = bytes.iter().rposition(|byte| *byte == b')')? + 1;
    let text = std::str::from_utf8(bytes.get(after_name..)?).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some((Pid::new(parent), start))
}

/// The unified hierarchy's line (`0::`), or the first that says more when that is the root.
fn parse_cgroup(text: &str) -> Option<CgroupPath> {
    let path_of = |line: &str| line.splitn(3, ':').nth(2).map(str::to_owned);
    let unified = text.lines().find(|line| line.starts_with("0::")).and_then(path_of);
    match unified {
        Some(path) if path != "/" => Some(CgroupPath::new(path)),
        root => text.lines().filter_map(path_of).find(|path| path != "/").or(root).map(CgroupPath::new),
    }
}

fn read_namespaces(directory: &Path) -> Vec<NamespaceInode> {
    let links = directory.join("ns");
    NAMESPACE_KINDS
        .iter()
        .filter_map(|kind| {
            let target = fs::read_link(links.join(kind)).ok()?;
            Some(NamespaceInode { kind, inode: parse_namespace_link(target.to_str()?)? })
        })
        .collect()
}

/// `mnt:[4026531840]`.
fn parse_namespace_link(target: &str) -> Option<u64> {
    target.split_once(":[")?.1.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read() {
        let pid = Pid::new(std::process::id());
        let image = read_process_image(&Host::live(), pid).expect("this process exists");
        assert_eq!(image.exe.as_deref(), std::env::current_exe().ok().as_deref());
        assert!(!image.command_line.is_empty());
        assert!(image.namespace("mnt").is_some_and(|inode| inode > 0));
        assert!(image.start_ticks > 0);
        assert_eq!(read_process_image(&Host::live(), Pid::new(u32::MAX)), None);
    }

    #[test]
    fn arguments_may_be_empty_and_need_not_be_text() {
        assert_eq!(parse_command_line(b"sh\0-c\0\0"), ["sh", "-c", ""]);
        assert_eq!(parse_command_line(b"\xffx\0"), ["\u{fffd}x"]);
        assert!(parse_command_line(b"").is_empty());
    }

    #[test]
    fn a_name_with_parentheses_does_not_move_the_fields() {
        let stat = b"7 (a) b (c) S 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1 1";
        assert_eq!(parse_stat(stat), Some((Pid::new(3), 4711)));
        assert_eq!(parse_stat(b"7 (a) S 3"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn the_unified_cgroup_is_preferred_unless_it_says_nothing() {
        assert_eq!(parse_cgroup("0::/default/web\n"), Some(CgroupPath::new("/default/web")));
        assert_eq!(parse_cgroup("8:pids:/a\n4:memory:/b\n0::/\n"), Some(CgroupPath::new("/a")));
        assert_eq!(parse_cgroup("0::/\n"), Some(CgroupPath::new("/")));
        assert_eq!(parse_cgroup("garbage"), None);
    }

    #[test]
    fn a_namespace_link_is_a_number() {
        assert_eq!(parse_namespace_link("mnt:[4026531840]"), Some(4_026_531_840));
        assert_eq!(parse_namespace_link("mnt:[x]"), None);
    }
}
