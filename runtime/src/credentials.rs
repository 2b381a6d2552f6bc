//! The identity of a process: groups before ids, because changing ids takes the right to change groups away.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use oci_spec::runtime::User;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::resolve;
use crate::step::{Step, StepError};

/// Who a process is to be.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Credentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) umask: Option<u32>,
}

/// The file creation mask of a process whose spec gives none, as runc has it.
const DEFAULT_UMASK: u32 = 0o022;

impl Credentials {
    /// The user of the spec.
    pub(crate) fn from_spec(user: &User) -> Self {
        Credentials {
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask(),
        }
    }

    /// Whether these are the ids that the runtime has already.
    pub(crate) fn is_root(&self) -> bool {
        (self.uid, self.gid) == (0, 0)
    }

    /// Becomes this user for good. Capabilities that are permitted stay permitted (`PR_SET_KEEPCAPS`).
    ///
    /// In a user namespace whose `setgroups` is denied the groups stay as they are, as with runc and crun; an ordinary user, who can
    /// make no other, has been refused additional ones.
    pub(crate) fn apply(&self, groups_denied: bool) -> Result<(), StepError> {
        // Root keeps its capabilities without being told to.
        let is_other = self.uid != 0;
        if is_other {
            rustix::thread::set_keep_capabilities(true).step("set", "PR_SET_KEEPCAPS")?;
        }
        if !groups_denied {
            let groups: Vec<Gid> = self.additional_gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
            rustix::thread::set_thread_groups(&groups).step("set", "the supplementary groups")?;
        }
        become_user(self.uid, self.gid)?;
        if is_other {
            rustix::thread::set_keep_capabilities(false).step("clear", "PR_SET_KEEPCAPS")?;
        }
        rustix::process::umask(Mode::from_raw_mode(self.umask.unwrap_or(DEFAULT_UMASK)));
        Ok(())
    }
}

/// Sets all three ids of each kind: none is left that could be gone back to.
pub(crate) fn become_user(uid: u32, gid: u32) -> Result<(), StepError> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(group, group, group).step("become group", gid)?;
    rustix::thread::set_thread_res_uid(user, user, user).step("become user", uid)
}

/// The longest `/etc/passwd` that is looked into: the file is the container's.
const MAX_PASSWD: usize = 1 << 20;

/// `HOME=…` of a user by the container's `/etc/passwd`; `/` where that does not say.
pub(crate) fn find_home(root: BorrowedFd<'_>, uid: u32) -> CString {
    let fallback = || c"HOME=/".to_owned();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(file) = resolve::open_with(root, c"etc/passwd", flags) else { return fallback() };
    let mut text = Vec::new();
    let mut block = [0_u8; 512];
    while text.len() < MAX_PASSWD {
        match rustix::io::read(&file, &mut block) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&block[..length]),
            Err(Errno::INTR) => {}
            Err(_) => return fallback(),
        }
    }
    let home = home_in(&text, uid).map(|home| [b"HOME=", home].concat());
    home.and_then(|home| CString::new(home).ok()).unwrap_or_else(fallback)
}

fn home_in(passwd: &[u8], uid: u32) -> Option<&[u8]> {
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let own = std::str::from_utf8(fields.nth(2)?).ok()?.parse::<u32>().ok()?;
        fields.nth(2).filter(|home| own == uid && !home.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_found_in_passwd() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbroken\na:x:7:7::/home/a:/bin/sh\nb:x:8:8:::/bin/sh\n";
        assert_eq!(home_in(passwd, 0), Some(b"/root".as_slice()));
        assert_eq!(home_in(passwd, 7), Some(b"/home/a".as_slice()));
        assert_eq!(home_in(passwd, 8), None);
        assert_eq!(home_in(passwd, 9), None);
    }
}
