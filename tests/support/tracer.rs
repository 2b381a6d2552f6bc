//! Kills a program at its N-th system call, or has that call fail, by ptrace(2): exact where a delay would be a guess.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Whose system calls count, and who is killed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Victim {
    /// The program itself.
    Runtime,
    /// What it clones, counted together.
    Others,
    /// All of them at the same time.
    All,
}

/// What happens at the system call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Act {
    /// The victim is killed.
    Kill,
    /// The kernel does nothing and gives this error.
    Fail(Errno),
}

/// What became of a traced program.
#[derive(Debug)]
pub(crate) struct Traced {
    /// The number of the system call that was reached, if it was.
    pub(crate) call: Option<u64>,
    /// It ended with status 0.
    pub(crate) succeeded: bool,
}

/// Runs a program to its end and acts when the victim enters its `number`-th system call from 1.
///
/// Processes that outlive the program are let go. Its standard error goes to `errors`.
pub(crate) fn act_at(
    (arguments, directory): (&[String], &Path),
    errors: Stdio,
    victim: Victim,
    act: Act,
    number: usize,
) -> Traced {
    let program = start_stopped(arguments, directory, errors);
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC;
    ptrace::seize(program, options).expect("root may trace its child");
    kill(program, Signal::SIGCONT).expect("it is there");
    let mut trace = Trace {
        program,
        victim,
        act,
        left: number,
        runs: false,
        inside: BTreeSet::new(),
        known: BTreeSet::from([program]),
        failing: None,
        traced: Traced { call: None, succeeded: false },
    };
    while trace.known.contains(&program) {
        trace.step();
    }
    trace.let_go();
    trace.traced
}

/// close(2) on x86_64.
const CLOSE: u64 = 3;

/// What cannot fail, or must not: rt_sigaction(2), rt_sigprocmask(2), rt_sigreturn(2), exit(2) and exit_group(2) on x86_64.
const UNFAILING: [u64; 5] = [13, 14, 15, 60, 231];

/// A shell that stops itself becomes the program when it goes on: until then it can be seized.
#[allow(clippy::zombie_processes, reason = "the trace waits for it, by its pid")]
fn start_stopped(arguments: &[String], directory: &Path, errors: Stdio) -> Pid {
    let child = Command::new("sh")
        .args(["-c", "kill -STOP $$; exec \"$@\"", "sh"])
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .process_group(0)
        .spawn()
        .expect("sh runs");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("it is a child");
    assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
    pid
}

struct Trace {
    program: Pid,
    victim: Victim,
    act: Act,
    /// System calls until it happens.
    left: usize,
    /// The shell has become the program.
    runs: bool,
    /// Who is between the entry and the exit of a system call.
    inside: BTreeSet<Pid>,
    known: BTreeSet<Pid>,
    /// Whose system call is to end with an error.
    failing: Option<(Pid, Errno)>,
    traced: Traced,
}

impl Trace {
    /// Handles one stop or end of anybody.
    fn step(&mut self) {
        // Of this thread alone: other tests have children, too.
        let status = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD));
        match status.expect("the program is a child") {
            WaitStatus::PtraceSyscall(pid) => {
                self.known.insert(pid);
                let enters = !self.inside.remove(&pid) && self.inside.insert(pid);
                if enters && self.counts(pid) {
                    self.left -= 1;
                    if self.left == 0 {
                        self.act(pid);
                    }
                }
                if !enters {
                    self.fail(pid);
                }
                go_on(pid, None);
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                self.known.insert(pid);
                self.runs |= event == ptrace::Event::PTRACE_EVENT_EXEC as i32;
                self.learn_clone(pid, event);
                go_on(pid, None);
            }
            WaitStatus::Stopped(pid, signal) => {
                self.known.insert(pid);
                go_on(pid, Some(signal));
            }
            WaitStatus::Exited(pid, status) => {
                self.traced.succeeded |= pid == self.program && status == 0;
                self.forget(pid);
            }
            WaitStatus::Signaled(pid, ..) => self.forget(pid),
            other => panic!("an unexpected stop: {other:?}"),
        }
    }

    /// Whoever was cloned is traced from then on, also before its first stop is reported.
    fn learn_clone(&mut self, pid: Pid, event: i32) {
        use ptrace::Event::{PTRACE_EVENT_CLONE, PTRACE_EVENT_FORK, PTRACE_EVENT_VFORK};
        let is_clone = [PTRACE_EVENT_CLONE, PTRACE_EVENT_FORK, PTRACE_EVENT_VFORK]
            .iter()
            .any(|one| event == *one as i32);
        if let (true, Ok(new)) = (is_clone, ptrace::getevent(pid)) {
            self.known.extend(i32::try_from(new).map(Pid::from_raw));
        }
    }

    fn counts(&self, pid: Pid) -> bool {
        let is_victim = match self.victim {
            Victim::Runtime => pid == self.program,
            Victim::Others => pid != self.program,
            Victim::All => true,
        };
        is_victim && self.runs && self.left > 0
    }

    fn forget(&mut self, pid: Pid) {
        self.known.remove(&pid);
        self.inside.remove(&pid);
    }

    /// At the entry of a system call.
    fn act(&mut self, pid: Pid) {
        let Ok(mut registers) = ptrace::getregs(pid) else { return };
        self.traced.call = Some(registers.orig_rax);
        match self.act {
            Act::Kill => self.kill(),
            Act::Fail(_) if UNFAILING.contains(&registers.orig_rax) => {}
            Act::Fail(error) => {
                // Linux takes a descriptor away also where close(2) gives an error.
                if registers.orig_rax != CLOSE {
                    registers.orig_rax = u64::MAX;
                    ptrace::setregs(pid, registers).expect("it stands");
                }
                self.failing = Some((pid, error));
            }
        }
    }

    /// At the exit of the system call that is to fail.
    fn fail(&mut self, pid: Pid) {
        if let Some((_, error)) = self.failing.take_if(|(failing, _)| *failing == pid) {
            let mut registers = ptrace::getregs(pid).expect("it stands");
            registers.rax = i64::from(-(error as i32)).cast_unsigned();
            ptrace::setregs(pid, registers).expect("it stands");
        }
    }

    fn kill(&self) {
        for pid in &self.known {
            let is_victim = match self.victim {
                Victim::Runtime => *pid == self.program,
                Victim::Others => *pid != self.program,
                Victim::All => true,
            };
            if is_victim {
                match kill(*pid, Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => panic!("cannot kill {pid}: {error}"),
                }
            }
        }
    }

    /// Detaches from whoever is left, which takes a stop. In the order in which they report: the first process of a PID
    /// namespace ends after the others.
    fn let_go(&mut self) {
        self.known.retain(|pid| ptrace::interrupt(*pid).is_ok());
        while !self.known.is_empty() {
            let (pid, signal) = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => {
                    self.known.remove(&pid);
                    continue;
                }
                Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
                Ok(WaitStatus::PtraceEvent(pid, ..) | WaitStatus::PtraceSyscall(pid)) => (pid, None),
                Ok(other) => panic!("an unexpected stop: {other:?}"),
                Err(Errno::ECHILD) => return,
                Err(error) => panic!("cannot wait: {error}"),
            };
            if ptrace::detach(pid, signal).is_ok() {
                self.known.remove(&pid);
            }
        }
    }
}

/// A process that was killed meanwhile is no error: its end is reported next.
fn go_on(pid: Pid, signal: Option<Signal>) {
    match ptrace::syscall(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("cannot let {pid} go on: {error}"),
    }
}
