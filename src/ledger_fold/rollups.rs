//! A batch's tally as the rows of the two rollup tables.

use std::collections::BTreeMap;

use crate::events::{Dimension, Tally};
use crate::limits::ROLLUP_MINUTES_KEPT;

/// What is added to one row of a rollup.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RollupRow {
    pub dimension: Dimension,
    /// The minute or hour since the epoch.
    pub bucket: i64,
    pub key: Box<str>,
    pub count: i64,
}

/// The tables' rows, each in key order: the order in which every instance locks them.
#[derive(Clone, Debug, Default)]
pub struct Rollups {
    pub minutes: Vec<RollupRow>,
    pub hours: Vec<RollupRow>,
    /// Sums by dimension, for types by name too; else the name is empty.
    pub totals: Vec<(Dimension, Box<str>, i64)>,
    /// Some hours have counts whose minutes are not kept any more.
    pub has_older: bool,
}

impl Rollups {
    /// The first hour that has a row; beyond all where none has.
    pub fn first_hour(&self) -> i64 {
        self.hours.iter().map(|row| row.bucket).min().unwrap_or(i64::MAX)
    }
}

/// Splits a tally; minutes that left what is kept at `now_ms` count in their hour only. An hour whose minutes cancel each other
/// (a like and its undoing) has a row of nothing: by it a deleted post's minutes are found.
pub fn split_rollups(tally: Tally, now_ms: i64) -> Rollups {
    let oldest_minute = now_ms.div_euclid(60_000) - ROLLUP_MINUTES_KEPT;
    let mut rollups = Rollups::default();
    for (at, count) in tally.into_sorted() {
        let hour = at.minute.div_euclid(60);
        rollups.hours.push(RollupRow { dimension: at.dimension, bucket: hour, key: at.key.clone(), count });
        if at.minute > oldest_minute {
            rollups.minutes.push(RollupRow { dimension: at.dimension, bucket: at.minute, key: at.key, count });
        } else {
            rollups.has_older = true;
        }
    }
    rollups.hours.sort_unstable();
    rollups.hours.dedup_by(|later, kept| {
        let same = later.dimension == kept.dimension && later.bucket == kept.bucket && later.key == kept.key;
        if same {
            kept.count += later.count;
        }
        same
    });
    rollups.totals = totals(&rollups.hours);
    rollups
}

fn totals(hours: &[RollupRow]) -> Vec<(Dimension, Box<str>, i64)> {
    let mut sums: BTreeMap<(Dimension, &str), i64> = BTreeMap::new();
    for row in hours {
        let name = if row.dimension == Dimension::Type { &*row.key } else { "" };
        *sums.entry((row.dimension, name)).or_default() += row.count;
    }
    sums.into_iter().map(|((dimension, name), count)| (dimension, name.into(), count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_whose_minutes_cancel_has_a_row_by_which_they_are_found() {
        let mut tally = Tally::default();
        tally.add(Dimension::PostLikes, 600, "p", 1);
        tally.add(Dimension::PostLikes, 601, "p", -1);
        tally.add(Dimension::PostLikes, 602, "p", 0);
        let rollups = split_rollups(tally, 600 * 60_000);
        let rows = |rows: &[RollupRow]| rows.iter().map(|row| (row.bucket, row.count)).collect::<Vec<_>>();
        assert_eq!(rows(&rollups.minutes), [(600, 1), (601, -1)]);
        assert_eq!(rows(&rollups.hours), [(10, 0)]);
    }
}
