//! The built-in runtime by itself, case by case: what once was wrong, and what the specification asks for that engines rarely use.

#[path = "support/bundle.rs"]
mod bundle;
mod support;

use std::time::Duration;

use bundle::{Bundle, RUNTIME, shell};
use support::{sh, try_sh, wait_until};

const BOUND: Duration = Duration::from_secs(60);

/// Runs a bundle in the foreground by a line of shell around `$RUN`, in its directory.
fn run_by(bundle: &Bundle, line: &str) -> support::Finished {
    let (path, id) = (bundle.path.display(), &bundle.id);
    try_sh(&format!("cd {path}; RUN='{RUNTIME} --root {path}/state run {id}'; {line}"))
}

/// The output of a bundle that runs to its end.
#[track_caller]
fn output_of(bundle: &Bundle) -> String {
    run_by(bundle, "$RUN").success()
}

fn init_pid(bundle: &Bundle) -> String {
    sh(&format!("jq .init_process_pid {}/{}/state.json", bundle.root().display(), bundle.id))
}

#[test]
fn a_terminal_is_ready_before_the_program_writes() {
    let bundle = Bundle::make("tty", &format!(".process.terminal=true | {}", shell("echo one; echo two")));
    for _ in 0..3 {
        let finished = run_by(&bundle, "$RUN </dev/null | cat");
        assert_eq!(finished.stdout, "one\ntwo\n", "{finished}");
    }
}

#[test]
fn a_program_that_closes_its_terminal_costs_nothing() {
    let line = "exec </dev/null >/dev/null 2>&1; sleep 3; echo back >/dev/console";
    let bundle = Bundle::make("closed", &format!(".process.terminal=true | {}", shell(line)));
    // Ticks of a hundredth second that the runtime spent: one that polls a terminal that has hung up spends all of them.
    let finished = run_by(&bundle, "$RUN </dev/null & wait $!; times | tail -1");
    let finished = finished.success();
    assert!(finished.starts_with("back\n"), "{finished}");
    let seconds: Vec<f64> = finished
        .lines()
        .nth(1)
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|time| time.trim_end_matches('s').split_once('m')?.1.parse().ok())
        .collect();
    assert!(seconds.len() == 2 && seconds.iter().sum::<f64>() < 2.0, "{finished}");
}

#[test]
fn what_is_done_is_told_with_debug_alone() {
    let bundle = Bundle::make("debug", &shell("true"));
    let finished =
        try_sh(&format!("cd {}; {RUNTIME} --debug --root state run {}", bundle.path.display(), bundle.id));
    assert!(finished.stderr.contains("level=debug"), "{finished}");
}

#[test]
fn hooks_of_the_container_have_no_more_rights_than_its_program() {
    let line = "grep -E ^Seccomp: /proc/self/status >/h; grep -E ^Cap /proc/self/status >>/h; id -u >>/h";
    let hook = serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", line]}]);
    let bundle = Bundle::make(
        "hook",
        &format!(
            "{} | .hooks={{startContainer:{hook}}} | .process.user={{uid:7,gid:8}} | \
             .linux.seccomp.syscalls += [{{names:[\"clone3\"],action:\"SCMP_ACT_ERRNO\",errnoRet:38}}] | \
             .mounts+=[{{destination:\"/h\",type:\"bind\",source:\"h\",options:[\"bind\"]}}]",
            shell("cat /h; grep -E ^Seccomp: /proc/self/status; grep -E ^Cap /proc/self/status; id -u")
        ),
    );
    sh(&format!("cd {0}; touch h; chmod 666 h; ln -s busybox rootfs/bin/grep", bundle.path.display()));
    let text = output_of(&bundle);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 14, "{text}");
    assert_eq!(lines[..7], lines[7..], "{text}");
    assert_eq!((lines[0], lines[6]), ("Seccomp:\t2", "7"), "{text}");
}

