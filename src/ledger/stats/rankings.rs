//! Exact rankings and ranked lists: rollups with pending counts, and raw rows of the parts of hours at the edges.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::cover::{Cover, cover};
use super::exact::{Terms, events_sql, few_events, open_sql, raw_sql, rollup_sql};
use super::hidden::skip_hidden;
use super::leaders::{Led, Page, leaders, led_by};
use super::lists::Lists;
use super::local_days::EdgeCount;
use super::plan::{RankPlan, SCORE_NOTHING, hours_of_hot, plan_leaders};
use super::sums::Sums;
use crate::events::Dimension;
use crate::ledger::delta::pending;
use crate::ledger::frontier::Frontier;
use crate::ledger::sql::{Cell, Column, Dialect, Row, Sql, Value};
use crate::ledger::{HOUR_MS, MINUTE_MS};
use crate::limits::EXACT_MINUTES;
use crate::ports::{Ranked, RankingQuery, StoreError, TopQuery};

/// Counts by name that no rollup has, each times its weight.
type Extra = HashMap<String, f64>;

/// Exact sums by name. A range with no more than `few_max` events reads all its names.
pub fn ranking(sql: &mut dyn Sql, query: &RankingQuery, now_ms: i64, few_max: i64) -> Result<Ranked, StoreError> {
    let few = few_events(query.limit).min(few_max);
    let is_of_posts = query.parts.iter().any(|(dimension, _)| dimension.names_posts());
    let first = |sql: &mut dyn Sql, limit| rank(sql, &RankingQuery { limit, ..query.clone() }, now_ms, few);
    if is_of_posts { skip_hidden(sql, query.limit, first) } else { first(sql, query.limit) }
}

/// The first names of a window.
pub fn top(
    sql: &mut dyn Sql,
    query: &TopQuery,
    plan: &RankPlan,
    now_ms: i64,
    few_max: i64,
) -> Result<Vec<(String, f64)>, StoreError> {
    let few = few_events(query.limit).min(few_max);
    let is_of_posts = query.parts.iter().any(|(dimension, _)| dimension.names_posts());
    let first = |sql: &mut dyn Sql, limit| {
        let (query, plan) = (TopQuery { limit, ..query.clone() }, RankPlan { limit, ..plan.clone() });
        top_of(sql, &query, &plan, now_ms, few)
    };
    if is_of_posts { skip_hidden(sql, query.limit, first) } else { first(sql, query.limit) }
}

fn rank(sql: &mut dyn Sql, query: &RankingQuery, now_ms: i64, few: i64) -> Result<Ranked, StoreError> {
    let frontier = Frontier::read(sql)?;
    let minutes_since = frontier.minutes_since.max(now_ms.div_euclid(MINUTE_MS) - EXACT_MINUTES);
    let cover = cover(query.from_ms..frontier.end_ms(query.to_ms), Some(minutes_since));
    let extra = extra_counts(sql, &query.parts, &cover)?;
    let terms: Vec<Terms> = query
        .parts
        .iter()
        .map(|(dimension, weight)| {
            let sums = Sums::of(&cover, frontier);
            Terms { dimension: *dimension, weight: *weight as f64, sums }
        })
        .collect();
    let first = match has_few(sql, &cover, frontier, few)? {
        true => None,
        false => {
            let open = open_sql(&terms, &query.parts, &cover);
            lead(sql, &terms, open, &extra, Page::of(query))?
        }
    };
    match first {
        Some(first) => Ok(first.into_iter().map(|(name, sum)| (name, sum as i64)).collect()),
        None => rank_all(sql, query, &terms, &cover, &extra),
    }
}

/// A range has hours, and no more than `few` events in them.
fn has_few(sql: &mut dyn Sql, cover: &Cover, frontier: Frontier, few: i64) -> Result<bool, StoreError> {
    let Some(query) = events_sql(cover, frontier) else { return Ok(false) };
    Ok(sql.number(&query, &[])?.is_some_and(|events| events <= few))
}

/// What raw rows and pending counts add, by name.
fn extra_counts(sql: &mut dyn Sql, parts: &[(Dimension, i64)], cover: &Cover) -> Result<Extra, StoreError> {
    let mut extra = Extra::new();
    let dialect = sql.dialect();
    if let Some(query) = raw_sql(parts, cover, |column, range| dialect.during(column, range)) {
        sql.each(&query, &[], &mut |mut row| {
            let (_, weight) = parts[row.int(0) as usize];
            *extra.entry(row.take_text(1)).or_default() += (row.int(2) * weight) as f64;
            Ok(())
        })?;
    }
    let is_read = |minute: i64| {
        let is_of_hours = cover.hours.as_ref().is_some_and(|hours| hours.contains(&minute.div_euclid(60)));
        is_of_hours || cover.minutes.iter().any(|minutes| minutes.contains(&minute))
    };
    let weights: Vec<(Dimension, f64)> = parts.iter().map(|(dimension, weight)| (*dimension, *weight as f64)).collect();
    add_pending(sql, &weights, &mut extra, |minute| if is_read(minute) { 1.0 } else { 0.0 })?;
    Ok(extra)
}

