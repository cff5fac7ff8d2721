//! The live store's port: what a batch brings it and what a list is asked for.

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::error::StoreError;
use super::snapshot::Snapshot;
use crate::events::{Dimension, TallyKey};
use crate::journal::Watermark;

/// Fast statistics and lists, derived from the ledger; may be lost whole. With [`LiveWriter`] it
/// claims V1 to V18 of `docs/claims.md`.
///
/// Holds, by generation: counts by dimension and name in minute, hour and day buckets, an untrimmed
/// total for each dimension (and each event type), recent searches, and a watermark for each
/// stream. Calls block, bounded by the adapter's time-outs.
pub trait LiveStore: Send + Sync {
    /// A connection of its own for a sink.
    fn open_writer(&self) -> Result<Box<dyn LiveWriter>, StoreError>;

    /// The highest counts of a window.
    fn top(&self, query: &TopQuery, now_ms: i64) -> Result<LiveTop, StoreError>;

    /// About how many distinct users had an event in a window: see [`crate::events::Sketch`].
    fn users(&self, window: Window, now_ms: i64) -> Result<u64, StoreError>;

    /// A user's recent searches, newest first.
    fn recent(&self, user_id: &str, now_ms: i64) -> Result<Vec<String>, StoreError>;

    /// All-time totals by dimension; for [`Dimension::Type`] one per type, else the name is empty.
    fn totals(&self) -> Result<Vec<(Dimension, String, i64)>, StoreError>;

    /// Answers if the store does: for health checks.
    fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Reads a snapshot, whose days are those of a time zone.
pub type ReadSnapshot<'a> = &'a mut dyn FnMut(&TimeZone) -> Result<Snapshot, StoreError>;

/// The live store's side of one sink: used by one thread at a time.
pub trait LiveWriter: Send {
    /// Where this store stands with `stream`.
    fn state(&mut self, stream: Uuid) -> Result<LiveState, StoreError>;

    /// As [`LedgerWriter::clock_ms`].
    fn clock_ms(&mut self) -> Result<Option<i64>, StoreError> {
        Ok(None)
    }

    /// Makes `stream` known at position 0 in the current generation. Idempotent.
    fn register(&mut self, stream: Uuid) -> Result<(), StoreError>;

    /// Applies a batch and moves the watermark. `Fenced` with nothing found: no generation is there.
    fn apply(&mut self, batch: &LiveBatch) -> Result<(), StoreError>;

    /// Adds every minute that closed to its hour and its day, once, and trims buckets that closed.
    fn fold(&mut self, now_ms: i64) -> Result<(), StoreError>;

    /// Replaces everything by a snapshot, as a new generation that is switched to at the end. One
    /// instance at a time: `Retry` if another rebuilds. Nothing is done, and no snapshot asked for,
    /// if `state(stream)` is no longer `seen`: another instance has rebuilt the store.
    fn rebuild(&mut self, stream: Uuid, seen: LiveState, read: ReadSnapshot<'_>, now_ms: i64)
    -> Result<(), StoreError>;
}

/// Where a live store stands with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveState {
    /// No generation: everything is lost (or never was). Rebuild.
    Lost,
    /// There is a generation, but this stream is new to it.
    NewStream,
    /// Applied up to here.
    At(Watermark),
}

/// Coalesced effects of a batch on the live store.
#[derive(Clone, Debug, Default)]
pub struct LiveBatch {
    pub stream: Uuid,
    pub from: Watermark,
    pub to: Watermark,
    /// The time of applying.
    pub now_ms: i64,
    /// Sorted; see [`crate::events::Tally`].
    pub counts: Vec<(TallyKey, i64)>,
    /// Who did anything, by minute since the epoch; sorted, each once.
    pub users: Vec<(i64, Box<str>)>,
    /// In journal order.
    pub recent: Vec<RecentChange>,
    /// Posts that were deleted, or put again.
    pub tombstones: Vec<Tombstone>,
}

/// A post that was deleted, or put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    pub post_id: String,
    /// The ledger's version of the post right after it.
    pub version: i64,
    pub deleted: bool,
}

/// A change of one user's recent searches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecentChange {
    /// Searched for `keyword` (as typed) at `at_ms`.
    Add { user_id: String, keyword: String, at_ms: i64 },
    /// Forget `keyword` (`None`: all) as far as searched up to `at_ms`, whenever that arrives.
    Forget { user_id: String, keyword: Option<String>, at_ms: i64 },
}

impl RecentChange {
    pub fn user_id(&self) -> &str {
        let (RecentChange::Add { user_id, .. } | RecentChange::Forget { user_id, .. }) = self;
        user_id
    }
}

/// The windows of live lists. Minutes make up the short ones, hours and days the long ones; counts
/// that are not folded yet are added from their minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// This minute and the 9 before it.
    TenMinutes,
    /// This minute and the 59 before it.
    Hour,
    /// This hour and the 23 before it.
    Day,
    /// Today (of `TIME_ZONE`) and the 6 days before it.
    Week,
}

/// A ranked list to read.
#[derive(Clone, Debug, PartialEq)]
pub struct TopQuery {
    /// What is summed, each with its weight: one for a plain count, three for the score of posts.
    pub parts: Vec<(Dimension, f64)>,
    pub window: Window,
    /// `hot`: counts decay with a half-life of a quarter of the window, by the age of their bucket.
    pub hot: bool,
    pub limit: usize,
}

/// A ranked list as the live store has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveTop {
    pub items: Vec<(String, f64)>,
    /// Some bucket was trimmed: counts are lower bounds.
    pub approximate: bool,
}
