//! Mount options: the strings of the spec, as fstab has them, into flags. Pure.

use oci_spec::runtime::Mount;

use crate::sys::MountAttributes;

/// `MOUNT_ATTR_*` of `linux/mount.h`.
pub(crate) const ATTR_RDONLY: u64 = 0x1;
const ATTR_NOSUID: u64 = 0x2;
const ATTR_NODEV: u64 = 0x4;
const ATTR_NOEXEC: u64 = 0x8;
const ATTR_ATIME: u64 = 0x70;
const ATTR_NOATIME: u64 = 0x10;
const ATTR_STRICTATIME: u64 = 0x20;
const ATTR_NODIRATIME: u64 = 0x80;
const ATTR_NOSYMFOLLOW: u64 = 0x20_0000;
/// `MS_NOSYMFOLLOW`, which the libc crate lacks.
const MS_NOSYMFOLLOW: u64 = 0x100;

/// What mount(2) with `MS_REMOUNT | MS_BIND` replaces as a whole.
const ATTR_REPLACED: u64 = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | ATTR_NOSYMFOLLOW;

/// One of these set, and that replaces all that a mount says of access times.
const MS_ATIME: u64 = libc::MS_NOATIME | libc::MS_NODIRATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;

/// What a bind mount is to have in place of its source's attributes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct BindAttributes {
    /// All of them.
    pub(crate) replaced: MountAttributes,
    /// Where the kernel keeps those of the source locked: added to them, and refused if one that is locked is not wanted.
    pub(crate) added: MountAttributes,
}

/// The options of one mount.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct MountOptions {
    /// `MS_*` for mount(2) of a new file system.
    pub(crate) flags: u64,
    /// Every flag that a word set or cleared.
    given: u64,
    /// The same for mount_setattr(2), word by word.
    pub(crate) attributes: MountAttributes,
    /// What holds for the mounts below, too (`rro` …).
    pub(crate) recursive: MountAttributes,
    /// `MS_PRIVATE` and so on, perhaps with `MS_REC`, in order.
    pub(crate) propagation: Vec<u64>,
    /// `bind`: `Some(false)`, `rbind`: `Some(true)`.
    pub(crate) bind: Option<bool>,
    /// `idmap`: `Some(false)`, `ridmap`: `Some(true)`.
    pub(crate) idmap: Option<bool>,
    /// `tmpcopyup`.
    pub(crate) copy_up: bool,
    /// What the file system itself understands, joined by commas.
    pub(crate) data: String,
    /// An option that the runtime refuses.
    pub(crate) refused: Option<String>,
}

/// What one word means: flags to set or clear, as mount(2) and mount_setattr(2) have them.
struct Word {
    name: &'static str,
    set: bool,
    flag: u64,
    attribute: u64,
}

const fn word(name: &'static str, set: bool, flag: u64, attribute: u64) -> Word {
    Word { name, set, flag, attribute }
}

/// Options that both kinds of mount know; with an `r` in front they hold for the mounts below as well.
const ATTRIBUTES: &[Word] = &[
    word("ro", true, libc::MS_RDONLY, ATTR_RDONLY),
    word("rw", false, libc::MS_RDONLY, ATTR_RDONLY),
    word("nosuid", true, libc::MS_NOSUID, ATTR_NOSUID),
    word("suid", false, libc::MS_NOSUID, ATTR_NOSUID),
    word("nodev", true, libc::MS_NODEV, ATTR_NODEV),
    word("dev", false, libc::MS_NODEV, ATTR_NODEV),
    word("noexec", true, libc::MS_NOEXEC, ATTR_NOEXEC),
    word("exec", false, libc::MS_NOEXEC, ATTR_NOEXEC),
    word("nodiratime", true, libc::MS_NODIRATIME, ATTR_NODIRATIME),
    word("diratime", false, libc::MS_NODIRATIME, ATTR_NODIRATIME),
    word("nosymfollow", true, MS_NOSYMFOLLOW, ATTR_NOSYMFOLLOW),
    word("symfollow", false, MS_NOSYMFOLLOW, ATTR_NOSYMFOLLOW),
];

