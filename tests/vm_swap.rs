//! Swaps on a real node: in force and proven, or the very bytes from before and a containerd that works; and every
//! failure really caused.

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{BUSYBOX, Container, Finished, import, inspect, sh, try_sh, wait_until};

const CONFIG: &str = "/etc/containerd/config.toml";
const UNIT_DROP_IN: &str = "/run/systemd/system/containerd.service.d/50-vm-swap.conf";

/// A node without swaps; dropped, it is that again.
struct Node {
    config: String,
}

impl Node {
    fn new() -> Self {
        let node = Self { config: sh(&format!("sha256sum <{CONFIG}")) };
        assert_eq!(inspect(&["swap-runtime", "--status"]).success(), "no swap is in force\n");
        node
    }

    /// The very bytes from before, and a containerd that answers with CRI alive.
    #[track_caller]
    fn is_as_before(&self) {
        assert_eq!(sh(&format!("sha256sum <{CONFIG}")), self.config);
        assert_eq!(leftovers(), "");
        assert!(cri_is_ok(), "{}", sh("ctr plugins ls | grep -i cri"));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What a failed test left; each may have nothing to do.
        drop(try_sh(&format!(
            "umount {CONFIG} /etc/containerd; rm -f {UNIT_DROP_IN}; systemctl daemon-reload"
        )));
        drop(inspect(&["swap-runtime", "--undo", "--yes"]));
        drop(try_sh("systemctl reset-failed containerd; systemctl start containerd"));
    }
}

fn swap(arguments: &[&str]) -> Finished {
    inspect(&[&["swap-runtime", "--yes", "--format", "json"], arguments].concat())
}

/// A value of a JSON text, by jq.
fn jq(json: &str, filter: &str) -> String {
    let path = "/run/vm-swap.json";
    std::fs::write(path, json).expect("a scratch file");
    sh(&format!("jq -r '{filter}' {path}"))
}

fn leftovers() -> String {
    sh("ls -A /etc/containerd | grep inspect || true")
}

fn cri_is_ok() -> bool {
    try_sh("ctr plugins ls | awk '$1 ~ /grpc/ && $2 == \"cri\" { print $NF }' | grep -qx ok").status == 0
}

/// The runtime that made a container, by the format of its state: an account of its own.
fn made_by(namespace: &str, id: &str) -> &'static str {
    let root = format!("/run/containerd/runc/{namespace}/{id}");
    if Path::new(&root).join("status").exists() {
        return "crun";
    }
    let state = sh(&format!("cat {root}/state.json"));
    if state.contains("inspect-runtime") { "inspect-runtime" } else { "runc" }
}

fn default_handler() -> String {
    sh(
        "containerd config dump | sed -n \"s/.*default_runtime_name = ['\\\"]\\(.*\\)['\\\"]/\\1/p\" | head -1",
    )
}

fn unit_drop_in(lines: &str) {
    sh(&format!(
        "mkdir -p $(dirname {UNIT_DROP_IN}) && printf '[Service]\\n{lines}\\n' >{UNIT_DROP_IN} && systemctl daemon-reload"
    ));
}

#[test]
fn swaps_are_proven_containers_live_on_and_undo_restores_the_bytes() {
    let node = Node::new();
    let old = Container::start("default", "swap-old", "", "sleep 100000");
    let pid = old.init_pid();

    let report = swap(&["crun"]).success();
    assert_eq!(jq(&report, ".state"), "proven");
    assert_eq!(
        (jq(&report, ".canary.family"), jq(&report, ".pod_canary.family")),
        ("crun".into(), "crun".into())
    );
    assert_eq!(default_handler(), "crun");
    assert!(cri_is_ok());
    let status = inspect(&["swap-runtime", "--status", "--format", "json"]).success();
    assert_eq!(jq(&status, ".swaps[0].files[0].state"), "as-written");

    // The situation that started it all: crun is the default in the config, and `ctr run` still runs runc.
    let seed = Container::start("default", "swap-seed", "", "sleep 100000");
    assert_eq!(made_by("default", &seed.id), "runc");
    let why = inspect(&["why", &seed.id]).success();
    assert!(why.contains("runc"), "{why}");

    // Once more is nothing to write, and still proven.
    let again = swap(&["crun"]).success();
    assert_eq!((jq(&again, ".state"), jq(&again, ".diffs | length")), ("proven".into(), "0".into()));

    let undone = inspect(&["swap-runtime", "--undo", "--yes", "--format", "json"]).success();
    assert_eq!(jq(&undone, ".original_bytes"), "true");
    node.is_as_before();
    assert_eq!(default_handler(), "runc");
    assert_eq!(old.init_pid(), pid);
    assert_eq!(sh("ctr tasks exec --exec-id e swap-old echo alive"), "alive");
}

