//! Makes and reads the lists of what several filters count: see `ledger_fold`. One writer at a time: nothing changes beneath a
//! step.

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension, Result, Transaction, TransactionBehavior, params};

use super::maintain::delete_in_steps;
use super::user_sets::state_of;
use super::writer::SqliteWriter;
use crate::events::EventType;
use crate::ledger_fold::{
    CLEARED, HOUR_MS, Joined, Longer, Named, POSTED, POSTED_COLUMNS, POSTING_LENGTHS, Posted, PostingLists, PostingRow,
    Postponed, RawCount, SetKey, SetMaker, count_posted, forget_postings_sql, join_hours, make_sets, next_long_sql,
    parts_of,
};
use crate::limits::POSTINGS_CLEARED;
use crate::ports::CountFilter;

const HEAD: &str = "posting_head";

/// What is due: first what holds no more goes, with what it says of people who were erased.
pub(super) fn make(writer: &mut SqliteWriter, has_time: &dyn Fn() -> bool) -> Result<bool> {
    let cleared = format!("{CLEARED} LIMIT {POSTINGS_CLEARED}");
    let cleared = writer.look(|connection| {
        let mut statement = connection.prepare(&cleared)?;
        let rows = statement.query_map([], |row| Ok([row.get(0)?, row.get(1)?]))?;
        rows.collect::<Result<Vec<[i64; 2]>>>()
    })?;
    for key in &cleared {
        writer.step(|connection| clear(connection, *key))?;
    }
    Ok((cleared.len() == POSTINGS_CLEARED) | make_sets(&mut PostingMaker(writer), has_time)?)
}

fn clear(connection: &mut Connection, key: [i64; 2]) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let head = "DELETE FROM posting_head WHERE hours = ?1 AND at = ?2 AND blocks < 0";
    if transaction.execute(head, key)? > 0 {
        transaction.execute("DELETE FROM posting_block WHERE hours = ?1 AND at = ?2", key)?;
    }
    transaction.commit()
}

/// Makes them with a writer's connection.
struct PostingMaker<'w>(&'w mut SqliteWriter);

impl SetMaker for PostingMaker<'_> {
    type Error = rusqlite::Error;
    const TABLE: &'static str = HEAD;
    const LENGTHS: &'static [i64] = &POSTING_LENGTHS;

    fn postponed(&mut self) -> &mut [Postponed; 2] {
        &mut self.0.folding.postings
    }

    fn numbers(&mut self, sql: String) -> Result<Vec<Option<i64>>> {
        self.0.numbers(sql)
    }

    /// A step costs no round trip here, so each hour has its own.
    fn make_few(&mut self, _: &[i64]) -> Result<bool> {
        Ok(false)
    }

    /// Rows are read beside batches.
    fn make_hour(&mut self, hour: i64) -> Result<bool> {
        let read = self.0.look(|connection| {
            let snapshot = connection.transaction()?;
            let state = state_of(&snapshot, (1, hour))?;
            match state.is_empty() {
                true => Ok(None),
                false => Ok(Some((state, posted_of(&snapshot, hour)?))),
            }
        })?;
        let Some((state, posted)) = read else { return Ok(false) };
        self.0.step(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if state_of(&transaction, (1, hour))? != state {
                return Ok(false);
            }
            write(&transaction, (1, hour), &posted)?;
            transaction.commit()?;
            Ok(true)
        })
    }

    fn make_long(&mut self, shorter: i64, set: SetKey) -> Result<bool> {
        let parts = parts_of(shorter, set);
        let (state, joined) = self.0.look(|connection| {
            let snapshot = connection.transaction()?;
            Ok((state_of(&snapshot, set)?, join_hours(set, |sql| rows_of(&snapshot, &sql))?))
        })?;
        self.0.step(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let due = next_long_sql(HEAD, shorter, set.0, Longer::Of(set.1));
            let due = transaction.query_row(&due, [], |row| row.get::<_, i64>(0)).optional()?;
            if due.is_none() || state_of(&transaction, set)? != state {
                return Ok(true);
            }
            match &joined {
                Joined::Lists(posted) => write(&transaction, set, posted)?,
                Joined::NotNow => {}
                Joined::Broken => transaction.execute_batch(&format!("DELETE FROM {HEAD} WHERE {parts}"))?,
            }
            transaction.commit()?;
            Ok(matches!(joined, Joined::Lists(_)))
        })
    }
}

fn rows_of(transaction: &Transaction<'_>, sql: &str) -> Result<Vec<PostingRow>> {
    let mut statement = transaction.prepare(sql)?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?.collect()
}

fn posted_of(snapshot: &Transaction<'_>, hour: i64) -> Result<Posted> {
    let sql = format!("SELECT {POSTED_COLUMNS} FROM events WHERE event_time >= ?1 AND event_time < ?2 AND {POSTED}");
    let mut lists = PostingLists::default();
    let mut statement = snapshot.prepare_cached(&sql)?;
    let mut rows = statement.query([hour * HOUR_MS, (hour + 1) * HOUR_MS])?;
    while let Some(row) = rows.next()? {
        let text = |column| row.get_ref(column)?.as_str_or_null().map_err(rusqlite::Error::from);
        let (component_id, element_id) = (row.get(1)?, text(5)?);
        let named = Named { component_id, element_id, keyword: text(2)?, post_id: text(3)?, url: text(4)? };
        if let Some(kind) = EventType::from_name(row.get_ref(0)?.as_str()?) {
            lists.add(kind, named);
        }
        if lists.is_too_large() {
            break;
        }
    }
    lists.end_hour();
    Ok(lists.finish())
}

fn write(transaction: &Transaction<'_>, (length, at): SetKey, posted: &Posted) -> Result<()> {
    transaction.execute("DELETE FROM posting_block WHERE hours = ?1 AND at = ?2", [length, at])?;
    let mut insert =
        transaction.prepare_cached("INSERT INTO posting_block (hours, at, number, block) VALUES (?1, ?2, ?3, ?4)")?;
    for (number, block) in posted.blocks.iter().enumerate() {
        insert.execute(params![length, at, number as i64, block])?;
    }
    let head = "INSERT OR REPLACE INTO posting_head (hours, at, blocks, counts) VALUES (?1, ?2, ?3, ?4)";
    transaction.execute(head, params![length, at, posted.blocks.len() as i64, posted.counts]).map(|_| ())
}

/// Of hours whose rows an erasure changed.
pub(super) fn erase(transaction: &Transaction<'_>, hours: &[Range<i64>]) -> Result<()> {
    match hours.is_empty() {
        true => Ok(()),
        false => transaction.execute_batch(&forget_postings_sql(hours)),
    }
}

/// Hours before this one have no rows any more.
pub(super) fn retire(writer: &mut SqliteWriter, since_hour: i64) -> Result<()> {
    writer.step(|connection| connection.execute("DELETE FROM posting_head WHERE at < ?1", [since_hour]))?;
    let condition = "hours IN (1, 24) AND at < ?1";
    delete_in_steps(writer, "posting_block", "hours, at, number", condition, since_hour).map(|_| ())
}

/// What they tell of a count, and what is left of it.
pub(super) fn count(
    transaction: &Transaction<'_>,
    filter: &CountFilter,
    range: RawCount,
) -> Result<(u64, Vec<RawCount>)> {
    count_posted(filter, range, |sql| rows_of(transaction, &sql))
}
