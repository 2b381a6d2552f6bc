//! The task tree for a terminal.

use inspect_probes::cgroup::CgroupMode;
use inspect_probes::escape::escape;
use inspect_probes::name::Pid;
use inspect_probes::task_tree::{
    ApiSummary, ContainerNode, DaemonNode, NamespaceNode, ProcessNode, ShimNode, TaskTree,
};

use super::lines::{Tone, TreeLine, deepest_level, render_lines};
use super::node::{container_line, daemon_line, finding_line, path, process_line, shim_line};
use crate::render::style::Style;
use crate::render::units::duration;
use crate::render::wrap::wrap;

/// The processes of one container that the compact tree shows; it says how many more there are.
const COMPACT_PROCESSES: usize = 50;

/// How much to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// A line for each thing.
    Compact,
    /// The evidence too: paths, sockets, cgroups, kernel parents.
    All,
}

/// Draws the tree and what it comes to, in `width` columns; `mark` is the process that was asked for.
pub(crate) fn render_tree(
    tree: &TaskTree,
    detail: Detail,
    mark: Option<Pid>,
    style: Style,
    width: Option<usize>,
) -> String {
    let mut lines = Lines { lines: vec![host_line(tree)], detail, mark, deepest: deepest_level(width) };
    for daemon in &tree.daemons {
        lines.daemon(daemon);
    }
    lines.others(tree);
    let mut text = render_lines(&lines.lines, style, width);
    for line in wrap(&summary(tree), width) {
        text.push_str(&format!("\n{}", style.strong(&line)));
    }
    text.push('\n');
    for sentence in &tree.not_seen {
        for line in wrap(&format!("not seen: {}", escape(sentence)), width) {
            text.push_str(&format!("{}\n", style.warning(&line)));
        }
    }
    text
}

fn host_line(tree: &TaskTree) -> TreeLine {
    let host = &tree.host;
    let cgroups = host.cgroup_mode.map(|mode| match mode {
        CgroupMode::Unified => "cgroup v2",
        CgroupMode::Hybrid => "cgroup v1 and v2 (hybrid)",
        CgroupMode::Legacy => "cgroup v1",
    });
    let init = host.init.clone();
    TreeLine::node(0)
        .then(Tone::Strong, init.as_deref().unwrap_or("host").to_owned())
        .fact_if(Tone::Plain, init.map(|_| "pid 1".to_owned()))
        .fact_if(Tone::Plain, cgroups.map(str::to_owned))
        .fact_if(Tone::Faint, host.uptime_seconds.map(|seconds| format!("up {}", duration(seconds))))
}

struct Lines {
    lines: Vec<TreeLine>,
    detail: Detail,
    mark: Option<Pid>,
    deepest: usize,
}

impl Lines {
    fn daemon(&mut self, daemon: &DaemonNode) {
        self.lines.push(daemon_line(daemon, 1));
        self.lines.extend(daemon.findings.iter().map(|finding| finding_line(finding, 1)));
        match &daemon.api {
            ApiSummary::Silent { reason } if daemon.process.is_some() => {
                self.note(1, "its API does not answer", reason);
            }
            ApiSummary::Silent { reason } => self.evidence(1, "API", Some(escape(reason).into_owned())),
            ApiSummary::Answered { missing: Some(missing), .. } => {
                self.note(1, "its API answered only in part", missing);
            }
            ApiSummary::Answered { missing: None, .. } => {}
            ApiSummary::NotAsked => self.evidence(1, "API", Some("not asked".to_owned())),
        }
        if let Some(process) = &daemon.process {
            self.evidence(1, "executable", process.exe.as_deref().map(path));
            self.evidence(1, "command", Some(process.command_line.clone()));
            self.evidence(1, "config", Some(path(&process.config)));
            self.evidence(1, "cgroup", process.cgroup.as_ref().map(ToString::to_string));
            let listens = process.listens.map(|listens| if listens { "yes" } else { "no" }.to_owned());
            self.evidence(1, "listens on its socket", listens);
        }
        self.evidence(1, "state directory", daemon.state_directory.as_deref().map(path));
        for namespace in &daemon.containerd_namespaces {
            self.namespace(namespace);
        }
    }

    fn namespace(&mut self, namespace: &NamespaceNode) {
        let line = TreeLine::node(2)
            .then(Tone::Faint, "containerd namespace ")
            .then(Tone::Strong, namespace.name.to_string());
        self.lines.push(line);
        if !namespace.records_without_task.is_empty() {
            let ids: Vec<_> = namespace.records_without_task.iter().map(ToString::to_string).collect();
            let line = format!("{} without a task: {}", count(ids.len(), "container"), ids.join(", "));
            self.lines.push(TreeLine::note(2).then(Tone::Faint, line));
        }
        for shim in &namespace.shims {
            self.shim(shim);
        }
        for container in &namespace.orphans {
            self.container(container, 3);
        }
    }

    fn shim(&mut self, shim: &ShimNode) {
        self.lines.push(shim_line(shim, 3, self.detail));
        self.lines.extend(shim.findings.iter().map(|finding| finding_line(finding, 3)));
        self.evidence(3, "binary", shim.binary.as_deref().map(path));
        self.evidence(3, "command", Some(shim.command_line.clone()));
        self.evidence(3, "cgroup", shim.cgroup.as_ref().map(ToString::to_string));
        self.evidence(3, "socket", shim.address.as_deref().map(|address| escape(address).into_owned()));
        for proof in &shim.ownership {
            self.evidence(3, "proof of owner", Some(escape(&proof.detail).into_owned()));
        }
        for container in &shim.containers {
            self.container(container, 4);
        }
        self.processes(&shim.helpers, 4);
    }

