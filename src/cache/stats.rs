//! What the cache counts: cache.md's metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use super::fill::{Hit, How};

/// Bounds of the histogram of waits, milliseconds; one more bucket is for what lies beyond.
pub const WAIT_BOUNDS_MS: [u64; 8] = [1, 5, 20, 50, 100, 300, 700, 1_500];

#[derive(Debug, Default)]
pub struct CacheStats {
    pub fills: AtomicU64,
    pub fill_ms: AtomicU64,
    pub fills_direct: AtomicU64,
    pub failures: AtomicU64,
    pub hits_local: AtomicU64,
    pub hits_shared: AtomicU64,
    pub early: AtomicU64,
    pub refreshes: AtomicU64,
    pub ducked: AtomicU64,
    pub stale_revalidated: AtomicU64,
    pub stale_late: AtomicU64,
    pub joined: AtomicU64,
    pub shed: AtomicU64,
    pub lock_owned: AtomicU64,
    pub lock_busy: AtomicU64,
    pub lock_lost: AtomicU64,
    pub waits: [AtomicU64; WAIT_BOUNDS_MS.len() + 1],
    pub waits_ms: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl CacheStats {
    /// A request waited so long for a flight.
    pub fn waited(&self, ms: u64) {
        let bucket = WAIT_BOUNDS_MS.iter().position(|bound| ms <= *bound).unwrap_or(WAIT_BOUNDS_MS.len());
        count(&self.waits[bucket]);
        add(&self.waits_ms, ms);
    }

    /// Shown at once: fresh, or expired while a refresh runs behind.
    pub fn at_once(&self, hit: Hit) -> Hit {
        count(if hit.how == How::Stale { &self.stale_revalidated } else { &self.hits_local });
        hit
    }

    /// Shown because nothing better came in time.
    pub(super) fn late(&self, hit: Hit) -> Hit {
        count(if hit.how == How::Stale { &self.stale_late } else { &self.hits_local });
        hit
    }

    pub(super) fn filled(&self, is_shared: bool, ms: u32) {
        count(if is_shared { &self.fills } else { &self.fills_direct });
        add(&self.fill_ms, u64::from(ms));
    }
}
