//! The ledger in PostgreSQL 15 or newer.
//!
//! Owns everything that names the product: connections ([`connect`], each on a thread that can be given up), the
//! schema, the statements of a batch, reads on an r2d2 pool. What a batch means is decided in `ledger_fold`.

mod connect;
mod deltas;
mod edges;
mod encode;
mod erase;
mod export;
mod few;
mod fold;
pub mod inspect;
mod maintain;
mod open_day;
mod pooler;
mod rankings;
mod read;
mod reading;
mod retire;
mod schema;
mod search;
mod statements;
mod term_index;
mod transaction;
mod user_sets;
mod writer;
mod writes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use uuid::Uuid;

use crate::ledger_fold::{RankPlan, days_within_hours, few_events, plan_rank, skip_hidden};
use crate::limits::{
    POSTGRES_READ_STATEMENT_MS_MAX, POSTGRES_WRITE_STATEMENT_MS_MAX, READ_WAIT_MS, SNAPSHOT_MS_MAX, STORE_CALL_MS_MAX,
};
use crate::ports::{
    Belongings, CountFilter, Erasure, ExportCursor, ExportPage, ExportQuery, Ledger, LedgerWriter, Likes, Position,
    Post, PostSearch, Ranked, RankingQuery, SeriesPoint, SeriesQuery, Snapshot, StoreError, TopQuery, Verdicts,
    Watermark,
};
use connect::{Dialer, Pool};

/// A call that reads: its connection is given up after this, a bit before the caller stops waiting.
const READ_MS_MAX: u64 = READ_WAIT_MS - 100;
/// A call that writes, and the snapshot of a rebuild: longer than the server's own time-out for a statement.
const WRITE_MS_MAX: u64 = STORE_CALL_MS_MAX - 5_000;
const _: () = assert!(POSTGRES_READ_STATEMENT_MS_MAX < READ_MS_MAX && POSTGRES_WRITE_STATEMENT_MS_MAX < WRITE_MS_MAX);

pub use connect::{check_url, url_warning};
pub use schema::{Owner, PrepareError, prepare, refusal};

/// The durable record in PostgreSQL. Reads share a pool; a writer has a connection of its own.
pub struct PostgresLedger {
    url: String,
    prepared: AtomicBool,
    dialer: Arc<Dialer>,
    pool: Pool,
    rank_all_events: i64,
}

impl PostgresLedger {
    /// Connects lazily: succeeds while the server is away, and calls answer `Retry` then. `Fatal` where the URL
    /// cannot be read. `pool_size` bounds the connections that read.
    pub fn new(url: &str, pool_size: u32) -> Result<PostgresLedger, StoreError> {
        let dialer = Arc::new(Dialer::new(url, pool_size)?);
        let pool = connect::pool(&dialer, pool_size);
        let prepared = AtomicBool::new(false);
        Ok(PostgresLedger { url: url.to_owned(), prepared, dialer, pool, rank_all_events: i64::MAX })
    }

    /// For tests: no ranking of a range with more events than this reads all its names.
    #[cfg(feature = "test-hooks")]
    pub fn ranking_all_up_to(self, events: i64) -> Self {
        Self { rank_all_events: events, ..self }
    }

    /// Brings the schema to this program's version, once; a server that is away at the start is prepared by the first
    /// writer that reaches it.
    pub fn prepare(&self) -> Result<(), PrepareError> {
        if !self.prepared.load(Ordering::Acquire) {
            schema::prepare(&self.url)?;
            self.prepared.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Whose the database is.
    pub fn owner(&self) -> Result<Owner, StoreError> {
        self.read(READ_MS_MAX, |session| Ok(schema::owner(&mut session.client)?))
    }

    /// The plans of a search, with what they took.
    pub fn search_plans(&self, query: &PostSearch) -> Result<Vec<String>, StoreError> {
        let query = query.clone();
        self.read(READ_MS_MAX, move |session| search::plans(session, &query))
    }

    /// Runs a read on a pooled connection, bounded.
    fn read<R: Send + 'static>(
        &self,
        wait_ms: u64,
        job: impl Fn(&mut connect::Session) -> Result<R, connect::Failure> + Send + Sync + 'static,
    ) -> Result<R, StoreError> {
        let deadline = Instant::now() + Duration::from_millis(wait_ms);
        // Asked first: it may be prepared while this read fails.
        let was_prepared = self.prepared.load(Ordering::Acquire);
        let mut link = self.pool.get().map_err(|error| StoreError::Retry(format!("PostgreSQL: {error}")))?;
        let job = Arc::new(job);
        let again = job.clone();
        let mut result = link.call(deadline, move |session| job(session));
        if result.as_ref().is_err_and(|failure| failure.cause == connect::Cause::StaleStatement) {
            // Pooled connections are as old as this one.
            let fresh = self.dialer.dial_reader();
            result = fresh.and_then(|mut fresh| fresh.call(deadline, move |session| again(session)));
        }
        result.map_err(|failure| match failure.error {
            StoreError::Retry(why) if failure.cause == connect::Cause::Cancelled => StoreError::Cancelled(why),
            // Tables that are missing will be there once the first writer has reached the server.
            StoreError::Fatal(why) if !was_prepared => StoreError::Retry(why),
            error => error,
        })
    }
}

impl Ledger for PostgresLedger {
    fn open_writer(&self) -> Result<Box<dyn LedgerWriter>, StoreError> {
        self.prepare().map_err(|error| match error {
            // A password may be changed on one side after the other: once events wait in the journal, so do we.
            PrepareError::Retry(why) | PrepareError::Credentials(why) => StoreError::Retry(why),
            PrepareError::Refused(why) => StoreError::Fatal(why),
        })?;
        Ok(Box::new(writer::PostgresWriter::new(self.dialer.clone())))
    }

