//! Folding: hours into days and spans, and the points of series, counted once.
//!
//! Whatever writes is a step of a bounded number of rows, so that a batch waits for no longer than that. Counting reads a
//! snapshot, beside batches; what it has read is written if no batch has said meanwhile that the hour has changed.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, TransactionBehavior, params};

use super::writer::SqliteWriter;
use super::{open_day, rankings};
use crate::ledger_fold::{
    CountedPoint, HOUR_MS, Mark, RollupRow, forget_sql, kinds, local_days, look_at_open, make_sets, minutes_sql,
    points_of,
};
use crate::limits::{
    COUNT_LOCKED_MS_MAX, FOLD_HOUR_GRACE_MS, FOLD_MS_MAX, FOLD_NAMES_MAX, FOLD_NAMES_MIN, RECOUNT_HOURS_MAX, SPAN_DAYS,
};
use crate::ports::{Interval, SeriesQuery};

const ADD_DAY: &str = "INSERT INTO rollup_day (dimension, bucket, key, count) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT DO UPDATE SET count = count + excluded.count";
const ADD_SPAN: &str = "INSERT INTO rollup_span (dimension, bucket, key, count) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT DO UPDATE SET count = count + excluded.count";
/// Dimensions that are folded: 1 to this one.
const DIMENSIONS: i64 = 12;

/// What is due, as far as the time goes; true where something is left. What fails does not keep the rest waiting.
pub(super) fn run(writer: &mut SqliteWriter, now_ms: i64, zone: &TimeZone) -> Result<bool> {
    let begun = Instant::now();
    let has_time = || begun.elapsed() < Duration::from_millis(FOLD_MS_MAX);
    let due_hour = (now_ms - FOLD_HOUR_GRACE_MS).div_euclid(HOUR_MS);
    let folded = fold_all(writer, due_hour, &has_time);
    let opened = open_day::keep(writer, zone);
    let may_count = writer.folding.may_recount(Instant::now());
    let counted = if may_count { count(writer, zone, &has_time) } else { Ok(false) };
    // After the sets of its hours: they say whose rows are not needed any more.
    let open = look_at_open(writer, now_ms, &has_time);
    opened?;
    Ok(folded? | counted? | open?)
}

/// Points of hours and days, and sets of users.
fn count(writer: &mut SqliteWriter, zone: &TimeZone, has_time: &dyn Fn() -> bool) -> Result<bool> {
    let hours = timed(writer, has_time, count_hours);
    let days = timed(writer, has_time, |writer, has_time| count_days(writer, zone, has_time));
    let sets = timed(writer, has_time, make_sets);
    Ok(hours? | days? | sets?)
}

/// Counts something, and notes the time that it took.
fn timed<R>(
    writer: &mut SqliteWriter,
    has_time: &dyn Fn() -> bool,
    count: impl FnOnce(&mut SqliteWriter, &dyn Fn() -> bool) -> R,
) -> R {
    let begun = Instant::now();
    let counted = count(writer, has_time);
    writer.folding.recounted(begun.elapsed());
    counted
}

