//! The built-in runtime under containerd and by itself, on a real node. What it did is read from `ctr`, /proc, the cgroup
//! files and sha256sum, never from the runtime.

mod support;

use std::time::Duration;

use support::{BUSYBOX, Container, import, sh, try_sh, wait_until};

const RUNTIME: &str = "/usr/local/bin/inspect-runtime";
const BOUND: Duration = Duration::from_secs(30);
/// Where `ctr` has the runtime keep its state.
const STATE: &str = "/run/containerd/runc/default";

/// `--runc-binary` makes containerd's shim use the runtime under test.
fn ctr_run(options: &str, id: &str, command: &str) -> String {
    import("default", "busybox");
    format!("ctr run --runc-binary {RUNTIME} {options} {BUSYBOX} {id} {command}")
}

/// A bundle of the runtime's own `spec`, changed by a jq filter, with busybox's files in its own copy. Not below `/run`, which
/// is mounted noexec.
struct Bundle {
    path: String,
    id: String,
}

impl Bundle {
    fn make(id: &str, filter: &str) -> Self {
        import("default", "busybox");
        let path = format!("/var/tmp/vm-runtime/{id}");
        let bundle = Self { path: path.clone(), id: id.to_owned() };
        bundle.remove();
        sh(&format!(
            "mkdir -p {path}/image {path}/rootfs && ctr images mount {BUSYBOX} {path}/image >/dev/null && \
             cp -a {path}/image/. {path}/rootfs/ && umount {path}/image && {RUNTIME} spec -b {path}"
        ));
        bundle.change(&format!(
            ".process.terminal=false | .root.readonly=false | .linux.cgroupsPath=\"/vm-runtime/{id}\" | {filter}"
        ));
        bundle
    }

    fn change(&self, filter: &str) {
        let path = &self.path;
        sh(&format!("jq '{filter}' {path}/config.json > {path}/new && mv {path}/new {path}/config.json"));
    }

    /// Runs a command of the runtime with standard streams closed to the test.
    fn detached(&self, command: &str) -> support::Finished {
        let Self { path, id } = self;
        try_sh(&format!(
            "cd {path} && {RUNTIME} --root {path}/state {command} {id} </dev/null >{path}/out 2>&1; code=$?; cat {path}/out; exit $code"
        ))
    }

    fn exec(&self, options: &str, command: &str) -> support::Finished {
        let Self { path, id } = self;
        try_sh(&format!("{RUNTIME} --root {path}/state exec {options} {id} {command}"))
    }

    fn remove(&self) {
        let Self { path, id } = self;
        drop(try_sh(&format!(
            "{RUNTIME} --root {path}/state delete --force {id}; umount {path}/image; rm -rf {path}"
        )));
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.remove();
    }
}

#[test]
fn ctr_run_gives_output_and_status_and_leaves_nothing() {
    assert_eq!(sh(&ctr_run("--rm", "rt-echo", "echo made by inspect")), "made by inspect");
    let status = try_sh(&ctr_run("--rm", "rt-status", "sh -c 'exit 7'")).status;
    assert_eq!(status, 7);
    assert_eq!(sh(&format!("ls {STATE} | grep -c '^rt-' || true")), "0");
    assert_eq!(sh("ls -d /sys/fs/cgroup/default/rt-* 2>/dev/null | wc -l"), "0");
}

