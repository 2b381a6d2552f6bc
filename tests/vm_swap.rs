//! Swaps on a real node: in force and proven, or the very bytes from before and a containerd that works; and every
//! failure really caused.

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{Container, Finished, generation, import, inspect, run, sh, try_sh, wait_until};

const CONFIG: &str = "/etc/containerd/config.toml";
const KEPT: &str = "/run/vm-swap-config";
const UNIT_DROP_IN: &str = "/run/systemd/system/containerd.service.d/50-vm-swap.conf";
const STAND_IN: &str = "/var/lib/containerd/opt/bin/runc";

/// A node without swaps; dropped, it is that again.
struct Node {
    config: String,
}

impl Node {
    fn new() -> Self {
        assert_eq!(inspect(&["swap-runtime", "--status"]).success(), "no swap is in force\n");
        sh(&format!("cp -a {CONFIG} {KEPT}"));
        Self { config: sh(&format!("sha256sum <{CONFIG}")) }
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
            "umount /etc/containerd /var/lib/inspect; rm -f {UNIT_DROP_IN}; systemctl daemon-reload"
        )));
        if std::thread::panicking() {
            drop(inspect(&["swap-runtime", "--undo", "--yes"]));
            drop(try_sh(&format!(
                "cp -a {KEPT} {CONFIG}; systemctl reset-failed containerd; systemctl restart containerd"
            )));
        }
    }
}

fn swap(arguments: &[&str]) -> Finished {
    inspect(&[&["swap-runtime", "--yes", "--format", "json"], arguments].concat())
}

fn undo() -> String {
    inspect(&["swap-runtime", "--undo", "--yes", "--format", "json"]).success()
}

fn status() -> Finished {
    inspect(&["swap-runtime", "--status", "--format", "json"])
}

/// A value of a JSON text, by jq.
fn jq(json: &str, filter: &str) -> String {
    let path = "/run/vm-swap.json";
    std::fs::write(path, json).expect("a scratch file");
    sh(&format!("jq -r '{filter}' {path}"))
}

/// What a swap may have left beside the files that it writes.
fn leftovers() -> String {
    sh("ls -A /etc/containerd /var/lib/containerd/opt/bin 2>/dev/null | grep inspect || true")
}

fn cri_is_ok() -> bool {
    try_sh("ctr plugins ls | awk '$1 ~ /grpc/ && $2 == \"cri\" { print $NF }' | grep -qx ok").status == 0
}

/// The runtime that made a container, by the format of its state: an account of its own.
fn made_by(id: &str) -> &'static str {
    let root = format!("/run/containerd/runc/default/{id}");
    if Path::new(&root).join("status").exists() {
        return "crun";
    }
    let state = sh(&format!("cat {root}/state.json"));
    if state.contains("inspect-runtime") { "inspect-runtime" } else { "runc" }
}

/// The default handler of the config on disk, as containerd itself reads it.
fn default_handler() -> String {
    sh(
        "containerd config dump | sed -n \"s/.*default_runtime_name = ['\\\"]\\(.*\\)['\\\"]/\\1/p\" | head -1",
    )
}

#[track_caller]
fn lives(id: &str) {
    assert_eq!(sh(&format!("ctr tasks exec --exec-id e{} {id} echo alive", std::process::id())), "alive");
}

fn unit_drop_in(lines: &str) {
    let folder = Path::new(UNIT_DROP_IN).parent().expect("it has a folder");
    std::fs::create_dir_all(folder).expect("the drop-in's folder");
    std::fs::write(UNIT_DROP_IN, lines).expect("the drop-in");
    sh("systemctl daemon-reload");
}

