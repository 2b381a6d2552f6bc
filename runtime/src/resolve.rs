//! Paths of a container, resolved from a descriptor of its root so that no symlink, `..` or magic link leads out of it.

use std::cell::{Cell, OnceCell};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::step::{Step, StepError};

/// Opens `unsafe_path` below `root` as a path only: symlinks in it stay inside, magic links are refused.
pub(crate) fn open_path(root: BorrowedFd<'_>, unsafe_path: &CStr) -> Result<OwnedFd, Errno> {
    open_with(root, unsafe_path, OFlags::PATH)
}

/// Opens `unsafe_path` below `root` with these flags.
pub(crate) fn open_with(root: BorrowedFd<'_>, unsafe_path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    open(root, unsafe_path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens a path below `directory` in which nothing may be a symlink and nothing mounted: for files of procfs and sysfs.
pub(crate) fn open_strictly(directory: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    open(
        directory,
        path,
        flags,
        ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV,
    )
}

/// Opens a path below `root` in which nothing may be a symlink.
pub(crate) fn open_ordinary(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    open(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
}

/// Opens a name in `directory`, whatever is mounted there, but no symlink.
pub(crate) fn open_plain(directory: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    open(directory, name, flags, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// Opens `unsafe_path` below `root` as a path only, unless it leads to another mount than that of `root`.
pub(crate) fn open_on_same_mount(root: BorrowedFd<'_>, unsafe_path: &CStr) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    open(root, unsafe_path, OFlags::PATH, resolve)
}

/// As [`open_strictly`], but `self` and `thread-self` may be followed.
pub(crate) fn open_own(procfs: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    open(procfs, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV)
}

fn open(
    directory: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { c"." } else { path };
    // The kernel gives EAGAIN where a rename elsewhere made `..` uncertain: it asks for another try.
    for _ in 0..128 {
        match rustix::fs::openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens the directory at `unsafe_path`, making what is missing of it with mode 0755.
pub(crate) fn open_or_make_directory(root: BorrowedFd<'_>, unsafe_path: &CStr) -> Result<OwnedFd, StepError> {
    match open_with(root, unsafe_path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => {}
        result => return result.step("open the directory", unsafe_path.to_string_lossy()),
    }
    match make_missing(root, unsafe_path.to_bytes()) {
        // A symlink to what is not there yet.
        Err(Errno::LOOP | Errno::NOTDIR) => {
            expand(root, unsafe_path.to_bytes()).and_then(|path| make_missing(root, &path))
        }
        made => made,
    }
    .step("make the directory", unsafe_path.to_string_lossy())
}

/// How many symlinks the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// A path in which no part is a symlink, by what is there now, whether its end is there or not: what the kernel does not resolve.
/// It is a name only: whoever uses it resolves it below `root` once more.
fn expand(root: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut rest: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect();
    let mut expanded: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                expanded.pop();
                continue;
            }
            _ => expanded.push(name),
        }
        let so_far = CString::new(expanded.join(&b'/')).map_err(|_| Errno::INVAL)?;
        let (parent, name) = split(so_far.to_bytes());
        let (parent, name) = (CString::new(parent), CString::new(name));
        let (parent, name) = (parent.map_err(|_| Errno::INVAL)?, name.map_err(|_| Errno::INVAL)?);
        let target = open_ordinary(root, &parent, OFlags::PATH)
            .and_then(|parent| rustix::fs::readlinkat(&parent, &name, Vec::new()));
        // No symlink, or nothing at all.
        let Ok(target) = target else { continue };
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        expanded.pop();
        if target.to_bytes().starts_with(b"/") {
            expanded.clear();
        }
        rest.extend(target.to_bytes().split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
    }
    Ok(expanded.join(&b'/'))
}

fn make_missing(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let (parent, name) = split(path);
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    let parent = match open_with(
        root,
        &CString::new(parent).map_err(|_| Errno::INVAL)?,
        OFlags::PATH | OFlags::DIRECTORY,
    ) {
        Err(Errno::NOENT) if !parent.is_empty() => make_missing(root, parent)?,
        result => result?,
    };
    match rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    // What was made just now is a directory, not a symlink that somebody put in its place.
    open_strictly(parent.as_fd(), &name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW)
}

/// Opens the file at `unsafe_path` as a path, making an empty one if nothing is there, at the end of symlinks too.
pub(crate) fn open_or_make_file(root: BorrowedFd<'_>, unsafe_path: &CStr) -> Result<OwnedFd, StepError> {
    match open_path(root, unsafe_path) {
        Err(Errno::NOENT) => {}
        result => return result.step("open", unsafe_path.to_string_lossy()),
    }
    match make_file(root, unsafe_path)? {
        Err(Errno::LOOP) => {
            let path = expand(root, unsafe_path.to_bytes())
                .and_then(|path| CString::new(path).map_err(|_| Errno::INVAL))
                .step("resolve", unsafe_path.to_string_lossy())?;
            make_file(root, &path)?.step("open", path.to_string_lossy())
        }
        made => made.step("open", unsafe_path.to_string_lossy()),
    }
}

/// Opens the file at `unsafe_path` as a path, making an empty one if nothing is there. Its name may be no symlink: for a place
/// that counts by its name alone.
pub(crate) fn open_or_make_plain_file(
    root: BorrowedFd<'_>,
    unsafe_path: &CStr,
) -> Result<OwnedFd, StepError> {
    let (parent, name) = make_missing_file(root, unsafe_path)?;
    open_plain(parent.as_fd(), &name, OFlags::PATH).step("open", unsafe_path.to_string_lossy())
}

fn make_file(root: BorrowedFd<'_>, unsafe_path: &CStr) -> Result<Result<OwnedFd, Errno>, StepError> {
    let (parent, name) = make_missing_file(root, unsafe_path)?;
    // A symlink is an error here, also at the end.
    Ok(open_strictly(parent.as_fd(), &name, OFlags::PATH))
}

/// Makes an empty file if nothing is at `unsafe_path`, also no symlink. Gives its directory and its name.
fn make_missing_file(root: BorrowedFd<'_>, unsafe_path: &CStr) -> Result<(OwnedFd, CString), StepError> {
    let (parent, name) = open_parent(root, unsafe_path)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    match rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => Ok((parent, name)),
        Err(error) => Err(error).step("make the file", unsafe_path.to_string_lossy()),
    }
}

/// The directory a path's last name is in, made if missing, and that name.
pub(crate) fn open_parent(root: BorrowedFd<'_>, unsafe_path: &CStr) -> Result<(OwnedFd, CString), StepError> {
    let (parent, name) = split(unsafe_path.to_bytes());
    let text = unsafe_path.to_string_lossy();
    let parent = CString::new(parent).map_err(|_| Errno::INVAL).step("use the path", &text)?;
    let name = CString::new(name).map_err(|_| Errno::INVAL).step("use the path", &text)?;
    Ok((open_or_make_directory(root, &parent)?, name))
}

/// A path's parent and its last name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(position) => (&path[..position], &path[position + 1..]),
        None => (b"", path),
    }
}

/// The host's procfs, opened when it is first needed, which most containers never do.
#[derive(Debug)]
pub(crate) struct HostProc {
    descriptor: OnceCell<OwnedFd>,
    /// `/proc` no longer is the host's.
    is_out_of_reach: Cell<bool>,
}

impl HostProc {
    /// To be opened while `/proc` is the host's.
    pub(crate) fn closed() -> Self {
        HostProc { descriptor: OnceCell::new(), is_out_of_reach: Cell::new(false) }
    }

    /// Open from now on, for use in another root.
    pub(crate) fn open() -> Result<Self, StepError> {
        Ok(HostProc { descriptor: OnceCell::from(open_host_proc()?), is_out_of_reach: Cell::new(false) })
    }

    /// The root is about to change: what is not open by now stays closed.
    pub(crate) fn leave_behind(&self) {
        self.is_out_of_reach.set(true);
    }

    /// Its descriptor, if it is open.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.descriptor.get().map(AsFd::as_fd)
    }

    /// Its descriptor, opened now if it was not.
    pub(crate) fn get(&self) -> Result<BorrowedFd<'_>, StepError> {
        if let Some(descriptor) = self.descriptor.get() {
            return Ok(descriptor.as_fd());
        }
        if self.is_out_of_reach.get() {
            return Err(StepError::refused("use", "/proc", "the host's was not opened in time"));
        }
        let descriptor = open_host_proc()?;
        Ok(self.descriptor.get_or_init(|| descriptor).as_fd())
    }
}

