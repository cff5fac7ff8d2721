//! The port of the ledger and the types of its calls.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::error::StoreError;
use super::live::TopQuery;
use super::snapshot::Snapshot;
use crate::events::{Dimension, Event, EventType, Record};
use crate::journal::{Position, Watermark};

/// Records of whole frames of one journal, in order: the first has position `from.position + 1`.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    pub stream: Uuid,
    /// What the store has applied so far; the call is fenced on it.
    pub from: Watermark,
    /// What it has applied once the call succeeds.
    pub to: Watermark,
    pub records: Vec<Record<'a>>,
}

impl Batch<'_> {
    /// The position of `records[index]`.
    pub fn position(&self, index: usize) -> Position {
        self.from.position + 1 + index as u64
    }
}

/// What the ledger decided about a record beyond "stored".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its client-chosen id was there before: nothing was stored or counted.
    Duplicate,
    /// The ledger refuses its data: it is a row of `dead_letter`, nothing was counted.
    Dead,
    /// A like, unlike or toggle was stored, with this outcome.
    Like(LikeOutcome),
    /// A post was put or deleted, with this outcome.
    Post(PostOutcome),
    /// It happened before its user was erased: nothing was stored or counted.
    Erased,
    /// A person was erased; what that took from posts is told by [`Ledger::erasure`].
    Erasure,
}

/// A post's like state as one user's action left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LikeOutcome {
    /// The user likes the post after the action.
    pub liked: bool,
    /// The action changed that. False: no row of `post_like_log`.
    pub changed: bool,
    /// Likes of the post right after the action, never below zero.
    pub like_count: i64,
    /// Grows by one with each change of the post's likes, each put and each deletion of the post.
    pub version: i64,
}

impl LikeOutcome {
    /// The type under which the record was stored: what a toggle turned out to be.
    pub fn stored_type(&self) -> EventType {
        if self.liked { EventType::Like } else { EventType::Unlike }
    }
}

/// What became of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostOutcome {
    /// The post is there. Its time, its likes and its version right after.
    Put { replaced: bool, created_at_ms: i64, like_count: i64, version: i64 },
    /// Neither the post nor a like of it is there any more. The post's version right after.
    Deleted { existed: bool, likes_removed: i64, version: i64 },
}

/// What an erasure did to posts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erasure {
    /// Likes that were removed, by post.
    pub unliked: Vec<(String, i64)>,
    /// Posts that were deleted with the person and not put again, with their versions.
    pub deleted: Vec<(String, i64)>,
}

/// Verdicts in the order of their positions; a record without one was stored.
pub type Verdicts = Vec<(Position, Verdict)>;

/// The durable record and source of truth. With [`LedgerWriter`] it claims L1 to L26 of
/// `docs/claims.md`. Calls block.
pub trait Ledger: Send + Sync {
    /// A connection of its own for a sink. Creates nothing; the schema is there already.
    fn open_writer(&self) -> Result<Box<dyn LedgerWriter>, StoreError>;

    /// How far this ledger has followed `stream`; `None` where it never heard of it.
    fn watermark(&self, stream: Uuid) -> Result<Option<Watermark>, StoreError>;

    /// The verdicts of `after < position <= up_to`, in order, as of one snapshot with the watermark
    /// (L9). A like that changed nothing may be missing; likes that were removed with their post
    /// have no verdict of their own. `None` if verdicts behind `after` were pruned.
    fn verdicts(&self, stream: Uuid, after: Position, up_to: Position) -> Result<Option<Verdicts>, StoreError>;

    /// What the erasure at a position did to posts: read by the follower of the live store.
    fn erasure(&self, stream: Uuid, position: Position) -> Result<Erasure, StoreError>;

    /// The posts that a person made or likes, at most `limit` of each.
    fn belongings(&self, user_id: &str, limit: usize) -> Result<Belongings, StoreError>;

    /// Exact number of stored events that match.
    fn count(&self, filter: &CountFilter) -> Result<u64, StoreError>;

    /// As [`LiveStore::top`], read from the rollups. Days are those of `zone`.
    fn top(&self, query: &TopQuery, now_ms: i64, zone: &TimeZone) -> Result<Vec<(String, f64)>, StoreError>;

    /// Exact sums of a range of time by name: those above 0, by sum descending, then name ascending
    /// (bytewise). One snapshot. `None`: the time of a read was not enough.
    fn ranking(&self, query: &RankingQuery, now_ms: i64) -> Result<Option<Ranked>, StoreError>;

