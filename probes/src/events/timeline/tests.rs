use super::*;
use crate::events::process_image::{FileId, NamespaceInode};

const BUNDLE: &str = "/run/containerd/io.containerd.runtime.v2.task/default/pc1";

struct Story {
    timeline: Timeline,
    clock: u64,
}

impl Story {
    fn new() -> Self {
        Self { timeline: Timeline::new(Some(Pid::new(90))), clock: 0 }
    }

    fn tell(&mut self, kind: EventKind) {
        self.clock += 1_000_000;
        self.timeline.apply(Event { time: Timestamp(self.clock), kind });
    }

    fn present(&mut self, pid: u32, line: &str) {
        self.tell(EventKind::Present { pid: Pid::new(pid), image: Box::new(image(line, "/bin/x", 1)) });
    }

    fn fork(&mut self, parent: u32, child: u32) {
        self.tell(EventKind::Fork { parent: Pid::new(parent), child: Pid::new(child) });
    }

    fn exec(&mut self, pid: u32, line: &str, exe: &str, mounts: u64) {
        self.tell(EventKind::Exec { pid: Pid::new(pid), image: Some(Box::new(image(line, exe, mounts))) });
    }

    fn exit(&mut self, pid: u32, code: u8) {
        self.tell(EventKind::Exit { pid: Pid::new(pid), status: ExitStatus::Exited(code) });
    }

    fn shim(&mut self) {
        self.present(1, "/usr/bin/containerd");
        self.fork(1, 10);
        self.exec(10, "/usr/bin/containerd-shim-runc-v2 -namespace default -id pc1 start", "/shim", 1);
        self.fork(10, 11);
        self.exec(11, "/usr/bin/containerd-shim-runc-v2 -namespace default -id pc1", "/shim", 1);
        self.exit(10, 0);
    }

    fn runtime(&mut self, pid: u32, name: &str, operation: &str) {
        self.fork(11, pid);
        let line = format!("{name} --root /r --log {BUNDLE}/log.json {operation} pc1");
        self.exec(pid, &line, &format!("/usr/sbin/{name}"), 1);
    }

    fn only(&self) -> ContainerTrace {
        let mut containers = self.timeline.containers();
        assert_eq!(containers.len(), 1, "{containers:?}");
        containers.remove(0)
    }
}

fn image(line: &str, exe: &str, mounts: u64) -> ProcessImage {
    ProcessImage {
        command_line: line.split(' ').map(str::to_owned).collect(),
        exe: Some(exe.into()),
        file: Some(FileId { device: 1, inode: u64::try_from(exe.len()).unwrap() }),
        namespaces: vec![
            NamespaceInode { kind: "mnt", inode: mounts },
            NamespaceInode { kind: "net", inode: mounts },
        ],
        ..ProcessImage::default()
    }
}

fn outline(trace: &ContainerTrace) -> Vec<(usize, &'static str, u32)> {
    trace.steps.iter().map(|step| (step.depth, step.step.name(), step.pid.get())).collect()
}

#[test]
fn a_start_by_runc_is_told_whole() {
    let mut story = Story::new();
    story.fork(80, 90);
    story.exec(90, "ctr run --rm img pc1 true", "/usr/bin/ctr", 1);
    story.shim();
    story.runtime(20, "runc", &format!("create --bundle {BUNDLE} --pid-file {BUNDLE}/init.pid"));
    story.tell(EventKind::Bundle {
        pid: Pid::new(20),
        cgroups_path: None,
        joined_namespaces: vec!["network".into()],
        arguments: vec!["true".into()],
    });
    story.fork(20, 21);
    story.exec(21, "runc init", "/usr/sbin/runc", 1);
    story.exec(21, "runc init", "/memfd:runc_cloned:/proc/self/exe (deleted)", 1);
    story.fork(20, 22);
    story.fork(20, 23);
    story.tell(EventKind::CgroupCreated { hierarchy: None, path: CgroupPath::new("/default/pc1") });
    story.exit(22, 0);
    story.exit(21, 0);
    story.exit(20, 0);
    story.tell(EventKind::InitPid { container: ContainerId::new("pc1"), pid: Pid::new(23) });
    story.runtime(30, "runc", "start");
    story.exec(23, "true", "/bin/busybox", 2);
    story.exit(30, 0);
    story.exit(23, 3);
    let trace = story.only();
    assert_eq!(
        outline(&trace),
        [
            (0, "containerd", 1),
            (1, "shim start", 10),
            (2, "shim", 11),
            (3, "runtime create", 20),
            (4, "runtime init", 21),
            (4, "runtime init", 22),
            (4, "init", 23),
            (3, "runtime start", 30)
        ]
    );
    assert_eq!(trace.missing, [""; 0]);
    assert_eq!(trace.containerd_namespace, Some(ContainerdNamespace::new("default")));
    let init = &trace.steps[6];
    assert_eq!((init.status, init.command_line.join(" ")), (Some(ExitStatus::Exited(3)), "true".into()));
    assert_eq!(init.namespaces_created.iter().map(|n| n.kind).collect::<Vec<_>>(), ["mnt"]);
    assert_eq!(init.namespaces_joined.iter().map(|n| n.kind).collect::<Vec<_>>(), ["net"]);
    assert_eq!(trace.cgroups.len(), 1);
    let create = trace.find_create().unwrap();
    assert_eq!(create.exe.as_deref(), Some(std::path::Path::new("/usr/sbin/runc")));
    assert!(create.duration.unwrap() > 0 && create.started.unwrap() < create.executed.unwrap());
    assert_eq!(story.timeline.command_steps()[0].command_line[0], "ctr");
}

