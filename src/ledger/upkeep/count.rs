//! Points of series and bitmaps of hours, counted once.
//!
//! Counting reads a snapshot, beside batches. A step writes what was read if no compaction and no erasure has said meanwhile
//! that one of the hours changed.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::time::Instant;

use jiff::tz::TimeZone;
use roaring::RoaringBitmap;

use super::pace::Mark;
use super::steps::Steps;
use crate::events::EventType;
use crate::ledger::frontier::Frontier;
use crate::ledger::sql::{Column, Sql, Value, joined};
use crate::ledger::stats::bitmaps;
use crate::ledger::stats::points::{CountedPoint, kinds, local_days, minutes_sql, points_of};
use crate::ledger::stats::series::count_points;
use crate::ledger::{HOUR_MS, MINUTE_MS};
use crate::limits::{COUNT_EVENTS_FEW, COUNT_USERS_STEP, RECOUNT_HOURS_MAX};
use crate::ports::{Interval, SeriesPoint, SeriesQuery, StoreError};

const DAY_MINUTES: i64 = 1_440;
/// Minutes of raw rows whose users are told apart by one statement.
const COUNTED_AT_ONCE_MS: i64 = 5 * MINUTE_MS;

/// Counts the dirty hours that are due, the newest first; true if something is left.
pub fn hours<S: Steps>(steps: &mut S, has_time: &dyn Fn() -> bool) -> Result<bool, StoreError> {
    let marks = steps.look(dirty_hours)?;
    let mut failed = None;
    let due = steps.pace().due(&marks, Instant::now());
    for group in steps.look(move |sql| groups(sql, due))? {
        if !has_time() {
            return failed.map_or(Ok(true), Err);
        }
        // What fails for all of them is tried for each.
        if group.len() > 1 && count(steps, &group).is_ok_and(|is_counted| is_counted) {
            group.iter().for_each(|at| steps.pace().settle_hour(*at, true));
            continue;
        }
        for at in group {
            match count(steps, &[at]) {
                Ok(true) => steps.pace().settle_hour(at, true),
                // Something came in meanwhile: it is due with the next call.
                Ok(false) => {}
                Err(error) => {
                    steps.pace().settle_hour(at, false);
                    failed.get_or_insert(error);
                }
            }
        }
    }
    failed.map_or(Ok(false), Err)
}

/// An hour whose rows were deleted cannot be counted.
fn dirty_hours(sql: &mut dyn Sql) -> Result<Vec<Mark>, StoreError> {
    let query = format!(
        "SELECT at, count FROM series WHERE users IS NULL \
           AND at >= (SELECT rows_since * 1440 FROM rollup_state) ORDER BY at DESC LIMIT {RECOUNT_HOURS_MAX}"
    );
    Ok(sql.query(&query, &[])?.iter().map(|row| (row.int(0), row.int(1))).collect())
}

/// Hours that are counted together: of one UTC day, and with few events. An import of a year has thousands of small hours.
fn groups(sql: &mut dyn Sql, due: Vec<i64>) -> Result<Vec<Vec<i64>>, StoreError> {
    let (Some(last), Some(first)) = (due.first(), due.last()) else { return Ok(Vec::new()) };
    let query = format!(
        "SELECT bucket * 60, CAST(sum(count) AS bigint) FROM rollup_hour \
         WHERE dimension = 1 AND bucket >= {} AND bucket <= {} GROUP BY 1",
        first.div_euclid(60),
        last.div_euclid(60)
    );
    let events: BTreeMap<i64, i64> = sql.query(&query, &[])?.iter().map(|row| (row.int(0), row.int(1))).collect();
    let (mut groups, mut sum): (Vec<Vec<i64>>, i64) = (Vec::new(), 0);
    for at in due {
        let own = events.get(&at).copied().unwrap_or_default();
        match groups.last_mut() {
            Some(group)
                if group[0].div_euclid(DAY_MINUTES) == at.div_euclid(DAY_MINUTES) && sum + own <= COUNT_EVENTS_FEW =>
            {
                group.push(at);
                sum += own;
            }
            _ => {
                groups.push(vec![at]);
                sum = own;
            }
        }
    }
    Ok(groups)
}

/// What was counted of some hours.
struct Counted {
    marks: Vec<Mark>,
    erasures: i64,
    points: Vec<CountedPoint>,
    /// Type (0: all), hour, bitmap.
    bitmaps: Vec<(i64, i64, Vec<u8>)>,
}

