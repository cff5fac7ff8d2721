//! The index of what events name, for counts over several filters: one for each day that is over.
//!
//! Days that are not over have none, because each insert would pay for it; their rows are read by time.
//!
//! | 10 days of 172,800 events | with | without |
//! |---|---|---|
//! | count of a component and a post, 103 hits | 2.4 ms | 409 ms |
//! | count of a page and a post, 36,849 hits | 99 ms | 409 ms |
//! | bytes per event | 24.7 | 0 |
//!
//! Made by `perf/scale/generate.sql` on 2 cores, PostgreSQL 15, without parallel workers; 0.5 s to build a day's index.

use super::connect::{Failure, Session};
use super::maintain::date;
use crate::ledger::stats::counts::TERMS;
use crate::limits::{POSTGRES_WRITE_STATEMENT_MS_MAX, TERM_INDEX_MS_MAX};

/// Held by the one instance that builds an index.
const LOCK: i64 = 0x65_76_74_72_74_65_72_6d;
/// Attached days before `$1` that have no valid index, the newest first: see [`Missing`].
const MISSING: &str = "SELECT (to_date(right(day.relname, 8), 'YYYYMMDD') - date 'epoch')::int8, day.relname::text, \
       index.oid IS NOT NULL \
     FROM pg_inherits JOIN pg_class AS day ON day.oid = inhrelid \
       LEFT JOIN pg_class AS index ON index.relname = day.relname || '_terms' AND index.relnamespace = day.relnamespace \
       LEFT JOIN pg_index ON indexrelid = index.oid \
     WHERE inhparent = 'events'::regclass AND NOT inhdetachpending AND day.relname ~ '^events_[0-9]{8}$' \
       AND day.relname < $1 AND indisvalid IS NOT TRUE ORDER BY day.relname DESC";

/// A day whose index is missing.
pub(super) struct Missing {
    /// Since the epoch.
    pub(super) day: i64,
    name: String,
    /// An invalid index is in the way.
    has_invalid: bool,
}

/// Days before `today`, the newest first.
pub(super) fn missing(session: &mut Session, today: i64) -> Result<Vec<Missing>, Failure> {
    let bound = format!("events_{}", date(today)?.strftime("%Y%m%d"));
    let rows = session.client.query(MISSING, &[&bound])?;
    Ok(rows.iter().map(|row| Missing { day: row.get(0), name: row.get(1), has_invalid: row.get(2) }).collect())
}

/// False if another instance builds one. CONCURRENTLY: late events of the day are stored meanwhile. A build that was broken
/// off leaves an invalid index, which the next one drops.
pub(super) fn build(session: &mut Session, missing: &Missing) -> Result<bool, Failure> {
    let Missing { name, has_invalid, .. } = missing;
    if !session.client.query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK])?.get::<_, bool>(0) {
        return Ok(false);
    }
    let drop = if *has_invalid { format!("DROP INDEX CONCURRENTLY IF EXISTS {name}_terms") } else { String::new() };
    let create =
        format!("CREATE INDEX CONCURRENTLY {name}_terms ON {name} USING gin (({TERMS})) WITH (fastupdate = off)");
    let timeout = |ms: u64| format!("SET statement_timeout = {ms}");
    // One statement each: CONCURRENTLY runs in no transaction.
    let statements = [timeout(TERM_INDEX_MS_MAX), drop, create];
    let built = statements.iter().try_for_each(|sql| session.client.batch_execute(sql));
    session.client.batch_execute(&timeout(POSTGRES_WRITE_STATEMENT_MS_MAX))?;
    session.client.query_one("SELECT pg_advisory_unlock($1)", &[&LOCK])?;
    built?;
    Ok(true)
}