/// The times of access: a choice of three, so that setting one clears the field.
const ACCESS_TIMES: &[Word] = &[
    word("noatime", true, libc::MS_NOATIME, ATTR_NOATIME),
    word("atime", false, libc::MS_NOATIME, 0),
    word("relatime", true, libc::MS_RELATIME, 0),
    word("norelatime", false, libc::MS_RELATIME, 0),
    word("strictatime", true, libc::MS_STRICTATIME, ATTR_STRICTATIME),
    word("nostrictatime", false, libc::MS_STRICTATIME, 0),
];

/// Options of a super block: for new file systems alone.
const SUPER_BLOCK: &[Word] = &[
    word("sync", true, libc::MS_SYNCHRONOUS, 0),
    word("async", false, libc::MS_SYNCHRONOUS, 0),
    word("dirsync", true, libc::MS_DIRSYNC, 0),
    word("mand", true, libc::MS_MANDLOCK, 0),
    word("nomand", false, libc::MS_MANDLOCK, 0),
    word("iversion", true, libc::MS_I_VERSION, 0),
    word("noiversion", false, libc::MS_I_VERSION, 0),
    word("lazytime", true, 1 << 25, 0),
    word("nolazytime", false, 1 << 25, 0),
    word("silent", true, libc::MS_SILENT, 0),
    word("loud", false, libc::MS_SILENT, 0),
    word("defaults", false, 0, 0),
    // Of what an earlier mount of the spec put there.
    word("remount", true, libc::MS_REMOUNT, 0),
];

/// Reads a propagation word; `None` for any other.
pub(crate) fn propagation(name: &str) -> Option<u64> {
    match name {
        "private" => Some(libc::MS_PRIVATE),
        "rprivate" => Some(libc::MS_PRIVATE | libc::MS_REC),
        "slave" => Some(libc::MS_SLAVE),
        "rslave" => Some(libc::MS_SLAVE | libc::MS_REC),
        "shared" => Some(libc::MS_SHARED),
        "rshared" => Some(libc::MS_SHARED | libc::MS_REC),
        "unbindable" => Some(libc::MS_UNBINDABLE),
        "runbindable" => Some(libc::MS_UNBINDABLE | libc::MS_REC),
        _ => None,
    }
}

impl MountOptions {
    /// The options of a mount of the spec.
    pub(crate) fn from_spec(mount: &Mount) -> Self {
        let mut options = MountOptions::default();
        for name in mount.options().iter().flatten() {
            options.add(name);
        }
        if mount.typ().as_deref() == Some("bind") && options.bind.is_none() {
            options.bind = Some(false);
        }
        // A bind mount is new, and for a cgroup hierarchy its options are those of the whole host.
        let is_cgroup = matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"));
        if options.flags & libc::MS_REMOUNT != 0 && (options.bind.is_some() || is_cgroup) {
            options.refused = Some("remount".to_owned());
        }
        options
    }

    fn add(&mut self, name: &str) {
        if let Some(flags) = propagation(name) {
            self.propagation.push(flags);
            return;
        }
        match name {
            "bind" => self.bind = Some(false),
            "rbind" => self.bind = Some(true),
            "idmap" => self.idmap = Some(false),
            "ridmap" => self.idmap = Some(true),
            "tmpcopyup" => self.copy_up = true,
            _ => self.add_flag(name),
        }
    }

    fn add_flag(&mut self, name: &str) {
        let find = |table: &'static [Word], name: &str| table.iter().find(|word| word.name == name);
        if let Some(word) = find(ATTRIBUTES, name) {
            self.change_flags(word);
            change(&mut self.attributes, word.set, word.attribute);
        } else if let Some(word) = find(ACCESS_TIMES, name) {
            self.change_flags(word);
            choose(&mut self.attributes, word);
        } else if let Some(word) = find(SUPER_BLOCK, name) {
            self.change_flags(word);
        } else if let Some(word) = name.strip_prefix('r').and_then(|name| find(ATTRIBUTES, name)) {
            change(&mut self.recursive, word.set, word.attribute);
        } else if let Some(word) = name.strip_prefix('r').and_then(|name| find(ACCESS_TIMES, name)) {
            choose(&mut self.recursive, word);
        } else {
            if !self.data.is_empty() {
                self.data.push(',');
            }
            self.data.push_str(name);
        }
    }

