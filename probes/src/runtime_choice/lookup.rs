//! From the command that the shim runs to the file that this leads to now.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Host;
use crate::name::Pid;
use crate::process::read_environ;
use crate::runtime_state::RuntimeFamily;

/// The outcome of looking a command up as the shim does (Go's exec.LookPath in the shim's environment).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BinaryLookup {
    /// BinaryName, or the default.
    pub command: String,
    /// PATH of the shim; `None` when the command is a path, or the shim's environment cannot be read.
    pub path: Option<String>,
    /// Where it leads.
    pub outcome: LookupOutcome,
}

/// Where a command leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LookupOutcome {
    /// To a file.
    Found {
        /// Where the command was found.
        found: PathBuf,
        /// The file behind symbolic links.
        file: PathBuf,
        /// Its mtime, seconds since 1970.
        changed: i64,
    },
    /// There is no such file, or none that can be executed.
    NotFound,
    /// The shim's environment cannot be read: no shim runs, or root is needed.
    Unknown,
}

impl BinaryLookup {
    /// The family that the file's name speaks for.
    #[must_use]
    pub fn family(&self) -> Option<RuntimeFamily> {
        let LookupOutcome::Found { file, .. } = &self.outcome else { return None };
        let name = file.file_name()?.to_string_lossy();
        // The longest names first: "runc" stands in no other, but be exact.
        [RuntimeFamily::InspectRuntime, RuntimeFamily::Youki, RuntimeFamily::Crun, RuntimeFamily::Runc]
            .into_iter()
            .find(|family| name.starts_with(family.as_str()))
    }

    /// When the file changed last, in the form that runtimes write `created` in.
    #[must_use]
    pub fn changed_rfc3339(&self) -> Option<String> {
        let LookupOutcome::Found { changed, .. } = &self.outcome else { return None };
        Some(rfc3339(*changed))
    }
}

/// Looks `command` up as the shim `shim` does now.
pub(super) fn find_command(host: &Host, command: &str, shim: Option<Pid>) -> BinaryLookup {
    if command.contains('/') {
        let outcome = examine(host, Path::new(command)).unwrap_or(LookupOutcome::NotFound);
        return BinaryLookup { command: command.to_owned(), path: None, outcome };
    }
    let Some(path) = shim.and_then(|shim| read_path_variable(host, shim)) else {
        return BinaryLookup { command: command.to_owned(), path: None, outcome: LookupOutcome::Unknown };
    };
    let outcome = path
        .split(':')
        .filter(|directory| directory.starts_with('/'))
        .find_map(|directory| examine(host, &Path::new(directory).join(command)))
        .unwrap_or(LookupOutcome::NotFound);
    BinaryLookup { command: command.to_owned(), path: Some(path), outcome }
}

fn read_path_variable(host: &Host, shim: Pid) -> Option<String> {
    let environment = read_environ(host, shim).ok()??;
    let value = environment.iter().find_map(|entry| entry.strip_prefix(b"PATH="))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

fn examine(host: &Host, path: &Path) -> Option<LookupOutcome> {
    let real = host.resolve(path);
    let metadata = fs::metadata(&real).ok()?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return None;
    }
    let file = fs::canonicalize(&real).map_or_else(|_| path.to_path_buf(), |file| host.display_path(&file));
    debug_assert!(!file.as_os_str().as_bytes().is_empty(), "a canonical path is not empty");
    Some(LookupOutcome::Found { found: path.to_path_buf(), file, changed: metadata.mtime() })
}

/// Seconds since 1970 as RFC 3339 in UTC (days to civil date: proleptic Gregorian calendar, eras of 400 years).
fn rfc3339(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_date_1() {
        // `date -u -d @N +%FT%TZ`
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(1_795_434_829), "2026-11-23T11:53:49Z");
    }

    fn node() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        for (file, mode) in [("usr/sbin/runc", 0o755), ("usr/local/bin/runc", 0o644)] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let process = root.path().join("proc/7");
        fs::create_dir_all(&process).unwrap();
        fs::write(process.join("environ"), "LANG=C\0PATH=/usr/local/bin:/usr/sbin\0").unwrap();
        let host = Host::at(root.path());
        (root, host)
    }

    #[test]
    fn a_name_is_looked_up_in_the_shims_path_and_must_be_executable() {
        let (_root, host) = node();
        let lookup = find_command(&host, "runc", Some(Pid::new(7)));
        let LookupOutcome::Found { found, .. } = &lookup.outcome else { panic!("{lookup:?}") };
        assert_eq!(found, Path::new("/usr/sbin/runc"));
        assert_eq!(lookup.family(), Some(RuntimeFamily::Runc));
        assert_eq!(find_command(&host, "crun", Some(Pid::new(7))).outcome, LookupOutcome::NotFound);
        assert_eq!(find_command(&host, "crun", None).outcome, LookupOutcome::Unknown);
    }

    #[test]
    fn a_path_needs_no_shim() {
        let (_root, host) = node();
        assert!(matches!(find_command(&host, "/usr/sbin/runc", None).outcome, LookupOutcome::Found { .. }));
        assert_eq!(find_command(&host, "/usr/local/bin/runc", None).outcome, LookupOutcome::NotFound);
    }
}
