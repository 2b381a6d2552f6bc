//! Small plots of eighths of a line: the last values of a series.

/// From empty to full.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A series as bars, scaled to `full`, or to its own greatest value where there is no full.
pub(crate) fn sparkline(values: &[u64], full: Option<u64>) -> String {
    let top = full.or(values.iter().max().copied()).unwrap_or(0).max(1);
    values
        .iter()
        .map(|value| {
            let step = u128::from(*value) * 8 / u128::from(top);
            BARS.get(usize::try_from(step).unwrap_or(7).min(7)).copied().unwrap_or('█')
        })
        .collect()
}

/// Bytes for people: `45.2 MiB`.
pub(crate) fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    let mut unit = 0;
    let mut scaled = value;
    while scaled >= 1024 * 1024 && unit < UNITS.len() - 1 {
        scaled /= 1024;
        unit += 1;
    }
    let tenths = scaled % 1024 * 10 / 1024;
    format!("{}.{tenths} {}", scaled / 1024, UNITS.get(unit).copied().unwrap_or("KiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_scaled_to_the_limit_or_to_the_greatest() {
        assert_eq!(sparkline(&[0, 50, 100], Some(100)), "▁▅█");
        assert_eq!(sparkline(&[0, 0], None), "▁▁");
        assert_eq!(sparkline(&[7], None), "█");
        assert_eq!(sparkline(&[], None), "");
    }

    #[test]
    fn bytes_have_one_place() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(67_108_864), "64.0 MiB");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16383.9 PiB");
    }
}
