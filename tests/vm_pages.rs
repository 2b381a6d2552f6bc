//! The first page of the tutorial runs as it says.

#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

#[path = "support/page.rs"]
mod page;
mod support;
#[path = "support/tutorial.rs"]
mod tutorial;

use tutorial::run_page;

#[test]
fn phase_1_runs_as_the_page_says() {
    run_page(include_str!("../docs/phase-1.md"));
}
