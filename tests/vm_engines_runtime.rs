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
             for name in sh echo true sleep cat id tty grep awk sort ls kill stty env hostname cut head mkdir tr; do ln -sf busybox bin/$name; done && \
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

/// What is asked of an engine: a name, what the answer must have in it, and shell with `$CLI`, `$RUN` (with the runtime and without a network) and `$IMAGE`.
const QUESTIONS: [(&str, &str, &str); 16] = [
    ("output and status", "out", "$RUN --rm $IMAGE sh -c 'echo out; echo err >&2; exit 7'"),
    (
        "a program that is not there",
        "executable file",
        "$RUN --rm $IMAGE no-such-program 2>&1 | grep -o 'executable file .* found in .PATH'; $RUN --rm $IMAGE no-such-program 2>/dev/null",
    ),
    (
        "a terminal",
        "line",
        "script -qec \"$RUN --rm -it $IMAGE sh -c 'tty; echo line'\" /dev/null </dev/null | tr -d '\\000\\004\\010^@D'",
    ),
    (
        "rights",
        "CapEff",
        "$RUN --rm --user 1000:1001 --cap-drop ALL --cap-add NET_ADMIN $IMAGE sh -c 'id; grep -E \"^(Cap|Seccomp|NoNewPrivs|Groups|Uid|Gid)\" /proc/self/status'; \
         $RUN --rm $IMAGE grep -E '^(Cap|Seccomp|NoNewPrivs)' /proc/self/status",
    ),
    (
        "mounts",
        "/x",
        "$RUN --rm --read-only -v /etc:/x:ro --tmpfs /t $IMAGE sh -c 'cut -d\" \" -f5,6 /proc/self/mountinfo | sort'",
    ),
    (
        "devices",
        "null",
        "$RUN --rm --device /dev/null:/dev/other:r $IMAGE sh -c 'ls -l /dev | awk \"{ print \\$1, \\$3, \\$4, \\$5, \\$6, \\$NF }\" | grep -v ^total | sort; echo x >/dev/other'",
    ),
    (
        "limits",
        "67108864",
        "$RUN --rm --memory 64m --memory-swap 64m --cpu-shares 512 --pids-limit 50 --ulimit nofile=100:200 --oom-score-adj 100 \
         --sysctl net.ipv4.ip_unprivileged_port_start=7 $IMAGE sh -c 'ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_unprivileged_port_start; \
         cd /sys/fs/cgroup; cat memory.max memory.swap.max cpu.weight pids.max'",
    ),
    (
        "names",
        "/bin",
        "$RUN --rm --hostname box -e A=b --workdir /bin $IMAGE sh -c 'hostname; pwd; echo $A $HOME; cat /proc/self/cgroup'",
    ),
    (
        "out of memory",
        "137 true",
        "$RUN --memory 32m --memory-swap 32m --name box1 $IMAGE sh -c 'x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done'; echo $?; $CLI inspect --format '{{.State.ExitCode}} {{.State.OOMKilled}}' box1; $CLI rm -f box1",
    ),
    (
        "exec",
        "/bin",
        "$RUN -d --name box1 $IMAGE sleep 1000 >/dev/null; $CLI exec box1 sh -c 'echo in; exit 5'; echo $?; $CLI exec -e A=b -w /bin -u 7:8 box1 sh -c 'echo $A; pwd; id -u; id -g'; \
         $CLI exec box1 no-such-program >/dev/null 2>&1; echo $?; script -qec \"$CLI exec -it box1 tty\" /dev/null </dev/null | tr -d '\\000\\004\\010^@D'; $CLI rm -f box1",
    ),
    (
        "pause",
        "paused",
        "$RUN -d --name box1 $IMAGE sleep 1000 >/dev/null; $CLI pause box1; $CLI inspect --format '{{.State.Status}}' box1; $CLI unpause box1; \
         $CLI inspect --format '{{.State.Status}}' box1; $CLI exec box1 echo again; $CLI rm -f box1",
    ),
    (
        "update",
        "50331648",
        "$RUN -d --memory 64m --memory-swap 64m --name box1 $IMAGE sleep 1000 >/dev/null; $CLI update --memory 48m --memory-swap 48m --cpu-shares 256 box1 >/dev/null; echo $?; \
         $CLI exec box1 sh -c 'cd /sys/fs/cgroup; cat memory.max cpu.weight'; $CLI rm -f box1",
    ),
    (
        "signals",
        "term",
        "$RUN -d --name box1 $IMAGE sh -c 'trap \"echo usr1\" USR1; trap \"echo term; exit 3\" TERM; echo up; while :; do sleep 1; done' >/dev/null; \
         until $CLI logs box1 | grep -q up; do :; done; $CLI kill -s USR1 box1; until $CLI logs box1 | grep -q usr1; do :; done; $CLI stop box1; $CLI logs box1; \
         $CLI inspect --format '{{.State.ExitCode}}' box1; $CLI rm box1",
    ),
    (
        "top and stats",
        "1",
        "$RUN -d --name box1 $IMAGE sleep 1000 >/dev/null; $CLI top box1 | awk '{ print $NF }'; $CLI stats --no-stream --format '{{.PIDs}}' box1; $CLI rm -f box1",
    ),
    (
        "restart",
        "again",
        "$RUN -d --name box1 $IMAGE sleep 1000 >/dev/null; $CLI restart -t 0 box1; $CLI inspect --format '{{.State.Running}}' box1; $CLI exec box1 echo again; $CLI rm -f box1; \
         $CLI ps -a -q | wc -l",
    ),
    (
        "created, then started",
        "started",
        "$CLI create --runtime-of --name box1 $IMAGE sh -c 'echo started; exit 4' >/dev/null; $CLI start -a box1; echo $?; $CLI rm box1",
    ),
];

fn ask(cli: &str, options: &str, question: &str) -> Finished {
    let script = question.replace("--runtime-of", &format!("{options} --network none"));
    let run = format!("{cli} run {options} --network none");
    try_sh(&format!(
        "export CLI='{cli}' RUN='{run}' IMAGE={IMAGE}; $CLI rm -f box1 >/dev/null 2>&1; {script}"
    ))
}

/// Asks both, and tells every difference at once.
fn compare(engine: &str, runc: (&str, &str), ours: (&str, &str)) {
    let mut differences = String::new();
    for (name, word, question) in QUESTIONS {
        let expected = ask(runc.0, runc.1, question);
        let seen = ask(ours.0, ours.1, question);
        let strip = |text: &str| without_ids(text);
        let same = expected.status == seen.status && strip(&expected.stdout) == strip(&seen.stdout);
        if !same {
            differences += &format!("== {engine}, {name}\n-- runc: {expected}\n-- inspect-runtime: {seen}\n");
        }
        // Two that fail alike prove nothing.
        if !expected.stdout.contains(word) {
            differences += &format!("== {engine}, {name}\n-- no {word:?} with runc: {expected}\n");
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
