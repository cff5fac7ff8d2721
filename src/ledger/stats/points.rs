//! Points of series that were counted once: which of them are valid, and which are still to be counted.
//!
//! A point is valid if it is there (every one has a row of all types together), no hour that it
//! shares time with has to be counted again, and no count of its time is pending. A minute is also
//! valid if its hour is.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::events::EventType;
use crate::ledger::MINUTE_MS;
use crate::ports::{Interval, SeriesPoint, SeriesQuery};

const HOUR_MINUTES: i64 = 60;

/// A row of [`points_sql`]: what it is, how long in minutes, where it begins, count, users.
type PointRow = (i64, i64, i64, i64, i64);

const VALUE: i64 = 0;
const MARK: i64 = 1;
const STALE: i64 = 2;

/// The code that a type has in `series` and `user_hour`; 0 is all of them.
pub fn series_code(kind: Option<EventType>) -> u8 {
    kind.map_or(0, |kind| kind as u8)
}

/// Reads all that is known of a series.
pub fn points_sql(query: &SeriesQuery) -> String {
    let minutes = |at_ms: &i64| at_ms.div_euclid(MINUTE_MS);
    let (first, end) = (query.edges_ms.first().map_or(0, minutes), query.edges_ms.last().map_or(0, minutes));
    let hour = first - first.rem_euclid(HOUR_MINUTES);
    let mut lengths: Vec<i64> = query.edges_ms.windows(2).map(|edge| minutes(&(edge[1] - edge[0]))).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let lengths = lengths.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    // Minutes have marks of their own: an hour that was never counted (0) does not make them stale.
    let (marks, changes) = if query.interval == Interval::Minute { ("1, 60", 0) } else { (&*lengths, -1) };
    format!(
        "SELECT {VALUE}, minutes, at, count, users FROM series WHERE minutes IN ({lengths}) AND event_type = {} \
           AND at >= {first} AND at < {end} AND users IS NOT NULL \
         UNION ALL SELECT {MARK}, minutes, at, 0, 0 FROM series WHERE minutes IN ({marks}) AND event_type = 0 \
           AND at >= {hour} AND at < {end} AND users IS NOT NULL \
         UNION ALL SELECT {STALE}, minutes, at, 0, 0 FROM series \
           WHERE users IS NULL AND count > {changes} AND at >= {hour} AND at < {end}",
        series_code(query.event_type)
    )
}

/// The points that are known, and the numbers of those that are not. `pending`: minutes with counts
/// that are not in rollups.
pub fn known_points(
    query: &SeriesQuery,
    rows: impl Iterator<Item = PointRow>,
    pending: &HashSet<i64>,
) -> (Vec<SeriesPoint>, Vec<usize>) {
    let mut values: HashMap<(i64, i64), SeriesPoint> = HashMap::new();
    let mut marks: HashSet<(i64, i64)> = HashSet::new();
    let mut stale = Vec::new();
    for (what, minutes, at, count, users) in rows {
        match what {
            VALUE => {
                let point = SeriesPoint { count: count.max(0).cast_unsigned(), users: users.max(0).cast_unsigned() };
                values.insert((minutes, at), point);
            }
            MARK => drop(marks.insert((minutes, at))),
            _ => stale.push(at),
        }
    }
    let mut points = Vec::with_capacity(query.edges_ms.len());
    let mut missing = Vec::new();
    for (number, edge) in query.edges_ms.windows(2).enumerate() {
        let (at, end) = (edge[0].div_euclid(MINUTE_MS), edge[1].div_euclid(MINUTE_MS));
        let is_marked = marks.contains(&(end - at, at))
            || query.interval == Interval::Minute && marks.contains(&(HOUR_MINUTES, at - at.rem_euclid(HOUR_MINUTES)));
        let is_whole = edge.iter().all(|ms| ms.rem_euclid(MINUTE_MS) == 0);
        let is_stale = stale.iter().any(|hour| *hour < end && hour + HOUR_MINUTES > at)
            || pending.iter().any(|minute| (at..end).contains(minute));
        let is_known = is_whole && !is_stale && is_marked;
        if !is_known {
            missing.push(number);
        }
        points.push(values.get(&(end - at, at)).copied().filter(|_| is_known).unwrap_or_default());
    }
    (points, missing)
}

/// Numbers side by side, as ranges.
pub fn runs(numbers: &[usize]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some(run) if run.end == *number => run.end += 1,
            _ => runs.push(*number..number + 1),
        }
    }
    runs
}

/// Every type, and all together.
pub fn kinds() -> impl Iterator<Item = Option<EventType>> {
    std::iter::once(None).chain((1..=5).map(EventType::from_code))
}

