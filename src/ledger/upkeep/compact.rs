//! Compaction: pending counts of batches are added to the rollups, many batches at once.
//!
//! Counts of closed hours are added to their day and span too, and their hour becomes dirty: its points and bitmaps do not
//! know the late events.

use std::collections::{BTreeMap, BTreeSet};

use super::steps::Steps;
use crate::events::Dimension;
use crate::ledger::delta;
use crate::ledger::frontier::Frontier;
use crate::ledger::sql::{Column, Sql, Value, joined};
use crate::limits::{COMPACT_BYTES_MAX, COMPACT_ROWS_MAX, SPAN_DAYS};
use crate::ports::StoreError;

/// Adds everything that is pending.
pub fn run<S: Steps>(steps: &mut S) -> Result<(), StoreError> {
    while steps.step(some)? {}
    Ok(())
}

/// Counts by dimension, name and bucket.
type Counts = BTreeMap<(u8, Box<str>, i64), i64>;

/// The rollups that a step adds to.
#[derive(Default)]
struct Sums {
    minutes: Counts,
    hours: Counts,
    /// Minutes with events.
    touched: BTreeSet<i64>,
}

impl Sums {
    fn add(&mut self, dimension: u8, oldest_minute: i64, counts: &[u8]) -> Result<(), StoreError> {
        delta::read(counts, |minute, key, count| {
            *self.hours.entry((dimension, key.into(), minute.div_euclid(60))).or_default() += count;
            if dimension == Dimension::Type as u8 {
                self.touched.insert(minute);
            }
            if minute > oldest_minute {
                *self.minutes.entry((dimension, key.into(), minute)).or_default() += count;
            }
        })
    }
}

/// Adds some of it; true if more is pending.
fn some(sql: &mut dyn Sql) -> Result<bool, StoreError> {
    let (mut sums, mut ids, mut bytes) = (Sums::default(), Vec::new(), 0);
    let query =
        format!("SELECT id, dimension, oldest_minute, counts FROM rollup_delta ORDER BY id LIMIT {COMPACT_ROWS_MAX}");
    let mut read = 0;
    sql.each(&query, &[], &mut |row| {
        read += 1;
        if bytes < COMPACT_BYTES_MAX {
            bytes += row.bytes(3).len();
            ids.push(row.int(0));
            sums.add(row.int(1) as u8, row.int(2), row.bytes(3))?;
        }
        Ok(())
    })?;
    if ids.is_empty() {
        return Ok(false);
    }
    let is_left = read == COMPACT_ROWS_MAX || ids.len() < read;
    write(sql, &sums)?;
    forget_minutes(sql, sums.touched)?;
    let list = sql.dialect().rows(1, &[("id", "bigint")]);
    sql.execute(
        &format!("DELETE FROM rollup_delta WHERE id IN (SELECT r.id FROM {list})"),
        &[Value::Rows(&[Column::Ints(ids)])],
    )?;
    Ok(is_left)
}

fn write(sql: &mut dyn Sql, sums: &Sums) -> Result<(), StoreError> {
    let frontier = Frontier::read(sql)?;
    add(sql, "rollup_minute", "dimension, bucket, key", &sums.minutes)?;
    add(sql, "rollup_hour", "dimension, bucket, key", &sums.hours)?;
    let total = |dimension: u8, key: &str| if dimension == Dimension::Type as u8 { key.into() } else { "".into() };
    let mut totals = Counts::new();
    let (mut days, mut spans, mut dirty) = (Counts::new(), Counts::new(), BTreeSet::new());
    for ((dimension, key, hour), count) in &sums.hours {
        *totals.entry((*dimension, total(*dimension, key), 0)).or_default() += count;
        if *hour < frontier.until_hour {
            let day = hour.div_euclid(24);
            *days.entry((*dimension, key.clone(), day)).or_default() += count;
            if day < frontier.until_day {
                *spans.entry((*dimension, key.clone(), day.div_euclid(SPAN_DAYS))).or_default() += count;
            }
            if *dimension == Dimension::Type as u8 {
                dirty.insert(*hour);
            }
        }
    }
    add_totals(sql, &totals)?;
    add(sql, "rollup_day", "dimension, key, bucket", &days)?;
    add(sql, "rollup_span", "dimension, key, bucket", &spans)?;
    mark_dirty(sql, &dirty.into_iter().collect::<Vec<_>>())
}

