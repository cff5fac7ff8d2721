//! Exact sums of any range of time, as SQL that both ledgers read: the names of tables are the same in both.
//!
//! Numbers of ours stand in the text, so that every range is planned for itself. Raw rows are counted by what they hold
//! and named in Rust, by the functions that the rollups are named by: no collation or `lower()` of a server's is their
//! equal.

use std::collections::BTreeMap;
use std::ops::Range;

use super::cover::Cover;
use super::sums::Sums;
use crate::events::Dimension;
use crate::ledger::frontier::Frontier;
use crate::limits::{OPEN_HOURS_MAX, RANK_ALL_EVENTS_A_ROW, RANK_ALL_EVENTS_MAX};

/// What the sum of one name is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    pub dimension: Dimension,
    pub weight: f64,
    pub sums: Sums,
}

/// `SELECT key, count` for all that a range has in rollups, each count times its weight; `None` where it has nothing.
pub fn rollup_sql(terms: &[Terms], cover: &Cover) -> Option<String> {
    let all: Vec<String> = terms.iter().flat_map(|term| rollups_of(term, cover)).collect();
    (!all.is_empty()).then(|| all.join(" UNION ALL "))
}

fn rollups_of(Terms { dimension, weight, sums }: &Terms, cover: &Cover) -> Vec<String> {
    let ranges = rollup_ranges(sums).chain(cover.minutes.iter().map(|range| ("rollup_minute", range, 1)));
    let of_hours = [1, -1].into_iter().filter_map(|times| {
        let hours = sums.hours.iter().filter(|(_, found)| *found == times);
        let hours: Vec<String> = hours.map(|(hour, _)| hour.to_string()).collect();
        (!hours.is_empty()).then(|| ("rollup_hour", format!("bucket IN ({})", hours.join(", ")), times))
    });
    let (code, weight) = (*dimension as u8, *weight as i64);
    // Said again, so that SQLite knows that the index by count has them: that of the key would be read for all days.
    let listed = if (2..=8).contains(&code) { " AND dimension BETWEEN 2 AND 8" } else { "" };
    ranges
        .map(|(table, Range { start, end }, times)| (table, format!("bucket >= {start} AND bucket < {end}"), times))
        .chain(of_hours)
        .map(|(table, condition, times)| {
            let factor = weight * times;
            format!(
                "SELECT key, count * {factor} AS count FROM {table} WHERE dimension = {code}{listed} AND {condition}"
            )
        })
        .collect()
}

/// Table and buckets, with 1 where they add and -1 where they are taken off.
fn rollup_ranges(sums: &Sums) -> impl Iterator<Item = (&'static str, &Range<i64>, i64)> {
    let days = sums.days.iter().map(|range| ("rollup_day", range, 1));
    let others = [("rollup_span", &sums.spans, 1), ("rollup_day", &sums.days_off, -1), ("rollup_hour", &sums.open, 1)];
    days.chain(others).filter(|(_, range, _)| !range.is_empty())
}

/// An expression: what one name, written as `key` says, sums up to, each term times its weight. Hours that are not closed
/// are in it if `with_open`.
pub fn name_sum_sql(terms: &[Terms], key: &str, with_open: bool) -> String {
    let mut all = vec!["0.0".to_owned()];
    let mut hours: BTreeMap<u8, Vec<(i64, f64)>> = BTreeMap::new();
    for Terms { dimension, weight, sums } in terms {
        let code = *dimension as u8;
        let of_dimension = hours.entry(code).or_default();
        of_dimension.extend(sums.hours.iter().map(|(hour, times)| (*hour, *times as f64 * weight)));
        let few = sums.open.end - sums.open.start <= OPEN_HOURS_MAX;
        if with_open && few {
            of_dimension.extend(sums.open.clone().map(|hour| (hour, *weight)));
        }
        let ranges = rollup_ranges(sums).filter(|(table, ..)| *table != "rollup_hour" || with_open && !few);
        all.extend(ranges.map(|(table, Range { start, end }, times)| {
            let weight = weight * times as f64;
            format!(
                "{weight:?} * coalesce((SELECT sum(CAST(count AS double precision)) FROM {table} \
                 WHERE dimension = {code} AND key = {key} AND bucket >= {start} AND bucket < {end}), 0)"
            )
        }));
    }
    all.extend(hours.iter().filter(|(_, hours)| !hours.is_empty()).map(|(code, hours)| {
        format!(
            "coalesce((SELECT sum(count * column2) FROM (VALUES {}) AS hours \
             CROSS JOIN rollup_hour WHERE dimension = {code} AND bucket = column1 AND key = {key}), 0)",
            values(hours)
        )
    }));
    all.join(" + ")
}

