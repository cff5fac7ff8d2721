//! Exact rankings, series and users: rollups, and raw rows of the parts of hours at the edges. A read that takes too
//! long is interrupted; the ledger answers that as "more than could be read".

use std::ops::Range;

use rusqlite::{Result, Row, Transaction, params};

use super::{edges, user_sets};
use crate::events::{Dimension, EventType};
use crate::ledger_fold::{
    Counts, Cover, Folded, Heads, Led, List, OPEN_DAYS, Page, RankPlan, Sums, Terms, Wanted, besides, cover,
    events_sql, hours_of_hot, known_points, known_sql, leaders, led_by, name_sum_sql, open_sql, plan_leaders,
    points_sql, raw_sql, rest_sql, rollup_sql, runs,
};
use crate::limits::EXACT_MINUTES;
use crate::ports::{Interval, Ranked, RankingQuery, SeriesPoint, SeriesQuery, TopQuery};

const MINUTE_MS: i64 = 60_000;

/// Where the range has no more than `few` events, all its names are read.
pub(super) fn ranking(transaction: &Transaction<'_>, query: &RankingQuery, now_ms: i64, few: i64) -> Result<Ranked> {
    let folded = folded(transaction)?;
    let minutes_since = folded.minutes_since.max(now_ms.div_euclid(MINUTE_MS) - EXACT_MINUTES);
    let cover = cover(query.from_ms..query.to_ms, Some(minutes_since));
    let raw = raw_counts(transaction, query, &cover)?;
    let of_part = |(dimension, weight): &(Dimension, i64)| Terms {
        dimension: *dimension,
        weight: *weight as f64,
        sums: Sums::of(&cover, folded, *dimension),
    };
    let terms: Vec<Terms> = query.parts.iter().map(of_part).collect();
    if has_few(transaction, &cover, folded, few)? {
        return rank_all(transaction, query, &terms, &cover, &raw);
    }
    let open = open_sql(&terms, &query.parts, &cover);
    let known: Vec<(&str, f64)> = raw.iter().map(|(name, count)| (name.as_str(), *count as f64)).collect();
    match lead(transaction, &terms, open, &known, Page::of(query))? {
        Some(first) => Ok(first.into_iter().map(|(name, sum)| (name, sum as i64)).collect()),
        None => rank_all(transaction, query, &terms, &cover, &raw),
    }
}

/// A range has hours, and no more than `few` events in them.
fn has_few(transaction: &Transaction<'_>, cover: &Cover, folded: Folded, few: i64) -> Result<bool> {
    let Some(sql) = events_sql(cover, folded) else { return Ok(false) };
    transaction.query_row(&sql, [], |row| Ok(row.get::<_, i64>(0)? <= few))
}

/// The first names, read from lists in order; `None` where all names have to be read.
fn lead(
    transaction: &Transaction<'_>,
    terms: &[Terms],
    open: Option<String>,
    raw: &[(&str, f64)],
    page: Page<'_>,
) -> Result<Option<Vec<(String, f64)>>> {
    let Some(led) = led_by(terms) else { return Ok(None) };
    let open = match open {
        Some(open) => {
            let mut statement = transaction.prepare(&open)?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<Vec<(String, f64)>>>()?
        }
        None => Vec::new(),
    };
    let known = besides(raw.iter().copied(), open.iter().map(|(name, count)| (name.as_str(), *count)));
    leaders(&mut Lists { transaction, led }, &known, page)
}

struct Lists<'t> {
    transaction: &'t Transaction<'t>,
    led: Led,
}

