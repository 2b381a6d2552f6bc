//! `cargo lab test`: the checks on the machine that builds, then every suite on a node of every generation.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::binaries::{self, Executable};
use crate::checks;
use crate::child;
use crate::cli::{TestArgs, Variable};
use crate::error::LabError;
use crate::generation::{Generation, Recipe};
use crate::libtest;
use crate::machine::Owned;
use crate::node;
use crate::progress::Progress;
use crate::report::{self, Outcome};
use crate::ssh::{self, Connection};
use crate::store::{self, Store};
use crate::sync;

/// Which tests of a suite.
#[derive(Clone)]
enum Which {
    All,
    /// Those whose names contain one of these.
    Containing(Vec<String>),
    /// Those of these names.
    Named(Vec<String>),
}

/// What a run is to do.
struct Plan {
    checks: Vec<&'static str>,
    suites: Vec<String>,
    generations: Vec<Generation>,
    bound: Duration,
    /// For the suites in the nodes.
    environment: Vec<Variable>,
    which: Which,
    /// Whether tests that fail in a node are run once more in another.
    tries_again: bool,
    logs: PathBuf,
    /// What a whole run leaves out; empty when suites were named.
    left_out: Vec<report::Unproven>,
}

/// The committed list of skips.
const SKIPS: &str = include_str!("../skips.txt");
/// The committed list of suites that a whole run leaves out, and where.
const UNPROVEN: &str = include_str!("../unproven.txt");

/// Suites whose nodes have other container engines too.
const ENGINES_PREFIX: &str = "vm_engines";

/// Nodes at the same time, by default: one node alone leaves a second processor idle while it waits.
pub(crate) const DEFAULT_JOBS: u8 = 2;

/// What ssh exits with when the connection broke: the node may have gone down with the suite.
const SSH_LOST: i32 = 255;

/// How long a kernel takes from its panic to QEMU's end.
const END_OF_NODE: Duration = Duration::from_secs(15);

/// How often the log of a running suite is looked at for progress.
const LOOK: Duration = Duration::from_millis(500);

/// Runs what was asked for; an error when anything failed.
pub(crate) fn test(store: &Store, arguments: &TestArgs, progress: &Progress) -> Result<(), LabError> {
    let begun = Instant::now();
    let plan = plan(arguments)?;
    let mut outcomes = Vec::new();
    for check in &plan.checks {
        outcomes.push(checks::run(check, &plan.logs, progress)?);
    }
    if !plan.suites.is_empty() {
        run_in_machines(store, &plan, arguments, &mut outcomes, progress)?;
    }
    conclude(&plan, &outcomes, begun, progress)
}

/// No suite named means all of them, and the checks.
fn plan(arguments: &TestArgs) -> Result<Plan, LabError> {
    let known = binaries::list_suites()?;
    let everything = arguments.suites.is_empty();
    let mut plan = Plan {
        checks: if everything { checks::names() } else { Vec::new() },
        suites: if everything { known.clone() } else { Vec::new() },
        generations: if arguments.generation.is_empty() {
            Generation::ALL.to_vec()
        } else {
            arguments.generation.clone()
        },
        bound: Duration::from_secs(arguments.bound),
        environment: arguments.env.clone(),
        which: if arguments.only.is_empty() { Which::All } else { Which::Containing(arguments.only.clone()) },
        tries_again: everything,
        logs: binaries::workspace().join("target/lab"),
        left_out: if everything { report::parse_unproven(UNPROVEN) } else { Vec::new() },
    };
    for name in &arguments.suites {
        let prefixed = format!("vm_{name}");
        if let Some(check) = checks::names().into_iter().find(|check| check == name) {
            plan.checks.push(check);
        } else if let Some(suite) = known.iter().find(|suite| *suite == name || **suite == prefixed) {
            plan.suites.push(suite.clone());
        } else {
            let known: Vec<String> = checks::names().into_iter().map(str::to_owned).chain(known).collect();
            return Err(LabError::NoSuchSuite {
                name: name.escape_debug().take(80).collect(),
                known: known.join(", "),
            });
        }
    }
    store::make_private_directory(&plan.logs)?;
    Ok(plan)
}

/// A suite to run on a node of its own.
#[derive(Clone, Copy)]
struct Job<'a> {
    suite: &'a Executable,
    recipe: Recipe,
}

/// What all workers share.
struct Yard<'a> {
    store: &'a Store,
    plan: &'a Plan,
    arguments: &'a TestArgs,
    programs: &'a [Executable],
    progress: &'a Progress,
    jobs: Mutex<VecDeque<Job<'a>>>,
    outcomes: Mutex<Vec<Outcome>>,
}

