//! A process in the foreground: signals go to it, its terminal is the caller's, its end is the runtime's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, waitid};
use rustix::pty::OpenptFlags;
use rustix::termios::{
    OptionalActions, OutputModes, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use super::channel::receive_with_descriptors;
use crate::notify::Notifications;
use crate::step::{Step, StepError};
use crate::sys::{self, SignalSet};

/// The two ends of a console socket that the runtime holds both of.
pub(crate) struct Console {
    receiver: OwnedFd,
}

impl Console {
    /// The end that gets the terminal, and the one for the container's process.
    pub(crate) fn pair() -> Result<(Self, OwnedFd), StepError> {
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let (receiver, sender) = pair.step("make", "a console socket")?;
        Ok((Console { receiver }, sender))
    }

    fn receive(self) -> Result<OwnedFd, StepError> {
        let mut name = [0_u8; 64];
        let (_, [master, _]) =
            receive_with_descriptors(self.receiver.as_fd(), &mut name).step("receive", "the terminal")?;
        master.ok_or(Errno::PIPE).step("receive", "the terminal")
    }
}

/// Waits for the process and gives the status the runtime ends with: its own, or 128 and the signal's number.
///
/// All signals must have been blocked since before the process was made, lest its end goes unnoticed.
/// What it says to `notifications` meanwhile is heeded.
pub(crate) fn wait(
    pidfd: BorrowedFd<'_>,
    console: Option<Console>,
    notifications: Option<&Notifications<'_>>,
) -> Result<u8, StepError> {
    let signals = SignalSet::all();
    let status = match (console, notifications) {
        (None, None) => forward_signals(pidfd, &signals)?,
        (None, Some(notifications)) => {
            pass_on_and_forward(pidfd, &signals, notifications)?;
            reap(pidfd, WaitIdOptions::EXITED)?
        }
        (Some(console), _) => {
            relay(pidfd, &signals, &console.receive()?, notifications)?;
            reap(pidfd, WaitIdOptions::EXITED)?
        }
    };
    Ok(status.map_or(255, |status| exit_status(&status)))
}

fn reap(pidfd: BorrowedFd<'_>, options: WaitIdOptions) -> Result<Option<WaitIdStatus>, StepError> {
    waitid(WaitId::PidFd(pidfd), options).step("await", "the container's process")
}

fn exit_status(status: &WaitIdStatus) -> u8 {
    let number = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    };
    u8::try_from(number & 0xff).unwrap_or(255)
}

fn forward_signals(pidfd: BorrowedFd<'_>, signals: &SignalSet) -> Result<Option<WaitIdStatus>, StepError> {
    loop {
        match sys::wait_for_signal(signals) {
            // It may be another child's end, or that of one already reaped.
            Ok(libc::SIGCHLD) => match reap(pidfd, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)? {
                None => {}
                status => return Ok(status),
            },
            Ok(signal) => forward(pidfd, signal),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).step("wait for", "a signal"),
        }
    }
}

/// As [`forward_signals`], and listens to the program.
fn pass_on_and_forward(
    pidfd: BorrowedFd<'_>,
    signals: &SignalSet,
    notifications: &Notifications<'_>,
) -> Result<(), StepError> {
    let signal_descriptor = sys::signal_descriptor(signals).step("make", "a signal descriptor")?;
    loop {
        let mut ready = [
            PollFd::new(&signal_descriptor, PollFlags::IN),
            PollFd::from_borrowed_fd(pidfd, PollFlags::IN),
            PollFd::from_borrowed_fd(notifications.fd(), PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Err(Errno::INTR) => continue,
            polled => polled.step("wait for", "the container's process")?,
        };
        let events = [ready[0].revents(), ready[1].revents(), ready[2].revents()];
        if !events[0].is_empty() {
            next_signal(&signal_descriptor).inspect(|signal| forward(pidfd, *signal));
        }
        if !events[2].is_empty() {
            heed(notifications);
        } else if !events[1].is_empty() {
            return Ok(());
        }
    }
}

/// The service's process is the runtime, whose end is the program's.
fn heed(notifications: &Notifications<'_>) {
    notifications.heed(rustix::process::getpid().as_raw_nonzero().get());
}

/// As runc, all but those about the runtime's own children, urgent data and broken pipes.
fn forward(pidfd: BorrowedFd<'_>, signal: i32) {
    if !matches!(signal, libc::SIGCHLD | libc::SIGURG | libc::SIGPIPE) {
        // A process that has just ended gets no more signals.
        sys::send_signal(pidfd, signal).ok();
    }
}

/// The caller's terminal in raw mode; as it was, when this is dropped.
struct RawMode(Option<Termios>);

impl RawMode {
    fn enter() -> Self {
        let stdin = rustix::stdio::stdin();
        let Ok(before) = tcgetattr(stdin) else { return RawMode(None) };
        let mut raw = before.clone();
        raw.make_raw();
        // The container's terminal leaves the end of a line as it is: this one makes it a new line, as everywhere else.
        raw.output_modes |= OutputModes::OPOST;
        match tcsetattr(stdin, OptionalActions::Now, &raw) {
            Ok(()) => RawMode(Some(before)),
            Err(_) => RawMode(None),
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before).ok();
        }
    }
}

