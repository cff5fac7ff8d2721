//! Keeps the users of the day that is not over: see `ledger_fold`. One writer at a time: no erasure comes in between.

use std::ops::Range;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use rusqlite::{Connection, Result, Row, Transaction, TransactionBehavior, params};

use super::maintain::delete_in_steps;
use super::writer::SqliteWriter;
use super::{rankings, user_sets};
use crate::ledger_fold::{HAS_SET, OPEN_DAYS, OfHour, OpenHours, begin_sql, day_of, new_users_sql};
use crate::limits::{FOLD_MS_MAX, OPEN_DAY_USERS_STEP};

/// Behind the hours of those that `gone`, a condition, names: what is left of those has to be counted again.
pub(super) fn erase(transaction: &Transaction<'_>, gone: &str) -> Result<()> {
    transaction.execute_batch(&format!(
        "UPDATE series SET users = users - (SELECT count(*) FROM user_day AS d \
             WHERE d.at = series.at AND d.event_type = series.event_type AND {gone}) WHERE minutes < 0; \
         DELETE FROM user_day WHERE {gone}; \
         DELETE FROM user_open WHERE {gone}; \
         UPDATE series SET users = NULL, count = count + 1 \
           WHERE minutes = 60 AND event_type = 0 AND users IS NOT NULL \
             AND at >= (SELECT min(at) FROM series WHERE minutes < 0) \
             AND EXISTS (SELECT 1 FROM user_hour WHERE hour = series.at / 60 AND {gone})"
    ))
}

/// Begins with the day of the frontier, and gives up those before it.
pub(super) fn keep(writer: &mut SqliteWriter, zone: &TimeZone) -> Result<()> {
    let is_kept = |connection: &mut Connection| {
        let transaction = connection.transaction()?;
        let day = day_of(rankings::folded(&transaction)?.until_hour, zone);
        Ok(day.is_none_or(|day| days(&transaction, OPEN_DAYS).is_ok_and(|days| days.contains(&day))))
    };
    if !writer.look(is_kept)? {
        writer.step(|connection| turn(connection, zone))?;
    }
    let left = "SELECT EXISTS (SELECT 1 FROM user_day WHERE at NOT IN (SELECT at FROM series WHERE minutes < 0))";
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(FOLD_MS_MAX / 2)
        && writer.look(|connection| connection.query_row(left, [], |row| row.get(0)))?
    {
        let sql = "DELETE FROM user_day WHERE (at, event_type, user_id) IN (SELECT at, event_type, user_id FROM user_day \
                   WHERE at NOT IN (SELECT at FROM series WHERE minutes < 0) LIMIT ?1)";
        writer.step(|connection| connection.execute(sql, [OPEN_DAY_USERS_STEP]))?;
    }
    Ok(())
}

fn turn(connection: &mut Connection, zone: &TimeZone) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Some(day) = day_of(rankings::folded(&transaction)?.until_hour, zone) else { return Ok(()) };
    transaction.execute("DELETE FROM series WHERE minutes < 0 AND at - minutes <= ?1", [day.start])?;
    // What is left of it goes first.
    let left = transaction.prepare("SELECT 1 FROM user_day WHERE at = ?1")?.exists([day.start])?;
    if !left && days(&transaction, OPEN_DAYS)?.len() < 2 {
        transaction.execute_batch(&begin_sql(&day))?;
    }
    transaction.commit()
}

fn days(transaction: &Transaction<'_>, sql: &str) -> Result<Vec<Range<i64>>> {
    let mut statement = transaction.prepare(sql)?;
    statement.query_map([], |row| Ok(row.get(0)?..row.get(1)?))?.collect()
}

/// The days that keep an hour's users.
pub(super) fn of_hour(transaction: &Transaction<'_>, at: i64) -> Result<Vec<Range<i64>>> {
    days(transaction, &format!("{OPEN_DAYS} AND at <= {at} AND at - minutes > {at} ORDER BY 1, 2"))
}

/// Users of the hour that begins at a minute, some at a time; false where a day is kept no more.
pub(super) fn add_users(writer: &mut SqliteWriter, days: &[Range<i64>], at: i64) -> Result<bool> {
    for day in days {
        let mut last = Some((0, String::new()));
        while let Some(after) = last {
            let added = writer.step(|connection| {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                if !of_hour(&transaction, at)?.contains(day) {
                    return Ok(None);
                }
                let last = add_some(&transaction, day, at.div_euclid(60), after)?;
                transaction.commit()?;
                Ok(Some(last))
            })?;
            let Some(added) = added else { return Ok(false) };
            last = added;
        }
    }
    Ok(true)
}

