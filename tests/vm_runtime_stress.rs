//! The built-in runtime under load and under failure: many containers, a kill at every system call of `create`, full file
//! systems, no descriptors, no rights. Each time the node is compared with what it was: cgroups, mounts, namespaces,
//! processes and zombies, BPF programs and seccomp filters, state directories, the test's own descriptors.
//!
//! `INSPECT_STRESS=full` (in a node: `cargo lab test --env INSPECT_STRESS=full`) does everything that is sampled otherwise: 2,000
//! containers in a row, 200 at once, each system call.

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/leftovers.rs"]
mod leftovers;
mod support;
#[path = "support/tracer.rs"]
mod tracer;

use std::fs;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bundle::{Bundle, PREFIX};
use leftovers::{BOUND, Node};
use nix::errno::Errno;
use support::sh;
use tracer::{Act, Victim};

/// The tests compare the whole node: one at a time.
static NODE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    NODE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn is_full() -> bool {
    std::env::var("INSPECT_STRESS").is_ok_and(|value| value == "full")
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

/// A mount namespace that a container joins, kept by a process, and a link to it.
struct Shared(std::process::Child);

impl Shared {
    const LINK: &str = "/run/vm-stress-mnt";

    fn make() -> Self {
        let holder = std::process::Command::new("unshare")
            .args(["--mount", "--propagation=private", "sleep", "100000"])
            .spawn()
            .expect("unshare runs");
        let shared = Shared(holder);
        let namespace = format!("/proc/{}/ns/mnt", shared.0.id());
        let own = fs::read_link("/proc/self/ns/mnt").expect("procfs is there");
        support::wait_until("a mount namespace", BOUND, || {
            fs::read_link(&namespace).ok().filter(|other| *other != own)
        });
        sh(&format!("ln -sfn {namespace} {}", Self::LINK));
        shared
    }

    /// What is mounted in it.
    fn mounts() -> String {
        sh(&format!("nsenter --mount={} cat /proc/self/mountinfo", Self::LINK))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.0.kill().expect("it is a child");
        self.0.wait().expect("it is a child");
        sh(&format!("rm {}", Self::LINK));
    }
}

/// Takes each shape of container, or the first few in a sample: a bundle that has been created and deleted once, and what fails
/// if anything is there now that was not before.
fn for_shapes(sampled: usize, check: impl Fn(&Bundle, &dyn Fn(&str))) {
    let shapes = if is_full() { &SHAPES[..] } else { &SHAPES[..sampled] };
    let _shared = Shared::make();
    for (id, filter) in shapes {
        let bundle = Bundle::make(id, filter);
        bundle.succeed(&["create"]);
        bundle.succeed(&["delete", "--force"]);
        let (before, mounts) = (Node::settled(), Shared::mounts());
        check(&bundle, &|when| {
            before.expect_again(when);
            assert_eq!(Shared::mounts(), mounts, "{when}");
        });
    }
}

#[test]
fn killed_at_any_system_call_it_leaves_what_delete_force_removes() {
    let _node = alone();
    let step = if is_full() { 1 } else { 17 };
    for_shapes(2, |bundle, nothing_is_left| {
        for victim in [Victim::Runtime, Victim::Others, Victim::All] {
            let mut number = 1;
            loop {
                let arguments = bundle.arguments(&["create"]);
                let program = (&arguments[..], &*bundle.path);
                let traced = tracer::act_at(program, Stdio::null(), victim, Act::Kill, number);
                let output = bundle.output(&["delete", "--force"]);
                let when = format!("{}: {victim:?} killed at call {number}", bundle.id);
                assert!(output.status.success(), "{when}: {}", String::from_utf8_lossy(&output.stderr));
                nothing_is_left(&when);
                if traced.call.is_none() {
                    break;
                }
                number += step;
            }
            // A count that is far from what the runtime does would be the tracer's mistake.
            assert!(number > 40, "{}: {victim:?} made but {number} calls", bundle.id);
        }
    });
}

/// With `--systemd-cgroup`: the system call at which systemd is asked to make the scope is one among many.
const SYSTEMD: [&str; 2] = ["--systemd-cgroup", "create"];

/// A jq filter for a container in a scope of this name.
fn in_scope(unit: &str) -> String {
    let name = unit.strip_prefix("stress-").and_then(|name| name.strip_suffix(".scope"));
    format!(".linux.cgroupsPath=\"system.slice:stress:{}\"", name.expect("it is the suite's"))
}

/// The suite's units that systemd knows, failed ones too.
fn units() -> String {
    sh(&format!("systemctl list-units --all --plain --no-legend '{PREFIX}*'"))
}

#[test]
fn killed_with_a_scope_it_leaves_what_delete_force_removes() {
    let _node = alone();
    let step = if is_full() { 1 } else { 31 };
    let bundle = Bundle::make("scoped", &in_scope("stress-scoped.scope"));
    bundle.succeed(&SYSTEMD);
    assert!(units().starts_with("stress-scoped.scope loaded active running"), "{}", units());
    bundle.succeed(&["delete", "--force"]);
    let before = Node::settled();
    for victim in [Victim::Runtime, Victim::Others, Victim::All] {
        for number in (1..).step_by(step) {
            let arguments = bundle.arguments(&SYSTEMD);
            let traced =
                tracer::act_at((&arguments[..], &*bundle.path), Stdio::null(), victim, Act::Kill, number);
            let output = bundle.output(&["delete", "--force"]);
            let when = format!("{victim:?} killed at call {number}");
            assert!(output.status.success(), "{when}: {}", String::from_utf8_lossy(&output.stderr));
            before.expect_again(&when);
            support::wait_until(&format!("no unit to be left, {when}"), BOUND, || {
                units().is_empty().then_some(())
            });
            if traced.call.is_none() {
                assert!(number > 60, "{victim:?} made but {number} calls");
                break;
            }
        }
    }
}

/// Another's unit with the name of a container's scope: who it is, by what systemd has of it.
struct Unit(&'static str);

impl Unit {
    fn identity(&self) -> String {
        let unit = self.0;
        sh(&format!(
            "systemctl show -p ActiveState,InvocationID,ControlGroup {unit}; \
             cat /sys/fs/cgroup/system.slice/{unit}/cgroup.procs"
        ))
    }

    /// As `systemd-run` makes it: nothing of it is the runtime's.
    fn start(&self) {
        let unit = self.0;
        sh(&format!(
            "systemd-run --quiet --scope --unit={unit} --slice=system.slice sleep 100000 </dev/null >/dev/null 2>&1 &"
        ));
        support::wait_until("a unit of somebody's", BOUND, || {
            (support::try_sh(&format!("systemctl is-active {unit}")).status == 0).then_some(())
        });
        // The program that started it has become the one in it.
        support::wait_until("its process", BOUND, || self.identity().lines().nth(3).map(|_| ()));
    }
}

#[test]
fn another_s_processes_in_the_cgroup_are_left_alone() {
    let _node = alone();
    let step = if is_full() { 1 } else { 5 };
    let bundle = Bundle::make("guest-of-another", ".");
    let before = Node::settled();
    let cgroup = format!("/sys/fs/cgroup/vm-stress/{}", bundle.id);
    sh(&format!("mkdir -p {cgroup}/below"));
    let mut other = std::process::Command::new("sleep").arg("100000").spawn().expect("sleep runs");
    sh(&format!("echo {} >{cgroup}/below/cgroup.procs", other.id()));
    // Start times are told apart by the clock's ticks.
    std::thread::sleep(Duration::from_millis(50));
    let refused = bundle.output(&["create"]);
    assert!(!refused.status.success(), "there was a process in the cgroup");
    let mut named = 0;
    for number in (1..).step_by(step) {
        let arguments = bundle.arguments(&["create"]);
        let program = (&arguments[..], &*bundle.path);
        let traced = tracer::act_at(program, Stdio::null(), Victim::All, Act::Kill, number);
        let state = fs::read_to_string(bundle.root().join(&bundle.id).join("state.json"));
        named += usize::from(state.is_ok_and(|state| state.contains(&cgroup)));
        let output = bundle.output(&["delete", "--force"]);
        let when = format!("killed at call {number}");
        assert!(output.status.success(), "{when}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(other.try_wait().expect("it is a child"), None, "{when}");
        assert!(!bundle.root().join(&bundle.id).exists(), "{when}");
        if traced.call.is_none() {
            break;
        }
    }
    assert!(named > 0, "it was never killed with the cgroup in its state");
    other.kill().expect("it is a child");
    other.wait().expect("it is a child");
    sh(&format!("rmdir {cgroup}/below {cgroup}"));
    before.expect_again("after the other's end");
}

#[test]
fn another_s_unit_with_the_name_of_the_scope_is_left_alone() {
    let _node = alone();
    let step = if is_full() { 1 } else { 47 };
    let unit = Unit("stress-shared.scope");
    let twin = Bundle::make("twin", &in_scope(unit.0));
    // The same ID below another root: a description that names that alone would be the same, too.
    let mut bundle = Bundle::make("twin-2", &in_scope(unit.0));
    bundle.id.clone_from(&twin.id);
    for owner in ["systemd-run", "a container"] {
        if owner == "systemd-run" {
            // A container whose scope has ended before somebody took the name.
            bundle.succeed(&SYSTEMD);
            sh(&format!("{} KILL", bundle.arguments(&["kill"]).join(" ")));
            support::wait_until("its scope to end", BOUND, || units().is_empty().then_some(()));
            unit.start();
        } else {
            twin.succeed(&SYSTEMD);
        }
        let identity = unit.identity();
        assert!(identity.contains("ActiveState=active"), "{identity}");
        if owner == "systemd-run" {
            bundle.succeed(&["delete"]);
            assert_eq!(unit.identity(), identity, "a container that had ended was deleted");
        }
        let refused = bundle.output(&SYSTEMD);
        assert!(!refused.status.success(), "there was a unit of that name");
        assert_eq!(unit.identity(), identity, "{}", String::from_utf8_lossy(&refused.stderr));
        let mut cut_short = 0;
        for number in (1..).step_by(step) {
            let arguments = bundle.arguments(&SYSTEMD);
            let program = (&arguments[..], &*bundle.path);
            let traced = tracer::act_at(program, Stdio::null(), Victim::All, Act::Kill, number);
            cut_short += usize::from(bundle.root().join(&bundle.id).join("state.json").exists());
            let when = format!("{owner}'s unit, killed at call {number}");
            for command in [&["kill", "-a"][..], &["delete", "--force"]] {
                let output = bundle.output(command);
                assert!(
                    output.status.success() || command[0] == "kill",
                    "{when}: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
                assert_eq!(unit.identity(), identity, "{when}, {command:?}");
            }
            assert!(!bundle.root().join(&bundle.id).exists(), "{when}");
            if traced.call.is_none() {
                break;
            }
        }
        assert!(cut_short > 1, "it was never killed with a scope in its state");
        if owner == "systemd-run" {
            sh(&format!("systemctl stop {}", unit.0));
        } else {
            twin.succeed(&["delete", "--force"]);
        }
        support::wait_until("no unit to be left", BOUND, || units().is_empty().then_some(()));
    }
}

/// Something that `create` needs is missing: it fails in words that name the kernel's reason, or does without. Nothing is left.
/// Whether it failed.
#[track_caller]
fn lacks(bundle: &Bundle, before: &Node, by: &[&str], reasons: &[&str]) -> bool {
    let output = bundle.output_with(by, &["create"]);
    let text = String::from_utf8_lossy(&output.stderr);
    let when = format!("{} with {by:?}: {text}", bundle.id);
    if output.status.success() {
        bundle.succeed(&["delete", "--force"]);
    } else {
        let is_clear =
            text.starts_with("inspect-runtime: ") && reasons.iter().any(|reason| text.contains(reason));
        assert!(is_clear, "{when}");
    }
    before.expect_again(&when);
    !output.status.success()
}

#[test]
fn without_space_it_says_so_and_leaves_nothing() {
    let _node = alone();
    let reasons = ["no space left on device"];
    let bundle = Bundle::make("space", ".");
    let state = bundle.root();
    fs::create_dir(&state).expect("the bundle is the test's own");
    let state = state.display().to_string();
    let mut failures = 0;
    // The directory, the spec, its state, the socket: the inodes or the pages run out at each.
    for options in
        (1..9).map(|count| format!("nr_inodes={count}")).chain((1..5).map(|pages| format!("size={pages}p")))
    {
        let options =
            options.replace("1p", "4k").replace("2p", "8k").replace("3p", "12k").replace("4p", "16k");
        sh(&format!("mount -t tmpfs -o {options} full {state}"));
        failures += usize::from(lacks(&bundle, &Node::settled(), &[], &reasons));
        sh(&format!("umount {state}"));
    }
    assert!(failures >= 4, "only {failures} of the file systems were too small");
    // The root file system has no room for the directories that mounts need.
    let root = bundle.path.join("rootfs").display().to_string();
    sh(&format!(
        "mount -t tmpfs -o nr_inodes=4 full {root} && mkdir {root}/bin && cp $(command -v busybox) {root}/bin/sleep"
    ));
    let failed = lacks(&bundle, &Node::settled(), &[], &reasons);
    sh(&format!("umount {root}"));
    assert!(failed, "it found room in a full file system");
}

#[test]
fn without_descriptors_it_says_so_and_leaves_nothing() {
    let _node = alone();
    let bundle = Bundle::make("descriptors", ".");
    let before = Node::settled();
    let mut failures = 0;
    for limit in 3..26 {
        let limit = format!("--nofile={limit}:");
        let reasons = ["too many open files", "no file descriptors available"];
        failures += usize::from(lacks(&bundle, &before, &["prlimit", &limit], &reasons));
    }
    assert!(failures >= 3, "only {failures} of the limits were too low");
}

#[test]
fn without_rights_it_says_so_and_leaves_nothing() {
    let _node = alone();
    let bundle = Bundle::make("rights", ".");
    let before = Node::settled();
    let reasons = ["operation not permitted", "permission denied"];
    for (capability, is_needed) in [
        ("sys_admin", true),
        ("setuid", false),
        ("setgid", false),
        ("setpcap", false),
        ("sys_chroot", false),
        ("mknod", true),
        ("dac_override", false),
        ("net_admin", false),
        ("bpf", false),
        ("chown", false),
    ] {
        let set = format!("--bounding-set=-{capability}");
        let failed = lacks(&bundle, &before, &["setpriv", &set], &reasons);
        assert!(failed || !is_needed, "it did without {capability}");
    }
    // Nobody at all, who may not even make the directory for the state.
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    assert!(lacks(&bundle, &before, &nobody, &reasons), "nobody made a container");
    // A parent cgroup that may have no more below it.
    fs::create_dir_all("/sys/fs/cgroup/vm-stress").expect("root makes cgroups");
    fs::write("/sys/fs/cgroup/vm-stress/cgroup.max.descendants", "0").expect("root limits cgroups");
    let failed = lacks(&bundle, &before, &[], &["resource temporarily unavailable"]);
    fs::write("/sys/fs/cgroup/vm-stress/cgroup.max.descendants", "max").expect("root limits cgroups");
    assert!(failed, "a cgroup was made below one that may have none");
}

/// unlink(2), unlinkat(2) and rmdir(2) on x86_64.
const REMOVALS: [u64; 3] = [87, 263, 84];

/// write(2), mmap(2), arch_prctl(2) and set_tid_address(2) and getrandom(2) on x86_64: without them nothing can be said in the usual way.
const MUTE: [u64; 5] = [1, 9, 158, 218, 318];

#[test]
fn a_system_call_that_fails_leaves_nothing() {
    let _node = alone();
    let step = if is_full() { 1 } else { 41 };
    for_shapes(1, |bundle, nothing_is_left| {
        for error in [Errno::ENOSPC, Errno::EMFILE, Errno::EPERM] {
            for victim in [Victim::Runtime, Victim::Others] {
                for number in (1..).step_by(step) {
                    let arguments = bundle.arguments(&["create"]);
                    let errors = bundle.path.join("errors");
                    let file = fs::File::create(&errors).expect("the bundle is the test's own");
                    let program = (&arguments[..], &*bundle.path);
                    let traced = tracer::act_at(program, file.into(), victim, Act::Fail(error), number);
                    let text = fs::read_to_string(&errors).expect("the runtime writes UTF-8");
                    let when = format!(
                        "{}: {victim:?}'s call {number} ends with {error}, {traced:?}: {text}",
                        bundle.id
                    );
                    let is_removal = traced.call.is_some_and(|call| REMOVALS.contains(&call));
                    if traced.succeeded || is_removal {
                        bundle.succeed(&["delete", "--force"]);
                    } else {
                        let is_mute = traced.call.is_some_and(|call| MUTE.contains(&call));
                        assert!(text.starts_with("inspect-runtime: ") || is_mute, "{when}");
                    }
                    nothing_is_left(&when);
                    if traced.call.is_none() {
                        break;
                    }
                }
            }
        }
    });
}
