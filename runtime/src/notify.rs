//! Passes on to the service manager that started the runtime that a container's program is ready: sd_notify(3).
//!
//! The program cannot reach the manager's socket, and by default the manager listens to the main process of the service alone. So, as
//! with runc, the program gets a socket of the runtime's own in `/run/notify`, and the runtime says for it that it is ready and
//! which process is to be watched. Nothing else of what a container says reaches the manager.

use std::cell::Cell;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use oci_spec::runtime::{MountBuilder, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, recv, send,
    socket_with,
};

use crate::log::Log;
use crate::process::channel::send_with_descriptors;
use crate::start::with_short_path;
use crate::step::{Step, StepError};

/// The directory below the state's that the container sees.
const DIRECTORY: &str = "notify";
/// The socket in it.
const SOCKET: &str = "notify.sock";
/// Where the container sees the directory.
const INSIDE: &str = "/run/notify";
/// How long the manager may take to have read what it was told, in seconds: as long as sd_notify_barrier(3) gets from others.
const PATIENCE: i64 = 30;

/// Has the program find the socket of a container with this state directory.
pub(crate) fn add_to(spec: &mut Spec, state: &Path) {
    let mount = MountBuilder::default()
        .destination(INSIDE)
        .typ("bind")
        .source(state.join(DIRECTORY))
        .options(["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec());
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.extend(mount.build());
    spec.set_mounts(Some(mounts));
    if let Some(mut process) = spec.process().clone() {
        let mut environment = process.env().clone().unwrap_or_default();
        environment.push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
        process.set_env(Some(environment));
        spec.set_process(Some(process));
    }
}

/// Makes what [`add_to`] mounts, whatever the caller's mask leaves of modes: any user of the container may say that it is ready.
pub(crate) fn make_directory(state: &Path) -> Result<(), StepError> {
    let path = state.join(DIRECTORY);
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::create_dir(&path)
        .and_then(|()| std::fs::set_permissions(&path, everybody))
        .step("make", path.display())
}

/// What a container's program says, and who is to hear of it.
#[derive(Debug)]
pub(crate) struct Notifications<'a> {
    socket: OwnedFd,
    /// Connected while the runtime is in the network namespace that it was started in, which an abstract name belongs to.
    manager: OwnedFd,
    log: &'a Log,
    has_told: Cell<bool>,
}

impl<'a> Notifications<'a> {
    /// Listens for what the program says from now on. `None` for a container that was created without, and where nobody would hear of it:
    /// a container is not to fail of a manager that does not listen.
    pub(crate) fn listen(state: &Path, manager: &str, log: &'a Log) -> Result<Option<Self>, StepError> {
        let manager = match connect_manager(manager) {
            Ok(manager) => manager,
            Err(error) => {
                log.warning(&crate::step::chain(&error));
                return Ok(None);
            }
        };
        let path = state.join(DIRECTORY).join(SOCKET);
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
        let socket = socket.step("make", "a socket")?;
        match with_short_path(&path, |address| bind(&socket, address)) {
            Err(Errno::NOENT) => return Ok(None),
            bound => bound.step("bind", path.display())?,
        }
        let everybody = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(&path, everybody).step("change the mode of", path.display())?;
        Ok(Some(Notifications { socket, manager, log, has_told: Cell::new(false) }))
    }

    /// Readable when something was said.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes what was said, and passes it on when it is for the first time that the program is ready. Whoever lives as long as the program
    /// goes on taking: senders may wait until they are heard (sd_notify_barrier(3)).
    pub(crate) fn heed(&self, pid: i32) {
        if self.take_ready() && !self.has_told.replace(true) {
            self.pass_on(pid, false);
        }
    }

    fn take_ready(&self) -> bool {
        let mut said = [0_u8; 4096];
        let Ok((length, _)) = recv(&self.socket, &mut said, RecvFlags::DONTWAIT) else { return false };
        said[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
    }

    /// Tells the manager, which is to watch process `pid` from now on. It is told whose word it was by the process that sent it:
    /// one that ends soon waits (`waits`) until the manager has read it.
    fn pass_on(&self, pid: i32, waits: bool) {
        if let Err(error) = tell(&self.manager, pid, waits) {
            self.log.warning(&crate::step::chain(&error));
        }
    }

    /// Waits until the program is ready, and passes that on, or until the process behind the pidfd has ended.
    pub(crate) fn await_ready(&self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<(), StepError> {
        loop {
            let mut ready =
                [PollFd::new(&self.socket, PollFlags::IN), PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
            match poll(&mut ready, None) {
                Err(Errno::INTR) => continue,
                polled => polled.step("wait for", "the container's program")?,
            };
            let (has_said, has_ended) = (!ready[0].revents().is_empty(), !ready[1].revents().is_empty());
            if has_said && self.take_ready() {
                self.pass_on(pid, true);
                return Ok(());
            }
            if has_ended && !has_said {
                return Ok(());
            }
        }
    }
}

fn connect_manager(manager: &str) -> Result<OwnedFd, StepError> {
    let object = || format!("{manager:?} (NOTIFY_SOCKET)");
    let address = match manager.strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        None => SocketAddrUnix::new(manager),
    };
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    let socket = socket.step("make", "a socket")?;
    connect(&socket, &address.step("use", object())?).step("connect to", object())?;
    Ok(socket)
}

fn tell(manager: &OwnedFd, pid: i32, waits: bool) -> Result<(), StepError> {
    const OBJECT: &str = "NOTIFY_SOCKET";
    let message = format!("READY=1\nMAINPID={pid}\n");
    send(manager, message.as_bytes(), SendFlags::NOSIGNAL).step("write to", OBJECT)?;
    if !waits {
        return Ok(());
    }
    // sd_notify_barrier(3): the manager closes its copy of the descriptor once it has read what came before.
    let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (reader, writer) = pipe.step("make", "a pipe")?;
    send_with_descriptors(manager.as_fd(), b"BARRIER=1", &[writer.as_fd()]).step("write to", OBJECT)?;
    drop(writer);
    let patience = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
    poll(&mut [PollFd::new(&reader, PollFlags::empty())], Some(&patience)).step("await", OBJECT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn listen<'a>(state: &Path, manager: &str, log: &'a Log) -> Option<Notifications<'a>> {
        Notifications::listen(state, manager, log).unwrap()
    }

    #[test]
    fn only_that_it_is_ready_is_passed_on() {
        let root = tempfile::tempdir().unwrap();
        // Longer than an address may be.
        let state = root.path().join("d".repeat(120));
        std::fs::create_dir(&state).unwrap();
        let manager = root.path().join("manager");
        let host = UnixDatagram::bind(&manager).unwrap();
        let (log, manager) = (Log::new(None, crate::cli::LogFormat::Text, false), manager.to_str().unwrap());
        assert!(listen(&state, manager, &log).is_none(), "it was created without");
        make_directory(&state).unwrap();
        assert!(listen(&state, "@nobody listens there", &log).is_none());
        let notifications = listen(&state, manager, &log).unwrap();
        let program = UnixDatagram::unbound().unwrap();
        // The directory's descriptor, for the same reason.
        let directory = std::fs::File::open(state.join(DIRECTORY)).unwrap();
        let place = format!("/proc/self/fd/{}/{SOCKET}", std::os::fd::AsRawFd::as_raw_fd(&directory));
        let say = |text: &str| {
            program.send_to(text.as_bytes(), &place).unwrap();
            notifications.take_ready()
        };
        assert!(!say("STATUS=x") && !say("READY=0") && !say("XREADY=1"));
        assert!(say("STATUS=x\nREADY=1\nMAINPID=1"));
        notifications.pass_on(7, false);
        let mut heard = [0_u8; 64];
        let length = host.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1\nMAINPID=7\n");
    }
}
