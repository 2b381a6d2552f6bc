//! An image as text: the way from its index to its layers, its config, what each layer holds.

use inspect_image::layer::{Compression, Layer, LayerEnd};
use inspect_image::manifest::{Document, Image, Role};
use inspect_image::source::ImageSource;
use inspect_image::summary::LayerSummary;
use inspect_probes::escape::escape;
use serde::Serialize;

use super::style::Style;
use super::table::render_table;
use super::units::bytes;

/// What `inspect image` says.
#[derive(Debug, Serialize)]
pub(crate) struct ImageReport {
    file: String,
    container: &'static str,
    names: Vec<String>,
    platform: String,
    documents: Vec<Document>,
    config: ConfigReport,
    layers: Vec<LayerReport>,
}

/// What the image wants to run.
#[derive(Debug, Serialize)]
struct ConfigReport {
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    user: String,
    working_directory: String,
    exposed_ports: Vec<String>,
    volumes: Vec<String>,
    stop_signal: Option<String>,
    created: Option<String>,
    labels: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct LayerReport {
    file: String,
    media_type: Option<String>,
    digest: Option<String>,
    diff_id: String,
    compression: Compression,
    blob_bytes: u64,
    archive_bytes: u64,
    created_by: Option<String>,
    contents: LayerSummary,
}

impl ImageReport {
    pub(crate) fn new(
        source: &ImageSource,
        image: &Image,
        layers: Vec<(Layer, LayerSummary, LayerEnd)>,
    ) -> Self {
        Self {
            file: source.path().display().to_string(),
            container: if source.is_directory() { "directory" } else { "archive" },
            names: image.names.clone(),
            platform: image.platform.clone(),
            documents: image.documents.clone(),
            config: ConfigReport::new(image),
            layers: layers.into_iter().map(LayerReport::new).collect(),
        }
    }
}

impl ConfigReport {
    fn new(image: &Image) -> Self {
        let config = image.config.config().clone().unwrap_or_default();
        let sorted = |list: Option<Vec<String>>| {
            let mut list = list.unwrap_or_default();
            list.sort();
            list
        };
        Self {
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            cmd: config.cmd().clone().unwrap_or_default(),
            env: config.env().clone().unwrap_or_default(),
            user: config.user().clone().unwrap_or_default(),
            working_directory: config.working_dir().clone().unwrap_or_default(),
            exposed_ports: sorted(config.exposed_ports().clone()),
            volumes: sorted(config.volumes().clone()),
            stop_signal: config.stop_signal().clone(),
            created: image.config.created().clone(),
            labels: config.labels().clone().unwrap_or_default().into_iter().collect(),
        }
    }

    fn render(&self, style: Style) -> String {
        let words = |list: &[String]| {
            if list.is_empty() { style.faint("none") } else { escape(&shell_words(list)).into_owned() }
        };
        let text = |text: &str, absent: &str| {
            if text.is_empty() { style.faint(absent) } else { escape(text).into_owned() }
        };
        let mut lines = vec![
            ("entrypoint", words(&self.entrypoint)),
            ("cmd", words(&self.cmd)),
            ("user", text(&self.user, "root (none is named)")),
            ("cwd", text(&self.working_directory, "/ (none is named)")),
        ];
        lines.extend(self.env.iter().map(|variable| ("env", escape(variable).into_owned())));
        for (name, list) in [("ports", &self.exposed_ports), ("volumes", &self.volumes)] {
            if !list.is_empty() {
                lines.push((name, escape(&list.join(" ")).into_owned()));
            }
        }
        for (name, value) in [("stop signal", &self.stop_signal), ("created", &self.created)] {
            if let Some(value) = value {
                lines.push((name, escape(value).into_owned()));
            }
        }
        for (key, value) in &self.labels {
            lines.push(("label", format!("{}={}", escape(key), escape(value))));
        }
        lines.iter().map(|(name, value)| format!("  {name:<12}{value}\n")).collect()
    }
}

impl LayerReport {
    fn new((layer, contents, end): (Layer, LayerSummary, LayerEnd)) -> Self {
        Self {
            file: layer.name,
            media_type: layer.media_type,
            digest: layer.digest.map(|digest| digest.to_string()),
            diff_id: end.diff_id,
            compression: end.compression,
            blob_bytes: end.blob_bytes,
            archive_bytes: end.archive_bytes,
            created_by: layer.created_by,
            contents,
        }
    }

