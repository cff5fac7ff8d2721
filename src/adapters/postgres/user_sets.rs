//! Makes and reads the sets of users: see `ledger_fold`.
//!
//! Whoever writes sets or numbers, counts an hour again, erases or retires holds the lock of the open day's users for the
//! transaction: so no set is written of what another one has just changed.

use std::collections::BTreeMap;
use std::ops::Range;

use postgres::{GenericClient, Transaction};

use super::connect::{Failure, Session};
use super::encode::Array;
use super::reading::Reading;
use super::writer::PostgresWriter;
use super::{fold, open_day};
use crate::ledger_fold::{
    GONE, Longer, Postponed, SetKey, SetMaker, UserUnion, choose_sets, forget_sets_since_sql, hours_state_sql,
    members_sql, next_long_sql, numbers_sql, parts_of, set_of, union_of,
};
use crate::limits::{MAINTAIN_ROWS_MAX, OPEN_DAY_USERS_STEP};

impl SetMaker for PostgresWriter {
    type Error = Failure;

    fn postponed(&mut self) -> &mut [Postponed; 2] {
        &mut self.folding.sets
    }

    fn numbers(&mut self, sql: String) -> Result<Vec<Option<i64>>, Failure> {
        self.step(move |session| Ok(session.client.query(sql.as_str(), &[])?.iter().map(|row| row.get(0)).collect()))
    }

    fn make_few(&mut self, hours: &[i64]) -> Result<bool, Failure> {
        let hours = hours.to_vec();
        self.step(move |session| make_few(session, &hours))
    }

    fn make_hour(&mut self, hour: i64) -> Result<bool, Failure> {
        let mut last = Some((0, String::new()));
        while let Some(after) = last {
            last = self.step(move |session| number_some(session, hour, after))?;
        }
        self.step(move |session| make_hour(session, hour))
    }

    fn make_long(&mut self, shorter: i64, set: SetKey) -> Result<bool, Failure> {
        self.step(move |session| make_long(session, shorter, set))
    }
}

/// Gives the next users of an hour behind a type and user numbers; the last of them where there may be more.
fn number_some(session: &mut Session, hour: i64, after: (i16, String)) -> Result<Option<(i16, String)>, Failure> {
    let mut transaction = session.client.transaction()?;
    open_day::lock(&mut transaction)?;
    let last = open_day::with_some_users(&mut transaction, hour, after, &number_sql(hour))?;
    transaction.commit()?;
    Ok(last)
}

/// Named statements of WITH: numbers for users of `chosen`, who were seen in an hour.
pub(super) fn number_sql(hour: i64) -> String {
    let day = hour.div_euclid(24);
    format!(
        "numbered AS (INSERT INTO user_number (user_id, day) SELECT DISTINCT user_id, {day} FROM chosen \
                 WHERE (SELECT 1 FROM user_number AS n WHERE n.user_id = chosen.user_id) IS NULL ORDER BY user_id \
                 RETURNING user_id, number), \
           seen AS (UPDATE user_number SET day = {day} WHERE day < {day} AND user_id = ANY \
                 (ARRAY(SELECT user_id FROM chosen)))"
    )
}

/// Of each hour that does not have to be counted.
pub(super) fn state_of(transaction: &mut Transaction<'_>, hours: SetKey) -> Result<Vec<[i64; 3]>, postgres::Error> {
    let rows = transaction.query(&hours_state_sql(hours), &[])?;
    Ok(rows.iter().map(|row| [row.get(0), row.get(1), row.get(2)]).collect())
}

/// False where something came in since its users got their numbers. The lock is not held while they are read.
fn make_hour(session: &mut Session, hour: i64) -> Result<bool, Failure> {
    let mut snapshot = fold::reading(session)?;
    let state = state_of(&mut snapshot, (1, hour))?;
    let numbers = numbers_sql(&format!("SELECT user_id FROM user_hour WHERE hour = {hour}"));
    let numbers: Option<Vec<i64>> = snapshot.query(&numbers, &[])?.iter().map(|row| row.get(0)).collect();
    snapshot.commit()?;
    let Some(numbers) = numbers.filter(|_| !state.is_empty()) else { return Ok(false) };
    let mut transaction = session.client.transaction()?;
    open_day::lock(&mut transaction)?;
    if state_of(&mut transaction, (1, hour))? != state {
        return Ok(false);
    }
    write(&mut transaction, (1, hour), &set_of(numbers))?;
    transaction.commit()?;
    Ok(true)
}

