//! Folding: hours into days and spans, and the points of series, counted once.
//!
//! Folding goes in steps of a bounded number of names, each a transaction: it locks the row that batches share, so that each
//! of them knows which names are in their day, and waits for one step at most. Counting locks nothing while it reads: what
//! it has read is written if no batch has said meanwhile that the hour has changed.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use postgres::{IsolationLevel, Row, Transaction};

use super::connect::{Failure, Session};
use super::writer::PostgresWriter;
use super::{deltas, few, open_day, rankings, term_index};
use crate::ledger_fold::{
    CountedPoint, HOUR_MS, Mark, forget_sql, kinds, local_days, look_at_open, make_sets, minutes_sql, points_of,
};
use crate::limits::{
    COUNT_LOCKED_MS_MAX, FOLD_HOUR_GRACE_MS, FOLD_MS_MAX, FOLD_NAMES_MAX, FOLD_NAMES_MIN, FOLD_PAUSE_MS_MAX,
    RECOUNT_HOURS_MAX, SPAN_DAYS,
};
use crate::ports::{Interval, SeriesQuery};

/// Held, with the hour, while points are counted: instances do not count the same.
pub(super) const POINTS_LOCK: i32 = 0x65_76_74_70;
/// Raw rows whose users are told apart by one statement: of so much time.
const COUNTED_AT_ONCE_MS: usize = 5 * 60_000;
const DAY_MINUTES: i64 = 1_440;
/// Dimensions that are folded: 1 to this one.
const DIMENSIONS: i16 = 12;
/// Of every dimension: the first hour with a row, from one on.
const NEXT_HOUR: &str = "SELECT min(hour) FROM (SELECT (SELECT min(bucket) FROM rollup_hour \
     WHERE dimension = number AND bucket >= $1 AND bucket < $2) AS hour FROM generate_series(1, 12) AS number) AS hours";

/// What is due, as far as the time goes; true where something is left. What fails does not keep the rest waiting.
pub(super) fn run(writer: &mut PostgresWriter, now_ms: i64, zone: &TimeZone) -> Result<bool, Failure> {
    let begun = Instant::now();
    let has_time = || begun.elapsed() < Duration::from_millis(FOLD_MS_MAX);
    let due_hour = (now_ms - FOLD_HOUR_GRACE_MS).div_euclid(HOUR_MS);
    let folded = fold_all(writer, due_hour, &has_time);
    let opened = open_day::keep(writer, zone);
    let may_count = writer.folding.may_recount(Instant::now());
    let counted = if may_count { count(writer, zone, &has_time) } else { Ok(false) };
    // After the sets of its hours: they say whose rows are not needed any more.
    let open = look_at_open(writer, now_ms, &has_time);
    let day = due_hour.div_euclid(24);
    let indexed =
        if may_count { timed(writer, &has_time, |writer, _| term_index::build(writer, day)) } else { Ok(false) };
    opened?;
    Ok(folded? | counted? | open? | indexed?)
}

/// Points of hours and days, and sets of users.
fn count(writer: &mut PostgresWriter, zone: &TimeZone, has_time: &dyn Fn() -> bool) -> Result<bool, Failure> {
    let hours = timed(writer, has_time, count_hours);
    let days = timed(writer, has_time, |writer, has_time| count_days(writer, zone, has_time));
    let sets = timed(writer, has_time, make_sets);
    Ok(hours? | days? | sets?)
}

/// Counts something, and notes the time that it took.
fn timed<R>(
    writer: &mut PostgresWriter,
    has_time: &dyn Fn() -> bool,
    count: impl FnOnce(&mut PostgresWriter, &dyn Fn() -> bool) -> R,
) -> R {
    let begun = Instant::now();
    let counted = count(writer, has_time);
    writer.folding.recounted(begun.elapsed());
    counted
}

