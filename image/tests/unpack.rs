//! What layers say becomes a tree: whiteouts, links, nodes, attributes, in every order and through links.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails loudly and says what it skips")]

mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use inspect_image::limits::Limits;
use inspect_image::manifest::{Image as LoadedImage, Selection};
use inspect_image::source::ImageSource;
use inspect_image::unpack::{Ownership, UnpackOptions, Unpacked, unpack};
use support::{Image, Layer, gzip, listing, zstd};
use tar::EntryType;

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped in part: owners and device nodes take root");
    }
    root
}

fn ownership() -> Ownership {
    if rustix::process::geteuid().is_root() { Ownership::Kept } else { Ownership::Lost }
}

/// Unpacks into a new directory.
fn unpacked(image: &Image) -> (tempfile::TempDir, Unpacked) {
    let directory = tempfile::tempdir().unwrap();
    let (layout, rootfs) = (directory.path().join("layout"), directory.path().join("rootfs"));
    fs::create_dir(&rootfs).unwrap();
    image.write_layout(&layout);
    let source = Arc::new(ImageSource::open(&layout, &Limits::default()).unwrap());
    let selection = Selection { platform: "linux/amd64".to_owned(), name: None };
    let loaded = LoadedImage::load(&source, &selection).unwrap();
    let options = UnpackOptions {
        limits: Limits::default(),
        ownership: ownership(),
        interrupted: Arc::new(AtomicBool::new(false)),
    };
    let root = fs::File::open(&rootfs).unwrap().into();
    let unpacked = unpack(source, &loaded.layers, root, &options, &mut |_| {}).unwrap();
    (directory, unpacked)
}

fn names(root: &Path) -> Vec<String> {
    listing(root).into_keys().filter(|path| !path.is_empty()).collect()
}

fn tree(image: &Image) -> Vec<String> {
    names(&unpacked(image).0.path().join("rootfs"))
}

fn base() -> Layer {
    Layer::new()
        .directory("a/")
        .file("a/one", "1")
        .directory("a/sub/")
        .file("a/sub/two", "2")
        .symlink("link", "a")
        .symlink("absolute", "/a/sub")
}

#[test]
fn a_whiteout_hides_what_is_below_and_nothing_of_its_own_layer() {
    for (before, after) in [(true, false), (false, true)] {
        let mut layer = Layer::new();
        if before {
            layer = layer.file("a/.wh.one", "").file("a/.wh.sub", "");
        }
        layer = layer.file("a/one", "new").directory("a/sub/").file("a/sub/three", "3");
        if after {
            layer = layer.file("a/.wh.one", "").file("a/.wh.sub", "");
        }
        let image = Image::new().layer(base()).layer(layer);
        let (directory, _) = unpacked(&image);
        let root = directory.path().join("rootfs");
        assert_eq!(names(&root), ["a", "a/one", "a/sub", "a/sub/three", "absolute", "link"]);
        assert_eq!(fs::read_to_string(root.join("a/one")).unwrap(), "new");
    }
}

#[test]
fn an_opaque_directory_hides_all_below_wherever_it_stands() {
    let opaque = ".wh..wh..opq";
    let first = Layer::new().directory("a/").file(&format!("a/{opaque}"), "").file("a/new", "");
    let last = Layer::new().directory("a/").file("a/new", "").file(&format!("a/{opaque}"), "");
    let deep = Layer::new().file("a/sub/new", "").file(&format!("a/{opaque}"), "");
    assert_eq!(tree(&Image::new().layer(base()).layer(first)), ["a", "a/new", "absolute", "link"]);
    assert_eq!(tree(&Image::new().layer(base()).layer(last)), ["a", "a/new", "absolute", "link"]);
    let left = ["a", "a/sub", "a/sub/new", "absolute", "link"];
    assert_eq!(tree(&Image::new().layer(base()).layer(deep)), left);
}

#[test]
fn whiteouts_and_files_go_through_directories_that_are_links() {
    let layer = Layer::new().file("link/.wh.one", "").file("absolute/new", "x").file("absolute/.wh.two", "");
    let names = tree(&Image::new().layer(base()).layer(layer));
    assert_eq!(names, ["a", "a/sub", "a/sub/new", "absolute", "link"]);
}

#[test]
fn an_opaque_mark_through_a_link_empties_the_directory_it_leads_to() {
    let layer = Layer::new().file("link/.wh..wh..opq", "");
    assert_eq!(tree(&Image::new().layer(base()).layer(layer)), ["a", "absolute", "link"]);
}

#[test]
fn a_link_to_a_directory_that_is_not_there_gets_it_inside() {
    let image = Image::new()
        .layer(Layer::new().directory("var/").symlink("var/run", "/run").symlink("up", "../../../../srv"))
        .layer(Layer::new().file("var/run/pid", "1").file("up/data", "2"));
    assert_eq!(tree(&image), ["run", "run/pid", "srv", "srv/data", "up", "var", "var/run"]);
}

