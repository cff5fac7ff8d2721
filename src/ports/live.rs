//! The live store's port: its claims, what a batch brings it and what a list is asked for.

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::error::StoreError;
use super::snapshot::Snapshot;
use crate::events::{Dimension, TallyKey};
use crate::journal::Watermark;

/// Fast statistics and lists, derived from the ledger; may be lost whole. What it claims, with
/// [`LiveWriter`]:
///
/// - **V1** `top` ranks by score, then name (bytewise), only positive scores, at most `limit`.
/// - **V2** A score is the sum of its parts' counts, each with its weight; `hot` halves a count with each quarter of
///   the window, by the age of its bucket.
/// - **V3** A window holds exactly its buckets: see [`Window`]. An answer may be a second old, not more.
/// - **V4** Days are local dates of `TIME_ZONE`, also those of 23 and 25 hours.
/// - **V5** Exactly once: `apply` is fenced on `batch.from`, position and checksum; `Fenced` says what was found, and
///   nothing of the batch is applied; a lost reply is told by `state`.
/// - **V6** Folding changes no answer and happens once, whoever calls it and however often; a minute is not folded
///   before `FOLD_GRACE_MS`.
/// - **V7** A count of a minute that is folded goes to its hour and day, and to the minute if that is kept; one older
///   than eight days changes totals only.
/// - **V8** A closed bucket keeps its `LIVE_BUCKET_MEMBERS_MAX` highest, an open one is trimmed to them when it passes
///   `LIVE_OPEN_BUCKET_MEMBERS_MAX`; answers that read one say `approximate`, others do not.
/// - **V9** Totals are never trimmed: one a dimension, for types one a type.
/// - **V10** `recent`: at most ten, newest first by event time whatever the order of arrival, no folded keyword twice,
///   as typed last; none once the newest is an hour old.
/// - **V11** Forgetting reaches one keyword or all up to its time and no later search, and those made before it that
///   arrive within an hour after it.
/// - **V12** No generation is `Lost`: reads answer `Retry`, writes `Fenced` with nothing found, and nothing is counted.
///   A stream that is new to a generation begins at 0; registering again moves nothing.
/// - **V13** `rebuild` replaces everything by what the snapshot says, watermarks included, in a fresh store and in one
///   that is in use; lists, totals and the recent searches of the last hour are those that applying all of it would have
///   given.
/// - **V14** Readers see the old generation until the new one is whole; a rebuild that failed leaves the old one and
///   nothing behind.
/// - **V15** A rebuild asks for its snapshot only where the state is still what its caller saw.
/// - **V16** Streams are independent: each has its watermark, their counts add up.
/// - **V17** A server that is away, hangs or is full ends a call in `Retry`, within a bound; the next call finds it
///   again. A store in this process is never away, and lets readers in while it is rebuilt.
///
/// - **V18** `top` skips a deleted post for 9 days and fills the list with others. Of the deletions and puts of a post
///   the highest version decides, in whatever order and from whatever stream they arrive. Buckets and totals keep their
///   counts, so a post that is put again is listed with them.
///
/// Holds, by generation: counts by dimension and name in minute, hour and day buckets, an untrimmed
/// total for each dimension (and each event type), recent searches, and a watermark for each
/// stream, changed atomically with the data they cover. Calls block, bounded by the adapter's read
/// and write time-outs.
pub trait LiveStore: Send + Sync {
    /// A connection of its own for a sink.
    fn open_writer(&self) -> Result<Box<dyn LiveWriter>, StoreError>;

    /// The highest counts of a window: at most `limit` names with a positive score, by score
    /// descending, then name ascending (bytewise).
    fn top(&self, query: &TopQuery, now_ms: i64) -> Result<LiveTop, StoreError>;

    /// About how many distinct users (`userId`) had an event in a window: as
    /// [`crate::events::Sketch`] estimates it, standard error 0.81 %.
    fn users(&self, window: Window, now_ms: i64) -> Result<u64, StoreError>;

    /// A user's recent searches: at most 10, newest first, no keyword twice (folded), as typed
    /// last; none once the newest is an hour old.
    fn recent(&self, user_id: &str, now_ms: i64) -> Result<Vec<String>, StoreError>;

    /// All-time totals by dimension; for [`Dimension::Type`] one entry a type, else the key is
    /// empty.
    fn totals(&self) -> Result<Vec<(Dimension, String, i64)>, StoreError>;

    /// Answers if the store does: for health checks.
    fn ping(&self) -> Result<(), StoreError>;

    /// Conditions that make the store less than safe to use, each a sentence for the log at start.
    fn warnings(&self) -> Vec<String>;
}

/// The live store's side of one sink: used by one thread at a time.
pub trait LiveWriter: Send {
    /// Where this store stands with `stream`.
    fn state(&mut self, stream: Uuid) -> Result<LiveState, StoreError>;

    /// As [`LedgerWriter::clock_ms`].
    fn clock_ms(&mut self) -> Result<Option<i64>, StoreError>;

    /// Makes `stream` known at position 0 in the current generation. Idempotent.
    fn register(&mut self, stream: Uuid) -> Result<(), StoreError>;

    /// Applies a batch atomically and moves the watermark with it. `Fenced` where the watermark is
    /// not `batch.from` (nothing applied), with what it is; `found: None` where the generation is
    /// gone.
    ///
    /// A count of a minute that is folded already goes to its hour and day, and to the minute if
    /// that is still kept. Counts older than eight days change totals only. A recent search older
    /// than an hour, or older than the ten that are kept, changes nothing.
    fn apply(&mut self, batch: &LiveBatch) -> Result<(), StoreError>;

    /// Adds every minute that closed before `now_ms - FOLD_GRACE_MS` to its hour and its day, once,
    /// and trims what closed. Several instances may call it at once.
    fn fold(&mut self, now_ms: i64) -> Result<(), StoreError>;

    /// Replaces everything by a snapshot, as a new generation that is switched to at once at the
    /// end; `state` is then what the snapshot's watermarks say. One instance at a time: `Retry`
    /// where another is at it. `snapshot` is asked for once that is certain, and only if
    /// `state(stream)` is still `seen`: otherwise another instance has rebuilt already, and nothing
    /// is done.
    fn rebuild(
        &mut self,
        stream: Uuid,
        seen: LiveState,
        snapshot: &mut dyn FnMut(&TimeZone) -> Result<Snapshot, StoreError>,
        now_ms: i64,
    ) -> Result<(), StoreError>;
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
    /// Forget `keyword` (`None`: all) as far as searched up to `at_ms`, those included that arrive
    /// later.
    Forget { user_id: String, keyword: Option<String>, at_ms: i64 },
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