    /// Exact counts and distinct users of each bucket. One snapshot; `None` as in `ranking`.
    fn series(&self, query: &SeriesQuery) -> Result<Option<Vec<SeriesPoint>>, StoreError>;

    /// Exact number of distinct users with an event in `from_ms..to_ms`. `None` as in `ranking`.
    fn users(&self, from_ms: i64, to_ms: i64) -> Result<Option<u64>, StoreError>;

    /// As [`LiveStore::recent`], read from raw rows.
    fn recent(&self, user_id: &str, now_ms: i64) -> Result<Vec<String>, StoreError>;

    /// What a live store is built from, whose days are those of `zone`.
    fn snapshot(&self, now_ms: i64, zone: &TimeZone) -> Result<Snapshot, StoreError>;

    /// The likes of a post as of now, and whether `user_id` likes it.
    fn likes(&self, post_id: &str, user_id: Option<&str>) -> Result<Likes, StoreError>;

    /// A post with its likes as of now, in one snapshot.
    fn post(&self, post_id: &str) -> Result<Option<Post>, StoreError>;

    /// The posts that a keyword finds, in one snapshot and in the order of [`PostRank`], up to
    /// `ANSWER_BYTES_MAX` of them. `Cancelled` if the time of a read is not enough.
    fn search(&self, query: &PostSearch) -> Result<Vec<Post>, StoreError>;

    /// A page of stored events in the order of their time, behind `after` (`None`: from the
    /// beginning). Bounded in rows, memory and time: even an empty page need not be the last. A row
    /// that was there before the first page comes exactly once; a later one may.
    fn export(&self, query: &ExportQuery, after: Option<ExportCursor>) -> Result<ExportPage, StoreError>;

    /// Rows of `dead_letter`. Answers if the store does: for health checks.
    fn dead_letters(&self) -> Result<u64, StoreError>;
}

/// The ledger's side of one sink: used by one thread at a time.
pub trait LedgerWriter: Send {
    /// As [`Ledger::watermark`], on this connection.
    fn watermark(&mut self, stream: Uuid) -> Result<Option<Watermark>, StoreError>;

    /// Makes `stream` known at position 0. Idempotent: an existing watermark stays.
    fn register(&mut self, stream: Uuid) -> Result<(), StoreError>;

    /// Applies a batch. Positions in `dead` become rows of `dead_letter` with that reason and the
    /// verdict `Dead`. Returns all verdicts, likes that changed nothing included. After `Fenced`
    /// and `Poison` nothing of the batch is stored.
    fn apply(&mut self, batch: &Batch<'_>, dead: &BTreeMap<Position, String>) -> Result<Verdicts, StoreError>;

    /// Tries to store the records at `range` (indexes into `batch.records`), and rolls back.
    /// `Poison` is the answer that the caller bisects by.
    fn probe(&mut self, batch: &Batch<'_>, range: std::ops::Range<usize>) -> Result<(), StoreError>;

    /// Forgets verdicts of `stream` up to `up_to`: every follower is past them.
    fn prune_verdicts(&mut self, stream: Uuid, up_to: Position) -> Result<(), StoreError>;

    /// The store's own clock, milliseconds since the epoch. `None`: it is that of this machine.
    fn clock_ms(&mut self) -> Result<Option<i64>, StoreError> {
        Ok(None)
    }

    /// Housekeeping, about once a minute: makes partitions ahead, adds pending counts, and deletes
    /// old minute rollups, forgotten searches and remembered ids. Bounded work. `now_ms` must be
    /// trusted.
    fn maintain(&mut self, now_ms: i64) -> Result<(), StoreError>;

    /// Adds pending counts to the rollups; every read has them already.
    fn add_up(&mut self) -> Result<(), StoreError>;

    /// Closes hours that are over, which adds them to days and spans of days, and counts the points
    /// of series and the bitmaps of users once; local days are those of `zone`. Bounded work, in
    /// steps: on PostgreSQL only a batch that erases waits for one, on SQLite every batch does. True
    /// if something is left. An hour that cannot be counted is an error, after all others.
    fn fold(&mut self, now_ms: i64, zone: &TimeZone) -> Result<bool, StoreError>;

    /// From now on `fold` recounts an hour only after a quiet minute, and takes a tenth of a core at
    /// most. Until an hour is recounted, reads have the same answers from rows.
    fn spare(&mut self);

    /// Removes rows, user hours and bitmaps of some days, the oldest first, that ended more than
    /// `retention_days` ago (L25). To be called while nothing old waits to be applied. Bounded work.
    fn retire(&mut self, now_ms: i64, retention_days: i64) -> Result<(), StoreError>;
}

/// What [`Ledger::belongings`] answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Belongings {
    /// The person's posts and their hashtags.
    pub posts: Vec<(String, Vec<String>)>,
    /// Posts of anybody that the person likes.
    pub liked: Vec<String>,
}

/// What [`Ledger::likes`] answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Likes {
    /// Never below zero; always the number of rows of `post_like`.
    pub like_count: i64,
    /// False where nobody was asked about.
    pub liked: bool,
}

