//! Compares the built-in runtime with the crun and runc that are installed, and with the limit (`examples/limit.rs`).
//!
//! `cargo bench -p inspect-runtime --bench compare -- --runtime PATH [--rounds N] [--limit PATH]` as root. It mounts a
//! cgroup2 without controllers over `/sys/fs/cgroup` in a mount namespace of its own where the host has none, keeps bundles
//! and state on tmpfs, and takes every command of every runtime in turn in each round, so that what disturbs one disturbs
//! all. Printed are medians, how many times as long as ours each takes, and peak memory, page faults and system calls of a `run`.
#![allow(clippy::print_stdout, reason = "a benchmark's output")]
#![allow(clippy::disallowed_methods, reason = "a program of its own reads its arguments")]

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const CONFIGS: [(&str, &str); 2] =
    [("spec", include_str!("configs/spec.json")), ("containerd", include_str!("configs/containerd.json"))];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let result = match arguments.first().map(String::as_str) {
        Some("measure") => measure(&arguments[1..]),
        _ => compare(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("skipped: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one command and prints its peak memory in KiB and its page faults, its descendants' among them.
fn measure(words: &[String]) -> Outcome<()> {
    run(Command::new(&words[0]).args(&words[1..]))?;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    println!("{} {}", usage.max_rss(), usage.minor_page_faults() + usage.major_page_faults());
    Ok(())
}

fn compare(arguments: &[String]) -> Outcome<()> {
    let option = |name: &str| arguments.iter().skip_while(|word| *word != name).nth(1);
    let runtime = option("--runtime").ok_or("no runtime given: pass `-- --runtime PATH`")?;
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return again_in_own_namespace(arguments);
    }
    let rounds = option("--rounds").map_or(Ok(45), |text| text.parse())?;
    let mut runtimes = vec![("ours", PathBuf::from(runtime))];
    for name in ["crun", "runc"] {
        match find(name) {
            Some(path) => runtimes.push((name, path)),
            None => println!("skipped: no {name} in /usr/bin or /usr/sbin"),
        }
    }
    for (config, text) in CONFIGS {
        let bench = Bench::prepare(config, text)?;
        let limit = option("--limit").filter(|_| config == "containerd").map(PathBuf::from);
        bench.compare(&runtimes, limit.as_deref(), rounds)?;
    }
    Ok(())
}

fn again_in_own_namespace(arguments: &[String]) -> Outcome<()> {
    let script = "mount -t cgroup2 none /sys/fs/cgroup && exec \"$0\" \"$@\"";
    let own = std::env::current_exe()?;
    Err(Command::new("unshare").args(["-m", "sh", "-c", script]).arg(own).args(arguments).exec().into())
}

fn find(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/sbin"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists())
}

/// Long enough for what the kernel still does for a container that has ended, and too short for processors to fall asleep.
const PAUSE: Duration = Duration::from_millis(2);

/// Runs a command, after a pause: what the kernel still does for the one before, such as taking down a network namespace, is not
/// to be this one's cost.
fn run(command: &mut Command) -> Outcome<Duration> {
    std::thread::sleep(PAUSE);
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    let elapsed = start.elapsed();
    if status.success() { Ok(elapsed) } else { Err(format!("{command:?} ended with {status}").into()) }
}

/// A bundle on tmpfs and the names of its containers.
struct Bench {
    config: &'static str,
    directory: tempfile::TempDir,
}

impl Bench {
    fn prepare(config: &'static str, text: &str) -> Outcome<Self> {
        let directory = tempfile::tempdir_in("/dev/shm")?;
        let root = directory.path().join("rootfs");
        for name in ["bin", "proc", "dev", "sys", "run", "etc", "tmp"] {
            std::fs::create_dir_all(root.join(name))?;
        }
        for file in ["hostname", "hosts", "resolv.conf"] {
            std::fs::write(root.join("etc").join(file), "")?;
        }
        let busybox = find("busybox").ok_or("no busybox (install busybox-static)")?;
        std::fs::copy(busybox, root.join("bin/busybox"))?;
        for name in ["true", "sleep"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name))?;
        }
        std::fs::write(directory.path().join("config.json"), text)?;
        std::fs::create_dir(directory.path().join("long"))?;
        std::os::unix::fs::symlink("../rootfs", directory.path().join("long/rootfs"))?;
        let long =
            text.replace("\"/bin/true\"", "\"/bin/sleep\", \"1000\"").replace("\"rootfs\"", "\"../rootfs\"");
        std::fs::write(directory.path().join("long/config.json"), long)?;
        Ok(Bench { config, directory })
    }

    fn compare(
        &self,
        runtimes: &[(&'static str, PathBuf)],
        limit: Option<&Path>,
        rounds: usize,
    ) -> Outcome<()> {
        let mut times: BTreeMap<(&str, &str), Vec<Duration>> = BTreeMap::new();
        let runtimes = &self.able(runtimes)?;
        if let Some(limit) = limit {
            run(Command::new(limit).arg("prepare").arg(self.directory.path()))?;
        }
        for round in 0..=rounds {
            let mut record = |name, operation, time| {
                // The first round warms what is cached.
                if round > 0 {
                    times.entry((operation, name)).or_default().push(time);
                }
            };
            for (name, binary) in runtimes {
                self.round(name, binary, &mut |operation, time| record(*name, operation, time))?;
            }
            if let Some(limit) = limit {
                record("limit", "run", run(Command::new(limit).arg("run").arg(self.directory.path()))?);
            }
        }
        self.print(&mut times);
        for (name, binary) in runtimes {
            self.print_costs(name, self.command(name, binary, &["run", "--bundle", "BUNDLE", "cost"]))?;
        }
        if let Some(limit) = limit {
            let mut command = Command::new(limit);
            command.arg("run").arg(self.directory.path());
            self.print_costs("limit", command)?;
        }
        Ok(())
    }

    /// Those that can run the config here; crun 1.8, for one, raises its memory lock limit, which not every root may.
    fn able(&self, runtimes: &[(&'static str, PathBuf)]) -> Outcome<Vec<(&'static str, PathBuf)>> {
        let mut able = Vec::new();
        for (name, binary) in runtimes {
            match run(&mut self.command(name, binary, &["run", "--bundle", "BUNDLE", "trial"])) {
                Ok(_) => able.push((*name, binary.clone())),
                Err(error) if *name == "ours" => return Err(error),
                Err(error) => println!("skipped: {error}"),
            }
        }
        Ok(able)
    }

    fn command(&self, name: &str, binary: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command.arg("--root").arg(self.directory.path().join(format!("state-{name}")));
        for word in words {
            let path = |name: &str| self.directory.path().join(name).to_string_lossy().into_owned();
            command.arg(match *word {
                "BUNDLE" => path(""),
                "LONG" => path("long"),
                "PID" => path("pid"),
                other => other.to_owned(),
            });
        }
        command
    }

    /// One container through its whole life, and one that only runs.
    fn round(
        &self,
        name: &str,
        binary: &Path,
        record: &mut dyn FnMut(&'static str, Duration),
    ) -> Outcome<()> {
        let mut step = |operation: &'static str, words: &[&str]| -> Outcome<()> {
            record(operation, run(&mut self.command(name, binary, words))?);
            Ok(())
        };
        step("run", &["run", "--bundle", "BUNDLE", "one"])?;
        step("create", &["create", "--bundle", "LONG", "--pid-file", "PID", "two"])?;
        step("start", &["start", "two"])?;
        step("state", &["state", "two"])?;
        step("exec", &["exec", "two", "/bin/true"])?;
        step("kill", &["kill", "two", "KILL"])?;
        let pid = std::fs::read_to_string(self.directory.path().join("pid"))?;
        wait_for_end(pid.trim())?;
        step("delete", &["delete", "two"])
    }

    fn print(&self, times: &mut BTreeMap<(&str, &str), Vec<Duration>>) {
        println!("\n{}: medians in ms, and how many times as long as ours", self.config);
        let mut medians = BTreeMap::new();
        for (key, list) in times {
            list.sort();
            medians.insert(*key, list[list.len() / 2].as_secs_f64() * 1000.0);
        }
        for operation in ["run", "create", "start", "state", "exec", "kill", "delete"] {
            let ours = medians[&(operation, "ours")];
            print!("{operation:8} ours {ours:7.2}");
            for name in ["crun", "runc", "limit"] {
                if let Some(median) = medians.get(&(operation, name)) {
                    print!("   {name} {median:7.2} ({:5.2})", median / ours);
                }
            }
            println!();
        }
    }

    fn print_costs(&self, name: &str, command: Command) -> Outcome<()> {
        let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
        let measured = Command::new(std::env::current_exe()?).arg("measure").args(&words).output()?;
        let text = String::from_utf8_lossy(&measured.stdout).into_owned();
        let mut numbers = text.split_whitespace();
        let (memory, faults) = (numbers.next().unwrap_or("?"), numbers.next().unwrap_or("?"));
        let calls = self.count_calls(&words).unwrap_or_else(|| "no strace".to_owned());
        println!("{name:8} run: peak {memory} KiB, {faults} page faults, {calls} system calls");
        Ok(())
    }

    fn count_calls(&self, words: &[&std::ffi::OsStr]) -> Option<String> {
        let file = self.directory.path().join("calls");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-c", "-o"]).arg(&file).args(words);
        run(&mut strace).ok()?;
        let text = std::fs::read_to_string(file).ok()?;
        // The last line: share, seconds, microseconds a call, calls, errors if any, the word total.
        text.lines().last()?.split_whitespace().nth(3).map(str::to_owned)
    }
}

/// The process is nobody's child here: its end shows in `/proc`.
fn wait_for_end(pid: &str) -> Outcome<()> {
    let end = Instant::now() + Duration::from_secs(10);
    let is_there = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    };
    while is_there() {
        if Instant::now() > end {
            return Err(format!("process {pid} does not end").into());
        }
        std::thread::yield_now();
    }
    Ok(())
}