    /// As the bind mount and remount of runc leave it: with any option given it has just those, so that a source on a
    /// read-only or noexec mount can be written or executed from; access times stay unless one of their flags is set.
    pub(crate) fn bind_attributes(&self) -> BindAttributes {
        if self.given == 0 {
            return BindAttributes::default();
        }
        let MountAttributes { set, clear, .. } = self.attributes;
        let mut replaced = MountAttributes { set: set & ATTR_REPLACED, ..MountAttributes::default() };
        let mut added = replaced;
        replaced.clear = ATTR_REPLACED & !set;
        // No file system is locked for whether symlinks are followed.
        added.clear = clear | ATTR_NOSYMFOLLOW & !set;
        if self.flags & MS_ATIME != 0 {
            let time = match self.flags {
                flags if flags & libc::MS_STRICTATIME != 0 => ATTR_STRICTATIME,
                flags if flags & libc::MS_NOATIME != 0 => ATTR_NOATIME,
                _ => 0,
            };
            for attributes in [&mut replaced, &mut added] {
                attributes.set |= time | set & ATTR_NODIRATIME;
                attributes.clear |= ATTR_ATIME | ATTR_NODIRATIME;
            }
        }
        BindAttributes { replaced, added }
    }

    fn change_flags(&mut self, word: &Word) {
        self.given |= word.flag;
        if word.set { self.flags |= word.flag } else { self.flags &= !word.flag }
    }
}

fn change(attributes: &mut MountAttributes, set: bool, attribute: u64) {
    if set {
        attributes.set |= attribute;
        attributes.clear &= !attribute;
    } else {
        attributes.set &= !attribute;
        attributes.clear |= attribute;
    }
}

/// The kernel takes a new access time only together with clearing the old one.
fn choose(attributes: &mut MountAttributes, word: &Word) {
    if word.name == "nostrictatime" || word.name == "norelatime" {
        return;
    }
    attributes.set = attributes.set & !ATTR_ATIME | word.attribute;
    attributes.clear |= ATTR_ATIME;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> MountOptions {
        let mut options = MountOptions::default();
        for word in words {
            options.add(word);
        }
        options
    }

    #[test]
    fn containerds_dev_mount() {
        let options = options(&["nosuid", "strictatime", "mode=755", "size=65536k"]);
        assert_eq!(options.flags, libc::MS_NOSUID | libc::MS_STRICTATIME);
        assert_eq!(options.data, "mode=755,size=65536k");
    }

    #[test]
    fn a_bind_mount_has_just_the_options_given() {
        let bind = |words: &[&str]| options(words).bind_attributes();
        assert_eq!(bind(&["rbind", "rprivate", "rro"]), BindAttributes::default());
        let BindAttributes { replaced, added } = bind(&["dev"]);
        assert_eq!((replaced.set, replaced.clear), (0, ATTR_REPLACED));
        assert_eq!((added.set, added.clear), (0, ATTR_NODEV | ATTR_NOSYMFOLLOW));
        let BindAttributes { replaced, added } = bind(&["ro", "nodiratime", "nosymfollow"]);
        assert_eq!(replaced.set, ATTR_RDONLY | ATTR_NODIRATIME | ATTR_NOSYMFOLLOW);
        assert_eq!(replaced.clear & (ATTR_ATIME | ATTR_NODIRATIME), ATTR_ATIME | ATTR_NODIRATIME);
        assert_eq!((added.set, added.clear), (replaced.set, ATTR_ATIME | ATTR_NODIRATIME));
        // As mount(8): what only clears a flag of access times changes none.
        let BindAttributes { replaced, .. } = bind(&["atime", "diratime"]);
        assert_eq!(replaced.clear, ATTR_REPLACED);
    }

    #[test]
    fn recursive_words_are_told_from_plain_ones() {
        let options = options(&["rbind", "rro", "rprivate", "ro", "rw", "rnoatime", "relatime"]);
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.recursive.set, ATTR_RDONLY | ATTR_NOATIME);
        assert_eq!(options.recursive.clear, ATTR_ATIME);
        assert_eq!((options.attributes.set, options.attributes.clear), (0, ATTR_RDONLY | ATTR_ATIME));
        assert_eq!(options.propagation, [libc::MS_PRIVATE | libc::MS_REC]);
        assert_eq!(options.data, "");
    }
}
