//! The ledger in PostgreSQL 15 or newer.
//!
//! Owns everything that names the product: connections ([`connect`], each on a thread that can be given up), the
//! schema, the statements of a batch, reads on an r2d2 pool. What a batch means is decided in `ledger`.

mod connect;
mod encode;
mod erase;
mod export;
pub mod inspect;
mod maintain;
mod pooler;
mod retire;
mod schema;
mod search;
mod sql;
mod statements;
mod term_index;
mod transaction;
mod writer;
mod writes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::ledger::sql::Sql;
use crate::ledger::store::{Store, View};
use crate::ports::{ExportCursor, ExportPage, ExportQuery, LedgerWriter, Post, PostSearch, StoreError};
use connect::{Dialer, Pool, READ_MS_MAX};
use sql::{PostgresSql, snapshot};

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
        self.call(READ_MS_MAX, |session| Ok(schema::owner(&mut session.client)?))
    }

    /// The plans of a search, with what they took.
    pub fn search_plans(&self, query: &PostSearch) -> Result<Vec<String>, StoreError> {
        let query = query.clone();
        self.call(READ_MS_MAX, move |session| search::plans(session, &query))
    }

    /// Runs a read on a pooled connection, bounded.
    fn call<R: Send + 'static>(
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

impl Store for PostgresLedger {
    fn read<R: Send + 'static>(
        &self,
        view: View,
        job: impl Fn(&mut dyn Sql) -> Result<R, StoreError> + Send + Sync + 'static,
    ) -> Result<R, StoreError> {
        let wait_ms = if let View::Long(ms) = view { ms } else { READ_MS_MAX };
        self.call(wait_ms, move |session| {
            if view == View::Statement {
                return Ok(job(&mut PostgresSql::on(&mut session.client))?);
            }
            let mut transaction = snapshot(session)?;
            let View::Long(ms) = view else { return Ok(job(&mut PostgresSql::within_time(&mut transaction))?) };
            transaction.batch_execute(&format!("SET LOCAL statement_timeout = {ms}"))?;
            Ok(job(&mut PostgresSql::on(&mut transaction))?)
        })
    }

    fn rank_all_events_max(&self) -> i64 {
        self.rank_all_events
    }

    fn writer(&self) -> Result<Box<dyn LedgerWriter>, StoreError> {
        self.prepare().map_err(|error| match error {
            // A password may be changed on one side after the other: once events wait in the journal, so do we.
            PrepareError::Retry(why) | PrepareError::Credentials(why) => StoreError::Retry(why),
            PrepareError::Refused(why) => StoreError::Fatal(why),
        })?;
        Ok(Box::new(writer::PostgresWriter::new(self.dialer.clone())))
    }

    fn find_posts(&self, query: &PostSearch) -> Result<Vec<Post>, StoreError> {
        let query = query.clone();
        self.call(READ_MS_MAX, move |session| search::posts(session, &query))
    }

    fn export_page(&self, query: &ExportQuery, after: Option<ExportCursor>) -> Result<ExportPage, StoreError> {
        let query = *query;
        self.call(READ_MS_MAX, move |session| export::page(session, &query, after))
    }
}