/// The situation that started it all, and the way out of it: crun is the default in the config, `ctr run` still runs runc.
#[test]
fn swaps_are_proven_containers_live_on_and_undo_restores_the_bytes() {
    let node = Node::new();
    let old = Container::start("default", "swap-old", "", "sleep 100000");
    let other = Container::start("default", "swap-other", "--runc-binary /usr/bin/crun", "sleep 100000");
    let pids = (old.init_pid(), other.init_pid());

    let report = swap(&["crun"]).success();
    let facts = "[.state, .canary.family, .pod_canary.family, .census.lost] | tostring";
    assert_eq!(jq(&report, facts), r#"["proven","crun","crun",[]]"#);
    assert_eq!(default_handler(), "crun");
    assert!(cri_is_ok());
    assert_eq!(jq(&status().success(), ".swaps[0].files[0].state"), "as-written");

    let seed = Container::start("default", "swap-seed", "", "sleep 100000");
    assert_eq!(made_by(&seed.id), "runc");
    let why = inspect(&["why", &seed.id]).success();
    for words in ["runc, proven by its own state", "no BinaryName", "it does not apply here", "--scope node"]
    {
        assert!(why.split_whitespace().collect::<Vec<_>>().join(" ").contains(words), "{words}: {why}");
    }
    let followed = swap(&["crun", "--scope", "node"]).success();
    assert_eq!(
        jq(&followed, "[.state, .stand_in_canary.family, (.diffs | length)] | tostring"),
        r#"["proven","crun",0]"#
    );
    let after = Container::start("default", "swap-after", "", "sleep 100000");
    assert_eq!(made_by(&after.id), "crun");
    // Once more is nothing to write.
    let again = swap(&["crun", "--scope", "node", "--no-verify"]).success();
    assert_eq!(jq(&again, "[.state, (.diffs | length)] | tostring"), r#"["in-force",0]"#);
    drop(after);

    let report = swap(&["builtin"]);
    let report = report.success();
    assert_eq!(jq(&report, facts), r#"["proven","inspect-runtime","inspect-runtime",[]]"#);
    assert!(sh(&format!("cat {CONFIG}")).contains("/usr/local/libexec/inspect/inspect-runtime"));

    let undone = undo();
    assert_eq!(jq(&undone, "[.original_bytes, .census.lost] | tostring"), "[true,[]]");
    node.is_as_before();
    assert_eq!(default_handler(), "runc");
    assert!(!Path::new(STAND_IN).exists());
    assert_eq!((old.init_pid(), other.init_pid()), pids);
    lives(&old.id);
    lives(&other.id);
}

/// The name `runc` goes through every runtime in every direction; each container is entered, killed and deleted by the one that
/// made it.
#[test]
fn under_scope_node_every_container_keeps_the_runtime_that_made_it() {
    let node = Node::new();
    let mut living = vec![("runc", Container::start("default", "node-0-runc", "", "sleep 100000"))];
    let mut short = Container::start("default", "node-short-0", "", "sleep 100000");
    let directions = ["crun", "runc", "builtin", "crun", "builtin", "runc"];
    for (step, runtime) in directions.into_iter().enumerate() {
        swap(&[runtime, "--scope", "node", "--no-restart", "--no-verify"]).success();
        for (_, container) in &living {
            lives(&container.id);
        }
        lives(&short.id);
        sh(&format!("ctr tasks kill -s KILL {}", short.id));
        wait_until("its end", Duration::from_secs(30), || {
            sh(&format!("ctr tasks ls | grep -w {}", short.id)).contains("STOPPED").then_some(())
        });
        sh(&format!("ctr tasks rm {0} >&2; ctr containers rm {0}", short.id));
        assert!(!Path::new(&format!("/run/containerd/runc/default/{}", short.id)).exists(), "{}", short.id);
        let family = if runtime == "builtin" { "inspect-runtime" } else { runtime };
        short = Container::start("default", &format!("node-short-{}", step + 1), "", "sleep 100000");
        assert_eq!(made_by(&short.id), family);
        if living.iter().all(|(known, _)| *known != family) {
            let id = format!("node-{}-{runtime}", step + 1);
            living.push((family, Container::start("default", &id, "", "sleep 100000")));
        }
    }
    for (family, container) in &living {
        assert_eq!(made_by(&container.id), *family);
    }
    undo();
    // Those that crun and the built-in runtime made under the name runc can still be entered and ended: the stand-in stays for them.
    assert!(Path::new(STAND_IN).exists());
    let later = Container::start("default", "node-later", "", "sleep 100000");
    assert_eq!(made_by(&later.id), "runc");
    for (_, container) in &living {
        lives(&container.id);
        sh(&format!("ctr tasks kill -s KILL {}", container.id));
    }
    drop((living, short, later));
    inspect(&["swap-runtime", "--undo", "--yes"]).success();
    assert!(!Path::new(STAND_IN).exists());
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
        assert!(jq(&refused.stdout, "[.error, .caused_by[]] | tostring").contains(words.trim_matches('`')));
    }
    sh("umount /run/noexec");
    let dry = inspect(&["swap-runtime", "crun", "--dry-run"]).success();
    assert!(dry.contains("+") && dry.contains("nothing was written"), "{dry}");
    let asked = inspect(&["swap-runtime", "crun"]);
    assert!(asked.status == 2 && asked.stderr.contains("without a yes"), "{asked}");
    let k3s = "/var/lib/rancher/k3s/agent/etc/containerd";
    sh(&format!("mkdir -p {k3s} && cp {CONFIG} {k3s}/config.toml"));
    let generated = swap(&["crun", "--config", &format!("{k3s}/config.toml")]);
    sh("rm -r /var/lib/rancher");
    assert!(generated.status == 2 && generated.stderr.contains("config.toml.tmpl"), "{generated}");
    node.is_as_before();
}

/// A file of its own where containerd merges deeply; elsewhere it would replace the whole section.
#[test]
fn a_drop_in_is_written_where_it_adds_and_refused_where_it_replaces() {
    let node = Node::new();
    let written = swap(&["crun", "--drop-in", "--no-restart"]);
    if generation() != "forky" {
        assert!(written.status == 2 && written.stderr.contains("replace the whole CRI section"), "{written}");
        node.is_as_before();
        return;
    }
    written.success();
    assert_eq!(default_handler(), "crun");
    assert!(sh("cat /etc/containerd/conf.d/50-inspect-crun.toml").contains("BinaryName"));
    assert_eq!(jq(&undo(), ".original_bytes"), "true");
    sh("rmdir /etc/containerd/conf.d");
    node.is_as_before();
}

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

#[test]
fn a_start_limit_does_not_keep_the_old_config_from_coming_back() {
    let node = Node::new();
    unit_drop_in("[Unit]\nStartLimitIntervalSec=600\nStartLimitBurst=1\n");
    drop(try_sh("systemctl reset-failed containerd; systemctl restart containerd"));
    let failed = swap(&["crun", "--no-verify"]);
    assert!(failed.status == 2 && failed.stderr.contains("everything is as it was before"), "{failed}");
    node.is_as_before();
}

/// Runs inspect and has the kernel kill it as it enters its `number`th rename: every step of the journal and every file comes
/// into force by one. `None` when it ended before.
fn killed_at_rename(number: usize, arguments: &[&str]) -> Option<()> {
    let calls = "rename,renameat,renameat2";
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
        killed_at_rename(number, &arguments).unwrap_or_else(|| panic!("not killed at {number}"));
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
                    killed_at_rename(step, &undo).unwrap_or_else(|| panic!("undo not killed at {step}"));
                    assert_eq!(jq(&status().stdout, ".swaps[0].stage"), "rolling-back", "{step}");
                }
            }
            assert_eq!(jq(&undo(), ".original_bytes"), "true", "{number}");
        }
        node.is_as_before();
    }
}

