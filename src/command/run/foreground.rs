//! What goes on while the container runs: its terminal is carried, signals are passed on, its end is awaited.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use inspect_probes::name::Pid;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, WaitOptions, WaitStatus, pidfd_open, waitpid};

use super::console::Console;
use super::engine::Engine;
use super::watch::Watch;
use crate::error::CommandError;
use crate::output::Output;

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Bytes carried at once.
const CHUNK: usize = 16 << 10;

/// Signals as messages of a descriptor.
#[derive(Debug)]
pub(super) struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// Blocks the signals that are passed on, and the one that tells of a new window size.
    pub(super) fn take() -> Result<Self, CommandError> {
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
            Signal::SIGWINCH,
        ] {
            set.add(signal);
        }
        set.thread_block().map_err(CommandError::trouble)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let descriptor = SignalFd::with_flags(&set, flags).map_err(CommandError::trouble)?;
        Ok(Self { descriptor })
    }

    fn next(&self) -> Option<i32> {
        let signal = self.descriptor.read_signal().ok().flatten()?;
        i32::try_from(signal.ssi_signo).ok()
    }
}

/// The container's init process, held by a descriptor so that its pid cannot come to mean another.
#[derive(Debug)]
pub(super) struct Process {
    descriptor: OwnedFd,
    pid: rustix::process::Pid,
}

impl Process {
    pub(super) fn open(pid: Pid) -> Result<Self, CommandError> {
        let gone =
            || CommandError::trouble(format!("the container's process {pid} is gone before its start"));
        let raw = i32::try_from(pid.get()).ok().and_then(rustix::process::Pid::from_raw).ok_or_else(gone)?;
        let descriptor = pidfd_open(raw, PidfdFlags::empty()).map_err(|_| gone())?;
        Ok(Self { descriptor, pid: raw })
    }

    /// Waits for the process, which is our child since the runtime that made it has ended.
    fn reap(&self) -> Result<WaitStatus, CommandError> {
        loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Ok(Some((_, status))) => return Ok(status),
                Ok(None) | Err(Errno::INTR) => {}
                Err(errno) => return Err(CommandError::trouble(errno)),
            }
        }
    }
}

/// Which of the streams are still open.
struct Carrier {
    console: Option<Console>,
    input_open: bool,
    output_open: bool,
}

/// Carries on until the process ends, and gives how it ended.
pub(super) fn follow(
    process: &Process,
    engine: &Engine,
    console: Option<Console>,
    signals: &Signals,
    watch: &mut Watch,
    output: &mut Output,
) -> Result<WaitStatus, CommandError> {
    let open = console.is_some();
    let mut carrier = Carrier { console, input_open: open, output_open: open };
    let mut stopping = false;
    let mut next_look = Instant::now() + WATCH_INTERVAL;
    loop {
        let ready = wait(process, signals, &carrier, watch.is_on().then_some(next_look))?;
        if ready.input {
            carrier.carry_input();
        }
        if ready.output {
            carrier.carry_output(output)?;
        }
        while let Some(signal) = ready.signal.then(|| signals.next()).flatten() {
            pass_on(signal, engine, &carrier, &mut stopping);
        }
        if watch.is_on() && Instant::now() >= next_look {
            watch.show(output);
            next_look = Instant::now() + WATCH_INTERVAL;
        }
        if ready.ended {
            // What it wrote last is still in the terminal.
            while carrier.output_open && carrier.has_output() {
                carrier.carry_output(output)?;
            }
            return process.reap();
        }
    }
}

/// Who has something.
#[derive(Debug, Default)]
struct Ready {
    ended: bool,
    signal: bool,
    input: bool,
    output: bool,
}

fn wait(
    process: &Process,
    signals: &Signals,
    carrier: &Carrier,
    until: Option<Instant>,
) -> Result<Ready, CommandError> {
    let stdin = std::io::stdin();
    let mut fds = vec![
        PollFd::new(&process.descriptor, PollFlags::IN),
        PollFd::new(&signals.descriptor, PollFlags::IN),
    ];
    if let Some(console) = &carrier.console {
        let or_none = |open: bool| if open { PollFlags::IN } else { PollFlags::empty() };
        if carrier.output_open {
            fds.push(PollFd::new(&console.master, PollFlags::IN));
        }
        if carrier.input_open {
            fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), or_none(carrier.input_open)));
        }
    }
    let timeout = until.map(|until| {
        let left = until.saturating_duration_since(Instant::now());
        Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) }
    });
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(CommandError::trouble(errno)),
    }
    let has = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
    let output = carrier.output_open && has(2);
    let input = carrier.input_open && has(if carrier.output_open { 3 } else { 2 });
    Ok(Ready { ended: has(0), signal: has(1), input, output })
}

fn pass_on(signal: i32, engine: &Engine, carrier: &Carrier, stopping: &mut bool) {
    if signal == Signal::SIGWINCH as i32 {
        if let Some(console) = &carrier.console {
            console.resize();
        }
        return;
    }
    let ends = [Signal::SIGINT as i32, Signal::SIGTERM as i32].contains(&signal);
    // The first process of a pid namespace ignores what it has no handler for: who asks twice means it.
    let signal = if ends && *stopping { Signal::SIGKILL as i32 } else { signal };
    *stopping |= ends;
    engine.kill(signal);
}

impl Carrier {
    fn carry_input(&mut self) {
        let Some(console) = &self.console else { return };
        let mut buffer = [0; CHUNK];
        let read = rustix::io::read(std::io::stdin(), &mut buffer);
        let written = match read {
            Ok(0) => {
                self.input_open = false;
                console.end_input()
            }
            Ok(count) => write_all(console.master.as_fd(), &buffer[..count]),
            Err(Errno::INTR | Errno::AGAIN) => return,
            Err(errno) => Err(errno),
        };
        self.input_open &= written.is_ok();
    }

    fn carry_output(&mut self, output: &mut Output) -> Result<(), CommandError> {
        let Some(console) = &self.console else { return Ok(()) };
        let mut buffer = [0; CHUNK];
        match rustix::io::read(&console.master, &mut buffer) {
            Ok(count) if count > 0 => output.print_bytes(&buffer[..count]),
            Err(Errno::INTR | Errno::AGAIN) => Ok(()),
            // EIO: nobody inside has the terminal open any more.
            Ok(_) | Err(_) => {
                self.output_open = false;
                Ok(())
            }
        }
    }

    fn has_output(&self) -> bool {
        let Some(console) = &self.console else { return false };
        let mut fds = [PollFd::new(&console.master, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|count| count > 0)
    }
}

fn write_all(descriptor: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<usize> {
    let total = bytes.len();
    while !bytes.is_empty() {
        match rustix::io::write(descriptor, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(total)
}