/// Every suite gets a node of its own, so that no suite depends on what another one left behind.
fn run_in_machines(
    store: &Store,
    plan: &Plan,
    arguments: &TestArgs,
    outcomes: &mut Vec<Outcome>,
    progress: &Progress,
) -> Result<(), LabError> {
    let programs = binaries::build_programs(progress)?;
    let suites = binaries::build_suites(&plan.suites, progress)?;
    let of = |generation: &Generation| {
        let recipe = |suite: &Executable| Recipe {
            generation: *generation,
            engines: suite.name.starts_with(ENGINES_PREFIX),
        };
        let left_out =
            |suite: &&Executable| plan.left_out.iter().any(|one| one.covers(generation.name(), &suite.name));
        let wanted = suites.iter().filter(|suite| !left_out(suite));
        wanted.map(|suite| Job { suite, recipe: recipe(suite) }).collect::<Vec<_>>()
    };
    let jobs = Mutex::new(plan.generations.iter().flat_map(of).collect());
    let yard =
        Yard { store, plan, arguments, programs: &programs, progress, jobs, outcomes: Mutex::default() };
    let shared = &yard;
    let ended: Vec<Result<(), LabError>> = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..arguments.jobs).map(|worker| scope.spawn(move || work(shared, worker))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(Err(LabError::Interrupted))).collect()
    });
    outcomes.extend(yard.outcomes.into_inner().unwrap_or_default());
    let order = |outcome: &Outcome| plan.generations.iter().position(|g| g.name() == outcome.place);
    outcomes.sort_by(|a, b| (order(a), &a.suite).cmp(&(order(b), &b.suite)));
    ended.into_iter().collect()
}

/// Takes one job after another until there are none, or one could not be done for a reason that concerns them all.
fn work(yard: &Yard<'_>, worker: u8) -> Result<(), LabError> {
    while let Some(job) = yard.jobs.lock().ok().and_then(|mut jobs| jobs.pop_front()) {
        let begun = Instant::now();
        let outcome = match run_and_try_again(yard, job, worker) {
            Ok(outcome) => outcome,
            Err(error @ (LabError::NoBoot { .. } | LabError::Failed { .. } | LabError::TimedOut { .. })) => {
                yard.progress.report(&error);
                let (suite, place) = (job.suite.name.clone(), job.recipe.generation.to_string());
                let seconds = begun.elapsed().as_secs();
                Outcome { suite, place, failed: 1, seconds, ..Outcome::default() }
            }
            Err(error) => return Err(error),
        };
        if let Ok(mut outcomes) = yard.outcomes.lock() {
            outcomes.push(outcome);
        }
    }
    Ok(())
}

/// The tests that failed once more in another node: containerd bounds some of its own steps by fractions of a second, which an
/// emulated processor of a busy machine does not always keep. What passes then is reported as flaky, with what it said. All tests
/// of the suite where the node went down: kernels have died of wrong translations.
fn run_and_try_again(yard: &Yard<'_>, job: Job<'_>, worker: u8) -> Result<Outcome, LabError> {
    let outcome = run_job(yard, job, &yard.plan.which, worker)?;
    if !yard.plan.tries_again || !outcome.can_be_tried_again() {
        return Ok(outcome);
    }
    let named = outcome.failures.iter().map(|failure| failure.test.clone()).collect();
    let which = if outcome.lost_node.is_some() { yard.plan.which.clone() } else { Which::Named(named) };
    let again = run_job(yard, job, &which, worker)?;
    Ok(outcome.after_another_try(again))
}

fn run_job(yard: &Yard<'_>, job: Job<'_>, which: &Which, worker: u8) -> Result<Outcome, LabError> {
    let Yard { store, plan, arguments, programs, progress, .. } = yard;
    let name = format!("test-{}-{}-{worker}", job.recipe.generation, std::process::id());
    let owned = node::boot(store, job.recipe, &name, &arguments.hardware, progress)?;
    sync::programs(store, &owned.machine, programs, progress)?;
    sync::suites(store, &owned.machine, std::slice::from_ref(job.suite), progress)?;
    run_suite(store, plan, &owned, job.suite, which, progress)
}

