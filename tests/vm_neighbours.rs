//! `inspect tree` where it is not alone: a second containerd, pods of the CRI plugin, a fork bomb next door; and the ways
//! to ask for a part of the tree.

#![allow(clippy::print_stderr, reason = "the tree is shown to whoever reads the log")]

mod support;

#[path = "support/cri.rs"]
mod cri;

use std::fs;
use std::time::Duration;

use cri::Pod;
use serde_json::Value;
use support::{BUSYBOX, Container, import, inspect, run, sh, try_sh, wait_until};

const BOUND: Duration = Duration::from_secs(90);

fn tree(arguments: &[&str]) -> Value {
    let output = inspect(&[&["tree", "--format", "json"], arguments].concat()).success();
    serde_json::from_str(&output).expect("inspect tree --format json writes JSON")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// A daemon's containers, each with the shim that serves it.
fn containers(daemon: &Value) -> Vec<(&Value, &Value)> {
    let namespaces = list(daemon, "containerd_namespaces").iter();
    let shims = namespaces.flat_map(|namespace| list(namespace, "shims"));
    shims.flat_map(|shim| list(shim, "containers").iter().map(move |container| (container, shim))).collect()
}

/// `NAMESPACE/ID PID` of each, sorted: what `ctr tasks ls` tells too.
fn outline(daemon: &Value) -> Vec<String> {
    let line = |(container, _): &(&Value, &Value)| {
        let text = |key: &str| container[key].as_str().unwrap_or_default();
        format!("{}/{} {}", text("containerd_namespace"), text("id"), container["init"]["pid"])
    };
    let mut lines: Vec<String> = containers(daemon).iter().map(line).collect();
    lines.sort();
    lines
}

/// The same by `ctr`, over all namespaces of the daemon behind `socket`.
fn outline_by_ctr(socket: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for namespace in sh(&format!("ctr -a {socket} namespaces ls -q")).lines() {
        let tasks = sh(&format!("ctr -a {socket} -n {namespace} tasks ls | awk 'NR > 1 {{ print $1, $2 }}'"));
        lines.extend(tasks.lines().map(|task| format!("{namespace}/{task}")));
    }
    lines.sort();
    lines
}

#[track_caller]
fn daemon<'a>(tree: &'a Value, address: &str) -> &'a Value {
    let found = list(tree, "daemons").iter().find(|daemon| daemon["address"] == address);
    found.unwrap_or_else(|| panic!("no daemon at {address}: {tree:#}"))
}

const FIRST: &str = "/run/containerd/containerd.sock";
const SECOND: &str = "/run/second/containerd.sock";

/// A second containerd with a config, a state directory and a socket of its own, in a unit of its own.
struct SecondDaemon;

impl SecondDaemon {
    fn start() -> Self {
        let config = format!(
            "version = 2\nroot = \"/var/lib/second\"\nstate = \"/run/second\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = \"{SECOND}\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"/var/lib/second/opt\"\n"
        );
        fs::write("/etc/second.toml", config).expect("/etc can be written");
        sh(
            "systemctl reset-failed second 2>/dev/null; systemd-run --quiet --unit second -p Type=notify -p Delegate=yes \
            -p KillMode=process containerd --config /etc/second.toml",
        );
        wait_until("the second containerd", BOUND, || {
            (try_sh(&format!("ctr -a {SECOND} version")).status == 0).then_some(())
        });
        sh(&format!("ctr -a {SECOND} images import /opt/lab/images/busybox.tar"));
        sh(&format!("ctr -a {SECOND} -n other images import /opt/lab/images/busybox.tar"));
        Self
    }

    /// Starts a container; it ends with the daemon.
    fn run(&self, namespace: &str, id: &str) {
        sh(&format!("ctr -a {SECOND} -n {namespace} run -d {BUSYBOX} {id} sleep 100000"));
    }
}

impl Drop for SecondDaemon {
    fn drop(&mut self) {
        drop(try_sh(&format!(
            "systemctl is-active -q second || systemctl start second; \
             for ns in default other; do for id in $(ctr -a {SECOND} -n $ns tasks ls -q); do \
             ctr -a {SECOND} -n $ns tasks rm -f $id; ctr -a {SECOND} -n $ns containers rm $id; done; done; \
             echo 1 > /sys/fs/cgroup/system.slice/second.service/cgroup.kill; systemctl stop second; rm -f /etc/second.toml"
        )));
    }
}

