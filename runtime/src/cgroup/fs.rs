//! The cgroup file system: making, filling, emptying and removing cgroups. Everything goes through descriptors.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use super::error::CgroupError;
use super::resources::{IfMissing, Setting};

/// Where every current system mounts the unified hierarchy.
pub(super) const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// Opens the root of the hierarchy.
pub(super) fn open_root() -> Result<Directory, CgroupError> {
    Directory::open(Path::new(MOUNT_POINT))
}

/// An open cgroup.
#[derive(Debug)]
pub(super) struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, CgroupError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match fs::open(path, flags, Mode::empty()) {
            Ok(descriptor) => Ok(Directory { descriptor, path: path.to_path_buf() }),
            Err(errno) => {
                Err(CgroupError::File { operation: "open", path: path.to_path_buf(), source: errno.into() })
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a cgroup below this one. No symbolic link exists in a cgroup file system; `NOFOLLOW` says so.
    pub(super) fn open_below(&self, name: &Path) -> Result<Self, CgroupError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let path = self.path.join(name);
        match fs::openat(&self.descriptor, name, flags, Mode::empty()) {
            Ok(descriptor) => Ok(Directory { descriptor, path }),
            Err(errno) => Err(CgroupError::File { operation: "open", path, source: errno.into() }),
        }
    }

    /// Makes the cgroup `name` (several levels at once where needed) with every controller the root has, and opens it.
    /// The flag says whether the last level is new.
    pub(super) fn create_below(&self, name: &Path) -> Result<(Self, bool), CgroupError> {
        let wanted = self.read_controllers()?;
        let created = match self.make(name) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(Errno::NOENT) => self.make_with_parents(name)?,
            Err(errno) => return Err(self.error_at("create", name, errno.into())),
        };
        match self.open_with_controllers(name, &wanted) {
            Err(error) if created => {
                // Nobody will know of it.
                fs::unlinkat(&self.descriptor, name, AtFlags::REMOVEDIR).ok();
                Err(error)
            }
            opened => Ok((opened?, created)),
        }
    }

    fn open_with_controllers(&self, name: &Path, wanted: &str) -> Result<Self, CgroupError> {
        let cgroup = self.open_below(name)?;
        let has = || {
            let file = "cgroup.controllers";
            cgroup.read_once(file).map_err(|source| cgroup.error_at("read", Path::new(file), source))
        };
        if !wanted.trim().is_empty() && has()? != wanted {
            self.enable_controllers(name, wanted);
        }
        Ok(cgroup)
    }

    /// What only cgroup v2 has in its root, and so tells it from the directory that hierarchies of cgroup v1 are mounted in.
    pub(super) fn read_controllers(&self) -> Result<String, CgroupError> {
        match self.read_once("cgroup.controllers") {
            Err(source) if is_gone(&source) => Err(CgroupError::NotUnified { path: self.path.clone() }),
            Err(source) => Err(self.error_at("read", Path::new("cgroup.controllers"), source)),
            Ok(controllers) => Ok(controllers),
        }
    }

    fn make(&self, name: &Path) -> Result<(), Errno> {
        fs::mkdirat(&self.descriptor, name, Mode::from_raw_mode(0o755))
    }

    fn make_with_parents(&self, name: &Path) -> Result<bool, CgroupError> {
        let mut created = false;
        for level in levels(name) {
            created = match self.make(&level) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(errno) => return Err(self.error_at("create", &level, errno.into())),
            };
        }
        Ok(created)
    }

    /// Enables the controllers for the children of every cgroup above `name`. One that cannot be enabled (it has threads,
    /// it is delegated without the controller) shows when a limit of it is written.
    fn enable_controllers(&self, name: &Path, controllers: &str) {
        let all: Vec<String> = controllers.split_whitespace().map(|one| format!("+{one}")).collect();
        let above = std::iter::once(PathBuf::from(".")).chain(levels(name));
        for level in above.take(name.components().count()) {
            let file = level.join("cgroup.subtree_control");
            if self.write_raw(&file, &all.join(" ")).is_err() {
                all.iter().for_each(|one| drop(self.write_raw(&file, one)));
            }
        }
    }

    /// The whole of an interface file.
    pub(super) fn read(&self, file: &str) -> Result<String, CgroupError> {
        self.read_raw(file).map_err(|source| self.error_at("read", Path::new(file), source))
    }

    /// The whole of an interface file; `None` where it does not exist or the cgroup has been removed.
    pub(super) fn read_if_present(&self, file: &str) -> Result<Option<String>, CgroupError> {
        match self.read_raw(file) {
            Ok(text) => Ok(Some(text)),
            Err(source) if is_gone(&source) => Ok(None),
            Err(source) => Err(self.error_at("read", Path::new(file), source)),
        }
    }

    fn read_raw(&self, file: &str) -> io::Result<String> {
        self.open_file(file).and_then(|descriptor| read_file(&descriptor, file))
    }

    /// As [`Self::read_raw`], and leaves it to the end of the process to close the file: for what is read once.
    fn read_once(&self, file: &str) -> io::Result<String> {
        self.open_file(file).and_then(|descriptor| read_file(&ManuallyDrop::new(descriptor), file))
    }

    fn open_file(&self, file: &str) -> io::Result<OwnedFd> {
        Ok(fs::openat(&self.descriptor, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }
    /// Writes an interface file. The kernel takes a value in one write or not at all.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        self.write_raw(Path::new(file), value).map_err(|source| self.write_error(file, value, source))
    }

    fn write_raw(&self, file: &Path, value: &str) -> io::Result<()> {
        let descriptor = fs::openat(&self.descriptor, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&descriptor, value.as_bytes())?;
        Ok(())
    }

    /// Applies settings in their order.
    pub(super) fn apply(&self, settings: &[Setting]) -> Result<(), CgroupError> {
        let mut postponed = None;
        for setting in settings {
            match self.apply_one(setting) {
                // A burst above the old quota is refused until the new quota is there, and a quota below the old burst
                // until the new burst is: whichever comes first is tried again after the other.
                Err(CgroupError::Write { source, .. }) if is_of_cpu_quota(setting) && is_invalid(&source) => {
                    postponed = Some(setting);
                }
                result => result?,
            }
        }
        postponed.map_or(Ok(()), |setting| self.apply_one(setting))
    }

    fn apply_one(&self, setting: &Setting) -> Result<(), CgroupError> {
        let result = self.write_raw(Path::new(&setting.file), &setting.value);
        match (result, &setting.if_missing) {
            (Ok(()), _) => Ok(()),
            (Err(source), IfMissing::Nothing) if is_gone(&source) => Ok(()),
            (Err(source), IfMissing::Instead { file, value }) if is_gone(&source) => self.write(file, value),
            (Err(source), _) => Err(self.write_error(&setting.file, &setting.value, source)),
        }
    }

    /// Says that the controller is missing where that is why.
    fn write_error(&self, file: &str, value: &str, source: io::Error) -> CgroupError {
        let controller = file.split('.').next().unwrap_or_default();
        let has = |list: String| list.split_whitespace().any(|one| one == controller);
        let is_missing = is_gone(&source) || source.kind() == io::ErrorKind::PermissionDenied;
        if is_missing && controller != "cgroup" && !self.read("cgroup.controllers").is_ok_and(has) {
            let file = file.to_owned();
            return CgroupError::NoController {
                file,
                cgroup: self.path.clone(),
                controller: controller.to_owned(),
            };
        }
        CgroupError::Write { value: value.to_owned(), path: self.path.join(file), source }
    }

    /// The value of `key` in a flat keyed file such as `cgroup.events`.
    pub(super) fn read_key(&self, file: &str, key: &str) -> Result<Option<u64>, CgroupError> {
        let Some(text) = self.read_if_present(file)? else { return Ok(None) };
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        Ok(lines.find(|(name, _)| *name == key).and_then(|(_, value)| value.trim().parse().ok()))
    }

    /// The processes of this cgroup and of all below it.
    pub(super) fn processes(&self) -> Result<Vec<Pid>, CgroupError> {
        let mut pids = parse_pids(&self.read_if_present("cgroup.procs")?.unwrap_or_default());
        for name in self.children()? {
            match self.open_below(&name) {
                Ok(child) => pids.extend(child.processes()?),
                Err(CgroupError::File { source, .. }) if is_gone(&source) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pids)
    }

    fn children(&self) -> Result<Vec<PathBuf>, CgroupError> {
        let entries = match fs::Dir::read_from(&self.descriptor) {
            Ok(entries) => entries,
            Err(Errno::NOENT | Errno::NODEV) => return Ok(Vec::new()),
            Err(errno) => return Err(self.error("list", errno.into())),
        };
        let mut children = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|errno| self.error("list", errno.into()))?;
            let is_own = matches!(entry.file_name().to_bytes(), b"." | b"..");
            if entry.file_type() == fs::FileType::Directory && !is_own {
                children.push(PathBuf::from(entry.file_name().to_string_lossy().into_owned()));
            }
        }
        Ok(children)
    }

    /// Waits until `key` of `cgroup.events` is `value`; the kernel wakes a poll on each change.
    pub(super) fn wait_for_event(
        &self,
        key: &str,
        value: u64,
        operation: &'static str,
        bound: Duration,
    ) -> Result<(), CgroupError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let events = match fs::openat(&self.descriptor, "cgroup.events", flags, Mode::empty()) {
            Ok(events) => events,
            Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
            Err(errno) => return Err(self.error_at("open", Path::new("cgroup.events"), errno.into())),
        };
        let end = std::time::Instant::now() + bound;
        loop {
            // Reading arms the next wake-up, so it comes before the wait.
            if read_event(&events, key).is_none_or(|now| now == value) {
                return Ok(());
            }
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Err(CgroupError::Timeout {
                    operation,
                    path: self.path.clone(),
                    seconds: bound.as_secs(),
                });
            }
            wait(events.as_fd(), left).map_err(|errno| self.error(operation, errno.into()))?;
        }
    }

    /// Removes the cgroup `name` below this one and everything below that; it is no error if it is gone already. The
    /// cgroups must hold no processes; the kernel may take a moment to see that the last has gone.
    pub(super) fn remove_below(&self, name: &Path) -> Result<(), CgroupError> {
        match fs::unlinkat(&self.descriptor, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY) => self.remove_busy(name),
            Err(errno) => Err(self.error_at("remove", name, errno.into())),
        }
    }

    fn remove_busy(&self, name: &Path) -> Result<(), CgroupError> {
        let cgroup = match self.open_below(name) {
            Ok(cgroup) => cgroup,
            Err(CgroupError::File { source, .. }) if is_gone(&source) => return Ok(()),
            Err(error) => return Err(error),
        };
        for child in cgroup.children()? {
            cgroup.remove_below(&child)?;
        }
        cgroup.wait_for_event("populated", 0, "empty", Duration::from_secs(10))?;
        match fs::unlinkat(&self.descriptor, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.error_at("remove", name, errno.into())),
        }
    }

    /// Gives the directory and the files that `/sys/kernel/cgroup/delegate` lists to `owner`.
    pub(super) fn delegate(&self, owner: u32) -> Result<(), CgroupError> {
        const BEFORE_4_15: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads";
        let listed = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
        let owner = Some(fs::Uid::from_raw(owner));
        fs::fchown(&self.descriptor, owner, None).map_err(|errno| self.error("chown", errno.into()))?;
        for file in listed.as_deref().unwrap_or(BEFORE_4_15).lines() {
            match fs::chownat(&self.descriptor, file, owner, None, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.error_at("chown", Path::new(file), errno.into())),
            }
        }
        Ok(())
    }

    pub(super) fn error(&self, operation: &'static str, source: io::Error) -> CgroupError {
        CgroupError::File { operation, path: self.path.clone(), source }
    }

    fn error_at(&self, operation: &'static str, name: &Path, source: io::Error) -> CgroupError {
        CgroupError::File { operation, path: self.path.join(name), source }
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Every prefix of a relative path, shortest first.
fn levels(path: &Path) -> impl Iterator<Item = PathBuf> {
    let mut level = PathBuf::new();
    path.components().map(move |component| {
        level.push(component);
        level.clone()
    })
}

fn parse_pids(text: &str) -> Vec<Pid> {
    text.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw).collect()
}

