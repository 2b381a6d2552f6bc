//! What `inspect trace` costs beside forkstat(8) and a bare reader of the same events, under the same load in the same run.
//!
//! `cargo bench --bench trace [-- PROGRAMS [INSPECT]]` (root, Linux with the process events connector; forkstat installed). Two
//! loops run PROGRAMS programs (default 10000) as fast as they can, once alone and once under each tracer, one after the
//! other, in rounds. INSPECT is another build of `inspect` that is measured beside this one. Printed are medians of all rounds: programs a second, what the load took longer, the tracer's own processor time
//! for each program with its ratio to the bare reader's, and what was lost. A tracer that reads nothing of a process but
//! its events costs what the bare reader costs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run stops")]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use inspect_probes::events::{ProcConnector, ProcEventKind};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};

const ROUNDS: usize = 7;
const LOOPS: usize = 2;
/// Given to the copy of ourselves that is the bare reader.
const BARE: &str = "--bare";
/// Of `/proc/PID/stat`: `USER_HZ`.
const TICKS_PER_SECOND: f64 = 100.0;

/// What one tracer did in one round.
#[derive(Debug, Clone, Default)]
struct Round {
    load: Duration,
    cpu: f64,
    seen: u64,
    lost: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().map(String::as_str) == Some(BARE) {
        return bare_reader();
    }
    let programs = arguments.first().and_then(|argument| argument.parse().ok()).unwrap_or(10_000);
    let own = std::env::current_exe().unwrap();
    let trace_by = |inspect: &str| [inspect, "trace", "--format", "json"].map(str::to_owned).to_vec();
    let mut subjects = vec![
        ("bare reader", vec![own.to_str().unwrap().to_owned(), BARE.to_owned()]),
        ("inspect trace", trace_by(env!("CARGO_BIN_EXE_inspect"))),
        ("forkstat -e all", ["forkstat", "-e", "all"].map(str::to_owned).to_vec()),
    ];
    subjects.extend(arguments.get(1).map(|other| ("other inspect", trace_by(other))));
    let mut alone = Vec::new();
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); subjects.len()];
    for _ in 0..ROUNDS {
        alone.push(load(programs));
        for ((name, command), rounds) in subjects.iter().zip(&mut rounds) {
            rounds.push(trace(name, command, programs));
        }
    }
    let names: Vec<&str> = subjects.iter().map(|(name, _)| *name).collect();
    report(programs, &mut alone, &names, &rounds);
}

/// Runs the programs; gives how long that took.
fn load(programs: u64) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..LOOPS {
            scope.spawn(move || {
                for _ in 0..programs / u64::try_from(LOOPS).unwrap() {
                    assert!(Command::new("/bin/true").status().unwrap().success());
                }
            });
        }
    });
    start.elapsed()
}

/// The load under a tracer.
fn trace(name: &str, command: &[String], programs: u64) -> Round {
    let mut output = tempfile::NamedTempFile::new().unwrap();
    let stdout = output.reopen().unwrap();
    let mut tracer = Tracer(
        Command::new(&command[0])
            .args(&command[1..])
            .stdout(stdout)
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run `{name}`: {error}")),
    );
    tracer.await_subscription();
    let before = tracer.cpu_seconds();
    let load = load(programs);
    tracer.await_idle();
    let cpu = tracer.cpu_seconds() - before;
    kill_process(Pid::from_child(&tracer.0), Signal::INT).unwrap();
    tracer.0.wait().unwrap();
    output.flush().unwrap();
    let text = String::from_utf8_lossy(&fs::read(output.path()).unwrap()).into_owned();
    let (seen, lost) = tally(name, &text);
    Round { load, cpu, seen, lost }
}

