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
}