impl Counts for Lists<'_> {
    type Error = rusqlite::Error;

    fn heads(&mut self, depth: usize) -> Result<Heads> {
        let of = |table: &str, count: &str, order: &str| {
            self.transaction.prepare(&format!(
                "SELECT key, {count} FROM {table} WHERE dimension = ?1 AND bucket = ?2 AND dimension BETWEEN 2 AND 8 \
                 {order} LIMIT ?3"
            ))
        };
        let highest = "ORDER BY count DESC";
        let (mut days, mut spans) = (of("rollup_day", "count", highest)?, of("rollup_span", "count", highest)?);
        let mut taken_off = of("rollup_day", "-count", "AND count < 0 ORDER BY count")?;
        let mut heads = Heads::default();
        for (number, list) in self.led.lists.iter().enumerate() {
            let statement = match list {
                List { is_taken_off: true, .. } => &mut taken_off,
                List { is_span: true, .. } => &mut spans,
                List { .. } => &mut days,
            };
            let mut rows = statement.query(params![list.dimension as i64, list.bucket, depth as i64])?;
            let mut head: Vec<(String, i64)> = Vec::new();
            while let Some(row) = rows.next()? {
                head.push((row.get(0)?, row.get(1)?));
            }
            heads.add(number, list, depth, &head);
        }
        Ok(heads)
    }

    fn sums(&mut self, wanted: &[Wanted<'_>]) -> Result<Vec<f64>> {
        let sql = format!("SELECT {}", name_sum_sql(&self.led.terms, "?1", false));
        let mut statement = self.transaction.prepare(&sql)?;
        wanted.iter().map(|wanted| statement.query_row([wanted.name], |row| row.get(0))).collect()
    }
}

/// Everything that a range has, summed up by SQLite.
fn rank_all(
    transaction: &Transaction<'_>,
    query: &RankingQuery,
    terms: &[Terms],
    cover: &Cover,
    raw: &[(String, i64)],
) -> Result<Ranked> {
    let raw = serde_json::to_string(raw).unwrap_or_default();
    let rollups = rollup_sql(terms, cover).map_or(String::new(), |sql| format!("{sql} UNION ALL "));
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

/// The first names of a window of hours; `None` where all have to be read.
pub(super) fn top(
    transaction: &Transaction<'_>,
    query: &TopQuery,
    plan: &RankPlan,
    now_ms: i64,
    few: i64,
) -> Result<Option<Vec<(String, f64)>>> {
    let folded = folded(transaction)?;
    if let Some(hours) = hours_of_hot(query, now_ms)
        && has_few(transaction, &Cover { hours: Some(hours), ..Cover::default() }, folded, few)?
    {
        return Ok(None);
    }
    let terms = plan_leaders(query, plan, folded);
    if terms.is_empty() {
        return Ok(None);
    }
    let edges = edge_scores(transaction, plan)?;
    let edges: Vec<(&str, f64)> = edges.iter().map(|(name, score)| (name.as_str(), *score)).collect();
    let open = open_sql(&terms, &[], &Cover::default());
    lead(transaction, &terms, open, &edges, Page::first(query.limit))
}

/// What parts of hours add to a list.
pub(super) fn edge_scores(transaction: &Transaction<'_>, plan: &RankPlan) -> Result<Vec<(String, f64)>> {
    let ranges: Vec<Range<i64>> = plan.edges.iter().map(|(range, _)| range.clone()).collect();
    Ok(plan.edge_scores(edges::count(transaction, &ranges, &plan.edge_dimensions())?))
}

/// How far hours are folded.
pub(super) fn folded(transaction: &Transaction<'_>) -> Result<Folded> {
    let sql = "SELECT until_hour, until_day, minutes_since, hour_dimension, day_dimension > 0 FROM rollup_folded";
    let mut statement = transaction.prepare_cached(sql)?;
    let of_row = |row: &Row<'_>| {
        let (until_hour, until_day, minutes_since) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (hour_dimension, is_day_begun) = (row.get(3)?, row.get(4)?);
        Ok(Folded { until_hour, until_day, minutes_since, hour_dimension, is_day_begun })
    };
    statement.query_row([], of_row)
}

/// What raw rows add, by name.
fn raw_counts(transaction: &Transaction<'_>, query: &RankingQuery, cover: &Cover) -> Result<Vec<(String, i64)>> {
    let mut counts: Vec<(String, i64)> = Vec::new();
    if let Some(sql) = raw_sql(&query.parts, cover, during) {
        let mut statement = transaction.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (_, weight) = query.parts[row.get::<_, u32>(0)? as usize];
            let name = row.get(1)?;
            counts.push((name, row.get::<_, i64>(2)? * weight));
        }
    }
    Ok(counts)
}

/// That a column's time lies in a range of milliseconds.
pub(super) fn during(column: &str, range: &Range<i64>) -> String {
    format!("{column} >= {} AND {column} < {}", range.start, range.end)
}

