//! Folding: hours into days and spans, and the points of series, counted once. Steps of one hour or one day, each a
//! transaction; what a batch and a step must not do at once is told by rows that both lock.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use postgres::Transaction;

use super::connect::{Failure, Session};
use super::rankings;
use crate::ledger_fold::{Folded, HOUR_MS, forget_sql, kinds, local_days, minutes_sql, series_code};
use crate::limits::{FOLD_HOUR_GRACE_MS, FOLD_MS_MAX, SPAN_DAYS};
use crate::ports::{Interval, SeriesPoint, SeriesQuery};

/// Held while points are counted: one at a time.
const POINTS_LOCK: i64 = 0x65_76_74_72_70_6f_69_6e;
/// Raw rows whose users are told apart by one statement: of so much time.
const COUNTED_AT_ONCE_MS: usize = 5 * 60_000;
/// Of every dimension: the first hour with a row, from one on.
const NEXT_HOUR: &str = "SELECT min(hour) FROM (SELECT (SELECT min(bucket) FROM rollup_hour \
     WHERE dimension = number AND bucket >= $1 AND bucket < $2) AS hour FROM generate_series(1, 12) AS number) AS hours";
const DIMENSIONS: &str = "dimension = ANY ('{1,2,3,4,5,6,7,8,9,10,11,12}')";

/// Everything that is due, as far as the time goes.
pub(super) fn run(session: &mut Session, now_ms: i64, zone: &TimeZone) -> Result<(), Failure> {
    let begun = Instant::now();
    let due_hour = (now_ms - FOLD_HOUR_GRACE_MS).div_euclid(HOUR_MS);
    let has_time = || begun.elapsed() < Duration::from_millis(FOLD_MS_MAX);
    while has_time() && fold(session, due_hour)? {}
    while has_time() && count_hour(session)? {}
    count_days(session, zone, &has_time)
}

/// One hour into its day, or one day into its span; false where there is nothing to fold.
fn fold(session: &mut Session, due_hour: i64) -> Result<bool, Failure> {
    let mut transaction = session.client.transaction()?;
    // Waits for batches under way, and keeps others off until the day has the hour.
    let row = transaction.query_one("SELECT until_hour, until_day FROM rollup_folded FOR UPDATE", &[])?;
    let folded = Folded { until_hour: row.get(0), until_day: row.get(1), minutes_since: 0 };
    let next = |transaction: &mut Transaction<'_>, from: i64, end: i64| {
        transaction.query_one(NEXT_HOUR, &[&from, &end]).map(|row| row.get::<_, Option<i64>>(0))
    };
    let whole_days = folded.until_hour.div_euclid(24);
    // Hours first: a day that has more names than one statement can add up in its time must not keep them.
    if let Some(hour) = next(&mut transaction, folded.until_hour, due_hour)? {
        let day = hour.div_euclid(24);
        // Its points are counted by the next step.
        transaction.batch_execute(&format!(
            "INSERT INTO rollup_day (dimension, bucket, key, count) \
               SELECT dimension, {day}, key, count FROM rollup_hour WHERE {DIMENSIONS} AND bucket = {hour} ORDER BY 1, 3 \
               ON CONFLICT (dimension, key, bucket) DO UPDATE SET count = rollup_day.count + excluded.count; \
             INSERT INTO series (minutes, event_type, at, count) VALUES (60, 0, {hour} * 60, 0) \
               ON CONFLICT (minutes, event_type, at) DO UPDATE SET users = NULL; \
             UPDATE rollup_folded SET until_hour = {hour} + 1"
        ))?;
    } else if let Some(hour) = next(&mut transaction, folded.until_day * 24, whole_days * 24)? {
        let day = hour.div_euclid(24);
        let span = day.div_euclid(SPAN_DAYS);
        transaction.batch_execute(&format!(
            "INSERT INTO rollup_span (dimension, bucket, key, count) \
               SELECT dimension, {span}, key, sum(count) FROM rollup_hour \
               WHERE {DIMENSIONS} AND bucket >= {day} * 24 AND bucket < {day} * 24 + 24 GROUP BY 1, 3 ORDER BY 1, 3 \
               ON CONFLICT (dimension, key, bucket) DO UPDATE SET count = rollup_span.count + excluded.count; \
             UPDATE rollup_folded SET until_day = {day} + 1"
        ))?;
    } else {
        return Ok(false);
    }
    transaction.commit()?;
    Ok(true)
}

