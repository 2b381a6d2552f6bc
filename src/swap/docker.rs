//! `--scope docker`: the runtimes of dockerd's daemon.json, which it reads again at SIGHUP.

use std::path::{Path, PathBuf};

use inspect_probes::Host;
use inspect_probes::docker::DEFAULT_SOCKET;
use inspect_probes::name::Pid;
use inspect_probes::process::{ProcessTable, read_cmdline, read_exe};
use rustix::process::{Signal, kill_process};
use serde_json::{Map, Value};

use super::apply::read_file;
use super::error::SwapError;

/// The runtime that dockerd has built in, and its default.
const STOCK_RUNTIME: &str = "runc";
/// dockerd's built-in default of `--config-file`.
const DEFAULT_CONFIG: &str = "/etc/docker/daemon.json";

/// A running dockerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dockerd {
    pub(crate) pid: Pid,
    pub(crate) config: PathBuf,
    /// Where its API is.
    pub(crate) socket: PathBuf,
}

/// daemon.json as it is (`None`: there is none) and as it will be.
#[derive(Debug)]
pub(crate) struct PlannedJson {
    pub(crate) before: Option<Vec<u8>>,
    pub(crate) after: String,
}

impl PlannedJson {
    /// The text as it is; empty where there is no file.
    pub(crate) fn text_before(&self) -> String {
        String::from_utf8_lossy(self.before.as_deref().unwrap_or_default()).into_owned()
    }
}

/// What a daemon.json says of runtimes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RuntimesInFile {
    pub(crate) default: Option<String>,
    pub(crate) runtimes: Vec<String>,
}

/// Finds dockerd among the processes.
pub(crate) fn find_dockerd(host: &Host) -> Result<Option<Dockerd>, SwapError> {
    let table = ProcessTable::read(host)?;
    for stat in table.iter().filter(|stat| stat.comm == b"dockerd" && !stat.state.has_ended()) {
        let named =
            |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("dockerd"));
        if !read_exe(host, stat.pid)?.as_deref().is_some_and(named) {
            continue;
        }
        let line = read_cmdline(host, stat.pid)?.unwrap_or_default();
        let config =
            line.flag("config-file").map(|value| PathBuf::from(String::from_utf8_lossy(value).into_owned()));
        let config = config.unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG));
        let hosts = line.flag("host").or_else(|| line.flag("H")).map(|host| vec![lossy(host)]);
        let hosts = hosts.unwrap_or_else(|| hosts_in_file(&config));
        return Ok(Some(Dockerd { pid: stat.pid, config, socket: socket_of(&hosts) }));
    }
    Ok(None)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `hosts` of a daemon.json; a file that cannot be read is told of when it is planned.
