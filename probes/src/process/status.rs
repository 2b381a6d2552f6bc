//! `/proc/PID/status`: proc_pid_status(5), parsed by the procfs crate and kept in our own words.

use procfs::FromRead as _;
use serde::Serialize;

use super::{ProcessError, process_path, read_present};
use crate::Host;
use crate::name::Pid;

/// Credentials, pids and confinement of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Its pid in each pid namespace, ours first and its own last.
    pub namespace_pids: Vec<u32>,
    /// CapInh, a bit per capability (capabilities(7)).
    pub capabilities_inheritable: u64,
    /// CapPrm.
    pub capabilities_permitted: u64,
    /// CapEff.
    pub capabilities_effective: u64,
    /// CapBnd.
    pub capabilities_bounding: Option<u64>,
    /// CapAmb.
    pub capabilities_ambient: Option<u64>,
    /// NoNewPrivs: prctl(2), `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: Option<bool>,
    /// Seccomp: 0 off, 1 strict, 2 filter.
    pub seccomp: Option<u32>,
    /// VmRSS in bytes: resident memory; kernel threads and zombies have none.
    pub resident_bytes: Option<u64>,
}

/// Reads `/proc/PID/status`.
///
/// # Errors
/// [`ProcessError`] when the kernel refuses or the text is not what proc(5) says.
pub fn read_status(host: &Host, pid: Pid) -> Result<Option<Status>, ProcessError> {
    let path = process_path(host, pid, "status");
    let Some(text) = read_present(&path)? else { return Ok(None) };
    parse_status(&text)
        .map(Some)
        .ok_or_else(|| ProcessError::parse(&path, "expected the fields of proc_pid_status(5)", &text))
}

/// Parses the file's text. The kernel escapes newlines in `Name:`, so a name cannot forge a field.
#[must_use]
pub fn parse_status(text: &[u8]) -> Option<Status> {
    // A name may be invalid UTF-8; the fields kept here are ASCII.
    let text = String::from_utf8_lossy(text);
    let status = procfs::process::Status::from_read(text.as_bytes()).ok()?;
    Some(Status {
        uid: status.euid,
        gid: status.egid,
        groups: status.groups,
        namespace_pids: pids(status.nspid.as_deref().unwrap_or_default()),
        capabilities_inheritable: status.capinh,
        capabilities_permitted: status.capprm,
        capabilities_effective: status.capeff,
        capabilities_bounding: status.capbnd,
        capabilities_ambient: status.capamb,
        no_new_privileges: status.nonewprivs.map(|value| value != 0),
        seccomp: status.seccomp,
        resident_bytes: status.vmrss.map(|kibibytes| kibibytes.saturating_mul(1024)),
    })
}

fn pids(pids: &[i32]) -> Vec<u32> {
    pids.iter().filter_map(|pid| u32::try_from(*pid).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_status_is_that_of_the_system() {
        let own = Pid::new(std::process::id());
        let status = read_status(&Host::live(), own).unwrap().unwrap();
        assert_eq!(status.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(status.namespace_pids.first(), Some(&own.get()));
        assert!(status.resident_bytes.is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn a_name_that_is_not_utf8_does_not_hide_the_rest() {
        let mut text = std::fs::read("/proc/self/status").unwrap();
        text.splice(..text.iter().position(|byte| *byte == b'\n').unwrap(), *b"Name:\t\xff\\nUid:\x1b[2J");
        assert!(parse_status(&text).is_some());
        assert!(parse_status(b"Name:\tx\n").is_none());
    }
}
