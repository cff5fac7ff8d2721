//! Points of the minutes of open hours, counted soon after a minute is over: a series by minute
//! reads the rows of the last minute or two, not those of up to 70.
//!
//! Counting reads a snapshot, beside batches. A point is written if compaction has added as many
//! events to the rollups as the point has: then none came in meanwhile. Compaction forgets minutes
//! that late events touch, an erasure forgets the minutes of all open hours.

use std::collections::BTreeMap;
use std::ops::Range;

use super::count::{erasures, minutes_in, write_points};
use super::steps::Steps;
use crate::ledger::MINUTE_MS;
use crate::ledger::frontier::Frontier;
use crate::ledger::sql::{Sql, joined};
use crate::ledger::stats::points::CountedPoint;
use crate::limits::{COUNT_MINUTE_GRACE_MS, COUNT_MINUTES_MAX, COUNT_MINUTES_SINCE};
use crate::ports::StoreError;

/// Points, and the number of the last erasure that they know.
type Counted = (Vec<CountedPoint>, i64);

/// Counts the minutes that are due, the oldest first; true if something is left.
pub fn run<S: Steps>(steps: &mut S, now_ms: i64, has_time: &dyn Fn() -> bool) -> Result<bool, StoreError> {
    let end = (now_ms - COUNT_MINUTE_GRACE_MS).div_euclid(MINUTE_MS);
    for range in steps.look(move |sql| missing(sql, end))? {
        if !has_time() {
            return Ok(true);
        }
        let counted = steps.look({
            let range = range.clone();
            move |sql| {
                let points = minutes_in(sql, std::slice::from_ref(&(range.start * MINUTE_MS..range.end * MINUTE_MS)))?;
                Ok((points, erasures(sql)?))
            }
        })?;
        steps.step(move |sql| write(sql, &range, counted))?;
    }
    Ok(false)
}

/// Events of minutes that were not counted.
fn events(sql: &mut dyn Sql, Range { start, end }: &Range<i64>) -> Result<BTreeMap<i64, i64>, StoreError> {
    let query = format!(
        "SELECT bucket, CAST(sum(count) AS bigint) FROM rollup_minute \
         WHERE dimension = 1 AND bucket >= {start} AND bucket < {end} AND NOT EXISTS \
           (SELECT 1 FROM series WHERE minutes = 1 AND event_type = 0 AND at = bucket) \
         GROUP BY bucket ORDER BY bucket"
    );
    Ok(sql.query(&query, &[])?.iter().map(|row| (row.int(0), row.int(1))).collect())
}

/// Minutes before `end` that were not counted, some in each range.
fn missing(sql: &mut dyn Sql, end: i64) -> Result<Vec<Range<i64>>, StoreError> {
    let frontier = Frontier::read(sql)?;
    let since = (end - COUNT_MINUTES_SINCE).max(frontier.until_hour * 60).max(frontier.minutes_since);
    let mut ranges: Vec<Range<i64>> = Vec::new();
    for minute in events(sql, &(since..end))?.into_keys() {
        match ranges.last_mut() {
            Some(range) if minute - range.start < COUNT_MINUTES_MAX => range.end = minute + 1,
            _ => ranges.push(minute..minute + 1),
        }
    }
    Ok(ranges)
}

/// Writes the points of the minutes whose events are as many as in the rollups.
fn write(sql: &mut dyn Sql, range: &Range<i64>, counted: Counted) -> Result<(), StoreError> {
    let (mut points, erased) = counted;
    if erasures(sql)? != erased || Frontier::read(sql)?.until_hour * 60 > range.start {
        return Ok(());
    }
    let mut events = events(sql, range)?;
    let of_all = points.iter().filter(|(_, kind, ..)| *kind == 0);
    let of_all: BTreeMap<i64, i64> = of_all.map(|(_, _, at, count, _)| (*at, *count)).collect();
    events.retain(|at, count| of_all.get(at) == Some(count));
    points.retain(|(_, _, at, ..)| events.contains_key(at));
    sql.batch(&format!(
        "DELETE FROM series WHERE minutes = 1 AND event_type IN (1, 2, 3, 4, 5) AND at IN ({})",
        joined([-1].into_iter().chain(events.into_keys()))
    ))?;
    write_points(sql, &points)
}
