//! Buckets of time and the windows made of them. A minute is written, closed and then folded into its
//! hour and its day. A long window reads hours or days, and from `folded_until` on minutes: never
//! both.

use std::ops::Range;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::limits::{
    LIVE_BUCKET_MEMBERS_MAX, LIVE_DAYS_KEPT, LIVE_HOURS_KEPT, LIVE_MINUTES_KEPT, LIVE_OPEN_BUCKET_MEMBERS_MAX,
    LIVE_UNION_KEPT_MS,
};
use crate::ports::Window;

const MINUTE_MS: i64 = 60_000;
const HOUR_MINUTES: i64 = 60;
const DAY_MINUTES: i64 = 24 * HOUR_MINUTES;
const EPOCH: Date = Date::constant(1970, 1, 1);

/// A span of time that counts are kept for, by its number since the epoch; days are local dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    Minute(i64),
    Hour(i64),
    Day(i64),
}

/// Which minute belongs to which bucket; days are those of `TIME_ZONE`.
#[derive(Clone, Debug)]
pub struct Calendar {
    time_zone: TimeZone,
}

impl Calendar {
    pub fn new(time_zone: TimeZone) -> Calendar {
        Calendar { time_zone }
    }

    /// Whose days these are.
    pub fn time_zone(&self) -> &TimeZone {
        &self.time_zone
    }

    /// The minute that `at_ms` is in.
    pub fn minute(at_ms: i64) -> i64 {
        at_ms.div_euclid(MINUTE_MS)
    }

    /// The hour of a minute.
    pub fn hour(minute: i64) -> i64 {
        minute.div_euclid(HOUR_MINUTES)
    }

    /// The local date of a minute, as days since 1970-01-01; in UTC beyond the calendar's range.
    pub fn day(&self, minute: i64) -> i64 {
        let local = Timestamp::from_second(minute.saturating_mul(60)).map(|at| self.time_zone.to_datetime(at).date());
        match local.and_then(|date| date.since(EPOCH)) {
            Ok(span) => i64::from(span.get_days()),
            Err(_) => minute.div_euclid(DAY_MINUTES),
        }
    }

    /// The first minute of a day; where midnight does not exist, the first minute that does.
    pub fn day_start(&self, day: i64) -> i64 {
        let date =
            i32::try_from(day).ok().and_then(|days| EPOCH.checked_add(jiff::Span::new().try_days(days).ok()?).ok());
        match date.and_then(|date| date.to_zoned_datetime(self.time_zone.clone()).ok()) {
            Some(start) => start.timestamp().as_second().div_euclid(60),
            None => day.saturating_mul(DAY_MINUTES),
        }
    }

    /// The three buckets of a minute.
    pub fn buckets(&self, minute: i64) -> [Bucket; 3] {
        [Bucket::Minute(minute), Bucket::Hour(Self::hour(minute)), Bucket::Day(self.day(minute))]
    }

    /// The first minute behind a bucket.
    pub fn end_minute(&self, bucket: Bucket) -> i64 {
        match bucket {
            Bucket::Minute(minute) => minute + 1,
            Bucket::Hour(hour) => (hour + 1) * HOUR_MINUTES,
            Bucket::Day(day) => self.day_start(day + 1),
        }
    }

    /// When a bucket may be forgotten, in seconds since the epoch.
    pub fn expires_s(&self, bucket: Bucket) -> i64 {
        let kept_minutes = match bucket {
            Bucket::Minute(_) => LIVE_MINUTES_KEPT,
            Bucket::Hour(_) => LIVE_HOURS_KEPT * HOUR_MINUTES,
            Bucket::Day(_) => LIVE_DAYS_KEPT * DAY_MINUTES,
        };
        (self.end_minute(bucket) + kept_minutes) * 60
    }

    /// When a minute that was never folded may be forgotten: not before its day.
    pub fn unfolded_expires_s(&self, minute: i64) -> i64 {
        self.expires_s(Bucket::Day(self.day(minute)))
    }

    /// How many members a bucket may have once minutes before `folded_until` are folded.
    pub fn members_max(&self, bucket: Bucket, folded_until: i64) -> usize {
        let closed = self.end_minute(bucket) <= folded_until;
        if closed { LIVE_BUCKET_MEMBERS_MAX } else { LIVE_OPEN_BUCKET_MEMBERS_MAX }
    }

    /// Whether a count of this bucket is still taken at `now_ms`.
    pub fn is_kept(&self, bucket: Bucket, now_ms: i64) -> bool {
        let now = Self::minute(now_ms);
        match bucket {
            Bucket::Minute(minute) => minute > now - LIVE_MINUTES_KEPT,
            Bucket::Hour(hour) => hour > Self::hour(now) - LIVE_HOURS_KEPT,
            Bucket::Day(day) => day > self.day(now) - LIVE_DAYS_KEPT,
        }
    }
}