#[test]
fn a_joined_cgroup_namespace_shows_its_cgroups() {
    let first = Bundle::make("cgroup-1", ".");
    first.succeed(&["run", "-d"]);
    let path = format!("/proc/{}/ns/cgroup", init_pid(&first));
    let join = format!(".linux.namespaces |= map(if .type==\"cgroup\" then .path=\"{path}\" else . end)");
    let second = Bundle::make(
        "cgroup-2",
        &format!("{join} | {}", shell("cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs | head -1")),
    );
    sh(&format!("ln -s busybox {}/rootfs/bin/head", second.path.display()));
    let text = output_of(&second);
    assert!(text.lines().any(|line| line == "0::/../stress-cgroup-2"), "{text}");
}

/// `SIOCGIFFLAGS` by sysfs: 0x8 is a loopback device that is down, 0x9 one that is up (`linux/if.h`).
const LOOPBACK_FLAGS: &str = "cat /sys/class/net/lo/flags";

#[test]
fn loopback_is_up_wherever_the_network_namespace_comes_from() {
    let hook = r#"{poststop:[{path:"/bin/true"}]}"#;
    let mapped = r#".linux.uidMappings=[{containerID:0,hostID:100000,size:1000}] |
         .linux.gidMappings=.linux.uidMappings | .linux.namespaces += [{type:"user"}]"#;
    let shapes = [
        ("lo-plain", ".".to_owned()),
        (
            "lo-sysfs",
            r#".mounts |= (map(select(.type != "sysfs")) + map(select(.type == "sysfs")))"#.to_owned(),
        ),
        ("lo-hook", format!(".hooks={hook}")),
        ("lo-mapped", mapped.to_owned()),
    ];
    for (id, filter) in shapes {
        let bundle = Bundle::make(id, &format!("{filter} | {}", shell(LOOPBACK_FLAGS)));
        sh(&format!("chmod 755 {0} {0}/..; chown -R 100000:100000 {0}/rootfs", bundle.path.display()));
        assert_eq!(output_of(&bundle).trim(), "0x9", "{id}");
    }
    // One that is joined is somebody else's.
    sh("ip netns del vm-lo 2>/dev/null; ip netns add vm-lo");
    let join = r#".linux.namespaces |= map(if .type=="network" then .path="/run/netns/vm-lo" else . end)"#;
    let bundle = Bundle::make("lo-joined", &format!("{join} | {}", shell(LOOPBACK_FLAGS)));
    assert_eq!(output_of(&bundle).trim(), "0x8");
    sh("ip netns del vm-lo");
}

#[test]
fn sysfs_and_the_program_are_in_one_network_namespace() {
    // Made by another process while the first mounts were made: both must be in the new one, the runtime's caller must not.
    let line = "ls /sys/class/net; readlink /proc/self/ns/net";
    let bundle = Bundle::make("net-one", &shell(line));
    sh(&format!(
        "ln -s busybox {0}/rootfs/bin/ls; ln -s busybox {0}/rootfs/bin/readlink",
        bundle.path.display()
    ));
    let own = sh("readlink /proc/self/ns/net");
    let text = output_of(&bundle);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() >= 2 && lines[0] == "lo" && *lines[lines.len() - 1] != own, "{text} {own}");
    assert!(!text.contains("eth") && !text.contains("ens"), "{text}");
}

#[test]
fn a_limit_of_the_program_is_none_of_its_setting_up() {
    let limits =
        r#".process.rlimits=[{type:"RLIMIT_NOFILE",soft:4,hard:4},{type:"RLIMIT_FSIZE",soft:0,hard:0}]"#;
    let bundle = Bundle::make("limits", &format!("{limits} | {}", shell("ulimit -n; ulimit -f")));
    assert_eq!(output_of(&bundle).trim(), "4\n0");
    let bundle = Bundle::make("limits-exec", limits);
    bundle.succeed(&["run", "-d"]);
    let exec = format!(
        "{RUNTIME} --root {} exec {} sh -c 'ulimit -n; ulimit -f'",
        bundle.root().display(),
        bundle.id
    );
    assert_eq!(sh(&exec), "4\n0");
}

