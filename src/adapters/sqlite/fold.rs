//! Folding: hours into days and spans, and the points of series, counted once. Steps of one hour or one day, each a
//! transaction, so that batches get their turn.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use rusqlite::{Connection, OptionalExtension, Result, Transaction, TransactionBehavior, params};

use super::rankings;
use crate::ledger_fold::{HOUR_MS, RollupRow, forget_sql, kinds, local_days, minutes_sql, series_code};
use crate::limits::{FOLD_HOUR_GRACE_MS, FOLD_MS_MAX, SPAN_DAYS};
use crate::ports::{Interval, SeriesPoint, SeriesQuery};

const ADD_DAY: &str = "INSERT INTO rollup_day (dimension, bucket, key, count) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT DO UPDATE SET count = count + excluded.count";
const ADD_SPAN: &str = "INSERT INTO rollup_span (dimension, bucket, key, count) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT DO UPDATE SET count = count + excluded.count";
const DIMENSIONS: &str = "dimension IN (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)";

/// Everything that is due, as far as the time goes.
pub(super) fn run(connection: &mut Connection, now_ms: i64, zone: &TimeZone) -> Result<()> {
    let begun = Instant::now();
    let due_hour = (now_ms - FOLD_HOUR_GRACE_MS).div_euclid(HOUR_MS);
    let has_time = || begun.elapsed() < Duration::from_millis(FOLD_MS_MAX);
    while has_time() && fold(connection, due_hour)? {}
    while has_time() && count_hour(connection)? {}
    for (at, end) in missing_days(connection, zone)? {
        if !has_time() {
            break;
        }
        count_day(connection, at, end)?;
    }
    Ok(())
}

/// What a batch brings for hours that are folded goes to their day and span too, and their points are counted again.
pub(super) fn add_late(transaction: &Transaction<'_>, hours: &[RollupRow]) -> Result<()> {
    let folded = rankings::folded(transaction)?;
    let mut again = HashSet::new();
    for row in hours.iter().filter(|row| row.bucket < folded.until_hour) {
        let day = row.bucket.div_euclid(24);
        let (dimension, key) = (row.dimension as i64, &*row.key);
        transaction.prepare_cached(ADD_DAY)?.execute(params![dimension, day, key, row.count])?;
        if day < folded.until_day {
            let span = day.div_euclid(SPAN_DAYS);
            transaction.prepare_cached(ADD_SPAN)?.execute(params![dimension, span, key, row.count])?;
        }
        if again.insert(row.bucket) {
            count_again(transaction, row.bucket)?;
        }
    }
    Ok(())
}

fn count_again(transaction: &Transaction<'_>, hour: i64) -> Result<()> {
    let mark = "INSERT INTO series (minutes, event_type, at, count) VALUES (60, 0, ?1, 0) \
         ON CONFLICT DO UPDATE SET users = NULL";
    transaction.prepare_cached(mark)?.execute([hour * 60]).map(|_| ())
}

/// One hour into its day, or one day into its span; false where there is nothing to fold.
fn fold(connection: &mut Connection, due_hour: i64) -> Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let folded = rankings::folded(&transaction)?;
    let whole_days = folded.until_hour.div_euclid(24);
    if let Some(hour) = next_hour(&transaction, folded.until_day * 24, whole_days * 24)? {
        let day = hour.div_euclid(24);
        let span = day.div_euclid(SPAN_DAYS);
        transaction.execute_batch(&format!(
            "INSERT INTO rollup_span (dimension, bucket, key, count) \
               SELECT dimension, {span}, key, sum(count) FROM rollup_hour \
               WHERE {DIMENSIONS} AND bucket >= {day} * 24 AND bucket < {day} * 24 + 24 GROUP BY 1, 3 \
               ON CONFLICT DO UPDATE SET count = count + excluded.count; \
             UPDATE rollup_folded SET until_day = {day} + 1"
        ))?;
    } else if let Some(hour) = next_hour(&transaction, folded.until_hour, due_hour)? {
        let day = hour.div_euclid(24);
        transaction.execute_batch(&format!(
            "INSERT INTO rollup_day (dimension, bucket, key, count) \
               SELECT dimension, {day}, key, count FROM rollup_hour WHERE {DIMENSIONS} AND bucket = {hour} \
               ON CONFLICT DO UPDATE SET count = count + excluded.count; \
             UPDATE rollup_folded SET until_hour = {hour} + 1"
        ))?;
        count_again(&transaction, hour)?;
    } else {
        return Ok(false);
    }
    transaction.commit()?;
    Ok(true)
}