/// A post as it is kept, with its likes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    pub post_id: String,
    pub user_id: String,
    pub content: String,
    /// Folded: see `events::fold_hashtag`.
    pub hashtags: Vec<String>,
    pub image_urls: Vec<String>,
    pub created_at_ms: i64,
    pub like_count: i64,
}

/// What [`Ledger::search`] looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostSearch {
    /// Folded (see `events::fold_keyword`), at least one character.
    pub keyword: String,
    /// Folded: see `events::fold_hashtag`. No post has an empty one.
    pub hashtag: String,
    /// The last post of the page before.
    pub after: Option<PostRank>,
    pub limit: usize,
}

/// The place of a post in the order of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostRank {
    pub like_count: i64,
    pub created_at_ms: i64,
    pub post_id: String,
}

impl PostRank {
    /// The place before the first post.
    pub fn before_all() -> PostRank {
        PostRank { like_count: i64::MAX, created_at_ms: 0, post_id: String::new() }
    }
}

/// What [`Ledger::count`] counts; all given filters must match.
#[derive(Clone, Debug, Default)]
pub struct CountFilter {
    pub event_type: Option<EventType>,
    pub component_id: Option<i64>,
    /// The element of events without a component; never given together with a component.
    pub element_id: Option<String>,
    /// Normalised: see `events::fold_keyword`.
    pub keyword: Option<String>,
    pub post_id: Option<String>,
    /// A page key: see `events::page_key`.
    pub page: Option<String>,
    /// Event time, milliseconds, inclusive.
    pub from_ms: Option<i64>,
    /// Event time, milliseconds, exclusive.
    pub to_ms: Option<i64>,
}

impl CountFilter {
    /// The range holds no time at which an event can be stored: nothing has to be read.
    pub fn is_empty(&self) -> bool {
        self.to_ms.is_some_and(|to_ms| to_ms <= self.from_ms.unwrap_or(0))
    }
}

/// Names with their sums, in order.
pub type Ranked = Vec<(String, i64)>;

/// An exact ranking to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankingQuery {
    /// What is summed, each with its weight.
    pub parts: Vec<(Dimension, i64)>,
    /// Event time, milliseconds, inclusive.
    pub from_ms: i64,
    /// Event time, milliseconds, exclusive.
    pub to_ms: i64,
    /// The last sum and name of the page before.
    pub after: Option<(i64, String)>,
    /// How many names were on the pages before: where to look first, whatever is true by now.
    pub before: usize,
    pub limit: usize,
}

/// How long a bucket of a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    Minute,
    Hour,
    /// Of `TIME_ZONE`.
    Day,
}

/// A series to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesQuery {
    /// `None`: all together.
    pub event_type: Option<EventType>,
    pub interval: Interval,
    /// Where each bucket begins, milliseconds, ascending; and where the last one ends.
    pub edges_ms: Vec<i64>,
}

/// One bucket of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesPoint {
    pub count: u64,
    /// Distinct `userId`s; events of sessions alone count in `count` only.
    pub users: u64,
}

/// Which stored events an export is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportQuery {
    pub event_type: Option<EventType>,
    /// Event time, milliseconds, inclusive.
    pub from_ms: Option<i64>,
    /// Event time, milliseconds, exclusive.
    pub to_ms: Option<i64>,
}

/// Where an export goes on: made by a page, read by the ledger that made it and by nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportCursor {
    /// Event time of the last row, or where to look next, in the ledger's own unit.
    pub at: i64,
    /// Which row of that time was the last; `None`: none of it was read.
    pub row: Option<u128>,
    /// How far ahead the next page looks, milliseconds.
    pub reach_ms: i64,
    /// Rows that the next page may have.
    pub rows_max: usize,
}

/// A part of an export.
#[derive(Clone, Debug, Default)]
pub struct ExportPage {
    /// As stored; whether a client chose the id is not stored.
    pub events: Vec<Event<'static>>,
    /// `None`: this was the last page.
    pub next: Option<ExportCursor>,
}
