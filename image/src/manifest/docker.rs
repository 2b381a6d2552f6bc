//! The `manifest.json` of `docker save`: a list of images, each a config file and layer files.

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;

use super::{
    Document, Image, ManifestError, Role, Selection, complete_layers, list, name_matches, parse, platform_of,
};
use crate::layer::Layer;
use crate::source::ImageSource;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl SavedImage {
    fn names(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or_default()
    }
}

pub(super) fn load_docker(source: &ImageSource, selection: &Selection) -> Result<Image, ManifestError> {
    let bytes = source.read_document("manifest.json")?;
    let mut images: Vec<SavedImage> = parse("manifest.json", &bytes)?;
    let all_names = list(images.iter().flat_map(|image| image.names().iter().map(String::as_str)));
    if let Some(wanted) = &selection.name {
        images.retain(|image| image.names().iter().any(|name| name_matches(name, wanted)));
        if images.is_empty() {
            return Err(ManifestError::Name { wanted: wanted.clone(), available: all_names });
        }
    }
    if images.len() > 1 {
        return Err(ManifestError::Ambiguous { available: all_names });
    }
    let image = images.pop().ok_or(ManifestError::NoImage)?;
    let start = Document {
        file: "manifest.json".to_owned(),
        role: Role::Manifest,
        media_type: None,
        size: bytes.len() as u64,
        digest: None,
    };
    load_saved(source, &image, start, selection)
}

fn load_saved(
    source: &ImageSource,
    image: &SavedImage,
    start: Document,
    selection: &Selection,
) -> Result<Image, ManifestError> {
    let bytes = source.read_document(&image.config)?;
    let config: ImageConfiguration = parse(&image.config, &bytes)?;
    let platform = platform_of(&config);
    if !platform.starts_with(&selection.platform) {
        return Err(ManifestError::Platform { wanted: selection.platform.clone(), available: platform });
    }
    let mut layers = Vec::new();
    for name in &image.layers {
        let size = source.open_blob(name)?.remaining();
        layers.push(Layer {
            name: name.clone(),
            media_type: None,
            digest: None,
            size,
            diff_id: None,
            created_by: None,
        });
    }
    complete_layers(&mut layers, &config)?;
    let document = Document {
        file: image.config.clone(),
        role: Role::Config,
        media_type: None,
        size: bytes.len() as u64,
        digest: None,
    };
    Ok(Image { names: image.names().to_vec(), platform, documents: vec![start, document], config, layers })
}