/// Adds counts to a rollup whose primary key is `key`.
fn add(sql: &mut dyn Sql, table: &str, key: &str, counts: &Counts) -> Result<(), StoreError> {
    if counts.is_empty() {
        return Ok(());
    }
    let columns = [
        Column::Ints(counts.keys().map(|(dimension, ..)| i64::from(*dimension)).collect()),
        Column::Texts(counts.keys().map(|(_, key, _)| &**key).collect()),
        Column::Ints(counts.keys().map(|(.., bucket)| *bucket).collect()),
        Column::Ints(counts.values().copied().collect()),
    ];
    let rows =
        sql.dialect().rows(1, &[("dimension", "bigint"), ("key", "text"), ("bucket", "bigint"), ("count", "bigint")]);
    let statement = format!(
        "INSERT INTO {table} (dimension, key, bucket, count) SELECT dimension, key, bucket, count FROM {rows} WHERE true \
         ON CONFLICT ({key}) DO UPDATE SET count = {table}.count + excluded.count"
    );
    sql.execute(&statement, &[Value::Rows(&columns)]).map(drop)
}

fn add_totals(sql: &mut dyn Sql, totals: &Counts) -> Result<(), StoreError> {
    for ((dimension, key, _), count) in totals {
        let statement = "INSERT INTO rollup_total (dimension, key, count) VALUES ($1, $2, $3) \
             ON CONFLICT (dimension, key) DO UPDATE SET count = rollup_total.count + excluded.count";
        sql.execute(statement, &[Value::Int((*dimension).into()), Value::Text(key), Value::Int(*count)])?;
    }
    Ok(())
}

/// Says that hours have to be counted (again).
pub fn mark_dirty(sql: &mut dyn Sql, hours: &[i64]) -> Result<(), StoreError> {
    if hours.is_empty() {
        return Ok(());
    }
    let rows = sql.dialect().rows(1, &[("hour", "bigint")]);
    let statement = format!(
        "INSERT INTO series (minutes, event_type, at, count) SELECT 60, 0, hour * 60, 0 FROM {rows} WHERE true \
         ON CONFLICT (minutes, event_type, at) DO UPDATE SET users = NULL, count = series.count + 1"
    );
    sql.execute(&statement, &[Value::Rows(&[Column::Ints(hours.to_vec())])]).map(drop)
}

/// As [`mark_dirty`], for hours that were counted.
pub fn mark_counted_dirty_sql(hours: &[i64]) -> String {
    let ats = joined([-1].into_iter().chain(hours.iter().map(|hour| hour * 60)));
    format!("UPDATE series SET users = NULL, count = count + 1 WHERE minutes = 60 AND event_type = 0 AND at IN ({ats})")
}

/// Forgets that minutes of open hours were counted: an erasure may have touched them.
pub const FORGET_OPEN_MINUTES: &str = "DELETE FROM series WHERE minutes = 1 AND event_type = 0 \
     AND at >= (SELECT until_hour * 60 FROM rollup_state)";

/// As [`FORGET_OPEN_MINUTES`], for minutes that have more events now.
fn forget_minutes(sql: &mut dyn Sql, minutes: BTreeSet<i64>) -> Result<(), StoreError> {
    let rows = sql.dialect().rows(1, &[("minute", "bigint")]);
    let statement = format!("{FORGET_OPEN_MINUTES} AND at IN (SELECT minute FROM {rows})");
    sql.execute(&statement, &[Value::Rows(&[Column::Ints(minutes.into_iter().collect())])]).map(drop)
}
