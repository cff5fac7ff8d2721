//! A batch's tally as the rows of the two rollup tables.

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

/// Both tables' rows, each in key order: the order in which every instance locks them.
#[derive(Clone, Debug, Default)]
pub struct Rollups {
    pub minutes: Vec<RollupRow>,
    pub hours: Vec<RollupRow>,
}

/// Splits a tally; minutes that left what is kept at `now_ms` count in their hour only.
pub fn split_rollups(tally: Tally, now_ms: i64) -> Rollups {
    let oldest_minute = now_ms.div_euclid(60_000) - ROLLUP_MINUTES_KEPT;
    let mut rollups = Rollups::default();
    for (at, count) in tally.into_sorted() {
        let hour = at.minute.div_euclid(60);
        rollups.hours.push(RollupRow { dimension: at.dimension, bucket: hour, key: at.key.clone(), count });
        if at.minute > oldest_minute {
            rollups.minutes.push(RollupRow { dimension: at.dimension, bucket: at.minute, key: at.key, count });
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
    rollups.hours.retain(|row| row.count != 0);
    rollups
}
