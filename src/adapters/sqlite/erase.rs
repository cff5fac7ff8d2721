//! Erasures: nothing of a person is left. A batch is the only writer, so nothing of theirs can come in between.

use rusqlite::{OptionalExtension, Result, Transaction, params};
use uuid::Uuid;

use crate::events::decode_record;
use crate::ledger_fold::{Draft, Erased, HOUR_MS, LikeFold, hour_ranges, last_erasures, person_of};
use crate::limits::EVENT_FUTURE_MS_MAX;
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

/// User and post: what those whom a batch erases like and made up to then, as far as a client's clock may be ahead.
pub(super) fn belongings(transaction: &Transaction<'_>, draft: &Draft<'_>) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let sql = "SELECT post_id FROM post_like WHERE user_id = ?1 AND liked_at <= ?2 UNION \
               SELECT post_id FROM post WHERE user_id = ?1 AND created_at <= ?2";
    for (user, at_ms, _) in last_erasures(&draft.erases) {
        let mut statement = transaction.prepare_cached(sql)?;
        let rows = statement.query_map(params![user, at_ms + EVENT_FUTURE_MS_MAX], |row| row.get(0))?;
        for post in rows {
            found.push((user.to_owned(), post?));
        }
    }
    Ok(found)
}

/// Everything that names the persons; behind the rest of the batch.
pub(super) fn erase(transaction: &Transaction<'_>, stream: Uuid, draft: &Draft<'_>, fold: &LikeFold<'_>) -> Result<()> {
    for (user, at_ms, index) in last_erasures(&draft.erases) {
        erase_one(transaction, user, at_ms)?;
        // What the batch holds behind it is of somebody who came back.
        let position = draft.position(index).cast_signed();
        let log = "UPDATE post_like_log SET user_id = '' WHERE user_id = ?1 AND changed_at <= ?2 \
                   AND NOT (stream = ?3 AND position > ?4)";
        transaction.execute(log, params![user, at_ms + EVENT_FUTURE_MS_MAX, stream.to_string(), position])?;
    }
    for (index, post, _) in fold.gone.iter().filter(|(.., is_erased)| *is_erased) {
        let position = draft.position(*index).cast_signed();
        transaction.prepare_cached("INSERT INTO erased_post VALUES (?1, ?2, ?3)")?.execute(params![
            stream.to_string(),
            position,
            post
        ])?;
    }
    Ok(())
}

fn erase_one(transaction: &Transaction<'_>, user: &str, at_ms: i64) -> Result<()> {
    let remember = "INSERT INTO erased VALUES (?1, ?2, (SELECT coalesce(max(seq), 0) + 1 FROM erased)) \
                    ON CONFLICT DO UPDATE SET at = max(at, excluded.at), seq = excluded.seq";
    transaction.execute(remember, params![user, at_ms])?;
    let mut hours = transaction.prepare("SELECT DISTINCT hour FROM user_hour WHERE user_id = ?1")?;
    let hours = hours.query_map([user], |row| row.get(0))?.collect::<Result<Vec<i64>>>()?;
    for range in hour_ranges(hours) {
        transaction.execute(
            "UPDATE events SET user_id = NULL, session_id = NULL, url = NULL, referrer = NULL, properties = NULL \
             WHERE user_id = ?1 AND event_time >= ?2 AND event_time < ?3 AND min(event_time, received_at) <= ?4",
            params![user, range.start * HOUR_MS, range.end * HOUR_MS, at_ms],
        )?;
    }
    // Of an hour that the erasure cuts, what happened behind it stays.
    transaction.execute(
        "DELETE FROM user_hour AS h WHERE user_id = ?1 AND (hour < ?2 OR NOT EXISTS \
           (SELECT 1 FROM events AS e WHERE e.event_time >= h.hour * 3600000 AND e.event_time < (h.hour + 1) * 3600000 \
              AND e.user_id = ?1 AND e.event_type = CASE h.event_type WHEN 1 THEN 'CLICK' WHEN 2 THEN 'PAGE_VIEW' \
                WHEN 3 THEN 'SEARCH' WHEN 4 THEN 'LIKE' ELSE 'UNLIKE' END))",
        params![user, at_ms.div_euclid(HOUR_MS)],
    )?;
    transaction.execute("DELETE FROM recent_forgotten WHERE user_id = ?1 AND at <= ?2", params![user, at_ms])?;
    erase_letters(transaction, user, at_ms)
}

/// Letters hold records as the journal does: those that hold the name at all are read, and say whose they are.
fn erase_letters(transaction: &Transaction<'_>, user: &str, at_ms: i64) -> Result<()> {
    let mut find = transaction.prepare("SELECT rowid, record FROM dead_letter WHERE instr(record, ?1) > 0")?;
    let mut rows = find.query([user.as_bytes()])?;
    let mut letters: Vec<i64> = Vec::new();
    while let Some(row) = rows.next()? {
        let mut bytes = row.get_ref(1)?.as_blob()?;
        let is_theirs = decode_record(&mut bytes).is_ok_and(|record| {
            person_of(&record).is_some_and(|(whose, happened_ms)| whose == user && happened_ms <= at_ms)
        });
        if is_theirs {
            letters.push(row.get(0)?);
        }
    }
    for letter in letters {
        transaction.execute("DELETE FROM dead_letter WHERE rowid = ?1", [letter])?;
    }
    Ok(())
}

/// What an erasure took from posts.
pub(super) fn erasure(transaction: &Transaction<'_>, stream: Uuid, position: i64) -> Result<Erasure> {
    let unliked = transaction
        .prepare_cached(
            "SELECT post_id, count(*) FROM post_like_log WHERE stream = ?1 AND position = ?2 GROUP BY 1 ORDER BY 1",
        )?
        .query_map(params![stream.to_string(), position], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<_>>>()?;
    let posts = transaction
        .prepare_cached("SELECT post_id FROM erased_post WHERE stream = ?1 AND position = ?2 ORDER BY 1")?
        .query_map(params![stream.to_string(), position], |row| row.get(0))?
        .collect::<Result<Vec<_>>>()?;
    Ok(Erasure { unliked, posts })
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
