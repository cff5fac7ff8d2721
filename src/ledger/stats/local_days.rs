//! Where the days of a time zone begin, in minutes since the epoch, and what that means for buckets of whole hours.

use std::ops::Range;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::events::Dimension;
use crate::limits::LIVE_DAYS_KEPT;

const HOUR: i64 = 60;

/// What a part of an hour counts, from raw rows.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeCount {
    /// Where the part begins.
    pub minute: i64,
    pub dimension: Dimension,
    pub name: String,
    pub count: i64,
}

/// Where days begin: that of `back` days before today first, then each one up to tomorrow.
pub fn day_starts(zone: &TimeZone, now_ms: i64, back: i64) -> Vec<i64> {
    let now = Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    let today = zone.to_datetime(now).date();
    (-back..=1).filter_map(|ahead| first_minute(today, ahead, zone)).collect()
}

fn first_minute(today: Date, ahead: i64, zone: &TimeZone) -> Option<i64> {
    let day = today.checked_add(Span::new().try_days(ahead).ok()?).ok()?;
    Some(day.to_zoned_datetime(zone.clone()).ok()?.timestamp().as_second().div_euclid(60))
}

/// The days of a live store that begin within an hour, in zones at :30 and :45.
pub fn days_within_hours(zone: &TimeZone, now_ms: i64) -> Vec<i64> {
    let mut starts = day_starts(zone, now_ms, LIVE_DAYS_KEPT);
    starts.retain(|minute| minute.rem_euclid(HOUR) != 0);
    starts
}

/// A minute and what follows of its hour; empty if an hour begins there.
pub fn rest_of_hour(minute: i64) -> Range<i64> {
    minute..minute + (-minute).rem_euclid(HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(zone: &str, now: &str, back: i64) -> Vec<String> {
        let zone = TimeZone::get(zone).expect("a zone");
        let now_ms = now.parse::<Timestamp>().expect("a time").as_millisecond();
        let text = |minute: i64| Timestamp::from_second(minute * 60).expect("a time").to_string();
        day_starts(&zone, now_ms, back).into_iter().map(text).collect()
    }

    #[test]
    fn days_begin_where_the_zone_says_also_if_clocks_change_by_half_an_hour_or_at_midnight() {
        let kolkata = ["2026-11-28T18:30:00Z", "2026-11-29T18:30:00Z", "2026-11-30T18:30:00Z"];
        assert_eq!(starts("Asia/Kolkata", "2026-11-30T00:10:00Z", 1), kolkata);
        // UTC+11 before 2026-04-05, UTC+10:30 after.
        let lord_howe = ["2026-04-03T13:00:00Z", "2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z"];
        assert_eq!(starts("Australia/Lord_Howe", "2026-04-05T00:10:00Z", 1), lord_howe);
        // No midnight on 2018-11-04: that day begins at 01:00.
        let sao_paulo = ["2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"];
        assert_eq!(starts("America/Sao_Paulo", "2018-11-04T12:00:00Z", 1), sao_paulo);
        // 2024-10-31 has its last hour twice.
        let cairo = ["2024-10-30T21:00:00Z", "2024-10-31T22:00:00Z"];
        assert_eq!(starts("Africa/Cairo", "2024-10-31T12:00:00Z", 0), cairo);
    }

    #[test]
    fn the_rest_of_an_hour_ends_where_the_next_one_begins() {
        assert_eq!(rest_of_hour(90), 90..120);
        assert!(rest_of_hour(120).is_empty());
        assert_eq!(rest_of_hour(-15), -15..0);
    }
}
