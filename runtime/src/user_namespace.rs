//! User namespaces: the maps of ids, written by the parent while the child waits.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxIdMapping};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::error::RuntimeError;
use crate::namespaces::Joined;
use crate::step::{Step, StepError};
use crate::sys::{self, CloneRequest, Cloned};
use crate::validate::{InvalidSpec, invalid};

/// The maps of a new user namespace, as `/proc/PID/uid_map` takes them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct IdMaps {
    pub(crate) uid: String,
    pub(crate) gid: String,
}

/// Whether the caller is another than the host's root: an ordinary user, or root of a user namespace.
pub(crate) fn is_unprivileged() -> bool {
    !rustix::process::geteuid().is_root() || is_entered()
}

/// The inode of the first user namespace (`USER_NS_INIT_INO` of `linux/nsfs.h`).
const FIRST: u64 = 0xeffffffd;

/// Whether the caller is in another user namespace than the host's first.
pub(crate) fn is_entered() -> bool {
    rustix::fs::stat("/proc/self/ns/user").is_ok_and(|namespace| namespace.st_ino != FIRST)
}

/// The user that root of the caller's user namespace is outside of it; `None` in the host's own, and where that cannot be told.
pub(crate) fn owner_outside() -> Option<u32> {
    if !is_entered() {
        return None;
    }
    outside_of(&fs::read_to_string("/proc/self/uid_map").ok()?, 0)
}

/// The user that `uid` of a process's user namespace is for the caller; `None` if it is mapped to nobody.
pub(crate) fn user_outside(process: Pid, uid: u32) -> Result<Option<u32>, StepError> {
    let path = format!("/proc/{}/uid_map", process.as_raw_nonzero());
    Ok(outside_of(&fs::read_to_string(&path).step("read", &path)?, uid))
}

fn outside_of(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse::<u32>().ok());
        let (inside, outside, size) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let distance = id.checked_sub(inside).filter(|distance| *distance < size)?;
        outside.checked_add(distance)
    })
}

/// Whether `setgroups` is denied in user namespaces that the caller makes: to an ordinary user [`IdMaps::write`] gives no
/// other, and what is denied where the caller is stays so below.
pub(crate) fn groups_are_denied() -> bool {
    !rustix::process::geteuid().is_root()
        || fs::read("/proc/self/setgroups").is_ok_and(|text| text.starts_with(b"deny"))
}

/// Refuses supplementary groups of a container that an ordinary user makes, in runc's words: they would not be set.
pub(crate) fn check_groups(groups: &[u32], caller: u32) -> Result<(), InvalidSpec> {
    if groups.is_empty() || caller == 0 {
        return Ok(());
    }
    let reason = "cannot set any additional groups in a rootless container";
    Err(invalid("process.user.additionalGids", reason))
}

/// Lines `container-id host-id size`.
pub(crate) fn format_map(mappings: &[LinuxIdMapping]) -> String {
    mappings.iter().fold(String::new(), |mut text, one| {
        writeln!(text, "{} {} {}", one.container_id(), one.host_id(), one.size()).ok();
        text
    })
}

impl IdMaps {
    /// Writes the maps for the user namespace of `process`.
    ///
    /// Who may not write them (an ordinary user with more than his own id) has newuidmap(1) and newgidmap(1) do it. The
    /// gid map of such a user needs `setgroups` denied first, without which he could drop groups that deny him something.
    pub(crate) fn write(&self, process: Pid, is_privileged: bool) -> Result<(), StepError> {
        let pid = process.as_raw_nonzero();
        if !is_privileged && has_one_id(&self.gid) {
            write(&format!("/proc/{pid}/setgroups"), "deny")?;
        }
        for (program, file, map) in [("newuidmap", "uid_map", &self.uid), ("newgidmap", "gid_map", &self.gid)]
        {
            if is_privileged || has_one_id(map) {
                write(&format!("/proc/{pid}/{file}"), map)?;
            } else {
                run_helper(program, &pid.to_string(), map)?;
            }
        }
        Ok(())
    }
}

