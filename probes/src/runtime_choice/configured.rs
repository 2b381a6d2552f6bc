//! What containerd's config says about the runtime: it holds for the CRI plugin's pods and for nobody else.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Host;
use crate::containerd::config::{ContainerdVersion, Effective, load_config};

/// The default runtime handler in force: the config with its imports, merged as this containerd merges them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfiguredDefault {
    /// The file whose word is in force; the main config where no file says it.
    pub config: PathBuf,
    /// The line of `default_runtime_name` in it, from 1; `None` where the built-in default holds.
    pub line: Option<usize>,
    /// The default handler.
    pub handler: String,
    /// `BinaryName` of that handler, where one is set.
    pub binary_name: Option<String>,
}

/// Reads the default handler that the config at `config` gives this containerd; `None` where it cannot be read or merged, or this
/// containerd would not read it.
#[must_use]
pub fn read_configured_default(
    host: &Host,
    config: &Path,
    containerd: ContainerdVersion,
) -> Option<ConfiguredDefault> {
    let loaded = load_config(host, config, containerd).ok()?;
    let effective = Effective::merge(&loaded.files, containerd).ok()?;
    let setting = ["plugins", effective.plugin(), "containerd", "default_runtime_name"];
    let file = effective.cri(&["default_runtime_name"]).and_then(|_| loaded.last_with(&setting));
    let handler = effective.default_handler().to_owned();
    Some(ConfiguredDefault {
        config: file.map_or_else(|| config.to_path_buf(), |file| file.path().to_path_buf()),
        line: file.and_then(|file| file.line_of(&setting)),
        binary_name: effective.binary_name(&handler),
        handler,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn configured(files: &[(&str, &str)], version: &str) -> Option<ConfiguredDefault> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        for (name, text) in files {
            fs::write(root.path().join("etc").join(name), text).unwrap();
        }
        let version = ContainerdVersion::parse(version).unwrap();
        read_configured_default(&Host::at(root.path()), Path::new("/etc/c.toml"), version)
    }

    #[test]
    fn the_handler_in_force_is_named_with_its_line() {
        let text = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndefault_runtime_name = 'crun'\n\
                    [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.crun.options]\nBinaryName = '/usr/bin/crun'\n";
        let found = configured(&[("c.toml", text)], "1.7.24").expect("a config");
        assert_eq!((found.handler.as_str(), found.line), ("crun", Some(3)));
        assert_eq!(found.binary_name.as_deref(), Some("/usr/bin/crun"));
    }

    #[test]
    fn an_import_that_says_otherwise_wins() {
        let main = "version = 2\nimports = ['/etc/d.toml']\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndefault_runtime_name = 'runc'\n";
        let import = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\n\ndefault_runtime_name = 'crun'\n";
        let found = configured(&[("c.toml", main), ("d.toml", import)], "2.1.9").expect("a config");
        assert_eq!((found.handler.as_str(), found.line), ("crun", Some(4)));
        assert_eq!(found.config, Path::new("/etc/d.toml"));
    }

    #[test]
    fn a_file_that_says_nothing_leaves_the_built_in_default() {
        let found = configured(&[("c.toml", "version = 2\n")], "1.7.24").expect("a config");
        assert_eq!((found.handler.as_str(), found.line), ("runc", None));
        assert!(configured(&[("c.toml", "[")], "1.7.24").is_none());
    }
}
