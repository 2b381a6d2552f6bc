//! Debian's dockerd on a node under test.
#![allow(dead_code, reason = "every suite is a crate of its own and uses what it needs")]

use std::time::Duration;

use crate::support::{sh, try_sh, wait_until};

/// Its config.
pub(crate) const CONFIG: &str = "/etc/docker/daemon.json";
/// dockerd takes half a minute to start under emulation, and several on a busy machine.
pub(crate) const START: Duration = Duration::from_secs(400);

/// Starts dockerd unless it runs, and waits until it answers.
#[track_caller]
pub(crate) fn start() {
    sh("systemctl --no-block start docker");
    wait_until("dockerd", START, || (try_sh("timeout 20 docker version").status == 0).then_some(()));
}

/// Ends dockerd and starts it again.
#[track_caller]
pub(crate) fn restart() {
    sh("systemctl daemon-reload; systemctl --no-block stop docker docker.socket");
    wait_until("dockerd's end", START, || (try_sh("pidof dockerd").status != 0).then_some(()));
    // systemd refuses the fourth start within a minute.
    drop(try_sh("systemctl reset-failed docker docker.socket"));
    start();
}