#[test]
fn a_detached_container_is_entered_signalled_and_deleted() {
    let container =
        Container::start("default", "rt-detached", &format!("--runc-binary {RUNTIME}"), "sleep 1000");
    let pid = container.init_pid();
    assert_eq!(sh(&format!("cat /proc/{pid}/comm")), "sleep");
    assert_eq!(sh(&format!("cut -d: -f3 /proc/{pid}/cgroup")), "/default/rt-detached");
    assert_eq!(sh(&format!("jq -r .runtime {STATE}/rt-detached/state.json")), "inspect-runtime");
    // containerd's default capabilities, as the kernel has them.
    assert_eq!(sh(&format!("awk '/CapEff/ {{ print $2 }}' /proc/{pid}/status")), "00000000a80425fb");
    assert_eq!(sh("ctr tasks exec --exec-id e1 rt-detached cat /proc/1/comm"), "sleep");
    assert_eq!(try_sh("ctr tasks exec --exec-id e2 rt-detached sh -c 'exit 5'").status, 5);
    let refused = try_sh("ctr tasks exec --exec-id e3 rt-detached no-such-program");
    assert!(refused.stderr.contains("executable file not found in $PATH"), "{refused}");
    sh("ctr tasks kill -s SIGKILL rt-detached");
    wait_until("the task to stop", BOUND, || {
        (try_sh("ctr tasks ls").stdout.contains("STOPPED")).then_some(())
    });
    drop(container);
    assert_eq!(sh(&format!("test -e {STATE}/rt-detached || echo gone")), "gone");
    assert_eq!(sh("test -e /sys/fs/cgroup/default/rt-detached || echo gone"), "gone");
}

#[test]
fn a_terminal_is_one_for_both_sides() {
    let run = ctr_run("-t --rm", "rt-terminal", "tty");
    let seen = sh(&format!("script -qec '{run}' /dev/null </dev/null"));
    assert!(seen.contains("/dev/pts/0"), "{seen:?}");
}

#[test]
fn running_out_of_memory_ends_with_137() {
    let hog = "sh -c 'x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done'";
    let finished = try_sh(&ctr_run("--rm --memory-limit 33554432", "rt-oom", hog));
    assert_eq!(finished.status, 137, "{finished}");
}

#[test]
fn the_limits_of_phase_1_reach_the_kernel() {
    let bundle = Bundle::make(
        "phase1",
        ".process.args=[\"sleep\",\"1000\"] | .linux.resources.memory={\"limit\":67108864} | .linux.resources.cpu={\"shares\":512}",
    );
    assert_eq!(bundle.detached("run -d").status, 0);
    let cgroup = "/sys/fs/cgroup/vm-runtime/phase1";
    assert_eq!(sh(&format!("cat {cgroup}/memory.max")), "67108864");
    assert_eq!(sh(&format!("cat {cgroup}/cpu.weight")), "59");
    // A device that no rule allows, next to one that every container has.
    assert_eq!(bundle.exec("", "sh -c 'mknod /dev/kmsg2 c 1 11; cat /dev/kmsg2 >/dev/null'").status, 1);
    assert_eq!(bundle.exec("", "head -c 1 /dev/zero").status, 0);
}

#[test]
fn a_container_cannot_write_to_the_runtime() {
    // CVE-2019-5736: the attacker keeps /proc/PID/exe of a process that is still the runtime, and writes when it has ended.
    let mounts = ".mounts += [{\"destination\":\"/tmp\",\"type\":\"tmpfs\",\"source\":\"tmpfs\"}]";
    let bundle = Bundle::make("cve-5736", &format!(".process.args=[\"sleep\",\"1000\"] | {mounts}"));
    assert_eq!(bundle.detached("run -d").status, 0);
    let script = "mkfifo /tmp/fifo; touch /tmp/ready; while :; do for p in /proc/[0-9]*; do \
         case \"$(readlink $p/exe)\" in /|*inspect-runtime*) exec 3<$p/exe; cat /tmp/fifo >/dev/null; \
         while [ -e $p/exe ]; do :; done; cp /bin/busybox /tmp/own; exec 4</tmp/own; \
         (echo x >>/proc/self/fd/4) && echo control written; (echo x >>/proc/self/fd/3) && echo runtime written; \
         echo over; exit;; esac; done; done";
    std::fs::write(format!("{}/rootfs/attack.sh", bundle.path), script).expect("the root is the test's own");
    let before = sh(&format!("sha256sum {RUNTIME}"));
    assert_eq!(
        bundle.exec("-d", "sh -c 'sh /attack.sh >/attack.out 2>&1' </dev/null >/dev/null 2>&1").status,
        0
    );
    wait_until("the attacker to lie in wait", BOUND, || {
        (bundle.exec("", "ls /tmp/ready").status == 0).then_some(())
    });
    // The payload is the runtime itself, which blocks on the attacker's FIFO.
    drop(bundle.exec("", "/proc/self/exe --log /tmp/fifo state nobody"));
    let output = format!("{}/rootfs/attack.out", bundle.path);
    let seen = wait_until("the attack to be over", BOUND, || {
        let seen = std::fs::read_to_string(&output).unwrap_or_default();
        seen.contains("over").then_some(seen)
    });
    assert!(seen.contains("control written"), "the attack itself does not work: {seen}");
    assert!(!seen.contains("runtime written"), "{seen}");
    assert_eq!(sh(&format!("sha256sum {RUNTIME}")), before);
}

