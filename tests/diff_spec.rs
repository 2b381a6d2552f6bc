//! `inspect diff-spec` as users call it: fixtures, formats, exit statuses, bad input.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const SPECS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/specs");

fn inspect(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inspect"));
    command.args(arguments).env_remove("COLUMNS").stdin(Stdio::null()).output().unwrap()
}

/// diff-spec of two fixtures.
fn diff_spec(left: &str, right: &str, options: &[&str]) -> (i32, String) {
    let (left, right) = (format!("{SPECS}/{left}.json"), format!("{SPECS}/{right}.json"));
    let output = inspect(&[&["diff-spec", &left, &right], options].concat());
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// What is refused: the status and standard error.
fn refusal(arguments: &[&str]) -> (i32, String) {
    let output = inspect(&[&["diff-spec"], arguments].concat());
    assert!(output.stdout.is_empty());
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn fixture(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(format!("{SPECS}/{name}.json")).unwrap()).unwrap()
}

/// A file in a directory of its own, which lives as long as the value.
fn file(content: &[u8]) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    std::fs::write(&path, content).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[test]
fn the_table_speaks_in_the_tutorials_terms() {
    let (status, table) = diff_spec("phase1", "weaker", &[]);
    assert_eq!(status, 1);
    let row = |subject: &str| {
        let line = table
            .lines()
            .find(|line| line.trim_start().starts_with(subject))
            .unwrap_or_else(|| panic!("{table}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("capabilities"), "capabilities 3 capabilities 4 capabilities ← more permissive");
    assert_eq!(row("args"), "args [\"sh\"] [\"sh\"] same");
    assert_eq!(row("pid namespace"), "pid namespace its own the host's ← more permissive");
    assert_eq!(row("mount /host"), "mount /host - / bound ← more permissive");
    assert!(table.contains("Kubernetes: securityContext.readOnlyRootFilesystem"));
    assert!(table.contains("overall: more permissive"));
    assert!(!table.contains("hunter2"), "a secret of the environment is shown");
    assert!(diff_spec("phase1", "weaker", &["--show-env"]).1.contains("hunter2"));
}

#[test]
fn the_same_in_effect_is_status_0_and_counted() {
    let (status, table) = diff_spec("phase1", "reordered", &[]);
    assert_eq!(status, 0);
    assert!(table.contains("no difference in effect"), "{table}");
    assert!(table.contains("without effect not listed (--all)"), "{table}");
    let (status, all) = diff_spec("phase1", "reordered", &["--all"]);
    assert_eq!(status, 0);
    assert!(all.contains("same effect"), "{all}");
    assert_eq!(diff_spec("phase1", "phase1", &["--format", "patch"]), (0, "[]\n".to_owned()));
    assert_eq!(diff_spec("phase1", "phase1", &["--format", "unified"]), (0, String::new()));
}

#[test]
fn a_gate_fails_with_3_when_the_right_is_weaker() {
    let gate = ["--fail-on", "more-permissive"];
    assert_eq!(diff_spec("phase1", "weaker", &gate).0, 3);
    assert_eq!(diff_spec("phase1", "seccomp", &gate).0, 1);
    assert_eq!(diff_spec("phase1", "reordered", &gate).0, 0);
    assert_eq!(diff_spec("phase1", "weaker", &["--fail-on", "more-permissive", "--section", "env"]).0, 1);
    assert_eq!(diff_spec("phase1", "weaker", &["--fail-on", "changed", "--section", "env"]).0, 3);
    assert_eq!(diff_spec("phase1", "weaker", &["--section", "hooks,seccomp"]).0, 0);
}

#[test]
fn json_carries_pointers_and_verdicts() {
    let (_, text) = diff_spec("phase1", "weaker", &["--format", "json", "--only", "permissive"]);
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["overall"], "more-permissive");
    let (left, right) = (fixture("phase1"), fixture("weaker"));
    let changes = document["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 7, "{text}");
    for change in changes {
        assert_eq!(change["verdict"], "more-permissive");
        for (side, spec) in [("left", &left), ("right", &right)] {
            if let Some(pointer) = change[side]["pointer"].as_str() {
                assert_eq!(spec.pointer(pointer), Some(&change[side]["value"]), "{change}");
            }
        }
    }
}

#[test]
fn patch_and_markdown_and_unified_are_what_they_are_called() {
    let (status, patch) = diff_spec("phase1", "seccomp", &["--format", "patch"]);
    assert_eq!(status, 1);
    let expected = serde_json::json!([{"op": "add", "path": "/linux/seccomp", "value": fixture("seccomp")["linux"]["seccomp"]}]);
    assert_eq!(serde_json::from_str::<Value>(&patch).unwrap(), expected);
    let (_, markdown) = diff_spec("phase1", "weaker", &["--format", "markdown"]);
    assert!(markdown.contains("|---|---|---|---|---|"), "{markdown}");
    let (_, unified) = diff_spec("phase1", "weaker", &["--format", "unified"]);
    assert!(unified.starts_with("--- phase1.json\n+++ weaker.json\n@@"), "{unified}");
    assert!(unified.contains("+        \"limit\": 134217728"), "{unified}");
    assert!(!unified.contains("hunter2") && unified.contains("TOKEN=(hidden, differs)"), "{unified}");
}

#[test]
fn a_patch_with_secrets_is_not_written_by_accident() {
    let (left, right) = (format!("{SPECS}/phase1.json"), format!("{SPECS}/weaker.json"));
    let (status, error) = refusal(&[&left, &right, "--format", "patch"]);
    assert_eq!(status, 2);
    assert!(error.contains("hint: add `--show-env`") && !error.contains("hunter2"), "{error}");
    assert!(diff_spec("phase1", "weaker", &["--format", "patch", "--show-env"]).1.contains("TOKEN=hunter2"));
}

#[test]
fn standard_input_is_one_side() {
    let phase1 = format!("{SPECS}/phase1.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_inspect"));
    command.args(["diff-spec", "-", &phase1]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&std::fs::read(&phase1).unwrap()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(refusal(&["-", "-"]).1.contains("given twice"));
}

#[test]
fn bad_input_is_refused_with_its_place() {
    let phase1 = format!("{SPECS}/phase1.json");
    let cut = std::fs::read(&phase1).unwrap();
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: [(&[u8], &str); 6] = [
        (b"not json", "line 1 column"),
        (&cut[..cut.len() / 2], "EOF while parsing"),
        (br#"{"ociVersion":"1.2.0","process":{"args":"sh"}}"#, "`/process/args` must be an array"),
        (br#"{"ociVersion":"1.2.0","root":{"path":"a","path":"b"}}"#, "\"path\" is there twice at line 1"),
        (deep.as_bytes(), "recursion limit exceeded"),
        (b"{\"name\":\"a\"}", "`/ociVersion` is missing"),
    ];
    for (content, expected) in cases {
        let (_directory, path) = file(content);
        let (status, error) = refusal(&[&path, &phase1]);
        assert_eq!(status, 2, "{error}");
        assert!(error.contains(expected) && error.contains(&path), "{error}");
    }
}

#[test]
fn what_is_not_there_is_refused_with_a_hint() {
    let phase1 = format!("{SPECS}/phase1.json");
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().to_str().unwrap();
    let (status, error) = refusal(&[empty, &phase1]);
    assert_eq!((status, error.contains("cannot find `config.json` in")), (2, true), "{error}");
    assert!(refusal(&["/no/such/file", &phase1]).1.contains("cannot open `/no/such/file`"));
    assert!(refusal(&["default:youki", &phase1]).1.contains("not one of runc, crun, builtin"));
    let (status, error) = refusal(&[&phase1, &phase1, "--section", "mount"]);
    assert_eq!((status, error.contains("namespaces, root, mounts")), (2, true), "{error}");
    let (_, error) = refusal(&["--host-root", empty, "live", &phase1]);
    assert!(error.starts_with("error: "), "{error}");
}

#[test]
fn a_hundred_megabytes_are_refused_quickly() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("big.json");
    std::fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
    let (status, error) = refusal(&[path.to_str().unwrap(), &format!("{SPECS}/phase1.json")]);
    assert_eq!((status, error.contains("larger than 16 MiB")), (2, true), "{error}");
}
