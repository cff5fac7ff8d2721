//! Whether the wall clock may be trusted: what a wrong clock deletes is lost.

use std::time::{Duration, Instant};

use crate::limits::{CLOCK_JUMP_MS, CLOCK_STEADY_MS};

/// Compares the wall clock with the monotonic clock.
#[derive(Default)]
pub struct Steady {
    last: Option<(Instant, i64)>,
    since: Option<Instant>,
}

impl Steady {
    /// A look at both clocks, about once a minute. True if the wall clock has advanced with the monotonic clock for
    /// `CLOCK_STEADY_MS`: then old data may be deleted.
    pub fn is_trusted(&mut self, now: Instant, wall_ms: i64) -> bool {
        let jumped = self.last.is_none_or(|(at, then_ms)| {
            let passed = i64::try_from(now.duration_since(at).as_millis()).unwrap_or(i64::MAX);
            (wall_ms - then_ms).saturating_sub(passed).abs() > CLOCK_JUMP_MS
        });
        self.last = Some((now, wall_ms));
        let since = if jumped { self.since.insert(now) } else { self.since.get_or_insert(now) };
        now.duration_since(*since) >= Duration::from_millis(CLOCK_STEADY_MS)
    }
}

/// The time by which data of a store is deleted: the earlier of our clock and the store's own.
pub fn agreed_ms(wall_ms: i64, store_ms: Option<i64>) -> i64 {
    store_ms.map_or(wall_ms, |store_ms| wall_ms.min(store_ms))
}
