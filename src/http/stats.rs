//! What the server counts, one shard a worker, so that counting a request never moves a cache line between cores and,
//! since no two threads write one shard, needs no locked instruction either.
//!
//! Owns the numbers and nothing else: whoever shows them reads them with `load`.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam::utils::CachePadded;

use super::durations::Durations;
use super::refusal::Refusal;

/// A number that every worker adds to, in its own shard, and anybody reads.
pub struct Counter {
    shards: Box<[CachePadded<AtomicU64>]>,
}

impl Counter {
    fn new(shards: usize) -> Counter {
        Counter { shards: (0..shards.max(1)).map(|_| CachePadded::default()).collect() }
    }

    /// Adds to the shard of the worker that calls; from any other thread an addition of the worker's own could be lost.
    pub(super) fn add(&self, worker: usize, count: u64) {
        add(&self.shards[worker], count);
    }

    /// The sum of all shards. Each is read on its own: exact once nobody counts any more.
    pub fn load(&self, ordering: Ordering) -> u64 {
        self.shards.iter().map(|shard| shard.load(ordering)).sum()
    }
}

/// A read and a write: for a number that one thread alone writes.
pub(super) fn add(number: &AtomicU64, more: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// The counts of one server.
pub struct Stats {
    /// Connections that are open now.
    pub connections_open: AtomicUsize,
    /// Connections taken since the start, those turned away included.
    pub connections_accepted: AtomicU64,
    /// Connections turned away: 503 past the cap, 429 past the cap of one address.
    pub connections_refused: AtomicU64,
    /// Idle connections closed to make room for others.
    pub connections_shed: AtomicU64,
    /// Times that accepting had to pause for want of descriptors or memory.
    pub accept_pauses: AtomicU64,
    /// Connections that are open now, a worker each: their spread.
    pub connections_of_worker: Vec<AtomicUsize>,
    /// Bodies that outgrew a lent buffer: bytes in memory now.
    pub bodies_bytes: AtomicUsize,
    /// Requests that reached the handler.
    pub requests: Counter,
    /// Answers by class: `[2]` counts 2xx.
    pub responses: [Counter; 6],
    /// How long requests took.
    pub durations: Durations,
    /// Bytes read from clients.
    pub bytes_in: Counter,
    /// Bytes written to clients.
    pub bytes_out: Counter,
    /// Requests that broke a rule of the protocol, in the order of [`Stats::refusal_tags`].
    pub refusals: Vec<AtomicU64>,
    /// Connections ended by a deadline: silent first, idle, head, body, write.
    pub timeouts: AtomicU64,
    /// TLS that was broken off: no handshake in common, or records that are none.
    pub tls_failures: AtomicU64,
    /// Panics of the handler.
    pub handler_panics: AtomicU64,
}

impl Stats {
    pub(super) fn new(workers: usize) -> Stats {
        Stats {
            connections_open: AtomicUsize::new(0),
            connections_accepted: AtomicU64::new(0),
            connections_refused: AtomicU64::new(0),
            connections_shed: AtomicU64::new(0),
            accept_pauses: AtomicU64::new(0),
            connections_of_worker: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            bodies_bytes: AtomicUsize::new(0),
            requests: Counter::new(workers),
            responses: std::array::from_fn(|_| Counter::new(workers)),
            durations: Durations::new(workers),
            bytes_in: Counter::new(workers),
            bytes_out: Counter::new(workers),
            refusals: Refusal::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            timeouts: AtomicU64::new(0),
            tls_failures: AtomicU64::new(0),
            handler_panics: AtomicU64::new(0),
        }
    }

    /// The tag of each number in `refusals`.
    pub fn refusal_tags() -> impl Iterator<Item = &'static str> {
        Refusal::ALL.iter().map(|refusal| refusal.parts().1)
    }

    pub(super) fn count_refusal(&self, refusal: Refusal) {
        self.refusals[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }
}
