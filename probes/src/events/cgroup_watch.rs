//! Cgroups as they appear and go: inotify(7) on every directory of the hierarchies.

use std::collections::HashMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::EventError;
use crate::host::Host;
use crate::name::CgroupPath;

/// Legacy hierarchies that are watched on hybrid hosts: each container is in all of them, two are told from.
const LEGACY: [&str; 2] = ["memory", "pids"];

/// A cgroup that came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupChange {
    /// `None` in the unified hierarchy, else the legacy controller.
    pub hierarchy: Option<&'static str>,
    /// The cgroup.
    pub path: CgroupPath,
    /// Whether it came.
    pub created: bool,
}

/// Watches over the hierarchies.
#[derive(Debug)]
pub struct CgroupWatch {
    inotify: OwnedFd,
    mounts: Vec<(PathBuf, Option<&'static str>)>,
    directories: HashMap<i32, PathBuf>,
    known: HashMap<PathBuf, i32>,
    overflows: u64,
}

impl CgroupWatch {
    /// Watches every cgroup that exists. A host without cgroups has nothing to watch and no error.
    ///
    /// # Errors
    /// When inotify cannot be had, or not for this many directories.
    pub fn open(host: &Host) -> Result<Self, EventError> {
        let root = host.sys().join("fs/cgroup");
        let failed = |source| EventError::WatchCgroups { path: root.clone(), source };
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        let mounts = find_mounts(&root);
        let mut watch =
            Self { inotify, mounts, directories: HashMap::new(), known: HashMap::new(), overflows: 0 };
        for (mount, _) in watch.mounts.clone() {
            watch.add(&mount, &mut Vec::new()).map_err(failed)?;
        }
        Ok(watch)
    }

    /// Queue overflows and watches that could not be had (`fs.inotify.max_user_watches`).
    #[must_use]
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Sleeps until something came or went, at most `timeout`.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub fn wait(&self, timeout: Duration) -> Result<(), EventError> {
        let timeout = Timespec::try_from(timeout).ok();
        match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(source) => Err(EventError::Receive { source }),
        }
    }

    /// What came and went since the last call.
    ///
    /// # Errors
    /// When inotify fails.
    pub fn drain(&mut self) -> Result<Vec<CgroupChange>, EventError> {
        let mut changes = Vec::new();
        for (watch, flags, name) in self.read_events()? {
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                self.overflows += 1;
            } else if flags.contains(ReadFlags::IGNORED) {
                self.directories.remove(&watch);
            } else if let (Some(name), true) = (name, flags.contains(ReadFlags::ISDIR)) {
                let Some(path) = self.directories.get(&watch).map(|directory| directory.join(name)) else {
                    continue;
                };
                if flags.contains(ReadFlags::DELETE) {
                    self.known.remove(&path);
                    changes.extend(self.change(&path, false));
                } else if !self.known.contains_key(&path) {
                    let mut found = Vec::new();
                    if self.add(&path, &mut found).is_err() {
                        self.overflows += 1;
                    }
                    // A cgroup that was gone before it could be watched was there all the same.
                    if found.is_empty() {
                        found.push(path);
                    }
                    changes.extend(found.iter().filter_map(|path| self.change(path, true)));
                }
            }
        }
        Ok(changes)
    }

    /// Watches a directory and all below it; `found` gets each, parents first. What is gone meanwhile is left out.
    fn add(&mut self, directory: &Path, found: &mut Vec<PathBuf>) -> rustix::io::Result<()> {
        if self.known.contains_key(directory) {
            return Ok(());
        }
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        let watch = match inotify::add_watch(&self.inotify, directory, flags) {
            Ok(watch) => watch,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.directories.insert(watch, directory.to_path_buf());
        self.known.insert(directory.to_path_buf(), watch);
        found.push(directory.to_path_buf());
        // Listed after the watch was added: what is made in between is seen twice and told once.
        let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.add(&entry.path(), found)?;
            }
        }
        Ok(())
    }

    fn read_events(&self) -> Result<Vec<(i32, ReadFlags, Option<PathBuf>)>, EventError> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut events = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| {
                        PathBuf::from(
                            std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes()) as &std::ffi::OsStr
                        )
                    });
                    events.push((event.wd(), event.events(), name));
                }
                Err(Errno::AGAIN) => return Ok(events),
                Err(Errno::INTR) => {}
                Err(source) => return Err(EventError::Receive { source }),
            }
        }
    }

    fn change(&self, path: &Path, created: bool) -> Option<CgroupChange> {
        let (mount, hierarchy) = self.mounts.iter().rfind(|(mount, _)| path.starts_with(mount))?;
        let inside = path.strip_prefix(mount).ok()?;
        let path = CgroupPath::new(format!("/{}", inside.to_string_lossy()));
        Some(CgroupChange { hierarchy: *hierarchy, path, created })
    }
}

impl AsFd for CgroupWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// Where hierarchies are mounted: `cgroup.controllers` stands in the root of a unified one, `cgroup.procs` in any.
fn find_mounts(root: &Path) -> Vec<(PathBuf, Option<&'static str>)> {
    if root.join("cgroup.controllers").exists() {
        return vec![(root.to_path_buf(), None)];
    }
    let unified = root.join("unified");
    let mut mounts: Vec<(PathBuf, Option<&'static str>)> = Vec::new();
    if unified.join("cgroup.procs").exists() {
        mounts.push((unified, None));
    }
    let legacy = LEGACY.iter().map(|controller| (root.join(controller), Some(*controller)));
    mounts.extend(legacy.filter(|(mount, _)| mount.join("cgroup.procs").exists()));
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory tree stands in for a hierarchy: inotify does not know the difference.
    #[test]
    fn directories_that_come_with_children_are_all_told_once() {
        let root = tempfile::tempdir().unwrap();
        let cgroups = root.path().join("sys/fs/cgroup");
        fs::create_dir_all(cgroups.join("system.slice")).unwrap();
        fs::write(cgroups.join("cgroup.controllers"), "").unwrap();
        let mut watch = CgroupWatch::open(&Host::at(root.path())).unwrap();
        fs::create_dir_all(cgroups.join("default/web")).unwrap();
        fs::create_dir(cgroups.join("system.slice/x.service")).unwrap();
        let mut paths: Vec<String> =
            watch.drain().unwrap().into_iter().map(|change| change.path.to_string()).collect();
        paths.sort();
        assert_eq!(paths, ["/default", "/default/web", "/system.slice/x.service"]);
        fs::remove_dir(cgroups.join("default/web")).unwrap();
        let gone = watch.drain().unwrap();
        assert_eq!(gone.len(), 1, "{gone:?}");
        assert!(!gone[0].created && gone[0].hierarchy.is_none());
        assert_eq!(watch.overflows(), 0);
    }
}