/// Refuses mappings of a user namespace by path that are not its own. Nothing would come of them.
pub(crate) fn check_joined_maps(linux: &Linux, path: &Path) -> Result<(), RuntimeError> {
    let mappings = [("linux.uidMappings", linux.uid_mappings()), ("linux.gidMappings", linux.gid_mappings())];
    let mappings = mappings.map(|(field, mappings)| (field, mappings.as_deref().unwrap_or_default()));
    if mappings.iter().all(|(_, mappings)| mappings.is_empty()) {
        return Ok(());
    }
    let joined = read_maps(&Joined::open(libc::CLONE_NEWUSER, path)?)?;
    for ((field, mappings), own) in mappings.into_iter().zip([joined.uid, joined.gid]) {
        if sorted(&format_map(mappings)) != sorted(&own) {
            return Err(invalid(field, "the user namespace at its path has others").into());
        }
    }
    Ok(())
}

/// The lines of a map: the kernel keeps them in an order of its own.
fn sorted(map: &str) -> Vec<Vec<&str>> {
    let mut lines: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().collect()).collect();
    lines.sort_unstable();
    lines
}

/// The maps of a user namespace, as the caller sees them: a process that has been in it keeps them until it is reaped.
fn read_maps(namespace: &Joined) -> Result<IdMaps, StepError> {
    let request = CloneRequest { flags: sys::CLONE_CLEAR_SIGHAND, cgroup: None };
    match sys::clone_process(request).step("make", "a helper")? {
        Cloned::Child => sys::exit_now(u8::from(namespace.enter().is_err()).into()),
        Cloned::Parent(pid, pidfd) => {
            let ended = || WaitId::PidFd(pidfd.as_fd());
            let status = waitid(ended(), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let status = status.step("await", "a helper")?.and_then(|status| status.exit_status());
            let read = |file: &str| {
                let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
                fs::read_to_string(&path).step("read", path)
            };
            let maps = read("uid_map").and_then(|uid| Ok(IdMaps { uid, gid: read("gid_map")? }));
            waitid(ended(), WaitIdOptions::EXITED).step("await", "a helper")?;
            match status {
                Some(0) => maps,
                _ => Err(StepError::refused(
                    "join",
                    "the user namespace",
                    "the kernel does not let the runtime",
                )),
            }
        }
    }
}

fn has_one_id(map: &str) -> bool {
    map.lines().count() == 1 && map.trim_end().ends_with(" 1")
}

fn write(path: &str, text: &str) -> Result<(), StepError> {
    fs::write(path, text).step("write", path)
}

fn run_helper(program: &str, pid: &str, map: &str) -> Result<(), StepError> {
    let output = std::process::Command::new(program).arg(pid).args(map.split_whitespace()).output();
    let output = output.step("run", program)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err::<(), _>(io::Error::other(text)).step("map ids with", program)
}

/// A user namespace with these maps, held by its descriptor alone: for id-mapped mounts.
pub(crate) fn make_for_idmap(maps: &IdMaps) -> Result<OwnedFd, StepError> {
    let flags = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
    match sys::clone_process(CloneRequest { flags, cgroup: None }).step("make", "a user namespace")? {
        // The process lives only to hold the namespace; it is killed below, or with its parent.
        Cloned::Child => {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).ok();
            loop {
                rustix::event::pause();
            }
        }
        Cloned::Parent(pid, pidfd) => {
            let path = format!("/proc/{}/ns/user", pid.as_raw_nonzero());
            let made = maps.write(pid, true).and_then(|()| fs::File::open(&path).step("open", &path));
            sys::send_signal(pidfd.as_fd(), libc::SIGKILL).step("end", "a helper")?;
            waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).step("await", "a helper")?;
            made.map(OwnedFd::from)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxIdMappingBuilder;

    #[test]
    fn root_of_a_namespace_is_somebody_outside() {
        let of_podman = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(outside_of(of_podman, 0), Some(1000));
        assert_eq!((outside_of(of_podman, 33), outside_of(of_podman, 65537)), (Some(100_032), None));
        assert_eq!(outside_of("      1000       1000          1\n", 0), None);
    }

    #[test]
    fn an_ordinary_user_sets_no_groups() {
        assert!(check_groups(&[4], 1000).unwrap_err().to_string().contains("additionalGids"));
        check_groups(&[4], 0).unwrap();
        check_groups(&[], 1000).unwrap();
    }

    #[test]
    fn maps_are_lines_of_three_numbers() {
        let mapping = |container: u32, host: u32, size: u32| {
            LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size).build().unwrap()
        };
        let map = format_map(&[mapping(0, 1000, 1), mapping(1, 100_000, 65536)]);
        assert_eq!(map, "0 1000 1\n1 100000 65536\n");
        assert!(!has_one_id(&map) && has_one_id("0 1000 1\n"));
    }
}
