//! Images and bundles on the node: trees equal containerd's, limits bite, terminals are terminals.

#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

#[path = "../image/tests/support/mod.rs"]
mod image_support;
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use image_support::{difference, listing};
use support::{LAYERS, import, run, sh, try_sh};

/// What two unpackers must agree on. A directory that a layer only passes through keeps its time with us and gets the
/// time of unpacking from containerd; the root's own attributes containerd takes from no layer.
fn comparable(root: &Path, other: &BTreeMap<String, String>, since: u64) -> BTreeMap<String, String> {
    let mut lines = listing(root);
    lines.remove("");
    for (path, line) in &mut lines {
        let stamped = |line: &String| {
            let seconds = line.split(' ').nth(4).and_then(|time| time.split('.').next()?.parse::<u64>().ok());
            line.starts_with("4") && seconds.is_some_and(|seconds| seconds >= since)
        };
        if stamped(line) || other.get(path).is_some_and(stamped) {
            let words: Vec<&str> = line.split(' ').collect();
            *line = [&words[..4], &["unpacked"], &words[5..]].concat().join(" ");
        }
    }
    lines
}

#[test]
fn an_image_of_layers_unpacks_as_containerd_unpacks_it() {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    import("default", "layers");
    let directory = tempfile::tempdir().unwrap();
    let (mounted, bundle) = (directory.path().join("mounted"), directory.path().join("bundle"));
    std::fs::create_dir(&mounted).unwrap();
    sh(&format!("ctr images mount {LAYERS} {}", mounted.display()));
    sh(&format!("inspect unpack -q /opt/lab/images/layers.tar {}", bundle.display()));
    let rootfs = bundle.join("rootfs");
    let theirs = listing(&mounted);
    let ours = comparable(&rootfs, &theirs, since);
    let theirs = comparable(&mounted, &listing(&rootfs), since);
    sh(&format!("ctr images unmount {0} || umount {0}", mounted.display()));
    assert!(theirs.len() > 20, "an image with something in it");
    assert!(ours == theirs, "ours -, containerd's +\n{}", difference(&ours, &theirs));
}

#[test]
fn a_program_that_eats_memory_ends_with_137_and_why() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("eater").display().to_string();
    sh(&format!("inspect unpack -q /opt/lab/images/busybox.tar {bundle}"));
    for runtime in ["builtin", "runc", "crun"] {
        let id = format!("eater-{runtime}");
        let finished = run(
            "inspect",
            &["run", &bundle, &id, "--runtime", runtime, "--memory", "32M", "--", "tail", "/dev/zero"],
        );
        assert_eq!(finished.status, 137, "{finished}");
        assert!(finished.stderr.contains("oom_kill 1"), "{finished}");
        assert!(finished.stderr.contains("memory.max is 33554432"), "{finished}");
        assert!(!Path::new(&format!("/sys/fs/cgroup/inspect/{id}")).exists(), "its cgroup is gone");
    }
}

#[test]
fn a_terminal_is_a_terminal_with_every_runtime() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("b").display().to_string();
    sh(&format!("inspect unpack -q /opt/lab/images/busybox.tar {bundle}"));
    for runtime in ["builtin", "runc", "crun"] {
        let line = format!("inspect run {bundle} tty-{runtime} --runtime {runtime} --terminal -- tty");
        assert_eq!(sh(&line), "/dev/pts/0", "{runtime}");
        let line = format!(
            "echo 'read x; exit 5' | inspect run {bundle} in-{runtime} --runtime {runtime} --terminal"
        );
        assert_eq!(try_sh(&line).status, 5, "{runtime}");
    }
}
