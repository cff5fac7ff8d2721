//! Reads: rollups where they answer exactly, raw rows elsewhere. What is read is decided in `ledger_fold`.

use std::collections::BTreeMap;

use postgres::fallible_iterator::FallibleIterator;
use postgres::types::ToSql;
use postgres::{IsolationLevel, Row, Transaction};
use uuid::Uuid;

use super::connect::{Failure, Session};
use super::transaction;
use crate::events::{Dimension, Sketch};
use crate::ledger_fold::{
    HOUR_MS, RawCount, RawMatch, RecentRow, RollupCount, VERDICT_DEAD, newest_by_user, plan_count, plan_rank,
};
use crate::limits::{LIVE_DAYS_KEPT, LIVE_MINUTES_KEPT, RECENT_SEARCHES_MS, SNAPSHOT_MS_MAX};
use crate::ports::{CountFilter, LikeOutcome, Position, Snapshot, TopQuery, Verdict, Verdicts, Watermark};

/// A time of ours as the server's: milliseconds are exact.
const TIME: &str = "'epoch'::timestamptz + interval '1 millisecond' *";
/// When a search counts as made: a client's clock may be ahead of ours.
const AT: &str = "least(event_time, received_at)";

pub(super) fn watermark(session: &mut Session, stream: Uuid) -> Result<Option<Watermark>, Failure> {
    transaction::watermark(session, stream)
}

/// One statement, so one snapshot.
pub(super) fn verdicts(
    session: &mut Session,
    stream: Uuid,
    after: Position,
    up_to: Position,
) -> Result<Option<Verdicts>, Failure> {
    // The row of the watermark comes first, so that an empty answer and a pruned one differ.
    let statement = session.prepared(
        "SELECT 0::int8, NULL::int2, NULL::text, pruned, 0::int8 FROM watermark WHERE stream = $1 UNION ALL SELECT position, kind, NULL::text, NULL::int8, NULL::int8 FROM verdict \
           WHERE stream = $1 AND position > $2 AND position <= $3 \
         UNION ALL SELECT position, 0::int2, action, like_count, version FROM post_like_log \
           WHERE stream = $1 AND position > $2 AND position <= $3 \
         ORDER BY 1",
    )?;
    let (after, up_to) = (i64::try_from(after).unwrap_or(i64::MAX), i64::try_from(up_to).unwrap_or(i64::MAX));
    let rows = session.client.query(&statement, &[&stream, &after, &up_to])?;
    let (of_stream, verdicts): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.get::<_, i64>(0) == 0);
    if of_stream.iter().any(|row| row.get::<_, i64>(3) > after) {
        return Ok(None);
    }
    Ok(Some(verdicts.iter().map(|row| (row.get::<_, i64>(0).cast_unsigned(), verdict(row))).collect()))
}

fn verdict(row: &Row) -> Verdict {
    match (row.get::<_, Option<&str>>(2), row.get::<_, i16>(1)) {
        (Some(action), _) => Verdict::Like(LikeOutcome {
            liked: action == "LIKE",
            changed: true,
            like_count: row.get(3),
            version: row.get(4),
        }),
        (None, VERDICT_DEAD) => Verdict::Dead,
        (None, _) => Verdict::Duplicate,
    }
}

/// One snapshot of several statements.
fn snapshot_of(session: &mut Session) -> Result<Transaction<'_>, Failure> {
    Ok(session.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start()?)
}

pub(super) fn count(session: &mut Session, filter: &CountFilter) -> Result<u64, Failure> {
    let plan = plan_count(filter);
    let mut transaction = snapshot_of(session)?;
    let mut total = 0;
    for rollup in &plan.rollups {
        total += count_rollup(&mut transaction, rollup)?;
    }
    for part in &plan.raw {
        total += count_raw(&mut transaction, part, &RawMatch::of(filter))?;
    }
    Ok(total.max(0).cast_unsigned())
}

fn count_rollup(transaction: &mut Transaction<'_>, rollup: &RollupCount) -> Result<i64, Failure> {
    let row = transaction.query_one(
        "SELECT coalesce(sum(count), 0)::int8 FROM rollup_hour WHERE dimension = $1 AND bucket >= $2 AND bucket < $3 \
         AND ($4::text IS NULL OR key = $4)",
        &[
            &(rollup.dimension as i16),
            &rollup.from_hour.unwrap_or(i64::MIN),
            &rollup.to_hour.unwrap_or(i64::MAX),
            &rollup.key,
        ],
    )?;
    Ok(row.get(0))
}

