//! Decompression, told by the bytes themselves: media types are wrong often enough.

use std::fmt;
use std::io::{self, BufRead, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use serde::Serialize;

/// The most memory that a zstd frame may ask for, as `zstd --long=27` does: 128 MiB.
const ZSTD_WINDOW: u64 = 128 << 20;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// Known, but in no image format: refused.
    Bzip2,
    /// Known, but in no image format: refused.
    Xz,
}

impl Compression {
    /// Told by the first bytes.
    #[must_use]
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
        })
    }
}

/// A stream without its compression.
pub(crate) enum Decoder<B: BufRead> {
    Plain(B),
    Gzip(Box<MultiGzDecoder<B>>),
    Zstd(Box<ZstdReader<B>>),
}

impl<B: BufRead> Decoder<B> {
    /// Looks at the first bytes and takes the compression that they tell.
    ///
    /// # Errors
    /// Where the stream cannot be read, or is compressed in a way that no image format has.
    pub(crate) fn open(mut input: B) -> io::Result<Self> {
        match Compression::of(input.fill_buf()?) {
            Compression::None => Ok(Self::Plain(input)),
            Compression::Gzip => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(input)))),
            Compression::Zstd => Ok(Self::Zstd(Box::new(ZstdReader { input: Some(input), frame: None }))),
            other => {
                let text = format!("it is compressed with {other}, which the image spec does not have");
                Err(io::Error::new(io::ErrorKind::Unsupported, text))
            }
        }
    }

    pub(crate) fn compression(&self) -> Compression {
        match self {
            Self::Plain(_) => Compression::None,
            Self::Gzip(_) => Compression::Gzip,
            Self::Zstd(_) => Compression::Zstd,
        }
    }

    /// The stream below, which may have bytes left at the end of this one. A failed zstd stream has lost it.
    pub(crate) fn input_mut(&mut self) -> Option<&mut B> {
        match self {
            Self::Plain(input) => Some(input),
            Self::Gzip(decoder) => Some(decoder.get_mut()),
            Self::Zstd(reader) => match &mut reader.frame {
                Some(frame) => Some(frame.get_mut().get_mut().1),
                None => reader.input.as_mut(),
            },
        }
    }
}

impl<B: BufRead> Read for Decoder<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(reader) => reader.read(buffer),
        }
    }
}

type Frame<B> = StreamingDecoder<Chain<Cursor<[u8; 4]>, B>, FrameDecoder>;

/// Frame after frame of zstd, leaving out skippable ones.
pub(crate) struct ZstdReader<B: BufRead> {
    input: Option<B>,
    frame: Option<Frame<B>>,
}

impl<B: BufRead> ZstdReader<B> {
    /// Begins the next frame; `false` at the end of the input.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            let Some(input) = &mut self.input else { return Ok(false) };
            if input.fill_buf()?.is_empty() {
                return Ok(false);
            }
            let mut magic = [0; 4];
            input.read_exact(&mut magic)?;
            if matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18]) {
                skip_frame(input)?;
            } else if let Some(input) = self.input.take() {
                let source = Cursor::new(magic).chain(input);
                let frame = StreamingDecoder::new_with_max_window_size(source, ZSTD_WINDOW)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                self.frame = Some(frame);
                return Ok(true);
            }
        }
    }
}

/// The rest of a skippable frame: its length and that many bytes.
fn skip_frame(input: &mut impl BufRead) -> io::Result<()> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u64::from(u32::from_le_bytes(length));
    let skipped = io::copy(&mut input.by_ref().take(length), &mut io::sink())?;
    if skipped < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

impl<B: BufRead> Read for ZstdReader<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let count = frame.read(buffer)?;
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
                self.input = self.frame.take().map(|frame| frame.into_inner().into_inner().1);
            }
            if !self.next_frame()? {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn decode(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut decoder = Decoder::open(bytes)?;
        let mut out = Vec::new();
        decoder.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn every_member_and_frame_counts() {
        assert_eq!(decode(&[gzip(b"one "), gzip(b"two")].concat()).unwrap(), b"one two");
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        assert_eq!(
            decode(&[&skippable[..], &zstd(b"one "), &skippable, &zstd(b"two")].concat()).unwrap(),
            b"one two"
        );
        assert_eq!(decode(b"plain").unwrap(), b"plain");
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let whole = gzip(&[1; 5000]);
        assert!(decode(&whole[..whole.len() - 4]).is_err());
        let whole = zstd(&[1; 5000]);
        assert!(decode(&whole[..whole.len() - 4]).is_err());
    }

    #[test]
    fn what_no_image_has_is_refused_by_name() {
        assert!(decode(b"\xfd7zXZ\0rest").unwrap_err().to_string().contains("xz"));
    }
}
