//! What containerd makes of its config and the files that it imports, by the rules of its generation.

use super::document::Document;
use super::schema::{SchemaError, cri_plugin, declared_version, is_free_of_version};
use super::value::{Setting, Table};
use super::version::ContainerdVersion;

/// The name that the CRI plugin's built-in default handler has, and its name for the default when none is written.
pub const BUILT_IN_HANDLER: &str = "runc";
/// The `runtime_type` of the shim that runs runc and everything with runc's command line.
pub const RUNC_SHIM: &str = "io.containerd.runc.v2";

/// The merged config with the CRI runtimes that are in force.
#[derive(Debug, Clone)]
pub struct Effective {
    containerd: ContainerdVersion,
    version: i64,
    plugin: &'static str,
    table: Table,
}

impl Effective {
    /// Merges the main config (first) and its imports in the order in which containerd loads them.
    ///
    /// 1.x replaces a plugin's whole section by the last file that names it; 2.x merges tables deeply, later values
    /// win, and reads the plugins by the highest version that any file declares.
    pub fn merge(files: &[Document], containerd: ContainerdVersion) -> Result<Self, SchemaError> {
        let mut table = Table::default();
        for file in files {
            merge_into(&mut table, file.table(), containerd.merges_deeply(), 0);
        }
        let declared = files.iter().filter_map(|file| declared_version(file.table()));
        let version = match declared.max() {
            Some(version) => version,
            // Without a file, or with one that says nothing of plugins, the version is ours to write.
            None if is_free_of_version(&table) => containerd.preferred_config(),
            None => 1,
        };
        let plugin = cri_plugin(version, containerd, &table)?;
        Ok(Self { containerd, version, plugin, table })
    }

    /// What `containerd config dump` printed: defaults, files and migration in one document.
    pub fn from_dump(dump: &Document, containerd: ContainerdVersion) -> Result<Self, SchemaError> {
        let version = declared_version(dump.table()).unwrap_or(1);
        let plugin = cri_plugin(version, containerd, dump.table())?;
        Ok(Self { containerd, version, plugin, table: dump.table().clone() })
    }

    /// The config version by which the plugins are read.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.version
    }

    /// The plugin that holds the CRI runtimes.
    #[must_use]
    pub fn plugin(&self) -> &'static str {
        self.plugin
    }

    /// The whole merged config.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The handler that a pod without a runtime class gets.
    #[must_use]
    pub fn default_handler(&self) -> &str {
        let name = self.cri(&["default_runtime_name"]).and_then(Setting::as_text);
        name.filter(|name| !name.is_empty()).unwrap_or(BUILT_IN_HANDLER)
    }

    /// The names of the handlers that exist, the built-in one included where this generation keeps it.
    #[must_use]
    pub fn handlers(&self) -> Vec<String> {
        let written = self.cri(&["runtimes"]).and_then(Setting::as_table);
        let mut names: Vec<String> =
            written.map_or_else(Vec::new, |table| table.keys().map(str::to_owned).collect());
        if self.keeps_built_in() && !names.iter().any(|name| name == BUILT_IN_HANDLER) {
            names.insert(0, BUILT_IN_HANDLER.to_owned());
        }
        names
    }

    /// The table of a handler; the built-in one where nobody wrote it.
    #[must_use]
    pub fn handler(&self, name: &str) -> Option<Table> {
        let written = self.cri(&["runtimes", name]).and_then(Setting::as_table).cloned();
        if name != BUILT_IN_HANDLER || !self.keeps_built_in() {
            return written;
        }
        let mut table = written.unwrap_or_default();
        if table.get("runtime_type").is_none() {
            table.set("runtime_type", Setting::Text(RUNC_SHIM.to_owned()));
        }
        Some(table)
    }

    /// The handler's `BinaryName`, when one is set.
    #[must_use]
    pub fn binary_name(&self, handler: &str) -> Option<String> {
        let table = self.handler(handler)?;
        let name = table.get_path(&["options", "BinaryName"])?.as_text()?.to_owned();
        Some(name).filter(|name| !name.is_empty())
    }

    /// Whether a handler uses systemd's cgroup driver.
    #[must_use]
    pub fn systemd_cgroup(&self, handler: &str) -> bool {
        let table = self.handler(handler);
        table.and_then(|t| t.get_path(&["options", "SystemdCgroup"])?.as_bool()).unwrap_or(false)
    }

    /// A setting of the CRI plugin below its `containerd` table.
    #[must_use]
    pub fn cri(&self, path: &[&str]) -> Option<&Setting> {
        let mut full = vec!["plugins", self.plugin, "containerd"];
        full.extend(path);
        self.table.get_path(&full)
    }

    /// Whether `disabled_plugins` turns CRI off.
    #[must_use]
    pub fn cri_is_disabled(&self) -> bool {
        let disabled = self.table.get("disabled_plugins").map(Setting::as_texts).unwrap_or_default();
        disabled.iter().any(|name| {
            *name == self.plugin || *name == super::schema::CRI_PLUGIN || (*name == "cri" && self.version < 2)
        })
    }

    /// The containerd whose rules were applied.
    #[must_use]
    pub fn containerd(&self) -> ContainerdVersion {
        self.containerd
    }

    /// 1.x loses the built-in handler as soon as anybody writes a `runtimes` table; 2.x merges with it.
    fn keeps_built_in(&self) -> bool {
        self.containerd.merges_deeply() || self.cri(&["runtimes"]).is_none()
    }
}

