//! `inspect why error` as it is typed: standard output, standard error, status.

use std::path::Path;
use std::process::{Command, Output};

fn why(host_root: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_inspect"))
        .args(["why", "error", "--host-root"])
        .arg(host_root)
        .args(arguments)
        .env_remove("COLUMNS")
        .output()
        .expect("inspect runs")
}

fn node_with_config(config: &str) -> tempfile::TempDir {
    let node = tempfile::tempdir().expect("a directory");
    let directory = node.path().join("etc/containerd");
    std::fs::create_dir_all(&directory).expect("a directory");
    std::fs::write(directory.join("config.toml"), config).expect("a file");
    node
}

#[test]
fn the_cause_is_named_with_file_and_line() {
    let node = node_with_config(
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  default_runtime_name = \"ghost\"\n",
    );
    let answer = why(node.path(), &["rpc error: unknown service runtime.v1.RuntimeService"]);
    let text = String::from_utf8(answer.stdout).expect("UTF-8");
    assert!(text.contains("/etc/containerd/config.toml:3: default_runtime_name = \"ghost\""), "{text}");
    assert!(text.contains("← the cause"), "{text}");
    assert_eq!(answer.status.code(), Some(0));
}

#[test]
fn a_text_that_is_not_known_is_said_so_with_status_1() {
    let node = node_with_config("");
    let answer = why(node.path(), &["the", "dog"]);
    assert_eq!(answer.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&answer.stdout).starts_with("not known"));
}

#[test]
fn nothing_is_a_usage_error() {
    let node = node_with_config("");
    assert_eq!(why(node.path(), &[]).status.code(), Some(2));
    let blank = why(node.path(), &["  "]);
    assert_eq!(blank.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&blank.stderr).contains("hint: inspect why error"));
}

#[test]
fn a_hostile_text_is_shown_and_not_obeyed() {
    let node = node_with_config("");
    let answer = why(node.path(), &["no runtime for \"a\u{1b}[2Jb\" is configured"]);
    let text = String::from_utf8(answer.stdout).expect("UTF-8");
    assert!(!text.contains('\u{1b}') && text.contains("a\\x1b[2Jb"), "{text}");
}

#[test]
fn json_carries_explanation_and_findings() {
    let node = node_with_config("version = 2\n");
    let answer = why(node.path(), &["--format", "json", "no runtime for \"kata\" is configured"]);
    let value: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("JSON");
    assert_eq!(value[0]["id"], "handler-not-configured");
    assert_eq!(value[0]["findings"][0]["path"], "/etc/containerd/config.toml");
}
