//! Paths of an image, made plain before any of them is looked up.

/// The path without leading slash, empty components, `.` and `..`; a `..` at the root stays there, as in a chroot.
///
/// What is left is only text: symbolic links in it are resolved by [`super::tree::Tree`], below the root.
#[must_use]
pub fn clean_path(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// The directory that a clean path is in, and its last name; `None` for the root.
pub(super) fn split_name(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None if path.is_empty() => None,
        None => Some((b"", path)),
    }
}

/// `directory/name`, where the root is the empty path.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_climbs_out() {
        assert_eq!(clean_path(b"/../../etc/./passwd/"), b"etc/passwd");
        assert_eq!(clean_path(b"./"), b"");
        assert_eq!(clean_path(b"a/b/../../../c"), b"c");
    }

    proptest! {
        #[test]
        fn a_clean_path_is_clean(path in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), Just(b'a')], 0..40)) {
            let clean = clean_path(&path);
            prop_assert_eq!(clean_path(&clean), clean.clone());
            for part in clean.split(|byte| *byte == b'/') {
                prop_assert!(clean.is_empty() || !matches!(part, b"" | b"." | b".."));
            }
            if let Some((directory, name)) = split_name(&clean) {
                prop_assert_eq!(join(directory, name), clean);
            }
        }
    }
}
