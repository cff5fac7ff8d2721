//! Upkeep of the ledger, written once for both products: compaction of rollups, points and bitmaps, retention.
//!
//! Whatever writes is a step, a transaction under the upkeep lock of the database: steps of several instances and erasures
//! exclude each other, batches are never kept out by the lock. On SQLite a step is the one writer, so each is bounded.

pub mod bitmaps;
pub mod close;
pub mod compact;
pub mod count;
pub mod maintain;
pub mod minutes;
pub mod pace;
pub mod retention;
pub mod steps;

use std::time::{Duration, Instant};

use jiff::tz::TimeZone;

use super::HOUR_MS;
use crate::limits::{FOLD_HOUR_GRACE_MS, FOLD_MS_MAX};
use crate::ports::StoreError;
use steps::Steps;

/// Everything that is due, as far as the time goes; true if something is left. A failure keeps nothing else from being done;
/// the first one is returned.
pub fn run<S: Steps>(steps: &mut S, now_ms: i64, zone: &TimeZone) -> Result<bool, StoreError> {
    let begun = Instant::now();
    let has_time = || begun.elapsed() < Duration::from_millis(FOLD_MS_MAX);
    let due_hour = (now_ms - FOLD_HOUR_GRACE_MS).div_euclid(HOUR_MS);
    let closed = compact::run(steps).and_then(|()| close::run(steps, due_hour, &has_time));
    if !steps.pace().has_time(Instant::now()) {
        return closed;
    }
    let counting = Instant::now();
    let hours = count::hours(steps, &has_time);
    let days = count::days(steps, zone, &has_time);
    let minutes = minutes::run(steps, now_ms, &has_time);
    let bitmaps = bitmaps::run(steps, &has_time);
    steps.pace().spend(counting.elapsed());
    Ok(closed? | hours? | days? | minutes? | bitmaps?)
}
