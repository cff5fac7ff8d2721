//! Retention: whole days go by their partition, one after the other, each step safe to be broken off.
//!
//! First it is written down that the day's rows are gone, so that nobody makes its partition again; then the partition is
//! detached without a lock that a batch would wait for, and dropped; then the hours of users go in small steps.

use super::connect::{Failure, Session};
use super::maintain::{PARTITION_LOCK, date, delete_in_steps};
use super::{rankings, user_sets};
use crate::ledger_fold::{HOUR_MS, newest_trusted_day, retire_until, uncounted_day_sql};
use crate::limits::{MAINTAIN_LOCK_MS_MAX, POSTGRES_LOCK_MS_MAX, RETIRE_DAYS_MAX};
use crate::ports::StoreError;

/// Nobody is kept waiting for longer.
const LOCK_MS_MAX: u64 = 10 * MAINTAIN_LOCK_MS_MAX;
/// Days with events, the newest first, none later than a given hour.
const DAYS: &str = "WITH RECURSIVE day(n) AS ( \
       SELECT max(bucket) / 24 FROM rollup_hour WHERE dimension = 1 AND bucket <= $1 \
       UNION ALL SELECT (SELECT max(bucket) / 24 FROM rollup_hour WHERE dimension = 1 AND bucket < n * 24) FROM day \
         WHERE n IS NOT NULL) \
     SELECT n FROM day WHERE n IS NOT NULL LIMIT 8";
/// Partitions that are attached, or whose detaching was broken off, by name: the oldest first.
const PARTITIONS: &str = "SELECT relname::text, inhdetachpending FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid \
     WHERE inhparent = 'events'::regclass AND relname ~ '^events_[0-9]{8}$' ORDER BY relname";
/// Detached and not dropped: whoever did the one died before the other, or did not get the lock.
const LEFT: &str = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname ~ '^events_[0-9]{8}$' \
     AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'events'::regclass) \
     AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = pg_class.oid) ORDER BY relname";
const USER_HOURS_GONE: &str = "hour < $1";

pub(super) fn run(session: &mut Session, now_ms: i64, retention_days: i64) -> Result<(), Failure> {
    let hour = now_ms.div_euclid(HOUR_MS);
    let days: Vec<i64> = session.client.query(DAYS, &[&hour])?.iter().map(|row| row.get(0)).collect();
    let Some(trusted) = newest_trusted_day(&days) else { return Ok(()) };
    let until = retire_until(hour.div_euclid(24), trusted, retention_days);
    let since = mark(session, until)?;
    let gone = format!("events_{}", date(since)?.strftime("%Y%m%d"));
    for row in session.client.query(PARTITIONS, &[])? {
        let (name, is_pending): (String, bool) = (row.get(0), row.get(1));
        if name < gone {
            detach(session, &name, is_pending)?;
        }
    }
    for row in session.client.query(LEFT, &[])? {
        let name: String = row.get(0);
        if name < gone {
            drop_table(session, &name)?;
        }
    }
    delete_in_steps(session, "user_hour", USER_HOURS_GONE, since * 24)?;
    user_sets::retire(session, since * 24)
}

/// Writes down which rows are gone: days before `until` that are folded and counted, some at a time.
fn mark(session: &mut Session, until: i64) -> Result<i64, Failure> {
    let mut transaction = session.client.transaction()?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&PARTITION_LOCK])?;
    // Batches hold the row: those under way are waited for, and whatever they brought late is seen below. Those that come
    // find the rows gone.
    let since: i64 = transaction.query_one("SELECT rows_since FROM rollup_folded FOR UPDATE", &[])?.get(0);
    let until = until.min(rankings::folded(&mut transaction)?.until_day);
    let first = "SELECT min(bucket) / 24 FROM rollup_hour WHERE dimension = 1 AND bucket >= $1::int8 * 24";
    let first: Option<i64> = transaction.query_one(first, &[&since])?.get(0);
    let until = until.min(first.unwrap_or(since).max(since) + RETIRE_DAYS_MAX);
    let uncounted = uncounted_day_sql(since, until.max(since));
    let until = until.min(transaction.query_one(uncounted.as_str(), &[])?.get::<_, Option<i64>>(0).unwrap_or(until));
    if until <= since {
        return Ok(since);
    }
    transaction.execute("UPDATE rollup_folded SET rows_since = $1", &[&until])?;
    transaction.commit()?;
    Ok(until)
}

/// It waits for those who read the table, and not for long: the sink's own batches wait behind it. Broken off, it is finished
/// the next time.
fn detach(session: &mut Session, name: &str, is_pending: bool) -> Result<(), Failure> {
    let how = if is_pending { "FINALIZE" } else { "CONCURRENTLY" };
    session.client.batch_execute(&format!("SET lock_timeout = {LOCK_MS_MAX}"))?;
    // Not within a transaction, so not together with anything else.
    let detached = session.client.batch_execute(&format!("ALTER TABLE events DETACH PARTITION {name} {how}"));
    session.client.batch_execute(&format!("SET lock_timeout = {POSTGRES_LOCK_MS_MAX}"))?;
    Ok(detached.map_err(|error| StoreError::Retry(error.to_string()))?)
}

fn drop_table(session: &mut Session, name: &str) -> Result<(), Failure> {
    let mut transaction = session.client.transaction()?;
    let drop = format!("SET LOCAL lock_timeout = {LOCK_MS_MAX}; DROP TABLE {name}");
    transaction.batch_execute(&drop).map_err(|error| StoreError::Retry(error.to_string()))?;
    Ok(transaction.commit()?)
}
