//! `inspect bundle` and `inspect diff-spec` against real containers of each generation, measured with jq.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "support/cri.rs"]
mod cri;

use std::time::Duration;

use cri::Pod;
use serde_json::Value;
use support::{BUSYBOX, Container, Finished, generation, import, inspect, run, sh, try_sh, wait_until};

/// The tutorial's first spec.
const PHASE1: &str = include_str!("../fixtures/specs/phase1.json");

/// What `ctr run`'s spec is on a generation, where generations differ.
struct Expected {
    oci_version: &'static str,
    masked_paths: usize,
}

fn expected() -> Expected {
    match generation().as_str() {
        "bookworm" => Expected { oci_version: "1.0.2-dev", masked_paths: 10 },
        "trixie" => Expected { oci_version: "1.2.0", masked_paths: 11 },
        "forky" => Expected { oci_version: "1.2.1", masked_paths: 11 },
        other => panic!("unknown generation `{other}`"),
    }
}

fn phase1() -> String {
    let path = "/tmp/vm-spec-phase1.json";
    std::fs::write(path, PHASE1).unwrap();
    path.to_owned()
}

/// jq's answer on the container's own config.json.
fn jq(container: &Container, filter: &str) -> String {
    sh(&format!("jq -r '{filter}' {}/config.json", container.bundle()))
}

fn diff_spec(arguments: &[&str]) -> Finished {
    inspect(&[&["diff-spec", "--format", "json"], arguments].concat())
}

#[track_caller]
fn parse(finished: &Finished) -> Value {
    assert!([0, 1, 3].contains(&finished.status), "{finished}");
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"))
}

/// `subject: left / right: verdict` of every listed change.
fn changes(document: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let line = |change: &Value| {
        let (left, right) = (text(&change["left"]["text"]), text(&change["right"]["text"]));
        format!("{}: {left} / {right}: {}", text(&change["subject"]), text(&change["verdict"]))
    };
    document["changes"].as_array().unwrap().iter().map(line).collect()
}

/// What jq says of the container's config.json: the ground of [`expected_changes`].
fn measure(container: &Container, oci_version: &str, masked_paths: usize) {
    assert_eq!(jq(container, ".ociVersion"), oci_version);
    assert_eq!(jq(container, ".process.capabilities.bounding | length"), "14");
    assert_eq!(jq(container, ".linux.maskedPaths | length"), masked_paths.to_string());
    assert_eq!(jq(container, ".process | .terminal // false"), "false");
    assert_eq!(jq(container, ".process.noNewPrivileges"), "true");
    assert_eq!(jq(container, "[.linux.namespaces[].type] | sort | join(\" \")"), "ipc mount network pid uts");
    assert_eq!(
        jq(container, "[.mounts[].destination] | join(\" \")"),
        "/proc /dev /dev/pts /dev/shm /dev/mqueue /sys /run"
    );
    assert_eq!(jq(container, ".mounts[0].options | join(\",\")"), "nosuid,noexec,nodev");
    assert_eq!(
        jq(container, ".linux.resources | .cpu.shares, .memory.limit, (.devices | length)"),
        "1024\nnull\n10"
    );
    assert_eq!(
        jq(container, ".linux.seccomp, .process.apparmorProfile, .hostname, .root.readonly"),
        "null\nnull\nnull\nnull"
    );
}

/// What must be reported, by generation.
fn expected_changes(oci_version: &str, masked_paths: usize) -> Vec<String> {
    let mut expected = vec![
        "args: [\"sh\"] / [\"sleep\",\"1000000\"]: changed".to_owned(),
        "terminal: true / -: changed".to_owned(),
        "capabilities: 3 capabilities / 14 capabilities: more-permissive".to_owned(),
        "cgroup namespace: its own / the host's: more-permissive".to_owned(),
        "root file system: read-only / writable: more-permissive".to_owned(),
        "mount /proc: - / nodev,noexec,nosuid: less-permissive".to_owned(),
        "mount /sys/fs/cgroup: cgroup (ro) / -: changed".to_owned(),
        "mount /run: - / tmpfs: changed".to_owned(),
        "device rules: 1 rule / 10 rules: more-permissive".to_owned(),
        "memory limit: 67108864 (64 MiB) / no limit: more-permissive".to_owned(),
        "CPU shares: 512 shares / 1024 shares: more-permissive".to_owned(),
        "TERM: (hidden) / -: changed".to_owned(),
        "hostname: phase1 / -: changed".to_owned(),
    ];
    if oci_version != "1.2.1" {
        expected.push(format!("ociVersion: 1.2.1 / {oci_version}: changed"));
    }
    if masked_paths > 10 {
        expected.push(format!("masked paths: 10 paths / {masked_paths} paths: less-permissive"));
    }
    expected
}

