//! Which blob is which: from the index over the manifest to the config and the layers.
//!
//! OCI image spec 1.1 (`index.json`, `oci-layout`) first; where there is none, the `manifest.json` of `docker save`.
//! `ctr images export` and newer `docker save` write both into one archive.

mod choose;
mod docker;

use std::collections::BTreeSet;
use std::fmt;

use inspect_probes::escape::{escape, quote};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};
use serde::Serialize;

use crate::blob::Hasher;
use crate::layer::Layer;
use crate::source::{ImageSource, SourceError};

/// The most layers of one image: far above overlayfs' own bound of 500 lower directories.
const LAYER_LIMIT: usize = 2000;

/// Why an image's documents cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// A document cannot be read.
    #[error("cannot follow the image's documents")]
    Source(
        /// Why.
        #[from]
        SourceError,
    ),
    /// Neither `index.json` nor `manifest.json`.
    #[error("cannot find an image: there is neither `index.json` nor `manifest.json`")]
    NoImage,
    /// A document is no JSON, or not of the form that the spec gives.
    #[error("cannot parse {} of the image", quote(name.as_bytes()))]
    Parse {
        /// Its name within the image.
        name: String,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A document has another digest or size than what refers to it says.
    #[error("cannot trust {} of the image: {what}", quote(name.as_bytes()))]
    Mismatch {
        /// Its name within the image.
        name: String,
        /// What differs.
        what: String,
    },
    /// No image for the platform.
    #[error("cannot find an image for the platform `{}`: there is {}", escape(wanted), escape(available))]
    Platform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// Several images and none was named.
    #[error("cannot choose between the images {}", escape(available))]
    Ambiguous {
        /// Their names.
        available: String,
    },
    /// The image that was named is not there.
    #[error("cannot find the image `{}`: there is {}", escape(wanted), escape(available))]
    Name {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// Indexes nested deeper than any tool writes them.
    #[error("cannot follow the image's indexes: they are nested more than {limit} deep")]
    Nested {
        /// The limit.
        limit: usize,
    },
    /// The config has another number of diff_ids than the manifest has layers.
    #[error("cannot match the layers: the manifest has {layers}, the config has {diff_ids} diff_ids")]
    LayerCount {
        /// Layers of the manifest.
        layers: usize,
        /// diff_ids of the config.
        diff_ids: usize,
    },
    /// More layers than anything can mount.
    #[error("cannot take an image of {layers} layers")]
    TooManyLayers {
        /// How many.
        layers: usize,
    },
}

/// What kind of thing an image's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Lists manifests, one for each platform or image.
    Index,
    /// Names the config and the layers of one image.
    Manifest,
    /// The metadata of the image: what to run and with which environment.
    Config,
    /// A part of the file system.
    Layer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Index => "index",
            Self::Manifest => "manifest",
            Self::Config => "config",
            Self::Layer => "layer",
        })
    }
}

/// One document that was followed on the way to the layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Document {
    /// Its file within the image.
    pub file: String,
    /// What it is.
    pub role: Role,
    /// Its media type, as the reference to it says.
    pub media_type: Option<String>,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest, which was checked; the files that start an image have none.
    pub digest: Option<String>,
}

/// What to look for where an archive has several images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// `OS/ARCHITECTURE[/VARIANT]` in Go's words: `linux/amd64`.
    pub platform: String,
    /// The image's name, in full or its end (`busybox:latest`).
    pub name: Option<String>,
}

impl Selection {
    /// The platform of this machine, as containerd names it.
    #[must_use]
    pub fn host_platform() -> String {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        format!("linux/{architecture}")
    }
}

/// An image, its documents followed and checked. Its layers are checked when they are read.
#[derive(Debug, Clone)]
pub struct Image {
    /// The names that the archive gives it.
    pub names: Vec<String>,
    /// The platform that its config names.
    pub platform: String,
    /// The documents on the way, in the order of the way.
    pub documents: Vec<Document>,
    /// The config.
    pub config: ImageConfiguration,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
}

impl Image {
    /// Follows the documents to the image that `selection` means.
    ///
    /// # Errors
    /// Where a document is missing, malformed or not what its digest says, or no image or several fit.
    pub fn load(source: &ImageSource, selection: &Selection) -> Result<Self, ManifestError> {
        if source.contains("index.json") {
            choose::load_oci(source, selection)
        } else if source.contains("manifest.json") {
            docker::load_docker(source, selection)
        } else {
            Err(ManifestError::NoImage)
        }
    }

