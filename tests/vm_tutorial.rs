//! The pages of the tutorial that take containerd run as they say.

#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

#[path = "support/page.rs"]
mod page;
mod support;
#[path = "support/tutorial.rs"]
mod tutorial;

use tutorial::run_page;

#[test]
fn phase_2_runs_as_the_page_says() {
    run_page(include_str!("../docs/phase-2.md"));
}

#[test]
fn phase_3_runs_as_the_page_says() {
    run_page(include_str!("../docs/phase-3.md"));
}
