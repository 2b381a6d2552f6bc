//! The built-in runtime by itself: items of runtime-spec's config.json, each with what the kernel shows of it.

#[path = "support/bundle.rs"]
mod bundle;
mod support;

use std::time::Duration;

use bundle::{Bundle, RUNTIME, shell};
use support::{sh, try_sh, wait_until};

const BOUND: Duration = Duration::from_secs(60);

/// Makes a bundle that has more of busybox's programs.
fn make(id: &str, programs: &str, filter: &str) -> Bundle {
    let bundle = Bundle::make(id, filter);
    sh(&format!(
        "cd {}/rootfs/bin; for name in {programs}; do ln -s busybox $name; done",
        bundle.path.display()
    ));
    bundle
}

/// Runs a bundle in the foreground.
fn run(bundle: &Bundle) -> support::Finished {
    let (path, id) = (bundle.path.display(), &bundle.id);
    try_sh(&format!("cd {path}; {RUNTIME} --root {path}/state run {id}"))
}

#[test]
fn a_read_only_tmpfs_holds_what_the_spec_puts_into_it() {
    let mounts = r#".mounts+=[{destination:"/t",type:"tmpfs",source:"t",options:["ro"]},
        {destination:"/t/deep/bin",type:"bind",source:"rootfs/bin",options:["bind"]},
        {destination:"/etc",type:"tmpfs",source:"t",options:["ro","tmpcopyup"]},
        {destination:"/covered",type:"tmpfs",source:"t",options:["ro"]},
        {destination:"/covered",type:"bind",source:"w",options:["bind"]}] |
        .mounts |= map(if .destination=="/dev" then .options+=["ro"] else . end)"#;
    let line = "/t/deep/bin/cat /etc/name; echo over >/covered/file && cat /covered/file; ls /dev/null; \
                for place in /t /etc /dev; do touch $place/x; done";
    let bundle = make("ro-tmpfs", "touch ls", &format!("{mounts} | {}", shell(line)));
    sh(&format!("cd {}; mkdir w rootfs/etc; echo copied >rootfs/etc/name", bundle.path.display()));
    let finished = run(&bundle);
    assert_eq!(finished.stdout, "copied\nover\n/dev/null\n", "{finished}");
    assert_eq!(finished.stderr.matches("Read-only file system").count(), 3, "{finished}");
}

#[test]
fn a_working_directory_is_made_in_what_is_read_only_afterwards() {
    let readonly = ".root.readonly=true | .linux.readonlyPaths+=[\"/bound\"]";
    let tmpfs = r#".mounts+=[{destination:"/t",type:"tmpfs",source:"t",options:["ro"]}]"#;
    for (id, cwd) in [("cwd-root", "/new/place"), ("cwd-tmpfs", "/t/place"), ("cwd-path", "/bound/place")] {
        let line = shell("pwd; touch x");
        let bundle =
            make(id, "pwd touch", &format!("{readonly} | {tmpfs} | .process.cwd=\"{cwd}\" | {line}"));
        sh(&format!("mkdir {}/rootfs/bound", bundle.path.display()));
        let finished = run(&bundle);
        assert_eq!(finished.stdout, format!("{cwd}\n"), "{finished}");
        assert!(finished.stderr.contains("Read-only file system"), "{finished}");
    }
}

#[test]
fn a_user_namespace_by_path_may_be_described_as_it_is() {
    let maps = "[{containerID:1000,hostID:5,size:1},{containerID:0,hostID:100000,size:1000}]";
    let mapped = format!(
        ".linux.namespaces+=[{{type:\"user\"}}] | .linux.uidMappings={maps} | .linux.gidMappings={maps}"
    );
    let first = Bundle::make("user-1", &mapped);
    sh(&format!("cd {}; chmod 755 . ..; chown -R 100000:100000 rootfs", first.path.display()));
    first.succeed(&["run", "-d"]);
    let init = sh(&format!("jq .init_process_pid {}/{}/state.json", first.root().display(), first.id));
    // So do containerd and CRI-O write a container of a pod with a user namespace.
    let joins = |maps: &str| {
        format!(
            ".linux.namespaces |= map(.path=\"/proc/{init}/ns/\" + ({{network:\"net\",mount:\"mnt\"}}[.type] // .type)) | \
             .linux.namespaces |= map(if .type==\"mount\" then del(.path) else . end) | \
             .linux.uidMappings={maps} | .linux.gidMappings={maps} | {}",
            shell("cat /proc/self/uid_map")
        )
    };
    let reordered = "[{containerID:0,hostID:100000,size:1000},{containerID:1000,hostID:5,size:1}]";
    for (id, maps, expected) in [
        ("user-same", reordered, Some("0 100000 1000 1000 5 1")),
        ("user-none", "[]", Some("0 100000 1000 1000 5 1")),
        ("user-other", "[{containerID:0,hostID:100000,size:999}]", None),
    ] {
        let second = Bundle::make(id, &format!("{mapped} | {}", joins(maps)));
        sh(&format!("chown -R 100000:100000 {}/rootfs", second.path.display()));
        let finished = run(&second);
        match expected {
            Some(expected) => {
                let mut lines: Vec<&str> = finished.stdout.lines().collect();
                lines.sort_unstable();
                let words: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
                assert_eq!(words.join(" "), expected, "{finished}");
            }
            None => {
                assert!(finished.stderr.contains("`linux.uidMappings`"), "{finished}");
                assert!(!second.root().join(&second.id).exists(), "{finished}");
            }
        }
    }
}