/// Runs one suite in a node, within the bound; shows everything when it fails.
fn run_suite(
    store: &Store,
    plan: &Plan,
    owned: &Owned,
    suite: &Executable,
    which: &Which,
    progress: &Progress,
) -> Result<Outcome, LabError> {
    let generation = owned.machine.recipe.generation;
    let (again, what) =
        if matches!(which, Which::Named(_)) { ("-again", ", what failed once more") } else { ("", "") };
    let step = progress.begin(format!("suite {} on {generation}{what}", suite.name));
    let begun = Instant::now();
    let log = plan.logs.join(format!("{generation}-{}{again}.log", suite.name));
    let file = fs::File::create(&log).map_err(LabError::file("create", &log))?;
    let twin = file.try_clone().map_err(LabError::file("duplicate", &log))?;
    let line = command_line(plan, &suite.name, which);
    let mut command = Connection::to(store, &owned.machine).shell_command(&line);
    let spawned = command.stdin(Stdio::null()).stdout(file).stderr(twin).spawn();
    let mut running = spawned.map_err(|source| LabError::Spawn { program: "ssh".into(), source })?;
    // The node's own bound comes first; this one is for a node that hangs.
    let patience = plan.bound + Duration::from_secs(30);
    let mut looked = Instant::now();
    let ended = child::wait_watching(&mut running, patience, &mut || {
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            step.update(&format!("{} tests", libtest::count_finished(&read_lossy(&log))));
        }
        owned.is_up()
    })?;
    let text = read_lossy(&log);
    let counts = libtest::parse(&text);
    let found = counts.passed > 0 || !counts.skipped.is_empty();
    let good = ended.is_some_and(|status| status.success()) && counts.complete && counts.failed == 0 && found;
    let mut outcome = Outcome {
        suite: suite.name.clone(),
        place: generation.to_string(),
        passed: counts.passed,
        failed: if good { 0 } else { counts.failed.max(1) },
        failures: counts.failures,
        flaky: Vec::new(),
        lost_node: None,
        skipped: counts.skipped,
        seconds: begun.elapsed().as_secs(),
    };
    if good {
        step.done(&format!("{} passed", outcome.passed));
    } else {
        if ended.and_then(|status| status.code()) == Some(SSH_LOST) {
            owned.await_end(END_OF_NODE)?;
        }
        if !owned.is_up() {
            outcome.lost_node = Some(owned.machine.console_tail());
        }
        show_failure(owned, &text, progress);
        let ending = if counts.complete && counts.failed == 0 && !found {
            "has no such test".to_owned()
        } else {
            ended.map_or("was killed".to_owned(), |status| describe_ending(status.code(), plan.bound))
        };
        step.done(&format!("FAILED: {} failed, {} passed; the suite {ending}", counts.failed, counts.passed));
    }
    Ok(outcome)
}

/// What the node's shell is to run.
fn command_line(plan: &Plan, suite: &str, which: &Which) -> String {
    let variables = plan.environment.iter().map(|one| format!("{}={} ", one.name, ssh::quote(&one.value)));
    let (exact, names) = match which {
        Which::All => ("", [].as_slice()),
        Which::Containing(parts) => ("", parts.as_slice()),
        Which::Named(names) => (" --exact", names.as_slice()),
    };
    let names = names.iter().map(|name| format!(" {}", ssh::quote(name)));
    format!(
        "cd /root && RUST_BACKTRACE=1 {}exec timeout --kill-after=10 {} /opt/lab/suites/{suite} --test-threads=1 --show-output{exact} --{}",
        variables.collect::<String>(),
        plan.bound.as_secs(),
        names.collect::<String>(),
    )
}

fn describe_ending(code: Option<i32>, bound: Duration) -> String {
    match code {
        Some(124 | 137) => format!("was killed after {} s", bound.as_secs()),
        Some(101) => "reported failures".into(),
        Some(code) => format!("ended with status {code}"),
        None => "was killed".into(),
    }
}

/// The suite's whole output, and the console's end when the node is gone.
fn show_failure(owned: &Owned, text: &str, progress: &Progress) {
    progress.result(&child::printable(text));
    if !owned.is_up() {
        progress.result(&format!("the node is gone; end of its console:\n{}", owned.machine.console_tail()));
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// The table, the skips, and the closing line; an error when anything failed or the skips are not the listed ones.
fn conclude(plan: &Plan, outcomes: &[Outcome], begun: Instant, progress: &Progress) -> Result<(), LabError> {
    let generations: Vec<String> = plan.generations.iter().map(ToString::to_string).collect();
    let expected = report::parse_expected_skips(SKIPS, &generations);
    // Of some tests alone it cannot be told whether a listed skip is missing.
    let differences = if matches!(plan.which, Which::All) {
        report::compare_skips(outcomes, &expected)
    } else {
        Vec::new()
    };
    progress.result(&format!("\n{}\n", report::render_table(outcomes)));
    for outcome in outcomes {
        for skip in &outcome.skipped {
            let Outcome { place, suite, .. } = outcome;
            progress.result(&format!("skipped on {place}: {suite}::{}: {}", skip.test, skip.reason));
        }
    }
    for generation in &generations {
        for one in plan.left_out.iter().filter(|one| one.covers(generation, &one.suite)) {
            progress.result(&format!("not run on {generation}: {}: {}", one.suite, one.reason));
        }
    }
    let failures = report::render_failures(outcomes);
    if !failures.is_empty() {
        progress.result(&child::printable(&failures));
    }
    for difference in &differences {
        progress.result(difference);
    }
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    progress.result(&format!("{minutes:.1} minutes; logs in {}", plan.logs.display()));
    progress.result(&report::render_closing_line(outcomes));
    let failed = outcomes.iter().filter(|outcome| outcome.failed > 0).count();
    if failed > 0 {
        return Err(LabError::TestsFailed { what: format!("{failed} suites failed") });
    }
    if !differences.is_empty() {
        return Err(LabError::TestsFailed { what: "the skips are not those of tests/lab/skips.txt".into() });
    }
    Ok(())
}
