//! `/proc/PID/limits`, the OOM score and the security label.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::edit::{items, remove, set};
use super::{Reading, Step};
use crate::process::{process_path, read_present};

/// The first words of each line (proc_pid_limits(5)) by the name of runtime-spec.
const ROWS: [(&str, &str); 16] = [
    ("RLIMIT_CPU", "Max cpu time"),
    ("RLIMIT_FSIZE", "Max file size"),
    ("RLIMIT_DATA", "Max data size"),
    ("RLIMIT_STACK", "Max stack size"),
    ("RLIMIT_CORE", "Max core file size"),
    ("RLIMIT_RSS", "Max resident set"),
    ("RLIMIT_NPROC", "Max processes"),
    ("RLIMIT_NOFILE", "Max open files"),
    ("RLIMIT_MEMLOCK", "Max locked memory"),
    ("RLIMIT_AS", "Max address space"),
    ("RLIMIT_LOCKS", "Max file locks"),
    ("RLIMIT_SIGPENDING", "Max pending signals"),
    ("RLIMIT_MSGQUEUE", "Max msgqueue size"),
    ("RLIMIT_NICE", "Max nice priority"),
    ("RLIMIT_RTPRIO", "Max realtime priority"),
    ("RLIMIT_RTTIME", "Max realtime timeout"),
];

pub(super) fn read_limits(reading: &mut Reading<'_>) -> Step {
    let path = process_path(reading.host, reading.pid, "limits");
    let Some(bytes) = read_present(&path)? else { return Ok(None) };
    put_rlimits(reading, &parse_limits(&String::from_utf8_lossy(&bytes)));
    let path = process_path(reading.host, reading.pid, "oom_score_adj");
    let Some(bytes) = read_present(&path)? else { return Ok(None) };
    let actual = String::from_utf8_lossy(&bytes).trim().parse::<i64>().ok();
    let asked = reading.base.pointer("/process/oomScoreAdj").and_then(Value::as_i64);
    // Without a score in the spec the process inherits one, and which is not known.
    if let (Some(actual), Some(asked)) = (actual, asked)
        && actual != asked
    {
        set(&mut reading.enforced, "/process/oomScoreAdj", actual);
    }
    put_apparmor(reading);
    Ok(Some(()))
}

/// Soft and hard limit by runtime-spec's name.
fn parse_limits(text: &str) -> HashMap<&'static str, (u64, u64)> {
    let value = |word: &str| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() };
    let parse = |(name, label): &(&'static str, &str)| {
        let line = text.lines().find_map(|line| line.strip_prefix(label))?;
        let mut words = line.split_whitespace();
        Some((*name, (value(words.next()?)?, value(words.next()?)?)))
    };
    ROWS.iter().filter_map(parse).collect()
}

fn put_rlimits(reading: &mut Reading<'_>, actual: &HashMap<&'static str, (u64, u64)>) {
    let mut entries = items(reading.base, "/process/rlimits").to_vec();
    let mut changed = false;
    for entry in &mut entries {
        let bound = |name: &str| entry.get(name).and_then(Value::as_u64).unwrap_or(0);
        let asked = (bound("soft"), bound("hard"));
        let name = entry.get("type").and_then(Value::as_str).unwrap_or_default();
        if let Some(&(soft, hard)) = actual.get(name).filter(|actual| **actual != asked) {
            *entry = json!({"type": name, "hard": hard, "soft": soft});
            changed = true;
        }
    }
    if changed {
        set(&mut reading.enforced, "/process/rlimits", entries);
    }
}

/// Without AppArmor in the kernel the file is not there or cannot be read.
fn put_apparmor(reading: &mut Reading<'_>) {
    let asked = reading.base.pointer("/process/apparmorProfile").and_then(Value::as_str).unwrap_or_default();
    let asked = Some(asked).filter(|profile| !profile.is_empty() && *profile != "unconfined");
    let read = |file: &str| read_present(&process_path(reading.host, reading.pid, file)).ok().flatten();
    let Some(bytes) = read("attr/apparmor/current") else { return };
    let text = String::from_utf8_lossy(&bytes);
    match (asked, parse_profile(&text)) {
        (asked, Some(actual)) if asked != Some(actual) => {
            set(&mut reading.enforced, "/process/apparmorProfile", actual)
        }
        (Some(_), None) => remove(&mut reading.enforced, "/process/apparmorProfile"),
        _ => {}
    }
}

/// The profile that confines: `cri-containerd.apparmor.d (enforce)`. Distributions give `runc` and `crun` profiles that
/// confine nothing, and the container keeps them: `runc (unconfined)`.
fn parse_profile(text: &str) -> Option<&str> {
    let text = text.trim_end_matches(['\n', '\0']);
    let (name, mode) = text.split_once(" (").unwrap_or((text, ""));
    (!name.is_empty() && name != "unconfined" && mode != "unconfined)").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_parsed_as_the_kernel_prints_them() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max cpu time              unlimited            unlimited            seconds   \n\
                    Max open files            1024                 524288               files     \n\
                    Max nice priority         0                    0                    \n";
        let limits = parse_limits(text);
        assert_eq!(limits["RLIMIT_NOFILE"], (1024, 524_288));
        assert_eq!(limits["RLIMIT_CPU"], (u64::MAX, u64::MAX));
        assert_eq!(limits["RLIMIT_NICE"], (0, 0));
        assert_eq!(parse_limits("Max open files  many").len(), 0);
    }

    #[test]
    fn a_profile_that_confines_nothing_is_none() {
        assert_eq!(parse_profile("cri-containerd.apparmor.d (enforce)\n"), Some("cri-containerd.apparmor.d"));
        assert_eq!(parse_profile("runc (unconfined)\n"), None);
        assert_eq!(parse_profile("unconfined\n"), None);
    }
}
