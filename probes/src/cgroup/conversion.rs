//! The arithmetic between a spec's resources, which are cgroup v1's, and cgroup v2's files.
//!
//! Two conversions of `cpu.shares` are in use, and the kernel's value tells which one a runtime has.

use serde::Serialize;

/// A conversion of `cpu.shares` (2 to 262144) into `cpu.weight` (1 to 10000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SharesConversion {
    /// `1 + (shares − 2) × 9999 / 262142`: 1024, the default, becomes 39. runc before 1.3.2, crun before 1.23.
    Linear,
    /// `⌈10^(l²/612 + 125l/612 − 7/34)⌉` with `l = log2(shares)`: 1024 becomes 100, the kernel's default. runc 1.3.2 and
    /// crun 1.23 on, and the built-in runtime.
    Logarithmic,
}

impl SharesConversion {
    /// Both, the older first.
    pub const ALL: [Self; 2] = [Self::Linear, Self::Logarithmic];

    /// The weight for these shares; `None` for 0, which means "not set".
    #[must_use]
    pub fn weight(self, shares: u64) -> Option<u64> {
        match (shares, self) {
            (0, _) => None,
            (..=2, _) => Some(1),
            (262_144.., _) => Some(10_000),
            (_, Self::Linear) => Some(1 + (shares - 2) * 9999 / 262_142),
            (_, Self::Logarithmic) => Some(logarithmic(shares)),
        }
    }

    /// The formula's name and who uses it, for people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Linear => "linear (runc < 1.3.2, crun < 1.23)",
            Self::Logarithmic => "logarithmic (runc ≥ 1.3.2, crun ≥ 1.23, builtin)",
        }
    }
}

/// Between 3 and 262143 shares; the result is between 1 and 10000.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is between 1 and 10000"
)]
fn logarithmic(shares: u64) -> u64 {
    // Below 2^18 every number is exact in an f64.
    let shares = f64::from(u32::try_from(shares).unwrap_or(262_144));
    let l = shares.log2();
    10f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil().clamp(1.0, 10_000.0) as u64
}

/// The conversions that turn these shares into this weight: both at the ends of the range, none when somebody else set it.
#[must_use]
pub fn conversions_matching(shares: u64, weight: u64) -> Vec<SharesConversion> {
    SharesConversion::ALL.into_iter().filter(|conversion| conversion.weight(shares) == Some(weight)).collect()
}

/// `memory.swap.max` for a spec's `memory.limit` and `memory.swap` (which counts memory and swap): `Ok(None)` is "not
/// written", −1 is `max`.
///
/// # Errors
/// When swap is below the limit, or set without a limit: runtimes refuse that.
pub fn swap_max(limit: Option<i64>, swap: Option<i64>) -> Result<Option<i64>, SwapError> {
    match (limit, swap) {
        // libcontainer's ConvertMemorySwapToCgroupV2Value: with an unlimited memory, unset swap is unlimited too.
        (Some(-1), None | Some(0)) => Ok(Some(-1)),
        (_, None | Some(0)) => Ok(None),
        (_, Some(-1)) => Ok(Some(-1)),
        (None | Some(0 | -1), Some(swap)) => Err(SwapError::WithoutLimit { swap }),
        (Some(limit), Some(swap)) if swap < limit => Err(SwapError::BelowLimit { limit, swap }),
        (Some(limit), Some(swap)) => Ok(Some(swap - limit)),
    }
}

/// A `memory.swap` that has no value in cgroup v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SwapError {
    /// Swap counts memory as well.
    #[error("cannot convert memory.swap {swap}: it counts memory too and is below memory.limit {limit}")]
    BelowLimit {
        /// `memory.limit`
        limit: i64,
        /// `memory.swap`
        swap: i64,
    },
    /// Without a limit there is nothing to subtract.
    #[error("cannot convert memory.swap {swap}: memory.limit is not set")]
    WithoutLimit {
        /// `memory.swap`
        swap: i64,
    },
}

/// `io.weight` (1 to 10000) for a spec's `blockIO.weight` (10 to 1000): `1 + (weight − 10) × 9999 / 990`. A kernel with
/// BFQ has `io.bfq.weight`, which takes the spec's number as it is.
#[must_use]
pub fn io_weight(weight: u64) -> Option<u64> {
    (10..=1000).contains(&weight).then(|| 1 + (weight - 10) * 9999 / 990)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured on six runtimes of three Debian releases.
    #[test]
    fn both_conversions_give_the_measured_weights() {
        let measured = [
            (2, 1, 1),
            (100, 4, 17),
            (512, 20, 59),
            (1024, 39, 100),
            (2048, 79, 174),
            (8192, 313, 532),
            (262_144, 10_000, 10_000),
        ];
        for (shares, linear, logarithmic) in measured {
            assert_eq!(SharesConversion::Linear.weight(shares), Some(linear), "{shares}");
            assert_eq!(SharesConversion::Logarithmic.weight(shares), Some(logarithmic), "{shares}");
        }
        assert_eq!(SharesConversion::Linear.weight(0), None);
        assert_eq!(SharesConversion::Logarithmic.weight(u64::MAX), Some(10_000));
    }

    #[test]
    fn a_weight_tells_its_conversion() {
        assert_eq!(conversions_matching(512, 59), [SharesConversion::Logarithmic]);
        assert_eq!(conversions_matching(512, 20), [SharesConversion::Linear]);
        assert_eq!(conversions_matching(2, 1).len(), 2);
        assert!(conversions_matching(512, 100).is_empty());
    }

    #[test]
    fn swap_counts_memory_too() {
        assert_eq!(swap_max(Some(67_108_864), Some(134_217_728)), Ok(Some(67_108_864)));
        assert_eq!(swap_max(Some(64), Some(64)), Ok(Some(0)));
        assert_eq!(swap_max(Some(64), Some(-1)), Ok(Some(-1)));
        assert_eq!(swap_max(Some(64), None), Ok(None));
        assert_eq!(swap_max(Some(-1), None), Ok(Some(-1)));
        assert_eq!(swap_max(Some(64), Some(32)), Err(SwapError::BelowLimit { limit: 64, swap: 32 }));
        assert_eq!(swap_max(None, Some(32)), Err(SwapError::WithoutLimit { swap: 32 }));
    }

    #[test]
    fn block_io_weights_reach_both_ends() {
        assert_eq!((io_weight(10), io_weight(1000)), (Some(1), Some(10_000)));
        assert_eq!((io_weight(9), io_weight(1001)), (None, None));
    }
}
