//! Makes and reads the sets of users: see `ledger_fold`. One writer at a time: nothing changes beneath a step.

use std::ops::Range;

use rusqlite::{OptionalExtension, Result, Transaction, TransactionBehavior, params};

use super::maintain::delete_in_steps;
use super::open_day::some_users;
use super::writer::SqliteWriter;
use crate::ledger_fold::{
    GONE, Longer, OfHour, Postponed, SetKey, SetMaker, UserUnion, choose_sets, forget_sets_since_sql, hours_state_sql,
    members_sql, next_long_sql, numbers_sql, parts_of, set_of, union_of,
};

impl SetMaker for SqliteWriter {
    type Error = rusqlite::Error;

    fn postponed(&mut self) -> &mut [Postponed; 2] {
        &mut self.folding.sets
    }

    fn numbers(&mut self, sql: String) -> Result<Vec<Option<i64>>> {
        self.look(|connection| connection.prepare(&sql)?.query_map([], |row| row.get(0))?.collect())
    }

    /// A step costs no round trip here, so each hour has its own.
    fn make_few(&mut self, _: &[i64]) -> Result<bool> {
        Ok(false)
    }

    fn make_hour(&mut self, hour: i64) -> Result<bool> {
        let mut last = Some((0, String::new()));
        while let Some(after) = last {
            last = self.step(|connection| {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let last = number_some(&transaction, hour, after)?;
                transaction.commit()?;
                Ok(last)
            })?;
        }
        // Read beside batches.
        let read = self.look(|connection| {
            let snapshot = connection.transaction()?;
            let sql = numbers_sql(&format!("SELECT user_id FROM user_hour WHERE hour = {hour}"));
            let numbers =
                snapshot.prepare(&sql)?.query_map([], |row| row.get(0))?.collect::<Result<Option<Vec<i64>>>>();
            Ok(state_of(&snapshot, (1, hour))?.pop().zip(numbers?))
        })?;
        let Some((state, numbers)) = read else { return Ok(false) };
        self.step(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if state_of(&transaction, (1, hour))?.pop() != Some(state) {
                return Ok(false);
            }
            write(&transaction, (1, hour), &set_of(numbers))?;
            transaction.commit()?;
            Ok(true)
        })
    }

    fn make_long(&mut self, shorter: i64, set: SetKey) -> Result<bool> {
        self.step(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let sql = next_long_sql(shorter, set.0, Longer::Of(set.1));
            if transaction.query_row(&sql, [], |row| row.get::<_, i64>(0)).optional()?.is_none() {
                return Ok(true);
            }
            let parts = parts_of(shorter, set);
            let rows = transaction
                .prepare(&format!("SELECT members FROM user_set WHERE {parts}"))?
                .query_map([], |row| row.get(0))?
                .collect::<Result<Vec<Vec<u8>>>>()?;
            let members = union_of(rows.iter().map(Vec::as_slice));
            match &members {
                Some(members) => write(&transaction, set, members)?,
                None => transaction.execute_batch(&format!("DELETE FROM user_set WHERE {parts}"))?,
            }
            transaction.commit()?;
            Ok(members.is_some())
        })
    }
}

/// Gives the next users of an hour behind one numbers; the last of them where there may be more.
fn number_some(transaction: &Transaction<'_>, hour: i64, after: OfHour) -> Result<Option<OfHour>> {
    let (some, last) = some_users(transaction, hour, after)?;
    number(transaction, hour, &some)?;
    Ok(last)
}

/// Gives users who were seen in an hour numbers.
pub(super) fn number(transaction: &Transaction<'_>, hour: i64, some: &[OfHour]) -> Result<()> {
    let mut number = transaction.prepare_cached(
        "INSERT INTO user_number (user_id, day) VALUES (?1, ?2) ON CONFLICT (user_id) DO UPDATE SET day = excluded.day \
         WHERE day < excluded.day",
    )?;
    for (_, user) in some {
        number.execute(params![user, hour.div_euclid(24)])?;
    }
    Ok(())
}

/// Of each hour that does not have to be counted.
pub(super) fn state_of(transaction: &Transaction<'_>, hours: SetKey) -> Result<Vec<[i64; 3]>> {
    let mut statement = transaction.prepare(&hours_state_sql(hours))?;
    statement.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?.collect()
}

fn write(transaction: &Transaction<'_>, (length, at): SetKey, members: &[u8]) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO user_set (hours, at, members) VALUES (?1, ?2, ?3)";
    transaction.prepare_cached(sql)?.execute(params![length, at, members]).map(|_| ())
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
    transaction.execute_batch(&forget_sets_since_sql(cut_hour))?;
    let before: Option<Vec<u8>> =
        transaction.query_row("SELECT members FROM user_set WHERE hours = ?1", [GONE], |row| row.get(0)).optional()?;
    let more = set_of(numbers);
    let gone = union_of(before.as_deref().into_iter().chain([&*more]));
    if gone.is_none() {
        // Those who went before cannot be told from others: all sets are made anew.
        transaction.execute_batch("DELETE FROM user_set")?;
    }
    write(transaction, (GONE, 0), &gone.unwrap_or(more))
}

/// Hours before this one have no rows any more: their sets go, and the numbers of those who were not seen since.
pub(super) fn retire(writer: &mut SqliteWriter, since_hour: i64) -> Result<()> {
    let sql = "DELETE FROM user_set WHERE hours > 0 AND at < ?1";
    writer.step(|connection| connection.execute(sql, [since_hour]))?;
    writer.step(|connection| connection.execute("DELETE FROM user_open WHERE hour < ?1", [since_hour]))?;
    delete_in_steps(writer, "user_number", "number", "day < ?1", since_hour.div_euclid(24)).map(|_| ())
}

/// Distinct users of a range, or `None` where no set of it can be believed. `rest_of` says what is read of hours that no set
/// has, as `SELECT user_id`.
pub(super) fn count(
    transaction: &Transaction<'_>,
    hours: &Range<i64>,
    rest_of: impl Fn(&[Range<i64>]) -> Option<String>,
) -> Result<Option<u64>> {
    let keys = |sql: String| -> Result<Vec<SetKey>> {
        transaction.prepare(&sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    };
    let Some((sets, rest)) = choose_sets(hours, keys)? else { return Ok(None) };
    let mut union = UserUnion::default();
    let mut statement = transaction.prepare(&members_sql(&sets))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if !union.add(row.get(0)?, row.get_ref(1)?.as_blob()?) {
            return Ok(None);
        }
    }
    if let Some(rest) = rest_of(&rest) {
        let mut statement = transaction.prepare(&numbers_sql(&rest))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            union.add_user(row.get(0)?);
        }
    }
    Ok(Some(union.count()))
}
