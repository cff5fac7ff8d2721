//! Time as it is handed in: wall-clock milliseconds since the epoch.
//!
//! Everything that decides by time takes a [`Clock`] or a `now_ms`, so that a test can say what time it is.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

#[derive(Clone, Debug, Default)]
pub enum Clock {
    #[default]
    System,
    /// A hand that a test moves.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn now_ms(&self) -> i64 {
        match self {
            Clock::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            }
            Clock::Manual(now) => now.load(Ordering::Relaxed),
        }
    }
}

/// Milliseconds of the monotonic clock since the program started; never goes back.
pub fn monotonic_ms() -> u64 {
    let since = since_start();
    // `as_micros` counts in 128 bits, which costs as much as the clock itself.
    since.as_secs() * 1_000 + u64::from(since.subsec_millis())
}

/// The same in microseconds.
pub fn monotonic_us() -> u64 {
    let since = since_start();
    since.as_secs() * 1_000_000 + u64::from(since.subsec_micros())
}

fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// The pauses between retries: twice as long each time, with jitter, so that instances and connections spread.
pub struct Backoff(ExponentialBackoff);

impl Backoff {
    /// The first pause lasts at most `min_ms`, none more than `max_ms`, each at least half of its bound.
    pub fn new(min_ms: u64, max_ms: u64) -> Backoff {
        // The jitter is added: up to as much again.
        let [min, max] = [min_ms, max_ms].map(|ms| Duration::from_millis(ms) / 2);
        let pauses = ExponentialBuilder::new().with_min_delay(min).with_max_delay(max).with_jitter();
        Backoff(pauses.without_max_times().build())
    }

    pub fn pause(&mut self) -> Duration {
        self.0.next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_differ() {
        let pauses: Vec<Vec<Duration>> = (0..20)
            .map(|_| {
                let mut backoff = Backoff::new(50, 2_000);
                (0..10).map(|_| backoff.pause()).collect()
            })
            .collect();
        for of_one in &pauses {
            for (at, pause) in of_one.iter().enumerate() {
                let bound = Duration::from_millis((50 << at).min(2_000));
                assert!((bound / 2..=bound).contains(pause), "pause {at}: {pause:?}");
            }
        }
        assert!(pauses.iter().any(|other| *other != pauses[0]), "two instances retry together");
    }
}
