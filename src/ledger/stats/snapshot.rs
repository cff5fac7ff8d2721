//! Recent searches, and the snapshot that a live store is built from.

use std::collections::BTreeMap;
use std::ops::Range;

use super::local_days::rest_of_hour;
use super::posts::watermark_of;
use super::rankings::edge_counts;
use super::recent::{RecentRow, newest_by_user};
use crate::events::{Dimension, Sketch};
use crate::ledger::delta::pending;
use crate::ledger::sql::{Sql, Value};
use crate::ledger::{HOUR_MS, MINUTE_MS};
use crate::limits::{FORGOTTEN_MAX, LIVE_DAYS_KEPT, LIVE_MINUTES_KEPT, LIVE_TOMBSTONE_KEPT_MS, RECENT_SEARCHES_MS};
use crate::ports::{Snapshot, StoreError};

/// Dimension, bucket, name, count.
type Counted = (Dimension, i64, String, i64);

pub fn recent(sql: &mut dyn Sql, user: &str, now_ms: i64) -> Result<Vec<String>, StoreError> {
    let rows = recent_rows(sql, Some(user), now_ms)?;
    Ok(rows.into_iter().rev().map(|row| row.keyword).collect())
}

/// Searches of the last hour, oldest first, those of one request in its order: of one user, or of all.
fn recent_rows(sql: &mut dyn Sql, user: Option<&str>, now_ms: i64) -> Result<Vec<RecentRow>, StoreError> {
    let forgotten = forgotten(sql, user, i64::MIN)?;
    let (dialect, since) = (sql.dialect(), sql.dialect().time(now_ms - RECENT_SEARCHES_MS));
    let (mine, values) = match user {
        Some(user) => ("user_id = $1", vec![Value::Text(user)]),
        None => ("user_id IS NOT NULL", Vec::new()),
    };
    let happened = dialect.happened();
    let query = format!(
        "SELECT user_id, keyword, {} FROM events WHERE event_time > {since} AND received_at > {since} \
           AND event_type = 'SEARCH' AND keyword IS NOT NULL AND {mine} \
         ORDER BY {happened} DESC, received_at DESC, {} DESC",
        dialect.ms(happened),
        dialect.row_id()
    );
    // Row by row: an hour may hold millions, of which ten per user are kept.
    let mut newest = newest_by_user(&forgotten);
    sql.each(&query, &values, &mut |mut row| {
        newest.add(RecentRow { user_id: row.take_text(0), keyword: row.take_text(1), at_ms: row.int(2) });
        Ok(())
    })?;
    Ok(newest.oldest_first())
}

/// What was forgotten up to a time later than `after_ms`, with everything of erased users: of one user, or of all.
fn forgotten(sql: &mut dyn Sql, user: Option<&str>, after_ms: i64) -> Result<Vec<(String, String, i64)>, StoreError> {
    let (mine, values) = match user {
        Some(user) => ("user_id = $2 AND", vec![Value::Int(after_ms), Value::Text(user)]),
        None => ("", vec![Value::Int(after_ms)]),
    };
    let query = format!(
        "SELECT user_id, keyword, max(at) FROM (SELECT user_id, keyword, at FROM recent_forgotten \
           UNION ALL SELECT substr(id, 3), '', at FROM erased WHERE substr(id, 1, 2) = 'u:') AS up_to \
         WHERE {mine} at > $1 GROUP BY user_id, keyword ORDER BY 3 DESC LIMIT {FORGOTTEN_MAX}"
    );
    let mut rows = sql.query(&query, &values)?;
    Ok(rows.iter_mut().map(|row| (row.take_text(0), row.take_text(1), row.int(2))).collect())
}