/// Programs seen and events lost, as each tracer tells them.
fn tally(name: &str, text: &str) -> (u64, u64) {
    if name.starts_with("forkstat") {
        let execs = text.lines().filter(|line| line.split_whitespace().nth(1) == Some("exec")).count();
        return (u64::try_from(execs).unwrap(), 0);
    }
    let told: serde_json::Value = serde_json::from_str(text).unwrap();
    (told["counts"]["execs"].as_u64().unwrap(), told["loss"]["events"].as_u64().unwrap())
}

/// A tracer that ends with the benchmark.
struct Tracer(Child);

impl Tracer {
    /// Until the kernel has it among the listeners of NETLINK_CONNECTOR (protocol 11).
    fn await_subscription(&mut self) {
        let pid = self.0.id().to_string();
        let deadline = Instant::now() + Duration::from_secs(20);
        let listens = |line: &str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            fields.get(1) == Some(&"11") && fields.get(2) == Some(&pid.as_str())
        };
        while !fs::read_to_string("/proc/net/netlink").unwrap().lines().any(listens) {
            assert!(self.0.try_wait().unwrap().is_none(), "the tracer ended");
            assert!(Instant::now() < deadline, "the tracer did not subscribe");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Until it has worked off what the load left in its queue.
    fn await_idle(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut last = (self.cpu_seconds(), Instant::now());
        while last.1.elapsed() < Duration::from_millis(300) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            let now = self.cpu_seconds();
            if (now - last.0).abs() > f64::EPSILON {
                last = (now, Instant::now());
            }
        }
    }

    /// User and system time of all its threads: fields 14 and 15 of `/proc/PID/stat`.
    fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let after_name = stat.rsplit(')').next().unwrap();
        let ticks: f64 =
            after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().unwrap()).sum();
        ticks / TICKS_PER_SECOND
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}

/// The least that knows of every event: receive, parse, count.
fn bare_reader() {
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, std::sync::Arc::clone(&stop)).unwrap();
    let mut connector = ProcConnector::open().unwrap();
    let (mut events, mut execs) = (Vec::new(), 0_u64);
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        // Interrupted by the signal: the loop ends.
        match poll(&mut [PollFd::from_borrowed_fd(connector.as_fd(), PollFlags::IN)], None) {
            Ok(_) | Err(_) => {}
        }
        while connector.receive(&mut events).unwrap() {
            execs +=
                u64::try_from(events.iter().filter(|e| matches!(e.kind, ProcEventKind::Exec { .. })).count())
                    .unwrap();
            events.clear();
        }
    }
    let lost = connector.loss().events;
    let told = serde_json::json!({ "counts": { "execs": execs }, "loss": { "events": lost } });
    File::from(std::io::stdout().as_fd().try_clone_to_owned().unwrap())
        .write_all(told.to_string().as_bytes())
        .unwrap();
}

fn report(programs: u64, alone: &mut [Duration], names: &[&str], rounds: &[Vec<Round>]) {
    let floor = median(alone).as_secs_f64();
    let count = f64::from(u32::try_from(programs).unwrap());
    println!("{programs} programs in {LOOPS} loops, medians of {ROUNDS} rounds");
    println!("{:<18} {:>7.0}/s  load took {floor:.2} s", "no tracer", count / floor);
    let cpu: Vec<f64> = rounds.iter().map(|rounds| median_of(rounds, |round| round.cpu)).collect();
    for ((name, rounds), cpu_seconds) in names.iter().zip(rounds).zip(&cpu) {
        let load = median_of(rounds, |round| round.load.as_secs_f64());
        let seen: u64 = rounds.iter().map(|round| round.seen).sum();
        let lost: u64 = rounds.iter().map(|round| round.lost).sum();
        println!(
            "{name:<18} {:>7.0}/s  load × {:.2}  {:>6.1} µs of processor a program, {:>5.2} × bare  {seen} programs seen of {} run, {lost} events lost",
            count / load,
            load / floor,
            cpu_seconds * 1e6 / count,
            cpu_seconds / cpu[0],
            programs * u64::try_from(ROUNDS).unwrap(),
        );
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn median_of(rounds: &[Round], value: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
