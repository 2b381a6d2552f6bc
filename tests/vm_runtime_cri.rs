//! Pods of containerd's CRI plugin where the built-in runtime is the default: what the kubelet asks for has to come out the same as
//! with the handler `runc`. Both pods run at the same time.

#[path = "support/cri.rs"]
mod cri;
mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Once;
use std::thread;
use std::time::Duration;

use cri::{
    CONTAINER, Capabilities, ContainerConfig, ContainerStatus, EXITED, IdMapping, Integer, Mount, NODE,
    NamespaceOption, POD, Pod, PodSecurity, Resources, SecurityProfile, UserNamespace, Variable,
};
use support::{BUSYBOX, generation, import, inspect, sh, skip, try_sh, wait_until};

/// The runtime that makes a pod's containers, and the handler that is asked for.
const HANDLERS: [(&str, &str); 2] = [("runc", "runc"), ("inspect-runtime", "")];

/// For what happens by itself, on a loaded machine.
const BOUND: Duration = Duration::from_secs(60);

/// Makes the built-in runtime CRI's default. Each suite has a node of its own: nothing is undone.
fn swap() {
    static SWAPPED: Once = Once::new();
    SWAPPED.call_once(|| {
        import("k8s.io", "busybox");
        import("k8s.io", "pause");
        inspect(&["swap-runtime", "--yes", "--no-verify", "builtin"]).success();
    });
}

/// Does the same with a pod of either runtime; gives what both told. The pods are gone afterwards.
#[track_caller]
fn alike(name: &str, security: &PodSecurity, check: impl Fn(&mut Pod) -> String + Sync) -> String {
    swap();
    let check = &check;
    let told = thread::scope(|scope| {
        let started = HANDLERS.map(|(family, handler)| {
            scope.spawn(move || {
                let name = format!("{name}-{family}");
                let mut pod = Pod::run_with(&name, handler, security.clone());
                assert_eq!(made_by(&pod.sandbox), family);
                let told = check(&mut pod);
                let sandbox = pod.sandbox.clone();
                drop(pod);
                let left = format!(
                    "ls -d /run/containerd/runc/k8s.io/{sandbox}; find /sys/fs/cgroup/kubepods/{name} -mindepth 1 -type d"
                );
                assert_eq!(try_sh(&left).stdout, "", "{told}");
                told
            })
        });
        started.map(|one| one.join().expect("a pod's thread ends"))
    });
    assert_eq!(told[1], told[0], "the built-in runtime and runc differ");
    let [told, _] = told;
    told
}

/// The runtime of a container, by what it left beside it.
fn made_by(id: &str) -> &'static str {
    let state = sh(&format!("cat /run/containerd/runc/k8s.io/{id}/state.json"));
    if state.contains("inspect-runtime") { "inspect-runtime" } else { "runc" }
}

/// The host's network, and all else as the pod's own.
fn plain() -> PodSecurity {
    let options = NamespaceOption { network: NODE, pid: CONTAINER, ..NamespaceOption::default() };
    PodSecurity { namespace_options: Some(options), privileged: false }
}

fn container(name: &str, line: &str) -> ContainerConfig {
    let mut config = ContainerConfig::new(name, BUSYBOX, &["sh", "-c", line]);
    config.security().namespace_options = plain().namespace_options;
    config
}

/// A command's output and end, in one text.
fn told_by(pod: &mut Pod, id: &str, line: &str) -> String {
    match pod.exec(id, &["sh", "-c", line], 60) {
        Ok(executed) => format!(
            "{}{}ended with {}\n",
            String::from_utf8_lossy(&executed.stdout),
            String::from_utf8_lossy(&executed.stderr),
            executed.exit_code
        ),
        Err(error) => panic!("{line}: {error:?}"),
    }
}

fn await_end(pod: &mut Pod, id: &str) -> ContainerStatus {
    wait_until("a container's end", BOUND, || Some(pod.status(id)).filter(|status| status.state == EXITED))
}

fn end_of(pod: &mut Pod, id: &str) -> String {
    let status = await_end(pod, id);
    format!("{} {}\n", status.exit_code, status.reason)
}

#[track_caller]
fn assert_has(told: &str, fragments: &[&str]) {
    for fragment in fragments {
        assert!(told.contains(fragment), "{fragment:?} is not in:\n{told}");
    }
}

