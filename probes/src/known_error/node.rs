//! Looks at the node for the cause that a known error text points at: the very file and line.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml_edit::{Document, Item};

use super::Check;
use crate::Host;

/// The CRI plugin's place in a config: version 1, 2, and 3 onwards.
const CRI_PLUGINS: [&str; 3] = ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"];

/// Where a binary is looked up by name: the PATH that systemd gives its services.
const SERVICE_PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What was found on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file that was looked at, as the node names it.
    pub path: PathBuf,
    /// The line in it, from 1, where there is one.
    pub line: Option<usize>,
    /// What stands there, or what is missing; escaped.
    pub text: String,
    /// Whether this is what the error text complains about.
    pub is_cause: bool,
}

impl Finding {
    fn new(path: impl Into<PathBuf>, text: impl Into<String>, is_cause: bool) -> Self {
        Self { path: path.into(), line: None, text: text.into(), is_cause }
    }

    fn at(mut self, line: Option<usize>) -> Self {
        self.line = line;
        self
    }
}

/// Looks at everything that `checks` name. `config` is the daemon's config as the node names it.
#[must_use]
pub fn examine(host: &Host, config: &Path, checks: &[Check]) -> Vec<Finding> {
    let text = fs::read_to_string(host.resolve(config));
    let mut findings = Vec::new();
    for check in checks {
        match check {
            Check::Binary(path) => findings.push(examine_binary(host, path)),
            Check::BinaryInPath(name) => findings.push(examine_name(host, name)),
            Check::File(path) => findings.push(examine_file(host, path)),
            _ => match &text {
                Ok(text) => examine_config(config, text, check, &mut findings),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    let text =
                        "there is no such file: containerd's built-in defaults hold (one handler, `runc`)";
                    findings.push(Finding::new(config, text, false));
                }
                Err(error) => {
                    findings.push(Finding::new(config, format!("cannot be read: {error}"), false));
                }
            },
        }
    }
    findings.dedup();
    findings
}

fn examine_config(config: &Path, text: &str, check: &Check, findings: &mut Vec<Finding>) {
    if let Check::ConfigLine(line) = check {
        let shown = text.lines().nth(line.saturating_sub(1)).unwrap_or("(the file has no such line)");
        findings.push(Finding::new(config, crate::escape::escape(shown.trim()), true).at(Some(*line)));
        return;
    }
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let line = error.span().map(|span| line_of(text, span.start));
            findings.push(Finding::new(config, format!("not TOML: {}", error.message()), true).at(line));
            return;
        }
    };
    let config = Config { path: config, text, root: document.as_item() };
    match check {
        Check::Handler(name) => findings.push(config.handler(name)),
        Check::DefaultHandler => findings.extend(config.default_handler()),
        Check::CriDisabled => findings.extend(config.cri_disabled()),
        Check::CgroupDriver => findings.extend(config.cgroup_drivers()),
        Check::ConfigVersion => findings.push(config.version()),
        _ => {}
    }
}

/// A parsed config with the text that its spans point into.
struct Config<'a> {
    path: &'a Path,
    text: &'a str,
    root: &'a Item,
}

impl Config<'_> {
    fn finding(&self, item: Option<&Item>, text: String, is_cause: bool) -> Finding {
        let line = item.and_then(Item::span).map(|span| line_of(self.text, span.start));
        Finding::new(self.path, text, is_cause).at(line)
    }

    /// The CRI plugin's `containerd` tables, one per plugin name that the file uses.
    fn cri_tables(&self) -> impl Iterator<Item = &Item> {
        CRI_PLUGINS.iter().filter_map(|plugin| self.root.get("plugins")?.get(*plugin)?.get("containerd"))
    }

    /// Every handler in the file with its table.
    fn handlers(&self) -> Vec<(&str, &Item)> {
        self.cri_tables()
            .filter_map(|table| table.get("runtimes")?.as_table_like())
            .flat_map(toml_edit::TableLike::iter)
            .collect()
    }

    fn handler(&self, name: &str) -> Finding {
        let handlers = self.handlers();
        if let Some((_, table)) = handlers.iter().find(|(handler, _)| *handler == name) {
            let text = format!("handler `{}` is configured here now", crate::escape::escape(name));
            return self.finding(Some(table), text, false);
        }
        let names: Vec<_> = handlers.iter().map(|(handler, _)| format!("`{handler}`")).collect();
        let there =
            if names.is_empty() { "none (the built-in ones hold)".to_owned() } else { names.join(", ") };
        let text = format!("no handler `{}`; configured in this file: {there}", crate::escape::escape(name));
        self.finding(None, text, true)
    }

    fn default_handler(&self) -> Vec<Finding> {
        let handlers = self.handlers();
        let mut findings = Vec::new();
        for item in self.cri_tables().filter_map(|table| table.get("default_runtime_name")) {
            let Some(name) = item.as_str() else {
                findings.push(self.finding(Some(item), "default_runtime_name is no text".to_owned(), true));
                continue;
            };
            let known = handlers.iter().any(|(handler, _)| *handler == name)
                || (handlers.is_empty() && name == "runc");
            let verdict =
                if known { "it is configured" } else { "this file configures no handler of that name" };
            let text = format!("default_runtime_name = \"{}\": {verdict}", crate::escape::escape(name));
            findings.push(self.finding(Some(item), text, !known));
        }
        findings
    }

    fn cri_disabled(&self) -> Vec<Finding> {
        let Some(item) = self.root.get("disabled_plugins") else {
            return Vec::new();
        };
        let entries = item.as_array().into_iter().flat_map(toml_edit::Array::iter);
        let names: Vec<&str> = entries.filter_map(toml_edit::Value::as_str).collect();
        let disabled =
            names.iter().any(|name| CRI_PLUGINS.contains(name) || name.starts_with("io.containerd.cri."));
        let text = format!("disabled_plugins = {}", crate::escape::escape(&format!("{names:?}")));
        vec![self.finding(Some(item), text, disabled)]
    }

    fn cgroup_drivers(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, table) in self.handlers() {
            let item = table.get("options").and_then(|options| options.get("SystemdCgroup"));
            let on = item.and_then(Item::as_bool).unwrap_or(false);
            let text = format!("handler `{}`: SystemdCgroup = {on}", crate::escape::escape(name));
            findings.push(self.finding(item.or(Some(table)), text, on));
        }
        findings
    }

    fn version(&self) -> Finding {
        match self.root.get("version") {
            Some(item) => {
                self.finding(Some(item), format!("version = {}", item.as_integer().unwrap_or(0)), true)
            }
            None => self.finding(None, "no `version` line: read as version 1".to_owned(), true),
        }
    }
}

