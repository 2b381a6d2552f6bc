//! What containers could leave behind in a node.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bundle::{PLACE, PREFIX};
use crate::support;

/// For the kernel to free what it frees later, on an emulated machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// Programs of others that may come and go meanwhile.
const FEW: usize = 16;

/// What could be left behind, by kind.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Node {
    pub(crate) cgroups: BTreeSet<PathBuf>,
    pub(crate) mounts: Vec<String>,
    pub(crate) namespaces: BTreeSet<String>,
    pub(crate) processes: BTreeSet<String>,
    pub(crate) states: BTreeSet<PathBuf>,
    pub(crate) descriptors: usize,
    pub(crate) programs: usize,
}

impl Node {
    /// The node with nothing of the suite's, zombies of earlier containers neither.
    #[track_caller]
    pub(crate) fn settled() -> Self {
        support::wait_until("earlier containers to be gone", BOUND, || {
            Some(Node::look()).filter(|node| node.processes.is_empty() && node.cgroups.is_empty())
        })
    }

    /// The node as it is now.
    pub(crate) fn look() -> Self {
        let (processes, namespaces) = containers();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("procfs is there");
        Node {
            cgroups: below(Path::new("/sys/fs/cgroup")).into_iter().filter(|path| is_ours(path)).collect(),
            mounts: mounts.lines().map(str::to_owned).collect(),
            namespaces,
            processes,
            states: fs::read_dir(PLACE)
                .into_iter()
                .flatten()
                .flatten()
                .flat_map(|bundle| below(&bundle.path().join("state")))
                .collect(),
            descriptors: fs::read_dir("/proc/self/fd").expect("procfs is there").count(),
            programs: programs(),
        }
    }

    /// Waits until the node is again what it was: the kernel ends processes and frees programs a little later. A few programs
    /// more or less are others': what is left behind each time is more than a few after some times.
    #[track_caller]
    pub(crate) fn expect_again(&self, when: &str) {
        let deadline = Instant::now() + BOUND;
        loop {
            let mut now = Node::look();
            if now.programs < self.programs + FEW {
                now.programs = self.programs;
            }
            if now == *self {
                return;
            }
            assert!(Instant::now() < deadline, "{when}:\nbefore {self:?}\nafter {now:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn is_ours(cgroup: &Path) -> bool {
    cgroup.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
}

/// Every directory below one that may be absent, and files that are not directories in it.
fn below(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let is_cgroup = directory.starts_with("/sys/fs/cgroup");
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory {
            found.extend(below(&entry.path()));
        }
        if is_directory || !is_cgroup {
            found.insert(entry.path());
        }
    }
    found
}

/// Processes that are the runtime or in one of the suite's containers, zombies too, and the namespaces of these.
fn containers() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut processes, mut namespaces) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir("/proc").expect("procfs is there").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let (stat, cgroup) = (read("stat"), read("cgroup"));
        if !cgroup.contains(&format!("/{PREFIX}")) && !stat.contains("(inspect-runtime)") {
            continue;
        }
        for namespace in fs::read_dir(entry.path().join("ns")).into_iter().flatten().flatten() {
            let target = fs::read_link(namespace.path()).unwrap_or_default();
            namespaces.insert(target.display().to_string());
        }
        processes.insert(format!("{stat} in {cgroup}"));
    }
    (processes, namespaces)
}

/// BPF programs and seccomp filters in the kernel: each has pages of its own.
fn programs() -> usize {
    let areas = fs::read_to_string("/proc/vmallocinfo").expect("root reads it");
    areas.lines().filter(|line| line.contains(" bpf_prog_alloc")).count()
}