#[test]
fn a_device_moves_into_the_container() {
    // Where networkd runs it would give the device other addresses.
    let unmanaged = "/run/systemd/network/00-vm-dummy.network";
    sh(&format!(
        "mkdir -p /run/systemd/network; printf '[Match]\\nName=vm-dummy vm-peer\\n[Link]\\nUnmanaged=yes\\n' >{unmanaged}; \
         networkctl reload 2>/dev/null; ip link del vm-dummy 2>/dev/null; \
         ip link add vm-dummy type veth peer name vm-peer && ip addr add 10.9.8.7/24 dev vm-dummy && ip link set vm-dummy up"
    ));
    let devices = ".linux.netDevices={\"vm-dummy\":{name:\"eth0\"}}";
    let bundle =
        Bundle::make("device", &format!("{devices} | {}", shell("ip addr show eth0; ls /sys/class/net")));
    sh(&format!("ln -s busybox {0}/rootfs/bin/ip; ln -s busybox {0}/rootfs/bin/ls", bundle.path.display()));
    let text = output_of(&bundle);
    assert!(text.contains("inet 10.9.8.7/24") && text.contains("UP"), "{text}");
    assert!(text.lines().any(|line| line == "eth0"), "{text}");
    // The network namespace has gone, and a virtual device with it; it is not on the host meanwhile.
    wait_until("the namespace to go", BOUND, || (try_sh("ip link show vm-dummy").status != 0).then_some(()));
    sh(&format!("rm {unmanaged}"));
    let refused = run_by(&bundle, "$RUN");
    assert!(refused.stderr.contains("cannot find the network device `vm-dummy`"), "{refused}");
}

#[test]
fn ids_of_a_mount_are_mapped_in_a_user_namespace() {
    let maps = "[{containerID:0,hostID:100000,size:65536}]";
    let bundle = Bundle::make(
        "idmap",
        &format!(
            ".linux.namespaces+=[{{type:\"user\"}}] | .linux.uidMappings={maps} | .linux.gidMappings={maps} | \
             .mounts+=[{{destination:\"/m\",type:\"bind\",source:\"m\",options:[\"bind\",\"idmap\"]}}] | {}",
            shell("ls -ln /m | tail -1; echo x >/m/new")
        ),
    );
    let path = bundle.path.display();
    sh(&format!(
        "cd {path}; mkdir m; touch m/file; chown 5:6 m/file; chmod 777 m; for name in ls tail; do ln -s busybox rootfs/bin/$name; done; chown -R 100000:100000 rootfs; chmod 755 ."
    ));
    let text = output_of(&bundle);
    let fields: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(fields.get(2..4), Some(&["5", "6"][..]), "{text}");
    assert_eq!(sh(&format!("stat -c %u:%g {path}/m/new")), "0:0");
}

#[test]
fn without_pivot_root_no_bare_procfs_can_be_mounted() {
    let program = r#"["unshare","-mrpf","sh","-c","mount -t proc none /proc && echo mounted"]"#;
    let bundle = Bundle::make(
        "no-pivot",
        &format!(
            ".process.capabilities.bounding+=[\"CAP_SETFCAP\"] | .process.capabilities.permitted+=[\"CAP_SETFCAP\"] | .process.args={program}"
        ),
    );
    sh(&format!("cd {}/rootfs/bin; ln -s busybox unshare; ln -s busybox mount", bundle.path.display()));
    let finished = run_by(&bundle, &format!("{RUNTIME} --root state run --no-pivot {}", bundle.id));
    assert!(
        !finished.stdout.contains("mounted") && finished.stderr.contains("permission denied"),
        "{finished}"
    );
}

#[test]
fn a_created_container_ends_when_it_is_told_to() {
    let bundle = Bundle::make("told", ".");
    bundle.succeed(&["create"]);
    let (state, id) = (bundle.root().display().to_string(), bundle.id.clone());
    sh(&format!("{RUNTIME} --root {state} kill {id} TERM"));
    wait_until("its end", BOUND, || {
        sh(&format!("{RUNTIME} --root {state} state {id}")).contains("stopped").then_some(())
    });
    bundle.succeed(&["delete"]);
}

