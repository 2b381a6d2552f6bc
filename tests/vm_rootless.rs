//! A plain user unpacks images and runs bundles on the node.

#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

mod support;

use support::{sh, try_sh};

#[test]
fn a_plain_user_unpacks_and_runs_with_every_runtime() {
    sh("id ann >/dev/null 2>&1 || useradd --create-home ann");
    let ann = |line: &str| try_sh(&format!("su - ann -c '{line}'"));
    let text = ann("inspect unpack --force /opt/lab/images/layers.tar b").success();
    let said = if try_sh("command -v newuidmap").status == 0 {
        "owners are kept in a user namespace"
    } else {
        "owners are lost, all files are yours: `newuidmap` is not installed"
    };
    assert!(text.contains(said), "{text}");
    assert!(text.contains("1 device node(s) were not made"), "{text}");
    for runtime in ["builtin", "runc", "crun"] {
        let finished = ann(&format!("inspect run b --runtime {runtime} -- sh -c \"id -u; exit 7\""));
        assert_eq!((finished.status, finished.stdout.as_str()), (7, "0\n"), "{runtime}: {finished}");
    }
    let finished = ann("inspect run b --terminal -- tty");
    assert_eq!(finished.clone().success().trim(), "/dev/pts/0", "{finished}");
}

#[test]
fn a_directory_of_somebody_else_is_not_used_for_state() {
    sh("id ann >/dev/null 2>&1 || useradd --create-home ann");
    sh("rm -rf /tmp/inspect-$(id -u ann); mkdir -m 777 /tmp/inspect-$(id -u ann)");
    let finished = try_sh("su - ann -c 'mkdir -p e/rootfs; inspect spec >e/config.json; inspect run e'");
    sh("rm -rf /tmp/inspect-$(id -u ann)");
    assert_eq!(finished.status, 2, "{finished}");
    assert!(finished.stderr.contains("others can write to it"), "{finished}");
}