#[test]
fn a_runtime_that_has_moved_is_still_what_it_was_called_as() {
    let bundle = Bundle::make("moved", ".process.args=[\"sleep\",\"1000\"]");
    let Bundle { path, id } = &bundle;
    let command = format!("{RUNTIME} --root {path}/state run --bundle {path} {id}");
    let pid = sh(&format!("MARK=moved {command} </dev/null >{path}/out 2>&1 & echo $!"));
    wait_until("the container to run", BOUND, || (bundle.exec("", "true").status == 0).then_some(()));
    assert_eq!(sh(&format!("tr '\\0' ' ' </proc/{pid}/cmdline")), command);
    assert_eq!(sh(&format!("tr '\\0' '\\n' </proc/{pid}/environ | grep -c '^MARK=moved$'")), "1");
    // Nothing of the program comes from the file it was started from, and when it is no longer busy, root of the host itself
    // cannot write through what /proc led to.
    assert_eq!(sh(&format!("grep -c '{RUNTIME}' /proc/{pid}/maps || true")), "0");
    let written = try_sh(&format!(
        "exec 3</proc/{pid}/exe; {RUNTIME} --root {path}/state kill {id} KILL; \
         timeout 30 sh -c 'while kill -0 {pid} 2>/dev/null; do sleep 0.1; done'; echo >>/proc/self/fd/3"
    ));
    assert!(written.stderr.contains("Read-only file system"), "{written}");
}

#[test]
fn start_tells_what_execve_refuses() {
    let bundle = Bundle::make("refused", ".process.args=[\"/script\"]");
    let script = format!("{}/rootfs/script", bundle.path);
    sh(&format!("printf '#!/no/interpreter\\n' >{script} && chmod 755 {script}"));
    assert_eq!(bundle.detached("create").status, 0);
    let started = bundle.detached("start");
    assert_eq!(started.status, 1, "{started}");
    assert!(started.stdout.contains("exec /script: no such file or directory"), "{started}");
    assert_eq!(bundle.detached("delete").status, 0);
    // One that runs is not waited for longer than that takes.
    bundle.change(".process.args=[\"sh\",\"/script\"]");
    sh(&format!("printf 'echo it ran >/ran\\nsleep 1000\\n' >{script}"));
    assert_eq!(bundle.detached("create").status, 0);
    assert_eq!(sh(&format!("jq .waits_for_payload {}/state/refused/state.json", bundle.path)), "false");
    assert_eq!(bundle.detached("start").status, 0);
    let ran = format!("cat {}/rootfs/ran", bundle.path);
    wait_until("the program to run", BOUND, || (try_sh(&ran).stdout.trim() == "it ran").then_some(()));
}

#[test]
fn half_a_mebibyte_of_memory_is_enough() {
    let bundle = Bundle::make(
        "small",
        ".process.args=[\"cat\",\"/sys/fs/cgroup/memory.max\"] | .linux.resources.memory={\"limit\":524288}",
    );
    let finished = bundle.detached("run");
    assert_eq!((finished.status, finished.stdout.trim()), (0, "524288"), "{finished}");
}

