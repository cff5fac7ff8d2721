//! The hours of a range as the fewest buckets whose sum they are: spans of 32 days, days, hours, some of them taken off.
//!
//! Hours are folded into days and spans up to a frontier; what lies behind it is read as hours. The day of the frontier
//! holds its hours before it and, of the hour at it, the names that are folded already: an hour is folded in steps, in the
//! order of dimension and name. The span of the frontier of days holds its days before that; while one is being folded into it,
//! it is in no sum.

use std::ops::Range;

use super::Cover;
use crate::events::Dimension;
use crate::limits::SPAN_DAYS;

/// How far hours are folded: see `rollup_folded` in schema.sql.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    pub until_hour: i64,
    pub until_day: i64,
    /// Minutes before this one may be missing from `rollup_minute`.
    pub minutes_since: i64,
    /// Of the hour `until_hour`, dimensions before this one are folded too, and of it names up to `rollup_folded.hour_key`.
    pub hour_dimension: i64,
    /// Some names of the day `until_day` are in its span.
    pub is_day_begun: bool,
}

impl Folded {
    /// As a dimension has it; and whether some names of the hour at the frontier may be in their day.
    fn of(self, dimension: Dimension) -> (Folded, bool) {
        let code = dimension as i64;
        let is_over = i64::from(code < self.hour_dimension);
        (Folded { until_hour: self.until_hour + is_over, ..self }, code == self.hour_dimension)
    }
}

/// Buckets since the epoch, none of a kind twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub spans: Range<i64>,
    /// At most two ranges.
    pub days: Vec<Range<i64>>,
    /// Days of the first span that are taken off: fewer than are left of it.
    pub days_off: Range<i64>,
    /// Hours that are folded, with 1 where they add and -1 where they are taken off: a day is there as well then. At most
    /// 24 of them, on at most two days.
    pub hours: Vec<(i64, i64)>,
    /// Hours that are not folded.
    pub open: Range<i64>,
    /// An hour whose names up to `rollup_folded.hour_key` are to be taken off once: they are in a day that is read, and the
    /// hour is open or not in the range.
    pub begun: Option<i64>,
}

const DAY_HOURS: i64 = 24;

/// Says that minutes up to `oldest` go at `now` (both minutes since the epoch), before they do. A clock that was ahead has
/// taken minutes of a time that is yet to come: from now on they are whole again.
pub fn minutes_gone_sql(oldest: i64, now: i64) -> String {
    format!(
        "UPDATE rollup_folded SET minutes_since = \
           CASE WHEN minutes_since > {now} THEN {now} + 1 ELSE {oldest} + 1 END \
         WHERE minutes_since <= {oldest} OR minutes_since > {now} + 1"
    )
}

/// Splits `hours`, for one dimension.
pub fn sums(hours: &Range<i64>, folded: Folded, dimension: Dimension) -> Sums {
    let (folded, is_begun) = folded.of(dimension);
    let mut sums = split(hours, folded);
    let day = folded.until_hour.div_euclid(DAY_HOURS);
    if is_begun && sums.days.iter().any(|days| days.contains(&day)) {
        sums.begun = Some(folded.until_hour);
    }
    sums
}

