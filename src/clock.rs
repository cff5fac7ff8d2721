//! Time as it is handed in: wall-clock milliseconds since the epoch.
//!
//! Everything that decides by time takes a [`Clock`] or a `now_ms`, so that a test can say what time it is.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where "now" comes from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's wall clock.
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
    // `as_micros` counts in 128 bits, which costs as much as the clock itself.
    since.as_secs() * 1_000_000 + u64::from(since.subsec_micros())
}

fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}
