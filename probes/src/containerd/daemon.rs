//! containerd daemons among the processes of a host, and what their command line and config say of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml_edit::{DocumentMut, Item};

use crate::Host;
use crate::escape::escape_bytes;
use crate::name::{CgroupPath, Pid};
use crate::process::{
    CommandLine, ProcessTable, find_socket_inodes, read_bounded, read_cmdline, read_exe, read_unix_sockets,
};

/// containerd's built-in default of `--config`.
pub const DEFAULT_CONFIG: &str = "/etc/containerd/config.toml";
/// containerd's built-in default of `state`.
pub const DEFAULT_STATE: &str = "/run/containerd";
/// containerd's built-in default of `grpc.address`.
pub const DEFAULT_ADDRESS: &str = "/run/containerd/containerd.sock";
/// A config file longer than this is none.
const CONFIG_LIMIT: u64 = 4 << 20;

/// A running containerd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DaemonProcess {
    /// Its pid.
    pub pid: Pid,
    /// When it started, in ticks after boot.
    pub start_time: u64,
    /// `/proc/PID/exe`; `None` without the right to read it.
    pub exe: Option<PathBuf>,
    /// Its command line, one escaped line.
    pub command_line: String,
    /// `--config`, or the built-in default.
    pub config: PathBuf,
    /// `--state`, the config's `state`, or the built-in default.
    pub state: PathBuf,
    /// `--address`, the config's `grpc.address`, or the built-in default.
    pub address: PathBuf,
    /// Its own cgroup: its unit's.
    pub cgroup: Option<CgroupPath>,
    /// The unix sockets that it listens on; `None` without the right to look at its descriptors.
    pub listens: Option<Vec<PathBuf>>,
}

/// Finds the daemons: processes called `containerd` whose executable or first argument is one.
///
/// A process that cannot be looked at closely (no privilege) is judged by its command line; one that only took the name
/// is left out.
#[must_use]
pub fn find_daemons(host: &Host, table: &ProcessTable) -> Vec<DaemonProcess> {
    let candidates: Vec<_> =
        table.iter().filter(|stat| stat.comm == b"containerd" && !stat.state.has_ended()).collect();
    if candidates.is_empty() {
        return Vec::new();
    }
    let sockets: BTreeMap<u64, String> = read_unix_sockets(host)
        .unwrap_or_default()
        .into_iter()
        .filter(|socket| socket.listening)
        .map(|socket| (socket.inode, socket.path))
        .collect();
    let read = |stat: &&crate::process::Stat| {
        let line = read_cmdline(host, stat.pid).ok().flatten().unwrap_or_default();
        let exe = read_exe(host, stat.pid).ok().flatten();
        is_daemon(&line, exe.as_deref()).then(|| DaemonProcess {
            listens: listening(host, stat.pid, &sockets),
            ..daemon(host, stat.pid, stat.start_time, &line, exe)
        })
    };
    candidates.iter().filter_map(read).collect()
}

/// Multi-call binaries (k3s, k0s) run containerd under the name in argv\[0\]; an executable's own name is harder to fake.
fn is_daemon(line: &CommandLine, exe: Option<&Path>) -> bool {
    let named =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("containerd"));
    let argument = line.arguments.first().map(|argument| PathBuf::from(escape_bytes(argument).into_owned()));
    exe.is_some_and(named) || argument.as_deref().is_some_and(named)
}

fn daemon(host: &Host, pid: Pid, start_time: u64, line: &CommandLine, exe: Option<PathBuf>) -> DaemonProcess {
    let flag = |long: &str, short: &str| line.flag(long).or_else(|| line.flag(short)).map(bytes_to_path);
    let config = flag("config", "c").unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG));
    let file = read_daemon_paths(host, &config);
    let state = line.flag("state").map(bytes_to_path).or(file.state);
    let address = flag("address", "a").or(file.address);
    DaemonProcess {
        pid,
        start_time,
        exe,
        command_line: line.to_line(),
        config,
        state: state.unwrap_or_else(|| PathBuf::from(DEFAULT_STATE)),
        address: address.unwrap_or_else(|| PathBuf::from(DEFAULT_ADDRESS)),
        cgroup: crate::cgroup::read_cgroup_path(host, pid).ok().flatten(),
        listens: None,
    }
}

pub(crate) fn bytes_to_path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

fn listening(host: &Host, pid: Pid, sockets: &BTreeMap<u64, String>) -> Option<Vec<PathBuf>> {
    let inodes = find_socket_inodes(host, pid).ok().flatten()?;
    let mut paths: Vec<_> = inodes.iter().filter_map(|inode| sockets.get(inode)).map(PathBuf::from).collect();
    paths.sort();
    Some(paths)
}

/// The two paths of a daemon's config that say where its tasks are.
#[derive(Debug, Default, PartialEq, Eq)]
struct DaemonPaths {
    state: Option<PathBuf>,
    address: Option<PathBuf>,
}

/// A config that is missing or broken tells nothing: the built-in defaults then hold, or the daemon would not run.
fn read_daemon_paths(host: &Host, config: &Path) -> DaemonPaths {
    let bytes = read_bounded(&host.resolve(config), CONFIG_LIMIT).ok().flatten().unwrap_or_default();
    parse_daemon_paths(&String::from_utf8_lossy(&bytes))
}

fn parse_daemon_paths(text: &str) -> DaemonPaths {
    let Ok(document) = text.parse::<DocumentMut>() else { return DaemonPaths::default() };
    let path =
        |item: Option<&Item>| item.and_then(Item::as_str).filter(|text| !text.is_empty()).map(PathBuf::from);
    DaemonPaths {
        state: path(document.get("state")),
        address: path(document.get("grpc").and_then(|grpc| grpc.get("address"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[u8]) -> DaemonProcess {
        daemon(&Host::at("/nonexistent"), Pid::new(1), 0, &CommandLine::parse(line, false), None)
    }

    #[test]
    fn flags_win_over_built_in_defaults() {
        let standalone = parsed(b"/usr/bin/containerd\0");
        assert_eq!(standalone.state, Path::new(DEFAULT_STATE));
        assert_eq!(standalone.address, Path::new(DEFAULT_ADDRESS));
        let k3s = parsed(b"containerd\0-c\0/k3s/config.toml\0-a\0/run/k3s/containerd/containerd.sock\0--state\0/run/k3s/containerd\0");
        assert_eq!(k3s.state, Path::new("/run/k3s/containerd"));
        assert_eq!(k3s.address, Path::new("/run/k3s/containerd/containerd.sock"));
        assert_eq!(k3s.config, Path::new("/k3s/config.toml"));
    }

    #[test]
    fn the_config_names_state_and_address() {
        let text =
            "version = 2\nstate = '/run/docker/containerd/daemon'\n[grpc]\naddress = \"/run/d.sock\"\n";
        let paths = parse_daemon_paths(text);
        assert_eq!(paths.state.as_deref(), Some(Path::new("/run/docker/containerd/daemon")));
        assert_eq!(paths.address.as_deref(), Some(Path::new("/run/d.sock")));
        assert_eq!(parse_daemon_paths("state = 7\n[grpc"), DaemonPaths::default());
    }

    #[test]
    fn a_process_that_took_the_name_is_no_daemon() {
        let line = CommandLine::parse(b"sleep\x0060\0", false);
        assert!(!is_daemon(&line, Some(Path::new("/bin/busybox"))));
        assert!(is_daemon(
            &CommandLine::parse(b"containerd\0", false),
            Some(Path::new("/usr/local/bin/k3s"))
        ));
    }
}
