//! Erasures: nothing of a person is left. A batch is the only writer, so nothing of theirs can come in between.
//!
//! Those who go stand in a table of the connection's own while their batch is under way: every other table is then read
//! once, however many they are.

use rusqlite::{OptionalExtension, Result, Transaction, params};
use uuid::Uuid;

use super::{open_day, user_sets};
use crate::ledger_fold::{Belonging, Draft, Erased, HOUR_MS, erased_users, hour_ranges, person_of};
use crate::ports::{Batch, Belongings, Erasure};

/// Those of a batch's users that were erased.
pub(super) fn known(transaction: &Transaction<'_>, batch: &Batch<'_>) -> Result<Erased> {
    let mut erased = Erased::new();
    if !transaction.prepare_cached("SELECT 1 FROM erased LIMIT 1")?.exists([])? {
        return Ok(erased);
    }
    let mut find = transaction.prepare_cached("SELECT at FROM erased WHERE user_id = ?1")?;
    for (user, _) in batch.records.iter().filter_map(person_of) {
        if !erased.contains_key(user)
            && let Some(at_ms) = find.query_row([user], |row| row.get(0)).optional()?
        {
            erased.insert(user.into(), at_ms);
        }
    }
    Ok(erased)
}

/// Grows with every erasure.
pub(super) fn count(transaction: &Transaction<'_>) -> Result<i64> {
    transaction.prepare_cached("SELECT coalesce(max(seq), 0) FROM erased")?.query_row([], |row| row.get(0))
}

/// What those whom a batch erases like and made up to then; notes who they are for [`erase`].
pub(super) fn belongings(transaction: &Transaction<'_>, draft: &Draft<'_>) -> Result<Vec<Belonging>> {
    if draft.erases.is_empty() {
        return Ok(Vec::new());
    }
    transaction.execute_batch(
        "CREATE TEMP TABLE IF NOT EXISTS going (user_id TEXT PRIMARY KEY, up_to INTEGER NOT NULL) WITHOUT ROWID; \
         DELETE FROM going",
    )?;
    let mut note = transaction.prepare_cached("INSERT INTO going VALUES (?1, ?2)")?;
    for (user, up_to_ms) in erased_users(&draft.erases) {
        note.execute(params![user, up_to_ms])?;
    }
    // The order of the tables is that of the loops.
    let sql = "SELECT user_id, post_id, liked_at FROM post_like CROSS JOIN going USING (user_id) WHERE liked_at <= up_to \
               UNION ALL SELECT user_id, post_id, coalesce(written_at, created_at) FROM post CROSS JOIN going USING (user_id) \
               WHERE coalesce(written_at, created_at) <= up_to";
    let mut statement = transaction.prepare_cached(sql)?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
}

/// Everything that names the persons; behind the rest of the batch.
pub(super) fn erase(transaction: &Transaction<'_>, draft: &Draft<'_>) -> Result<()> {
    if draft.erases.is_empty() {
        return Ok(());
    }
    remember(transaction, draft)?;
    let cut_hour = erased_users(&draft.erases).values().min().map_or(0, |up_to_ms| up_to_ms.div_euclid(HOUR_MS));
    let (hours, cut) = forget_hours(transaction, cut_hour)?;
    let hours = hour_ranges(hours);
    for range in hours {
        strip_events(transaction, range)?;
    }
    for range in hour_ranges(cut) {
        forget_emptied(transaction, range)?;
    }
    open_day::erase(transaction, GOES)?;
    user_sets::erase(transaction, GOES, cut_hour)?;
    let up_to = |table: &str| format!("(SELECT up_to FROM going WHERE going.user_id = {table}.user_id)");
    for sql in [
        format!("DELETE FROM recent_forgotten WHERE {GOES} AND at <= {}", up_to("recent_forgotten")),
        format!("DELETE FROM dead_letter WHERE {GOES} AND happened_ms <= {}", up_to("dead_letter")),
        format!(
            "UPDATE post_like_log SET user_id = '' WHERE {GOES} AND coalesce(happened_at, changed_at) <= {}",
            up_to("post_like_log")
        ),
        // Nothing of the connection's own names them either.
        "DELETE FROM going".to_owned(),
    ] {
        transaction.execute(&sql, [])?;
    }
    Ok(())
}

/// Of a table with users.
const GOES: &str = "user_id IN (SELECT user_id FROM going)";

fn remember(transaction: &Transaction<'_>, draft: &Draft<'_>) -> Result<()> {
    let mut remember = transaction.prepare_cached(
        "INSERT INTO erased VALUES (?1, ?2, (SELECT coalesce(max(seq), 0) + 1 FROM erased)) \
         ON CONFLICT DO UPDATE SET at = max(at, excluded.at), seq = excluded.seq",
    )?;
    for (user, up_to_ms) in erased_users(&draft.erases) {
        remember.execute(params![user, up_to_ms])?;
    }
    Ok(())
}

