//! Keeps and reads the sets of users: see `ledger_fold`. One writer at a time: nothing changes beneath a step.

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, TransactionBehavior, params};

use super::maintain::delete_in_steps;
use super::rankings;
use super::writer::SqliteWriter;
use crate::ledger_fold::{
    GONE, NEXT_HOUR_SETS, SET_LENGTHS, SetKey, UserUnion, believed_sets_sql, choose_sets, members_sql,
    next_long_set_sql, parts_sql, set_of, union_of,
};
use crate::limits::OPEN_DAY_USERS_STEP;

const WRITE: &str = "INSERT OR REPLACE INTO user_set (hours, at, members) VALUES (?1, ?2, ?3)";

/// Makes the sets that are due, hours first and the newest of each; true where something is left.
pub(super) fn keep(writer: &mut SqliteWriter, has_time: &dyn Fn() -> bool) -> Result<bool> {
    // An hour that cannot be made keeps no other from it.
    let mut failed = None;
    loop {
        let hours: Vec<i64> = writer
            .look(|connection| connection.prepare_cached(NEXT_HOUR_SETS)?.query_map([], |row| row.get(0))?.collect())?;
        if hours.is_empty() || failed.is_some() {
            break;
        }
        for hour in hours {
            if !has_time() {
                return failed.map_or(Ok(true), Err);
            }
            match make_hour(writer, hour) {
                Ok(true) => {}
                Ok(false) => return Ok(true),
                Err(why) => failed = failed.or(Some(why)),
            }
        }
    }
    for lengths in SET_LENGTHS.windows(2) {
        let (shorter, length) = (lengths[0], lengths[1]);
        // Looked for beside batches: there may be years of hours.
        while has_time() && writer.look(|connection| next_long(&connection.transaction()?, shorter, length))?.is_some()
        {
            match writer.step(|connection| keep_long(connection, shorter, length))? {
                Made::Nothing => break,
                Made::Set => {}
                Made::Room => return Ok(true),
            }
        }
    }
    failed.map_or(Ok(!has_time()), Err)
}

fn make_hour(writer: &mut SqliteWriter, hour: i64) -> Result<bool> {
    Ok(number_users(writer, hour)? && keep_hour(writer, hour)?)
}

/// Gives the hour's users numbers, some at a time; false where it has to be counted again.
fn number_users(writer: &mut SqliteWriter, hour: i64) -> Result<bool> {
    let mut after = Some((0, String::new()));
    while let Some(last) = after {
        let Some(numbered) = writer.step(|connection| number_some(connection, hour, last))? else { return Ok(false) };
        after = numbered;
    }
    Ok(true)
}

/// A type and user: those behind it come next.
type Last = (i64, String);

/// The last of them where there may be more; `None` where the hour has to be counted again.
fn number_some(connection: &mut Connection, hour: i64, (kind, user): Last) -> Result<Option<Option<Last>>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if !is_counted(&transaction, hour)? {
        return Ok(None);
    }
    let some = "SELECT event_type, user_id FROM user_hour WHERE hour = ?1 AND (event_type, user_id) > (?2, ?3) \
         ORDER BY event_type, user_id LIMIT ?4";
    let of_row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let some = transaction
        .prepare_cached(some)?
        .query_map(params![hour, kind, user, OPEN_DAY_USERS_STEP], of_row)?
        .collect::<Result<Vec<(i64, String)>>>()?;
    let mut number = transaction.prepare_cached(
        "INSERT INTO user_number (user_id, day) VALUES (?1, ?2) ON CONFLICT (user_id) DO UPDATE SET day = excluded.day \
         WHERE day < excluded.day",
    )?;
    for (_, user) in &some {
        number.execute(params![user, hour.div_euclid(24)])?;
    }
    drop(number);
    transaction.commit()?;
    let is_full = some.len() as i64 == OPEN_DAY_USERS_STEP;
    Ok(Some(some.into_iter().next_back().filter(|_| is_full)))
}

fn is_counted(transaction: &Transaction<'_>, hour: i64) -> Result<bool> {
    Ok(state_of(transaction, hour)?.is_some())
}