#[test]
fn what_a_dangling_link_leads_to_is_made_in_the_container() {
    let bundle = Bundle::make(
        "dangling",
        &format!(
            ".mounts+=[{{destination:\"/etc/hosts\",type:\"bind\",source:\"config.json\",options:[\"bind\"]}}] | {}",
            shell("cat /run/outside/hosts")
        ),
    );
    sh(&format!(
        "mkdir -p {0}/rootfs/etc; ln -s ../../../run/outside/hosts {0}/rootfs/etc/hosts",
        bundle.path.display()
    ));
    assert!(output_of(&bundle).contains("ociVersion"));
    assert_eq!(sh("test -e /run/outside || echo absent"), "absent");
}

#[test]
fn the_spec_of_phase_1_has_its_limits_and_its_end() {
    let bundle = Bundle::make("phase1", ".");
    let path = bundle.path.display().to_string();
    let fixture = "/opt/lab/images/phase1.json";
    let hog = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
    // Nothing of the fixture is changed but the terminal, and what is typed into it.
    let become_phase_1 = |program: &str| {
        let filter = format!(".process.terminal=false | {}", shell(program));
        sh(&format!("jq '{filter}' {fixture} >{path}/config.json"));
    };
    become_phase_1("sleep 1000");
    bundle.succeed(&["run", "-d"]);
    let cgroup = sh(&format!("find /sys/fs/cgroup -type d -name {}", bundle.id));
    assert_eq!(sh(&format!("cat {cgroup}/memory.max {cgroup}/cpu.weight")), "67108864\n59");
    bundle.succeed(&["delete", "--force"]);
    become_phase_1(hog);
    let finished = run_by(&bundle, "$RUN");
    assert_eq!(finished.status, 137, "{finished}");
}

#[test]
fn a_dev_that_is_a_symlink_stays_inside() {
    // CVE-2026-41579: nodes and links were made where the image's /dev led on the host.
    let victim = format!("{}/victim", bundle::PLACE);
    sh(&format!("rm -rf {victim}; mkdir -p {victim}"));
    for (id, filter) in [
        ("dev-bare", ".mounts |= map(select(.destination | startswith(\"/dev\") | not))"),
        ("dev-mounted", "."),
    ] {
        let bundle = Bundle::make(id, &format!("{filter} | {}", shell("true")));
        for target in [&victim, &format!("../../../../../../..{victim}")] {
            sh(&format!("cd {}/rootfs; rm -rf dev; ln -s {target} dev", bundle.path.display()));
            // Refused, or made inside: both are fine.
            drop(run_by(&bundle, "$RUN"));
            assert_eq!(sh(&format!("ls -A {victim}")), "", "{id} with {target}");
        }
    }
    sh(&format!("rmdir {victim}"));
}

#[test]
fn a_user_is_the_one_that_was_asked_for() {
    // CVE-2026-30892: `1` alone was taken for uid 0.
    let bundle = Bundle::make("user", ".");
    bundle.succeed(&["run", "-d"]);
    let (state, id) = (bundle.root().display().to_string(), bundle.id.clone());
    for (user, ids) in [("1", "1 0"), ("0", "0 0"), ("1:2", "1 2"), ("4294967294:7", "4294967294 7")] {
        let line = format!("{RUNTIME} --root {state} exec -u {user} {id} sh -c 'echo $(id -u) $(id -g)'");
        assert_eq!(sh(&line), ids, "{user}");
    }
    for user in ["x", "", ":", "1:", "-1", "1 ", "4294967296"] {
        let refused = try_sh(&format!("{RUNTIME} --root {state} exec -u '{user}' {id} true"));
        assert_ne!(refused.status, 0, "{user:?}: {refused}");
    }
}

