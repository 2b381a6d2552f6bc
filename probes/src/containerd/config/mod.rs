//! containerd's configuration: which files, what they mean to which containerd, and how to change them.
//!
//! [`load_config`] reads the main file with its imports; [`Effective`] is what this containerd makes of them;
//! [`plan_edit`] is a pure plan of text changes that leaves every other byte as it is; [`undo_lines`] takes them back.
//! What each generation does was measured on containerd 1.6.20, 1.7.24 and 2.1.9.

mod candidate;
mod document;
mod edit;
mod generated;
mod insert;
mod load;
mod merge;
mod schema;
mod splice;
mod undo;
mod value;
mod version;

#[cfg(test)]
mod tests;

pub use candidate::arrange_copies;
pub use document::{Document, DocumentError};
pub use edit::{Edit, EditError, EditRequest, empty_document, plan_edit, plan_import};
pub use generated::{Generated, find_generator};
pub use insert::InsertError;
pub use load::{LoadError, LoadedConfig, glob_matches, load_config};
pub use merge::{BUILT_IN_HANDLER, Effective, RUNC_SHIM};
pub use schema::{CRI_PLUGIN, CRI_RUNTIME_PLUGIN, SchemaError, declared_version, ignored_sections};
pub use splice::Hunk;
pub use undo::{UndoError, is_gone, undo_lines};
pub use value::{Quote, Setting, Table};
pub use version::ContainerdVersion;
