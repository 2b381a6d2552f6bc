//! Where a host's files are: the only absolute paths of the library.

use std::path::{Path, PathBuf};

/// The roots of the kernel's and the daemons' file systems on one host.
///
/// [`Host::live`] is the machine we run on. [`Host::at`] is a directory with `proc`, `sys`, `run` and `etc` below it: a
/// captured fixture, or the mounted disk of another node (whose `proc` and `sys` are then empty: absent by nature).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    root: PathBuf,
    live: bool,
}

impl Host {
    /// The machine that this program runs on.
    #[must_use]
    pub fn live() -> Self {
        Self { root: PathBuf::from("/"), live: true }
    }

    /// A host whose files are below `root`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), live: false }
    }

    /// Whether this is the running machine: only then can sockets be asked and pids be opened.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// procfs(5), `/proc`.
    #[must_use]
    pub fn proc(&self) -> PathBuf {
        self.root.join("proc")
    }

    /// sysfs(5), `/sys`; the cgroup hierarchies are mounted below its `fs/cgroup`.
    #[must_use]
    pub fn sys(&self) -> PathBuf {
        self.root.join("sys")
    }

    /// `/run`: sockets, bundles and runtime state.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// `/etc`: configuration.
    #[must_use]
    pub fn etc(&self) -> PathBuf {
        self.root.join("etc")
    }

    /// Where an absolute path that the host itself names (in a command line, in a state file) is to be read from.
    ///
    /// On the live host that is the path itself. `..` components never climb out of the root of a fixture.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        if self.live {
            return path.to_path_buf();
        }
        let mut inside = PathBuf::new();
        for component in path.components() {
            match component {
                std::path::Component::Normal(name) => inside.push(name),
                std::path::Component::ParentDir => {
                    inside.pop();
                }
                _ => {}
            }
        }
        self.root.join(inside)
    }

    /// The path as the host itself names it: what a user can paste. The opposite of [`Host::resolve`].
    #[must_use]
    pub fn display_path(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.root) {
            Ok(inside) => Path::new("/").join(inside),
            Err(_) => path.to_path_buf(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixture_is_never_left_by_a_path_that_the_host_names() {
        let host = Host::at("/fixture");
        assert_eq!(host.resolve(Path::new("/run/x")), Path::new("/fixture/run/x"));
        assert_eq!(host.resolve(Path::new("/../../etc/shadow")), Path::new("/fixture/etc/shadow"));
        assert_eq!(host.display_path(Path::new("/fixture/run/x")), Path::new("/run/x"));
    }

    #[test]
    fn the_live_host_keeps_paths() {
        assert_eq!(Host::live().resolve(Path::new("/run/../x")), Path::new("/run/../x"));
        assert_eq!(Host::live().proc(), Path::new("/proc"));
    }
}
