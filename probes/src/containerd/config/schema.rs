//! Where the CRI runtimes are in each config version, and whether a given containerd reads them there.

use thiserror::Error;

use super::value::Table;
use super::version::ContainerdVersion;

/// The CRI plugin of config versions 2 (containerd 1.3 – 1.7; 2.x migrates it at each start).
pub const CRI_PLUGIN: &str = "io.containerd.grpc.v1.cri";
/// The plugin that holds the CRI runtimes since config version 3 (containerd 2.0).
pub const CRI_RUNTIME_PLUGIN: &str = "io.containerd.cri.v1.runtime";
/// The CRI plugin's name in config version 1.
const CRI_PLUGIN_V1: &str = "cri";

/// A file that this containerd would not read the CRI runtimes from, whatever is written there.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SchemaError {
    /// Above the highest version: 1.7 and later refuse to start, 1.6 does not look at the number.
    #[error("containerd {containerd} reads config versions up to {highest}, the file says {version}")]
    TooNew {
        /// What the file says.
        version: i64,
        /// The daemon.
        containerd: ContainerdVersion,
        /// What it reads.
        highest: i64,
    },
    /// Version 1, or no `version` line, in containerd 2.x: CRI settings are dropped with a warning.
    #[error(
        "containerd {containerd} drops the plugin settings of a version 1 config (no `version` line means 1)"
    )]
    TooOld {
        /// The daemon.
        containerd: ContainerdVersion,
    },
}

/// The version that a file declares; absent is 1.
#[must_use]
pub fn declared_version(config: &Table) -> Option<i64> {
    config.get("version").and_then(super::value::Setting::as_integer)
}

/// Whether a file has nothing in it that the config version could give another meaning.
pub(super) fn is_free_of_version(config: &Table) -> bool {
    ["plugins", "disabled_plugins", "required_plugins", "proxy_plugins"]
        .iter()
        .all(|key| config.get(key).is_none())
}

/// The name of the plugin whose `containerd.runtimes` this containerd reads from a file of `version`.
///
/// A version 2 file may hold either plugin under containerd 2.x: the one that is there is taken.
pub(super) fn cri_plugin(
    version: i64,
    containerd: ContainerdVersion,
    config: &Table,
) -> Result<&'static str, SchemaError> {
    if version > containerd.highest_config() {
        // 1.6 does not check the number and reads such a file as version 2.
        if !containerd.at_least(1, 7) {
            return Ok(CRI_PLUGIN);
        }
        let highest = containerd.highest_config();
        return Err(SchemaError::TooNew { version, containerd, highest });
    }
    match version {
        ..=1 if containerd.at_least(2, 0) => Err(SchemaError::TooOld { containerd }),
        ..=1 => Ok(CRI_PLUGIN_V1),
        2 => {
            let new = config.table_at(&["plugins", CRI_RUNTIME_PLUGIN, "containerd"]).is_some();
            let old = config.table_at(&["plugins", CRI_PLUGIN, "containerd"]).is_some();
            Ok(if containerd.at_least(2, 0) && new && !old { CRI_RUNTIME_PLUGIN } else { CRI_PLUGIN })
        }
        _ => Ok(CRI_RUNTIME_PLUGIN),
    }
}

/// Settings that are in the file and that this containerd silently leaves aside: `plugins."…"` names.
#[must_use]
pub fn ignored_sections(version: i64, containerd: ContainerdVersion, config: &Table) -> Vec<String> {
    let Ok(read) = cri_plugin(version, containerd, config) else { return Vec::new() };
    [CRI_PLUGIN, CRI_RUNTIME_PLUGIN, CRI_PLUGIN_V1]
        .into_iter()
        .filter(|plugin| *plugin != read && config.table_at(&["plugins", plugin, "containerd"]).is_some())
        .map(|plugin| format!("plugins.\"{plugin}\".containerd"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> ContainerdVersion {
        ContainerdVersion::parse(text).unwrap()
    }

    #[test]
    fn each_generation_reads_its_own_place() {
        let none = Table::default();
        for (file, containerd, plugin) in [
            (1, "1.6.20", "cri"),
            (2, "1.6.20", CRI_PLUGIN),
            (3, "1.6.20", CRI_PLUGIN),
            (2, "1.7.24", CRI_PLUGIN),
            (2, "2.1.9", CRI_PLUGIN),
            (3, "2.1.9", CRI_RUNTIME_PLUGIN),
            (4, "2.3.0", CRI_RUNTIME_PLUGIN),
        ] {
            assert_eq!(cri_plugin(file, version(containerd), &none), Ok(plugin), "{file} in {containerd}");
        }
    }

    #[test]
    fn what_is_not_read_is_refused() {
        let none = Table::default();
        assert!(matches!(cri_plugin(3, version("1.7.24"), &none), Err(SchemaError::TooNew { .. })));
        assert!(matches!(cri_plugin(4, version("2.1.9"), &none), Err(SchemaError::TooNew { .. })));
        assert!(matches!(cri_plugin(1, version("2.1.9"), &none), Err(SchemaError::TooOld { .. })));
    }

    #[test]
    fn a_section_for_another_generation_is_named() {
        let mut config = Table::default();
        let runtime = super::super::value::Setting::Text("io.containerd.runc.v2".to_owned());
        config.set_path(
            &["plugins", CRI_RUNTIME_PLUGIN, "containerd", "runtimes", "crun", "runtime_type"],
            runtime,
        );
        assert_eq!(
            ignored_sections(2, version("1.7.24"), &config),
            ["plugins.\"io.containerd.cri.v1.runtime\".containerd"]
        );
        assert!(ignored_sections(2, version("2.1.9"), &config).is_empty());
    }
}
