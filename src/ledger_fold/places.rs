//! What lists leave out of posts that were deleted, from the ledger's rows to what a live store takes from its buckets.
//!
//! A deletion takes from lists exactly what the ledger had counted when it came, and says how much that was: subtracted, it
//! is the same whichever of several journals' records a follower applies first, and whatever it has not applied yet.

use crate::events::{Dimension, Tally, TallyKey};

/// A row of `left_out`: post, dimension, minutes of its bucket (1 or 60), bucket, count.
pub type LeftOutRow = (String, i64, i64, i64, i64);

/// Sums up rows by minute. What an hour has beyond its minutes is of minutes that the ledger keeps no more; it is taken from
/// the last one: where a local day begins within an hour, what is left of it is left of the day that is over sooner.
pub fn left_out(rows: impl Iterator<Item = LeftOutRow>) -> Vec<(TallyKey, i64)> {
    let mut tally = Tally::default();
    for (post, dimension, minutes, bucket, count) in rows {
        let Some(dimension) = Dimension::listed(dimension) else { continue };
        let mut add = |minute, count| tally.add(dimension, minute, &post, count);
        let last_of = |hour: i64| hour * 60 + 59;
        if minutes == 1 {
            add(bucket, count);
            add(last_of(bucket.div_euclid(60)), -count);
        } else {
            add(last_of(bucket), count);
        }
    }
    tally.into_sorted()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_its_minutes_and_what_is_beyond_them_is_of_its_last() {
        let row = |minutes, bucket, count| ("p".to_owned(), 4, minutes, bucket, count);
        let rows = [row(60, 10, -7), row(1, 603, -2), row(1, 659, -1), row(60, 11, -5), row(1, 665, -5)];
        let key = |minute| TallyKey { dimension: Dimension::PostViews, minute, key: "p".into() };
        assert_eq!(left_out(rows.into_iter()), [(key(603), -2), (key(659), -5), (key(665), -5)]);
    }
}
