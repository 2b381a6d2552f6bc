//! `events`: a container's figures, once or again and again, and its OOM kills.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use serde_json::json;

use crate::cgroup::{Cgroup, CgroupError};
use crate::cli::Parsed;
use crate::context::Context;
use crate::error::RuntimeError;
use crate::state::Status;

/// runc's default.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// Writes the figures of a container that has processes: once with `--stats`, else until it has none.
pub(super) fn run(parsed: &Parsed, context: &Context, output: &mut dyn Write) -> Result<u8, RuntimeError> {
    let id = super::only_id("events", parsed)?;
    let (directory, state) = super::load(id, context)?;
    let interval = parsed.value("interval").map_or(Ok(DEFAULT_INTERVAL), parse_interval)?;
    if super::status(&directory, &state) == Status::Stopped {
        return Err(RuntimeError::NotRunning);
    }
    let cgroup = super::open_cgroup(&state)?;
    if parsed.has("stats") {
        write_stats(&cgroup, id, output)?;
    } else {
        follow(&cgroup, id, interval, output)?;
    }
    Ok(0)
}

/// Why events cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EventsError {
    /// An interval that is no duration of Go's kind, or not above 0.
    #[error("duration interval must be greater than 0, such as 500ms or 5s, not {value:?}")]
    Interval {
        /// What was given.
        value: String,
    },
    /// The figures.
    #[error("cannot read the figures of container `{id}`")]
    Stats {
        /// The container.
        id: String,
        /// Why.
        #[source]
        source: CgroupError,
    },
    /// The kernel's notifications.
    #[error("cannot watch the cgroup of container `{id}`")]
    Watch {
        /// The container.
        id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The output.
    #[error("cannot write an event of container `{id}`")]
    Write {
        /// The container.
        id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Reads a duration as Go writes it: `5s`, `500ms`, `1m30s`, `1.5h`.
///
/// # Errors
/// [`EventsError::Interval`] for one that is not above 0 too.
fn parse_interval(text: &str) -> Result<Duration, EventsError> {
    let wrong = || EventsError::Interval { value: text.to_owned() };
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let split = rest.find(|letter: char| letter.is_ascii_alphabetic()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(split);
        let end = tail.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(end);
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(wrong()),
        };
        seconds += number.parse::<f64>().ok().filter(|number| *number >= 0.0).ok_or_else(wrong)? * unit;
        rest = next;
    }
    let duration = Duration::try_from_secs_f64(seconds).ok();
    duration.filter(|duration| !duration.is_zero()).ok_or_else(wrong)
}

/// Writes the figures once, as `events --stats` does: one line of JSON.
///
/// # Errors
/// [`EventsError`].
fn write_stats(cgroup: &Cgroup, id: &str, output: &mut dyn Write) -> Result<(), EventsError> {
    let data = cgroup.stats().map_err(|source| EventsError::Stats { id: id.to_owned(), source })?;
    write_line(output, id, &json!({ "type": "stats", "id": id, "data": data }))
}

/// Writes the figures each `interval` and a line for each OOM kill, until the container has no process left.
///
/// # Errors
/// [`EventsError`].
fn follow(cgroup: &Cgroup, id: &str, interval: Duration, output: &mut dyn Write) -> Result<(), EventsError> {
    let failed = |source| EventsError::Stats { id: id.to_owned(), source };
    let watch = |errno: Errno| EventsError::Watch { id: id.to_owned(), source: errno.into() };
    let changes =
        inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(watch)?;
    for file in ["cgroup.events", "memory.events"] {
        let path = cgroup.path().join(file);
        match inotify::add_watch(&changes, &path, inotify::WatchFlags::MODIFY) {
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(watch(errno)),
        }
    }
    let mut kills = cgroup.oom_kills().map_err(failed)?.unwrap_or(0);
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&changes, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(watch(errno)),
        }
        drain(&changes).map_err(watch)?;
        let now = cgroup.oom_kills().map_err(failed)?.unwrap_or(kills);
        for _ in kills..now {
            write_line(output, id, &json!({ "type": "oom", "id": id }))?;
        }
        kills = now;
        if !cgroup.is_populated().map_err(failed)? {
            return Ok(());
        }
        if Instant::now() >= next {
            write_stats(cgroup, id, output)?;
            next = Instant::now() + interval;
        }
    }
}

/// What changed is read from the files: that something did is enough.
fn drain(changes: &impl std::os::fd::AsFd) -> Result<(), Errno> {
    let mut buffer = [0; 1024];
    loop {
        match rustix::io::read(changes, &mut buffer) {
            Ok(0) | Err(Errno::AGAIN) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn write_line(output: &mut dyn Write, id: &str, event: &serde_json::Value) -> Result<(), EventsError> {
    let written = writeln!(output, "{event}").and_then(|()| output.flush());
    written.map_err(|source| EventsError::Write { id: id.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_go_writes_them() {
        for (text, milliseconds) in
            [("5s", 5000), ("500ms", 500), ("1m30s", 90_000), ("1.5s", 1500), ("1h", 3_600_000)]
        {
            assert_eq!(parse_interval(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        for text in ["", "5", "0s", "-1s", "2s-1s", "1s5", "s", "5x", "1e400s"] {
            assert!(parse_interval(text).is_err(), "{text}");
        }
    }
}
