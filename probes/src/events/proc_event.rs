//! The bytes of the process events connector, read without a pointer: `include/uapi/linux/{netlink,connector,cn_proc}.h`.

use std::fmt;

use serde::Serialize;

use crate::name::Pid;

/// `CN_IDX_PROC` and `CN_VAL_PROC` of connector.h: the connector's id for process events.
pub(super) const CN_IDX_PROC: u32 = 1;
pub(super) const CN_VAL_PROC: u32 = 1;

/// Sizes of `struct nlmsghdr`, of `struct cn_msg` and of what every `struct proc_event` starts with.
pub(super) const NETLINK_HEADER: usize = 16;
pub(super) const CONNECTOR_HEADER: usize = 20;
const EVENT_HEADER: usize = 16;

/// `NLMSG_ERROR` and `NLMSG_DONE` of netlink.h: the connector marks every event as done.
const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;

/// Nanoseconds of `CLOCK_MONOTONIC`: the clock that the kernel stamps events with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Nanoseconds from `earlier` to here; 0 when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// How a process ended, from the wait status of wait(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// Ended by itself with this code.
    Exited(u8),
    /// Killed by this signal.
    Killed(u8),
}

impl ExitStatus {
    /// Decodes a wait status: the low seven bits are the signal, the next byte the code.
    #[must_use]
    pub fn from_wait_status(status: u32) -> Self {
        let [low, code, ..] = status.to_le_bytes();
        match low & 0x7f {
            0 => Self::Exited(code),
            signal => Self::Killed(signal),
        }
    }

    /// Whether the process ended by itself with code 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Exited(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit {code}"),
            Self::Killed(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// One event as the kernel told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcEvent {
    /// The processor that told it; `None` in the answer to a subscription.
    pub cpu: Option<u32>,
    /// The event's number on that processor: a gap is a loss.
    pub sequence: u32,
    /// When.
    pub time: Timestamp,
    /// What.
    pub kind: ProcEventKind,
}

/// What happened. Pids are thread group ids; events of single threads are [`ProcEventKind::Thread`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcEventKind {
    /// The answer to a subscription: 0, or an errno.
    Answer {
        /// An errno value, 0 when it worked.
        errno: u32,
    },
    /// A process was made.
    Fork {
        /// Its parent (with `CLONE_PARENT` the caller's parent).
        parent: Pid,
        /// The new process.
        child: Pid,
    },
    /// A process runs another program.
    Exec {
        /// The process.
        pid: Pid,
    },
    /// A process changed its user ids.
    Uid {
        /// The process.
        pid: Pid,
        /// Its real user id now.
        real: u32,
        /// Its effective user id now.
        effective: u32,
    },
    /// A process set its name (`PR_SET_NAME`, or a write to `/proc/PID/comm`).
    Comm {
        /// The process.
        pid: Pid,
        /// Up to 15 bytes.
        comm: Vec<u8>,
    },
    /// A process ended.
    Exit {
        /// The process.
        pid: Pid,
        /// How.
        status: ExitStatus,
    },
    /// A thread other than the first was made, named or ended.
    Thread,
    /// Another kind of event (gid, sid, ptrace, core dump), by its `PROC_EVENT_` number.
    Other(u32),
}

/// Bytes that are not what cn_proc.h says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseProcEventError {
    /// A length field says more than there is.
    #[error("cannot parse a process event: {have} bytes where {need} are needed")]
    Short {
        /// Bytes that are there.
        have: usize,
        /// Bytes that the layout needs.
        need: usize,
    },
    /// The kernel answered with a netlink error.
    #[error("cannot parse a process event: netlink error {errno}")]
    Netlink {
        /// The negated errno of `struct nlmsgerr`.
        errno: u32,
    },
}