#[test]
fn capabilities_that_cannot_be_are_warned_of() {
    let bundle = Bundle::make(
        "caps",
        &format!(
            ".process.capabilities.bounding+=[\"CAP_TEST\"] | .process.capabilities.inheritable=[\"CAP_KILL\"] | \
             .process.capabilities.ambient=[\"CAP_KILL\",\"CAP_NET_BIND_SERVICE\"] | {}",
            shell("grep -E ^Cap[AB] /proc/self/status")
        ),
    );
    let path = bundle.path.display();
    sh(&format!("ln -s busybox {path}/rootfs/bin/grep"));
    let line = format!("{RUNTIME} --root state --log log.json --log-format json run {}", bundle.id);
    let finished = run_by(&bundle, &line);
    // CAP_KILL is 5; the runtime's own spec allows CAP_NET_BIND_SERVICE, 10, and CAP_AUDIT_WRITE, 29.
    assert_eq!(finished.stdout, "CapBnd:\t0000000020000420\nCapAmb:\t0000000000000020\n", "{finished}");
    let warnings = sh(&format!("jq -r 'select(.level==\"warning\").msg' {path}/log.json"));
    let warnings: Vec<&str> = warnings.lines().collect();
    assert!(warnings.len() == 2 && warnings[0].contains("CAP_TEST"), "{warnings:?}");
    assert!(warnings[1].contains("CAP_NET_BIND_SERVICE"), "{warnings:?}");
}

#[test]
fn masked_directories_share_one_file_system() {
    let masked = "[\"/a\",\"/b\",\"/file\",\"/c\",\"/none\"]";
    for (id, filter) in [
        ("masked", format!(".linux.maskedPaths+={masked}")),
        ("masked-alone", format!(".linux.maskedPaths={masked}")),
    ] {
        let line = "stat -c %d /a /b /c | uniq; ls -A /a /b /c; cat /file; touch /b/x 2>&1";
        let bundle = Bundle::make(id, &format!("{filter} | {}", shell(line)));
        sh(&format!(
            "cd {}/rootfs; mkdir a b c; touch a/x b/x c/x; echo x >file; \
             for name in stat uniq ls touch; do ln -s busybox bin/$name; done",
            bundle.path.display()
        ));
        let finished = run_by(&bundle, "$RUN");
        let lines: Vec<&str> = finished.stdout.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 5, "{id}: {finished}");
        assert_eq!(lines[1..4], ["/a:", "/b:", "/c:"], "{id}: {finished}");
        assert!(lines[4].ends_with("Read-only file system"), "{id}: {finished}");
    }
}

#[test]
fn hooks_of_the_containers_namespaces_start_in_its_root() {
    let hook = serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", "pwd >made"]}]);
    let bundle =
        Bundle::make("hook-place", &format!(".hooks={{createContainer:{hook}}} | {}", shell("cat /made")));
    assert_eq!(output_of(&bundle).trim_end(), format!("{}/rootfs", bundle.path.display()));
    let hook = hook.to_string().replace("pwd >made", "kill -KILL $$");
    let bundle = Bundle::make("hook-killed", &format!(".hooks={{createContainer:{hook}}}"));
    let failed = run_by(&bundle, "$RUN");
    assert!(failed.stderr.contains("signal 9"), "{failed}");
}

#[test]
fn what_docker_and_shims_read_is_there() {
    let version = sh(&format!("{RUNTIME} --version"));
    let lines: Vec<&str> = version.lines().collect();
    assert!(
        lines[0].contains(" version ")
            && lines[1].starts_with("commit: v")
            && lines[2].starts_with("spec: 1."),
        "{version}"
    );
    let log = format!("{}/usage.json", bundle::PLACE);
    sh(&format!("mkdir -p {}; rm -f {log}", bundle::PLACE));
    let refused = try_sh(&format!("{RUNTIME} --log {log} --log-format json create --of-tomorrow x"));
    assert_eq!(refused.status, 1, "{refused}");
    assert!(
        sh(&format!("jq -r 'select(.level==\"error\").msg' {log}")).contains("--of-tomorrow"),
        "{refused}"
    );
    sh(&format!("rm {log}"));
}

