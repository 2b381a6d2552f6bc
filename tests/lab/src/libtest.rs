//! Reads what Rust's test harness prints.

/// A test that said it could not be done here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Skip {
    /// The test's path in its crate.
    pub(crate) test: String,
    /// Its own words.
    pub(crate) reason: String,
}

/// What one or more test binaries reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Tests that passed, those that said they were skipped not among them.
    pub(crate) passed: usize,
    /// Tests that failed.
    pub(crate) failed: usize,
    /// Tests that were ignored or said `skipped: REASON`.
    pub(crate) skipped: Vec<Skip>,
    /// Whether every binary that began a run also ended it.
    pub(crate) complete: bool,
}

/// What a test prints, alone on its line, before it returns without having tested.
const SKIPPED: &str = "skipped: ";

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
        } else if let Some(test) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
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
    counts
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

running 1 test
test d ... FAILED

failures:

---- d stdout ----
thread 'd' panicked at src/lib.rs:1:1:

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn counts_passed_failed_and_skipped() {
        let counts = parse(TWO_BINARIES);
        assert_eq!((counts.passed, counts.failed, counts.complete), (1, 1, true));
        let skipped: Vec<_> = counts.skipped.iter().map(|s| (s.test.as_str(), s.reason.as_str())).collect();
        assert_eq!(skipped, [("b", "needs a moon"), ("c", "no python3 on this node")]);
    }

    #[test]
    fn a_binary_that_dies_is_incomplete() {
        let counts = parse("running 3 tests\ntest a ... ok\ntest b ... FAILED\ntest c ... ");
        assert_eq!((counts.passed, counts.failed, counts.complete), (1, 1, false));
        assert!(!parse("").complete);
    }
}
