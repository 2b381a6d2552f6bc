//! `cargo lab demo`: what `inspect` is for, shown on a node that was booted for it.

use std::process::Stdio;
use std::time::Duration;

use crate::binaries;
use crate::child;
use crate::cli::DemoArgs;
use crate::error::LabError;
use crate::generation::Recipe;
use crate::node;
use crate::progress::Progress;
use crate::ssh::Connection;
use crate::store::Store;
use crate::sync;

/// One thing shown: a sentence on what it is, and the command lines as somebody would type them on the node.
struct Step {
    says: &'static str,
    lines: &'static [&'static str],
}

/// The demonstration, in order. Every line has to succeed; what a later step needs, an earlier one made.
const STEPS: &[Step] = &[
    Step {
        says: "Two containerd namespaces, and an image in each",
        lines: &[
            "ctr images import /opt/lab/images/busybox.tar",
            "ctr -n shop images import /opt/lab/images/busybox.tar",
        ],
    },
    Step {
        says: "A container with an exec process inside",
        lines: &[
            "ctr run -d docker.io/library/busybox:latest web sleep 100000",
            "ctr tasks exec -d --exec-id debug web sleep 100001",
        ],
    },
    Step {
        says: "One with a terminal, one that forks children, one that is paused, one made by another runtime",
        lines: &[
            "script -qc 'ctr run -d -t docker.io/library/busybox:latest console sh' /dev/null",
            "ctr -n shop run -d --memory-limit 67108864 docker.io/library/busybox:latest queue \
             sh -c 'sleep 100002 & sleep 100003 & wait'",
            "ctr -n shop run -d docker.io/library/busybox:latest batch sleep 100004",
            "ctr -n shop tasks pause batch",
            "ctr -n shop run -d --runc-binary crun docker.io/library/busybox:latest cart sleep 100005",
        ],
    },
    Step { says: "All of it, from systemd down to the processes", lines: &["inspect tree"] },
    Step {
        says: "A spec written by hand beside the one that containerd generated: they differ, which is status 1",
        lines: &["inspect diff-spec /opt/lab/images/phase1.json web || test $? -eq 1"],
    },
    Step {
        says: "What the limits of a spec became in the kernel, and which ancestor really binds",
        lines: &["inspect cgroup shop/queue"],
    },
    Step {
        says: "A container made by the built-in runtime, and why it was that one",
        lines: &[
            "ctr run -d --runc-binary inspect-runtime docker.io/library/busybox:latest own sleep 100006",
            "inspect why own",
        ],
    },
    Step {
        says: "The daemon is stopped; the containers are still there",
        lines: &["systemctl stop containerd", "inspect tree", "systemctl start containerd"],
    },
    Step {
        says: "The runtime under containerd is swapped: proven by canaries, the containers live on, and back to the very bytes",
        lines: &[
            "inspect swap-runtime crun --dry-run",
            "inspect swap-runtime crun --yes",
            "inspect swap-runtime --status",
            "inspect swap-runtime --undo --yes",
        ],
    },
];

/// One line of the demonstration under emulation.
const LINE_BOUND: Duration = Duration::from_secs(180);

/// Boots a node, shows the steps on standard output, and ends the node unless it is to be kept.
pub(crate) fn demo(store: &Store, arguments: &DemoArgs, progress: &Progress) -> Result<(), LabError> {
    let programs = binaries::build_programs(progress)?;
    let recipe = Recipe { generation: arguments.generation, engines: false };
    let name = format!("demo-{}", std::process::id());
    let owned = node::boot(store, recipe, &name, &arguments.hardware, progress)?;
    sync::programs(store, &owned.machine, &programs, progress)?;
    let connection = Connection::to(store, &owned.machine);
    for step in STEPS {
        progress.result(&format!("\n# {}", step.says));
        for line in step.lines {
            progress.result(&format!("$ {line}"));
            show(&connection, line)?;
        }
    }
    if arguments.keep {
        let machine = owned.hand_over()?;
        progress
            .line(&format!("lab: the node stays up; end it with: cargo lab down --name {}", machine.name));
    }
    Ok(())
}

/// Runs one line on the node, its output on this terminal.
fn show(connection: &Connection, line: &str) -> Result<(), LabError> {
    let spawned = connection.shell_command(line).stdin(Stdio::null()).spawn();
    let mut showing = spawned.map_err(|source| LabError::Spawn { program: "ssh".into(), source })?;
    let seconds = LINE_BOUND.as_secs();
    let (program, purpose, tail) =
        (line.to_owned(), "end as part of the demonstration".to_owned(), String::new());
    match child::wait(&mut showing, LINE_BOUND)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(LabError::Failed { program, purpose, status: status.to_string(), tail }),
        None => Err(LabError::TimedOut { program, purpose, seconds, tail }),
    }
}
