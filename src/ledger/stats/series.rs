//! Series: points that were counted once, and the rest counted now.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use super::bitmaps::distinct;
use super::cover::{Cover, cover};
use super::points::{known_points, points_sql, runs, series_code};
use super::users::pending_minutes;
use crate::events::{Dimension, EventType};
use crate::ledger::delta::pending;
use crate::ledger::sql::Sql;
use crate::ledger::{HOUR_MS, MINUTE_MS};
use crate::ports::{Interval, SeriesPoint, SeriesQuery, StoreError};

pub fn series(sql: &mut dyn Sql, query: &SeriesQuery) -> Result<Vec<SeriesPoint>, StoreError> {
    let pending = pending_minutes(sql)?;
    let rows = sql.query(&points_sql(query), &[])?;
    let rows = rows.iter().map(|row| (row.int(0), row.int(1), row.int(2), row.int(3), row.int(4)));
    let (mut points, missing) = known_points(query, rows, &pending);
    let pending = pending.iter().map(|minute| minute.div_euclid(60)).collect();
    if query.interval == Interval::Minute {
        minutes(sql, query, &missing, &mut points)?;
        return Ok(points);
    }
    for run in runs(&missing) {
        let edges_ms = query.edges_ms[run.start..=run.end].to_vec();
        let counted = count_points(sql, &SeriesQuery { edges_ms, ..query.clone() }, &pending)?;
        points[run].copy_from_slice(&counted);
    }
    Ok(points)
}

/// Counts every point of a series of hours or days, whether or not it was counted before.
pub fn count_points(
    sql: &mut dyn Sql,
    query: &SeriesQuery,
    pending: &HashSet<i64>,
) -> Result<Vec<SeriesPoint>, StoreError> {
    let covers: Vec<Cover> = query.edges_ms.windows(2).map(|edge| cover(edge[0]..edge[1], None)).collect();
    let counts = hour_counts(sql, query)?;
    let users = if query.interval == Interval::Hour { Some(hour_users(sql, query)?) } else { None };
    let mut points = Vec::with_capacity(covers.len());
    for cover in &covers {
        let hours = cover.hours.clone().unwrap_or(0..0);
        let mut count: i64 = counts.range(hours.clone()).map(|(_, count)| count).sum();
        count += raw_count(sql, cover, query.event_type)?;
        let users = match &users {
            Some(users) if cover.raw.is_empty() => users.get(&hours.start).copied().unwrap_or_default(),
            _ => distinct(sql, cover, query.event_type, pending)?,
        };
        points.push(SeriesPoint { count: count.max(0).cast_unsigned(), users });
    }
    Ok(points)
}

/// Counts the `missing` points of a series of minutes from raw rows.
fn minutes(
    sql: &mut dyn Sql,
    query: &SeriesQuery,
    missing: &[usize],
    points: &mut [SeriesPoint],
) -> Result<(), StoreError> {
    if missing.is_empty() {
        return Ok(());
    }
    let dialect = sql.dialect();
    let edges = &query.edges_ms;
    let during = |run: Range<usize>| dialect.during("event_time", &(edges[run.start]..edges[run.end]));
    let during: Vec<String> = runs(missing).into_iter().map(|run| format!("({})", during(run))).collect();
    // As in `minutes_sql`.
    let statement = format!(
        "SELECT at, CAST(sum(count) AS bigint), count(user_id) FROM \
           (SELECT {} AS at, user_id, count(*) AS count FROM events WHERE ({}){} GROUP BY 1, 2) AS by_user GROUP BY at",
        dialect.minute(),
        during.join(" OR "),
        of_type(query.event_type)
    );
    let first = edges[0].div_euclid(MINUTE_MS);
    sql.each(&statement, &[], &mut |row| {
        if let Some(point) = usize::try_from(row.int(0) - first).ok().and_then(|at| points.get_mut(at)) {
            *point = SeriesPoint { count: row.count(1), users: row.count(2) };
        }
        Ok(())
    })
}

fn of_type(kind: Option<EventType>) -> String {
    kind.map_or(String::new(), |kind| format!(" AND event_type = '{}'", kind.name()))
}

/// Events by hour, pending ones included.
fn hour_counts(sql: &mut dyn Sql, query: &SeriesQuery) -> Result<BTreeMap<i64, i64>, StoreError> {
    let (Some(first), Some(end)) = (query.edges_ms.first(), query.edges_ms.last()) else { return Ok(BTreeMap::new()) };
    let hours = first.div_euclid(HOUR_MS)..end.div_euclid(HOUR_MS) + 1;
    let kind = query.event_type.map(EventType::name);
    let of_key = kind.map_or(String::new(), |kind| format!(" AND key = '{kind}'"));
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    let statement = format!(
        "SELECT bucket, CAST(sum(count) AS bigint) FROM rollup_hour \
         WHERE dimension = 1 AND bucket >= {} AND bucket < {}{of_key} GROUP BY bucket",
        hours.start, hours.end
    );
    sql.each(&statement, &[], &mut |row| {
        counts.insert(row.int(0), row.int(1));
        Ok(())
    })?;
    pending(sql, [Dimension::Type], |_, minute, key, count| {
        if kind.is_none_or(|kind| kind == key) {
            *counts.entry(minute.div_euclid(60)).or_default() += count;
        }
    })?;
    Ok(counts)
}

/// Users by hour, of whole hours.
fn hour_users(sql: &mut dyn Sql, query: &SeriesQuery) -> Result<HashMap<i64, u64>, StoreError> {
    let (Some(first), Some(end)) = (query.edges_ms.first(), query.edges_ms.last()) else { return Ok(HashMap::new()) };
    let of_code =
        query.event_type.map_or(String::new(), |_| format!(" AND event_type = {}", series_code(query.event_type)));
    let statement = format!(
        "SELECT hour, count(*) FROM (SELECT DISTINCT hour, user_id FROM user_hour \
           WHERE hour >= {} AND hour < {}{of_code}) AS u GROUP BY hour",
        first.div_euclid(HOUR_MS),
        end.div_euclid(HOUR_MS)
    );
    Ok(sql.query(&statement, &[])?.iter().map(|row| (row.int(0), row.count(1))).collect())
}

/// Events of the parts of hours.
fn raw_count(sql: &mut dyn Sql, cover: &Cover, kind: Option<EventType>) -> Result<i64, StoreError> {
    if cover.raw.is_empty() {
        return Ok(0);
    }
    let ranges: Vec<String> =
        cover.raw.iter().map(|range| format!("({})", sql.dialect().during("event_time", range))).collect();
    let statement = format!("SELECT count(*) FROM events WHERE ({}){}", ranges.join(" OR "), of_type(kind));
    Ok(sql.number(&statement, &[])?.unwrap_or_default())
}
