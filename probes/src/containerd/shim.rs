//! Shims among the processes of a host: containerd's runtime v2 protocol starts each as
//! `SHIM -namespace NS -id ID -address SOCKET`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::daemon::bytes_to_path;
use crate::Host;
use crate::escape::escape_bytes;
use crate::name::{CgroupPath, ContainerId, ContainerdNamespace, Pid};
use crate::process::{ProcessTable, Stat, read_cmdline, read_cwd, read_exe};

/// Every shim's name begins so; `/proc/PID/stat` keeps 15 bytes of it.
const SHIM_PREFIX: &str = "containerd-shim";
/// The directory of containerd's runtime v2 plugin below the state directory: `<this>/NAMESPACE/ID` are the bundles.
pub const TASK_DIRECTORY: &str = "io.containerd.runtime.v2.task";

/// A running shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShimProcess {
    /// Its pid.
    pub pid: Pid,
    /// The parent that the kernel gives it: PID 1 or another subreaper, never its daemon.
    pub kernel_parent: Pid,
    /// When it started, in ticks after boot.
    pub start_time: u64,
    /// `/proc/PID/exe`; `None` without the right to read it.
    pub exe: Option<PathBuf>,
    /// Its command line, one escaped line.
    pub command_line: String,
    /// `-namespace`.
    pub containerd_namespace: ContainerdNamespace,
    /// `-id`: the container that it was started for; of a CRI pod the sandbox.
    pub id: ContainerId,
    /// `-address`: the socket of the daemon that it reports to.
    pub address: Option<PathBuf>,
    /// `/proc/PID/cwd`: the bundle that it was started in; `None` without the right to read it.
    pub cwd: Option<PathBuf>,
    /// Its own cgroup, mostly its daemon's unit.
    pub cgroup: Option<CgroupPath>,
}

impl ShimProcess {
    /// The daemon's state directory, read off the bundle that the shim works in.
    #[must_use]
    pub fn state_directory(&self) -> Option<&Path> {
        let mut ancestors = self.cwd.as_deref()?.ancestors();
        let task_directory = ancestors.nth(2)?;
        if task_directory.file_name()? != TASK_DIRECTORY { None } else { task_directory.parent() }
    }
}

/// Finds the shims. One that is just being started (`… start`, `… delete`) is a helper of its daemon and left out.
#[must_use]
pub fn find_shims(host: &Host, table: &ProcessTable) -> Vec<ShimProcess> {
    let candidates =
        table.iter().filter(|stat| stat.comm.starts_with(SHIM_PREFIX.as_bytes()) && !stat.state.has_ended());
    candidates.filter_map(|stat| read_shim(host, stat)).collect()
}

fn read_shim(host: &Host, stat: &Stat) -> Option<ShimProcess> {
    let line = read_cmdline(host, stat.pid).ok().flatten()?;
    let text = |flag: &str| line.flag(flag).map(|value| String::from_utf8_lossy(value).into_owned());
    let command = line.arguments.last().map(Vec::as_slice);
    if matches!(command, Some(b"start" | b"delete")) {
        return None;
    }
    let exe = read_exe(host, stat.pid).ok().flatten();
    let first = line.arguments.first().map(|argument| PathBuf::from(escape_bytes(argument).into_owned()));
    if !is_shim(exe.as_deref()) && !is_shim(first.as_deref()) {
        return None;
    }
    Some(ShimProcess {
        pid: stat.pid,
        kernel_parent: stat.parent,
        start_time: stat.start_time,
        exe,
        command_line: line.to_line(),
        containerd_namespace: ContainerdNamespace::new(text("namespace")?),
        id: ContainerId::new(text("id")?),
        address: line.flag("address").map(bytes_to_path),
        cwd: read_cwd(host, stat.pid).ok().flatten(),
        cgroup: crate::cgroup::read_cgroup_path(host, stat.pid).ok().flatten(),
    })
}

fn is_shim(path: Option<&Path>) -> bool {
    path.and_then(Path::file_name).is_some_and(|name| name.to_string_lossy().starts_with(SHIM_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn host(comm: &str, cmdline: &[u8]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let process = root.path().join("proc/40");
        fs::create_dir_all(&process).unwrap();
        let stat = format!("40 ({comm}) S 1 40 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 11 0 7777 0 0");
        fs::write(process.join("stat"), stat).unwrap();
        fs::write(process.join("cmdline"), cmdline).unwrap();
        fs::write(process.join("cgroup"), "0::/system.slice/containerd.service\n").unwrap();
        symlink("/run/k3s/containerd/io.containerd.runtime.v2.task/default/web", process.join("cwd"))
            .unwrap();
        let host = Host::at(root.path());
        (root, host)
    }

    #[test]
    fn a_shim_says_whose_it_is() {
        let line =
            b"/usr/bin/containerd-shim-runc-v2\0-namespace\0default\0-id\0web\0-address\0/run/c.sock\0";
        let (_root, host) = host("containerd-shim", line);
        let shims = find_shims(&host, &ProcessTable::read(&host).unwrap());
        assert_eq!(shims.len(), 1);
        assert_eq!((shims[0].id.as_str(), shims[0].start_time), ("web", 7777));
        assert_eq!(shims[0].state_directory(), Some(Path::new("/run/k3s/containerd")));
        assert_eq!(shims[0].cgroup, Some(CgroupPath::new("/system.slice/containerd.service")));
        assert_eq!(shims[0].address.as_deref(), Some(Path::new("/run/c.sock")));
    }

    #[test]
    fn a_shim_that_only_starts_another_and_a_process_that_took_the_name_are_left_out() {
        let starting = b"/usr/bin/containerd-shim-runc-v2\0-namespace\0default\0-id\0web\0start\0";
        let impostor = b"sleep\0-namespace\0default\0-id\0web\0";
        for line in [starting.as_slice(), impostor] {
            let (_root, host) = host("containerd-shim", line);
            assert!(find_shims(&host, &ProcessTable::read(&host).unwrap()).is_empty());
        }
    }
}
