//! `swap-runtime --scope docker` on a real dockerd, beside what `docker` says, and what `--scope node` does to Docker's containers.

#[path = "support/dockerd.rs"]
mod dockerd;
mod support;

use std::path::Path;

use dockerd::CONFIG;
use support::{Finished, inspect, run, sh, try_sh};

const IMAGE: &str = "vm-swap-busybox";
const UNIT_DROP_IN: &str = "/run/systemd/system/docker.service.d/50-vm-swap.conf";

fn swap(arguments: &[&str]) -> Finished {
    inspect(&[&["swap-runtime", "--yes", "--format", "json"], arguments].concat())
}

fn jq(json: &str, filter: &str) -> String {
    std::fs::write("/run/vm-swap.json", json).expect("a scratch file");
    sh(&format!("jq -c '{filter}' /run/vm-swap.json"))
}

/// dockerd serves, without a daemon.json, and has an image of the node's static busybox.
fn prepare() {
    dockerd::start();
    if Path::new(CONFIG).exists() || Path::new(UNIT_DROP_IN).exists() {
        sh(&format!("rm -f {CONFIG} {UNIT_DROP_IN}"));
        dockerd::restart();
    }
    if try_sh(&format!("docker image inspect {IMAGE}")).status != 0 {
        sh(&format!(
            "mkdir -p /run/image/bin && cp $(command -v busybox) /run/image/bin/busybox && \
             tar -C /run/image -c bin | docker import - {IMAGE}"
        ));
    }
    assert_eq!(docker_default(), "runc");
}

