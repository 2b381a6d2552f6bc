//! For the suites that swap a node's runtime: the node as it was, what was asked of `inspect`, and accounts of others.
#![allow(dead_code, reason = "every suite is a crate of its own and uses what it needs")]

use std::path::Path;

use crate::support::{Finished, inspect, sh, try_sh};

pub(crate) const CONFIG: &str = "/etc/containerd/config.toml";
pub(crate) const KEPT: &str = "/run/vm-swap-config";
pub(crate) const UNIT_DROP_IN: &str = "/run/systemd/system/containerd.service.d/50-vm-swap.conf";
pub(crate) const STAND_IN: &str = "/var/lib/containerd/opt/bin/runc";

/// A node without swaps; dropped, it is that again.
pub(crate) struct Node {
    pub(crate) config: String,
}

impl Node {
    pub(crate) fn new() -> Self {
        assert_eq!(inspect(&["swap-runtime", "--status"]).success(), "no swap is in force\n");
        sh(&format!("cp -a {CONFIG} {KEPT}"));
        Self { config: sh(&format!("sha256sum <{CONFIG}")) }
    }

    /// The very bytes from before, and a containerd that answers with CRI alive.
    #[track_caller]
    pub(crate) fn is_as_before(&self) {
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

pub(crate) fn swap(arguments: &[&str]) -> Finished {
    inspect(&[&["swap-runtime", "--yes", "--format", "json"], arguments].concat())
}

pub(crate) fn undo() -> String {
    inspect(&["swap-runtime", "--undo", "--yes", "--format", "json"]).success()
}

pub(crate) fn status() -> Finished {
    inspect(&["swap-runtime", "--status", "--format", "json"])
}

/// A value of a JSON text, by jq.
pub(crate) fn jq(json: &str, filter: &str) -> String {
    let path = "/run/vm-swap.json";
    std::fs::write(path, json).expect("a scratch file");
    sh(&format!("jq -r '{filter}' {path}"))
}

/// What a swap may have left beside the files that it writes.
pub(crate) fn leftovers() -> String {
    sh("ls -A /etc/containerd /var/lib/containerd/opt/bin 2>/dev/null | grep inspect || true")
}

pub(crate) fn cri_is_ok() -> bool {
    try_sh("ctr plugins ls | awk '$1 ~ /grpc/ && $2 == \"cri\" { print $NF }' | grep -qx ok").status == 0
}

/// The runtime that made a container, by the format of its state: an account of its own.
pub(crate) fn made_by(id: &str) -> &'static str {
    let root = format!("/run/containerd/runc/default/{id}");
    if Path::new(&root).join("status").exists() {
        return "crun";
    }
    let state = sh(&format!("cat {root}/state.json"));
    if state.contains("inspect-runtime") { "inspect-runtime" } else { "runc" }
}

/// The default handler of the config on disk, as containerd itself reads it.
pub(crate) fn default_handler() -> String {
    sh(
        "containerd config dump | sed -n \"s/.*default_runtime_name = ['\\\"]\\(.*\\)['\\\"]/\\1/p\" | head -1",
    )
}

#[track_caller]
pub(crate) fn lives(id: &str) {
    assert_eq!(sh(&format!("ctr tasks exec --exec-id e{} {id} echo alive", std::process::id())), "alive");
}

pub(crate) fn unit_drop_in(lines: &str) {
    let folder = Path::new(UNIT_DROP_IN).parent().expect("it has a folder");
    std::fs::create_dir_all(folder).expect("the drop-in's folder");
    std::fs::write(UNIT_DROP_IN, lines).expect("the drop-in");
    sh("systemctl daemon-reload");
}
