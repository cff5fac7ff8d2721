//! Housekeeping of PostgreSQL alone: partitions by day, and the tables of client ids. Each step is bounded and safe to run on
//! several instances at once.

use jiff::Timestamp;
use postgres::error::SqlState;

use super::connect::{Failure, Session};
use crate::limits::{ID_MEMORY_MS, MAINTAIN_LOCK_MS_MAX, PARTITIONS_AHEAD_DAYS};
use crate::ports::StoreError;

/// Known partitions further away than this are looked up again: the memory of days is bounded.
pub(super) const DAYS_REMEMBERED: i64 = 400;
/// Held while partitions are made: DDL of several instances takes turns.
pub(super) const PARTITION_LOCK: i64 = 0x65_76_74_72_70_61_72_74;
const DAY_SECONDS: i64 = 86_400;

/// Attached ones count: a table that was detached takes no rows. Read from the catalogue's tables: `to_regclass` answers
/// from a cache that waiting for an advisory lock does not refresh, and would miss what another instance made meanwhile.
const MISSING_TABLES: &str = "SELECT name FROM unnest($1::text[]) AS name WHERE name NOT IN \
     (SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid \
      WHERE inhparent = 'events'::regclass AND NOT inhdetachpending)";

/// The server's clock.
pub(super) fn clock_ms(session: &mut Session) -> Result<i64, Failure> {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8";
    Ok(session.client.query_one(sql, &[])?.get(0))
}

/// Makes partitions ahead; returns the days that have partitions now.
pub(super) fn prepare(session: &mut Session, now_ms: i64) -> Result<Vec<i64>, Failure> {
    let today = now_ms.div_euclid(DAY_SECONDS * 1_000);
    let days: Vec<i64> = (today..=today + PARTITIONS_AHEAD_DAYS).collect();
    ensure_partitions(session, &days)?;
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
    let since: i64 = transaction.query_one("SELECT rows_since FROM rollup_state", &[])?.get(0);
    if let Some(day) = days.iter().find(|day| **day < since) {
        let why = format!("rows of {} are gone: it is too old to be stored", date(*day)?);
        return Err(StoreError::Poison(why).into());
    }
    let missing: Vec<String> = transaction.query(&statement, &[&names])?.iter().map(|row| row.get(0)).collect();
    for (day, name) in days.iter().zip(&names).filter(|(_, name)| missing.contains(name)) {
        let (from, to) = (date(*day)?, date(day + 1)?);
        // Attached with a CHECK that says the same, so that neither rows are scanned nor inserts blocked; one that was
        // detached and not dropped was given it by the server. Attached it is the partition's bounds once more, which every
        // statement would read and every row be held against.
        transaction.batch_execute(&format!(
            "CREATE TABLE IF NOT EXISTS {name} (LIKE events INCLUDING DEFAULTS, CONSTRAINT {name}_day \
               CHECK (event_time >= '{from} 00:00:00+00' AND event_time < '{to} 00:00:00+00')); \
             ALTER TABLE events ATTACH PARTITION {name} \
               FOR VALUES FROM ('{from} 00:00:00+00') TO ('{to} 00:00:00+00'); \
             ALTER TABLE {name} DROP CONSTRAINT IF EXISTS {name}_day"
        ))?;
    }
    Ok(transaction.commit()?)
}

pub(super) fn date(day: i64) -> Result<jiff::civil::Date, StoreError> {
    Timestamp::from_second(day * DAY_SECONDS)
        .map(|at| at.to_zoned_datetime(jiff::tz::TimeZone::UTC).date())
        .map_err(|error| StoreError::Poison(format!("no partition for day {day}: {error}")))
}

/// Every range that cuts an hour of today reads the rows that the BRIN index has not summarized. The server summarizes about once
/// a minute: at 20,000 events per second a ranking of an empty hour took 280 to 420 ms.
const SUMMARIZE: &str = "SELECT count(brin_summarize_new_values(indexrelid)) FROM pg_index JOIN pg_class ON oid = indexrelid \
     WHERE relname LIKE '%event\\_time\\_idx' \
       AND indrelid = to_regclass(to_char(now() AT TIME ZONE 'UTC', '\"events_\"YYYYMMDD'))";

/// Summarizes the new rows of today, unless something else works on the table.
pub(super) fn summarize(session: &mut Session) -> Result<(), Failure> {
    let mut transaction = session.client.transaction()?;
    transaction.batch_execute(&format!("SET LOCAL lock_timeout = {MAINTAIN_LOCK_MS_MAX}"))?;
    match transaction.batch_execute(SUMMARIZE) {
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(transaction.rollback()?),
        result => Ok(result.and_then(|()| transaction.commit())?),
    }
}

/// After a day, the older table of client ids is emptied and becomes the current one. Writers hold the row that
/// names it, so no batch sees half a switch.
pub(super) fn switch_ids(session: &mut Session, now_ms: i64) -> Result<(), Failure> {
    let due = "SELECT name FROM event_id_current WHERE since_ms <= $1";
    let since = now_ms - ID_MEMORY_MS;
    if session.client.query_opt(due, &[&since])?.is_none() {
        return Ok(());
    }
    let mut transaction = session.client.transaction()?;
    // A dump may hold the table for hours, and who waits for it holds up every batch: rather in a minute again.
    transaction.batch_execute(&format!("SET LOCAL lock_timeout = {MAINTAIN_LOCK_MS_MAX}"))?;
    let Some(row) = transaction.query_opt(&format!("{due} FOR UPDATE"), &[&since])? else {
        return Ok(());
    };
    let older = if row.get::<_, &str>(0) == "a" { "b" } else { "a" };
    transaction.batch_execute(&format!("TRUNCATE event_id_{older}"))?;
    transaction.execute("UPDATE event_id_current SET name = $1, since_ms = $2", &[&older, &now_ms])?;
    Ok(transaction.commit()?)
}
