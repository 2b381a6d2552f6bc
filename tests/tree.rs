//! `inspect tree` on captured hosts: text at several widths, JSON against its schema, selections, refusals.

#[path = "support/schema.rs"]
mod schema;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/hosts").join(name)
}

fn tree(host: &str, columns: Option<&str>, arguments: &[&str]) -> Output {
    assert!(fixture(host).join("proc").is_dir(), "the captured host `{host}` is not there");
    let mut command = Command::new(env!("CARGO_BIN_EXE_inspect"));
    command.env_remove("COLUMNS").env_remove("NO_COLOR");
    command.envs(columns.map(|columns| ("COLUMNS", columns)));
    command.arg("--host-root").arg(fixture(host)).arg("tree").args(arguments);
    command.output().expect("the built binary runs")
}

#[track_caller]
fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text output is UTF-8")
}

/// Compares with `fixtures/hosts/HOST.NAME.txt`; `UPDATE_SNAPSHOTS=1` writes it anew.
#[track_caller]
fn assert_snapshot(host: &str, name: &str, text: &str) {
    let path = fixture(&format!("{host}.{name}.txt"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).expect("a snapshot can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("a snapshot is there");
    assert_eq!(text, expected, "{} differs", path.display());
}

const HOSTS: [&str; 4] = ["bookworm", "trixie", "forky", "trixie-orphan"];

#[test]
fn every_captured_host_shows_its_tree() {
    for host in HOSTS {
        assert_snapshot(host, "tree", &stdout(&tree(host, None, &[])));
    }
    assert_snapshot("trixie", "all", &stdout(&tree("trixie", None, &["--all"])));
    assert_snapshot("trixie-orphan", "60", &stdout(&tree("trixie-orphan", Some("60"), &[])));
}

#[test]
fn nothing_is_cut_at_any_width() {
    let words = |text: &str| -> String {
        // Where there are few columns, deep levels are drawn at one and say so.
        let text = text.replace("(level 3) ", "");
        text.chars().filter(|c| !c.is_whitespace() && !"│├└─".contains(*c)).collect()
    };
    for host in HOSTS {
        let wide = words(&stdout(&tree(host, None, &["--all"])));
        for columns in ["40", "60", "80", "160"] {
            let text = stdout(&tree(host, Some(columns), &["--all"]));
            let width: usize = columns.parse().expect("a number");
            let long: Vec<_> = text.lines().filter(|line| line.chars().count() > width).collect();
            assert!(long.is_empty(), "{host} at {columns}: {long:#?}");
            assert!(words(&text) == wide, "{host} at {columns} shows something else:\n{text}");
        }
    }
}

#[test]
fn json_is_what_its_schema_says() {
    let schema = include_str!("../docs/tree.schema.json");
    let schema: Value = serde_json::from_str(schema).expect("the schema is JSON");
    for host in HOSTS {
        let text = stdout(&tree(host, None, &["--format", "json"]));
        let value: Value = serde_json::from_str(&text).expect("the answer is JSON");
        assert_eq!(schema::violations(&schema, &value), Vec::<String>::new(), "{host}");
        let mut wrong = value.clone();
        wrong["daemons"][0]["unit"] = json!(7);
        wrong["surprise"] = json!(true);
        assert_eq!(
            schema::violations(&schema, &wrong).len(),
            2,
            "a schema that takes anything proves nothing"
        );
    }
}

#[test]
fn a_selection_keeps_what_leads_to_it() {
    let one = stdout(&tree("trixie", None, &["--container", "ente"]));
    assert!(one.contains("entered") && one.contains("exec sh -c") && !one.contains("forks"), "{one}");
    let namespace = stdout(&tree("trixie", None, &["--namespace", "shop"]));
    assert!(namespace.contains("frozen · paused") && !namespace.contains("entered"), "{namespace}");
    let cgroup = stdout(&tree("trixie", None, &["--cgroup", "/sys/fs/cgroup/shop/limited/below"]));
    assert!(cgroup.contains("limited") && !cgroup.contains("frozen"), "{cgroup}");
}

#[test]
fn a_process_is_followed_up_to_its_container() {
    let json: Value =
        serde_json::from_str(&stdout(&tree("trixie", None, &["--format", "json"]))).expect("JSON");
    let shims = json.pointer("/daemons/0/containerd_namespaces/0/shims").and_then(Value::as_array);
    let process = shims.into_iter().flatten().find_map(|shim| {
        let processes = shim.pointer("/containers/0/processes")?.as_array()?;
        processes.iter().find(|process| process["command_line"] == "sleep 4242")
    });
    let pid = process.expect("what the exec process started is there")["pid"].to_string();
    let text = stdout(&tree("trixie", None, &["--pid", &pid]));
    assert!(text.contains("◀ asked for") && text.contains("entered"), "{text}");
    let outside = tree("trixie", None, &["--pid", "1"]);
    assert_eq!(outside.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&outside.stdout).contains("belongs to no containerd"));
}

#[test]
fn what_cannot_be_chosen_is_refused_with_a_hint() {
    for (arguments, expected) in [
        (["--container", "nothere"], "hint: run `inspect tree --all` to list every container on this host"),
        (["--container", "f"], "hint: give more of the ID, or NAMESPACE/ID"),
        (["--pid", "4000000"], "error: cannot find process 4000000"),
        (["--cgroup", "/\x1b[2J"], "\\x1b[2J"),
    ] {
        let output = tree("trixie", None, &arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(expected) && !stderr.contains('\x1b'), "{stderr}");
    }
}

#[test]
fn colour_is_asked_for_and_dot_is_a_graph() {
    let colour = stdout(&tree("trixie", None, &["--color", "always"]));
    assert!(colour.contains("\x1b[32mrunning\x1b[0m"), "{colour}");
    let dot = stdout(&tree("trixie", None, &["--format", "dot"]));
    assert!(dot.starts_with("digraph tasks {") && dot.ends_with("}\n"), "{dot}");
    assert_eq!(dot.matches("[style=dashed]").count(), 6, "one edge to each shim: {dot}");
}
