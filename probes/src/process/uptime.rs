//! `/proc/uptime`, `/proc/sys/kernel/random/boot_id`: when this boot began and which one it is.

use std::time::Duration;

use super::{ProcessError, read_present};
use crate::Host;

/// How long the machine runs, from `/proc/uptime`; `None` where the host has no `/proc` (a mounted disk).
///
/// # Errors
/// [`ProcessError`] when the kernel refuses or the text is not two numbers of seconds.
pub fn read_uptime(host: &Host) -> Result<Option<Duration>, ProcessError> {
    let path = host.proc().join("uptime");
    let Some(text) = read_present(&path)? else { return Ok(None) };
    parse_uptime(&text)
        .map(Some)
        .ok_or_else(|| ProcessError::parse(&path, "expected seconds since boot", &text))
}

/// The id of this boot (random(4)): a state file of another boot tells nothing about the pids of this one.
///
/// # Errors
/// [`ProcessError`] when the kernel refuses.
pub fn read_boot_id(host: &Host) -> Result<Option<String>, ProcessError> {
    let text = read_present(&host.proc().join("sys/kernel/random/boot_id"))?;
    Ok(text.map(|text| String::from_utf8_lossy(text.trim_ascii()).into_owned()))
}

fn parse_uptime(text: &[u8]) -> Option<Duration> {
    let seconds: f64 = std::str::from_utf8(text).ok()?.split_ascii_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_in_seconds() {
        assert_eq!(parse_uptime(b"12.50 20.00\n"), Some(Duration::from_millis(12_500)));
        assert_eq!(parse_uptime(b"-1 0"), None);
        assert_eq!(parse_uptime(b""), None);
        assert!(read_uptime(&Host::live()).unwrap().is_some());
        assert!(read_uptime(&Host::at("/nonexistent")).unwrap().is_none());
    }
}
