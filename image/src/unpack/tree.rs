//! The root file system being made: every path is resolved below its descriptor and nowhere else.
//!
//! A path of an image never reaches the kernel whole. [`Tree::directory`] goes down name by name, follows symbolic
//! links by its own account inside the root, and gives a descriptor; what is done there is done to one name that is
//! never followed. Each descriptor is opened with openat2(2) from the root, `RESOLVE_IN_ROOT`, without symbolic links,
//! magic links and mounts: even a tree that somebody else swaps meanwhile leads nowhere.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::EntryError;
use super::path::{join, split_name};

/// Symbolic links in one path, as the kernel's own bound (path_resolution(7)).
const LINK_LIMIT: u32 = 40;

/// Directories whose descriptors are kept open.
const CACHE_LIMIT: usize = 200;

/// A directory of the tree.
#[derive(Debug)]
pub(super) struct Directory {
    /// Opened with `O_PATH`.
    pub(super) fd: OwnedFd,
    /// Where it is, without symbolic links; empty for the root.
    pub(super) path: Vec<u8>,
}

/// What a directory gets when nothing more will be put into it.
#[derive(Debug, Clone, Copy)]
pub(super) struct DirectoryEnd {
    pub(super) mode: Mode,
    /// `None` where no layer says.
    pub(super) times: Option<[Timespec; 2]>,
}

/// The tree, and what is known of it.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// By the path as an image writes it, which may lead through symbolic links.
    cache: HashMap<Vec<u8>, Rc<Directory>>,
    ends: BTreeMap<Vec<u8>, DirectoryEnd>,
    /// Paths of the current layer, which its own whiteouts do not hide.
    layer: HashSet<Vec<u8>>,
}

pub(super) fn action(action: &'static str) -> impl Fn(Errno) -> EntryError {
    move |errno| EntryError::System { action, source: io::Error::from(errno) }
}

