//! Exact sums of any range of time, as SQL that both ledgers read: the names of tables are the same in both.
//!
//! Numbers of ours stand in the text, so that every range is planned for itself. Raw rows are counted by what they hold
//! and named in Rust, by the functions that the rollups are named by: no collation or `lower()` of a server's is their
//! equal.

use std::borrow::Cow;
use std::ops::Range;

use super::Cover;
use crate::events::{Dimension, fold_keyword, page_key};

/// `SELECT key, count` for all that `cover` has in rollups, each count times its weight; `None` where it has nothing.
pub fn rollup_sql(parts: &[(Dimension, i64)], cover: &Cover) -> Option<String> {
    let hours = cover.hours.iter().map(|range| ("rollup_hour", range));
    let minutes = cover.minutes.iter().map(|range| ("rollup_minute", range));
    let of_range = |(table, range): (&str, &Range<i64>)| {
        let of_part = |(dimension, weight): &(Dimension, i64)| {
            let (code, Range { start, end }) = (*dimension as u8, range);
            format!(
                "SELECT key, count * {weight} AS count FROM {table} \
                 WHERE dimension = {code} AND bucket >= {start} AND bucket < {end}"
            )
        };
        parts.iter().map(of_part).collect::<Vec<_>>()
    };
    let all: Vec<String> = hours.chain(minutes).flat_map(of_range).collect();
    (!all.is_empty()).then(|| all.join(" UNION ALL "))
}

/// `SELECT index of part, name as stored, count` for the raw rows of `cover`; `None` where it has none. `during` writes
/// the condition that a column's time lies in a range of milliseconds.
pub fn raw_sql(
    parts: &[(Dimension, i64)],
    cover: &Cover,
    during: impl Fn(&str, &Range<i64>) -> String,
) -> Option<String> {
    let of_range = |range: &Range<i64>| {
        let of_part = |(index, (dimension, _)): (usize, &(Dimension, i64))| {
            let (table, time, name, count, condition) = source(*dimension);
            let during = during(time, range);
            format!(
                "SELECT {index}, {name}, {count} FROM {table} WHERE {during} AND {condition} AND {name} IS NOT NULL \
                 GROUP BY {name}"
            )
        };
        parts.iter().enumerate().map(of_part).collect::<Vec<_>>()
    };
    let all: Vec<String> = cover.raw.iter().flat_map(of_range).collect();
    (!all.is_empty()).then(|| all.join(" UNION ALL "))
}

/// The name that a raw row counts under.
pub fn raw_name(dimension: Dimension, stored: &str) -> Cow<'_, str> {
    match dimension {
        Dimension::Keyword | Dimension::ZeroResult => fold_keyword(stored),
        Dimension::Page => Cow::Borrowed(page_key(stored)),
        _ => Cow::Borrowed(stored),
    }
}

/// Which rows a dimension counts, as `events::EventStrategy::counts` does: table, time, name, count, condition.
fn source(dimension: Dimension) -> (&'static str, &'static str, &'static str, &'static str, &'static str) {
    let of_events = |name, condition| ("events", "event_time", name, "count(*)", condition);
    match dimension {
        Dimension::Keyword => of_events("keyword", "event_type = 'SEARCH'"),
        Dimension::ZeroResult => of_events("keyword", "event_type = 'SEARCH' AND result_count = 0"),
        Dimension::PostViews => of_events("post_id", "event_type = 'PAGE_VIEW'"),
        Dimension::PostClicks => of_events("post_id", "event_type = 'CLICK'"),
        Dimension::Page => of_events("url", "event_type = 'PAGE_VIEW'"),
        Dimension::Component => of_events("CAST(component_id AS text)", "event_type = 'CLICK'"),
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
