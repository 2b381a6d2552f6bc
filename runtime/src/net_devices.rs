//! `linux.netDevices`: network devices of the host that move into the container, over rtnetlink(7).
//!
//! A device takes its permanent global addresses along and is up afterwards, as runtime-spec's config-linux.md asks. It is
//! moved before any hook and before sysctls are written, which may be the device's.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use oci_spec::runtime::Linux;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::step::{Step, StepError};
use crate::sys;
use crate::validate::{InvalidSpec, invalid};

/// The longest name of a device, bytes: `IFNAMSIZ` without its zero.
const MAX_NAME: usize = 15;

/// A device that moves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct NetDevice {
    /// Its name on the host.
    host: String,
    /// Its name in the container; with `%d` the kernel numbers it.
    container: String,
}

/// The devices of a spec, by name.
///
/// # Errors
/// [`InvalidSpec`] for a name that no device can have, for two of the same, and without a network namespace.
pub(crate) fn plan(linux: &Linux) -> Result<Vec<NetDevice>, InvalidSpec> {
    let field = "linux.netDevices";
    let mut devices: Vec<NetDevice> = Vec::new();
    for (host, device) in linux.net_devices().iter().flatten() {
        let container = device.name().as_deref().filter(|name| !name.is_empty()).unwrap_or(host);
        for name in [host.as_str(), container] {
            if !is_name(name) {
                return Err(invalid(field, &format!("{name:?} is no name of a network device")));
            }
        }
        if devices.iter().any(|other| other.container == container && !container.contains('%')) {
            return Err(invalid(field, &format!("two devices would be {container:?} in the container")));
        }
        devices.push(NetDevice { host: host.clone(), container: container.to_owned() });
    }
    devices.sort_by(|one, other| one.host.cmp(&other.host));
    let has_namespace = linux
        .namespaces()
        .iter()
        .flatten()
        .any(|one| one.typ() == oci_spec::runtime::LinuxNamespaceType::Network);
    if !devices.is_empty() && !has_namespace {
        return Err(invalid(field, "they need a network namespace"));
    }
    Ok(devices)
}

/// As the kernel's `dev_valid_name`.
fn is_name(name: &str) -> bool {
    let is_template = name.strip_suffix("%d").is_some_and(|front| !front.contains('%'));
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != "."
        && name != ".."
        && !name.bytes().any(|byte| byte == b'/' || byte == b':' || byte == 0 || byte.is_ascii_whitespace())
        && (!name.contains('%') || is_template)
}

/// Moves the devices into the network namespace that `namespace` is open on.
///
/// # Errors
/// [`StepError`] names the device. One that could not be moved is on the host as it was.
pub(crate) fn move_all(devices: &[NetDevice], namespace: BorrowedFd<'_>) -> Result<(), StepError> {
    let host = Route::open()?;
    let inside = Route::open_in(namespace)?;
    devices.iter().try_for_each(|device| move_one(device, &host, &inside, namespace))
}

fn move_one(
    device: &NetDevice,
    host: &Route,
    inside: &Route,
    namespace: BorrowedFd<'_>,
) -> Result<(), StepError> {
    let NetDevice { host: name, container } = device;
    let links = host.links().step("list", "network devices")?;
    let link = find(&links, name).ok_or(Errno::NODEV).step("find the network device", name)?;
    // Taking a device down costs it its IPv6 addresses: they are read before.
    let addresses = host.addresses(link.index).step("read the addresses of", name)?;
    let before = inside.links().step("list", "the container's network devices")?;
    host.set_up(link.index, false).step("take down the network device", name)?;
    if let Err(errno) = host.hand_over(link.index, container, namespace) {
        if link.is_up {
            host.set_up(link.index, true).ok();
        }
        return Err(errno).step("move the network device", format_args!("{name} as {container}"));
    }
    let after = inside.links().step("list", "the container's network devices")?;
    let moved = after.iter().find(|one| !before.iter().any(|other| other.index == one.index));
    let moved = moved.ok_or(Errno::NODEV).step("find the moved network device", container)?;
    for address in &addresses {
        inside.add_address(moved.index, address).step("give its addresses to", &moved.name)?;
    }
    inside.set_up(moved.index, true).step("bring up the network device", &moved.name)
}

