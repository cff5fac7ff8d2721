//! Reads, each in one snapshot. What is read is decided in `ledger_fold`.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use rusqlite::types::{Type, Value};
use rusqlite::{OptionalExtension, Result, Row, Transaction, params, params_from_iter};
use uuid::Uuid;

use super::{edges, rankings};
use crate::events::{Dimension, Sketch};
use crate::ledger_fold::{
    Folded, HOUR_MS, Named, RankPlan, RawCount, RecentRow, RollupCount, Terms, VerdictRow, log_ranges, merge_verdicts,
    name_sum_sql, named_values, newest_by_user, plan_count, rest_of_hour, sort_ranked, sums,
};
use crate::limits::{FORGOTTEN_MAX, LIVE_DAYS_KEPT, LIVE_MINUTES_KEPT, LIVE_TOMBSTONE_KEPT_MS, RECENT_SEARCHES_MS};
use crate::ports::{CountFilter, LikeOutcome, Likes, Position, Post, Snapshot, TopQuery, Verdicts, Watermark};

pub(super) fn watermark(transaction: &Transaction<'_>, stream: Uuid) -> Result<Option<Watermark>> {
    transaction
        .prepare_cached("SELECT position, crc FROM watermark WHERE stream = ?1")?
        .query_row([stream.to_string()], |row| watermark_at(row, 0))
        .optional()
}

fn watermark_at(row: &Row<'_>, column: usize) -> Result<Watermark> {
    let position = row.get::<_, i64>(column)?.cast_unsigned();
    Ok(Watermark { position, crc: u32::try_from(row.get::<_, i64>(column + 1)?).unwrap_or(u32::MAX) })
}

pub(super) fn verdicts(
    transaction: &Transaction<'_>,
    stream: Uuid,
    after: Position,
    up_to: Position,
) -> Result<Option<Verdicts>> {
    let bound = |position| i64::try_from(position).unwrap_or(i64::MAX);
    let (stream, after, up_to) = (stream.to_string(), bound(after), bound(up_to));
    let pruned = transaction
        .prepare_cached("SELECT 1 FROM watermark WHERE stream = ?1 AND pruned > ?2")?
        .exists(params![stream, after])?;
    if pruned {
        return Ok(None);
    }
    let rows = transaction
        .prepare_cached(
            "SELECT position, kind, created_at_ms, likes, version FROM verdict \
             WHERE stream = ?1 AND position > ?2 AND position <= ?3 ORDER BY position",
        )?
        .query_map(params![stream, after, up_to], |row| {
            let (kind, created_at_ms, likes) = (row.get(1)?, row.get(2)?, row.get(3)?);
            let verdict = VerdictRow { kind, created_at_ms, likes, version: row.get(4)? };
            Ok((row.get(0)?, verdict))
        })?
        .collect::<Result<Vec<(i64, VerdictRow)>>>()?;
    let mut likes = transaction.prepare_cached(
        "SELECT position, action, like_count, version FROM post_like_log \
         WHERE stream = ?1 AND position > ?2 AND position <= ?3",
    )?;
    let mut log = Vec::new();
    for (after, up_to) in log_ranges(after, up_to, &rows) {
        for row in likes.query_map(params![stream, after, up_to], |row| Ok((row.get(0)?, like_outcome(row)?)))? {
            log.push(row?);
        }
    }
    Ok(Some(merge_verdicts(rows, log)))
}

fn like_outcome(row: &Row<'_>) -> Result<LikeOutcome> {
    let liked = row.get_ref(1)?.as_str()? == "LIKE";
    Ok(LikeOutcome { liked, changed: true, like_count: row.get(2)?, version: row.get(3)? })
}

pub(super) fn count(transaction: &Transaction<'_>, filter: &CountFilter) -> Result<u64> {
    let plan = plan_count(filter);
    let mut total = 0;
    let folded = rankings::folded(transaction)?;
    for rollup in &plan.rollups {
        total += count_rollup(transaction, rollup, folded)?;
    }
    for range in plan.raw {
        total += count_raw(transaction, &range, filter)?;
    }
    Ok(total.max(0).cast_unsigned())
}

