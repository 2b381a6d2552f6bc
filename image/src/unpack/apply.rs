//! Makes one entry after the other.

use std::io::BufRead;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::attributes::{Attributes, mode_of, times_of};
use super::path::{clean_path, join, split_name};
use super::tree::{Directory, DirectoryEnd, Tree, action};
use super::whiteout::{Whiteout, whiteout_of};
use super::{EntryError, Losses, Ownership};
use crate::tar::{Entry, EntryKind, Extent, Input, TarReader};

/// Applies the entries of layers to a tree.
#[derive(Debug)]
pub(super) struct Applier {
    tree: Tree,
    attributes: Attributes,
    depth_limit: usize,
}

impl Applier {
    pub(super) fn new(root: OwnedFd, ownership: Ownership, depth_limit: usize) -> Self {
        let attributes = Attributes { ownership, losses: Losses::default() };
        Self { tree: Tree::new(root), attributes, depth_limit }
    }

    pub(super) fn begin_layer(&mut self) {
        self.tree.begin_layer();
    }

    /// Gives directories their modes and times, and says what was lost.
    pub(super) fn finish(mut self) -> Result<Losses, (Vec<u8>, EntryError)> {
        self.tree.finish()?;
        Ok(self.attributes.losses)
    }

    /// Makes the entry, with the data that `reader` has next.
    pub(super) fn apply<R: BufRead + Input>(
        &mut self,
        entry: &Entry,
        reader: &mut TarReader<R>,
    ) -> Result<(), EntryError> {
        if let EntryKind::Unknown { .. } = entry.kind {
            self.attributes.losses.unknown += 1;
            return Ok(());
        }
        let path = clean_path(&entry.path);
        self.check_depth(&path)?;
        if let Some(whiteout) = whiteout_of(&path) {
            return self.apply_whiteout(&whiteout);
        }
        let Some((directory, name)) = split_name(&path) else { return self.apply_root(entry) };
        let directory = self.tree.directory(directory, true)?;
        match &entry.kind {
            EntryKind::Directory => self.make_directory(&directory, name, entry)?,
            EntryKind::File { extents } => {
                let fd = self.make_file(&directory, name)?;
                write_data(&fd, extents.as_deref(), entry.size, reader)?;
                self.attributes.give_file(&fd, entry)?;
            }
            EntryKind::Hardlink { target } => self.make_hardlink(&directory, name, target)?,
            EntryKind::Symlink { target } => {
                self.replace(&directory, name, |directory| {
                    rustix::fs::symlinkat(target.as_slice(), &directory.fd, name)
                })?;
                self.attributes.give_special(&directory, name, entry)?;
            }
            _ => self.make_node(&directory, name, entry)?,
        }
        self.tree.mark(&join(&directory.path, name));
        Ok(())
    }

    fn check_depth(&self, path: &[u8]) -> Result<(), EntryError> {
        let depth = path.split(|byte| *byte == b'/').count();
        if depth > self.depth_limit {
            return Err(EntryError::TooDeep { depth, limit: self.depth_limit });
        }
        Ok(())
    }

    fn apply_whiteout(&mut self, whiteout: &Whiteout) -> Result<(), EntryError> {
        match whiteout {
            Whiteout::Ignored => Ok(()),
            Whiteout::Opaque(path) => {
                let directory = self.tree.directory(path, true)?;
                self.tree.mark(&directory.path);
                self.tree.empty(&directory.path, true)
            }
            Whiteout::Path(path) => {
                let slash = path.iter().rposition(|byte| *byte == b'/');
                let (directory, name) = match slash {
                    Some(slash) => (&path[..slash], &path[slash + 1..]),
                    None => (&b""[..], path.as_slice()),
                };
                if matches!(name, b"" | b"." | b"..") {
                    return Err(EntryError::WhiteoutName { name: name.to_vec() });
                }
                let directory = self.tree.directory(directory, true)?;
                self.tree.hide(&directory, name)
            }
        }
    }

    /// The attributes of the root itself.
    fn apply_root(&mut self, entry: &Entry) -> Result<(), EntryError> {
        if entry.kind != EntryKind::Directory {
            return Err(EntryError::RootNotDirectory);
        }
        let fd = self.tree.open_readable(b"")?;
        self.attributes.give_directory(&fd, entry, false)?;
        let end = DirectoryEnd { mode: mode_of(entry), times: Some(times_of(entry)) };
        self.tree.set_end(b"", end);
        Ok(())
    }

