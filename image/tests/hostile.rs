//! Hostile images: every one is refused or confined, and nothing outside the root file system changes.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails loudly and says what it skips")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use inspect_image::layer::LayerError;
use inspect_image::limits::Limits;
use inspect_image::manifest::{Image as LoadedImage, ManifestError, Selection};
use inspect_image::source::{ImageSource, SourceError};
use inspect_image::tar::TarError;
use inspect_image::unpack::{EntryError, Ownership, UnpackError, UnpackOptions, Unpacked, unpack};
use support::{Image, Layer, gzip, listing, sha256};
use tar::EntryType;

/// A place with things outside the root file system that an image may want to reach. When a test is done with it, nothing
/// of that may have changed, however the unpacking ended.
struct Place {
    directory: tempfile::TempDir,
    before: BTreeMap<String, String>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        fs::create_dir_all(outside.join("etc")).unwrap();
        fs::write(outside.join("etc/passwd"), "precious").unwrap();
        fs::write(outside.join("secret"), "precious").unwrap();
        let before = listing(&outside);
        Self { directory, before }
    }

    fn outside(&self) -> std::path::PathBuf {
        self.directory.path().join("outside")
    }

    fn rootfs(&self) -> std::path::PathBuf {
        self.directory.path().join("rootfs")
    }

    /// Unpacks the image.
    fn unpack(&self, image: &Image, limits: Limits) -> Result<Unpacked, UnpackError> {
        let layout = self.directory.path().join("layout");
        image.write_layout(&layout);
        fs::create_dir(self.rootfs()).unwrap();
        let source = Arc::new(ImageSource::open(&layout, &limits).unwrap());
        let selection = Selection { platform: "linux/amd64".to_owned(), name: None };
        let loaded = LoadedImage::load(&source, &selection).unwrap();
        let ownership = if rustix::process::geteuid().is_root() { Ownership::Kept } else { Ownership::Lost };
        let options = UnpackOptions { limits, ownership, interrupted: Arc::new(AtomicBool::new(false)) };
        let root = fs::File::open(self.rootfs()).unwrap().into();
        unpack(source, &loaded.layers, root, &options, &mut |_| {})
    }

    fn unpack_layer(&self, layer: Layer) -> Result<Unpacked, UnpackError> {
        self.unpack(&Image::new().layer(layer), Limits::default())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert_eq!(listing(&self.outside()), self.before, "something outside changed");
        let known = ["image.tar", "layout", "outside", "rootfs"];
        let others: Vec<_> = fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| !known.iter().any(|known| name == known))
            .collect();
        assert!(others.is_empty(), "something was made outside: {others:?}");
    }
}

