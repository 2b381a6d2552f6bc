//! What every command knows: where state is, where to log, which cgroup driver, what the environment says.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::cgroup::Driver;
use crate::cli::Global;
use crate::log::Log;
use crate::process::protect::PrivateMount;
use crate::sys::{self, StringList};
use crate::user_namespace;

/// The default place of state, for root.
const DEFAULT_ROOT: &str = "/run/inspect-runtime";

/// How the runtime was called.
#[derive(Debug)]
pub struct Call {
    /// The arguments, with the program's name first.
    pub arguments: Vec<OsString>,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
}

impl Call {
    /// A variable of the environment; an empty one counts as absent.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        let (_, value) = self.environment.iter().find(|(key, _)| key == name)?;
        value.to_str().filter(|value| !value.is_empty())
    }

    /// Arguments and environment for starting this very program once more.
    pub(crate) fn to_lists(&self) -> (StringList, StringList) {
        use std::os::unix::ffi::OsStrExt as _;
        let string = |bytes: &[u8]| std::ffi::CString::new(bytes).unwrap_or_default();
        let arguments = self.arguments.iter().map(|one| string(one.as_bytes())).collect();
        let environment = self
            .environment
            .iter()
            .map(|(key, value)| string(&[key.as_bytes(), b"=", value.as_bytes()].concat()));
        (StringList::new(arguments), StringList::new(environment.collect()))
    }
}

/// What every command knows.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) root: PathBuf,
    pub(crate) log: Log,
    /// The effective user of the runtime.
    pub(crate) uid: u32,
    systemd_cgroup: bool,
    is_rootless: bool,
    user_bus: Option<String>,
    pub(crate) listen_fds: u32,
    /// Where the service manager that started the runtime listens: a path, or `@` and an abstract name.
    pub(crate) notify_socket: Option<String>,
    /// To be let go of by every process of a command that makes or enters a container, before the container's program runs.
    pub(crate) private_mount: PrivateMount,
}

impl Context {
    pub(crate) fn new(global: &Global, call: &Call) -> Self {
        let uid = sys::effective_user();
        // Podman's runtime is root of the user's own namespace: as with runc that is no root. Looked at only where it matters.
        let matters = global.systemd_cgroup || call.variable("XDG_RUNTIME_DIR").is_some();
        let is_mapped_root = uid == 0 && matters && user_namespace::is_entered();
        let is_rootless = global.rootless.unwrap_or(uid != 0 || is_mapped_root);
        // Who says that he is root means the directories of root, as with runc.
        let says_root = is_mapped_root && call.variable("USER") == Some("root");
        let runtime_directory =
            call.variable("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|_| is_rootless && !says_root);
        let root = global.root.clone().unwrap_or_else(|| match &runtime_directory {
            Some(directory) => directory.join("inspect-runtime"),
            None => PathBuf::from(DEFAULT_ROOT),
        });
        let bus = call.variable("DBUS_SESSION_BUS_ADDRESS").map(str::to_owned);
        let user_bus = bus.or_else(|| Some(format!("unix:path={}/bus", runtime_directory?.display())));
        Context {
            root: std::path::absolute(&root).unwrap_or(root),
            uid,
            log: Log::new(global.log.clone(), global.log_format, global.debug),
            systemd_cgroup: global.systemd_cgroup,
            is_rootless,
            user_bus: user_bus.filter(|_| is_rootless),
            listen_fds: listen_fds(call),
            notify_socket: call.variable("NOTIFY_SOCKET").map(str::to_owned),
            private_mount: PrivateMount::default(),
        }
    }

    /// Who makes cgroups.
    pub(crate) fn driver(&self) -> Driver {
        match (&self.user_bus, self.systemd_cgroup) {
            (_, false) => Driver::Cgroupfs,
            (Some(address), true) if self.is_rootless => Driver::SystemdUser { address: address.clone() },
            (_, true) => Driver::Systemd,
        }
    }
}

/// How many sockets whoever started this process listens on for it. sd_listen_fds(3): only where `LISTEN_PID` says that it is this
/// process that is meant, for the variables may have been handed down by one that they were for.
fn listen_fds(call: &Call) -> u32 {
    let Some(count) = call.variable("LISTEN_FDS") else { return 0 };
    let own = rustix::process::getpid().as_raw_nonzero().to_string();
    if call.variable("LISTEN_PID") != Some(own.as_str()) {
        return 0;
    }
    count.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_meant_takes_descriptors() {
        let count = |pid: u32| {
            let environment = [("LISTEN_FDS", "2".to_owned()), ("LISTEN_PID", pid.to_string())];
            let environment = environment.map(|(name, value)| (name.into(), value.into())).to_vec();
            listen_fds(&Call { arguments: Vec::new(), environment })
        };
        assert_eq!((count(std::process::id()), count(1)), (2, 0));
    }
}
