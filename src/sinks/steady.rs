//! Whether the wall clock is to be believed: what is removed by one that somebody has set is gone.

use std::time::{Duration, Instant};

use crate::limits::{CLOCK_JUMP_MS, CLOCK_STEADY_MS};

/// How far the wall clock is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It has gone steadily for `CLOCK_STEADY_MS`: old days may go.
    Full,
    /// Nothing is known of it yet: what is due is done, but no day goes.
    First,
    /// It was set a while ago: nothing is made or removed by it.
    None,
}

/// Whether the wall clock goes as the monotonic one does. What is removed by a clock that somebody has set is gone.
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
