//! What containerd's config says about the runtime: it holds for the CRI plugin's pods and for nobody else.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml_edit::{Document, Item};

use crate::Host;

/// The CRI plugin's place in a config of version 1, 2, and 3 onwards.
const CRI_PLUGINS: [&str; 3] = ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"];

/// The default runtime handler as one config file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfiguredDefault {
    /// The config file.
    pub config: PathBuf,
    /// `default_runtime_name`; `None` where the file does not say: then it is `runc`.
    pub handler: Option<String>,
    /// The line of that setting, from 1.
    pub line: Option<usize>,
    /// `BinaryName` of that handler, where the file gives one.
    pub binary_name: Option<String>,
    /// Whether the file imports others, which may say otherwise.
    pub has_imports: bool,
}

/// Reads the default handler out of one config file; `None` where there is no such file or it is not TOML.
#[must_use]
pub fn read_configured_default(host: &Host, config: &Path) -> Option<ConfiguredDefault> {
    let text = fs::read_to_string(host.resolve(config)).ok()?;
    let document = Document::parse(text.as_str()).ok()?;
    let tables: Vec<&Item> = CRI_PLUGINS
        .iter()
        .filter_map(|plugin| document.get("plugins")?.get(*plugin)?.get("containerd"))
        .collect();
    let setting = tables.iter().find_map(|table| table.get("default_runtime_name"));
    let handler = setting.and_then(Item::as_str).map(str::to_owned);
    let name = handler.as_deref().unwrap_or("runc");
    let binary =
        tables.iter().find_map(|table| table.get("runtimes")?.get(name)?.get("options")?.get("BinaryName"));
    let line = setting.and_then(Item::span).map(|span| text[..span.start].matches('\n').count() + 1);
    Some(ConfiguredDefault {
        config: config.to_path_buf(),
        line,
        binary_name: binary.and_then(Item::as_str).map(str::to_owned),
        has_imports: document
            .get("imports")
            .and_then(Item::as_array)
            .is_some_and(|imports| !imports.is_empty()),
        handler,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(text: &str) -> Option<ConfiguredDefault> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/c.toml"), text).unwrap();
        read_configured_default(&Host::at(root.path()), Path::new("/etc/c.toml"))
    }

    #[test]
    fn versions_2_and_3_are_read_at_their_own_places() {
        for plugin in ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"] {
            let text = format!(
                "version = 2\n[plugins.'{plugin}'.containerd]\ndefault_runtime_name = 'crun'\n\
                 [plugins.'{plugin}'.containerd.runtimes.crun.options]\nBinaryName = '/usr/bin/crun'\n"
            );
            let found = configured(&text).expect("a config");
            assert_eq!((found.handler.as_deref(), found.line), (Some("crun"), Some(3)));
            assert_eq!(found.binary_name.as_deref(), Some("/usr/bin/crun"));
            assert!(!found.has_imports);
        }
    }

    #[test]
    fn a_file_that_says_nothing_leaves_the_built_in_default() {
        let found = configured("version = 2\nimports = ['/etc/x.toml']\n").expect("a config");
        assert_eq!((found.handler, found.has_imports), (None, true));
        assert!(configured("[").is_none());
    }
}