impl Tree {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root, cache: HashMap::new(), ends: BTreeMap::new(), layer: HashSet::new() }
    }

    pub(super) fn begin_layer(&mut self) {
        self.layer.clear();
    }

    /// Remembers that the path, and so the directories that it is in, are of the current layer.
    pub(super) fn mark(&mut self, path: &[u8]) {
        let mut path = path;
        while !path.is_empty() && self.layer.insert(path.to_vec()) {
            path = split_name(path).map_or(&[], |(directory, _)| directory);
        }
    }

    /// The directory at a clean path, through symbolic links inside the root. Missing ones are made where `create`.
    pub(super) fn directory(&mut self, path: &[u8], create: bool) -> Result<Rc<Directory>, EntryError> {
        let mut links = LINK_LIMIT;
        self.walk(path, create, &mut links)
    }

    fn walk(&mut self, path: &[u8], create: bool, links: &mut u32) -> Result<Rc<Directory>, EntryError> {
        if let Some(directory) = self.cache.get(path) {
            return Ok(Rc::clone(directory));
        }
        let directory = match split_name(path) {
            None => self.open(b"")?,
            Some((above, name)) => {
                let above = self.walk(above, create, links)?;
                self.descend(&above, name, create, links)?
            }
        };
        if self.cache.len() >= CACHE_LIMIT {
            self.cache.clear();
        }
        self.cache.insert(path.to_vec(), Rc::clone(&directory));
        Ok(directory)
    }

    /// One name down: a directory, or a symbolic link to one.
    fn descend(
        &mut self,
        above: &Directory,
        name: &[u8],
        create: bool,
        links: &mut u32,
    ) -> Result<Rc<Directory>, EntryError> {
        let path = join(&above.path, name);
        match self.open(&path) {
            Err(EntryError::System { source, .. }) if is(&source, Errno::NOENT) && create => {
                rustix::fs::mkdirat(&above.fd, name, Mode::RWXU).map_err(action("make the directory"))?;
                let mode = Mode::from_raw_mode(0o755);
                self.ends.insert(path.clone(), DirectoryEnd { mode, times: None });
                self.open(&path)
            }
            Err(EntryError::System { source, .. })
                if is(&source, Errno::LOOP) || is(&source, Errno::NOTDIR) =>
            {
                self.follow(above, name, create, links)
            }
            other => other,
        }
    }

    fn follow(
        &mut self,
        above: &Directory,
        name: &[u8],
        create: bool,
        links: &mut u32,
    ) -> Result<Rc<Directory>, EntryError> {
        let target = match rustix::fs::readlinkat(&above.fd, name, Vec::new()) {
            Ok(target) => target.into_bytes(),
            Err(Errno::INVAL) => {
                let path = join(&above.path, name);
                // A layer hides what lower layers have under a name that it needs as a directory, listed or not.
                if !create || self.layer.contains(&path) {
                    return Err(EntryError::NotDirectory { path });
                }
                self.remove(above, name)?;
                return self.descend(above, name, create, links);
            }
            Err(errno) => return Err(action("read the link")(errno)),
        };
        *links = links.checked_sub(1).ok_or(EntryError::TooManyLinks)?;
        let mut at = if target.starts_with(b"/") { self.open(b"")? } else { self.open(&above.path)? };
        for part in target.split(|byte| *byte == b'/') {
            at = match part {
                b"" | b"." => at,
                b".." => self.open(split_name(&at.path).map_or(b"", |(directory, _)| directory))?,
                part => self.descend(&at, part, create, links)?,
            };
        }
        Ok(at)
    }

    /// Opens a directory whose path has no symbolic link.
    fn open(&self, path: &[u8]) -> Result<Rc<Directory>, EntryError> {
        let fd = self.open_with(path, OFlags::PATH).map_err(action("open the directory"))?;
        Ok(Rc::new(Directory { fd, path: path.to_vec() }))
    }

    fn open_with(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        let path = if path.is_empty() { b"." } else { path };
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)
    }

    /// Opens a directory so that its names can be listed and its attributes be set.
    pub(super) fn open_readable(&self, path: &[u8]) -> Result<OwnedFd, EntryError> {
        self.open_with(path, OFlags::RDONLY).map_err(action("open the directory"))
    }

    /// Has the directory at `path` get its mode and times at the end: until then files are still put into it.
    pub(super) fn set_end(&mut self, path: &[u8], end: DirectoryEnd) {
        self.ends.insert(path.to_vec(), end);
    }

    /// Takes away what has the name, whatever it is, with all below it; nothing there is fine.
    pub(super) fn remove(&mut self, directory: &Directory, name: &[u8]) -> Result<(), EntryError> {
        let failed = action("remove");
        match rustix::fs::unlinkat(&directory.fd, name, AtFlags::empty()) {
            // It may have been a symbolic link that cached paths lead through.
            Ok(()) => self.cache.clear(),
            Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => {
                let path = join(&directory.path, name);
                self.empty(&path, false)?;
                rustix::fs::unlinkat(&directory.fd, name, AtFlags::REMOVEDIR).map_err(failed)?;
                self.cache.clear();
                self.ends.remove(&path);
            }
            Err(errno) => return Err(failed(errno)),
        }
        Ok(())
    }

    /// Takes away what is in a directory; what is of the current layer stays where `keep_layer`.
    pub(super) fn empty(&mut self, path: &[u8], keep_layer: bool) -> Result<(), EntryError> {
        let directory = self.open(path)?;
        for name in self.names(path)? {
            let child = join(path, &name);
            if keep_layer && self.layer.contains(&child) {
                if self.is_directory(&directory, &name)? {
                    self.empty(&child, true)?;
                }
            } else {
                self.remove(&directory, &name)?;
            }
        }
        Ok(())
    }

    /// Takes away what lower layers have at the name.
    pub(super) fn hide(&mut self, directory: &Directory, name: &[u8]) -> Result<(), EntryError> {
        let path = join(&directory.path, name);
        if !self.layer.contains(&path) {
            self.remove(directory, name)
        } else if self.is_directory(directory, name)? {
            self.empty(&path, true)
        } else {
            Ok(())
        }
    }

    fn is_directory(&self, directory: &Directory, name: &[u8]) -> Result<bool, EntryError> {
        match rustix::fs::statat(&directory.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(action("look at")(errno)),
        }
    }

    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, EntryError> {
        let failed = action("list the directory");
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(self.open_readable(path)?).map_err(&failed)? {
            let name = entry.map_err(&failed)?.file_name().to_bytes().to_vec();
            if !matches!(name.as_slice(), b"." | b"..") {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Gives every directory its mode and times, the deepest first.
    pub(super) fn finish(&mut self) -> Result<(), (Vec<u8>, EntryError)> {
        self.cache.clear();
        for (path, end) in std::mem::take(&mut self.ends).into_iter().rev() {
            let set = || -> Result<(), EntryError> {
                let fd = self.open_readable(&path)?;
                rustix::fs::fchmod(&fd, end.mode).map_err(action("set the mode"))?;
                if let Some([last_access, last_modification]) = end.times {
                    let times = Timestamps { last_access, last_modification };
                    rustix::fs::futimens(&fd, &times).map_err(action("set the times"))?;
                }
                Ok(())
            };
            set().map_err(|error| (path.clone(), error))?;
        }
        Ok(())
    }
}

/// Opens a regular file below `root` as a process in the container would find it; `None` where there is none.
pub(crate) fn open_file_in(root: &OwnedFd, path: &[u8]) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    // Looked at before it is opened: opening a device can act.
    let looked = match rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
    {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&looked)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).map(Some)
}

/// Whether the error is this one of the kernel's.
fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
