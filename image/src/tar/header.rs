//! The 512 bytes before every entry: where the fields are and how their numbers are written.

use super::{BLOCK, TarError};

/// A header block, with its place in the archive for error texts.
pub(super) struct Header<'a> {
    pub(super) block: &'a [u8; BLOCK],
    pub(super) offset: u64,
}

impl Header<'_> {
    pub(super) fn is_zero(&self) -> bool {
        self.block.iter().all(|byte| *byte == 0)
    }

    /// The sum of all bytes, the checksum field taken as blanks; old writers summed signed bytes.
    pub(super) fn verify(&self) -> Result<(), TarError> {
        let stored = self.number(148, 8, "chksum")?;
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (index, byte) in self.block.iter().enumerate() {
            let byte = if (148..156).contains(&index) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stored == unsigned || stored == signed {
            Ok(())
        } else {
            Err(TarError::Checksum { offset: self.offset })
        }
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.block[156]
    }

    /// The name; ustar splits a long one into `prefix/name`.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.block[0..100]);
        let is_ustar = &self.block[257..263] == b"ustar\0";
        let prefix = if is_ustar { text(&self.block[345..500]) } else { &[] };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link_target(&self) -> Vec<u8> {
        text(&self.block[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u32, TarError> {
        self.unsigned(100, 8, "mode").map(|mode| u32::try_from(mode & 0o7777).unwrap_or(0))
    }

    pub(super) fn uid(&self) -> Result<u64, TarError> {
        self.unsigned(108, 8, "uid")
    }

    pub(super) fn gid(&self) -> Result<u64, TarError> {
        self.unsigned(116, 8, "gid")
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        self.unsigned(124, 12, "size")
    }

    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        self.number(136, 12, "mtime")
    }

    /// The device numbers; archives of the oldest format have none.
    pub(super) fn device(&self) -> Result<(u32, u32), TarError> {
        let part = |start, field| {
            u32::try_from(self.unsigned(start, 8, field)?)
                .map_err(|_| TarError::Field { offset: self.offset, field })
        };
        Ok((part(329, "devmajor")?, part(337, "devminor")?))
    }

    pub(super) fn unsigned(&self, start: usize, length: usize, field: &'static str) -> Result<u64, TarError> {
        u64::try_from(self.number(start, length, field)?)
            .map_err(|_| TarError::Field { offset: self.offset, field })
    }

    fn number(&self, start: usize, length: usize, field: &'static str) -> Result<i64, TarError> {
        parse_number(&self.block[start..start + length]).ok_or(TarError::Field { offset: self.offset, field })
    }
}

/// Text up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits between blanks and NULs, or (GNU) a big-endian two's complement number whose first bit is a marker.
pub(super) fn parse_number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        for (index, byte) in field.iter().enumerate() {
            let byte = if index == 0 && !negative { byte & 0x7f } else { *byte };
            value = value.checked_mul(256)?.checked_add(i64::from(byte))?;
        }
        return Some(value);
    }
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(parse_number(b"0000644\0"), Some(0o644));
        assert_eq!(parse_number(b"  17 \0\0\0"), Some(0o17));
        assert_eq!(parse_number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(parse_number(&[0x80, 0, 0, 0, 0, 0, 1, 2]), Some(258));
        assert_eq!(parse_number(&[0xff; 12]), Some(-1));
        assert_eq!(parse_number(b"0000849\0"), None);
        assert_eq!(parse_number(&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]), None);
    }
}
