//! The tree of made-up observations: what a real node shows only now and then.

use std::path::PathBuf;

use super::{ContainerNode, ContainerStatus, FindingKind, ProcessRole, TaskTree, build_task_tree};
use crate::bundle::{Bundle, SpecExcerpt};
use crate::cgroup::Limit;
use crate::containerd::{
    ContainerRecord, DaemonAccount, NamespaceAccount, RuntimeRecord, ShimProcess, TaskRecord, TaskStatus,
    Version,
};
use crate::name::{CgroupPath, ContainerId, ContainerdNamespace, Pid};
use crate::observation::{Observation, ObservedCgroup, ObservedContainer, ProcessDetails};
use crate::process::{CommandLine, LinuxNamespace, NamespaceId, ProcessState, ProcessTable, Stat};
use crate::runtime_state::{RuntimeFamily, RuntimeState};

const ADDRESS: &str = "/run/containerd/containerd.sock";

/// A process: pid, parent, start time, state, name.
fn stat(pid: u32, parent: u32, start_time: u64, state: ProcessState, comm: &[u8]) -> Stat {
    Stat {
        pid: Pid::new(pid),
        comm: comm.to_vec(),
        state,
        parent: Pid::new(parent),
        process_group: pid,
        session: pid,
        terminal: 0,
        threads: 1,
        start_time,
    }
}

fn sleeping(pid: u32, parent: u32, start_time: u64) -> Stat {
    stat(pid, parent, start_time, ProcessState::Sleeping, b"sh")
}

fn shim(pid: u32, id: &str) -> ShimProcess {
    ShimProcess {
        pid: Pid::new(pid),
        kernel_parent: Pid::INIT,
        start_time: 5,
        exe: None,
        command_line: "/usr/bin/containerd-shim-runc-v2 -id x".to_owned(),
        containerd_namespace: ContainerdNamespace::new("default"),
        id: ContainerId::new(id),
        address: Some(PathBuf::from(ADDRESS)),
        cwd: None,
        cgroup: Some(CgroupPath::new("/system.slice/containerd.service")),
    }
}

/// A container with init 20, started at tick 100 and recorded so, and `members` in its cgroup.
fn container(id: &str, members: &[u32]) -> ObservedContainer {
    let path = CgroupPath::new(format!("/default/{id}"));
    ObservedContainer {
        containerd_namespace: ContainerdNamespace::new("default"),
        id: ContainerId::new(id),
        bundle: Some(Bundle {
            state_directory: PathBuf::from("/run/containerd"),
            containerd_namespace: ContainerdNamespace::new("default"),
            id: ContainerId::new(id),
            path: PathBuf::from("/run/containerd/io.containerd.runtime.v2.task/default").join(id),
            init_pid: Some(Pid::new(20)),
            init_pid_mode: None,
            options: None,
            runtime: Some(String::new()),
            shim_binary: None,
            shim_address: None,
            sandbox: None,
        }),
        excerpt: Some(SpecExcerpt::default()),
        state: Some(RuntimeState {
            family: RuntimeFamily::Runc,
            path: PathBuf::from("/run/containerd/runc/default/state.json"),
            init_pid: Some(Pid::new(20)),
            init_start_time: Some(100),
            cgroup: Some(path.clone()),
            created: None,
        }),
        awaits_start: false,
        init_start_time: Some(100),
        cgroup: Some(ObservedCgroup {
            members: members.iter().map(|pid| (Pid::new(*pid), path.clone())).collect(),
            path,
            frozen: Some(false),
            memory_current: Some(4096),
            memory_max: Some(Limit::Max),
            oom: None,
        }),
    }
}

/// PID 1, shim 10 for `web`, and the given processes.
fn observation(processes: Vec<Stat>, containers: Vec<ObservedContainer>) -> Observation {
    let mut all = vec![sleeping(1, 0, 0), stat(10, 1, 5, ProcessState::Sleeping, b"containerd-shim")];
    let details = |stat: &Stat| (stat.pid, ProcessDetails::default());
    let details = processes.iter().map(details).collect();
    all.extend(processes);
    Observation {
        table: ProcessTable::from_stats(all),
        shims: vec![shim(10, "web")],
        containers,
        details,
        bundles_seen: true,
        ..Observation::default()
    }
}

fn only(tree: &TaskTree) -> &ContainerNode {
    let containers: Vec<_> = tree.containers().collect();
    assert_eq!(containers.len(), 1);
    containers[0]
}

fn kinds(node: &ContainerNode) -> Vec<FindingKind> {
    node.findings.iter().map(|finding| finding.kind).collect()
}

fn pids(node: &ContainerNode) -> Vec<(u32, usize, ProcessRole)> {
    node.processes.iter().map(|process| (process.pid.get(), process.depth, process.role)).collect()
}