    fn container(&mut self, container: &ContainerNode, level: usize) {
        self.lines.push(container_line(container, level, self.detail));
        self.lines.extend(container.findings.iter().map(|finding| finding_line(finding, level)));
        self.evidence(level, "id", Some(container.id.to_string()));
        self.evidence(level, "bundle", container.bundle.as_deref().map(path));
        self.evidence(level, "cgroup", container.cgroup.as_ref().map(ToString::to_string));
        let runtime = &container.runtime;
        self.evidence(level, "runtime's record", runtime.state_file.as_deref().map(path));
        let requested = runtime.requested.as_deref().map(|name| match name {
            "" => "none: `runc` from the shim's PATH".to_owned(),
            name => escape(name).into_owned(),
        });
        self.evidence(level, "BinaryName", requested);
        let runtime_type = runtime.runtime_type.as_deref().map(|name| escape(name).into_owned());
        self.evidence(level, "runtime_type", runtime_type);
        self.evidence(level, "status by its daemon", container.daemon_status.clone());
        self.evidence(level, "terminal", container.terminal.then(|| "yes".to_owned()));
        for (with, kinds) in shared(container) {
            self.evidence(level, &format!("Linux namespaces of {with}"), Some(kinds));
        }
        self.processes(&container.processes, level + 1);
    }

    fn processes(&mut self, processes: &[ProcessNode], level: usize) {
        let all = self.detail == Detail::All || self.mark.is_some();
        let most = if all { processes.len() } else { COMPACT_PROCESSES };
        for process in processes.iter().take(most) {
            let line = process_line(process, level, self.deepest, self.detail);
            let asked = (self.mark == Some(process.pid)).then(|| "◀ asked for".to_owned());
            self.lines.push(line.fact_if(Tone::Strong, asked));
        }
        if processes.len() > most {
            let more = format!("… {} more, --all shows them", count(processes.len() - most, "process"));
            self.lines.push(TreeLine::node(level).then(Tone::Warning, more));
        }
    }

    /// What belongs to no containerd.
    fn others(&mut self, tree: &TaskTree) {
        let what = if tree.host.bundles_seen {
            (Tone::Bad, "cgroup without a container")
        } else {
            (Tone::Warning, "cgroup of a container whose bundle is not to be seen")
        };
        for stray in &tree.stray_cgroups {
            let holds = match stray.pids.len() {
                0 => "empty".to_owned(),
                pids => count(pids, "process"),
            };
            let line = TreeLine::node(1)
                .then(what.0, what.1)
                .fact(Tone::Plain, stray.cgroup.to_string())
                .fact(Tone::Plain, holds);
            self.lines.push(line);
            let pids: Vec<_> = stray.pids.iter().map(ToString::to_string).collect();
            self.evidence(1, "pids", (!pids.is_empty()).then(|| pids.join(", ")));
        }
        for other in &tree.other_engines {
            let text = |text: &Option<String>| text.as_deref().map(|text| escape(text).into_owned());
            let line = TreeLine::node(1)
                .then(Tone::Strong, other.engine)
                .fact(Tone::Plain, "not containerd's")
                .fact(Tone::Plain, format!("pid {}", other.pid))
                .fact_if(Tone::Plain, text(&other.name))
                .fact_if(Tone::Plain, text(&other.id))
                .whole(Tone::Faint, Some(count(other.processes, "process")));
            self.lines.push(line);
        }
    }

    fn note(&mut self, level: usize, what: &str, why: &str) {
        let line = TreeLine::note(level).then(Tone::Warning, format!("! {what}: {}", escape(why)));
        self.lines.push(line);
    }

    fn evidence(&mut self, level: usize, what: &str, value: Option<String>) {
        if let (Detail::All, Some(value)) = (self.detail, value) {
            let line = TreeLine::note(level).then(Tone::Faint, format!("{what}: ")).then(Tone::Plain, value);
            self.lines.push(line);
        }
    }
}

/// The namespaces that a container shares, by whom with.
fn shared(container: &ContainerNode) -> Vec<(String, String)> {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for shared in &container.shared_namespaces {
        let with = shared.with.as_ref().map_or_else(|| "the host".to_owned(), ToString::to_string);
        match groups.iter_mut().find(|(name, _)| *name == with) {
            Some((_, kinds)) => kinds.push(shared.kind.spec_name()),
            None => groups.push((with, vec![shared.kind.spec_name()])),
        }
    }
    groups.into_iter().map(|(with, kinds)| (with, kinds.join(", "))).collect()
}

fn summary(tree: &TaskTree) -> String {
    let totals = &tree.totals;
    let mut containers = count(totals.containers, "container");
    if totals.containers > 0 {
        containers.push_str(&format!(" ({} running", totals.running));
        if totals.paused > 0 {
            containers.push_str(&format!(", {} paused", totals.paused));
        }
        containers.push(')');
    }
    let findings = match totals.findings {
        0 => "nothing that does not fit".to_owned(),
        found => format!("{} marked !", count(found, "finding")),
    };
    let parts = [
        count(totals.daemons, "containerd"),
        count(totals.shims, "shim"),
        containers,
        count(totals.processes, "process"),
        findings,
    ];
    parts.join(" · ")
}

fn count(count: usize, word: &str) -> String {
    match (count, word) {
        (1, word) => format!("1 {word}"),
        (count, "containerd") => format!("{count} containerd daemons"),
        (count, "process") => format!("{count} processes"),
        (count, word) => format!("{count} {word}s"),
    }
}