fn merge_into(to: &mut Table, from: &Table, deeply: bool, depth: usize) {
    for (key, value) in from.iter() {
        let merged = match (to.get(key), value) {
            // 1.x: `plugins.<name>` is taken as a whole.
            (Some(Setting::Table(ours)), Setting::Table(theirs)) if deeply || depth == 0 => {
                let mut ours = ours.clone();
                merge_into(&mut ours, theirs, deeply, depth + 1);
                Setting::Table(ours)
            }
            (Some(Setting::List(ours)), Setting::List(theirs)) if depth == 0 => {
                Setting::List(ours.iter().chain(theirs).cloned().collect())
            }
            _ => value.clone(),
        };
        to.set(key, merged);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const MAIN: &str = "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'x'\n\
        [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n\
        [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]\nSystemdCgroup = true\n";
    const CRUN: &str = "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.crun]\nruntime_type = 'io.containerd.runc.v2'\n";
    const YOUKI: &str = "[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndefault_runtime_name = 'youki'\n\
        [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.youki]\nruntime_type = 'io.containerd.runc.v2'\n\
        [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]\nBinaryName = 'r'\n";

    fn effective(containerd: &str, files: &[&str]) -> Effective {
        let files: Vec<_> =
            files.iter().map(|text| Document::parse(Path::new("/x"), text.as_bytes()).unwrap()).collect();
        Effective::merge(&files, ContainerdVersion::parse(containerd).unwrap()).unwrap()
    }

    #[test]
    fn containerd_1_keeps_only_the_last_section() {
        let merged = effective("1.7.24", &[MAIN, CRUN, YOUKI]);
        assert_eq!(merged.handlers(), ["youki", "runc"]);
        assert_eq!(merged.handler("runc").unwrap().get("runtime_type"), None);
        assert_eq!(merged.table().get_path(&["plugins", "io.containerd.grpc.v1.cri", "sandbox_image"]), None);
        assert_eq!(effective("1.6.20", &[MAIN, CRUN]).handlers(), ["crun"]);
    }

    #[test]
    fn containerd_2_merges_deeply() {
        let merged = effective("2.1.9", &[MAIN, CRUN, YOUKI]);
        assert_eq!(merged.handlers(), ["runc", "crun", "youki"]);
        assert_eq!(merged.default_handler(), "youki");
        assert_eq!(merged.binary_name("runc").as_deref(), Some("r"));
        assert!(merged.systemd_cgroup("runc"));
    }

    #[test]
    fn no_file_means_the_built_in_handler() {
        for containerd in ["1.6.20", "1.7.24", "2.1.9"] {
            let merged = effective(containerd, &[]);
            assert_eq!((merged.default_handler(), merged.handlers()), ("runc", vec!["runc".to_owned()]));
        }
    }

    #[test]
    fn a_version_3_drop_in_under_a_version_2_main_loses_the_main_section() {
        let merged = effective("2.1.9", &[MAIN, "version = 3\n"]);
        assert_eq!(merged.plugin(), "io.containerd.cri.v1.runtime");
        assert!(!merged.systemd_cgroup("runc"));
    }
}
