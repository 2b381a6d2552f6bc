//! `inspect cgroup`, `inspect why killed` and `inspect events` against real containerd, compared with `cat`, `dmesg` and `ctr`.

mod support;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{Container, generation, import, inspect, sh, try_sh, wait_until};

/// 64 MiB, the tutorial's limit.
const LIMIT: &str = "67108864";
/// How long a container may take to die or appear under emulation.
const BOUND: Duration = Duration::from_secs(90);

#[track_caller]
fn json(arguments: &[&str]) -> Value {
    let finished = inspect(&[arguments, &["--format", "json"]].concat());
    assert!(finished.status < 2, "{finished}");
    serde_json::from_str(&finished.stdout).expect("the answer is JSON")
}

/// The answer with what a daemon adds to it under `key`: one that took too long under load is asked again.
#[track_caller]
fn answered(arguments: &[&str], key: &str) -> Value {
    wait_until(&format!("{arguments:?} to tell `{key}`"), BOUND, || {
        let report = json(arguments);
        (!report[key].is_null()).then_some(report)
    })
}

#[track_caller]
fn row<'a>(report: &'a Value, file: &str) -> &'a Value {
    let rows = report["rows"].as_array().expect("rows are a list");
    rows.iter().find(|row| row["file"] == file).unwrap_or_else(|| panic!("no row for {file}: {report:#}"))
}

/// `cat` of a cgroup file.
#[track_caller]
fn cat(cgroup: &str, file: &str) -> String {
    sh(&format!("cat /sys/fs/cgroup{cgroup}/{file}"))
}

/// The weight that this release's runtimes make of 512 shares, and the conversion's name.
fn weight_of_512() -> (&'static str, &'static str) {
    match generation().as_str() {
        "bookworm" | "trixie" => ("20", "linear"),
        _ => ("59", "logarithmic"),
    }
}

#[test]
fn the_tutorials_numbers_come_out_and_equal_the_kernels_files() {
    for runtime in ["runc", "crun"] {
        let id = format!("cg-{runtime}");
        let options = format!("--runc-binary {runtime} --memory-limit {LIMIT} --cpu-shares 512");
        let _container = Container::start("default", &id, &options, "sleep 1000");
        let report = json(&["cgroup", &id]);
        let cgroup = format!("/default/{id}");
        assert_eq!(
            (report["path"].as_str(), report["mode"].as_str()),
            (Some(cgroup.as_str()), Some("unified"))
        );
        let memory = row(&report, "memory.max");
        assert_eq!((&memory["given"], &memory["kernel"]), (&LIMIT.into(), &LIMIT.into()));
        assert_eq!(memory["agreement"], "same");
        let (weight, conversion) = weight_of_512();
        let cpu = row(&report, "cpu.weight");
        assert_eq!((&cpu["given"], &cpu["kernel"]), (&"512".into(), &weight.into()), "{runtime}");
        assert!(cpu["conversion"].as_str().is_some_and(|text| text.starts_with(conversion)), "{cpu}");
        for row in report["rows"].as_array().expect("rows are a list") {
            let (Some(file), Some(kernel)) = (row["file"].as_str(), row["kernel"].as_str()) else { continue };
            assert_eq!(cat(&cgroup, file), kernel.trim_end(), "{file}");
        }
        let limit = report["effective"]
            .as_array()
            .and_then(|all| all.iter().find(|limit| limit["file"] == "memory.max"));
        assert_eq!(limit.map(|limit| &limit["bound_by"]), Some(&cgroup.as_str().into()));
    }
}

#[test]
fn openmetrics_text_is_whole() {
    let _container = Container::start("default", "cg-metrics", "", "sleep 1000");
    let text = inspect(&["cgroup", "cg-metrics", "--format", "openmetrics"]).success();
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    let mut family = String::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            family = declared.split(' ').next().unwrap_or_default().to_owned();
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&family), "{line}");
            let value = line.rsplit(' ').next().unwrap_or_default();
            assert!(value == "+Inf" || value.parse::<f64>().is_ok(), "{line}");
        }
    }
    let pids = cat("/default/cg-metrics", "pids.current");
    let sample = text.lines().find(|line| line.starts_with("inspect_cgroup_tasks{")).expect("tasks are told");
    assert!(sample.ends_with(&format!(" {pids}")), "{sample} and {pids}");
    let gone = inspect(&["cgroup", "/default/nobody"]);
    assert_eq!(gone.status, 2, "{gone}");
}

/// Starts a container that takes memory until it is killed; gives it with the pid that it had.
fn eat(id: &str, options: &str) -> Container {
    let container = Container::start("default", id, options, "sh -c 'sleep 2; exec tail /dev/zero'");
    wait_until(&format!("{id} to be killed"), BOUND, || {
        let line = sh("ctr tasks ls");
        line.lines().any(|line| line.starts_with(id) && line.contains("STOPPED")).then_some(())
    });
    container
}

