//! How long requests take, as a histogram that any worker adds to and anybody reads.
//!
//! From the first byte of the turn's earliest request to the end of the write that carries its answer: what the client
//! sees, less the network. All requests of a turn count with the turn's time, which for pipelined ones is an upper bound.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use super::stats::add;

/// Upper bounds of the buckets in microseconds, half to a third apart: a quantile read from them is at most that far off.
pub const DURATION_BOUNDS_US: [u64; 22] = [
    250, 500, 1_000, 2_000, 3_000, 4_000, 5_000, 7_500, 10_000, 15_000, 20_000, 30_000, 50_000, 75_000, 100_000,
    150_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

#[derive(Default)]
struct Shard {
    // One more than bounds: longer than all of them.
    counts: [AtomicU64; DURATION_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// A histogram, one shard a worker.
pub struct Durations {
    shards: Box<[CachePadded<Shard>]>,
}

/// What a histogram holds at one moment; shards are read one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Requests by bucket, in the order of [`DURATION_BOUNDS_US`], then those that took longer.
    pub counts: Vec<u64>,
    pub sum_us: u64,
}

impl Durations {
    pub(super) fn new(shards: usize) -> Durations {
        Durations { shards: (0..shards.max(1)).map(|_| CachePadded::default()).collect() }
    }

    /// Adds `count` requests that took `us` microseconds; the worker itself calls.
    pub(super) fn add(&self, worker: usize, us: u64, count: u64) {
        let shard = &self.shards[worker];
        let bucket = DURATION_BOUNDS_US.partition_point(|bound| *bound < us);
        add(&shard.counts[bucket], count);
        add(&shard.sum_us, us * count);
    }

    /// The sum of all shards.
    pub fn read(&self) -> Spread {
        let mut spread = Spread { counts: vec![0; DURATION_BOUNDS_US.len() + 1], sum_us: 0 };
        for shard in &self.shards {
            for (sum, count) in spread.counts.iter_mut().zip(&shard.counts) {
                *sum += count.load(Ordering::Relaxed);
            }
            spread.sum_us += shard.sum_us.load(Ordering::Relaxed);
        }
        spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_is_not_below_it() {
        let durations = Durations::new(2);
        for (worker, us) in [(0, 0), (1, 250), (0, 251), (1, 10_000_000), (0, 10_000_001)] {
            durations.add(worker, us, 2);
        }
        let Spread { counts, sum_us } = durations.read();
        let filled: Vec<(usize, u64)> = counts.into_iter().enumerate().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0, 4), (1, 2), (21, 2), (22, 2)]);
        assert_eq!(sum_us, 2 * (250 + 251 + 10_000_000 + 10_000_001));
    }
}