#[test]
fn two_daemons_are_told_apart_also_where_ids_are_the_same() {
    let second = SecondDaemon::start();
    let _twin = Container::start("default", "twin", "", "sleep 100000");
    let _web = Container::start("tree", "web", "", "sleep 100000");
    second.run("other", "twin");
    second.run("default", "guest");
    let seen = tree(&[]);
    assert_eq!(list(&seen, "daemons").len(), 2, "{seen:#}");
    for (socket, unit) in [(FIRST, "containerd.service"), (SECOND, "second.service")] {
        let daemon = daemon(&seen, socket);
        assert_eq!(daemon["process"]["pid"].to_string(), sh(&format!("systemctl show -P MainPID {unit}")));
        assert_eq!((&daemon["unit"], &daemon["process"]["listens"]), (&unit.into(), &true.into()));
        assert_eq!(outline(daemon), outline_by_ctr(socket));
        for (_, shim) in containers(daemon) {
            let proofs: Vec<_> = list(shim, "ownership").iter().map(|proof| &proof["kind"]).collect();
            assert_eq!(proofs, ["address", "socket", "cgroup", "bundle"], "{shim:#}");
        }
    }
    assert_eq!(seen["totals"]["findings"], 0, "{seen:#}");
    assert_eq!(daemon(&seen, SECOND)["state_directory"], "/run/second");
    let ambiguous = inspect(&["tree", "--container", "twin"]);
    assert_eq!(ambiguous.status, 2, "{ambiguous}");
    assert!(ambiguous.stderr.contains("hint: "), "{ambiguous}");
    let one = tree(&["--container", "other/twin"]);
    assert_eq!(outline(daemon(&one, SECOND)).len(), 1, "{one:#}");

    // Stopped, it leaves its shims, which name it still.
    sh("systemctl kill --kill-who=main -s KILL second; systemctl stop second");
    let after = tree(&[]);
    let (before, stopped) = (daemon(&seen, SECOND), daemon(&after, SECOND));
    assert_eq!(stopped["process"], Value::Null);
    assert_eq!(stopped["findings"][0]["kind"], "daemon-not-running");
    assert_eq!(outline(stopped), outline(before));
    assert_eq!(outline(daemon(&after, FIRST)), outline_by_ctr(FIRST));
    let text = inspect(&["tree"]).success();
    eprintln!("{text}");
    assert_eq!(after["totals"]["findings"], 1, "{text}");
    assert!(text.contains("! not running; its 2 shims run on"), "{text}");
    // What is left has nobody to clean it up: it is ended by hand.
    for (container, shim) in containers(stopped) {
        sh(&format!("kill -KILL {} {}", container["init"]["pid"], shim["pid"]));
    }
}

#[test]
fn a_pod_of_the_cri_plugin_has_its_names() {
    import("k8s.io", "pause");
    import("k8s.io", "busybox");
    let mut pod = Pod::run("shop-7f");
    let web = pod.start("web", BUSYBOX, 64 << 20, &["sh", "-c", "sleep 100001 & exec sleep 100000"]);
    let log = pod.start("log", BUSYBOX, 32 << 20, &["sleep", "100002"]);
    let seen = tree(&["--namespace", "k8s.io"]);
    let daemon = daemon(&seen, FIRST);
    let told: Vec<String> =
        outline_by_ctr(FIRST).into_iter().filter(|line| line.starts_with("k8s.io/")).collect();
    assert_eq!(outline(daemon), told, "{seen:#}");
    let all = containers(daemon);
    assert_eq!(all.len(), 3, "{seen:#}");
    assert!(
        all.iter().all(|(_, shim)| shim["id"] == pod.sandbox.as_str()),
        "one shim serves the pod: {seen:#}"
    );
    for (id, name, sandbox) in
        [(&pod.sandbox, Value::Null, true), (&web, "web".into(), false), (&log, "log".into(), false)]
    {
        let (container, _) =
            all.iter().find(|(container, _)| container["id"] == id.as_str()).expect("it is there");
        assert_eq!(
            (&container["pod"]["name"], &container["pod"]["namespace"]),
            (&"shop-7f".into(), &"shop".into())
        );
        assert_eq!((&container["name"], &container["pod"]["sandbox"]), (&name, &sandbox.into()));
        let tasks = sh(&format!("ctr -n k8s.io tasks ps {id} | awk 'NR > 1 {{ print $1 }}' | sort -n"));
        let mut pids: Vec<u64> =
            list(container, "processes").iter().filter_map(|p| p["pid"].as_u64()).collect();
        pids.sort_unstable();
        let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
        assert_eq!(pids.join("\n"), tasks, "{container:#}");
    }
    let (web, _) = all.iter().find(|(container, _)| container["name"] == "web").expect("it is there");
    assert_eq!(web["memory_limit"], 64 << 20, "{web:#}");
    assert_eq!(seen["totals"]["findings"], 0, "{seen:#}");
    let text = inspect(&["tree", "--container", "shop-7f/log"]).success();
    assert!(text.contains("shop-7f/log") && !text.contains("shop-7f/web"), "{text}");
    let text = inspect(&["tree", "--container", "shop-7f"]).success();
    eprintln!("{text}");
}

