//! Containers of other engines, by the process that watches over each.

use std::collections::BTreeSet;

use serde::Serialize;

use super::descend;
use crate::Host;
use crate::name::Pid;
use crate::process::{CommandLine, ProcessTable, read_cmdline};

/// A container of another engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OtherEngine {
    /// `podman`, `CRI-O`, `systemd-nspawn`, `LXC`.
    pub engine: &'static str,
    /// The process that watches over the container.
    pub pid: Pid,
    /// The container's id, where the command line says it; hostile.
    pub id: Option<String>,
    /// The container's or machine's name, where the command line says it; hostile.
    pub name: Option<String>,
    /// How many processes live below it.
    pub processes: usize,
}

/// Finds `conmon` (podman and CRI-O), `systemd-nspawn` and `lxc-start` among the processes.
pub(super) fn find_other_engines(host: &Host, table: &ProcessTable) -> Vec<OtherEngine> {
    let watchers = table.iter().filter(|stat| {
        matches!(stat.comm.as_slice(), b"conmon" | b"systemd-nspawn" | b"lxc-start")
            && !stat.state.has_ended()
    });
    let engine = |stat: &crate::process::Stat| {
        let line = read_cmdline(host, stat.pid).ok().flatten()?;
        // A watcher forks; until the child has executed something else, it looks like another one.
        let twin = table.get(stat.parent).filter(|parent| parent.comm == stat.comm);
        if twin.is_some_and(|twin| read_cmdline(host, twin.pid).ok().flatten().as_ref() == Some(&line)) {
            return None;
        }
        let mut below = BTreeSet::new();
        descend(table, stat.pid, &mut below);
        Some(describe(stat.pid, &stat.comm, &line, below.len() - 1))
    };
    watchers.filter_map(engine).collect()
}

fn describe(pid: Pid, comm: &[u8], line: &CommandLine, processes: usize) -> OtherEngine {
    let flag = |long: &str, short: &str| {
        let value = line.flag(long).or_else(|| line.flag(short));
        value.map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let (engine, id, name) = match comm {
        b"conmon" => (conmon_engine(line), flag("cid", "c"), flag("name", "n")),
        b"systemd-nspawn" => ("systemd-nspawn", None, flag("machine", "M")),
        _ => ("LXC", None, flag("name", "n")),
    };
    OtherEngine { engine, pid, id, name, processes }
}

/// Both engines start conmon; CRI-O's files are in directories of its own.
fn conmon_engine(line: &CommandLine) -> &'static str {
    let crio = |argument: &Vec<u8>| argument.windows(4).any(|window| window == b"crio");
    if line.arguments.iter().any(crio) { "CRI-O" } else { "podman" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_watcher_forks_is_not_a_watcher_until_it_is_another_command() {
        let root = tempfile::tempdir().unwrap();
        let outer = b"systemd-nspawn\0--machine=deb\0";
        let inner = b"systemd-nspawn\0--machine=inner\0";
        for (pid, parent, line) in [(40, 1, outer), (41, 40, outer)] {
            write_process(root.path(), pid, parent, line);
        }
        write_process(root.path(), 42, 40, inner);
        let host = Host::at(root.path());
        let engines = find_other_engines(&host, &ProcessTable::read(&host).unwrap());
        let names: Vec<_> = engines.iter().map(|engine| (engine.pid.get(), engine.name.as_deref())).collect();
        assert_eq!(names, [(40, Some("deb")), (42, Some("inner"))]);
    }

    fn write_process(root: &std::path::Path, pid: u32, parent: u32, line: &[u8]) {
        let process = root.join(format!("proc/{pid}"));
        std::fs::create_dir_all(&process).unwrap();
        let stat = format!("{pid} (systemd-nspawn) S {parent} 40 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 7777 0 0");
        std::fs::write(process.join("stat"), stat).unwrap();
        std::fs::write(process.join("cmdline"), line).unwrap();
    }

    #[test]
    fn conmon_says_which_container_it_watches() {
        let line = CommandLine::parse(
            b"/usr/bin/conmon\0--api-version\x001\0-c\x004f1c\0-u\x004f1c\0-n\0shop\0",
            false,
        );
        let engine = describe(Pid::new(7), b"conmon", &line, 3);
        assert_eq!(
            (engine.engine, engine.id.as_deref(), engine.name.as_deref()),
            ("podman", Some("4f1c"), Some("shop"))
        );
        let line = CommandLine::parse(b"conmon\0-c\x004f1c\0--exit-dir\0/var/run/crio/exits\0", false);
        assert_eq!(describe(Pid::new(7), b"conmon", &line, 3).engine, "CRI-O");
    }

    #[test]
    fn nspawn_names_its_machine() {
        let line = CommandLine::parse(b"systemd-nspawn\0--quiet\0--machine=deb\0", false);
        let engine = describe(Pid::new(7), b"systemd-nspawn", &line, 1);
        assert_eq!((engine.engine, engine.name.as_deref()), ("systemd-nspawn", Some("deb")));
    }
}
