//! How long requests take, as a histogram that any worker adds to and anybody reads.
//!
//! From the first byte of the turn's earliest request to the end of the write that carries its
//! answer: what the client sees, less the network. All requests of a turn count with the turn's
//! time, which for pipelined ones is an upper bound.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets in microseconds, half to a third apart: a quantile read from them is
/// at most that far off.
pub const DURATION_BOUNDS_US: [u64; 22] = [
    250, 500, 1_000, 2_000, 3_000, 4_000, 5_000, 7_500, 10_000, 15_000, 20_000, 30_000, 50_000, 75_000, 100_000,
    150_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

const BUCKETS: usize = DURATION_BOUNDS_US.len() + 1;

/// The histogram of one worker, which alone adds to it.
#[derive(Default)]
#[repr(C)]
pub(super) struct Durations {
    sum_us: AtomicU64,
    // One more than bounds: longer than all of them.
    counts: [AtomicU64; BUCKETS],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Requests by bucket, in the order of [`DURATION_BOUNDS_US`], then those that took longer.
    pub counts: Vec<u64>,
    pub sum_us: u64,
}

impl Default for Spread {
    fn default() -> Spread {
        Spread { counts: vec![0; BUCKETS], sum_us: 0 }
    }
}

impl Durations {
    pub(super) fn add(&self, us: u64, count: u64) {
        // Nearly all are within the first bound.
        let is_first = us <= DURATION_BOUNDS_US[0];
        let bucket = if is_first { 0 } else { DURATION_BOUNDS_US.partition_point(|bound| *bound < us) };
        add(&self.counts[bucket], count);
        add(&self.sum_us, us * count);
    }

    /// Adds what it holds to a sum of several.
    pub(super) fn add_to(&self, spread: &mut Spread) {
        for (sum, count) in spread.counts.iter_mut().zip(&self.counts) {
            *sum += count.load(Ordering::Relaxed);
        }
        spread.sum_us += self.sum_us.load(Ordering::Relaxed);
    }
}

/// A read and a write: for a number that one thread alone writes.
pub(super) fn add(number: &AtomicU64, more: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_is_not_below_it() {
        let durations = [Durations::default(), Durations::default()];
        for (worker, us) in [(0, 0), (1, 250), (0, 251), (1, 10_000_000), (0, 10_000_001)] {
            durations[worker].add(us, 2);
        }
        let mut spread = Spread::default();
        durations.iter().for_each(|one| one.add_to(&mut spread));
        let Spread { counts, sum_us } = spread;
        let filled: Vec<(usize, u64)> = counts.into_iter().enumerate().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0, 4), (1, 2), (21, 2), (22, 2)]);
        assert_eq!(sum_us, 2 * (250 + 251 + 10_000_000 + 10_000_001));
    }
}
