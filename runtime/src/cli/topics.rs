//! What each command takes and does, for `--help`.

/// A command.
#[derive(Debug)]
pub struct Topic {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its options and arguments.
    pub(crate) usage: &'static str,
    /// What it does.
    pub(crate) purpose: &'static str,
}

const fn topic(name: &'static str, usage: &'static str, purpose: &'static str) -> Topic {
    Topic { name, usage, purpose }
}

/// All commands.
pub(crate) const TOPICS: &[Topic] = &[
    topic(
        "create",
        "[-b DIR] [--console-socket S] [--pidfd-socket S] [--pid-file F] [--no-pivot] [--no-new-keyring] \
         [--preserve-fds N] ID",
        "prepares a container, whose program waits for `start`",
    ),
    topic("delete", "[-f] ID", "removes what a container left"),
    topic("events", "[--stats] [--interval D] ID", "writes a container's figures and events"),
    topic(
        "exec",
        "[-d] [-t] [-u UID[:GID]] [-g GID] [-e K=V] [-c CAP] [-p FILE] [--cwd DIR] [--console-socket S] \
         [--pidfd-socket S] [--pid-file F] [--process-label L] [--apparmor P] [--no-new-privs] [--preserve-fds N] \
         [--cgroup PATH] [--ignore-paused] ID [PROGRAM [ARGUMENT...]]",
        "runs a further process in a container",
    ),
    topic("features", "", "writes what the runtime can do"),
    topic("kill", "[-a] ID [SIGNAL]", "sends a signal to the program of a container"),
    topic("list", "[-f table|json] [-q]", "lists the containers of the root"),
    topic("pause", "ID", "freezes a container"),
    topic("ps", "[-f table|json] ID [PS-ARGUMENT...]", "lists the processes of a container"),
    topic("resume", "ID", "thaws a container"),
    topic(
        "run",
        "[-b DIR] [-d] [--keep] [--console-socket S] [--pidfd-socket S] [--pid-file F] [--no-pivot] \
         [--no-new-keyring] [--preserve-fds N] ID",
        "creates a container and starts its program",
    ),
    topic("spec", "[-b DIR] [--rootless]", "writes a new config.json"),
    topic("start", "ID", "starts the program of a created container"),
    topic("state", "ID", "writes the state of a container"),
    topic(
        "update",
        "[-r FILE] [--blkio-weight N] [--cpu-period N] [--cpu-quota N] [--cpu-burst N] [--cpu-share N] [--cpu-idle N] \
         [--cpuset-cpus S] [--cpuset-mems S] [--memory N] [--memory-reservation N] [--memory-swap N] [--pids-limit N] \
         [--l3-cache-schema S] [--mem-bw-schema S] ID",
        "changes the limits of a container",
    ),
];
