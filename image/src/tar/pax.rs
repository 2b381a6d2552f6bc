//! PAX extended headers: records of `LENGTH KEY=VALUE\n` that replace what the header's narrow fields cannot hold.

use super::entry::{Extent, Timestamp};

/// What the records before an entry say of it.
#[derive(Debug, Default)]
pub(super) struct Extension {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) atime: Option<Timestamp>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: SparseRecords,
}

/// The `GNU.sparse.*` records, of whichever version.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    pub(super) major: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    pub(super) extents: Vec<Extent>,
    offset: Option<u64>,
    is_sparse: bool,
}

impl SparseRecords {
    /// Whether the entry after these records is a sparse file of a PAX format.
    pub(super) fn is_sparse(&self) -> bool {
        self.is_sparse
    }
}

impl Extension {
    /// Takes the records of one header; `None` where one is malformed. The last record of a key counts.
    pub(super) fn parse(&mut self, mut records: &[u8]) -> Option<()> {
        while !records.is_empty() {
            let blank = records.iter().take(20).position(|byte| *byte == b' ')?;
            let length = usize::try_from(decimal(&records[..blank])?).ok()?;
            let record = records.get(blank + 1..length)?.strip_suffix(b"\n")?;
            records = &records[length..];
            let equals = record.iter().position(|byte| *byte == b'=')?;
            self.take(&record[..equals], &record[equals + 1..])?;
        }
        Some(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        // POSIX: an empty value takes back what an earlier record said.
        let given = !value.is_empty();
        match key {
            b"path" => self.path = given.then(|| without_nul(value)).transpose_option()?,
            b"linkpath" => self.link_target = given.then(|| without_nul(value)).transpose_option()?,
            b"size" => self.size = given.then(|| decimal(value)).transpose_option()?,
            b"uid" => self.uid = given.then(|| decimal(value)).transpose_option()?,
            b"gid" => self.gid = given.then(|| decimal(value)).transpose_option()?,
            b"mtime" => self.mtime = given.then(|| timestamp(value)).transpose_option()?,
            b"atime" => self.atime = given.then(|| timestamp(value)).transpose_option()?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((without_nul(name)?, value.to_vec()));
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.take_sparse(name, value)?;
                }
            }
        }
        Some(())
    }

    fn take_sparse(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let sparse = &mut self.sparse;
        match key {
            b"major" => sparse.major = Some(decimal(value)?),
            b"minor" => {}
            b"name" => sparse.name = Some(without_nul(value)?),
            b"realsize" | b"size" => sparse.real_size = Some(decimal(value)?),
            // Version 0.0: pairs of records. Version 0.1: one list. Version 1.0: the map is in front of the data.
            b"offset" => sparse.offset = Some(decimal(value)?),
            b"numbytes" => {
                sparse.extents.push(Extent { offset: sparse.offset.take()?, length: decimal(value)? });
            }
            b"map" => {
                sparse.extents.clear();
                let numbers = value.split(|byte| *byte == b',').map(decimal).collect::<Option<Vec<_>>>()?;
                for pair in numbers.chunks(2) {
                    let [offset, length] = *pair else { return None };
                    sparse.extents.push(Extent { offset, length });
                }
            }
            _ => return Some(()),
        }
        sparse.is_sparse = true;
        Some(())
    }
}

/// `Option<Option<T>>` whose inner `None` is a failure: `Some(None)` fails, `None` stays absent.
trait TransposeOption<T> {
    fn transpose_option(self) -> Option<Option<T>>;
}

impl<T> TransposeOption<T> for Option<Option<T>> {
    fn transpose_option(self) -> Option<Option<T>> {
        match self {
            None => Some(None),
            Some(None) => None,
            Some(value) => Some(value),
        }
    }
}

fn without_nul(value: &[u8]) -> Option<Vec<u8>> {
    (!value.contains(&0)).then(|| value.to_vec())
}

/// Decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `[-]SECONDS[.FRACTION]`; digits below a nanosecond are dropped.
fn timestamp(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = (0..9).fold(0_u32, |value, index| {
        value * 10 + fraction.get(index).map_or(0, |digit| u32::from(digit - b'0'))
    });
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds },
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_values_with_newlines_are_kept() {
        let mut extension = Extension::default();
        extension.parse(b"30 SCHILY.xattr.user.a=x\n\0y=z\n12 path=abc\n").unwrap();
        assert_eq!(extension.xattrs, [(b"user.a".to_vec(), b"x\n\0y=z".to_vec())]);
        assert_eq!(extension.path.as_deref(), Some(b"abc".as_slice()));
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in
            [&b"5 a=b\n"[..], b"99 path=a\n", b"x path=a\n", b"8 patha\n", b"0 a=b\n", b"12 path=a\0c\n"]
        {
            assert!(Extension::default().parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn times_before_1970_round_down() {
        assert_eq!(timestamp(b"1.5"), Some(Timestamp { seconds: 1, nanoseconds: 500_000_000 }));
        assert_eq!(timestamp(b"-1.5"), Some(Timestamp { seconds: -2, nanoseconds: 500_000_000 }));
        assert_eq!(timestamp(b"-3"), Some(Timestamp { seconds: -3, nanoseconds: 0 }));
        assert_eq!(timestamp(b"1.0000000019"), Some(Timestamp { seconds: 1, nanoseconds: 1 }));
        assert_eq!(timestamp(b"1.x"), None);
    }

    #[test]
    fn both_old_sparse_versions_give_extents() {
        let mut zero = Extension::default();
        zero.parse(b"23 GNU.sparse.offset=0\n25 GNU.sparse.numbytes=5\n").unwrap();
        assert_eq!(zero.sparse.extents, [Extent { offset: 0, length: 5 }]);
        let mut one = Extension::default();
        one.parse(b"26 GNU.sparse.map=0,5,9,1\n").unwrap();
        assert_eq!(one.sparse.extents[1], Extent { offset: 9, length: 1 });
    }
}
