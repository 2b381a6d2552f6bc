//! OCI specs (config.json, runtime-spec 1.3): loading, comparing by meaning, patching.
//!
//! A spec is kept as a [`serde_json::Value`] and not as `oci-spec`'s types: those drop fields they do not know, and a
//! difference that a type cannot hold would be a difference that nobody sees. What the fields are and which types
//! they have is said once, in `shape`; everything that is loaded is checked against it.

mod change;
mod diff;
mod headline;
mod joined;
mod load;
mod patch;
mod shape;
mod summary;

pub use change::{Change, Comparison, Detail, Fold, Section, Side, Verdict};
pub(crate) use diff::MountOptions;
pub use diff::{compare, compare_on_host, diff};
pub use headline::{HeadlineRow, headline};
pub use joined::{JoinedNamespace, JoinedNamespaces, NamespaceOwner};
pub use load::{MAX_SPEC_BYTES, Spec, SpecError, load_spec, parse_spec, read_spec};
pub use patch::{Operation, PatchError, apply_patch, patch};
pub use summary::summarise;