    /// Bytes of all layers' blobs.
    #[must_use]
    pub fn blob_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }
}

/// The file of a blob in an OCI layout.
fn blob_name(descriptor: &Descriptor) -> String {
    let digest = descriptor.digest();
    format!("blobs/{}/{}", digest.algorithm().as_ref(), digest.digest())
}

/// A blob that is a document, checked against its descriptor.
fn read_blob(source: &ImageSource, descriptor: &Descriptor) -> Result<Vec<u8>, ManifestError> {
    let name = blob_name(descriptor);
    let bytes = source.read_document(&name)?;
    let mismatch = |what| ManifestError::Mismatch { name: name.clone(), what };
    if bytes.len() as u64 != descriptor.size() {
        let what = format!("it has {} bytes, its descriptor says {}", bytes.len(), descriptor.size());
        return Err(mismatch(what));
    }
    let expected = descriptor.digest().to_string();
    let mut hasher = Hasher::for_digest(descriptor.digest())
        .ok_or_else(|| mismatch(format!("no such digest algorithm as in {}", quote(expected.as_bytes()))))?;
    hasher.update(&bytes);
    let actual = hasher.finish();
    if actual != expected {
        return Err(mismatch(format!("its digest is {actual}, its descriptor says {expected}")));
    }
    Ok(bytes)
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, ManifestError> {
    serde_json::from_slice(bytes).map_err(|source| ManifestError::Parse { name: name.to_owned(), source })
}

fn document(role: Role, descriptor: &Descriptor) -> Document {
    Document {
        file: blob_name(descriptor),
        role,
        media_type: Some(descriptor.media_type().to_string()),
        size: descriptor.size(),
        digest: Some(descriptor.digest().to_string()),
    }
}

/// The config's platform in containerd's words.
fn platform_of(config: &ImageConfiguration) -> String {
    let variant = config.variant().as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
    format!("{}/{}{variant}", config.os(), config.architecture())
}

/// Puts diff_ids and history beside the layers. Layers that history calls empty have no blob.
fn complete_layers(layers: &mut [Layer], config: &ImageConfiguration) -> Result<(), ManifestError> {
    if layers.len() > LAYER_LIMIT {
        return Err(ManifestError::TooManyLayers { layers: layers.len() });
    }
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != layers.len() {
        return Err(ManifestError::LayerCount { layers: layers.len(), diff_ids: diff_ids.len() });
    }
    let history = config.history().iter().flatten().filter(|entry| entry.empty_layer() != Some(true));
    let mut commands = history.map(|entry| entry.created_by().clone());
    for (layer, diff_id) in layers.iter_mut().zip(diff_ids) {
        let parsed = diff_id.parse().map_err(|_| ManifestError::Mismatch {
            name: layer.name.clone(),
            what: format!("its diff_id in the config is {}", quote(diff_id.as_bytes())),
        })?;
        layer.diff_id = Some(parsed);
        layer.created_by = commands.next().flatten();
    }
    Ok(())
}

/// The layers of an OCI manifest.
fn manifest_layers(manifest: &ImageManifest) -> Vec<Layer> {
    let layers = manifest.layers().iter();
    layers
        .map(|descriptor| Layer {
            name: blob_name(descriptor),
            media_type: Some(descriptor.media_type().to_string()),
            digest: Some(descriptor.digest().clone()),
            size: descriptor.size(),
            diff_id: None,
            created_by: None,
        })
        .collect()
}

/// The names that were found, for an error text.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: BTreeSet<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.into_iter().collect::<Vec<_>>().join(", ") }
}

/// Whether `wanted` is the name or its end at a component: `busybox:latest` for `docker.io/library/busybox:latest`.
fn name_matches(name: &str, wanted: &str) -> bool {
    let ends_with =
        |wanted: &str| name.strip_suffix(wanted).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
    ends_with(wanted) || ends_with(&format!("{wanted}:latest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_be_short_but_not_cut() {
        assert!(name_matches("docker.io/library/busybox:latest", "busybox"));
        assert!(name_matches("docker.io/library/busybox:latest", "library/busybox:latest"));
        assert!(name_matches("test:latest", "test"));
        assert!(!name_matches("docker.io/library/busybox:latest", "box:latest"));
    }
}