/// What a process in a container can see of what was asked for; see `vm_runtime_ctr`.
const LOOK: &str = r#"id; pwd; env | grep -v ^HOSTNAME= | sort; umask
    grep -E "^(Uid|Gid|Groups|Cap|NoNew|Seccomp:)" /proc/self/status; cat /proc/self/limits /proc/self/oom_score_adj
    awk "{ print \$5, \$6, \$(NF - 2), \$NF }" /proc/self/mountinfo | sed "s/lowerdir.*//; s/size=4k,nr_inodes=1,//" | sort
    ls -ln /dev | awk "\$NF != \"/proc/kcore\" { print \$1, \$3, \$4, \$5, \$6 * (\$6 + 0 == \$6), \$NF }" | grep -v "^total"
    sed "s#/kubepods/.*#/kubepods#" /proc/self/cgroup; touch /new && echo writable"#;

/// That, but for what differs between releases of runc: whether an option such as `rw` of a bind mount clears the flags of its
/// source, which it does since 1.2.
fn seen(told: &str) -> String {
    let clears = generation() == "forky";
    let lines = told.lines().filter(|line| clears || !line.starts_with("/dev/shm "));
    // A cgroup2 instance that runc mounts from the host's namespace takes options from the host's own.
    lines.map(|line| format!("{}\n", line.split(" cgroup2 ").next().unwrap_or_default())).collect()
}

#[test]
fn two_containers_of_a_pod_share_what_they_are_to_share() {
    let options = NamespaceOption { network: NODE, ..NamespaceOption::default() };
    let security = PodSecurity { namespace_options: Some(options.clone()), privileged: false };
    let told = alike("two", &security, |pod| {
        let mut ids = ["one", "two"].map(|name| {
            let mut config = container(name, &format!("echo {name} >/{name}; exec sleep 100{}", name.len()));
            config.security().namespace_options = Some(options.clone());
            pod.start_with(config)
        });
        let look = "for n in pid ipc uts net; do readlink /proc/self/ns/$n; done";
        let [first, second] = ids.each_ref().map(|id| told_by(pod, id, look));
        assert_eq!(first, second);
        let mut told =
            told_by(pod, &ids[0], "ls / | grep -E '^(one|two)$'; ps -o comm= | grep -c sleep; exit 7");
        told += &told_by(pod, &ids[0], "echo out; echo err >&2; kill -KILL $$");
        let missing = pod.exec(&ids[1], &["no-such-program"], 60).expect_err("there is none");
        told += &format!("{}\n", format!("{missing:?}").contains("executable file not found in $PATH"));
        let endless = pod.exec(&ids[1], &["sleep", "1000"], 2).expect_err("it takes longer");
        told += &format!("{}\n", format!("{endless:?}").contains("timeout 2s exceeded"));
        let again = pod.start_created(&ids[0]).expect_err("it runs already");
        told += &format!("{}\n", format!("{again:?}").contains("RUNNING"));
        // The second ends and comes again, under the same name, as the kubelet does it.
        pod.stop(&ids[1], 0);
        told += &end_of(pod, &ids[1]);
        pod.remove(&ids[1]);
        ids[1] = pod.start_with(container("two", "exec sleep 1000"));
        told + &told_by(pod, &ids[1], "cat /proc/self/cgroup")
    });
    assert_has(
        &told,
        &["one\n3\nended with 7", "out\nerr\nended with 137", "true\ntrue\ntrue\n137 Error\n0::/\n"],
    );
}

#[test]
fn containers_end_as_they_are_told_to() {
    let told = alike("ends", &plain(), |pod| {
        let obedient =
            container("obedient", "trap 'sleep 1; exit 3' TERM; echo ready; while :; do sleep 0.1; done");
        let deaf = container("deaf", "trap '' TERM; while :; do sleep 0.1; done");
        let [obedient, deaf] = [obedient, deaf].map(|config| pod.start_with(config));
        let done = pod.start_with(container("done", "exit 0"));
        let failed = pod.start_with(container("failed", "exit 9"));
        let mut told = [done, failed].map(|id| end_of(pod, &id)).concat();
        pod.stop(&obedient, 60);
        told += &end_of(pod, &obedient);
        pod.stop(&deaf, 1);
        told += &end_of(pod, &deaf);
        // The notice of it may come too late for containerd to tell, with runc as well.
        let deaths = (0..4).map(|number| {
            let hog = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
            let mut config = container(&format!("hog-{number}"), hog);
            config.resources().memory_limit_in_bytes = 16 << 20;
            let id = pod.start_with(config);
            end_of(pod, &id)
        });
        let known = deaths.collect::<Vec<_>>().into_iter().find(|end| end.contains("OOMKilled"));
        told + &known.unwrap_or_default()
    });
    assert_eq!(told, "0 Completed\n9 Error\n3 Error\n137 Error\n137 OOMKilled\n");
}

