//! Reads the main config and the files that it imports, in the order in which containerd loads them.

use std::collections::VecDeque;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use thiserror::Error;

use super::document::{Document, DocumentError, declared_imports};
use super::version::ContainerdVersion;
use crate::Host;

/// Where containerd looks for drop-ins of its own accord since 2.2, when no config says otherwise.
const DEFAULT_DROP_INS: &str = "/etc/containerd/conf.d/*.toml";

/// A config that cannot be read.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file is there and cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// The files of a config.
#[derive(Debug, Clone)]
pub struct LoadedConfig {
    /// The main config's path, whether it exists or not.
    pub main: PathBuf,
    /// The files in load order: the main one first, when it exists.
    pub files: Vec<Document>,
    /// Literal imports that are not there: 1.x refuses to start, 2.x passes over them.
    pub missing: Vec<PathBuf>,
}

impl LoadedConfig {
    /// The main file, when it exists.
    #[must_use]
    pub fn main_file(&self) -> Option<&Document> {
        self.files.first().filter(|file| file.path() == self.main)
    }

    /// The last file that has something at `path`: the one whose word is in force.
    #[must_use]
    pub fn last_with(&self, path: &[&str]) -> Option<&Document> {
        self.files.iter().rev().find(|file| file.table().get_path(path).is_some())
    }

    /// The patterns of the main file's `imports`, absolute.
    #[must_use]
    pub fn import_patterns(&self) -> Vec<PathBuf> {
        self.main_file().map(patterns).unwrap_or_default()
    }
}

/// Loads the config whose main file is at `main`. A main file that does not exist is a config without files.
pub fn load_config(
    host: &Host,
    main: &Path,
    containerd: ContainerdVersion,
) -> Result<LoadedConfig, LoadError> {
    let mut loaded = LoadedConfig { main: main.to_owned(), files: Vec::new(), missing: Vec::new() };
    let mut pending = VecDeque::from([main.to_owned()]);
    let mut seen: Vec<PathBuf> = Vec::new();
    while let Some(path) = pending.pop_front() {
        if seen.contains(&path) {
            continue;
        }
        seen.push(path.clone());
        match fs::read(host.resolve(&path)) {
            Ok(bytes) => {
                let document = Document::parse(&path, &bytes)?;
                for pattern in patterns(&document) {
                    pending.extend(expand(host, &pattern, &mut loaded.missing));
                }
                loaded.files.push(document);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && path == main => {
                if containerd.at_least(2, 2) {
                    pending.extend(expand(host, Path::new(DEFAULT_DROP_INS), &mut loaded.missing));
                }
            }
            Err(source) => return Err(LoadError::Read { path, source }),
        }
    }
    Ok(loaded)
}

fn patterns(document: &Document) -> Vec<PathBuf> {
    let folder = document.path().parent().unwrap_or(Path::new("/")).to_owned();
    declared_imports(document).iter().map(|pattern| folder.join(pattern)).collect()
}

/// The files that a pattern names, in lexical order. A pattern without `*`, `?` or `[` names itself.
fn expand(host: &Host, pattern: &Path, missing: &mut Vec<PathBuf>) -> Vec<PathBuf> {
    let is_pattern = |text: &str| text.contains(['*', '?']);
    if !is_pattern(&pattern.to_string_lossy()) {
        if host.resolve(pattern).exists() {
            return vec![pattern.to_owned()];
        }
        missing.push(pattern.to_owned());
        return Vec::new();
    }
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let name = component.as_os_str().to_string_lossy();
        found = match component {
            Component::Normal(_) if is_pattern(&name) => {
                found.iter().flat_map(|folder| matching(host, folder, &name)).collect()
            }
            _ => found.iter().map(|folder| folder.join(component)).collect(),
        };
    }
    found.retain(|path| host.resolve(path).is_file());
    found
}

fn matching(host: &Host, folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(host.resolve(folder)) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| glob_matches(pattern.as_bytes(), name.as_bytes()))
        .collect();
    names.sort();
    names.into_iter().map(|name| folder.join(name)).collect()
}

/// Go's `filepath.Match` for `*` and `?` within one name.
#[must_use]
pub fn glob_matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.first(), name.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            glob_matches(&pattern[1..], name) || (!name.is_empty() && glob_matches(pattern, &name[1..]))
        }
        (Some(b'?'), Some(_)) => glob_matches(&pattern[1..], &name[1..]),
        (Some(a), Some(b)) if a == b => glob_matches(&pattern[1..], &name[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_as_go_matches_them() {
        assert!(glob_matches(b"*.toml", b"10-crun.toml"));
        assert!(glob_matches(b"*", b""));
        assert!(!glob_matches(b"*.toml", b"10-crun.toml.bak"));
        assert!(glob_matches(b"?0-*", b"10-x"));
    }

    #[test]
    fn imports_are_read_after_the_main_file_in_lexical_order() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc/containerd/conf.d");
        fs::create_dir_all(&etc).unwrap();
        let main = "version = 2\nimports = ['conf.d/*.toml', '/etc/containerd/none.toml']\n";
        fs::write(root.path().join("etc/containerd/config.toml"), main).unwrap();
        fs::write(etc.join("20-b.toml"), "").unwrap();
        fs::write(etc.join("10-a.toml"), "imports = ['20-b.toml']\n").unwrap();
        let containerd = ContainerdVersion::parse("2.1.9").unwrap();
        let loaded =
            load_config(&Host::at(root.path()), Path::new("/etc/containerd/config.toml"), containerd)
                .unwrap();
        let paths: Vec<_> = loaded.files.iter().map(|file| file.path().display().to_string()).collect();
        assert_eq!(
            paths,
            [
                "/etc/containerd/config.toml",
                "/etc/containerd/conf.d/10-a.toml",
                "/etc/containerd/conf.d/20-b.toml"
            ]
        );
        assert_eq!(loaded.missing, [Path::new("/etc/containerd/none.toml")]);
    }

    #[test]
    fn no_main_file_is_a_config_without_files() {
        let root = tempfile::tempdir().unwrap();
        let containerd = ContainerdVersion::parse("1.7.24").unwrap();
        let loaded =
            load_config(&Host::at(root.path()), Path::new("/etc/containerd/config.toml"), containerd)
                .unwrap();
        assert!(loaded.files.is_empty() && loaded.main_file().is_none());
    }
}
