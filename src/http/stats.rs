//! What the server counts, one shard a worker, so that counting a request never moves a cache line between cores and,
//! since no two threads write one shard, needs no locked instruction either. What every request counts lies side by side:
//! it costs two cache lines, not one a number.
//!
//! Owns the numbers and nothing else.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam::utils::CachePadded;

use super::durations::{Durations, Spread, add};

/// What one worker counts: it alone adds, anybody reads.
#[derive(Default)]
#[repr(C)]
pub(super) struct Shard {
    requests: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    responses: [AtomicU64; 6],
    durations: Durations,
}

impl Shard {
    pub(super) fn request(&self) {
        add(&self.requests, 1);
    }

    pub(super) fn response(&self, status: u16) {
        add(&self.responses[usize::from(status / 100).min(5)], 1);
    }

    pub(super) fn came(&self, bytes: usize) {
        add(&self.bytes_in, bytes as u64);
    }

    pub(super) fn went(&self, bytes: usize) {
        add(&self.bytes_out, bytes as u64);
    }

    /// `count` requests took `us` microseconds.
    pub(super) fn took(&self, us: u64, count: u64) {
        self.durations.add(us, count);
    }
}

#[derive(Default)]
pub struct Stats {
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
    /// Unsent bytes of connections that wait for their clients.
    pub unsent_bytes: AtomicUsize,
    shards: Box<[CachePadded<Shard>]>,
    /// Connections ended by a deadline: silent first, idle, head, body, write.
    pub timeouts: AtomicU64,
    /// TLS that was broken off: no handshake in common, or records that are none.
    pub tls_failures: AtomicU64,
    pub handler_panics: AtomicU64,
}

impl Stats {
    pub(super) fn new(workers: usize) -> Stats {
        Stats {
            connections_of_worker: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            shards: (0..workers.max(1)).map(|_| CachePadded::default()).collect(),
            ..Stats::default()
        }
    }

    /// The shard of the worker that calls; from any other thread an addition of the worker's own could be lost.
    pub(super) fn of(&self, worker: usize) -> &Shard {
        &self.shards[worker]
    }

    /// Requests that reached the handler. Here and below each shard is read on its own: exact once nobody counts.
    pub fn requests(&self) -> u64 {
        self.sum(|shard| &shard.requests)
    }

    /// Answers by class: 2 for 2xx.
    pub fn responses(&self, class: usize) -> u64 {
        self.sum(|shard| &shard.responses[class])
    }

    pub fn bytes_in(&self) -> u64 {
        self.sum(|shard| &shard.bytes_in)
    }

    pub fn bytes_out(&self) -> u64 {
        self.sum(|shard| &shard.bytes_out)
    }

    pub fn durations(&self) -> Spread {
        let mut spread = Spread::default();
        self.shards.iter().for_each(|shard| shard.durations.add_to(&mut spread));
        spread
    }

    fn sum(&self, number: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.shards.iter().map(|shard| number(shard).load(Ordering::Relaxed)).sum()
    }
}
