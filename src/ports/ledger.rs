//! The port of the ledger: what it claims, and the types of its calls.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::error::StoreError;
use super::live::TopQuery;
use super::snapshot::Snapshot;
use crate::events::{Dimension, Event, EventType, Record};
use crate::journal::{Position, Watermark};

/// Records of whole frames of one journal, in order: `records[i]` has position `from.position + 1 +
/// i`.
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
    /// The post is there: as a new one, or in the place of the one that had its id. Its time, its
    /// likes and its version right after.
    Put { replaced: bool, created_at_ms: i64, like_count: i64, version: i64 },
    /// Neither the post nor a like of it is there any more. How many likes were removed, each a row
    /// of `post_like_log`, and the post's version right after.
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

/// The durable record and source of truth. What it claims, with [`LedgerWriter`]:
///
/// - **L1** Atomic: a batch, its watermark, its verdicts, its dead letters and its counts are one
///   transaction. After any error all of it is there or nothing, and after `Fenced` and `Poison`
///   nothing.
/// - **L2** Exactly once: `apply` is fenced on `batch.from`, position and checksum; `Fenced` says what was found.
/// - **L3** A lost reply is told by `watermark`, which a reader and a writer answer alike.
/// - **L4** Durable when `apply` returns: a crash of the server or the program right after it loses nothing.
/// - **L5** Order: records take effect in journal order, those of several journals in some order.
/// - **L6** A stream is unknown (`None`) until it is registered at position 0; registering again moves nothing.
/// - **L7** An id that a client chose is stored once, within a batch, across batches and across journals, for at least
///   `ID_MEMORY_MS`; what comes again is a `Duplicate`, and neither stored nor counted.
/// - **L8** Likes are the fold of their journal by user and post: state, count (never below 0) and one row of
///   the log for each change; the version grows by one with each change, put and deletion; an outcome is that right after its action, and the type stored is what a toggle turned
///   out to be.
/// - **L9** Verdicts are kept until they are pruned, a range at a time, by stream; behind what was pruned the answer is
///   `None`. Likes stay in their log; one that changed nothing is told by `apply` alone.
/// - **L10** Data that is refused is `Poison`, found by `probe`, which stores nothing; what is set aside is a row of
///   `dead_letter` and a verdict, and the rest of its batch is stored.
/// - **L11** Rows = Σ rollups with the pending counts: hours, minutes (of records that came within
///   `ROLLUP_MINUTES_KEPT`) and totals; `user_hour` holds each hour, type and user once.
/// - **L12** `count` is exact for every filter and range.
/// - **L13** `top` ranks by score, then name (bytewise), only positive scores, over exactly its window's buckets.
/// - **L14** `recent` is a user's ten newest searches of the last hour by the earlier of event time and receipt, no
///   folded keyword twice, without what was forgotten, also where the search comes in after that.
/// - **L15** `snapshot` is one state: watermarks, rollups, totals, recent searches and what was forgotten agree.
/// - **L16** Several writers add up, whatever they write at the same time.
/// - **L17** `maintain` changes no answer but that of what is too old, may run anywhere at any time, and gives up soon
///   where something is in its way.
/// - **L18** A server that is away, hangs or is busy ends a call in `Retry`, within a bound; the next call finds it
///   again.
/// - **L19** `export`, page after page, gives every stored event that matches once, by event time, however many share a
///   time, as it was stored.
/// - **L20** A post is put, replaced and deleted in journal order; deleting it removes its likes, each through the log.
///   `post` and `likes` answer what is there.
/// - **L21** `search` finds exactly the posts with the hashtag or with the keyword in their folded content, as they are
///   now, by likes, then newest, then id (bytewise), and no more than asked for.
/// - **L22** `fold` changes no answer, by any clock, called by any instance, with late records before, between and beside
///   its calls; days and spans are the sums of their closed hours.
/// - **L23** An erasure leaves nothing that names the person: rows of before it stay for the counts without user, session,
///   url, referrer and properties, with the page and keyword that they count under; likes are undone through the log,
///   which forgets whose they were; posts, forgotten searches, user hours and dead letters go. What happened before it and
///   comes in later, through any journal, is `Erased`; what happened behind it stays, also where the erasure comes in
///   later. Erasing again changes nothing.
/// - **L24** `top` and `ranking` skip a deleted post and fill the page with others, until it is put again; then it is listed
///   with all its counts. `snapshot` has its tombstone. `count`, `series` and all sums keep what was counted.
/// - **L25** `retire` removes rows of days that are old enough, closed and counted, and nothing
///   else: no day before its time, none by a clock that jumped; counts, rankings of whole hours and
///   points stay. What comes for such a day later is `Poison`: kept as a dead letter, counted
///   nowhere.
/// - **L26** Pending counts are in every answer and are added to the rollups once, whichever
///   instance calls `add_up`, at any time.
///
/// Calls block.
pub trait Ledger: Send + Sync {
    /// A connection of its own for a sink. Creates nothing; the schema is there already.
    fn open_writer(&self) -> Result<Box<dyn LedgerWriter>, StoreError>;

