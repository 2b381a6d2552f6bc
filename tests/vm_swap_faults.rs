//! Every failure of a swap, really caused: a disk, a daemon, systemd, somebody else, a kill at any step. Each leaves the old node
//! working, or says how far it came and undoes it.

#[path = "support/cri.rs"]
mod cri;
mod support;
#[path = "support/swap_node.rs"]
mod swap_node;

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cri::Pod;
use support::{BUSYBOX, Container, generation, import, inspect, run, sh, try_sh, wait_until};
use swap_node::{
    CONFIG, KEPT, Node, STAND_IN, UNIT_DROP_IN, default_handler, jq, lives, made_by, status, swap, undo,
    unit_drop_in,
};

#[test]
fn a_read_only_or_full_disk_leaves_the_old_config() {
    let node = Node::new();
    sh("mount --bind /etc/containerd /etc/containerd && mount -o remount,bind,ro /etc/containerd");
    let refused = swap(&["crun"]);
    sh("umount /etc/containerd");
    assert!(refused.status == 2 && refused.stderr.contains("Read-only file system"), "{refused}");
    node.is_as_before();
    for folder in ["/etc/containerd", "/var/lib/inspect"] {
        sh(&format!(
            "rm -rf /run/copy && mkdir -p {folder} && cp -a {folder} /run/copy && \
             mount -t tmpfs -o size=64k none {folder} && cp -a /run/copy/. {folder}"
        ));
        drop(try_sh(&format!("dd if=/dev/zero of={folder}/fill bs=4k 2>/dev/null")));
        let refused = swap(&["crun"]);
        let kept = sh(&format!("sha256sum <{CONFIG}"));
        sh(&format!("umount {folder}"));
        assert!(refused.status == 2 && refused.stderr.contains("No space left"), "{folder}: {refused}");
        assert_eq!(kept, node.config, "{folder}");
    }
    node.is_as_before();
}

/// One way in which a daemon fails under its new config.
struct Fault {
    name: &'static str,
    lines: String,
    seconds: &'static str,
    words: &'static str,
}

impl Fault {
    /// `script` runs as a part of the unit's start, when the new config is there.
    fn new(
        name: &'static str,
        setting: &str,
        script: &str,
        seconds: &'static str,
        words: &'static str,
    ) -> Self {
        let lines =
            format!("[Service]\n{setting}=/bin/sh -c \"if grep -q crun {CONFIG}; then {script}; fi\"\n");
        Self { name, lines, seconds, words }
    }
}

#[test]
fn a_containerd_that_does_not_start_or_dies_gets_its_old_config_back() {
    let node = Node::new();
    let old = Container::start("default", "swap-fault", "", "sleep 100000");
    let pid = old.init_pid();
    for fault in [
        Fault::new("refuses to start", "ExecStartPre", "exit 1", "60", "ended with result `failed`"),
        Fault::new("hangs in start", "ExecStartPre", "sleep 1000", "8", "did not end within"),
        Fault::new(
            "dies 10 s after its start",
            "ExecStartPost",
            "(sleep 10; kill -9 $MAINPID) & true",
            "60",
            "stopped again after its start",
        ),
    ] {
        let Fault { name, lines, seconds, words } = fault;
        unit_drop_in(&lines);
        let failed = swap(&["crun", "--no-verify", "--timeout", seconds]);
        assert_eq!(failed.status, 2, "{name}: {failed}");
        assert!(failed.stderr.contains(words), "{name}: {failed}");
        assert!(failed.stderr.contains("everything is as it was before"), "{name}: {failed}");
        node.is_as_before();
        assert_eq!(old.init_pid(), pid, "{name}");
    }
    assert_eq!(status().stdout, "{\n  \"busy\": false,\n  \"stand_in\": null,\n  \"swaps\": []\n}\n");
}

/// The disk is filled, and the config edited by somebody else, while the daemon is being restarted.
#[test]
fn a_disk_that_fills_up_and_an_edit_meanwhile_do_not_keep_the_old_config_away() {
    let node = Node::new();
    sh("rm -rf /run/copy && cp -a /etc/containerd /run/copy && \
        mount -t tmpfs -o size=64k none /etc/containerd && cp -a /run/copy/. /etc/containerd");
    unit_drop_in(
        &Fault::new("", "ExecStartPre", "cat /dev/zero >/etc/containerd/fill; exit 1", "60", "").lines,
    );
    let failed = swap(&["crun", "--no-verify"]);
    let full = sh("df --output=avail /etc/containerd | tail -1 | tr -d ' '");
    let now = sh(&format!("sha256sum <{CONFIG}"));
    sh("umount /etc/containerd");
    assert!(failed.stderr.contains("everything is as it was before"), "{failed}");
    assert_eq!((full.as_str(), &now), ("0", &node.config), "{failed}");

    let script = format!("echo '# by hand' >>{CONFIG}; exit 1");
    unit_drop_in(&Fault::new("", "ExecStartPre", &script, "60", "").lines);
    let failed = swap(&["crun", "--no-verify"]);
    assert!(failed.stderr.contains("its lines were taken out of `/etc/containerd/config.toml`"), "{failed}");
    let text = sh(&format!("cat {CONFIG}"));
    assert!(text.contains("# by hand") && !text.contains("crun"), "{text}");
    sh(&format!("rm {UNIT_DROP_IN} && systemctl daemon-reload && cp -a {KEPT} {CONFIG}"));
    node.is_as_before();
}

