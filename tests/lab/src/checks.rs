//! The checks that need no VM: formatting, lints, and all tests that run on the machine that builds.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::binaries;
use crate::child;
use crate::error::LabError;
use crate::libtest;
use crate::progress::Progress;
use crate::report::{HOST, Outcome};

/// A check: its name and cargo's arguments.
struct Check {
    name: &'static str,
    arguments: &'static [&'static str],
}

const CHECKS: &[Check] = &[
    Check { name: "fmt", arguments: &["fmt", "--all", "--check"] },
    Check { name: "fmt-fuzz", arguments: &["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"] },
    Check {
        name: "clippy",
        arguments: &["clippy", "--workspace", "--all-targets", "--all-features", "--", "--deny", "warnings"],
    },
    Check { name: TESTS, arguments: &["test", "--workspace", "--no-fail-fast", "--", "--show-output"] },
];

/// The one check whose output is the test harness's.
const TESTS: &str = "tests";

/// A cold build and everything there is, on two cores.
const CHECK_BOUND: Duration = Duration::from_secs(30 * 60);

/// The checks' names.
pub(crate) fn names() -> Vec<&'static str> {
    CHECKS.iter().map(|check| check.name).collect()
}

/// Runs the check of that name, its output in `logs`; shown when it fails.
pub(crate) fn run(name: &str, logs: &Path, progress: &Progress) -> Result<Outcome, LabError> {
    let unknown = || LabError::NoSuchSuite { name: name.into(), known: names().join(", ") };
    let check = CHECKS.iter().find(|check| check.name == name).ok_or_else(unknown)?;
    let step = progress.begin(format!("check: {name}"));
    let begun = Instant::now();
    let log = logs.join(format!("{HOST}-{name}.log"));
    let mut cargo = binaries::cargo();
    let ended = child::run_for_status(cargo.args(check.arguments), "check", &log, CHECK_BOUND);
    let good = match ended {
        Ok(status) => status.success(),
        Err(LabError::TimedOut { .. }) => false,
        Err(error) => return Err(error),
    };
    let bytes = fs::read(&log).map_err(LabError::file("read", &log))?;
    let text = String::from_utf8_lossy(&bytes);
    let counts = if check.name == TESTS { libtest::parse(&text) } else { libtest::Counts::default() };
    let outcome = Outcome {
        suite: name.into(),
        place: HOST.into(),
        passed: if check.name == TESTS { counts.passed } else { usize::from(good) },
        failed: if good { counts.failed } else { counts.failed.max(1) },
        failures: counts.failures,
        flaky: Vec::new(),
        lost_node: None,
        skipped: counts.skipped,
        seconds: begun.elapsed().as_secs(),
    };
    if good {
        step.done("ok");
    } else {
        progress.result(&child::printable(&text));
        step.done("FAILED");
    }
    Ok(outcome)
}