/// The tutorial's comparison: what must be reported, and nothing else.
#[test]
fn the_tutorials_comparison_is_right() {
    let container = Container::start("default", "spec-seed", "", "sleep 1000000");
    let Expected { oci_version, masked_paths } = expected();
    measure(&container, oci_version, masked_paths);
    let mut expected = expected_changes(oci_version, masked_paths);
    let finished = diff_spec(&[&phase1(), "live"]);
    assert_eq!(finished.status, 1, "{finished}");
    let document = parse(&finished);
    let mut found = changes(&document);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(document["overall"], "more-permissive");
    let gained: Vec<String> = document["changes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|change| change["subject"] == "capabilities")
        .unwrap()["details"][0]["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item.as_str().unwrap().to_owned())
        .collect();
    let measured = jq(
        &container,
        ".process.capabilities.bounding - [\"CAP_AUDIT_WRITE\",\"CAP_KILL\",\"CAP_NET_BIND_SERVICE\"] | sort | .[]",
    );
    assert_eq!(gained, measured.lines().collect::<Vec<_>>());
    assert_eq!(diff_spec(&[&phase1(), "live", "--fail-on", "more-permissive"]).status, 3);
    // Every way to name the container finds the same spec.
    for name in ["spec-see", "default/spec-seed", "live:spec-seed", container.bundle().as_str()] {
        let finished = diff_spec(&["live", name]);
        assert_eq!((finished.status, changes(&parse(&finished))), (0, vec![]), "{name}");
    }
}

/// A patch applied by jq's rules gives the container's own config.json.
#[test]
fn the_patch_leads_to_the_containers_spec() {
    let container = Container::start("default", "spec-patch", "--env TOKEN=hunter2", "sleep 1000000");
    let refused = inspect(&["diff-spec", "--format", "patch", &phase1(), "spec-patch"]);
    assert_eq!(refused.status, 2);
    assert!(!format!("{refused}").contains("hunter2"));
    let patch = inspect(&["diff-spec", "--format", "patch", "--show-env", &phase1(), "spec-patch"]);
    assert_eq!(patch.status, 1, "{patch}");
    std::fs::write("/tmp/vm-spec-patch.json", &patch.stdout).unwrap();
    // RFC 6902 in jq: the three operations that a patch of ours has.
    let apply = r#"def path_of: ltrimstr("/") | split("/") | map(gsub("~1";"/") | gsub("~0";"~"));
        def keys_in($doc): reduce .[] as $name ({at: $doc, path: []};
            (if (.at | type) == "array" then (if $name == "-" then (.at | length) else ($name | tonumber) end) else $name end) as $key
            | .path += [$key] | .at = (.at[$key]? // null)) | .path;
        reduce $patch[0][] as $op ($left[0]; . as $doc | ($op.path | path_of | keys_in($doc)) as $path
            | if $op.op == "remove" then delpaths([$path])
              elif $op.op == "replace" or (($path[-1] | type) == "string") then setpath($path; $op.value)
              else setpath($path[:-1]; getpath($path[:-1]) | .[:$path[-1]] + [$op.value] + .[$path[-1]:]) end)"#;
    std::fs::write("/tmp/vm-spec-apply.jq", apply).unwrap();
    let line = format!(
        "jq -nS --slurpfile left {} --slurpfile patch /tmp/vm-spec-patch.json -f /tmp/vm-spec-apply.jq | cmp - <(jq -S . {}/config.json)",
        phase1(),
        container.bundle()
    );
    assert_eq!(run("bash", &["-c", &line]).success(), "");
}

/// What a healthy container's kernel enforces is its spec, whichever runtime made it; what is changed behind its back is
/// drift, and no more than that.
#[test]
fn only_real_drift_is_drift() {
    for runtime in ["runc", "crun"] {
        let id = format!("spec-drift-{runtime}");
        let options =
            format!("--runc-binary {runtime} --memory-limit 67108864 --cpus 0.5 --cap-add CAP_SYS_TIME");
        let container = Container::start("default", &id, &options, "sleep 1000000");
        let kernel = format!("kernel:{id}");
        let finished = diff_spec(&[&id, &kernel]);
        assert_eq!(changes(&parse(&finished)), Vec::<String>::new(), "{runtime}");
        assert_eq!(finished.status, 0, "{finished}");
        let cgroup = format!("/sys/fs/cgroup/default/{id}");
        assert_eq!(sh(&format!("cat {cgroup}/memory.max")), "67108864");
        sh(&format!(
            "echo 30000000 > {cgroup}/memory.max; echo 7 > {cgroup}/pids.max; echo 1000 > {cgroup}/cpu.weight"
        ));
        sh(&format!("nsenter -t {} -m -p mount -o remount,rw,bind /proc/sys", container.init_pid()));
        sh(&format!("nsenter -t {} -m -p umount /proc/kcore", container.init_pid()));
        let enforced = sh(&format!("cat {cgroup}/memory.max"));
        let found = changes(&parse(&diff_spec(&[&id, &kernel])));
        let starts = |start: &str| found.iter().any(|change| change.starts_with(start));
        assert!(starts(&format!("memory limit: 67108864 (64 MiB) / {enforced}")), "{runtime} {found:?}");
        assert!(starts("process limit: no limit / 7: less-permissive"), "{runtime} {found:?}");
        assert!(
            found
                .iter()
                .any(|change| change.starts_with("CPU shares: 1024 shares")
                    && change.ends_with("more-permissive")),
            "{runtime} {found:?}"
        );
        assert!(
            starts("masked paths: ") && starts("read-only paths: 5 paths / 4 paths: more-permissive"),
            "{runtime} {found:?}"
        );
        assert_eq!(found.len(), 5, "{runtime} {found:?}");
    }
}

/// What the kernel enforces on a container of that id is its spec.
#[track_caller]
fn assert_no_drift(id: &str) {
    let finished = diff_spec(&[id, &format!("kernel:{id}")]);
    assert_eq!(changes(&parse(&finished)), Vec::<String>::new(), "{id}: {finished}");
    assert_eq!(finished.status, 0, "{finished}");
}

/// Lowers the memory limit of a process's cgroup behind everybody's back: that is the only drift.
#[track_caller]
fn assert_a_lowered_limit_is_drift(id: &str, pid: &str, limit: &str) {
    // crun's inner cgroup has the file only where its limits are there.
    let cgroup = sh(&format!(
        "d=/sys/fs/cgroup$(sed -n s/^0:://p /proc/{pid}/cgroup); [ -e $d/memory.max ] || d=${{d%/*}}; echo $d"
    ));
    sh(&format!("echo 30000000 > {cgroup}/memory.max"));
    let found = changes(&parse(&diff_spec(&[id, &format!("kernel:{id}")])));
    let enforced = sh(&format!("cat {cgroup}/memory.max"));
    let [change] = found.as_slice() else { panic!("{id}: {found:?}") };
    assert!(change.starts_with(&format!("memory limit: {limit} / {enforced} ")), "{id}: {change}");
    assert!(change.ends_with(": less-permissive"), "{id}: {change}");
}

/// The systemd driver: a scope has limits of systemd's own, and crun's limits are in the scope or in a cgroup below it.
#[test]
fn limits_in_a_scope_are_no_drift() {
    for runtime in ["runc", "crun"] {
        let id = format!("spec-scope-{runtime}");
        let options = format!(
            "--runc-binary {runtime} --runc-systemd-cgroup --cgroup machine.slice:spec:{id} \
             --memory-limit 67108864 --cpus 0.5 --cpu-shares 512"
        );
        let container = Container::start("default", &id, &options, "sleep 1000000");
        let pid = container.init_pid().to_string();
        assert!(sh(&format!("cat /proc/{pid}/cgroup")).contains(&format!("/spec-{id}.scope")));
        assert_no_drift(&id);
        assert_a_lowered_limit_is_drift(&id, &pid, "67108864 (64 MiB)");
    }
}

/// A namespace by path is joined, and stays so.
#[test]
fn a_joined_namespace_is_no_drift() {
    for runtime in ["runc", "crun"] {
        let owner = Container::start("default", &format!("spec-owner-{runtime}"), "", "sleep 1000000");
        let id = format!("spec-joins-{runtime}");
        let options = format!("--runc-binary {runtime} --with-ns network:/proc/{}/ns/net", owner.init_pid());
        let guest = Container::start("default", &id, &options, "sleep 1000000");
        let network = |container: &Container| sh(&format!("readlink /proc/{}/ns/net", container.init_pid()));
        assert_eq!(network(&owner), network(&guest));
        assert_no_drift(&owner.id);
        assert_no_drift(&id);
    }
}

/// A pod as the kubelet makes it: the container joins the sandbox's namespaces, and mounts lie over one another.
#[test]
fn a_pod_has_no_drift() {
    import("k8s.io", "pause");
    import("k8s.io", "busybox");
    let mut pod = Pod::run("spec-pod");
    let web = pod.start("web", BUSYBOX, 64 << 20, &["sleep", "1000000"]);
    for id in [&pod.sandbox, &web] {
        assert_no_drift(id);
    }
    let pid = sh(&format!("ctr -n k8s.io tasks ls | awk -v id={web} '$1 == id {{ print $2 }}'"));
    assert_a_lowered_limit_is_drift(&web, &pid, "67108864 (64 MiB)");
}

/// A container that stops, or is gone, is an error that says so.
#[test]
fn a_container_that_stops_is_said_to_have_stopped() {
    let container = Container::start("default", "spec-stops", "", "sleep 1000000");
    let pid = container.init_pid();
    sh("ctr tasks kill -s KILL spec-stops");
    wait_until("the end of the init", Duration::from_secs(30), || {
        (try_sh(&format!("grep -q State:.[RSD] /proc/{pid}/status")).status != 0).then_some(())
    });
    let finished = diff_spec(&["spec-stops", "kernel:spec-stops"]);
    assert_eq!(finished.status, 2, "{finished}");
    assert!(
        finished.stderr.contains("cannot read back container `spec-stops`: it is not running"),
        "{finished}"
    );
    let finished = diff_spec(&["live", "spec-stops"]);
    assert!(finished.stderr.contains("cannot find a running container"), "{finished}");
    drop(container);
    let finished = diff_spec(&["spec-stops", "default:runc"]);
    assert_eq!(finished.status, 2, "{finished}");
    assert!(finished.stderr.contains("hint: run `inspect tree`"), "{finished}");
}

/// Reading back races with a container's end many times: an answer or a plain error, never a crash or half a spec.
#[test]
fn reading_back_races_with_the_end() {
    for round in 0..4 {
        let id = format!("spec-race-{round}");
        let container = Container::start("default", &id, "", "sleep 0.2");
        let finished = wait_until("the end", Duration::from_secs(60), || {
            let finished = diff_spec(&[&id, &format!("kernel:{id}")]);
            assert!([0, 2].contains(&finished.status), "{finished}");
            (finished.status == 2).then_some(finished)
        });
        assert!(finished.stderr.starts_with("error: cannot "), "{finished}");
        drop(container);
    }
}

#[test]
fn the_runtimes_defaults_can_be_compared() {
    for runtime in ["runc", "crun"] {
        let directory = sh("mktemp -d");
        sh(&format!("cd {directory} && {runtime} spec"));
        let written = format!("{directory}/config.json");
        let finished = diff_spec(&[&written, &format!("default:{runtime}")]);
        assert_eq!(finished.status, 0, "{finished}");
    }
}

/// Each file of a bundle is explained; none is unknown.
#[test]
fn every_file_of_a_bundle_is_explained() {
    for runtime in ["runc", "crun"] {
        let id = format!("spec-bundle-{runtime}");
        let container =
            Container::start("default", &id, &format!("--runc-binary {runtime}"), "sleep 1000000");
        assert_eq!(inspect(&["bundle", "--path", &id]).success().trim_end(), container.bundle());
        let document: Value =
            serde_json::from_str(&inspect(&["bundle", "--format", "json", &id]).success()).unwrap();
        let files = document["files"].as_array().unwrap();
        let names: Vec<&str> = files.iter().map(|file| file["name"].as_str().unwrap()).collect();
        assert_eq!(names.join("\n"), sh(&format!("ls -A {} | LC_ALL=C sort", container.bundle())));
        for file in files {
            assert!(!file["meaning"].as_str().unwrap().starts_with("none of the files"), "{file}");
        }
        let says = |name: &str| files.iter().find(|file| file["name"] == name).unwrap()["says"].to_string();
        assert!(
            says("init.pid").contains(&format!("{}, sleeping: sleep 1000000", container.init_pid())),
            "{}",
            says("init.pid")
        );
        assert!(
            says("runtime").contains(runtime)
                && says("options.json").contains(&format!("BinaryName {runtime}"))
        );
        assert!(says("rootfs").contains("overlay of 1 read-only layer"), "{}", says("rootfs"));
        let address = if generation() == "forky" { "bootstrap.json" } else { "address" };
        assert!(says(address).contains("the shim listens"), "{}", says(address));
        assert!(document["state"].to_string().contains(&format!("written by {runtime}")), "{document}");
        let printed = inspect(&["bundle", "--print", "config", &id]).success();
        std::fs::write("/tmp/vm-spec-config.json", printed).unwrap();
        let same =
            format!("cmp <(jq -S . /tmp/vm-spec-config.json) <(jq -S . {}/config.json)", container.bundle());
        assert_eq!(run("bash", &["-c", &same]).success(), "");
    }
}
