//! Where an image's files are: in a tar archive (as `ctr images export` and `docker save` write it) or in a directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inspect_probes::escape::{escape, quote};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::blob::BlobReader;
use crate::layer::decode::{Compression, Decoder};
use crate::limits::Limits;
use crate::tar::{EntryKind, TarError, TarReader};

/// The most bytes of an index, a manifest or a config: containerd reads no more either (8 MiB).
const DOCUMENT_LIMIT: u64 = 8 << 20;

/// How many links one member of an archive may stand for.
const LINK_LIMIT: usize = 8;

/// Why a file of an image cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The image itself cannot be opened.
    #[error("cannot open the image `{}`", escape(&path.to_string_lossy()))]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The image is neither a regular file nor a directory.
    #[error("cannot read `{}` as an image: it is neither a file nor a directory", escape(&path.to_string_lossy()))]
    Kind {
        /// Its path.
        path: PathBuf,
    },
    /// The image is no tar archive, or a damaged one.
    #[error("cannot read `{}` as a tar archive", escape(&path.to_string_lossy()))]
    Archive {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: TarError,
    },
    /// The image is compressed as a whole and cannot be decompressed.
    #[error("cannot decompress the image `{}`", escape(&path.to_string_lossy()))]
    Decompress {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that the image needs is not in it.
    #[error("cannot find {} in the image", quote(name.as_bytes()))]
    Missing {
        /// Its name within the image.
        name: String,
    },
    /// A file of the image cannot be read.
    #[error("cannot read {} of the image", quote(name.as_bytes()))]
    Read {
        /// Its name within the image.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A document that no image needs so large.
    #[error("cannot read {} of the image: it is {size} bytes long", quote(name.as_bytes()))]
    TooLarge {
        /// Its name within the image.
        name: String,
        /// Its size in bytes.
        size: u64,
    },
}

/// The files of an image, by their names within it.
#[derive(Debug)]
pub struct ImageSource {
    path: PathBuf,
    files: Files,
    compression: Compression,
}

#[derive(Debug)]
enum Files {
    Archive { file: Arc<File>, members: BTreeMap<String, Member> },
    Directory { root: File },
}

#[derive(Debug, PartialEq, Eq)]
enum Member {
    File { offset: u64, size: u64 },
    Link { target: String },
}

impl ImageSource {
    /// Opens the archive or directory. An archive that is compressed as a whole is decompressed into an unnamed file.
    ///
    /// # Errors
    /// Where it cannot be opened, is damaged, or is over the limits.
    pub fn open(path: &Path, limits: &Limits) -> Result<Self, SourceError> {
        let failed = |source: io::Error| SourceError::Open { path: path.to_path_buf(), source };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file =
            File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?);
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            let files = Files::Directory { root: file };
            return Ok(Self { path: path.to_path_buf(), files, compression: Compression::None });
        }
        if !metadata.is_file() {
            return Err(SourceError::Kind { path: path.to_path_buf() });
        }
        let (file, compression) = plain_archive(file, limits)
            .map_err(|source| SourceError::Decompress { path: path.to_path_buf(), source })?;
        let members = scan(&file, limits)
            .map_err(|source| SourceError::Archive { path: path.to_path_buf(), source })?;
        let files = Files::Archive { file: Arc::new(file), members };
        Ok(Self { path: path.to_path_buf(), files, compression })
    }

    /// What was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the image is a directory rather than an archive.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self.files, Files::Directory { .. })
    }

    /// How the archive as a whole was compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Whether the image has the file.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.open_blob(name).is_ok()
    }

    /// The file's bytes, to be read.
    ///
    /// # Errors
    /// [`SourceError::Missing`] where the image has no such file, [`SourceError::Read`] where it cannot be opened.
    pub fn open_blob(&self, name: &str) -> Result<BlobReader, SourceError> {
        match &self.files {
            Files::Archive { file, members } => {
                let (offset, size) =
                    find(members, name).ok_or_else(|| SourceError::Missing { name: name.to_owned() })?;
                Ok(BlobReader::new(Arc::clone(file), offset, size))
            }
            Files::Directory { root } => open_below(root, name),
        }
    }

    /// A whole small file: an index, a manifest, a config.
    ///
    /// # Errors
    /// As [`Self::open_blob`], and where it is larger than 8 MiB.
    pub fn read_document(&self, name: &str) -> Result<Vec<u8>, SourceError> {
        let mut blob = self.open_blob(name)?;
        if blob.remaining() > DOCUMENT_LIMIT {
            return Err(SourceError::TooLarge { name: name.to_owned(), size: blob.remaining() });
        }
        let mut bytes = Vec::new();
        blob.read_to_end(&mut bytes).map_err(|source| SourceError::Read { name: name.to_owned(), source })?;
        Ok(bytes)
    }
}