    fn watermark(&self, stream: Uuid) -> Result<Option<Watermark>, StoreError> {
        self.read(READ_MS_MAX, move |session| read::watermark(session, stream))
    }

    fn verdicts(&self, stream: Uuid, after: Position, up_to: Position) -> Result<Option<Verdicts>, StoreError> {
        self.read(READ_MS_MAX, move |session| read::verdicts(session, stream, after, up_to))
    }

    fn erasure(&self, stream: Uuid, position: Position) -> Result<Erasure, StoreError> {
        self.read(READ_MS_MAX, move |session| erase::erasure(session, stream, position))
    }

    fn belongings(&self, user_id: &str, limit: usize) -> Result<Belongings, StoreError> {
        let (user_id, limit) = (user_id.to_owned(), i64::try_from(limit).unwrap_or(i64::MAX));
        self.read(READ_MS_MAX, move |session| erase::of_user(session, &user_id, limit))
    }

    fn count(&self, filter: &CountFilter) -> Result<u64, StoreError> {
        let filter = filter.clone();
        self.read(READ_MS_MAX, move |session| read::count(session, &filter))
    }

    fn top(&self, query: &TopQuery, now_ms: i64, zone: &TimeZone) -> Result<Vec<(String, f64)>, StoreError> {
        let (query, plan) = (query.clone(), plan_rank(query, now_ms, zone));
        let few = few_events(query.limit).min(self.rank_all_events);
        self.read(READ_MS_MAX, move |session| {
            if !query.parts.iter().any(|(dimension, _)| dimension.names_posts()) {
                return read::top(session, &query, &plan, now_ms, few);
            }
            let first = |session: &mut connect::Session, limit| {
                let (query, plan) = (TopQuery { limit, ..query.clone() }, RankPlan { limit, ..plan.clone() });
                read::top(session, &query, &plan, now_ms, few).map(Some)
            };
            Ok(skip_hidden(session, query.limit, first, read::hidden)?.unwrap_or_default())
        })
    }

    fn ranking(&self, query: &RankingQuery, now_ms: i64) -> Result<Option<Ranked>, StoreError> {
        let query = query.clone();
        let few = few_events(query.limit).min(self.rank_all_events);
        self.read(READ_MS_MAX, move |session| {
            if !query.parts.iter().any(|(dimension, _)| dimension.names_posts()) {
                return rankings::ranking(session, &query, now_ms, few);
            }
            let first = |session: &mut connect::Session, limit| {
                rankings::ranking(session, &RankingQuery { limit, ..query.clone() }, now_ms, few)
            };
            skip_hidden(session, query.limit, first, read::hidden)
        })
    }

    fn series(&self, query: &SeriesQuery) -> Result<Option<Vec<SeriesPoint>>, StoreError> {
        let query = query.clone();
        self.read(READ_MS_MAX, move |session| rankings::series(session, &query))
    }

    fn users(&self, from_ms: i64, to_ms: i64) -> Result<Option<u64>, StoreError> {
        self.read(READ_MS_MAX, move |session| rankings::users(session, from_ms, to_ms))
    }

    fn recent(&self, user_id: &str, now_ms: i64) -> Result<Vec<String>, StoreError> {
        let user_id = user_id.to_owned();
        self.read(READ_MS_MAX, move |session| read::recent(session, &user_id, now_ms))
    }

    fn snapshot(&self, now_ms: i64, zone: &TimeZone) -> Result<Snapshot, StoreError> {
        let days = days_within_hours(zone, now_ms);
        self.read(SNAPSHOT_MS_MAX, move |session| read::snapshot(session, now_ms, &days))
    }

    fn likes(&self, post_id: &str, user_id: Option<&str>) -> Result<Likes, StoreError> {
        let (post_id, user_id) = (post_id.to_owned(), user_id.map(str::to_owned));
        self.read(READ_MS_MAX, move |session| read::likes(session, &post_id, user_id.as_deref()))
    }

    fn post(&self, post_id: &str) -> Result<Option<Post>, StoreError> {
        let post_id = post_id.to_owned();
        self.read(READ_MS_MAX, move |session| read::post(session, &post_id))
    }

    fn search(&self, query: &PostSearch) -> Result<Vec<Post>, StoreError> {
        let query = query.clone();
        self.read(READ_MS_MAX, move |session| search::posts(session, &query))
    }

    fn export(&self, query: &ExportQuery, after: Option<ExportCursor>) -> Result<ExportPage, StoreError> {
        let query = *query;
        self.read(READ_MS_MAX, move |session| export::page(session, &query, after))
    }

    fn dead_letters(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM dead_letter";
        self.read(READ_MS_MAX, move |session| Ok(session.client.query_one(sql, &[])?.get::<_, i64>(0).cast_unsigned()))
    }
}