fn fold_all(writer: &mut PostgresWriter, due_hour: i64, has_time: &dyn Fn() -> bool) -> Result<bool, Failure> {
    while has_time() {
        let begun = Instant::now();
        if !writer.step(move |session| fold(session, due_hour))? {
            return Ok(false);
        }
        // Batches that wait for the row get it now.
        std::thread::sleep(begun.elapsed().min(Duration::from_millis(FOLD_PAUSE_MS_MAX)));
    }
    Ok(true)
}

/// How far an hour or a day is folded: see `rollup_folded`.
struct Begun {
    dimension: i16,
    key: Option<String>,
}

impl Begun {
    const NOT: Begun = Begun { dimension: 0, key: None };
}

/// Some names of one hour into its day, or of one day into its span; false where there is nothing to fold.
fn fold(session: &mut Session, due_hour: i64) -> Result<bool, Failure> {
    let mut transaction = session.client.transaction()?;
    // Waits for batches under way, and keeps others off until the day has what is folded: none has anything left to add then.
    let row = transaction.query_one(
        "SELECT until_hour, until_day, hour_dimension, hour_key, day_dimension, day_key FROM rollup_folded FOR UPDATE",
        &[],
    )?;
    transaction.batch_execute(deltas::ADD)?;
    let (until_hour, until_day): (i64, i64) = (row.get(0), row.get(1));
    let begun = |at: i64| Begun { dimension: row.get(at as usize), key: row.get(at as usize + 1) };
    let next = |transaction: &mut Transaction<'_>, from: i64, end: i64| {
        transaction.query_one(NEXT_HOUR, &[&from, &end]).map(|row| row.get::<_, Option<i64>>(0))
    };
    let mut is_left = true;
    // Hours first: a day that has very many names must not keep them.
    if let Some(hour) = next(&mut transaction, until_hour, due_hour)? {
        let from = if hour == until_hour { begun(2) } else { Begun::NOT };
        let few = match from.dimension {
            0 => few::fold(&mut transaction, "rollup_day", (1, 24), (hour, due_hour))?,
            _ => None,
        };
        let part = match few {
            Some(_) => None,
            None => fold_names(&mut transaction, "rollup_day", hour.div_euclid(24), (hour, hour + 1), from)?,
        };
        let until = few.unwrap_or(hour + i64::from(part.is_none()));
        // Points are counted by the next step.
        if few.is_some() {
            few::mark(&mut transaction, hour, until)?;
        } else if part.is_none() {
            transaction.batch_execute(&format!(
                "INSERT INTO series (minutes, event_type, at, count) VALUES (60, 0, {hour} * 60, 0) \
                 ON CONFLICT (minutes, event_type, at) DO UPDATE SET users = NULL, count = series.count + 1"
            ))?;
        }
        let Begun { dimension, key } = part.unwrap_or(Begun::NOT);
        let update = "UPDATE rollup_folded SET until_hour = $1, hour_dimension = $2, hour_key = $3";
        transaction.execute(update, &[&until, &dimension, &key])?;
    } else if let Some(hour) = next(&mut transaction, until_day * 24, until_hour.div_euclid(24) * 24)? {
        let day = hour.div_euclid(24);
        let from = if day == until_day { begun(4) } else { Begun::NOT };
        let (span, end) = (day.div_euclid(SPAN_DAYS), until_hour.div_euclid(24) * 24);
        let few = match from.dimension {
            0 => few::fold(&mut transaction, "rollup_span", (24, 24 * SPAN_DAYS), (day * 24, end))?,
            _ => None,
        };
        let part = match few {
            Some(_) => None,
            None => fold_names(&mut transaction, "rollup_span", span, (day * 24, day * 24 + 24), from)?,
        };
        let until = few.map_or(day + i64::from(part.is_none()), |end| end.div_euclid(24));
        let Begun { dimension, key } = part.unwrap_or(Begun::NOT);
        let update = "UPDATE rollup_folded SET until_day = $1, day_dimension = $2, day_key = $3";
        transaction.execute(update, &[&until, &dimension, &key])?;
    } else {
        is_left = false;
    }
    transaction.commit()?;
    Ok(is_left)
}

