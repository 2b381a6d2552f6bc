//! Specs (`config.json`): the defaults to start from, what an image says of its process, what the user asks for.
//!
//! They are JSON values, in the order that people read them in, and every result is parsed as the runtime spec's type
//! before anybody gets it.

mod capability;
mod default;
mod image;
mod options;
mod rootless;
mod value;

use std::path::PathBuf;

use inspect_probes::escape::{escape, quote};
use oci_spec::runtime::Spec;
use serde_json::Value;

pub use default::{Like, default_spec};
pub use image::{ImageProcess, apply_image};
pub use options::{MountOption, SpecOptions, parse_cpus, parse_size};
pub use rootless::{IdRange, make_rootless};
pub use value::{get, put};

/// Why a spec cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// What came out is no spec: what went in was none.
    #[error("cannot read the spec as the runtime spec defines it")]
    Invalid(
        /// What is wrong.
        #[source]
        serde_json::Error,
    ),
    /// A spec whose parts have other types than the runtime spec says.
    #[error("cannot set `{field}` of the spec: what it is in is no object")]
    Shape {
        /// The field, with dots.
        field: String,
    },
    /// A capability that the kernel does not have.
    #[error("cannot take {} as a capability", quote(name.as_bytes()))]
    Capability {
        /// What was given.
        name: String,
    },
    /// A mount that lacks something or has a key that is none.
    #[error("cannot take {} as a mount: {what}", quote(text.as_bytes()))]
    Mount {
        /// What was given.
        text: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A number or size that is none.
    #[error("cannot take {} as a {kind}", quote(text.as_bytes()))]
    Number {
        /// What was given.
        text: String,
        /// What it should be.
        kind: &'static str,
    },
    /// An image that says nothing of what to run.
    #[error("cannot tell what to run: the image has neither entrypoint nor cmd")]
    NoCommand,
    /// A working directory that is no absolute path.
    #[error("cannot work in `{}`: it is no absolute path", escape(&path.to_string_lossy()))]
    WorkingDirectory {
        /// What the image says.
        path: PathBuf,
    },
}

/// Parses the value as a spec and gives the text of its `config.json`.
///
/// # Errors
/// [`SpecError::Invalid`] where it is none.
pub fn to_config(spec: &Value) -> Result<String, SpecError> {
    serde_json::from_value::<Spec>(spec.clone()).map_err(SpecError::Invalid)?;
    let mut text = serde_json::to_string_pretty(spec).map_err(SpecError::Invalid)?;
    text.push('\n');
    Ok(text)
}

/// Reads the text of a `config.json`.
///
/// # Errors
/// [`SpecError::Invalid`] where it is none.
pub fn parse_config(text: &[u8]) -> Result<Value, SpecError> {
    serde_json::from_slice::<Spec>(text).map_err(SpecError::Invalid)?;
    serde_json::from_slice(text).map_err(SpecError::Invalid)
}
