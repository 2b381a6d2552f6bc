//! Terminals: made in the container's devpts, sent to whoever will read and write them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Gid, OFlags, Uid};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::process::channel::send_with_descriptors;
use crate::resolve;
use crate::step::{Step, StepError};

/// The magic number of devpts (`linux/magic.h`).
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Connects to the socket that gets a terminal, or other descriptors.
pub(crate) fn connect_socket(path: &Path) -> Result<OwnedFd, StepError> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.step("make", "a socket")?;
    let address = SocketAddrUnix::new(path).step("use the socket", path.display())?;
    connect(&socket, &address).step("connect to", path.display())?;
    Ok(socket)
}

/// How a terminal is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TerminalPlan {
    /// Rows and columns, where the spec gives them.
    pub(crate) size: Option<(u16, u16)>,
    /// The uid it belongs to.
    pub(crate) owner: u32,
    /// The runtime carries its bytes to and from the caller's streams.
    pub(crate) is_relayed: bool,
}

/// Makes a terminal in the container's devpts below `root`, sends its master over `socket`, and makes it the controlling
/// terminal and the standard streams of the calling process, which must lead a session. Gives the slave.
///
/// The multiplexer is opened in the container's root and checked to be devpts's, and the slave comes from the master
/// (`TIOCGPTPEER`), not from a path: nothing in the image can stand in for either.
///
/// A terminal that the runtime itself relays (`is_relayed`) is made ready for that before anybody can write to it: a line's end
/// stays one byte for who reads the runtime's output, as runc has it (a terminal there adds the other), and it has the size
/// of the caller's.
pub(crate) fn set_up(
    root: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    TerminalPlan { size, owner, is_relayed }: TerminalPlan,
) -> Result<OwnedFd, StepError> {
    let master = resolve::open_with(root, c"dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY)
        .step("open", "/dev/pts/ptmx")?;
    let magic = rustix::fs::fstatfs(&master).step("examine", "/dev/pts/ptmx")?.f_type;
    if magic != DEVPTS_SUPER_MAGIC {
        return Err(StepError::refused("use", "/dev/pts/ptmx", "it is not in a devpts"));
    }
    rustix::pty::unlockpt(&master).step("unlock", "the terminal")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).step("open", "the terminal")?;
    if let Some((rows, columns)) = size {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&slave, size).step("set the size of", "the terminal")?;
    }
    if is_relayed {
        let mut modes = rustix::termios::tcgetattr(&slave).step("read the modes of", "the terminal")?;
        modes.output_modes &= !rustix::termios::OutputModes::ONLCR;
        rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &modes)
            .step("set the modes of", "the terminal")?;
        if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
            rustix::termios::tcsetwinsize(&slave, size).step("set the size of", "the terminal")?;
        }
    }
    rustix::fs::fchown(&slave, Some(Uid::from_raw(owner)), None::<Gid>).step("give away", "the terminal")?;
    send_with_descriptors(socket, b"/dev/ptmx", &[master.as_fd()]).step("send", "the terminal")?;
    rustix::process::ioctl_tiocsctty(&slave).step("take as controlling terminal", "the terminal")?;
    let streams = rustix::stdio::dup2_stdin(&slave)
        .and_then(|()| rustix::stdio::dup2_stdout(&slave))
        .and_then(|()| rustix::stdio::dup2_stderr(&slave));
    streams.step("make the standard streams of", "the terminal")?;
    Ok(slave)
}

/// Binds the terminal to `/dev/console`, from its descriptor. A symlink there could lead to whatever else is in the container,
/// procfs too (CVE-2025-52565).
pub(crate) fn bind_console(root: BorrowedFd<'_>, slave: BorrowedFd<'_>) -> Result<(), StepError> {
    let place = resolve::open_or_make_plain_file(root, c"dev/console")?;
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(slave, c"", flags).step("copy the mount of", "the terminal")?;
    use rustix::mount::{MoveMountFlags, move_mount};
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, c"", &place, c"", empty).step("bind to", "/dev/console")
}
