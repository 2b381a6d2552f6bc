//! Which containerd this is, and which config versions it reads.

use std::fmt;

use serde::Serialize;

/// A containerd release: `1.6.20~ds1` → 1.6.20. Later words (Debian's, a commit) do not matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ContainerdVersion {
    /// 1 or 2.
    pub major: u32,
    /// The release line: 6 of 1.6.
    pub minor: u32,
    /// The patch release, 0 when the text does not say.
    pub patch: u32,
}

impl ContainerdVersion {
    /// Parses `1.6.20~ds1`, `v2.1.9+unknown`, `1.7.24`, or a whole line of `containerd --version`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(Self::parse_word)
    }

    fn parse_word(word: &str) -> Option<Self> {
        let word = word.strip_prefix('v').unwrap_or(word);
        let mut numbers = word.splitn(3, '.');
        let major = numbers.next()?.parse().ok()?;
        let minor = leading_number(numbers.next()?)?;
        let patch = numbers.next().and_then(leading_number).unwrap_or(0);
        Some(Self { major, minor, patch })
    }

    /// The release line to compare with: `at_least(2, 2)`.
    #[must_use]
    pub fn at_least(self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }

    /// 1.x replaces a plugin's whole section by the last file that names it, and a written `runtimes` table replaces
    /// the built-in one; 2.x merges tables deeply.
    #[must_use]
    pub fn merges_deeply(self) -> bool {
        self.at_least(2, 0)
    }

    /// The highest config version that is read: 2 before 2.0, 3 up to 2.2, 4 since 2.3.
    #[must_use]
    pub fn highest_config(self) -> i64 {
        match (self.major, self.minor) {
            (0 | 1, _) => 2,
            (2, 0..=2) => 3,
            _ => 4,
        }
    }

    /// The version to write into a file that does not exist yet.
    #[must_use]
    pub fn preferred_config(self) -> i64 {
        self.highest_config().min(3)
    }
}

impl fmt::Display for ContainerdVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

fn leading_number(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_distributions_print_them() {
        let parse = |text| ContainerdVersion::parse(text).map(|v| v.to_string());
        assert_eq!(parse("1.6.20~ds1").as_deref(), Some("1.6.20"));
        assert_eq!(
            parse("containerd github.com/containerd/containerd/v2 2.1.9+unknown ").as_deref(),
            Some("2.1.9")
        );
        assert_eq!(parse("containerd containerd.io v1.7.24 abcdef").as_deref(), Some("1.7.24"));
        assert_eq!(parse("v2.3.0-rc.1").as_deref(), Some("2.3.0"));
        assert_eq!(parse("unknown"), None);
    }
}
