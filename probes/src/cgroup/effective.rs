//! What limits a cgroup really: the smallest value on the way to the root, and the ancestor that it stands in.

use serde::Serialize;

use super::file::{CgroupFileError, Limit, parse_limit};
use super::location::CgroupLocation;
use crate::name::CgroupPath;

/// Files whose smallest value up the tree holds.
const UNIFIED: [&str; 5] = ["memory.max", "memory.high", "memory.swap.max", "cpu.max", "pids.max"];
const LEGACY: [&str; 4] =
    ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "cpu.cfs_quota_us", "pids.max"];

/// A limit as it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EffectiveLimit {
    /// `memory.max`
    pub file: &'static str,
    /// The file's text in the cgroup itself.
    pub own: Option<String>,
    /// The text that binds; `max` when nothing does.
    pub effective: String,
    /// The cgroup whose value that is; `None` when nothing binds.
    pub bound_by: Option<CgroupPath>,
}

impl EffectiveLimit {
    /// Whether an ancestor's limit is the one that holds.
    #[must_use]
    pub fn is_inherited(&self, cgroup: &CgroupPath) -> bool {
        self.bound_by.as_ref().is_some_and(|path| path != cgroup)
    }
}

/// The limits that hold for a cgroup.
///
/// # Errors
/// [`CgroupFileError`] when the kernel refuses.
pub fn read_effective_limits(location: &CgroupLocation) -> Result<Vec<EffectiveLimit>, CgroupFileError> {
    let files: &[&'static str] = if location.is_unified() { &UNIFIED } else { &LEGACY };
    let mut limits = Vec::new();
    for file in files {
        if let Some(limit) = read_effective(location, file)? {
            limits.push(limit);
        }
    }
    Ok(limits)
}

fn read_effective(
    location: &CgroupLocation,
    file: &'static str,
) -> Result<Option<EffectiveLimit>, CgroupFileError> {
    let Some(own) = location.read(file)? else { return Ok(None) };
    let mut smallest: Option<(u128, String, CgroupPath)> = None;
    let mut at = Some(location.clone());
    while let Some(cgroup) = at {
        if let Some(text) = cgroup.read(file)?
            && let Some(size) = size(&cgroup, file, &text)?
            // The nearer one is named when an ancestor has the same.
            && smallest.as_ref().is_none_or(|(least, ..)| size < *least)
        {
            smallest = Some((size, text, cgroup.path.clone()));
        }
        at = cgroup.parent();
    }
    let (effective, bound_by) = match smallest {
        Some((_, text, path)) => (text, Some(path)),
        None => ("max".to_owned(), None),
    };
    Ok(Some(EffectiveLimit { file, own: Some(own), effective, bound_by }))
}

/// A value to compare by; `None` is no limit. Bandwidth is a share: quota by period, in millionths.
fn size(cgroup: &CgroupLocation, file: &str, text: &str) -> Result<Option<u128>, CgroupFileError> {
    if file == "cpu.cfs_quota_us" {
        let period = cgroup.read("cpu.cfs_period_us")?.and_then(|period| period.parse().ok());
        return Ok(text.parse().ok().zip(period).and_then(|(quota, period)| share(quota, period)));
    }
    if file == "cpu.max" {
        return Ok(text
            .split_once(' ')
            .and_then(|(quota, period)| share(quota.parse().ok()?, period.parse().ok()?)));
    }
    Ok(match parse_limit(text) {
        // v1's "no limit" is a number above all memory.
        Some(Limit::Value(value)) if value < 1 << 62 => Some(u128::from(value)),
        _ => None,
    })
}

fn share(quota: u64, period: u64) -> Option<u128> {
    (u128::from(quota) * 1_000_000).checked_div(u128::from(period))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Host;

    #[test]
    fn an_ancestor_with_less_binds() {
        let root = tempfile::tempdir().unwrap();
        let top = root.path().join("sys/fs/cgroup");
        fs::create_dir_all(top.join("pod/web")).unwrap();
        fs::write(top.join("cgroup.controllers"), "memory\n").unwrap();
        for (file, text) in [
            ("pod/memory.max", "100\n"),
            ("pod/web/memory.max", "200\n"),
            ("pod/cpu.max", "max 100000\n"),
            ("pod/web/cpu.max", "50000 100000\n"),
            ("pod/pids.max", "max\n"),
            ("pod/web/pids.max", "max\n"),
        ] {
            fs::write(top.join(file), text).unwrap();
        }
        let path = CgroupPath::new("/pod/web");
        let location = CgroupLocation::find(&Host::at(root.path()), &path, &[]).unwrap();
        let limits = read_effective_limits(&location).unwrap();
        let told: Vec<_> =
            limits.iter().map(|l| (l.file, l.effective.as_str(), l.is_inherited(&path))).collect();
        assert_eq!(
            told,
            [("memory.max", "100", true), ("cpu.max", "50000 100000", false), ("pids.max", "max", false)]
        );
        assert_eq!(limits[0].bound_by, Some(CgroupPath::new("/pod")));
        assert_eq!(limits[2].bound_by, None);
    }

    #[test]
    fn a_share_without_a_period_is_no_limit() {
        assert_eq!(share(1, 0), None);
        assert_eq!(share(50_000, 100_000), Some(500_000));
    }
}