fn entry_error(result: Result<Unpacked, UnpackError>) -> EntryError {
    match result {
        Err(UnpackError::Entry { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_that_climb_or_are_absolute_stay_inside() {
    let place = Place::new();
    let absolute = place.outside().join("secret");
    let layer = Layer::new()
        .file("../outside/secret", "evil")
        .file("a/../../../outside/etc/passwd", "evil")
        .file(absolute.to_str().unwrap(), "evil")
        .directory("../..");
    place.unpack_layer(layer).unwrap();
    assert_eq!(fs::read_to_string(place.rootfs().join("outside/secret")).unwrap(), "evil");
    assert_eq!(fs::read_to_string(place.rootfs().join(absolute.strip_prefix("/").unwrap())).unwrap(), "evil");
}

#[test]
fn links_that_lead_out_lead_back_in() {
    for target in ["../outside", "../../../../../../../../../../outside", "/outside"] {
        let place = Place::new();
        let layer = Layer::new().symlink("out", target).file("out/secret", "evil").file("out/.wh.etc", "");
        place.unpack_layer(layer).unwrap();
        assert_eq!(fs::read_to_string(place.rootfs().join("outside/secret")).unwrap(), "evil", "{target}");
    }
}

#[test]
fn links_with_the_real_absolute_path_of_the_outside_stay_inside() {
    let place = Place::new();
    let outside = place.outside().to_str().unwrap().to_owned();
    let layer = Layer::new()
        .symlink("out", &outside)
        .file("out/secret", "evil")
        .symlink("file", &format!("{outside}/secret"))
        .file("file", "evil");
    place.unpack_layer(layer).unwrap();
    assert_eq!(fs::read_to_string(place.rootfs().join("file")).unwrap(), "evil", "the link was replaced");
}

#[test]
fn magic_links_lead_nowhere() {
    let place = Place::new();
    let layer = Layer::new().symlink("out", "/proc/self/root").file("out/evil", "evil");
    place.unpack_layer(layer).unwrap();
    assert!(place.rootfs().join("proc/self/root/evil").exists(), "`/proc` is the image's");
}

#[test]
fn a_directory_that_becomes_a_link_under_way_is_seen_as_one() {
    let place = Place::new();
    let image = Image::new()
        .layer(Layer::new().directory("d/").file("d/a", "1"))
        .layer(
            Layer::new()
                .file("d/b", "2")
                .symlink("d", "../outside")
                .file("d/secret", "evil")
                .file("d/.wh.etc", ""),
        )
        .layer(Layer::new().file("d/etc/passwd", "evil").hardlink("d/link", "d/secret"));
    place.unpack(&image, Limits::default()).unwrap();
    assert!(fs::symlink_metadata(place.rootfs().join("d")).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(place.rootfs().join("outside/link")).unwrap(), "evil");
}

#[test]
fn circles_of_links_end() {
    let place = Place::new();
    let layer = Layer::new().symlink("a", "b").symlink("b", "a").file("a/x", "");
    assert!(matches!(entry_error(place.unpack_layer(layer)), EntryError::TooManyLinks));
    let mut layer = Layer::new().symlink("l0", "/");
    for number in 1..30 {
        let target = format!("l{0}/l{0}/l{0}/l{0}", number - 1);
        layer = layer.symlink(&format!("l{number}"), &target);
    }
    let error = entry_error(Place::new().unpack_layer(layer.file("l29/x", "")));
    assert!(matches!(error, EntryError::TooManyLinks), "links of links of links: {error:?}");
}

#[test]
fn hard_links_do_not_reach_out() {
    for target in ["../outside/secret", "/outside/secret", "out/secret"] {
        let layer = Layer::new().symlink("out", "../outside").hardlink("link", target);
        let error = entry_error(Place::new().unpack_layer(layer));
        assert!(matches!(error, EntryError::LinkTargetMissing { .. }), "{target}: {error:?}");
    }
    let place = Place::new();
    let absolute = place.outside().join("secret");
    let error = entry_error(place.unpack_layer(Layer::new().hardlink("link", absolute.to_str().unwrap())));
    assert!(matches!(error, EntryError::LinkTargetMissing { .. }));
    let error = entry_error(Place::new().unpack_layer(Layer::new().directory("d/").hardlink("l", "d")));
    assert!(matches!(error, EntryError::LinkToDirectory { .. }));
    let error = entry_error(Place::new().unpack_layer(Layer::new().hardlink("l", "..")));
    assert!(matches!(error, EntryError::LinkToDirectory { .. }));
}

#[test]
fn writing_through_a_link_replaces_the_link() {
    let place = Place::new();
    let outside = place.outside().join("secret");
    let layer = Layer::new()
        .symlink("a", outside.to_str().unwrap())
        .file("a", "evil")
        .symlink("b", outside.to_str().unwrap())
        .hardlink("c", "b")
        .file("c", "evil");
    place.unpack_layer(layer).unwrap();
    assert!(fs::symlink_metadata(place.rootfs().join("a")).unwrap().is_file());
    assert!(fs::symlink_metadata(place.rootfs().join("b")).unwrap().is_symlink());
}

#[test]
fn modes_owners_and_attributes_do_not_go_through_links() {
    let place = Place::new();
    let outside = place.outside().join("secret");
    let mut header = Layer::header(EntryType::Symlink, "link");
    header.set_mode(0o4777);
    header.set_uid(1234);
    let target = outside.to_str().unwrap().as_bytes();
    header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target);
    let layer = Layer::new()
        .pax(&[("SCHILY.xattr.user.evil", b"1"), ("SCHILY.xattr.trusted.evil", b"1")])
        .raw(header, b"")
        .symlink("d", "../outside")
        .hardlink("again", "link");
    place.unpack_layer(layer).unwrap();
}

#[test]
fn the_root_is_a_directory_and_stays_one() {
    for path in ["./", ".", "/", "a/.."] {
        let layer = Layer::new().symlink(path, "../outside").file("secret", "evil");
        assert!(
            matches!(entry_error(Place::new().unpack_layer(layer)), EntryError::RootNotDirectory),
            "{path}"
        );
    }
    let error = entry_error(Place::new().unpack_layer(Layer::new().file(".", "x")));
    assert!(matches!(error, EntryError::RootNotDirectory));
}

#[test]
fn whiteouts_hide_nothing_outside() {
    for name in [".wh...", ".wh..", ".wh.", "a/.wh..."] {
        let error = entry_error(Place::new().unpack_layer(Layer::new().directory("a/").file(name, "")));
        assert!(matches!(error, EntryError::WhiteoutName { .. }), "{name}: {error:?}");
    }
    let layer = Layer::new()
        .symlink("out", "../outside")
        .file("out/.wh.secret", "")
        .file("out/.wh..wh..opq", "")
        .file("../.wh.outside", "");
    Place::new().unpack_layer(layer).unwrap();
}

#[test]
fn a_file_is_no_directory_to_pass_through() {
    let error = entry_error(Place::new().unpack_layer(Layer::new().file("f", "").file("f/x", "")));
    assert!(matches!(error, EntryError::NotDirectory { .. }));
}

#[test]
fn paths_are_not_endlessly_deep() {
    let path = "d/".repeat(40) + "f";
    let limits = Limits { depth: 40, ..Limits::default() };
    let image = Image::new().layer(Layer::new().file(&path, ""));
    assert!(matches!(
        entry_error(Place::new().unpack(&image, limits)),
        EntryError::TooDeep { depth: 41, limit: 40 }
    ));
    Place::new().unpack(&image, Limits { depth: 41, ..limits }).unwrap();
}

#[test]
fn a_wrong_digest_is_told_by_its_layer() {
    let archive = Layer::new().file("x", "data").archive();
    let place = Place::new();
    let image = Image::new().blob(gzip(&archive), &archive);
    let layout = place.directory.path().join("layout");
    image.write_layout(&layout);
    let blob = layout.join("blobs/sha256").join(sha256(&image.layers[0].0));
    let mut bytes = fs::read(&blob).unwrap();
    // The operating system field of the gzip header: what comes out stays the same.
    bytes[9] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let error = load_and_unpack(&layout, &place.rootfs()).unwrap_err();
    assert!(matches!(error, UnpackError::Layer(LayerError::Digest { .. })), "{error:?}");
}

fn load_and_unpack(layout: &Path, rootfs: &Path) -> Result<Unpacked, UnpackError> {
    fs::create_dir(rootfs).unwrap();
    let source = Arc::new(ImageSource::open(layout, &Limits::default()).unwrap());
    let selection = Selection { platform: "linux/amd64".to_owned(), name: None };
    let loaded = LoadedImage::load(&source, &selection).unwrap();
    let options = UnpackOptions {
        limits: Limits::default(),
        ownership: Ownership::Lost,
        interrupted: Arc::new(AtomicBool::new(false)),
    };
    unpack(source, &loaded.layers, fs::File::open(rootfs).unwrap().into(), &options, &mut |_| {})
}

#[test]
fn a_wrong_diff_id_is_told() {
    let archive = Layer::new().file("x", "data").archive();
    let image = Image::new().blob(gzip(&archive), b"something else");
    let error = Place::new().unpack(&image, Limits::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Layer(LayerError::DiffId { .. })), "{error:?}");
}

#[test]
fn bytes_behind_the_archive_count_for_the_diff_id() {
    let archive = Layer::new().file("x", "data").archive();
    let longer = [archive.clone(), vec![0; 100_000], b"more".to_vec()].concat();
    Place::new().unpack(&Image::new().blob(gzip(&longer), &longer), Limits::default()).unwrap();
    let error =
        Place::new().unpack(&Image::new().blob(gzip(&longer), &archive), Limits::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Layer(LayerError::DiffId { .. })), "{error:?}");
}

#[test]
fn a_document_that_is_not_what_it_says_is_refused() {
    let place = Place::new();
    let layout = place.directory.path().join("layout");
    let image = Image::new().layer(Layer::new().file("x", ""));
    image.write_layout(&layout);
    for entry in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read(&path).unwrap();
        if let Some(at) = text.windows(5).position(|window| window == b"amd64") {
            let mut changed = text.clone();
            changed[at..at + 5].copy_from_slice(b"arm64");
            fs::write(&path, changed).unwrap();
        }
    }
    let source = ImageSource::open(&layout, &Limits::default()).unwrap();
    let selection = Selection { platform: "linux/amd64".to_owned(), name: None };
    let error = LoadedImage::load(&source, &selection).unwrap_err();
    assert!(matches!(error, ManifestError::Mismatch { .. }), "{error:?}");
}

