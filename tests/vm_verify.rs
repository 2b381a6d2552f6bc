//! `inspect verify` and `inspect why` on the real node, beside what ctr, /proc and the kernel's files say.

mod support;

use support::{BUSYBOX, Container, generation, import, inspect, run, sh, try_sh, wait_until};

use std::time::Duration;

use serde_json::Value;

fn json(finished: support::Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"))
}

/// Shares of 512 as cpu.weight: the conversion changed with runc 1.3.2 and crun 1.23.
fn weight_of_512_shares() -> &'static str {
    if generation() == "forky" { "59" } else { "20" }
}

#[test]
fn a_canary_under_each_runtime_is_proven_and_leaves_nothing() {
    let finished = inspect(&["verify", "runc", "crun", "builtin", "--format", "json"]);
    assert_eq!(finished.status, 0, "{finished}");
    let verification = json(finished);
    for (index, family) in ["runc", "crun", "inspect-runtime"].into_iter().enumerate() {
        let report = &verification["reports"][index];
        assert_eq!(report["family"], family, "{report}");
        assert_eq!(report["same_file"], true, "{report}");
        let facts = &report["facts"];
        if family != "inspect-runtime" {
            assert_eq!(facts["cgroup cpu.weight"], weight_of_512_shares(), "{family}");
        }
        assert_eq!(facts["cgroup memory.max"], "67108864", "{family}");
        assert_eq!(facts["exit status out of memory"], "137", "{family}");
        assert_eq!(facts["memory.events oom_kill"], "1", "{family}");
    }
    assert!(!sh("ctr namespaces ls -q").contains("inspect-verify"));
    assert_eq!(
        sh("ls -d /run/inspect /var/lib/inspect/canaries /sys/fs/cgroup/inspect-verify 2>/dev/null | wc -l"),
        "0"
    );
    assert_eq!(sh("pgrep -fc '[c]anary (observe|eat)' || true"), "0");
}

#[test]
fn a_canary_killed_half_way_is_removed_by_the_next() {
    // The canary's task is there as soon as its bundle is; then inspect is killed without a chance to clean up.
    let mut verify = std::process::Command::new("/usr/local/bin/inspect")
        .args(["verify", "crun"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("inspect starts");
    wait_until("the canary's task", Duration::from_secs(60), || {
        (try_sh("ctr -n inspect-verify tasks ls -q").stdout.trim() != "").then_some(())
    });
    verify.kill().expect("it still runs");
    verify.wait().expect("it ends");
    assert!(!sh("ctr -n inspect-verify containers ls -q").is_empty());
    let finished = inspect(&["verify", "crun"]);
    assert_eq!(finished.status, 0, "{finished}");
    assert_eq!(sh("ctr -n inspect-verify containers ls -q"), "");
    assert_eq!(sh("pgrep -fc '[c]anary (observe|eat)' || true"), "0");
}

#[test]
fn a_canary_pod_goes_through_the_cri_plugin() {
    import("k8s.io", "pause");
    let finished = inspect(&["verify", "--handler", "default", "--format", "json"]);
    assert_eq!(finished.status, 0, "{finished}");
    let report = &json(finished)["reports"][0];
    assert_eq!(report["family"], "runc", "{report}");
    assert_eq!(report["facts"]["exit status of exec"], "44", "{report}");
    assert_eq!(sh("ctr -n k8s.io containers ls -q"), "", "the pod was removed");
    let refused = inspect(&["verify", "--handler", "nosuch"]);
    assert_eq!(refused.status, 2, "{refused}");
    assert!(refused.stderr.contains("no runtime for \"nosuch\" is configured"), "{refused}");
}

#[test]
fn a_runtime_that_is_not_there_is_a_usage_error() {
    let finished = inspect(&["verify", "/nonexistent/runc"]);
    assert_eq!(finished.status, 2, "{finished}");
    assert!(finished.stderr.contains("cannot find the runtime \"/nonexistent/runc\""), "{finished}");
}

#[test]
fn why_names_the_runtime_that_ctr_asked_for() {
    let plain = Container::start("default", "why-plain", "", "sleep 100000");
    let crun = Container::start("default", "why-crun", "--runc-binary /usr/bin/crun", "sleep 100000");
    for (container, family, binary) in [(&plain, "runc", ""), (&crun, "crun", "/usr/bin/crun")] {
        let answer = json(inspect(&["why", "runtime", "--format", "json", &container.id]));
        assert_eq!(answer["family"], family, "{answer}");
        assert_eq!(answer["binary_name"], binary, "{answer}");
        assert_eq!(answer["client"]["kind"], "plain", "{answer}");
        assert_eq!(answer["runtime_type"], "io.containerd.runc.v2", "{answer}");
        assert_eq!(answer["surprises"], serde_json::json!([]), "{answer}");
        let found = &answer["lookup"]["outcome"]["found"]["file"];
        assert_eq!(
            found.as_str(),
            Some(sh(&format!("readlink -f $(command -v {family})")).as_str()),
            "{answer}"
        );
    }
    let text = inspect(&["why", &plain.id]).success();
    assert!(text.contains("it does not apply here"), "{text}");
    assert!(text.contains("no BinaryName"), "{text}");
}

#[test]
fn why_notices_that_the_name_runc_leads_elsewhere_now() {
    let container = Container::start("default", "why-path", "", "sleep 100000");
    // The first directory of every shim's PATH; the lookup happens at each call, so this breaks the running container.
    let directory = "/var/lib/containerd/opt/bin";
    sh(&format!("mkdir -p {directory} && ln -s /usr/bin/crun {directory}/runc"));
    let answer = json(inspect(&["why", "runtime", "--format", "json", &container.id]));
    sh(&format!("rm {directory}/runc"));
    assert_eq!(answer["family"], "runc", "{answer}");
    let surprise = answer["surprises"][0].as_str().unwrap_or_default();
    assert!(surprise.contains("leads to crun now"), "{answer}");
}

/// What the real programs print, and the entry that has to explain it.
#[test]
fn real_error_texts_are_explained() {
    import("default", "busybox");
    let cases = [
        ("--runtime crun", "true", "runtime-name-format"),
        ("--runtime /usr/bin/crun", "true", "runtime-flag-names-a-shim"),
        ("--runtime io.containerd.crun.v2", "true", "shim-not-installed"),
        ("--runc-binary /nonexistent/runc", "true", "runtime-binary-missing"),
        ("--runc-binary nosuchrt", "true", "runtime-binary-not-in-path"),
        ("", "/nonexistent/program", "container-program-missing"),
        ("--runc-binary /usr/bin/crun", "/nonexistent/program", "container-program-missing-crun"),
    ];
    for (number, (options, command, id)) in cases.into_iter().enumerate() {
        let name = format!("why-error-{number}");
        let failed = try_sh(&format!("ctr run --rm {options} {BUSYBOX} {name} {command}"));
        drop(try_sh(&format!("ctr containers rm {name}")));
        assert_ne!(failed.status, 0, "{failed}");
        let answer = json(inspect(&["why", "error", "--format", "json", &failed.stderr]));
        assert_eq!(answer[0]["id"], id, "{failed}\n{answer}");
    }
    let absent = run("ctr", &["containers", "info", "no-such-container"]);
    let answer = json(inspect(&["why", "error", "--format", "json", &absent.stderr]));
    assert_eq!(answer[0]["id"], "other-containerd-namespace", "{absent}\n{answer}");
}