fn find<'l>(links: &'l [Link], name: &str) -> Option<&'l Link> {
    links.iter().find(|link| link.name == name)
}

/// A network device as rtnetlink lists it.
#[derive(Debug)]
struct Link {
    index: u32,
    name: String,
    is_up: bool,
}

/// A permanent global address.
#[derive(Debug)]
struct Address {
    family: u8,
    prefix_length: u8,
    /// `IFA_LOCAL`, `IFA_ADDRESS` and `IFA_BROADCAST`, as the kernel gave them.
    attributes: Vec<(u16, Vec<u8>)>,
}

// linux/netlink.h and linux/rtnetlink.h; libc has them with other widths.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE_EXCLUSIVE: u16 = 0x600;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_PERMANENT: u8 = 0x80;
const IFF_UP: u32 = 1;
/// Bytes of `nlmsghdr`, of `ifinfomsg`, of `ifaddrmsg`.
const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

/// A socket of rtnetlink, which speaks of the network namespace it was made in.
#[derive(Debug)]
struct Route(OwnedFd);

impl Route {
    fn open() -> Result<Self, StepError> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        socket.map(Route).step("open a socket of", "rtnetlink")
    }

    /// Made inside: this process, which has one thread, goes there and comes back.
    fn open_in(namespace: BorrowedFd<'_>) -> Result<Self, StepError> {
        let path = c"/proc/self/ns/net";
        let own = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .step("open", "/proc/self/ns/net")?;
        sys::set_namespaces(namespace, libc::CLONE_NEWNET)
            .step("enter", "the container's network namespace")?;
        let socket = Self::open();
        sys::set_namespaces(own.as_fd(), libc::CLONE_NEWNET)
            .step("return to", "the host's network namespace")?;
        socket
    }

    fn links(&self) -> Result<Vec<Link>, Errno> {
        let mut links = Vec::new();
        self.ask(Request::new(RTM_GETLINK, NLM_F_DUMP, &[0; LINK_HEADER]), |kind, body| {
            if kind == RTM_NEWLINK {
                links.extend(parse_link(body));
            }
        })?;
        Ok(links)
    }

    fn addresses(&self, index: u32) -> Result<Vec<Address>, Errno> {
        let mut addresses = Vec::new();
        self.ask(Request::new(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS_HEADER]), |kind, body| {
            if kind == RTM_NEWADDR {
                addresses.extend(parse_address(body, index));
            }
        })?;
        Ok(addresses)
    }

    fn set_up(&self, index: u32, up: bool) -> Result<(), Errno> {
        let header = link_header(index, if up { IFF_UP } else { 0 }, IFF_UP);
        self.ask(Request::new(RTM_NEWLINK, NLM_F_ACK, &header), |_, _| ())
    }

    /// Moves and renames in one step, so that a name that is taken in between is no matter.
    fn hand_over(&self, index: u32, name: &str, namespace: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut request = Request::new(RTM_NEWLINK, NLM_F_ACK, &link_header(index, 0, 0));
        request.attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        request.attribute(IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
        self.ask(request, |_, _| ())
    }

    fn add_address(&self, index: u32, address: &Address) -> Result<(), Errno> {
        let mut header = [0; ADDRESS_HEADER];
        header[..2].copy_from_slice(&[address.family, address.prefix_length]);
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let mut request = Request::new(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE_EXCLUSIVE, &header);
        for (kind, value) in &address.attributes {
            request.attribute(*kind, value);
        }
        self.ask(request, |_, _| ())
    }

    /// Sends a request and gives each message of the answer to `take`, up to its end.
    fn ask(&self, request: Request, mut take: impl FnMut(u16, &[u8])) -> Result<(), Errno> {
        send(&self.0, &request.finish(), SendFlags::empty())?;
        let mut buffer = vec![0_u8; 1 << 16];
        loop {
            let (length, _) = match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                result => result?,
            };
            let mut rest = &buffer[..length];
            while let Some((kind, body, after)) = split_message(rest) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return parse_error(body),
                    kind => take(kind, body),
                }
                rest = after;
            }
        }
    }
}

