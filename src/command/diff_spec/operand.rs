//! What LEFT and RIGHT name: from the word that was typed to a spec.

use std::path::Path;

use inspect_probes::bundle::Bundle;
use inspect_probes::namespace_owner::find_joined_namespaces;
use inspect_probes::spec::{JoinedNamespaces, Spec, SpecError, load_spec, read_spec};
use inspect_probes::spec_readback::{ReadbackError, read_back};
use inspect_probes::{Host, Node, escape};
use thiserror::Error;

use super::default_spec::make_default_spec;
use crate::command::container::{find_container, find_live, name_of};
use crate::error::CommandError;

/// One side of a comparison.
pub(super) struct Operand {
    /// How it is named in the output, escaped.
    pub(super) label: String,
    pub(super) spec: Spec,
    /// What the reader should know about it, escaped.
    pub(super) notes: Vec<String>,
    /// Whose namespaces it joins, where it is a container of this node.
    pub(super) joins: JoinedNamespaces,
}

/// Why a word names no spec.
#[derive(Debug, Error)]
enum OperandError {
    /// A directory that is no bundle.
    #[error("cannot find `config.json` in `{directory}`")]
    NoConfig { directory: String },
    /// It was there a moment ago.
    #[error("cannot read the spec of container `{name}`: it stopped and its bundle is gone")]
    Stopped { name: String },
}

/// Finds the spec that a word names. A path that exists wins over a container of that name.
pub(super) fn resolve(host: &Host, word: &str) -> Result<Operand, CommandError> {
    match word.split_once(':') {
        _ if word == "-" => from_stdin(),
        _ if word == "live" => from_container(host, &find_live(host)?),
        Some(("live", id)) => from_container(host, &find_container(host, id)?),
        Some(("kernel", id)) => from_kernel(host, id),
        Some(("default", runtime)) => {
            let spec = make_default_spec(runtime)?;
            Ok(operand(format!("default of {runtime}"), spec))
        }
        _ => from_path_or_container(host, word),
    }
}

fn from_stdin() -> Result<Operand, CommandError> {
    let spec = read_spec("standard input", std::io::stdin().lock()).map_err(CommandError::trouble)?;
    Ok(operand("standard input".to_owned(), spec))
}

fn from_path_or_container(host: &Host, word: &str) -> Result<Operand, CommandError> {
    let path = Path::new(word);
    let is_path = word.starts_with(['/', '.']) || word.ends_with(".json");
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => from_directory(path),
        Ok(_) => from_file(path),
        Err(_) if is_path => from_file(path),
        Err(_) => from_container(host, &find_container(host, word)?),
    }
}

fn from_file(path: &Path) -> Result<Operand, CommandError> {
    let spec = load_spec(path).map_err(CommandError::trouble)?;
    let name = path
        .file_name()
        .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    Ok(operand(name, spec))
}

fn from_directory(path: &Path) -> Result<Operand, CommandError> {
    let config = path.join("config.json");
    if !config.exists() {
        let directory = path.display().to_string();
        return Err(CommandError::trouble(OperandError::NoConfig { directory }).hint(
            "a bundle is a directory with config.json and rootfs; `inspect bundle ID` shows a container's",
        ));
    }
    let spec = load_spec(&config).map_err(CommandError::trouble)?;
    Ok(operand(path.display().to_string(), spec))
}

fn from_container(host: &Host, bundle: &Bundle) -> Result<Operand, CommandError> {
    let spec = load_container_spec(host, bundle)?;
    Ok(with_joins(host, bundle, operand(name_of(bundle), spec)))
}

/// A file may come from anywhere; a container's paths are of this node.
fn with_joins(host: &Host, bundle: &Bundle, operand: Operand) -> Operand {
    match Node::read(host) {
        Ok(node) => {
            Operand { joins: find_joined_namespaces(host, &node, bundle, &operand.spec.value), ..operand }
        }
        Err(_) => operand,
    }
}

fn load_container_spec(host: &Host, bundle: &Bundle) -> Result<Spec, CommandError> {
    match load_spec(&host.resolve(&bundle.path.join("config.json"))) {
        Err(SpecError::Open { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(CommandError::trouble(OperandError::Stopped { name: name_of(bundle) }))
        }
        loaded => loaded.map_err(CommandError::trouble),
    }
}

fn from_kernel(host: &Host, id: &str) -> Result<Operand, CommandError> {
    let bundle = find_container(host, id)?;
    let base = load_container_spec(host, &bundle)?;
    let readback = read_back(host, &bundle, &base).map_err(|error| {
        let hint = match &error {
            ReadbackError::Process(_) => "the kernel shows this to root: run it with sudo",
            _ => "`inspect tree` shows which containers run",
        };
        CommandError::trouble(error).hint(hint)
    })?;
    let mut operand = operand(format!("kernel, {}", name_of(&bundle)), readback.spec);
    operand.notes.extend(readback.notes);
    Ok(with_joins(host, &bundle, operand))
}

fn operand(label: String, spec: Spec) -> Operand {
    let unknown = spec.unknown_fields.iter().map(|pointer| escape::escape(pointer).into_owned());
    let notes: Vec<String> = match unknown.collect::<Vec<_>>() {
        fields if fields.is_empty() => Vec::new(),
        fields => {
            vec![format!("{}: runtime-spec 1.3 does not know {}", escape::escape(&label), fields.join(", "))]
        }
    };
    Operand { label: escape::escape(&label).into_owned(), spec, notes, joins: JoinedNamespaces::default() }
}
