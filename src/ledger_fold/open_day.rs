//! The day that is not over: its distinct users without reading all of its hours.
//!
//! `user_day` holds users of the day, and a row of `series` whose `minutes` are the day's length below zero says how many: of
//! each type, and of type 0 all together, which is there as long as the day is kept so. An hour is counted only once its users
//! are in `user_day`. So the users of the day are those, and whoever of its other hours (open, or with something that came
//! late) is not among them.
//!
//! Hours that are not over would have to be told apart name by name. `user_open` has of them what a turn of housekeeping has
//! seen: users who have a number, and are in `user_day` of the days that keep their hour. Who came since is looked up. It
//! goes once the hour has a set; where a row is missing, nothing is wrong.

use std::ops::Range;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::counting::HOUR_MS;
use super::points::series_code;
use crate::events::EventType;
use crate::limits::{OPEN_DAY_USERS_STEP, OPEN_HOURS_LOOKED_AT, OPEN_USERS_READ_MAX};

/// Days that are kept so: where one begins and ends, in minutes.
pub const OPEN_DAYS: &str = "SELECT at, at - minutes FROM series WHERE minutes < 0 AND event_type = 0";

/// The day of `zone` in which an hour lies, in minutes since the epoch; `None` where it begins or ends within an hour.
pub fn day_of(hour: i64, zone: &TimeZone) -> Option<Range<i64>> {
    let at = Timestamp::from_second(hour * 3_600).ok()?;
    let day = zone.to_datetime(at).date();
    let minute = |date: jiff::civil::Date| {
        date.to_zoned_datetime(zone.clone()).ok().map(|at| at.timestamp().as_second().div_euclid(60))
    };
    let day = minute(day)?..minute(day.tomorrow().ok()?)?;
    let is_whole = day.start.rem_euclid(60) == 0 && day.end.rem_euclid(60) == 0;
    (is_whole && day.contains(&(hour * 60))).then_some(day)
}

/// Which hours of a day are counted, as (0, hour); and how many users are known, as (1, users): of a type, or none.
pub fn known_sql(day: &Range<i64>, kind: Option<EventType>) -> String {
    let (at, end, code) = (day.start, day.end, series_code(kind));
    format!(
        "SELECT 0, at / 60 FROM series WHERE minutes = 60 AND event_type = 0 AND at >= {at} AND at < {end} \
           AND users IS NOT NULL \
         UNION ALL SELECT 1, users FROM series WHERE minutes = {at} - {end} AND event_type = {code} AND at = {at}"
    )
}

/// From what [`known_sql`] answers: a statement for the events of the day, and its users that are not known yet; with how
/// many are.
pub fn rest_sql(day: &Range<i64>, kind: Option<EventType>, known: &[(i64, i64)]) -> (String, u64) {
    let counted: Vec<i64> = known.iter().filter(|(what, _)| *what == 0).map(|(_, hour)| *hour).collect();
    let users = known.iter().find(|(what, _)| *what == 1).map_or(0, |(_, users)| *users);
    let hours = day.start / 60..day.end / 60;
    let rest: Vec<String> = hours.clone().filter(|hour| !counted.contains(hour)).map(|hour| hour.to_string()).collect();
    let rest = if rest.is_empty() { "-1".to_owned() } else { rest.join(", ") };
    let (of_rollup, of_users) = match kind {
        Some(kind) => (format!("AND key = '{}'", kind.name()), format!("AND event_type = {}", kind as u8)),
        None => (String::new(), String::new()),
    };
    let sql = format!(
        "SELECT (SELECT CAST(coalesce(sum(count), 0) AS bigint) FROM rollup_hour \
                 WHERE dimension = 1 AND bucket >= {} AND bucket < {} {of_rollup}), \
                (SELECT count(*) FROM (SELECT DISTINCT user_id FROM user_hour AS h WHERE hour IN ({rest}) {of_users} AND {NOT_OPEN} \
                                       ORDER BY user_id) AS u \
                 WHERE (SELECT 1 FROM user_day AS d \
                        WHERE d.at = {} AND d.event_type = {} AND d.user_id = u.user_id LIMIT 1) IS NULL)",
        hours.start,
        hours.end,
        day.start,
        series_code(kind)
    );
    (sql, users.max(0).cast_unsigned())
}

/// Of a row `h` of `user_hour`: a condition.
pub const NOT_OPEN: &str = "NOT EXISTS (SELECT 1 FROM user_open AS o \
     WHERE o.user_id = h.user_id AND o.hour = h.hour AND o.event_type = h.event_type)";

/// Of a row of `user_open` that is not needed any more, as its hour has a set: a condition.
pub const HAS_SET: &str = "EXISTS (SELECT 1 FROM user_set WHERE hours = 1 AND at = hour)";

/// A type and a user of an hour.
pub type OfHour = (i16, String);

/// What looks at users of hours that are not over in a store; each call a step of its own, or several.
pub trait OpenHours {
    /// Why a step failed.
    type Error;

    /// Hours before this one are folded.
    fn until_hour(&mut self) -> Result<i64, Self::Error>;
    /// Takes away rows of earlier hours that are not needed any more, as far as its time goes.
    fn forget_over(&mut self, until_hour: i64) -> Result<(), Self::Error>;
    /// What [`new_users_sql`] answers, beside batches and erasures: what is gone by the time it is written is left out.
    fn new_users(&mut self, hour: i64) -> Result<Vec<OfHour>, Self::Error>;
    /// Gives users of an hour a number, adds them to the days that keep the hour, and to `user_open`.
    fn open(&mut self, hour: i64, some: &[OfHour]) -> Result<(), Self::Error>;
}

/// Looks at the new users of hours that are not over, the newest first, as far as the time goes; true where something is left.
pub fn look_at_open<O: OpenHours>(store: &mut O, now_ms: i64, has_time: &dyn Fn() -> bool) -> Result<bool, O::Error> {
    let until_hour = store.until_hour()?;
    store.forget_over(until_hour)?;
    // A client's clock may be ahead.
    let last = now_ms.div_euclid(HOUR_MS) + 1;
    for hour in (until_hour.max(last - OPEN_HOURS_LOOKED_AT + 1)..=last).rev() {
        if !has_time() {
            return Ok(true);
        }
        let new = store.new_users(hour)?;
        for some in new.chunks(OPEN_DAY_USERS_STEP as usize) {
            if !has_time() {
                return Ok(true);
            }
            store.open(hour, some)?;
        }
        if new.len() >= OPEN_USERS_READ_MAX {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Types and users of an hour that `user_open` does not have, so many at most.
pub fn new_users_sql(hour: i64) -> String {
    format!(
        "SELECT event_type, user_id FROM user_hour AS h WHERE hour = {hour} AND {NOT_OPEN} LIMIT {OPEN_USERS_READ_MAX}"
    )
}

/// Has the counted hours of a day counted again, and the others looked at again: none of their users is in `user_day` yet.
pub fn begin_sql(day: &Range<i64>) -> String {
    let (at, end) = (day.start, day.end);
    format!(
        "DELETE FROM user_open; \
         INSERT INTO series (minutes, event_type, at, count, users) VALUES ({at} - {end}, 0, {at}, 0, 0); \
         UPDATE series SET users = NULL, count = count + 1 \
           WHERE minutes = 60 AND event_type = 0 AND at >= {at} AND at < {end} AND users IS NOT NULL"
    )
}
