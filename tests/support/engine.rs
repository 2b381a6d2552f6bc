//! One engine with two runtimes: the same commands to both, and the answers side by side.
#![allow(clippy::print_stderr, reason = "whoever reads the log sees what took how long")]
#![allow(dead_code, reason = "every suite is a crate of its own and uses what it needs")]

use std::time::Instant;
use std::{fs, thread};

use crate::support::{Finished, generation, run_within, sh};

/// The runtime under test.
pub(crate) const RUNTIME: &str = "/usr/local/bin/inspect-runtime";
/// The image that containers are made of.
pub(crate) const IMAGE: &str = "vm-engines-busybox";
/// Where the image and the init are: nothing can be executed in `/run` from trixie on.
const PLACE: &str = "/var/tmp/vm-engines";
/// Seconds for one question: ten commands of an engine, each of which takes several on a busy machine under emulation.
const QUESTION_BOUND: &str = "400";

/// What the image has in `/bin` beside busybox: the programs that say what a process sees.
const PROGRAMS: [(&str, &str); 5] = [
    (
        "rights",
        // Debian's AppArmor has an `unconfined` profile for runc by its path.
        "id; grep -E '^(Cap|Seccomp:|NoNewPrivs|Groups|Uid|Gid)' /proc/self/status; sed 's/^runc (unconfined)/unconfined/' /proc/self/attr/current; \
         cat /proc/self/oom_score_adj; ulimit -n; ulimit -Hn",
    ),
    // Place, options, propagation, and type. Which device and which options of the file system is beside the point where it is not chosen.
    (
        "mounts",
        r#"awk '{ line = $5 " " $6; for (i = 7; $i != "-"; i++) { sub(/:.*/, "", $i); line = line " " $i }; print line, $(i + 1), (line ~ /^.(t|dev.shm) /) ? $(i + 3) : "" }' /proc/self/mountinfo | sort"#,
    ),
    // Not the date and the hour.
    (
        "devices",
        r#"ls -ln /dev | awk '!/^total/ { line = $1 " " $3 " " $4 ($1 ~ /^[bc]/ ? " " $5 $6 : ""); for (i = ($1 ~ /^[bc]/ ? 10 : 9); i <= NF; i++) line = line " " $i; print line }' | sort"#,
    ),
    (
        "limits",
        "cd /sys/fs/cgroup; for file in memory.max memory.swap.max memory.low cpu.weight cpu.max cpuset.cpus pids.max; do echo $file $(cat $file); done",
    ),
    ("spaces", r#"ls -l /proc/self/ns | awk '/->/ { print $NF }'"#),
];

/// An engine that uses one runtime.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Engine {
    /// `docker`, or `podman` with its options.
    pub(crate) cli: &'static str,
    /// What is told to `run` and `create`.
    pub(crate) options: &'static str,
    /// How a container is ended and removed at once.
    pub(crate) remove: &'static str,
    /// What `run` is told for an init of the engine's.
    pub(crate) init: &'static str,
    /// The container's name.
    pub(crate) container: &'static str,
    /// Who asks.
    pub(crate) user: &'static str,
}

