//! One line of text for each kind of node.

use std::path::Path;

use inspect_probes::cgroup::Limit;
use inspect_probes::escape::escape;
use inspect_probes::process::{LinuxNamespace, ProcessState};
use inspect_probes::runtime_state::RuntimeFamily;
use inspect_probes::task_tree::{
    ApiSummary, ContainerNode, ContainerStatus, DaemonNode, Finding, FindingKind, InitProcess, InitSource,
    ProcessNode, ProcessRole, RuntimeSummary, ShimNode,
};

use super::lines::{Tone, TreeLine};
use super::text::Detail;
use crate::render::units::{bytes, duration};

/// An id of 64 hexadecimal digits is told from the others by its first 12, as every containerd tool shows it.
const SHORT_ID: usize = 12;
/// The characters of a command line that the compact tree shows; it says how many more there are.
const COMPACT_COMMAND: usize = 120;

pub(super) fn daemon_line(daemon: &DaemonNode, level: usize) -> TreeLine {
    let line = TreeLine::node(level).then(Tone::Strong, "containerd");
    let line = match &daemon.api {
        ApiSummary::Answered { version, .. } => line.then(Tone::Plain, format!(" {}", escape(version))),
        ApiSummary::Silent { .. } | ApiSummary::NotAsked => line,
    };
    let line = match &daemon.process {
        Some(process) => line.fact(Tone::Plain, format!("pid {}", process.pid)),
        None if matches!(daemon.api, ApiSummary::Answered { .. }) => {
            line.fact(Tone::Warning, "answers, but its process is not to be seen")
        }
        None => line.fact(Tone::Bad, "not running"),
    };
    let uptime = daemon.process.as_ref().and_then(|process| process.uptime_seconds);
    line.fact_if(Tone::Plain, daemon.unit.as_ref().map(ToString::to_string))
        .fact_if(Tone::Plain, daemon.address.as_deref().map(path))
        .whole(Tone::Faint, uptime.map(|seconds| format!("up {}", duration(seconds))))
}

pub(super) fn shim_line(shim: &ShimNode, level: usize, detail: Detail) -> TreeLine {
    let name =
        shim.binary.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let parent = match &shim.kernel_parent_name {
        Some(name) => format!("kernel parent {name} ({})", shim.kernel_parent),
        None => format!("kernel parent {}", shim.kernel_parent),
    };
    let id = (detail == Detail::All || shim.containers.is_empty()).then(|| format!("-id {}", shim.id));
    TreeLine::node(level)
        .then(Tone::Plain, format!("shim {}", shim.pid))
        .fact_if(Tone::Plain, name.map(|name| escape(&name).into_owned()))
        .fact_if(Tone::Plain, id)
        .whole(Tone::Faint, Some(parent))
        .whole(Tone::Faint, shim.uptime_seconds.map(|seconds| format!("up {}", duration(seconds))))
}

pub(super) fn container_line(container: &ContainerNode, level: usize, detail: Detail) -> TreeLine {
    let line = TreeLine::node(level).then(Tone::Strong, container_name(container, detail));
    let sandbox = container.pod.as_ref().is_some_and(|pod| pod.sandbox);
    let id = (container.name.is_some() || container.pod.is_some()).then(|| id(container.id.as_str(), detail));
    let uptime = container.init.as_ref().filter(|init| init.alive).and_then(|init| init.uptime_seconds);
    line.fact_if(Tone::Plain, sandbox.then(|| "sandbox".to_owned()))
        .fact_if(Tone::Plain, id)
        .fact(status_tone(container.status), container.status.as_str())
        .fact_if(Tone::Plain, container.image.as_deref().map(|image| shown_image(image, detail)))
        .whole(Tone::Plain, Some(runtime(&container.runtime)))
        .whole(Tone::Plain, container.init.as_ref().map(init))
        .whole(Tone::Plain, memory(container))
        .fact_if(Tone::Warning, host_namespaces(container))
        .whole(Tone::Faint, uptime.map(|seconds| format!("up {}", duration(seconds))))
}

pub(super) fn process_line(process: &ProcessNode, level: usize, deepest: usize, detail: Detail) -> TreeLine {
    let line = TreeLine::node(level + process.depth);
    let line = if level + process.depth > deepest {
        line.then(Tone::Faint, format!("(level {}) ", process.depth + 1))
    } else {
        line
    };
    let user = process.user.as_deref().map(|user| escape(user).into_owned());
    let user = user.or_else(|| process.uid.map(|uid| format!("uid {uid}"))).unwrap_or_else(|| "?".to_owned());
    let line = line.then(Tone::Plain, format!("{} {user} ", process.pid));
    let line = match role(process.role) {
        "" => line,
        role => line.then(Tone::Good, format!("{role} ")),
    };
    let line = line.then(Tone::Plain, command(process, detail));
    let line = match process.state {
        ProcessState::Zombie | ProcessState::Dead => line.fact(Tone::Bad, process.state.as_str()),
        ProcessState::Stopped | ProcessState::Traced | ProcessState::DiskSleep => {
            line.fact(Tone::Warning, process.state.as_str())
        }
        _ => line,
    };
    if detail == Detail::Compact {
        return line;
    }
    let inside = process.namespace_pid.map(|pid| format!("pid {pid} inside"));
    line.fact_if(Tone::Faint, inside)
        .whole(Tone::Faint, process.uptime_seconds.map(|seconds| format!("up {}", duration(seconds))))
}

