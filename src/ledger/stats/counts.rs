//! Exact counts: what `counting` decides, read.

use super::counting::{Named, RawCount, RollupCount, named_values, plan_count};
use super::exact::{Terms, name_sum_sql};
use super::sums::sums;
use crate::ledger::delta::pending;
use crate::ledger::frontier::Frontier;
use crate::ledger::sql::{Dialect, Sql, Value, joined};
use crate::ledger::{HOUR_MS, MINUTE_MS};
use crate::limits::EXACT_MINUTES;
use crate::ports::{CountFilter, StoreError};

pub fn count(sql: &mut dyn Sql, filter: &CountFilter) -> Result<u64, StoreError> {
    let frontier = Frontier::read(sql)?;
    let minutes_since = frontier.minutes_since.max(frontier.newest_ms.div_euclid(MINUTE_MS) - EXACT_MINUTES);
    let to_ms = filter.to_ms.map(|to_ms| frontier.end_ms(to_ms));
    let plan = plan_count(&CountFilter { to_ms, ..filter.clone() }, minutes_since);
    let mut total = 0;
    if !plan.rollups.is_empty() {
        for rollup in &plan.rollups {
            total += count_rollup(sql, rollup, frontier)?;
        }
        total += count_pending(sql, &plan.rollups)?;
    }
    if sql.dialect() == Dialect::Postgres && plan.raw.iter().any(is_long) {
        // Up to a month of rows, one by one: workers may help here, as many as the server was given.
        sql.batch("SET LOCAL max_parallel_workers_per_gather TO DEFAULT")?;
    }
    total += count_raw(sql, &plan.raw, filter)?;
    Ok(total.max(0).cast_unsigned())
}

fn count_rollup(sql: &mut dyn Sql, rollup: &RollupCount, frontier: Frontier) -> Result<i64, StoreError> {
    let terms = [Terms { dimension: rollup.dimension, weight: 1.0, sums: sums(&rollup.hours, frontier) }];
    let key = if sql.dialect() == Dialect::Postgres { "$1::text" } else { "$1" };
    let mut sum = name_sum_sql(&terms, key, true);
    if !rollup.minutes.is_empty() {
        // Minute by minute, so that the key is looked up and no other name of a minute is read.
        let minutes = joined(rollup.minutes.iter().cloned().flatten());
        let code = rollup.dimension as u8;
        sum += &format!(
            " + coalesce((SELECT sum(count) FROM rollup_minute \
               WHERE dimension = {code} AND bucket IN ({minutes}) AND key = {key}), 0)"
        );
    }
    let query = format!("SELECT CAST({sum} AS bigint)");
    Ok(sql.number(&query, &[Value::Text(&rollup.key)])?.unwrap_or_default())
}

fn count_pending(sql: &mut dyn Sql, rollups: &[RollupCount]) -> Result<i64, StoreError> {
    let mut total = 0;
    pending(sql, rollups.iter().map(|rollup| rollup.dimension), |code, minute, key, count| {
        let is_counted =
            |rollup: &&RollupCount| rollup.dimension as u8 == code && rollup.key == key && rollup.contains(minute);
        total += count * rollups.iter().filter(is_counted).count() as i64;
    })?;
    Ok(total)
}

/// To start a worker takes longer than to read the rows of some hours.
fn is_long(RawCount { from_ms, to_ms }: &RawCount) -> bool {
    from_ms.zip(*to_ms).is_none_or(|(from, to)| to - from > 6 * HOUR_MS)
}

/// One statement for all ranges, which shares its time among them.
fn count_raw(sql: &mut dyn Sql, ranges: &[RawCount], filter: &CountFilter) -> Result<i64, StoreError> {
    if ranges.is_empty() {
        return Ok(0);
    }
    let (named, dialect) = (named_values(filter), sql.dialect());
    let values: Vec<Value<'_>> = named
        .iter()
        .map(|(_, value)| match value {
            Named::Number(number) => Value::Int(*number),
            Named::Text(text) => Value::Text(text),
        })
        .collect();
    let mut conditions: Vec<String> =
        (1..).zip(&named).map(|(at, (condition, _))| format!("{condition} ${at}")).collect();
    if dialect == Dialect::Postgres {
        conditions.extend(terms_condition(&named));
    }
    let of_range = |range: &RawCount| {
        let from = range.from_ms.map(|from| format!("event_time >= {}", dialect.time(from)));
        let to = range.to_ms.map(|to| format!("event_time < {}", dialect.time(to)));
        let all: Vec<String> = conditions.iter().cloned().chain(from).chain(to).collect();
        let all = if all.is_empty() { "true".to_owned() } else { all.join(" AND ") };
        format!("SELECT count(*) AS number FROM events WHERE {all}")
    };
    let counts = ranges.iter().map(of_range).collect::<Vec<_>>().join(" UNION ALL ");
    let query = format!("SELECT CAST(sum(number) AS bigint) FROM ({counts}) AS counts");
    Ok(sql.number(&query, &values)?.unwrap_or_default())
}

/// The expression that PostgreSQL's index of a closed day is over: see `event_terms` in schema.sql.
pub const TERMS: &str = "event_terms(component_id, element_id, keyword_key, post_id, page)";

/// Lets the index find rows that match at least two of `named`, whose parameters are in this order. Hashes may collide, so the
/// conditions themselves stay.
fn terms_condition(named: &[(&'static str, Named<'_>)]) -> Option<String> {
    let parameter = |column: &str| (1..).zip(named).find(|(_, (condition, _))| condition.ends_with(column));
    let columns = ["component_id =", "element_id =", "keyword_key =", "post_id =", "page ="].map(parameter);
    if columns.iter().flatten().count() < 2 {
        return None;
    }
    let values = columns.map(|found| found.map_or("NULL".to_owned(), |(at, _)| format!("${at}")));
    Some(format!("{TERMS} @> event_terms({})", values.join(", ")))
}
