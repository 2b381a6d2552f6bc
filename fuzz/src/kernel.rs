//! What the kernel writes: files of /proc and of cgroups, its log, and the process events connector.

use inspect_probes::cgroup::{
    parse_flat_keyed, parse_io_stat, parse_limit, parse_memberships, parse_pressure,
};
use inspect_probes::events::parse_datagram;
use inspect_probes::killed::{parse_kernel_log, parse_oom_kill};
use inspect_probes::known_error;
use inspect_probes::process::{
    CommandLine, parse_mountinfo, parse_passwd, parse_stat, parse_status, parse_unix_sockets,
};

/// One byte chooses the parser, the rest is the file.
pub fn kernel_text(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(bytes);
    match choice % 12 {
        0 => drop(parse_stat(bytes).map(|stat| stat.name())),
        1 => drop(parse_status(bytes)),
        2 => drop(parse_mountinfo(bytes)),
        3 => drop(CommandLine::parse(bytes, bytes.len() > 100).to_line()),
        4 => drop(parse_unix_sockets(bytes)),
        5 => drop(parse_passwd(bytes)),
        6 => drop(parse_kernel_log(&text).oom_kills()),
        7 => drop(parse_oom_kill(0, &text)),
        8 => drop(known_error::explain(&text)),
        9 => drop(parse_memberships(bytes)),
        10 => drop((parse_limit(&text), parse_flat_keyed(&text), parse_pressure(&text))),
        _ => drop(parse_io_stat(&text)),
    }
}

/// A datagram of the process events connector.
pub fn proc_events(data: &[u8]) {
    if let Ok(events) = parse_datagram(data) {
        // A message is at least a netlink and a connector header and an event's own.
        assert!(events.len() <= data.len() / 36, "no event without bytes");
    }
}