/// Opens a file of a layout directory; links in it lead nowhere outside it.
fn open_below(root: &File, name: &str) -> Result<BlobReader, SourceError> {
    let failed = |source: io::Error| SourceError::Read { name: name.to_owned(), source };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(root, name, flags, Mode::empty(), resolve) {
        Ok(descriptor) => File::from(descriptor),
        Err(rustix::io::Errno::NOENT) => return Err(SourceError::Missing { name: name.to_owned() }),
        Err(errno) => return Err(failed(errno.into())),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(SourceError::Missing { name: name.to_owned() });
    }
    Ok(BlobReader::new(Arc::new(file), 0, metadata.len()))
}

/// The archive without the compression around it, and which that was.
fn plain_archive(mut file: File, limits: &Limits) -> io::Result<(File, Compression)> {
    let size = file.metadata()?.len();
    let mut magic = Vec::new();
    file.by_ref().take(6).read_to_end(&mut magic)?;
    file.rewind()?;
    let compression = Compression::of(&magic);
    if compression == Compression::None {
        return Ok((file, compression));
    }
    let mut decoder = Decoder::open(BufReader::new(file))?;
    let bound = limits.bytes.min(size.saturating_mul(limits.ratio).max(limits.ratio_from));
    let mut plain = tempfile::tempfile()?;
    let copied = io::copy(&mut decoder.by_ref().take(bound), &mut plain)?;
    if copied == bound && decoder.read(&mut [0])? > 0 {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("more than {bound} bytes come out of it"),
        ));
    }
    plain.rewind()?;
    Ok((plain, compression))
}

/// Lists the members without reading their data.
fn scan(mut file: &File, limits: &Limits) -> Result<BTreeMap<String, Member>, TarError> {
    let failed = |source| TarError::Read { offset: 0, source };
    file.rewind().map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut reader = TarReader::new(BufReader::new(file), limits.entries);
    let mut members = BTreeMap::new();
    while let Some(entry) = reader.next_entry()? {
        let Ok(name) = String::from_utf8(entry.path) else { continue };
        let member = match entry.kind {
            EntryKind::File { extents: None } => {
                let offset = reader.offset();
                if offset.saturating_add(entry.size) > length {
                    return Err(TarError::Truncated { offset: length });
                }
                Member::File { offset, size: entry.size }
            }
            EntryKind::Hardlink { target } => match String::from_utf8(target) {
                Ok(target) => Member::Link { target: normal(&target) },
                Err(_) => continue,
            },
            EntryKind::Symlink { target } => match String::from_utf8(target) {
                Ok(target) => Member::Link { target: normal(&beside(&name, &target)) },
                Err(_) => continue,
            },
            _ => continue,
        };
        members.insert(normal(&name), member);
    }
    Ok(members)
}

/// Follows the archive's own links (old `docker save` shares layers so).
fn find(members: &BTreeMap<String, Member>, name: &str) -> Option<(u64, u64)> {
    let mut name = normal(name);
    for _ in 0..LINK_LIMIT {
        match members.get(&name)? {
            Member::File { offset, size } => return Some((*offset, *size)),
            Member::Link { target } => name.clone_from(target),
        }
    }
    None
}

/// The target of a symbolic link as seen from the archive's root.
fn beside(name: &str, target: &str) -> String {
    match name.rsplit_once('/') {
        Some((directory, _)) if !target.starts_with('/') => format!("{directory}/{target}"),
        _ => target.to_owned(),
    }
}

/// The name without `.`, `..`, and empty components.
fn normal(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_their_decoration() {
        assert_eq!(normal("./blobs//sha256/../sha256/ab"), "blobs/sha256/ab");
        assert_eq!(beside("abc/layer.tar", "../def/layer.tar"), "abc/../def/layer.tar");
    }

    #[test]
    fn a_circle_of_links_is_no_file() {
        let link = |target: &str| Member::Link { target: target.to_owned() };
        let members = BTreeMap::from([("a".to_owned(), link("b")), ("b".to_owned(), link("a"))]);
        assert_eq!(find(&members, "a"), None);
    }

    #[test]
    fn a_link_in_a_layout_directory_does_not_leave_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), "outside").unwrap();
        let layout = directory.path().join("layout");
        std::fs::create_dir(&layout).unwrap();
        std::os::unix::fs::symlink("../secret", layout.join("index.json")).unwrap();
        let source = ImageSource::open(&layout, &Limits::default()).unwrap();
        assert!(matches!(source.read_document("index.json"), Err(SourceError::Missing { .. })));
    }
}
