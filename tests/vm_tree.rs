//! `inspect tree` on a real node, against `ctr`, systemd and `/proc` as they tell it themselves.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{BUSYBOX, Container, import, inspect, run, sh, try_sh, wait_until};

const BOUND: Duration = Duration::from_secs(60);

/// Starts containerd again, whatever became of the test.
struct Daemon;

impl Daemon {
    fn stop() -> Self {
        sh("systemctl stop containerd");
        Self
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        sh("systemctl start containerd");
    }
}

fn tree(arguments: &[&str]) -> Value {
    let output = inspect(&[&["tree", "--format", "json"], arguments].concat()).success();
    serde_json::from_str(&output).expect("inspect tree --format json writes JSON")
}

/// The containers in the tree, each with the pid of its shim (null for an orphan) beside it.
fn containers(tree: &Value) -> Vec<(Value, Value)> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for daemon in list(tree, "daemons") {
        for namespace in list(&daemon, "containerd_namespaces") {
            for shim in list(&namespace, "shims") {
                found.extend(list(&shim, "containers").into_iter().map(|node| (node, shim["pid"].clone())));
            }
            found.extend(list(&namespace, "orphans").into_iter().map(|node| (node, Value::Null)));
        }
    }
    found
}

#[track_caller]
fn container(tree: &Value, id: &str) -> (Value, Value) {
    let found = containers(tree).into_iter().find(|(node, _)| node["id"] == id);
    found.unwrap_or_else(|| panic!("`{id}` is not in {tree:#}"))
}

fn pids(container: &Value) -> BTreeSet<u64> {
    let processes = container["processes"].as_array().cloned().unwrap_or_default();
    processes.iter().filter_map(|process| process["pid"].as_u64()).collect()
}

fn words(text: &str) -> BTreeSet<u64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// One with a terminal, one that forks, one with an exec inside (made by crun), one paused, one with a limit and the
/// host's network; in two containerd namespaces.
fn start_all() -> Vec<Container> {
    import("default", "busybox");
    // ctr wants a terminal itself before it gives one: script(1) is it.
    let terminal = Container { namespace: "default".to_owned(), id: "tree-terminal".to_owned() };
    sh(&format!("script -qec 'ctr run -d --tty {BUSYBOX} tree-terminal sleep 100000' /dev/null"));
    let forks = "sh -c 'sleep 1000 & sleep 1001 & (sleep 1002 & exec sleep 1003) & wait'";
    let all = vec![
        terminal,
        Container::start("default", "tree-forks", "", forks),
        Container::start("default", "tree-entered", "--runc-binary crun", "sleep 100000"),
        Container::start("tree", "tree-paused", "", "sleep 100000"),
        Container::start("tree", "tree-limited", "--memory-limit 67108864 --net-host", "sleep 100000"),
    ];
    sh("ctr tasks exec -d --exec-id shell tree-entered sh -c 'sleep 4242; true'");
    sh("ctr -n tree tasks pause tree-paused");
    wait_until("the forked processes", BOUND, || {
        (sh("ctr tasks ps tree-forks | wc -l") == "6").then_some(())
    });
    wait_until("the exec process", BOUND, || (sh("ctr tasks ps tree-entered | wc -l") == "4").then_some(()));
    all
}

/// Compares every container with what `ctr` and `/proc` say of it.
#[track_caller]
fn assert_agrees_with_ctr(tree: &Value, namespace: &str) {
    let listed = sh(&format!("ctr -n {namespace} tasks ls | tail -n +2"));
    let shown: BTreeSet<String> = containers(tree)
        .iter()
        .filter(|(node, _)| node["containerd_namespace"] == namespace)
        .map(|(node, _)| node["id"].as_str().unwrap_or_default().to_owned())
        .collect();
    let ids: BTreeSet<String> =
        listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert_eq!(shown, ids);
    for line in listed.lines() {
        let [id, pid, status] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("ctr tasks ls has three columns: {line}");
        };
        let (node, shim) = container(tree, id);
        assert_eq!(node["init"]["pid"].to_string(), pid, "{node:#}");
        assert_eq!(node["status"], status.to_lowercase(), "{node:#}");
        assert_eq!(
            shim.to_string(),
            sh(&format!("ps -o ppid= -p {pid}")).trim(),
            "the init's parent is its shim"
        );
        let tasks = sh(&format!("ctr -n {namespace} tasks ps {id} | awk 'NR > 1 {{ print $1 }}'"));
        assert_eq!(pids(&node), words(&tasks), "{node:#}");
        for process in node["processes"].as_array().into_iter().flatten() {
            assert_agrees_with_proc(process);
        }
        let command = format!("ctr -n {namespace} containers ls | awk -v id={id} '$1 == id {{ print $2 }}'");
        assert_eq!(node["image"], sh(&command));
    }
}