#[test]
fn systemd_keeps_the_weight_of_a_scope() {
    let resources =
        ".linux.cgroupsPath=\"items.slice:stress:weight\" | .linux.resources.blockIO={weight:300}";
    let bundle = Bundle::make("weight", resources);
    let state = bundle.root().display().to_string();
    let id = &bundle.id;
    sh(&format!(
        "cd {}; {RUNTIME} --root {state} --systemd-cgroup run -d {id} </dev/null >output 2>&1 || {{ cat output; exit 1; }}",
        bundle.path.display()
    ));
    let weight = || sh("cat /sys/fs/cgroup/items.slice/stress-weight.scope/io.weight");
    let written = weight();
    // A unit beside it that asks for a weight has systemd write all of them.
    sh("systemd-run --quiet --slice=items.slice --unit=stress-beside -p IOWeight=77 sleep 1000");
    wait_until("the weight of the other unit", BOUND, || {
        let beside = try_sh("cat /sys/fs/cgroup/items.slice/stress-beside.service/io.weight");
        beside.stdout.contains("77").then_some(())
    });
    let kept = weight();
    sh("systemctl stop stress-beside");
    assert_eq!((written.as_str(), kept.as_str()), ("default 2930", "default 2930"));
}

#[test]
fn a_cgroup_that_the_container_may_write_to_is_its_own() {
    let mapped = ".linux.namespaces+=[{type:\"user\"}] | \
                  .linux.uidMappings=[{containerID:0,hostID:100000,size:1000}] | .linux.gidMappings=.linux.uidMappings";
    let writable = ".mounts |= map(if .type==\"cgroup\" then .options-=[\"ro\"] else . end)";
    let line = "stat -c %u /sys/fs/cgroup /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/cgroup.events; mkdir /sys/fs/cgroup/sub";
    for (id, filter, options, expected) in [
        ("own-mapped", format!("{mapped} | {writable}"), "", "0 0 65534"),
        (
            "own-systemd",
            format!("{mapped} | {writable} | .linux.cgroupsPath=\"items.slice:stress:own\""),
            "--systemd-cgroup",
            "0 0 65534",
        ),
        ("own-user", format!("{writable} | .process.user={{uid:7,gid:7}}"), "", "7 7 0"),
        ("own-ro", mapped.to_owned(), "", "65534 65534 65534"),
    ] {
        let bundle = make(id, "stat mkdir", &format!("{filter} | {}", shell(line)));
        let (path, id) = (bundle.path.display(), &bundle.id);
        sh(&format!("chmod 755 {path} {path}/..; chown -R 100000:100000 {path}/rootfs"));
        let finished = try_sh(&format!("cd {path}; {RUNTIME} --root {path}/state {options} run {id}"));
        let owners: Vec<&str> = finished.stdout.split_whitespace().collect();
        assert_eq!(owners.join(" "), expected, "{id}: {finished}");
        assert_eq!(finished.status == 0, owners[0] != "65534", "{id}: {finished}");
    }
}

#[test]
fn what_holds_for_the_mounts_below_holds_for_the_topmost_too() {
    let bundle = Bundle::make("recursive", ".");
    let path = bundle.path.display().to_string();
    sh(&format!("cd {path}; mkdir m; touch f; mount -t tmpfs m m; mkdir m/below; mount -t tmpfs m m/below"));
    let mounts = format!(
        ".mounts+=[{{destination:\"/m\",type:\"bind\",source:\"{path}/m\",options:[\"rbind\",\"nosuid\",\"rro\",\"rnodev\"]}}, \
         {{destination:\"/f\",type:\"bind\",source:\"{path}/f\",options:[\"bind\",\"noexec\",\"rro\",\"rrelatime\"]}}]"
    );
    sh(&format!(
        "cd {path}; jq '{mounts} | {}' config.json >new; mv new config.json",
        shell("cat /proc/self/mountinfo")
    ));
    let finished = run(&bundle);
    sh(&format!("umount {path}/m/below {path}/m"));
    let options = |point: &str| {
        let line = finished.stdout.lines().find(|line| line.split(' ').nth(4) == Some(point));
        line.and_then(|line| line.split(' ').nth(5)).unwrap_or_default().to_owned()
    };
    let found = [options("/m"), options("/m/below"), options("/f")];
    assert_eq!(found, ["ro,nosuid,nodev,relatime", "ro,nodev,relatime", "ro,noexec,relatime"], "{finished}");
}