#[test]
fn bombs_run_into_the_limits() {
    let zeros = Layer::new().raw(Layer::header(EntryType::Regular, "zeros"), &vec![0; 4 << 20]).archive();
    let image = Image::new().blob(gzip(&zeros), &zeros);
    let strict = Limits { ratio: 50, ratio_from: 1 << 20, ..Limits::default() };
    let error = Place::new().unpack(&image, strict).unwrap_err();
    assert!(matches!(error, UnpackError::Layer(LayerError::Ratio { .. })), "{error:?}");
    let small = Limits { bytes: 1 << 20, ..Limits::default() };
    let error = Place::new().unpack(&image, small).unwrap_err();
    assert!(matches!(error, UnpackError::Layer(LayerError::TooLarge { .. })), "{error:?}");
    Place::new().unpack(&image, Limits { ratio: 2000, ..strict }).unwrap();
    let image =
        Image::new().layer(Layer::new().file("a", "").file("b", "")).layer(Layer::new().file("c", ""));
    let error = Place::new().unpack(&image, Limits { entries: 2, ..Limits::default() }).unwrap_err();
    assert!(
        matches!(error, UnpackError::Archive { source: TarError::TooManyEntries { .. }, .. }),
        "over all layers: {error:?}"
    );
}

#[test]
fn a_giant_hole_takes_no_room() {
    let records: [(&str, &[u8]); 4] = [
        ("GNU.sparse.map", b"0,4"),
        ("GNU.sparse.realsize", b"1099511627776"),
        ("GNU.sparse.name", b"hole"),
        ("GNU.sparse.major", b"0"),
    ];
    let place = Place::new();
    place.unpack_layer(Layer::new().pax(&records).file("x", "data")).unwrap();
    let metadata = fs::metadata(place.rootfs().join("hole")).unwrap();
    assert!(std::os::unix::fs::MetadataExt::blocks(&metadata) < 100);
}

