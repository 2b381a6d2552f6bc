//! Plans the edit that registers a runtime: pure, text in and text out.

use std::path::Path;

use thiserror::Error;

use super::document::{Document, DocumentError, declared_imports};
use super::insert::{self, InsertError};
use super::merge::{BUILT_IN_HANDLER, Effective, RUNC_SHIM};
use super::schema::{SchemaError, cri_plugin, declared_version, is_free_of_version};
use super::splice::{Hunk, Splicer};
use super::undo::undo_lines;
use super::value::{Setting, Table};

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditRequest {
    /// The handler's name in the CRI config.
    pub handler: String,
    /// The `BinaryName` to write; `None` leaves the handler's own.
    pub binary: Option<String>,
    /// Whether the handler becomes `default_runtime_name`.
    pub make_default: bool,
    /// `SystemdCgroup`, when it is to be set; `None` keeps what the template or the handler has.
    pub systemd_cgroup: Option<bool>,
}

/// A planned edit of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The file's text as it was read.
    pub before: String,
    /// The text to write.
    pub after: String,
    /// The lines that differ.
    pub hunks: Vec<Hunk>,
}

impl Edit {
    /// Whether everything is already as it was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.before == self.after
    }
}

/// An edit that cannot be made.
#[derive(Debug, Error)]
pub enum EditError {
    /// The file is in a config version that this containerd does not take CRI runtimes from.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The file's structure has no place for it.
    #[error("cannot add the runtime")]
    Insert(#[from] InsertError),
    /// containerd 1.x lets `default_runtime` (deprecated) win over `default_runtime_name`.
    #[error("cannot set `default_runtime_name`: the deprecated `default_runtime` table would win over it")]
    LegacyDefaultRuntime,
    /// The handler belongs to another shim, which does not read `BinaryName`.
    #[error(
        "cannot set the binary of handler `{}`: it runs in shim `{}`",
        crate::escape::escape(handler),
        crate::escape::escape(runtime_type)
    )]
    OtherShim {
        /// The handler.
        handler: String,
        /// Its `runtime_type`.
        runtime_type: String,
    },
    /// The text that would be written does not parse: nothing is written.
    #[error("cannot edit the file: the result would not be TOML")]
    Broken(#[from] DocumentError),
    /// The text that would be written says more or less than was planned: nothing is written.
    #[error("cannot edit `{}`: the result would differ in more than the planned lines", path.display())]
    Unplanned {
        /// The file.
        path: std::path::PathBuf,
    },
}

/// A file under edit, with what it must say in the end.
struct Editor {
    document: Document,
    splicer: Splicer,
    expected: Table,
}

impl Editor {
    fn set(&mut self, path: &[&str], value: Setting) -> Result<(), EditError> {
        insert::set(&self.document, &mut self.splicer, path, &value)?;
        self.document = Document::parse(self.document.path(), self.splicer.text().as_bytes())?;
        self.expected.set_path(path, value);
        Ok(())
    }
}

/// Plans the edit of `document` (one of the files that make up `effective`).
///
/// The new handler takes the default handler's table as its template; nothing is removed. What the file says
/// afterwards is compared with what was planned, and taking the lines back must give the bytes that were there.
pub fn plan_edit(
    document: &Document,
    effective: &Effective,
    request: &EditRequest,
) -> Result<Edit, EditError> {
    let mut editor = Editor {
        document: document.clone(),
        splicer: Splicer::new(document.text()),
        expected: document.table().clone(),
    };
    let version = ensure_version(&mut editor, effective)?;
    let plugin = cri_plugin(version, effective.containerd(), document.table())?;
    let cri = ["plugins", plugin, "containerd"];
    if request.make_default {
        set_default(&mut editor, &cri, effective, &request.handler)?;
    }
    keep_built_in(&mut editor, &cri, effective, request)?;
    match effective.handler(&request.handler) {
        Some(table) => change_handler(&mut editor, &cri, &table, request)?,
        None => add_handler(&mut editor, &cri, effective, request)?,
    }
    finish(document, &editor)
}

/// Plans an import of `pattern` in the main file, after those that it has.
pub fn plan_import(document: &Document, effective: &Effective, pattern: &str) -> Result<Edit, EditError> {
    let mut editor = Editor {
        document: document.clone(),
        splicer: Splicer::new(document.text()),
        expected: document.table().clone(),
    };
    ensure_version(&mut editor, effective)?;
    let mut imports = declared_imports(document);
    if !imports.iter().any(|import| import == pattern) {
        imports.push(pattern.to_owned());
        let imports = imports.into_iter().map(Setting::Text).collect();
        editor.set(&["imports"], Setting::List(imports))?;
    }
    finish(document, &editor)
}

/// A new, empty file at `path` for this containerd.
pub fn empty_document(path: &Path) -> Result<Document, EditError> {
    Ok(Document::parse(path, b"")?)
}

/// The version that the file will have. containerd 2.x drops the plugins of a file without one: a file that says
/// nothing a version could change gets the line.
fn ensure_version(editor: &mut Editor, effective: &Effective) -> Result<i64, EditError> {
    let table = editor.document.table();
    if let Some(version) = declared_version(table) {
        return Ok(version);
    }
    if is_free_of_version(effective.table()) {
        editor.set(&["version"], Setting::Integer(effective.version()))?;
    }
    Ok(effective.version())
}

