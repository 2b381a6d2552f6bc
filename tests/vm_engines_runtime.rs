//! Docker and Podman with the built-in runtime beside runc: the same commands, and the same answers from both.

mod support;

use std::path::Path;
use std::time::Duration;

use support::{Finished, sh, try_sh, wait_until};

const RUNTIME: &str = "/usr/local/bin/inspect-runtime";
const CONFIG: &str = "/etc/docker/daemon.json";
const IMAGE: &str = "vm-runtime-busybox";
/// dockerd takes half a minute to start under emulation, and several on a busy machine.
const START: Duration = Duration::from_secs(400);

/// An image of the node's static busybox, as a tar at this place.
fn make_image() -> &'static str {
    let tar = "/run/vm-runtime-image.tar";
    if !Path::new(tar).exists() {
        sh(&format!(
            "mkdir -p /run/vm-runtime/bin /run/vm-runtime/etc && cd /run/vm-runtime && cp $(command -v busybox) bin/busybox && \
             for name in sh true sleep cat id tty grep awk sort ls kill stty env hostname cut head mkdir tr; do ln -sf busybox bin/$name; done && \
             echo root:x:0:0:root:/root:/bin/sh >etc/passwd && tar -c bin etc >{tar}"
        ));
    }
    tar
}

fn prepare_docker() {
    sh(&format!("echo '{{\"runtimes\":{{\"inspect\":{{\"path\":\"{RUNTIME}\"}}}}}}' >{CONFIG}"));
    sh("systemctl --no-block start docker");
    wait_until("dockerd", START, || (try_sh("timeout 20 docker version").status == 0).then_some(()));
    sh("systemctl reload docker");
    wait_until("dockerd's new runtime", START, || {
        try_sh("timeout 20 docker info").stdout.contains("inspect").then_some(())
    });
    if try_sh(&format!("docker image inspect {IMAGE}")).status != 0 {
        sh(&format!("docker import {} {IMAGE}", make_image()));
    }
}

fn prepare_podman() {
    if try_sh(&format!("podman image exists {IMAGE}")).status != 0 {
        sh(&format!("podman import {} {IMAGE}", make_image()));
    }
}

