//! Whose a shim is. The kernel does not say: a shim's parent is PID 1, so that it outlives its daemon. What ties the two
//! are the shim's `-address`, the name of its socket, its cgroup and its bundle.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::model::{OwnershipProof, ProofKind};
use crate::containerd::{DaemonProcess, ShimProcess};
use crate::name::{CgroupPath, UnitName};
use crate::observation::{Observation, ObservedContainer};

/// A daemon, running or only known from what it left.
#[derive(Debug, Clone, Default)]
pub(super) struct DaemonSeed<'a> {
    pub(super) address: Option<PathBuf>,
    pub(super) state_directory: Option<PathBuf>,
    pub(super) process: Option<&'a DaemonProcess>,
}

/// Every daemon that runs, that a shim names, or that left bundles, in this order.
pub(super) fn find_owners(seen: &Observation) -> Vec<DaemonSeed<'_>> {
    let mut seeds: Vec<DaemonSeed<'_>> = seen
        .daemons
        .iter()
        .map(|daemon| DaemonSeed {
            address: Some(canonical(&daemon.address)),
            state_directory: Some(canonical(&daemon.state)),
            process: Some(daemon),
        })
        .collect();
    for shim in &seen.shims {
        if owner_of_shim(&seeds, shim).is_none() {
            seeds.push(DaemonSeed {
                address: shim.address.as_deref().map(canonical),
                state_directory: state_of_shim(seen, shim),
                process: None,
            });
        }
    }
    for container in &seen.containers {
        if let Some(bundle) = &container.bundle
            && owner_of_state(&seeds, &bundle.state_directory).is_none()
        {
            let state_directory = Some(canonical(&bundle.state_directory));
            seeds.push(DaemonSeed { address: None, state_directory, process: None });
        }
    }
    seeds
}

/// The state directory that a shim works below; without the right to see its working directory, that of its bundle.
fn state_of_shim(seen: &Observation, shim: &ShimProcess) -> Option<PathBuf> {
    let served = |container: &&ObservedContainer| {
        container.id == shim.id && container.containerd_namespace == shim.containerd_namespace
    };
    let bundle = || seen.containers.iter().filter(served).find_map(|container| container.bundle.as_ref());
    shim.state_directory().or_else(|| Some(&bundle()?.state_directory)).map(canonical)
}

/// The daemon of a shim: by the address that it reports to; without one by its bundle, then by its cgroup.
pub(super) fn owner_of_shim(seeds: &[DaemonSeed<'_>], shim: &ShimProcess) -> Option<usize> {
    if let Some(address) = shim.address.as_deref().map(canonical) {
        return seeds.iter().position(|seed| serves(seed, &address));
    }
    let by_state = shim.state_directory().and_then(|state| owner_of_state(seeds, state));
    by_state.or_else(|| seeds.iter().position(|seed| shares_unit(seed, shim)))
}

pub(super) fn owner_of_state(seeds: &[DaemonSeed<'_>], state: &Path) -> Option<usize> {
    let state = canonical(state);
    seeds.iter().position(|seed| seed.state_directory.as_ref() == Some(&state))
}

/// What ties a shim to its daemon, each tie looked at for itself.
pub(super) fn prove_ownership(
    seed: &DaemonSeed<'_>,
    shim: &ShimProcess,
    containers: &[&ObservedContainer],
) -> Vec<OwnershipProof> {
    let mut proofs = Vec::new();
    let mut prove = |kind, detail| proofs.push(OwnershipProof { kind, detail });
    let address = shim.address.as_deref().map(canonical);
    if let Some(address) = address.filter(|address| serves(seed, address)) {
        let listens = seed.process.and_then(|daemon| Some((daemon.pid, listens_on(daemon, &address)?)));
        let detail = match listens {
            Some((pid, true)) => format!("-address {}, on which pid {pid} listens", address.display()),
            Some((pid, false)) => {
                format!("-address {}, on which pid {pid} does not listen", address.display())
            }
            None => format!("-address {}", address.display()),
        };
        prove(ProofKind::Address, detail);
    }
    if let Some(socket) = proven_socket(shim, containers) {
        prove(ProofKind::Socket, format!("{socket} is the SHA-256 of address, containerd namespace and id"));
    }
    if let Some(cgroup) = shim.cgroup.as_ref().filter(|_| shares_unit(seed, shim)) {
        prove(ProofKind::Cgroup, format!("{} is in the daemon's unit", cgroup.as_str()));
    }
    let state = shim.state_directory().map(canonical);
    if let Some(state) = state.filter(|state| seed.state_directory.as_ref() == Some(state)) {
        prove(ProofKind::Bundle, format!("works in a bundle below {}", state.display()));
    }
    proofs
}

fn serves(seed: &DaemonSeed<'_>, address: &Path) -> bool {
    seed.address.as_deref() == Some(address)
        || seed.process.and_then(|daemon| listens_on(daemon, address)).unwrap_or(false)
}

/// Whether the daemon was seen to listen on `address`; `None` without the right to look.
pub(super) fn listens_on(daemon: &DaemonProcess, address: &Path) -> Option<bool> {
    daemon.listens.as_ref().map(|paths| paths.iter().any(|path| canonical(path) == address))
}

fn shares_unit(seed: &DaemonSeed<'_>, shim: &ShimProcess) -> bool {
    let daemon = seed.process.and_then(|daemon| daemon.cgroup.as_ref()).and_then(unit_of_cgroup);
    daemon.is_some() && daemon == shim.cgroup.as_ref().and_then(unit_of_cgroup)
}

/// containerd names a shim's socket after `ADDRESS/NAMESPACE/ID`, where ID is the container's or its group's (a pod's
/// sandbox): a name that fits can only come from this daemon's address.
fn proven_socket(shim: &ShimProcess, containers: &[&ObservedContainer]) -> Option<String> {
    let address = shim.address.as_ref()?;
    let text = format!("{}/{}/{}", address.display(), shim.containerd_namespace.as_str(), shim.id.as_str());
    let hash = hexadecimal(&Sha256::digest(text.as_bytes()));
    let sockets = containers.iter().filter_map(|container| container.bundle.as_ref()?.shim_address.as_ref());
    sockets.map(|socket| socket.address.clone()).find(|socket| socket.ends_with(&hash))
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok(), "a String takes every write");
    }
    text
}