fn count_raw(transaction: &mut Transaction<'_>, range: &RawCount, wanted: &RawMatch<'_>) -> Result<i64, Failure> {
    let mut conditions = vec!["true".to_owned()];
    let mut values: Vec<Box<dyn ToSql + Sync>> = Vec::new();
    let mut add = |condition: &str, value: Box<dyn ToSql + Sync>| {
        values.push(value);
        conditions.push(format!("{condition} ${}", values.len()));
    };
    if let Some(from) = range.from_ms {
        add(&format!("event_time >= {TIME}"), Box::new(from as f64));
    }
    if let Some(to) = range.to_ms {
        add(&format!("event_time < {TIME}"), Box::new(to as f64));
    }
    if let Some(kind) = wanted.event_type {
        add("event_type =", Box::new(kind.name()));
    }
    if let Some(component) = wanted.component_id {
        add("component_id =", Box::new(component));
    }
    if let Some(post) = wanted.post_id {
        add("post_id =", Box::new(post.to_owned()));
    }
    // The page is part of every url that has it, but for "/", which may be left out.
    if let Some(page) = wanted.page.filter(|page| *page != "/") {
        values.push(Box::new(page.to_owned()));
        conditions.push(format!("strpos(url, ${}) > 0", values.len()));
    }
    let conditions = conditions.join(" AND ");
    let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value.as_ref()).collect();
    if wanted.keyword.is_none() && wanted.page.is_none() {
        let sql = format!("SELECT count(*) FROM events WHERE {conditions}");
        return Ok(transaction.query_one(&sql, &values)?.get(0));
    }
    // Folded here, by the function that the rollups use: no collation of the server's is its equal.
    let columns = match (wanted.keyword, wanted.page) {
        (Some(_), None) => "keyword, NULL::text",
        (None, _) => "NULL::text, url",
        _ => "keyword, url",
    };
    let sql = format!("SELECT {columns}, count(*) FROM events WHERE {conditions} GROUP BY 1, 2");
    let rows = transaction.query(&sql, &values)?;
    Ok(rows.iter().filter(|row| wanted.matches(row.get(0), row.get(1))).map(|row| row.get::<_, i64>(2)).sum())
}