#[test]
fn truncated_files_are_told() {
    let place = Place::new();
    let archive = Layer::new().file("x", &"data".repeat(5000)).archive();
    let image = Image::new().blob(gzip(&archive), &archive);
    let file = place.directory.path().join("image.tar");
    image.write_archive(&file);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 3]).unwrap();
    let opened = ImageSource::open(&file, &Limits::default());
    let refused = match opened {
        Err(SourceError::Archive { source: TarError::Truncated { .. }, .. }) => true,
        Ok(source) => {
            let selection = Selection { platform: "linux/amd64".to_owned(), name: None };
            LoadedImage::load(&source, &selection).is_err()
        }
        Err(_) => false,
    };
    assert!(refused);
    // A layer that ends in the middle of its archive, with digests that fit.
    let cut = archive[..3000].to_vec();
    let error = Place::new().unpack(&Image::new().blob(gzip(&cut), &cut), Limits::default()).unwrap_err();
    assert!(
        matches!(error, UnpackError::Entry { source: EntryError::Archive(TarError::Truncated { .. }), .. }),
        "{error:?}"
    );
    // One whose compressed stream ends.
    let stream = gzip(&archive);
    let stream = stream[..stream.len() - 10].to_vec();
    let error = Place::new().unpack(&Image::new().blob(stream, &archive), Limits::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Layer(LayerError::Decompress { .. })), "{error:?}");
}

#[test]
fn an_interrupted_unpacking_stops() {
    let place = Place::new();
    let layout = place.directory.path().join("layout");
    Image::new().layer(Layer::new().file("x", "")).write_layout(&layout);
    fs::create_dir(place.rootfs()).unwrap();
    let source = Arc::new(ImageSource::open(&layout, &Limits::default()).unwrap());
    let selection = Selection { platform: "linux/amd64".to_owned(), name: None };
    let loaded = LoadedImage::load(&source, &selection).unwrap();
    let options = UnpackOptions {
        limits: Limits::default(),
        ownership: Ownership::Lost,
        interrupted: Arc::new(AtomicBool::new(true)),
    };
    let root = fs::File::open(place.rootfs()).unwrap().into();
    let error = unpack(source, &loaded.layers, root, &options, &mut |_| {}).unwrap_err();
    assert!(matches!(error, UnpackError::Interrupted));
}
