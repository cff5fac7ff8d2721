//! What a ranked list reads from the rollups: which table, which buckets, each with its factor.
//!
//! Short windows are minutes, a day is hours, a week is the hours of seven local days. `hot` halves a count with each
//! quarter of the window, by the age of its bucket; a week's buckets are days, as in the live store. If a day begins within
//! an hour, the hour counts for the day before, and the rest of the hour is corrected from raw rows.

use std::ops::Range;

use jiff::tz::TimeZone;

use super::exact::Terms;
use super::local_days::{EdgeCount, day_starts, rest_of_hour};
use super::sums::sums;
use crate::events::Dimension;
use crate::ledger::HOUR_MS;
use crate::ledger::frontier::Frontier;
use crate::ports::{TopQuery, Window};

const WEEK_DAYS: i64 = 7;

/// Buckets and dimensions of a list; the sum over both of count × factor × weight is the score.
#[derive(Clone, Debug, PartialEq)]
pub struct RankPlan {
    /// `rollup_minute` or `rollup_hour`.
    pub table: &'static str,
    /// Buckets since the epoch with their factors; without a gap, ascending.
    pub buckets: Vec<(i64, f64)>,
    /// Minutes since the epoch, each range within an hour, with the factor that its raw rows add.
    pub edges: Vec<(Range<i64>, f64)>,
    pub parts: Vec<(Dimension, f64)>,
    pub limit: usize,
}

/// Decides what `query` reads at `now_ms`; days are those of `zone`.
pub fn plan_rank(query: &TopQuery, now_ms: i64, zone: &TimeZone) -> RankPlan {
    let minute = now_ms.div_euclid(60_000);
    let hour = minute.div_euclid(60);
    let factor = |age: i64, length: f64| if query.hot { 0.5f64.powf(age as f64 / (length / 4.0)) } else { 1.0 };
    let newest = |length: i64, last: i64| -> Vec<(i64, f64)> {
        (last - length + 1..=last).map(|bucket| (bucket, factor(last - bucket, length as f64))).collect()
    };
    let (table, buckets, edges) = match query.window {
        Window::TenMinutes => ("rollup_minute", newest(10, minute), Vec::new()),
        Window::Hour => ("rollup_minute", newest(60, minute), Vec::new()),
        Window::Day => ("rollup_hour", newest(24, hour), Vec::new()),
        Window::Week => {
            let (hours, edges) = week(&day_starts(zone, now_ms, WEEK_DAYS - 1), |age| factor(age, WEEK_DAYS as f64));
            ("rollup_hour", hours, edges)
        }
    };
    RankPlan { table, buckets, edges, parts: query.parts.clone(), limit: query.limit }
}

impl RankPlan {
    /// What the plan's edges count by name, of counts from raw rows.
    pub fn edge_scores(&self, counts: Vec<EdgeCount>) -> Vec<(String, f64)> {
        let factor =
            |minute: i64| self.edges.iter().find(|(range, _)| range.start == minute).map_or(0.0, |edge| edge.1);
        let weight = |dimension: Dimension| -> f64 {
            self.parts.iter().filter(|(of, _)| *of == dimension).map(|(_, weight)| weight).sum()
        };
        let score = |edge: EdgeCount| {
            let score = edge.count as f64 * factor(edge.minute) * weight(edge.dimension);
            (edge.name, score)
        };
        counts.into_iter().map(score).collect()
    }

    /// What raw rows of the edges are counted for.
    pub fn edge_dimensions(&self) -> Vec<Dimension> {
        self.parts.iter().map(|(dimension, _)| *dimension).collect()
    }
}

type Factors<B> = Vec<(B, f64)>;

/// Hours and edges of days that begin at `starts`, the last of which is only the end: events of clients whose clocks are
/// ahead belong to today, as in the live store.
fn week(starts: &[i64], factor: impl Fn(i64) -> f64) -> (Factors<i64>, Factors<Range<i64>>) {
    let days: Vec<(Range<i64>, f64)> =
        starts.windows(2).zip((0..WEEK_DAYS).rev()).map(|(edge, age)| (edge[0]..edge[1], factor(age))).collect();
    let next_hour = |minute: i64| rest_of_hour(minute).end.div_euclid(60);
    let of_day = |(day, factor): &(Range<i64>, f64)| {
        let factor = *factor;
        (next_hour(day.start)..next_hour(day.end)).map(move |hour| (hour, factor))
    };
    let hours = days.iter().flat_map(of_day).collect();
    let before = std::iter::once(0.0).chain(days.iter().map(|(_, factor)| *factor));
    let of_own = days.iter().map(|(_, factor)| *factor).chain([0.0]);
    let edges =
        starts.iter().zip(of_own.zip(before)).map(|(start, (own, before))| (rest_of_hour(*start), own - before));
    (hours, edges.filter(|(minutes, factor)| !minutes.is_empty() && *factor != 0.0).collect())
}

/// Hours that each have a factor of their own: no list is in the order that those give, and where few events are in them, adding up
/// all their names takes less than looking for the first.
pub fn hours_of_hot(query: &TopQuery, now_ms: i64) -> Option<Range<i64>> {
    let hour = now_ms.div_euclid(HOUR_MS);
    (query.hot && query.window == Window::Day).then_some(hour - 23..hour + 1)
}

/// The same buckets for `leaders`; none where they are minutes, which are few.
pub fn plan_leaders(query: &TopQuery, plan: &RankPlan, frontier: Frontier) -> Vec<Terms> {
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
            sums: sums(hours, frontier),
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
