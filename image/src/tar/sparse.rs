//! Sparse files: where their maps are, and what a sound map is.

use std::io::BufRead;

use super::entry::Extent;
use super::header::parse_number;
use super::pax::decimal;
use super::reader::Input;
use super::{BLOCK, EXTENSION_LIMIT, TarError, TarReader};

/// Whether the extents are in order, do not overlap, end within `size`, and hold `stored` bytes together.
pub(super) fn is_sound(extents: &[Extent], size: u64, stored: u64) -> bool {
    let mut end = 0_u64;
    let mut sum = 0_u64;
    for extent in extents {
        let Some(next) = extent.offset.checked_add(extent.length) else { return false };
        if extent.offset < end || next > size {
            return false;
        }
        end = next;
        sum += extent.length;
    }
    sum == stored
}

/// The pairs of 12-byte numbers of the old GNU format; the first pair without a length ends them.
pub(super) fn parse_pairs(pairs: &[u8]) -> Option<Vec<Extent>> {
    let mut extents = Vec::new();
    for pair in pairs.chunks_exact(24) {
        if pair[12] == 0 {
            break;
        }
        let number = |field| u64::try_from(parse_number(field)?).ok();
        extents.push(Extent { offset: number(&pair[..12])?, length: number(&pair[12..])? });
    }
    Some(extents)
}

impl<R: BufRead + Input> TarReader<R> {
    /// The old GNU format: four pairs in the header, more in blocks of 21 behind it.
    pub(super) fn gnu_extents(&mut self, block: &[u8; BLOCK]) -> Result<Vec<Extent>, TarError> {
        let bad = TarError::Sparse { offset: self.offset() };
        let Some(mut extents) = parse_pairs(&block[386..482]) else { return Err(bad) };
        let mut extended = block[482] == 1;
        while extended {
            let more = self.read_block()?.ok_or(TarError::Truncated { offset: self.offset() })?;
            let Some(pairs) = parse_pairs(&more[..504]) else {
                return Err(TarError::Sparse { offset: self.offset() });
            };
            extents.extend(pairs);
            extended = more[504] == 1;
            let held = (extents.len() as u64).saturating_mul(24);
            if held > EXTENSION_LIMIT {
                return Err(TarError::ExtensionTooLong { offset: self.offset(), size: held });
            }
        }
        Ok(extents)
    }

    /// PAX 1.0: a count and that many pairs, each number on a line of its own, padded to a block, before the data.
    pub(super) fn pax_extents(&mut self) -> Result<Vec<Extent>, TarError> {
        let mut map = Lines { text: Vec::new(), taken: 0 };
        let count = map.number(self)?;
        let mut extents = Vec::new();
        for _ in 0..count {
            let (offset, length) = (map.number(self)?, map.number(self)?);
            extents.push(Extent { offset, length });
        }
        Ok(extents)
    }
}

/// Lines of numbers, read a block at a time from the data of the entry.
struct Lines {
    text: Vec<u8>,
    taken: usize,
}

impl Lines {
    fn number<R: BufRead + Input>(&mut self, reader: &mut TarReader<R>) -> Result<u64, TarError> {
        loop {
            let rest = &self.text[self.taken..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let number = decimal(&rest[..end]).ok_or(TarError::Sparse { offset: reader.offset() })?;
                self.taken += end + 1;
                return Ok(number);
            }
            if self.text.len() as u64 >= EXTENSION_LIMIT {
                return Err(TarError::ExtensionTooLong { offset: reader.offset(), size: EXTENSION_LIMIT });
            }
            let block = reader.read_data_block()?;
            self.text.extend_from_slice(&block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_ordered_and_fits() {
        let extent = |offset, length| Extent { offset, length };
        assert!(is_sound(&[extent(0, 2), extent(4, 2)], 8, 4));
        assert!(!is_sound(&[extent(4, 2), extent(0, 2)], 8, 4), "out of order");
        assert!(!is_sound(&[extent(0, 3), extent(2, 2)], 8, 5), "overlap");
        assert!(!is_sound(&[extent(7, 2)], 8, 2), "beyond the end");
        assert!(!is_sound(&[extent(0, 2)], 8, 3), "other stored size");
        assert!(!is_sound(&[extent(u64::MAX, 2)], 8, 2), "overflow");
    }
}
