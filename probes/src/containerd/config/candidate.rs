//! A config as it would be, arranged so that containerd can read it somewhere else than where it will be.

use std::path::{Path, PathBuf};

use super::document::{Document, declared_imports};
use super::edit::EditError;
use super::insert;
use super::splice::Splicer;
use super::value::Setting;

/// Copies of a config's files for another folder: the main file (first) imports the copies of the others in the same
/// order, and these import nothing themselves.
pub fn arrange_copies(
    files: &[(PathBuf, String)],
    folder: &Path,
) -> Result<Vec<(PathBuf, String)>, EditError> {
    let name = |index: usize| folder.join(format!("{index:03}.toml"));
    let mut copies = Vec::new();
    for (index, (path, text)) in files.iter().enumerate() {
        let document = Document::parse(path, text.as_bytes())?;
        let others = (1..files.len()).map(|other| Setting::Text(name(other).display().to_string()));
        let imports: Vec<Setting> = if index == 0 { others.collect() } else { Vec::new() };
        let mut splicer = Splicer::new(document.text());
        if !imports.is_empty() || !declared_imports(&document).is_empty() {
            insert::set(&document, &mut splicer, &["imports"], &Setting::List(imports))?;
        }
        copies.push((name(index), splicer.text().to_owned()));
    }
    Ok(copies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_import_each_other_and_nothing_else() {
        let files = [
            (PathBuf::from("/etc/c.toml"), "version = 2\nimports = ['d/*.toml']\n[grpc]\n".to_owned()),
            (PathBuf::from("/etc/d/a.toml"), "imports = ['x.toml']\nroot = '/r'\n".to_owned()),
        ];
        let copies = arrange_copies(&files, Path::new("/t")).unwrap();
        assert_eq!(copies[0].1, "version = 2\nimports = ['/t/001.toml']\n[grpc]\n");
        assert_eq!(copies[1].1, "imports = []\nroot = '/r'\n");
        assert_eq!(copies[1].0, Path::new("/t/001.toml"));
    }
}