fn count_rollup(transaction: &Transaction<'_>, rollup: &RollupCount, folded: Folded) -> Result<i64> {
    let terms =
        [Terms { dimension: rollup.dimension, weight: 1.0, sums: sums(&rollup.hours, folded, rollup.dimension) }];
    let sql = format!("SELECT CAST({} AS INTEGER)", name_sum_sql(&terms, "?1", true));
    transaction.query_row(&sql, [&rollup.key], |row| row.get(0))
}

fn count_raw(transaction: &Transaction<'_>, range: &RawCount, filter: &CountFilter) -> Result<i64> {
    let of_time = |condition, ms: Option<i64>| ms.map(|ms| (condition, Named::Number(ms)));
    let mut named = named_values(filter);
    named.extend(of_time("event_time >=", range.from_ms));
    named.extend(of_time("event_time <", range.to_ms));
    let conditions: String = named.iter().map(|(condition, _)| format!(" AND {condition} ?")).collect();
    let values = named.iter().map(|(_, value)| match value {
        Named::Number(number) => Value::from(*number),
        Named::Text(text) => Value::from((*text).to_owned()),
    });
    let sql = format!("SELECT count(*) FROM events WHERE true{conditions}");
    transaction.query_row(&sql, params_from_iter(values), |row| row.get(0))
}

pub(super) fn top(
    transaction: &Transaction<'_>,
    query: &TopQuery,
    plan: &RankPlan,
    now_ms: i64,
    few: i64,
) -> Result<Vec<(String, f64)>> {
    if let Some(top) = rankings::top(transaction, query, plan, now_ms, few)? {
        return Ok(top);
    }
    let (Some((first, _)), Some((last, _))) = (plan.buckets.first(), plan.buckets.last()) else {
        return Ok(Vec::new());
    };
    let sql =
        format!("SELECT key, bucket, count FROM {} WHERE dimension = ?1 AND bucket BETWEEN ?2 AND ?3", plan.table);
    let mut statement = transaction.prepare_cached(&sql)?;
    let mut scores: std::collections::HashMap<String, f64> = std::collections::HashMap::new();
    for (name, score) in rankings::edge_scores(transaction, plan)? {
        *scores.entry(name).or_default() += score;
    }
    for (dimension, weight) in &plan.parts {
        let mut rows = statement.query(params![*dimension as i64, first, last])?;
        while let Some(row) = rows.next()? {
            let key = row.get_ref(0)?.as_str()?;
            let factor = plan.buckets[(row.get::<_, i64>(1)? - first) as usize].1;
            let add = row.get::<_, i64>(2)? as f64 * factor * weight;
            match scores.get_mut(key) {
                Some(score) => *score += add,
                None => {
                    scores.insert(key.to_owned(), add);
                }
            }
        }
    }
    Ok(sort_ranked(scores.into_iter().collect(), plan.limit))
}

pub(super) fn likes(transaction: &Transaction<'_>, post_id: &str, user_id: Option<&str>) -> Result<Likes> {
    transaction
        .prepare_cached(
            "SELECT coalesce((SELECT like_count FROM post_stat WHERE post_id = ?1), 0), \
                    EXISTS (SELECT 1 FROM post_like WHERE post_id = ?1 AND user_id = ?2)",
        )?
        .query_row(params![post_id, user_id], |row| Ok(Likes { like_count: row.get(0)?, liked: row.get(1)? }))
}

pub(super) fn post(transaction: &Transaction<'_>, post_id: &str) -> Result<Option<Post>> {
    transaction
        .prepare_cached(
            "SELECT post_id, user_id, content, hashtags, image_urls, created_at, coalesce(like_count, 0) \
             FROM post LEFT JOIN post_stat USING (post_id) WHERE post_id = ?1",
        )?
        .query_row([post_id], post_of)
        .optional()
}

