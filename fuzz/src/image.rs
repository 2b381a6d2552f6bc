//! Images: the archive, its documents, its layers, and what becomes of a root file system.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use inspect_image::layer::{Layer, Layers};
use inspect_image::limits::Limits;
use inspect_image::manifest::{Image, Selection};
use inspect_image::source::ImageSource;
use inspect_image::tar::TarReader;
use inspect_image::unpack::{Ownership, UnpackOptions, unpack};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};

use super::archive;

/// Bounds that a bomb of a few kilobytes runs into, so that they are tried as well.
const LIMITS: Limits = Limits { bytes: 4 << 20, entries: 500, ratio: 200, ratio_from: 1 << 20, depth: 64 };

/// A tar archive: every entry and all data.
pub fn image_tar(data: &[u8]) {
    let mut reader = TarReader::new(data, LIMITS.entries);
    let mut taken = 0_u64;
    while let Ok(Some(entry)) = reader.next_entry() {
        assert!(reader.offset() <= data.len() as u64, "no byte is read that is not there");
        assert!(i64::try_from(entry.size).is_ok(), "a size fits an offset");
        while let Ok(bytes) = reader.data() {
            let count = bytes.len();
            if count == 0 {
                break;
            }
            taken += count as u64;
            reader.consume(count);
        }
    }
    assert!(taken <= data.len() as u64, "no more data than there are bytes");
    assert!(reader.entries() <= LIMITS.entries + 1, "the limit holds");
}

/// A whole image: the archive as `ctr images export` writes it, plain or compressed.
pub fn image_archive(data: &[u8]) {
    let file = memory_file(data);
    let Ok(source) = ImageSource::open(&path_of(&file), &LIMITS) else { return };
    read_image(source);
}

/// An image whose digests are right: the bytes are index, manifest, config and layer, each behind its length in two
/// bytes, and the layer what is left. A document's placeholders get the digests and sizes of what they refer to.
pub fn image_documents(data: &[u8]) {
    let mut rest = data;
    let [index, manifest, config] = std::array::from_fn(|_| take_part(&mut rest));
    let layer = archive::Blob::of(rest.to_vec());
    let config = archive::Blob::of(layer.fill(config, "LAYER"));
    let manifest = archive::Blob::of(config.fill(&layer.fill(manifest, "LAYER"), "CONFIG"));
    let index = manifest.fill(index, "MANIFEST");
    let files = [
        ("index.json".to_owned(), index),
        (manifest.name(), manifest.bytes.clone()),
        (config.name(), config.bytes.clone()),
        (layer.name(), layer.bytes.clone()),
    ];
    let file = memory_file(&archive::write(&files));
    let source = ImageSource::open(&path_of(&file), &LIMITS);
    if let Ok(source) = source {
        read_image(source);
    }
}

/// A part of the input behind its length.
fn take_part<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, after)) = rest.split_first_chunk::<2>() else { return std::mem::take(rest) };
    let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
    let (part, after) = after.split_at(length);
    *rest = after;
    part
}

fn read_image(source: ImageSource) {
    let selection = Selection { platform: "linux/amd64".to_owned(), name: None };
    let Ok(image) = Image::load(&source, &selection) else { return };
    let layers = image.layers;
    let Ok(mut streams) = Layers::start(Arc::new(source), layers.clone(), LIMITS) else { return };
    for _ in &layers {
        let mut reader = TarReader::new(streams.next_layer(), LIMITS.entries);
        while let Ok(Some(entry)) = reader.next_entry() {
            assert!(i64::try_from(entry.size).is_ok(), "a size fits an offset");
        }
        if let Err(_refused) = reader.into_input().finish() {
            break;
        }
    }
}

/// Up to four layers, each behind its length in two bytes, unpacked one upon the other: nothing beside the root file
/// system may change, whatever they say.
pub fn image_unpack(data: &[u8]) {
    let mut rest = data;
    let mut files = Vec::new();
    while !rest.is_empty() && files.len() < 4 {
        files.push((format!("layer{}", files.len()), take_part(&mut rest).to_vec()));
    }
    let layers: Vec<_> =
        files.iter().map(|(name, bytes)| unchecked_layer(name, bytes.len() as u64)).collect();
    let file = memory_file(&archive::write(&files));
    let Ok(source) = ImageSource::open(&path_of(&file), &LIMITS) else { return };
    let place = Place::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(place.root(), flags, Mode::empty()).expect("the root was made");
    let options = UnpackOptions {
        limits: LIMITS,
        ownership: Ownership::Lost,
        interrupted: Arc::new(AtomicBool::new(false)),
    };
    let unpacked = unpack(Arc::new(source), &layers, root, &options, &mut |_| {});
    place.check();
    if let Ok(unpacked) = unpacked {
        assert_eq!(unpacked.layers.len(), layers.len(), "every layer is accounted for");
    }
}

fn unchecked_layer(name: &str, size: u64) -> Layer {
    Layer { name: name.to_owned(), media_type: None, digest: None, size, diff_id: None, created_by: None }
}

/// A directory with a root file system and, beside it, a file that no layer may touch.
struct Place(tempfile::TempDir);

const BESIDE: &[u8] = b"not of the image";

impl Place {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let place = Self(tempfile::tempdir_in(parent).expect("a temporary directory"));
        fs::create_dir(place.root()).expect("a root");
        fs::write(place.0.path().join("beside"), BESIDE).expect("a file beside it");
        place
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    fn check(&self) {
        let names = fs::read_dir(self.0.path()).expect("it is still there").flatten().count();
        assert_eq!(names, 2, "nothing is made beside the root");
        let beside = fs::read(self.0.path().join("beside")).expect("it is still there");
        assert_eq!(beside, BESIDE, "nothing is written beside the root");
    }
}

impl Drop for Place {
    /// A layer may have made directories that even their owner cannot enter.
    fn drop(&mut self) {
        open_up(&self.root());
    }
}

fn open_up(directory: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).ok();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

fn memory_file(bytes: &[u8]) -> File {
    let descriptor = memfd_create("image", MemfdFlags::CLOEXEC).expect("a file in memory");
    let mut file = File::from(descriptor);
    file.write_all(bytes).expect("memory takes the bytes");
    file
}

fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