pub(super) fn top(session: &mut Session, query: &TopQuery, now_ms: i64) -> Result<Vec<(String, f64)>, Failure> {
    let plan = plan_rank(query, now_ms);
    let (buckets, factors): (Vec<i64>, Vec<f64>) = plan.buckets.into_iter().unzip();
    let (dimensions, weights): (Vec<i16>, Vec<f64>) =
        plan.parts.iter().map(|(dimension, weight)| (*dimension as i16, *weight)).unzip();
    let sql = format!(
        "SELECT r.key, sum(r.count * b.factor * p.weight) AS score \
         FROM unnest($1::int2[], $2::float8[]) AS p(dimension, weight) \
         CROSS JOIN unnest($3::int8[], $4::float8[]) AS b(bucket, factor) \
         JOIN {} r ON r.dimension = p.dimension AND r.bucket = b.bucket \
         WHERE r.dimension = ANY ($1) AND r.bucket BETWEEN $6 AND $7 \
         GROUP BY r.key HAVING sum(r.count * b.factor * p.weight) > 0 ORDER BY score DESC, r.key LIMIT $5",
        plan.table
    );
    let limit = plan.limit as i64;
    let (Some(first), Some(last)) = (buckets.first(), buckets.last()) else { return Ok(Vec::new()) };
    let values: [&(dyn ToSql + Sync); 7] = [&dimensions, &weights, &buckets, &factors, &limit, first, last];
    let rows = session.client.query(&sql, &values)?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

pub(super) fn recent(session: &mut Session, user_id: &str, now_ms: i64) -> Result<Vec<String>, Failure> {
    let mut transaction = snapshot_of(session)?;
    let mut rows = recent_rows(&mut transaction, Some(user_id), now_ms)?;
    rows.reverse();
    Ok(rows.into_iter().map(|row| row.keyword).collect())
}

/// Searches of the last hour, oldest first, those of one request in its order (rows of the same time are in one
/// partition, and written one behind the other): of one user, or of all.
fn recent_rows(
    transaction: &mut Transaction<'_>,
    user_id: Option<&str>,
    now_ms: i64,
) -> Result<Vec<RecentRow>, Failure> {
    let forgotten = transaction.query(
        "SELECT user_id, keyword, at FROM recent_forgotten WHERE $1::text IS NULL OR user_id = $1",
        &[&user_id],
    )?;
    let forgotten: Vec<_> = forgotten.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let mine = if user_id.is_some() { "user_id = $2" } else { "user_id IS NOT NULL AND $2::text IS NULL" };
    let sql = format!(
        "SELECT user_id, keyword, (extract(epoch FROM {AT}) * 1000)::int8 FROM events \
         WHERE event_time > {TIME} $1 AND event_type = 'SEARCH' AND keyword IS NOT NULL AND {mine} \
         ORDER BY {AT} DESC, received_at DESC, ctid DESC"
    );
    let since = (now_ms - RECENT_SEARCHES_MS) as f64;
    // Row by row: an hour may hold millions, of which ten a user are kept.
    let rows = transaction.query_raw(&sql, [&since as &(dyn ToSql + Sync), &user_id])?;
    let of_row = |row: Row| RecentRow { user_id: row.get(0), keyword: row.get(1), at_ms: row.get(2) };
    Ok(newest_by_user(rows.iterator().map(|row| row.map(of_row)), &forgotten)?)
}

pub(super) fn snapshot(session: &mut Session, now_ms: i64) -> Result<Snapshot, Failure> {
    let mut transaction = snapshot_of(session)?;
    transaction.batch_execute(&format!("SET LOCAL statement_timeout = {}", SNAPSHOT_MS_MAX))?;
    let watermarks = transaction.query("SELECT stream, position, crc FROM watermark ORDER BY stream", &[])?;
    let watermarks = watermarks
        .iter()
        .map(|row| {
            let position = row.get::<_, i64>(1).cast_unsigned();
            (row.get(0), Watermark { position, crc: u32::try_from(row.get::<_, i64>(2)).unwrap_or(u32::MAX) })
        })
        .collect();
    let minute = now_ms.div_euclid(60_000) - LIVE_MINUTES_KEPT;
    let minutes = rollup_rows(&mut transaction, "rollup_minute", minute)?;
    let hour = now_ms.div_euclid(HOUR_MS) - (LIVE_DAYS_KEPT + 1) * 24;
    let hours = rollup_rows(&mut transaction, "rollup_hour", hour)?;
    let totals = transaction
        .query("SELECT dimension, key, sum(count)::int8 FROM rollup_total GROUP BY 1, 2 ORDER BY 1, 2", &[])?;
    let totals = totals.iter().filter_map(|row| Some((dimension(row.get(0))?, row.get(1), row.get(2)))).collect();
    let user_minutes = sketches(
        &mut transaction,
        &format!(
            "SELECT DISTINCT floor(extract(epoch FROM event_time) / 60)::int8, user_id FROM events \
             WHERE event_time >= {TIME} ($1::int8 + 1) * 60000 AND user_id IS NOT NULL"
        ),
        minute,
    )?;
    let user_hours = sketches(&mut transaction, "SELECT hour, user_id FROM user_hour WHERE hour > $1", hour)?;
    let recent = recent_rows(&mut transaction, None, now_ms)?;
    let recent = recent.into_iter().map(|row| (row.user_id, row.keyword, row.at_ms)).collect();
    Ok(Snapshot { watermarks, minutes, hours, user_minutes, user_hours, totals, recent })
}

/// Users by bucket, of rows (bucket, user) of buckets newer than `after`; row by row.
fn sketches(transaction: &mut Transaction<'_>, sql: &str, after: i64) -> Result<Vec<(i64, Sketch)>, Failure> {
    let mut sketches: BTreeMap<i64, Sketch> = BTreeMap::new();
    let mut rows = transaction.query_raw(sql, [&after as &(dyn ToSql + Sync)])?;
    while let Some(row) = rows.next()? {
        sketches.entry(row.get(0)).or_default().add(row.get(1));
    }
    Ok(sketches.into_iter().collect())
}

/// Rows of buckets newer than `after`.
fn rollup_rows(
    transaction: &mut Transaction<'_>,
    table: &str,
    after: i64,
) -> Result<Vec<(Dimension, i64, String, i64)>, Failure> {
    let sql = format!(
        "SELECT dimension, bucket, key, count FROM {table} WHERE dimension BETWEEN 1 AND 8 AND bucket > $1 \
         ORDER BY dimension, bucket, key"
    );
    let rows = transaction.query(&sql, &[&after])?;
    Ok(rows.iter().filter_map(|row| Some((dimension(row.get(0))?, row.get(1), row.get(2), row.get(3)))).collect())
}

fn dimension(code: i16) -> Option<Dimension> {
    Dimension::from_code(u8::try_from(code).ok()?)
}
