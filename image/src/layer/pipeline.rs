//! The thread that decompresses and hashes, and the stream that its reader sees.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use oci_spec::image::Digest;

use super::decode::{self, Compression};
use super::{Layer, LayerError};
use crate::blob::{BlobReader, Hasher};
use crate::limits::Limits;
use crate::source::ImageSource;
use crate::tar::Input;

/// Bytes in one piece on their way between the threads, and in one read of a blob.
const PIECE: usize = 256 << 10;

/// Pieces under way: with [`PIECE`] 4 MiB, so that neither thread waits for the other's short delays.
const PIECES: usize = 16;

/// What a layer turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerEnd {
    /// How it was compressed.
    pub compression: Compression,
    /// Bytes of the blob.
    pub blob_bytes: u64,
    /// Bytes of the archive inside.
    pub archive_bytes: u64,
    /// The digest of the archive inside.
    pub diff_id: String,
}

enum Piece {
    Bytes(Vec<u8>),
    End(Box<Result<LayerEnd, LayerError>>),
}

/// The layers of an image one after the other, decompressed ahead of their reader.
#[derive(Debug)]
pub struct Layers {
    pieces: Receiver<Piece>,
    emptied: Sender<Vec<u8>>,
    blob_bytes: Arc<AtomicU64>,
}

impl Layers {
    /// Starts to decompress.
    ///
    /// # Errors
    /// [`LayerError::Thread`] where no thread can be started.
    pub fn start(source: Arc<ImageSource>, layers: Vec<Layer>, limits: Limits) -> Result<Self, LayerError> {
        let (sender, pieces) = sync_channel(PIECES);
        let (emptied, buffers) = channel();
        let blob_bytes = Arc::new(AtomicU64::new(0));
        let decoder = Decoder { sender, buffers, blob_bytes: Arc::clone(&blob_bytes), limits, total: 0 };
        // The thread ends by itself: when all is said, or when nobody listens any more.
        thread::Builder::new()
            .name("layers".to_owned())
            .spawn(move || decoder.run(&source, &layers))
            .map_err(|_| LayerError::Thread)?;
        Ok(Self { pieces, emptied, blob_bytes })
    }

    /// The next layer's bytes. The one before must have been read to its end with [`LayerStream::finish`].
    pub fn next_layer(&mut self) -> LayerStream<'_> {
        LayerStream { layers: self, piece: Vec::new(), taken: 0, end: None }
    }

    /// Bytes of blobs that were read so far, for a progress bar.
    #[must_use]
    pub fn blob_bytes(&self) -> u64 {
        self.blob_bytes.load(Ordering::Relaxed)
    }
}

/// The archive in one layer. [`Self::finish`] says whether it was what the image said.
#[derive(Debug)]
pub struct LayerStream<'a> {
    layers: &'a mut Layers,
    piece: Vec<u8>,
    taken: usize,
    end: Option<Box<Result<LayerEnd, LayerError>>>,
}

impl LayerStream<'_> {
    /// Reads what is left and gives the verdict on the whole.
    ///
    /// # Errors
    /// The blob cannot be read, is over a limit, or is not what its descriptor or the config say.
    pub fn finish(mut self) -> Result<LayerEnd, LayerError> {
        while self.end.is_none() {
            self.receive();
        }
        self.end.take().map_or(Err(LayerError::Thread), |end| *end)
    }

    /// Whether the stream ended with an error, which [`Self::finish`] gives.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.is_err())
    }

    /// Bytes of all blobs that were read so far.
    #[must_use]
    pub fn blob_bytes(&self) -> u64 {
        self.layers.blob_bytes()
    }

    fn receive(&mut self) {
        let old = std::mem::take(&mut self.piece);
        if old.capacity() > 0 {
            // The thread may have ended: then nobody needs the buffer.
            match self.layers.emptied.send(old) {
                Ok(()) | Err(_) => {}
            }
        }
        self.taken = 0;
        match self.layers.pieces.recv() {
            Ok(Piece::Bytes(bytes)) => self.piece = bytes,
            Ok(Piece::End(end)) => self.end = Some(end),
            Err(_) => self.end = Some(Box::new(Err(LayerError::Thread))),
        }
    }
}

impl Read for LayerStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for LayerStream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.taken == self.piece.len() && self.end.is_none() {
            self.receive();
        }
        if self.has_failed() {
            return Err(io::Error::other("the layer cannot be read"));
        }
        Ok(&self.piece[self.taken..])
    }

    fn consume(&mut self, count: usize) {
        self.taken = (self.taken + count).min(self.piece.len());
    }
}

impl Input for LayerStream<'_> {}

/// What the thread works with.
struct Decoder {
    sender: SyncSender<Piece>,
    buffers: Receiver<Vec<u8>>,
    blob_bytes: Arc<AtomicU64>,
    limits: Limits,
    /// Bytes of all archives so far.
    total: u64,
}

/// Nobody listens any more.
struct Deaf;

impl Decoder {
    fn run(mut self, source: &ImageSource, layers: &[Layer]) {
        for layer in layers {
            let end = match self.decode(source, layer) {
                Ok(end) => end,
                Err(Deaf) => return,
            };
            let failed = end.is_err();
            if self.sender.send(Piece::End(Box::new(end))).is_err() || failed {
                return;
            }
        }
    }