/// What is asked of an engine: a name, and shell with `$CLI`, `$RUN` (with the runtime and without a network) and `$IMAGE`.
const QUESTIONS: [(&str, &str); 16] = [
    ("output and status", "$RUN --rm $IMAGE sh -c 'echo out; echo err >&2; exit 7'"),
    (
        "a program that is not there",
        "$RUN --rm $IMAGE no-such-program 2>&1 | grep -o 'executable file .* found in .PATH'; $RUN --rm $IMAGE no-such-program 2>/dev/null",
    ),
    (
        "a terminal",
        "script -qec \"$RUN --rm -it $IMAGE sh -c 'tty; echo line'\" /dev/null </dev/null | tr -d '\\000\\004\\010^@D'",
    ),
    (
        "rights",
        "$RUN --rm --user 1000:1001 --cap-drop ALL --cap-add NET_ADMIN $IMAGE sh -c 'id; grep -E \"^(Cap|Seccomp|NoNewPrivs|Groups|Uid|Gid)\" /proc/self/status'; \
         $RUN --rm $IMAGE grep -E '^(Cap|Seccomp|NoNewPrivs)' /proc/self/status",
    ),
    (
        "mounts",
        "$RUN --rm --read-only -v /etc:/x:ro --tmpfs /t $IMAGE sh -c 'cut -d\" \" -f5,6 /proc/self/mountinfo | sort'",
    ),
    (
        "devices",
        "$RUN --rm --device /dev/null:/dev/other:r $IMAGE sh -c 'ls -l /dev | awk \"{ print \\$1, \\$3, \\$4, \\$5, \\$6, \\$NF }\" | grep -v ^total | sort; echo x >/dev/other'",
    ),
    (
        "limits",
        "$RUN --rm --memory 64m --memory-swap 64m --cpu-shares 512 --pids-limit 50 --ulimit nofile=100:200 --oom-score-adj 100 \
         --sysctl net.ipv4.ip_unprivileged_port_start=7 $IMAGE sh -c 'ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_unprivileged_port_start; \
         cd /sys/fs/cgroup; cat memory.max memory.swap.max cpu.weight pids.max'",
    ),
    (
        "names",
        "$RUN --rm --hostname box -e A=b --workdir /made $IMAGE sh -c 'hostname; pwd; echo $A $HOME; cat /proc/self/cgroup'",
    ),
    (
        "out of memory",
        "$RUN --memory 32m --memory-swap 32m --name c $IMAGE sh -c 'x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done'; echo $?; $CLI inspect --format '{{.State.ExitCode}} {{.State.OOMKilled}}' c; $CLI rm -f c",
    ),
    (
        "exec",
        "$RUN -d --name c $IMAGE sleep 1000 >/dev/null; $CLI exec c sh -c 'echo in; exit 5'; echo $?; $CLI exec -e A=b -w /bin -u 7:8 c sh -c 'echo $A; pwd; id -u; id -g'; \
         $CLI exec c no-such-program >/dev/null 2>&1; echo $?; script -qec \"$CLI exec -it c tty\" /dev/null </dev/null | tr -d '\\000\\004\\010^@D'; $CLI rm -f c",
    ),
    (
        "pause",
        "$RUN -d --name c $IMAGE sleep 1000 >/dev/null; $CLI pause c; $CLI inspect --format '{{.State.Status}}' c; $CLI unpause c; \
         $CLI inspect --format '{{.State.Status}}' c; $CLI exec c echo again; $CLI rm -f c",
    ),
    (
        "update",
        "$RUN -d --memory 64m --memory-swap 64m --name c $IMAGE sleep 1000 >/dev/null; $CLI update --memory 48m --memory-swap 48m --cpu-shares 256 c >/dev/null; echo $?; \
         $CLI exec c sh -c 'cd /sys/fs/cgroup; cat memory.max cpu.weight'; $CLI rm -f c",
    ),
    (
        "signals",
        "$RUN -d --name c $IMAGE sh -c 'trap \"echo usr1\" USR1; trap \"echo term; exit 3\" TERM; echo up; while :; do sleep 1; done' >/dev/null; \
         until $CLI logs c | grep -q up; do :; done; $CLI kill -s USR1 c; until $CLI logs c | grep -q usr1; do :; done; $CLI stop c; $CLI logs c; \
         $CLI inspect --format '{{.State.ExitCode}}' c; $CLI rm c",
    ),
    (
        "top and stats",
        "$RUN -d --name c $IMAGE sleep 1000 >/dev/null; $CLI top c | awk '{ print $NF }'; $CLI stats --no-stream --format '{{.PIDs}}' c; $CLI rm -f c",
    ),
    (
        "restart",
        "$RUN -d --name c $IMAGE sleep 1000 >/dev/null; $CLI restart -t 0 c; $CLI inspect --format '{{.State.Running}}' c; $CLI exec c echo again; $CLI rm -f c; \
         $CLI ps -a -q | wc -l",
    ),
    (
        "created, then started",
        "$CLI create --runtime-of --name c $IMAGE sh -c 'echo started; exit 4' >/dev/null; $CLI start -a c; echo $?; $CLI rm c",
    ),
];

fn ask(cli: &str, options: &str, question: &str) -> Finished {
    let script = question.replace("--runtime-of", &format!("{options} --network none"));
    let run = format!("{cli} run {options} --network none");
    try_sh(&format!("export CLI='{cli}' RUN='{run}' IMAGE={IMAGE}; $CLI rm -f c >/dev/null 2>&1; {script}"))
}

/// Asks both, and tells every difference at once.
fn compare(engine: &str, runc: (&str, &str), ours: (&str, &str)) {
    let mut differences = String::new();
    for (name, question) in QUESTIONS {
        let expected = ask(runc.0, runc.1, question);
        let seen = ask(ours.0, ours.1, question);
        let strip = |text: &str| without_ids(text);
        let same = expected.status == seen.status && strip(&expected.stdout) == strip(&seen.stdout);
        if !same {
            differences += &format!("== {engine}, {name}\n-- runc: {expected}\n-- inspect-runtime: {seen}\n");
        }
        if name == "out of memory" {
            assert!(seen.stdout.contains("137"), "{seen}");
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

/// IDs of containers are chance.
fn without_ids(text: &str) -> String {
    let is_id = |word: &str| word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric())
        .map(|word| {
            let bare = word.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
            if is_id(bare) { word.replace(bare, "ID") } else { word.to_owned() }
        })
        .collect()
}

#[test]
fn docker_behaves_as_with_runc() {
    prepare_docker();
    compare("docker", ("docker", "--runtime runc"), ("docker", "--runtime inspect"));
    assert_eq!(sh("ls /run/docker/runtime-inspect/moby 2>/dev/null | wc -l"), "0");
    sh(&format!("rm {CONFIG}; systemctl reload docker"));
}

#[test]
fn podman_behaves_as_with_runc() {
    prepare_podman();
    compare("podman", ("podman --runtime runc", ""), (&format!("podman --runtime {RUNTIME}"), ""));
    assert_eq!(sh("ls /run/inspect-runtime 2>/dev/null | wc -l"), "0");
}