#[test]
fn a_destination_may_start_with_the_roots_own_path() {
    let bundle = Bundle::make("destination", ".");
    let root = format!("{}/rootfs", bundle.path.display());
    let change = |destination: &str| {
        let mount = serde_json::json!([{"destination": destination, "type": "tmpfs", "source": "x"}]);
        let line = shell("grep -c \" /mnt/x tmpfs \" /proc/self/mounts");
        sh(&format!(
            "cd {0}; ln -sf busybox rootfs/bin/grep; jq '.mounts+={mount} | {line}' config.json >new && mv new config.json",
            bundle.path.display()
        ));
    };
    change(&format!("{root}/mnt/x"));
    assert_eq!(output_of(&bundle), "1\n");
    change(&format!("{root}/proc/self"));
    let refused = run_by(&bundle, "$RUN");
    assert!(refused.stderr.contains("inside /proc"), "{refused}");
}

#[test]
fn a_bind_mount_has_just_the_options_given() {
    let bundle = Bundle::make("options", ".");
    let path = bundle.path.display().to_string();
    sh(&format!(
        "cd {path}; mkdir m; mount -t tmpfs m m; mount -o remount,bind,ro,nosuid,noexec,noatime m; \
         ln -s busybox rootfs/bin/grep; cp config.json first.json"
    ));
    for (options, expected) in [
        // As with runc: none at all leaves the source's.
        ("[\"bind\",\"rprivate\"]", "ro,nosuid,noexec,noatime"),
        ("[\"bind\",\"nodev\"]", "rw,nodev,noatime"),
        ("[\"bind\",\"rw\"]", "rw,noatime"),
        ("[\"bind\",\"ro\",\"relatime\"]", "ro,relatime"),
    ] {
        let mount = format!("[{{destination:\"/m\",type:\"bind\",source:\"{path}/m\",options:{options}}}]");
        let line = shell("grep \" /m \" /proc/self/mounts");
        sh(&format!("cd {path}; jq '.mounts+={mount} | {line}' first.json >config.json"));
        let text = run_by(&bundle, "$RUN");
        let found = text.stdout.split_whitespace().nth(3).unwrap_or_default().replace(",inode64", "");
        assert_eq!(found, expected, "{options}: {text}");
    }
    sh(&format!("umount {path}/m"));
}

/// A jq filter for a user namespace whose root is 100000.
const USER_NAMESPACE: &str = ".linux.namespaces+=[{type:\"user\"}] | \
    .linux.uidMappings=[{containerID:0,hostID:100000,size:65536}] | .linux.gidMappings=.linux.uidMappings";

#[test]
fn what_the_host_has_mounted_is_locked_in_a_user_namespace() {
    let bundle = Bundle::make("locked", ".");
    let path = bundle.path.display().to_string();
    sh(&format!(
        "cd {path}; mkdir m m-above; mount -t tmpfs m m; chmod 777 m; mount -o remount,bind,ro,nosuid,nodev m; \
         mount -t tmpfs x m-above; mkdir m-above/below; echo hidden >m-above/below/file; mount -t tmpfs x m-above/below; \
         cd rootfs/bin; for name in mount umount touch ls grep; do ln -s busybox $name; done; chown -R 100000:100000 ..; chmod 755 ../..; cp ../../config.json ../../first.json"
    ));
    // mount_namespaces(7): what a more privileged mount namespace has set, a less privileged one cannot clear, and what it has
    // covered stays covered.
    let line = "mount -o remount,bind,rw /m; touch /m/x; umount /above/below; ls /above/below; grep \" /m \" /proc/self/mounts";
    let rights = ["bounding", "permitted", "effective"]
        .map(|set| format!(".process.capabilities.{set}+=[\"CAP_SYS_ADMIN\"]"))
        .join(" | ");
    let mounts = format!(
        ".mounts+=[{{destination:\"/m\",type:\"bind\",source:\"{path}/m\",options:[\"bind\"]}}, \
         {{destination:\"/above\",type:\"bind\",source:\"{path}/m-above\",options:[\"rbind\"]}}]"
    );
    let change = |more: &str| {
        sh(&format!(
            "cd {path}; jq '{USER_NAMESPACE} | {rights} | {mounts} | {} | {more}' first.json >config.json",
            shell(line)
        ));
        run_by(&bundle, "$RUN")
    };
    let finished = change(".");
    assert!(finished.stdout.contains(" ro,nosuid,nodev") && !finished.stdout.contains("file"), "{finished}");
    assert_eq!(sh(&format!("ls {path}/m")), "");
    // An option that is asked for and cannot be is an error; one that nobody asked for is kept.
    let kept = change(".mounts[-2].options=[\"bind\",\"noexec\"]");
    assert!(kept.stdout.contains(" ro,nosuid,nodev,noexec"), "{kept}");
    let refused = change(".mounts[-2].options=[\"bind\",\"rw\"]");
    assert!(refused.stderr.contains("operation not permitted") && refused.stdout.is_empty(), "{refused}");
    sh(&format!("cd {path}; umount m m-above/below m-above"));
}

