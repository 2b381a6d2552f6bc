//! Attacks on OCI runtimes that once worked, carried out on the built-in one: those that race with it, and those that look at
//! what it does from inside a container. `docs/security.md` lists all, and where the others are.

#[path = "support/bundle.rs"]
mod bundle;
mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bundle::{Bundle, shell};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use support::{sh, try_sh};

/// Containers that are started while somebody swaps a directory for a symlink.
const ROUNDS: usize = 60;

/// What a container that runs to its end writes, and why not if it does not.
fn output_of(bundle: &Bundle) -> support::Finished {
    let (path, id) = (bundle.path.display(), &bundle.id);
    try_sh(&format!("cd {path}; {} --root {path}/state run {id}", bundle::RUNTIME))
}

fn link_programs(bundle: &Bundle, names: &[&str]) {
    for name in names {
        sh(&format!("ln -sf busybox {}/rootfs/bin/{name}", bundle.path.display()));
    }
}

/// Swaps two names for each other until it is told to stop, as a process in another container with the same volume could.
fn swap(one: &Path, other: &Path, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("both are there");
    }
}

/// Runs `attacked` while `one` and `other` are swapped all the time.
fn while_swapped(one: PathBuf, other: PathBuf, attacked: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swapping = scope.spawn(|| swap(&one, &other, &stop));
        // A check that fails must not leave the other thread swapping.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attacked));
        stop.store(true, Ordering::Relaxed);
        swapping.join().expect("both names are there");
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// A volume with a directory and a symlink out of the container, to a directory of the host that must stay empty.
fn make_volume(bundle: &Bundle) -> (PathBuf, PathBuf, PathBuf) {
    let (volume, victim) = (bundle.path.join("volume"), bundle.path.join("victim"));
    sh(&format!(
        "mkdir -p {0}/dir {1}; ln -s ../../../../../../../../../..{1} {0}/link",
        volume.display(),
        victim.display()
    ));
    (volume.join("dir"), volume.join("link"), victim)
}

#[test]
fn a_target_that_is_swapped_for_a_symlink_leads_nowhere() {
    // CVE-2021-30465 and CVE-2024-45310: the target of a mount is below a volume that another container writes to.
    let mounts = "[{destination:\"/volume\",type:\"bind\",source:\"volume\",options:[\"rbind\"]},\
         {destination:\"/volume/dir/made/here\",type:\"bind\",source:\"secret\",options:[\"rbind\"]},\
         {destination:\"/volume/dir/file\",type:\"bind\",source:\"config.json\",options:[\"bind\"]}]";
    let bundle = Bundle::make("swapped", &format!(".mounts += {mounts} | {}", shell("true")));
    let (directory, link, victim) = make_volume(&bundle);
    sh(&format!("mkdir {}/secret", bundle.path.display()));
    let (mut started, mut refused) = (0, 0);
    let mounts = sh("cat /proc/self/mountinfo");
    while_swapped(directory.clone(), link.clone(), || {
        for _ in 0..ROUNDS {
            let finished = output_of(&bundle);
            if finished.status == 0 {
                started += 1;
            } else {
                refused += 1;
            }
            let made = sh(&format!("ls -A {}", victim.display()));
            assert_eq!(made, "", "the host has what the container's mounts were to have: {finished}");
        }
    });
    assert!(started > 0, "no container started, {refused} were refused");
    assert_eq!(sh("cat /proc/self/mountinfo"), mounts);
    // The control: whoever looks first and makes then, by name, is caught.
    let caught = AtomicUsize::new(0);
    while_swapped(directory.clone(), link, || {
        for round in 0..200_000 {
            if std::fs::symlink_metadata(&directory).is_ok_and(|looked_at| looked_at.is_dir()) {
                drop(std::fs::create_dir(directory.join(format!("{round}"))));
            }
            if round % 100 == 0 && std::fs::read_dir(&victim).is_ok_and(|made| made.count() > 0) {
                caught.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
    });
    assert_eq!(caught.into_inner(), 1, "the swapping is too slow to catch anybody");
}

#[test]
fn a_process_that_enters_cannot_be_looked_into() {
    // CVE-2016-9962: root of the container opens what a process that enters still has open of the host's. (With CAP_SYS_PTRACE
    // in the host's user namespace it may look into everybody.)
    let line = "while [ ! -e /stop ]; do ls -l /proc/[0-9]*/fd /proc/[0-9]*/exe /proc/[0-9]*/cwd; done >/seen 2>/refused; sleep 1000";
    let rights = "[\"CAP_DAC_READ_SEARCH\",\"CAP_DAC_OVERRIDE\"]";
    let capabilities = format!("{{bounding:{rights},effective:{rights},permitted:{rights}}}");
    let bundle = Bundle::make("entered", &format!(".process.capabilities={capabilities} | {}", shell(line)));
    link_programs(&bundle, &["ls", "usleep"]);
    bundle.succeed(&["run", "-d"]);
    for _ in 0..ROUNDS {
        let entered = try_sh(&format!(
            "{} --root {} exec {} usleep 20000 </dev/null",
            bundle::RUNTIME,
            bundle.root().display(),
            bundle.id
        ));
        assert_eq!(entered.status, 0, "{entered}");
    }
    let read = |name: &str| {
        std::fs::read_to_string(bundle.path.join("rootfs").join(name)).expect("the program wrote it")
    };
    sh(&format!("touch {}/rootfs/stop", bundle.path.display()));
    let (seen, refused) = (read("seen"), read("refused"));
    // The control: the programs that were entered with are seen, and that something was there before them is noticed.
    assert!(seen.lines().any(|line| line.contains("/exe -> /bin/busybox")), "{seen}");
    assert!(refused.contains("ermission denied"), "no entering process was met: {refused}");
    let leaks: Vec<&str> = seen
        .lines()
        // The container's own standard error.
        .filter(|line| !line.ends_with("/errors"))
        .filter(|line| {
            ["inspect-runtime", "cgroup", "pidfd", "socket:", "/state", "-> /var"]
                .iter()
                .any(|word| line.contains(word))
        })
        .collect();
    assert!(leaks.is_empty(), "{leaks:?}");
}

#[test]
fn no_capability_is_inherited_that_the_spec_does_not_name() {
    // CVE-2022-24769, CVE-2022-27650, CVE-2022-29162, CVE-2025-27612. The caller of the runtime has some to pass on.
    let bundle = Bundle::make("inherited", ".");
    link_programs(&bundle, &["grep"]);
    let setpriv =
        ["setpriv", "--inh-caps=+chown,+net_raw,+sys_admin", "--ambient-caps=+chown,+net_raw,+sys_admin"];
    let made = bundle.output_with(&setpriv, &["run", "-d"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let exec = |options: &str| {
        sh(&format!(
            "{} {} --root {} exec {options} {} grep -E '^Cap(Inh|Amb)' /proc/1/status /proc/self/status",
            setpriv.join(" "),
            bundle::RUNTIME,
            bundle.root().display(),
            bundle.id
        ))
    };
    for options in ["", "--cap CAP_NET_RAW --cap CAP_SYS_ADMIN"] {
        let text = exec(options);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.lines().all(|line| line.ends_with("\t0000000000000000")), "{text}");
    }
}

#[test]
fn a_bound_cgroup_can_be_written_to_only_where_the_spec_lets_it() {
    // CVE-2023-25809: without a cgroup namespace the host's cgroup is bound, and has to be as read-only as the spec says.
    let attempt = |below: &str| {
        shell(&format!(
            "cd /sys/fs/cgroup{below} && mkdir made; echo $?; echo 100 >cgroup.max.depth; echo $?"
        ))
    };
    let no_namespace = ".linux.namespaces |= map(select(.type != \"cgroup\"))";
    let writable = ".mounts |= map(if .type == \"cgroup\" then .options -= [\"ro\"] else . end)";
    let mapped = ".linux.uidMappings=[{containerID:0,hostID:0,size:1000}] | .linux.gidMappings=.linux.uidMappings | \
         .linux.namespaces += [{type:\"user\"}]";
    // As with runc: all of the host's hierarchy, and in a user namespace the container's own part.
    for (id, filter, below, expected) in [
        ("bound-ro", ".", "/vm-stress/stress-bound-ro", "1\n1"),
        ("bound-ro-mapped", mapped, "", "1\n1"),
        // The control: root of the host may write to it.
        ("bound-rw", writable, "/vm-stress/stress-bound-rw", "0\n0"),
    ] {
        let bundle = Bundle::make(id, &format!("{no_namespace} | {filter} | {}", attempt(below)));
        link_programs(&bundle, &["mkdir"]);
        let finished = output_of(&bundle);
        assert_eq!(finished.stdout.trim(), expected, "{id}: {finished}");
        sh(&format!("rmdir /sys/fs/cgroup/vm-stress/{}/made 2>/dev/null; true", bundle.id));
    }
}

#[test]
fn no_socket_of_the_runtime_is_in_a_network_namespace() {
    // CVE-2020-15257: abstract sockets can be reached by whoever shares the network namespace.
    let host_network = ".linux.namespaces |= map(select(.type != \"network\"))";
    let bundle = Bundle::make("abstract", host_network);
    let abstract_sockets = || sh("awk '$8 ~ /^@/ { print $8 }' /proc/net/unix | sort");
    let before = abstract_sockets();
    bundle.succeed(&["create"]);
    let socket = bundle.root().join(&bundle.id).join("start.sock");
    assert_eq!(sh(&format!("grep -c {} /proc/net/unix", socket.display())), "1", "it waits elsewhere");
    assert_eq!(abstract_sockets(), before);
    bundle.succeed(&["start"]);
    assert_eq!(abstract_sockets(), before);
}

#[test]
fn a_console_that_is_a_symlink_covers_nothing_else() {
    // CVE-2025-52565: the image's /dev/console leads to a file of procfs, which the terminal would be bound over.
    let no_dev = ".mounts |= map(select(.destination | startswith(\"/dev\") | not))";
    let devices = "{destination:\"/dev\",type:\"bind\",source:\"volume\",options:[\"rbind\"]}";
    let own = "{destination:\"/dev/pts\",type:\"devpts\",source:\"devpts\",options:[\"newinstance\",\"ptmxmode=0666\"]}";
    let filter = format!("{no_dev} | .mounts += [{devices},{own}] | .process.terminal=true");
    for target in ["/proc/sys/kernel/core_pattern", "/proc/self/attr/exec", "../victim"] {
        let bundle = Bundle::make("console", &format!("{filter} | {}", shell("cat /proc/self/mountinfo")));
        let path = bundle.path.display();
        sh(&format!(
            "mkdir -p {path}/volume/pts; mknod {path}/volume/null c 1 3; touch {path}/victim; ln -s {target} {path}/volume/console"
        ));
        let finished = output_of(&bundle);
        let points: Vec<&str> = finished.stdout.lines().filter_map(|line| line.split(' ').nth(4)).collect();
        let covered = |point: &&&str| {
            point.starts_with("/proc/") && !MASKED.contains(point) || point.contains("victim")
        };
        assert!(!points.iter().any(|point| covered(&point)), "{target}: {finished}");
        assert!(finished.status == 0 || finished.stderr.contains("console"), "{target}: {finished}");
        assert_eq!(sh(&format!("wc -c <{path}/victim")), "0");
    }
}

/// What the runtime's own `spec` masks or makes read-only in procfs.
const MASKED: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/interrupts",
    "/proc/irq",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
];

#[test]
fn symlinks_of_an_image_lead_no_mount_into_procfs() {
    let bind = r#"{destination:"/procx/sys",type:"bind",source:"volume",options:["rbind"]}"#;
    let tmpfs = r#"{destination:"/data",type:"tmpfs",source:"tmpfs"}"#;
    for (id, mount) in [("proc-bind", bind), ("proc-tmpfs", tmpfs)] {
        let bundle = Bundle::make(id, &format!(".mounts+=[{mount}] | {}", shell("cat /proc/self/mountinfo")));
        let path = bundle.path.display();
        sh(&format!(
            "mkdir {path}/volume; ln -s /proc {path}/rootfs/procx; ln -s /proc/sys {path}/rootfs/data"
        ));
        let finished = output_of(&bundle);
        assert!(finished.status != 0 && finished.stderr.contains("it leads into procfs"), "{id}: {finished}");
        // A symlink to anywhere else is the image's own business.
        sh(&format!(
            "cd {path}/rootfs; rm procx data; mkdir -p other/sys; ln -s other procx; ln -s other/sys data"
        ));
        let text = output_of(&bundle).success();
        assert!(text.contains(" /other/sys "), "{id}: {text}");
    }
}

#[test]
fn a_created_container_is_started_by_its_owner_alone() {
    // The mode of the socket is what the caller's mask leaves, which may be everything.
    let bundle = Bundle::make("mask", ".");
    sh(&format!("chmod 755 {0} {0}/..", bundle.path.display()));
    let finished = bundle.output_with(&["sh", "-c", "umask 0; exec \"$@\"", "sh"], &["create"]);
    assert!(finished.status.success(), "{finished:?}");
    let socket = bundle.root().join(&bundle.id).join("start.sock");
    let stat = |options: &str| {
        try_sh(&format!("setpriv --reuid 1000 --regid 1000 --clear-groups {options} {}", socket.display()))
    };
    let refused = stat("stat");
    assert!(refused.status != 0 && refused.stderr.contains("Permission denied"), "{refused}");
    sh(&format!("stat {}", socket.display()));
}

#[test]
fn sockets_that_somebody_listens_on_for_the_program_are_its_own() {
    let bundle = Bundle::make("listen", &shell("echo $LISTEN_FDS $LISTEN_PID; cat <&3"));
    sh(&format!("echo inherited >{}/inherited", bundle.path.display()));
    let run = |pid: &str| {
        let (path, line) = (bundle.path.display(), bundle.arguments(&["run"]).join(" "));
        try_sh(&format!(
            "cd {path}; exec 3<inherited; export LISTEN_FDS=1; sh -c \"LISTEN_PID={pid} exec {line}\""
        ))
    };
    assert_eq!(run("\\$\\$").success(), "1 1\ninherited\n");
    // sd_listen_fds(3): those of another process are not this one's to take.
    let other = run("1");
    assert!(other.status != 0 && !other.stdout.contains("inherited"), "{other}");
    let missing = bundle.output(&["run", "--preserve-fds", "2"]);
    let errors = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(!missing.status.success() && errors.contains("cannot preserve the descriptor `3`"), "{errors}");
}

#[test]
fn sysctls_of_a_joined_namespace_are_not_the_nodes() {
    let join = r#".linux.namespaces |= map(if .type=="network" then .path="/proc/self/ns/net" else . end)"#;
    let sysctl = r#".linux.sysctl={"net.ipv4.tcp_fin_timeout":"17"}"#;
    let bundle = Bundle::make("sysctl", &format!("{join} | {sysctl} | {}", shell("true")));
    let before = sh("cat /proc/sys/net/ipv4/tcp_fin_timeout");
    let refused = output_of(&bundle);
    let field = "`linux.sysctl.net.ipv4.tcp_fin_timeout`";
    assert!(refused.status != 0 && refused.stderr.contains(field), "{refused}");
    assert_eq!(sh("cat /proc/sys/net/ipv4/tcp_fin_timeout"), before);
}
