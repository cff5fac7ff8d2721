//! What an exact count reads: rollups if they hold exactly the rows asked for, else raw rows.
//!
//! | filter | whole hours from |
//! |---|---|
//! | none, or a type | the rollup of types |
//! | one of component, element, keyword, post, page; with or without a type | the type's own rollup of it, and the mentions of the other types |
//! | several of them | rows, which on PostgreSQL an index of each closed day finds |
//!
//! Hours that a range cuts are counted by minutes, if these are kept, and from raw rows: these match the same rows.

use std::ops::Range;

use super::cover::cover;
use crate::events::{Dimension, EventType, STRATEGIES, component_key, mention_key};
use crate::ledger::HOUR_MS;
use crate::ports::CountFilter;

/// After the last hour that can be stored: see `draft`.
const HOURS_END: i64 = 253_402_300_800 / 3_600;

/// The parts whose sum is the count; all are read in one snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CountPlan {
    pub rollups: Vec<RollupCount>,
    pub raw: Vec<RawCount>,
}

/// What one key sums up to over whole hours and minutes.
#[derive(Clone, Debug, PartialEq)]
pub struct RollupCount {
    pub dimension: Dimension,
    pub key: String,
    /// Hours since the epoch.
    pub hours: Range<i64>,
    /// Minutes since the epoch.
    pub minutes: Vec<Range<i64>>,
}

impl RollupCount {
    pub fn contains(&self, minute: i64) -> bool {
        self.hours.contains(&minute.div_euclid(60)) || self.minutes.iter().any(|minutes| minutes.contains(&minute))
    }
}

/// Raw rows of one range, in milliseconds: from (inclusive), to (exclusive).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RawCount {
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
}

/// What a row of `events` must have in a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Named<'a> {
    Number(i64),
    Text(&'a str),
}

/// The conditions of a filter but for its time, each to be followed by a parameter.
pub fn named_values(filter: &CountFilter) -> Vec<(&'static str, Named<'_>)> {
    let texts = [
        ("event_type =", filter.event_type.map(EventType::name)),
        ("component_id IS NULL AND element_id =", filter.element_id.as_deref()),
        ("post_id =", filter.post_id.as_deref()),
        ("keyword_key =", filter.keyword.as_deref()),
        ("page =", filter.page.as_deref()),
    ];
    let texts = texts.into_iter().filter_map(|(condition, text)| Some((condition, Named::Text(text?))));
    filter.component_id.map(|id| ("component_id =", Named::Number(id))).into_iter().chain(texts).collect()
}

/// Decides what `filter` reads. Minutes from `minutes_since` on are read as such.
pub fn plan_count(filter: &CountFilter, minutes_since: i64) -> CountPlan {
    let (from_ms, to_ms) = (filter.from_ms, filter.to_ms);
    if filter.is_empty() {
        return CountPlan::default();
    }
    let sums = rollups_of(filter);
    if sums.is_empty() {
        return CountPlan { rollups: Vec::new(), raw: vec![RawCount { from_ms, to_ms }] };
    }
    let end_ms = HOURS_END * HOUR_MS;
    let range = from_ms.unwrap_or(0).clamp(0, end_ms)..to_ms.unwrap_or(end_ms).clamp(0, end_ms);
    let cover = cover(range, Some(minutes_since));
    let hours = cover.hours.unwrap_or(0..0);
    // A range may lie within one minute.
    let sums = if hours.is_empty() && cover.minutes.is_empty() { Vec::new() } else { sums };
    let rollup =
        |(dimension, key)| RollupCount { dimension, key, hours: hours.clone(), minutes: cover.minutes.clone() };
    let raw = cover.raw.iter().map(|range| RawCount { from_ms: Some(range.start), to_ms: Some(range.end) });
    CountPlan { rollups: sums.into_iter().map(rollup).collect(), raw: raw.collect() }
}

/// The rows of rollups whose sum is exactly the rows that match, apart from the time range; none where several values
/// are asked for at once.
fn rollups_of(filter: &CountFilter) -> Vec<(Dimension, String)> {
    let CountFilter { event_type, component_id, element_id, keyword, post_id, page, .. } = filter;
    let component = component_key(*component_id, element_id.as_deref());
    let values = [
        (Dimension::MentionedComponent, component.as_ref()),
        (Dimension::MentionedKeyword, keyword.as_ref()),
        (Dimension::MentionedPost, post_id.as_ref()),
        (Dimension::MentionedPage, page.as_ref()),
    ];
    let mut given = values.into_iter().filter_map(|(mentioned, value)| Some((mentioned, value?)));
    let types = STRATEGIES.iter().map(|strategy| strategy.event_type);
    let types = types.filter(|kind| event_type.is_none_or(|wanted| wanted == *kind));
    match (given.next(), given.next()) {
        (None, _) => types.map(|kind| (Dimension::Type, kind.name().to_owned())).collect(),
        (Some((mentioned, value)), None) => types.map(|kind| row_of(mentioned, kind, value)).collect(),
        (Some(_), Some(_)) => Vec::new(),
    }
}

/// Where events of a type are counted by a value: in their type's own dimension, or among the mentions.
fn row_of(mentioned: Dimension, kind: EventType, value: &str) -> (Dimension, String) {
    let own = match (mentioned, kind) {
        (Dimension::MentionedComponent, EventType::Click) => Some(Dimension::Component),
        (Dimension::MentionedKeyword, EventType::Search) => Some(Dimension::Keyword),
        (Dimension::MentionedPost, EventType::Click) => Some(Dimension::PostClicks),
        (Dimension::MentionedPost, EventType::PageView) => Some(Dimension::PostViews),
        (Dimension::MentionedPage, EventType::PageView) => Some(Dimension::Page),
        _ => None,
    };
    match own {
        Some(dimension) => (dimension, value.to_owned()),
        None => (mentioned, mention_key(kind, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_is_never_counted_from_raw_rows() {
        let one = [
            CountFilter { component_id: Some(1), ..CountFilter::default() },
            CountFilter { element_id: Some("e".into()), ..CountFilter::default() },
            CountFilter { keyword: Some("k".into()), ..CountFilter::default() },
            CountFilter { post_id: Some("p".into()), ..CountFilter::default() },
            CountFilter { page: Some("/".into()), ..CountFilter::default() },
            CountFilter::default(),
        ];
        for filter in one {
            for event_type in [None, Some(EventType::Click), Some(EventType::Like)] {
                let plan = plan_count(&CountFilter { event_type, ..filter.clone() }, 0);
                assert!(plan.raw.is_empty() && !plan.rollups.is_empty(), "{filter:?} {event_type:?}");
            }
        }
        let two = CountFilter { post_id: Some("p".into()), component_id: Some(1), ..CountFilter::default() };
        assert!(plan_count(&two, 0).rollups.is_empty());
    }
}
