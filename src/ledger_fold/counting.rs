//! What an exact count reads: hour rollups where they hold exactly the rows asked for, raw rows elsewhere.
//!
//! | filter | whole hours from |
//! |---|---|
//! | none, or a type | the rollup of types |
//! | keyword (no type, or SEARCH): *a keyword alone counts searches* | the rollup of keywords |
//! | page with PAGE_VIEW | the rollup of pages |
//! | component with CLICK | the rollup of components |
//! | post with PAGE_VIEW or CLICK | the rollup of the post's views or clicks |
//! | everything else (post, page or component of any type; several filters) | raw rows |
//!
//! Hours that a range cuts are counted from raw rows, which then match the same rows as the rollup does.

use crate::events::{Dimension, EventType, fold_keyword, page_key};
use crate::ports::CountFilter;

/// An hour, in milliseconds.
pub const HOUR_MS: i64 = 3_600_000;

/// The parts whose sum is the count; all are read in one snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CountPlan {
    pub rollup: Option<RollupCount>,
    pub raw: Vec<RawCount>,
}

/// A sum over `rollup_hour`.
#[derive(Clone, Debug, PartialEq)]
pub struct RollupCount {
    pub dimension: Dimension,
    /// `None`: every key.
    pub key: Option<String>,
    /// Hours since the epoch: from (inclusive) and to (exclusive).
    pub from_hour: Option<i64>,
    pub to_hour: Option<i64>,
}

/// Raw rows of one range, in milliseconds: from (inclusive), to (exclusive).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RawCount {
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
}

/// What raw rows must match; keyword and page are compared in Rust, folded as the rollups fold them.
#[derive(Clone, Debug, PartialEq)]
pub struct RawMatch<'a> {
    pub event_type: Option<EventType>,
    pub component_id: Option<i64>,
    pub post_id: Option<&'a str>,
    pub keyword: Option<&'a str>,
    pub page: Option<&'a str>,
}

impl<'a> RawMatch<'a> {
    /// A keyword without a type means searches, as its rollup does.
    pub fn of(filter: &'a CountFilter) -> RawMatch<'a> {
        let search = filter.keyword.is_some().then_some(EventType::Search);
        RawMatch {
            event_type: filter.event_type.or(search),
            component_id: filter.component_id,
            post_id: filter.post_id.as_deref(),
            keyword: filter.keyword.as_deref(),
            page: filter.page.as_deref(),
        }
    }

    /// Whether a row with this keyword and url matches.
    pub fn matches(&self, keyword: Option<&str>, url: Option<&str>) -> bool {
        let by_keyword = self.keyword.is_none_or(|wanted| keyword.is_some_and(|k| fold_keyword(k) == wanted));
        let by_page = self.page.is_none_or(|wanted| url.is_some_and(|u| page_key(u) == wanted));
        by_keyword && by_page
    }
}

/// Decides what `filter` reads.
pub fn plan_count(filter: &CountFilter) -> CountPlan {
    let (from, to) = (filter.from_ms, filter.to_ms);
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        return CountPlan::default();
    }
    let whole = RawCount { from_ms: from, to_ms: to };
    let Some((dimension, key)) = rollup_of(filter) else {
        return CountPlan { rollup: None, raw: vec![whole] };
    };
    let from_hour = from.map(|ms| ms.div_euclid(HOUR_MS) + i64::from(ms.rem_euclid(HOUR_MS) != 0));
    let to_hour = to.map(|ms| ms.div_euclid(HOUR_MS));
    if let (Some(first), Some(end)) = (from_hour, to_hour)
        && first >= end
    {
        // No whole hour inside: one or two parts of hours, which are one range of rows.
        return CountPlan { rollup: None, raw: vec![whole] };
    }
    let head = from_hour.map(|hour| RawCount { from_ms: from, to_ms: Some(hour * HOUR_MS) });
    let tail = to_hour.map(|hour| RawCount { from_ms: Some(hour * HOUR_MS), to_ms: to });
    let raw = head.into_iter().chain(tail).filter(|part| part.from_ms != part.to_ms).collect();
    CountPlan { rollup: Some(RollupCount { dimension, key, from_hour, to_hour }), raw }
}

/// The rollup that holds exactly the rows that match, apart from the time range.
fn rollup_of(filter: &CountFilter) -> Option<(Dimension, Option<String>)> {
    let CountFilter { event_type, component_id, keyword, post_id, page, .. } = filter;
    match (event_type, component_id, keyword, post_id, page) {
        (kind, None, None, None, None) => Some((Dimension::Type, kind.map(|kind| kind.name().to_owned()))),
        (None | Some(EventType::Search), None, Some(keyword), None, None) => {
            Some((Dimension::Keyword, Some(keyword.clone())))
        }
        (Some(EventType::PageView), None, None, None, Some(page)) => Some((Dimension::Page, Some(page.clone()))),
        (Some(EventType::Click), Some(id), None, None, None) => Some((Dimension::Component, Some(id.to_string()))),
        (Some(EventType::PageView), None, None, Some(post), None) => Some((Dimension::PostViews, Some(post.clone()))),
        (Some(EventType::Click), None, None, Some(post), None) => Some((Dimension::PostClicks, Some(post.clone()))),
        _ => None,
    }
}