/// Post, user, content, hashtags, images, milliseconds, likes: in this order.
pub(super) fn post_of(row: &Row<'_>) -> Result<Post> {
    let list = |column| -> Result<Vec<String>> {
        let text = row.get_ref(column)?.as_str()?;
        serde_json::from_str(text).map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, e.into()))
    };
    Ok(Post {
        post_id: row.get(0)?,
        user_id: row.get(1)?,
        content: row.get(2)?,
        hashtags: list(3)?,
        image_urls: list(4)?,
        created_at_ms: row.get(5)?,
        like_count: row.get(6)?,
    })
}

pub(super) fn recent(transaction: &Transaction<'_>, user_id: &str, now_ms: i64) -> Result<Vec<String>> {
    let mut rows = recent_rows(transaction, Some(user_id), now_ms)?;
    rows.reverse();
    Ok(rows.into_iter().map(|row| row.keyword).collect())
}

/// Searches of the last hour, oldest first, those of one request in its order: of one user, or of all.
fn recent_rows(transaction: &Transaction<'_>, user_id: Option<&str>, now_ms: i64) -> Result<Vec<RecentRow>> {
    let forgotten = forgotten(transaction, user_id, i64::MIN)?;
    let mut statement = transaction.prepare_cached(
        "SELECT user_id, keyword, min(event_time, received_at) AS at FROM events WHERE event_time > ?1 \
             AND received_at > ?1 AND event_type = 'SEARCH' AND keyword IS NOT NULL AND user_id IS NOT NULL \
             AND (?2 IS NULL OR user_id = ?2) \
             ORDER BY at DESC, received_at DESC, rowid DESC",
    )?;
    // Row by row: an hour may hold millions, of which ten a user are kept.
    let rows = statement.query_map(params![now_ms - RECENT_SEARCHES_MS, user_id], |row| {
        Ok(RecentRow { user_id: row.get(0)?, keyword: row.get(1)?, at_ms: row.get(2)? })
    })?;
    newest_by_user(rows, &forgotten)
}

