//! What a ranked list reads from the rollups: which table, which buckets, each with its factor.
//!
//! Short windows are minutes, a day is hours, a week is the hours of seven UTC days. `hot` halves a count with each
//! quarter of the window, by the age of its bucket; a week's buckets are days, as in the live store.

use std::ops::Range;

use super::{Folded, HOUR_MS, Terms, sums};
use crate::events::Dimension;
use crate::ports::{TopQuery, Window};

/// Buckets and dimensions of a list; the sum over both of count × factor × weight is the score.
#[derive(Clone, Debug, PartialEq)]
pub struct RankPlan {
    /// `rollup_minute` or `rollup_hour`.
    pub table: &'static str,
    /// Buckets since the epoch with their factors; without a gap, ascending.
    pub buckets: Vec<(i64, f64)>,
    pub parts: Vec<(Dimension, f64)>,
    pub limit: usize,
}

/// Decides what `query` reads at `now_ms`.
pub fn plan_rank(query: &TopQuery, now_ms: i64) -> RankPlan {
    let minute = now_ms.div_euclid(60_000);
    let hour = minute.div_euclid(60);
    let day = hour.div_euclid(24);
    // Table, oldest and newest bucket, buckets in a unit of age, length of the window in that unit.
    let (table, first, last, unit, length) = match query.window {
        Window::TenMinutes => ("rollup_minute", minute - 9, minute, 1, 10.0),
        Window::Hour => ("rollup_minute", minute - 59, minute, 1, 60.0),
        Window::Day => ("rollup_hour", hour - 23, hour, 1, 24.0),
        // To the end of today: what clients whose clocks are ahead date into its next hour is of today, as in the live store.
        Window::Week => ("rollup_hour", (day - 6) * 24, day * 24 + 23, 24, 7.0),
    };
    let newest = last.div_euclid(unit);
    let factor = |bucket: i64| {
        let age = (newest - bucket.div_euclid(unit)) as f64;
        if query.hot { 0.5f64.powf(age / (length / 4.0)) } else { 1.0 }
    };
    RankPlan {
        table,
        buckets: (first..=last).map(|bucket| (bucket, factor(bucket))).collect(),
        parts: query.parts.iter().flat_map(listed).collect(),
        limit: query.limit,
    }
}

/// What a part of a list is summed from: its counts, and what its lists leave out of them.
fn listed((dimension, weight): &(Dimension, f64)) -> impl Iterator<Item = (Dimension, f64)> {
    let weight = *weight;
    [Some(*dimension), dimension.gone()].into_iter().flatten().map(move |dimension| (dimension, weight))
}

/// Hours that each have a factor of their own: no list is in the order that those give, and where few events are in them, adding up
/// all their names takes less than looking for the first.
pub fn hours_of_hot(query: &TopQuery, now_ms: i64) -> Option<Range<i64>> {
    let hour = now_ms.div_euclid(HOUR_MS);
    (query.hot && query.window == Window::Day).then_some(hour - 23..hour + 1)
}

/// The same buckets for [`super::leaders`]; none where they are minutes, which are few.
pub fn plan_leaders(query: &TopQuery, now_ms: i64, folded: Folded) -> Vec<Terms> {
    let plan = plan_rank(query, now_ms);
    let (Some((first, _)), Some((last, _))) = (plan.buckets.first(), plan.buckets.last()) else { return Vec::new() };
    if plan.table != "rollup_hour" {
        return Vec::new();
    }
    let mut ranges: Vec<(Range<i64>, f64)> = Vec::new();
    match query.hot {
        false => ranges.push((*first..last + 1, 1.0)),
        true => {
            for (hour, factor) in &plan.buckets {
                match ranges.last_mut() {
                    Some((range, same)) if *same == *factor => range.end = hour + 1,
                    _ => ranges.push((*hour..hour + 1, *factor)),
                }
            }
        }
    }
    let of_part = |(dimension, weight): &(Dimension, f64)| {
        let term = |(hours, factor): &(Range<i64>, f64)| Terms {
            dimension: *dimension,
            weight: factor * weight,
            sums: sums(hours, folded, *dimension),
        };
        ranges.iter().map(term).collect::<Vec<_>>()
    };
    query.parts.iter().flat_map(of_part).collect()
}

/// A score of less is nothing: what was added with factors and taken off again leaves some of it by rounding, while one view of the
/// oldest hour is a sixteenth.
pub const SCORE_NOTHING: f64 = 1e-6;

/// Orders by score descending, then name ascending (bytewise); only positive scores stay, at most `limit`.
pub fn sort_ranked(mut items: Vec<(String, f64)>, limit: usize) -> Vec<(String, f64)> {
    items.retain(|(_, score)| *score > SCORE_NOTHING);
    items.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    items.truncate(limit);
    items
}
