//! What an exact count reads: hour rollups where they hold exactly the rows asked for, lists of events or raw rows elsewhere.
//!
//! | filter | whole hours from |
//! |---|---|
//! | none, or a type | the rollup of types |
//! | one of component, element, keyword, post, url; with or without a type | the type's own rollup of it, and the mentions of the other types |
//! | several of them | rows, which on PostgreSQL an index of each closed day finds |
//!
//! Hours that a range cuts are counted from raw rows, which then match the same rows as the rollup does.

use std::ops::Range;

use crate::events::{Dimension, EventType, STRATEGIES, component_key, mention_key};
use crate::ledger::HOUR_MS;
use crate::ports::CountFilter;

/// Behind the last hour that can be stored: see `draft`.
const HOURS_END: i64 = 253_402_300_800 / 3_600;

/// The parts whose sum is the count; all are read in one snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CountPlan {
    pub rollups: Vec<RollupCount>,
    pub raw: Vec<RawCount>,
}

/// What one key sums up to over whole hours.
#[derive(Clone, Debug, PartialEq)]
pub struct RollupCount {
    pub dimension: Dimension,
    pub key: String,
    /// Hours since the epoch.
    pub hours: Range<i64>,
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

/// Decides what `filter` reads.
pub fn plan_count(filter: &CountFilter) -> CountPlan {
    let (from, to) = (filter.from_ms, filter.to_ms);
    if filter.is_empty() {
        return CountPlan::default();
    }
    let whole = RawCount { from_ms: from, to_ms: to };
    let sums = rollups_of(filter);
    if sums.is_empty() {
        return CountPlan { rollups: Vec::new(), raw: vec![whole] };
    }
    let from_hour = from.map(|ms| ms.div_euclid(HOUR_MS) + i64::from(ms.rem_euclid(HOUR_MS) != 0));
    let to_hour = to.map(|ms| ms.div_euclid(HOUR_MS));
    if let (Some(first), Some(end)) = (from_hour, to_hour)
        && first >= end
    {
        // No whole hour inside: one or two parts of hours, which are one range of rows.
        return CountPlan { rollups: Vec::new(), raw: vec![whole] };
    }
    let head = from_hour.map(|hour| RawCount { from_ms: from, to_ms: Some(hour * HOUR_MS) });
    let tail = to_hour.map(|hour| RawCount { from_ms: Some(hour * HOUR_MS), to_ms: to });
    let raw = head.into_iter().chain(tail).filter(|part| part.from_ms != part.to_ms).collect();
    let hours = from_hour.unwrap_or(0).max(0)..to_hour.unwrap_or(HOURS_END).min(HOURS_END);
    // A range may end before the first whole hour, or begin after the last one.
    let sums = if hours.is_empty() { Vec::new() } else { sums };
    let rollups = sums.into_iter().map(|(dimension, key)| RollupCount { dimension, key, hours: hours.clone() });
    CountPlan { rollups: rollups.collect(), raw }
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
    let types = STRATEGIES.iter().map(|strategy| strategy.event_type());
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
                let plan = plan_count(&CountFilter { event_type, ..filter.clone() });
                assert!(plan.raw.is_empty() && !plan.rollups.is_empty(), "{filter:?} {event_type:?}");
            }
        }
        let two = CountFilter { post_id: Some("p".into()), component_id: Some(1), ..CountFilter::default() };
        assert!(plan_count(&two).rollups.is_empty());
    }
}
