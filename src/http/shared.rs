//! State that all connections of a server share, and the accounts of memory that they fill.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::Config;
use super::access_log::Sampling;
use super::registry::Registry;
use super::stats::Stats;

pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) stats: Arc<Stats>,
    pub(super) registry: Registry,
    pub(super) sampling: Sampling,
    pub(super) stopping: AtomicBool,
}

impl Shared {
    /// Ordered with `Entry::idle`.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Counts more body bytes in memory. False: there is no room for them.
    pub(super) fn take_body_bytes(&self, more: usize) -> bool {
        take(&self.stats.bodies_bytes, more, self.config.bodies_bytes_max)
    }

    pub(super) fn give_body_bytes(&self, bytes: usize) {
        give(&self.stats.bodies_bytes, bytes);
    }

    /// Counts unsent bytes of a connection that waits for its client. False: too many wait already.
    pub(super) fn take_unsent_bytes(&self, more: usize) -> bool {
        take(&self.stats.unsent_bytes, more, self.config.unsent_all_bytes_max)
    }

    pub(super) fn give_unsent_bytes(&self, bytes: usize) {
        give(&self.stats.unsent_bytes, bytes);
    }
}

fn give(account: &AtomicUsize, bytes: usize) {
    let before = account.fetch_sub(bytes, Ordering::Relaxed);
    assert!(before >= bytes, "an account of memory gets back more than was taken");
}

fn take(account: &AtomicUsize, more: usize, max: usize) -> bool {
    let fits = account.fetch_add(more, Ordering::Relaxed) + more <= max;
    if !fits {
        account.fetch_sub(more, Ordering::Relaxed);
    }
    fits
}

/// Body bytes that one request has in memory beside its connection's buffer. They are counted until this is dropped.
pub struct BodyBytes {
    shared: Arc<Shared>,
    bytes: usize,
}

impl BodyBytes {
    pub(super) fn new(shared: Arc<Shared>) -> BodyBytes {
        BodyBytes { shared, bytes: 0 }
    }

    /// Counts more bytes, before the caller allocates them. False: bodies fill their share of memory (`bodies_full`).
    pub fn take(&mut self, more: usize) -> bool {
        let fits = self.shared.take_body_bytes(more);
        self.bytes += if fits { more } else { 0 };
        fits
    }
}

impl Drop for BodyBytes {
    fn drop(&mut self) {
        self.shared.give_body_bytes(self.bytes);
    }
}
