//! Keeps and reads the sets of users: see `ledger_fold`.
//!
//! Whoever writes sets or numbers, counts an hour again, erases or retires holds the lock of the open day's users for the
//! transaction: so no set is written of what another one has just changed.

use std::ops::Range;

use postgres::Transaction;

use super::connect::{Failure, Session};
use super::encode::Array;
use super::rankings::{self, Reading};
use super::writer::PostgresWriter;
use super::{fold, open_day};
use crate::ledger_fold::{
    GONE, NEXT_HOUR_SETS, SET_LENGTHS, SetKey, UserUnion, believed_sets_sql, choose_sets, members_sql,
    next_long_set_sql, parts_sql, set_of, union_of,
};
use crate::limits::{MAINTAIN_ROWS_MAX, OPEN_DAY_USERS_STEP};

/// Makes the sets that are due, hours first and the newest of each; true where something is left.
pub(super) fn keep(writer: &mut PostgresWriter, has_time: &dyn Fn() -> bool) -> Result<bool, Failure> {
    // An hour that cannot be made keeps no other from it.
    let mut failed = None;
    loop {
        let hours = writer.step(|session| Ok(session.client.query(NEXT_HOUR_SETS, &[])?))?;
        if hours.is_empty() || failed.is_some() {
            break;
        }
        for hour in hours.iter().map(|row| row.get(0)) {
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
        while has_time() {
            match writer.step(move |session| keep_long(session, shorter, length))? {
                Made::Nothing => break,
                Made::Set => {}
                Made::Room => return Ok(true),
            }
        }
    }
    failed.map_or(Ok(!has_time()), Err)
}

fn make_hour(writer: &mut PostgresWriter, hour: i64) -> Result<bool, Failure> {
    Ok(number_users(writer, hour)? && writer.step(move |session| keep_hour(session, hour))?)
}

/// Gives the hour's users numbers, some at a time; false where it has to be counted again.
fn number_users(writer: &mut PostgresWriter, hour: i64) -> Result<bool, Failure> {
    let mut after = (0i16, String::new());
    loop {
        let (kind, user) = after;
        let numbered = writer.step(move |session| number_some(session, hour, kind, &user))?;
        match numbered {
            Numbered::Stale => return Ok(false),
            Numbered::All => return Ok(true),
            Numbered::UpTo(kind, user) => after = (kind, user),
        }
    }
}

enum Numbered {
    Stale,
    All,
    UpTo(i16, String),
}

fn number_some(session: &mut Session, hour: i64, kind: i16, user: &str) -> Result<Numbered, Failure> {
    let mut transaction = session.client.transaction()?;
    open_day::lock(&mut transaction)?;
    if !is_counted(&mut transaction, hour)? {
        return Ok(Numbered::Stale);
    }
    let day = hour.div_euclid(24);
    let sql = format!(
        "WITH chosen AS MATERIALIZED (SELECT event_type, user_id FROM user_hour \
                 WHERE hour = {hour} AND (event_type, user_id) > ($1::int2, $2::text) \
                 ORDER BY event_type, user_id LIMIT {OPEN_DAY_USERS_STEP}), \
           numbered AS (INSERT INTO user_number (user_id, day) SELECT DISTINCT user_id, {day} FROM chosen \
                 WHERE (SELECT 1 FROM user_number AS n WHERE n.user_id = chosen.user_id) IS NULL ORDER BY user_id), \
           seen AS (UPDATE user_number SET day = {day} WHERE day < {day} AND user_id = ANY \
                 (ARRAY(SELECT user_id FROM chosen))) \
         SELECT event_type, user_id, (SELECT count(*) FROM chosen) FROM chosen ORDER BY 1 DESC, 2 DESC LIMIT 1"
    );
    let row = transaction.query_opt(sql.as_str(), &[&kind, &user])?;
    transaction.commit()?;
    let is_full = |row: &&postgres::Row| row.get::<_, i64>(2) == OPEN_DAY_USERS_STEP;
    Ok(row.as_ref().filter(is_full).map_or(Numbered::All, |row| Numbered::UpTo(row.get(0), row.get(1))))
}

fn is_counted(transaction: &mut Transaction<'_>, hour: i64) -> Result<bool, postgres::Error> {
    Ok(state_of(transaction, hour)?.is_some())
}

/// By which it is seen whether an hour is as it was: what its points were counted of, and the last erasure. `None` while it
/// has to be counted.
fn state_of(transaction: &mut Transaction<'_>, hour: i64) -> Result<Option<(i64, i64)>, postgres::Error> {
    let sql = "SELECT count, (SELECT coalesce(max(seq), 0) FROM erased) FROM series \
         WHERE minutes = 60 AND event_type = 0 AND at = $1 AND users IS NOT NULL";
    Ok(transaction.query_opt(sql, &[&(hour * 60)])?.map(|row| (row.get(0), row.get(1))))
}

/// False where something came in since its users got their numbers.
fn keep_hour(session: &mut Session, hour: i64) -> Result<bool, Failure> {
    let mut snapshot = fold::reading(session)?;
    let Some(state) = state_of(&mut snapshot, hour)? else { return Ok(false) };
    // Through the key, one after the other: the table of numbers is not read as a whole.
    let sql = format!(
        "SELECT (SELECT number::int8 FROM user_number AS n WHERE n.user_id = u.user_id) \
           FROM (SELECT DISTINCT user_id FROM user_hour WHERE hour = {hour}) AS u"
    );
    let numbers: Option<Vec<i64>> = snapshot.query(sql.as_str(), &[])?.iter().map(|row| row.get(0)).collect();
    snapshot.commit()?;
    let Some(numbers) = numbers else { return Ok(false) };
    let mut transaction = session.client.transaction()?;
    open_day::lock(&mut transaction)?;
    if state_of(&mut transaction, hour)? != Some(state) {
        return Ok(false);
    }
    write(&mut transaction, (1, hour), &set_of(numbers))?;
    transaction.commit()?;
    Ok(true)
}

enum Made {
    Nothing,
    Set,
    /// The shorter ones are to be made again.
    Room,
}

/// A set of shorter ones.
fn keep_long(session: &mut Session, shorter: i64, length: i64) -> Result<Made, Failure> {
    let mut transaction = session.client.transaction()?;
    open_day::lock(&mut transaction)?;
    let until_hour = rankings::folded(&mut transaction)?.until_hour;
    let next = next_long_set_sql(shorter, length, until_hour);
    let Some(first) = transaction.query_one(next.as_str(), &[])?.get::<_, Option<i64>>(0) else {
        return Ok(Made::Nothing);
    };
    let parts = transaction.query(parts_sql(shorter, length, first).as_str(), &[])?;
    let made = match union_of(parts.iter().map(|row| row.get::<_, &[u8]>(0))) {
        Some(members) => {
            write(&mut transaction, (length, first), &members)?;
            Made::Set
        }
        None => {
            let unreadable = "DELETE FROM user_set WHERE hours = $1 AND at >= $2 AND at < $3";
            transaction.execute(unreadable, &[&shorter, &first, &(first + length)])?;
            Made::Room
        }
    };
    transaction.commit()?;
    Ok(made)
}

fn write(transaction: &mut Transaction<'_>, (length, at): SetKey, members: &[u8]) -> Result<(), postgres::Error> {
    let sql = "INSERT INTO user_set (hours, at, members) VALUES ($1, $2, $3) \
               ON CONFLICT (hours, at) DO UPDATE SET members = excluded.members";
    transaction.execute(sql, &[&length, &at, &members]).map(|_| ())
}

/// Of persons who are erased: their numbers go to those who are gone, and sets of hours in which they may have something left
/// go. Behind the lock.
pub(super) fn erase(session: &mut Session, users: &Array, cut_hour: i64) -> Result<(), Failure> {
    let forget = "DELETE FROM user_number WHERE user_id = ANY ($1::text[]) RETURNING number::int8";
    let numbers: Vec<i64> = session.client.query(forget, &[users])?.iter().map(|row| row.get(0)).collect();
    if numbers.is_empty() {
        return Ok(());
    }
    session.client.execute("DELETE FROM user_set WHERE hours > 0 AND at + hours > $1", &[&cut_hour])?;
    let row = session.client.query_opt("SELECT members FROM user_set WHERE hours = $1", &[&GONE])?;
    let before: Option<Vec<u8>> = row.map(|row| row.get(0));
    // One that cannot be read: then no other set is of use either, and all are made anew.
    let members = match union_of(before.as_deref().into_iter().chain([&*set_of(numbers.iter().copied())])) {
        Some(members) => members,
        None => {
            session.client.batch_execute("DELETE FROM user_set")?;
            set_of(numbers)
        }
    };
    let sql = "INSERT INTO user_set (hours, at, members) VALUES ($1, 0, $2) \
               ON CONFLICT (hours, at) DO UPDATE SET members = excluded.members";
    session.client.execute(sql, &[&GONE, &members])?;
    Ok(())
}

/// Hours before this one have no rows any more: their sets go, and the numbers of those who were not seen since.
pub(super) fn retire(session: &mut Session, since_hour: i64) -> Result<(), Failure> {
    let mut transaction = session.client.transaction()?;
    open_day::lock(&mut transaction)?;
    transaction.execute("DELETE FROM user_set WHERE hours > 0 AND at < $1", &[&since_hour])?;
    let day = since_hour.div_euclid(24) as i32;
    let sql = "DELETE FROM user_number WHERE ctid = ANY (ARRAY(SELECT ctid FROM user_number WHERE day < $1 LIMIT $2))";
    transaction.execute(sql, &[&day, &MAINTAIN_ROWS_MAX])?;
    Ok(transaction.commit()?)
}

/// Distinct users of a range, or `None` where no set of it can be believed. `rest_of` says what is read of hours that no set
/// has, as `SELECT user_id`.
pub(super) fn count(
    reading: &mut Reading<'_>,
    hours: &Range<i64>,
    rest_of: impl Fn(&[Range<i64>]) -> Option<String>,
) -> Result<Option<u64>, postgres::Error> {
    let Some((sets, rest)) = choose(reading, hours)? else { return Ok(None) };
    let mut union = UserUnion::default();
    for row in reading.query(&members_sql(&sets), &[])? {
        if !union.add(row.get(0), row.get(1)) {
            return Ok(None);
        }
    }
    if let Some(rest) = rest_of(&rest) {
        let sql = format!(
            "SELECT (SELECT number::int8 FROM user_number AS n WHERE n.user_id = u.user_id) \
               FROM (SELECT DISTINCT user_id FROM ({rest}) AS seen) AS u"
        );
        reading.query(&sql, &[])?.iter().for_each(|row| union.add_user(row.get(0)));
    }
    Ok(Some(union.count()))
}

type Chosen = (Vec<SetKey>, Vec<Range<i64>>);

fn choose(reading: &mut Reading<'_>, hours: &Range<i64>) -> Result<Option<Chosen>, postgres::Error> {
    let keys = |reading: &mut Reading<'_>, lengths: &[i64], ranges: &[Range<i64>]| {
        let rows = reading.query(&believed_sets_sql(lengths, ranges), &[])?;
        Ok::<Vec<SetKey>, postgres::Error>(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    };
    let mut believed = keys(reading, &SET_LENGTHS[1..], std::slice::from_ref(hours))?;
    let (_, rest) = choose_sets(hours, &believed);
    // Hours only where no longer set is: a year has many.
    if !rest.is_empty() {
        believed.extend(keys(reading, &SET_LENGTHS[..1], &rest)?);
    }
    Ok((!believed.is_empty()).then(|| choose_sets(hours, &believed)))
}
