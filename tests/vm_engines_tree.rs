//! `inspect tree` on a node with other engines: Docker on the node's containerd and on one of its own, Podman and
//! systemd-nspawn beside them.

#![allow(clippy::print_stderr, reason = "the tree is shown to whoever reads the log")]

#[path = "support/dockerd.rs"]
mod dockerd;
mod support;

use std::time::Duration;

use serde_json::Value;
use support::{Container, inspect, run, sh, try_sh, wait_until};

const BOUND: Duration = Duration::from_secs(120);

/// The daemon that a second dockerd starts for itself.
const OWN: &str = "/run/docker-own/containerd/containerd.sock";
const OWN_DOCKER: &str = "docker -H unix:///run/docker-own.sock";

fn tree() -> Value {
    let output = inspect(&["tree", "--format", "json", "--timeout", "20000"]).success();
    serde_json::from_str(&output).expect("inspect tree --format json writes JSON")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// A container below the daemon at `address`, with the shim that serves it.
#[track_caller]
fn find<'a>(tree: &'a Value, address: &str, id: &str) -> &'a Value {
    let daemon = list(tree, "daemons").iter().find(|daemon| daemon["address"] == address);
    let daemon = daemon.unwrap_or_else(|| panic!("no daemon at {address}: {tree:#}"));
    let namespaces = list(daemon, "containerd_namespaces").iter();
    let shims = namespaces.flat_map(|namespace| list(namespace, "shims"));
    let mut containers = shims.flat_map(|shim| list(shim, "containers"));
    containers.find(|container| container["id"] == id).unwrap_or_else(|| panic!("no {id}: {tree:#}"))
}

/// A root directory of busybox alone, and what to remove when the test ends.
struct Engines;

impl Engines {
    fn prepare() -> Self {
        let engines = Self;
        engines.remove();
        sh(
            "mkdir -p /root/plain/bin /root/plain/usr /root/plain/etc && cp /bin/busybox /root/plain/bin/ && \
            ln -sf busybox /root/plain/bin/sleep && ln -sf busybox /root/plain/bin/sh && touch /root/plain/etc/os-release && \
            tar -C /root/plain -cf /root/plain.tar .",
        );
        engines
    }

    fn remove(&self) {
        drop(try_sh(&format!(
            "docker rm -f web; {OWN_DOCKER} rm -f own; podman rm -f -t 0 pod; systemctl stop docker-own nspawn; \
             rm -rf /root/plain /root/plain.tar"
        )));
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A container by a docker client; gives id and init pid as it tells them.
#[track_caller]
fn docker_run(client: &str, name: &str) -> (String, String) {
    if try_sh(&format!("{client} image inspect plain")).status != 0 {
        sh(&format!("{client} import /root/plain.tar plain"));
    }
    sh(&format!("{client} run -d --network none --memory 64m --name {name} plain sleep 100000"));
    let told = sh(&format!("{client} inspect -f '{{{{.Id}}}} {{{{.State.Pid}}}}' {name}"));
    let (id, pid) = told.split_once(' ').expect("id and pid");
    (id.to_owned(), pid.to_owned())
}

#[track_caller]
fn assert_is_docker(tree: &Value, address: &str, (id, pid): &(String, String)) {
    let container = find(tree, address, id);
    assert_eq!(container["containerd_namespace"], "moby");
    assert_eq!(&container["init"]["pid"].to_string(), pid);
    assert_eq!(
        (&container["status"], &container["memory_limit"]),
        (&"running".into(), &(64 << 20).into()),
        "{container:#}"
    );
    let processes: Vec<_> =
        list(container, "processes").iter().map(|process| &process["command_line"]).collect();
    assert_eq!(processes, ["sleep 100000"]);
}

#[test]
fn every_engine_is_named_and_only_containerds_are_looked_into() {
    dockerd::start();
    let _engines = Engines::prepare();
    let _plain = Container::start("default", "beside", "", "sleep 100000");
    let web = docker_run("docker", "web");
    // dockerd starts a containerd of its own where it finds no socket of another. Shims have their sockets in one place in any case.
    sh(
        "systemctl reset-failed docker-own 2>/dev/null; systemd-run --quiet --unit docker-own -p Delegate=yes \
        -p TemporaryFileSystem=/run/containerd -p BindPaths=/run/containerd/s \
        dockerd -H unix:///run/docker-own.sock --data-root /var/lib/docker-own --exec-root /run/docker-own \
        --pidfile /run/docker-own.pid --bridge none --iptables=false",
    );
    wait_until("the second dockerd", dockerd::START, || {
        (try_sh(&format!("timeout 20 {OWN_DOCKER} version")).status == 0).then_some(())
    });
    let own = docker_run(OWN_DOCKER, "own");
    sh("podman import /root/plain.tar plain && podman run -d --network none --name pod plain sleep 100000");
    sh("systemctl reset-failed nspawn 2>/dev/null; systemd-run --quiet --unit nspawn \
        systemd-nspawn --quiet --directory=/root/plain --machine=plain-machine --register=no --keep-unit /bin/sleep 100000");
    wait_until("systemd-nspawn's container", BOUND, || {
        (try_sh("pgrep -P $(pgrep -x systemd-nspawn | head -1)").status == 0).then_some(())
    });

    let seen = tree();
    eprintln!("{}", run("inspect", &["tree", "--timeout", "20000"]).success());
    assert_is_docker(&seen, "/run/containerd/containerd.sock", &web);
    assert_is_docker(&seen, OWN, &own);
    assert_eq!(list(&seen, "daemons").len(), 2, "{seen:#}");
    find(&seen, "/run/containerd/containerd.sock", "beside");
    assert_eq!(seen["totals"]["findings"], 0, "{seen:#}");

    let others = list(&seen, "other_engines");
    let engines: Vec<_> = others.iter().filter_map(|other| other["engine"].as_str()).collect();
    assert_eq!(engines.len(), 2, "{others:?}");
    let other = |name: &str| others.iter().find(|other| other["engine"] == name).expect("it is named");
    let podman = other("podman");
    let id = sh("podman inspect -f '{{.Id}}' pod");
    assert_eq!((&podman["id"], &podman["name"]), (&id.into(), &"pod".into()));
    assert_eq!(podman["pid"].to_string(), sh("podman inspect -f '{{.State.ConmonPid}}' pod"));
    assert_eq!(podman["processes"], 1);
    let nspawn = other("systemd-nspawn");
    assert_eq!(
        (&nspawn["name"], nspawn["pid"].to_string()),
        (&"plain-machine".into(), sh("pgrep -x systemd-nspawn | head -1"))
    );
    let inside = sh("podman inspect -f '{{.State.Pid}}' pod");
    let outside = inspect(&["tree", "--pid", &inside]);
    assert_eq!(outside.status, 1, "a process of podman's is no containerd's: {outside}");
}
