//! A range of time as what it is read from: whole hours, whole minutes of the last two hours, raw rows of what is left.

use std::ops::Range;

use crate::ledger::{HOUR_MS, MINUTE_MS};

/// The parts of a range: none overlaps another, and together they are the range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cover {
    /// Hours since the epoch.
    pub hours: Option<Range<i64>>,
    /// Minutes since the epoch, at most two ranges.
    pub minutes: Vec<Range<i64>>,
    /// Milliseconds, each less than two hours; at most four.
    pub raw: Vec<Range<i64>>,
}

/// Covers `range_ms`. Minutes from `minutes_since` on are read as such (`None`: none is).
pub fn cover(range_ms: Range<i64>, minutes_since: Option<i64>) -> Cover {
    let mut cover = Cover::default();
    let (first, end) = whole(&range_ms, HOUR_MS);
    if first < end {
        cover.hours = Some(first..end);
        cover.add_edge(range_ms.start..first * HOUR_MS, minutes_since);
        cover.add_edge(end * HOUR_MS..range_ms.end, minutes_since);
    } else {
        cover.add_edge(range_ms, minutes_since);
    }
    cover
}

impl Cover {
    fn add_edge(&mut self, edge_ms: Range<i64>, minutes_since: Option<i64>) {
        let (first, end) = whole(&edge_ms, MINUTE_MS);
        match minutes_since.map(|since| first.max(since)) {
            Some(first) if first < end => {
                self.minutes.push(first..end);
                self.add_raw(edge_ms.start..first * MINUTE_MS);
                self.add_raw(end * MINUTE_MS..edge_ms.end);
            }
            _ => self.add_raw(edge_ms),
        }
    }

    fn add_raw(&mut self, range_ms: Range<i64>) {
        if !range_ms.is_empty() {
            self.raw.push(range_ms);
        }
    }
}

/// The first whole unit inside of a range, and the one behind the last.
fn whole(range_ms: &Range<i64>, unit_ms: i64) -> (i64, i64) {
    let up = range_ms.start.div_euclid(unit_ms) + i64::from(range_ms.start.rem_euclid(unit_ms) != 0);
    (up, range_ms.end.div_euclid(unit_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every part in milliseconds, in order.
    fn parts(cover: &Cover) -> Vec<Range<i64>> {
        let scaled = |range: &Range<i64>, unit: i64| range.start * unit..range.end * unit;
        let mut parts: Vec<Range<i64>> = cover.raw.clone();
        parts.extend(cover.hours.iter().map(|hours| scaled(hours, HOUR_MS)));
        parts.extend(cover.minutes.iter().map(|minutes| scaled(minutes, MINUTE_MS)));
        parts.sort_by_key(|part| part.start);
        parts
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn parts_are_the_range_without_gap_or_overlap(
            start in 0..20 * HOUR_MS, length in 0..5 * HOUR_MS, since in proptest::option::of(0..1_500i64),
        ) {
            let cover = cover(start..start + length, since);
            let mut at = start;
            for part in parts(&cover) {
                assert_eq!(part.start, at, "{cover:?}");
                assert!(!part.is_empty(), "{cover:?}");
                at = part.end;
            }
            assert_eq!(at, start + length, "{cover:?}");
            assert!(cover.raw.iter().all(|part| part.end - part.start < 2 * HOUR_MS), "{cover:?}");
            let since = since.unwrap_or(i64::MAX);
            assert!(cover.minutes.iter().all(|part| part.start >= since), "{cover:?}");
        }
    }

    #[test]
    fn a_range_of_whole_hours_reads_no_raw_row() {
        assert_eq!(cover(2 * HOUR_MS..5 * HOUR_MS, None), Cover { hours: Some(2..5), ..Cover::default() });
        let to_now = cover(0..HOUR_MS + 7 * MINUTE_MS, Some(30));
        assert_eq!((to_now.hours, to_now.raw.len()), (Some(0..1), 0));
        assert_eq!(to_now.minutes, std::slice::from_ref(&(60..67)));
    }
}
