//! Podman with the built-in runtime beside runc, root's and a plain user's: the same commands, and the same answers from both.

#[path = "support/engine.rs"]
mod engine;
mod support;

use engine::{Engine, QUESTIONS, Question};
use support::sh;

/// Both of them; `rm -f` without a time waits for a program that does not know SIGTERM.
const RUNC: Engine = Engine {
    cli: "podman --runtime runc",
    options: "",
    remove: "podman --runtime runc rm -f -t 0",
    init: "--init --init-path /var/tmp/vm-engines/init",
    container: "box-of-runc",
    user: "root",
};
const OURS: Engine = Engine {
    cli: "podman --runtime /usr/local/bin/inspect-runtime",
    remove: "podman --runtime /usr/local/bin/inspect-runtime rm -f -t 0",
    container: "box-of-ours",
    ..RUNC
};

/// What Podman alone has, or has in words of its own.
const OF_PODMAN: &[Question] = &[
    (
        "paths that are not masked",
        "/proc rw",
        "$RUN --rm --security-opt unmask=ALL $IMAGE sh -c 'mounts | grep /proc'",
    ),
    (
        "health",
        "0\nhealthy",
        "$RUN -d --name $BOX --health-cmd 'echo well' --health-interval disable $IMAGE sleep 1000 >/dev/null; $CLI healthcheck run $BOX; echo $?; \
         $CLI inspect -f '{{.State.Health.Status}}' $BOX; $REMOVE $BOX",
    ),
    (
        "a pod",
        "ipc\nnet\n",
        "$CLI pod rm -f -t 0 $BOX-pod >/dev/null 2>&1; $CLI pod create --name $BOX-pod --infra-image $IMAGE --infra-command 'sleep 1000' --share net,ipc,uts,pid --network none --hostname pod >/dev/null; \
         $CLI run -d --pod $BOX-pod --name $BOX $IMAGE sleep 1000 >/dev/null; $CLI exec $BOX spaces >$FILE; $CLI run --rm --pod $BOX-pod $IMAGE sh -c 'hostname; tr \"\\000\" \" \" </proc/1/cmdline; spaces' | \
         awk -v file=$FILE 'BEGIN { while (getline line <file) there[line] } !/\\[/ { print } $0 in there { sub(/:.*/, \"\"); print }'; \
         $CLI pod pause $BOX-pod >/dev/null; $CLI inspect --format '{{.State.Status}}' $BOX; $CLI pod unpause $BOX-pod >/dev/null; $CLI pod stop -t 0 $BOX-pod >/dev/null; \
         $CLI pod start $BOX-pod >/dev/null; $CLI exec $BOX echo again; $CLI pod rm -f -t 0 $BOX-pod >/dev/null",
    ),
    (
        "users that are mapped",
        "0 100000 2000",
        // runc makes the IPC namespace as root of the user namespace, but with a group from outside of it.
        "$RUN --rm --uidmap 0:100000:2000 --gidmap 0:200000:2000 --tmpfs /t -v /etc:/x:ro $IMAGE sh -c 'tr -s \" \" </proc/self/uid_map; rights; mounts; devices; touch /tmp/x && ls -ln /tmp/x | cut -c1-20' | sed 's/65534 mqueue/0 mqueue/' | sort; \
         $RUN -d --uidmap 0:100000:2000 --gidmap 0:200000:2000 --memory 64m --name $BOX $IMAGE sleep 1000 >/dev/null; $CLI exec $BOX sh -c 'id -u; limits'; $CLI exec -u 7:8 $BOX rights; $REMOVE $BOX",
    ),
    (
        "cgroups without systemd",
        "/libpod_parent/libpod-ID",
        "bare=\"$CLI --cgroup-manager cgroupfs\"; $bare run -d --network none --memory 64m --pids-limit 50 --name $BOX $IMAGE sleep 1000 >/dev/null; \
         cat /proc/$($CLI inspect --format '{{.State.Pid}}' $BOX)/cgroup; $bare exec $BOX limits; $bare rm -f -t 0 $BOX",
    ),
    (
        "descriptors",
        "handed\n",
        "echo handed >$FILE; $RUN --rm --preserve-fds 1 $IMAGE sh -c 'cat <&3' 3<$FILE; \
         sh -c 'LISTEN_FDS=1 LISTEN_PID=$$ exec '\"$RUN\"' --rm '$IMAGE' sh -c \"env | grep ^LISTEN; cat <&3\"' 3<$FILE",
    ),
    (
        "systemd in a container",
        "/run rw",
        "$RUN --rm --systemd always $IMAGE sh -c 'mounts; cat /proc/self/cgroup; mkdir /sys/fs/cgroup/x && rmdir /sys/fs/cgroup/x && echo made; env | grep container'",
    ),
];

