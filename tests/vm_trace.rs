//! `inspect trace` against real containerd: every step of `ctr run`, and no event lost.

#![allow(clippy::print_stderr, reason = "a measurement prints its figure")]

mod support;

use serde_json::Value;
use support::{BUSYBOX, import, inspect, sh};

/// Starts that are traced for each runtime; `INSPECT_TRACE_RUNS` asks for more.
const RUNS: usize = 2;
/// Programs that each of two loops runs in the load test.
const PROGRAMS: u64 = 250;

fn runs() -> usize {
    std::env::var("INSPECT_TRACE_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(RUNS)
}

/// Traces a command and gives the report. The command's own output goes to standard error.
#[track_caller]
fn trace(command: &[&str]) -> Value {
    let arguments: Vec<&str> = ["trace", "--format", "json", "--"].iter().chain(command).copied().collect();
    let report = inspect(&arguments).success();
    serde_json::from_str(&report).expect("the report is JSON")
}

fn steps<'a>(container: &'a Value, name: &str) -> Vec<&'a Value> {
    let all = container["steps"].as_array().expect("steps are a list");
    all.iter().filter(|step| step["step"] == name).collect()
}

#[track_caller]
fn assert_nothing_lost(report: &Value) {
    let loss = &report["loss"];
    for key in ["events", "overruns", "cgroup_overflows"] {
        assert_eq!(loss[key], 0, "{loss}");
    }
}

/// One whole start, compared with what `stat` and `ls` say of the runtime's file.
#[track_caller]
fn check_start(runtime: &str, id: &str) {
    let report = trace(&["ctr", "run", "--rm", "--runc-binary", runtime, BUSYBOX, id, "true"]);
    assert_nothing_lost(&report);
    let containers = report["containers"].as_array().expect("containers are a list");
    let ours: Vec<&Value> = containers.iter().filter(|container| container["container"] == id).collect();
    assert_eq!(ours.len(), 1, "{report:#}");
    let container = ours[0];
    assert_eq!(container["missing"], Value::Array(Vec::new()), "{container:#}");
    for name in ["shim_start", "shim", "runtime_create", "runtime_start", "init"] {
        assert_eq!(steps(container, name).len(), 1, "{name}: {container:#}");
    }
    assert!(!steps(container, "runtime_init").is_empty() || runtime == "crun", "{container:#}");
    let create = steps(container, "runtime_create")[0];
    let inode = sh(&format!("stat -L -c %i $(command -v {runtime})"));
    assert_eq!(create["file"]["inode"].to_string(), inode, "{create:#}");
    assert_eq!(create["status"]["exited"], 0, "{create:#}");
    let init = steps(container, "init")[0];
    assert_eq!(
        (&init["command_line"][0], &init["status"]["exited"]),
        (&"true".into(), &0.into()),
        "{init:#}"
    );
    let cgroups = container["cgroups"].as_array().expect("cgroups are a list");
    let path = format!("/default/{id}");
    assert!(cgroups.iter().any(|cgroup| cgroup["path"] == path), "{cgroups:?}");
}

#[test]
fn every_step_of_ctr_run_is_seen() {
    import("default", "busybox");
    for runtime in ["runc", "crun"] {
        for run in 0..runs() {
            check_start(runtime, &format!("trace-{runtime}-{run}"));
        }
    }
    eprintln!("{} of {} starts traced whole", 2 * runs(), 2 * runs());
}

#[test]
fn a_long_running_container_shows_the_namespaces_it_got() {
    import("default", "busybox");
    let report = trace(&["ctr", "run", "--rm", BUSYBOX, "trace-ns", "sleep", "1"]);
    let container = &report["containers"][0];
    let init = steps(container, "init")[0];
    let kinds: Vec<&str> = init["namespaces_created"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|namespace| namespace["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["mnt", "pid", "net", "ipc", "uts"], "{init:#}");
}

#[test]
fn a_load_of_execs_is_told_whole() {
    let line = format!(
        "work() {{ i=0; while [ $i -lt {PROGRAMS} ]; do /bin/true; i=$((i+1)); done; }}; \
         work & work & begin=$(cut -d' ' -f1 /proc/uptime); wait; echo \"$begin $(cut -d' ' -f1 /proc/uptime)\" >&2"
    );
    let report = trace(&["sh", "-c", &line]);
    assert_nothing_lost(&report);
    let execs = report["counts"]["execs"].as_u64().expect("a number");
    assert!(execs >= 2 * PROGRAMS, "{execs} of {}", 2 * PROGRAMS);
    let nanoseconds = report["command"][0]["duration"].as_u64().expect("the command has ended");
    eprintln!(
        "{execs} execs in {} ms: {}/s, none lost",
        nanoseconds / 1_000_000,
        execs * 1_000_000_000 / nanoseconds
    );
}

#[test]
fn the_status_is_the_commands() {
    assert_eq!(inspect(&["trace", "--", "sh", "-c", "exit 7"]).status, 7);
    assert_eq!(inspect(&["trace", "--", "sh", "-c", "kill -9 $$"]).status, 137);
    let refused = inspect(&["trace", "--", "/nonexistent"]);
    assert_eq!(refused.status, 2, "{refused}");
    assert!(refused.stderr.starts_with("error: cannot run"), "{refused}");
}

#[test]
fn a_trace_for_a_viewer_is_complete_events() {
    let text = inspect(&["trace", "--format", "chrome", "--", "sh", "-c", "true"]).success();
    let document: Value = serde_json::from_str(&text).expect("the trace is JSON");
    let events = document["traceEvents"].as_array().expect("events are a list");
    assert!(
        events.iter().any(|event| event["ph"] == "X" && event["dur"].as_f64().is_some_and(|dur| dur > 0.0))
    );
}