#[test]
fn an_oom_by_the_own_limit_is_explained_and_found_again_in_the_kernels_log() {
    let container = eat("oom-own", &format!("--memory-limit {LIMIT}"));
    let report = answered(&["why", "killed", "oom-own"], "exit_status");
    assert_eq!(report["verdict"]["kind"], "oom_own_limit", "{report:#}");
    assert_eq!((&report["exit_status"], &report["kubernetes"]), (&137.into(), &"OOMKilled".into()));
    assert_eq!(report["limit"].to_string(), LIMIT);
    let log = sh("dmesg | grep 'oom-kill:' | grep 'task_memcg=/default/oom-own,' | tail -1");
    assert!(log.contains("oom_memcg=/default/oom-own,"), "{log}");
    let victim = &report["victims"][0];
    assert!(log.contains(&format!("pid={},", victim["pid"])), "{victim} and {log}");
    assert_eq!((&victim["name"], &victim["is_init"]), (&"tail".into(), &true.into()), "{victim}");
    assert_eq!(cat("/default/oom-own", "memory.events | grep -w oom_kill"), "oom_kill 1");
    let cgroup = inspect(&["cgroup", "oom-own"]).success();
    assert!(cgroup.contains("the OOM killer killed 1 process in it for its own memory limit"), "{cgroup}");
    let tree = inspect(&["tree", "--format", "json"]).success();
    assert!(tree.contains("\"oom-killed\""), "{tree}");
    drop(container);
    let deleted = json(&["why", "killed", "oom-own"]);
    assert_eq!(deleted["verdict"]["kind"], "oom_own_limit", "{deleted:#}");
    assert!(deleted["container"].is_null() && deleted["exit_status"].is_null(), "{deleted:#}");
}

