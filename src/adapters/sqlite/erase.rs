//! Erasures: nothing of a person is left. A batch is the only writer, so nothing of theirs can come in between.
//!
//! Those who go stand in a table of the connection's own while their batch is under way: every other table is then read
//! once, however many they are.

use rusqlite::{OptionalExtension, Result, Transaction, params};
use uuid::Uuid;

use super::error::store_error;
use super::sql::SqliteSql;
use crate::ledger::HOUR_MS;
use crate::ledger::batch::draft::Draft;
use crate::ledger::batch::erasing::{Belonging, Erased, erased_users, hour_ranges, person_of, user_key};
use crate::ledger::upkeep::bitmaps;
use crate::ports::{Batch, StoreError};

/// Those of a batch's users that were erased.
pub(super) fn known(transaction: &Transaction<'_>, batch: &Batch<'_>) -> Result<Erased> {
    let mut erased = Erased::new();
    if !transaction.prepare_cached("SELECT 1 FROM erased LIMIT 1")?.exists([])? {
        return Ok(erased);
    }
    let mut find = transaction.prepare_cached("SELECT at FROM erased WHERE id = 'u:' || ?1")?;
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
    for (user, (up_to_ms, _)) in erased_users(&draft.erases) {
        note.execute(params![user, up_to_ms])?;
    }
    // The order of the tables is that of the loops.
    let sql = "SELECT user_id, post_id, liked_at FROM post_like CROSS JOIN going USING (user_id) WHERE liked_at <= up_to \
               UNION ALL SELECT user_id, post_id, coalesce(written_at, created_at) FROM post CROSS JOIN going USING (user_id) \
               WHERE coalesce(written_at, created_at) <= up_to";
    let mut statement = transaction.prepare_cached(sql)?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
}

/// Everything that names the persons; after the rest of the batch.
pub(super) fn erase(transaction: &Transaction<'_>, stream: Uuid, draft: &Draft<'_>) -> Result<(), StoreError> {
    if draft.erases.is_empty() {
        return Ok(());
    }
    let (ordinals, hours) = erase_rows(transaction, stream, draft).map_err(store_error)?;
    bitmaps::erase(&mut SqliteSql(transaction), &ordinals, &hours)
}

/// Returns their ordinals, and the hours in which they may have something left.
fn erase_rows(transaction: &Transaction<'_>, stream: Uuid, draft: &Draft<'_>) -> Result<(Vec<i64>, Vec<i64>)> {
    remember(transaction, stream, draft)?;
    let times = erased_users(&draft.erases).into_values().map(|(up_to_ms, _)| up_to_ms);
    let cut_hour = times.min().map_or(0, |up_to_ms| up_to_ms.div_euclid(HOUR_MS));
    let (hours, cut) = forget_hours(transaction, cut_hour)?;
    for range in hour_ranges(hours) {
        strip_events(transaction, range)?;
    }
    for range in hour_ranges(cut.iter().copied()) {
        forget_emptied(transaction, range)?;
    }
    let forget = "DELETE FROM visitor WHERE key IN (SELECT 'u:' || user_id FROM going) RETURNING ordinal";
    let ordinals =
        transaction.prepare_cached(forget)?.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>>>()?;
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
    Ok((ordinals, cut))
}

/// Of a table with users.
const GOES: &str = "user_id IN (SELECT user_id FROM going)";

fn remember(transaction: &Transaction<'_>, stream: Uuid, draft: &Draft<'_>) -> Result<()> {
    let mut remember = transaction.prepare_cached(
        "INSERT INTO erased (id, at, seq, stream, position) \
         VALUES (?1, ?2, (SELECT coalesce(max(seq), 0) + 1 FROM erased), ?3, ?4) \
         ON CONFLICT DO UPDATE SET at = max(at, excluded.at), seq = excluded.seq, stream = excluded.stream, \
           position = excluded.position",
    )?;
    for (user, (up_to_ms, index)) in erased_users(&draft.erases) {
        let position = draft.position(index).cast_signed();
        remember.execute(params![user_key(user), up_to_ms, stream.to_string(), position])?;
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