/// Counts hours of one UTC day, by their first minutes; false if something changed meanwhile.
fn count<S: Steps>(steps: &mut S, ats: &[i64]) -> Result<bool, StoreError> {
    give_ordinals(steps, &ats.iter().map(|at| at.div_euclid(60)).collect::<Vec<_>>())?;
    let group = ats.to_vec();
    let Some(counted) = steps.look(move |sql| read(sql, &group))? else { return Ok(false) };
    steps.step(move |sql| write(sql, &counted))
}

/// A user of an hour, as the key of `user_hour` has it.
type UserKey = (i64, i64, String);

/// Gives the users of hours ordinals, some in each step.
fn give_ordinals<S: Steps>(steps: &mut S, hours: &[i64]) -> Result<(), StoreError> {
    let mut after: Option<UserKey> = Some((i64::MIN, 0, String::new()));
    while let Some(last) = after {
        let hours = hours.to_vec();
        after = steps.step(move |sql| give_some(sql, &hours, &last))?;
    }
    Ok(())
}

/// To the next users after one; the last of them if there may be more.
fn give_some(sql: &mut dyn Sql, hours: &[i64], (hour, kind, user): &UserKey) -> Result<Option<UserKey>, StoreError> {
    let query = format!(
        "SELECT hour, event_type, user_id FROM user_hour \
         WHERE hour IN ({}) AND (hour, event_type, user_id) > ($1, $2, $3) \
         ORDER BY hour, event_type, user_id LIMIT {COUNT_USERS_STEP}",
        joined(hours.iter().copied())
    );
    let users = sql.query(&query, &[Value::Int(*hour), Value::Int(*kind), Value::Text(user)])?;
    let day = hours.iter().min().map_or(0, |hour| hour.div_euclid(24));
    let columns = [Column::Texts(users.iter().map(|row| row.text(2)).collect())];
    let rows = sql.dialect().rows(1, &[("user_id", "text")]);
    // A test first: an insert that meets a row uses up an ordinal all the same.
    let give = format!(
        "INSERT INTO visitor (key, day) SELECT DISTINCT 'u:' || r.user_id, {day} FROM {rows} \
         WHERE NOT EXISTS (SELECT 1 FROM visitor AS v WHERE v.key = 'u:' || r.user_id)"
    );
    sql.execute(&give, &[Value::Rows(&columns)])?;
    let seen =
        format!("UPDATE visitor SET day = {day} WHERE day < {day} AND key IN (SELECT 'u:' || r.user_id FROM {rows})");
    sql.execute(&seen, &[Value::Rows(&columns)])?;
    let is_full = users.len() as i64 == COUNT_USERS_STEP;
    Ok(users.last().filter(|_| is_full).map(|row| (row.int(0), row.int(1), row.text(2).to_owned())))
}

/// The versions of the hours that are still dirty.
fn marks_of(sql: &mut dyn Sql, ats: &[i64]) -> Result<Vec<Mark>, StoreError> {
    let query = format!(
        "SELECT at, count FROM series WHERE minutes = 60 AND event_type = 0 AND users IS NULL AND at IN ({}) ORDER BY at",
        joined(ats.iter().copied())
    );
    Ok(sql.query(&query, &[])?.iter().map(|row| (row.int(0), row.int(1))).collect())
}

pub(super) fn erasures(sql: &mut dyn Sql) -> Result<i64, StoreError> {
    Ok(sql.number("SELECT max(seq) FROM erased", &[])?.unwrap_or_default())
}

/// `None` if a user has no ordinal yet, as one came in since they were given.
fn read(sql: &mut dyn Sql, ats: &[i64]) -> Result<Option<Counted>, StoreError> {
    let (marks, erasures) = (marks_of(sql, ats)?, erasures(sql)?);
    let hours: Vec<i64> = marks.iter().map(|(at, _)| at.div_euclid(60)).collect();
    let Some(users) = users_of(sql, &hours)? else { return Ok(None) };
    let mut points = minutes_of(sql, &hours)?;
    let counts = counts_of(sql, &hours)?;
    let mut bitmaps = Vec::new();
    for hour in &hours {
        let of_kind = |kind: Option<EventType>| {
            let code = kind.map_or(0, |kind| kind as i64);
            let count = counts.get(&(*hour, code)).copied().unwrap_or_default();
            let users = users.get(&(*hour, code)).map_or(0, RoaringBitmap::len);
            SeriesPoint { count: count.max(0).cast_unsigned(), users }
        };
        let counted: Vec<SeriesPoint> = kinds().map(of_kind).collect();
        points.extend(points_of(hour * HOUR_MS, (hour + 1) * HOUR_MS, &counted));
        for kind in kinds() {
            let code = kind.map_or(0, |kind| kind as i64);
            let bitmap = users.get(&(*hour, code)).cloned().unwrap_or_default();
            bitmaps.push((code, *hour, bitmaps::bytes(&bitmap)));
        }
    }
    Ok(Some(Counted { marks, erasures, points, bitmaps }))
}

