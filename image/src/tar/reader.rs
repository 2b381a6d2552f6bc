//! Goes through an archive entry by entry, without holding data.

use std::io::{self, BufRead, BufReader, Read, Seek};

use super::entry::{Entry, EntryKind, Timestamp};
use super::header::Header;
use super::pax::Extension;
use super::sparse::is_sound;
use super::{BLOCK, EXTENSION_LIMIT, TarError};

/// A stream that can leave bytes out, cheaply where it is a file.
pub trait Input: BufRead {
    /// Goes forward by `count` bytes.
    ///
    /// # Errors
    /// What the stream says; [`io::ErrorKind::UnexpectedEof`] where it notices that it ends before.
    fn skip(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let available = self.fill_buf()?.len();
            if available == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let step = available.min(usize::try_from(count).unwrap_or(usize::MAX));
            self.consume(step);
            count -= step as u64;
        }
        Ok(())
    }
}

impl Input for &[u8] {}

impl<S: Read + Seek> Input for BufReader<S> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        self.seek_relative(i64::try_from(count).map_err(|_| io::ErrorKind::UnexpectedEof)?)
    }
}

/// Reads an archive.
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
    /// Bytes read so far.
    offset: u64,
    /// Data of the current entry that was not read yet.
    remaining: u64,
    /// What pads the current entry's data to a block.
    padding: u64,
    entries: u64,
    limit: u64,
    ended: bool,
}

impl<R: BufRead + Input> TarReader<R> {
    /// An archive that may have `limit` entries.
    pub fn new(input: R, limit: u64) -> Self {
        Self { input, offset: 0, remaining: 0, padding: 0, entries: 0, limit, ended: false }
    }

    /// Bytes read so far: after [`Self::next_entry`], where the entry's data starts.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many entries were read.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The stream below, wherever it stands.
    pub fn into_input(self) -> R {
        self.input
    }

    /// The stream below.
    pub fn input_mut(&mut self) -> &mut R {
        &mut self.input
    }