/// Adds pending counts of some dimensions, times the weight of the dimension and the factor of the minute.
fn add_pending(
    sql: &mut dyn Sql,
    parts: &[(Dimension, f64)],
    extra: &mut Extra,
    factor: impl Fn(i64) -> f64,
) -> Result<(), StoreError> {
    let dimensions: HashSet<Dimension> = parts.iter().map(|(dimension, _)| *dimension).collect();
    pending(sql, dimensions, |code, minute, key, count| {
        let weight: f64 = parts.iter().filter(|(of, _)| *of as u8 == code).map(|(_, weight)| weight).sum();
        let score = count as f64 * weight * factor(minute);
        if score == 0.0 {
            return;
        }
        match extra.get_mut(key) {
            Some(sum) => *sum += score,
            None => drop(extra.insert(key.to_owned(), score)),
        }
    })
}

/// The first names, read from lists in order; `None` if all names have to be read.
fn lead(
    sql: &mut dyn Sql,
    terms: &[Terms],
    open: Option<String>,
    extra: &Extra,
    page: Page<'_>,
) -> Result<Option<Vec<(String, f64)>>, StoreError> {
    let Some(led) = led_by(terms) else { return Ok(None) };
    let open = open.map_or(Ok(Vec::new()), |open| open_counts(sql, &open))?;
    let mut known: HashMap<&str, f64> = HashMap::with_capacity(extra.len() + open.len());
    let extra = extra.iter().map(|(name, count)| (name.as_str(), *count));
    for (name, count) in extra.chain(open.iter().map(|(name, count)| (name.as_str(), *count))) {
        *known.entry(name).or_default() += count;
    }
    look_for(sql, led, &known, page)
}

fn look_for(
    sql: &mut dyn Sql,
    led: Led,
    known: &HashMap<&str, f64>,
    page: Page<'_>,
) -> Result<Option<Vec<(String, f64)>>, StoreError> {
    leaders(&mut Lists::new(sql, led), known, page)
}

/// Names and counts of a `SELECT key, count`.
fn open_counts(sql: &mut dyn Sql, open: &str) -> Result<Vec<(String, f64)>, StoreError> {
    let query = match sql.dialect() {
        // One row: thousands of them take longer to send than to find.
        Dialect::Postgres => {
            format!("SELECT array_agg(key), array_agg(CAST(count AS double precision)) FROM ({open}) AS open")
        }
        Dialect::Sqlite => open.to_owned(),
    };
    let mut counts = Vec::new();
    sql.each(&query, &[], &mut |row| {
        match <[Cell; 2]>::try_from(row.0) {
            Ok([Cell::Texts(names), Cell::Reals(values)]) => counts.extend(names.into_iter().zip(values)),
            Ok([Cell::Text(name), count]) => counts.push((name, Row(vec![count]).real(0))),
            _ => {}
        }
        Ok(())
    })?;
    Ok(counts)
}

/// Everything that a range has, summed by the server.
fn rank_all(
    sql: &mut dyn Sql,
    query: &RankingQuery,
    terms: &[Terms],
    cover: &Cover,
    extra: &Extra,
) -> Result<Ranked, StoreError> {
    let columns = [
        Column::Texts(extra.keys().map(String::as_str).collect()),
        Column::Ints(extra.values().map(|count| *count as i64).collect()),
    ];
    let rollups = rollup_sql(terms, cover).map_or(String::new(), |rollups| format!("{rollups} UNION ALL "));
    let after = match &query.after {
        Some((sum, _)) => format!("AND (sum(count) < {sum} OR sum(count) = {sum} AND key > $3)"),
        None => String::new(),
    };
    let statement = format!(
        "SELECT key, CAST(sum(count) AS bigint) FROM ({rollups}SELECT key, count FROM {}) AS counted \
         GROUP BY key HAVING sum(count) > 0 {after} ORDER BY sum(count) DESC, key LIMIT {}",
        sql.dialect().rows(1, &[("key", "text"), ("count", "bigint")]),
        query.limit
    );
    let name = query.after.as_ref().map(|(_, name)| Value::Text(name));
    let values: Vec<Value<'_>> = std::iter::once(Value::Rows(&columns)).chain(name).collect();
    let mut rows = sql.query(&statement, &values)?;
    Ok(rows.iter_mut().map(|row| (row.take_text(0), row.int(1))).collect())
}