    /// How far this ledger has followed `stream`; `None` where it never heard of it.
    fn watermark(&self, stream: Uuid) -> Result<Option<Watermark>, StoreError>;

    /// The verdicts of `after < position <= up_to`, in order, unless
    /// [`LedgerWriter::prune_verdicts`] removed them. A like that changed nothing may be missing;
    /// those that went with their post are told by its verdict. Read together with the watermark,
    /// in one snapshot: verdicts of a position past the watermark do not exist. `None` where
    /// verdicts behind `after` were pruned: nobody may guess that a record was stored because its
    /// verdict is gone.
    fn verdicts(&self, stream: Uuid, after: Position, up_to: Position) -> Result<Option<Verdicts>, StoreError>;

    /// What the erasure at a position did to posts: read by the follower of the live store.
    fn erasure(&self, stream: Uuid, position: Position) -> Result<Erasure, StoreError>;

    /// The posts that a person made or likes, at most `limit` of them each: what is cached of them
    /// goes with the person.
    fn belongings(&self, user_id: &str, limit: usize) -> Result<Belongings, StoreError>;

    /// Exact number of stored events that match, from rollups if there is at most one filter beside
    /// the type, else from raw rows.
    fn count(&self, filter: &CountFilter) -> Result<u64, StoreError>;

    /// The highest counts of a window, read from the rollups: what lists are answered from while
    /// the live store is away. Windows are those of [`Window`], days those of `zone`; order and
    /// ties as in [`LiveStore::top`].
    fn top(&self, query: &TopQuery, now_ms: i64, zone: &TimeZone) -> Result<Vec<(String, f64)>, StoreError>;

    /// Exact sums of a range of time by name: at most `limit` names with a positive sum, by sum
    /// descending, then name ascending (bytewise), behind `after`. One snapshot. `None`: more than
    /// could be read in the time of a read.
    fn ranking(&self, query: &RankingQuery, now_ms: i64) -> Result<Option<Ranked>, StoreError>;

    /// Exact counts and distinct users of each bucket of a range, in order. One snapshot; `None` as
    /// in `ranking`.
    fn series(&self, query: &SeriesQuery) -> Result<Option<Vec<SeriesPoint>>, StoreError>;

    /// Exact number of distinct users (`userId`) with an event in a range, milliseconds: from
    /// (inclusive), to (exclusive). `None` as in `ranking`.
    fn users(&self, from_ms: i64, to_ms: i64) -> Result<Option<u64>, StoreError>;

    /// A user's recent searches as [`LiveStore::recent`] answers them, read from raw rows.
    fn recent(&self, user_id: &str, now_ms: i64) -> Result<Vec<String>, StoreError>;

    /// One consistent snapshot of everything that a live store is built from, whose days are those
    /// of `zone`.
    fn snapshot(&self, now_ms: i64, zone: &TimeZone) -> Result<Snapshot, StoreError>;

    /// The likes of a post as of now, none for one that nobody ever liked, and whether `user_id`
    /// likes it.
    fn likes(&self, post_id: &str, user_id: Option<&str>) -> Result<Likes, StoreError>;

