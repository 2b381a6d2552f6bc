//! `/proc/PID/stat`: proc_pid_stat(5).

use std::path::Path;

use serde::{Serialize, Serializer};

use super::{ProcessError, process_path, read_present};
use crate::Host;
use crate::escape::escape_bytes;
use crate::name::Pid;

/// The unit of the kernel's process times: USER_HZ is 100 on every architecture that containerd is built for.
pub const TICKS_PER_SECOND: u64 = 100;

/// What the tree needs of `/proc/PID/stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Field 1.
    pub pid: Pid,
    /// Field 2 without its parentheses: up to 15 bytes (63 for kernel threads), any bytes but NUL; hostile.
    pub comm: Vec<u8>,
    /// Field 3.
    pub state: ProcessState,
    /// Field 4: 0 for PID 1, kthreadd, and processes whose parent lives outside of this pid namespace.
    pub parent: Pid,
    /// Field 5.
    pub process_group: u32,
    /// Field 6.
    pub session: u32,
    /// Field 7: the controlling terminal's device number, 0 for none.
    pub terminal: u32,
    /// Field 20.
    pub threads: u32,
    /// Field 22: when it started, in ticks after boot ([`TICKS_PER_SECOND`]). Together with the pid it names one process
    /// for ever; runc's and crun's state files record the same number.
    pub start_time: u64,
}

/// Field 3 of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessState {
    /// `R`
    Running,
    /// `S`: waits and can be interrupted.
    Sleeping,
    /// `D`: waits in the kernel and cannot be interrupted.
    DiskSleep,
    /// `T`: stopped by a signal.
    Stopped,
    /// `t`: stopped by a tracer.
    Traced,
    /// `Z`: ended, and its parent has not read its status.
    Zombie,
    /// `X`: being removed.
    Dead,
    /// `I`: idle kernel thread.
    Idle,
    /// A letter that proc(5) does not know.
    Other(char),
}

impl ProcessState {
    fn from_letter(letter: u8) -> Self {
        match letter {
            b'R' => Self::Running,
            b'S' => Self::Sleeping,
            b'D' => Self::DiskSleep,
            b'T' => Self::Stopped,
            b't' => Self::Traced,
            b'Z' => Self::Zombie,
            b'X' | b'x' => Self::Dead,
            b'I' => Self::Idle,
            other => Self::Other(char::from(other)),
        }
    }

    /// One word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Sleeping => "sleeping",
            Self::DiskSleep => "disk-sleep",
            Self::Stopped => "stopped",
            Self::Traced => "traced",
            Self::Zombie => "zombie",
            Self::Dead => "dead",
            Self::Idle => "idle",
            Self::Other(_) => "other",
        }
    }

    /// Whether it has ended: nothing of it but its status is left.
    #[must_use]
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Zombie | Self::Dead)
    }
}

impl Serialize for ProcessState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Stat {
    /// The name, escaped for a terminal.
    #[must_use]
    pub fn name(&self) -> String {
        escape_bytes(&self.comm).into_owned()
    }
}

/// Reads `/proc/PID/stat`.
///
/// # Errors
/// [`ProcessError`] when the kernel refuses or the text is not what proc(5) says.
pub fn read_stat(host: &Host, pid: Pid) -> Result<Option<Stat>, ProcessError> {
    let path = process_path(host, pid, "stat");
    let Some(text) = read_present(&path)? else { return Ok(None) };
    parse_stat(&text).map(Some).ok_or_else(|| malformed(&path, &text))
}

pub(super) fn malformed(path: &Path, text: &[u8]) -> ProcessError {
    ProcessError::parse(path, "expected the fields of proc_pid_stat(5)", text)
}

/// Parses the line. The name may hold spaces, parentheses and newlines: it ends at the last `)`.
#[must_use]
pub fn parse_stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let pid = parse_number(text.get(..open)?.trim_ascii())?;
    let comm = text.get(open + 1..close)?.to_vec();
    let mut fields = text.get(close + 1..)?.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let state = ProcessState::from_letter(*fields.next()?.first()?);
    let parent = Pid::new(parse_number(fields.next()?)?);
    let process_group = parse_id(fields.next()?)?;
    let session = parse_id(fields.next()?)?;
    let terminal = parse_id(fields.next()?)?;
    // Fields 8 to 19 are of no use here: 20 is num_threads, 22 starttime.
    let threads = parse_number(fields.nth(12)?)?;
    let start_time = parse_number(fields.nth(1)?)?;
    Some(Stat {
        pid: Pid::new(pid),
        comm,
        state,
        parent,
        process_group,
        session,
        terminal,
        threads,
        start_time,
    })
}

fn parse_number<T: TryFrom<u64>>(digits: &[u8]) -> Option<T> {
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        let value = digit.checked_sub(b'0').filter(|value| *value <= 9)?;
        number.checked_mul(10)?.checked_add(u64::from(value))
    })?;
    T::try_from(number).ok()
}

/// Process groups and sessions read −1 for a process that is being removed, and 0 in a foreign pid namespace: both 0.
fn parse_id(digits: &[u8]) -> Option<u32> {
    if digits.first() == Some(&b'-') {
        parse_number::<u32>(&digits[1..]).map(|_| 0)
    } else {
        parse_number(digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] =
        b"462 (sh) S 445 462 462 34816 468 4194304 127 0 0 0 0 0 0 0 20 0 1 0 13428 8343552 196";

    #[test]
    fn the_fields_are_those_of_proc_5() {
        let stat = parse_stat(LINE).unwrap();
        assert_eq!((stat.pid, stat.parent, stat.session), (Pid::new(462), Pid::new(445), 462));
        assert_eq!((stat.start_time, stat.threads, stat.terminal), (13428, 1, 34816));
        assert_eq!(stat.state, ProcessState::Sleeping);
    }

    #[test]
    fn a_name_cannot_forge_fields() {
        let line = b"7 (x) Z 1 (\n) R\x1b[2J\xff) D 3 0 -1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99 0";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.parent, stat.state, stat.start_time), (Pid::new(3), ProcessState::DiskSleep, 99));
        assert_eq!(stat.name(), "x) Z 1 (\\n) R\\x1b[2J\\xff");
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let start_time = LINE.windows(5).position(|window| window == b"13428").unwrap();
        assert!((0..=start_time).all(|end| parse_stat(&LINE[..end]).is_none()));
        assert!(parse_stat(b") 1 (").is_none());
        assert!(parse_stat(b"99999999999999999999 (a) S 1").is_none());
    }

    #[test]
    fn our_own_stat_parses() {
        let own = Pid::new(std::process::id());
        assert_eq!(read_stat(&Host::live(), own).unwrap().unwrap().pid, own);
        assert!(read_stat(&Host::live(), Pid::new(u32::MAX)).unwrap().is_none());
    }
}
