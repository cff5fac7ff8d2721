//! Exact rankings, series and users: rollups, and raw rows of the parts of hours at the edges. A read that takes too
//! long is interrupted; the ledger answers that as "more than could be read".

use std::ops::Range;

use rusqlite::{Result, Row, Transaction, params};

use crate::events::EventType;
use crate::ledger_fold::{Cover, cover, raw_name, raw_sql, rollup_sql};
use crate::limits::EXACT_MINUTES;
use crate::ports::{Interval, Ranked, RankingQuery, SeriesPoint, SeriesQuery};

const MINUTE_MS: i64 = 60_000;

pub(super) fn ranking(transaction: &Transaction<'_>, query: &RankingQuery, now_ms: i64) -> Result<Ranked> {
    let cover = cover(query.from_ms..query.to_ms, Some(now_ms.div_euclid(MINUTE_MS) - EXACT_MINUTES));
    let raw = raw_counts(transaction, query, &cover)?;
    let rollups = rollup_sql(&query.parts, &cover).map_or(String::new(), |sql| format!("{sql} UNION ALL "));
    let sql = format!(
        "SELECT key, sum(count) AS total FROM ({rollups}SELECT value ->> 0 AS key, value ->> 1 AS count \
           FROM json_each(?1)) \
         GROUP BY key HAVING total > 0 AND (?2 IS NULL OR total < ?2 OR total = ?2 AND key > ?3) \
         ORDER BY total DESC, key LIMIT ?4"
    );
    let (sum, name) = query.after.as_ref().map(|(sum, name)| (*sum, name.as_str())).unzip();
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let mut statement = transaction.prepare(&sql)?;
    let rows = statement.query_map(params![raw, sum, name, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// What raw rows add, by name: a JSON array of pairs.
fn raw_counts(transaction: &Transaction<'_>, query: &RankingQuery, cover: &Cover) -> Result<String> {
    let mut counts: Vec<(String, i64)> = Vec::new();
    if let Some(sql) = raw_sql(&query.parts, cover, during) {
        let mut statement = transaction.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (dimension, weight) = query.parts[row.get::<_, u32>(0)? as usize];
            let name = raw_name(dimension, row.get_ref(1)?.as_str()?).into_owned();
            counts.push((name, row.get::<_, i64>(2)? * weight));
        }
    }
    Ok(serde_json::to_string(&counts).unwrap_or_default())
}

/// That a column's time lies in a range of milliseconds.
fn during(column: &str, range: &Range<i64>) -> String {
    format!("{column} >= {} AND {column} < {}", range.start, range.end)
}

pub(super) fn series(transaction: &Transaction<'_>, query: &SeriesQuery) -> Result<Vec<SeriesPoint>> {
    match query.interval {
        Interval::Minute => minutes(transaction, query),
        Interval::Hour | Interval::Day => {
            let buckets = query.edges_ms.windows(2);
            buckets.map(|edge| bucket(transaction, query.event_type, &cover(edge[0]..edge[1], None))).collect()
        }
    }
}

/// Distinct users of a minute are in raw rows alone, and then its count is there too.
fn minutes(transaction: &Transaction<'_>, query: &SeriesQuery) -> Result<Vec<SeriesPoint>> {
    let (Some(first), Some(end)) = (query.edges_ms.first(), query.edges_ms.last()) else { return Ok(Vec::new()) };
    let mut points = vec![SeriesPoint::default(); query.edges_ms.len() - 1];
    let mut statement = transaction.prepare_cached(
        "SELECT event_time / 60000, count(*), count(DISTINCT user_id) FROM events \
         WHERE event_time >= ?1 AND event_time < ?2 AND (?3 IS NULL OR event_type = ?3) GROUP BY 1",
    )?;
    let mut rows = statement.query(params![first, end, query.event_type.map(EventType::name)])?;
    let first = first.div_euclid(MINUTE_MS);
    while let Some(row) = rows.next()? {
        let point = usize::try_from(row.get::<_, i64>(0)? - first).ok().and_then(|at| points.get_mut(at));
        if let Some(point) = point {
            *point = SeriesPoint { count: number(row, 1)?, users: number(row, 2)? };
        }
    }
    Ok(points)
}

/// Whole hours, and raw rows where a day begins within an hour.
fn bucket(transaction: &Transaction<'_>, kind: Option<EventType>, cover: &Cover) -> Result<SeriesPoint> {
    let hours = cover.hours.clone().unwrap_or(0..0);
    let name = kind.map(EventType::name);
    let mut count: u64 = transaction
        .prepare_cached(
            "SELECT coalesce(sum(count), 0) FROM rollup_hour \
             WHERE dimension = 1 AND bucket >= ?1 AND bucket < ?2 AND (?3 IS NULL OR key = ?3)",
        )?
        .query_row(params![hours.start, hours.end, name], |row| number(row, 0))?;
    let mut raw = transaction.prepare_cached(
        "SELECT count(*) FROM events WHERE event_time >= ?1 AND event_time < ?2 AND (?3 IS NULL OR event_type = ?3)",
    )?;
    for range in &cover.raw {
        count += raw.query_row(params![range.start, range.end, name], |row| number(row, 0))?;
    }
    Ok(SeriesPoint { count, users: distinct_users(transaction, kind, cover)? })
}

pub(super) fn users(transaction: &Transaction<'_>, from_ms: i64, to_ms: i64) -> Result<u64> {
    distinct_users(transaction, None, &cover(from_ms..to_ms, None))
}

fn distinct_users(transaction: &Transaction<'_>, kind: Option<EventType>, cover: &Cover) -> Result<u64> {
    let hours = cover.hours.clone().unwrap_or(0..0);
    let mut ranges = cover.raw.iter().cloned().chain([0..0, 0..0]);
    let (one, other) = (ranges.next().unwrap_or(0..0), ranges.next().unwrap_or(0..0));
    transaction
        .prepare_cached(
            "SELECT count(*) FROM (\
               SELECT user_id FROM user_hour WHERE hour >= ?1 AND hour < ?2 AND (?7 IS NULL OR event_type = ?7) \
               UNION SELECT user_id FROM events WHERE event_time >= ?3 AND event_time < ?4 \
                 AND (?8 IS NULL OR event_type = ?8) AND user_id IS NOT NULL \
               UNION SELECT user_id FROM events WHERE event_time >= ?5 AND event_time < ?6 \
                 AND (?8 IS NULL OR event_type = ?8) AND user_id IS NOT NULL)",
        )?
        .query_row(
            params![
                hours.start,
                hours.end,
                one.start,
                one.end,
                other.start,
                other.end,
                kind.map(|kind| kind as u8),
                kind.map(EventType::name)
            ],
            |row| number(row, 0),
        )
}

fn number(row: &Row<'_>, column: usize) -> Result<u64> {
    Ok(row.get::<_, i64>(column)?.max(0).cast_unsigned())
}
