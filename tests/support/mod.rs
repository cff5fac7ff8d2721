//! What the end-to-end suites share: real servers, the real binary, a client of bytes, a load and its oracle.

#![allow(dead_code, unused_imports, reason = "each suite uses a part")]

pub(crate) mod bench;
pub(crate) mod client;
pub(crate) mod hold;
pub(crate) mod load;
pub(crate) mod pooler;
pub(crate) mod postgres;
pub(crate) mod redis;
mod seed;
pub(crate) mod tables;
pub(crate) mod wall_clock;

use std::time::{Duration, Instant};

pub(crate) use seed::seed;

/// Waits until `check` is content; panics with its last complaint.
pub(crate) fn eventually(within: Duration, mut check: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + within;
    while let Err(complaint) = check() {
        assert!(Instant::now() < deadline, "after {within:?}: {complaint}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    event_tracker::clock::Clock::System.now_ms()
}