pub(super) fn finding_line(finding: &Finding, level: usize) -> TreeLine {
    let tone = match finding.kind {
        FindingKind::Zombies | FindingKind::StatusDiffers | FindingKind::OutsideCgroup => Tone::Warning,
        _ => Tone::Bad,
    };
    TreeLine::note(level).then(tone, format!("! {}", escape(&finding.message)))
}

/// `POD/CONTAINER`, `POD` or the id: what a user calls it.
pub(super) fn container_name(container: &ContainerNode, detail: Detail) -> String {
    match (&container.pod, &container.name) {
        (Some(pod), Some(name)) => format!("{}/{}", escape(&pod.name), escape(name)),
        (Some(pod), None) => escape(&pod.name).into_owned(),
        (None, Some(name)) => escape(name).into_owned(),
        (None, None) => id(container.id.as_str(), detail),
    }
}

fn id(id: &str, detail: Detail) -> String {
    let long = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if long && detail == Detail::Compact {
        format!("{}…", &id[..SHORT_ID])
    } else {
        escape(id).into_owned()
    }
}

/// Docker's familiar names in the compact tree: `docker.io/library/` is what a name without a registry means.
fn shown_image(image: &str, detail: Detail) -> String {
    let familiar = image.strip_prefix("docker.io/library/").filter(|_| detail == Detail::Compact);
    escape(familiar.unwrap_or(image)).into_owned()
}

fn status_tone(status: ContainerStatus) -> Tone {
    match status {
        ContainerStatus::Running => Tone::Good,
        ContainerStatus::Created | ContainerStatus::Paused | ContainerStatus::Unknown => Tone::Warning,
        ContainerStatus::Stopped => Tone::Bad,
    }
}

fn runtime(runtime: &RuntimeSummary) -> String {
    let asked = runtime.requested.as_deref().filter(|asked| !asked.is_empty()).map(escape);
    match (runtime.family, asked) {
        (Some(family), Some(asked)) if asked.rsplit('/').next() != Some(family.as_str()) => {
            format!("{} by its {}, BinaryName {asked}", family.as_str(), record(family))
        }
        (Some(family), _) => format!("{} by its {}", family.as_str(), record(family)),
        (None, Some(asked)) => format!("asked for {asked}"),
        (None, None) => "runtime not known".to_owned(),
    }
}

fn record(family: RuntimeFamily) -> &'static str {
    match family {
        RuntimeFamily::Crun => "status",
        _ => "state.json",
    }
}

fn init(init: &InitProcess) -> String {
    let guessed = if init.source == InitSource::OldestChild { " (oldest child of the shim)" } else { "" };
    if init.alive { format!("init {}{guessed}", init.pid) } else { format!("init {} ended", init.pid) }
}

fn memory(container: &ContainerNode) -> Option<String> {
    let now = bytes(container.memory_bytes?);
    Some(match container.memory_limit {
        Some(Limit::Value(limit)) => format!("{now} of {}", bytes(limit)),
        Some(Limit::Max) | None => now,
    })
}

/// The host's cgroup, time and user namespaces are every plain container's; the others are worth a word.
fn host_namespaces(container: &ContainerNode) -> Option<String> {
    let usual = [LinuxNamespace::Cgroup, LinuxNamespace::Time, LinuxNamespace::User];
    let host = container.shared_namespaces.iter().filter(|shared| shared.with.is_none());
    let names: Vec<_> =
        host.filter(|shared| !usual.contains(&shared.kind)).map(|shared| shared.kind.spec_name()).collect();
    (!names.is_empty()).then(|| format!("host's {}", names.join(", ")))
}

fn role(role: ProcessRole) -> &'static str {
    match role {
        ProcessRole::Init => "init",
        ProcessRole::Exec => "exec",
        ProcessRole::ExecOrAdopted => "exec-or-adopted",
        ProcessRole::Adopted => "adopted",
        ProcessRole::Helper => "helper",
        ProcessRole::Child => "",
    }
}

/// As ps shows it: the command line, or the name in brackets where there is none.
fn command(process: &ProcessNode, detail: Detail) -> String {
    if process.command_line.is_empty() {
        return format!("[{}]", process.name);
    }
    let length = process.command_line.chars().count();
    if detail == Detail::Compact && length > COMPACT_COMMAND {
        let shown: String = process.command_line.chars().take(COMPACT_COMMAND).collect();
        let more = if process.command_line_cut { "at least " } else { "" };
        return format!("{shown}… ({more}{} more, --all shows them)", length - COMPACT_COMMAND);
    }
    let cut = if process.command_line_cut { "… (longer than the 4 KiB that are read)" } else { "" };
    format!("{}{cut}", process.command_line)
}

pub(super) fn path(path: &Path) -> String {
    escape(&path.to_string_lossy()).into_owned()
}