/// The whole of a file of a cgroup, named `file`.
fn read_file(descriptor: &OwnedFd, file: &str) -> io::Result<String> {
    let mut text = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        match rustix::io::read(descriptor, &mut chunk)? {
            0 => break,
            length => text.extend_from_slice(&chunk[..length]),
        }
        // The kernel gives what is one record whole; the lists of processes are many.
        if text.len() % chunk.len() != 0 && !matches!(file, "cgroup.procs" | "cgroup.threads") {
            break;
        }
    }
    String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn read_event(events: &OwnedFd, key: &str) -> Option<u64> {
    let mut buffer = [0; 256];
    let length = rustix::io::pread(events, &mut buffer, 0).ok()?;
    let text = std::str::from_utf8(&buffer[..length]).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(name, _)| *name == key)?.1.parse().ok()
}

fn wait(events: BorrowedFd<'_>, left: Duration) -> Result<(), Errno> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec::try_from(left).ok();
    match poll(&mut [PollFd::new(&events, PollFlags::PRI)], timeout.as_ref()) {
        // An interruption only means that the value is read once more.
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn is_of_cpu_quota(setting: &Setting) -> bool {
    matches!(setting.file.as_str(), "cpu.max" | "cpu.max.burst")
}

fn is_invalid(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::INVAL.raw_os_error())
}

/// The file does not exist, or the cgroup was removed while its file was open (`ENODEV`).
pub(super) fn is_gone(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    errno == Some(Errno::NOENT.raw_os_error()) || errno == Some(Errno::NODEV.raw_os_error())
}