#[test]
fn inherited_descriptors_and_directories_stay_outside() {
    // CVE-2024-21626: a descriptor of a host directory leaks in, and cwd goes through it.
    let bundle = Bundle::make("cve-21626", ".process.args=[\"ls\",\"/proc/self/fd\"]");
    let Bundle { path, id } = &bundle;
    let listed = sh(&format!("cd {path} && exec 7</etc && {RUNTIME} --root {path}/state run {id}"));
    assert!(!listed.split_whitespace().any(|name| name == "7"), "{listed}");
    for descriptor in 3..20 {
        bundle.change(&format!(
            ".process.cwd=\"/proc/self/fd/{descriptor}\" | .process.args=[\"ls\",\"etc/machine-id\"]"
        ));
        let finished = try_sh(&format!("cd {path} && exec 7</ && {RUNTIME} --root {path}/state run {id}"));
        assert_ne!(finished.status, 0, "cwd through descriptor {descriptor}: {finished}");
    }
}

#[test]
fn symlinks_of_an_image_lead_nowhere() {
    // CVE-2019-19921 (/proc), CVE-2021-30465 (mount targets) and CVE-2025-31133 (/dev/null).
    let proc_link = Bundle::make("proc-link", ".process.args=[\"true\"]");
    sh(&format!("cd {}/rootfs && rm -rf proc && mkdir x && ln -s x proc", proc_link.path));
    let refused = proc_link.detached("run");
    assert!(refused.stdout.contains("there is a symlink in the path"), "{refused}");

    let mounts = ".mounts += [{\"destination\":\"/out/deep\",\"type\":\"tmpfs\",\"source\":\"tmpfs\"}]";
    let target = Bundle::make("target-link", &format!(".process.args=[\"true\"] | {mounts}"));
    sh(&format!("mkdir -p /var/tmp/vm-runtime/victim && ln -s ../../victim {}/rootfs/out", target.path));
    drop(target.detached("run"));
    assert_eq!(sh("ls -A /var/tmp/vm-runtime/victim"), "", "the target was made outside of the root");

    let bound = ".mounts |= map(select(.destination | startswith(\"/dev\") | not))";
    let null = Bundle::make("null-link", &format!(".process.args=[\"cat\",\"/proc/kcore\"] | {bound}"));
    sh(&format!("cd {}/rootfs && mkdir -p dev && rm -f dev/null && ln -s /etc/passwd dev/null", null.path));
    let refused = null.detached("run");
    assert_ne!(refused.status, 0, "{refused}");
    assert!(refused.stdout.contains("/dev/null"), "{refused}");
    sh("rmdir /var/tmp/vm-runtime/victim");
}

#[test]
fn killed_at_any_moment_it_leaves_what_delete_force_removes() {
    let bundle = Bundle::make("killed", ".process.args=[\"sleep\",\"1000\"]");
    let Bundle { path, id } = &bundle;
    let before = sh("ls /sys/fs/cgroup/vm-runtime 2>/dev/null | wc -l; grep -c . /proc/self/mountinfo");
    for delay in ["0.002", "0.01", "0.02", "0.03", "0.05", "0.08", "0.12", "0.2"] {
        drop(try_sh(&format!(
            "cd {path}; {RUNTIME} --root {path}/state create {id} </dev/null >/dev/null 2>&1 & sleep {delay}; kill -9 $!; wait"
        )));
        sh(&format!("{RUNTIME} --root {path}/state delete --force {id}"));
        assert_eq!(sh(&format!("ls -A {path}/state 2>/dev/null || true")), "", "after {delay} s");
    }
    // A child that was about to hear from the runtime ends by itself.
    wait_until("all of it to be gone", BOUND, || {
        let now =
            try_sh("ls /sys/fs/cgroup/vm-runtime 2>/dev/null | wc -l; grep -c . /proc/self/mountinfo").stdout;
        (now.trim() == before).then_some(())
    });
}

