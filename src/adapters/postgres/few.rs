//! Hours and days with few events, many of them in one step: an import of a year has thousands, and the steps of each
//! cost more than its events.

use postgres::Transaction;

use super::connect::{Failure, Session};
use super::fold::{POINTS_LOCK, reading, write_points};
use super::open_day;
use super::rankings::{MINUTE, literal};
use crate::events::EventType;
use crate::ledger_fold::{CountedPoint, HOUR_MS, OPEN_DAYS, forget_sql, minutes_sql, points_of};
use crate::limits::{COUNT_EVENTS_FEW, FOLD_EVENTS_FEW, FOLD_NAMES_MAX};
use crate::ports::SeriesPoint;

/// Hours or days that are looked at for one step of folding.
const LOOKED_AT: i64 = 400;
/// Dimensions that are folded.
const DIMENSIONS: &str = "generate_series(1, 12) AS d(number)";

/// Adds hours from `first` on to buckets of `table`, each of `bucket` hours, in whole units of `unit`
/// hours. Stops before the units together have too many events, and answers their end. None: the
/// first unit alone has too many.
pub(super) fn fold(
    transaction: &mut Transaction<'_>,
    table: &str,
    (unit, bucket): (i64, i64),
    (first, end): (i64, i64),
) -> Result<Option<i64>, Failure> {
    let Some(end) = end_of_few(transaction, unit, first, end)? else { return Ok(None) };
    let names = format!(
        "SELECT count(*) FROM {DIMENSIONS} CROSS JOIN LATERAL (SELECT FROM rollup_hour \
           WHERE dimension = number AND bucket >= {first} AND bucket < {end} LIMIT {} + 1) AS names",
        4 * FOLD_NAMES_MAX
    );
    if transaction.query_one(&names, &[])?.get::<_, i64>(0) > 4 * FOLD_NAMES_MAX {
        return Ok(None);
    }
    transaction.batch_execute(&format!(
        "INSERT INTO {table} (dimension, bucket, key, count) \
           SELECT number, names.* FROM {DIMENSIONS} CROSS JOIN LATERAL \
             (SELECT bucket / {bucket}, key, sum(count) FROM rollup_hour \
              WHERE dimension = number AND bucket >= {first} AND bucket < {end} GROUP BY 1, 2) AS names(bucket, key, count) \
           ORDER BY 1, key, bucket \
         ON CONFLICT (dimension, key, bucket) DO UPDATE SET count = {table}.count + excluded.count"
    ))?;
    Ok(Some(end))
}

/// Where the units end that have few events together.
fn end_of_few(
    transaction: &mut Transaction<'_>,
    unit: i64,
    first: i64,
    end: i64,
) -> Result<Option<i64>, postgres::Error> {
    let sql = format!(
        "SELECT bucket / {unit}, sum(count)::int8 FROM rollup_hour WHERE dimension = 1 AND bucket >= $1 AND bucket < $2 \
         GROUP BY 1 ORDER BY 1 LIMIT {LOOKED_AT}"
    );
    // No more than these are read, however long ago the first one is.
    let until = end.min(first + LOOKED_AT * unit);
    let (mut events, mut end_of_few) = (0, None);
    for row in transaction.query(&sql, &[&first, &until])? {
        events += row.get::<_, i64>(1);
        if events > FOLD_EVENTS_FEW {
            break;
        }
        end_of_few = Some((row.get::<_, i64>(0) + 1) * unit);
    }
    Ok(end_of_few)
}

/// Hours that were folded have to be counted.
pub(super) fn mark(transaction: &mut Transaction<'_>, first: i64, end: i64) -> Result<(), postgres::Error> {
    transaction.batch_execute(&format!(
        "INSERT INTO series (minutes, event_type, at, count) \
           SELECT DISTINCT 60, 0, hours.bucket * 60, 0 FROM {DIMENSIONS} CROSS JOIN LATERAL \
             (SELECT bucket FROM rollup_hour WHERE dimension = number AND bucket >= {first} AND bucket < {end}) AS hours \
           ORDER BY 3 \
         ON CONFLICT (minutes, event_type, at) DO UPDATE SET users = NULL, count = series.count + 1"
    ))
}

