//! The built-in runtime under load and under failure: many containers, a kill at every system call of `create`, full file
//! systems, no descriptors, no rights. Each time the node is compared with what it was: cgroups, mounts, namespaces,
//! processes and zombies, BPF programs and seccomp filters, state directories, the test's own descriptors.
//!
//! `INSPECT_STRESS=full` does everything that is sampled otherwise: 2,000 containers in a row, 200 at once, each system call.

#[path = "support/bundle.rs"]
mod bundle;
mod support;
#[path = "support/tracer.rs"]
mod tracer;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bundle::{Bundle, PLACE, PREFIX};
use support::sh;
use tracer::Victim;

/// For the kernel to free what it frees later, on an emulated machine.
const BOUND: Duration = Duration::from_secs(60);

/// Programs of others that may come and go meanwhile.
const FEW: usize = 16;

/// The tests compare the whole node: one at a time.
static NODE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    NODE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn is_full() -> bool {
    std::env::var("INSPECT_STRESS").is_ok_and(|value| value == "full")
}

/// What could be left behind, by kind.
#[derive(Debug, Eq, PartialEq)]
struct Node {
    cgroups: BTreeSet<PathBuf>,
    mounts: Vec<String>,
    namespaces: BTreeSet<String>,
    processes: BTreeSet<String>,
    states: BTreeSet<PathBuf>,
    descriptors: usize,
    programs: usize,
}

impl Node {
    /// The node with nothing of the suite's, zombies of earlier containers neither.
    #[track_caller]
    fn settled() -> Self {
        support::wait_until("earlier containers to be gone", BOUND, || {
            Some(Node::look()).filter(|node| node.processes.is_empty() && node.cgroups.is_empty())
        })
    }

    fn look() -> Self {
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
    fn expect_again(&self, when: &str) {
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

#[test]
fn the_comparison_sees_what_a_container_is_made_of() {
    let _node = alone();
    let bundle = Bundle::make("seen", ".");
    bundle.succeed(&["create"]);
    bundle.succeed(&["delete", "--force"]);
    let before = Node::settled();
    bundle.succeed(&["run", "-d"]);
    let alive = Node::look();
    assert_eq!(alive.cgroups.len(), before.cgroups.len() + 1, "{alive:?}");
    assert_eq!(alive.processes.len(), before.processes.len() + 1, "{alive:?}");
    assert!(alive.namespaces.len() > before.namespaces.len(), "{alive:?}");
    assert!(alive.states.len() > before.states.len(), "{alive:?}");
    bundle.succeed(&["delete", "--force"]);
    before.expect_again("after one container");
}

#[test]
fn many_in_a_row_leave_nothing() {
    let _node = alone();
    let bundle = Bundle::make("row", ".");
    let count = if is_full() { 2000 } else { 40 };
    bundle.succeed(&["create"]);
    bundle.succeed(&["delete", "--force"]);
    let before = Node::settled();
    for _ in 0..count {
        bundle.succeed(&["create"]);
        bundle.succeed(&["start"]);
        bundle.succeed(&["kill", "-a"]);
        bundle.succeed(&["delete", "--force"]);
    }
    before.expect_again("after a row of containers");
}

#[test]
fn many_at_once_leave_nothing() {
    let _node = alone();
    let count = if is_full() { 200 } else { 24 };
    let bundle = Bundle::make("crowd", ".");
    bundle.succeed(&["create"]);
    bundle.succeed(&["delete", "--force"]);
    let before = Node::settled();
    let bundles: Vec<Bundle> =
        (0..count).map(|number| Bundle::make(&format!("many-{number}"), ".")).collect();
    let all = |command: &[&str]| {
        std::thread::scope(|scope| {
            for part in bundles.chunks(bundles.len().div_ceil(8)) {
                scope.spawn(|| part.iter().for_each(|bundle| bundle.succeed(command)));
            }
        });
    };
    all(&["create"]);
    all(&["start"]);
    let alive = Node::look();
    assert_eq!(alive.processes.len(), before.processes.len() + count, "{alive:?}");
    assert_eq!(alive.cgroups.len(), before.cgroups.len() + count, "{alive:?}");
    assert!(alive.programs > before.programs + count, "{} and {}", before.programs, alive.programs);
    all(&["kill"]);
    all(&["delete", "--force"]);
    drop(bundles);
    before.expect_again("after many containers at once");
}

/// The shapes of containers whose creation differs.
const SHAPES: [(&str, &str); 7] = [
    ("plain", "."),
    ("nowhere", "del(.linux.cgroupsPath)"),
    (
        "mapped",
        r#".linux.namespaces+=[{"type":"user"}] | .linux.uidMappings=[{"containerID":0,"hostID":0,"size":65536}] | .linux.gidMappings=.linux.uidMappings"#,
    ),
    ("hooked", r#".hooks={"createRuntime":[{"path":"/bin/true"}],"createContainer":[{"path":"/bin/true"}]}"#),
    ("joined", r#".linux.namespaces |= map(if .type=="network" then .path="/proc/1/ns/net" else . end)"#),
    ("guest", r#".linux.namespaces |= map(if .type=="mount" then .path="/run/vm-stress-mnt" else . end)"#),
    ("hosted", r#".linux.namespaces |= map(select(.type != "mount"))"#),
];

/// A mount namespace that a container joins: kept by its file.
struct Shared;

impl Shared {
    const FILE: &str = "/run/vm-stress-mnt";

    fn make() -> Self {
        let file = Self::FILE;
        // The file that keeps a mount namespace must be on a mount that is private.
        sh(&format!(
            "touch {file} && mount --bind {file} {file} && mount --make-private {file} && \
             unshare --mount={file} --propagation private true"
        ));
        Shared
    }

    /// What is mounted in it.
    fn mounts() -> String {
        sh(&format!("nsenter --mount={} cat /proc/self/mountinfo", Self::FILE))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let file = Self::FILE;
        sh(&format!("umount {file}; umount {file}; rm {file}"));
    }
}

#[test]
fn killed_at_any_system_call_it_leaves_what_delete_force_removes() {
    let _node = alone();
    let step = if is_full() { 1 } else { 9 };
    let shapes = if is_full() { &SHAPES[..] } else { &SHAPES[..2] };
    let _shared = Shared::make();
    for (id, filter) in shapes {
        let bundle = Bundle::make(id, filter);
        bundle.succeed(&["create"]);
        bundle.succeed(&["delete", "--force"]);
        let before = Node::settled();
        let shared = Shared::mounts();
        for victim in [Victim::Runtime, Victim::Others, Victim::All] {
            let mut number = 1;
            loop {
                let arguments = bundle.arguments(&["create"]);
                let was_reached = tracer::kill_at(&arguments, &bundle.path, victim, number);
                let output = bundle.output(&["delete", "--force"]);
                let when = format!("{id}: {victim:?} killed at call {number}");
                assert!(output.status.success(), "{when}: {}", String::from_utf8_lossy(&output.stderr));
                before.expect_again(&when);
                assert_eq!(Shared::mounts(), shared, "{when}");
                if !was_reached {
                    break;
                }
                number += step;
            }
            // A count that is far from what the runtime does would be the tracer's mistake.
            assert!(number > 40, "{id}: {victim:?} made but {number} calls");
        }
    }
}
