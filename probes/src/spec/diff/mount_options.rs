//! Options of one mount: flags with opposites, propagation, and data for the file system; the last of a kind counts.

use std::collections::BTreeMap;

use serde_json::Value;

use super::pair::Node;

/// Flags that restrict when they are set, with the option that clears them (mount(8), runtime-spec "Linux mount options").
const RESTRICTIONS: [(&str, &str); 5] =
    [("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec"), ("nosymfollow", "symfollow")];

/// Flags that restrict nothing.
const NEUTRAL: [(&str, &str); 10] = [
    ("sync", "async"),
    ("dirsync", "nodirsync"),
    ("noatime", "atime"),
    ("nodiratime", "diratime"),
    ("strictatime", "nostrictatime"),
    ("mand", "nomand"),
    ("iversion", "noiversion"),
    ("lazytime", "nolazytime"),
    ("idmap", "noidmap"),
    ("ridmap", "noridmap"),
];

/// Written out or not, they change nothing: relatime is what the kernel does by itself.
const WITHOUT_EFFECT: [&str; 6] = ["defaults", "relatime", "norelatime", "silent", "loud", "remount"];

const PROPAGATIONS: [&str; 8] =
    ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"];

/// What a list of options comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions<'a> {
    /// `ro`, `nosuid`, `rnodev`, …: set or not. A flag that is not named is not set.
    pub(super) restrictions: BTreeMap<String, bool>,
    pub(super) neutral: BTreeMap<String, bool>,
    /// The last propagation that is named.
    pub(super) propagation: Option<&'a str>,
    /// Whether it is a bind mount.
    pub(super) bind: bool,
    /// Whether what is mounted below comes along.
    pub(super) recursive: bool,
    /// `size=65536k` by name; `None` for a word without a value.
    pub(super) data: BTreeMap<&'a str, Option<&'a str>>,
}

impl<'a> MountOptions<'a> {
    /// The options of a mount.
    pub(super) fn of(mount: &Node<'a>) -> Self {
        mount.value().map_or_else(Self::default, Self::of_mount)
    }

    /// The options of an entry of `mounts`.
    pub(crate) fn of_mount(mount: &'a Value) -> Self {
        let mut options = Self::default();
        let listed = mount.get("options").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for option in listed.iter().filter_map(Value::as_str) {
            options.add(option);
        }
        options.bind |= mount.get("type").and_then(Value::as_str) == Some("bind");
        options
    }

    /// Whether it is a bind mount.
    pub(crate) fn is_bind(&self) -> bool {
        self.bind
    }

    /// The size of a tmpfs, as it is written.
    pub(crate) fn size(&self) -> Option<&'a str> {
        self.data.get("size").copied().flatten()
    }

    /// Bytes of a tmpfs size (`65536k`); `None` for what is no plain size, such as `50%`.
    pub(crate) fn parse_size(text: &str) -> Option<i128> {
        parse_size(text)
    }

    fn add(&mut self, option: &'a str) {
        let (recursive, plain) = match option.strip_prefix('r') {
            Some(rest) if is_restriction(rest) => ("r", rest),
            _ => ("", option),
        };
        if let Some((flag, set)) = find_flag(&RESTRICTIONS, plain) {
            self.restrictions.insert(format!("{recursive}{flag}"), set);
        } else if let Some((flag, set)) = find_flag(&NEUTRAL, option) {
            self.neutral.insert(flag.to_owned(), set);
        } else if PROPAGATIONS.contains(&option) {
            self.propagation = Some(option);
        } else if option == "bind" || option == "rbind" {
            self.bind = true;
            self.recursive = option == "rbind";
        } else if !WITHOUT_EFFECT.contains(&option) {
            let (name, value) =
                option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
            self.data.insert(name, value);
        }
    }

    /// Whether a flag that restricts is set.
    pub(crate) fn is_set(&self, flag: &str) -> bool {
        self.restrictions.get(flag).copied().unwrap_or(false)
    }

    /// Whether what is mounted in the container appears outside.
    pub(super) fn is_shared(&self) -> bool {
        self.propagation.is_some_and(|propagation| propagation.ends_with("shared"))
    }
}

fn is_restriction(option: &str) -> bool {
    find_flag(&RESTRICTIONS, option).is_some()
}

/// The flag that an option sets or clears.
fn find_flag(flags: &[(&'static str, &str)], option: &str) -> Option<(&'static str, bool)> {
    flags.iter().find_map(|(set, clear)| {
        if option == *set { Some((*set, true)) } else { (option == *clear).then_some((*set, false)) }
    })
}

/// Bytes of a tmpfs size (`65536k`); `None` for what is no plain size, such as `50%`.
pub(super) fn parse_size(text: &str) -> Option<i128> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: i128 = digits.parse().ok()?;
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_of_opposites_counts() {
        let mount =
            json!({"options": ["ro", "nosuid", "rw", "rro", "size=1m", "rslave", "rbind", "relatime"]});
        let options = MountOptions::of(&Node::new(String::new(), Some(&mount)));
        assert!(!options.is_set("ro") && options.is_set("nosuid") && options.is_set("rro"));
        assert_eq!((options.propagation, options.bind, options.recursive), (Some("rslave"), true, true));
        assert_eq!(options.data, BTreeMap::from([("size", Some("1m"))]));
    }

    #[test]
    fn sizes_are_bytes() {
        assert_eq!(parse_size("65536k"), Some(67_108_864));
        assert_eq!(parse_size("50%"), None);
        assert_eq!(parse_size(""), None);
    }
}