/// The sets of some hours of one UTC day, unless their users are too many for a step or something changes meanwhile.
fn make_few(session: &mut Session, hours: &[i64]) -> Result<bool, Failure> {
    let Some(day) = hours.first().map(|hour| hour.div_euclid(24)) else { return Ok(true) };
    let mut transaction = session.client.transaction()?;
    open_day::lock(&mut transaction)?;
    let number = format!(
        "WITH chosen AS MATERIALIZED (SELECT user_id FROM user_hour WHERE hour = ANY ($1) LIMIT {} + 1), {} \
         SELECT count(*) FROM chosen",
        OPEN_DAY_USERS_STEP,
        number_sql(day * 24)
    );
    let users: i64 = transaction.query_one(&number, &[&hours])?.get(0);
    transaction.commit()?;
    if users > OPEN_DAY_USERS_STEP {
        return Ok(false);
    }
    let mut snapshot = fold::reading(session)?;
    let state = state_of(&mut snapshot, (24, day * 24))?;
    let numbers = "SELECT hour, number::int8 FROM (SELECT DISTINCT hour, user_id FROM user_hour WHERE hour = ANY ($1)) AS u \
                   LEFT JOIN user_number USING (user_id)";
    let mut members: BTreeMap<i64, Option<Vec<i64>>> = hours.iter().map(|hour| (*hour, Some(Vec::new()))).collect();
    for row in snapshot.query(numbers, &[&hours])? {
        let all = members.entry(row.get(0)).or_default();
        match row.get(1) {
            Some(number) => all.iter_mut().for_each(|all| all.push(number)),
            None => *all = None,
        }
    }
    snapshot.commit()?;
    let are_counted = hours.iter().all(|hour| state.iter().any(|[at, ..]| *at == hour * 60));
    let sets: Option<Vec<Vec<u8>>> = members.values().map(|all| Some(set_of(all.clone()?))).collect();
    let Some(sets) = sets.filter(|_| are_counted) else { return Ok(false) };
    let mut transaction = session.client.transaction()?;
    open_day::lock(&mut transaction)?;
    if state_of(&mut transaction, (24, day * 24))? != state {
        return Ok(false);
    }
    let write = "INSERT INTO user_set (hours, at, members) SELECT 1, * FROM unnest($1::int8[], $2::bytea[]) \
                 ON CONFLICT (hours, at) DO UPDATE SET members = excluded.members";
    transaction.execute(write, &[&members.keys().copied().collect::<Vec<i64>>(), &sets])?;
    transaction.commit()?;
    Ok(true)
}

fn make_long(session: &mut Session, shorter: i64, set: SetKey) -> Result<bool, Failure> {
    let mut transaction = session.client.transaction()?;
    open_day::lock(&mut transaction)?;
    let due = next_long_sql(shorter, set.0, Longer::Of(set.1));
    if transaction.query_opt(&due, &[])?.is_none() {
        return Ok(true);
    }
    let parts = parts_of(shorter, set);
    let rows = transaction.query(&format!("SELECT members FROM user_set WHERE {parts}"), &[])?;
    let members = union_of(rows.iter().map(|row| row.get::<_, &[u8]>(0)));
    match &members {
        Some(members) => write(&mut transaction, set, members)?,
        None => transaction.batch_execute(&format!("DELETE FROM user_set WHERE {parts}"))?,
    }
    transaction.commit()?;
    Ok(members.is_some())
}

fn write(client: &mut impl GenericClient, (length, at): SetKey, members: &[u8]) -> Result<(), postgres::Error> {
    let sql = "INSERT INTO user_set (hours, at, members) VALUES ($1, $2, $3) \
               ON CONFLICT (hours, at) DO UPDATE SET members = excluded.members";
    client.execute(sql, &[&length, &at, &members]).map(|_| ())
}

/// Of persons who are erased: their numbers go to those who are gone, and sets of hours in which they may have something left
/// go. Behind the lock.
pub(super) fn erase(session: &mut Session, users: &Array, cut_hour: i64) -> Result<(), Failure> {
    let client = &mut session.client;
    let forget = "DELETE FROM user_number WHERE user_id = ANY ($1::text[]) RETURNING number::int8";
    let numbers: Vec<i64> = client.query(forget, &[users])?.iter().map(|row| row.get(0)).collect();
    if numbers.is_empty() {
        return Ok(());
    }
    client.batch_execute(&forget_sets_since_sql(cut_hour))?;
    let rows = client.query("SELECT members FROM user_set WHERE hours = $1", &[&GONE])?;
    let more = set_of(numbers);
    let gone = union_of(rows.iter().map(|row| row.get::<_, &[u8]>(0)).chain([&*more]));
    if gone.is_none() {
        // Those who went before cannot be told from others: all sets are made anew.
        client.batch_execute("DELETE FROM user_set")?;
    }
    Ok(write(client, (GONE, 0), &gone.unwrap_or(more))?)
}

/// Hours before this one have no rows any more: their sets go, and the numbers of those who were not seen since.
pub(super) fn retire(session: &mut Session, since_hour: i64) -> Result<(), Failure> {
    let mut transaction = session.client.transaction()?;
    open_day::lock(&mut transaction)?;
    transaction.execute("DELETE FROM user_set WHERE hours > 0 AND at < $1", &[&since_hour])?;
    transaction.execute("DELETE FROM user_open WHERE hour < $1", &[&since_hour])?;
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
    let keys = |sql: String| Ok(reading.query(&sql, &[])?.iter().map(|row| (row.get(0), row.get(1))).collect());
    let Some((sets, rest)) = choose_sets(hours, keys)? else { return Ok(None) };
    let mut union = UserUnion::default();
    for row in reading.query(&members_sql(&sets), &[])? {
        if !union.add(row.get(0), row.get(1)) {
            return Ok(None);
        }
    }
    if let Some(rest) = rest_of(&rest) {
        // One row: thousands of them take longer to send than to find.
        let sql = format!("SELECT array_agg(number) FROM ({}) AS numbers (number)", numbers_sql(&rest));
        for row in reading.query(&sql, &[])? {
            let numbers: Vec<Option<i64>> = row.get::<_, Option<_>>(0).unwrap_or_default();
            numbers.into_iter().for_each(|number| union.add_user(number));
        }
    }
    Ok(Some(union.count()))
}