/// By which it is seen whether an hour is as it was: what its points were counted of, and the last erasure. `None` while it
/// has to be counted.
fn state_of(transaction: &Transaction<'_>, hour: i64) -> Result<Option<(i64, i64)>> {
    let sql = "SELECT count, (SELECT coalesce(max(seq), 0) FROM erased) FROM series \
         WHERE minutes = 60 AND event_type = 0 AND at = ?1 AND users IS NOT NULL";
    transaction.prepare_cached(sql)?.query_row([hour * 60], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// False where something came in since its users got their numbers.
fn keep_hour(writer: &mut SqliteWriter, hour: i64) -> Result<bool> {
    let read = writer.look(|connection| {
        let snapshot = connection.transaction()?;
        let sql = "SELECT (SELECT number FROM user_number AS n WHERE n.user_id = u.user_id) \
                   FROM (SELECT DISTINCT user_id FROM user_hour WHERE hour = ?1) AS u";
        let numbers =
            snapshot.prepare_cached(sql)?.query_map([hour], |row| row.get(0))?.collect::<Result<Option<Vec<i64>>>>()?;
        Ok(state_of(&snapshot, hour)?.zip(numbers))
    })?;
    let Some((state, numbers)) = read else { return Ok(false) };
    writer.step(|connection| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if state_of(&transaction, hour)? != Some(state) {
            return Ok(false);
        }
        transaction.prepare_cached(WRITE)?.execute(params![1, hour, set_of(numbers)])?;
        transaction.commit()?;
        Ok(true)
    })
}

/// The first hour of what is due.
fn next_long(transaction: &Transaction<'_>, shorter: i64, length: i64) -> Result<Option<i64>> {
    let next = next_long_set_sql(shorter, length, rankings::folded(transaction)?.until_hour);
    transaction.query_row(&next, [], |row| row.get(0))
}

enum Made {
    Nothing,
    Set,
    /// The shorter ones are to be made again.
    Room,
}

/// A set of shorter ones.
fn keep_long(connection: &mut Connection, shorter: i64, length: i64) -> Result<Made> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Some(first) = next_long(&transaction, shorter, length)? else { return Ok(Made::Nothing) };
    let parts = transaction
        .prepare(&parts_sql(shorter, length, first))?
        .query_map([], |row| row.get(0))?
        .collect::<Result<Vec<Vec<u8>>>>()?;
    let made = match union_of(parts.iter().map(Vec::as_slice)) {
        Some(members) => {
            transaction.prepare_cached(WRITE)?.execute(params![length, first, members])?;
            Made::Set
        }
        None => {
            let unreadable = "DELETE FROM user_set WHERE hours = ?1 AND at >= ?2 AND at < ?3";
            transaction.execute(unreadable, [shorter, first, first + length])?;
            Made::Room
        }
    };
    transaction.commit()?;
    Ok(made)
}

/// Of persons who are erased (`gone`, a condition): their numbers go to those who are gone, and sets of hours in which they may
/// have something left go.
pub(super) fn erase(transaction: &Transaction<'_>, gone: &str, cut_hour: i64) -> Result<()> {
    let numbers = transaction
        .prepare(&format!("DELETE FROM user_number WHERE {gone} RETURNING number"))?
        .query_map([], |row| row.get(0))?
        .collect::<Result<Vec<i64>>>()?;
    if numbers.is_empty() {
        return Ok(());
    }
    transaction.execute("DELETE FROM user_set WHERE hours > 0 AND at + hours > ?1", [cut_hour])?;
    let before: Option<Vec<u8>> =
        transaction.query_row("SELECT members FROM user_set WHERE hours = ?1", [GONE], |row| row.get(0)).optional()?;
    // One that cannot be read: then no other set is of use either, and all are made anew.
    let members = match union_of(before.as_deref().into_iter().chain([&*set_of(numbers.iter().copied())])) {
        Some(members) => members,
        None => {
            transaction.execute("DELETE FROM user_set", [])?;
            set_of(numbers)
        }
    };
    transaction.prepare_cached(WRITE)?.execute(params![GONE, 0, members]).map(|_| ())
}

/// Hours before this one have no rows any more: their sets go, and the numbers of those who were not seen since.
pub(super) fn retire(writer: &mut SqliteWriter, since_hour: i64) -> Result<()> {
    let sql = "DELETE FROM user_set WHERE hours > 0 AND at < ?1";
    writer.step(|connection| connection.execute(sql, [since_hour]))?;
    delete_in_steps(writer, "user_number", "number", "day < ?1", since_hour.div_euclid(24)).map(|_| ())
}

/// Distinct users of a range, or `None` where no set of it can be believed. `rest_of` says what is read of hours that no set
/// has, as `SELECT user_id`.
pub(super) fn count(
    transaction: &Transaction<'_>,
    hours: &Range<i64>,
    rest_of: impl Fn(&[Range<i64>]) -> Option<String>,
) -> Result<Option<u64>> {
    let Some((sets, rest)) = choose(transaction, hours)? else { return Ok(None) };
    let mut union = UserUnion::default();
    let mut statement = transaction.prepare(&members_sql(&sets))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if !union.add(row.get(0)?, row.get_ref(1)?.as_blob()?) {
            return Ok(None);
        }
    }
    if let Some(rest) = rest_of(&rest) {
        let sql = format!(
            "SELECT (SELECT number FROM user_number AS n WHERE n.user_id = u.user_id) \
               FROM (SELECT DISTINCT user_id FROM ({rest}) AS seen) AS u"
        );
        let mut statement = transaction.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            union.add_user(row.get(0)?);
        }
    }
    Ok(Some(union.count()))
}

type Chosen = (Vec<SetKey>, Vec<Range<i64>>);

fn choose(transaction: &Transaction<'_>, hours: &Range<i64>) -> Result<Option<Chosen>> {
    let keys = |lengths: &[i64], ranges: &[Range<i64>]| -> Result<Vec<SetKey>> {
        let mut statement = transaction.prepare(&believed_sets_sql(lengths, ranges))?;
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    };
    let mut believed = keys(&SET_LENGTHS[1..], std::slice::from_ref(hours))?;
    let (_, rest) = choose_sets(hours, &believed);
    // Hours only where no longer set is: a year has many.
    if !rest.is_empty() {
        believed.extend(keys(&SET_LENGTHS[..1], &rest)?);
    }
    Ok((!believed.is_empty()).then(|| choose_sets(hours, &believed)))
}