/// Adds the next names of some hours to a bucket of `table`; how far that is, `None` where it was the last of them.
fn fold_names(
    transaction: &mut Transaction<'_>,
    table: &str,
    bucket: i64,
    (first, end): (i64, i64),
    from: Begun,
) -> Result<Option<Begun>, Failure> {
    let mut left = FOLD_NAMES_MAX;
    let Begun { mut dimension, mut key } = from;
    dimension = dimension.max(1);
    while dimension <= DIMENSIONS {
        let after = if key.is_some() { ">" } else { ">=" };
        let beyond = key.take().unwrap_or_default();
        // In no hour more than its share of what is left.
        let names = (left / (end - first)).max(FOLD_NAMES_MIN);
        let sql = format!(
            "SELECT min(key) FROM generate_series({first}::int8, {end} - 1) AS b CROSS JOIN LATERAL \
               (SELECT key FROM rollup_hour WHERE dimension = $1 AND bucket = b AND key {after} $2 \
                ORDER BY key OFFSET $3 LIMIT 1) AS nth"
        );
        let last: Option<String> = transaction.query_one(&sql, &[&dimension, &beyond, &names])?.get(0);
        let up_to = if last.is_some() { "AND key <= $3" } else { "AND $3::text IS NULL" };
        let sql = format!(
            "INSERT INTO {table} (dimension, bucket, key, count) \
               SELECT $1, {bucket}, key, sum(count) FROM generate_series({first}::int8, {end} - 1) AS b CROSS JOIN LATERAL \
                 (SELECT key, count FROM rollup_hour WHERE dimension = $1 AND bucket = b AND key {after} $2 {up_to}) AS names \
               GROUP BY key ORDER BY key \
             ON CONFLICT (dimension, key, bucket) DO UPDATE SET count = {table}.count + excluded.count"
        );
        let added = transaction.execute(&sql, &[&dimension, &beyond, &last])?;
        left -= i64::try_from(added).unwrap_or(i64::MAX);
        if last.is_some() {
            return Ok(Some(Begun { dimension, key: last }));
        }
        dimension += 1;
        if left <= 0 && dimension <= DIMENSIONS {
            return Ok(Some(Begun { dimension, key: None }));
        }
    }
    Ok(None)
}

/// Counts the hours that have to be counted (again), the newest first.
fn count_hours(writer: &mut PostgresWriter, has_time: &dyn Fn() -> bool) -> Result<bool, Failure> {
    let mut failed = None;
    let marks = writer.step(dirty_hours)?;
    let due = writer.folding.due_hours(&marks, Instant::now());
    for ats in due.chunk_by(|a, b| a.div_euclid(DAY_MINUTES) == b.div_euclid(DAY_MINUTES)) {
        // What fails for all of them is tried for each.
        let several = ats.to_vec();
        let are_counted =
            ats.len() > 1 && has_time() && writer.step(move |session| few::count(session, &several)).unwrap_or(false);
        for at in ats.iter().copied() {
            if !are_counted && !has_time() {
                return failed.map_or(Ok(true), Err);
            }
            let counted = if are_counted { Ok(true) } else { writer.step(move |session| count_hour(session, at)) };
            writer.folding.settle_hour(at, counted, &mut failed);
        }
    }
    failed.map_or(Ok(false), Err)
}