fn fold_all(writer: &mut SqliteWriter, due_hour: i64, has_time: &dyn Fn() -> bool) -> Result<bool> {
    while has_time() {
        if !writer.step(|connection| fold(connection, due_hour))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How far something is folded: what is before it; of it dimensions before the next one, and of that names up to the key.
struct Frontier {
    at: i64,
    dimension: i64,
    key: Option<String>,
}

impl Frontier {
    fn begin(at: i64) -> Frontier {
        Frontier { at, dimension: 0, key: None }
    }

    /// Goes on from here, if it is there.
    fn of(self, at: i64) -> Frontier {
        if at == self.at { self } else { Frontier::begin(at) }
    }

    fn is_behind(&self, at: i64, dimension: i64, key: &str) -> bool {
        let key = || self.key.as_deref().is_some_and(|last| key <= last);
        at < self.at || at == self.at && (dimension < self.dimension || dimension == self.dimension && key())
    }
}

/// Of hours in days, and of days in spans.
fn frontiers(transaction: &Transaction<'_>) -> Result<(Frontier, Frontier)> {
    let sql = "SELECT until_hour, hour_dimension, hour_key, until_day, day_dimension, day_key FROM rollup_folded";
    let of = |row: &Row<'_>, first: usize| -> Result<Frontier> {
        Ok(Frontier { at: row.get(first)?, dimension: row.get(first + 1)?, key: row.get(first + 2)? })
    };
    transaction.prepare_cached(sql)?.query_row([], |row| Ok((of(row, 0)?, of(row, 3)?)))
}

/// What a batch brings for hours that are folded goes to their day and span too, and their points are counted again.
pub(super) fn add_late(transaction: &Transaction<'_>, hours: &[RollupRow]) -> Result<()> {
    let (in_days, in_spans) = frontiers(transaction)?;
    let mut again = HashSet::new();
    for row in hours.iter().filter(|row| in_days.is_behind(row.bucket, row.dimension as i64, &row.key)) {
        let day = row.bucket.div_euclid(24);
        let (dimension, key) = (row.dimension as i64, &*row.key);
        transaction.prepare_cached(ADD_DAY)?.execute(params![dimension, day, key, row.count])?;
        if in_spans.is_behind(day, dimension, key) {
            let span = day.div_euclid(SPAN_DAYS);
            transaction.prepare_cached(ADD_SPAN)?.execute(params![dimension, span, key, row.count])?;
        }
        if row.bucket < in_days.at && again.insert(row.bucket) {
            count_again(transaction, row.bucket)?;
        }
    }
    Ok(())
}

fn count_again(transaction: &Transaction<'_>, hour: i64) -> Result<()> {
    let mark = "INSERT INTO series (minutes, event_type, at, count) VALUES (60, 0, ?1, 0) \
         ON CONFLICT DO UPDATE SET users = NULL, count = count + 1";
    transaction.prepare_cached(mark)?.execute([hour * 60]).map(|_| ())
}

/// Some names of one hour into its day, or of one day into its span; false where there is nothing to fold.
fn fold(connection: &mut Connection, due_hour: i64) -> Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (in_days, in_spans) = frontiers(&transaction)?;
    let (until_hour, until_day) = (in_days.at, in_spans.at);
    // Hours first: a day that has very many names must not keep them.
    if let Some(hour) = next_hour(&transaction, until_hour, due_hour)? {
        let part = fold_names(&transaction, "rollup_day", hour.div_euclid(24), hour..hour + 1, in_days.of(hour))?;
        if part.at > hour {
            count_again(&transaction, hour)?;
        }
        let update = "UPDATE rollup_folded SET until_hour = ?1, hour_dimension = ?2, hour_key = ?3";
        transaction.execute(update, params![part.at, part.dimension, part.key])?;
    } else if let Some(hour) = next_hour(&transaction, until_day * 24, until_hour.div_euclid(24) * 24)? {
        let day = hour.div_euclid(24);
        let (span, hours) = (day.div_euclid(SPAN_DAYS), day * 24..day * 24 + 24);
        let part = fold_names(&transaction, "rollup_span", span, hours, in_spans.of(day))?;
        let update = "UPDATE rollup_folded SET until_day = ?1, day_dimension = ?2, day_key = ?3";
        transaction.execute(update, params![part.at, part.dimension, part.key])?;
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
    for dimension in 1..=DIMENSIONS {
        hours.extend(first.query_row([dimension, from, end], |row| row.get::<_, Option<i64>>(0))?);
    }
    Ok(hours.into_iter().min())
}

/// Adds the next names of some hours to a bucket of `table`; how far it is folded then.
fn fold_names(
    transaction: &Transaction<'_>,
    table: &str,
    bucket: i64,
    hours: std::ops::Range<i64>,
    from: Frontier,
) -> Result<Frontier> {
    let mut left = FOLD_NAMES_MAX;
    let Frontier { at, mut dimension, mut key } = from;
    dimension = dimension.max(1);
    let buckets = hours.clone().map(|hour| hour.to_string()).collect::<Vec<_>>().join(", ");
    while dimension <= DIMENSIONS {
        let after = if key.is_some() { ">" } else { ">=" };
        let beyond = key.take().unwrap_or_default();
        // In no hour more than its share of what is left.
        let names = (left / (hours.end - hours.start)).max(FOLD_NAMES_MIN);
        let nth = format!(
            "SELECT key FROM rollup_hour WHERE dimension = ?1 AND bucket = ?2 AND key {after} ?3 ORDER BY key LIMIT 1 OFFSET ?4"
        );
        let mut nth = transaction.prepare_cached(&nth)?;
        let mut last: Option<String> = None;
        for hour in hours.clone() {
            let found: Option<String> =
                nth.query_row(params![dimension, hour, beyond, names], |row| row.get(0)).optional()?;
            last = last.into_iter().chain(found).min();
        }
        let up_to = if last.is_some() { "AND key <= ?3" } else { "AND ?3 IS NULL" };
        let sql = format!(
            "INSERT INTO {table} (dimension, bucket, key, count) SELECT ?1, {bucket}, key, sum(count) FROM rollup_hour \
             WHERE dimension = ?1 AND bucket IN ({buckets}) AND key {after} ?2 {up_to} GROUP BY key \
             ON CONFLICT DO UPDATE SET count = count + excluded.count"
        );
        let added = transaction.execute(&sql, params![dimension, beyond, last])?;
        left -= i64::try_from(added).unwrap_or(i64::MAX);
        if last.is_some() {
            return Ok(Frontier { at, dimension, key: last });
        }
        dimension += 1;
        if left <= 0 && dimension <= DIMENSIONS {
            return Ok(Frontier { at, dimension, key: None });
        }
    }
    Ok(Frontier::begin(at + 1))
}

/// Counts the hours that have to be counted (again), the newest first.
fn count_hours(writer: &mut SqliteWriter, has_time: &dyn Fn() -> bool) -> Result<bool> {
    let mut failed = None;
    let marks = writer.look(|connection| dirty_hours(connection))?;
    for at in writer.folding.due_hours(&marks, Instant::now()) {
        if !has_time() {
            return failed.map_or(Ok(true), Err);
        }
        let counted = count_hour(writer, at);
        writer.folding.settle_hour(at, counted, &mut failed);
    }
    failed.map_or(Ok(false), Err)
}

/// The newest first. An hour whose rows were deleted cannot be counted.
fn dirty_hours(connection: &Connection) -> Result<Vec<Mark>> {
    let sql = format!(
        "SELECT at, count FROM series WHERE users IS NULL \
           AND at >= (SELECT rows_since * 1440 FROM rollup_folded) ORDER BY at DESC LIMIT {RECOUNT_HOURS_MAX}"
    );
    connection.prepare_cached(&sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// What the mark of an hour says that has to be counted.
fn mark_of(transaction: &Transaction<'_>, at: i64) -> Result<Option<i64>> {
    let mark = "SELECT count FROM series WHERE minutes = 60 AND event_type = 0 AND at = ?1 AND users IS NULL";
    transaction.prepare_cached(mark)?.query_row([at], |row| row.get(0)).optional()
}

/// Counts the points of an hour; false where something came in meanwhile.
fn count_hour(writer: &mut SqliteWriter, at: i64) -> Result<bool> {
    let begun = Instant::now();
    let read = writer.look(|connection| {
        let snapshot = connection.transaction()?;
        let Some(mark) = mark_of(&snapshot, at)? else { return Ok(None) };
        Ok(Some((mark, points_of_hour(&snapshot, at)?, open_day::of_hour(&snapshot, at)?)))
    })?;
    let Some((mark, mut points, days)) = read else { return Ok(true) };
    if !open_day::add_users(writer, &days, at)? {
        return Ok(false);
    }
    writer.step(|connection| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if open_day::of_hour(&transaction, at)? != days {
            return Ok(false);
        }
        let Some(now) = mark_of(&transaction, at)? else { return Ok(true) };
        // It is another where a batch brought something since it was read.
        if now != mark {
            if begun.elapsed() > Duration::from_millis(COUNT_LOCKED_MS_MAX) {
                return Ok(false);
            }
            points = points_of_hour(&transaction, at)?;
            open_day::add_users_at_once(&transaction, &days, at)?;
        }
        transaction.execute_batch(&forget_sql(&[at.div_euclid(60)]))?;
        write_points(&transaction, &points)?;
        transaction.commit()?;
        Ok(true)
    })
}

/// Those of its minutes, and its own.
fn points_of_hour(snapshot: &Transaction<'_>, at: i64) -> Result<Vec<CountedPoint>> {
    let (from_ms, to_ms) = (at * 60_000, at * 60_000 + HOUR_MS);
    let during = format!("event_time >= {from_ms} AND event_time < {to_ms}");
    let of_row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
    let mut points = snapshot
        .prepare(&minutes_sql("event_time / 60000", &during))?
        .query_map([], of_row)?
        .collect::<Result<Vec<CountedPoint>>>()?;
    points.extend(count_kinds(snapshot, from_ms, to_ms, Interval::Hour)?);
    Ok(points)
}

fn count_kinds(snapshot: &Transaction<'_>, from_ms: i64, to_ms: i64, interval: Interval) -> Result<Vec<CountedPoint>> {
    let mut counted = Vec::new();
    for event_type in kinds() {
        let query = SeriesQuery { event_type, interval, edges_ms: vec![from_ms, to_ms] };
        counted.extend(rankings::count_points(snapshot, &query)?);
    }
    Ok(points_of(from_ms, to_ms, &counted))
}

fn write_points(transaction: &Transaction<'_>, points: &[CountedPoint]) -> Result<()> {
    let mut write = transaction.prepare_cached(
        "INSERT INTO series (minutes, event_type, at, count, users) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT DO UPDATE SET count = excluded.count, users = excluded.users",
    )?;
    for (minutes, kind, at, count, users) in points {
        write.execute([minutes, kind, at, count, users])?;
    }
    Ok(())
}

/// Counts the points of local days that are folded and have none, the newest first.
fn count_days(writer: &mut SqliteWriter, zone: &TimeZone, has_time: &dyn Fn() -> bool) -> Result<bool> {
    let waiting = writer.folding.days.waiting(Instant::now());
    let mut failed = None;
    for (at, end) in writer.look(|connection| missing_days(connection, zone))? {
        if !has_time() {
            return failed.map_or(Ok(true), Err);
        }
        if !waiting.contains(&at) {
            let counted = count_day(writer, at, end);
            writer.folding.days.settle(at, counted, &mut failed);
        }
    }
    failed.map_or(Ok(false), Err)
}

/// Local days that are folded, have rows and no points.
fn missing_days(connection: &mut Connection, zone: &TimeZone) -> Result<Vec<(i64, i64)>> {
    let transaction = connection.transaction()?;
    let folded = rankings::folded(&transaction)?;
    let since = super::retire::rows_since(&transaction)? * 1_440;
    let ends = "SELECT min(at), max(at) FROM series WHERE minutes = 60 AND event_type = 0";
    let (first, last): (Option<i64>, Option<i64>) =
        transaction.query_row(ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(first), Some(last)) = (first, last) else { return Ok(Vec::new()) };
    let mut known = transaction.prepare("SELECT at FROM series WHERE minutes > 60 AND event_type = 0")?;
    let known = known.query_map([], |row| row.get(0))?.collect::<Result<HashSet<i64>>>()?;
    let days = local_days(zone, first, (last + 60).min(folded.until_hour * 60), &known);
    Ok(days.into_iter().filter(|day| day.start >= since).map(|day| (day.start, day.end)).collect())
}

/// What is known of the hours of a day; `None` where one has to be counted first.
fn hours_of(transaction: &Transaction<'_>, at: i64, end: i64) -> Result<Option<Vec<(i64, i64)>>> {
    let sql = "SELECT at, count, users IS NULL FROM series \
         WHERE minutes = 60 AND event_type = 0 AND at > ?1 - 60 AND at < ?2 ORDER BY at";
    let mut statement = transaction.prepare_cached(sql)?;
    let of_row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let hours = statement.query_map([at, end], of_row)?.collect::<Result<Vec<(i64, i64, bool)>>>()?;
    let is_whole = hours.iter().all(|(.., is_stale)| !is_stale);
    Ok(is_whole.then(|| hours.into_iter().map(|(at, count, _)| (at, count)).collect()))
}

/// Counts the points of a day; false where something came in meanwhile.
fn count_day(writer: &mut SqliteWriter, at: i64, end: i64) -> Result<bool> {
    let read = writer.look(|connection| {
        let snapshot = connection.transaction()?;
        let Some(hours) = hours_of(&snapshot, at, end)? else { return Ok(None) };
        Ok(Some((hours, count_kinds(&snapshot, at * 60_000, end * 60_000, Interval::Day)?)))
    })?;
    let Some((before, points)) = read else { return Ok(true) };
    writer.step(|connection| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Whatever came and was counted again has changed the hour's count.
        if hours_of(&transaction, at, end)? != Some(before) {
            return Ok(false);
        }
        write_points(&transaction, &points)?;
        transaction.commit()?;
        Ok(true)
    })
}
