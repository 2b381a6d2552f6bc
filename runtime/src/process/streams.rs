//! The standard streams, which every process is to have.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::stdio::{stderr, stdin, stdout};

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