/// What a plain user asks.
const OF_A_USER: &[Question] = &[
    (
        "streams and status",
        "in\nout\n7\nerr",
        "echo in | $RUN -i --rm $IMAGE sh -c 'cat; echo out; echo err >&2; exit 7' 2>$FILE; echo $?; cat $FILE",
    ),
    (
        "users, rights and mounts",
        "CapEff",
        // Privileged, Podman has the host's devices bound and says each again as a device, which runc binds once more.
        "$RUN --rm --tmpfs /t -v /etc:/x:ro $IMAGE sh -c 'tr -s \" \" </proc/self/uid_map; rights; mounts; devices; touch /tmp/x && ls -ln /tmp/x | cut -c1-20' | sed 's/65534 mqueue/0 mqueue/' | sort; \
         $RUN --rm --userns keep-id --cap-drop ALL $IMAGE sh -c 'id -u; rights'; $RUN --rm --privileged $IMAGE sh -c 'rights; mounts | grep -v ^/dev/'",
    ),
    (
        "exec, a terminal and signals",
        "in\n5\n",
        "$RUN -d --name $BOX $IMAGE sh -c 'trap \"echo term; exit 3\" TERM; echo up; while :; do sleep 0.2; done' >/dev/null; await '$CLI logs $BOX | grep -q up'; $CLI exec $BOX sh -c 'echo in; exit 5'; echo $?; $CLI exec -u 7:8 $BOX rights; \
         script -qec \"$CLI exec -it $BOX tty\" /dev/null </dev/null | tr -d '\\000\\004\\010\\r^@D'; $CLI stop -t 100 $BOX; await '$CLI logs $BOX | grep -q term'; $CLI logs $BOX; $CLI inspect --format '{{.State.ExitCode}}' $BOX; $CLI rm $BOX",
    ),
];

fn import_image(engine: Engine) {
    let tar = engine::make_image();
    engine.ask(&format!("podman import {tar} $IMAGE")).success();
}

#[test]
fn podman_behaves_as_with_runc() {
    import_image(RUNC);
    engine::make_init("/var/tmp/vm-engines/init");
    assert_eq!(sh("podman info --format '{{.Host.CgroupManager}} {{.Host.CgroupsVersion}}'"), "systemd v2");
    engine::compare(&[QUESTIONS, OF_PODMAN].concat(), RUNC, OURS);
    assert_eq!(sh("ls /run/inspect-runtime 2>/dev/null | wc -l"), "0");
}

#[test]
fn podman_of_a_plain_user_behaves_as_with_runc() {
    // What a login has made on a node with PAM's part of systemd; without that there is no systemd of the user's for cgroups.
    // Not by the unit that makes it: systemd stops that one as soon as nothing needs it.
    sh(
        "id ann >/dev/null 2>&1 || useradd --create-home ann; install -d -o ann -g ann -m 700 /run/user/$(id -u ann)",
    );
    let runc = Engine {
        cli: "podman --cgroup-manager cgroupfs --runtime runc",
        container: "cot-of-runc",
        user: "ann",
        ..RUNC
    };
    let ours = Engine {
        cli: "podman --cgroup-manager cgroupfs --runtime /usr/local/bin/inspect-runtime",
        container: "cot-of-ours",
        user: "ann",
        ..OURS
    };
    import_image(runc);
    engine::compare(OF_A_USER, runc, ours);
}