#[test]
fn ids_of_a_mount_from_within_are_mapped_in_a_user_namespace() {
    let bundle = Bundle::make("idmap-within", ".");
    let path = bundle.path.display().to_string();
    sh(&format!(
        "cd {path}; mkdir m; touch m/file; chown 5:6 m/file; chmod 755 . m; cd rootfs/bin; \
         for name in stat; do ln -s busybox $name; done; chown -R 100000:100000 ..; \
         jq '{USER_NAMESPACE} | .mounts+=[{{destination:\"/m\",type:\"bind\",source:\"{path}/m\",options:[\"bind\"]}}, \
         {{destination:\"/n\",type:\"bind\",source:\"{path}/rootfs/m\",options:[\"bind\",\"idmap\"], \
         uidMappings:[{{containerID:0,hostID:100000,size:65536}}],gidMappings:[{{containerID:0,hostID:100000,size:65536}}]}}] | \
         {}' {path}/config.json >{path}/new && mv {path}/new {path}/config.json",
        shell("stat -c %u:%g /m/file /n/file")
    ));
    assert_eq!(output_of(&bundle), "65534:65534\n5:6\n");
}

#[test]
fn root_of_a_user_namespace_makes_containers() {
    let one = "[{containerID:0,hostID:0,size:1}]";
    let bundle = Bundle::make(
        "nested",
        &format!(
            ".linux.namespaces+=[{{type:\"user\"}}] | .linux.uidMappings={one} | .linux.gidMappings={one} | \
             .mounts |= map(select(.destination != \"/dev/pts\"))"
        ),
    );
    // Nobody but the host's root loads device rules, and groups cannot be set where setgroups is denied.
    let root = bundle.root().display().to_string();
    let line = format!("{RUNTIME} --root {root}");
    let text = run_by(
        &bundle,
        &format!(
            "unshare -Urm sh -ec '{line} run -d {0} >/dev/null; {line} exec {0} cat /proc/self/uid_map; {line} delete -f {0}'",
            bundle.id
        ),
    );
    assert_eq!(text.success().split_whitespace().collect::<Vec<_>>(), ["0", "0", "1"]);
}

#[test]
fn what_the_node_mounts_in_a_root_later_stays_out_of_the_container() {
    let bundle = Bundle::make("private", ".");
    let root = format!("{}/rootfs", bundle.path.display());
    // As a container's root is below a mount that is shared, which is systemd's default.
    sh(&format!("mkdir {root}/late && mount --bind {root} {root} && mount --make-shared {root}"));
    bundle.succeed(&["run", "-d"]);
    sh(&format!("mount -t tmpfs none {root}/late"));
    let finished = try_sh(&(bundle.arguments(&["exec"]).join(" ") + " cat /proc/self/mountinfo"));
    sh(&format!("umount {root}/late; umount {root}"));
    let text = finished.success();
    assert!(text.contains(" / /proc ") && !text.contains("/late "), "{text}");
}

