//! Whether the wall clock may be trusted: what a wrong clock deletes is lost.

use std::time::{Duration, Instant};

use crate::limits::{CLOCK_JUMP_MS, CLOCK_STEADY_MS};

/// How far the wall clock is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It has advanced with the monotonic clock for `CLOCK_STEADY_MS`: old data may be deleted.
    Full,
    /// The first look: coming batches may be prepared for, nothing is deleted.
    First,
    /// It has not advanced steadily for long enough: nothing is made or deleted by it.
    None,
}

/// Compares the wall clock with the monotonic clock.
#[derive(Default)]
pub struct Steady {
    last: Option<(Instant, i64)>,
    since: Option<Instant>,
}

impl Steady {
    /// A look at both clocks, about once a minute.
    pub fn look(&mut self, now: Instant, wall_ms: i64) -> Trust {
        let is_first = self.last.is_none();
        let jumped = self.last.is_none_or(|(at, then_ms)| {
            let passed = i64::try_from(now.duration_since(at).as_millis()).unwrap_or(i64::MAX);
            (wall_ms - then_ms).saturating_sub(passed).abs() > CLOCK_JUMP_MS
        });
        if jumped {
            self.since = Some(now);
        }
        self.last = Some((now, wall_ms));
        match self.since {
            Some(since) if now.duration_since(since) >= Duration::from_millis(CLOCK_STEADY_MS) => Trust::Full,
            _ if is_first => Trust::First,
            _ => Trust::None,
        }
    }
}

/// The time by which data of a store is deleted: the earlier of our clock and the store's own.
pub fn agreed_ms(wall_ms: i64, store_ms: Option<i64>) -> i64 {
    store_ms.map_or(wall_ms, |store_ms| wall_ms.min(store_ms))
}