#[test]
fn types_replace_each_other() {
    let image = Image::new().layer(base()).layer(
        Layer::new().file("a/sub", "now a file").directory("a/one/").file("a/one/x", "").directory("link/"),
    );
    let (directory, _) = unpacked(&image);
    let root = directory.path().join("rootfs");
    assert_eq!(names(&root), ["a", "a/one", "a/one/x", "a/sub", "absolute", "link"]);
    assert!(fs::symlink_metadata(root.join("link")).unwrap().is_dir());
}

#[test]
fn a_file_of_a_lower_layer_gives_way_to_a_directory_that_is_only_implied() {
    let image = Image::new().layer(base()).layer(Layer::new().file("a/one/inside", "x"));
    assert_eq!(tree(&image), ["a", "a/one", "a/one/inside", "a/sub", "a/sub/two", "absolute", "link"]);
}

#[test]
fn hard_links_reach_across_layers_and_keep_the_file() {
    let image = Image::new().layer(base()).layer(
        Layer::new()
            .hardlink("b", "a/one")
            .hardlink("a/one", "a/one")
            .hardlink("c", "/link/one")
            .hardlink("l", "link"),
    );
    let (directory, _) = unpacked(&image);
    let root = directory.path().join("rootfs");
    let inode = |name: &str| fs::symlink_metadata(root.join(name)).unwrap().ino();
    assert_eq!(inode("b"), inode("a/one"));
    assert_eq!(inode("c"), inode("a/one"));
    assert_eq!(inode("l"), inode("link"), "a link to a symbolic link is to the link itself");
    assert_eq!(fs::metadata(root.join("b")).unwrap().nlink(), 3);
}

#[test]
fn owners_modes_and_times_are_the_images() {
    let image = Image::new().layer(
        Layer::new()
            .directory_mode("d/", 0o1777, 500)
            .file_mode("d/setuid", 0o4755, 7)
            .file_mode("d/none", 0, 0)
            .directory_mode("locked/", 0, 600)
            .file("locked/in", "x"),
    );
    let (directory, _) = unpacked(&image);
    let root = directory.path().join("rootfs");
    let metadata = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
    assert_eq!(metadata("d").mode() & 0o7777, 0o1777);
    assert_eq!(metadata("d").mtime(), 500, "files put into it changed nothing");
    assert_eq!(metadata("locked").mode() & 0o7777, 0);
    assert_eq!(metadata("locked").mtime(), 600);
    assert_eq!(metadata("d/setuid").mode() & 0o7777, 0o4755);
    assert_eq!(metadata("d/none").mode() & 0o7777, 0);
    assert_eq!(metadata("d/none").mtime(), 1_000_000_000);
    if is_root() {
        assert_eq!((metadata("d/setuid").uid(), metadata("d/setuid").gid()), (7, 7));
    } else {
        fs::set_permissions(root.join("locked"), fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn a_directory_that_a_layer_only_passes_through_keeps_its_time() {
    let image = Image::new()
        .layer(Layer::new().directory_mode("d/", 0o750, 500).file("d/old", ""))
        .layer(Layer::new().file("d/new", "").file("d/.wh.old", ""));
    let (directory, _) = unpacked(&image);
    let metadata = fs::metadata(directory.path().join("rootfs/d")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o750, 500));
}

#[test]
fn the_root_itself_has_attributes() {
    let image = Image::new().layer(Layer::new().directory_mode("./", 0o711, 900).file("x", ""));
    let (directory, _) = unpacked(&image);
    let metadata = fs::metadata(directory.path().join("rootfs")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o711, 900));
}

#[test]
fn pax_gives_long_names_fine_times_and_attributes() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let image = Image::new().layer(
        Layer::new()
            .pax(&[
                ("path", long.as_bytes()),
                ("mtime", b"1234567890.123456789"),
                ("SCHILY.xattr.user.note", b"a\nb\0c"),
            ])
            .file("short", "x"),
    );
    let (directory, unpacked) = unpacked(&image);
    let path = directory.path().join("rootfs").join(long);
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_234_567_890, 123_456_789));
    let mut value = [0_u8; 20];
    match rustix::fs::getxattr(&path, c"user.note", &mut value[..]) {
        Ok(length) => assert_eq!(&value[..length], b"a\nb\0c"),
        Err(rustix::io::Errno::NOTSUP) => {
            eprintln!("skipped in part: this file system has no extended attributes");
            assert_eq!(unpacked.losses.xattrs, 1);
        }
        Err(errno) => panic!("{errno}"),
    }
}