#[test]
fn limits_are_set_and_changed() {
    let told = alike("limits", &plain(), |pod| {
        let mut config = container("limited", "exec sleep 1000");
        *config.resources() = Resources {
            cpu_period: 50_000,
            cpu_quota: 25_000,
            cpu_shares: 262_144,
            memory_limit_in_bytes: 64 << 20,
            oom_score_adj: 500,
            cpuset_cpus: "0".into(),
            unified: [("pids.max".to_owned(), "50".to_owned())].into(),
        };
        let id = pod.start_with(config);
        let look = "cd /sys/fs/cgroup; cat cpu.max cpu.weight memory.max memory.swap.max cpuset.cpus pids.max /proc/1/oom_score_adj";
        let mut told = told_by(pod, &id, look);
        let changed = Resources {
            cpu_period: 100_000,
            cpu_quota: 20_000,
            cpu_shares: 2,
            memory_limit_in_bytes: 128 << 20,
            cpuset_cpus: "0-1".into(),
            ..Resources::default()
        };
        pod.update(&id, changed).expect("limits are changed");
        told += &told_by(pod, &id, look);
        let wrong = Resources { cpuset_cpus: "900".into(), ..Resources::default() };
        told + &format!("{}\n", pod.update(&id, wrong).is_err())
    });
    assert_has(
        &told,
        &[
            "25000 50000\n10000\n67108864\n0\n0\n50\n500\n",
            "20000 100000\n1\n134217728\n0\n0-1\n50\n",
            "true\n",
        ],
    );
}

#[test]
fn a_security_context_is_kept() {
    let told = alike("secure", &plain(), |pod| {
        let mut config =
            container("secure", &format!("exec >/out/init 2>&1; {LOOK}; echo end; exec sleep 1000"));
        let directory = format!("/var/tmp/vm-cri/{}", pod.sandbox);
        sh(&format!("mkdir -p {directory}; chmod 777 {directory}"));
        config.working_dir = "/data".into();
        config.envs = vec![Variable { key: "A".into(), value: "two words".into() }];
        config.mounts = vec![
            Mount { container_path: "/out".into(), host_path: directory.clone(), readonly: false },
            Mount { container_path: "/host".into(), host_path: "/etc".into(), readonly: true },
        ];
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        *config.security() = cri::ContainerSecurity {
            capabilities: Some(Capabilities { add: words(&["NET_ADMIN"]), drop: words(&["CHOWN", "KILL"]) }),
            run_as_user: Some(Integer { value: 1000 }),
            run_as_group: Some(Integer { value: 10 }),
            supplemental_groups: vec![20, 30],
            readonly_rootfs: true,
            no_new_privs: true,
            masked_paths: words(&["/proc/version", "/proc/acpi", "/sys/kernel"]),
            readonly_paths: words(&["/proc/sys", "/proc/irq"]),
            seccomp: Some(SecurityProfile { kind: 0 }),
            namespace_options: plain().namespace_options,
            privileged: false,
        };
        let id = pod.start_with(config);
        let told = wait_until("what init sees", BOUND, || {
            std::fs::read_to_string(format!("{directory}/init")).ok().filter(|text| text.ends_with("end\n"))
        });
        let attempts = "wc -c </proc/version; ls /sys/kernel; echo 1 >/proc/sys/vm/overcommit_memory; echo x >/host/new; \
                        unshare -U true; echo x >/out/new && echo shared";
        let told = seen(&(told + &told_by(pod, &id, LOOK))) + &told_by(pod, &id, attempts);
        sh(&format!("rm -r {directory}"));
        told
    });
    assert_has(
        &told,
        &[
            "uid=1000(user) gid=10(wheel) groups=10(wheel),20,30\n/data\nA=two words\n",
            "NoNewPrivs:\t1\nSeccomp:\t2\n",
            "CapBnd:\t00000000a80435da\n",
            "touch: /new: Read-only file system",
            "\n0\nshared\n",
            // Newer shells say the line before that.
            "can't create /proc/sys/vm/overcommit_memory: Read-only file system\n",
            "can't create /host/new: Read-only file system\n",
            "Operation not permitted\nended with 0\n",
        ],
    );
}

