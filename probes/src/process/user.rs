//! The host's `/etc/passwd`: passwd(5). No other source of names (NSS) is asked: a probe loads no code of the host.

use std::collections::HashMap;

use super::{ProcessError, read_present};
use crate::Host;

/// User names by user id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserNames {
    names: HashMap<u32, String>,
}

impl UserNames {
    /// Reads the host's `/etc/passwd`; without the file no user has a name.
    ///
    /// # Errors
    /// [`ProcessError`] when it is there and cannot be read.
    pub fn read(host: &Host) -> Result<Self, ProcessError> {
        let text = read_present(&host.etc().join("passwd"))?.unwrap_or_default();
        Ok(Self { names: parse_passwd(&text) })
    }

    /// The name of `uid`.
    #[must_use]
    pub fn name(&self, uid: u32) -> Option<&str> {
        self.names.get(&uid).map(String::as_str)
    }
}

/// The first name of each user id, leaving out lines that are not passwd(5).
#[must_use]
pub fn parse_passwd(text: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in String::from_utf8_lossy(text).lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(_), Some(Ok(uid))) =
            (fields.next(), fields.next(), fields.next().map(str::parse))
        {
            names.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_uid_wins() {
        let names = parse_passwd(b"root:x:0:0::/root:/bin/sh\ntoor:x:0:0:::\n\n+::::\nnobody:x:65534:1:::\n");
        assert_eq!(names.get(&0).map(String::as_str), Some("root"));
        assert_eq!(names.len(), 2);
    }
}
