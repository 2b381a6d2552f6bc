//! One pass over `/proc`: every process, its parent and its children.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::io::Errno;

use super::stat::malformed;
use super::{ProcessError, Stat, parse_stat};
use crate::Host;
use crate::name::Pid;

/// `/proc/PID/stat` is a line of about 300 bytes.
const STAT_BUFFER: usize = 1024;
/// How many entries of `/proc` one getdents64(2) brings.
const DIRECTORY_BUFFER: usize = 64 << 10;
/// From this many processes on, several threads share the pass: below it starting them costs more than they save.
const PARALLEL_FROM: usize = 1000;
/// The kernel's locks let few threads read `/proc` at once.
const MOST_THREADS: usize = 4;

/// The processes of a host at about one moment: each was there when it was read, not all at the same time.
#[derive(Debug, Clone, Default)]
pub struct ProcessTable {
    /// By ascending pid.
    processes: Vec<Stat>,
    /// Indices into `processes`, by parent.
    children: HashMap<Pid, Vec<usize>>,
}

impl ProcessTable {
    /// Reads `/proc/PID/stat` of every process; those that vanish meanwhile are not in the table.
    ///
    /// # Errors
    /// [`ProcessError`] when `/proc` itself cannot be listed or a line is not what proc(5) says. Where the host has no
    /// `/proc` (a mounted disk) the table is empty.
    pub fn read(host: &Host) -> Result<Self, ProcessError> {
        let path = host.proc();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, &path, flags, Mode::empty());
        let directory = match opened {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(Self::default()),
            Err(errno) => return Err(ProcessError::Read { path, source: errno.into() }),
        };
        let names = list_pids(directory.as_fd())
            .map_err(|errno| ProcessError::Read { path: path.clone(), source: errno.into() })?;
        read_all(host, directory.as_fd(), &names).map(Self::from_stats)
    }

    /// A table of processes that were read elsewhere: for tests and for pure code.
    #[must_use]
    pub fn from_stats(mut processes: Vec<Stat>) -> Self {
        processes.sort_unstable_by_key(|stat| stat.pid);
        let mut children: HashMap<Pid, Vec<usize>> = HashMap::new();
        for (index, stat) in processes.iter().enumerate() {
            children.entry(stat.parent).or_default().push(index);
        }
        Self { processes, children }
    }

    /// A process by its pid.
    #[must_use]
    pub fn get(&self, pid: Pid) -> Option<&Stat> {
        let index = self.processes.binary_search_by_key(&pid, |stat| stat.pid).ok()?;
        self.processes.get(index)
    }

    /// Every process, by ascending pid.
    pub fn iter(&self) -> impl Iterator<Item = &Stat> {
        self.processes.iter()
    }

    /// The children that the kernel gives `parent`, by ascending pid.
    pub fn children(&self, parent: Pid) -> impl Iterator<Item = &Stat> {
        self.children.get(&parent).into_iter().flatten().filter_map(|index| self.processes.get(*index))
    }

    /// `pid` and its parents up to PID 1, nearest first. Ends where a parent vanished, and never loops: a table is no
    /// snapshot, and a reused pid could make a circle of it.
    #[must_use]
    pub fn ancestry(&self, pid: Pid) -> Vec<&Stat> {
        let mut line: Vec<&Stat> = Vec::new();
        let mut next = Some(pid);
        while let Some(stat) = next.and_then(|pid| self.get(pid)) {
            if line.iter().any(|seen| seen.pid == stat.pid) {
                break;
            }
            line.push(stat);
            next = Some(stat.parent);
        }
        line
    }

    /// How many processes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.processes.len()
    }

    /// Whether the host showed no process at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }
}

/// The entries of `/proc` that are pids, by getdents64(2).
fn list_pids(directory: BorrowedFd<'_>) -> Result<Vec<Pid>, Errno> {
    let mut buffer = vec![MaybeUninit::uninit(); DIRECTORY_BUFFER];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut pids = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_str().ok();
        pids.extend(name.and_then(|name| name.parse().ok()).map(Pid::new));
    }
    Ok(pids)
}

fn read_all(host: &Host, directory: BorrowedFd<'_>, pids: &[Pid]) -> Result<Vec<Stat>, ProcessError> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
    if pids.len() < PARALLEL_FROM || threads == 1 {
        return read_some(host, directory, pids);
    }
    let share = pids.len().div_ceil(threads);
    let parts: Vec<Result<Vec<Stat>, ProcessError>> = std::thread::scope(|scope| {
        let readers: Vec<_> =
            pids.chunks(share).map(|part| scope.spawn(move || read_some(host, directory, part))).collect();
        // A reader cannot panic; were it to, its part is read again here.
        let joined = readers.into_iter().zip(pids.chunks(share));
        joined
            .map(|(reader, part)| reader.join().unwrap_or_else(|_| read_some(host, directory, part)))
            .collect()
    });
    let mut all = Vec::with_capacity(pids.len());
    for part in parts {
        all.extend(part?);
    }
    Ok(all)
}

fn read_some(host: &Host, directory: BorrowedFd<'_>, pids: &[Pid]) -> Result<Vec<Stat>, ProcessError> {
    let mut buffer = [0_u8; STAT_BUFFER];
    let mut stats = Vec::with_capacity(pids.len());
    let mut path = String::new();
    for pid in pids {
        path.clear();
        path.push_str(&pid.to_string());
        path.push_str("/stat");
        let text = match read_into(directory, &path, &mut buffer) {
            Ok(length) => &buffer[..length],
            Err(Errno::NOENT | Errno::SRCH) => continue,
            // hidepid (proc(5)) hides other users' processes: they are not there for us.
            Err(Errno::ACCESS | Errno::PERM) => continue,
            Err(errno) => {
                return Err(ProcessError::Read { path: host.proc().join(&path), source: errno.into() });
            }
        };
        if text.is_empty() {
            continue;
        }
        stats.push(parse_stat(text).ok_or_else(|| malformed(&host.proc().join(&path), text))?);
    }
    Ok(stats)
}

fn read_into(directory: BorrowedFd<'_>, path: &str, buffer: &mut [u8]) -> Result<usize, Errno> {
    let file = openat(directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::read(&file, buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ProcessState;

    fn stat(pid: u32, parent: u32) -> Stat {
        Stat {
            pid: Pid::new(pid),
            comm: b"x".to_vec(),
            state: ProcessState::Sleeping,
            parent: Pid::new(parent),
            process_group: pid,
            session: pid,
            terminal: 0,
            threads: 1,
            start_time: 0,
        }
    }

    #[test]
    fn the_live_table_holds_us_below_our_parent() {
        let table = ProcessTable::read(&Host::live()).unwrap();
        let own = table.get(Pid::new(std::process::id())).unwrap();
        assert_eq!(own.parent.get(), std::os::unix::process::parent_id());
        assert!(table.children(own.parent).any(|child| child.pid == own.pid));
        assert!(table.ancestry(own.pid).len() >= 2);
    }

    #[test]
    fn a_circle_of_reused_pids_ends() {
        let table = ProcessTable::from_stats(vec![stat(5, 6), stat(6, 5), stat(7, 7)]);
        assert_eq!(table.ancestry(Pid::new(5)).len(), 2);
        assert_eq!(table.ancestry(Pid::new(7)).len(), 1);
    }

    #[test]
    fn a_host_without_proc_has_no_processes() {
        assert!(ProcessTable::read(&Host::at("/nonexistent")).unwrap().is_empty());
    }
}
