//! Housekeeping: what is kept for a time only goes in small steps, each a transaction of its own, so that batches get their
//! turn.

use std::time::{Duration, Instant};

use rusqlite::{OptionalExtension, Result, ToSql, params};

use super::writer::SqliteWriter;
use crate::ledger_fold::minutes_gone_sql;
use crate::limits::{ID_MEMORY_MS, MAINTAIN_MS_MAX, MAINTAIN_ROWS_MAX, RECENT_SEARCHES_MS, ROLLUP_MINUTES_KEPT};

/// Dimensions of rollups of minutes: of lists, of mentions, and of what lists leave out.
const DIMENSIONS: std::ops::RangeInclusive<u8> = 1..=16;

/// Everything that is due at `now_ms`.
pub(super) fn run(writer: &mut SqliteWriter, now_ms: i64) -> Result<()> {
    let minute = now_ms.div_euclid(60_000);
    let oldest_minute = minute - ROLLUP_MINUTES_KEPT;
    writer.step(|connection| connection.execute_batch(&minutes_gone_sql(oldest_minute, minute)))?;
    for dimension in DIMENSIONS {
        let old = format!("dimension = {dimension} AND bucket <= ?1");
        delete_in_steps(writer, "rollup_minute", "dimension, bucket, key", &old, oldest_minute)?;
    }
    delete_in_steps(writer, "recent_forgotten", "user_id, keyword", "at < ?1", now_ms - RECENT_SEARCHES_MS)?;
    switch_ids(writer, now_ms)
}

/// Rows by their key, until all are gone or the time is over; true where all are.
pub(super) fn delete_in_steps(
    writer: &mut SqliteWriter,
    table: &str,
    key: &str,
    condition: &str,
    bound: i64,
) -> Result<bool> {
    let begun = Instant::now();
    let sql = format!("DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {condition} LIMIT ?2)");
    while begun.elapsed() < Duration::from_millis(MAINTAIN_MS_MAX) {
        let deleted = writer.step(|connection| connection.execute(&sql, [bound, MAINTAIN_ROWS_MAX]))?;
        if i64::try_from(deleted).unwrap_or(i64::MAX) < MAINTAIN_ROWS_MAX {
            return Ok(true);
        }
    }
    Ok(false)
}

/// After a day, the older table of client ids is emptied and becomes the current one. What is in it is a day old by then: it
/// may be half empty for a while.
fn switch_ids(writer: &mut SqliteWriter, now_ms: i64) -> Result<()> {
    let due = "SELECT name FROM event_id_current WHERE since_ms <= ?1";
    let due = writer.look(|connection| {
        connection.query_row(due, [now_ms - ID_MEMORY_MS], |row| row.get::<_, String>(0)).optional()
    })?;
    let Some(current) = due else { return Ok(()) };
    let older = if current == "a" { "b" } else { "a" };
    if delete_in_steps(writer, &format!("event_id_{older}"), "event_id", "?1 = 0", 0)? {
        let switch = "UPDATE event_id_current SET name = ?1, since_ms = ?2";
        writer.step(|connection| connection.execute(switch, params![older, now_ms]))?;
    }
    Ok(())
}

/// Forgets verdicts, and remembers that first.
pub(super) fn prune(writer: &mut SqliteWriter, stream: &str, up_to: i64) -> Result<()> {
    let values: [&dyn ToSql; 2] = [&stream, &up_to];
    let first = "UPDATE watermark SET pruned = max(pruned, ?2) WHERE stream = ?1";
    writer.step(|connection| connection.execute(first, &values[..]))?;
    let sql = "DELETE FROM verdict WHERE stream = ?1 AND position <= ?2";
    writer.step(|connection| connection.execute(sql, &values[..])).map(|_| ())
}
