//! Docker with the built-in runtime beside runc: the same commands, and the same answers from both.

#[path = "support/dockerd.rs"]
mod dockerd;
#[path = "support/engine.rs"]
mod engine;
mod support;

use std::fs;
use std::path::Path;

use dockerd::{CONFIG, START};
use engine::{Engine, IMAGE, QUESTIONS, Question, RUNTIME};
use support::{sh, try_sh, wait_until};

/// Both of them; Docker takes its init from `PATH`.
const RUNC: Engine = Engine {
    cli: "docker",
    options: "--runtime runc",
    remove: "docker rm -f",
    init: "--init",
    container: "box-of-runc",
    user: "root",
};
const OURS: Engine = Engine { options: "--runtime inspect", container: "box-of-ours", ..RUNC };

/// What Docker alone has, or has in words of its own.
const OF_DOCKER: &[Question] = &[
    (
        // That a hook of dockerd's put into the container's namespace, up and with an address.
        "a network",
        "default via",
        "$BARE --rm $IMAGE sh -c 'ip -o link show up | cut -d: -f2 | cut -d@ -f1; ip route | cut -d\" \" -f1-3; mounts | grep /etc/'",
    ),
    (
        "paths that are not masked",
        "/proc rw",
        "$RUN --rm --security-opt systempaths=unconfined $IMAGE sh -c 'mounts | grep /proc'",
    ),
    (
        // Of a program that is not the last: the cgroup of one that was is gone with what it counted. Bookworm's Docker tells it only once the container has ended.
        "out of memory, told",
        "137\ntrue",
        "id=$($RUN -d --memory 32m --memory-swap 32m --name $BOX $IMAGE sh -c '(x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done); exec sleep 1000'); \
         await '$CLI events --since 1 --until $(date +%s) --filter container=$id --filter event=oom | grep -q oom'; \
         $CLI kill $BOX >/dev/null; $CLI wait $BOX; $CLI inspect --format '{{.State.OOMKilled}}' $BOX; $REMOVE $BOX",
    ),
    (
        "health",
        "healthy well",
        "$RUN -d --name $BOX --health-cmd 'echo well' --health-interval 1s $IMAGE sleep 1000 >/dev/null; \
         await '[ $($CLI inspect -f {{.State.Health.Status}} $BOX) != starting ]'; \
         $CLI inspect -f '{{.State.Health.Status}} {{(index .State.Health.Log 0).Output}}' $BOX; $REMOVE $BOX",
    ),
    (
        "a slice",
        "/vm.slice/vm-engines.slice/docker-ID.scope",
        "$RUN -d --name $BOX --cgroup-parent vm-engines.slice --memory 64m $IMAGE sleep 1000 >/dev/null; cat /proc/$($CLI inspect --format '{{.State.Pid}}' $BOX)/cgroup; \
         $CLI exec $BOX limits; $REMOVE $BOX",
    ),
];

/// What is asked of a dockerd that maps root to a plain user.
const REMAPPED: &[Question] = &[
    (
        "users that are mapped",
        " 65536\n",
        "$RUN --rm --tmpfs /t -v $BOX-data:/v -v /etc:/x:ro $IMAGE sh -c 'tr -s \" \" </proc/self/uid_map | sed \"s/^ //\"; rights; mounts; devices; touch /tmp/x /v/x && ls -ln /tmp/x /v/x | cut -c1-20' | sed 's/65534 mqueue/0 mqueue/' | sort; \
         $CLI volume rm $BOX-data; $RUN --rm --read-only --user 7 --security-opt no-new-privileges $IMAGE sh -c 'rights; mounts'",
    ),
    (
        "a container with the node's users",
        "0 0 4294967295",
        "$RUN --rm --userns host $IMAGE sh -c 'tr -s \" \" </proc/self/uid_map | sed \"s/^ //\"; rights; mounts'",
    ),
    (
        "exec, limits and a terminal",
        "in\n0\n",
        "$RUN -d --memory 64m --pids-limit 50 --name $BOX $IMAGE sleep 1000 >/dev/null; $CLI exec $BOX sh -c 'echo in; id -u; rights; limits'; $CLI exec -u 7:8 $BOX rights; \
         script -qec \"$CLI exec -it $BOX tty\" /dev/null </dev/null | tr -d '\\000\\004\\010\\r^@D'; $CLI pause $BOX; $CLI unpause $BOX; $REMOVE $BOX",
    ),
];

/// Has dockerd know the runtime, and the image.
fn prepare(config: &str) {
    engine::make_init("/usr/local/bin/docker-init");
    fs::write(CONFIG, format!("{{\"runtimes\":{{\"inspect\":{{\"path\":\"{RUNTIME}\"}}}}{config}}}"))
        .expect("daemon.json");
}

fn import_image() {
    sh(&format!("docker import {} {IMAGE}", engine::make_image()));
}

/// Where the states of containers are: which runtime's name is in it depends on Docker's version.
const STATES: &str = "/run/docker/runtime-*/moby";

#[test]
fn docker_behaves_as_with_runc() {
    let is_left = Path::new(CONFIG).exists();
    prepare("");
    // What an earlier run left may be what a reload does not change.
    if is_left {
        dockerd::restart()
    } else {
        dockerd::start()
    }
    sh("systemctl reload docker");
    wait_until("dockerd's new runtime", START, || {
        try_sh("timeout 20 docker info").stdout.contains("inspect").then_some(())
    });
    import_image();
    // Docker's choice where systemd is: the runtime asks systemd for a scope.
    assert_eq!(sh("docker info --format '{{.CgroupDriver}} {{.CgroupVersion}}'"), "systemd 2");
    for engine in [RUNC, OURS] {
        let run = format!(
            "$RUN -d --name $BOX $IMAGE sleep 1000; grep -c inspect-runtime {STATES}/*/state.json; $REMOVE $BOX"
        );
        let count = engine.ask(&run).success();
        assert_eq!(count.lines().nth(1) == Some("1"), engine.container == OURS.container, "{count}");
    }
    engine::compare(&[QUESTIONS, OF_DOCKER].concat(), RUNC, OURS);
    assert_eq!(sh(&format!("find {STATES} -mindepth 1 | wc -l")), "0");
}

#[test]
fn docker_with_remapped_users_behaves_as_with_runc() {
    prepare(",\"userns-remap\":\"default\"");
    dockerd::restart();
    import_image();
    engine::compare(REMAPPED, RUNC, OURS);
}
