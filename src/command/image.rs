//! `inspect image`: which file of an image is which, and what its layers hold.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use inspect_image::layer::{Layer, LayerEnd, LayerError, Layers};
use inspect_image::limits::Limits;
use inspect_image::manifest::{Image, ManifestError, Selection};
use inspect_image::source::{ImageSource, SourceError};
use inspect_image::spec::parse_size;
use inspect_image::summary::{LayerSummary, SummaryError};
use inspect_image::tar::TarError;

use crate::error::CommandError;
use crate::output::{Output, Status};
use crate::render::image::{ImageReport, render_image};
use crate::render::json::render_json;
use crate::render::style::Style;

/// Show what an image is made of: which file is metadata and which is the filesystem, every digest checked
#[derive(Debug, Args)]
#[command(after_help = "\
FILE is what `ctr images export` or `docker save` wrote, or a directory with an OCI layout.

Examples:
  inspect image busybox.tar
  inspect image busybox.tar --format json
  inspect image layout/ --platform linux/arm64")]
pub(crate) struct ImageArgs {
    /// The image: a tar archive or a directory
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    choice: ChoiceArgs,
    #[command(flatten)]
    limits: LimitArgs,
    /// How to print
    #[arg(long, value_enum, default_value_t = ImageFormat::Text, value_name = "FORMAT")]
    format: ImageFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ImageFormat {
    /// Tables and sentences
    Text,
    /// One JSON document
    Json,
}

/// Which image, where an archive has several.
#[derive(Debug, Args)]
pub(crate) struct ChoiceArgs {
    /// Take the image for OS/ARCHITECTURE[/VARIANT] (default: this machine's)
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Take the image of this name, in full or its end (`busybox:latest`)
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
}

impl ChoiceArgs {
    fn selection(&self) -> Selection {
        let platform = self.platform.clone().unwrap_or_else(Selection::host_platform);
        Selection { platform, name: self.image.clone() }
    }
}

/// How far to follow an image that grows and grows.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits against hostile images")]
pub(crate) struct LimitArgs {
    /// Bytes of all layers after decompression
    #[arg(long, value_name = "SIZE", default_value = "64G", value_parser = parse_size)]
    max_bytes: u64,
    /// Entries of all layers
    #[arg(long, value_name = "N", default_value_t = 4_000_000)]
    max_entries: u64,
    /// Growth by decompression, judged from 256 MiB on
    #[arg(long, value_name = "TIMES", default_value_t = 200)]
    max_ratio: u64,
    /// Components of one path
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_depth: usize,
}

impl LimitArgs {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            bytes: self.max_bytes,
            entries: self.max_entries,
            ratio: self.max_ratio,
            depth: self.max_depth,
            ..Limits::default()
        }
    }
}

/// Reads the image and says what it is made of.
pub(crate) fn run(args: &ImageArgs, output: &mut Output) -> Result<Status, CommandError> {
    let limits = args.limits.limits();
    let (source, image) = load(&args.file, &args.choice, &limits)?;
    let layers = summarize(&source, &image, limits, output)?;
    let report = ImageReport::new(&source, &image, layers);
    let text = match args.format {
        ImageFormat::Json => render_json(&report)?,
        ImageFormat::Text => render_image(&report, Style::new(output.color()), output.width()),
    };
    output.print(&text)?;
    Ok(Status::Success)
}

/// Opens the file and follows its documents.
pub(crate) fn load(
    file: &Path,
    choice: &ChoiceArgs,
    limits: &Limits,
) -> Result<(Arc<ImageSource>, Image), CommandError> {
    let source = ImageSource::open(file, limits).map_err(source_refused)?;
    let image = Image::load(&source, &choice.selection()).map_err(manifest_refused)?;
    Ok((Arc::new(source), image))
}

fn summarize(
    source: &Arc<ImageSource>,
    image: &Image,
    limits: Limits,
    output: &Output,
) -> Result<Vec<(Layer, LayerSummary, LayerEnd)>, CommandError> {
    let progress = output.progress(image.blob_bytes(), "reading");
    let mut streams =
        Layers::start(Arc::clone(source), image.layers.clone(), limits).map_err(layer_refused)?;
    let mut summaries = Vec::new();
    let mut entries = limits.entries;
    for layer in &image.layers {
        let (summary, end) =
            LayerSummary::read(streams.next_layer(), entries, &mut |bytes| progress.set(bytes))
                .map_err(summary_refused)?;
        entries = entries.saturating_sub(summary.entries);
        summaries.push((layer.clone(), summary, end));
    }
    Ok(summaries)
}

fn source_refused(error: SourceError) -> CommandError {
    let hint = match &error {
        SourceError::Archive { source: TarError::TooManyEntries { .. }, .. } => {
            Some("if you trust the image, raise the limit with `--max-entries`")
        }
        _ => None,
    };
    with_hint(CommandError::trouble(error), hint)
}

fn manifest_refused(error: ManifestError) -> CommandError {
    let hint = match &error {
        ManifestError::Platform { .. } => Some("choose one with `--platform OS/ARCHITECTURE`"),
        ManifestError::Ambiguous { .. } => Some("choose one with `--image NAME`"),
        _ => None,
    };
    with_hint(CommandError::trouble(error), hint)
}

fn summary_refused(error: SummaryError) -> CommandError {
    match error {
        SummaryError::Layer(error) => layer_refused(error),
        SummaryError::Tar(TarError::TooManyEntries { .. }) => {
            CommandError::trouble(error).hint("if you trust the image, raise the limit with `--max-entries`")
        }
        error => CommandError::trouble(error),
    }
}

/// Says which flag raises the limit that the layer ran into.
pub(crate) fn layer_refused(error: LayerError) -> CommandError {
    let hint = match &error {
        LayerError::TooLarge { .. } => Some("if you trust the image, raise the limit with `--max-bytes`"),
        LayerError::Ratio { .. } => Some("if you trust the image, raise the limit with `--max-ratio`"),
        LayerError::Digest { .. } | LayerError::DiffId { .. } | LayerError::Size { .. } => {
            Some("the file was damaged or changed since it was made: export or copy the image again")
        }
        _ => None,
    };
    with_hint(CommandError::trouble(error), hint)
}

pub(crate) fn with_hint(error: CommandError, hint: Option<&str>) -> CommandError {
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