/// Takes the hours that end before the erasure; answers all in which they did something, and those that may stay.
fn forget_hours(transaction: &Transaction<'_>, cut_hour: i64) -> Result<(Vec<i64>, Vec<i64>)> {
    let cut = "(SELECT up_to / 3600000 FROM going WHERE going.user_id = user_hour.user_id)";
    let past = format!("DELETE FROM user_hour WHERE {GOES} AND hour < {cut} RETURNING hour");
    let stay = format!("SELECT DISTINCT hour FROM user_hour WHERE hour >= ?1 AND {GOES} AND hour >= {cut}");
    let mut hours: Vec<i64> = Vec::new();
    let mut past = transaction.prepare(&past)?;
    let mut rows = past.query([])?;
    while let Some(row) = rows.next()? {
        let hour = row.get(0)?;
        // Rows come in the order of the hour.
        if hours.last() != Some(&hour) {
            hours.push(hour);
        }
    }
    let stay: Vec<i64> =
        transaction.prepare(&stay)?.query_map([cut_hour], |row| row.get(0))?.collect::<Result<Vec<i64>>>()?;
    Ok((hours.into_iter().chain(stay.iter().copied()).collect(), stay))
}

/// Rows stay for the counts.
fn strip_events(transaction: &Transaction<'_>, hours: std::ops::Range<i64>) -> Result<()> {
    let sql = format!(
        "UPDATE events SET user_id = NULL, session_id = NULL, url = NULL, referrer = NULL, properties = NULL \
         WHERE event_time >= ?1 AND event_time < ?2 AND {GOES} \
           AND min(event_time, received_at) <= (SELECT up_to FROM going WHERE going.user_id = events.user_id)"
    );
    transaction.prepare_cached(&sql)?.execute([hours.start * HOUR_MS, hours.end * HOUR_MS])?;
    Ok(())
}

/// Of hours that an erasure cuts, what happened behind it stays: only those without a row are forgotten.
fn forget_emptied(transaction: &Transaction<'_>, hours: std::ops::Range<i64>) -> Result<()> {
    let sql = format!(
        "DELETE FROM user_hour WHERE hour >= ?1 AND hour < ?2 AND {GOES} \
           AND hour >= (SELECT up_to / 3600000 FROM going WHERE going.user_id = user_hour.user_id) \
           AND (hour, event_type, user_id) NOT IN \
             (SELECT event_time / 3600000, CASE event_type WHEN 'CLICK' THEN 1 WHEN 'PAGE_VIEW' THEN 2 \
                WHEN 'SEARCH' THEN 3 WHEN 'LIKE' THEN 4 ELSE 5 END, user_id FROM events \
              WHERE event_time >= ?3 AND event_time < ?4 AND {GOES})"
    );
    transaction.prepare_cached(&sql)?.execute([hours.start, hours.end, hours.start * HOUR_MS, hours.end * HOUR_MS])?;
    Ok(())
}

/// What the erasure at a position did to posts.
pub(super) fn erasure(transaction: &Transaction<'_>, stream: Uuid, position: i64) -> Result<Erasure> {
    let rows = |sql: &str| {
        transaction
            .prepare_cached(sql)?
            .query_map(params![stream.to_string(), position], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<Vec<(String, i64)>>>()
    };
    let unliked =
        "SELECT post_id, count(*) FROM post_like_log WHERE stream = ?1 AND position = ?2 GROUP BY 1 ORDER BY 1";
    let deleted = "SELECT post_id, version FROM tombstone WHERE stream = ?1 AND position = ?2 ORDER BY 1";
    Ok(Erasure { unliked: rows(unliked)?, deleted: rows(deleted)? })
}

/// The posts that a person made or likes.
pub(super) fn of_user(transaction: &Transaction<'_>, user: &str, limit: i64) -> Result<Belongings> {
    let posts = transaction
        .prepare_cached("SELECT post_id, hashtags FROM post WHERE user_id = ?1 LIMIT ?2")?
        .query_map(params![user, limit], |row| {
            let hashtags = serde_json::from_str(row.get_ref(1)?.as_str()?).unwrap_or_default();
            Ok((row.get(0)?, hashtags))
        })?
        .collect::<Result<Vec<_>>>()?;
    let liked = transaction
        .prepare_cached("SELECT post_id FROM post_like WHERE user_id = ?1 LIMIT ?2")?
        .query_map(params![user, limit], |row| row.get(0))?
        .collect::<Result<Vec<_>>>()?;
    Ok(Belongings { posts, liked })
}