/// What a window reads, each bucket with its weight.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The time that ages are measured from: one for all who share the union.
    pub as_of_ms: i64,
    pub buckets: Vec<(Bucket, f64)>,
    /// Minutes of these that are not folded yet are read too; none if the buckets are minutes.
    pub unfolded: Range<i64>,
    /// Of `hot`.
    pub half_life_ms: Option<f64>,
}

/// The buckets of `window` at `now_ms`.
pub fn reading(window: Window, hot: bool, now_ms: i64, calendar: &Calendar) -> Reading {
    let as_of_ms = now_ms - now_ms.rem_euclid(LIVE_UNION_KEPT_MS);
    let minutes = window_minutes(window, now_ms, calendar);
    let minute = Calendar::minute(now_ms);
    let (hour, day) = (Calendar::hour(minute), calendar.day(minute));
    let (names, unfolded, length): (Vec<Bucket>, Range<i64>, i64) = match window {
        Window::TenMinutes => (minutes.map(Bucket::Minute).collect(), 0..0, 10),
        Window::Hour => (minutes.map(Bucket::Minute).collect(), 0..0, HOUR_MINUTES),
        Window::Day => ((hour - 23..=hour).map(Bucket::Hour).collect(), minutes, DAY_MINUTES),
        Window::Week => ((day - 6..=day).map(Bucket::Day).collect(), minutes, 7 * DAY_MINUTES),
    };
    let half_life_ms = hot.then_some((length * MINUTE_MS) as f64 / 4.0);
    let weigh = |bucket| (bucket, decay(as_of_ms, calendar.end_minute(bucket) * MINUTE_MS, half_life_ms));
    Reading { as_of_ms, buckets: names.into_iter().map(weigh).collect(), unfolded, half_life_ms }
}

/// The minutes of `window` at `now_ms`.
pub fn window_minutes(window: Window, now_ms: i64, calendar: &Calendar) -> Range<i64> {
    let minute = Calendar::minute(now_ms);
    let (hour, day) = (Calendar::hour(minute), calendar.day(minute));
    match window {
        Window::TenMinutes => minute - 9..minute + 1,
        Window::Hour => minute - 59..minute + 1,
        Window::Day => (hour - 23) * HOUR_MINUTES..(hour + 1) * HOUR_MINUTES,
        Window::Week => calendar.day_start(day - 6)..calendar.day_start(day + 1),
    }
}

/// The weight of a bucket that ended at `end_ms`; a bucket that is still open has no age.
pub fn decay(as_of_ms: i64, end_ms: i64, half_life_ms: Option<f64>) -> f64 {
    match half_life_ms {
        Some(half_life_ms) => 0.5_f64.powf((as_of_ms - end_ms).max(0) as f64 / half_life_ms),
        None => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seoul() -> Calendar {
        Calendar::new(TimeZone::fixed(jiff::tz::offset(9)))
    }

    #[test]
    fn a_day_is_a_local_date() {
        let calendar = seoul();
        let day = calendar.day(0);
        assert_eq!(day, 0);
        assert_eq!(calendar.day_start(1), 15 * 60);
        assert_eq!(calendar.day(15 * 60 - 1), 0);
        assert_eq!(calendar.day(15 * 60), 1);
        assert_eq!(calendar.day(-9 * 60 - 1), -1);
    }

    #[test]
    fn windows_reach_back_as_far_as_their_name_says() {
        let now_ms = 1_790_000_000_000;
        for (window, count) in [(Window::TenMinutes, 10), (Window::Hour, 60), (Window::Day, 24), (Window::Week, 7)] {
            assert_eq!(reading(window, false, now_ms, &seoul()).buckets.len(), count);
        }
    }

    #[test]
    fn every_bucket_that_a_window_reads_is_kept() {
        let now_ms = 1_790_000_000_000;
        for window in [Window::TenMinutes, Window::Hour, Window::Day, Window::Week] {
            for (bucket, _) in reading(window, false, now_ms, &seoul()).buckets {
                assert!(seoul().is_kept(bucket, now_ms), "{bucket:?}");
                assert!(seoul().expires_s(bucket) > now_ms / 1000, "{bucket:?}");
            }
        }
    }

    #[test]
    fn hot_halves_every_quarter_of_the_window_and_spares_what_is_open() {
        assert_eq!(decay(1_000_000, 1_000_000 - 150_000, Some(150_000.0)), 0.5);
        assert_eq!(decay(1_000_000, 1_030_000, Some(150_000.0)), 1.0);
    }
}
