//! `/proc/PID/cgroup` and the directories of the hierarchy: cgroups(7).

use std::fs;
use std::path::PathBuf;

use serde::Serialize;

use super::file::{CgroupFileError, read_flat_keyed, read_present_text};
use crate::Host;
use crate::name::{CgroupPath, Pid};
use crate::process::{ProcessError, process_path, read_present};

/// How the host mounts its cgroup hierarchies (systemd's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupMode {
    /// v2 alone at `/sys/fs/cgroup`.
    Unified,
    /// v1 controllers, and v2 without controllers at `/sys/fs/cgroup/unified`.
    Hybrid,
    /// v1 alone.
    Legacy,
}

/// One line of `/proc/PID/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Membership {
    /// 0 is the unified hierarchy (v2).
    pub hierarchy: u32,
    /// The v1 controllers of the hierarchy, or `name=systemd`; empty for v2.
    pub controllers: Vec<String>,
    /// The path from the hierarchy's root, without the ` (deleted)` that the kernel puts behind a removed cgroup's.
    pub path: CgroupPath,
    /// Whether the cgroup was removed while the process (a zombie) was in it.
    pub deleted: bool,
}

/// Looks at what is below `/sys/fs/cgroup`; `None` where there is no hierarchy at all.
#[must_use]
pub fn read_cgroup_mode(host: &Host) -> Option<CgroupMode> {
    let root = host.sys().join("fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        Some(CgroupMode::Unified)
    } else if root.join("unified/cgroup.procs").exists() {
        Some(CgroupMode::Hybrid)
    } else if root.join("systemd").exists() || root.join("memory").exists() {
        Some(CgroupMode::Legacy)
    } else {
        None
    }
}

/// Reads every line of `/proc/PID/cgroup`.
///
/// # Errors
/// [`ProcessError`] when the kernel refuses.
pub fn read_memberships(host: &Host, pid: Pid) -> Result<Option<Vec<Membership>>, ProcessError> {
    Ok(read_present(&process_path(host, pid, "cgroup"))?.map(|text| parse_memberships(&text)))
}

