//! The standard streams, which every process is to have.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::stdio::{stderr, stdin, stdout};

use crate::step::{Step, StepError};

/// Opens `/dev/null` for each standard stream that is closed, lest a file of the runtime gets its number.
pub(crate) fn ensure() {
    let streams = [stdin(), stdout(), stderr()];
    let mut polled = streams.each_ref().map(|stream| PollFd::new(stream, PollFlags::empty()));
    if poll(&mut polled, Some(&Timespec::default())) == Ok(0) {
        return;
    }
    for stream in &polled {
        if stream.revents().contains(PollFlags::NVAL) {
            // The lowest free number is the closed stream's.
            let opened = rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty());
            std::mem::forget(opened);
        }
    }
}

/// How many descriptors after 2 the payload keeps: `asked` for, and those of a listener. Refused where one of them is not there:
/// something of the runtime's could get its number.
pub(crate) fn preserved(asked: u32, listening: u32) -> Result<u32, StepError> {
    let count = asked.saturating_add(listening);
    for number in (3..).take(usize::try_from(count).unwrap_or(usize::MAX)) {
        check_preserved(number)?;
    }
    Ok(count)
}

/// By proc_pid_fdinfo(5): what the runtime has opened for itself is closed on exec (`O_CLOEXEC`), and nobody else's can be.
fn check_preserved(number: u64) -> Result<(), StepError> {
    let operation = "preserve the descriptor";
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).step(operation, number)?;
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0);
    if flags & OFlags::CLOEXEC.bits() == 0 {
        return Ok(());
    }
    Err(StepError::refused(operation, number, "the caller has not opened it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_open_can_be_preserved() {
        assert_eq!(preserved(0, 0).unwrap(), 0);
        check_preserved(0).unwrap();
        assert!(check_preserved(1 << 40).unwrap_err().to_string().contains("preserve the descriptor"));
        let own = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&own);
        check_preserved(number.try_into().unwrap()).unwrap_err();
    }
}
