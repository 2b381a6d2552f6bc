//! What `inspect unpack` did, step by step, each with the file that it did it with.

use std::path::Path;

use inspect_image::accounts::Account;
use inspect_image::manifest::{Image, Role};
use inspect_image::spec::{Like, get};
use inspect_image::unpack::{Losses, Unpacked, UnpackedLayer};
use inspect_probes::escape::escape;
use serde_json::Value;

use super::image::{contents, growth, shell_words, short_name};
use super::style::Style;
use super::wrap::wrap;

/// What was done.
#[derive(Debug)]
pub(crate) struct UnpackReport<'a> {
    pub(crate) file: &'a Path,
    pub(crate) bundle: &'a Path,
    pub(crate) image: &'a Image,
    pub(crate) unpacked: &'a Unpacked,
    pub(crate) account: &'a Account,
    pub(crate) spec: &'a Value,
    pub(crate) like: Like,
    /// What a plain user is to know about owners.
    pub(crate) identity: Option<String>,
}

/// The steps, numbered, and what was lost.
pub(crate) fn render_unpack(report: &UnpackReport<'_>, style: Style, width: Option<usize>) -> String {
    let bundle = escape(&report.bundle.to_string_lossy()).into_owned();
    let mut steps = document_steps(report);
    for (index, layer) in report.unpacked.layers.iter().enumerate() {
        let file = short_name(&report.image.layers[index].name);
        steps.push((file, layer_step(index, layer, &bundle)));
    }
    steps.push((format!("{bundle}/rootfs/etc/passwd"), account_step(report)));
    steps.push((format!("{bundle}/config.json"), config_step(report)));
    let mut text = String::new();
    for (index, (file, sentence)) in steps.iter().enumerate() {
        text.push_str(&format!("{:>2}. {}\n", index + 1, style.strong(file)));
        push_wrapped(&mut text, sentence, width);
    }
    for loss in report.identity.iter().cloned().chain(losses(&report.unpacked.losses)) {
        text.push_str(&format!("    {}\n", style.warning(&loss)));
    }
    text.push_str(&format!("next: {}\n", style.strong(&format!("inspect run {bundle}"))));
    text
}

fn push_wrapped(text: &mut String, sentence: &str, width: Option<usize>) {
    for line in wrap(sentence, width.map(|width| width.saturating_sub(4))) {
        text.push_str(&format!("    {line}\n"));
    }
}

fn document_steps(report: &UnpackReport<'_>) -> Vec<(String, String)> {
    let image = report.image;
    let archive = escape(&report.file.to_string_lossy()).into_owned();
    let step = |document: &inspect_image::manifest::Document| {
        let sentence = match document.role {
            Role::Index => {
                format!("the index of {archive}: says where the manifest for {} is", escape(&image.platform))
            }
            Role::Manifest => format!("the manifest: names the config and {} layer(s)", image.layers.len()),
            Role::Config => {
                "the config: this one is the metadata (what to run, environment, user)".to_owned()
            }
            Role::Layer => String::new(),
        };
        (short_name(&document.file), sentence)
    };
    image.documents.iter().map(step).collect()
}

fn layer_step(index: usize, layer: &UnpackedLayer, bundle: &str) -> String {
    let (end, summary) = (&layer.end, &layer.summary);
    format!(
        "layer {}: this one is the filesystem ({}; digests match): {} → {bundle}/rootfs",
        index + 1,
        growth(end.compression, end.blob_bytes, end.archive_bytes),
        contents(summary)
    )
}

fn account_step(report: &UnpackReport<'_>) -> String {
    let wanted = report.image.config.config().as_ref().and_then(|config| config.user().clone());
    let wanted = wanted.filter(|user| !user.is_empty()).unwrap_or_else(|| "root".to_owned());
    let account = report.account;
    format!("the image's own: its user `{}` is uid {}, gid {}", escape(&wanted), account.uid, account.gid)
}

fn config_step(report: &UnpackReport<'_>) -> String {
    let args: Vec<String> = get(report.spec, &["process", "args"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|word| word.as_str().map(str::to_owned))
        .collect();
    let mut sentence = format!(
        "the OCI spec, from {}'s default: runs `{}` in {}",
        report.like,
        escape(&shell_words(&args)),
        escape(get(report.spec, &["process", "cwd"]).and_then(Value::as_str).unwrap_or("/"))
    );
    for (field, file) in [
        ("memory.limit", "memory.max"),
        ("cpu.shares", "cpu.weight"),
        ("cpu.quota", "cpu.max"),
        ("pids.limit", "pids.max"),
    ] {
        let path: Vec<&str> = ["linux", "resources"].into_iter().chain(field.split('.')).collect();
        if let Some(value) = get(report.spec, &path) {
            sentence.push_str(&format!("; {field} {value} → {file}"));
        }
    }
    sentence
}

fn losses(losses: &Losses) -> Vec<String> {
    [
        (losses.owners, "file(s) have another owner than the image says"),
        (losses.devices, "device node(s) were not made: that takes CAP_MKNOD"),
        (losses.xattrs, "extended attribute(s) were not taken by this file system"),
        (losses.refused_xattrs, "extended attribute(s) trusted.overlay.* or user.overlay.* were refused"),
        (losses.unknown, "entries of unknown types were left out"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect()
}
