//! What `/proc/PID` says of a process at the moment that it is told of.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, readlinkat, statat};
use serde::Serialize;

use crate::host::Host;
use crate::name::{CgroupPath, Pid};

/// The most of a command line that is read: `ARG_MAX` allows megabytes, a runtime's is below one kilobyte.
const COMMAND_LINE_LIMIT: usize = 256 << 10;

/// What is read at first: nearly every command line is shorter.
const FIRST_READ: usize = 4096;

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
///
/// Of a process that has no part in a container's making a [`super::Recorder`] reads the arguments alone: the rest is absent.
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

/// How much of a process is read: each level costs several times the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Depth {
    /// Its arguments: enough to know that it is none of containerd's world.
    CommandLine,
    /// And its parent, its program and when it began.
    Program,
    /// And its cgroup and Linux namespaces.
    Whole,
}

/// Reads a process. `None` when it is gone, or a zombie that has nothing to show any more.
#[must_use]
pub fn read_process_image(host: &Host, pid: Pid) -> Option<ProcessImage> {
    let mut reader = ImageReader::open(host).ok()?;
    let command_line = reader.read_command_line(pid)?;
    reader.read_image(pid, command_line, Depth::Whole)
}

/// Reads processes below one open `/proc`, into one buffer: a busy host executes thousands of programs a second.
#[derive(Debug)]
pub(super) struct ImageReader {
    proc: OwnedFd,
    buffer: Vec<u8>,
}

impl ImageReader {
    pub(super) fn open(host: &Host) -> rustix::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = openat(CWD, host.proc(), flags, Mode::empty())?;
        Ok(Self { proc, buffer: vec![0; FIRST_READ] })
    }

    /// A process's arguments; empty for a zombie and a kernel thread. `None` when it is gone.
    pub(super) fn read_command_line(&mut self, pid: Pid) -> Option<Vec<String>> {
        self.read(pid, "cmdline").map(parse_command_line)
    }

    /// The rest of a process, as deep as asked. The program comes first: a runtime executes a copy of itself soon.
    pub(super) fn read_image(
        &mut self,
        pid: Pid,
        command_line: Vec<String>,
        depth: Depth,
    ) -> Option<ProcessImage> {
        let mut image = ProcessImage { command_line, ..ProcessImage::default() };
        if depth == Depth::CommandLine && !image.command_line.is_empty() {
            return Some(image);
        }
        image.exe = self.read_link(pid, "exe").map(PathBuf::from);
        if image.command_line.is_empty() && image.exe.is_none() {
            return None;
        }
        image.file = statat(&self.proc, format!("{pid}/exe"), AtFlags::empty())
            .ok()
            .map(|file| FileId { device: file.st_dev, inode: file.st_ino });
        let (parent, start_ticks) = parse_stat(self.read(pid, "stat")?)?;
        image.parent = Some(parent).filter(|parent| parent.get() != 0);
        image.start_ticks = start_ticks;
        if depth == Depth::Whole {
            image.namespaces = self.read_namespaces(pid);
            image.cgroup =
                self.read(pid, "cgroup").and_then(|text| parse_cgroup(&String::from_utf8_lossy(text)));
        }
        Some(image)
    }

    fn read_namespaces(&self, pid: Pid) -> Vec<NamespaceInode> {
        let read = |kind: &&'static str| {
            let target = self.read_link(pid, &format!("ns/{kind}"))?;
            Some(NamespaceInode { kind, inode: parse_namespace_link(target.to_str()?)? })
        };
        NAMESPACE_KINDS.iter().filter_map(read).collect()
    }

    fn read_link(&self, pid: Pid, name: &str) -> Option<OsString> {
        let target = readlinkat(&self.proc, format!("{pid}/{name}"), Vec::new()).ok()?;
        Some(OsString::from_vec(target.into_bytes()))
    }

    /// A file of `/proc/PID`. They are all told in one read(2) that finds room for them: a full buffer asks for more.
    fn read(&mut self, pid: Pid, name: &str) -> Option<&[u8]> {
        let file =
            openat(&self.proc, format!("{pid}/{name}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .ok()?;
        let mut length = 0;
        loop {
            length += rustix::io::read(&file, self.buffer.get_mut(length..)?).ok()?;
            if length < self.buffer.len() || length >= COMMAND_LINE_LIMIT {
                return self.buffer.get(..length);
            }
            self.buffer.resize(COMMAND_LINE_LIMIT, 0);
        }
    }
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
    fn no_more_is_read_than_was_asked_for() {
        let pid = Pid::new(std::process::id());
        let mut reader = ImageReader::open(&Host::live()).expect("/proc is there");
        let mut read = |depth| {
            let command_line = reader.read_command_line(pid).expect("this process exists");
            reader.read_image(pid, command_line, depth).expect("this process exists")
        };
        let whole = read(Depth::Whole);
        let program = ProcessImage { cgroup: None, namespaces: Vec::new(), ..whole.clone() };
        assert_eq!(read(Depth::Program), program);
        assert_eq!(
            read(Depth::CommandLine),
            ProcessImage { command_line: whole.command_line, ..ProcessImage::default() }
        );
    }

    #[test]
    fn a_long_command_line_is_read_whole() {
        let long = "x".repeat(100_000);
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "echo; read x", &long]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().expect("sh runs");
        // Spawning returns while execve is still at work, before there are arguments.
        let mut newline = [0];
        std::io::Read::read_exact(child.stdout.as_mut().expect("it is a pipe"), &mut newline)
            .expect("sh runs");
        let image = read_process_image(&Host::live(), Pid::new(child.id()));
        drop(child.stdin.take());
        child.wait().expect("it is our child");
        assert_eq!(image.expect("it ran").command_line.last(), Some(&long));
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
