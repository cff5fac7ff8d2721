//! Retention: old rows go in small steps, each a transaction of its own, so that batches get their turn.

use rusqlite::{Connection, Result, Transaction, TransactionBehavior};

use super::maintain::delete_in_steps;
use super::writer::SqliteWriter;
use super::{rankings, user_sets};
use crate::ledger_fold::{HOUR_MS, newest_trusted_day, retire_until, uncounted_day_sql};
use crate::limits::RETIRE_DAYS_MAX;

const DAY_MS: i64 = 86_400_000;
/// Days with events, the newest first, none later than a given hour.
const DAYS: &str = "WITH RECURSIVE day(n) AS ( \
       SELECT max(bucket) / 24 FROM rollup_hour WHERE dimension = 1 AND bucket <= ?1 \
       UNION ALL SELECT (SELECT max(bucket) / 24 FROM rollup_hour WHERE dimension = 1 AND bucket < n * 24) FROM day \
         WHERE n IS NOT NULL) \
     SELECT n FROM day WHERE n IS NOT NULL LIMIT 8";

/// Rows of days before this one are gone.
pub(super) fn rows_since(transaction: &Transaction<'_>) -> Result<i64> {
    transaction.prepare_cached("SELECT rows_since FROM rollup_folded")?.query_row([], |row| row.get(0))
}

pub(super) fn run(writer: &mut SqliteWriter, now_ms: i64, retention_days: i64) -> Result<()> {
    let since = writer.step(|connection| mark(connection, now_ms, retention_days))?;
    delete_in_steps(writer, "events", "rowid", "event_time < ?1", since * DAY_MS)?;
    delete_in_steps(writer, "user_hour", "hour, event_type, user_id", "hour < ?1", since * 24)?;
    user_sets::retire(writer, since * 24)
}

/// Writes down which rows are gone: days that are old enough, folded and counted, some at a time.
fn mark(connection: &mut Connection, now_ms: i64, retention_days: i64) -> Result<i64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let since = rows_since(&transaction)?;
    let hour = now_ms.div_euclid(HOUR_MS);
    let days = transaction.prepare(DAYS)?.query_map([hour], |row| row.get(0))?.collect::<Result<Vec<i64>>>()?;
    let Some(trusted) = newest_trusted_day(&days) else { return Ok(since) };
    let until = retire_until(hour.div_euclid(24), trusted, retention_days);
    let until = until.min(rankings::folded(&transaction)?.until_day);
    let first = "SELECT min(bucket) / 24 FROM rollup_hour WHERE dimension = 1 AND bucket >= ?1 * 24";
    let first: Option<i64> = transaction.query_row(first, [since], |row| row.get(0))?;
    let until = until.min(first.unwrap_or(since).max(since) + RETIRE_DAYS_MAX);
    let uncounted: Option<i64> =
        transaction.query_row(&uncounted_day_sql(since, until.max(since)), [], |row| row.get(0))?;
    let until = until.min(uncounted.unwrap_or(until));
    if until <= since {
        return Ok(since);
    }
    transaction.execute("UPDATE rollup_folded SET rows_since = ?1", [until])?;
    transaction.commit()?;
    Ok(until)
}