/// Counts dirty hours of one UTC day, if they are small; false if they are not, or if something changed meanwhile: then
/// none of them is counted. `ats` are their first minutes.
pub(super) fn count(session: &mut Session, ats: &[i64]) -> Result<bool, Failure> {
    let hours: Vec<i64> = ats.iter().map(|at| at.div_euclid(60)).collect();
    let mut snapshot = reading(session)?;
    let lock = "SELECT bool_and(pg_try_advisory_xact_lock($1, hour::int4)) FROM unnest($2::int8[]) AS hour";
    let is_few = events_of(&mut snapshot, &hours)? <= COUNT_EVENTS_FEW
        && !is_in_open_day(&mut snapshot, ats)?
        && snapshot.query_one(lock, &[&POINTS_LOCK, &hours])?.get(0);
    if !is_few {
        return Ok(false);
    }
    let marks = marks_of(&mut snapshot, ats, "")?;
    let hours: Vec<i64> = marks.iter().map(|(at, _)| at.div_euclid(60)).collect();
    let mut points = minutes_of(&mut snapshot, &hours)?;
    points.extend(hours_of(&mut snapshot, &hours)?);
    snapshot.commit()?;
    let mut transaction = session.client.transaction()?;
    open_day::lock(&mut transaction)?;
    // A batch that brings something late waits for the rows, or is waited for; if one did, a mark is another.
    if is_in_open_day(&mut transaction, ats)? || marks_of(&mut transaction, ats, "FOR UPDATE")? != marks {
        return Ok(false);
    }
    if !hours.is_empty() {
        transaction.batch_execute(&forget_sql(&hours))?;
    }
    write_points(&mut transaction, &points)?;
    transaction.commit()?;
    Ok(true)
}

fn events_of(snapshot: &mut Transaction<'_>, hours: &[i64]) -> Result<i64, postgres::Error> {
    let sql = "SELECT coalesce(sum(count), 0)::int8 FROM rollup_hour WHERE dimension = 1 AND bucket = ANY ($1)";
    Ok(snapshot.query_one(sql, &[&hours])?.get(0))
}

/// The users of an hour of an open day are kept in another way.
fn is_in_open_day(transaction: &mut Transaction<'_>, ats: &[i64]) -> Result<bool, postgres::Error> {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM ({OPEN_DAYS}) AS day(first, behind) CROSS JOIN unnest($1::int8[]) AS hour(at) \
         WHERE at >= first AND at < behind)"
    );
    Ok(transaction.query_one(&sql, &[&ats])?.get(0))
}

fn marks_of(transaction: &mut Transaction<'_>, ats: &[i64], how: &str) -> Result<Vec<(i64, i64)>, postgres::Error> {
    let sql = format!(
        "SELECT at, count FROM series WHERE minutes = 60 AND event_type = 0 AND users IS NULL AND at = ANY ($1) \
         ORDER BY at {how}"
    );
    Ok(transaction.query(&sql, &[&ats])?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn minutes_of(snapshot: &mut Transaction<'_>, hours: &[i64]) -> Result<Vec<CountedPoint>, postgres::Error> {
    let during = during(hours);
    if during.is_empty() {
        return Ok(Vec::new());
    }
    let rows = snapshot.query(&minutes_sql(MINUTE, &during), &[])?;
    let point = |row: &postgres::Row| {
        (row.get::<_, i32>(0).into(), row.get::<_, i32>(1).into(), row.get(2), row.get(3), row.get(4))
    };
    Ok(rows.iter().map(point).collect())
}

/// Rows of `events` within hours: a condition. The times stand in the text, so that only their partition is planned.
pub(super) fn during(hours: &[i64]) -> String {
    let hour = |hour: &i64| {
        let (from, to) = (literal(hour * HOUR_MS), literal((hour + 1) * HOUR_MS));
        format!("event_time >= {from} AND event_time < {to}")
    };
    let hours: Vec<String> = hours.iter().map(hour).collect();
    if hours.is_empty() { String::new() } else { format!("({})", hours.join(" OR ")) }
}

/// The hours' own points: counts of rollups, and distinct users.
fn hours_of(snapshot: &mut Transaction<'_>, hours: &[i64]) -> Result<Vec<CountedPoint>, postgres::Error> {
    let sql = "SELECT bucket, key, sum(count)::int8, 0::int8 FROM rollup_hour WHERE dimension = 1 AND bucket = ANY ($1) \
                 GROUP BY 1, 2 \
               UNION ALL SELECT hour, event_type::text, 0, count(*) FROM user_hour WHERE hour = ANY ($1) GROUP BY 1, 2 \
               UNION ALL SELECT hour, '', 0, count(DISTINCT user_id) FROM user_hour WHERE hour = ANY ($1) GROUP BY 1";
    let mut of_hours: std::collections::BTreeMap<i64, [SeriesPoint; 6]> =
        hours.iter().map(|hour| (*hour, Default::default())).collect();
    for row in snapshot.query(sql, &[&hours])? {
        let (hour, name): (i64, &str) = (row.get(0), row.get(1));
        let (count, users) = (row.get::<_, i64>(2).max(0).cast_unsigned(), row.get::<_, i64>(3).max(0).cast_unsigned());
        let kind = EventType::from_name(name).map(|kind| kind as usize).or_else(|| name.parse().ok()).unwrap_or(0);
        let Some(points) = of_hours.get_mut(&hour).filter(|points| kind < points.len()) else { continue };
        points[kind].users += users;
        points[kind].count += count;
        points[0].count += count;
    }
    Ok(of_hours.iter().flat_map(|(hour, points)| points_of(hour * HOUR_MS, (hour + 1) * HOUR_MS, points)).collect())
}