/// Edited after it was read and before it is written: by the runtime, as it is asked for its version.
#[test]
fn a_config_that_somebody_edits_before_it_is_written_is_theirs() {
    let node = Node::new();
    let script = format!("#!/bin/sh\necho '# by hand' >>{CONFIG}\nexec /usr/bin/crun \"$@\"\n");
    std::fs::write("/root/editing-runtime", script).expect("a runtime");
    sh("chmod 755 /root/editing-runtime");
    let refused = swap(&["/root/editing-runtime", "--no-verify"]);
    assert!(refused.status == 2 && refused.stderr.contains("somebody changed it"), "{refused}");
    assert!(refused.stderr.contains("everything is as it was before"), "{refused}");
    let text = sh(&format!("cat {CONFIG}"));
    assert!(text.contains("# by hand") && !text.contains("editing-runtime"), "{text}");
    assert_eq!(jq(&status().success(), ".swaps | length"), "0");
    sh(&format!("cp -a {KEPT} {CONFIG}"));
    node.is_as_before();
}

#[test]
fn a_start_limit_does_not_keep_the_old_config_from_coming_back() {
    let node = Node::new();
    unit_drop_in("[Unit]\nStartLimitIntervalSec=600\nStartLimitBurst=1\n");
    drop(try_sh("systemctl reset-failed containerd; systemctl restart containerd"));
    let failed = swap(&["crun", "--no-verify"]);
    assert!(failed.status == 2 && failed.stderr.contains("everything is as it was before"), "{failed}");
    node.is_as_before();
}

/// Every step of the journal and every file comes into force by one of these.
const RENAMES: &str = "rename,renameat,renameat2";
/// By one of these a file goes.
const UNLINKS: &str = "unlink,unlinkat";