    fn render(&self, number: usize, style: Style) -> String {
        let checked = if self.digest.is_some() { "digest and diff_id match" } else { "diff_id matches" };
        let mut text = format!(
            "{} {}\n  {}; {}\n",
            style.strong(&format!("layer {number}")),
            escape(&self.file),
            growth(self.compression, self.blob_bytes, self.archive_bytes),
            style.good(checked)
        );
        if let Some(command) = &self.created_by {
            text.push_str(&format!("  made by: {}\n", escape(command)));
        }
        text.push_str(&format!("  {}\n", contents(&self.contents)));
        text.push_str(&format!("  at the top: {}\n", names(&self.contents.top_level)));
        if !self.contents.hidden.is_empty() {
            let hidden = format!("takes away from the layers below: {}", names(&self.contents.hidden));
            text.push_str(&format!("  {}\n", style.warning(&hidden)));
        }
        text
    }
}

/// The report for people.
pub(crate) fn render_image(report: &ImageReport, style: Style, width: Option<usize>) -> String {
    let container = if report.container == "directory" { "a directory" } else { "a tar archive" };
    let mut text = format!("{}: an image in {container}\n", style.strong(&escape(&report.file)));
    for name in &report.names {
        text.push_str(&format!("  name        {}\n", escape(name)));
    }
    text.push_str(&format!("  platform    {}\n\n", escape(&report.platform)));
    let mut rows: Vec<Vec<String>> = report.documents.iter().map(document_row).collect();
    for (index, layer) in report.layers.iter().enumerate() {
        rows.push(vec![
            short_name(&layer.file),
            bytes(layer.blob_bytes),
            escape(layer.media_type.as_deref().unwrap_or("-")).into_owned(),
            format!("layer {}: this one is the filesystem", index + 1),
        ]);
    }
    text.push_str(&render_table(&["FILE", "SIZE", "MEDIA TYPE", "WHAT IT IS"], &rows, width));
    text.push_str(&format!(
        "\n{}\n{}",
        style.strong("config: what the image says to run"),
        report.config.render(style)
    ));
    for (index, layer) in report.layers.iter().enumerate() {
        text.push('\n');
        text.push_str(&layer.render(index + 1, style));
    }
    text
}

fn document_row(document: &Document) -> Vec<String> {
    vec![
        short_name(&document.file),
        bytes(document.size),
        escape(document.media_type.as_deref().unwrap_or("-")).into_owned(),
        document_role(document.role).to_owned(),
    ]
}

/// What a document is for, in a sentence.
pub(crate) fn document_role(role: Role) -> &'static str {
    match role {
        Role::Index => "index: lists the manifests",
        Role::Manifest => "manifest: names the config and the layers",
        Role::Config => "config: this one is metadata",
        Role::Layer => "layer: this one is the filesystem",
    }
}

/// A blob's name with 12 digits of its digest, as registries and `docker images` show them.
pub(crate) fn short_name(file: &str) -> String {
    match file.rsplit_once('/') {
        Some((directory, digest)) if digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()) => {
            format!("{}/{}…", escape(directory), &digest[..12])
        }
        _ => escape(file).into_owned(),
    }
}

/// `gzip, 2.1 MiB → 4.4 MiB`.
pub(crate) fn growth(compression: Compression, blob: u64, archive: u64) -> String {
    match compression {
        Compression::None => format!("not compressed, {}", bytes(blob)),
        other => format!("{other}, {} → {}", bytes(blob), bytes(archive)),
    }
}

/// The counts in a sentence, zeros left out.
pub(crate) fn contents(summary: &LayerSummary) -> String {
    let counts = [
        (summary.files, "file", "files"),
        (summary.directories, "directory", "directories"),
        (summary.symlinks, "symbolic link", "symbolic links"),
        (summary.hardlinks, "hard link", "hard links"),
        (summary.special_files, "device or pipe", "devices and pipes"),
        (summary.setuid_files, "of the files setuid or setgid", "of the files setuid or setgid"),
        (summary.whiteouts, "whiteout", "whiteouts"),
        (summary.opaque_directories, "opaque directory", "opaque directories"),
    ];
    let mut parts: Vec<String> = counts
        .iter()
        .filter(|(count, _, _)| *count > 0)
        .map(|(count, one, many)| format!("{count} {}", if *count == 1 { one } else { many }))
        .collect();
    if parts.is_empty() {
        return "nothing in it".to_owned();
    }
    if summary.files > 0 {
        parts[0].push_str(&format!(" ({})", bytes(summary.file_bytes)));
    }
    parts.join(", ")
}

fn names(names: &[String]) -> String {
    if names.is_empty() {
        return "-".to_owned();
    }
    names.iter().map(|name| escape(name).into_owned()).collect::<Vec<_>>().join(" ")
}

/// Words as a shell would need them.
pub(crate) fn shell_words(words: &[String]) -> String {
    let plain = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&b))
    };
    let quoted = words
        .iter()
        .map(|word| if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_pasteable() {
        let words = ["sh", "-c", "echo 'a b'"].map(str::to_owned);
        assert_eq!(shell_words(&words), r"sh -c 'echo '\''a b'\'''");
    }

    #[test]
    fn counts_leave_zeros_out() {
        let summary = LayerSummary { files: 1, file_bytes: 2048, whiteouts: 2, ..LayerSummary::default() };
        assert_eq!(contents(&summary), format!("1 file ({}), 2 whiteouts", bytes(2048)));
        assert_eq!(contents(&LayerSummary::default()), "nothing in it");
    }

    #[test]
    fn a_digest_is_short_and_a_name_whole() {
        assert_eq!(short_name(&format!("blobs/sha256/{}", "a".repeat(64))), "blobs/sha256/aaaaaaaaaaaa…");
        assert_eq!(short_name("index.json"), "index.json");
    }
}