type Users = BTreeMap<(i64, i64), RoaringBitmap>;

/// Ordinals by hour and type, 0 for all.
fn users_of(sql: &mut dyn Sql, hours: &[i64]) -> Result<Option<Users>, StoreError> {
    let query = format!(
        "SELECT hour, event_type, (SELECT ordinal FROM visitor WHERE key = 'u:' || user_id) FROM user_hour \
         WHERE hour IN ({}) ORDER BY hour, event_type, user_id",
        joined([-1].into_iter().chain(hours.iter().copied()))
    );
    let (mut users, mut is_whole) = (Users::new(), true);
    sql.each(&query, &[], &mut |row| {
        match row.opt_int(2).and_then(|ordinal| u32::try_from(ordinal).ok()) {
            Some(ordinal) => [0, row.int(1)].into_iter().for_each(|kind| {
                users.entry((row.int(0), kind)).or_default().insert(ordinal);
            }),
            None => is_whole = false,
        }
        Ok(())
    })?;
    Ok(is_whole.then_some(users))
}

/// Some minutes at a time: each statement has its own time.
fn minutes_of(sql: &mut dyn Sql, hours: &[i64]) -> Result<Vec<CountedPoint>, StoreError> {
    let ranges: Vec<Range<i64>> = match hours {
        [hour] => {
            let step = |from| from..from + COUNTED_AT_ONCE_MS;
            (hour * HOUR_MS..(hour + 1) * HOUR_MS).step_by(COUNTED_AT_ONCE_MS as usize).map(step).collect()
        }
        _ => hours.iter().map(|hour| hour * HOUR_MS..(hour + 1) * HOUR_MS).collect(),
    };
    // Several hours have few events together: one statement.
    let parts = if hours.len() == 1 { 1 } else { ranges.len().max(1) };
    let mut points = Vec::new();
    for ranges in ranges.chunks(parts) {
        points.extend(minutes_in(sql, ranges)?);
    }
    Ok(points)
}

/// Points of the minutes of some ranges of milliseconds.
pub(super) fn minutes_in(sql: &mut dyn Sql, ranges: &[Range<i64>]) -> Result<Vec<CountedPoint>, StoreError> {
    let dialect = sql.dialect();
    let during: Vec<String> = ranges.iter().map(|range| format!("({})", dialect.during("event_time", range))).collect();
    let rows = sql.query(&minutes_sql(dialect.minute(), &format!("({})", during.join(" OR "))), &[])?;
    Ok(rows.iter().map(|row| (row.int(0), row.int(1), row.int(2), row.int(3), row.int(4))).collect())
}

/// Events by hour and type, 0 for all.
fn counts_of(sql: &mut dyn Sql, hours: &[i64]) -> Result<BTreeMap<(i64, i64), i64>, StoreError> {
    let query = format!(
        "SELECT bucket, key, count FROM rollup_hour WHERE dimension = 1 AND bucket IN ({})",
        joined([-1].into_iter().chain(hours.iter().copied()))
    );
    let mut counts: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for row in sql.query(&query, &[])? {
        let code = EventType::from_name(row.text(1)).map_or(0, |kind| kind as i64);
        for kind in [0, code] {
            *counts.entry((row.int(0), kind)).or_default() += row.int(2);
        }
    }
    Ok(counts)
}

fn write(sql: &mut dyn Sql, counted: &Counted) -> Result<bool, StoreError> {
    let ats: Vec<i64> = counted.marks.iter().map(|(at, _)| *at).collect();
    if ats.is_empty() {
        return Ok(true);
    }
    if marks_of(sql, &ats)? != counted.marks || erasures(sql)? != counted.erasures {
        return Ok(false);
    }
    let hours: Vec<i64> = ats.iter().map(|at| at.div_euclid(60)).collect();
    sql.batch(&forget_sql(&hours))?;
    write_points(sql, &counted.points)?;
    super::bitmaps::write(sql, 1, &counted.bitmaps)?;
    Ok(true)
}

/// Deletes the points and bitmaps that contain some hours, and the hours' own points but that of all types, the
/// mark. The hours are of one UTC day; a local day that lies between two of them goes, too. Each statement walks a key: together
/// they would read the whole table.
fn forget_sql(hours: &[i64]) -> String {
    let first = hours.iter().min().map_or(0, |hour| hour * 60);
    let end = hours.iter().max().map_or(0, |hour| (hour + 1) * 60);
    let of_hours = joined(hours.iter().copied());
    let ats = joined(hours.iter().map(|hour| hour * 60));
    format!(
        "DELETE FROM series WHERE minutes = 1 AND event_type IN (0, 1, 2, 3, 4, 5) AND at >= {first} AND at < {end} \
           AND at / 60 IN ({of_hours}); \
         DELETE FROM series WHERE minutes = 60 AND event_type IN (1, 2, 3, 4, 5) AND at IN ({ats}); \
         DELETE FROM series WHERE minutes > 60 AND at < {end} AND at + minutes > {first}; {}",
        bitmaps::forget_sql(hours)
    )
}