#[track_caller]
fn assert_agrees_with_proc(process: &Value) {
    let pid = &process["pid"];
    let expected = sh(&format!("ps -o ppid=,user=,comm= -p {pid}"));
    let shown = format!(
        "{} {} {}",
        process["parent"],
        process["user"].as_str().unwrap_or_default(),
        process["name"].as_str().unwrap_or_default()
    );
    assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>());
    let inside = sh(&format!("awk '/^NSpid:/ {{ print $NF }}' /proc/{pid}/status"));
    assert_eq!(process["namespace_pid"].to_string(), inside);
    let words = sh(&format!("tr '\\0' ' ' </proc/{pid}/cmdline"));
    assert_eq!(process["command_line"].as_str().unwrap_or_default().replace('\'', ""), words.trim_end());
}

/// What must not change when the daemon goes: everything but what only it can say, and ages and amounts.
fn without_the_daemons_words(mut tree: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(object) => {
                for key in ["uptime_seconds", "memory_bytes", "image", "daemon_status", "runtime_type", "api"]
                {
                    object.remove(key);
                }
                for key in ["process", "records_without_task", "state", "ownership", "processes_seen"] {
                    object.remove(key);
                }
                object.values_mut().for_each(strip);
            }
            Value::Array(array) => array.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut tree);
    tree["daemons"][0]["findings"] = Value::Null;
    tree["totals"] = Value::Null;
    tree["host"] = Value::Null;
    // A namespace that only the daemon's records know is not on the host.
    if let Some(namespaces) = tree["daemons"][0]["containerd_namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["shims"] != Value::Array(Vec::new()));
    }
    tree
}

#[test]
fn the_tree_is_what_ctr_systemd_and_proc_say_with_and_without_the_daemon_and_a_shim() {
    let _all = start_all();
    let before = tree(&[]);
    let daemon = &before["daemons"][0];
    assert_eq!(before["daemons"].as_array().map(Vec::len), Some(1), "{before:#}");
    assert_eq!(daemon["process"]["pid"].to_string(), sh("systemctl show -P MainPID containerd"));
    assert_eq!(daemon["unit"], "containerd.service");
    assert_eq!(daemon["address"], "/run/containerd/containerd.sock");
    assert_eq!(daemon["process"]["listens"], true);
    let version = sh("ctr version | awk '/^Server:/ { server = 1 } server && /Version:/ { print $2 }'");
    assert_eq!(daemon["api"]["version"], version);
    for namespace in ["default", "tree"] {
        assert_agrees_with_ctr(&before, namespace);
    }
    assert_details(&before);
    assert_eq!(before["totals"]["findings"], 0, "{before:#}");

    let stopped = Daemon::stop();
    let after = tree(&[]);
    assert_eq!(without_the_daemons_words(before.clone()), without_the_daemons_words(after.clone()));
    assert_eq!(after["daemons"][0]["process"], Value::Null);
    assert_eq!(after["daemons"][0]["findings"][0]["kind"], "daemon-not-running");
    assert!(inspect(&["tree"]).success().contains("containerd · not running · containerd.service"));

    assert_shows_the_orphan(&before);
    drop(stopped);
    wait_until("the daemon to clean up after the dead shim", BOUND, || {
        containers(&tree(&[])).iter().all(|(node, _)| node["id"] != "tree-entered").then_some(())
    });
}

#[track_caller]
fn assert_details(tree: &Value) {
    let (entered, _) = container(tree, "tree-entered");
    assert_eq!(entered["runtime"]["family"], "crun", "{entered:#}");
    assert_eq!(entered["runtime"]["requested"], "crun");
    let roles: Vec<_> =
        entered["processes"].as_array().into_iter().flatten().map(|process| &process["role"]).collect();
    assert_eq!(roles, ["init", "exec", "child"]);
    let (limited, _) = container(tree, "tree-limited");
    assert_eq!(limited["runtime"]["family"], "runc");
    assert_eq!(limited["memory_limit"], 67_108_864);
    assert_eq!(limited["cgroup"], "/tree/tree-limited");
    let shared: Vec<_> =
        limited["shared_namespaces"].as_array().into_iter().flatten().map(|own| &own["kind"]).collect();
    assert_eq!(shared, ["cgroup", "network", "time", "user"]);
    assert_eq!(container(tree, "tree-terminal").0["terminal"], true);
    for namespace in tree["daemons"][0]["containerd_namespaces"].as_array().into_iter().flatten() {
        for shim in namespace["shims"].as_array().into_iter().flatten() {
            assert_eq!(shim["kernel_parent"], 1);
            let proofs: Vec<_> =
                shim["ownership"].as_array().into_iter().flatten().map(|proof| &proof["kind"]).collect();
            assert_eq!(proofs, ["address", "socket", "cgroup", "bundle"], "{shim:#}");
        }
    }
}

/// Kills the shim of `tree-entered` while no daemon is there to clean up after it.
#[track_caller]
fn assert_shows_the_orphan(before: &Value) {
    let (whole, shim) = container(before, "tree-entered");
    sh(&format!("kill -KILL {shim}"));
    wait_until("the shim's end", BOUND, || {
        (try_sh(&format!("test -e /proc/{shim}")).status != 0).then_some(())
    });
    let tree = tree(&[]);
    let (orphan, shim) = container(&tree, "tree-entered");
    assert_eq!(shim, Value::Null, "{orphan:#}");
    assert_eq!(orphan["findings"][0]["kind"], "bundle-without-shim");
    assert_eq!(orphan["status"], "running");
    assert_eq!(pids(&orphan), pids(&whole));
    let text = inspect(&["tree", "--container", "tree-ent"]).success();
    assert!(text.contains("! no running shim serves this bundle"), "{text}");
}

