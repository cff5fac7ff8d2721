//! Housekeeping: partitions by day, and what is kept for a time only. Each step is bounded and safe to run on several
//! instances at once.

use jiff::Timestamp;

use super::connect::{Failure, Session};
use crate::limits::{ID_MEMORY_MS, MAINTAIN_ROWS_MAX, PARTITIONS_AHEAD_DAYS, RECENT_SEARCHES_MS, ROLLUP_MINUTES_KEPT};
use crate::ports::StoreError;

/// Known partitions further away than this are looked up again: the memory of days is bounded.
pub(super) const DAYS_REMEMBERED: i64 = 400;
/// Held while partitions are made: DDL of several instances takes turns.
const PARTITION_LOCK: i64 = 0x65_76_74_72_70_61_72_74;
const DAY_SECONDS: i64 = 86_400;

/// Read from the catalogue's table: `to_regclass` answers from a cache that waiting for an advisory lock does not
/// refresh, and would miss what another instance made meanwhile.
const MISSING_TABLES: &str = "SELECT name FROM unnest($1::text[]) AS name WHERE name NOT IN \
     (SELECT relname FROM pg_class WHERE relname = ANY ($1::text[]) \
      AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'events'::regclass))";

/// Everything that is due at `now_ms`; returns the days that have partitions now.
pub(super) fn run(session: &mut Session, now_ms: i64) -> Result<Vec<i64>, Failure> {
    let today = now_ms.div_euclid(DAY_SECONDS * 1_000);
    let days: Vec<i64> = (today..=today + PARTITIONS_AHEAD_DAYS).collect();
    ensure_partitions(session, &days)?;
    let oldest_minute = now_ms.div_euclid(60_000) - ROLLUP_MINUTES_KEPT;
    session.client.execute(
        "DELETE FROM rollup_minute WHERE ctid = ANY (ARRAY(SELECT ctid FROM rollup_minute \
         WHERE dimension BETWEEN 1 AND 8 AND bucket <= $1 LIMIT $2))",
        &[&oldest_minute, &MAINTAIN_ROWS_MAX],
    )?;
    session.client.execute(
        "DELETE FROM recent_forgotten WHERE ctid = ANY (ARRAY(SELECT ctid FROM recent_forgotten \
         WHERE at < $1 LIMIT $2))",
        &[&(now_ms - RECENT_SEARCHES_MS), &MAINTAIN_ROWS_MAX],
    )?;
    switch_ids(session, now_ms)?;
    Ok(days)
}

/// Makes and attaches the partitions of `days` (since the epoch) that are missing.
pub(super) fn ensure_partitions(session: &mut Session, days: &[i64]) -> Result<(), Failure> {
    let names: Vec<String> = days
        .iter()
        .map(|day| Ok(format!("events_{}", date(*day)?.strftime("%Y%m%d"))))
        .collect::<Result<_, StoreError>>()?;
    let statement = session.prepared(MISSING_TABLES)?;
    if session.client.query(&statement, &[&names])?.is_empty() {
        return Ok(());
    }
    let mut transaction = session.client.transaction()?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&PARTITION_LOCK])?;
    let missing: Vec<String> = transaction.query(&statement, &[&names])?.iter().map(|row| row.get(0)).collect();
    for (day, name) in days.iter().zip(&names).filter(|(_, name)| missing.contains(name)) {
        let (from, to) = (date(*day)?, date(day + 1)?);
        // Attached with a CHECK that says the same, so that neither rows are scanned nor inserts blocked.
        transaction.batch_execute(&format!(
            "CREATE TABLE {name} (LIKE events INCLUDING DEFAULTS, CONSTRAINT {name}_day \
               CHECK (event_time >= '{from} 00:00:00+00' AND event_time < '{to} 00:00:00+00')); \
             ALTER TABLE events ATTACH PARTITION {name} \
               FOR VALUES FROM ('{from} 00:00:00+00') TO ('{to} 00:00:00+00')"
        ))?;
    }
    Ok(transaction.commit()?)
}

fn date(day: i64) -> Result<jiff::civil::Date, StoreError> {
    Timestamp::from_second(day * DAY_SECONDS)
        .map(|at| at.to_zoned(jiff::tz::TimeZone::UTC).date())
        .map_err(|error| StoreError::Poison(format!("no partition for day {day}: {error}")))
}

/// After a day, the older table of client ids is emptied and becomes the current one. Writers hold the row that
/// names it, so no batch sees half a switch.
fn switch_ids(session: &mut Session, now_ms: i64) -> Result<(), Failure> {
    let due = "SELECT name FROM event_id_current WHERE since_ms <= $1";
    let since = now_ms - ID_MEMORY_MS;
    if session.client.query_opt(due, &[&since])?.is_none() {
        return Ok(());
    }
    let mut transaction = session.client.transaction()?;
    let Some(row) = transaction.query_opt(&format!("{due} FOR UPDATE"), &[&since])? else {
        return Ok(());
    };
    let older = if row.get::<_, &str>(0) == "a" { "b" } else { "a" };
    transaction.batch_execute(&format!("TRUNCATE event_id_{older}"))?;
    transaction.execute("UPDATE event_id_current SET name = $1, since_ms = $2", &[&older, &now_ms])?;
    Ok(transaction.commit()?)
}
