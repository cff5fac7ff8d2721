//! Reads: rollups where they answer exactly, raw rows elsewhere. What is read is decided in `ledger_fold`.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use postgres::fallible_iterator::FallibleIterator;
use postgres::types::ToSql;
use postgres::{IsolationLevel, Row, Transaction};
use uuid::Uuid;

use super::connect::{Failure, Session};
use super::{deltas, edges, rankings, term_index, transaction};
use crate::events::{Dimension, Sketch};
use crate::ledger_fold::{
    Folded, HOUR_MS, Named, RankPlan, RawCount, RecentRow, RollupCount, SCORE_NOTHING, Terms, VerdictRow, log_ranges,
    merge_verdicts, name_sum_sql, named_values, newest_by_user, plan_count, rest_of_hour, sums,
};
use crate::limits::{
    FORGOTTEN_MAX, LIVE_DAYS_KEPT, LIVE_MINUTES_KEPT, LIVE_TOMBSTONE_KEPT_MS, RECENT_SEARCHES_MS, SNAPSHOT_MS_MAX,
};
use crate::ports::{CountFilter, LikeOutcome, Likes, Position, Post, Snapshot, TopQuery, Verdicts, Watermark};

/// A time of ours as the server's: milliseconds are exact.
const TIME: &str = "'epoch'::timestamptz + interval '1 millisecond' *";
/// When a search counts as made: a client's clock may be ahead of ours.
const AT: &str = "least(event_time, received_at)";

pub(super) fn watermark(session: &mut Session, stream: Uuid) -> Result<Option<Watermark>, Failure> {
    transaction::watermark(session, stream)
}

pub(super) fn verdicts(
    session: &mut Session,
    stream: Uuid,
    after: Position,
    up_to: Position,
) -> Result<Option<Verdicts>, Failure> {
    let bound = |position| i64::try_from(position).unwrap_or(i64::MAX);
    let (after, up_to) = (bound(after), bound(up_to));
    let mut transaction = snapshot_of(session)?;
    let pruned = "SELECT FROM watermark WHERE stream = $1 AND pruned > $2";
    if transaction.query_opt(pruned, &[&stream, &after])?.is_some() {
        return Ok(None);
    }
    let rows = "SELECT position, kind, created_at_ms, likes, version FROM verdict \
         WHERE stream = $1 AND position > $2 AND position <= $3 ORDER BY position";
    let rows = transaction.query(rows, &[&stream, &after, &up_to])?;
    let of_row = |row: &Row| {
        let (kind, created_at_ms, likes) = (row.get(1), row.get(2), row.get(3));
        (row.get(0), VerdictRow { kind, created_at_ms, likes, version: row.get(4) })
    };
    let rows: Vec<(i64, VerdictRow)> = rows.iter().map(of_row).collect();
    let mut log = Vec::new();
    for (after, up_to) in log_ranges(after, up_to, &rows) {
        let likes = "SELECT position, action, like_count, version FROM post_like_log \
             WHERE stream = $1 AND position > $2 AND position <= $3";
        let likes = transaction.query(likes, &[&stream, &after, &up_to])?;
        log.extend(likes.iter().map(|row| (row.get(0), like_outcome(row))));
    }
    Ok(Some(merge_verdicts(rows, log)))
}

fn like_outcome(row: &Row) -> LikeOutcome {
    let liked = row.get::<_, &str>(1) == "LIKE";
    LikeOutcome { liked, changed: true, like_count: row.get(2), version: row.get(3) }
}

/// One snapshot of several statements.
fn snapshot_of(session: &mut Session) -> Result<Transaction<'_>, Failure> {
    Ok(session.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start()?)
}

pub(super) fn count(session: &mut Session, filter: &CountFilter) -> Result<u64, Failure> {
    let plan = plan_count(filter);
    if !plan.rollups.is_empty() {
        deltas::add(session)?;
    }
    let mut transaction = snapshot_of(session)?;
    let mut total = 0;
    if !plan.rollups.is_empty() {
        let folded = rankings::folded(&mut transaction)?;
        for rollup in &plan.rollups {
            total += count_rollup(&mut transaction, rollup, folded)?;
        }
    }
    if plan.raw.iter().any(is_long) {
        // Up to a month of rows, one by one: workers may help here, as many as the server was given.
        transaction.batch_execute("SET LOCAL max_parallel_workers_per_gather TO DEFAULT")?;
    }
    total += count_raw(&mut transaction, &plan.raw, filter)?;
    Ok(total.max(0).cast_unsigned())
}

