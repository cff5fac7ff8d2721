//! Use cases: what the tracker does, on concrete data, called directly by `api`.
//!
//! Owns the pieces that a request needs (journal, stores, lanes, statuses) and the rules that tie them together;
//! knows nothing of HTTP, and no product by name. Reads return a [`Pending`] that the caller sleeps for.

mod caching;
mod erase;
mod health;
pub mod ingest;
pub mod reads;
mod search;

pub use caching::{Caching, Classes};
pub use health::Health;
pub use search::{likes_key, search_key, search_keys};

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use uuid::Uuid;

use crate::clock::Clock;
use crate::journal::Journal;
use crate::limits::LIVE_STALE_AFTER_MS;
use crate::live::Calendar;
use crate::ports::{Ledger, LiveStore, StoreError};
use crate::runtime::{Lane, Pending, Ticket, complete};
use crate::sinks::{SinkState, SinkStatus, Waiting};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Ack {
    /// Once it is synced in the journal.
    Journal,
    /// Once the ledger has committed it.
    Ledger,
    /// At once; the journal is still written and synced.
    Memory,
}

#[derive(Debug, Default)]
pub struct Counters {
    pub accepted: AtomicU64,
    pub rejected: AtomicU64,
    pub refused: AtomicU64,
    pub decoded_by_type: [AtomicU64; 8],
    /// Accepted events whose url or referrer was cut.
    pub truncated: AtomicU64,
}

pub struct App {
    pub journal: Arc<Journal>,
    /// Requests that wait for the followers.
    pub waiting: Arc<Waiting>,
    pub ledger: Arc<dyn Ledger>,
    pub live: Arc<dyn LiveStore>,
    pub ledger_lane: Lane,
    pub live_lane: Lane,
    pub caching: Caching,
    pub ledger_status: Arc<SinkStatus>,
    pub live_status: Arc<SinkStatus>,
    pub health: Health,
    pub clock: Clock,
    /// Says when a day begins.
    pub calendar: Calendar,
    pub ack: Ack,
    /// Older events are refused, and older rows are deleted.
    pub retention_ms: i64,
    /// Events older than this need an admin key; at most `retention_ms`.
    pub event_age_ms: i64,
    pub counters: Counters,
}

impl App {
    /// A new event id: UUIDv7, so that ids grow with time.
    pub fn new_id(&self, now_ms: i64) -> Uuid {
        let mut random = [0; 10];
        rand::Rng::fill_bytes(&mut rand::rng(), &mut random);
        uuid::Builder::from_unix_timestamp_millis(u64::try_from(now_ms).unwrap_or(0), &random).into_uuid()
    }

    /// The live store does not follow: it stands still or is far behind.
    pub fn is_live_stale(&self) -> bool {
        let following = |status: &SinkStatus| status.state() == SinkState::Following;
        !following(&self.live_status)
            || !following(&self.ledger_status)
            || self.clock.now_ms() - self.live_status.as_of_ms() > LIVE_STALE_AFTER_MS
    }

    /// Records that are in the journal and not yet in the sink's store.
    pub fn lag_events(&self, status: &SinkStatus) -> u64 {
        self.journal.end_position().saturating_sub(status.position())
    }

    /// Deletes the entries of `keys` after a write. The ticket completes once no instance can read them from the
    /// shared cache.
    pub fn wrote(&self, keys: Vec<Box<str>>, ticket: &Arc<Ticket>) {
        ticket.add();
        let ticket = ticket.clone();
        self.caching.cache.wrote(keys, Box::new(move || complete([ticket], true)));
    }

    /// Sees to it that what the stores said is at most a second old. The ticket covers both questions.
    pub fn ask_stores(&self, ticket: &Arc<Ticket>) {
        let (ledger, live) = (self.ledger.clone(), self.live.clone());
        self.health.ledger.refresh(&self.ledger_lane, ticket, move || match ledger.dead_letters() {
            Ok(rows) => Ok(Some(rows)),
            Err(StoreError::Cancelled(_)) => Ok(None),
            Err(error) => Err(error),
        });
        self.health.live.refresh(&self.live_lane, ticket, move || live.ping());
    }
}
