//! For the suites that run inside the test VM as root: commands with a bound, containers that are cleaned up, waits
//! that poll, skips that say why.
#![allow(dead_code, reason = "every suite is a crate of its own and uses what it needs")]
#![allow(clippy::print_stderr, reason = "a skip prints its reason")]

use std::collections::BTreeSet;
use std::fmt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long one command may take under emulation. It is killed afterwards, and the test fails.
const COMMAND_BOUND: &str = "120";

/// Between two looks of [`wait_until`].
const POLL: Duration = Duration::from_millis(100);

/// What a command left behind.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    /// The command line, for messages.
    pub(crate) line: String,
    /// Exit status; 124 when the bound was reached, 128 + signal when it was killed.
    pub(crate) status: i32,
    /// Standard output, lossily decoded.
    pub(crate) stdout: String,
    /// Standard error, lossily decoded.
    pub(crate) stderr: String,
}

impl Finished {
    /// The output, after the command succeeded; otherwise the test fails and shows everything.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert_eq!(self.status, 0, "{self}");
        self.stdout
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, status, stdout, stderr } = self;
        write!(f, "`{line}` ended with {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// The Debian release this node is: `bookworm`, `trixie` or `forky`.
pub(crate) fn generation() -> String {
    std::env::var("INSPECT_LAB_GENERATION").expect("`cargo lab` sets INSPECT_LAB_GENERATION")
}

/// Runs a program with arguments, within the bound and without standard input.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Finished {
    run_within(COMMAND_BOUND, program, arguments)
}

/// [`run`] within a bound of its own, in seconds.
pub(crate) fn run_within(bound: &str, program: &str, arguments: &[&str]) -> Finished {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", bound, program]).args(arguments).stdin(Stdio::null());
    let output = command.output().expect("timeout(1) runs");
    Finished {
        line: format!("{program} {}", arguments.join(" ")),
        status: exit_status(output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A status as a shell gives it: 128 + the signal for a killed program.
fn exit_status(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// Runs a line of shell; it may fail.
pub(crate) fn try_sh(line: &str) -> Finished {
    Finished { line: line.into(), ..run("sh", &["-c", line]) }
}

/// Runs a line of shell that has to succeed, and returns its output without the last newline.
#[track_caller]
pub(crate) fn sh(line: &str) -> String {
    try_sh(line).success().trim_end().to_owned()
}

/// Runs the `inspect` under test.
pub(crate) fn inspect(arguments: &[&str]) -> Finished {
    run("/usr/local/bin/inspect", arguments)
}

/// Polls until `look` finds something; the test fails when it does not within `bound`.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, bound: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain for {what}", bound.as_secs());
        std::thread::sleep(POLL);
    }
}

/// The image that containers are made of by default.
pub(crate) const BUSYBOX: &str = "docker.io/library/busybox:latest";

/// The image with several layers, whiteouts, links and special modes.
pub(crate) const LAYERS: &str = "docker.io/library/layers:latest";

/// Imports `/opt/lab/images/ARCHIVE.tar` into a containerd namespace, unless its image is there already.
#[track_caller]
pub(crate) fn import(namespace: &str, archive: &str) {
    // `ctr` takes a second under emulation: a suite asks once.
    static THERE: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());
    let wanted = (namespace.to_owned(), archive.to_owned());
    if THERE.lock().is_ok_and(|there| there.contains(&wanted)) {
        return;
    }
    let present = format!("ctr -n {namespace} images ls -q | grep -q '/{archive}:'");
    if try_sh(&present).status != 0 {
        sh(&format!("ctr -n {namespace} images import /opt/lab/images/{archive}.tar"));
    }
    if let Ok(mut there) = THERE.lock() {
        there.insert(wanted);
    }
}

/// A container that `ctr` started; dropped, its task is killed and both are removed.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its containerd namespace.
    pub(crate) namespace: String,
    /// Its id.
    pub(crate) id: String,
}

impl Container {
    /// `ctr -n NAMESPACE run -d OPTIONS busybox ID COMMAND`, with the image imported first. What an earlier run left
    /// under that id is removed.
    #[track_caller]
    pub(crate) fn start(namespace: &str, id: &str, options: &str, command: &str) -> Self {
        import(namespace, "busybox");
        let container = Self { namespace: namespace.into(), id: id.into() };
        let line = format!("ctr -n {namespace} run -d {options} {BUSYBOX} {id} {command}");
        let refused = try_sh(&line);
        if refused.status != 0 {
            assert!(refused.stderr.contains("already exists"), "{refused}");
            container.remove();
            sh(&line);
        }
        container
    }

    /// The host's pid of its init process, as `ctr task ls` has it.
    #[track_caller]
    pub(crate) fn init_pid(&self) -> u32 {
        let Self { namespace, id } = self;
        let line = format!("ctr -n {namespace} tasks ls | awk -v id={id} '$1 == id {{ print $2 }}'");
        sh(&line).parse().expect("ctr tasks ls has the pid in its second column")
    }

    /// Its bundle.
    pub(crate) fn bundle(&self) -> String {
        format!("/run/containerd/io.containerd.runtime.v2.task/{}/{}", self.namespace, self.id)
    }

    /// Ends and removes whatever has this id; absent is fine.
    fn remove(&self) {
        let Self { namespace, id } = self;
        let remove = format!(
            "ctr -n {namespace} tasks rm -f {id}; \
             ctr -n {namespace} containers rm {id} || ctr -n {namespace} snapshots rm {id}"
        );
        drop(try_sh(&remove));
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Ends the test as skipped and prints why: `skip!("no python3 on this node")`. `cargo lab test` compares what was
/// skipped with `tests/lab/skips.txt`.
#[allow(unused_macros, reason = "most suites skip nothing")]
macro_rules! skip {
    ($($reason:tt)+) => {{
        eprintln!("skipped: {}", format_args!($($reason)+));
        return;
    }};
}
#[allow(unused_imports, reason = "most suites skip nothing")]
pub(crate) use skip;