#[test]
fn the_built_in_runtime_is_installed_swapped_to_and_back() {
    let node = Node::new();
    let report = swap(&["builtin"]);
    if report.status != 0 && report.stderr.contains("inspect-runtime --version` failed") {
        support::skip!("the built-in runtime is not in this build");
    }
    let report = report.success();
    assert_eq!(
        (jq(&report, ".state"), jq(&report, ".canary.family")),
        ("proven".into(), "inspect-runtime".into())
    );
    assert!(sh(&format!("cat {CONFIG}")).contains("/usr/local/libexec/inspect/inspect-runtime"));
    inspect(&["swap-runtime", "--undo", "--yes"]).success();
    node.is_as_before();
}

#[test]
fn scope_node_makes_ctr_run_follow_and_every_container_keeps_its_runtime() {
    let node = Node::new();
    let before = Container::start("default", "node-before", "", "sleep 100000");
    swap(&["crun", "--scope", "node"]).success();
    let after = Container::start("default", "node-after", "", "sleep 100000");
    assert_eq!((made_by("default", &before.id), made_by("default", &after.id)), ("runc", "crun"));
    for id in ["node-before", "node-after"] {
        assert_eq!(sh(&format!("ctr tasks exec --exec-id e {id} echo alive")), "alive");
    }
    inspect(&["swap-runtime", "--undo", "--yes"]).success();
    let later = Container::start("default", "node-later", "", "sleep 100000");
    assert_eq!(made_by("default", &later.id), "runc");
    // The one that crun made under the name runc can still be entered and ended: the stand-in stays for it.
    for id in ["node-before", "node-after", "node-later"] {
        assert_eq!(sh(&format!("ctr tasks exec --exec-id f {id} echo alive")), "alive");
        sh(&format!("ctr tasks kill -s KILL {id}"));
    }
    drop((before, after, later));
    inspect(&["swap-runtime", "--undo", "--yes"]).success();
    assert!(!Path::new("/var/lib/containerd/opt/bin/runc").exists());
    assert_eq!(sh(&format!("ctr run --rm {BUSYBOX} node-last echo made")), "made");
    node.is_as_before();
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_written() {
    let node = Node::new();
    sh("printf '#!/bin/sh\\nexit 1\\n' >/root/bad-runtime && chmod 755 /root/bad-runtime");
    sh(
        "mkdir -p /run/noexec && mount -t tmpfs -o noexec none /run/noexec && cp /usr/bin/crun /run/noexec/crun",
    );
    for (runtime, words) in [
        ("nosuch", "no such file in PATH"),
        ("/nonexistent/crun", "cannot be read"),
        ("/etc/passwd", "not an executable file"),
        ("/root/bad-runtime", "--version` failed"),
        ("/run/noexec/crun", "noexec"),
    ] {
        let refused = swap(&[runtime]);
        assert_eq!(refused.status, 2, "{refused}");
        assert!(refused.stderr.contains(words), "{words}: {refused}");
    }
    sh("umount /run/noexec");
    let dry = inspect(&["swap-runtime", "crun", "--dry-run"]).success();
    assert!(dry.contains("+") && dry.contains("nothing was written"), "{dry}");
    let asked = inspect(&["swap-runtime", "crun"]);
    assert!(asked.status == 2 && asked.stderr.contains("without a yes"), "{asked}");
    node.is_as_before();
}

#[test]
fn a_read_only_or_full_etc_leaves_the_old_config() {
    let node = Node::new();
    sh("mount --bind /etc/containerd /etc/containerd && mount -o remount,bind,ro /etc/containerd");
    let refused = swap(&["crun"]);
    sh("umount /etc/containerd");
    assert!(refused.status == 2 && refused.stderr.contains("Read-only file system"), "{refused}");
    node.is_as_before();
    sh("cp -a /etc/containerd /run/etc-copy && mount -t tmpfs -o size=16k none /etc/containerd && \
        cp -a /run/etc-copy/. /etc/containerd && rm -r /run/etc-copy");
    drop(try_sh("dd if=/dev/zero of=/etc/containerd/fill bs=4k 2>/dev/null"));
    let refused = swap(&["crun"]);
    let kept = sh(&format!("sha256sum <{CONFIG}"));
    sh("umount /etc/containerd");
    assert!(refused.status == 2 && refused.stderr.contains("No space left"), "{refused}");
    assert_eq!(kept, node.config);
    node.is_as_before();
}

#[test]
fn a_containerd_that_does_not_start_or_dies_gets_its_old_config_back() {
    let node = Node::new();
    let old = Container::start("default", "swap-fault", "", "sleep 100000");
    let pid = old.init_pid();
    let with_crun = format!("grep -q crun {CONFIG}");
    for (what, lines, words) in [
        (
            "refuses to start",
            format!("ExecStartPre=/bin/sh -c \"! {with_crun}\""),
            "ended with result `failed`",
        ),
        (
            "hangs in start",
            format!("ExecStartPre=/bin/sh -c \"{with_crun} && sleep 1000 || true\""),
            "did not end within",
        ),
        (
            "dies after its start",
            format!("ExecStartPost=/bin/sh -c \"if {with_crun}; then (sleep 6; kill -9 $MAINPID) & fi\""),
            "stopped again after its start",
        ),
    ] {
        unit_drop_in(&lines);
        let failed = swap(&["crun", "--no-verify", "--timeout", "15"]);
        assert_eq!(failed.status, 2, "{what}: {failed}");
        assert!(failed.stderr.contains(words), "{what}: {failed}");
        assert!(failed.stderr.contains("everything is as it was before"), "{what}: {failed}");
        node.is_as_before();
        assert_eq!(old.init_pid(), pid, "{what}");
    }
}

#[test]
fn a_start_limit_does_not_keep_the_old_config_from_coming_back() {
    let node = Node::new();
    sh(&format!(
        "mkdir -p $(dirname {UNIT_DROP_IN}) && printf '[Unit]\\nStartLimitIntervalSec=600\\nStartLimitBurst=1\\n' >{UNIT_DROP_IN} && systemctl daemon-reload"
    ));
    drop(try_sh("systemctl reset-failed containerd; systemctl restart containerd"));
    let failed = swap(&["crun", "--no-verify"]);
    assert!(failed.status == 2 && failed.stderr.contains("everything is as it was before"), "{failed}");
    node.is_as_before();
}

/// Starts a swap and kills it as soon as the journal has come to `stage`.
fn kill_at(stage: &str) {
    let mut child: Child = Command::new("/usr/local/bin/inspect")
        .args(["swap-runtime", "crun", "--yes", "--no-verify"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("inspect starts");
    let look = format!("jq -e '.entries[-1].stage == \"{stage}\"' /var/lib/inspect/swap/journal.json");
    wait_until(stage, Duration::from_secs(60), || (try_sh(&look).status == 0).then_some(()));
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
}

#[test]
fn a_killed_swap_is_told_and_undone() {
    let node = Node::new();
    kill_at("restarting");
    let status = inspect(&["swap-runtime", "--status"]);
    assert!(status.status == 1 && status.stdout.contains("interrupted"), "{status}");
    let refused = swap(&["crun"]);
    assert!(refused.status == 2 && refused.stderr.contains("was interrupted"), "{refused}");
    inspect(&["swap-runtime", "--undo", "--yes"]).success();
    node.is_as_before();
}

#[test]
fn two_at_once_and_an_edit_meanwhile() {
    let node = Node::new();
    sh("mkdir -p /run/inspect");
    let mut holder = Command::new("flock")
        .args(["/run/inspect/swap.lock", "sleep", "1000"])
        .spawn()
        .expect("flock(1) runs");
    wait_until("the lock", Duration::from_secs(10), || {
        (try_sh("flock -n /run/inspect/swap.lock true").status != 0).then_some(())
    });
    let refused = swap(&["crun"]);
    drop(try_sh("pkill -P $(pgrep -f 'flock /run/inspect/swap.lock' | head -1)"));
    holder.kill().expect("it can be killed");
    holder.wait().expect("it ends");
    assert!(refused.status == 2 && refused.stderr.contains("while another inspect does"), "{refused}");

    wait_until("the lock to be free", Duration::from_secs(10), || {
        (try_sh("flock -n /run/inspect/swap.lock true").status == 0).then_some(())
    });
    swap(&["crun", "--no-verify", "--no-restart"]).success();
    sh(&format!("printf '\\n# added later\\n' >>{CONFIG}"));
    let undone = inspect(&["swap-runtime", "--undo", "--yes", "--format", "json"]).success();
    assert_eq!(jq(&undone, ".original_bytes"), "false");
    let text = sh(&format!("cat {CONFIG}"));
    assert!(text.contains("# added later") && !text.contains("crun"), "{text}");
    sh(&format!("head -n -2 {CONFIG} >/run/config && cat /run/config >{CONFIG}"));
    node.is_as_before();
}

#[test]
fn no_config_at_all_is_the_built_in_default() {
    let node = Node::new();
    import("default", "busybox");
    sh(&format!("mv {CONFIG} /run/config.kept && systemctl restart containerd"));
    let report = swap(&["crun", "--no-verify"]);
    let there = try_sh(&format!("cat {CONFIG}"));
    let undone = inspect(&["swap-runtime", "--undo", "--yes"]);
    let gone = !Path::new(CONFIG).exists();
    sh(&format!("mv /run/config.kept {CONFIG} && systemctl restart containerd"));
    assert!(report.status == 0 && there.stdout.contains("/usr/bin/crun"), "{report} {there}");
    assert!(undone.status == 0 && gone, "{undone}");
    node.is_as_before();
}