/// Of every dimension: the first hour with a row, from one on.
fn next_hour(transaction: &Transaction<'_>, from: i64, end: i64) -> Result<Option<i64>> {
    let mut first = transaction
        .prepare_cached("SELECT min(bucket) FROM rollup_hour WHERE dimension = ?1 AND bucket >= ?2 AND bucket < ?3")?;
    let mut hours = Vec::new();
    for dimension in 1..=12 {
        hours.extend(first.query_row([dimension, from, end], |row| row.get::<_, Option<i64>>(0))?);
    }
    Ok(hours.into_iter().min())
}

/// Counts the points of an hour that has to be counted (again), the newest first; false where there is none.
fn count_hour(connection: &mut Connection) -> Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let next = "SELECT at FROM series WHERE users IS NULL ORDER BY at DESC LIMIT 1";
    let Some(at) = transaction.query_row(next, [], |row| row.get::<_, i64>(0)).optional()? else { return Ok(false) };
    let (from_ms, to_ms) = (at * 60_000, at * 60_000 + HOUR_MS);
    transaction.execute_batch(&forget_sql(at.div_euclid(60)))?;
    let during = format!("event_time >= {from_ms} AND event_time < {to_ms}");
    transaction.execute_batch(&minutes_sql("event_time / 60000", &during))?;
    write_points(&transaction, from_ms, to_ms, Interval::Hour)?;
    transaction.commit()?;
    Ok(true)
}

/// Counts a range and writes its points: all together always, types that are there.
fn write_points(transaction: &Transaction<'_>, from_ms: i64, to_ms: i64, interval: Interval) -> Result<()> {
    let (minutes, at) = ((to_ms - from_ms).div_euclid(60_000), from_ms.div_euclid(60_000));
    let mut write = transaction.prepare_cached(
        "INSERT INTO series (minutes, event_type, at, count, users) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT DO UPDATE SET count = excluded.count, users = excluded.users",
    )?;
    for event_type in kinds() {
        let query = SeriesQuery { event_type, interval, edges_ms: vec![from_ms, to_ms] };
        let point = rankings::count_points(transaction, &query)?.first().copied().unwrap_or_default();
        if event_type.is_none() || point != SeriesPoint::default() {
            let (count, users) = (point.count.cast_signed(), point.users.cast_signed());
            write.execute(params![minutes, series_code(event_type), at, count, users])?;
        }
    }
    Ok(())
}

/// Local days that are folded and have no points.
fn missing_days(connection: &mut Connection, zone: &TimeZone) -> Result<Vec<(i64, i64)>> {
    let transaction = connection.transaction()?;
    let folded = rankings::folded(&transaction)?;
    let ends = "SELECT min(at), max(at) FROM series WHERE minutes = 60 AND event_type = 0";
    let (first, last): (Option<i64>, Option<i64>) =
        transaction.query_row(ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(first), Some(last)) = (first, last) else { return Ok(Vec::new()) };
    let mut known = transaction.prepare("SELECT at FROM series WHERE minutes > 60 AND event_type = 0")?;
    let known = known.query_map([], |row| row.get(0))?.collect::<Result<HashSet<i64>>>()?;
    let days = local_days(zone, first, (last + 60).min(folded.until_hour * 60), &known);
    Ok(days.into_iter().map(|day| (day.start, day.end)).collect())
}

fn count_day(connection: &mut Connection, at: i64, end: i64) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let stale = "SELECT count(*) FROM series WHERE users IS NULL AND at > ?1 - 60 AND at < ?2";
    if transaction.query_row(stale, [at, end], |row| row.get::<_, i64>(0))? > 0 {
        return Ok(());
    }
    write_points(&transaction, at * 60_000, end * 60_000, Interval::Day)?;
    transaction.commit()
}