/// What was forgotten up to a time later than `after_ms`, with all of whom was erased: of one user, or of all.
fn forgotten(
    transaction: &Transaction<'_>,
    user_id: Option<&str>,
    after_ms: i64,
) -> Result<Vec<(String, String, i64)>> {
    let sql = "SELECT user_id, keyword, max(at) FROM (SELECT * FROM recent_forgotten \
                 UNION ALL SELECT user_id, '', at FROM erased) AS up_to \
               WHERE (?1 IS NULL OR user_id = ?1) AND at > ?2 \
               GROUP BY user_id, keyword ORDER BY 3 DESC LIMIT ?3";
    let mut statement = transaction.prepare_cached(sql)?;
    let rows = statement.query_map(params![user_id, after_ms, FORGOTTEN_MAX as i64], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    rows.collect()
}

pub(super) fn snapshot(transaction: &Transaction<'_>, now_ms: i64, days: &[i64]) -> Result<Snapshot> {
    let watermarks = transaction
        .prepare_cached("SELECT stream, position, crc FROM watermark ORDER BY stream")?
        .query_map([], |row| {
            let stream = Uuid::parse_str(row.get_ref(0)?.as_str()?).unwrap_or_default();
            Ok((stream, watermark_at(row, 1)?))
        })?
        .collect::<Result<Vec<_>>>()?;
    let minute = now_ms.div_euclid(60_000) - LIVE_MINUTES_KEPT;
    let minutes = rollup_rows(transaction, "rollup_minute", minute)?;
    let hour = now_ms.div_euclid(HOUR_MS) - (LIVE_DAYS_KEPT + 1) * 24;
    let hours = rollup_rows(transaction, "rollup_hour", hour)?;
    let totals = transaction
        .prepare_cached("SELECT dimension, key, sum(count) FROM rollup_total GROUP BY 1, 2 ORDER BY 1, 2")?
        .query_map([], |row| Ok(dimension(row.get(0)?).zip(Some((row.get(1)?, row.get(2)?)))))?
        .collect::<Result<Vec<_>>>()?;
    let totals = totals.into_iter().flatten().map(|(dimension, (key, count))| (dimension, key, count)).collect();
    let user_minutes = sketches(
        transaction,
        "SELECT event_time / 60000, user_id FROM events WHERE event_time >= (?1 + 1) * 60000 AND user_id IS NOT NULL",
        minute,
    )?;
    let user_hours = sketches(transaction, "SELECT hour, user_id FROM user_hour WHERE hour > ?1", hour)?;
    let recent = recent_rows(transaction, None, now_ms)?;
    let recent = recent.into_iter().map(|row| (row.user_id, row.keyword, row.at_ms)).collect();
    let forgotten = forgotten(transaction, None, now_ms - RECENT_SEARCHES_MS)?;
    let (rests_of_hours, user_parts) = parts_of_hours(transaction, days)?;
    let tombstones = transaction
        .prepare_cached("SELECT post_id, version FROM tombstone WHERE at_ms > ?1")?
        .query_map([now_ms - LIVE_TOMBSTONE_KEPT_MS], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<_>>>()?;
    Ok(Snapshot {
        watermarks,
        days_within_hours: days.to_vec(),
        rests_of_hours,
        user_parts,
        minutes,
        hours,
        user_minutes,
        user_hours,
        totals,
        recent,
        forgotten,
        tombstones,
    })
}

type PartsOfHours = (Vec<(Dimension, i64, String, i64)>, Vec<(i64, Sketch)>);

/// Counts of the rest of each hour in which a day begins, and users of both its parts.
fn parts_of_hours(transaction: &Transaction<'_>, days: &[i64]) -> Result<PartsOfHours> {
    let rests: Vec<Range<i64>> = days.iter().map(|minute| rest_of_hour(*minute)).collect();
    let ranked = Dimension::ALL.into_iter().filter(|dimension| *dimension != Dimension::Type);
    let counts = edges::count(transaction, &rests, &ranked.collect::<Vec<_>>())?;
    let counts = counts.into_iter().map(|edge| (edge.dimension, edge.minute, edge.name, edge.count)).collect();
    let mut users = Vec::new();
    for rest in rests {
        let (hour, start, end) = (rest.end - 60, rest.start, rest.end);
        let sql = format!(
            "SELECT CASE WHEN event_time < {start} * 60000 THEN {hour} ELSE {start} END, user_id FROM events \
             WHERE event_time >= ?1 * 60000 AND event_time < {end} * 60000 AND user_id IS NOT NULL"
        );
        users.extend(sketches(transaction, &sql, hour)?);
    }
    Ok((counts, users))
}

/// Users by bucket, of rows (bucket, user) of buckets newer than `after`; row by row.
fn sketches(transaction: &Transaction<'_>, sql: &str, after: i64) -> Result<Vec<(i64, Sketch)>> {
    let mut sketches: BTreeMap<i64, Sketch> = BTreeMap::new();
    let mut statement = transaction.prepare_cached(sql)?;
    let mut rows = statement.query([after])?;
    while let Some(row) = rows.next()? {
        sketches.entry(row.get(0)?).or_default().add(row.get_ref(1)?.as_str()?);
    }
    Ok(sketches.into_iter().collect())
}

/// Rows of buckets newer than `after`.
fn rollup_rows(transaction: &Transaction<'_>, table: &str, after: i64) -> Result<Vec<(Dimension, i64, String, i64)>> {
    let sql =
        format!("SELECT bucket, key, count FROM {table} WHERE dimension = ?1 AND bucket > ?2 ORDER BY bucket, key");
    let mut statement = transaction.prepare_cached(&sql)?;
    let mut all = Vec::new();
    for dimension in Dimension::ALL {
        let rows = statement.query_map(params![dimension as i64, after], |row| {
            Ok((dimension, row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
        for row in rows {
            all.push(row?);
        }
    }
    Ok(all)
}

fn dimension(code: i64) -> Option<Dimension> {
    u8::try_from(code).ok().and_then(Dimension::from_code)
}

/// Those of some posts that lists skip.
pub(super) fn hidden(transaction: &mut &Transaction<'_>, posts: &[&str]) -> Result<HashSet<String>> {
    let names = serde_json::to_string(posts).expect("texts are JSON");
    transaction
        .prepare_cached("SELECT post_id FROM tombstone WHERE post_id IN (SELECT value FROM json_each(?1))")?
        .query_map([names], |row| row.get(0))?
        .collect()
}
