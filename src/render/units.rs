//! Amounts as a person reads them.

/// Bytes in binary units, as kernel and runtimes count them: `612 B`, `1.5 MiB`, `2.0 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut unit = UNITS[0];
    let mut tenths = count.saturating_mul(10) / 1024;
    for larger in &UNITS[1..] {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = larger;
    }
    if tenths.is_multiple_of(10) {
        format!("{} {unit}", tenths / 10)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// Seconds in at most two units: `45s`, `3m 5s`, `2h 10m`, `4d 7h`.
pub(crate) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (minutes, hours, days) {
        (0, _, _) => format!("{seconds}s"),
        (_, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (_, _, 0) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well() {
        let shown: Vec<_> = [0, 1023, 1024, 1536, 67_108_864, 3 << 30, u64::MAX].map(bytes).into();
        assert_eq!(shown[..6], ["0 B", "1023 B", "1 KiB", "1.5 KiB", "64 MiB", "3 GiB"]);
        assert!(shown[6].ends_with("PiB"), "{}", shown[6]);
        assert_eq!([0, 59, 61, 3600, 90_000].map(duration), ["0s", "59s", "1m 1s", "1h 0m", "1d 1h"]);
    }
}
