//! What a command line of containerd's world means: the shim's, and the OCI runtime's as the shim calls it.
//!
//! The shim's flags are those of containerd's `runtime/v2/shim/shim.go` (1.6, 1.7, 2.1); the runtime's are runc's
//! (runc(8)), which crun, youki and the built-in runtime take over and go-runc writes.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::name::{ContainerId, ContainerdNamespace};

/// A command line that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// The containerd daemon.
    Daemon,
    /// A shim binary.
    Shim(ShimCall),
    /// An OCI runtime, called for a container.
    Runtime(RuntimeCall),
    /// `runc init`: the runtime running itself as the first process of a container or of an exec.
    RuntimeInit,
}

/// What a shim binary was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShimOperation {
    /// `start`: starts the serving shim and ends.
    Start,
    /// No action: serves the container until it is deleted.
    Serve,
    /// `delete`: cleans up after a shim that is gone.
    Delete,
}

/// A shim's command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimCall {
    /// The action.
    pub operation: ShimOperation,
    /// `-namespace`.
    pub containerd_namespace: Option<ContainerdNamespace>,
    /// `-id`: the container's, or the sandbox's when the shim serves a pod.
    pub id: Option<ContainerId>,
}

/// What an OCI runtime was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is the runtime's subcommand of that name")]
pub enum RuntimeOperation {
    Create,
    Start,
    Run,
    Exec,
    Kill,
    Delete,
    State,
    Pause,
    Resume,
    Update,
    Ps,
    Events,
    Checkpoint,
    Restore,
    List,
    Features,
}

impl RuntimeOperation {
    /// The subcommand as it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Run => "run",
            Self::Exec => "exec",
            Self::Kill => "kill",
            Self::Delete => "delete",
            Self::State => "state",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Update => "update",
            Self::Ps => "ps",
            Self::Events => "events",
            Self::Checkpoint => "checkpoint",
            Self::Restore => "restore",
            Self::List => "list",
            Self::Features => "features",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        const ALL: [RuntimeOperation; 16] = {
            use RuntimeOperation::*;
            [
                Create, Start, Run, Exec, Kill, Delete, State, Pause, Resume, Update, Ps, Events, Checkpoint,
                Restore, List, Features,
            ]
        };
        ALL.into_iter().find(|operation| operation.name() == name)
    }
}

/// An OCI runtime's command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeCall {
    /// The subcommand.
    pub operation: RuntimeOperation,
    /// The container's id; absent in `list` and `features`.
    pub id: Option<ContainerId>,
    /// `--bundle`.
    pub bundle: Option<PathBuf>,
    /// `--pid-file`.
    pub pid_file: Option<PathBuf>,
    /// `--root`.
    pub root: Option<PathBuf>,
    /// Taken from the paths that containerd gives: the directory above the container's.
    pub containerd_namespace: Option<ContainerdNamespace>,
}

/// Names that an OCI runtime's file is known by; another name is recognised by `--root` or `--log`.
const RUNTIME_NAMES: [&str; 5] = ["runc", "crun", "youki", "runsc", "inspect-runtime"];

/// Global options and options of subcommands that take a value in the next argument.
const WITH_VALUE: [&str; 27] = [
    "root",
    "log",
    "log-format",
    "criu",
    "cgroup-manager",
    "bundle",
    "b",
    "pid-file",
    "console-socket",
    "preserve-fds",
    "process",
    "p",
    "cwd",
    "env",
    "e",
    "user",
    "u",
    "additional-gids",
    "g",
    "apparmor",
    "process-label",
    "cap",
    "cgroup",
    "resources",
    "r",
    "format",
    "f",
];

/// Understands a command line, or gives `None`.
#[must_use]
pub fn parse_invocation(arguments: &[String]) -> Option<Invocation> {
    let (program, rest) = arguments.split_first()?;
    let name = Path::new(program).file_name()?.to_str()?;
    if name.starts_with("containerd-shim") {
        return Some(Invocation::Shim(parse_shim_call(rest)));
    }
    if name == "containerd" {
        return Some(Invocation::Daemon);
    }
    if rest.len() == 1 && rest.first().is_some_and(|argument| argument == "init") {
        return Some(Invocation::RuntimeInit);
    }
    parse_runtime_call(name, rest).map(Invocation::Runtime)
}

fn parse_shim_call(arguments: &[String]) -> ShimCall {
    let mut call = ShimCall { operation: ShimOperation::Serve, containerd_namespace: None, id: None };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.strip_prefix('-').map(|flag| flag.trim_start_matches('-')) else {
            match argument.as_str() {
                "start" => call.operation = ShimOperation::Start,
                "delete" => call.operation = ShimOperation::Delete,
                _ => {}
            }
            continue;
        };
        let (flag, inline) = split_inline(flag);
        if matches!(flag, "debug" | "v" | "version" | "info") {
            continue;
        }
        let value = inline.map(str::to_owned).or_else(|| arguments.next().cloned());
        match flag {
            "namespace" => call.containerd_namespace = value.map(ContainerdNamespace::new),
            "id" => call.id = value.map(ContainerId::new),
            _ => {}
        }
    }
    call
}