/// Counts the points of an hour that has to be counted (again), the newest first; false where there is none.
fn count_hour(session: &mut Session) -> Result<bool, Failure> {
    let mut transaction = points_transaction(session)?;
    // Batches that bring something late for this hour wait for the row, or are waited for.
    let row =
        transaction.query_opt("SELECT at FROM series WHERE users IS NULL ORDER BY at DESC LIMIT 1 FOR UPDATE", &[])?;
    let Some(row) = row else { return Ok(false) };
    let at: i64 = row.get(0);
    let hour = at.div_euclid(60);
    transaction.batch_execute(&forget_sql(hour))?;
    let minute = "floor(extract(epoch FROM event_time) / 60)::int8";
    let time = |ms: i64| Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    // Some minutes at a time: users are told apart by sorting them, and each statement has its own time.
    for begin in (hour * HOUR_MS..(hour + 1) * HOUR_MS).step_by(COUNTED_AT_ONCE_MS) {
        let during =
            format!("event_time >= '{}' AND event_time < '{}'", time(begin), time(begin + COUNTED_AT_ONCE_MS as i64));
        transaction.batch_execute(&minutes_sql(minute, &during))?;
    }
    write_points(&mut transaction, hour * HOUR_MS, (hour + 1) * HOUR_MS, Interval::Hour)?;
    transaction.commit()?;
    Ok(true)
}

fn points_transaction(session: &mut Session) -> Result<Transaction<'_>, Failure> {
    let mut transaction = session.client.transaction()?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&POINTS_LOCK])?;
    Ok(transaction)
}

/// Counts a range and writes its points: all together always, types that are there.
fn write_points(
    transaction: &mut Transaction<'_>,
    from_ms: i64,
    to_ms: i64,
    interval: Interval,
) -> Result<(), Failure> {
    let (minutes, at) = ((to_ms - from_ms).div_euclid(60_000), from_ms.div_euclid(60_000));
    for event_type in kinds() {
        let query = SeriesQuery { event_type, interval, edges_ms: vec![from_ms, to_ms] };
        let point = rankings::count_points(transaction, &query)?.first().copied().unwrap_or_default();
        if event_type.is_some() && point == SeriesPoint::default() {
            continue;
        }
        let (code, count, users) = (series_code(event_type), point.count, point.users);
        transaction.batch_execute(&format!(
            "INSERT INTO series (minutes, event_type, at, count, users) VALUES ({minutes}, {code}, {at}, {count}, {users}) \
             ON CONFLICT (minutes, event_type, at) DO UPDATE SET count = excluded.count, users = excluded.users"
        ))?;
    }
    Ok(())
}

/// Counts the points of local days that are folded and have none, the newest first.
fn count_days(session: &mut Session, zone: &TimeZone, has_time: &dyn Fn() -> bool) -> Result<(), Failure> {
    let folded = rankings::folded(&mut session.client.transaction()?)?;
    let row =
        session.client.query_one("SELECT min(at), max(at) FROM series WHERE minutes = 60 AND event_type = 0", &[])?;
    let (Some(first), Some(last)) = (row.get(0), row.get::<_, Option<i64>>(1)) else { return Ok(()) };
    let rows = session.client.query("SELECT at FROM series WHERE minutes > 60 AND event_type = 0", &[])?;
    let known = rows.iter().map(|row| row.get(0)).collect();
    for day in local_days(zone, first, (last + 60).min(folded.until_hour * 60), &known) {
        if !has_time() {
            break;
        }
        let mut transaction = points_transaction(session)?;
        let (at, end) = (day.start, day.end);
        // Held, so that nothing late for one of its hours comes between counting and writing.
        let hours = format!(
            "SELECT users IS NULL FROM series WHERE minutes = 60 AND event_type = 0 AND at > {at} - 60 AND at < {end} \
             ORDER BY at FOR SHARE"
        );
        if transaction.query(hours.as_str(), &[])?.iter().any(|row| row.get(0)) {
            continue;
        }
        write_points(&mut transaction, at * 60_000, end * 60_000, Interval::Day)?;
        transaction.commit()?;
    }
    Ok(())
}
