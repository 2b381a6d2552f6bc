//! What a whole test run came to: a table of suites and places, the skips, one closing line.

use std::collections::{BTreeMap, BTreeSet};

use crate::libtest::{Failure, Skip};

/// One suite on one generation, or one check on the machine that builds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// `vm_tree`, `clippy`.
    pub(crate) suite: String,
    /// A generation, or [`HOST`].
    pub(crate) place: String,
    /// Tests that passed.
    pub(crate) passed: usize,
    /// Tests that failed, one at least when the suite did not end well.
    pub(crate) failed: usize,
    /// Those of them that the harness showed.
    pub(crate) failures: Vec<Failure>,
    /// Tests that failed, and passed when they were run once more on a fresh node: among those that passed.
    pub(crate) flaky: Vec<Failure>,
    /// The end of the console of a node that went down under the suite.
    pub(crate) lost_node: Option<String>,
    /// What was skipped, with reasons.
    pub(crate) skipped: Vec<Skip>,
    /// How long it took.
    pub(crate) seconds: u64,
}

impl Outcome {
    /// Whether a second run can tell more: the node went down, or the suite got to its end, so that it is known which tests
    /// failed, and they are few enough to have failed by chance.
    pub(crate) fn can_be_tried_again(&self) -> bool {
        self.lost_node.is_some() || (1..=FEW).contains(&self.failed) && self.failed == self.failures.len()
    }

    /// What both runs came to, when `again` ran the tests that had failed, or all of them after the node went down.
    pub(crate) fn after_another_try(mut self, again: Outcome) -> Outcome {
        self.seconds += again.seconds;
        if self.lost_node.is_some() {
            return Outcome { seconds: self.seconds, lost_node: self.lost_node, ..again };
        }
        // A second run that broke off tells nothing of any of them.
        if again.failed == again.failures.len() {
            let failed_twice = |one: &Failure| again.failures.iter().any(|other| other.test == one.test);
            let (failures, flaky) = self.failures.into_iter().partition(failed_twice);
            (self.failures, self.flaky) = (failures, flaky);
            self.failed = self.failures.len();
            self.passed += self.flaky.len();
        }
        self
    }
}

/// The most tests of one suite that fail by chance.
const FEW: usize = 3;

/// How much of a console is shown at the end of a run: a kernel's last words.
const CONSOLE_LINES: usize = 25;

/// The place of checks that need no VM.
pub(crate) const HOST: &str = "host";

/// The committed list of skips: `PLACE SUITE::TEST`, a place of `*` for all generations; `#` begins a comment.
/// Tests on the machine that builds skip by what that machine is, so only the VM's are listed.
pub(crate) fn parse_expected_skips(text: &str, generations: &[String]) -> BTreeSet<String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let entries = lines.filter_map(|line| line.split_once(' '));
    let mut expected = BTreeSet::new();
    for (place, test) in entries {
        let places = generations.iter().filter(|generation| place == "*" || place == *generation);
        expected.extend(places.map(|generation| format!("{generation} {}", test.trim())));
    }
    expected
}

/// A suite that is not part of a whole run on a place yet: `PLACE SUITE  # why`, a place of `*` for all generations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unproven {
    /// A generation, or `*`.
    place: String,
    /// `vm_swap`
    pub(crate) suite: String,
    /// Why.
    pub(crate) reason: String,
}

impl Unproven {
    /// Whether it speaks of this suite on this generation.
    pub(crate) fn covers(&self, place: &str, suite: &str) -> bool {
        (self.place == "*" || self.place == place) && self.suite == suite
    }
}

/// The committed list of suites that a whole run leaves out; naming a suite runs it all the same.
pub(crate) fn parse_unproven(text: &str) -> Vec<Unproven> {
    let entries = text.lines().filter_map(|line| {
        let (entry, reason) = line.split_once('#')?;
        let (place, suite) = entry.trim().split_once(' ')?;
        let (place, suite, reason) = (place.to_owned(), suite.trim().to_owned(), reason.trim().to_owned());
        Some(Unproven { place, suite, reason })
    });
    entries.collect()
}