fn split(hours: &Range<i64>, folded: Folded) -> Sums {
    let mut sums = Sums { open: hours.start.max(folded.until_hour)..hours.end, ..Sums::default() };
    if sums.open.is_empty() {
        sums.open = 0..0;
    }
    let (first, end) = (hours.start, hours.end.min(folded.until_hour));
    if first >= end {
        return sums;
    }
    let (mut first_day, mut end_day) = (first.div_euclid(DAY_HOURS), end.div_euclid(DAY_HOURS));
    let begins = first_day * DAY_HOURS;
    if first_day == end_day {
        // Of one day its hours, or the day without the others, whichever are fewer.
        let others = (begins..first).chain(end..(begins + DAY_HOURS).min(folded.until_hour));
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
    // Behind the frontier a day holds nothing that would have to be taken off.
    let rest = end..(tail.start + DAY_HOURS).min(folded.until_hour);
    if end == folded.until_hour {
        end_day += i64::from(!tail.is_empty());
    } else if tail.end - tail.start > rest.end - rest.start {
        sums.hours.extend(rest.map(|hour| (hour, -1)));
        end_day += 1;
    } else {
        sums.hours.extend(tail.map(|hour| (hour, 1)));
    }
    add_days(&mut sums, first_day..end_day, folded);
    sums
}

fn add_days(sums: &mut Sums, days: Range<i64>, folded: Folded) {
    let above = |day: i64| day.div_euclid(SPAN_DAYS) + i64::from(day.rem_euclid(SPAN_DAYS) != 0);
    let (end, behind) = match days.end >= folded.until_day && !folded.is_day_begun {
        true => (above(folded.until_day), folded.until_day),
        false => {
            let end = days.end.min(folded.until_day).div_euclid(SPAN_DAYS);
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
    /// Those of what a cover reads as hours.
    pub fn of(cover: &Cover, folded: Folded, dimension: Dimension) -> Sums {
        cover.hours.as_ref().map_or_else(Sums::default, |hours| sums(hours, folded, dimension))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// How often each hour counts, of names that are folded up to a frontier.
    fn hours_of(sums: &Sums, until_hour: i64, until_day: i64, is_begun: bool) -> BTreeMap<i64, i64> {
        let mut hours: BTreeMap<i64, i64> = BTreeMap::new();
        let mut add = |range: Range<i64>, times: i64| range.for_each(|hour| *hours.entry(hour).or_default() += times);
        add(sums.spans.start * SPAN_DAYS * 24..(sums.spans.end * SPAN_DAYS).min(until_day) * 24, 1);
        for days in &sums.days {
            add(days.start * 24..(days.end * 24).min(until_hour), 1);
        }
        sums.hours.iter().for_each(|(hour, times)| add(*hour..hour + 1, *times));
        add(sums.open.clone(), 1);
        add(sums.days_off.start * 24..sums.days_off.end * 24, -1);
        if let Some(hour) = sums.begun.filter(|_| is_begun) {
            add(hour..hour + 1, -1);
        }
        hours.retain(|_, times| *times != 0);
        hours
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn every_hour_of_the_range_counts_once_and_no_other_does(
            start in 0..2_400i64, length in 1..2_400i64, until_hour in 0..5_000i64, behind in 0..70i64,
            hour_dimension in 0..4i64, is_day_begun in proptest::bool::ANY,
        ) {
            let until_day = (until_hour.div_euclid(24) - behind).max(0);
            let folded = Folded { until_hour, until_day, minutes_since: 0, hour_dimension, is_day_begun };
            let sums = sums(&(start..start + length), folded, Dimension::Keyword);
            let expected: BTreeMap<i64, i64> = (start..start + length).map(|hour| (hour, 1)).collect();
            // Keywords are the second dimension: their hour is not begun, begun, or over.
            let is_begun = hour_dimension == 2;
            let until_hour = until_hour + i64::from(hour_dimension > 2);
            assert_eq!(hours_of(&sums, until_hour, until_day, false), expected, "{sums:?}");
            let in_hour = until_hour + i64::from(is_begun);
            assert_eq!(hours_of(&sums, in_hour, until_day, is_begun), expected, "{sums:?}");
            if is_day_begun {
                assert_eq!(hours_of(&sums, until_hour, until_day + 1, false), expected, "{sums:?}");
            }
            assert!(sums.hours.len() <= 24, "{sums:?}");
            assert!(sums.days_off.end - sums.days_off.start < SPAN_DAYS / 2, "{sums:?}");
            assert!(sums.hours.iter().all(|(hour, _)| *hour < until_hour), "{sums:?}");
        }
    }
}