#[test]
fn exec_processes_are_told_by_the_pid_namespace() {
    let processes =
        vec![sleeping(20, 10, 100), sleeping(21, 20, 110), sleeping(30, 10, 120), sleeping(31, 30, 130)];
    let mut seen = observation(processes, vec![container("web", &[20, 21, 30, 31])]);
    for (pid, namespace) in [(1, 1), (20, 7), (30, 7)] {
        let own = [(LinuxNamespace::Pid, NamespaceId(namespace))].into();
        seen.namespaces.insert(Pid::new(pid), own);
    }
    let expected = |exec| {
        vec![
            (20, 0, ProcessRole::Init),
            (21, 1, ProcessRole::Child),
            (30, 0, exec),
            (31, 1, ProcessRole::Child),
        ]
    };
    assert_eq!(pids(only(&build_task_tree(&seen))), expected(ProcessRole::Exec));
    seen.namespaces.insert(Pid::new(20), [(LinuxNamespace::Pid, NamespaceId(1))].into());
    assert_eq!(pids(only(&build_task_tree(&seen))), expected(ProcessRole::ExecOrAdopted));
}

#[test]
fn a_reused_pid_is_no_init() {
    let mut web = container("web", &[]);
    web.init_start_time = Some(999);
    let mut seen = observation(vec![stat(20, 1, 999, ProcessState::Running, b"sshd\x1b")], vec![web]);
    seen.details.clear();
    let tree = build_task_tree(&seen);
    let node = only(&tree);
    assert_eq!((node.status, kinds(node)), (ContainerStatus::Stopped, vec![FindingKind::InitReused]));
    assert!(
        node.findings[0].message.contains("`sshd\\x1b` (started at tick 999, not 100)"),
        "{:?}",
        node.findings
    );
    assert!(node.processes.is_empty());
}

#[test]
fn an_init_that_ended_is_no_surprise_while_its_shim_holds_the_task() {
    let mut web = container("web", &[]);
    web.init_start_time = None;
    let mut seen = observation(vec![], vec![web]);
    let node = only(&build_task_tree(&seen)).clone();
    assert_eq!((node.status, kinds(&node)), (ContainerStatus::Stopped, vec![]));
    seen.shims.clear();
    let tree = build_task_tree(&seen);
    assert_eq!(kinds(only(&tree)), [FindingKind::BundleWithoutShim, FindingKind::InitGone]);
    assert_eq!(tree.daemons[0].findings[0].kind, FindingKind::DaemonNotRunning);
}

#[test]
fn zombies_and_processes_that_left_the_cgroup_are_named() {
    let zombie = stat(22, 20, 120, ProcessState::Zombie, b"sh");
    let mut seen = observation(
        vec![sleeping(20, 10, 100), zombie, sleeping(23, 20, 130)],
        vec![container("web", &[20])],
    );
    let elsewhere = Some(CgroupPath::new("/system.slice/cron.service"));
    seen.details.insert(Pid::new(23), ProcessDetails { cgroup: elsewhere, ..ProcessDetails::default() });
    let tree = build_task_tree(&seen);
    assert_eq!(kinds(only(&tree)), [FindingKind::Zombies, FindingKind::OutsideCgroup]);
    assert_eq!(only(&tree).processes.len(), 3);
    assert_eq!(tree.totals.findings, 3, "the daemon does not run either");
}

#[test]
fn the_orphan_of_a_dead_shim_keeps_its_processes() {
    let mut seen =
        observation(vec![sleeping(20, 1, 100), sleeping(30, 1, 120)], vec![container("web", &[20, 30])]);
    seen.shims.clear();
    let tree = build_task_tree(&seen);
    let node = &tree.daemons[0].containerd_namespaces[0].orphans[0];
    assert_eq!(kinds(node), [FindingKind::BundleWithoutShim]);
    assert_eq!(pids(node), [(20, 0, ProcessRole::Init), (30, 0, ProcessRole::Adopted)]);
    assert_eq!(node.status, ContainerStatus::Running);
}

#[test]
fn one_shim_serves_a_pod_and_orphans_stay_with_their_own_container() {
    // The pod shares a pid namespace: process 40 of `app` was adopted by the sandbox's init.
    let mut app = container("app", &[30, 40]);
    if let (Some(state), Some(bundle)) = (&mut app.state, &mut app.bundle) {
        state.init_pid = Some(Pid::new(30));
        bundle.sandbox = Some(ContainerId::new("web"));
    }
    let processes = vec![sleeping(20, 10, 100), sleeping(30, 10, 100), sleeping(40, 20, 140)];
    let tree = build_task_tree(&observation(processes, vec![app, container("web", &[20])]));
    let shim = &tree.daemons[0].containerd_namespaces[0].shims[0];
    let ids: Vec<_> = shim.containers.iter().map(|node| node.id.as_str()).collect();
    assert_eq!(ids, ["web", "app"], "the sandbox comes first");
    assert_eq!(pids(&shim.containers[0]), [(20, 0, ProcessRole::Init)]);
    assert_eq!(pids(&shim.containers[1]), [(30, 0, ProcessRole::Init), (40, 0, ProcessRole::Adopted)]);
}