/// Where the skips of `outcomes` differ from the expected ones, one line each. Only suites that ran count.
pub(crate) fn compare_skips(outcomes: &[Outcome], expected: &BTreeSet<String>) -> Vec<String> {
    let in_vm = || outcomes.iter().filter(|outcome| outcome.place != HOST);
    let seen: BTreeSet<String> = in_vm()
        .flat_map(|outcome| {
            let Outcome { place, suite, skipped, .. } = outcome;
            skipped.iter().map(move |skip| format!("{place} {suite}::{}", skip.test))
        })
        .collect();
    let ran = |entry: &String| {
        in_vm().any(|outcome| entry.starts_with(&format!("{} {}::", outcome.place, outcome.suite)))
    };
    let surplus =
        seen.difference(expected).map(|entry| format!("skipped, but not listed in skips.txt: {entry}"));
    let absent = expected.difference(&seen).filter(|entry| ran(entry));
    surplus.chain(absent.map(|entry| format!("listed in skips.txt, but not skipped: {entry}"))).collect()
}

/// The table: a row per suite, a column per place.
pub(crate) fn render_table(outcomes: &[Outcome]) -> String {
    let mut places: Vec<&str> = Vec::new();
    let mut rows: BTreeMap<usize, (&str, BTreeMap<&str, String>)> = BTreeMap::new();
    for outcome in outcomes {
        if !places.contains(&outcome.place.as_str()) {
            places.push(&outcome.place);
        }
        let index =
            rows.iter().find(|(_, row)| row.0 == outcome.suite).map_or(rows.len(), |(index, _)| *index);
        let row = rows.entry(index).or_insert_with(|| (&outcome.suite, BTreeMap::new()));
        row.1.insert(&outcome.place, render_cell(outcome));
    }
    let mut table = vec![std::iter::once("suite").chain(places.iter().copied()).map(str::to_owned).collect()];
    for (suite, cells) in rows.values() {
        let cell = |place: &&str| cells.get(place).cloned().unwrap_or_else(|| "-".into());
        table.push(std::iter::once((*suite).to_owned()).chain(places.iter().map(cell)).collect::<Vec<_>>());
    }
    align(&table)
}

/// What failed and what is flaky, each with its words.
pub(crate) fn render_failures(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for outcome in outcomes {
        let Outcome { place, suite, .. } = outcome;
        if let Some(console) = &outcome.lost_node {
            text += &format!("the node of {suite} on {place} went down; the end of its console:\n");
            let lines: Vec<&str> = console.lines().collect();
            let end = &lines[lines.len().saturating_sub(CONSOLE_LINES)..];
            text.extend(end.iter().map(|line| format!("    {line}\n")));
        }
        let unnamed = outcome.failed.saturating_sub(outcome.failures.len());
        if unnamed > 0 {
            text += &format!("failed on {place}: {suite}: {unnamed} that no words are known of\n");
        }
        let failed = outcome.failures.iter().map(|one| (one, "failed", ""));
        let flaky = outcome.flaky.iter().map(|one| (one, "flaky", ": it passed on another node after this"));
        for (failure, what, why) in failed.chain(flaky) {
            text += &format!("{what} on {place}: {suite}::{}{why}\n", failure.test);
            text.extend(failure.words.lines().map(|line| format!("    {line}\n")));
        }
    }
    text
}

/// `12 passed, 1 failed, 2 skipped, 34 s`
fn render_cell(outcome: &Outcome) -> String {
    let mut cell = format!("{} passed", outcome.passed);
    if outcome.failed > 0 {
        cell += &format!(", {} FAILED", outcome.failed);
    }
    if !outcome.flaky.is_empty() {
        cell += &format!(", {} of them flaky", outcome.flaky.len());
    }
    if !outcome.skipped.is_empty() {
        cell += &format!(", {} skipped", outcome.skipped.len());
    }
    cell + &format!(", {} s", outcome.seconds)
}

fn align(table: &[Vec<String>]) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or_default();
    let width =
        |column: usize| table.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    table.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// `N passed, N failed`, and what was skipped if anything was.