/// `unix://` in front is the same socket; `/var/run` is a link to `/run` on every systemd host.
fn canonical(path: &Path) -> PathBuf {
    let path =
        path.strip_prefix("unix:").map_or_else(|_| path.to_path_buf(), |rest| Path::new("/").join(rest));
    path.strip_prefix("/var/run").map_or(path.clone(), |rest| Path::new("/run").join(rest))
}

/// The systemd unit that a cgroup path stands for: its service, otherwise its innermost scope.
#[must_use]
pub fn unit_of_cgroup(cgroup: &CgroupPath) -> Option<UnitName> {
    let components = || cgroup.as_str().split('/');
    let service = components().find(|component| component.ends_with(".service"));
    service.or_else(|| components().rev().find(|component| component.ends_with(".scope"))).map(UnitName::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{ContainerId, ContainerdNamespace, Pid};

    fn shim(address: Option<&str>, cwd: Option<&str>) -> ShimProcess {
        ShimProcess {
            pid: Pid::new(40),
            kernel_parent: Pid::INIT,
            start_time: 0,
            exe: None,
            command_line: String::new(),
            containerd_namespace: ContainerdNamespace::new("default"),
            id: ContainerId::new("mycontainer2"),
            address: address.map(PathBuf::from),
            cwd: cwd.map(PathBuf::from),
            cgroup: Some(CgroupPath::new("/system.slice/containerd.service")),
        }
    }

    #[test]
    fn a_shim_without_its_daemon_still_has_an_owner() {
        let bundle = "/run/containerd/io.containerd.runtime.v2.task/default/mycontainer2";
        let seen = Observation {
            shims: vec![
                shim(Some("/var/run/containerd/containerd.sock"), Some(bundle)),
                shim(None, Some(bundle)),
            ],
            ..Observation::default()
        };
        let seeds = find_owners(&seen);
        assert_eq!(seeds.len(), 1);
        assert_eq!(seeds[0].address.as_deref(), Some(Path::new("/run/containerd/containerd.sock")));
        assert_eq!(owner_of_shim(&seeds, &seen.shims[1]), Some(0));
        let kinds: Vec<_> =
            prove_ownership(&seeds[0], &seen.shims[0], &[]).iter().map(|proof| proof.kind).collect();
        assert_eq!(kinds, [ProofKind::Address, ProofKind::Bundle]);
    }

    #[test]
    fn the_socket_is_named_after_address_namespace_and_id() {
        let text = "/run/containerd/containerd.sock/default/mycontainer2";
        let hash = hexadecimal(&Sha256::digest(text.as_bytes()));
        assert!(hash.starts_with("84297b00b3b7"), "{hash}");
    }

    #[test]
    fn units_are_read_off_cgroups() {
        let unit = |path: &str| unit_of_cgroup(&CgroupPath::new(path)).map(|unit| unit.as_str().to_owned());
        assert_eq!(unit("/system.slice/k3s.service/below").as_deref(), Some("k3s.service"));
        assert_eq!(unit("/user.slice/user-0.slice/session-3.scope").as_deref(), Some("session-3.scope"));
        assert_eq!(unit("/"), None);
    }

    #[test]
    fn addresses_have_one_form() {
        assert_eq!(canonical(Path::new("unix:///var/run/x.sock")), Path::new("/run/x.sock"));
    }
}
