//! A config file as bytes that are kept, with what they mean beside them.
//!
//! An edit replaces or inserts text at positions that the parser found and never prints a parsed tree: a BOM, CRLF, a
//! missing last newline, comments, mixed quotes and dotted keys stay as they are, because nobody writes them again.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::value::{Quote, Table, table_of};

/// A file that is not a TOML document.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// TOML is UTF-8.
    #[error("cannot read `{}`: it is not UTF-8 (first at byte {at})", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Where.
        at: usize,
    },
    /// What the parser says.
    #[error("cannot parse `{}`: line {line}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's words.
        reason: String,
    },
}

/// A config file: its text, unchanged, and its meaning.
#[derive(Debug, Clone)]
pub struct Document {
    path: PathBuf,
    parsed: toml_edit::Document<String>,
    table: Table,
}

impl Document {
    /// Parses the bytes of the file at `path` (for messages only; nothing is read from there).
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, DocumentError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| DocumentError::NotUtf8 { path: path.to_owned(), at: error.valid_up_to() })?;
        let parsed = toml_edit::Document::parse(text.to_owned()).map_err(|error| DocumentError::Syntax {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line_number(text, span.start)),
            reason: crate::escape::escape(error.message()).into_owned(),
        })?;
        let table = table_of(parsed.as_table());
        Ok(Self { path: path.to_owned(), parsed, table })
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's text, byte for byte.
    #[must_use]
    pub fn text(&self) -> &str {
        self.parsed.raw()
    }

    /// What the file says.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The line (from 1) on which the value at `path` stands, or the header of the table at `path`.
    #[must_use]
    pub fn line_of(&self, path: &[&str]) -> Option<usize> {
        let (last, parents) = path.split_last()?;
        let mut table: &dyn toml_edit::TableLike = self.parsed.as_table();
        for key in parents {
            table = table.get(key)?.as_table_like()?;
        }
        let span = table.get(last)?.span().or_else(|| table.key(last)?.span())?;
        Some(line_number(self.text(), span.start))
    }

    pub(super) fn parsed(&self) -> &toml_edit::Document<String> {
        &self.parsed
    }

    /// The line ending of the file: that of its first line.
    pub(super) fn line_ending(&self) -> &'static str {
        match self.text().find('\n') {
            Some(at) if self.text()[..at].ends_with('\r') => "\r\n",
            _ => "\n",
        }
    }

    /// The quote that the file uses more often.
    pub(super) fn quote(&self) -> Quote {
        let count = |quote| self.text().matches(quote).count();
        let (single, double) = (count('\''), count('"'));
        let new = super::schema::declared_version(&self.table).is_some_and(|version| version >= 3);
        if single > double || (single == double && new) { Quote::Single } else { Quote::Double }
    }
}

/// The `imports` of a file, as they are written.
pub(super) fn declared_imports(document: &Document) -> Vec<String> {
    let imports = document.table().get("imports").map(super::value::Setting::as_texts).unwrap_or_default();
    imports.into_iter().map(str::to_owned).collect()
}

/// The line, from 1, of the byte at `at`.
fn line_number(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Document, DocumentError> {
        Document::parse(Path::new("/etc/containerd/config.toml"), bytes)
    }

    #[test]
    fn the_bytes_are_kept() {
        let text = "\u{feff}version = 2\r\n[plugins.'a']\r\n[plugins.\"b\"]\r\nx.y = 1\r\nz = 2\r\nx.w = 3";
        let document = parse(text.as_bytes()).unwrap();
        assert_eq!(document.text(), text);
        assert_eq!(document.line_ending(), "\r\n");
        assert_eq!(document.line_of(&["plugins", "b", "z"]), Some(5));
        assert_eq!(document.line_of(&["plugins", "b"]), Some(3));
    }

    #[test]
    fn bad_files_are_named_with_the_place() {
        let message = parse(b"version = 2\n[plugins").unwrap_err().to_string();
        assert!(message.starts_with("cannot parse `/etc/containerd/config.toml`: line 2: "), "{message}");
        assert_eq!(
            parse(b"a = 1\n\xff").unwrap_err().to_string(),
            "cannot read `/etc/containerd/config.toml`: it is not UTF-8 (first at byte 6)"
        );
    }
}