fn hosts_in_file(config: &Path) -> Vec<String> {
    let bytes = std::fs::read(config).unwrap_or_default();
    let file: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    file["hosts"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The first unix socket; `fd://` is systemd's docker.socket, which has the usual place.
fn socket_of(hosts: &[String]) -> PathBuf {
    let path = hosts.iter().find_map(|host| host.strip_prefix("unix://")).filter(|path| !path.is_empty());
    PathBuf::from(path.unwrap_or(DEFAULT_SOCKET))
}

/// The default runtime and the runtimes that a daemon.json names.
pub(crate) fn runtimes_in_file(bytes: &[u8]) -> Result<RuntimesInFile, serde_json::Error> {
    let file: Value =
        if bytes.trim_ascii().is_empty() { Value::Null } else { serde_json::from_slice(bytes)? };
    Ok(RuntimesInFile {
        default: file["default-runtime"].as_str().map(str::to_owned),
        runtimes: file["runtimes"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect(),
    })
}

/// A daemon.json that names what it otherwise leaves to dockerd's built-in defaults.
pub(crate) fn explicit_defaults(bytes: &[u8]) -> Result<String, serde_json::Error> {
    let text = String::from_utf8_lossy(bytes);
    let mut config: Map<String, Value> =
        if text.trim().is_empty() { Map::new() } else { serde_json::from_str(&text)? };
    config.entry("default-runtime").or_insert_with(|| Value::String(STOCK_RUNTIME.to_owned()));
    config.entry("runtimes").or_insert_with(|| Value::Object(Map::new()));
    print(&config, &text)
}

/// dockerd reads `runtimes` and `default-runtime` again at SIGHUP; its containers go on.
pub(crate) fn reload(dockerd: &Dockerd) -> Result<(), SwapError> {
    let raw = i32::try_from(dockerd.pid.get()).ok().and_then(rustix::process::Pid::from_raw);
    let Some(pid) = raw else { return Ok(()) };
    kill_process(pid, Signal::HUP)
        .map_err(|error| SwapError::file("signal", format!("/proc/{}", dockerd.pid))(error.into()))
}

/// daemon.json with the runtime, in the file's own indentation; `None` when it already says so.
pub(crate) fn plan_daemon_json(
    path: &Path,
    name: &str,
    binary: &Path,
    make_default: bool,
) -> Result<Option<PlannedJson>, SwapError> {
    let before = read_file(path)?;
    let text = String::from_utf8_lossy(before.as_deref().unwrap_or_default()).into_owned();
    let after = edit(&text, name, binary, make_default)
        .map_err(|source| SwapError::Journal { path: path.to_owned(), source })?;
    Ok((after != text).then_some(PlannedJson { before, after }))
}

fn edit(text: &str, name: &str, binary: &Path, make_default: bool) -> Result<String, serde_json::Error> {
    let mut config: Map<String, Value> =
        if text.trim().is_empty() { Map::new() } else { serde_json::from_str(text)? };
    let before = config.clone();
    let runtimes = config.entry("runtimes").or_insert_with(|| Value::Object(Map::new()));
    if let Some(runtimes) = runtimes.as_object_mut() {
        let runtime = runtimes.entry(name).or_insert_with(|| Value::Object(Map::new()));
        if let Some(runtime) = runtime.as_object_mut() {
            runtime.insert("path".to_owned(), Value::String(binary.display().to_string()));
        }
    }
    if make_default {
        config.insert("default-runtime".to_owned(), Value::String(name.to_owned()));
    }
    if config == before {
        return Ok(text.to_owned());
    }
    print(&config, text)
}

/// daemon.json without the runtime that a swap wrote, and with the default from `before` it where the swap's still stands there.
/// JSON's commas join lines, so this goes by keys: what somebody else changed stays.
pub(crate) fn without_runtime(now: &[u8], before: &[u8], name: &str) -> Result<String, serde_json::Error> {
    let parse = |bytes: &[u8]| -> Result<Map<String, Value>, serde_json::Error> {
        if bytes.trim_ascii().is_empty() { Ok(Map::new()) } else { serde_json::from_slice(bytes) }
    };
    let (mut config, before) = (parse(now)?, parse(before)?);
    let old = before.get("runtimes").and_then(Value::as_object);
    if let Some(runtimes) = config.get_mut("runtimes").and_then(Value::as_object_mut) {
        match old.and_then(|old| old.get(name)) {
            Some(runtime) => drop(runtimes.insert(name.to_owned(), runtime.clone())),
            None => drop(runtimes.shift_remove(name)),
        }
        if runtimes.is_empty() && old.is_none() {
            drop(config.shift_remove("runtimes"));
        }
    }
    if config.get("default-runtime").and_then(Value::as_str) == Some(name) {
        match before.get("default-runtime") {
            Some(default) => drop(config.insert("default-runtime".to_owned(), default.clone())),
            None => drop(config.shift_remove("default-runtime")),
        }
    }
    print(&config, &String::from_utf8_lossy(now))
}

/// Prints with the indentation of the file's first indented line and its last newline.
fn print(config: &Map<String, Value>, like: &str) -> Result<String, serde_json::Error> {
    let indented = like.lines().find(|line| line.starts_with([' ', '\t']));
    let indent = indented.map_or("  ", |line| &line[..line.len() - line.trim_start().len()]);
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(config, &mut serializer)?;
    let newline = if like.is_empty() || like.ends_with('\n') { "\n" } else { "" };
    Ok(format!("{}{newline}", String::from_utf8_lossy(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "{\n    \"log-driver\": \"local\",\n    \"runtimes\": {\n        \"x\": {\n            \"path\": \"/x\"\n        }\n    }\n}\n";

    #[test]
    fn a_runtime_is_added_in_the_files_own_style_once() {
        let after = edit(BEFORE, "crun", Path::new("/usr/bin/crun"), true).unwrap();
        let value: Value = serde_json::from_str(&after).unwrap();
        assert_eq!(value["runtimes"]["crun"]["path"], "/usr/bin/crun");
        assert_eq!(value["runtimes"]["x"]["path"], "/x");
        assert_eq!(value["default-runtime"], "crun");
        assert!(after.starts_with("{\n    \"log-driver\": \"local\",\n"), "{after}");
        assert_eq!(edit(&after, "crun", Path::new("/usr/bin/crun"), true).unwrap(), after);
        assert_eq!(without_runtime(after.as_bytes(), BEFORE.as_bytes(), "crun").unwrap(), BEFORE);
    }

    #[test]
    fn only_the_swaps_keys_go() {
        let after = edit(BEFORE, "crun", Path::new("/usr/bin/crun"), true).unwrap();
        let edited = after.replace("\"local\"", "\"json-file\"");
        let undone = without_runtime(edited.as_bytes(), BEFORE.as_bytes(), "crun").unwrap();
        assert_eq!(undone, BEFORE.replace("\"local\"", "\"json-file\""));
        let theirs = after.replace("\"default-runtime\": \"crun\"", "\"default-runtime\": \"x\"");
        let undone = without_runtime(theirs.as_bytes(), BEFORE.as_bytes(), "crun").unwrap();
        assert!(undone.contains("\"default-runtime\": \"x\"") && !undone.contains("crun"), "{undone}");
        let alone = edit("", "crun", Path::new("/usr/bin/crun"), true).unwrap();
        assert_eq!(without_runtime(alone.as_bytes(), b"", "crun").unwrap().trim(), "{}");
    }

    #[test]
    fn the_defaults_are_named_where_the_file_leaves_them_out() {
        let named = explicit_defaults(b"").unwrap();
        let stock = RuntimesInFile { default: Some("runc".to_owned()), runtimes: Vec::new() };
        assert_eq!(runtimes_in_file(named.as_bytes()).unwrap(), stock);
        let kept = explicit_defaults(BEFORE.as_bytes()).unwrap();
        assert_eq!(runtimes_in_file(kept.as_bytes()).unwrap().runtimes, ["x"]);
        assert_eq!(runtimes_in_file(b"").unwrap(), RuntimesInFile { default: None, runtimes: Vec::new() });
    }

    #[test]
    fn the_socket_is_the_first_that_is_one() {
        let hosts = ["tcp://0.0.0.0:2375", "unix:///run/other.sock"].map(str::to_owned);
        assert_eq!(socket_of(&hosts), Path::new("/run/other.sock"));
        assert_eq!(socket_of(&["fd://".to_owned()]), Path::new("/run/docker.sock"));
        assert_eq!(socket_of(&[]), Path::new("/run/docker.sock"));
    }

    #[test]
    fn no_file_becomes_one_and_bad_json_is_refused() {
        let after = edit("", "crun", Path::new("/usr/bin/crun"), false).unwrap();
        assert_eq!(
            after,
            "{\n  \"runtimes\": {\n    \"crun\": {\n      \"path\": \"/usr/bin/crun\"\n    }\n  }\n}\n"
        );
        assert!(edit("{", "crun", Path::new("/c"), false).is_err());
    }
}