/// All of them, of an hour that has few.
pub(super) fn add_users_at_once(transaction: &Transaction<'_>, days: &[Range<i64>], at: i64) -> Result<()> {
    for day in days {
        let mut last = Some((0, String::new()));
        while let Some(after) = last {
            last = add_some(transaction, day, at.div_euclid(60), after)?;
        }
    }
    Ok(())
}

/// The next users of an hour behind one; and the last of them where there may be more.
pub(super) fn some_users(
    transaction: &Transaction<'_>,
    hour: i64,
    (kind, user): OfHour,
) -> Result<(Vec<OfHour>, Option<OfHour>)> {
    let mut some = transaction.prepare_cached(
        "SELECT event_type, user_id FROM user_hour WHERE hour = ?1 AND (event_type, user_id) > (?2, ?3) \
         ORDER BY event_type, user_id LIMIT ?4",
    )?;
    let of_row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let some =
        some.query_map(params![hour, kind, user, OPEN_DAY_USERS_STEP], of_row)?.collect::<Result<Vec<OfHour>>>()?;
    let is_full = some.len() as i64 == OPEN_DAY_USERS_STEP;
    let last = some.last().filter(|_| is_full).cloned();
    Ok((some, last))
}

/// The next ones behind a type and user; the last of them where there may be more.
fn add_some(transaction: &Transaction<'_>, day: &Range<i64>, hour: i64, after: OfHour) -> Result<Option<OfHour>> {
    let (some, last) = some_users(transaction, hour, after)?;
    add(transaction, day, &some)?;
    Ok(last)
}

fn add(transaction: &Transaction<'_>, day: &Range<i64>, some: &[OfHour]) -> Result<()> {
    let mut add = transaction.prepare_cached("INSERT OR IGNORE INTO user_day VALUES (?1, ?2, ?3)")?;
    let mut added = [0i64; 6];
    for (kind, user) in some {
        for kind in [0, *kind] {
            added[kind as usize % 6] += add.execute(params![day.start, kind, user])? as i64;
        }
    }
    let mut count = transaction.prepare_cached(
        "INSERT INTO series (minutes, event_type, at, count, users) VALUES (?1, ?2, ?3, 0, ?4) \
         ON CONFLICT DO UPDATE SET users = users + excluded.users",
    )?;
    for (kind, users) in added.into_iter().enumerate().filter(|(_, users)| *users > 0) {
        count.execute(params![day.start - day.end, kind as i64, day.start, users])?;
    }
    Ok(())
}

impl OpenHours for SqliteWriter {
    type Error = rusqlite::Error;

    fn until_hour(&mut self) -> Result<i64> {
        self.look(|connection| Ok(rankings::folded(&connection.transaction()?)?.until_hour))
    }

    fn forget_over(&mut self, until_hour: i64) -> Result<()> {
        let is_over = format!("hour < ?1 AND {HAS_SET}");
        delete_in_steps(self, "user_open", "user_id, hour, event_type", &is_over, until_hour).map(|_| ())
    }

    fn new_users(&mut self, hour: i64) -> Result<Vec<OfHour>> {
        self.look(|connection| {
            connection.prepare(&new_users_sql(hour))?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
    }

    fn open(&mut self, hour: i64, some: &[OfHour]) -> Result<()> {
        self.step(|connection| open(connection, hour, some))
    }
}

fn open(connection: &mut Connection, hour: i64, some: &[OfHour]) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut left = Vec::with_capacity(some.len());
    let mut is_there =
        transaction.prepare_cached("SELECT 1 FROM user_hour WHERE hour = ?1 AND event_type = ?2 AND user_id = ?3")?;
    for (kind, user) in some {
        if is_there.exists(params![hour, kind, user])? {
            left.push((*kind, user.clone()));
        }
    }
    drop(is_there);
    for day in of_hour(&transaction, hour * 60)? {
        add(&transaction, &day, &left)?;
    }
    user_sets::number(&transaction, hour, &left)?;
    let mut open = transaction.prepare_cached(
        "INSERT OR IGNORE INTO user_open (user_id, hour, event_type, number) \
         SELECT user_id, ?2, ?3, number FROM user_number WHERE user_id = ?1",
    )?;
    for (kind, user) in &left {
        open.execute(params![user, hour, kind])?;
    }
    drop(open);
    transaction.commit()
}
