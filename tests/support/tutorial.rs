//! Runs a page of `docs/` on the node: every command as it stands there, every shown output compared.

use std::process::{Command, Stdio};

use crate::page::{Names, Page, Shown};
use crate::support::{BUSYBOX, import};

/// Seconds for one command: a swap restarts containerd and runs containers to prove it, under emulation.
const COMMAND_BOUND: &str = "400";

/// Runs the page's commands one after the other in a directory of their own, and tells all that print something else.
pub(crate) fn run_page(text: &str) {
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