pub(crate) fn render_closing_line(outcomes: &[Outcome]) -> String {
    let sum = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).sum::<usize>();
    let line = format!("{} passed, {} failed", sum(|o| o.passed), sum(|o| o.failed));
    match sum(|outcome| outcome.skipped.len()) {
        0 => line,
        skipped => format!("{line}, {skipped} skipped"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(suite: &str, place: &str, failed: usize, skipped: &[&str]) -> Outcome {
        let skip = |test: &&str| Skip { test: (*test).into(), reason: "because".into() };
        let skipped = skipped.iter().map(skip).collect();
        let (suite, place) = (suite.into(), place.into());
        Outcome { suite, place, passed: 2, failed, skipped, seconds: 5, ..Outcome::default() }
    }

    /// An outcome with failures of these names.
    fn failing(names: &[&str]) -> Outcome {
        let failure = |name: &&str| Failure { test: (*name).into(), words: format!("{name} panicked\n") };
        Outcome {
            failures: names.iter().map(failure).collect(),
            ..outcome("vm_a", "forky", names.len(), &[])
        }
    }

    #[test]
    fn what_passes_at_the_second_try_is_flaky_and_what_does_not_has_failed() {
        let first = failing(&["x", "y"]);
        assert!(first.can_be_tried_again());
        let merged = first.after_another_try(failing(&["y"]));
        assert_eq!((merged.passed, merged.failed, merged.seconds), (3, 1, 10));
        assert_eq!(render_cell(&merged), "3 passed, 1 FAILED, 1 of them flaky, 10 s");
        let told = "failed on forky: vm_a::y\n    y panicked\n\
                    flaky on forky: vm_a::x: it passed on another node after this\n    x panicked\n";
        assert_eq!(render_failures(&[merged]), told);
    }

    #[test]
    fn a_suite_that_broke_off_is_not_tried_again_and_clears_nobody() {
        let broken = Outcome { failed: 1, ..failing(&[]) };
        assert!(!broken.can_be_tried_again() && !outcome("vm_a", "forky", 0, &[]).can_be_tried_again());
        assert!(!failing(&["a", "b", "c", "d"]).can_be_tried_again(), "so many do not fail by chance");
        let merged = failing(&["x"]).after_another_try(broken.clone());
        assert_eq!((merged.passed, merged.failed), (2, 1));
        assert_eq!(render_failures(&[broken]), "failed on forky: vm_a: 1 that no words are known of\n");
    }

    #[test]
    fn a_suite_whose_node_went_down_is_run_again_whole() {
        let lost = Outcome { lost_node: Some("a panic".into()), passed: 0, failed: 1, ..failing(&[]) };
        assert!(lost.can_be_tried_again());
        let merged = lost.after_another_try(outcome("vm_a", "forky", 0, &["z"]));
        assert_eq!((merged.passed, merged.failed, merged.skipped.len(), merged.seconds), (2, 0, 1, 10));
        let told = "the node of vm_a on forky went down; the end of its console:\n    a panic\n";
        assert_eq!(render_failures(&[merged]), told);
    }

    #[test]
    fn an_unproven_suite_is_left_out_where_it_is_listed() {
        let listed = parse_unproven("# a comment\nforky vm_swap  # slow\n* vm_x  # new\n");
        assert_eq!(listed.len(), 2);
        assert!(listed[0].covers("forky", "vm_swap") && !listed[0].covers("trixie", "vm_swap"));
        assert!(listed[1].covers("trixie", "vm_x"));
        assert_eq!(listed[0].reason, "slow");
    }

    #[test]
    fn skips_are_compared_both_ways() {
        let generations = ["bookworm".to_owned(), "trixie".to_owned()];
        let list = "# reasons\nbookworm vm_a::x  # no python3\n* vm_b::y\n";
        let expected = parse_expected_skips(list, &generations);
        assert_eq!(expected.len(), 3);
        let outcomes = [outcome("vm_a", "bookworm", 0, &["x", "new"]), outcome("vm_a", HOST, 0, &["z"])];
        let differences = compare_skips(&outcomes, &expected);
        assert_eq!(differences, ["skipped, but not listed in skips.txt: bookworm vm_a::new"]);
        let differences = compare_skips(&[outcome("vm_b", "trixie", 0, &[])], &expected);
        assert_eq!(differences, ["listed in skips.txt, but not skipped: trixie vm_b::y"]);
    }

    #[test]
    fn the_table_has_a_row_per_suite_and_a_column_per_place() {
        let outcomes = [
            outcome("clippy", HOST, 0, &[]),
            outcome("vm_a", "bookworm", 1, &[]),
            outcome("vm_a", "trixie", 0, &["x"]),
        ];
        let expected = "suite   host           bookworm                 trixie\n\
                        clippy  2 passed, 5 s  -                        -\n\
                        vm_a    -              2 passed, 1 FAILED, 5 s  2 passed, 1 skipped, 5 s";
        assert_eq!(render_table(&outcomes), expected);
        assert_eq!(render_closing_line(&outcomes), "6 passed, 1 failed, 1 skipped");
    }
}
