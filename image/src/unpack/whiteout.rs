//! Whiteouts: files of a layer that stand for the absence of others (OCI image spec, "Whiteouts").

use super::path::{clean_path, join, split_name};

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const META: &[u8] = b".wh..wh.";

/// What a whiteout takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whiteout {
    /// The path of lower layers, and all below it. Its last name is as hostile as any.
    Path(Vec<u8>),
    /// All that lower layers have in this directory.
    Opaque(Vec<u8>),
    /// A file of aufs' own bookkeeping, which no image means.
    Ignored,
}

/// What the path stands for, if it is a whiteout.
#[must_use]
pub fn whiteout_of(path: &[u8]) -> Option<Whiteout> {
    let path = clean_path(path);
    let (directory, name) = split_name(&path)?;
    if name == OPAQUE {
        return Some(Whiteout::Opaque(directory.to_vec()));
    }
    if path.split(|byte| *byte == b'/').any(|part| part.starts_with(META)) {
        return Some(Whiteout::Ignored);
    }
    name.strip_prefix(PREFIX).map(|hidden| Whiteout::Path(join(directory, hidden)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_by_its_name() {
        assert_eq!(whiteout_of(b"./a/.wh.b"), Some(Whiteout::Path(b"a/b".to_vec())));
        assert_eq!(whiteout_of(b"a/.wh..wh..opq"), Some(Whiteout::Opaque(b"a".to_vec())));
        assert_eq!(whiteout_of(b".wh..wh.plnk/1.2"), Some(Whiteout::Ignored));
        assert_eq!(whiteout_of(b"a/b.wh.c"), None);
        assert_eq!(whiteout_of(b".wh..."), Some(Whiteout::Path(b"..".to_vec())));
    }
}