    fn make_directory(
        &mut self,
        directory: &Rc<Directory>,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), EntryError> {
        let mut is_new = true;
        let make = || rustix::fs::mkdirat(&directory.fd, name, Mode::RWXU);
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) if is_directory(directory, name)? => is_new = false,
            Err(Errno::EXIST) => {
                self.tree.remove(directory, name)?;
                make().map_err(action("make the directory"))?;
            }
            Err(errno) => return Err(action("make the directory")(errno)),
        }
        let path = join(&directory.path, name);
        let fd = self.tree.open_readable(&path)?;
        self.attributes.give_directory(&fd, entry, is_new)?;
        self.tree.set_end(&path, DirectoryEnd { mode: mode_of(entry), times: Some(times_of(entry)) });
        Ok(())
    }

    fn make_file(&mut self, directory: &Rc<Directory>, name: &[u8]) -> Result<OwnedFd, EntryError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.replace(directory, name, |directory| {
            rustix::fs::openat2(
                &directory.fd,
                name,
                flags,
                Mode::RUSR | Mode::WUSR,
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            )
        })
    }

    /// Does `make`; where the name is taken, takes away what has it and does `make` once more.
    fn replace<T>(
        &mut self,
        directory: &Rc<Directory>,
        name: &[u8],
        make: impl Fn(&Directory) -> Result<T, Errno>,
    ) -> Result<T, EntryError> {
        match make(directory) {
            Err(Errno::EXIST) => {
                self.tree.remove(directory, name)?;
                make(directory)
            }
            other => other,
        }
        .map_err(action("make the file"))
    }

    /// Another name for a file that is there; its attributes are the file's own.
    fn make_hardlink(
        &mut self,
        directory: &Rc<Directory>,
        name: &[u8],
        target: &[u8],
    ) -> Result<(), EntryError> {
        let target = clean_path(target);
        let missing = || EntryError::LinkTargetMissing { target: target.clone() };
        let Some((target_directory, target_name)) = split_name(&target) else {
            return Err(EntryError::LinkToDirectory { target });
        };
        let target_directory = self.tree.directory(target_directory, false).map_err(|_| missing())?;
        let stat = |at: &Directory, name: &[u8]| rustix::fs::statat(&at.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        let found = stat(&target_directory, target_name).map_err(|_| missing())?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Err(EntryError::LinkToDirectory { target });
        }
        // A link to itself: taking the old name away would take the file away.
        if stat(directory, name).is_ok_and(|old| (old.st_dev, old.st_ino) == (found.st_dev, found.st_ino)) {
            return Ok(());
        }
        self.replace(directory, name, |directory| {
            rustix::fs::linkat(&target_directory.fd, target_name, &directory.fd, name, AtFlags::empty())
        })
    }

    /// A device node or a named pipe. Who may not make device nodes goes without them.
    fn make_node(&mut self, directory: &Rc<Directory>, name: &[u8], entry: &Entry) -> Result<(), EntryError> {
        let (kind, device) = match entry.kind {
            EntryKind::CharacterDevice { major, minor } => {
                (FileType::CharacterDevice, rustix::fs::makedev(major, minor))
            }
            EntryKind::BlockDevice { major, minor } => {
                (FileType::BlockDevice, rustix::fs::makedev(major, minor))
            }
            _ => (FileType::Fifo, 0),
        };
        let made = self.replace(directory, name, |directory| {
            rustix::fs::mknodat(&directory.fd, name, kind, Mode::RUSR | Mode::WUSR, device)
        });
        match made {
            Err(EntryError::System { source, .. })
                if kind != FileType::Fifo && source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                self.attributes.losses.devices += 1;
                // What the image replaces is gone either way.
                self.tree.remove(directory, name)
            }
            Err(error) => Err(error),
            Ok(()) => self.attributes.give_special(directory, name, entry),
        }
    }
}

fn is_directory(directory: &Directory, name: &[u8]) -> Result<bool, EntryError> {
    let stat =
        rustix::fs::statat(&directory.fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(action("look at"))?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Writes the entry's data; between the extents of a sparse file stay holes.
fn write_data<R: BufRead + Input>(
    fd: &OwnedFd,
    extents: Option<&[Extent]>,
    size: u64,
    reader: &mut TarReader<R>,
) -> Result<(), EntryError> {
    let whole = [Extent { offset: 0, length: size }];
    for extent in extents.unwrap_or(&whole) {
        let mut at = extent.offset;
        let end = extent.offset + extent.length;
        while at < end {
            let data = reader.data()?;
            let take = data.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let written = rustix::io::pwrite(fd, &data[..take], at).map_err(action("write the file"))?;
            at += written as u64;
            reader.consume(written);
        }
    }
    if extents.is_some() {
        rustix::fs::ftruncate(fd, size).map_err(action("set the size"))?;
    }
    Ok(())
}
