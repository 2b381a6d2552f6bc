//! What `inspect tree` costs beside `ps -ef --forest`, `pstree -p` and a bare getdents64 + read of /proc/*/stat.
//!
//! `cargo bench --bench tree [-- COUNT…]` (root, Linux; procps and psmisc installed). Starts COUNT processes (default 5000,
//! then 20000), once as plain processes of the host and once inside of 50 containers: shims, bundles and cgroups as
//! containerd makes them, in a mount namespace of their own, with shells in the place of the programs. Each round runs
//! every subject once, one after the other; medians of all rounds are printed with their ratio to the bare read.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run stops")]

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Dir, Mode, OFlags, openat};

const ROUNDS: usize = 9;
const CONTAINERS: usize = 50;
/// Given to the copy of ourselves that runs in the private mount namespace.
const INSIDE: &str = "--inside";

/// A shim: puts itself into its container's cgroup, forks the init (which forks the others) there, steps out again and waits.
const SHIM: &str = r#"
cgroup=/sys/fs/cgroup/default/$4; mkdir -p "$cgroup"; echo 0 >"$cgroup/cgroup.procs"
sh -c 'i=1; while [ $i -lt "$COUNT" ]; do sleep 3000 & i=$((i + 1)); done; touch "$READY"; wait' & init=$!
echo 0 >/sys/fs/cgroup/cgroup.procs
bundle=/run/containerd/io.containerd.runtime.v2.task/default/$4; mkdir -p "$bundle"
printf '{"linux":{"cgroupsPath":"/default/%s"}}' "$4" >"$bundle/config.json"
printf %s "$init" >"$bundle/init.pid"
wait"#;

/// Plain processes, all children of one shell.
const PLAIN: &str =
    "i=0; while [ $i -lt \"$COUNT\" ]; do sleep 3000 & i=$((i + 1)); done; touch \"$READY\"; wait";

/// Processes that end with the benchmark: each leads a process group.
struct Crowd(Vec<Child>);

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let group = rustix::process::Pid::from_child(child);
            if rustix::process::kill_process_group(group, rustix::process::Signal::KILL).is_err() {
                eprintln!("the process group {group:?} was gone already");
            }
            drop(child.wait());
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().map(String::as_str) != Some(INSIDE) {
        // A private /run and a cgroup v2 hierarchy of our own: nothing of this machine's containerd is touched.
        let script =
            "mount -t tmpfs none /run && mount -t cgroup2 none /sys/fs/cgroup && exec \"$0\" --inside \"$@\"";
        let own = std::env::current_exe().unwrap();
        let error = Command::new("unshare").args(["-m", "sh", "-c", script]).arg(own).args(arguments).exec();
        panic!("unshare(1) is needed, and root: {error}");
    }
    let counts: Vec<usize> = arguments[1..].iter().filter_map(|argument| argument.parse().ok()).collect();
    let counts = if counts.is_empty() { vec![5000, 20_000] } else { counts };
    let directory = PathBuf::from("/run/tree-bench");
    fs::create_dir_all(&directory).unwrap();
    for count in counts {
        let crowd = plain(&directory, count);
        report(&format!("{count} processes, none in a container"));
        drop(crowd);
        let crowd = in_containers(&directory, count);
        report(&format!("{count} processes in {CONTAINERS} containers"));
        drop(crowd);
        clean_up();
    }
}

fn plain(directory: &Path, count: usize) -> Crowd {
    let ready = directory.join(format!("ready-{count}"));
    let mut command = Command::new("sh");
    command.args(["-c", PLAIN]).env("COUNT", count.to_string()).env("READY", &ready).process_group(0);
    complete(Crowd(vec![command.spawn().unwrap()]), &[ready])
}

fn in_containers(directory: &Path, count: usize) -> Crowd {
    let shim = directory.join("containerd-shim-runc-v2");
    let daemon = directory.join("containerd");
    fs::copy("/bin/sh", &shim).unwrap();
    fs::copy("/bin/sh", &daemon).unwrap();
    let mut crowd =
        Crowd(vec![Command::new(daemon).args(["-c", "sleep 3000; :"]).process_group(0).spawn().unwrap()]);
    let mut ready = Vec::new();
    for number in 0..CONTAINERS {
        let id = format!("bench-{number}");
        ready.push(directory.join(format!("{id}-{count}")));
        let mut command = Command::new(&shim);
        command.args([
            "-c",
            SHIM,
            "x",
            "-namespace",
            "default",
            "-id",
            &id,
            "-address",
            "/run/containerd/containerd.sock",
        ]);
        command.env("COUNT", (count / CONTAINERS).to_string()).process_group(0);
        command.envs(ready.last().map(|ready| ("READY", ready)));
        crowd.0.push(command.spawn().unwrap());
    }
    complete(crowd, &ready)
}

/// Removes the bundles, and the cgroups once the kernel has let go of the processes that were killed.
fn clean_up() {
    fs::remove_dir_all("/run/containerd").unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    for number in 0..CONTAINERS {
        let cgroup = format!("/sys/fs/cgroup/default/bench-{number}");
        while fs::remove_dir(&cgroup).is_err() {
            assert!(Instant::now() < deadline, "`{cgroup}` cannot be removed");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    drop(fs::remove_dir("/sys/fs/cgroup/default"));
}

/// Waits until the processes say that all are there; ends those that are when they do not.
fn complete(crowd: Crowd, ready: &[PathBuf]) -> Crowd {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !ready.iter().all(|file| file.exists()) {
        if Instant::now() > deadline {
            drop(crowd);
            panic!("the processes did not start in 300 s");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    crowd
}

fn report(title: &str) {
    let subjects: [(&str, &[&str]); 4] = [
        ("inspect tree", &[env!("CARGO_BIN_EXE_inspect"), "tree"]),
        ("inspect tree --all -f json", &[env!("CARGO_BIN_EXE_inspect"), "tree", "--all", "--format", "json"]),
        ("ps -ef --forest", &["ps", "-ef", "--forest"]),
        ("pstree -p", &["pstree", "-p"]),
    ];
    let mut bare = Vec::new();
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); subjects.len()];
    let mut seen = 0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        seen = bare_read();
        bare.push(start.elapsed());
        for (subject, times) in subjects.iter().zip(&mut times) {
            times.push(time(subject.1));
        }
    }
    let floor = median(&mut bare);
    println!("\n{title} ({seen} in /proc), medians of {ROUNDS} rounds");
    println!("{:<28} {:>9.1} ms", "bare getdents + read of stat", milliseconds(floor));
    for ((name, _), times) in subjects.iter().zip(&mut times) {
        let time = median(times);
        let ratio = time.as_secs_f64() / floor.as_secs_f64();
        println!("{name:<28} {:>9.1} ms  {ratio:>5.2} × bare", milliseconds(time));
    }
}

fn time(command: &[&str]) -> Duration {
    let start = Instant::now();
    let status = Command::new(command[0]).args(&command[1..]).stdout(Stdio::null()).status().unwrap();
    let elapsed = start.elapsed();
    assert!(status.success(), "{command:?} ended with {status}");
    elapsed
}

/// The least that tells every process: list /proc, open, read and close each stat, one thread, nothing parsed.
fn bare_read() -> usize {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = openat(CWD, "/proc", flags | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut buffer = [0_u8; 1024];
    let mut seen = 0;
    for entry in Dir::read_from(&directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_str().unwrap_or_default();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        if let Ok(file) = openat(&directory, format!("{name}/stat"), flags, Mode::empty()) {
            seen += usize::from(rustix::io::read(&file, &mut buffer).is_ok());
        }
    }
    seen
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
