//! The names of things on a node, each its own type so that one is never passed for another.

use std::fmt;

use serde::Serialize;

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the name as the host gave it; it is not checked and may be hostile: escape it before printing.
            #[must_use]
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into())
            }

            /// The name as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            /// Escaped for a terminal.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&crate::escape::escape(&self.0))
            }
        }
    };
}

text_name! {
    /// A container's id, unique within its containerd namespace.
    ContainerId
}
text_name! {
    /// A containerd namespace (`default`, `k8s.io`, `moby`): not a Linux namespace.
    ContainerdNamespace
}
text_name! {
    /// A cgroup's path from the root of its hierarchy, as `/proc/PID/cgroup` has it: `/default/web`.
    CgroupPath
}
text_name! {
    /// A systemd unit's name with its suffix: `containerd.service`.
    UnitName
}

/// A process id in the pid namespace that the host's `/proc` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Pid(u32);

impl Pid {
    /// PID 1, systemd on the nodes that this tool is for.
    pub const INIT: Self = Self(1);

    /// A pid as the kernel prints it.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        Self(pid)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_escaped_when_shown_and_kept_when_used() {
        let id = ContainerId::new("web\x1b[31m");
        assert_eq!(id.to_string(), "web\\x1b[31m");
        assert_eq!(id.as_str(), "web\x1b[31m");
        assert_eq!(format!("{:>4}", Pid::new(7)), "   7");
    }
}
