//! The hours of a range as the fewest buckets whose sum they are: spans of 32 days, days, hours, some of them subtracted.
//!
//! Closed hours are in their day and closed days in their span; later hours are read as hours.

use std::ops::Range;

use super::cover::Cover;
use crate::ledger::frontier::Frontier;
use crate::limits::SPAN_DAYS;

/// Buckets since the epoch, none of a kind twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub spans: Range<i64>,
    /// At most two ranges.
    pub days: Vec<Range<i64>>,
    /// Days that are subtracted from the first span: fewer than are left of it.
    pub days_off: Range<i64>,
    /// Closed hours, with 1 where they add and -1 where they are subtracted from a day that is there as well. At most 24, on at
    /// most two days.
    pub hours: Vec<(i64, i64)>,
    /// Hours that are not closed.
    pub open: Range<i64>,
}

const DAY_HOURS: i64 = 24;

/// Splits `hours`.
pub fn sums(hours: &Range<i64>, frontier: Frontier) -> Sums {
    let sums = split(hours, frontier);
    debug_assert!(sums.hours.len() <= DAY_HOURS as usize);
    sums
}

fn split(hours: &Range<i64>, frontier: Frontier) -> Sums {
    let mut sums = Sums { open: hours.start.max(frontier.until_hour)..hours.end, ..Sums::default() };
    if sums.open.is_empty() {
        sums.open = 0..0;
    }
    let (first, end) = (hours.start, hours.end.min(frontier.until_hour));
    if first >= end {
        return sums;
    }
    let (mut first_day, mut end_day) = (first.div_euclid(DAY_HOURS), end.div_euclid(DAY_HOURS));
    let begins = first_day * DAY_HOURS;
    if first_day == end_day {
        // Of one day its hours, or the day without the others, whichever are fewer.
        let others = (begins..first).chain(end..(begins + DAY_HOURS).min(frontier.until_hour));
        if end - first <= others.clone().count() as i64 {
            sums.hours.extend((first..end).map(|hour| (hour, 1)));
        } else {
            sums.hours.extend(others.map(|hour| (hour, -1)));
            sums.days.push(first_day..first_day + 1);
        }
        return sums;
    }
    if first - begins > DAY_HOURS / 2 {
        sums.hours.extend((first..begins + DAY_HOURS).map(|hour| (hour, 1)));
        first_day += 1;
    } else {
        sums.hours.extend((begins..first).map(|hour| (hour, -1)));
    }
    let tail = end_day * DAY_HOURS..end;
    // After the frontier a day holds nothing that would have to be subtracted.
    let rest = end..(tail.start + DAY_HOURS).min(frontier.until_hour);
    if end == frontier.until_hour {
        end_day += i64::from(!tail.is_empty());
    } else if tail.end - tail.start > rest.end - rest.start {
        sums.hours.extend(rest.map(|hour| (hour, -1)));
        end_day += 1;
    } else {
        sums.hours.extend(tail.map(|hour| (hour, 1)));
    }
    add_days(&mut sums, first_day..end_day, frontier);
    sums
}

fn add_days(sums: &mut Sums, days: Range<i64>, frontier: Frontier) {
    let above = |day: i64| day.div_euclid(SPAN_DAYS) + i64::from(day.rem_euclid(SPAN_DAYS) != 0);
    let (end, behind) = match days.end >= frontier.until_day {
        true => (above(frontier.until_day), frontier.until_day),
        false => {
            let end = days.end.min(frontier.until_day).div_euclid(SPAN_DAYS);
            (end, end * SPAN_DAYS)
        }
    };
    let (first, begun) = (above(days.start), days.start.div_euclid(SPAN_DAYS));
    let (left_out, kept) = (days.start - begun * SPAN_DAYS, behind.min(first * SPAN_DAYS) - days.start);
    let parts = if begun < end && 0 < left_out && left_out + 1 < kept {
        sums.spans = begun..end;
        sums.days_off = begun * SPAN_DAYS..days.start;
        [0..0, behind..days.end]
    } else if first < end {
        sums.spans = first..end;
        [days.start..first * SPAN_DAYS, behind..days.end]
    } else {
        [days, 0..0]
    };
    sums.days = parts.into_iter().filter(|part| !part.is_empty()).collect();
}

impl Sums {
    /// Those of the hours of a cover.
    pub fn of(cover: &Cover, frontier: Frontier) -> Sums {
        cover.hours.as_ref().map_or_else(Sums::default, |hours| sums(hours, frontier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// How often each hour counts.
    fn hours_of(sums: &Sums, until_hour: i64, until_day: i64) -> BTreeMap<i64, i64> {
        let mut hours: BTreeMap<i64, i64> = BTreeMap::new();
        let mut add = |range: Range<i64>, times: i64| range.for_each(|hour| *hours.entry(hour).or_default() += times);
        add(sums.spans.start * SPAN_DAYS * 24..(sums.spans.end * SPAN_DAYS).min(until_day) * 24, 1);
        for days in &sums.days {
            add(days.start * 24..(days.end * 24).min(until_hour), 1);
        }
        sums.hours.iter().for_each(|(hour, times)| add(*hour..hour + 1, *times));
        add(sums.open.clone(), 1);
        add(sums.days_off.start * 24..sums.days_off.end * 24, -1);
        hours.retain(|_, times| *times != 0);
        hours
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn every_hour_of_the_range_counts_once_and_no_other_does(
            start in 0..2_400i64, length in 1..2_400i64, until_hour in 0..5_000i64, behind in 0..70i64,
        ) {
            let until_day = (until_hour.div_euclid(24) - behind).max(0);
            let frontier = Frontier { until_hour, until_day, ..Frontier::default() };
            let sums = sums(&(start..start + length), frontier);
            let expected: BTreeMap<i64, i64> = (start..start + length).map(|hour| (hour, 1)).collect();
            assert_eq!(hours_of(&sums, until_hour, until_day), expected, "{sums:?}");
            assert!(sums.hours.len() <= 24, "{sums:?}");
            assert!(sums.days_off.end - sums.days_off.start < SPAN_DAYS / 2, "{sums:?}");
            assert!(sums.hours.iter().all(|(hour, _)| *hour < until_hour), "{sums:?}");
        }
    }
}
