//! `kill`.

use std::os::fd::AsFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroup::Cgroup;
use crate::context::Context;
use crate::error::RuntimeError;
use crate::state::State;
use crate::sys;

/// Sends a signal to the init process, or with `all` to every process of the container.
pub(super) fn run(id: &str, signal: &str, all: bool, context: &Context) -> Result<u8, RuntimeError> {
    let (_, state) = super::load(id, context)?;
    let signal = parse_signal(signal)?;
    // Creation was cut short: what is in the cgroup that it was to have may be another's.
    if state.init_process_pid == 0 {
        return Err(RuntimeError::NotRunning);
    }
    // Without a PID namespace of its own a container's processes outlive its init process.
    if all || (signal == libc::SIGKILL && state.shares_pids) {
        return signal_all(&state, signal, all).map(|()| 0);
    }
    signal_init(&state, signal).map(|()| 0)
}

/// By pidfd: between the check of the start time and the signal the pid cannot become somebody else's.
pub(super) fn signal_init(state: &State, signal: i32) -> Result<(), RuntimeError> {
    let pid = Pid::from_raw(state.init_process_pid).ok_or(RuntimeError::NotRunning)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| RuntimeError::NotRunning)?;
    if !state.is_init_alive() {
        return Err(RuntimeError::NotRunning);
    }
    match sys::send_signal(pidfd.as_fd(), signal) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(RuntimeError::NotRunning),
        Err(error) => {
            Err(RuntimeError::Refused { operation: "signal the init process", reason: error.to_string() })
        }
        Ok(()) => thaw_killed(state, signal),
    }
}

/// A frozen process does not die of a SIGKILL before Linux 5.14's cgroup v2 freezer lets it; it is no use frozen anyway.
fn thaw_killed(state: &State, signal: i32) -> Result<(), RuntimeError> {
    if signal != libc::SIGKILL {
        return Ok(());
    }
    match Cgroup::open(&state.cgroup_path, None) {
        Ok(cgroup) if cgroup.is_frozen().unwrap_or(false) => Ok(cgroup.thaw()?),
        _ => Ok(()),
    }
}

fn signal_all(state: &State, signal: i32, all: bool) -> Result<(), RuntimeError> {
    let Ok(cgroup) = Cgroup::open(&state.cgroup_path, None) else {
        // Without a cgroup of its own (an ordinary user's) nobody knows more of its processes than the first.
        return match signal_init(state, signal) {
            Err(RuntimeError::NotRunning) if all => Ok(()),
            signalled => signalled,
        };
    };
    if signal == libc::SIGKILL {
        return Ok(cgroup.kill_all()?);
    }
    for pid in cgroup.processes()? {
        // One that ends meanwhile needs no signal.
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
            sys::send_signal(pidfd.as_fd(), signal).ok();
        }
    }
    Ok(())
}

/// A number, or a name with or without `SIG`.
fn parse_signal(text: &str) -> Result<i32, RuntimeError> {
    let unknown = || RuntimeError::Signal { signal: text.to_owned() };
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((base, sign, offset)) = split_real_time(name) {
        let offset: i32 = offset.parse::<u8>().map_err(|_| unknown())?.into();
        let number = if sign == '+' { base + offset } else { base - offset };
        return if (34..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    NAMES
        .iter()
        .position(|one| *one == name)
        .and_then(|index| i32::try_from(index + 1).ok())
        .ok_or_else(unknown)
}

/// `RTMIN+3` and `RTMAX-1`, by glibc's numbers, which callers mean.
fn split_real_time(name: &str) -> Option<(i32, char, &str)> {
    let (base, rest) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => (34, rest),
        (_, Some(rest)) => (64, rest),
        _ => return None,
    };
    match rest.chars().next() {
        None => Some((base, '+', "0")),
        Some(sign @ ('+' | '-')) => Some((base, sign, &rest[1..])),
        Some(_) => None,
    }
}

/// The names of signals 1 to 31 (signal(7), x86 and ARM).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn signals_are_numbers_and_names() {
        for (text, number) in
            [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("SYS", 31), ("RTMIN+1", 35)]
        {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for text in ["", "SIG", "65", "-1", "NOPE", "RTMIN+99", "RTMIN+2147483647", "RTMAX--2147483648"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
