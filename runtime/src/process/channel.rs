//! What parent and init say to each other: one message a packet, over a pair of sequenced-packet sockets.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// The longest cause chain, in bytes; what is longer is cut there.
const MAX_REPORT: usize = 4096;
/// The longest packet. Small, since each side has one on its stack, whose pages the other has copies of.
const MAX_PACKET: usize = 256;

/// What is said. `docs/runtime.md` says in which order.
#[derive(Debug)]
pub(crate) enum Message {
    /// To init: go on.
    Go,
    /// From init: namespaces and mounts stand; the hooks of the runtime namespace may run.
    Hooks,
    /// From init: all is set up but what must come last.
    Ready,
    /// From init, after `create`: execve may fail, so `start` should wait and see.
    Doubtful,
    /// From init: this failed; it ends.
    Failed(String),
    /// From init: the descriptor that seccomp notifications come from.
    Listener(OwnedFd),
    /// From a helper of init's: the pid of the init process.
    Pid(i32),
    /// To init, from a helper: the next thing that mounts are made from.
    Source(OwnedFd),
    /// From init: the ids of a mount are to be mapped, which it may not do itself.
    Map(MapRequest),
    /// The other side has ended, or has executed the payload.
    End,
}

/// Which mount, and how.
#[derive(Debug)]
pub(crate) struct MapRequest {
    /// Detached.
    pub(crate) tree: OwnedFd,
    /// The user namespace with the map.
    pub(crate) namespace: OwnedFd,
    /// The mounts below, too.
    pub(crate) recursive: bool,
}

/// One end of the line.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    /// A pair of ends.
    pub(crate) fn pair() -> Result<(Self, Self), Errno> {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Channel(one), Channel(other)))
    }

    /// An end that was connected otherwise.
    pub(crate) fn from_socket(socket: OwnedFd) -> Self {
        Channel(socket)
    }

    /// Says something. Allocates nothing.
    pub(crate) fn send(&self, message: &Message) -> Result<(), Errno> {
        match message {
            Message::Go => self.send_bytes(b"G", b""),
            Message::Hooks => self.send_bytes(b"H", b""),
            Message::Ready => self.send_bytes(b"R", b""),
            Message::Doubtful => self.send_bytes(b"D", b""),
            Message::Pid(pid) => self.send_bytes(b"P", &pid.to_ne_bytes()),
            Message::Failed(text) => self.send_report(&text.as_bytes()[..text.len().min(MAX_REPORT)]),
            Message::Listener(descriptor) => {
                send_with_descriptors(self.0.as_fd(), b"L", &[descriptor.as_fd()])
            }
            Message::Source(descriptor) => self.send_source(descriptor.as_fd()),
            Message::Map(MapRequest { tree, namespace, recursive }) => send_with_descriptors(
                self.0.as_fd(),
                &[b'M', u8::from(*recursive)],
                &[tree.as_fd(), namespace.as_fd()],
            ),
            Message::End => Ok(()),
        }
    }

    /// [`Message::Source`] of a descriptor that is kept.
    pub(crate) fn send_source(&self, descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
        send_with_descriptors(self.0.as_fd(), b"S", &[descriptor])
    }

    /// In as many packets as it takes.
    fn send_report(&self, text: &[u8]) -> Result<(), Errno> {
        let (last, parts) = match text.rchunks(MAX_PACKET - 1).next() {
            Some(last) => (last, &text[..text.len() - last.len()]),
            None => (text, text),
        };
        for part in parts.chunks(MAX_PACKET - 1) {
            self.send_bytes(b"f", part)?;
        }
        self.send_bytes(b"F", last)
    }

    fn send_bytes(&self, kind: &[u8], text: &[u8]) -> Result<(), Errno> {
        let slices = [IoSlice::new(kind), IoSlice::new(text)];
        retry(|| sendmsg(&self.0, &slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL))
            .map(|_| ())
    }

    /// Waits for what the other side says.
    pub(crate) fn receive(&self) -> Result<Message, Errno> {
        let mut bytes = [0_u8; MAX_PACKET];
        let mut report = Vec::new();
        let (kind, text, [descriptor, second]) = loop {
            let (length, descriptors) = receive_with_descriptors(self.0.as_fd(), &mut bytes)?;
            match bytes[..length].split_first() {
                None => return Ok(Message::End),
                Some((b'f', part)) if report.len() < MAX_REPORT => report.extend_from_slice(part),
                Some((kind, text)) => break (kind, text, descriptors),
            }
        };
        match (kind, descriptor) {
            (b'G', _) => Ok(Message::Go),
            (b'H', _) => Ok(Message::Hooks),
            (b'R', _) => Ok(Message::Ready),
            (b'D', _) => Ok(Message::Doubtful),
            (b'P', _) => {
                text.try_into().map(|pid| Message::Pid(i32::from_ne_bytes(pid))).map_err(|_| Errno::PROTO)
            }
            (b'F', _) => {
                report.extend_from_slice(text);
                Ok(Message::Failed(String::from_utf8_lossy(&report).into_owned()))
            }
            (b'L', Some(descriptor)) => Ok(Message::Listener(descriptor)),
            (b'S', Some(descriptor)) => Ok(Message::Source(descriptor)),
            (b'M', Some(tree)) => {
                let namespace = second.ok_or(Errno::PROTO)?;
                Ok(Message::Map(MapRequest { tree, namespace, recursive: text == [1] }))
            }
            _ => Err(Errno::PROTO),
        }
    }

    /// Lets the other side go on. If it has ended, why is still to be heard.
    pub(crate) fn send_go(&self) -> Result<(), Errno> {
        match self.send(&Message::Go) {
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            sent => sent,
        }
    }

    /// Waits until the other side lets this one go on; anything else is the end of it.
    pub(crate) fn wait_for_go(&self) -> Result<(), Errno> {
        match self.receive()? {
            Message::Go => Ok(()),
            _ => Err(Errno::PIPE),
        }
    }
}