#[test]
fn many_containers_leave_nothing() {
    let bundle = Bundle::make("many", ".process.args=[\"true\"]");
    let Bundle { path, id } = &bundle;
    let count = "ls /sys/fs/cgroup/vm-runtime | wc -l; grep -c . /proc/self/mountinfo; lsns -n -t mnt | wc -l; ls /var/tmp/vm-runtime/many/state 2>/dev/null | wc -l; ps -e -o stat= | grep -c Z || true";
    sh(&format!("cd {path} && {RUNTIME} --root {path}/state run {id}"));
    let before = sh(count);
    // In batches: a line of shell has a bound, and emulation is slow.
    for _ in 0..5 {
        sh(&format!(
            "cd {path}; for i in $(seq 10); do {RUNTIME} --root {path}/state create {id} </dev/null >/dev/null 2>&1 || exit 1; \
             {RUNTIME} --root {path}/state delete --force {id} || exit 1; done"
        ));
    }
    assert_eq!(sh(count), before);
}

#[test]
fn what_is_not_understood_is_refused_and_leaves_nothing() {
    let bundle = Bundle::make("refused", ".linux.intelRdt={\"closID\":\"x\"}");
    let refused = bundle.detached("create");
    assert_eq!(refused.status, 1);
    assert!(refused.stdout.contains("`linux.intelRdt`"), "{refused}");
    assert!(
        try_sh(&format!("{RUNTIME} --no-such-flag list")).stderr.contains("flag provided but not defined")
    );
    assert_eq!(sh(&format!("ls -A {}/state 2>/dev/null || true", bundle.path)), "");
}

#[test]
fn a_container_that_is_paused_before_its_start_is_entered_by_nobody() {
    let bundle = Bundle::make("paused-early", ".process.args=[\"sleep\",\"1000\"]");
    let Bundle { path, id } = &bundle;
    assert_eq!(bundle.detached("create").status, 0);
    sh(&format!("{RUNTIME} --root {path}/state pause {id}"));
    let cgroup = format!("/sys/fs/cgroup/vm-runtime/{id}");
    assert_eq!(sh(&format!("grep frozen {cgroup}/cgroup.events")), "frozen 1");
    assert_eq!(sh(&format!("{RUNTIME} --root {path}/state state {id} | jq -r .status")), "paused");
    // A process in there would stand, and who waits for it.
    let refused = try_sh(&format!("timeout -s KILL 20 {RUNTIME} --root {path}/state exec {id} true"));
    assert_eq!(refused.status, 255, "{refused}");
    assert!(refused.stderr.contains("cannot exec in a paused container"), "{refused}");
    sh(&format!("{RUNTIME} --root {path}/state resume {id} && {RUNTIME} --root {path}/state start {id}"));
    assert_eq!(bundle.exec("", "echo entered").stdout.trim(), "entered");
}

#[test]
fn an_update_that_is_refused_changes_nothing() {
    // With a capability that nobody knows, which `create` has passed over.
    let change = ".process.args=[\"sleep\",\"1000\"] | .process.capabilities.bounding+=[\"CAP_TEST\"] | \
                  .linux.resources.pids={limit:50}";
    let bundle = Bundle::make("update-refused", change);
    let Bundle { path, id } = &bundle;
    assert_eq!(bundle.detached("run -d").status, 0);
    let update = |flags: &str| try_sh(&format!("{RUNTIME} --root {path}/state update {id} {flags}"));
    let limit = || sh(&format!("cat /sys/fs/cgroup/vm-runtime/{id}/pids.max"));
    // The kernel takes no period below a millisecond, and the limit of processes is written before it.
    let refused = update("--pids-limit 60 --cpu-period 1");
    assert!(refused.status == 1 && refused.stderr.contains("cpu.max"), "{refused}");
    assert_eq!(limit(), "50");
    assert_eq!(update("--pids-limit 70").success(), "");
    assert_eq!(limit(), "70");
    let refused = update("--pids-limit 80 --cpu-period 1");
    assert_eq!((refused.status, limit().as_str()), (1, "70"), "{refused}");
}