/// `days`: minutes within an hour at which a local day begins.
pub fn snapshot(sql: &mut dyn Sql, now_ms: i64, days: &[i64]) -> Result<Snapshot, StoreError> {
    let watermarks = sql.query("SELECT stream, position, crc FROM watermark ORDER BY stream", &[])?;
    let minute = now_ms.div_euclid(MINUTE_MS) - LIVE_MINUTES_KEPT;
    let hour = now_ms.div_euclid(HOUR_MS) - (LIVE_DAYS_KEPT + 1) * 24;
    let dialect = sql.dialect();
    let user_minutes = format!(
        "SELECT DISTINCT {}, user_id FROM events WHERE event_time >= {} AND user_id IS NOT NULL",
        dialect.minute(),
        dialect.time((minute + 1) * MINUTE_MS)
    );
    let user_minutes = sketches(sql, &user_minutes)?;
    let user_hours = sketches(sql, &format!("SELECT hour, user_id FROM user_hour WHERE hour > {hour}"))?;
    let recent = recent_rows(sql, None, now_ms)?;
    let (rests_of_hours, user_parts) = parts_of_hours(sql, days)?;
    let tombstones =
        format!("SELECT post_id, version FROM tombstone WHERE at_ms > {}", now_ms - LIVE_TOMBSTONE_KEPT_MS);
    let mut tombstones = sql.query(&tombstones, &[])?;
    Ok(Snapshot {
        watermarks: watermarks.iter().map(|row| (row.uuid(0), watermark_of(row, 1))).collect(),
        minutes: rollup_rows(sql, "rollup_minute", 1, minute)?,
        hours: rollup_rows(sql, "rollup_hour", 60, hour)?,
        days_within_hours: days.to_vec(),
        rests_of_hours,
        user_parts,
        user_minutes,
        user_hours,
        totals: totals(sql)?,
        recent: recent.into_iter().map(|row| (row.user_id, row.keyword, row.at_ms)).collect(),
        forgotten: forgotten(sql, None, now_ms - RECENT_SEARCHES_MS)?,
        tombstones: tombstones.iter_mut().map(|row| (row.take_text(0), row.int(1))).collect(),
    })
}

fn totals(sql: &mut dyn Sql) -> Result<Vec<(Dimension, String, i64)>, StoreError> {
    let mut totals: BTreeMap<(u8, String), i64> = BTreeMap::new();
    for mut row in sql.query("SELECT dimension, key, count FROM rollup_total", &[])? {
        totals.insert((row.int(0) as u8, row.take_text(1)), row.int(2));
    }
    pending(sql, Dimension::ALL, |code, _, key, count| {
        let key = if code == Dimension::Type as u8 { key } else { "" };
        *totals.entry((code, key.to_owned())).or_default() += count;
    })?;
    let of_dimension = |((code, key), count)| Some((Dimension::from_code(code)?, key, count));
    Ok(totals.into_iter().filter_map(of_dimension).collect())
}

type PartsOfHours = (Vec<Counted>, Vec<(i64, Sketch)>);

/// Counts of the rest of each hour in which a day begins, and users of both its parts.
fn parts_of_hours(sql: &mut dyn Sql, days: &[i64]) -> Result<PartsOfHours, StoreError> {
    let rests: Vec<Range<i64>> = days.iter().map(|minute| rest_of_hour(*minute)).collect();
    let ranked: Vec<Dimension> = Dimension::ALL.into_iter().filter(|of| *of != Dimension::Type).collect();
    let counts = edge_counts(sql, &rests, &ranked)?;
    let counts = counts.into_iter().map(|edge| (edge.dimension, edge.minute, edge.name, edge.count)).collect();
    let mut users = Vec::new();
    for rest in rests {
        let (hour, start, dialect) = (rest.end - 60, rest.start, sql.dialect());
        let query = format!(
            "SELECT DISTINCT CASE WHEN {} < {start} THEN CAST({hour} AS bigint) ELSE {start} END, user_id FROM events \
             WHERE {} AND user_id IS NOT NULL",
            dialect.minute(),
            dialect.during("event_time", &(hour * MINUTE_MS..rest.end * MINUTE_MS))
        );
        users.extend(sketches(sql, &query)?);
    }
    Ok((counts, users))
}

/// Users by bucket, of rows (bucket, user); row by row.
fn sketches(sql: &mut dyn Sql, query: &str) -> Result<Vec<(i64, Sketch)>, StoreError> {
    let mut sketches: BTreeMap<i64, Sketch> = BTreeMap::new();
    sql.each(query, &[], &mut |row| {
        sketches.entry(row.int(0)).or_default().add(row.text(1));
        Ok(())
    })?;
    Ok(sketches.into_iter().collect())
}

/// Rows of buckets newer than `after`, then the pending ones.
fn rollup_rows(sql: &mut dyn Sql, table: &str, minutes: i64, after: i64) -> Result<Vec<Counted>, StoreError> {
    let mut all = Vec::new();
    for dimension in Dimension::ALL {
        let query = format!(
            "SELECT bucket, key, count FROM {table} WHERE dimension = {} AND bucket > {after} ORDER BY bucket, key",
            dimension as u8
        );
        sql.each(&query, &[], &mut |mut row| {
            all.push((dimension, row.int(0), row.take_text(1), row.int(2)));
            Ok(())
        })?;
    }
    pending(sql, Dimension::ALL, |code, minute, key, count| {
        let bucket = minute.div_euclid(minutes);
        if let Some(dimension) = Dimension::from_code(code).filter(|_| bucket > after) {
            all.push((dimension, bucket, key.to_owned(), count));
        }
    })?;
    Ok(all)
}