/// The newest first. An hour whose rows were deleted cannot be counted.
fn dirty_hours(session: &mut Session) -> Result<Vec<Mark>, Failure> {
    let sql = format!(
        "SELECT at, count FROM series WHERE users IS NULL \
           AND at >= (SELECT rows_since * 1440 FROM rollup_folded) ORDER BY at DESC LIMIT {RECOUNT_HOURS_MAX}"
    );
    Ok(session.client.query(&sql, &[])?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// One snapshot of several statements, for somebody whose time is that of a writer.
pub(super) fn reading(session: &mut Session) -> Result<Transaction<'_>, Failure> {
    Ok(session.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start()?)
}

/// What the mark of an hour says that has to be counted.
const MARK: &str = "SELECT count FROM series WHERE minutes = 60 AND event_type = 0 AND at = $1 AND users IS NULL";

/// Counts the points of an hour; false where somebody else is at it or something came in meanwhile.
fn count_hour(session: &mut Session, at: i64) -> Result<bool, Failure> {
    let (hour, begun) = (at.div_euclid(60), Instant::now());
    let mut snapshot = reading(session)?;
    let lock = "SELECT pg_try_advisory_xact_lock($1, $2)";
    if !snapshot.query_one(lock, &[&POINTS_LOCK, &(hour as i32)])?.get::<_, bool>(0) {
        return Ok(false);
    }
    let Some(mark) = snapshot.query_opt(MARK, &[&at])?.map(|row| row.get::<_, i64>(0)) else { return Ok(true) };
    let mut points = points_of_hour(&mut snapshot, hour)?;
    let days = open_day::of_hour(&mut snapshot, hour)?;
    snapshot.commit()?;
    if !open_day::add_users(session, &days, hour)? {
        return Ok(false);
    }
    let mut transaction = session.client.transaction()?;
    open_day::lock(&mut transaction)?;
    if open_day::of_hour(&mut transaction, hour)? != days {
        return Ok(false);
    }
    // A batch that brings something late waits for the row, or is waited for; if one did, the mark is another.
    let now = transaction.query_opt(&format!("{MARK} FOR UPDATE"), &[&at])?;
    let Some(now) = now.map(|row| row.get::<_, i64>(0)) else { return Ok(true) };
    if now != mark {
        if begun.elapsed() > Duration::from_millis(COUNT_LOCKED_MS_MAX) {
            return Ok(false);
        }
        points = points_of_hour(&mut transaction, hour)?;
        open_day::add_users_at_once(&mut transaction, &days, hour)?;
    }
    transaction.batch_execute(&forget_sql(&[hour]))?;
    write_points(&mut transaction, &points)?;
    transaction.commit()?;
    Ok(true)
}

/// Those of its minutes, and its own.
fn points_of_hour(snapshot: &mut Transaction<'_>, hour: i64) -> Result<Vec<CountedPoint>, postgres::Error> {
    let (from_ms, to_ms) = (hour * HOUR_MS, (hour + 1) * HOUR_MS);
    let mut points = minutes_of(snapshot, from_ms..to_ms)?;
    points.extend(count_kinds(snapshot, from_ms, to_ms, Interval::Hour)?);
    Ok(points)
}

/// Some minutes at a time: users are told apart by sorting them, and each statement has its own time.
fn minutes_of(
    snapshot: &mut Transaction<'_>,
    during_ms: std::ops::Range<i64>,
) -> Result<Vec<CountedPoint>, postgres::Error> {
    let time = |ms: i64| Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    let of_row =
        |row: &Row| (row.get::<_, i32>(0).into(), row.get::<_, i32>(1).into(), row.get(2), row.get(3), row.get(4));
    let mut points = Vec::new();
    for begin in during_ms.step_by(COUNTED_AT_ONCE_MS) {
        let during =
            format!("event_time >= '{}' AND event_time < '{}'", time(begin), time(begin + COUNTED_AT_ONCE_MS as i64));
        points.extend(snapshot.query(minutes_sql(rankings::MINUTE, &during).as_str(), &[])?.iter().map(of_row));
    }
    Ok(points)
}

fn count_kinds(
    snapshot: &mut Transaction<'_>,
    from_ms: i64,
    to_ms: i64,
    interval: Interval,
) -> Result<Vec<CountedPoint>, postgres::Error> {
    let mut counted = Vec::new();
    for event_type in kinds() {
        let query = SeriesQuery { event_type, interval, edges_ms: vec![from_ms, to_ms] };
        counted.extend(rankings::count_points(snapshot, &query)?);
    }
    Ok(points_of(from_ms, to_ms, &counted))
}

pub(super) fn write_points(transaction: &mut Transaction<'_>, points: &[CountedPoint]) -> Result<(), Failure> {
    let minutes: Vec<i32> = points.iter().map(|point| point.0 as i32).collect();
    let types: Vec<i16> = points.iter().map(|point| point.1 as i16).collect();
    let column = |value: fn(&CountedPoint) -> i64| points.iter().map(value).collect::<Vec<i64>>();
    let sql = "INSERT INTO series (minutes, event_type, at, count, users) \
                 SELECT * FROM unnest($1::int4[], $2::int2[], $3::int8[], $4::int8[], $5::int8[]) \
               ON CONFLICT (minutes, event_type, at) DO UPDATE SET count = excluded.count, users = excluded.users";
    let (ats, counts, users) = (column(|point| point.2), column(|point| point.3), column(|point| point.4));
    transaction.execute(sql, &[&minutes, &types, &ats, &counts, &users])?;
    Ok(())
}

/// Counts the points of local days that are folded and have none, the newest first.
fn count_days(writer: &mut PostgresWriter, zone: &TimeZone, has_time: &dyn Fn() -> bool) -> Result<bool, Failure> {
    let zone = zone.clone();
    let waiting = writer.folding.days.waiting(Instant::now());
    let mut failed = None;
    for (at, end) in writer.step(move |session| missing_days(session, &zone))? {
        if !has_time() {
            return failed.map_or(Ok(true), Err);
        }
        if !waiting.contains(&at) {
            let counted = writer.step(move |session| count_day(session, at, end));
            writer.folding.days.settle(at, counted, &mut failed);
        }
    }
    failed.map_or(Ok(false), Err)
}

fn missing_days(session: &mut Session, zone: &TimeZone) -> Result<Vec<(i64, i64)>, Failure> {
    let mut snapshot = reading(session)?;
    let folded = rankings::folded(&mut snapshot)?;
    let since: i64 = snapshot.query_one("SELECT rows_since * 1440 FROM rollup_folded", &[])?.get(0);
    let ends = "SELECT min(at), max(at) FROM series WHERE minutes = 60 AND event_type = 0";
    let row = snapshot.query_one(ends, &[])?;
    let (Some(first), Some(last)) = (row.get(0), row.get::<_, Option<i64>>(1)) else { return Ok(Vec::new()) };
    let rows = snapshot.query("SELECT at FROM series WHERE minutes > 60 AND event_type = 0", &[])?;
    let known = rows.iter().map(|row| row.get(0)).collect();
    let days = local_days(zone, first, (last + 60).min(folded.until_hour * 60), &known);
    Ok(days.into_iter().filter(|day| day.start >= since).map(|day| (day.start, day.end)).collect())
}

/// What is known of the hours of a day; `None` where one has to be counted first.
fn hours_of(
    transaction: &mut Transaction<'_>,
    at: i64,
    end: i64,
    how: &str,
) -> Result<Option<Vec<(i64, i64)>>, Failure> {
    let sql = format!(
        "SELECT at, count, users IS NULL FROM series \
         WHERE minutes = 60 AND event_type = 0 AND at > {at} - 60 AND at < {end} ORDER BY at {how}"
    );
    let rows = transaction.query(sql.as_str(), &[])?;
    let is_whole = rows.iter().all(|row| !row.get::<_, bool>(2));
    Ok(is_whole.then(|| rows.iter().map(|row| (row.get(0), row.get(1))).collect()))
}

/// Counts the points of a day; false where something came in meanwhile.
fn count_day(session: &mut Session, at: i64, end: i64) -> Result<bool, Failure> {
    let mut snapshot = reading(session)?;
    let Some(before) = hours_of(&mut snapshot, at, end, "")? else { return Ok(true) };
    let points = count_kinds(&mut snapshot, at * 60_000, end * 60_000, Interval::Day)?;
    snapshot.commit()?;
    let mut transaction = session.client.transaction()?;
    // Held, so that nothing late for one of its hours comes in before this is written. Whatever came and was counted
    // again has changed the hour's count.
    if hours_of(&mut transaction, at, end, "FOR SHARE")? != Some(before) {
        return Ok(false);
    }
    write_points(&mut transaction, &points)?;
    transaction.commit()?;
    Ok(true)
}