/// A cgroup of our own above containers; removed when dropped.
struct Parent(&'static str);

impl Parent {
    fn make(name: &'static str, limit: &str) -> Self {
        sh(&format!("mkdir -p /sys/fs/cgroup/{name} && echo {limit} > /sys/fs/cgroup/{name}/memory.max"));
        Self(name)
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        drop(try_sh(&format!("rmdir /sys/fs/cgroup/{0}/* /sys/fs/cgroup/{0} 2>/dev/null", self.0)));
    }
}

#[test]
fn an_oom_by_the_parents_limit_names_the_parent() {
    let _parent = Parent::make("oomparent", "50331648");
    let _container = eat("oom-parent", &format!("--memory-limit {LIMIT} --cgroup /oomparent/oom-parent"));
    let report = answered(&["why", "killed", "oom-parent"], "exit_status");
    assert_eq!(report["verdict"]["kind"], "oom_ancestor_limit", "{report:#}");
    assert_eq!(report["verdict"]["cgroup"], "/oomparent", "{report:#}");
    assert_eq!((&report["limit"], &report["exit_status"]), (&50_331_648.into(), &137.into()));
    let log = sh("dmesg | grep 'oom-kill:' | grep 'task_memcg=/oomparent/oom-parent,' | tail -1");
    assert!(log.contains("oom_memcg=/oomparent,"), "{log}");
    let cgroup = json(&["cgroup", "oom-parent"]);
    let limit =
        cgroup["effective"].as_array().and_then(|all| all.iter().find(|limit| limit["file"] == "memory.max"));
    let limit = limit.expect("memory.max is effective");
    assert_eq!((&limit["effective"], &limit["bound_by"]), (&"50331648".into(), &"/oomparent".into()));
}

#[test]
fn a_kill_by_somebody_is_not_the_oom_killers() {
    let _container = Container::start("default", "killed-by-hand", "", "sleep 1000");
    assert_eq!(inspect(&["why", "killed", "killed-by-hand"]).status, 1, "it runs");
    let mut events = follow("killed-by-hand", "/tmp/killed-by-hand.events");
    sh("ctr tasks kill -s SIGKILL killed-by-hand");
    let report = wait_until("the kill to be seen", BOUND, || {
        let report = json(&["why", "killed", "killed-by-hand"]);
        (report["verdict"]["kind"] == "signal").then_some(report)
    });
    assert_eq!(
        (&report["verdict"]["signal"], &report["kubernetes"]),
        (&9.into(), &"Error".into()),
        "{report:#}"
    );
    assert!(report["other_causes"].as_array().is_some_and(|causes| !causes.is_empty()));
    let exit = wait_until("the exit event", BOUND, || {
        let text = fs::read_to_string("/tmp/killed-by-hand.events").unwrap_or_default();
        text.lines().find(|line| line.contains("/tasks/exit")).map(str::to_owned)
    });
    let exit: Value = serde_json::from_str(&exit).expect("an event is JSON");
    assert_eq!((&exit["exit_status"], &exit["container"]), (&137.into(), &"killed-by-hand".into()));
    assert!(exit["finding"].as_str().is_some_and(|text| text.contains("not by the OOM killer")), "{exit}");
    events.kill().expect("it is our child");
    events.wait().expect("it is our child");
    drop(fs::remove_file("/tmp/killed-by-hand.events"));
}

/// `inspect events` in the background, after it began to follow.
fn follow(id: &str, file: &str) -> Child {
    let output = fs::File::create(file).expect("/tmp can be written");
    let notes = fs::File::create(format!("{file}.notes")).expect("/tmp can be written");
    let child = Command::new("/usr/local/bin/inspect")
        .args(["events", "--container", id, "--format", "json", "--duration", "300"])
        .stdout(output)
        .stderr(notes)
        .stdin(Stdio::null())
        .spawn()
        .expect("inspect runs");
    wait_until("inspect events to follow", BOUND, || {
        fs::read_to_string(format!("{file}.notes")).ok().filter(|text| text.contains("following"))
    });
    drop(fs::remove_file(format!("{file}.notes")));
    child
}

/// `inspect cgroup --wait ID`, told that a container is started with these options once it waits; gives what it printed.
fn await_start(id: &str, options: &str) -> (Container, String) {
    import("default", "busybox");
    let file = format!("/tmp/{id}.notes");
    let notes = fs::File::create(&file).expect("/tmp can be written");
    let waiting = Command::new("timeout")
        .args(["120", "/usr/local/bin/inspect", "cgroup", "--wait", id])
        .stdout(Stdio::piped())
        .stderr(notes)
        .stdin(Stdio::null())
        .spawn()
        .expect("inspect runs");
    wait_until("inspect to wait", BOUND, || {
        fs::read_to_string(&file).ok().filter(|text| text.contains("waiting"))
    });
    let container = Container::start("default", id, options, "sleep 1000");
    let output = waiting.wait_with_output().expect("it is our child");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    drop(fs::remove_file(file));
    (container, text)
}

#[test]
fn a_cgroup_that_is_not_there_yet_is_awaited() {
    let (container, text) = await_start("cg-wait", &format!("--memory-limit {LIMIT}"));
    assert!(text.contains("cgroup /default/cg-wait made (unified)"), "{text}");
    assert!(text.contains(" processes: ") && text.contains("memory.limit"), "{text}");
    // Of a container whose id is the beginning of another's it is the beginning that is awaited.
    drop(container);
    let _longer = Container::start("default", "cg-wait-scope-2", "", "sleep 1000");
    let (_container, text) = await_start(
        "cg-wait-scope",
        &format!(
            "--runc-binary crun --memory-limit {LIMIT} --runc-systemd-cgroup \
             --cgroup machine.slice:wait:cg-wait-scope"
        ),
    );
    let scope = "/machine.slice/wait-cg-wait-scope.scope";
    assert!(text.contains(&format!("cgroup {scope} made (unified)")), "{text}");
    assert!(text.contains(&format!(" processes in {scope}/container: ")), "{text}");
    assert!(!text.contains("drift"), "{text}");
}

#[test]
fn drift_against_systemd_is_marked() {
    let options =
        format!("--memory-limit {LIMIT} --runc-systemd-cgroup --cgroup machine.slice:drift:cg-drift");
    let _container = Container::start("default", "cg-drift", &options, "sleep 1000");
    let scope = "/machine.slice/drift-cg-drift.scope";
    let before = answered(&["cgroup", "cg-drift"], "unit");
    assert_eq!(
        (&before["path"], &before["unit"]),
        (&scope.into(), &"drift-cg-drift.scope".into()),
        "{before:#}"
    );
    let property = sh("systemctl show -p MemoryMax --value drift-cg-drift.scope");
    assert_eq!(property, LIMIT);
    assert!(row(&before, "memory.max")["unit_drift"].is_null(), "{before:#}");
    sh(&format!("echo 33554432 > /sys/fs/cgroup{scope}/memory.max"));
    let after = answered(&["cgroup", "cg-drift"], "unit");
    let memory = row(&after, "memory.max");
    assert_eq!((&memory["kernel"], &memory["agreement"]), (&"33554432".into(), &"different".into()));
    assert_eq!(memory["unit_drift"]["property"], "MemoryMax", "{memory}");
    assert_eq!(memory["unit_drift"]["value"], LIMIT);
}

/// crun's limits are in the scope or, in 1.8, in a cgroup below it: there is the table's place.
#[test]
fn limits_that_crun_gives_a_scope_are_found() {
    let options = format!(
        "--runc-binary crun --memory-limit {LIMIT} --cpu-shares 512 --runc-systemd-cgroup \
         --cgroup machine.slice:crun:cg-scope"
    );
    let _container = Container::start("default", "cg-scope", &options, "sleep 1000");
    let report = json(&["cgroup", "cg-scope"]);
    let path = report["path"].as_str().unwrap_or_default();
    let scope = "/machine.slice/crun-cg-scope.scope";
    assert!(path == scope || path == format!("{scope}/container"), "{path}");
    for file in ["memory.max", "cpu.weight"] {
        let row = row(&report, file);
        assert_eq!(row["agreement"], "same", "{row}");
        assert_eq!(row["kernel"], cat(path, file), "{row}");
    }
    let effective =
        report["effective"].as_array().and_then(|all| all.iter().find(|limit| limit["file"] == "memory.max"));
    assert_eq!(
        effective.map(|limit| (&limit["effective"], &limit["bound_by"])),
        Some((&LIMIT.into(), &path.into()))
    );
}