/// A name, what the answer must have in it, and shell that may use
/// `$CLI`, `$BARE` (`run` with the runtime), `$RUN` (that without a network), `$CREATE`, `$REMOVE`, `$INIT`, `$IMAGE`, `$BOX` (a container's name, free before and after), `$FILE`,
/// and `await`, which evaluates a line until it succeeds or a minute is over.
pub(crate) type Question = (&'static str, &'static str, &'static str);

/// What Docker and Podman are asked in the same words.
pub(crate) const QUESTIONS: &[Question] = &[
    (
        "streams and status",
        "in\nout\n7\nerr",
        "echo in | $RUN -i --rm $IMAGE sh -c 'cat; echo out; echo err >&2; exit 7' 2>$FILE; echo $?; cat $FILE",
    ),
    (
        "programs that cannot run",
        "127\nexecutable file not found in $PATH\n126",
        "$RUN --rm $IMAGE no-such-program 2>$FILE; echo $?; grep -o 'executable file .* found in .PATH' $FILE; $RUN --rm $IMAGE /etc/passwd >/dev/null 2>&1; echo $?",
    ),
    (
        "a terminal",
        "/dev/pts/0\n33 77\nline",
        "script -qec \"stty rows 33 cols 77; $RUN --rm -it $IMAGE sh -c 'tty; i=0; until [ \\\"\\$(stty size 2>/dev/null)\\\" = \\\"33 77\\\" -o \\$i -gt 300 ]; do i=\\$((i + 1)); sleep 0.1; done; \
         stty size; echo line'\" /dev/null </dev/null | tr -d '\\000\\004\\010\\r^@D'",
    ),
    (
        "rights",
        "CapEff",
        "$RUN --rm $IMAGE rights; $RUN --rm --user 1000:1001 --group-add 7 --cap-drop ALL --cap-add NET_ADMIN --ulimit nofile=100:200 --oom-score-adj 100 $IMAGE rights; \
         $RUN --rm --user 7 --security-opt no-new-privileges --security-opt seccomp=unconfined --security-opt apparmor=unconfined $IMAGE rights",
    ),
    (
        "privileged",
        "written",
        "$RUN --rm --privileged $IMAGE sh -c 'rights; mounts; devices | grep -v -E \"tty[0-9S]|vcs\"; cat /proc/sys/vm/swappiness >/proc/sys/vm/swappiness && echo written; mount -t tmpfs none /mnt && echo mounted; \
         mkdir /sys/fs/cgroup/x && rmdir /sys/fs/cgroup/x && echo made'",
    ),
    (
        "mounts",
        "/y ro,relatime master",
        "$RUN --rm --read-only -v /etc:/x:ro --tmpfs /t:size=1m,mode=1770,noexec --shm-size 8m --mount type=bind,source=/usr,target=/y,readonly,bind-propagation=rslave -v $BOX-data:/v \
         $IMAGE sh -c 'exec 2>&1; mounts; touch /no; touch /x/no; touch /v/yes; ls /v; stat -c %a /t'; $CLI volume rm $BOX-data",
    ),
    (
        "devices",
        "/dev/other: Operation not permitted\nopened\n/tmp/memory: Operation not permitted",
        // Every node may be made, and only those of the rules be opened.
        "$RUN --rm --cap-add MKNOD --device /dev/loop-control:/dev/other:r --device-cgroup-rule 'c 10:234 r' $IMAGE sh -c \
         'exec 2>&1; devices; true </dev/other; (true >/dev/other); mknod /tmp/made c 10 234 && true </tmp/made && echo opened; mknod /tmp/memory c 1 1 && true </tmp/memory' | \
         sed 's/can.t [a-z]* //; s/^.* \\(.dev.other\\|.tmp.memory\\)/\\1/'",
    ),
    (
        "limits",
        "memory.max 67108864",
        "$RUN --rm --memory 64m --memory-swap 80m --memory-reservation 32m --cpu-shares 262144 --cpus 0.5 --cpuset-cpus 0 --pids-limit 50 \
         --sysctl net.ipv4.ip_unprivileged_port_start=7 --sysctl kernel.shmmax=1000000 $IMAGE sh -c 'limits; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax'",
    ),
    (
        "names",
        "0::/\n",
        "$RUN --rm --hostname box -e A=b --workdir /mnt --cgroupns private $IMAGE sh -c 'hostname; pwd; echo $A $HOME; cat /proc/self/cgroup; tr \"\\000\" \" \" </proc/1/cmdline'; \
         $RUN --rm --cgroupns host $INIT $IMAGE sh -c 'cat /proc/self/cgroup; tr \"\\000\" \" \" </proc/1/cmdline; mounts | grep init'",
    ),
    (
        "the node's namespaces",
        "net:[",
        "ls -l /proc/1/ns | awk '/->/ { print $NF }' >$FILE; $RUN --rm $IMAGE spaces | grep -F -f $FILE; \
         $BARE --rm --network host --pid host --ipc host --uts host --cgroupns host $IMAGE sh -c 'spaces; hostname; mounts' | awk -v file=$FILE \
         'BEGIN { while (getline line <file) there[line] } !/\\[/ || $0 in there'",
    ),
    (
        "another container's namespaces",
        "mine",
        "$RUN -d --ipc shareable --name $BOX $IMAGE sleep 1000 >/dev/null; $CLI exec $BOX sh -c 'echo mine >/dev/shm/x; spaces' >$FILE; \
         $BARE --rm --ipc container:$BOX --pid container:$BOX --network container:$BOX $IMAGE sh -c 'cat /dev/shm/x; tr \"\\000\" \" \" </proc/1/cmdline; spaces' | awk -v file=$FILE \
         'BEGIN { while (getline line <file) there[line] } !/\\[/ { print } $0 in there { sub(/:.*/, \"\"); print }'; $REMOVE $BOX",
    ),
    (
        "out of memory",
        "137\n0\n137",
        "$RUN --rm --memory 32m --memory-swap 32m $IMAGE sh -c '(x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done); echo $?'; echo $?; \
         $RUN --rm --memory 32m --memory-swap 32m $IMAGE sh -c 'x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done'; echo $?",
    ),
    (
        "exec",
        "in\ntyped\n5\nb\n/bin\nuid=9",
        "$RUN -d --name $BOX --user 7:8 $IMAGE sleep 1000 >/dev/null; echo typed | $CLI exec -i $BOX sh -c 'echo in; cat; exit 5'; echo $?; \
         $CLI exec -e A=b -w /bin -u 9:10 $BOX sh -c 'echo $A; pwd; rights; cat /proc/self/cgroup'; $CLI exec --privileged $BOX rights; $CLI exec --privileged -u 0 $BOX rights; \
         for program in no-such-program /etc/passwd; do $CLI exec $BOX $program >/dev/null 2>&1; echo $?; done; $CLI exec -d -u 0 $BOX sh -c 'echo later >/tmp/x'; \
         script -qec \"$CLI exec -it $BOX sh -c 'until [ -s /tmp/x ]; do sleep 0.1; done; cat /tmp/x; tty'\" /dev/null </dev/null | tr -d '\\000\\004\\010\\r^@D'; $REMOVE $BOX",
    ),
    (
        "pause, copy, top and stats",
        "1000\n1\n",
        "$RUN -d --name $BOX $IMAGE sleep 1000 >/dev/null; $CLI pause $BOX; $CLI inspect --format '{{.State.Status}}' $BOX; $CLI exec $BOX true >/dev/null 2>&1; echo $?; $CLI unpause $BOX; \
         $CLI inspect --format '{{.State.Status}}' $BOX; echo copied >$FILE; $CLI cp $FILE $BOX:/tmp/x; $CLI exec $BOX cat /tmp/x; $CLI cp $BOX:/etc/passwd - | tar -xO; \
         $CLI top $BOX | awk '{ print $NF }'; $CLI stats --no-stream --format '{{.PIDs}}' $BOX; $REMOVE $BOX",
    ),
    (
        "update, and a reload of systemd",
        "memory.max 50331648",
        // Not who describes it, and one name for the terminals. runc 1.1 loses a limit that leaves no swap at all, and from
        // 1.1.3 to 1.1.6 it does not tell systemd of a device that the node lacks: the tunnel's (10:200), which every container may open.
        "$RUN -d --memory 64m --memory-swap 80m --pids-limit 50 --device /dev/loop-control:/dev/other --name $BOX $IMAGE sleep 1000 >/dev/null; \
         unit=$(sed 's/.*\\///' /proc/$($CLI inspect --format '{{.State.Pid}}' $BOX)/cgroup); \
         show() { systemctl show $unit -p Slice -p Delegate -p MemoryMax -p MemorySwapMax -p CPUWeight -p CPUQuotaPerSecUSec -p TasksMax -p DevicePolicy -p DeviceAllow -p AllowedCPUs | \
         sed 's/char-136/char-pts/' | grep -v 10:200 | sort; }; show; $CLI update --memory 48m --memory-swap 80m --cpu-shares 2 --cpus 0.5 --cpuset-cpus 1 $BOX >/dev/null; echo $?; show; \
         systemctl daemon-reload; script -qec \"$CLI exec -it $BOX sh -c 'limits; true >/dev/other && echo opened; tty; true >/dev/tty && echo opened'\" /dev/null </dev/null | \
         tr -d '\\000\\004\\010\\r^@D'; $REMOVE $BOX",
    ),
    (
        "signals, and a restart",
        "up\nusr1\nterm\nup\nterm\n3",
        "$RUN -d --name $BOX $IMAGE sh -c 'trap \"echo usr1\" USR1; trap \"echo term; exit 3\" TERM; echo up; while :; do sleep 0.2; done' >/dev/null; \
         said() { await \"[ \\$($CLI logs $BOX | grep -c $1) = $2 ]\"; }; said up 1; $CLI kill -s USR1 $BOX >/dev/null; said usr1 1; $CLI restart -t 100 $BOX >/dev/null; said up 2; \
         $CLI exec $BOX echo again; $CLI stop -t 100 $BOX >/dev/null; said term 2; $CLI logs $BOX; $CLI inspect --format '{{.State.ExitCode}}' $BOX; $CLI rm $BOX",
    ),
    (
        "restart by policy",
        "4\n",
        "$RUN -d --restart on-failure:1 --name $BOX $IMAGE sh -c 'echo up; exit 4' >/dev/null; await '[ $($CLI logs $BOX | grep -c up) = 2 ]'; $CLI wait $BOX; $REMOVE $BOX; $CLI ps -a -q --filter name=$BOX | wc -l",
    ),
    (
        "created, then started",
        "typed\n4",
        "$CREATE -i --name $BOX $IMAGE sh -c 'cat; exit 4' >/dev/null; $CLI inspect --format '{{.State.Status}}' $BOX; echo typed | $CLI start -a -i $BOX; echo $?; $CLI rm $BOX",
    ),
];

/// An image of the node's static busybox, as a tar at the place returned.
pub(crate) fn make_image() -> String {
    let (root, tar) = (format!("{PLACE}/image"), format!("{PLACE}/image.tar"));
    sh(&format!(
        "rm -rf {root} && mkdir -p {root}/bin {root}/etc {root}/tmp {root}/mnt && cd {root} && cp $(command -v busybox) bin/busybox && \
         for name in $(busybox --list); do test -e bin/$name || ln -s busybox bin/$name; done && \
         echo root:x:0:0:root:/root:/bin/sh >etc/passwd && chmod 1777 tmp"
    ));
    for (name, script) in PROGRAMS {
        fs::write(format!("{root}/bin/{name}"), format!("#!/bin/sh\n{script}\n"))
            .expect("a program of the image");
    }
    sh(&format!("cd {root} && chmod +x bin/* && tar -cf {tar} ."));
    tar
}

/// The init that engines are given: what `tini` and `catatonit` are on other nodes.
pub(crate) fn make_init(path: &str) {
    sh(&format!("mkdir -p {PLACE}"));
    fs::write(path, "#!/bin/sh\n[ \"$1\" = -- ] && shift\n\"$@\"\n").expect("an init");
    sh(&format!("chmod 755 {path}"));
}

impl Engine {
    /// Runs a line of shell with what [`Question`] names.
    pub(crate) fn ask(&self, script: &str) -> Finished {
        let Self { cli, options, remove, init, container, user } = self;
        let line = format!(
            "cd; export XDG_RUNTIME_DIR=/run/user/$(id -u) CLI='{cli}' BARE='{cli} run {options}' RUN='{cli} run {options} --network none' CREATE='{cli} create {options} --network none' \
             REMOVE='{remove}' INIT='{init}' IMAGE={IMAGE} BOX={container} FILE=/var/tmp/{container}; \
             await() {{ i=0; until eval \"$1\" || [ $((i += 1)) -gt 100 ]; do sleep 0.5; done; }}; {script}"
        );
        run_within(QUESTION_BOUND, "runuser", &["-u", user, "--", "sh", "-c", &line])
    }
}

/// Asks both at the same time, and shows every difference.
pub(crate) fn compare(questions: &[Question], runc: Engine, ours: Engine) {
    let mut failed = Vec::new();
    // A question that an earlier run did not end, or one that failed, may leave its container.
    let clean = || [runc, ours].map(|engine| engine.ask("$REMOVE $BOX"));
    clean();
    for (name, word, question) in questions {
        let begun = Instant::now();
        let (expected, seen) = thread::scope(|scope| {
            let expected = scope.spawn(|| runc.ask(question));
            let seen = ours.ask(question);
            (expected.join().expect("the other runtime's answer"), seen)
        });
        let expected_text = without_masters_of_root(without_chance(&expected.stdout, runc.container));
        let same =
            (expected.status, &expected_text) == (seen.status, &without_chance(&seen.stdout, ours.container));
        // Two that fail alike prove nothing.
        let proves = expected_text.contains(word);
        eprintln!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
        if !same || !proves {
            eprintln!("-- runc, which has to say {word:?}: {expected}\n-- inspect-runtime: {seen}");
            failed.push(name);
            clean();
        }
    }
    assert!(failed.is_empty(), "these have another answer than from runc, or a wrong one: {failed:?}");
}

/// IDs are chance, and the two containers have names of their own.
fn without_chance(text: &str, container: &str) -> String {
    let is_id = |word: &str| word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.replace(container, "BOX")
        .split_inclusive(|letter: char| !letter.is_ascii_alphanumeric())
        .map(|word| {
            let bare = word.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
            if is_id(bare) { word.replace(bare, "ID") } else { word.to_owned() }
        })
        .collect()
}

/// runc before 1.1.15, as bookworm has it, makes the mount around a root private only where that is shared, and has made all of them slaves before:
/// a container's root stays a slave. The later ones, and the runtime, make it private in any case.
fn without_masters_of_root(text: String) -> String {
    if generation() != "bookworm" {
        return text;
    }
    text.split_inclusive('\n')
        .map(|line| if line.starts_with("/ r") { line.replace(" master ", " ") } else { line.to_owned() })
        .collect()
}
