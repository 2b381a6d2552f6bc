//! Archives that others write are read as they meant them; damaged ones are refused and never panic.

use std::process::Command;

use proptest::prelude::*;

use super::*;

fn read_all(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = TarReader::new(archive, 10_000);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut data = Vec::new();
        loop {
            let piece = reader.data()?;
            if piece.is_empty() {
                break;
            }
            data.extend_from_slice(piece);
            let count = piece.len();
            reader.consume(count);
        }
        found.push((entry, data));
    }
    Ok(found)
}

fn simple_archive() -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, data) in [("a", &b"first"[..]), (&"long/".repeat(60), b""), ("b", &[7; 1500])] {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o4755);
        header.set_mtime(12);
        builder.append_data(&mut header, path.trim_end_matches('/'), data).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn names_modes_and_data_come_through() {
    let found = read_all(&simple_archive()).unwrap();
    assert_eq!(found[0].0.path, b"a");
    assert_eq!(found[0].1, b"first");
    assert_eq!(found[0].0.mode, 0o4755);
    assert_eq!(found[1].0.path.len(), 299);
    assert_eq!(found[2].1, [7; 1500]);
}

#[test]
fn gnu_tar_writes_each_sparse_format_and_all_read_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sparse");
    let file = std::fs::File::create(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"head", 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"tail", 1 << 20).unwrap();
    file.set_len(3 << 20).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let output = Command::new("tar")
            .args(["--sparse", "--hole-detection=raw"])
            .args(format)
            .args(["-cf", "-", "-C"])
            .arg(directory.path())
            .arg("sparse")
            .output()
            .unwrap();
        assert!(output.status.success(), "{format:?}");
        let found = read_all(&output.stdout).unwrap();
        let (entry, data) = &found[0];
        assert_eq!((entry.path.as_slice(), entry.size), (&b"sparse"[..], 3 << 20), "{format:?}");
        let EntryKind::File { extents: Some(extents) } = &entry.kind else { panic!("{format:?}: {entry:?}") };
        let mut whole = vec![0; 3 << 20];
        let mut taken = 0;
        for extent in extents {
            let size = |size: u64| usize::try_from(size).unwrap();
            let (at, length) = (size(extent.offset), size(extent.length));
            whole[at..at + length].copy_from_slice(&data[taken..taken + length]);
            taken += length;
        }
        assert!(whole == std::fs::read(&path).unwrap(), "{format:?}");
    }
}

#[test]
fn a_cut_archive_is_truncated_and_not_short() {
    let archive = simple_archive();
    for end in [100, 512, 600, 1200, 2000] {
        assert!(matches!(read_all(&archive[..end]), Err(TarError::Truncated { .. }) | Ok(_)), "{end}");
    }
    assert!(matches!(read_all(&archive[..515]), Err(TarError::Truncated { .. })));
}

#[test]
fn a_giant_extension_is_refused_before_it_is_read() {
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    assert!(
        matches!(read_all(header.as_bytes()), Err(TarError::ExtensionTooLong { size, .. }) if size == 1 << 40)
    );
}

#[test]
fn the_number_of_entries_is_bounded() {
    let archive = simple_archive();
    let mut reader = TarReader::new(archive.as_slice(), 1);
    reader.next_entry().unwrap();
    assert!(matches!(reader.next_entry(), Err(TarError::TooManyEntries { limit: 1 })));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        match read_all(&bytes) { Ok(_) | Err(_) => {} }
    }

    #[test]
    fn no_damage_makes_it_panic(at in 0_usize..4000, byte: u8, fix: bool) {
        let mut archive = simple_archive();
        let at = at % archive.len();
        archive[at] = byte;
        if fix {
            let start = at / 512 * 512;
            let mut header = ::tar::Header::from_byte_slice(&archive[start..start + 512]).clone();
            header.set_cksum();
            archive[start..start + 512].copy_from_slice(header.as_bytes());
        }
        match read_all(&archive) { Ok(_) | Err(_) => {} }
    }
}