fn count_rollup(transaction: &mut Transaction<'_>, rollup: &RollupCount, folded: Folded) -> Result<i64, Failure> {
    let terms =
        [Terms { dimension: rollup.dimension, weight: 1.0, sums: sums(&rollup.hours, folded, rollup.dimension) }];
    let sql = format!("SELECT CAST({} AS int8)", name_sum_sql(&terms, "$1::text", true));
    Ok(transaction.query_one(sql.as_str(), &[&rollup.key])?.get(0))
}

/// To start a worker takes longer than to read the rows of some hours.
fn is_long(RawCount { from_ms, to_ms }: &RawCount) -> bool {
    from_ms.zip(*to_ms).is_none_or(|(from, to)| to - from > 6 * HOUR_MS)
}

/// One statement for all ranges, which shares its time among them.
fn count_raw(transaction: &mut Transaction<'_>, ranges: &[RawCount], filter: &CountFilter) -> Result<i64, Failure> {
    if ranges.is_empty() {
        return Ok(0);
    }
    let named = named_values(filter);
    let values: Vec<&(dyn ToSql + Sync)> = named
        .iter()
        .map(|(_, value)| match value {
            Named::Number(number) => number as &(dyn ToSql + Sync),
            Named::Text(text) => text,
        })
        .collect();
    let mut conditions: Vec<String> =
        (1..).zip(&named).map(|(at, (condition, _))| format!("{condition} ${at}")).collect();
    conditions.extend(term_index::condition(&named));
    // Written out, so that the server plans for the partitions of each range alone: with hundreds of
    // them a plan for all takes longer than reading.
    let of_range = |range: &RawCount| {
        let from = range.from_ms.map(|from| format!("event_time >= {}", rankings::literal(from)));
        let to = range.to_ms.map(|to| format!("event_time < {}", rankings::literal(to)));
        let all: Vec<String> = conditions.iter().cloned().chain(from).chain(to).collect();
        let all = if all.is_empty() { "true".to_owned() } else { all.join(" AND ") };
        format!("SELECT count(*) AS number FROM events WHERE {all}")
    };
    let counts = ranges.iter().map(of_range).collect::<Vec<_>>().join(" UNION ALL ");
    let sql = format!("SELECT sum(number)::int8 FROM ({counts}) AS counts");
    Ok(transaction.query_one(&sql, &values)?.get(0))
}