#[test]
fn frozen_is_paused_and_a_fifo_is_created() {
    let status = |frozen, awaits_start| {
        let mut web = container("web", &[20]);
        web.awaits_start = awaits_start;
        web.cgroup.iter_mut().for_each(|cgroup| cgroup.frozen = frozen);
        only(&build_task_tree(&observation(vec![sleeping(20, 10, 100)], vec![web]))).status
    };
    assert_eq!(status(Some(true), false), ContainerStatus::Paused);
    assert_eq!(status(Some(false), true), ContainerStatus::Created);
    assert_eq!(status(None, false), ContainerStatus::Running);
}

#[test]
fn the_daemons_account_adds_and_contradicts() {
    let record = |id: &str| ContainerRecord {
        id: ContainerId::new(id),
        labels: [].into(),
        image: Some("busybox".to_owned()),
        runtime: RuntimeRecord { name: "io.containerd.runc.v2".to_owned(), ..RuntimeRecord::default() },
        spec: Vec::new(),
        snapshotter: String::new(),
        snapshot_key: String::new(),
        created_at: None,
        sandbox: None,
    };
    let task = |id: &str, status| TaskRecord {
        id: ContainerId::new(id),
        pid: Some(Pid::new(20)),
        status,
        exit_status: 0,
        exited_at: None,
    };
    let mut seen = observation(vec![sleeping(20, 10, 100)], vec![container("web", &[20])]);
    seen.accounts = vec![DaemonAccount {
        address: PathBuf::from(ADDRESS),
        version: Some(Version { version: "1.7.24".to_owned(), revision: String::new() }),
        namespaces: vec![NamespaceAccount {
            name: ContainerdNamespace::new("default"),
            containers: vec![record("web"), record("record")],
            tasks: vec![task("web", TaskStatus::Stopped), task("ghost", TaskStatus::Running)],
        }],
        failure: None,
    }];
    let tree = build_task_tree(&seen);
    let node = only(&tree);
    assert_eq!((node.image.as_deref(), kinds(node)), (Some("busybox"), vec![FindingKind::StatusDiffers]));
    let daemon = &tree.daemons[0];
    assert_eq!(daemon.findings.len(), 1, "it answers, so it runs: {:?}", daemon.findings);
    assert_eq!(daemon.findings[0].kind, FindingKind::TaskNotFound);
    assert_eq!(daemon.containerd_namespaces[0].records_without_task, [ContainerId::new("record")]);
}

#[test]
fn without_bundles_a_shims_children_are_its_container() {
    let mut web = container("web", &[20]);
    (web.bundle, web.state, web.excerpt) = (None, None, None);
    let mut seen = observation(vec![sleeping(20, 10, 100), sleeping(50, 10, 200)], vec![web]);
    seen.bundles_seen = false;
    let tree = build_task_tree(&seen);
    let shim = &tree.daemons[0].containerd_namespaces[0].shims[0];
    assert!(shim.findings.is_empty());
    assert_eq!(shim.helpers.len(), 1, "what is in no container's cgroup is the shim's own");
    assert_eq!(only(&tree).init.as_ref().map(|init| init.pid), Some(Pid::new(20)));
}

#[test]
fn a_fork_bomb_neither_overflows_the_stack_nor_takes_for_ever() {
    let count = 20_000;
    let chain: Vec<Stat> =
        (0..count).map(|n| sleeping(20 + n, if n == 0 { 10 } else { 19 + n }, 100)).collect();
    let members: Vec<u32> = (20..20 + count).collect();
    let mut seen = observation(chain, vec![container("web", &members)]);
    let long = CommandLine::parse(&[b'x'; 4096], true);
    seen.details.insert(Pid::new(20), ProcessDetails { command_line: long, ..ProcessDetails::default() });
    let tree = build_task_tree(&seen);
    let node = only(&tree);
    assert_eq!(node.processes.len(), count as usize);
    assert_eq!(node.processes.last().map(|process| process.depth), Some(count as usize - 1));
    assert!(node.processes[0].command_line_cut);
    assert!(serde_json::to_string(&tree).unwrap().len() > count as usize);
}
