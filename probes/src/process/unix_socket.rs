//! `/proc/net/unix`: proc_net(5). Which unix sockets listen, under which path and inode.

use super::{ProcessError, read_present};
use crate::Host;

/// `__SO_ACCEPTCON` in the flags of `/proc/net/unix`: the socket listens.
const ACCEPT_CONNECTIONS: u32 = 1 << 16;

/// A unix socket that is bound to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixSocket {
    /// What `/proc/PID/fd` links name.
    pub inode: u64,
    /// The path as the process bound it; abstract ones begin with `@`.
    pub path: String,
    /// Whether it accepts connections.
    pub listening: bool,
}

/// Reads `/proc/net/unix` of our own network namespace.
///
/// # Errors
/// [`ProcessError`] when the kernel refuses.
pub fn read_unix_sockets(host: &Host) -> Result<Vec<UnixSocket>, ProcessError> {
    // `net` is a link to `self/net`: a captured host has no `self`, and PID 1's is the host's own namespace anyway.
    let first = read_present(&host.proc().join("1/net/unix"));
    let text = match first {
        Ok(Some(text)) => Some(text),
        Ok(None) | Err(_) => read_present(&host.proc().join("net/unix"))?,
    };
    Ok(parse_unix_sockets(&text.unwrap_or_default()))
}

/// Parses the file: `Num RefCount Protocol Flags Type St Inode Path`; sockets without a path are left out.
#[must_use]
pub fn parse_unix_sockets(text: &[u8]) -> Vec<UnixSocket> {
    text.split(|byte| *byte == b'\n').skip(1).filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<UnixSocket> {
    let line = String::from_utf8_lossy(line);
    let mut rest: &str = &line;
    let mut fields = [""; 7];
    for field in &mut fields {
        let trimmed = rest.trim_start_matches(' ');
        let (value, tail) = trimmed.split_once(' ')?;
        *field = value;
        rest = tail;
    }
    let flags = u32::from_str_radix(fields[3], 16).ok()?;
    let inode = fields[6].parse().ok()?;
    Some(UnixSocket { inode, path: rest.to_owned(), listening: flags & ACCEPT_CONNECTIONS != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_keep_their_path() {
        let text = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 14071 /run/containerd/containerd.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 14072 /run/with space\n\
            0000000000000000: 00000003 00000000 00000000 0001 03   991\n";
        let sockets = parse_unix_sockets(text);
        assert_eq!(sockets.len(), 2);
        assert!(sockets[0].listening && !sockets[1].listening);
        assert_eq!(sockets[1].path, "/run/with space");
        assert_eq!(sockets[0].inode, 14071);
    }
}
