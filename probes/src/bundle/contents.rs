//! Every file of a bundle, and of the runtime's state beside it, with what it is for and what it says now.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::files::Bundle;
use crate::Host;
use crate::escape::{escape, escape_bytes};
use crate::name::Pid;
use crate::process::{
    Mount, ProcessTable, parse_mountinfo, process_path, read_cmdline, read_present, read_unix_sockets,
};
use crate::runtime_state::{read_runtime_state, runtime_state_directory};
use crate::spec::{load_spec, summarise};

/// The most of a runtime's log that is searched for its last error.
const LOG_LIMIT: u64 = 1 << 20;

/// A file with its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedFile {
    /// Its name, escaped.
    pub name: String,
    /// `file`, `directory`, `link`, `fifo`, `socket`, `other`.
    pub kind: &'static str,
    /// Permission bits, as `0644`.
    pub mode: String,
    /// What it is for, and who made it.
    pub meaning: &'static str,
    /// What it says now, escaped; several lines where there is more to say.
    pub says: Vec<String>,
}

/// A bundle and the runtime's state, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BundleContents {
    /// The bundle's directory, as the host names it.
    pub path: PathBuf,
    /// `NAMESPACE/ID`, escaped.
    pub container: String,
    /// The files of the bundle, in their usual order.
    pub files: Vec<ExplainedFile>,
    /// The runtime's state directory, as the host names it.
    pub state_directory: PathBuf,
    /// What the state says: the runtime that wrote it, its init process, when it was created.
    pub state: Vec<String>,
    /// The files of the state directory; empty where there is none.
    pub state_files: Vec<ExplainedFile>,
}

/// Reads and explains a bundle. What cannot be read is said in its place.
#[must_use]
pub fn explain_bundle(host: &Host, bundle: &Bundle, processes: &ProcessTable) -> BundleContents {
    let explain = |name: &str| says(host, bundle, processes, name);
    let state_directory = runtime_state_directory(bundle);
    BundleContents {
        path: bundle.path.clone(),
        container: format!("{}/{}", bundle.containerd_namespace, bundle.id),
        files: list(&host.resolve(&bundle.path), meaning, explain),
        state: state_says(host, bundle, processes),
        state_files: list(&host.resolve(&state_directory), state_meaning, |_| Vec::new()),
        state_directory,
    }
}

/// The files of a directory, sorted by name.
fn list(
    directory: &Path,
    meaning: fn(&str) -> &'static str,
    says: impl Fn(&str) -> Vec<String>,
) -> Vec<ExplainedFile> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<ExplainedFile> = entries
        .filter_map(|entry| {
            let metadata = entry.path().symlink_metadata().ok()?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            Some(ExplainedFile {
                name: escape(&name).into_owned(),
                kind: kind(metadata.file_type()),
                mode: format!("{:04o}", metadata.mode() & 0o7777),
                meaning: meaning(&name),
                says: says(&name),
            })
        })
        .collect();
    files.sort_by(|left, right| left.name.cmp(&right.name));
    files
}

fn kind(file_type: fs::FileType) -> &'static str {
    match file_type {
        kind if kind.is_file() => "file",
        kind if kind.is_dir() => "directory",
        kind if kind.is_symlink() => "link",
        kind if kind.is_fifo() => "fifo",
        kind if kind.is_socket() => "socket",
        _ => "other",
    }
}

fn meaning(name: &str) -> &'static str {
    match name {
        "config.json" => "the OCI spec: containerd wrote it, the runtime obeys it",
        "rootfs" => "the container's root: containerd mounts the image's layers there",
        "init.pid" => "the pid of the container's init: the OCI runtime wrote it",
        "options.json" => "what containerd was asked to run: BinaryName, Root, SystemdCgroup",
        "runtime" => "BinaryName, word for word: the shim wrote it to find the runtime again",
        "shim-binary-path" => "the shim that containerd started",
        "address" => "where the shim listens (containerd 1.x)",
        "bootstrap.json" => "where the shim listens, and how (containerd 2.x)",
        "log" => "the pipe by which the shim's own log reaches containerd; reading it would steal lines",
        "log.json" => "the OCI runtime's log: the shim reports its last error",
        "work" => "a link to the bundle's persistent directory; the shim works there",
        "sandbox" => "the id of the pod's sandbox, whose shim serves this container (containerd 2.x)",
        _ => "none of the files that containerd, its shim or an OCI runtime is known to make",
    }
}

