//! Closing: hours that are over are added to their day, days to their span of 32 days.
//!
//! Only upkeep moves the frontier, and compaction adds later counts of closed hours to the day and span itself: so batches take
//! no lock for it.

use super::compact::mark_dirty;
use super::steps::Steps;
use crate::ledger::frontier::Frontier;
use crate::ledger::sql::Sql;
use crate::limits::{CLOSE_EVENTS_MAX, CLOSE_HOURS_MAX, SPAN_DAYS};
use crate::ports::StoreError;

/// Dimensions that have rollups.
const DIMENSIONS: std::ops::RangeInclusive<u8> = 1..=12;

/// Closes hours before `due_hour`, and days, as far as the time goes; true if something is left.
pub fn run<S: Steps>(steps: &mut S, due_hour: i64, has_time: &dyn Fn() -> bool) -> Result<bool, StoreError> {
    while has_time() {
        if !steps.step(move |sql| some(sql, due_hour))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Some hours or some days; false if nothing is due.
fn some(sql: &mut dyn Sql, due_hour: i64) -> Result<bool, StoreError> {
    let frontier = Frontier::read(sql)?;
    // Hours first: a day with very many names must not keep them.
    if let Some(first) = next_hour(sql, frontier.until_hour, due_hour)? {
        let end = end_of_few(sql, 1, first, due_hour)?;
        add(sql, "rollup_day", 24, (first, end))?;
        let hours = format!(
            "SELECT DISTINCT bucket FROM rollup_hour WHERE dimension = 1 AND bucket >= {first} AND bucket < {end}"
        );
        let hours = sql.numbers(&hours, &[])?;
        mark_dirty(sql, &hours)?;
        sql.batch(&format!("UPDATE rollup_state SET until_hour = {end}"))?;
        return Ok(true);
    }
    let over = frontier.until_hour.div_euclid(24) * 24;
    if let Some(hour) = next_hour(sql, frontier.until_day * 24, over)? {
        let first = hour.div_euclid(24) * 24;
        let end = end_of_few(sql, 24, first, over)?;
        add(sql, "rollup_span", 24 * SPAN_DAYS, (first, end))?;
        sql.batch(&format!("UPDATE rollup_state SET until_day = {}", end.div_euclid(24)))?;
        return Ok(true);
    }
    Ok(false)
}

/// The first hour from `from` on that has a row of any dimension.
fn next_hour(sql: &mut dyn Sql, from: i64, end: i64) -> Result<Option<i64>, StoreError> {
    let first = |dimension: u8| {
        format!(
            "SELECT min(bucket) AS hour FROM rollup_hour WHERE dimension = {dimension} AND bucket >= {from} AND bucket < {end}"
        )
    };
    let all: Vec<String> = DIMENSIONS.map(first).collect();
    sql.number(&format!("SELECT min(hour) FROM ({}) AS hours", all.join(" UNION ALL ")), &[])
}

/// Where to stop: after the first unit of `unit` hours, or later while the units together have few events. An import of a year
/// has thousands of hours with few events each, and a step costs more than those.
fn end_of_few(sql: &mut dyn Sql, unit: i64, first: i64, end: i64) -> Result<i64, StoreError> {
    let until = end.min(first + CLOSE_HOURS_MAX);
    let query = format!(
        "SELECT bucket / {unit}, CAST(sum(count) AS bigint) FROM rollup_hour \
         WHERE dimension = 1 AND bucket >= {first} AND bucket < {until} GROUP BY 1 ORDER BY 1"
    );
    let (mut events, mut end_of_few) = (0, first + unit);
    for row in sql.query(&query, &[])? {
        events += row.int(1);
        if events > CLOSE_EVENTS_MAX {
            break;
        }
        end_of_few = end_of_few.max((row.int(0) + 1) * unit);
    }
    Ok(end_of_few)
}

/// Adds hours to the buckets of `table`, each of `bucket` hours.
fn add(sql: &mut dyn Sql, table: &str, bucket: i64, (first, end): (i64, i64)) -> Result<(), StoreError> {
    for dimension in DIMENSIONS {
        sql.batch(&format!(
            "INSERT INTO {table} (dimension, bucket, key, count) \
               SELECT {dimension}, bucket / {bucket}, key, sum(count) FROM rollup_hour \
               WHERE dimension = {dimension} AND bucket >= {first} AND bucket < {end} GROUP BY 2, 3 ORDER BY 3, 2 \
             ON CONFLICT (dimension, key, bucket) DO UPDATE SET count = {table}.count + excluded.count"
        ))?;
    }
    Ok(())
}
