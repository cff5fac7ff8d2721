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

use std::time::Instant;

use super::connect::{Failure, Session};
use super::maintain::date;
use super::writer::PostgresWriter;
use crate::ledger_fold::Named;
use crate::limits::{POSTGRES_WRITE_STATEMENT_MS_MAX, TERM_INDEX_MS_MAX};

/// Held by the one instance that builds an index.
const LOCK: i64 = 0x65_76_74_72_74_65_72_6d;
const EXPRESSION: &str = "event_terms(component_id, element_id, keyword_key, post_id, page)";
/// Attached days before `$1` that have no valid index, the newest first: day since the epoch, name, and whether an invalid
/// index is in the way.
const MISSING: &str = "SELECT to_date(right(day.relname, 8), 'YYYYMMDD') - date 'epoch', day.relname::text, \
       index.oid IS NOT NULL \
     FROM pg_inherits JOIN pg_class AS day ON day.oid = inhrelid \
       LEFT JOIN pg_class AS index ON index.relname = day.relname || '_terms' AND index.relnamespace = day.relnamespace \
       LEFT JOIN pg_index ON indexrelid = index.oid \
     WHERE inhparent = 'events'::regclass AND NOT inhdetachpending AND day.relname ~ '^events_[0-9]{8}$' \
       AND day.relname < $1 AND indisvalid IS NOT TRUE ORDER BY day.relname DESC";

/// Builds the index of the newest day before `today` that has none; true if it built one, as there may be more.
pub(super) fn build(writer: &mut PostgresWriter, today: i64) -> Result<bool, Failure> {
    let waiting = writer.folding.term_indexes.waiting(Instant::now());
    let next = writer.step(move |session| next(session, today, &waiting))?;
    let Some((day, name, has_invalid)) = next else { return Ok(false) };
    let built = writer.long_step(TERM_INDEX_MS_MAX, move |session| build_one(session, &name, has_invalid));
    let mut failed = None;
    let is_built = matches!(built, Ok(true));
    writer.folding.term_indexes.settle(day, built, &mut failed);
    failed.map_or(Ok(is_built), Err)
}

type Missing = (i64, String, bool);

fn next(session: &mut Session, today: i64, waiting: &[i64]) -> Result<Option<Missing>, Failure> {
    let bound = format!("events_{}", date(today)?.strftime("%Y%m%d"));
    let rows = session.client.query(MISSING, &[&bound])?;
    let mut missing = rows.iter().map(|row| (i64::from(row.get::<_, i32>(0)), row.get(1), row.get(2)));
    Ok(missing.find(|(day, ..)| !waiting.contains(day)))
}

/// False if another instance builds one. CONCURRENTLY: late events of the day are stored meanwhile. A build that was broken
/// off leaves an invalid index, which the next one drops.
fn build_one(session: &mut Session, name: &str, has_invalid: bool) -> Result<bool, Failure> {
    if !session.client.query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK])?.get::<_, bool>(0) {
        return Ok(false);
    }
    let drop = if has_invalid { format!("DROP INDEX CONCURRENTLY IF EXISTS {name}_terms") } else { String::new() };
    let create =
        format!("CREATE INDEX CONCURRENTLY {name}_terms ON {name} USING gin (({EXPRESSION})) WITH (fastupdate = off)");
    let timeout = |ms: u64| format!("SET statement_timeout = {ms}");
    // One statement each: CONCURRENTLY runs in no transaction.
    let statements = [timeout(TERM_INDEX_MS_MAX), drop, create];
    let built = statements.iter().try_for_each(|sql| session.client.batch_execute(sql));
    session.client.batch_execute(&timeout(POSTGRES_WRITE_STATEMENT_MS_MAX))?;
    session.client.query_one("SELECT pg_advisory_unlock($1)", &[&LOCK])?;
    built?;
    Ok(true)
}

/// What lets the index find rows that match at least two of `named`, whose parameters are in this order. Hashes may collide,
/// so the conditions themselves stay.
pub(super) fn condition(named: &[(&'static str, Named<'_>)]) -> Option<String> {
    let parameter = |column: &str| (1..).zip(named).find(|(_, (condition, _))| condition.ends_with(column));
    let columns = ["component_id =", "element_id =", "keyword_key =", "post_id =", "page ="].map(parameter);
    if columns.iter().flatten().count() < 2 {
        return None;
    }
    let values = columns.map(|found| found.map_or("NULL".to_owned(), |(at, _)| format!("${at}")));
    Some(format!("{EXPRESSION} @> event_terms({})", values.join(", ")))
}