#[test]
fn a_privileged_container_has_the_host() {
    let options = NamespaceOption { network: NODE, pid: NODE, ipc: NODE, userns_options: None };
    let security = PodSecurity { namespace_options: Some(options.clone()), privileged: true };
    let told = alike("privileged", &security, |pod| {
        let mut config = container("privileged", "exec sleep 1000");
        config.security().namespace_options = Some(options.clone());
        config.security().privileged = true;
        let id = pod.start_with(config);
        let attempts = "mkdir /m && mount -t tmpfs none /m && echo mounted; mknod /kmsg c 1 11 && : </kmsg && echo device; \
                        for n in net pid ipc uts; do test $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) && echo $n; done; \
                        cat /proc/1/comm; test -w /proc/sys/kernel && echo sysctl; ls /sys/kernel >/dev/null && echo sysfs";
        seen(&told_by(pod, &id, LOOK)) + &told_by(pod, &id, attempts)
    });
    assert_has(
        &told,
        &["CapEff:\t000001ffffffffff", "mounted\ndevice\nnet\npid\nipc\nuts\nsystemd\nsysctl\nsysfs\n"],
    );
}

/// As `hostUsers: false` has it: the containers join the sandbox's user namespace by its path, and containerd writes its mappings
/// beside that.
#[test]
fn a_pod_with_a_user_namespace_is_nobody_on_the_node() {
    if generation() == "bookworm" {
        skip!("containerd 1.6 makes no user namespaces for pods");
    }
    give_pods_a_network();
    let mapping = vec![IdMapping { host_id: 100_000, container_id: 0, length: 65_536 }];
    let own = UserNamespace { mode: POD, uids: mapping.clone(), gids: mapping };
    let options = NamespaceOption { pid: CONTAINER, userns_options: Some(own), ..NamespaceOption::default() };
    let security = PodSecurity { namespace_options: Some(options.clone()), privileged: false };
    let start = |pod: &mut Pod| {
        let mut config = container("userns", "exec sleep 1000");
        config.security().namespace_options = Some(options.clone());
        pod.start_with(config)
    };
    swap();
    // Of two first pods that map an image's files alike, containerd 1.7 fails one.
    let mut first = Pod::run_with("userns-first", "runc", security.clone());
    start(&mut first);
    let told = alike("userns", &security, |pod| {
        let id = start(pod);
        let inside = "cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /made && stat -c %u:%g /made /etc/hosts /dev/null; \
                      mkdir /m && mount -t tmpfs none /m; mkdir /sys/fs/cgroup/made";
        let told = seen(&(told_by(pod, &id, LOOK) + &told_by(pod, &id, inside)));
        // runc mounts it while its group is one of the node's.
        let told = told.replace(" 0 65534 40 0 mqueue\n", " 0 0 40 0 mqueue\n");
        let pid = sh(&format!("ctr -n k8s.io tasks ls | awk '$1 == \"{id}\" {{ print $2 }}'"));
        told + &sh(&format!("stat -c 'on the node %u:%g' /proc/{pid}"))
    });
    assert_has(
        &told,
        &[
            "         0     100000      65536\n",
            "\n0\n0:0\n",
            "Permission denied\nmkdir: can't create directory '/sys/fs/cgroup/made': Read-only file system\n",
            "on the node 100000:100000",
        ],
    );
}

/// A pod with a user namespace has a network namespace of its own, for which containerd asks a CNI plugin: this one gives an
/// address and no device.
fn give_pods_a_network() {
    let plugin = r#"#!/bin/sh
echo '{"cniVersion":"0.4.0","interfaces":[{"name":"eth0"}],"ips":[{"version":"4","interface":0,"address":"10.9.8.7/24"}]}'
"#;
    sh("mkdir -p /usr/lib/cni /etc/cni/net.d");
    for name in ["loopback", "an-address"] {
        std::fs::write(format!("/usr/lib/cni/{name}"), plugin).expect("a plugin");
        sh(&format!("chmod 755 /usr/lib/cni/{name}"));
    }
    let list = r#"{"cniVersion":"0.4.0","name":"pods","plugins":[{"type":"an-address"}]}"#;
    std::fs::write("/etc/cni/net.d/10-pods.conflist", list).expect("a list of plugins");
    sh("systemctl restart containerd");
}