#[test]
fn crun_executes_itself_anew_and_forks_init_without_an_exec() {
    let mut story = Story::new();
    story.shim();
    story.runtime(20, "crun", &format!("create --bundle {BUNDLE}"));
    story.exec(20, "crun --root /r create pc1", "/", 1);
    story.fork(20, 21);
    story.exit(20, 0);
    story.runtime(30, "crun", "start");
    story.exec(21, "sleep 9", "/bin/busybox", 2);
    let trace = story.only();
    assert_eq!(trace.missing, [""; 0]);
    assert_eq!(trace.find_create().unwrap().exe.as_deref(), Some(std::path::Path::new("/usr/sbin/crun")));
    assert!(outline(&trace).contains(&(4, "init", 21)), "{:?}", outline(&trace));
}

#[test]
fn a_call_that_was_gone_before_it_could_be_read_is_told_by_its_place() {
    let unread = |story: &mut Story, pid: u32| {
        story.fork(11, pid);
        story.tell(EventKind::Exec { pid: Pid::new(pid), image: None });
    };
    let mut story = Story::new();
    story.shim();
    unread(&mut story, 20);
    story.fork(20, 21);
    story.exec(21, "runc init", "/usr/sbin/runc", 1);
    story.exit(20, 0);
    unread(&mut story, 30);
    story.exec(21, "sleep 9", "/bin/busybox", 2);
    story.exit(30, 0);
    unread(&mut story, 40);
    story.exit(40, 0);
    let trace = story.only();
    assert_eq!(trace.missing, [""; 0]);
    let told: Vec<_> =
        trace.steps.iter().filter(|step| step.inferred).map(|s| (s.step.name(), s.pid.get())).collect();
    assert_eq!(told, [("runtime create", 20), ("runtime start", 30)]);
    assert!(outline(&trace).contains(&(4, "init", 21)), "{:?}", outline(&trace));
}

#[test]
fn what_follows_a_create_that_failed_is_no_start() {
    let mut story = Story::new();
    story.shim();
    story.runtime(20, "runc", &format!("create --bundle {BUNDLE}"));
    story.exit(20, 1);
    story.fork(11, 30);
    story.tell(EventKind::Exec { pid: Pid::new(30), image: None });
    story.exit(30, 0);
    assert!(story.only().steps.iter().all(|step| !step.inferred));
}

#[test]
fn a_hook_is_no_init_and_what_was_not_seen_is_named() {
    let mut story = Story::new();
    story.shim();
    story.runtime(20, "runc", &format!("create --bundle {BUNDLE}"));
    story.fork(20, 25);
    story.exec(25, "/opt/hook", "/opt/hook", 1);
    story.exit(25, 0);
    let trace = story.only();
    assert!(outline(&trace).contains(&(4, "hook", 25)), "{:?}", outline(&trace));
    assert_eq!(trace.missing, ["runtime start", "init"]);
}

#[test]
fn an_exec_that_was_gone_unread_keeps_its_makers_command_line() {
    let mut story = Story::new();
    story.shim();
    story.fork(11, 20);
    story.tell(EventKind::Exec { pid: Pid::new(20), image: None });
    story.exit(20, 0);
    assert_eq!(story.timeline.counts().execs_unread, 1);
    assert_eq!(story.only().missing, ["runtime start", "init"]);
    assert_eq!(story.only().find_create().unwrap().command_line_source, CommandLineSource::Parent);
}

#[test]
fn an_init_that_was_gone_unread_ran_what_the_bundle_says() {
    let mut story = Story::new();
    story.shim();
    story.runtime(20, "crun", &format!("create --bundle {BUNDLE}"));
    let arguments = vec!["true".to_owned()];
    let pid = Pid::new(20);
    story.tell(EventKind::Bundle { pid, cgroups_path: None, joined_namespaces: vec![], arguments });
    story.fork(20, 21);
    story.exit(20, 0);
    story.tell(EventKind::InitPid { container: ContainerId::new("pc1"), pid: Pid::new(21) });
    story.runtime(30, "crun", "start");
    story.tell(EventKind::Exec { pid: Pid::new(21), image: None });
    let trace = story.only();
    assert_eq!(trace.missing, [""; 0]);
    let init = trace.steps.iter().find(|step| step.step == Role::Init).unwrap();
    assert_eq!(
        (init.command_line.join(" "), init.command_line_source),
        ("true".into(), CommandLineSource::Bundle)
    );
}

#[test]
fn unrelated_processes_and_most_of_a_containers_are_forgotten() {
    let mut story = Story::new();
    for pid in 1000..1500 {
        story.fork(80, pid);
        story.exec(pid, "true", "/bin/true", 1);
        story.exit(pid, 0);
    }
    assert_eq!(story.timeline.processes().count(), 0);
    story.shim();
    story.runtime(20, "runc", "create");
    story.fork(20, 23);
    story.exec(23, "sh", "/bin/sh", 2);
    for pid in 2000..2100 {
        story.fork(23, pid);
        story.exit(pid, 0);
    }
    let trace = story.only();
    assert_eq!(trace.processes_omitted, 36);
    assert_eq!(story.timeline.counts().forks, 500 + 4 + 100);
}