/// Of a count. PostgreSQL takes what stands in the text for a `numeric`, and multiplies and adds those half as fast; counts are
/// whole numbers far below 2 to the 53rd.
fn factor(weight: f64) -> String {
    format!("CAST({weight:?} AS double precision)")
}

fn values(hours: &[(i64, f64)]) -> String {
    // The first row says what the columns are: a whole number alone would be a small one.
    let rows = hours.iter().map(|(hour, weight)| format!("(CAST({hour} AS bigint), {})", factor(*weight)));
    rows.collect::<Vec<_>>().join(", ")
}

/// `SELECT key, count` for what no list of names in order has: hours that are not closed, minutes, and parts of days of
/// counts that may be below zero. `None` where there is nothing, or so many hours ([`has_many_open`]) that nobody reads it:
/// a range may end in the year 9999, and each hour is named.
pub fn open_sql(terms: &[Terms], parts: &[(Dimension, i64)], cover: &Cover) -> Option<String> {
    if has_many_open(terms) {
        return None;
    }
    let mut hours: BTreeMap<u8, Vec<(i64, f64)>> = BTreeMap::new();
    for Terms { dimension, weight, sums } in terms {
        let of_dimension = hours.entry(*dimension as u8).or_default();
        of_dimension.extend(sums.open.clone().map(|hour| (hour, *weight)));
        if *dimension == Dimension::PostLikes {
            of_dimension.extend(sums.hours.iter().map(|(hour, times)| (*hour, *times as f64 * weight)));
        }
    }
    let of_hours = hours.iter().filter(|(_, hours)| !hours.is_empty()).map(|(code, hours)| match hours.as_slice() {
        // Nothing to add up.
        [(hour, weight)] => {
            format!(
                "SELECT key, count * {} AS count FROM rollup_hour WHERE dimension = {code} AND bucket = {hour}",
                factor(*weight)
            )
        }
        _ => format!(
            "SELECT key, sum(count * column2) AS count FROM (VALUES {}) AS hours CROSS JOIN rollup_hour \
             WHERE dimension = {code} AND bucket = column1 GROUP BY key",
            values(hours)
        ),
    });
    let of_minutes = cover.minutes.iter().flat_map(|Range { start, end }| {
        parts.iter().map(move |(dimension, weight)| {
            format!(
                "SELECT key, sum(count * {}) AS count FROM rollup_minute \
                 WHERE dimension = {} AND bucket >= {start} AND bucket < {end} GROUP BY key",
                factor(*weight as f64),
                *dimension as u8
            )
        })
    });
    let all: Vec<String> = of_hours.chain(of_minutes).collect();
    (!all.is_empty()).then(|| all.join(" UNION ALL "))
}

/// More hours are open than are read one by one.
pub fn has_many_open(terms: &[Terms]) -> bool {
    terms.iter().any(|term| term.sums.open.end - term.sums.open.start > OPEN_HOURS_MAX)
}

/// A ranking of a range in which no more happened reads all its names.
pub fn few_events(limit: usize) -> i64 {
    let of_rows = i64::try_from(limit).unwrap_or(i64::MAX).saturating_mul(RANK_ALL_EVENTS_A_ROW);
    of_rows.min(RANK_ALL_EVENTS_MAX)
}

/// `SELECT` how many events were counted in what a range reads of rollups, what is taken off included: no dimension has
/// more rows than that, but for likes that went with their posts. `None`: it reads none.
pub fn events_sql(cover: &Cover, frontier: Frontier) -> Option<String> {
    let dimension = Dimension::Type;
    let terms = [Terms { dimension, weight: 1.0, sums: Sums::of(cover, frontier) }];
    rollup_sql(&terms, cover)
        .map(|sql| format!("SELECT CAST(coalesce(sum(abs(count)), 0) AS bigint) FROM ({sql}) AS events"))
}