/// Sends bytes with descriptors beside them (`SCM_RIGHTS`).
pub(crate) fn send_with_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).map(|_| ())
}

/// Receives a packet and the descriptors beside it, of which there are at most two.
pub(crate) fn receive_with_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> Result<(usize, [Option<OwnedFd>; 2]), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut receive =
        || retry(|| recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC));
    let received = match receive() {
        // The other side ended while a message of ours was unread: the kernel says so once, then gives what it had said.
        Err(Errno::CONNRESET) => receive()?,
        received => received?,
    };
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::PROTO);
    }
    let mut received_descriptors = [None, None];
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            received_descriptors = [descriptors.next(), descriptors.next()];
        }
    }
    Ok((received.bytes, received_descriptors))
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let (one, other) = Channel::pair().unwrap();
        for length in [0, 1, MAX_PACKET - 1, MAX_PACKET, 2 * MAX_PACKET - 2, 1000] {
            let sent: String = ('a'..='z').cycle().take(length).collect();
            one.send(&Message::Failed(sent.clone())).unwrap();
            let Message::Failed(text) = other.receive().unwrap() else { panic!() };
            assert_eq!(text, sent);
        }
        one.send(&Message::Ready).unwrap();
        one.send(&Message::Doubtful).unwrap();
        one.send(&Message::Failed("cannot".repeat(2000))).unwrap();
        one.send(&Message::Listener(rustix::io::dup(&one.0).unwrap())).unwrap();
        one.send(&Message::Pid(-7)).unwrap();
        assert!(matches!(other.receive().unwrap(), Message::Ready));
        assert!(matches!(other.receive().unwrap(), Message::Doubtful));
        let Message::Failed(text) = other.receive().unwrap() else { panic!() };
        assert_eq!(text.len(), MAX_REPORT);
        assert!(matches!(other.receive().unwrap(), Message::Listener(_)));
        assert!(matches!(other.receive().unwrap(), Message::Pid(-7)));
        one.send_source(one.0.as_fd()).unwrap();
        assert!(matches!(other.receive().unwrap(), Message::Source(_)));
        for recursive in [false, true] {
            let (tree, namespace) = (rustix::io::dup(&one.0).unwrap(), rustix::io::dup(&one.0).unwrap());
            one.send(&Message::Map(MapRequest { tree, namespace, recursive })).unwrap();
            let Message::Map(request) = other.receive().unwrap() else { panic!() };
            assert_eq!(request.recursive, recursive);
        }
        other.send(&Message::Go).unwrap();
        one.wait_for_go().unwrap();
        // What was not read costs nothing of what was said before the end.
        other.send_go().unwrap();
        one.send(&Message::Failed("why".to_owned())).unwrap();
        drop(one);
        other.send_go().unwrap();
        assert!(matches!(other.receive().unwrap(), Message::Failed(why) if why == "why"));
        assert!(matches!(other.receive().unwrap(), Message::End));
    }
}
