//! Conversions of values that cgroup v1 and v2 count differently. Pure.

/// `cpu.weight` for `cpu.shares`: 0 is unset, 2 becomes 1, 1024 becomes 100, 262144 becomes 10000, and between them the
/// exponent is a quadratic function of the logarithm, as runc 1.3 and crun 1.24 and later have it.
#[must_use]
pub fn cpu_weight_from_shares(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        _ => {
            let logarithm = (shares as f64).log2();
            let exponent = (logarithm * logarithm + 125.0 * logarithm) / 612.0 - 7.0 / 34.0;
            Some(saturate(10_f64.powf(exponent).ceil()))
        }
    }
}

/// A weight is between 1 and 10,000, so nothing is lost.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 1..=10000 just before"
)]
fn saturate(weight: f64) -> u64 {
    weight.clamp(1.0, 10_000.0) as u64
}

/// `io.weight` (1 to 10,000) for `blockIO.weight` (10 to 1,000): linear.
#[must_use]
pub(super) fn io_weight_from_blkio(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9999 / 990
}

/// `memory.swap.max` for the spec's memory+swap and memory limits, in bytes: -1 is no limit, `None` leaves it as it is.
///
/// # Errors
/// Says why the two do not go together.
pub(super) fn swap_limit(memory_and_swap: i64, memory: i64) -> Result<Option<i64>, String> {
    match (memory_and_swap, memory) {
        // Unlimited memory alone means unlimited swap too, as on cgroup v1.
        (0, -1) | (-1, _) => Ok(Some(-1)),
        (0, _) => Ok(None),
        (both, -1) => Ok(Some(both)),
        (_, 0) => Err("unable to set swap limit without memory limit".to_owned()),
        (_, memory) if memory < 0 => Err(format!("invalid memory value: {memory}")),
        (both, memory) if both < memory => Err("memory+swap limit should be >= memory limit".to_owned()),
        (both, memory) => Ok(Some(both - memory)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_the_weights_that_runc_1_3_writes() {
        let measured = [
            (2, 1),
            (100, 17),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (8192, 532),
            (262_144, 10_000),
            (1, 1),
            (u64::MAX, 10_000),
        ];
        for (shares, weight) in measured {
            assert_eq!(cpu_weight_from_shares(shares), Some(weight), "{shares}");
        }
        assert_eq!(cpu_weight_from_shares(0), None);
    }

    #[test]
    fn block_io_weights_reach_both_ends() {
        assert_eq!(
            (io_weight_from_blkio(10), io_weight_from_blkio(500), io_weight_from_blkio(1000)),
            (1, 4950, 10_000)
        );
    }

    #[test]
    fn swap_is_what_is_left_of_both() {
        assert_eq!(swap_limit(134_217_728, 67_108_864), Ok(Some(67_108_864)));
        assert_eq!(swap_limit(67_108_864, 67_108_864), Ok(Some(0)));
        assert_eq!(
            (swap_limit(0, 5), swap_limit(0, -1), swap_limit(-1, 5)),
            (Ok(None), Ok(Some(-1)), Ok(Some(-1)))
        );
        assert_eq!(swap_limit(7, -1), Ok(Some(7)));
        assert!(swap_limit(7, 0).is_err() && swap_limit(7, -2).is_err() && swap_limit(7, 8).is_err());
    }
}
