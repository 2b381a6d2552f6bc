//! `ctr` with `--runc-binary`: the same commands for runc and for the built-in runtime have to print the same, end with the same
//! statuses and leave the same in the kernel's files. Both run at the same time, each with containers of its own.

mod support;

use std::thread;

use support::{BUSYBOX, Container, import, run_within, sh, try_sh};

const RUNTIMES: [(&str, &str); 2] = [("runc", "runc"), ("ours", "/usr/local/bin/inspect-runtime")];

/// Seconds for a script: a dozen calls of `ctr`, each of which takes seconds on a loaded machine.
const BOUND: &str = "240";

/// What every script has: `$RUN` and what has to come after its options, `$IMAGE $ID`; waiting that polls.
const PREAMBLE: &str = r#"
    RUN="ctr run --runc-binary $BINARY"
    CGROUP=/sys/fs/cgroup/default/$ID
    until_true() {
        for look in $(seq 400); do if eval "$1"; then return; fi; sleep 0.1; done
        echo "waited in vain: $1"; exit 99
    }
    status() { ctr tasks ls | awk -v id=$ID '$1 == id { print $3 }'; }
    pid() { ctr tasks ls | awk -v id=$ID '$1 == id { print $2 }'; }
    on_terminal() { script -qec "$1" $LOG.typed </dev/null >$LOG.shown; code=$?; tr -d '\r' <$LOG.shown; echo $code; }
    detached() { $RUN -d --log-uri file://$LOG "$@"; }
"#;

/// Runs a script for each runtime; gives what both printed, with the container's ID as `ID`. Nothing is left afterwards.
#[track_caller]
fn alike(name: &str, script: &str) -> String {
    import("default", "busybox");
    let outputs = thread::scope(|scope| {
        let started = RUNTIMES.map(|(family, binary)| scope.spawn(move || one(name, family, binary, script)));
        started.map(|run| run.join().expect("the script runs"))
    });
    assert_eq!(outputs[1], outputs[0], "the built-in runtime and runc differ");
    let [output, _] = outputs;
    output
}

fn one(name: &str, family: &str, binary: &str, script: &str) -> String {
    let id = format!("{name}-{family}");
    let remove = format!(
        "rm -f /var/tmp/{id}.log*; ctr tasks rm -f {id}; ctr containers rm {id} || ctr snapshots rm {id}"
    );
    let left = format!(
        "ls -d /run/containerd/runc/default/{id} /sys/fs/cgroup/default/{id} /run/containerd/io.containerd.runtime.v2.task/default/{id}"
    );
    drop(try_sh(&remove));
    let script = format!(
        "exec 2>&1; ID={id}; LOG=/var/tmp/{id}.log; IMAGE={BUSYBOX}; BINARY={binary}\n{PREAMBLE}\n{script}"
    );
    let finished = run_within(BOUND, "sh", &["-c", &script]);
    drop(try_sh(&remove));
    assert_eq!(try_sh(&left).stdout, "", "{finished}");
    // ctr's own log has the time in it, runc names itself in its errors, and a terminal shows the end of what is typed.
    let lines = finished.stdout.lines().filter(|line| !line.starts_with("time=") && !line.contains("ERRO"));
    let told: String = lines.map(|line| format!("{}\n", line.replace("^@", ""))).collect();
    format!("{told}ended with {}\n", finished.status).replace(&id, "ID").replace("runc create failed: ", "")
}

/// Each of the fragments is in the output.
#[track_caller]
fn assert_has(output: &str, fragments: &[&str]) {
    for fragment in fragments {
        assert!(output.contains(fragment), "{fragment:?} is not in:\n{output}");
    }
}

/// Whether this release's `ctr COMMAND` has an option.
fn has_option(command: &str, option: &str) -> bool {
    let help = sh(&format!("ctr {command} --help"));
    help.split(|c: char| c.is_whitespace() || c == ',').any(|word| word == option)
}

/// What a process in a container can see of what was asked for. AppArmor's label is left out: on some releases runc itself has
/// one by its path. So is `/dev/core`, which runc alone makes, and the size of what masks a directory, which runc limits since 1.3.
const LOOK: &str = r#"id; pwd; env | sort; umask
    grep -E "^(Uid|Gid|Groups|Cap|NoNew|Seccomp:)" /proc/self/status; cat /proc/self/limits /proc/self/oom_score_adj
    awk "{ print \$5, \$6, \$(NF - 2), \$NF }" /proc/self/mountinfo | sed "s/lowerdir.*//; s/size=4k,nr_inodes=1,//" | sort
    ls -ln /dev /dev/pts | awk "\$NF != \"/proc/kcore\" { print \$1, \$3, \$4, \$5, \$6 * (\$6 + 0 == \$6), \$NF }" | grep -v "^total"
    hostname; cat /proc/self/cgroup; touch /new && echo writable"#;

#[test]
fn every_option_says_the_same() {
    let of_this_release: String =
        [("--user", "--user 1000:10"), ("--hostname", "--hostname box"), ("--device", "--device /dev/kmsg")]
            .into_iter()
            .filter(|(option, _)| has_option("run", option))
            .map(|(_, given)| format!("{given} "))
            .collect();
    let output = alike(
        "options",
        &format!(
            "detached {of_this_release} --cwd /data --env A=1 --env 'B=two words' \
             --mount type=bind,src=/etc,dst=/host,options=rbind:ro --mount type=tmpfs,src=tmpfs,dst=/t,options=size=1m \
             --cpus 0.5 --cpu-shares 262144 --memory-limit 67108864 --seccomp --cap-add CAP_SYS_ADMIN --cap-drop CAP_CHOWN \
             $IMAGE $ID sh -c 'exec 2>&1; {LOOK}; cat /host/debian_version; echo x >/host/new; unshare -U true; echo end; exec sleep 1000'; \
             until_true 'grep -q ^end $LOG'; cat $LOG; cd $CGROUP; cat cpu.max cpu.weight memory.max"
        ),
    );
    assert_has(
        &output,
        &[
            "A=1\nB=two words\n",
            "/data\n",
            "Seccomp:\t2",
            "/t rw,relatime tmpfs rw,size=1024k",
            "Read-only file system",
            "end\n50000 100000\n10000\n67108864\nended with 0",
        ],
    );
    if of_this_release.contains("--user") {
        assert_has(&output, &["uid=1000(user) gid=10(wheel)"]);
    }
}

#[test]
fn a_privileged_container_has_everything() {
    let output = alike(
        "privileged",
        &format!(
            "$RUN --rm --privileged --net-host $IMAGE $ID sh -c 'exec 2>&1; {LOOK}; mkdir /m && mount -t tmpfs none /m && echo mounted; \
             readlink /proc/self/ns/net; echo x >/dev/ptmx && echo terminal'"
        ),
    );
    assert_has(
        &output,
        &["mounted", "CapEff:\t000001ffffffffff", &sh("readlink /proc/1/ns/net"), "terminal"],
    );
}

#[test]
fn namespaces_of_others_are_joined_and_a_root_stays_as_it_is() {
    let output = alike(
        "joined",
        "detached --read-only $IMAGE $ID sh -c 'exec 2>&1; touch /new; echo $?; exec sleep 1000'; until_true 'test -s $LOG'; cat $LOG; P=$(pid); \
         for kind in pid ipc uts network; do set -- $@ --with-ns $kind:/proc/$P/ns/$(echo $kind | sed s/network/net/); done; \
         $RUN --rm $@ --read-only $IMAGE $ID-2 sh -c 'exec 2>&1; cat /proc/1/comm; hostname; touch /new; for n in pid ipc uts net mnt; do readlink /proc/self/ns/$n; done' >$LOG; \
         sed -n '/\\[/!p' $LOG; for n in pid ipc uts net; do grep -qF $(readlink /proc/$P/ns/$n) $LOG && echo joined $n; done; \
         grep -qF $(readlink /proc/$P/ns/mnt) $LOG || echo own mnt",
    );
    assert_has(
        &output,
        &["sleep\n", "Read-only file system", "joined pid\njoined ipc\njoined uts\njoined net\nown mnt"],
    );
}

#[test]
fn a_root_of_ones_own_and_a_spec_of_ones_own_serve() {
    let output = alike(
        "rootfs",
        "D=/var/tmp/$ID; mkdir -p $D/image $D/root; ctr images mount $IMAGE $D/image >/dev/null; cp -a $D/image/. $D/root; umount $D/image; \
         echo mine >$D/root/mine; $RUN --rm --rootfs $D/root $ID /bin/sh -c 'cat /mine; echo new >/made'; cat $D/root/made; \
         runc spec -b $D; jq --arg root $D/root --arg cgroup /default/$ID '.process.terminal=false | .root.path=$root | .linux.cgroupsPath=$cgroup | \
         .linux.resources.pids.limit=5 | .hostname=\"given\" | .process.args=[\"sh\",\"-c\",\"exec 2>&1; hostname; for i in 1 2 3 4 5 6 7 8; do sleep 2 & done; wait\"]' \
         $D/config.json >$D/new.json; $RUN --rm --config $D/new.json $ID; rm -rf $D",
    );
    assert_has(&output, &["mine\nnew\ngiven\n", "fork"]);
}

#[test]
fn exec_enters_with_and_without_a_terminal() {
    let users = if has_option("tasks exec", "--user") { "--user 1000" } else { "" };
    let output = alike(
        "exec",
        &format!(
            "E='ctr tasks exec --exec-id'; detached --env A=1 --cwd /data $IMAGE $ID sleep 1000; \
             $E e2 $ID sh -c '{LOOK}; exit 5'; echo $?; \
             on_terminal \"$E e1 -t $ID sh -c 'tty; test -t 0 -a -t 1 -a -t 2 && echo all; stty -a 2>/dev/null | grep -o onlcr; exit 3'\"; \
             $E e3 {users} --cwd /tmp $ID sh -c 'id; pwd'; echo typed | $E e4 $ID cat; \
             $E e5 $ID no-such-program; echo $?; $E e6 $ID /etc/passwd; echo $?; \
             $E e7 --cwd /no/such $ID pwd 2>&1 | grep -o 'no such file or directory'; $E e8 $ID sh -c 'kill -TERM $$'; echo $?; \
             $E e9 -d $ID sh -c 'exec sleep 77'; until_true 'ctr tasks ps $ID | grep -q e9'; \
             ctr tasks kill -s SIGKILL --exec-id e9 $ID; until_true '! grep -qx sleep.77 $(sed s,^,/proc/, $CGROUP/cgroup.procs | sed s,$,/comm,)'; status"
        ),
    );
    assert_has(
        &output,
        &[
            "/dev/pts/0\nall\nonlcr\n3\n",
            "typed\n",
            "executable file not found in $PATH",
            "permission denied",
            "RUNNING",
        ],
    );
}

#[test]
fn a_paused_container_stands_until_it_is_resumed() {
    let output = alike(
        "paused",
        "FILE=/var/tmp/$ID.count; detached --mount type=bind,src=/var/tmp,dst=/out,options=rbind:rw $IMAGE $ID \
         sh -c \"while :; do echo x >>/out/$ID.count; done\"; until_true 'test -s $FILE'; \
         ctr tasks pause $ID; cat $CGROUP/cgroup.freeze; grep frozen $CGROUP/cgroup.events; status; \
         A=$(stat -c %s $FILE); for look in 1 2 3 4 5; do sleep 0.1; done; test $A = $(stat -c %s $FILE) && echo stands; \
         ctr tasks exec --exec-id e1 $ID true; ctr tasks pause $ID | sed 's/.*: //'; \
         ctr tasks resume $ID; cat $CGROUP/cgroup.freeze; status; A=$(stat -c %s $FILE); until_true 'test $A != $(stat -c %s $FILE)'; \
         ctr tasks exec --exec-id e2 $ID echo entered; ctr tasks pause $ID; ctr tasks kill -s SIGKILL $ID; until_true 'test $(status) = STOPPED'; \
         ctr tasks rm $ID; rm -f $FILE",
    );
    assert_has(&output, &["1\nfrozen 1\nPAUSED\nstands\n", "paused", "0\nRUNNING\nentered\n"]);
}

#[test]
fn signals_arrive_and_tell_in_the_status() {
    let output = alike(
        "signals",
        "$RUN $IMAGE $ID sh -c 'for s in HUP USR1 USR2; do trap \"echo got $s\" $s; done; trap \"echo got TERM; exit 4\" TERM; \
           sleep 1000 & echo ready; while :; do wait; done' >$LOG & CTR=$!; until_true 'grep -q ready $LOG'; \
         for s in SIGHUP SIGUSR1 12; do ctr tasks kill -s $s $ID; done; until_true 'test $(grep -c got $LOG) = 3'; \
         kill -USR1 $CTR; until_true 'test $(grep -c got $LOG) = 4'; ctr tasks kill $ID; wait $CTR; echo $?; cat $LOG; ctr containers rm $ID; \
         for s in KILL QUIT; do $RUN --with-ns pid:/proc/1/ns/pid $IMAGE $ID sh -c 'echo ready; exec sleep 1000' >$LOG & CTR=$!; \
           until_true 'grep -q ready $LOG'; ctr tasks kill -s SIG$s $ID; wait $CTR; echo $?; ctr containers rm $ID; done; \
         detached --with-ns pid:/proc/1/ns/pid $IMAGE $ID sh -c 'sleep 1000 & sleep 1001 & echo ready; wait'; until_true 'grep -q ready $LOG'; \
         wc -l <$CGROUP/cgroup.procs; ctr tasks kill --all -s SIGKILL $ID; until_true 'test $(status) = STOPPED'; \
         until_true 'grep -q \"populated 0\" $CGROUP/cgroup.events'; ctr tasks rm $ID; echo $?; ctr tasks kill $ID; echo $?",
    );
    assert_has(&output, &["4\nready\ngot HUP\ngot USR1\ngot USR2\ngot USR1\ngot TERM\n", "137\n131\n3\n"]);
}

#[test]
fn a_detached_container_is_attached_to_listed_and_measured() {
    let output = alike(
        "attached",
        "$RUN -d $IMAGE $ID sh -c 'while :; do echo beat; sleep 1; done' >/dev/null; ctr tasks attach $ID >$LOG & ATTACHED=$!; \
         until_true 'test $(grep -c beat $LOG) -ge 2'; kill -KILL $ATTACHED; head -2 $LOG; \
         test $(ctr tasks ps $ID | awk 'NR > 1 { print $1 }' | sort -n | head -1) = $(sort -n $CGROUP/cgroup.procs | head -1) && echo listed; \
         ctr tasks metrics --format json $ID | jq -r '.. | objects | keys[]' | grep -xE 'cpu|memory|pids|io|usage|current|usage_usec' | sort -u; \
         ctr tasks kill -s SIGKILL $ID; until_true 'test $(status) = STOPPED'",
    );
    assert_has(&output, &["beat\nbeat\n", "listed\n", "usage_usec"]);
}

#[test]
fn running_out_of_memory_is_an_event() {
    let output = alike(
        "memory",
        // The kernel's notice may come too late for containerd to tell: seldom, with runc as well.
        "ctr events >$LOG.events & EVENTS=$!; until_true 'kill -0 $EVENTS'; \
         for try in 1 2 3 4; do detached --memory-limit 16777216 $IMAGE $ID sh -c 'x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done'; \
           until_true 'test $(status) = STOPPED'; OOM=$(grep -E '^oom_kill ' $CGROUP/memory.events); \
           until_true 'grep -q \"/tasks/exit.*$ID\" $LOG.events'; grep -q \"/tasks/oom.*$ID\" $LOG.events && break; \
           ctr tasks rm $ID; ctr containers rm $ID; done; echo $OOM; \
         grep -o '/tasks/oom {.*}' $LOG.events | grep $ID; grep '/tasks/exit' $LOG.events | grep $ID | grep -o '\"exit_status\":137' | tail -1; \
         kill $EVENTS; ctr tasks rm $ID; ctr containers rm $ID; rm $LOG; \
         detached --memory-limit 33554432 $IMAGE $ID sh -c 'sh -c \"x=aaaaaaaaaaaaaaaa; while :; do x=\\$x\\$x; done\"; echo died of $?; exec sleep 1000'; \
         until_true 'grep -q died $LOG'; grep died $LOG; status",
    );
    assert_has(
        &output,
        &[
            "oom_kill 1\n/tasks/oom {\"container_id\":\"ID\"}\n\"exit_status\":137\n",
            "died of 137\nRUNNING\n",
        ],
    );
}

#[test]
fn a_terminal_changes_its_size() {
    let output = alike(
        "size",
        // Rows alone: stty sets rows and columns one after the other, and the program may see it between the two.
        ": >$LOG; script -qefc \"stty rows 30 cols 90; $RUN -t --rm $IMAGE $ID sh -c 'trap \\\"stty size\\\" WINCH; stty size; tty; while :; do sleep 0.2; done'\" $LOG </dev/null >/dev/null & \
         until_true 'grep -q /dev/pts $LOG && grep -q \"30 90\" $LOG'; T=$(ps -e -o tty=,args= | awk -v id=$ID '$2 == \"ctr\" && index($0, id) { print $1; exit }'); \
         stty -F /dev/$T rows 40; until_true 'grep -q \"40 90\" $LOG'; tr -d '\\r' <$LOG | grep -E '^[1-9][0-9]* [0-9]+$|^/dev/pts' | sort -u; \
         ctr tasks kill -s SIGKILL $ID; wait; echo over",
    );
    assert_has(&output, &["/dev/pts/0\n30 90\n40 90\n", "over"]);
}

#[test]
fn ids_are_mapped_and_systemd_makes_a_scope() {
    let mapped = "--uidmap 0:100000:65536 --gidmap 0:100000:65536";
    // Newer releases of runc make the IPC namespace with a group from outside of the user namespace.
    // One snapshot serves all containers of these ids, as long as there are any, and one client at a time can make it.
    let _first = Container::start("default", "mapped-first", mapped, "sleep 1000");
    let output = alike(
        "mapped",
        &format!(
            "{{ $RUN --rm {mapped} $IMAGE $ID sh -c '{LOOK}; cat /proc/self/uid_map'; echo $?; }} | sed 's/0 65534 40 0 mqueue/0 0 40 0 mqueue/'; \
             $RUN --rm --runc-systemd-cgroup --cgroup system.slice:vm:$ID $IMAGE $ID sh -c 'cat /proc/self/cgroup'; echo $?; \
             systemctl list-units --all --plain --no-legend \"vm-$ID.scope\"; \
             $RUN --rm --runc-systemd-cgroup --cgroup /vm/$ID $IMAGE $ID true | grep -o 'expected cgroupsPath.*'"
        ),
    );
    assert_has(&output, &["100000", "/system.slice/vm-ID.scope\n0\n", "expected cgroupsPath"]);
}