pub(super) fn write_points(sql: &mut dyn Sql, points: &[CountedPoint]) -> Result<(), StoreError> {
    let column = |value: fn(&CountedPoint) -> i64| Column::Ints(points.iter().map(value).collect());
    let columns = [column(|p| p.0), column(|p| p.1), column(|p| p.2), column(|p| p.3), column(|p| p.4)];
    let names = ["minutes", "event_type", "at", "count", "users"].map(|name| (name, "bigint"));
    let rows = sql.dialect().rows(1, &names);
    let statement = format!(
        "INSERT INTO series (minutes, event_type, at, count, users) SELECT minutes, event_type, at, count, users FROM {rows} \
         WHERE true ON CONFLICT (minutes, event_type, at) DO UPDATE SET count = excluded.count, users = excluded.users"
    );
    sql.execute(&statement, &[Value::Rows(&columns)]).map(drop)
}

/// Counts the points of local days that are closed and have none, the newest first; true if something is left.
pub fn days<S: Steps>(steps: &mut S, zone: &TimeZone, has_time: &dyn Fn() -> bool) -> Result<bool, StoreError> {
    let zone = zone.clone();
    let mut failed = None;
    for day in steps.look(move |sql| missing_days(sql, &zone))? {
        if !has_time() {
            return failed.map_or(Ok(true), Err);
        }
        if !steps.pace().days.is_due(day.start, Instant::now()) {
            continue;
        }
        let counted = count_day(steps, day.clone());
        steps.pace().days.settle(day.start, counted.is_ok(), Instant::now());
        failed = failed.or(counted.err());
    }
    failed.map_or(Ok(false), Err)
}

fn missing_days(sql: &mut dyn Sql, zone: &TimeZone) -> Result<Vec<Range<i64>>, StoreError> {
    let frontier = Frontier::read(sql)?;
    let ends = sql.first("SELECT min(at), max(at) FROM series WHERE minutes = 60 AND event_type = 0", &[])?;
    let Some((first, last)) = ends.and_then(|row| row.opt_int(0).zip(row.opt_int(1))) else { return Ok(Vec::new()) };
    let known: HashSet<i64> =
        sql.numbers("SELECT at FROM series WHERE minutes > 60 AND event_type = 0", &[])?.into_iter().collect();
    let days = local_days(zone, first, (last + 60).min(frontier.until_hour * 60), &known);
    Ok(days.into_iter().filter(|day| day.start >= frontier.rows_since * DAY_MINUTES).collect())
}

/// Versions of the hours of a day; `None` if one has to be counted first.
fn hours_of(sql: &mut dyn Sql, day: &Range<i64>) -> Result<Option<Vec<Mark>>, StoreError> {
    let query = format!(
        "SELECT at, count, users FROM series \
         WHERE minutes = 60 AND event_type = 0 AND at > {} - 60 AND at < {} ORDER BY at",
        day.start, day.end
    );
    let rows = sql.query(&query, &[])?;
    let is_whole = rows.iter().all(|row| row.opt_int(2).is_some());
    Ok(is_whole.then(|| rows.iter().map(|row| (row.int(0), row.int(1))).collect()))
}

/// A day that changed meanwhile is counted by a later call.
fn count_day<S: Steps>(steps: &mut S, day: Range<i64>) -> Result<(), StoreError> {
    let read = steps.look({
        let day = day.clone();
        move |sql| {
            let Some(hours) = hours_of(sql, &day)? else { return Ok(None) };
            let (from_ms, to_ms, erasures) = (day.start * MINUTE_MS, day.end * MINUTE_MS, erasures(sql)?);
            let mut counted = Vec::new();
            for event_type in kinds() {
                let query = SeriesQuery { event_type, interval: Interval::Day, edges_ms: vec![from_ms, to_ms] };
                counted.extend(count_points(sql, &query, &HashSet::new())?);
            }
            Ok(Some((hours, erasures, points_of(from_ms, to_ms, &counted))))
        }
    })?;
    let Some((before, erased, points)) = read else { return Ok(()) };
    steps.step(move |sql| {
        // Every hour that was counted again has another version.
        match hours_of(sql, &day)? == Some(before) && erasures(sql)? == erased {
            true => write_points(sql, &points),
            false => Ok(()),
        }
    })
}