    /// The next entry; `None` at the end. Data of the entry before that was not read is left out.
    ///
    /// # Errors
    /// Where the archive is damaged, truncated, or over a limit. There is no going on after an error.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extension = Extension::default();
        let mut extended = false;
        loop {
            self.skip_data()?;
            let start = self.offset;
            let Some(block) = self.next_header(extended)? else { return Ok(None) };
            let header = Header { block: &block, offset: start };
            header.verify()?;
            match header.type_flag() {
                b'L' => extension.path = Some(until_nul(self.read_extension(&header)?)),
                b'K' => extension.link_target = Some(until_nul(self.read_extension(&header)?)),
                b'x' | b'X' => {
                    let records = self.read_extension(&header)?;
                    extension.parse(&records).ok_or(TarError::Pax { offset: self.offset })?;
                }
                // Records for the whole archive: containerd and umoci leave them out as well.
                b'g' => self.begin_data(header.size()?)?,
                _ => return self.entry(&header, extension).map(Some),
            }
            extended = true;
            self.count()?;
        }
    }

    /// Some of the current entry's data that is not read yet; empty at its end. Take it with [`Self::consume`].
    ///
    /// # Errors
    /// Where the stream fails or ends.
    pub fn data(&mut self) -> Result<&[u8], TarError> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let offset = self.offset;
        let available = self.input.fill_buf().map_err(|source| TarError::Read { offset, source })?;
        if available.is_empty() {
            return Err(TarError::Truncated { offset });
        }
        let end = available.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        Ok(&available[..end])
    }

    /// Goes past `count` bytes of what [`Self::data`] gave.
    pub fn consume(&mut self, count: usize) {
        debug_assert!(count as u64 <= self.remaining, "no more than was given");
        self.input.consume(count);
        self.offset += count as u64;
        self.remaining = self.remaining.saturating_sub(count as u64);
    }

    fn count(&mut self) -> Result<(), TarError> {
        self.entries += 1;
        if self.entries > self.limit { Err(TarError::TooManyEntries { limit: self.limit }) } else { Ok(()) }
    }

    /// The next header, or the end: a block of zeros, or simply the end of the stream, as Go takes it too.
    fn next_header(&mut self, extended: bool) -> Result<Option<[u8; BLOCK]>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let offset = self.offset;
        let end = match self.read_block()? {
            None => true,
            Some(block) if (Header { block: &block, offset }).is_zero() => true,
            Some(block) => return Ok(Some(block)),
        };
        self.ended = end;
        if extended { Err(TarError::Truncated { offset }) } else { Ok(None) }
    }

    /// One block; `None` where the stream ends before it.
    pub(super) fn read_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let offset = self.offset;
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated { offset }),
                Ok(count) => {
                    filled += count;
                    self.offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(TarError::Read { offset, source }),
            }
        }
        Ok(Some(block))
    }

    /// A block that is part of the current entry's data.
    pub(super) fn read_data_block(&mut self) -> Result<[u8; BLOCK], TarError> {
        if self.remaining < BLOCK as u64 {
            return Err(TarError::Sparse { offset: self.offset });
        }
        self.remaining -= BLOCK as u64;
        self.read_block()?.ok_or(TarError::Truncated { offset: self.offset })
    }

    fn begin_data(&mut self, size: u64) -> Result<(), TarError> {
        let block = BLOCK as u64;
        // A size whose end no offset can name is a lie, not a large file.
        if size > i64::MAX.cast_unsigned() - self.offset - block {
            return Err(TarError::Field { offset: self.offset, field: "size" });
        }
        self.remaining = size;
        self.padding = (block - size % block) % block;
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        let count = self.remaining + self.padding;
        if count > 0 {
            let offset = self.offset;
            self.input.skip(count).map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => TarError::Truncated { offset },
                _ => TarError::Read { offset, source },
            })?;
            self.offset += count;
            (self.remaining, self.padding) = (0, 0);
        }
        Ok(())
    }

    fn read_extension(&mut self, header: &Header<'_>) -> Result<Vec<u8>, TarError> {
        let size = header.size()?;
        if size > EXTENSION_LIMIT {
            return Err(TarError::ExtensionTooLong { offset: header.offset, size });
        }
        self.begin_data(size)?;
        let mut bytes = Vec::new();
        loop {
            let data = self.data()?;
            if data.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(data);
            let count = data.len();
            self.consume(count);
        }
    }

    fn entry(&mut self, header: &Header<'_>, mut extension: Extension) -> Result<Entry, TarError> {
        self.count()?;
        let path = extension.sparse.name.take().or(extension.path.take()).unwrap_or_else(|| header.path());
        let target = extension.link_target.take().unwrap_or_else(|| header.link_target());
        let (kind, size) = self.kind(header, &path, target, &extension)?;
        let id = |value: u64, field| {
            u32::try_from(value).map_err(|_| TarError::Field { offset: header.offset, field })
        };
        let mtime = match extension.mtime {
            Some(mtime) => mtime,
            None => Timestamp { seconds: header.mtime()?, nanoseconds: 0 },
        };
        Ok(Entry {
            path,
            kind,
            mode: header.mode()?,
            uid: id(extension.uid.map_or_else(|| header.uid(), Ok)?, "uid")?,
            gid: id(extension.gid.map_or_else(|| header.gid(), Ok)?, "gid")?,
            mtime,
            atime: extension.atime,
            size,
            xattrs: extension.xattrs,
        })
    }

    fn kind(
        &mut self,
        header: &Header<'_>,
        path: &[u8],
        target: Vec<u8>,
        extension: &Extension,
    ) -> Result<(EntryKind, u64), TarError> {
        let size = extension.size.map_or_else(|| header.size(), Ok)?;
        let kind = match header.type_flag() {
            // The oldest format marks a directory by its name alone.
            0 if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => return self.file(header, size, extension),
            b'1' => EntryKind::Hardlink { target },
            b'2' => EntryKind::Symlink { target },
            flag @ (b'3' | b'4') => {
                let (major, minor) = header.device()?;
                if flag == b'3' {
                    EntryKind::CharacterDevice { major, minor }
                } else {
                    EntryKind::BlockDevice { major, minor }
                }
            }
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            flag => {
                self.begin_data(size)?;
                return Ok((EntryKind::Unknown { flag }, 0));
            }
        };
        // A link or a directory has no data, whatever its size field says: pax(1) writes the linked file's size.
        self.begin_data(0)?;
        Ok((kind, 0))
    }

    fn file(
        &mut self,
        header: &Header<'_>,
        stored: u64,
        extension: &Extension,
    ) -> Result<(EntryKind, u64), TarError> {
        let sparse = &extension.sparse;
        let (extents, size) = if header.type_flag() == b'S' {
            let extents = self.gnu_extents(header.block)?;
            self.begin_data(stored)?;
            (extents, header.unsigned(483, 12, "realsize")?)
        } else if sparse.is_sparse() {
            self.begin_data(stored)?;
            let extents = if sparse.major == Some(1) { self.pax_extents()? } else { sparse.extents.clone() };
            (extents, sparse.real_size.ok_or(TarError::Sparse { offset: self.offset })?)
        } else {
            self.begin_data(stored)?;
            return Ok((EntryKind::File { extents: None }, stored));
        };
        let fits = size <= i64::MAX.cast_unsigned() && is_sound(&extents, size, self.remaining);
        if fits {
            Ok((EntryKind::File { extents: Some(extents) }, size))
        } else {
            Err(TarError::Sparse { offset: self.offset })
        }
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}
