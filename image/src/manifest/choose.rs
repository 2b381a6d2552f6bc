//! OCI indexes: which of their manifests is meant.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};

use super::{
    Document, Image, ManifestError, Role, Selection, complete_layers, document, list, manifest_layers,
    name_matches, parse, platform_of, read_blob,
};
use crate::source::{ImageSource, SourceError};

/// How deep indexes may be nested: `ctr` and `docker` write two.
const NESTING_LIMIT: usize = 4;

/// A manifest that an index leads to.
#[derive(Debug, Clone)]
struct Candidate {
    names: Vec<String>,
    /// From the index or, where that says nothing, from the config.
    platform: String,
    /// The indexes on the way.
    documents: Vec<Document>,
    descriptor: Descriptor,
}

/// The annotations in which an image's name is found: containerd's own and the image spec's.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

pub(super) fn load_oci(source: &ImageSource, selection: &Selection) -> Result<Image, ManifestError> {
    let bytes = source.read_document("index.json")?;
    let index: ImageIndex = parse("index.json", &bytes)?;
    let start = Document {
        file: "index.json".to_owned(),
        role: Role::Index,
        media_type: index.media_type().as_ref().map(ToString::to_string),
        size: bytes.len() as u64,
        digest: None,
    };
    let mut candidates = Vec::new();
    for descriptor in index.manifests() {
        collect(source, descriptor, &[], std::slice::from_ref(&start), &mut candidates)?;
    }
    load_image(source, choose(candidates, selection)?)
}

/// Goes down through an index, or takes a manifest. Manifests of other platforms are often listed and not there.
fn collect(
    source: &ImageSource,
    descriptor: &Descriptor,
    names: &[String],
    way: &[Document],
    found: &mut Vec<Candidate>,
) -> Result<(), ManifestError> {
    if way.len() > NESTING_LIMIT {
        return Err(ManifestError::Nested { limit: NESTING_LIMIT });
    }
    let own: Vec<String> = annotated_name(descriptor).into_iter().collect();
    let names = if own.is_empty() { names } else { &own };
    if !is_index(descriptor) {
        let candidate = Candidate {
            names: names.to_vec(),
            platform: String::new(),
            documents: way.to_vec(),
            descriptor: descriptor.clone(),
        };
        found.extend(with_platform(source, candidate)?);
        return Ok(());
    }
    let bytes = match read_blob(source, descriptor) {
        Err(ManifestError::Source(SourceError::Missing { .. })) => return Ok(()),
        other => other?,
    };
    let index: ImageIndex = parse(&super::blob_name(descriptor), &bytes)?;
    let way = [way, &[document(Role::Index, descriptor)]].concat();
    for inner in index.manifests() {
        collect(source, inner, names, &way, found)?;
    }
    Ok(())
}

fn is_index(descriptor: &Descriptor) -> bool {
    match descriptor.media_type() {
        MediaType::ImageIndex => true,
        MediaType::Other(other) => other == "application/vnd.docker.distribution.manifest.list.v2+json",
        _ => false,
    }
}

fn annotated_name(descriptor: &Descriptor) -> Option<String> {
    let annotations = descriptor.annotations().as_ref()?;
    NAME_ANNOTATIONS.iter().find_map(|key| annotations.get(*key)).cloned()
}

/// Fills in the platform; attestations and manifests whose blobs are not in the archive are no candidates.
fn with_platform(source: &ImageSource, mut candidate: Candidate) -> Result<Option<Candidate>, ManifestError> {
    if let Some(platform) = candidate.descriptor.platform() {
        let variant = platform.variant().as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
        candidate.platform = format!("{}/{}{variant}", platform.os(), platform.architecture());
    }
    let bytes = match read_blob(source, &candidate.descriptor) {
        Err(ManifestError::Source(SourceError::Missing { .. })) => return Ok(None),
        other => other?,
    };
    if candidate.platform.is_empty() {
        let manifest: ImageManifest = parse(&super::blob_name(&candidate.descriptor), &bytes)?;
        let config = read_blob(source, manifest.config())?;
        let config: ImageConfiguration = parse(&super::blob_name(manifest.config()), &config)?;
        candidate.platform = platform_of(&config);
    }
    Ok(Some(candidate).filter(|candidate| !candidate.platform.starts_with("unknown/")))
}

fn choose(candidates: Vec<Candidate>, selection: &Selection) -> Result<Candidate, ManifestError> {
    let all_names = list(candidates.iter().flat_map(|one| one.names.iter().map(String::as_str)));
    let mut left = candidates;
    if let Some(wanted) = &selection.name {
        left.retain(|one| one.names.iter().any(|name| name_matches(name, wanted)));
        if left.is_empty() {
            return Err(ManifestError::Name { wanted: wanted.clone(), available: all_names });
        }
    }
    let platforms = list(left.iter().map(|one| one.platform.as_str()));
    left.retain(|one| platform_matches(&one.platform, &selection.platform));
    // One image under several names is one image.
    let first = left.first().map(|one| one.descriptor.digest().clone());
    if left.iter().any(|one| Some(one.descriptor.digest()) != first.as_ref()) {
        return Err(ManifestError::Ambiguous { available: all_names });
    }
    let names = left.iter().flat_map(|one| one.names.clone()).collect();
    match left.into_iter().next() {
        Some(candidate) => Ok(Candidate { names, ..candidate }),
        None => Err(ManifestError::Platform { wanted: selection.platform.clone(), available: platforms }),
    }
}

/// `linux/arm64` fits `linux/arm64/v8`: a variant counts only where one was asked for.
fn platform_matches(has: &str, wanted: &str) -> bool {
    has == wanted || has.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('/'))
}

fn load_image(source: &ImageSource, candidate: Candidate) -> Result<Image, ManifestError> {
    let mut documents = candidate.documents;
    let manifest: ImageManifest =
        parse(&super::blob_name(&candidate.descriptor), &read_blob(source, &candidate.descriptor)?)?;
    documents.push(document(Role::Manifest, &candidate.descriptor));
    let config: ImageConfiguration =
        parse(&super::blob_name(manifest.config()), &read_blob(source, manifest.config())?)?;
    documents.push(document(Role::Config, manifest.config()));
    let mut layers = manifest_layers(&manifest);
    complete_layers(&mut layers, &config)?;
    Ok(Image { names: candidate.names, platform: platform_of(&config), documents, config, layers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_counts_where_it_was_asked_for() {
        assert!(platform_matches("linux/arm64/v8", "linux/arm64"));
        assert!(!platform_matches("linux/arm64/v8", "linux/arm64/v7"));
        assert!(!platform_matches("linux/arm64", "linux/arm"));
    }
}