fn top_of(
    sql: &mut dyn Sql,
    query: &TopQuery,
    plan: &RankPlan,
    now_ms: i64,
    few: i64,
) -> Result<Vec<(String, f64)>, StoreError> {
    let frontier = Frontier::read(sql)?;
    let mut extra = Extra::new();
    for (name, score) in edge_scores(sql, plan)? {
        *extra.entry(name).or_default() += score;
    }
    let unit = if plan.table == "rollup_minute" { 1 } else { 60 };
    let Some((first, _)) = plan.buckets.first() else { return Ok(Vec::new()) };
    let factor = |minute: i64| {
        let at = usize::try_from(minute.div_euclid(unit) - first).ok();
        at.and_then(|at| plan.buckets.get(at)).map_or(0.0, |(_, factor)| *factor)
    };
    add_pending(sql, &plan.parts, &mut extra, factor)?;
    let has_few = match hours_of_hot(query, now_ms) {
        Some(hours) => has_few(sql, &Cover { hours: Some(hours), ..Cover::default() }, frontier, few)?,
        None => false,
    };
    let terms = if has_few { Vec::new() } else { plan_leaders(query, plan, frontier) };
    if !terms.is_empty() {
        let open = open_sql(&terms, &[], &Cover::default());
        if let Some(first) = lead(sql, &terms, open, &extra, Page::first(query.limit))? {
            return Ok(first);
        }
    }
    top_of_all(sql, plan, &extra)
}

/// Every name of the buckets, summed by the server.
fn top_of_all(sql: &mut dyn Sql, plan: &RankPlan, extra: &Extra) -> Result<Vec<(String, f64)>, StoreError> {
    let factors =
        plan.buckets.iter().map(|(bucket, factor)| format!("(CAST({bucket} AS bigint), CAST({factor:?} AS float8))"));
    let factors = factors.collect::<Vec<_>>().join(", ");
    // Each part by itself: a join of all dimensions with all buckets takes three times as long.
    let of_part = |(dimension, weight): &(Dimension, f64)| {
        format!(
            "SELECT key, sum(count * column2) * CAST({weight:?} AS float8) AS score \
             FROM (VALUES {factors}) AS factors CROSS JOIN {} WHERE dimension = {} AND bucket = column1 GROUP BY key",
            plan.table, *dimension as u8
        )
    };
    let rows = sql.dialect().rows(1, &[("key", "text"), ("score", "float8")]);
    let parts: Vec<String> = plan.parts.iter().map(of_part).chain([format!("SELECT key, score FROM {rows}")]).collect();
    let statement = format!(
        "SELECT key, sum(score) FROM ({}) AS parts GROUP BY key HAVING sum(score) > {SCORE_NOTHING:?} \
         ORDER BY 2 DESC, 1 LIMIT {}",
        parts.join(" UNION ALL "),
        plan.limit
    );
    let columns =
        [Column::Texts(extra.keys().map(String::as_str).collect()), Column::Reals(extra.values().copied().collect())];
    let mut rows = sql.query(&statement, &[Value::Rows(&columns)])?;
    Ok(rows.iter_mut().map(|row| (row.take_text(0), row.real(1))).collect())
}

/// What parts of hours add to a list.
fn edge_scores(sql: &mut dyn Sql, plan: &RankPlan) -> Result<Vec<(String, f64)>, StoreError> {
    let ranges: Vec<Range<i64>> = plan.edges.iter().map(|(range, _)| range.clone()).collect();
    Ok(plan.edge_scores(edge_counts(sql, &ranges, &plan.edge_dimensions())?))
}

/// Counts of ranges of minutes, each within an hour, from raw rows.
pub fn edge_counts(
    sql: &mut dyn Sql,
    ranges: &[Range<i64>],
    dimensions: &[Dimension],
) -> Result<Vec<EdgeCount>, StoreError> {
    let (parts, dialect): (Vec<(Dimension, i64)>, _) = (dimensions.iter().map(|of| (*of, 1)).collect(), sql.dialect());
    let mut counts = Vec::new();
    for Range { start, end } in ranges {
        let raw = std::iter::once(start * MINUTE_MS..end * MINUTE_MS).collect();
        let cover = Cover { raw, ..Cover::default() };
        debug_assert!((end - start) * MINUTE_MS <= HOUR_MS);
        let Some(query) = raw_sql(&parts, &cover, |column, range| dialect.during(column, range)) else { continue };
        sql.each(&query, &[], &mut |mut row| {
            let dimension = dimensions[row.int(0) as usize];
            counts.push(EdgeCount { minute: *start, dimension, name: row.take_text(1), count: row.int(2) });
            Ok(())
        })?;
    }
    Ok(counts)
}
