//! The links of `/proc/PID`: `exe`, `cwd`, `fd/*`.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::read::present;
use super::{ProcessError, process_path};
use crate::Host;
use crate::name::Pid;

/// Where `/proc/PID/exe` points: the file that was executed, with ` (deleted)` behind it once it is replaced. Kernel
/// threads and zombies have none.
///
/// # Errors
/// [`ProcessError`] when the kernel refuses (ptrace(2)).
pub fn read_exe(host: &Host, pid: Pid) -> Result<Option<PathBuf>, ProcessError> {
    read_link(host, pid, "exe")
}

/// Where `/proc/PID/cwd` points. A shim's is the bundle that it was started for.
///
/// # Errors
/// [`ProcessError`] when the kernel refuses (ptrace(2)).
pub fn read_cwd(host: &Host, pid: Pid) -> Result<Option<PathBuf>, ProcessError> {
    read_link(host, pid, "cwd")
}

pub(super) fn read_link(host: &Host, pid: Pid, name: &str) -> Result<Option<PathBuf>, ProcessError> {
    let path = process_path(host, pid, name);
    present(&path, fs::read_link(&path))
}

/// The inodes of the sockets that a process holds, from the links `socket:[INODE]` in `/proc/PID/fd`.
///
/// # Errors
/// [`ProcessError`] when the kernel refuses (ptrace(2)).
pub fn find_socket_inodes(host: &Host, pid: Pid) -> Result<Option<Vec<u64>>, ProcessError> {
    let path = process_path(host, pid, "fd");
    let Some(entries) = present(&path, fs::read_dir(&path))? else { return Ok(None) };
    // An entry that cannot be read any more is a descriptor that was closed meanwhile.
    let links = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    Ok(Some(links.filter_map(|link| parse_socket_link(link.as_os_str().as_bytes())).collect()))
}

fn parse_socket_link(link: &[u8]) -> Option<u64> {
    let inode = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(inode).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_links_carry_their_inode() {
        assert_eq!(parse_socket_link(b"socket:[1234]"), Some(1234));
        assert_eq!(parse_socket_link(b"pipe:[1234]"), None);
        assert_eq!(parse_socket_link(b"/tmp/socket:[1]"), None);
    }

    #[test]
    fn our_own_sockets_are_found() {
        let (_one, _two) = std::os::unix::net::UnixStream::pair().unwrap();
        let inodes = find_socket_inodes(&Host::live(), Pid::new(std::process::id())).unwrap().unwrap();
        assert!(inodes.len() >= 2);
        assert!(find_socket_inodes(&Host::live(), Pid::new(u32::MAX)).unwrap().is_none());
    }
}