#[test]
fn where_a_cgroup_can_hold_no_process_exec_goes_where_init_is() {
    let bundle = Bundle::make("inner", ".");
    bundle.succeed(&["create"]);
    bundle.succeed(&["start"]);
    let cgroup = format!("/sys/fs/cgroup/vm-stress/{}", bundle.id);
    // What systemd does in a container.
    sh(&format!(
        "cd {cgroup}; mkdir own; echo {} >own/cgroup.procs; set -- $(cat cgroup.controllers); echo +$1 >cgroup.subtree_control",
        init_pid(&bundle)
    ));
    let refused = try_sh(&format!("echo $$ >{cgroup}/cgroup.procs"));
    assert_ne!(refused.status, 0, "{refused}");
    let exec = |options: &str| {
        let (path, id) = (bundle.path.display(), &bundle.id);
        try_sh(&format!(
            "cd {path}; {RUNTIME} --root state exec {options} -d --pid-file pid {id} sleep 1000 </dev/null >output 2>&1 && \
             grep ^0:: /proc/$(cat pid)/cgroup || {{ cat output >&2; exit 1; }}"
        ))
    };
    assert_eq!(exec("").success(), format!("0::/vm-stress/{}/own\n", bundle.id));
    let chosen = exec("--cgroup /");
    assert!(chosen.status != 0 && chosen.stderr.contains("has controllers turned on"), "{chosen}");
}

#[test]
fn a_hook_that_fails_ends_the_container_and_the_last_hooks_run() {
    // runtime.md, "Lifecycle": the container is destroyed, then poststop hooks run.
    let hooks = |point: &str| {
        let fail = r#"[{path:"/bin/sh",args:["sh","-c","head -c 200000 /dev/zero >&2; exit 3"]}]"#;
        format!(
            r#".hooks={{{point}:{fail}, poststop:[{{path:"/bin/sh",args:["sh","-c","echo over >>over"]}}]}}"#
        )
    };
    for (point, commands) in [
        ("createRuntime", &[("create", false)][..]),
        ("createContainer", &[("create", false)]),
        ("poststart", &[("create", true), ("start", false)]),
    ] {
        let bundle = Bundle::make(&format!("fails-{}", point.to_lowercase()), &hooks(point));
        for (command, succeeds) in commands {
            let output = bundle.output(&[command]);
            assert_eq!(output.status.success(), *succeeds, "{point}: {output:?}");
        }
        let over = sh(&format!("cat {}/over", bundle.path.display()));
        assert_eq!(over, "over", "{point}");
        assert!(!bundle.output(&["state"]).status.success(), "{point}: it is still there");
        let cgroup = format!("/sys/fs/cgroup/vm-stress/{}", bundle.id);
        assert!(!std::path::Path::new(&cgroup).exists(), "{point}: its cgroup is still there");
    }
}

#[test]
fn a_mount_of_the_spec_can_be_mounted_again_with_other_options() {
    let again = r#".mounts+=[{destination:"/proc",type:"proc",source:"proc",options:["remount","ro"]}]"#;
    let bundle = Bundle::make("remount", &format!("{again} | {}", shell("cat /proc/self/mountinfo")));
    let text = output_of(&bundle);
    let proc: Vec<&str> = text.lines().filter(|line| line.contains(" / /proc ")).collect();
    assert!(proc.len() == 1 && proc[0].ends_with("proc proc ro"), "{text}");
}

#[test]
fn a_root_that_is_no_directory_is_named() {
    let bundle = Bundle::make("no-root", r#".root.path="config.json""#);
    let refused = run_by(&bundle, "$RUN");
    let reason = format!(
        "cannot use as root file system `{}/config.json`: it is not a directory",
        bundle.path.display()
    );
    assert!(refused.status != 0 && refused.stderr.contains(&reason), "{refused}");
}