/// `ifinfomsg`: family, padding, type, index, flags, which of them change.
fn link_header(index: u32, flags: u32, change: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// A message under construction.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(header);
        Request(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// The first message's kind and body, and what follows it.
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// `nlmsgerr`: a negated errno, 0 for an acknowledgement.
fn parse_error(body: &[u8]) -> Result<(), Errno> {
    let code =
        body.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(-libc::EPROTO, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(code.saturating_neg())) }
}

/// The attributes after a message's own header.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The two highest bits are flags.
        Some((kind & 0x3fff, value))
    })
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let number = |at: usize| Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let (_, name) = attributes(body.get(LINK_HEADER..)?).find(|(kind, _)| *kind == IFLA_IFNAME)?;
    let name = String::from_utf8_lossy(name.split(|byte| *byte == 0).next()?).into_owned();
    Some(Link { index: number(4)?, name, is_up: number(8)? & IFF_UP != 0 })
}

/// `ifaddrmsg`: family, prefix length, flags, scope, index. Only a permanent address of global scope moves.
fn parse_address(body: &[u8], index: u32) -> Option<Address> {
    let [family, prefix_length, flags, scope] = body.get(..4)?.try_into().ok()?;
    let own = u32::from_ne_bytes(body.get(4..ADDRESS_HEADER)?.try_into().ok()?);
    if own != index || flags & IFA_F_PERMANENT == 0 || scope != 0 {
        return None;
    }
    let kept = attributes(body.get(ADDRESS_HEADER..)?)
        .filter(|(kind, _)| matches!(*kind, IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST))
        .map(|(kind, value)| (kind, value.to_vec()));
    Some(Address { family, prefix_length, attributes: kept.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(json: &str) -> Result<Vec<NetDevice>, String> {
        let linux: Linux = serde_json::from_str(json).map_err(|error| error.to_string())?;
        plan(&linux).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_the_kernels() {
        for name in ["eth0", "eth%d", "a.b", "enp0s31f6"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "a:b", "sixteen-letters-", "%s", "e%d%d", "e%d0"] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn devices_need_a_namespace_and_names_of_their_own() {
        let spaces = r#""namespaces":[{"type":"network"}]"#;
        let one =
            plan_of(&format!(r#"{{{spaces},"netDevices":{{"eth0":{{"name":"net0"}},"b":{{}}}}}}"#)).unwrap();
        let names: Vec<_> = one.iter().map(|one| (one.host.as_str(), one.container.as_str())).collect();
        assert_eq!(names, [("b", "b"), ("eth0", "net0")]);
        assert!(plan_of(r#"{"netDevices":{"eth0":{}}}"#).unwrap_err().contains("network namespace"));
        let twice = format!(r#"{{{spaces},"netDevices":{{"a":{{"name":"x"}},"b":{{"name":"x"}}}}}}"#);
        assert!(plan_of(&twice).unwrap_err().contains("two devices"));
    }

    #[test]
    fn requests_and_answers_are_laid_out_as_the_kernel_has_them() {
        let mut request = Request::new(RTM_NEWLINK, NLM_F_ACK, &link_header(7, IFF_UP, IFF_UP));
        request.attribute(IFLA_IFNAME, b"eth0\0");
        let bytes = request.finish();
        assert_eq!(bytes.len(), 16 + 16 + 12);
        let (kind, body, rest) = split_message(&bytes).unwrap();
        let link = parse_link(body).unwrap();
        assert_eq!((kind, rest.len(), link.index, link.name.as_str(), link.is_up), (16, 0, 7, "eth0", true));
        assert_eq!(parse_error(&(-libc::EEXIST).to_ne_bytes()), Err(Errno::EXIST));
        assert!(split_message(&bytes[..20]).is_none());
    }

    #[test]
    fn the_loopback_device_is_listed() {
        let links = Route::open().unwrap().links().unwrap();
        let loopback = find(&links, "lo").unwrap();
        assert_eq!(loopback.index, 1);
        // 127.0.0.1 has host scope: it would not move.
        let addresses = Route::open().unwrap().addresses(loopback.index).unwrap();
        assert!(
            addresses.iter().all(|address| address.family != 2 || address.attributes[0].1 != [127, 0, 0, 1])
        );
    }
}
