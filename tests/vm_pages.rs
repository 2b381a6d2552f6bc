//! The pages of the tutorial run as they say: every command on the node, every shown output compared.

#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

#[path = "support/page.rs"]
mod page;
mod support;

use std::process::{Command, Stdio};

use page::{Names, Page, Shown};
use support::{BUSYBOX, import};

/// Seconds for one command: a swap restarts containerd and runs containers to prove it, under emulation.
const COMMAND_BOUND: &str = "400";

/// Runs the page's commands one after the other in a directory of their own, and tells all that print something else.
fn run_page(text: &str) {
    import("default", "busybox");
    assert!(text.contains(BUSYBOX), "the page names the image that is there");
    let page = Page::parse(text);
    let directory = tempfile::tempdir().unwrap();
    let mut names = Names::new();
    let mut failures = String::new();
    for Shown { command, output } in &page.commands {
        let printed = Command::new("timeout")
            .args(["--kill-after=5", COMMAND_BOUND, "sh", "-c", &format!("{{ {command}\n}} 2>&1")])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
        match page.matches(output, &printed.lines().collect::<Vec<_>>(), &names) {
            Some(found) => names = found,
            None => failures.push_str(&format!(
                "$ {command}\n--- the page\n{}\n--- the node\n{printed}\n",
                output.join("\n")
            )),
        }
    }
    assert!(failures.is_empty(), "known names: {names:?}\n{failures}");
}

#[test]
fn phase_1_runs_as_the_page_says() {
    run_page(include_str!("../docs/phase-1.md"));
}

#[test]
fn phase_2_runs_as_the_page_says() {
    run_page(include_str!("../docs/phase-2.md"));
}

#[test]
fn phase_3_runs_as_the_page_says() {
    run_page(include_str!("../docs/phase-3.md"));
}
