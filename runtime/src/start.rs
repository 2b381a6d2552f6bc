//! How `start` reaches an init process that waits: a socket in the state directory.
//!
//! A socket rather than runc's FIFO: what goes wrong between `start` and the payload comes back to `start`.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen as listen_on, socket_with,
};

use crate::process::channel::Channel;
use crate::step::{Step, StepError};

/// Makes the socket.
pub(crate) fn listen(path: &Path) -> Result<OwnedFd, StepError> {
    let socket = make_socket()?;
    with_short_path(path, |address| bind(&socket, address)).step("bind", path.display())?;
    listen_on(&socket, 1).step("listen on", path.display())?;
    Ok(socket)
}

/// Calls init. `None` if nobody listens any more.
pub(crate) fn call(path: &Path) -> Result<Option<Channel>, StepError> {
    let socket = make_socket()?;
    match with_short_path(path, |address| connect(&socket, address)) {
        Ok(()) => Ok(Some(Channel::from_socket(socket))),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(None),
        Err(error) => Err(error).step("connect to", path.display()),
    }
}

fn make_socket() -> Result<OwnedFd, StepError> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .step("make", "a socket")
}

/// An address has room for 107 bytes; a longer path is reached through its directory's descriptor.
pub(crate) fn with_short_path<T>(
    path: &Path,
    call: impl FnOnce(&SocketAddrUnix) -> Result<T, Errno>,
) -> Result<T, Errno> {
    if let Ok(address) = SocketAddrUnix::new(path) {
        return call(&address);
    }
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsRawFd as _;
    let (parent, name) = (path.parent().ok_or(Errno::INVAL)?, path.file_name().ok_or(Errno::INVAL)?);
    let parent = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
    call(&SocketAddrUnix::new(short)?)
}