#[test]
fn capabilities_are_kept_and_overlay_marks_refused() {
    if !is_root() {
        return;
    }
    let capability: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let image = Image::new().layer(
        Layer::new()
            .pax(&[("SCHILY.xattr.security.capability", capability)])
            .file_mode("ping", 0o755, 5)
            .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y"), ("SCHILY.xattr.user.overlay.opaque", b"y")])
            .directory("d/"),
    );
    let (directory, unpacked) = unpacked(&image);
    let listing = listing(&directory.path().join("rootfs"));
    assert!(listing["ping"].contains("security.capability="), "{listing:?}");
    assert!(!listing["d"].contains("overlay"), "{listing:?}");
    assert_eq!(unpacked.losses.refused_xattrs, 2);
}

#[test]
fn a_layer_that_lists_a_directory_again_says_all_its_attributes() {
    let image = Image::new()
        .layer(Layer::new().pax(&[("SCHILY.xattr.user.old", b"1")]).directory("d/"))
        .layer(Layer::new().pax(&[("SCHILY.xattr.user.new", b"1")]).directory("d/"));
    let (directory, _) = unpacked(&image);
    let listing = listing(&directory.path().join("rootfs"));
    assert!(!listing["d"].contains("user.old"), "{listing:?}");
}

#[test]
fn nodes_and_pipes_are_made_or_said_to_be_lost() {
    let image = Image::new().layer(
        Layer::new().node(EntryType::Char, "null", 1, 3).node(EntryType::Block, "loop", 7, 0).node(
            EntryType::Fifo,
            "pipe",
            0,
            0,
        ),
    );
    let (directory, unpacked) = unpacked(&image);
    let root = directory.path().join("rootfs");
    let kind = |name: &str| fs::symlink_metadata(root.join(name)).unwrap().file_type();
    assert!(kind("pipe").is_fifo());
    if is_root() && unpacked.losses.devices == 0 {
        assert!(kind("null").is_char_device() && kind("loop").is_block_device());
        assert_eq!(fs::metadata(root.join("null")).unwrap().rdev(), 0x103);
        assert_eq!(fs::metadata(root.join("null")).unwrap().mode() & 0o7777, 0o644);
    } else {
        assert_eq!(unpacked.losses.devices, 2);
    }
}

#[test]
fn compression_is_told_by_content() {
    let layer = || Layer::new().file("x", "data").archive();
    let image = Image::new().blob(zstd(&layer()), &layer());
    assert_eq!(tree(&image), ["x"]);
    let image = Image::new().blob(layer(), &layer());
    assert_eq!(tree(&image), ["x"]);
    let split = [gzip(&layer()[..700]), gzip(&layer()[700..])].concat();
    assert_eq!(tree(&Image::new().blob(split, &layer())), ["x"]);
}

#[test]
fn gnu_tars_own_archives_come_out_as_they_went_in() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir_all(tree.join("d/e")).unwrap();
    fs::write(tree.join("d/file"), vec![9; 70_000]).unwrap();
    fs::write(tree.join("empty"), "").unwrap();
    fs::hard_link(tree.join("d/file"), tree.join("d/e/link")).unwrap();
    std::os::unix::fs::symlink("x".repeat(150), tree.join("symlink")).unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 5 << 20).unwrap();
    sparse.set_len(6 << 20).unwrap();
    fs::set_permissions(tree.join("d"), fs::Permissions::from_mode(0o2710)).unwrap();
    for format in ["gnu", "posix"] {
        let output = std::process::Command::new("tar")
            .args([
                "--sparse",
                &format!("--format={format}"),
                "--xattrs",
                "--numeric-owner",
                "-cf",
                "-",
                "-C",
            ])
            .arg(&tree)
            .arg(".")
            .output()
            .unwrap();
        let (unpacked, _) = unpacked(&Image::new().blob(output.stdout.clone(), &output.stdout));
        let (mut left, mut right) = (listing(&tree), listing(&unpacked.path().join("rootfs")));
        if format == "gnu" {
            // That format has whole seconds only.
            for lines in [&mut left, &mut right] {
                lines.values_mut().for_each(|line| *line = without_nanoseconds(line));
            }
        }
        assert!(left == right, "{format}: {}", support::difference(&left, &right));
        let blocks = fs::metadata(unpacked.path().join("rootfs/sparse")).unwrap().blocks();
        assert!(blocks < 200, "holes stay holes: {blocks} blocks");
    }
}

fn without_nanoseconds(line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    words[4] = words[4].split('.').next().unwrap().to_owned();
    words.join(" ")
}

#[test]
fn the_archive_and_the_directory_are_one_image() {
    let image = Image::new().layer(base());
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    image.write_archive(&archive);
    let compressed = directory.path().join("image.tar.gz");
    fs::write(&compressed, gzip(&fs::read(&archive).unwrap())).unwrap();
    for file in [archive, compressed] {
        let source = ImageSource::open(&file, &Limits::default()).unwrap();
        let selection = Selection { platform: "linux/amd64".to_owned(), name: Some("test".to_owned()) };
        let loaded = LoadedImage::load(&source, &selection).unwrap();
        assert_eq!(loaded.layers.len(), 1);
        assert_eq!(loaded.names, ["test:latest"]);
    }
}