/// The events of one datagram. Messages of other connectors are left out.
///
/// # Errors
/// When a message is shorter than its own length fields say.
pub fn parse_datagram(mut bytes: &[u8]) -> Result<Vec<ProcEvent>, ParseProcEventError> {
    let mut events = Vec::with_capacity(1);
    while !bytes.is_empty() {
        let length = usize::try_from(u32_at(bytes, 0)?).unwrap_or(usize::MAX);
        if length < NETLINK_HEADER || length > bytes.len() {
            return Err(ParseProcEventError::Short { have: bytes.len(), need: length.max(NETLINK_HEADER) });
        }
        let (message, _) = bytes.split_at(length);
        if u16_at(message, 4)? == NLMSG_ERROR {
            return Err(ParseProcEventError::Netlink { errno: u32_at(message, NETLINK_HEADER)? });
        }
        if let Some(event) = parse_message(message.get(NETLINK_HEADER..).unwrap_or_default())? {
            events.push(event);
        }
        // Netlink aligns each message to four bytes; the last one may end without its padding.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(events)
}

/// A `struct cn_msg` and the `struct proc_event` in it.
fn parse_message(bytes: &[u8]) -> Result<Option<ProcEvent>, ParseProcEventError> {
    if (u32_at(bytes, 0)?, u32_at(bytes, 4)?) != (CN_IDX_PROC, CN_VAL_PROC) {
        return Ok(None);
    }
    let sequence = u32_at(bytes, 8)?;
    let event = bytes.get(CONNECTOR_HEADER..).unwrap_or_default();
    let what = u32_at(event, 0)?;
    // The answer carries -1 where events carry the processor.
    let cpu = Some(u32_at(event, 4)?).filter(|cpu| *cpu != u32::MAX);
    let time = Timestamp(u64_at(event, 8)?);
    let data = event.get(EVENT_HEADER..).unwrap_or_default();
    Ok(Some(ProcEvent { cpu, sequence, time, kind: parse_kind(what, data)? }))
}

/// `event_data`. In the kernel's words `pid` is the thread and `tgid` the process; each kind has both, pid first.
fn parse_kind(what: u32, data: &[u8]) -> Result<ProcEventKind, ParseProcEventError> {
    match what {
        0 => Ok(ProcEventKind::Answer { errno: u32_at(data, 0)? }),
        // fork: parent pid, parent tgid, child pid, child tgid
        0x0000_0001 => {
            let (thread, child) = (u32_at(data, 8)?, u32_at(data, 12)?);
            if thread != child {
                return Ok(ProcEventKind::Thread);
            }
            Ok(ProcEventKind::Fork { parent: Pid::new(u32_at(data, 4)?), child: Pid::new(child) })
        }
        0x0000_0002 => Ok(ProcEventKind::Exec { pid: Pid::new(u32_at(data, 4)?) }),
        0x0000_0004 => of_leader(data, |pid| {
            Ok(ProcEventKind::Uid { pid, real: u32_at(data, 8)?, effective: u32_at(data, 12)? })
        }),
        0x0000_0200 => of_leader(data, |pid| {
            let name = data.get(8..24).ok_or(ParseProcEventError::Short { have: data.len(), need: 24 })?;
            let comm = name.iter().copied().take_while(|byte| *byte != 0).collect();
            Ok(ProcEventKind::Comm { pid, comm })
        }),
        0x8000_0000 => of_leader(data, |pid| {
            Ok(ProcEventKind::Exit { pid, status: ExitStatus::from_wait_status(u32_at(data, 8)?) })
        }),
        other => Ok(ProcEventKind::Other(other)),
    }
}

/// The event when it is the process's first thread's, else [`ProcEventKind::Thread`].
fn of_leader(
    data: &[u8],
    kind: impl FnOnce(Pid) -> Result<ProcEventKind, ParseProcEventError>,
) -> Result<ProcEventKind, ParseProcEventError> {
    let (thread, process) = (u32_at(data, 0)?, u32_at(data, 4)?);
    if thread == process { kind(Pid::new(process)) } else { Ok(ProcEventKind::Thread) }
}

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], ParseProcEventError> {
    bytes
        .get(offset..offset + N)
        .and_then(|slice| slice.try_into().ok())
        .ok_or(ParseProcEventError::Short { have: bytes.len(), need: offset + N })
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<u16, ParseProcEventError> {
    array_at(bytes, offset).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, ParseProcEventError> {
    array_at(bytes, offset).map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Result<u64, ParseProcEventError> {
    array_at(bytes, offset).map(u64::from_ne_bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A datagram as the kernel lays it out.
    pub(crate) fn datagram(what: u32, cpu: u32, sequence: u32, data: &[u32]) -> Vec<u8> {
        let mut event: Vec<u8> = Vec::new();
        event.extend(what.to_ne_bytes());
        event.extend(cpu.to_ne_bytes());
        event.extend(77u64.to_ne_bytes());
        event.extend(data.iter().flat_map(|word| word.to_ne_bytes()));
        let mut bytes: Vec<u8> = Vec::new();
        bytes.extend(u32::try_from(NETLINK_HEADER + CONNECTOR_HEADER + event.len()).unwrap().to_ne_bytes());
        bytes.extend(NLMSG_DONE.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(CN_IDX_PROC.to_ne_bytes());
        bytes.extend(CN_VAL_PROC.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(event);
        bytes
    }

    fn kind(what: u32, data: &[u32]) -> ProcEventKind {
        parse_datagram(&datagram(what, 1, 5, data)).unwrap().remove(0).kind
    }

    #[test]
    fn forks_and_exits_of_processes_are_told_from_those_of_threads() {
        assert_eq!(kind(1, &[7, 7, 9, 9]), ProcEventKind::Fork { parent: Pid::new(7), child: Pid::new(9) });
        assert_eq!(kind(1, &[7, 7, 9, 7]), ProcEventKind::Thread);
        let killed = ProcEventKind::Exit { pid: Pid::new(9), status: ExitStatus::Killed(9) };
        assert_eq!(kind(0x8000_0000, &[9, 9, 9, 17, 1, 1]), killed);
        let exited = ProcEventKind::Exit { pid: Pid::new(9), status: ExitStatus::Exited(137) };
        assert_eq!(kind(0x8000_0000, &[9, 9, 137 << 8, 17, 1, 1]), exited);
        assert_eq!(kind(0x8000_0000, &[10, 9, 0, 17, 1, 1]), ProcEventKind::Thread);
    }

    #[test]
    fn sequence_processor_and_time_are_kept() {
        let event = parse_datagram(&datagram(2, 3, 41, &[9, 9])).unwrap().remove(0);
        assert_eq!((event.cpu, event.sequence, event.time), (Some(3), 41, Timestamp(77)));
        let answer = parse_datagram(&datagram(0, u32::MAX, 0, &[1])).unwrap().remove(0);
        assert_eq!((answer.cpu, answer.kind), (None, ProcEventKind::Answer { errno: 1 }));
    }

    #[test]
    fn a_comm_ends_at_its_nul() {
        let mut words = vec![9, 9];
        words.extend(b"runc:[2:INIT]\0\0\0".chunks(4).map(|c| u32::from_ne_bytes(c.try_into().unwrap())));
        let comm = b"runc:[2:INIT]".to_vec();
        assert_eq!(kind(0x200, &words), ProcEventKind::Comm { pid: Pid::new(9), comm });
    }

    #[test]
    fn a_cut_datagram_is_refused() {
        let whole = datagram(1, 0, 0, &[7, 7, 9, 9]);
        for length in 1..whole.len() {
            assert!(parse_datagram(&whole[..length]).is_err(), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse_datagram(&bytes).is_ok() || parse_datagram(&bytes).is_err());
        }
    }
}