/// Terms without the parts of days that [`open_sql`] reads whole.
pub fn listed(terms: &[Terms]) -> Vec<Terms> {
    let mut terms = terms.to_vec();
    for term in terms.iter_mut().filter(|term| term.dimension == Dimension::PostLikes) {
        term.sums.hours.clear();
    }
    terms
}

/// `SELECT index of part, name as stored, count` for the raw rows of `cover`; `None` where it has none. `during` writes
/// the condition that a column's time lies in a range of milliseconds.
pub fn raw_sql(
    parts: &[(Dimension, i64)],
    cover: &Cover,
    during: impl Fn(&str, &Range<i64>) -> String,
) -> Option<String> {
    // Views and clicks of posts share no row, and are read together.
    let are_apart = |one: Dimension, other| one != other && [one, other].iter().all(|of| POSTS_OF_ROWS.contains(of));
    let mut scans: Vec<Vec<(usize, Dimension)>> = Vec::new();
    for part in parts.iter().map(|(dimension, _)| *dimension).enumerate() {
        match scans.iter_mut().find(|scan| scan.iter().all(|(_, known)| are_apart(*known, part.1))) {
            Some(scan) => scan.push(part),
            None => scans.push(vec![part]),
        }
    }
    let of_range = |range: &Range<i64>| {
        let of_scan = |scan: &Vec<(usize, Dimension)>| {
            let (table, time, name, count, _) = source(scan[0].1);
            let during = during(time, range);
            let conditions = scan.iter().map(|(index, dimension)| (index, source(*dimension).4));
            let which: Vec<String> =
                conditions.clone().map(|(index, condition)| format!("WHEN {condition} THEN {index}")).collect();
            let wanted: Vec<&str> = conditions.map(|(_, condition)| condition).collect();
            format!(
                "SELECT CASE {} END, {name}, {count} FROM {table} \
                 WHERE {during} AND ({}) AND {name} IS NOT NULL GROUP BY 1, 2",
                which.join(" "),
                wanted.join(" OR ")
            )
        };
        scans.iter().map(of_scan).collect::<Vec<_>>()
    };
    let all: Vec<String> = cover.raw.iter().flat_map(of_range).collect();
    (!all.is_empty()).then(|| all.join(" UNION ALL "))
}

/// Dimensions of one source, told apart by the type of their events.
const POSTS_OF_ROWS: [Dimension; 2] = [Dimension::PostViews, Dimension::PostClicks];

/// Which rows a dimension counts, as `events::EventStrategy::counts` does: table, time, name, count, condition.
fn source(dimension: Dimension) -> (&'static str, &'static str, &'static str, &'static str, &'static str) {
    let of_events = |name, condition| ("events", "event_time", name, "count(*)", condition);
    match dimension {
        Dimension::Keyword => of_events("keyword_key", "event_type = 'SEARCH'"),
        Dimension::ZeroResult => of_events("keyword_key", "event_type = 'SEARCH' AND result_count = 0"),
        Dimension::PostViews => of_events("post_id", "event_type = 'PAGE_VIEW'"),
        Dimension::PostClicks => of_events("post_id", "event_type = 'CLICK'"),
        Dimension::Page => of_events("page", "event_type = 'PAGE_VIEW'"),
        // As `events::component_key` names them.
        Dimension::Component => {
            of_events("coalesce(CAST(component_id AS text), '#' || element_id)", "event_type = 'CLICK'")
        }
        // A like that changed nothing counts nothing: the log knows.
        Dimension::PostLikes => (
            "post_like_log",
            "changed_at",
            "post_id",
            "sum(CASE action WHEN 'LIKE' THEN 1 ELSE -1 END)",
            "action IN ('LIKE', 'UNLIKE')",
        ),
        // Never ranked by name.
        _ => of_events("event_type", "event_type IS NOT NULL"),
    }
}