#[test]
fn one_shim_serves_a_pod() {
    let annotations =
        "--annotation io.kubernetes.cri.sandbox-id=tree-pod --annotation io.kubernetes.cri.sandbox-name=shop";
    let sandbox = format!("{annotations} --annotation io.kubernetes.cri.container-type=sandbox");
    let app = format!(
        "{annotations} --annotation io.kubernetes.cri.container-type=container --annotation io.kubernetes.cri.container-name=web"
    );
    let shim_of = |one: &Container| sh(&format!("ps -o ppid= -p {}", one.init_pid()));
    // containerd gives the pod's shim 0.1 s to answer; on a loaded machine it may start another one instead.
    let _pod = (0..5)
        .map(|_| {
            let sandbox = Container::start("tree", "tree-pod", &sandbox, "sleep 100000");
            (sandbox, Container::start("tree", "tree-app", &app, "sleep 100000"))
        })
        .find(|(sandbox, app)| shim_of(sandbox) == shim_of(app))
        .expect("the containers of a pod have one shim");
    let tree = tree(&["--namespace", "tree"]);
    let (pod, shim) = container(&tree, "tree-pod");
    assert_eq!(container(&tree, "tree-app").1, shim, "{tree:#}");
    assert_eq!(pod["pod"]["sandbox"], true);
    let text = inspect(&["tree", "--container", "shop/web"]).success();
    assert!(text.contains("shop/web · tree-app · running"), "{text}");
}

#[test]
fn hostile_names_and_arguments_stay_one_harmless_line_each() {
    // A file's name becomes the process's; 19 arguments of 100 KB make a command line of 1.9 MB.
    let script = r##"f=$(printf "/e\033[2J\377) Z 1 (\nx"); printf "#!/bin/sh\nsleep 100000\n:\n" >"$f"; chmod +x "$f"; a=$(head -c 100000 /dev/zero | tr "\0" x); "$f" "$(printf "\033]0;owned\007\r\n\302\233")" $a $a $a $a $a $a $a $a $a $a $a $a $a $a $a $a $a $a $a; :"##;
    import("tree", "busybox");
    let hostile = Container { namespace: "tree".to_owned(), id: "tree-hostile".to_owned() };
    let started = run("ctr", &["-n", "tree", "run", "-d", BUSYBOX, &hostile.id, "sh", "-c", script]);
    started.success();
    let json = wait_until("the hostile process", BOUND, || {
        let (node, _) = container(&tree(&[]), "tree-hostile");
        (pids(&node).len() == 3).then_some(node)
    });
    assert_eq!(json["processes"][1]["name"], "e\\x1b[2J\\xff) Z 1 (\\nx", "{json:#}");
    assert_eq!(json["processes"][1]["command_line_cut"], true);
    for arguments in
        [&["tree"][..], &["tree", "--all"], &["tree", "--format", "json"], &["tree", "--format", "dot"]]
    {
        let output = Command::new("/usr/local/bin/inspect").args(arguments).output().expect("inspect runs");
        let text = String::from_utf8(output.stdout).expect("the output is UTF-8");
        let live = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(live, None, "{arguments:?}: {text:?}");
    }
    let text = inspect(&["tree", "--container", "tree-hostile"]).success();
    let processes = text.lines().filter(|line| line.contains(" root ")).count();
    assert_eq!(processes, 3, "one line for each process: {text}");
}

/// A child that is ended and reaped with the test.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_container_that_comes_is_shown_by_watch() {
    let mut command = Command::new("/usr/local/bin/inspect");
    command.args(["tree", "--watch", "--interval", "1", "--format", "json"]).stdout(Stdio::piped());
    let mut watching = Watching(command.spawn().expect("inspect runs"));
    let lines = BufReader::new(watching.0.stdout.take().expect("a pipe")).lines();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let first = receiver.recv_timeout(BOUND).expect("a tree at once");
    assert!(!first.contains("tree-late"), "{first}");
    let _late = Container::start("tree", "tree-late", "", "sleep 100000");
    wait_until("the new container", BOUND, || {
        let line = receiver.try_recv().ok()?;
        serde_json::from_str::<Value>(&line).expect("each line is JSON");
        line.contains("\"id\":\"tree-late\"").then_some(())
    });
}

#[test]
fn without_root_it_shows_what_it_can_and_says_what_it_cannot() {
    let _forks = Container::start("default", "tree-user", "", "sleep 100000");
    let output = run(
        "setpriv",
        &["--reuid=65534", "--regid=65534", "--clear-groups", "/usr/local/bin/inspect", "tree"],
    );
    let text = output.success();
    assert!(text.contains("tree-user · running") && text.contains("sleep 100000"), "{text}");
    assert!(text.contains("not seen: cannot list `/run/containerd/io.containerd.runtime.v2.task`"), "{text}");
}