#[test]
fn parts_of_the_tree_are_found_by_pid_by_cgroup_and_drawn_for_graphviz() {
    let container = Container::start("tree", "part", "", "sh -c 'sleep 100001 & exec sleep 100000'");
    let _other = Container::start("tree", "other-part", "", "sleep 100000");
    let init = container.init_pid();
    let child = wait_until("its child", BOUND, || {
        sh(&format!("ctr -n tree tasks ps part | awk 'NR > 1 && $1 != {init} {{ print $1 }}'"))
            .parse::<u32>()
            .ok()
    });
    let text = inspect(&["tree", "--pid", &child.to_string()]).success();
    assert!(text.contains("◀ asked for") && text.contains("part · running"), "{text}");
    assert!(!text.contains("other-part"), "{text}");
    let shim = sh(&format!("ps -o ppid= -p {init}"));
    assert!(inspect(&["tree", "--pid", shim.trim()]).success().contains("part · running"));
    let outside = inspect(&["tree", "--pid", "1"]);
    assert_eq!(outside.status, 1, "{outside}");
    assert!(outside.stdout.contains("belongs to no containerd"), "{outside}");
    assert_eq!(inspect(&["tree", "--pid", "4194304"]).status, 2);
    for path in ["/tree/part", "/sys/fs/cgroup/tree/part"] {
        let text = inspect(&["tree", "--cgroup", path]).success();
        assert!(text.contains("part · running") && !text.contains("other-part"), "{text}");
    }
    let refused = inspect(&["tree", "--cgroup", "/nobody"]);
    assert_eq!(refused.status, 2, "{refused}");
    let dot = inspect(&["tree", "--format", "dot"]).success();
    assert!(dot.starts_with("digraph") && dot.trim_end().ends_with('}') && dot.contains("part"), "{dot}");
    for columns in ["60", "80"] {
        let text = run("env", &[&format!("COLUMNS={columns}"), "inspect", "tree"]).success();
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= columns.parse().ok(), "{columns}: {text}");
    }
}

/// A container with at most 120 processes that always wants more.
#[test]
fn a_fork_bomb_next_door_does_not_hide_the_others() {
    let _calm = Container::start("tree", "calm", "", "sleep 100000");
    let bomb = Container::start("tree", "bomb", "", "sleep 100000");
    sh("echo 120 > /sys/fs/cgroup/tree/bomb/pids.max");
    sh("ctr -n tree tasks exec -d --exec-id bomb bomb sh -c 'b() { b | b & }; while :; do b; done'");
    wait_until("the bomb", BOUND, || {
        let now: u32 = sh("cat /sys/fs/cgroup/tree/bomb/pids.current").parse().ok()?;
        (now > 100).then_some(())
    });
    for _ in 0..3 {
        let seen = tree(&["--namespace", "tree", "--timeout", "30000"]);
        let all = containers(daemon(&seen, FIRST));
        let find =
            |id: &str| all.iter().find(|(container, _)| container["id"] == id).map(|(found, _)| *found);
        let (calm, bombed) = (find("calm").expect("calm is there"), find("bomb").expect("bomb is there"));
        assert_eq!(
            (&calm["status"], list(calm, "processes").len(), list(calm, "findings").len()),
            (&"running".into(), 1, 0)
        );
        assert_eq!(bombed["init"]["pid"].to_string(), bomb.init_pid().to_string());
        let shown = list(bombed, "processes").len();
        assert!((1..=400).contains(&shown), "{shown} processes");
    }
    let text = inspect(&["tree", "--namespace", "tree", "--timeout", "30000"]).success();
    let live = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(live, None, "{text:?}");
    eprintln!("{}", text.lines().filter(|line| !line.contains(" root ")).collect::<Vec<_>>().join("\n"));
    sh("echo 1 > /sys/fs/cgroup/tree/bomb/cgroup.kill");
}