/// The type's code of a name, as SQL of both ledgers; `column` holds the name.
fn code_sql(column: &str) -> String {
    let cases: Vec<String> =
        kinds().flatten().map(|kind| format!("WHEN '{}' THEN {}", kind.name(), kind as u8)).collect();
    format!("CASE {column} {} END", cases.join(" "))
}

/// A row of `series`: how long it is in minutes, its type, where it begins, count, users.
pub type CountedPoint = (i64, i64, i64, i64, i64);

/// Counts by minute, from raw rows, as [`CountedPoint`]s: `minute` is the expression of a row's
/// minute, `during` the condition that it lies in the hours. Users are grouped first: PostgreSQL
/// sorts for `count(DISTINCT)`, which took 2.2 times as long for 1.2 million rows. SQLite takes as
/// long for either.
pub fn minutes_sql(minute: &str, during: &str) -> String {
    let counted = |code: &str| {
        format!(
            "SELECT 1, code, at, CAST(sum(count) AS bigint), count(user_id) FROM \
               (SELECT {code} AS code, {minute} AS at, user_id, count(*) AS count FROM events WHERE {during} \
               GROUP BY 1, 2, 3) AS by_user GROUP BY code, at"
        )
    };
    format!("{} UNION ALL {}", counted(&code_sql("event_type")), counted("0"))
}

/// The points of a range, one for each of [`kinds`]: all together always, of types those that are not nothing.
pub fn points_of(from_ms: i64, to_ms: i64, counted: &[SeriesPoint]) -> Vec<CountedPoint> {
    let (minutes, at) = ((to_ms - from_ms).div_euclid(MINUTE_MS), from_ms.div_euclid(MINUTE_MS));
    let of_kind = |(kind, point): (Option<EventType>, &SeriesPoint)| {
        let is_kept = kind.is_none() || *point != SeriesPoint::default();
        is_kept.then(|| (minutes, series_code(kind).into(), at, point.count.cast_signed(), point.users.cast_signed()))
    };
    kinds().zip(counted).filter_map(of_kind).collect()
}

/// The days of `zone`, in minutes since the epoch, that lie between two minutes and begin at none of `known`; the newest
/// first.
pub fn local_days(zone: &TimeZone, first: i64, end: i64, known: &HashSet<i64>) -> Vec<Range<i64>> {
    let begin =
        |date: Date| date.to_zoned_datetime(zone.clone()).ok().map(|at| at.timestamp().as_second().div_euclid(60));
    let date = |minute: i64| Timestamp::from_second(minute * 60).ok().map(|at| zone.to_datetime(at).date());
    let (Some(mut day), Some(last)) = (date(first), date(end)) else { return Vec::new() };
    let mut days = Vec::new();
    while day < last {
        let Ok(next) = day.tomorrow() else { break };
        if let (Some(at), Some(behind)) = (begin(day), begin(next))
            && !known.contains(&at)
            && behind <= end
        {
            days.push(at..behind);
        }
        day = next;
    }
    days.reverse();
    days
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shares_time_with_an_hour_that_is_to_be_counted_again_is_not_believed() {
        let hour_ms = 3_600_000;
        let day =
            SeriesQuery { event_type: None, interval: Interval::Day, edges_ms: vec![0, 24 * hour_ms, 48 * hour_ms] };
        let rows =
            vec![(VALUE, 1_440, 0, 7, 3), (MARK, 1_440, 0, 0, 0), (MARK, 1_440, 1_440, 0, 0), (STALE, 60, 1_440, 0, 0)];
        let (points, missing) = known_points(&day, rows.into_iter(), &HashSet::new());
        assert_eq!((points[0], missing), (SeriesPoint { count: 7, users: 3 }, vec![1]));
        let minutes: Vec<i64> = (0..=120).map(|minute| minute * 60_000).collect();
        let minutes = SeriesQuery { event_type: None, interval: Interval::Minute, edges_ms: minutes };
        let rows = [(VALUE, 1, 5, 2, 1), (MARK, 60, 0, 0, 0), (MARK, 60, 60, 0, 0)];
        let (points, missing) = known_points(&minutes, rows.into_iter(), &HashSet::from([61, 62, 119]));
        assert_eq!((points[5].count, points[6].count), (2, 0));
        assert_eq!(runs(&missing), [61..63, 119..120]);
        // Of an hour that is open, each minute has a mark of its own.
        let rows = [(VALUE, 1, 5, 2, 1), (MARK, 1, 5, 0, 0), (MARK, 1, 6, 0, 0), (MARK, 60, 60, 0, 0)];
        let (points, missing) = known_points(&minutes, rows.into_iter(), &HashSet::from([6]));
        assert_eq!((points[5].count, runs(&missing)), (2, vec![0..5, 6..60]));
    }
}
