//! Images and bundles on the node: trees equal containerd's, limits bite, and the pages in docs/ run as they say.

#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

#[path = "../image/tests/support/mod.rs"]
mod image_support;
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use image_support::{difference, listing};
use support::{BUSYBOX, LAYERS, import, run, sh, try_sh};

/// What two unpackers must agree on. A directory that a layer only passes through keeps its time with us and gets the
/// time of unpacking from containerd; the root's own attributes containerd takes from no layer.
fn comparable(root: &Path, other: &BTreeMap<String, String>, since: u64) -> BTreeMap<String, String> {
    let mut lines = listing(root);
    lines.remove("");
    for (path, line) in &mut lines {
        let stamped = |line: &String| {
            let seconds = line.split(' ').nth(4).and_then(|time| time.split('.').next()?.parse::<u64>().ok());
            line.starts_with("4") && seconds.is_some_and(|seconds| seconds >= since)
        };
        if stamped(line) || other.get(path).is_some_and(stamped) {
            let words: Vec<&str> = line.split(' ').collect();
            *line = [&words[..4], &["unpacked"], &words[5..]].concat().join(" ");
        }
    }
    lines
}

#[test]
fn an_image_of_layers_unpacks_as_containerd_unpacks_it() {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    import("default", "layers");
    let directory = tempfile::tempdir().unwrap();
    let (mounted, bundle) = (directory.path().join("mounted"), directory.path().join("bundle"));
    std::fs::create_dir(&mounted).unwrap();
    sh(&format!("ctr images mount {LAYERS} {}", mounted.display()));
    sh(&format!("inspect unpack -q /opt/lab/images/layers.tar {}", bundle.display()));
    let rootfs = bundle.join("rootfs");
    let theirs = listing(&mounted);
    let ours = comparable(&rootfs, &theirs, since);
    let theirs = comparable(&mounted, &listing(&rootfs), since);
    sh(&format!("ctr images unmount {0} || umount {0}", mounted.display()));
    assert!(theirs.len() > 20, "an image with something in it");
    assert!(ours == theirs, "ours -, containerd's +\n{}", difference(&ours, &theirs));
}

#[test]
fn a_program_that_eats_memory_ends_with_137_and_why() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("eater").display().to_string();
    sh(&format!("inspect unpack -q /opt/lab/images/busybox.tar {bundle}"));
    for runtime in ["builtin", "runc", "crun"] {
        let id = format!("eater-{runtime}");
        let finished = run(
            "inspect",
            &["run", &bundle, &id, "--runtime", runtime, "--memory", "32M", "--", "tail", "/dev/zero"],
        );
        assert_eq!(finished.status, 137, "{finished}");
        assert!(finished.stderr.contains("oom_kill 1"), "{finished}");
        assert!(finished.stderr.contains("memory.max is 33554432"), "{finished}");
        assert!(!Path::new(&format!("/sys/fs/cgroup/inspect/{id}")).exists(), "its cgroup is gone");
    }
}

#[test]
fn a_terminal_is_a_terminal_with_every_runtime() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("b").display().to_string();
    sh(&format!("inspect unpack -q /opt/lab/images/busybox.tar {bundle}"));
    for runtime in ["builtin", "runc", "crun"] {
        let line = format!("inspect run {bundle} tty-{runtime} --runtime {runtime} --terminal -- tty");
        assert_eq!(sh(&line), "/dev/pts/0", "{runtime}");
        let line = format!(
            "echo 'read x; exit 5' | inspect run {bundle} in-{runtime} --runtime {runtime} --terminal"
        );
        assert_eq!(try_sh(&line).status, 5, "{runtime}");
    }
}

/// A command of a page and what the page shows of it.
struct Shown {
    command: String,
    output: String,
}

/// The `console` blocks of a page: `$ ` begins a command.
fn commands(page: &str) -> Vec<Shown> {
    let mut found: Vec<Shown> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            found.push(Shown { command: command.to_owned(), output: String::new() });
        } else if let Some(last) = found.last_mut().filter(|_| inside) {
            last.output.push_str(line);
            last.output.push('\n');
        }
    }
    found
}

/// Whether the text is what is shown: `[..]` stands for anything within a line, a line `...` for any lines.
fn matches(shown: &[&str], text: &[&str]) -> bool {
    match (shown.first(), text.first()) {
        (None, None) => true,
        (Some(&"..."), _) => (0..=text.len()).any(|skip| matches(&shown[1..], &text[skip..])),
        (Some(pattern), Some(line)) => line_matches(pattern, line) && matches(&shown[1..], &text[1..]),
        _ => false,
    }
}

fn line_matches(pattern: &str, line: &str) -> bool {
    match pattern.trim_end().split_once("[..]") {
        None => pattern.trim_end() == line.trim_end(),
        Some((before, after)) => line.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices()
                .map(|(at, _)| at)
                .chain([rest.len()])
                .any(|at| line_matches(after, &rest[at..]))
        }),
    }
}

#[test]
fn the_matcher_tells_different_text() {
    assert!(matches(&["a [..] c", "...", "z"], &["a b c", "x", "y", "z"]));
    assert!(!matches(&["a [..] c"], &["a b d"]));
    assert!(!matches(&["a"], &["a", "b"]));
}

#[test]
fn phase_1_runs_as_the_page_says() {
    let page = include_str!("../docs/phase-1.md");
    let shown = commands(page);
    assert!(shown.len() >= 8, "the page has commands");
    import("default", "busybox");
    assert!(page.contains(BUSYBOX));
    let directory = tempfile::tempdir().unwrap();
    let mut failures = String::new();
    for Shown { command, output } in shown {
        let line = format!("cd {} && {{ {command}\n}} 2>&1", directory.path().display());
        let text = try_sh(&line).stdout;
        let (expected, actual): (Vec<_>, Vec<_>) = (output.lines().collect(), text.lines().collect());
        if !matches(&expected, &actual) {
            failures.push_str(&format!("$ {command}\n--- the page\n{output}--- the node\n{text}\n"));
        }
    }
    assert!(failures.is_empty(), "{failures}");
}