    /// A post with its likes as of now, in one snapshot; `None` where there is none of that id.
    fn post(&self, post_id: &str) -> Result<Option<Post>, StoreError>;

    /// The posts that a keyword finds, with their likes as of now, in one snapshot: those with most
    /// likes first, then the newest, then by id (bytewise); from `after` on, if that is given. Once
    /// the posts of an answer hold [`ANSWER_BYTES_MAX`](crate::limits::ANSWER_BYTES_MAX), no
    /// further ones are read. `Cancelled` if the matches cannot be read in the time that a read
    /// has.
    fn search(&self, query: &PostSearch) -> Result<Vec<Post>, StoreError>;

    /// A page of stored events in the order of their time, behind `after` (`None`: from the
    /// beginning). Bounded in rows, memory and time: it may hold fewer rows than there are, even
    /// none, and is the last one only where it says so. Every row that was there before the first
    /// page comes exactly once; one that comes in meanwhile does if its time is still ahead.
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
    /// verdict `Dead`. Returns all verdicts, likes that changed nothing included.
    ///
    /// Errors: `Fenced` where the stored watermark is not `batch.from`; `Poison` where the data of
    /// some record is refused; nothing of the batch is stored then.
    fn apply(&mut self, batch: &Batch<'_>, dead: &BTreeMap<Position, String>) -> Result<Verdicts, StoreError>;

    /// Whether the records at `range` (indexes into `batch.records`) can be stored: tries, and
    /// rolls back. `Poison` is the answer that the caller bisects by.
    fn probe(&mut self, batch: &Batch<'_>, range: std::ops::Range<usize>) -> Result<(), StoreError>;

    /// Forgets verdicts of `stream` up to `up_to`: every follower is past them, and remembers that
    /// it did. Likes stay in their log.
    fn prune_verdicts(&mut self, stream: Uuid, up_to: Position) -> Result<(), StoreError>;

    /// The store's own clock, milliseconds since the epoch. `None`: it has no clock but that of
    /// this machine.
    fn clock_ms(&mut self) -> Result<Option<i64>, StoreError>;

    /// Makes what coming batches need, such as partitions ahead. Deletes nothing, so any clock will
    /// do.
    fn prepare(&mut self, now_ms: i64) -> Result<(), StoreError>;

    /// Housekeeping, called about once a minute: prepares, adds pending counts, and deletes old
    /// minute rollups, forgotten searches and remembered ids. Bounded work. `now_ms` must be
    /// trusted: see [`crate::sinks::Steady`].
    fn maintain(&mut self, now_ms: i64) -> Result<(), StoreError>;

    /// Adds pending counts to the rollups; every read has them already. Called every
    /// [`ADD_UP_EVERY_MS`](crate::limits::ADD_UP_EVERY_MS) and more often under load, by any number
    /// of instances.
    fn add_up(&mut self) -> Result<(), StoreError>;

    /// Closes hours that are over, which adds them to days and spans of days, and counts the points
    /// of series and the bitmaps of users once; local days are those of `zone`. Called about once a
    /// minute, by any number of instances. Bounded work, in steps: on PostgreSQL only a batch that
    /// erases waits for one, on SQLite every batch does. True if something is left for the next
    /// call. What cannot be counted is an error and keeps nothing else from being counted.
    fn fold(&mut self, now_ms: i64, zone: &TimeZone) -> Result<bool, StoreError>;

    /// From now on `fold` recounts an hour only once nothing has changed in it for a minute, and
    /// takes a tenth of a core at most for all that it counts. Until then, and without this call,
    /// reads have the same answers from rows.
    fn spare(&mut self);

    /// Removes rows, user hours and bitmaps of days that are over for `retention_days` and a
    /// little: some days of them, the oldest first, closed ones whose points are counted. Only as
    /// far as events of several days in a row say that time has come. Everything summed up stays.
    /// To be called while nothing old waits to be applied. Bounded work.
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
    /// Folded (see `events::fold_keyword`), at least one character: found anywhere in a content,
    /// white space included.
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