/// Parses the file: `ID:CONTROLLERS:PATH`. Lines that are not that are left out.
#[must_use]
pub fn parse_memberships(text: &[u8]) -> Vec<Membership> {
    String::from_utf8_lossy(text).lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Membership> {
    let mut fields = line.splitn(3, ':');
    let hierarchy = fields.next()?.parse().ok()?;
    let controllers = fields.next()?.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let text = fields.next()?;
    let path = text.strip_suffix(" (deleted)");
    let membership = Membership {
        hierarchy,
        controllers,
        path: CgroupPath::new(path.unwrap_or(text)),
        deleted: path.is_some(),
    };
    text.starts_with('/').then_some(membership)
}

/// The cgroup of a process: its v2 path; on a hybrid or legacy host the v1 path that containers have (`memory`, `pids`,
/// systemd's own), because there the v2 hierarchy tells nothing of them.
///
/// # Errors
/// [`ProcessError`] when the kernel refuses.
pub fn read_cgroup_path(host: &Host, pid: Pid) -> Result<Option<CgroupPath>, ProcessError> {
    Ok(read_memberships(host, pid)?.and_then(|memberships| choose_path(&memberships)))
}

fn choose_path(memberships: &[Membership]) -> Option<CgroupPath> {
    let of = |controller: &str| {
        let has = |membership: &&Membership| membership.controllers.iter().any(|name| name == controller);
        memberships.iter().find(has)
    };
    let unified = memberships.iter().find(|membership| membership.hierarchy == 0);
    let candidates = [unified, of("memory"), of("pids"), of("name=systemd"), unified];
    let inside = candidates.iter().flatten().find(|membership| membership.path.as_str() != "/");
    inside.or(candidates.iter().flatten().next()).map(|membership| membership.path.clone())
}

/// The directory of a cgroup in the hierarchy that has the controllers: v2's where the host is unified, otherwise that of
/// v1's `memory`. A `..` in the path (a process outside of our cgroup namespace) never climbs out.
#[must_use]
pub fn cgroup_directory(host: &Host, cgroup: &CgroupPath) -> PathBuf {
    let mut directory = host.sys().join("fs/cgroup");
    match read_cgroup_mode(host) {
        Some(CgroupMode::Unified) | None => {}
        Some(CgroupMode::Hybrid | CgroupMode::Legacy) => directory.push("memory"),
    }
    let names = cgroup.as_str().split('/').filter(|name| !matches!(*name, "" | "." | ".."));
    directory.extend(names);
    directory
}

/// The pids in `cgroup.procs`: those in this very cgroup, not in cgroups below it. A pid of 0 is a process that our pid
/// namespace does not show.
///
/// # Errors
/// [`CgroupFileError`] when the kernel refuses.
pub fn read_cgroup_procs(host: &Host, cgroup: &CgroupPath) -> Result<Option<Vec<Pid>>, CgroupFileError> {
    let text = read_present_text(&cgroup_directory(host, cgroup).join("cgroup.procs"))?;
    Ok(text.map(|text| text.lines().filter_map(|line| line.trim().parse().ok().map(Pid::new)).collect()))
}

/// Whether a process is in the cgroup or below it (`cgroup.events`, v2).
///
/// # Errors
/// [`CgroupFileError`] when the kernel refuses or the file is not flat-keyed numbers.
pub fn read_populated(host: &Host, cgroup: &CgroupPath) -> Result<Option<bool>, CgroupFileError> {
    let events = read_flat_keyed(&cgroup_directory(host, cgroup).join("cgroup.events"))?;
    Ok(events.and_then(|events| events.get("populated").map(|value| *value != 0)))
}

/// The cgroups one level below, sorted; none where the cgroup vanished.
///
/// # Errors
/// [`CgroupFileError`] when the kernel refuses.
pub fn child_cgroups(host: &Host, cgroup: &CgroupPath) -> Result<Vec<CgroupPath>, CgroupFileError> {
    let directory = cgroup_directory(host, cgroup);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(CgroupFileError::Read { path: directory, source }),
    };
    let parent = cgroup.as_str().trim_end_matches('/');
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut children: Vec<_> = directories
        .map(|entry| CgroupPath::new(format!("{parent}/{}", entry.file_name().to_string_lossy())))
        .collect();
    children.sort();
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unified_lines_and_removed_cgroups_are_read() {
        let lines = parse_memberships(b"0::/default/web (deleted)\n");
        assert!(lines[0].deleted && lines[0].controllers.is_empty());
        assert_eq!(choose_path(&lines), Some(CgroupPath::new("/default/web")));
        assert_eq!(choose_path(&parse_memberships(b"0::/\n")), Some(CgroupPath::new("/")));
    }

    #[test]
    fn on_a_legacy_host_the_controllers_tell() {
        let lines =
            parse_memberships(b"9:name=systemd:/\n4:cpu,cpuacct:/\n3:memory:/k8s/a:b\n0::/\njunk\n2:x:rel\n");
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[1].controllers, ["cpu", "cpuacct"]);
        assert_eq!(choose_path(&lines), Some(CgroupPath::new("/k8s/a:b")));
    }

    #[test]
    fn a_path_never_climbs_out_of_the_hierarchy() {
        let directory = cgroup_directory(&Host::at("/fixture"), &CgroupPath::new("/../../etc/./x"));
        assert_eq!(directory, std::path::Path::new("/fixture/sys/fs/cgroup/etc/x"));
    }

    #[test]
    fn a_directory_is_a_cgroup_with_children_and_processes() {
        let root = tempfile::tempdir().unwrap();
        let web = root.path().join("sys/fs/cgroup/default/web");
        fs::create_dir_all(web.join("below")).unwrap();
        fs::write(root.path().join("sys/fs/cgroup/cgroup.controllers"), "cpu memory\n").unwrap();
        fs::write(web.join("cgroup.procs"), "12\n0\n").unwrap();
        fs::write(web.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        let (host, web) = (Host::at(root.path()), CgroupPath::new("/default/web"));
        assert_eq!(read_cgroup_mode(&host), Some(CgroupMode::Unified));
        assert_eq!(read_cgroup_procs(&host, &web).unwrap(), Some(vec![Pid::new(12), Pid::new(0)]));
        assert_eq!(read_populated(&host, &web).unwrap(), Some(true));
        assert_eq!(child_cgroups(&host, &web).unwrap(), [CgroupPath::new("/default/web/below")]);
        assert_eq!(read_cgroup_procs(&host, &CgroupPath::new("/gone")).unwrap(), None);
    }
}