/// Points that were counted before, and what is left, run by run.
pub(super) fn series(transaction: &Transaction<'_>, query: &SeriesQuery) -> Result<Vec<SeriesPoint>> {
    let mut statement = transaction.prepare(&points_sql(query))?;
    let of_row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
    let rows = statement.query_map([], of_row)?.collect::<Result<Vec<_>>>()?;
    let (mut points, mut missing) = known_points(query, rows.into_iter());
    if query.interval == Interval::Day && !missing.is_empty() {
        read_open_days(transaction, query, &mut points, &mut missing)?;
    }
    for run in runs(&missing) {
        let edges_ms = query.edges_ms[run.start..=run.end].to_vec();
        let counted = count_points(transaction, &SeriesQuery { edges_ms, ..query.clone() })?;
        points[run].copy_from_slice(&counted);
    }
    Ok(points)
}

/// Days that are not over, as far as their users are known; they are missing no more.
fn read_open_days(
    transaction: &Transaction<'_>,
    query: &SeriesQuery,
    points: &mut [SeriesPoint],
    missing: &mut Vec<usize>,
) -> Result<()> {
    let two = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let days = transaction.prepare_cached(OPEN_DAYS)?.query_map([], two)?.collect::<Result<Vec<(i64, i64)>>>()?;
    for day in days.into_iter().map(|(at, end)| at..end) {
        let is_it =
            |number: &usize| query.edges_ms[*number..*number + 2] == [day.start * MINUTE_MS, day.end * MINUTE_MS];
        let Some(place) = missing.iter().position(is_it) else { continue };
        let mut known = transaction.prepare(&known_sql(&day, query.event_type))?;
        let known = known.query_map([], two)?.collect::<Result<Vec<(i64, i64)>>>()?;
        let (sql, users) = rest_sql(&day, query.event_type, &known);
        let of_row = |row: &Row<'_>| Ok(SeriesPoint { count: number(row, 0)?, users: users + number(row, 1)? });
        points[missing.remove(place)] = transaction.query_row(&sql, [], of_row)?;
    }
    Ok(())
}

/// Counts every point of a series, whether or not it was counted before.
pub(super) fn count_points(transaction: &Transaction<'_>, query: &SeriesQuery) -> Result<Vec<SeriesPoint>> {
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
    let cover = cover(from_ms..to_ms, None);
    if let Some(hours) = &cover.hours {
        let rest = |hours: &[Range<i64>]| seen_users(None, hours, &cover.raw);
        if let Some(users) = user_sets::count(transaction, hours, rest)? {
            return Ok(users);
        }
    }
    distinct_users(transaction, None, &cover)
}

/// `SELECT user_id` of hours and of raw rows, some more than once; `None` where there are neither.
fn seen_users(kind: Option<EventType>, hours: &[Range<i64>], raw: &[Range<i64>]) -> Option<String> {
    let of_code = kind.map_or(String::new(), |kind| format!(" AND event_type = {}", kind as u8));
    let of_name = kind.map_or(String::new(), |kind| format!(" AND event_type = '{}'", kind.name()));
    let of_hours = hours.iter().map(|Range { start, end }| {
        format!("SELECT user_id FROM user_hour WHERE hour >= {start} AND hour < {end}{of_code}")
    });
    let of_rows = raw.iter().map(|Range { start, end }| {
        format!(
            "SELECT user_id FROM events \
             WHERE event_time >= {start} AND event_time < {end}{of_name} AND user_id IS NOT NULL"
        )
    });
    let all: Vec<String> = of_hours.chain(of_rows).collect();
    (!all.is_empty()).then(|| all.join(" UNION ALL "))
}

fn distinct_users(transaction: &Transaction<'_>, kind: Option<EventType>, cover: &Cover) -> Result<u64> {
    let Some(seen) = seen_users(kind, cover.hours.as_slice(), &cover.raw) else { return Ok(0) };
    transaction.query_row(&format!("SELECT count(DISTINCT user_id) FROM ({seen})"), [], |row| number(row, 0))
}

fn number(row: &Row<'_>, column: usize) -> Result<u64> {
    Ok(row.get::<_, i64>(column)?.max(0).cast_unsigned())
}
