//! Reads what Rust's test harness prints.

/// A test that said it could not be done here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Skip {
    /// The test's path in its crate.
    pub(crate) test: String,
    /// Its own words.
    pub(crate) reason: String,
}

/// A test that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The test's path in its crate.
    pub(crate) test: String,
    /// Where it panicked and what it said, the first lines of that; empty when it said nothing.
    pub(crate) words: String,
}

/// What one or more test binaries reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Tests that passed, those that said they were skipped not among them.
    pub(crate) passed: usize,
    /// Tests that failed.
    pub(crate) failed: usize,
    /// Those of them that the harness got to show.
    pub(crate) failures: Vec<Failure>,
    /// Tests that were ignored or said `skipped: REASON`.
    pub(crate) skipped: Vec<Skip>,
    /// Whether every binary that began a run also ended it.
    pub(crate) complete: bool,
}

/// What a test prints, alone on its line, before it returns without having tested.
const SKIPPED: &str = "skipped: ";

/// How many lines of a failure's words are kept: an assertion on two long texts has few, a diff of them many.
const WORDS: usize = 12;

/// Reads the output of `cargo test` or of test binaries, run with `--show-output`.
pub(crate) fn parse(text: &str) -> Counts {
    let mut counts = Counts::default();
    let (mut begun, mut ended, mut said_skipped) = (0, 0, 0);
    // Tests of the binary at hand that passed and failed, for a binary that never says its result.
    let (mut passing, mut failing) = (0, 0);
    let mut shown = None;
    for line in text.lines() {
        if is_start(line) {
            begun += 1;
            counts.passed += std::mem::take(&mut passing);
            counts.failed += std::mem::take(&mut failing);
        } else if let Some((passed, failed)) = parse_result(line) {
            ended += 1;
            (passing, failing) = (0, 0);
            counts.passed += passed;
            counts.failed += failed;
        } else if let Some(skip) = parse_ignored(line) {
            counts.skipped.push(skip);
        } else if line.starts_with("test ") && line.ends_with(" ... ok") {
            passing += 1;
        } else if line.starts_with("test ") && line.ends_with(" ... FAILED") {
            failing += 1;
        } else if let Some(test) = parse_shown(line) {
            shown = Some(test);
        } else if let Some((test, reason)) = shown.zip(line.strip_prefix(SKIPPED)) {
            // The harness takes it for passed. Whatever else it prints is its own.
            shown = None;
            said_skipped += 1;
            counts.skipped.push(Skip { test: test.into(), reason: reason.into() });
        }
    }
    counts.passed = (counts.passed + passing).saturating_sub(said_skipped);
    counts.failed += failing;
    counts.complete = begun > 0 && begun == ended;
    counts.failures = parse_failures(text);
    counts
}

/// What the harness shows between `failures:` and the list of their names: `---- TEST stdout ----` and the test's output.
fn parse_failures(text: &str) -> Vec<Failure> {
    let mut failures: Vec<Failure> = Vec::new();
    let (mut in_failures, mut panicked) = (false, false);
    for line in text.lines() {
        if line == "failures:" || is_start(line) || line == "successes:" {
            (in_failures, panicked) = (line == "failures:", false);
        } else if !in_failures {
            continue;
        } else if let Some(test) = parse_shown(line) {
            panicked = false;
            failures.push(Failure { test: test.into(), words: String::new() });
        } else if let Some(failure) = failures.last_mut() {
            panicked |= line.starts_with("thread '") && line.contains(" panicked at ");
            // Behind the words comes the way there.
            panicked &= line != "stack backtrace:" && !line.starts_with("note: ");
            if panicked && failure.words.lines().count() < WORDS {
                failure.words += line;
                failure.words.push('\n');
            }
        }
    }
    failures
}

/// `---- TEST stdout ----`
fn parse_shown(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// How many tests a running binary has finished: for progress.
pub(crate) fn count_finished(text: &str) -> usize {
    let finished = |line: &&str| line.starts_with("test ") && line.contains(" ... ");
    text.lines().filter(finished).count()
}

/// `running 3 tests`
fn is_start(line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    matches!(words[..], ["running", count, "test" | "tests"] if count.parse::<usize>().is_ok())
}

/// `test result: ok. 3 passed; 0 failed; 0 ignored; …`
fn parse_result(line: &str) -> Option<(usize, usize)> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |word: &str| {
        let before = rest.split(word).next()?;
        before.split_whitespace().last()?.parse().ok()
    };
    Some((number(" passed")?, number(" failed")?))
}

/// `test name ... ignored` or `test name ... ignored, reason`
fn parse_ignored(line: &str) -> Option<Skip> {
    let (test, rest) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    let reason = rest.strip_prefix(", ").unwrap_or("ignored without a reason");
    Some(Skip { test: test.into(), reason: reason.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_BINARIES: &str = "\
running 3 tests
test a ... ok
test b ... ignored, needs a moon
test c ... ok

successes:

---- c stdout ----
skipped: no python3 on this node

successes:
    a
    c

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 2 tests
test d ... FAILED
test e ... FAILED

failures:

---- d stdout ----
what it did before

thread 'd' panicked at src/lib.rs:1:1:
assertion failed: left
and right
stack backtrace:
   0: core::panicking::panic_fmt
note: Some details are omitted

---- e stdout ----
error: it said no more


failures:
    d
    e

test result: FAILED. 0 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn counts_passed_failed_and_skipped() {
        let counts = parse(TWO_BINARIES);
        assert_eq!((counts.passed, counts.failed, counts.complete), (1, 2, true));
        let skipped: Vec<_> = counts.skipped.iter().map(|s| (s.test.as_str(), s.reason.as_str())).collect();
        assert_eq!(skipped, [("b", "needs a moon"), ("c", "no python3 on this node")]);
    }

    #[test]
    fn a_failure_has_the_words_of_its_panic() {
        let failures = parse(TWO_BINARIES).failures;
        let told: Vec<_> = failures.iter().map(|one| (one.test.as_str(), one.words.as_str())).collect();
        let words = "thread 'd' panicked at src/lib.rs:1:1:\nassertion failed: left\nand right\n";
        assert_eq!(told, [("d", words), ("e", "")]);
        let long = format!(
            "running 1 test\nfailures:\n---- d stdout ----\nthread 'd' panicked at x:\n{}",
            "more\n".repeat(100)
        );
        assert_eq!(parse(&long).failures[0].words.lines().count(), WORDS);
    }

    #[test]
    fn a_binary_that_dies_is_incomplete() {
        let counts = parse("running 3 tests\ntest a ... ok\ntest b ... FAILED\ntest c ... ");
        assert_eq!((counts.passed, counts.failed, counts.complete), (1, 1, false));
        assert!(!parse("").complete);
    }
}