/// Runs inspect and has the kernel kill it as it enters its `number`th of these system calls. `None` when it ended before.
fn killed_at(calls: &str, number: usize, arguments: &[&str]) -> Option<()> {
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:signal=SIGKILL:when={number}"));
    let strace = ["-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject, "/usr/local/bin/inspect"];
    let finished = run("strace", &[&strace, arguments].concat());
    match finished.status {
        0 => None,
        137 => Some(()),
        _ => panic!("{finished}"),
    }
}

#[test]
fn a_swap_killed_at_any_step_is_told_and_undone() {
    let node = Node::new();
    let arguments = ["swap-runtime", "crun", "--yes", "--no-verify"];
    // The backup, the journal's first entry; the config; applied, restarting, verifying, committed.
    let stages = ["", "", "planned", "planned", "applied", "restarting", "verifying"];
    for (number, stage) in (1..).zip(stages) {
        killed_at(RENAMES, number, &arguments).unwrap_or_else(|| panic!("not killed at {number}"));
        let told = status();
        if stage.is_empty() {
            assert_eq!(
                (told.status, jq(&told.stdout, ".swaps | length")),
                (0, "0".into()),
                "{number}: {told}"
            );
        } else {
            let entry = "[.swaps[0].stage, .swaps[0].interrupted] | tostring";
            assert_eq!(jq(&told.stdout, entry), format!("[\"{stage}\",true]"), "{number}: {told}");
            assert_eq!(told.status, 1, "{number}: {told}");
            if stage == "applied" {
                let refused = swap(&["crun"]);
                assert!(refused.status == 2 && refused.stderr.contains("was interrupted"), "{refused}");
            }
            if stage == "restarting" {
                // The undo itself is killed: before it writes the config, and before it says that it is done.
                for step in [2, 3] {
                    let undo = ["swap-runtime", "--undo", "--yes"];
                    killed_at(RENAMES, step, &undo).unwrap_or_else(|| panic!("undo not killed at {step}"));
                    assert_eq!(jq(&status().stdout, ".swaps[0].stage"), "rolling-back", "{step}");
                }
            }
            assert_eq!(jq(&undo(), ".original_bytes"), "true", "{number}");
        }
        node.is_as_before();
    }
}

/// A node with many pods takes seconds until its CRI plugin has read them, and containerd 1.6 serves before that. Here the plugin
/// gets a container's status by a pipe, and gets nothing at first.
#[test]
fn a_swap_waits_until_the_plugin_has_read_its_pods() {
    const HELD: Duration = Duration::from_secs(3);
    let node = Node::new();
    import("k8s.io", "busybox");
    import("k8s.io", "pause");
    let mut pod = Pod::run("swap-slow");
    let id = pod.start("slow", BUSYBOX, 0, &["sleep", "100000"]);
    let file = format!("/var/lib/containerd/io.containerd.grpc.v1.cri/containers/{id}/status");
    let kept = std::fs::read(&file).expect("the plugin's record of the container");
    sh(&format!("mv {file} /run/vm-swap-slow && mkfifo {file}"));
    let (opened, reads) = mpsc::channel();
    let pipe = file.clone();
    // The pipe opens when somebody reads it.
    thread::spawn(move || opened.send(std::fs::File::create(pipe)));
    let told = "/run/vm-swap-slow.log";
    let mut swapping = Command::new("/usr/local/bin/inspect")
        .args(["swap-runtime", "crun", "--yes"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(told).expect("a log"))
        .spawn()
        .expect("inspect starts");
    let mut pipe = reads.recv_timeout(Duration::from_secs(120)).expect("the plugin reads").expect("a pipe");
    // Whoever reads it later finds a file again.
    sh(&format!("mv /run/vm-swap-slow {file}"));
    if generation() == "bookworm" {
        wait_until("a daemon that serves", Duration::from_secs(60), || {
            sh(&format!("cat {told}")).contains("plugins, config in force").then_some(())
        });
    }
    let begun = Instant::now();
    while begun.elapsed() < HELD {
        assert_eq!(swapping.try_wait().expect("its state"), None, "{}", sh(&format!("cat {told}")));
        thread::sleep(Duration::from_millis(50));
    }
    pipe.write_all(&kept).expect("the plugin reads on");
    drop(pipe);
    let ended = swapping.wait().expect("it ends");
    assert_eq!(ended.code(), Some(0), "{}", sh(&format!("cat {told}")));
    assert_eq!(default_handler(), "crun");
    pod.reconnect();
    let lives = pod.exec(&id, &["echo", "alive"], 60).expect("the container is known and lives");
    assert_eq!((lives.exit_code, &*lives.stdout), (0, &b"alive\n"[..]));
    drop(pod);
    undo();
    node.is_as_before();
}

#[test]
fn two_at_once_do_not_meet() {
    let node = Node::new();
    unit_drop_in(&Fault::new("", "ExecStartPre", "sleep 1000", "", "").lines);
    let mut first: Child = Command::new("/usr/local/bin/inspect")
        .args(["swap-runtime", "crun", "--yes", "--no-verify", "--timeout", "15"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("inspect starts");
    wait_until("the first one's restart", Duration::from_secs(60), || {
        jq(&status().stdout, ".swaps[0].stage").eq("restarting").then_some(())
    });
    for second in [&["builtin", "--no-verify"][..], &["--undo"]] {
        let refused = swap(second);
        assert!(refused.status == 2 && refused.stderr.contains("while another inspect does"), "{refused}");
    }
    assert_eq!(first.wait().expect("it ends").code(), Some(2));
    sh(&format!("rm {UNIT_DROP_IN} && systemctl daemon-reload"));
    node.is_as_before();
}

/// The name `runc` changes its meaning in the middle of it: a container of either runtime can be entered and ended all the same.
#[test]
fn a_swap_of_the_node_killed_at_any_step_leaves_every_container_its_runtime() {
    let node = Node::new();
    let old = Container::start("default", "kill-runc", "", "sleep 100000");
    let arguments = ["swap-runtime", "crun", "--scope", "node", "--yes", "--no-verify", "--no-restart"];
    // 1 backup, 2 journal, 3 config, 4 journal, 5 the stand-in's rules, 6 the stand-in, 7 journal.
    for (number, stage, maker) in [(5, "applied", "runc"), (6, "applied", "runc"), (7, "applied", "crun")] {
        killed_at(RENAMES, number, &arguments).unwrap_or_else(|| panic!("not killed at {number}"));
        assert_eq!(jq(&status().stdout, ".swaps[0].stage"), stage, "{number}");
        lives(&old.id);
        let new = Container::start("default", "kill-new", "", "sleep 100000");
        assert_eq!(made_by(&new.id), maker, "{number}");
        drop(new);
        assert_eq!(jq(&undo(), ".original_bytes"), "true", "{number}");
        assert!(!Path::new(STAND_IN).exists(), "{number}");
        node.is_as_before();
    }
    // The way back: one container of crun's lives on under the name runc, so the stand-in stays for it, until it has ended.
    inspect(&arguments).success();
    let new = Container::start("default", "kill-crun", "", "sleep 100000");
    let back = ["swap-runtime", "--undo", "--yes"];
    // 1 journal, 2 config, 3 journal; what an earlier one wrote is not written again: 1 journal, 2 journal, 3 the stand-in's rules.
    for number in [1, 2, 3, 3] {
        killed_at(RENAMES, number, &back).unwrap_or_else(|| panic!("undo not killed at {number}"));
        lives(&old.id);
        lives(&new.id);
    }
    inspect(&back).success();
    assert_eq!((made_by(&new.id), Path::new(STAND_IN).exists()), ("crun", true));
    lives(&new.id);
    drop(new);
    // What goes, goes by these: the stand-in, then its rules.
    let mut number = 1;
    while killed_at(UNLINKS, number, &back).is_some() {
        number += 1;
        lives(&old.id);
    }
    assert!(number > 2, "the stand-in and its rules are two files");
    lives(&old.id);
    assert!(!Path::new(STAND_IN).exists());
    node.is_as_before();
}