fn state_meaning(name: &str) -> &'static str {
    match name {
        "state.json" => "runc's and youki's record of the container",
        "status" => "crun's record of the container",
        "config.json" | "youki_config.json" => "the runtime's copy of what it was told",
        "exec.fifo" | "notify.sock" => "holds init back until `start`: the container is created, not running",
        _ => "a file of the runtime's own",
    }
}

fn says(host: &Host, bundle: &Bundle, processes: &ProcessTable, name: &str) -> Vec<String> {
    let directory = host.resolve(&bundle.path);
    match name {
        "config.json" => match load_spec(&directory.join(name)) {
            Ok(spec) => summarise(&spec.value),
            Err(error) => vec![error.to_string()],
        },
        "rootfs" => rootfs_says(host, &bundle.path.join(name)),
        "init.pid" => init_says(host, bundle, processes),
        "options.json" => options_say(bundle),
        "runtime" => vec![match bundle.runtime.as_deref() {
            None | Some("") => {
                "empty: none was asked for, so the shim looks `runc` up in its PATH".to_owned()
            }
            Some(binary) => escape(binary).into_owned(),
        }],
        "shim-binary-path" => bundle.shim_binary.iter().map(|path| shown(path)).collect(),
        "address" | "bootstrap.json" => address_says(host, bundle),
        "log.json" => vec![log_says(&directory.join(name))],
        "work" => work_says(host, &directory.join(name)),
        "sandbox" => bundle.sandbox.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    }
}

fn shown(path: &Path) -> String {
    escape_bytes(path.as_os_str().as_encoded_bytes()).into_owned()
}

/// What is mounted on the rootfs, in the mount namespace of the host's init, which is containerd's.
fn rootfs_says(host: &Host, path: &Path) -> Vec<String> {
    let mounts = match read_present(&process_path(host, Pid::INIT, "mountinfo")) {
        Ok(bytes) => parse_mountinfo(&bytes.unwrap_or_default()),
        Err(error) => return vec![error.to_string()],
    };
    let path = path.to_string_lossy();
    match mounts.iter().rev().find(|mount| mount.mount_point == path) {
        None => {
            vec!["nothing is mounted here: the task is gone, or its root is a plain directory".to_owned()]
        }
        Some(mount) if mount.file_system == "overlay" => overlay_says(mount),
        Some(mount) => vec![format!("{} of {}", escape(&mount.file_system), escape(&mount.source))],
    }
}

