//! What the kernel could not deliver, counted: a trace that misses something says so.

use std::collections::HashMap;

use serde::Serialize;

/// Events that happened and were not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Loss {
    /// Gaps in the numbers that each processor gives its events.
    pub events: u64,
    /// Times that the receive buffer overran (`ENOBUFS`): each is some of the gaps above.
    pub overruns: u64,
    /// Cgroup events that inotify's queue dropped (each overflow counts as one: their number is not known).
    pub cgroup_overflows: u64,
}

impl Loss {
    /// Whether everything was told.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The next number expected of each processor.
///
/// The kernel numbers events per processor (`local_event.count` in `drivers/connector/cn_proc.c`), before it tries to deliver
/// them: whatever was dropped, at allocation or in the socket's queue, leaves a gap.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    next: HashMap<u32, u32>,
}

impl Sequences {
    /// Takes a processor's number and gives how many before it were never seen.
    pub(super) fn observe(&mut self, cpu: u32, sequence: u32) -> u32 {
        let expected = self.next.insert(cpu, sequence.wrapping_add(1)).unwrap_or(sequence);
        let gap = sequence.wrapping_sub(expected);
        // A number from before: the counter was set anew, nothing is known to be missing.
        if gap > u32::MAX / 2 { 0 } else { gap }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_processor_counts_for_itself_and_a_gap_is_its_size() {
        let mut sequences = Sequences::default();
        assert_eq!(sequences.observe(0, 100), 0);
        assert_eq!(sequences.observe(1, 7), 0);
        assert_eq!(sequences.observe(0, 101), 0);
        assert_eq!(sequences.observe(0, 105), 3);
        assert_eq!(sequences.observe(1, 8), 0);
    }

    #[test]
    fn numbers_wrap_and_a_counter_set_anew_is_no_loss() {
        let mut sequences = Sequences::default();
        assert_eq!(sequences.observe(0, u32::MAX), 0);
        assert_eq!(sequences.observe(0, 1), 1);
        assert_eq!(sequences.observe(0, 0), 0);
    }
}