fn set_default(
    editor: &mut Editor,
    cri: &[&str],
    effective: &Effective,
    handler: &str,
) -> Result<(), EditError> {
    let legacy = effective.cri(&["default_runtime", "runtime_type"]).and_then(Setting::as_text);
    if legacy.is_some_and(|runtime_type| !runtime_type.is_empty()) && !effective.containerd().merges_deeply()
    {
        return Err(EditError::LegacyDefaultRuntime);
    }
    if effective.default_handler() == handler {
        return Ok(());
    }
    editor.set(&[cri, &["default_runtime_name"]].concat(), Setting::Text(handler.to_owned()))
}

/// On 1.x a written `runtimes` table replaces the built-in one: write what must stay, or CRI is down.
fn keep_built_in(
    editor: &mut Editor,
    cri: &[&str],
    effective: &Effective,
    request: &EditRequest,
) -> Result<(), EditError> {
    let needed = effective.default_handler() == BUILT_IN_HANDLER || request.handler == BUILT_IN_HANDLER;
    let path = [cri, &["runtimes", BUILT_IN_HANDLER]].concat();
    let written = editor.document.table().get_path(&path).is_some();
    let untouched = effective.handler(&request.handler).is_some() && effective.cri(&["runtimes"]).is_none();
    let nothing_to_write = untouched && request.binary.is_none() && request.systemd_cgroup.is_none();
    if effective.containerd().merges_deeply() || !needed || written || nothing_to_write {
        return Ok(());
    }
    editor.set(&path, Setting::Table(built_in_table()))
}

fn built_in_table() -> Table {
    [("runtime_type".to_owned(), Setting::Text(RUNC_SHIM.to_owned()))].into_iter().collect()
}

fn change_handler(
    editor: &mut Editor,
    cri: &[&str],
    table: &Table,
    request: &EditRequest,
) -> Result<(), EditError> {
    let runtime_type = table.get("runtime_type").and_then(Setting::as_text).unwrap_or(RUNC_SHIM);
    if request.binary.is_some() && runtime_type != RUNC_SHIM {
        let (handler, runtime_type) = (request.handler.clone(), runtime_type.to_owned());
        return Err(EditError::OtherShim { handler, runtime_type });
    }
    let wanted = [
        ("BinaryName", request.binary.clone().map(Setting::Text)),
        ("SystemdCgroup", request.systemd_cgroup.map(Setting::Bool)),
    ];
    for (key, value) in wanted {
        let Some(value) = value else { continue };
        let now = table.get_path(&["options", key]);
        if now == Some(&value) || (now.is_none() && value.is_zero()) {
            continue;
        }
        editor.set(&[cri, &["runtimes", &request.handler, "options", key]].concat(), value)?;
    }
    Ok(())
}

fn add_handler(
    editor: &mut Editor,
    cri: &[&str],
    effective: &Effective,
    request: &EditRequest,
) -> Result<(), EditError> {
    let mut table = template(effective);
    let mut options = table.remove("options").and_then(|o| o.as_table().cloned()).unwrap_or_default();
    options.remove("BinaryName");
    let mut ordered = Table::default();
    if let Some(binary) = &request.binary {
        ordered.set("BinaryName", Setting::Text(binary.clone()));
    }
    for (key, value) in options.iter().filter(|(_, value)| !value.is_zero()) {
        ordered.set(key, value.clone());
    }
    match request.systemd_cgroup {
        Some(true) => ordered.set("SystemdCgroup", Setting::Bool(true)),
        Some(false) => drop(ordered.remove("SystemdCgroup")),
        None => {}
    }
    if !ordered.is_empty() {
        table.set("options", Setting::Table(ordered));
    }
    editor.set(&[cri, &["runtimes", &request.handler]].concat(), Setting::Table(table))
}

/// The default handler's table without what nobody set; the built-in one where the default is of another shim.
fn template(effective: &Effective) -> Table {
    let of_runc_shim = |name: &str| {
        let table = effective.handler(name)?;
        let runtime_type = table.get("runtime_type").and_then(Setting::as_text).unwrap_or(RUNC_SHIM);
        (runtime_type == RUNC_SHIM).then_some(table)
    };
    let found = of_runc_shim(effective.default_handler()).or_else(|| of_runc_shim(BUILT_IN_HANDLER));
    let mut table = built_in_table();
    for (key, value) in found.unwrap_or_default().iter() {
        // `runtime_engine` is version 1's BinaryName.
        if key != "runtime_engine" && !value.is_zero() {
            table.set(key, value.clone());
        }
    }
    table
}

fn finish(document: &Document, editor: &Editor) -> Result<Edit, EditError> {
    let after = editor.splicer.text().to_owned();
    let hunks = editor.splicer.hunks();
    let taken_back = undo_lines(&after, &hunks);
    let as_planned = editor.document.table().same_as(&editor.expected);
    if !as_planned || taken_back.as_deref() != Ok(document.text()) {
        return Err(EditError::Unplanned { path: document.path().to_owned() });
    }
    Ok(Edit { before: document.text().to_owned(), after, hunks })
}
