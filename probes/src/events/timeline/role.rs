//! What a process is in the life of a container.

use serde::{Serialize, Serializer};

use super::TracedProcess;
use crate::events::invocation::{Invocation, RuntimeOperation, ShimOperation};

/// What a process is in the life of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The containerd daemon.
    Daemon,
    /// The command that the trace was made for, and its children.
    Command,
    /// A shim binary: its `start`, the serving shim, its `delete`.
    Shim(ShimOperation),
    /// An OCI runtime called for a container.
    Runtime(RuntimeOperation),
    /// A process of the runtime's own between its call and the container's program: `runc init` and its stages.
    RuntimeStage,
    /// A hook of the spec.
    Hook,
    /// The container's init process.
    Init,
    /// A process that an `exec` put into the container.
    ExecProcess,
    /// Another process in the container.
    ContainerProcess,
    /// A helper of the shim.
    Helper,
    /// None of these.
    Other,
}

impl Role {
    /// How a step of that role is called, in text and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Daemon => "containerd",
            Self::Command => "command",
            Self::Shim(ShimOperation::Start) => "shim start",
            Self::Shim(ShimOperation::Serve) => "shim",
            Self::Shim(ShimOperation::Delete) => "shim delete",
            Self::Runtime(operation) => match operation {
                RuntimeOperation::Create => "runtime create",
                RuntimeOperation::Start => "runtime start",
                RuntimeOperation::Run => "runtime run",
                RuntimeOperation::Exec => "runtime exec",
                RuntimeOperation::Kill => "runtime kill",
                RuntimeOperation::Delete => "runtime delete",
                RuntimeOperation::State => "runtime state",
                _ => "runtime",
            },
            Self::RuntimeStage => "runtime init",
            Self::Hook => "hook",
            Self::Init => "init",
            Self::ExecProcess => "exec",
            Self::ContainerProcess => "process",
            Self::Helper => "helper",
            Self::Other => "other",
        }
    }

    /// What a child is until it runs a program of its own.
    pub(super) fn of_child(self) -> Self {
        match self {
            Self::Command => Self::Command,
            Self::Runtime(operation) if operation.makes_process() => Self::RuntimeStage,
            Self::RuntimeStage => Self::RuntimeStage,
            Self::Shim(_) | Self::Runtime(_) | Self::Helper | Self::Hook => Self::Helper,
            Self::Init | Self::ExecProcess | Self::ContainerProcess => Self::ContainerProcess,
            Self::Daemon | Self::Other => Self::Other,
        }
    }

    /// Whether it is a shim at its work, which calls the runtime.
    pub(super) fn serves(self) -> bool {
        self == Self::Shim(ShimOperation::Serve)
    }

    /// Whether such a process does its work and ends.
    pub(super) fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Shim(ShimOperation::Start | ShimOperation::Delete) | Self::RuntimeStage | Self::Hook
        ) || matches!(self, Self::Runtime(operation) if operation != RuntimeOperation::Run)
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name().replace(' ', "_"))
    }
}

impl RuntimeOperation {
    /// Whether it puts a process into a container.
    pub(super) fn makes_process(self) -> bool {
        self.makes_init() || self == Self::Exec
    }

    /// Whether that process is the container's init.
    pub(super) fn makes_init(self) -> bool {
        matches!(self, Self::Create | Self::Run | Self::Restore)
    }
}

/// What a command line makes of a process that was nothing in particular.
pub(super) fn take_invocation(process: &mut TracedProcess, invocation: Option<&Invocation>) {
    match invocation {
        Some(Invocation::Daemon) => process.role = Role::Daemon,
        Some(Invocation::Shim(call)) => {
            process.role = Role::Shim(call.operation);
            process.container.clone_from(&call.id);
            process.containerd_namespace.clone_from(&call.containerd_namespace);
        }
        Some(Invocation::Runtime(call)) => {
            process.role = Role::Runtime(call.operation);
            if call.id.is_some() {
                process.container.clone_from(&call.id);
            }
            if call.containerd_namespace.is_some() {
                process.containerd_namespace.clone_from(&call.containerd_namespace);
            }
        }
        Some(Invocation::RuntimeInit) | None => {}
    }
}
