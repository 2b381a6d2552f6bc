//! The pages whose commands the suite `vm_pages` runs: they are well-formed, and the comparison can fail.
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

#[path = "support/page.rs"]
mod page;

use page::{Names, Page};

const PAGES: [(&str, &str); 3] = [
    ("docs/phase-1.md", include_str!("../docs/phase-1.md")),
    ("docs/phase-2.md", include_str!("../docs/phase-2.md")),
    ("docs/phase-3.md", include_str!("../docs/phase-3.md")),
];

#[test]
fn the_pages_are_linked_and_have_what_they_are_compared_by() {
    let readme = include_str!("../README.md");
    for (name, text) in PAGES {
        assert!(readme.contains(&format!("]({name})")), "README.md links {name}");
        let page = Page::parse(text);
        assert!(page.commands.len() >= 8, "{name} has commands");
        assert_eq!(page.unused(), Vec::<&str>::new(), "{name} lists values that it does not show");
        for shown in &page.commands {
            let left_out = shown.output.iter().filter(|line| *line == "...").count();
            assert!(
                left_out == 0 || shown.output.len() > left_out,
                "{name}: `{}` shows nothing",
                shown.command
            );
        }
    }
}

/// Whether the page's first command printed this, for a page with that output and these values that differ.
fn fits(output: &str, differs: &str, text: &str) -> bool {
    let page = Page::parse(&format!("```console\n$ x\n{output}\n```\n<!-- what differs\n{differs}\n-->\n"));
    let lines: Vec<&str> = text.lines().collect();
    page.matches(&page.commands[0].output, &lines, &Names::new()).is_some()
}

#[test]
fn other_text_does_not_fit() {
    assert!(fits("a  b", "", "a b"));
    assert!(!fits("a b", "", "a c"));
    assert!(!fits("a", "", "a\nb"));
    assert!(!fits("a\nb", "", "a"));
    assert!(fits("a\n...\nz", "", "a\nx\ny\nz"));
    assert!(fits("a\n...", "", "a"));
    assert!(!fits("a\n...\nz", "", "a\nx\ny"));
}

#[test]
fn a_value_may_be_another_of_its_kind_only() {
    assert!(fits("up 3m 4s · 12 ms", "duration: `3m 4s` `12 ms`", "up 17s · 1.5 s"));
    assert!(!fits("up 3m 4s", "duration: `3m 4s`", "up soon"));
    assert!(!fits("up 3m 4s", "duration: `3m 4s`", "up 17"));
    assert!(fits("at 5 ms 2 s", "duration: `5 ms` `2 s`", "at 7 ms 9 ms"), "two beside each other");
    assert!(fits("1 MiB of max", "size: `1 MiB`", "800.5 KiB of max"));
    assert!(!fits("1 MiB of max", "size: `1 MiB`", "1 MB of max"));
    assert!(fits("weight 39", "one of: `39|100`", "weight 100"));
    assert!(!fits("weight 39", "one of: `39|100`", "weight 1001"));
    assert!(!fits("weight 39", "one of: `39|100`", "weight 40"));
    assert!(fits("containerd 1.7.24~ds1", "version: 1.7.24~ds1", "containerd 2.1.9+unknown"));
    assert!(!fits("containerd 1.7.24~ds1", "version: 1.7.24~ds1", "containerd ?"));
    let digest = "0123456789abcdef".repeat(4);
    assert!(fits(
        &format!("sha256:{digest}"),
        &format!("digest: {digest}"),
        &format!("sha256:{}", "f".repeat(64))
    ));
    assert!(!fits(&format!("sha256:{digest}"), &format!("digest: {digest}"), "sha256:none"));
}

#[test]
fn a_pid_is_the_same_one_wherever_it_is_shown() {
    assert!(fits("init 615\nshim 592\n615 sleep", "pid: 615 592", "init 71\nshim 70\n71 sleep"));
    assert!(!fits("init 615\n615 sleep", "pid: 615", "init 71\n72 sleep"), "two for one");
    assert!(!fits("init 615\nshim 592", "pid: 615 592", "init 71\nshim 71"), "one for two");
    assert!(!fits("init 615", "", "init 71"), "not listed");
    assert!(!fits("init 6150", "pid: 615", "init 6151"), "a part of a number is no value");
}
