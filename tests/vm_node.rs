//! The node under test is what the other suites take it for.

mod support;

use support::{BUSYBOX, Container, LAYERS, generation, import, inspect, run, sh, try_sh};

/// containerd, systemd and kernel of a generation: the start of each version.
fn expected_versions() -> (&'static str, &'static str, &'static str) {
    match generation().as_str() {
        "bookworm" => ("1.6.", "252", "6.1."),
        "trixie" => ("1.7.", "257", "6.12."),
        "forky" => ("2.", "2", "7."),
        other => panic!("unknown generation `{other}`"),
    }
}

#[test]
fn pid_1_is_systemd() {
    assert_eq!(sh("cat /proc/1/comm"), "systemd");
    let state = try_sh("systemctl is-system-running --wait").stdout;
    assert_eq!(state.trim(), "running", "{}", sh("systemctl --failed --no-legend"));
}

#[test]
fn cgroup_is_unified() {
    assert_eq!(sh("stat -f -c %T /sys/fs/cgroup"), "cgroup2fs");
    let controllers = sh("cat /sys/fs/cgroup/cgroup.controllers");
    for controller in ["cpu", "io", "memory", "pids"] {
        assert!(
            controllers.split(' ').any(|name| name == controller),
            "{controller} is not in {controllers}"
        );
    }
}

#[test]
fn versions_are_the_generations() {
    let (containerd, systemd, kernel) = expected_versions();
    let version = sh("containerd --version");
    let version = version.split_whitespace().nth(2).expect("the third word is the version");
    assert!(version.trim_start_matches('v').starts_with(containerd), "containerd {version}");
    let version = sh("systemctl --version | sed -n '1s/systemd \\([0-9]*\\).*/\\1/p'");
    assert!(version.starts_with(systemd), "systemd {version}");
    assert!(sh("uname -r").starts_with(kernel), "{}", sh("uname -r"));
}

#[test]
fn containerd_is_a_unit_that_answers() {
    assert_eq!(sh("systemctl is-active containerd.service"), "active");
    assert!(sh("ctr version").contains("Server:"));
}

#[test]
fn both_runtimes_run_a_container() {
    import("default", "busybox");
    for runtime in ["runc", "crun"] {
        let line =
            format!("ctr run --rm --runc-binary {runtime} {BUSYBOX} node-{runtime} echo made by {runtime}");
        assert_eq!(sh(&line), format!("made by {runtime}"));
    }
}

#[test]
fn a_detached_container_has_an_init_under_a_shim() {
    let container = Container::start("default", "node-detached", "", "sleep 1000");
    let pid = container.init_pid();
    assert_eq!(sh(&format!("cat /proc/{pid}/comm")), "sleep");
    let shim = sh(&format!("awk '/^PPid/ {{ print $2 }}' /proc/{pid}/status"));
    assert_eq!(sh(&format!("cat /proc/{shim}/comm")), "containerd-shim");
    assert_eq!(sh(&format!("cat {}/init.pid", container.bundle())), pid.to_string());
}

#[test]
fn layers_apply_in_order() {
    import("default", "layers");
    let line = format!(
        "ctr run --rm {LAYERS} node-layers sh -c 'cat /data/keep /data/drop /data/add /opaque/old; ls /opaque /modes; \
         stat -c %a /modes/setuid; stat -c %h /data/add; test -f /becomes-file && test -d /becomes-directory && echo ok'"
    );
    let expected = "from the first layer\nback in the third layer\nfrom the second layer\nback in the third layer\n\
                    /modes:\nnone\nsetgid\nsetuid\n\n/opaque:\nnew\nold\n4755\n2\nok";
    assert_eq!(sh(&line), expected);
}

#[test]
fn pause_images_have_the_names_cri_asks_for() {
    import("k8s.io", "pause");
    let names = sh("ctr -n k8s.io images ls -q");
    let config = sh("containerd config default");
    let wanted =
        config.lines().find_map(|line| line.split_once("/pause:")).expect("a pause image by default").1;
    let tag = wanted.trim_end_matches(['"', '\'']);
    assert!(names.lines().any(|name| name.ends_with(&format!("/pause:{tag}"))), "{tag} is not in {names}");
}

#[test]
fn the_programs_under_test_run_here() {
    for program in ["inspect", "inspect-runtime"] {
        let path = format!("/usr/local/bin/{program}");
        assert_eq!(run(&path, &["--version"]).status, 0, "{}", run(&path, &["--version"]));
    }
    assert_eq!(inspect(&["--no-such-option"]).status, 2);
}

#[test]
fn the_node_reaches_nothing_outside() {
    let outside = try_sh("timeout 5 bash -c ': </dev/tcp/10.0.2.2/22'");
    assert_ne!(outside.status, 0, "{outside}");
}
