//! What each family of runtimes leaves in its own way. Seen with runc 1.1.5, 1.1.15 and 1.3.6, crun 1.8.1, 1.21 and 1.28 under
//! containerd 1.6, 1.7 and 2.1, with ctr's default spec.

use std::fs;

use super::{Evidence, Strength};
use crate::Host;
use crate::bundle::Bundle;
use crate::name::Pid;
use crate::process::{Mount, read_mountinfo};
use crate::runtime_state::{RuntimeFamily, RuntimeState};

/// Everything that speaks for a family, the strongest first.
pub(super) fn gather(host: &Host, bundle: &Bundle, state: Option<&RuntimeState>) -> Vec<Evidence> {
    let mut evidence = Vec::new();
    evidence.extend(state.map(state_format));
    evidence.extend(session_keyring(host, bundle));
    if state.is_none_or(|state| is_runc_or_crun(state.family)) {
        evidence.extend(init_pid_mode(bundle));
        let init = bundle.init_pid.or_else(|| state.and_then(|state| state.init_pid));
        evidence.extend(init.and_then(|init| sysfs_mount(host, init)));
    }
    evidence
}

fn is_runc_or_crun(family: RuntimeFamily) -> bool {
    matches!(family, RuntimeFamily::Runc | RuntimeFamily::Crun)
}

fn state_format(state: &RuntimeState) -> Evidence {
    let says = match state.family {
        RuntimeFamily::Runc => "runc's format: JSON with init_process_pid",
        RuntimeFamily::Crun => "crun's format: a file called `status`",
        RuntimeFamily::Youki => "youki's format: JSON with pid and status",
        RuntimeFamily::InspectRuntime => "the built-in runtime's format: \"runtime\": \"inspect-runtime\"",
    };
    Evidence::new(state.path.display().to_string(), says, Strength::Proof).of(state.family)
}

/// runc and crun create init.pid with different modes; the umask plays in, so it is only an indication.
fn init_pid_mode(bundle: &Bundle) -> Option<Evidence> {
    let family = match bundle.init_pid_mode? {
        0o644 => RuntimeFamily::Runc,
        0o700 => RuntimeFamily::Crun,
        _ => return None,
    };
    let path = bundle.path.join("init.pid").display().to_string();
    let says = format!("mode {:04o}, as {} writes it", bundle.init_pid_mode?, family.as_str());
    Some(Evidence::new(path, says, Strength::Indication).of(family))
}

/// The init's session keyring is named by the runtime: `_ses.ID` by runc, `ID` by crun. `/proc/keys` shows it to root.
fn session_keyring(host: &Host, bundle: &Bundle) -> Option<Evidence> {
    let path = host.proc().join("keys");
    let keys = fs::read_to_string(&path).ok()?;
    let family = keys.lines().find_map(|line| family_of_key(line, bundle.id.as_str()))?;
    let name = if family == RuntimeFamily::Runc { "_ses.ID" } else { "ID" };
    let says = format!("a session keyring called {name}, as {} names it", family.as_str());
    Some(Evidence::new(host.display_path(&path).display().to_string(), says, Strength::Indication).of(family))
}

/// One line of `/proc/keys` (proc_keys(5)): the description follows the type, and ends with a colon.
fn family_of_key(line: &str, id: &str) -> Option<RuntimeFamily> {
    let mut fields = line.split_ascii_whitespace().skip(7);
    if fields.next()? != "keyring" {
        return None;
    }
    let description = fields.next()?.trim_end_matches(':');
    match description.strip_prefix("_ses.") {
        Some(rest) if rest == id => Some(RuntimeFamily::Runc),
        _ if description == id => Some(RuntimeFamily::Crun),
        _ => None,
    }
}

/// A read-only `/sys` carries `ro` in its superblock options under runc, `rw` under crun.
fn sysfs_mount(host: &Host, init: Pid) -> Option<Evidence> {
    let mounts = read_mountinfo(host, init).ok()??;
    let family = family_of_sysfs(&mounts)?;
    let source = format!("{}/{init}/mountinfo", host.display_path(&host.proc()).display());
    let says = format!("/sys is mounted as {} mounts it (superblock options)", family.as_str());
    Some(Evidence::new(source, says, Strength::Indication).of(family))
}

fn family_of_sysfs(mounts: &[Mount]) -> Option<RuntimeFamily> {
    let sys = mounts.iter().find(|mount| mount.mount_point == "/sys" && mount.file_system == "sysfs")?;
    if !sys.options.split(',').any(|option| option == "ro") {
        return None;
    }
    match sys.super_options.split(',').next()? {
        "ro" => Some(RuntimeFamily::Runc),
        "rw" => Some(RuntimeFamily::Crun),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyrings_are_told_by_their_names() {
        let runc = "1b2c3d4e I--Q---     1 perm 3f030000     0     0 keyring   _ses.web: empty";
        let crun = "1b2c3d4e I--Q---     1 perm 3f030000     0     0 keyring   web: empty";
        assert_eq!(family_of_key(runc, "web"), Some(RuntimeFamily::Runc));
        assert_eq!(family_of_key(crun, "web"), Some(RuntimeFamily::Crun));
        assert_eq!(family_of_key(crun, "we"), None);
        assert_eq!(family_of_key("", "web"), None);
        assert_eq!(family_of_key("1 2 3 4 5 6 7 user web: 3", "web"), None);
    }

    #[test]
    fn sysfs_is_told_by_its_superblock() {
        let line = |options: &str, superblock: &str| {
            let text = format!("70 60 0:21 / /sys {options},nosuid - sysfs sysfs {superblock}\n");
            family_of_sysfs(&crate::process::parse_mountinfo(text.as_bytes()))
        };
        assert_eq!(line("ro", "ro"), Some(RuntimeFamily::Runc));
        assert_eq!(line("ro", "rw"), Some(RuntimeFamily::Crun));
        assert_eq!(line("rw", "rw"), None);
    }
}
