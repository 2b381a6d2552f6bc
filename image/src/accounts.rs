//! Who a container runs as: the image's `User`, looked up in the image's own `/etc/passwd` and `/etc/group`.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;

use inspect_probes::escape::quote;
use serde::Serialize;

use crate::unpack::open_file_in;

/// The most bytes of one of the files.
const FILE_LIMIT: u64 = 8 << 20;

/// Why a user cannot be looked up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// One of the files cannot be read.
    #[error("cannot read `/{file}` of the image")]
    Read {
        /// The file.
        file: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The image's passwd has no such user.
    #[error("cannot find the user {} in the image's `/etc/passwd`", quote(user.as_bytes()))]
    NoUser {
        /// What was looked for.
        user: String,
    },
    /// The image's group has no such group.
    #[error("cannot find the group {} in the image's `/etc/group`", quote(group.as_bytes()))]
    NoGroup {
        /// What was looked for.
        group: String,
    },
}

/// The ids that a process gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, the first one as well, as containerd writes them.
    pub additional_gids: Vec<u32>,
    /// The home directory that passwd gives.
    pub home: Option<String>,
}

/// The two files of a root file system.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads them from the root file system. An image without them has none: then only numbers are known.
    ///
    /// # Errors
    /// Where one of them is there and cannot be read.
    pub fn read(root: &OwnedFd) -> Result<Self, AccountError> {
        Ok(Self { passwd: read_file(root, "etc/passwd")?, group: read_file(root, "etc/group")? })
    }

    /// From the text of the files.
    #[must_use]
    pub fn parse(passwd: &str, group: &str) -> Self {
        Self { passwd: passwd.to_owned(), group: group.to_owned() }
    }

    /// `USER`, `UID`, `USER:GROUP` and the mixed forms; empty is root. A number needs no line in the files.
    ///
    /// # Errors
    /// Where a name is in neither file.
    pub fn resolve(&self, wanted: &str) -> Result<Account, AccountError> {
        let (user, group) = match wanted.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (wanted, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let line = self.find_user(user);
        let uid = line
            .and_then(|line| field(line, 2)?.parse().ok())
            .or_else(|| user.parse().ok())
            .ok_or_else(|| AccountError::NoUser { user: user.to_owned() })?;
        let gid = match group {
            Some(group) if !group.is_empty() => self.find_group(group)?,
            _ => line.and_then(|line| field(line, 3)?.parse().ok()).unwrap_or(0),
        };
        let mut additional_gids = vec![gid];
        // With a group of its own the user gets no others: that is what an explicit group is for.
        if let (None, Some(name)) = (group, line.and_then(|line| field(line, 0))) {
            additional_gids.extend(self.groups_of(name).filter(|other| *other != gid));
        }
        let home = line.and_then(|line| field(line, 5)).filter(|home| !home.is_empty()).map(str::to_owned);
        Ok(Account { uid, gid, additional_gids, home })
    }

    fn find_user(&self, user: &str) -> Option<&str> {
        let lines = || self.passwd.lines();
        let by_name = lines().find(|line| field(line, 0) == Some(user));
        let id: Option<u32> = user.parse().ok();
        by_name.or_else(|| {
            lines().find(|line| id.is_some() && field(line, 2).and_then(|uid| uid.parse().ok()) == id)
        })
    }

    fn find_group(&self, group: &str) -> Result<u32, AccountError> {
        let line = self.group.lines().find(|line| field(line, 0) == Some(group));
        line.and_then(|line| field(line, 2)?.parse().ok())
            .or_else(|| group.parse().ok())
            .ok_or_else(|| AccountError::NoGroup { group: group.to_owned() })
    }

    fn groups_of(&self, user: &str) -> impl Iterator<Item = u32> {
        let lines = self.group.lines();
        let is_member = move |line: &&str| {
            field(line, 3).is_some_and(|members| members.split(',').any(|member| member.trim() == user))
        };
        lines.filter(is_member).filter_map(|line| field(line, 2)?.parse().ok())
    }
}

fn field(line: &str, index: usize) -> Option<&str> {
    line.split(':').nth(index)
}

fn read_file(root: &OwnedFd, file: &'static str) -> Result<String, AccountError> {
    let failed = |source| AccountError::Read { file, source };
    let Some(fd) = open_file_in(root, file.as_bytes()).map_err(|errno| failed(errno.into()))? else {
        return Ok(String::new());
    };
    let mut bytes = Vec::new();
    File::from(fd).take(FILE_LIMIT).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts::parse(
            "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:w:/var/www:/bin/false\n7:x:100:100::/:\n",
            "root:x:0:\nwww:x:34:\nlog:x:50:web,other\nwheel:x:10:root\n",
        )
    }

    #[test]
    fn names_numbers_and_groups_are_resolved() {
        let resolve = |wanted| accounts().resolve(wanted).unwrap();
        let ids = |wanted| {
            let account = resolve(wanted);
            (account.uid, account.gid, account.additional_gids)
        };
        assert_eq!(ids(""), (0, 0, vec![0, 10]));
        assert_eq!(ids("web"), (33, 34, vec![34, 50]));
        assert_eq!(ids("web:log"), (33, 50, vec![50]));
        assert_eq!(ids("33"), (33, 34, vec![34, 50]));
        assert_eq!(ids("1234"), (1234, 0, vec![0]));
        assert_eq!(ids("1234:77"), (1234, 77, vec![77]));
        assert_eq!(ids("7"), (100, 100, vec![100]), "a name that is a number is a name first");
        assert_eq!(resolve("web").home.as_deref(), Some("/var/www"));
    }

    #[test]
    fn unknown_names_are_refused() {
        assert!(matches!(accounts().resolve("nobody"), Err(AccountError::NoUser { .. })));
        assert!(matches!(accounts().resolve("web:nogroup"), Err(AccountError::NoGroup { .. })));
        assert!(matches!(Accounts::default().resolve("root"), Err(AccountError::NoUser { .. })));
        assert_eq!(Accounts::default().resolve("0").unwrap().uid, 0);
    }
}