    fn decode(&mut self, source: &ImageSource, layer: &Layer) -> Result<Result<LayerEnd, LayerError>, Deaf> {
        let mut stream = match LayerInput::open(source, layer, &self.blob_bytes) {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(error)),
        };
        let mut archive_bytes = 0_u64;
        loop {
            let mut piece = self.buffers.try_recv().unwrap_or_default();
            piece.resize(PIECE, 0);
            let count = match stream.fill(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(source) => return Ok(Err(LayerError::Decompress { name: layer.name.clone(), source })),
            };
            piece.truncate(count);
            archive_bytes += count as u64;
            self.total += count as u64;
            if let Some(error) = self.over_limit(layer, archive_bytes, stream.blob_bytes()) {
                return Ok(Err(error));
            }
            self.sender.send(Piece::Bytes(piece)).map_err(|_| Deaf)?;
        }
        Ok(stream.finish(layer, archive_bytes))
    }

    fn over_limit(&self, layer: &Layer, archive_bytes: u64, blob_bytes: u64) -> Option<LayerError> {
        let name = || layer.name.clone();
        if self.total > self.limits.bytes {
            return Some(LayerError::TooLarge { name: name(), limit: self.limits.bytes });
        }
        let bound = blob_bytes.saturating_mul(self.limits.ratio).max(self.limits.ratio_from);
        (archive_bytes > bound).then(|| LayerError::Ratio { name: name(), limit: self.limits.ratio })
    }
}

/// One layer's blob, hashed before and after decompression.
struct LayerInput {
    decoder: decode::Decoder<HashedBlob>,
    /// `None` where the blob is the archive: then one hash serves for both.
    archive_hash: Option<Hasher>,
}

impl LayerInput {
    fn open(source: &ImageSource, layer: &Layer, progress: &Arc<AtomicU64>) -> Result<Self, LayerError> {
        let name = || layer.name.clone();
        let reader =
            source.open_blob(&layer.name).map_err(|source| LayerError::Open { name: name(), source })?;
        let hasher = |digest: Option<&Digest>| match digest {
            None => Ok(Hasher::sha256()),
            Some(digest) => Hasher::for_digest(digest)
                .ok_or_else(|| LayerError::Algorithm { name: name(), digest: digest.to_string() }),
        };
        let (blob_hash, archive_hash) = (hasher(layer.digest.as_ref())?, hasher(layer.diff_id.as_ref())?);
        let same_algorithm = std::mem::discriminant(&blob_hash) == std::mem::discriminant(&archive_hash);
        let decoder = decode::Decoder::open(HashedBlob::new(reader, blob_hash, Arc::clone(progress)))
            .map_err(|source| LayerError::Decompress { name: name(), source })?;
        let same = same_algorithm && decoder.compression() == Compression::None;
        Ok(Self { decoder, archive_hash: (!same).then_some(archive_hash) })
    }

    /// Fills the buffer as far as the stream goes.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.decoder.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(hash) = &mut self.archive_hash {
            hash.update(&buffer[..filled]);
        }
        Ok(filled)
    }

    fn blob_bytes(&mut self) -> u64 {
        self.decoder.input_mut().map_or(0, |blob| blob.read)
    }

    /// Compares with what the image says.
    fn finish(mut self, layer: &Layer, archive_bytes: u64) -> Result<LayerEnd, LayerError> {
        let name = || layer.name.clone();
        let compression = self.decoder.compression();
        let blob = self.decoder.input_mut().ok_or(LayerError::Thread)?;
        io::copy(blob, &mut io::sink()).map_err(|source| LayerError::Decompress { name: name(), source })?;
        let blob_bytes = blob.read;
        if blob_bytes != layer.size {
            return Err(LayerError::Size { name: name(), expected: layer.size, actual: blob_bytes });
        }
        let actual = blob.hash.clone().finish();
        let diff_id = self.archive_hash.map_or_else(|| actual.clone(), Hasher::finish);
        if let Some(expected) =
            layer.digest.as_ref().map(ToString::to_string).filter(|digest| *digest != actual)
        {
            return Err(LayerError::Digest { name: name(), expected, actual });
        }
        if let Some(expected) = layer.diff_id.as_ref().map(ToString::to_string).filter(|id| *id != diff_id) {
            return Err(LayerError::DiffId { name: name(), expected, actual: diff_id });
        }
        Ok(LayerEnd { compression, blob_bytes, archive_bytes, diff_id })
    }
}

/// A blob that is hashed as it is read, a buffer at a time.
struct HashedBlob {
    reader: BlobReader,
    hash: Hasher,
    progress: Arc<AtomicU64>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    read: u64,
}

impl HashedBlob {
    fn new(reader: BlobReader, hash: Hasher, progress: Arc<AtomicU64>) -> Self {
        Self { reader, hash, progress, buffer: vec![0; PIECE], start: 0, end: 0, read: 0 }
    }
}

impl Read for HashedBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for HashedBlob {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            (self.start, self.end) = (0, self.reader.read(&mut self.buffer)?);
            let read = &self.buffer[..self.end];
            self.hash.update(read);
            self.read += read.len() as u64;
            self.progress.fetch_add(read.len() as u64, Ordering::Relaxed);
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }
}
