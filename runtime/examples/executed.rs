//! Which functions of a program a command executes: what `runtime/order.ld` is made from.
//!
//! `executed PROGRAM ARGUMENT...` as root runs the command, one instruction after the other (ptrace(2)), and its children with
//! it, and prints the linker's names of the functions of PROGRAM that any of them executed, in the order in which they did first,
//! without the crates' hashes. The program must have its symbols (`CARGO_PROFILE_RELEASE_STRIP=none`) and be at a fixed
//! address, as the static one is; `nm` reads them.
#![allow(clippy::disallowed_methods, reason = "a program of its own reads its arguments")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own, for the developer")]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first().ok_or_else(|| "executed PROGRAM ARGUMENT...".into()).and_then(run) {
        Ok(names) => {
            names.iter().for_each(|name| println!("{name}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run((program, arguments): (&String, &[String])) -> Outcome<Vec<String>> {
    let functions = functions(program)?;
    let mut command = Command::new(program);
    command.args(arguments).stdout(std::process::Stdio::null());
    #[allow(unsafe_code, reason = "the child has to ask for being traced")]
    // SAFETY: the one system call made between fork and execve is safe there.
    unsafe {
        command.pre_exec(|| Ok(ptrace::traceme()?));
    }
    let first = Pid::from_raw(i32::try_from(command.spawn()?.id())?);
    waitpid(first, None)?;
    let children = Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK;
    ptrace::setoptions(first, children | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL)?;
    ptrace::step(first, None)?;
    let (mut seen, mut executed) = (BTreeSet::new(), Vec::new());
    loop {
        let (pid, signal) = match waitpid(None, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) if pid == first => {
                return Ok(executed);
            }
            WaitStatus::Stopped(pid, Signal::SIGTRAP | Signal::SIGSTOP) => (pid, None),
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            // The container's program, or a hook: what is at its addresses is something else.
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) if pid != first => {
                ptrace::detach(pid, None)?;
                continue;
            }
            WaitStatus::PtraceEvent(pid, ..) => (pid, None),
            _ => continue,
        };
        if let Ok(registers) = ptrace::getregs(pid)
            && let Some((start, (end, names))) = functions.range(..=registers.rip).next_back()
            && registers.rip < *end
            && seen.insert(*start)
        {
            executed.extend(names.iter().cloned());
        }
        // One that has just been killed cannot be let go on.
        ptrace::step(pid, signal).ok();
    }
}

/// The functions by address: where each ends, and its names.
fn functions(program: &str) -> Outcome<BTreeMap<u64, (u64, Vec<String>)>> {
    let symbols = Command::new("nm").args(["--print-size", program]).output()?;
    let text = String::from_utf8(symbols.stdout)?;
    let mut functions: BTreeMap<u64, (u64, Vec<String>)> = BTreeMap::new();
    for line in text.lines() {
        let [address, size, "t" | "T" | "w" | "W", name] = line.split(' ').collect::<Vec<_>>()[..] else {
            continue;
        };
        let (address, size) = (u64::from_str_radix(address, 16)?, u64::from_str_radix(size, 16)?);
        functions.entry(address).or_insert((address + size, Vec::new())).1.push(without_hashes(name));
    }
    if functions.is_empty() { Err(format!("{program} has no symbols").into()) } else { Ok(functions) }
}

/// A mangled name with `*` for each crate's disambiguator (`Cs<base-62 number>_`), which changes with versions and flags.
fn without_hashes(name: &str) -> String {
    let mut parts = name.split("Cs");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str("Cs");
        match part.split_once('_') {
            Some((hash, rest))
                if hash.len() >= 8 && hash.bytes().all(|byte| byte.is_ascii_alphanumeric()) =>
            {
                plain.push_str("*_");
                plain.push_str(rest);
            }
            _ => plain.push_str(part),
        }
    }
    plain
}