#[test]
fn two_at_once_and_an_undo_after_an_edit() {
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

    swap(&["crun", "--no-verify", "--no-restart"]).success();
    sh(&format!("printf '\\n# added later\\n' >>{CONFIG}"));
    assert_eq!(jq(&status().stdout, ".swaps[0].files[0].state"), "changed");
    let undone = inspect(&["swap-runtime", "--undo", "--yes"]);
    assert!(undone.stderr.contains("-    default_runtime_name = \"crun\""), "the diff comes first: {undone}");
    assert!(undone.success().contains("only the swap's own lines were taken out"));
    let text = sh(&format!("cat {CONFIG}"));
    assert!(text.contains("# added later") && !text.contains("crun"), "{text}");
    sh(&format!("cp -a {KEPT} {CONFIG}"));
    node.is_as_before();
}

#[test]
fn no_config_at_all_is_the_built_in_default() {
    let node = Node::new();
    import("default", "busybox");
    sh(&format!("rm {CONFIG} && systemctl restart containerd"));
    let report = swap(&["crun", "--no-restart"]);
    let there = try_sh(&format!("cat {CONFIG}"));
    let handler = default_handler();
    let undone = inspect(&["swap-runtime", "--undo", "--yes"]);
    let gone = !Path::new(CONFIG).exists();
    sh(&format!("cp -a {KEPT} {CONFIG} && systemctl restart containerd"));
    assert!(report.status == 0 && there.stdout.contains("/usr/bin/crun"), "{report} {there}");
    assert_eq!(handler, "crun", "{there}");
    assert!(undone.status == 0 && gone, "{undone}");
    node.is_as_before();
}