/// Carries bytes between the caller's streams and the terminal until the process ends and the terminal has no more.
fn relay(
    pidfd: BorrowedFd<'_>,
    signals: &SignalSet,
    master: &OwnedFd,
    notifications: Option<&Notifications<'_>>,
) -> Result<(), StepError> {
    let signal_descriptor = sys::signal_descriptor(signals).step("make", "a signal descriptor")?;
    let raw_mode = RawMode::enter();
    // With a slave of its own open the master never hangs up: a payload that closes its terminal and goes on would make poll(2)
    // return at once for ever, and might open it again.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let _slave = rustix::pty::ioctl_tiocgptpeer(master, flags).step("open", "the terminal")?;
    copy_size(master);
    let (mut reads_input, mut is_over) = (true, false);
    loop {
        let stdin_events = if reads_input { PollFlags::IN } else { PollFlags::empty() };
        let mut ready = [
            PollFd::new(master, PollFlags::IN),
            PollFd::new(&signal_descriptor, PollFlags::IN),
            PollFd::from_borrowed_fd(pidfd, if is_over { PollFlags::empty() } else { PollFlags::IN }),
            // Without any, for nothing of another descriptor.
            match notifications {
                Some(notifications) => PollFd::from_borrowed_fd(notifications.fd(), PollFlags::IN),
                None => PollFd::new(&signal_descriptor, PollFlags::empty()),
            },
            PollFd::from_borrowed_fd(rustix::stdio::stdin(), stdin_events),
        ];
        // Once the process has ended only what is left in the terminal is waited for: nothing.
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut ready[..if reads_input { 5 } else { 4 }], is_over.then_some(&at_once)) {
            Err(Errno::INTR) => continue,
            result => result.step("wait for", "the terminal")?,
        };
        let events = ready.each_ref().map(PollFd::revents);
        if !events[1].is_empty() {
            take_signal(&signal_descriptor, pidfd, master);
        }
        if let (false, Some(notifications)) = (events[3].is_empty(), notifications) {
            heed(notifications);
        }
        if reads_input && !events[4].is_empty() {
            reads_input = carry(rustix::stdio::stdin(), master.as_fd());
        }
        let has_output = !events[0].is_empty() && carry(master.as_fd(), rustix::stdio::stdout());
        if is_over && !has_output {
            drop(raw_mode);
            return Ok(());
        }
        is_over = is_over || !events[2].is_empty();
    }
}

/// Copies what is there; whether there may be more. A terminal whose other side is closed gives EIO.
fn carry(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut block = [0_u8; 4096];
    let length = match rustix::io::read(from, &mut block) {
        Ok(0) => return false,
        Ok(length) => length,
        Err(Errno::INTR | Errno::AGAIN) => return true,
        Err(_) => return false,
    };
    let mut rest = &block[..length];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

fn take_signal(descriptor: &OwnedFd, pidfd: BorrowedFd<'_>, master: &OwnedFd) {
    match next_signal(descriptor) {
        Some(signal) if signal == Signal::WINCH.as_raw() => copy_size(master),
        Some(signal) => forward(pidfd, signal),
        None => {}
    }
}

fn next_signal(descriptor: &OwnedFd) -> Option<i32> {
    // `struct signalfd_siginfo` starts with the number.
    let mut information = [0_u8; 128];
    let length = rustix::io::read(descriptor, &mut information).ok()?;
    let [first, second, third, fourth, ..] = information;
    (length == information.len()).then(|| i32::from_ne_bytes([first, second, third, fourth]))
}

fn copy_size(master: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
        tcsetwinsize(master, size).ok();
    }
}