#[test]
fn what_cannot_be_executed_or_listed_is_told() {
    let bundle = Bundle::make("told-why", ".process.args=[\"sleep\",\"1000\"]");
    let Bundle { path, id } = &bundle;
    assert_eq!(bundle.detached("run -d").status, 0);
    for (options, command, text) in [
        ("-u 4294967295", "true", "process.user.uid"),
        ("-u 1:4294967295", "true", "process.user"),
        ("-g 4294967295", "true", "process.user"),
        ("", "''", "executable file not found in $PATH"),
    ] {
        let refused = bundle.exec(options, command);
        assert!(refused.status == 255 && refused.stderr.contains(text), "{options} {command}: {refused}");
    }
    assert_eq!(bundle.exec("--cwd ''", "pwd").stdout.trim(), "/");
    let listed = try_sh(&format!("{RUNTIME} --root {path}/state ps {id} -o of-tomorrow"));
    assert!(listed.status == 1 && listed.stderr.contains("of-tomorrow"), "{listed}");
}

#[test]
fn a_stream_that_is_closed_is_an_empty_one_to_the_program() {
    let bundle = Bundle::make("closed-streams", ".process.args=[\"readlink\",\"/proc/self/fd/0\"]");
    let Bundle { path, id } = &bundle;
    let run = |closed: &str| try_sh(&format!("cd {path}; {RUNTIME} --root {path}/state run {id} {closed}"));
    assert_eq!(run("<&-").success().trim(), "/dev/null");
    assert_eq!(run("<&- 2>&-").success().trim(), "/dev/null");
    bundle.change(".process.args=[\"sleep\",\"1000\"]");
    assert_eq!(bundle.detached("run -d").status, 0);
    let streams = "sh -c 'readlink /proc/self/fd/0; readlink /proc/self/fd/2' <&- 2>&-";
    assert_eq!(bundle.exec("", streams).stdout.trim(), "/dev/null\n/dev/null");
}

#[test]
fn a_container_without_a_cgroup_is_killed_all_the_same() {
    // An ordinary user has no cgroup to make others below, and without a PID namespace the kernel ends nothing but the first process.
    let bundle = Bundle::make("no-cgroup", ".");
    let Bundle { path, id } = &bundle;
    let user = "setpriv --reuid 1000 --regid 1000 --clear-groups";
    sh(&format!(
        "rm {path}/config.json; chown -R 1000:1000 {path}; {user} {RUNTIME} spec --rootless -b {path}"
    ));
    bundle.change(
        ".process.terminal=false | .process.args=[\"sleep\",\"1000\"] | del(.linux.namespaces[] | select(.type==\"pid\")) | \
         (.mounts[] | select(.destination==\"/proc\")) |= \
             {destination:\"/proc\",type:\"bind\",source:\"/proc\",options:[\"rbind\"]}",
    );
    let runtime = format!("cd {path}; {user} {RUNTIME} --root {path}/state");
    let started = try_sh(&format!(
        "{runtime} run -d {id} </dev/null >{path}/out 2>&1; code=$?; cat {path}/out; exit $code"
    ));
    assert_eq!(started.status, 0, "{started}");
    let pid = sh(&format!("jq .init_process_pid {path}/state/{id}/state.json"));
    assert_eq!(sh(&format!("jq -c .cgroup_path {path}/state/{id}/state.json")), "\"\"");
    for command in ["ps", "events --stats", "pause"] {
        let told = try_sh(&format!("{runtime} {command} {id}"));
        assert!(told.status == 1 && told.stderr.contains("it has none"), "{command}: {told}");
    }
    sh(&format!("{runtime} kill {id} KILL"));
    wait_until("its end", BOUND, || {
        (sh(&format!("test -e /proc/{pid} || echo gone")) == "gone").then_some(())
    });
    sh(&format!("{runtime} kill --all {id} KILL && {runtime} delete {id}"));
}
