//! A breaker: after failures in a row a store is left alone for a moment, then asked by one caller whether it is back.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::limits::{CACHE_BREAKER_FAILURES, CACHE_BREAKER_OPEN_MS};

/// Closed at first. Times are milliseconds of a clock that only goes forward.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: AtomicU32,
    // Nobody but one prober passes before this.
    open_until_ms: AtomicU64,
}

impl Breaker {
    /// Whether the store may be asked. While it is open, one caller a while gets through to probe.
    pub fn lets_through(&self, now_ms: u64) -> bool {
        if self.failures.load(Ordering::Acquire) < CACHE_BREAKER_FAILURES {
            return true;
        }
        let until_ms = self.open_until_ms.load(Ordering::Acquire);
        let next_ms = now_ms + CACHE_BREAKER_OPEN_MS;
        // Whoever moves the time is the one that probes; a prober that never reports is followed by the next.
        now_ms >= until_ms
            && self.open_until_ms.compare_exchange(until_ms, next_ms, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub fn answered(&self) {
        self.failures.store(0, Ordering::Release);
    }

    pub fn failed(&self, now_ms: u64) {
        if self.failures.fetch_add(1, Ordering::AcqRel) + 1 >= CACHE_BREAKER_FAILURES {
            self.open_until_ms.fetch_max(now_ms + CACHE_BREAKER_OPEN_MS, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_open_it_and_one_probe_at_a_time_passes() {
        let breaker = Breaker::default();
        for _ in 0..4 {
            breaker.failed(0);
        }
        assert!(breaker.lets_through(0));
        breaker.failed(10);
        assert!(!breaker.lets_through(1_009));
        assert!(breaker.lets_through(1_010), "the probe");
        assert!(!breaker.lets_through(1_011), "nobody beside it");
        breaker.failed(1_500);
        assert!(!breaker.lets_through(2_499) && breaker.lets_through(2_500));
        breaker.answered();
        assert!(breaker.lets_through(2_500) && breaker.lets_through(2_500));
    }

    #[test]
    fn failures_with_an_answer_in_between_do_not_add_up() {
        let breaker = Breaker::default();
        for _ in 0..100 {
            (0..4).for_each(|_| breaker.failed(0));
            breaker.answered();
        }
        assert!(breaker.lets_through(0));
    }
}