/// A runtime is recognised by a subcommand together with containerd's options or a well-known name.
fn parse_runtime_call(name: &str, arguments: &[String]) -> Option<RuntimeCall> {
    let mut options: Vec<(String, String)> = Vec::new();
    let mut positional: Vec<&str> = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix('-').map(|flag| flag.trim_start_matches('-')) {
            Some(flag) => {
                let (flag, inline) = split_inline(flag);
                if let Some(value) = inline {
                    options.push((flag.to_owned(), value.to_owned()));
                } else if WITH_VALUE.contains(&flag) {
                    options.push((flag.to_owned(), arguments.next()?.clone()));
                }
            }
            None => positional.push(argument),
        }
    }
    let option = |names: &[&str]| {
        options.iter().find(|(flag, _)| names.contains(&flag.as_str())).map(|(_, value)| PathBuf::from(value))
    };
    let operation = RuntimeOperation::from_name(positional.first()?)?;
    let (root, log) = (option(&["root"]), option(&["log"]));
    if root.is_none() && log.is_none() && !RUNTIME_NAMES.contains(&name) {
        return None;
    }
    let bundle = option(&["bundle", "b"]);
    let container_directory = bundle.as_deref().or_else(|| log.as_deref().and_then(Path::parent));
    Some(RuntimeCall {
        operation,
        id: positional.get(1).map(|id| ContainerId::new(*id)),
        containerd_namespace: container_directory.and_then(namespace_of),
        pid_file: option(&["pid-file"]),
        root,
        bundle,
    })
}

/// `…/io.containerd.runtime.v2.task/<containerd namespace>/<id>`.
fn namespace_of(container_directory: &Path) -> Option<ContainerdNamespace> {
    let namespace = container_directory.parent()?;
    let tasks = namespace.parent()?.file_name()?.to_str()?;
    let name = namespace.file_name()?.to_str()?;
    tasks.starts_with("io.containerd.runtime.").then(|| ContainerdNamespace::new(name))
}

fn split_inline(flag: &str) -> (&str, Option<&str>) {
    match flag.split_once('=') {
        Some((flag, value)) => (flag, Some(value)),
        None => (flag, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Invocation> {
        parse_invocation(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    fn runtime(line: &str) -> RuntimeCall {
        match parse(line) {
            Some(Invocation::Runtime(call)) => call,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_three_lives_of_a_shim_binary() {
        let start = parse(
            "/usr/bin/containerd-shim-runc-v2 -namespace default -address /run/containerd/containerd.sock -publish-binary /usr/bin/containerd -id pc1 start",
        );
        let Some(Invocation::Shim(start)) = start else { panic!("{start:?}") };
        assert_eq!(start.operation, ShimOperation::Start);
        assert_eq!(start.id, Some(ContainerId::new("pc1")));
        let serve = parse("/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id start -address /x");
        let Some(Invocation::Shim(serve)) = serve else { panic!("{serve:?}") };
        assert_eq!((serve.operation, serve.id), (ShimOperation::Serve, Some(ContainerId::new("start"))));
        assert_eq!(serve.containerd_namespace, Some(ContainerdNamespace::new("k8s.io")));
    }

    #[test]
    fn the_runtime_as_the_shim_calls_it() {
        let bundle = "/run/containerd/io.containerd.runtime.v2.task/default/pc1";
        let call = runtime(&format!(
            "runc --root /run/containerd/runc/default --log {bundle}/log.json --log-format json create --bundle {bundle} --pid-file {bundle}/init.pid pc1"
        ));
        assert_eq!((call.operation, call.id), (RuntimeOperation::Create, Some(ContainerId::new("pc1"))));
        assert_eq!(call.bundle.as_deref(), Some(Path::new(bundle)));
        assert_eq!(call.containerd_namespace, Some(ContainerdNamespace::new("default")));
        let call =
            runtime(&format!("/opt/my-rt --root=/r --systemd-cgroup --log {bundle}/log.json start create"));
        assert_eq!((call.operation, call.id), (RuntimeOperation::Start, Some(ContainerId::new("create"))));
        let call = runtime("crun delete --force x");
        assert_eq!((call.operation, call.id), (RuntimeOperation::Delete, Some(ContainerId::new("x"))));
        assert_eq!(runtime("runc --root /r kill --all x 9").id, Some(ContainerId::new("x")));
    }

    #[test]
    fn what_is_neither_is_left_alone() {
        assert_eq!(parse("runc init"), Some(Invocation::RuntimeInit));
        assert_eq!(parse("/usr/bin/containerd --config /x"), Some(Invocation::Daemon));
        for line in ["systemctl start x", "sh -c create", "runc --version", "runc --root", "sleep 1", ""] {
            assert_eq!(parse(line), None, "{line}");
        }
        assert_eq!(parse_invocation(&[]), None);
    }
}
