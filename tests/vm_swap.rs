//! Swaps on a real node: in force and proven, and back to the very bytes from before. What goes wrong is in `vm_swap_faults`.

mod support;
#[path = "support/swap_node.rs"]
mod swap_node;

use std::path::Path;

use support::{Container, generation, import, inspect, sh, try_sh};
use swap_node::{
    CONFIG, KEPT, Node, STAND_IN, cri_is_ok, default_handler, jq, lives, made_by, status, swap, undo,
};

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
    let why = inspect(&["why", &after.id]).success();
    assert!(why.contains("it makes containers with /usr/bin/crun") && !why.contains("beware"), "{why}");
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
    let verified = inspect(&["verify", "--format", "json"]).success();
    assert_eq!(
        jq(&verified, "[.reports[] | [.is_pod, .family]] | tostring"),
        r#"[[false,"runc"],[true,"runc"]]"#
    );
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
        // Entered, killed and deleted by the one that made it: `ctr tasks rm --force` is the last two.
        let state = format!("/run/containerd/runc/default/{}", short.id);
        lives(&short.id);
        drop(short);
        assert!(!Path::new(&state).exists(), "{state}");
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

#[test]
fn an_undo_after_an_edit_takes_out_only_what_the_swap_wrote() {
    let node = Node::new();
    swap(&["crun", "--no-verify", "--no-restart"]).success();
    assert_eq!(jq(&status().stdout, ".swaps[0].awaits_restart"), "true");
    sh("systemctl restart containerd");
    assert_eq!(jq(&status().stdout, ".swaps[0].awaits_restart"), "false");
    sh(&format!("printf '\\n# added later\\n' >>{CONFIG}"));
    assert_eq!(jq(&status().stdout, ".swaps[0].files[0].state"), "changed");
    let undone = inspect(&["swap-runtime", "--undo", "--yes"]);
    assert!(undone.stderr.contains("-    default_runtime_name = \"crun\""), "the diff comes first: {undone}");
    assert!(undone.success().contains("only the swap's own lines were taken out"));
    let text = sh(&format!("cat {CONFIG}"));
    assert!(text.contains("# added later") && !text.contains("crun"), "{text}");

    // Somebody took the lines out by hand: nothing is left to take out, and the swap is over all the same.
    sh(&format!("cp -a {KEPT} {CONFIG}"));
    swap(&["crun", "--no-verify", "--no-restart"]).success();
    sh(&format!("cp -a {KEPT} {CONFIG}; printf '\\n# by hand\\n' >>{CONFIG}"));
    let by_hand = sh(&format!("sha256sum <{CONFIG}"));
    let undone = inspect(&["swap-runtime", "--undo", "--yes"]).success();
    assert!(undone.contains("there was nothing left of its lines"), "{undone}");
    assert_eq!(sh(&format!("sha256sum <{CONFIG}")), by_hand);
    sh(&format!("cp -a {KEPT} {CONFIG}"));
    node.is_as_before();
}
