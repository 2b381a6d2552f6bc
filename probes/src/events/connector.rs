//! The netlink socket of the process events connector.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::loss::{Loss, Sequences};
use super::proc_event::{
    CN_IDX_PROC, CN_VAL_PROC, CONNECTOR_HEADER, NETLINK_HEADER, NLMSG_DONE, ProcEvent, ProcEventKind,
    parse_datagram,
};
use crate::events::EventError;

/// What the kernel may hold for us: an event takes about 1 KiB of it, so this is about 30,000 events.
const RECEIVE_BUFFER: usize = 32 << 20;

/// An event is below 100 bytes; a longer datagram than this would be told as cut, and counted.
const DATAGRAM: usize = 4096;

/// How long the kernel may take to answer the subscription: it answers within the send itself.
const ANSWER: Duration = Duration::from_secs(2);

/// `PROC_CN_MCAST_LISTEN` and `PROC_CN_MCAST_IGNORE` of cn_proc.h.
const LISTEN: u32 = 1;
const IGNORE: u32 = 2;

/// A subscription to the kernel's process events; it ends when this is dropped.
#[derive(Debug)]
pub struct ProcConnector {
    socket: OwnedFd,
    buffer: Vec<u8>,
    sequences: Sequences,
    loss: Loss,
}

impl ProcConnector {
    /// Subscribes and waits for the kernel's answer.
    ///
    /// Needs `CAP_NET_ADMIN` in the first user, pid and network namespace. The subscription takes no filter (kernel ≥ 6.6
    /// has one): filtered events leave gaps in the numbers, which could then not tell of losses.
    ///
    /// # Errors
    /// When the socket cannot be had, the kernel refuses, or nothing answers.
    pub fn open() -> Result<Self, EventError> {
        let socket = net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::CONNECTOR),
        )
        .map_err(|source| EventError::Open { source })?;
        // Beyond net.core.rmem_max only with CAP_NET_ADMIN; without it the default stays, and losses are counted.
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)
                .map_err(|source| EventError::Open { source })?;
        }
        net::bind(&socket, &SocketAddrNetlink::new(0, CN_IDX_PROC))
            .map_err(|source| EventError::Subscribe { source })?;
        let mut connector = Self {
            socket,
            buffer: vec![0; DATAGRAM],
            sequences: Sequences::default(),
            loss: Loss::default(),
        };
        connector.send(LISTEN).map_err(|source| EventError::Subscribe { source })?;
        connector.await_answer()?;
        Ok(connector)
    }

    /// What was not told so far.
    #[must_use]
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// The bytes that the kernel grants the socket's queue.
    ///
    /// # Errors
    /// When the socket cannot be asked.
    pub fn receive_buffer(&self) -> Result<usize, EventError> {
        sockopt::socket_recv_buffer_size(&self.socket).map_err(|source| EventError::Receive { source })
    }

    /// Appends the events of the next waiting datagram. `false` when none waits.
    ///
    /// # Errors
    /// When the socket fails otherwise than by being empty or overrun.
    pub fn receive(&mut self, events: &mut Vec<ProcEvent>) -> Result<bool, EventError> {
        loop {
            let (length, sender) =
                match net::recvfrom(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty()) {
                    Ok((length, _, sender)) => (length, sender),
                    Err(Errno::AGAIN) => return Ok(false),
                    Err(Errno::INTR) => continue,
                    Err(Errno::NOBUFS) => {
                        self.loss.overruns += 1;
                        continue;
                    }
                    Err(source) => return Err(EventError::Receive { source }),
                };
            // Another program may send to this socket: only the kernel has port 0.
            let from_kernel = sender
                .and_then(|address| SocketAddrNetlink::try_from(address).ok())
                .is_some_and(|address| address.pid() == 0);
            if !from_kernel {
                continue;
            }
            self.take(length, events);
            return Ok(true);
        }
    }

    /// Parses what was received and looks at its numbers.
    fn take(&mut self, length: usize, events: &mut Vec<ProcEvent>) {
        let first = events.len();
        match parse_datagram(self.buffer.get(..length).unwrap_or_default()) {
            Ok(parsed) => events.extend(parsed),
            // Whatever it was, it was an event and is not told.
            Err(_) => self.loss.events += 1,
        }
        for event in events.iter().skip(first) {
            if let Some(cpu) = event.cpu {
                self.loss.events += u64::from(self.sequences.observe(cpu, event.sequence));
            }
        }
    }

    fn send(&self, operation: u32) -> rustix::io::Result<usize> {
        net::send(&self.socket, &subscription(operation), SendFlags::empty())
    }

    /// Events of others may come before the answer: they are from before the caller was told, and dropped.
    fn await_answer(&mut self) -> Result<(), EventError> {
        let deadline = std::time::Instant::now() + ANSWER;
        let mut events = Vec::new();
        loop {
            while self.receive(&mut events)? {
                for event in events.drain(..) {
                    match event.kind {
                        ProcEventKind::Answer { errno: 0 } => return Ok(()),
                        ProcEventKind::Answer { errno } => {
                            let errno = i32::try_from(errno).unwrap_or(i32::MAX);
                            return Err(EventError::Subscribe { source: Errno::from_raw_os_error(errno) });
                        }
                        _ => {}
                    }
                }
            }
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Err(EventError::NoAnswer);
            }
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(source) => return Err(EventError::Receive { source }),
            }
        }
    }
}

impl AsFd for ProcConnector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for ProcConnector {
    /// Kernels before 6.6 count listeners by these messages alone and would go on making events for nobody.
    fn drop(&mut self) {
        match self.send(IGNORE) {
            Ok(_) | Err(_) => {}
        }
    }
}

/// `struct nlmsghdr`, `struct cn_msg` and `enum proc_cn_mcast_op`.
fn subscription(operation: u32) -> Vec<u8> {
    let length = NETLINK_HEADER + CONNECTOR_HEADER + size_of::<u32>();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(NLMSG_DONE.to_ne_bytes());
    bytes.extend([0; 10]); // flags, sequence, port: the kernel fills in the last
    bytes.extend(CN_IDX_PROC.to_ne_bytes());
    bytes.extend(CN_VAL_PROC.to_ne_bytes());
    bytes.extend([0; 8]); // sequence, acknowledgement
    bytes.extend(4u16.to_ne_bytes()); // length of what follows
    bytes.extend(0u16.to_ne_bytes()); // flags
    bytes.extend(operation.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_forty_bytes_of_netlink() {
        let bytes = subscription(LISTEN);
        assert_eq!(bytes.len(), 40);
        assert_eq!(&bytes[..4], &40u32.to_ne_bytes());
        assert_eq!(&bytes[36..], &1u32.to_ne_bytes());
    }
}