fn overlay_says(mount: &Mount) -> Vec<String> {
    let option = |name: &str| {
        let options = mount.super_options.split(',');
        options
            .filter_map(|option| option.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    // With many layers the kernel prints `lowerdir+=` once for each (Linux 6.5).
    let single = option("lowerdir").into_iter().flat_map(|lower| lower.split(':'));
    let appended = mount.super_options.split(',').filter_map(|option| option.strip_prefix("lowerdir+="));
    let lower: Vec<&str> = single.chain(appended).filter(|layer| !layer.is_empty()).collect();
    let mut lines = vec![format!(
        "overlay of {} read-only {}",
        lower.len(),
        if lower.len() == 1 { "layer" } else { "layers" }
    )];
    lines.extend(lower.iter().map(|layer| format!("lower {}", escape(layer))));
    for (name, label) in [("upperdir", "upper, where the container writes:"), ("workdir", "work")] {
        lines.extend(option(name).map(|path| format!("{label} {}", escape(path))));
    }
    lines
}

fn init_says(host: &Host, bundle: &Bundle, processes: &ProcessTable) -> Vec<String> {
    let Some(pid) = bundle.init_pid else {
        return vec!["no pid in it: the container is being made".to_owned()];
    };
    let Some(stat) = processes.get(pid) else {
        return vec![format!("{pid}: no such process, the container has stopped")];
    };
    let command = read_cmdline(host, pid).ok().flatten().map(|line| line.to_line()).unwrap_or_default();
    let command = if command.is_empty() { stat.name() } else { command };
    vec![format!("{pid}, {}: {}", stat.state.as_str(), escape(&command))]
}

fn options_say(bundle: &Bundle) -> Vec<String> {
    let Some(options) = &bundle.options else {
        return vec!["not the JSON that containerd writes".to_owned()];
    };
    let mut lines = Vec::new();
    if !options.binary_name.is_empty() {
        lines.push(format!("BinaryName {}", escape(&options.binary_name)));
    }
    if !options.root.is_empty() {
        lines.push(format!("Root {}", escape(&options.root)));
    }
    if options.systemd_cgroup {
        lines.push("SystemdCgroup true".to_owned());
    }
    if lines.is_empty() {
        lines.push("nothing was asked for: the defaults apply".to_owned());
    }
    lines
}

fn address_says(host: &Host, bundle: &Bundle) -> Vec<String> {
    let Some(address) = &bundle.shim_address else { return vec!["no address in it".to_owned()] };
    let path = address.address.strip_prefix("unix://").unwrap_or(&address.address);
    let listens = match read_unix_sockets(host) {
        Ok(sockets) if sockets.iter().any(|socket| socket.path == path && socket.listening) => {
            "the shim listens"
        }
        Ok(_) if host.resolve(Path::new(path)).exists() => "nobody listens: the shim is dead",
        Ok(_) => "the socket is gone: the shim has ended",
        Err(_) => "whether anybody listens cannot be read",
    };
    vec![
        format!("{}: {listens}", escape(path)),
        format!("{}, version {}", escape(&address.protocol), address.version),
    ]
}

/// The last error of the runtime's log, which is one JSON object a line.
fn log_says(path: &Path) -> String {
    use std::io::Read as _;
    let mut text = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(LOG_LIMIT).read_to_end(&mut text));
    if let Err(error) = read {
        return format!("cannot be read: {error}");
    }
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let error = lines
        .filter(|line| line.get("level").and_then(Value::as_str) == Some("error"))
        .find_map(|line| line.get("msg").and_then(Value::as_str).map(|message| escape(message).into_owned()));
    match error {
        Some(message) => format!("last error: {message}"),
        None if text.is_empty() => "empty: the runtime had nothing to report".to_owned(),
        None => "no error in it".to_owned(),
    }
}

fn work_says(host: &Host, link: &Path) -> Vec<String> {
    let Ok(target) = fs::read_link(link) else { return vec!["not a link".to_owned()] };
    let count = fs::read_dir(host.resolve(&target)).map(|entries| entries.count());
    vec![match count {
        Ok(0) => format!("{}, empty", shown(&target)),
        Ok(number) => format!("{}, {number} entries", shown(&target)),
        Err(_) => format!("{}, which does not exist", shown(&target)),
    }]
}

fn state_says(host: &Host, bundle: &Bundle, processes: &ProcessTable) -> Vec<String> {
    let state = match read_runtime_state(host, bundle) {
        Ok(Some(state)) => state,
        Ok(None) => return vec!["no runtime has a record of the container here".to_owned()],
        Err(error) => return vec![error.to_string()],
    };
    let mut lines = vec![format!("written by {}", state.family.as_str())];
    if let Some(pid) = state.init_pid {
        let same = |start: u64| processes.get(pid).is_some_and(|stat| stat.start_time == start);
        let now = match (state.init_start_time, processes.get(pid)) {
            (Some(start), Some(_)) if !same(start) => "another process has that pid now",
            (_, Some(_)) => "alive",
            (_, None) => "gone",
        };
        lines.push(format!("init {pid}: {now}"));
    }
    lines.extend(state.cgroup.map(|cgroup| format!("cgroup {cgroup}")));
    lines.extend(state.created.map(|created| format!("created {}", escape(&created))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log.json");
        fs::write(&log, "{\"level\":\"error\",\"msg\":\"old\"}\n{\"level\":\"error\",\"msg\":\"exec: \\u001b[31m\"}\n{\"level\":\"info\",\"msg\":\"x\"}\n{").unwrap();
        assert_eq!(log_says(&log), "last error: exec: \\x1b[31m");
        fs::write(&log, "").unwrap();
        assert!(log_says(&log).starts_with("empty"));
    }

    #[test]
    fn layers_of_an_overlay_are_counted() {
        let line = b"49 28 0:42 / /run/b/rootfs rw,relatime shared:9 - overlay overlay rw,lowerdir=/s/2/fs:/s/1/fs,upperdir=/s/3/fs,workdir=/s/3/work\n";
        let mounts = parse_mountinfo(line);
        let lines = overlay_says(&mounts[0]);
        assert_eq!(lines[0], "overlay of 2 read-only layers");
        assert_eq!(lines.last().unwrap(), "work /s/3/work");
        assert_eq!(lines.len(), 5);
    }
}