#[test]
fn logs_have_the_streams_and_terminals_their_size() {
    // Logs are written on, and outlive their pod.
    sh("rm -rf /var/log/pods/logs-*");
    let told = alike("logs", &plain(), |pod| {
        let mut config = container("streams", "echo to out; echo to err >&2; printf unfinished");
        config.log_path = "streams.log".into();
        let streams = pod.start_with(config);
        let mut config = container("terminal", "tty; test -t 0 && echo typed to; exec sleep 1000");
        config.tty = true;
        config.log_path = "terminal.log".into();
        let terminal = pod.start_with(config);
        let mut told = end_of(pod, &streams);
        let family = made_by(&pod.sandbox);
        for (file, lines) in [("streams", 3), ("terminal", 2)] {
            let lines = wait_until("a log", BOUND, || {
                let log = std::fs::read_to_string(format!("/var/log/pods/logs-{family}/{file}.log")).ok()?;
                (log.lines().count() >= lines).then_some(log)
            });
            // The time in front, and the order of the two streams, are by chance.
            let mut lines: Vec<&str> =
                lines.lines().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
            lines.sort_unstable();
            told += &lines.iter().map(|line| format!("{}\n", line.trim_end())).collect::<String>();
        }
        let address = pod.exec_on_terminal(&terminal, &["sh"]);
        // As long as nobody told the size, busybox's stty calls it an error, with whatever errno was left.
        told + &typed_into(
            &address,
            "tty; until test \"$(stty size 2>/dev/null)\" = '40 100'; do sleep 0.1; done; echo it is \"$(stty size)\"; exit 5\n",
        )
    });
    assert_has(
        &told,
        &[
            "0 Completed\n",
            "stderr F to err\nstdout F to out\n",
            "stdout P unfinished\n",
            "stdout F /dev/pts/0\n",
            "stdout F typed to\n",
            "it is 40 100\n",
            "\"5\"",
        ],
    );
}

/// Types into a program that the CRI plugin streams over a WebSocket (RFC 6455, protocol `v4.channel.k8s.io`: the first byte of
/// each message is the stream). Gives what it printed but for the echo and the prompts, and the plugin's last word.
fn typed_into(address: &str, text: &str) -> String {
    let rest = address.strip_prefix("http://").expect("an address of http");
    let (host, path) = rest.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(host).expect("the plugin listens");
    stream.set_read_timeout(Some(BOUND)).expect("a bound");
    let request = format!(
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("the plugin reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the plugin answers");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    let send = |channel: u8, text: &str| {
        let payload = [&[channel], text.as_bytes()].concat();
        let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
        // A binary message, masked with zeros.
        let frame = [&[0x82, 0xfe], &length[..], &[0; 4], &payload].concat();
        (&stream).write_all(&frame).expect("the plugin reads");
    };
    send(4, "{\"Width\":100,\"Height\":40}");
    send(0, text);
    let (mut printed, mut word) = (String::new(), String::new());
    while let Some(payload) = read_message(&mut stream) {
        match payload.split_first() {
            Some((1, text)) => printed += &String::from_utf8_lossy(text),
            Some((3, text)) => word += &String::from_utf8_lossy(text),
            _ => {}
        }
    }
    // Before what the first command prints there are a greeting and the echo, in any order.
    let lines = printed.lines().skip_while(|line| !line.starts_with("/dev/pts"));
    let lines = lines.filter(|line| !line.contains("# ")).map(|line| format!("{}\n", line.trim_end()));
    lines.collect::<String>() + &word
}

/// The payload of the next message; none when the other side closes.
fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    let mut length = u64::from(head[1] & 0x7f);
    if length == 126 {
        let mut long = [0; 2];
        stream.read_exact(&mut long).ok()?;
        length = u64::from(u16::from_be_bytes(long));
    }
    assert_ne!(length, 127, "a message of so many bytes was not asked for");
    let mut payload = vec![0; usize::try_from(length).ok()?];
    stream.read_exact(&mut payload).ok()?;
    (head[0] & 0x0f != 8).then_some(payload)
}
