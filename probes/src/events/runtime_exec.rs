//! Which binary a shim really ran: proven by watching it run.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::invocation::{Invocation, RuntimeOperation, parse_invocation};
use super::loss::Loss;
use super::process_image::{FileId, ProcessImage};
use super::recorder::{Event, EventKind, RecordCgroups, Recorder};
use super::{EventError, Timestamp};
use crate::host::Host;
use crate::name::{ContainerId, ContainerdNamespace, Pid};

/// An OCI runtime that was seen running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuntimeExec {
    /// When it was executed.
    pub time: Timestamp,
    /// Its process.
    pub pid: Pid,
    /// Who called it: the shim.
    pub parent: Option<Pid>,
    /// What it was asked.
    pub operation: RuntimeOperation,
    /// For which container.
    pub container: Option<ContainerId>,
    /// In which containerd namespace, as its paths say.
    pub containerd_namespace: Option<ContainerdNamespace>,
    /// Its arguments: the first is the `BinaryName` as it was given.
    pub command_line: Vec<String>,
    /// Its program as the kernel named it. crun executes a protected copy of itself within a millisecond: when we were
    /// later than that, this is `/` and only [`RuntimeExec::file`] tells.
    pub exe: Option<PathBuf>,
    /// Its program's file: compare it with that of the binary that was expected. crun's copy is a mount of the same file.
    pub file: Option<FileId>,
}

/// Watches for OCI runtimes from [`RuntimeExecWatch::start`] on.
///
/// Start it, let containerd create a container, then ask [`RuntimeExecWatch::find_create`].
#[derive(Debug)]
pub struct RuntimeExecWatch {
    recorder: Recorder,
    seen: Vec<RuntimeExec>,
    loss: Loss,
}

impl RuntimeExecWatch {
    /// Subscribes; returns when every exec from now on will be told.
    ///
    /// # Errors
    /// When the kernel's process events cannot be had: see [`EventError`].
    pub fn start(host: &Host) -> Result<Self, EventError> {
        let recorder = Recorder::start(host, RecordCgroups::No)?;
        Ok(Self { recorder, seen: Vec::new(), loss: Loss::default() })
    }

    /// The runtime that was called to `create` (or `run`) a container: waits for it at most `timeout`.
    pub fn find_create(&mut self, container: &ContainerId, timeout: Duration) -> Option<RuntimeExec> {
        let deadline = Instant::now() + timeout;
        let mut next = 0;
        loop {
            let found = self.seen.iter().skip(next).find(|exec| is_create_of(exec, container));
            if let Some(exec) = found {
                return Some(exec.clone());
            }
            next = self.seen.len();
            let left = deadline.saturating_duration_since(Instant::now());
            // What is already there is looked at even when no time is left.
            let event = self.recorder.receive(left)?;
            self.take(event);
        }
    }

    /// Every runtime seen so far, in order.
    pub fn executions(&mut self) -> &[RuntimeExec] {
        while let Some(event) = self.recorder.receive(Duration::ZERO) {
            self.take(event);
        }
        &self.seen
    }

    /// What the kernel could not tell so far: when this is not none, that nothing was seen proves nothing.
    #[must_use]
    pub fn loss(&self) -> Loss {
        self.loss
    }

    fn take(&mut self, event: Event) {
        match event.kind {
            EventKind::Exec { pid, image: Some(image) } => {
                // A runtime that executes itself anew keeps its pid: the first image is the one that was called.
                let again =
                    self.seen.iter().any(|exec| exec.pid == pid && exec.command_line == image.command_line);
                if !again {
                    self.seen.extend(runtime_exec(event.time, pid, *image));
                }
            }
            EventKind::Lost(loss) => self.loss = loss,
            _ => {}
        }
    }
}

fn is_create_of(exec: &RuntimeExec, container: &ContainerId) -> bool {
    matches!(exec.operation, RuntimeOperation::Create | RuntimeOperation::Run)
        && exec.container.as_ref() == Some(container)
}

fn runtime_exec(time: Timestamp, pid: Pid, image: ProcessImage) -> Option<RuntimeExec> {
    let Some(Invocation::Runtime(call)) = parse_invocation(&image.command_line) else { return None };
    Some(RuntimeExec {
        time,
        pid,
        parent: image.parent,
        operation: call.operation,
        container: call.id,
        containerd_namespace: call.containerd_namespace,
        command_line: image.command_line,
        exe: image.exe,
        file: image.file,
    })
}