/// Opens the host's `/proc` and makes sure that it is procfs's root.
fn open_host_proc() -> Result<OwnedFd, StepError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let descriptor = rustix::fs::openat(CWD, c"/proc", flags, Mode::empty()).step("open", "/proc")?;
    if is_procfs_root(descriptor.as_fd()).step("examine", "/proc")? {
        Ok(descriptor)
    } else {
        Err(StepError::refused("use", "/proc", "it is not the root of a procfs"))
    }
}

/// Whether a descriptor is the root directory of a procfs: its magic number, and its inode, which is always 1.
pub(crate) fn is_procfs_root(descriptor: BorrowedFd<'_>) -> Result<bool, Errno> {
    let magic = rustix::fs::fstatfs(descriptor)?.f_type;
    Ok(magic == libc::PROC_SUPER_MAGIC && rustix::fs::fstat(descriptor)?.st_ino == 1)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root(directory: &tempfile::TempDir) -> OwnedFd {
        rustix::fs::open(directory.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    #[test]
    fn symlinks_stay_below_the_root() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("etc")).unwrap();
        fs::write(directory.path().join("etc/passwd"), "inside").unwrap();
        symlink("/etc", directory.path().join("absolute")).unwrap();
        symlink("../../../../etc", directory.path().join("upward")).unwrap();
        let root = root(&directory);
        for path in [c"absolute/passwd", c"upward/passwd", c"../../etc/passwd"] {
            let file = open_with(root.as_fd(), path, OFlags::RDONLY).unwrap();
            assert_eq!(std::io::read_to_string(fs::File::from(file)).unwrap(), "inside");
        }
        assert_eq!(open_ordinary(root.as_fd(), c"absolute", OFlags::PATH).unwrap_err(), Errno::LOOP);
        open_ordinary(root.as_fd(), c"etc", OFlags::PATH).unwrap();
        assert_eq!(open_plain(root.as_fd(), c"absolute", OFlags::PATH).unwrap_err(), Errno::LOOP);
        open_on_same_mount(root.as_fd(), c"absolute/passwd").unwrap();
    }

    #[test]
    fn magic_links_are_refused() {
        let root = rustix::fs::open("/", OFlags::PATH, Mode::empty()).unwrap();
        assert_eq!(open_path(root.as_fd(), c"proc/self/root/etc").unwrap_err(), Errno::LOOP);
        assert_eq!(open_on_same_mount(root.as_fd(), c"proc").unwrap_err(), Errno::XDEV);
    }

    #[test]
    fn missing_directories_and_files_are_made() {
        let directory = tempfile::tempdir().unwrap();
        let root = root(&directory);
        open_or_make_directory(root.as_fd(), c"a/b/c").unwrap();
        assert!(directory.path().join("a/b/c").is_dir());
        open_or_make_file(root.as_fd(), c"x/file").unwrap();
        assert!(directory.path().join("x/file").is_file());
    }

    #[test]
    fn what_dangling_links_lead_to_is_made_inside() {
        let directory = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let (inside, root) = (directory.path(), root(&directory));
        let target = outside.path().join("made");
        symlink(&target, inside.join("absolute")).unwrap();
        open_or_make_directory(root.as_fd(), c"absolute").unwrap();
        assert!(inside.join(target.strip_prefix("/").unwrap()).is_dir() && !target.exists());
        symlink("../../../up/../file", inside.join("upward")).unwrap();
        open_or_make_file(root.as_fd(), c"upward").unwrap();
        assert!(inside.join("file").is_file());
        symlink("/tmp/foo", inside.join("jump")).unwrap();
        symlink("/jump/baz/hosts", inside.join("hosts")).unwrap();
        open_or_make_file(root.as_fd(), c"hosts").unwrap();
        assert!(inside.join("tmp/foo/baz/hosts").is_file());
        symlink("loop", inside.join("loop")).unwrap();
        assert!(open_or_make_directory(root.as_fd(), c"loop").is_err());
        assert!(open_or_make_file(root.as_fd(), c"loop/file").is_err());
    }
}