fn examine_binary(host: &Host, path: &Path) -> Finding {
    let real = host.resolve(path);
    let metadata = match fs::metadata(&real) {
        Ok(metadata) => metadata,
        Err(error) => return Finding::new(path, format!("cannot be found: {error}"), true),
    };
    if !metadata.is_file() {
        return Finding::new(path, "is not a file", true);
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Finding::new(path, "is not executable", true);
    }
    match fs::File::open(&real).and_then(|file| read_magic(&file)) {
        Ok(magic) => {
            let (text, is_cause) = describe_program(&magic);
            Finding::new(path, text, is_cause)
        }
        Err(error) => Finding::new(path, format!("cannot be read: {error}"), false),
    }
}

/// The first bytes of a program: an ELF header's identification and machine are in the first 20 (elf(5)).
fn read_magic(file: &fs::File) -> std::io::Result<Vec<u8>> {
    let mut magic = Vec::new();
    file.take(20).read_to_end(&mut magic)?;
    Ok(magic)
}

fn describe_program(magic: &[u8]) -> (String, bool) {
    if magic.starts_with(b"#!") {
        return ("is there now: an executable script".to_owned(), false);
    }
    let Some(machine) = magic.get(18..20).filter(|_| magic.starts_with(b"\x7fELF")) else {
        return ("is neither an ELF program nor a script with `#!`".to_owned(), true);
    };
    let name = match u16::from_le_bytes([machine[0], machine[1]]) {
        3 => "x86",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        _ => "another machine",
    };
    let here = std::env::consts::ARCH;
    (format!("is there now: an ELF program for {name}; this machine is {here}"), name != here)
}

fn examine_name(host: &Host, name: &str) -> Finding {
    if name.contains('/') {
        return examine_binary(host, Path::new(name));
    }
    let found = SERVICE_PATH.iter().map(|directory| Path::new(directory).join(name));
    match found.into_iter().find(|path| host.resolve(path).is_file()) {
        Some(path) => Finding::new(path, "is in the usual PATH of a service now", false),
        None => Finding::new(name, format!("is in none of {}", SERVICE_PATH.join(":")), true),
    }
}

fn examine_file(host: &Host, path: &Path) -> Finding {
    match fs::metadata(host.resolve(path)) {
        Ok(_) => Finding::new(path, "is there now", false),
        Err(error) => Finding::new(path, format!("cannot be found: {error}"), true),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]

[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "ghost"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun.options]
      BinaryName = "/usr/bin/crun"
      SystemdCgroup = true
"#;

    fn findings(check: Check) -> Vec<Finding> {
        let mut findings = Vec::new();
        examine_config(Path::new("/etc/containerd/config.toml"), CONFIG, &check, &mut findings);
        findings
    }

    #[test]
    fn the_very_line_is_named() {
        let default = findings(Check::DefaultHandler);
        assert_eq!((default[0].line, default[0].is_cause), (Some(5), true), "{default:?}");
        let disabled = findings(Check::CriDisabled);
        assert_eq!((disabled[0].line, disabled[0].is_cause), (Some(2), true), "{disabled:?}");
        let driver = findings(Check::CgroupDriver);
        assert_eq!((driver[0].line, driver[0].is_cause), (Some(10), true), "{driver:?}");
        assert_eq!(findings(Check::ConfigVersion)[0].line, Some(1));
    }

    #[test]
    fn a_missing_handler_lists_those_there() {
        assert!(findings(Check::Handler("kata".into()))[0].text.contains("`crun`"));
        assert!(!findings(Check::Handler("crun".into()))[0].is_cause);
    }

    #[test]
    fn a_config_that_is_not_toml_is_the_finding() {
        let mut found = Vec::new();
        examine_config(Path::new("/c"), "a = 1\n[b\n", &Check::DefaultHandler, &mut found);
        assert_eq!((found[0].line, found[0].is_cause), (Some(2), true), "{found:?}");
    }

    #[test]
    fn programs_are_told_by_their_first_bytes() {
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
        elf.extend([183, 0]);
        assert!(describe_program(&elf).0.contains("aarch64"));
        assert!(!describe_program(b"#!/bin/sh\n").1);
        assert!(describe_program(b"").1);
    }
}
