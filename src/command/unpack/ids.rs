//! Whose files an unpacked image has: root's way, a plain user's with subordinate ids, a plain user's without.

use std::io::Write as _;
use std::process::{Command, Stdio};

use inspect_image::spec::IdRange;
use inspect_probes::Host;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{User, getegid, geteuid};

use crate::error::CommandError;

/// Who unpacks, and which ids of the host the container's ids are.
#[derive(Debug)]
pub(super) struct Identity {
    kind: Kind,
    pub(super) uids: Vec<IdRange>,
    pub(super) gids: Vec<IdRange>,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// Root: every file gets its owner.
    Root,
    /// A plain user, by now root of a user namespace with the ids that `/etc/subuid` gives.
    Mapped,
    /// A plain user without such ids: all files are the user's own.
    Alone {
        /// Why there are no more ids.
        reason: String,
    },
}

impl Identity {
    pub(super) fn can_own(&self) -> bool {
        !matches!(self.kind, Kind::Alone { .. })
    }

    pub(super) fn is_plain_user(&self) -> bool {
        self.kind != Kind::Root
    }

    /// What a plain user is to know; root knows.
    pub(super) fn describe(&self) -> Option<String> {
        match &self.kind {
            Kind::Root => None,
            Kind::Mapped => Some(
                "owners are kept in a user namespace, as the ids that /etc/subuid and /etc/subgid give you; \
                 `unshare --map-auto --map-root-user rm -r` removes such files"
                    .to_owned(),
            ),
            Kind::Alone { reason } => Some(format!("owners are lost, all files are yours: {reason}")),
        }
    }
}

/// Becomes root of a user namespace where that takes more than we are. To be called before any thread is started.
pub(super) fn enter(host: &Host) -> Result<Identity, CommandError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let own = |id| vec![IdRange { container: 0, host: id, size: 1 }];
    if uid == 0 {
        return Ok(Identity { kind: Kind::Root, uids: own(0), gids: own(0) });
    }
    let alone = |reason: String| Identity { kind: Kind::Alone { reason }, uids: own(uid), gids: own(gid) };
    let name = User::from_uid(geteuid()).ok().flatten().map(|user| user.name).unwrap_or_default();
    let find = |file: &str, id: u32| {
        let text = std::fs::read_to_string(host.etc().join(file)).unwrap_or_default();
        subordinate_range(&text, &name, id)
    };
    let (Some(sub_uids), Some(sub_gids)) = (find("subuid", uid), find("subgid", uid)) else {
        return Ok(alone("/etc/subuid or /etc/subgid give you no ids".to_owned()));
    };
    let identity = Identity {
        kind: Kind::Mapped,
        uids: [own(uid), vec![sub_uids]].concat(),
        gids: [own(gid), vec![sub_gids]].concat(),
    };
    match map(&identity) {
        Ok(()) => Ok(identity),
        Err(MapError::Before(reason)) => Ok(alone(reason)),
        // There is no way back out of a user namespace.
        Err(MapError::After(reason)) => {
            Err(CommandError::trouble(format!("cannot map the ids of /etc/subuid and /etc/subgid: {reason}"))
                .hint("`newuidmap` and `newgidmap` of the package `uidmap` must be setuid root"))
        }
    }
}

enum MapError {
    Before(String),
    After(String),
}

/// Unshares, and has a child that stayed outside write the maps: the two programs act for their caller's namespace.
fn map(identity: &Identity) -> Result<(), MapError> {
    let before = |error: std::io::Error| MapError::Before(error.to_string());
    for program in ["newuidmap", "newgidmap"] {
        let found = Command::new(program).stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.map_err(|_| MapError::Before(format!("`{program}` is not installed")))?;
    }
    let pid = std::process::id();
    let words = |ranges: &[IdRange]| -> String {
        let word = |range: &IdRange| format!(" {} {} {}", range.container, range.host, range.size);
        ranges.iter().map(word).collect()
    };
    let script = format!(
        "read go && newuidmap {pid}{} && newgidmap {pid}{}",
        words(&identity.uids),
        words(&identity.gids)
    );
    let mut child = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().map_err(before)?;
    let unshared = unshare(CloneFlags::CLONE_NEWUSER);
    if let Some(mut stdin) = child.stdin.take()
        && unshared.is_ok()
    {
        stdin.write_all(b"go\n").map_err(|error| MapError::After(error.to_string()))?;
    }
    let status = child.wait().map_err(|error| MapError::After(error.to_string()))?;
    match unshared {
        Err(errno) => {
            Err(MapError::Before(format!("this machine gives plain users no user namespace ({errno})")))
        }
        Ok(()) if status.success() => Ok(()),
        Ok(()) => Err(MapError::After(format!("newuidmap or newgidmap ended with {status}"))),
    }
}

/// The first line of subuid(5) for the user, by name or number: `NAME:FIRST:COUNT`.
fn subordinate_range(text: &str, name: &str, id: u32) -> Option<IdRange> {
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let user = fields.next()?;
        if user != name && user.parse() != Ok(id) {
            return None;
        }
        let (host, size) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (size > 0).then_some(IdRange { container: 1, host, size })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_or_number() {
        let text = "other:1:2\nann:100000:65536\n1001:200000:10\nbad:x:y\n";
        let range = |name, id| subordinate_range(text, name, id).map(|range| (range.host, range.size));
        assert_eq!(range("ann", 1000), Some((100_000, 65536)));
        assert_eq!(range("bob", 1001), Some((200_000, 10)));
        assert_eq!(range("bad", 7), None);
    }
}