/// A container of Docker's; dropped, it is removed.
struct Container(&'static str);

impl Container {
    fn start(name: &'static str) -> Self {
        drop(try_sh(&format!("docker rm -f {name}")));
        sh(&format!("docker run -d --network none --name {name} {IMAGE} /bin/busybox sleep 100000"));
        Self(name)
    }

    fn lives(&self) -> bool {
        try_sh(&format!("docker exec {} /bin/busybox echo alive", self.0)).stdout == "alive\n"
    }

    /// The runtime by the format of its state, wherever Docker has it kept.
    fn made_by(&self) -> &'static str {
        let id = sh(&format!("docker inspect --format '{{{{.Id}}}}' {}", self.0));
        let states = sh(&format!("find /run -path '*{id}/status' -o -path '*{id}/state.json' 2>/dev/null"));
        let state = states.lines().next().expect("a state");
        match Path::new(state).file_name().and_then(|name| name.to_str()) {
            Some("status") => "crun",
            _ if sh(&format!("cat {state}")).contains("inspect-runtime") => "inspect-runtime",
            _ => "runc",
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(try_sh(&format!("docker rm -f {}", self.0)));
    }
}

fn docker_default() -> String {
    sh("docker info --format '{{.DefaultRuntime}}'")
}

fn docker_runtimes() -> String {
    sh("docker info --format '{{range $name, $runtime := .Runtimes}}{{$name}} {{end}}'")
}

#[test]
fn docker_follows_is_proven_and_comes_back_without_a_restart() {
    prepare();
    let pid = sh("pidof dockerd");
    let old = Container::start("swap-old");
    assert_eq!(old.made_by(), "runc");
    let dry = inspect(&["swap-runtime", "crun", "--scope", "docker", "--dry-run"]).success();
    assert!(dry.contains("+  \"default-runtime\": \"crun\"") && !Path::new(CONFIG).exists(), "{dry}");

    let report = swap(&["crun", "--scope", "docker"]).success();
    let facts = "[.state, .canary.family, .canary.same_file]";
    assert_eq!(jq(&report, facts), r#"["proven","crun",true]"#, "{report}");
    assert_eq!(docker_default(), "crun");
    let new = Container::start("swap-new");
    assert_eq!((old.made_by(), new.made_by()), ("runc", "crun"));
    assert!(old.lives() && new.lives());

    let report = swap(&["builtin", "--scope", "docker"]).success();
    assert_eq!(jq(&report, facts), r#"["proven","inspect-runtime",true]"#, "{report}");
    let own = Container::start("swap-own");
    assert_eq!(own.made_by(), "inspect-runtime");
    assert!(own.lives());

    // A default that is only taken out of daemon.json would stay in force in dockerd.
    let undone = inspect(&["swap-runtime", "--undo", "--yes", "--format", "json"]).success();
    assert_eq!(jq(&undone, ".original_bytes"), "true");
    assert!(!Path::new(CONFIG).exists());
    assert_eq!(docker_default(), "runc");
    assert!(!docker_runtimes().contains("crun") && !docker_runtimes().contains("builtin"));
    let later = Container::start("swap-later");
    assert_eq!(later.made_by(), "runc");
    for container in [&old, &new, &own, &later] {
        assert!(container.lives(), "{}", container.0);
    }
    assert_eq!(sh("pidof dockerd"), pid, "dockerd was never restarted");
    drop((old, new, own, later));
    assert_eq!(sh("docker ps -aq"), "");
    assert!(!sh("docker images").contains("inspect-canary"));
}

#[test]
fn a_daemon_json_keeps_what_it_says_and_an_edit_made_later() {
    prepare();
    let before = "{\n    \"log-driver\": \"local\"\n}\n";
    sh("mkdir -p /etc/docker");
    std::fs::write(CONFIG, before).expect("daemon.json");
    swap(&["crun", "--scope", "docker", "--no-default", "--no-verify"]).success();
    assert_eq!(docker_default(), "runc");
    assert!(docker_runtimes().contains("crun"));
    let named = sh(&format!("docker run --rm --runtime crun --network none {IMAGE} /bin/busybox echo made"));
    assert_eq!(named, "made");
    sh(&format!("sed -i 's/\"local\"/\"json-file\"/' {CONFIG}"));
    let undone = inspect(&["swap-runtime", "--undo", "--yes", "--format", "json"]).success();
    assert_eq!(jq(&undone, ".original_bytes"), "false");
    let now = std::fs::read_to_string(CONFIG).expect("daemon.json");
    assert_eq!(now, before.replace("local", "json-file"));
    assert!(!docker_runtimes().contains("crun"));

    std::fs::write(CONFIG, before).expect("daemon.json");
    // Killed as it enters the rename that would say that the file is written: 1 backup, 2 journal, 3 daemon.json, 4 journal.
    let strace = ["-qq", "-o", "/dev/null", "-e", "trace=rename,renameat,renameat2"];
    let inject = ["-e", "inject=rename,renameat,renameat2:signal=SIGKILL:when=4", "/usr/local/bin/inspect"];
    let swap = ["swap-runtime", "crun", "--scope", "docker", "--yes"];
    let killed = run("strace", &[&strace[..], &inject, &swap].concat());
    assert_eq!(killed.status, 137, "{killed}");
    assert_eq!(inspect(&["swap-runtime", "--status"]).status, 1);
    inspect(&["swap-runtime", "--undo", "--yes"]).success();
    assert_eq!(std::fs::read_to_string(CONFIG).expect("daemon.json"), before);
    assert_eq!(docker_default(), "runc");
}

/// dockerd refuses a daemon.json that says what a flag of its own says too.
#[test]
fn a_dockerd_that_does_not_take_its_config_gets_the_old_one_back() {
    prepare();
    let command =
        sh("systemctl show docker -p ExecStart --value | sed 's/.*argv\\[\\]=\\([^;]*\\) ;.*/\\1/'");
    sh(&format!("mkdir -p $(dirname {UNIT_DROP_IN})"));
    let lines = format!("[Service]\nExecStart=\nExecStart={command} --default-runtime=runc\n");
    std::fs::write(UNIT_DROP_IN, lines).expect("the drop-in");
    dockerd::restart();
    let failed = swap(&["crun", "--scope", "docker", "--timeout", "8"]);
    assert_eq!(failed.status, 2, "{failed}");
    assert!(failed.stderr.contains("dockerd did not take its config over"), "{failed}");
    assert!(!Path::new(CONFIG).exists(), "{failed}");
    sh(&format!("rm {UNIT_DROP_IN}"));
    dockerd::restart();
    let status = inspect(&["swap-runtime", "--status", "--format", "json"]);
    drop(inspect(&["swap-runtime", "--undo", "--yes"]));
    assert_eq!(jq(&status.stdout, ".swaps"), "[]", "{failed}\n{status}");
}

/// Docker asks for `runc` by name: the stand-in serves it as it serves ctr.
#[test]
fn under_scope_node_dockers_containers_keep_the_runtime_that_made_them() {
    prepare();
    let before = Container::start("node-before");
    swap(&["crun", "--scope", "node", "--no-restart", "--no-verify"]).success();
    let after = Container::start("node-after");
    assert_eq!((before.made_by(), after.made_by()), ("runc", "crun"));
    assert!(before.lives() && after.lives());
    inspect(&["swap-runtime", "--undo", "--yes"]).success();
    assert!(before.lives() && after.lives());
    drop((before, after));
    assert_eq!(sh("docker ps -aq"), "");
    inspect(&["swap-runtime", "--undo", "--yes"]).success();
    assert!(!Path::new("/var/lib/containerd/opt/bin/runc").exists());
}