pub(super) fn top(
    session: &mut Session,
    query: &TopQuery,
    plan: &RankPlan,
    now_ms: i64,
    few: i64,
) -> Result<Vec<(String, f64)>, Failure> {
    deltas::add(session)?;
    if let Some(top) = rankings::top(session, query, plan, now_ms, few)? {
        return Ok(top);
    }
    let (Some((first, _)), Some((last, _))) = (plan.buckets.first(), plan.buckets.last()) else {
        return Ok(Vec::new());
    };
    let factors: Vec<f64> = plan.buckets.iter().map(|(_, factor)| *factor).collect();
    // Each part by itself: a join with dimensions, buckets and factors is planned for a few rows, and takes three times as long.
    let of_part = |(dimension, weight): &(Dimension, f64)| {
        format!(
            "SELECT key, sum(count * ($1::float8[])[bucket - $2 + 1]) * {weight:?} AS score FROM {} \
             WHERE dimension = {} AND bucket BETWEEN $2 AND $3 GROUP BY key",
            plan.table, *dimension as u8
        )
    };
    let edges = "SELECT key COLLATE \"C\", score FROM unnest($5::text[], $6::float8[]) AS edges(key, score)".to_owned();
    let parts: Vec<String> = plan.parts.iter().map(of_part).chain([edges]).collect();
    let (names, scores): (Vec<String>, Vec<f64>) =
        rankings::edge_scores(&mut session.client, plan)?.into_iter().unzip();
    let sql = format!(
        "SELECT key, sum(score) FROM ({}) AS parts GROUP BY key HAVING sum(score) > {SCORE_NOTHING:?} ORDER BY 2 DESC, 1 LIMIT $4",
        parts.join(" UNION ALL ")
    );
    let rows = session.client.query(&sql, &[&factors, first, last, &(plan.limit as i64), &names, &scores])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

pub(super) fn likes(session: &mut Session, post_id: &str, user_id: Option<&str>) -> Result<Likes, Failure> {
    let statement = session.prepared(
        "SELECT coalesce((SELECT like_count FROM post_stat WHERE post_id = $1), 0), \
                EXISTS (SELECT FROM post_like WHERE post_id = $1 AND user_id = $2)",
    )?;
    let row = session.client.query_one(&statement, &[&post_id, &user_id])?;
    Ok(Likes { like_count: row.get(0), liked: row.get(1) })
}

pub(super) fn post(session: &mut Session, post_id: &str) -> Result<Option<Post>, Failure> {
    let statement = session.prepared(
        "SELECT post_id, user_id, content, hashtags, image_urls, (extract(epoch FROM created_at) * 1000)::int8, \
                coalesce(like_count, 0) FROM post LEFT JOIN post_stat USING (post_id) WHERE post_id = $1",
    )?;
    let row = session.client.query_opt(&statement, &[&post_id])?;
    Ok(row.as_ref().map(post_of))
}

/// Post, user, content, hashtags, images, milliseconds, likes: in this order.
pub(super) fn post_of(row: &Row) -> Post {
    Post {
        post_id: row.get(0),
        user_id: row.get(1),
        content: row.get(2),
        hashtags: row.get(3),
        image_urls: row.get(4),
        created_at_ms: row.get(5),
        like_count: row.get(6),
    }
}

pub(super) fn recent(session: &mut Session, user_id: &str, now_ms: i64) -> Result<Vec<String>, Failure> {
    let mut transaction = snapshot_of(session)?;
    let mut rows = recent_rows(&mut transaction, Some(user_id), now_ms)?;
    rows.reverse();
    Ok(rows.into_iter().map(|row| row.keyword).collect())
}

/// Searches of the last hour, oldest first, those of one request in its order (rows of the same time are in one
/// partition, and written one behind the other, but where they fill the room that an erasure left): of one user, or of all.
fn recent_rows(
    transaction: &mut Transaction<'_>,
    user_id: Option<&str>,
    now_ms: i64,
) -> Result<Vec<RecentRow>, Failure> {
    let forgotten = forgotten(transaction, user_id, i64::MIN)?;
    let mine = if user_id.is_some() { "user_id = $1" } else { "user_id IS NOT NULL AND $1::text IS NULL" };
    let since = rankings::literal(now_ms - RECENT_SEARCHES_MS);
    let sql = format!(
        "SELECT user_id, keyword, (extract(epoch FROM {AT}) * 1000)::int8 FROM events \
         WHERE event_time > {since} AND received_at > {since} AND event_type = 'SEARCH' \
           AND keyword IS NOT NULL AND {mine} \
         ORDER BY {AT} DESC, received_at DESC, ctid DESC"
    );
    // Row by row: an hour may hold millions, of which ten a user are kept.
    let rows = transaction.query_raw(&sql, [&user_id as &(dyn ToSql + Sync)])?;
    let of_row = |row: Row| RecentRow { user_id: row.get(0), keyword: row.get(1), at_ms: row.get(2) };
    Ok(newest_by_user(rows.iterator().map(|row| row.map(of_row)), &forgotten)?)
}

/// What was forgotten up to a time later than `after_ms`, with all of whom was erased: of one user, or of all.
fn forgotten(
    transaction: &mut Transaction<'_>,
    user_id: Option<&str>,
    after_ms: i64,
) -> Result<Vec<(String, String, i64)>, Failure> {
    let sql = "SELECT user_id, keyword, max(at) FROM (SELECT * FROM recent_forgotten \
                 UNION ALL SELECT user_id, '', at FROM erased) AS up_to \
               WHERE ($1::text IS NULL OR user_id = $1) AND at > $2 \
               GROUP BY user_id, keyword ORDER BY 3 DESC LIMIT $3";
    let rows = transaction.query(sql, &[&user_id, &after_ms, &(FORGOTTEN_MAX as i64)])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

pub(super) fn snapshot(session: &mut Session, now_ms: i64, days: &[i64]) -> Result<Snapshot, Failure> {
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
    let minutes = rollup_rows(&mut transaction, "rollup_minute", 1, minute)?;
    let hour = now_ms.div_euclid(HOUR_MS) - (LIVE_DAYS_KEPT + 1) * 24;
    let hours = rollup_rows(&mut transaction, "rollup_hour", 60, hour)?;
    let totals = format!(
        "SELECT dimension, key, sum(count)::int8 FROM (SELECT dimension, key, count FROM rollup_total UNION ALL \
           SELECT dimension, CASE dimension WHEN 1 THEN key ELSE '' END, count FROM ({}) AS deltas) AS sums \
         GROUP BY 1, 2 ORDER BY 1, 2",
        deltas::rows_sql(1)
    );
    let totals = transaction.query(&totals, &[])?;
    let totals = totals.iter().filter_map(|row| Some((dimension(row.get(0))?, row.get(1), row.get(2)))).collect();
    let user_minutes = sketches(
        &mut transaction,
        &format!(
            "SELECT DISTINCT {}, user_id FROM events \
             WHERE event_time >= {TIME} ($1::int8 + 1) * 60000 AND user_id IS NOT NULL",
            rankings::MINUTE
        ),
        minute,
    )?;
    let user_hours = sketches(&mut transaction, "SELECT hour, user_id FROM user_hour WHERE hour > $1", hour)?;
    let recent = recent_rows(&mut transaction, None, now_ms)?;
    let recent = recent.into_iter().map(|row| (row.user_id, row.keyword, row.at_ms)).collect();
    let forgotten = forgotten(&mut transaction, None, now_ms - RECENT_SEARCHES_MS)?;
    let (rests_of_hours, user_parts) = parts_of_hours(&mut transaction, days)?;
    let tombstones = "SELECT post_id, version FROM tombstone WHERE at_ms > $1";
    let tombstones = transaction.query(tombstones, &[&(now_ms - LIVE_TOMBSTONE_KEPT_MS)])?;
    let tombstones = tombstones.iter().map(|row| (row.get(0), row.get(1))).collect();
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
fn parts_of_hours(transaction: &mut Transaction<'_>, days: &[i64]) -> Result<PartsOfHours, Failure> {
    let rests: Vec<Range<i64>> = days.iter().map(|minute| rest_of_hour(*minute)).collect();
    let ranked = Dimension::ALL.into_iter().filter(|dimension| *dimension != Dimension::Type);
    let counts = edges::count(transaction, &rests, &ranked.collect::<Vec<_>>())?;
    let counts = counts.into_iter().map(|edge| (edge.dimension, edge.minute, edge.name, edge.count)).collect();
    let mut users = Vec::new();
    for rest in rests {
        let hour = rest.end - 60;
        let sql = format!(
            "SELECT DISTINCT CASE WHEN {} < {start} THEN {hour}::int8 ELSE {start}::int8 END, user_id FROM events \
             WHERE {} AND user_id IS NOT NULL AND $1::int8 IS NOT NULL",
            rankings::MINUTE,
            rankings::during("event_time", &(hour * 60_000..rest.end * 60_000)),
            start = rest.start,
        );
        users.extend(sketches(transaction, &sql, hour)?);
    }
    Ok((counts, users))
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

/// Rows of buckets newer than `after`, then what is yet to be added to them: a snapshot writes nothing.
fn rollup_rows(
    transaction: &mut Transaction<'_>,
    table: &str,
    minutes: i64,
    after: i64,
) -> Result<Vec<(Dimension, i64, String, i64)>, Failure> {
    let listed = "dimension BETWEEN 1 AND 8 AND bucket > $1";
    let sql =
        format!("SELECT dimension, bucket, key, count FROM {table} WHERE {listed} ORDER BY dimension, bucket, key");
    let mut rows = transaction.query(&sql, &[&after])?;
    let deltas = format!("SELECT * FROM ({}) AS deltas WHERE {listed}", deltas::rows_sql(minutes));
    rows.extend(transaction.query(&deltas, &[&after])?);
    Ok(rows.iter().filter_map(|row| Some((dimension(row.get(0))?, row.get(1), row.get(2), row.get(3)))).collect())
}

fn dimension(code: i16) -> Option<Dimension> {
    u8::try_from(code).ok().and_then(Dimension::from_code)
}

/// Those of some posts that lists skip.
pub(super) fn hidden(session: &mut Session, posts: &[&str]) -> Result<HashSet<String>, Failure> {
    let rows = session.client.query("SELECT post_id FROM tombstone WHERE post_id = ANY ($1::text[])", &[&posts])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
