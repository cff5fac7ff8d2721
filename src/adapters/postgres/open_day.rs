//! Keeps the users of the day that is not over: see `ledger_fold`.
//!
//! Whoever changes `user_day` holds a lock for the transaction: erasures do too, so that nobody who was erased is put back.

use std::ops::Range;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use postgres::Transaction;

use super::connect::{Failure, Session};
use super::writer::PostgresWriter;
use super::{fold, rankings, user_sets};
use crate::ledger_fold::{HAS_SET, NOT_OPEN, OPEN_DAYS, OfHour, OpenHours, begin_sql, day_of, new_users_sql};
use crate::limits::{FOLD_MS_MAX, OPEN_DAY_USERS_STEP};

const LOCK: i64 = 0x65_76_74_72_5f_64_61_79;

/// Held to the end of the transaction.
pub(super) fn lock(transaction: &mut Transaction<'_>) -> Result<(), postgres::Error> {
    transaction.batch_execute(&format!("SELECT pg_advisory_xact_lock({LOCK})"))
}

/// The same, for one that is open on the connection.
pub(super) fn lock_for_erasure(session: &mut Session) -> Result<(), postgres::Error> {
    session.client.batch_execute(&format!("SELECT pg_advisory_xact_lock({LOCK})"))
}

/// Behind the person's hours: what is left of those has to be counted again.
pub(super) fn erase(session: &mut Session, users: &(dyn postgres::types::ToSql + Sync)) -> Result<(), postgres::Error> {
    let forget = "WITH gone AS (DELETE FROM user_day WHERE user_id = ANY ($1::text[]) RETURNING at, event_type), \
           fewer AS (SELECT at, event_type, count(*) AS n FROM gone GROUP BY 1, 2) \
         UPDATE series AS s SET users = s.users - fewer.n FROM fewer \
         WHERE s.minutes < 0 AND s.at = fewer.at AND s.event_type = fewer.event_type";
    session.client.execute(forget, &[users])?;
    session.client.execute("DELETE FROM user_open WHERE user_id = ANY ($1::text[])", &[users])?;
    let again = "UPDATE series AS s SET users = NULL, count = s.count + 1 \
         WHERE s.minutes = 60 AND s.event_type = 0 AND s.users IS NOT NULL \
           AND s.at >= (SELECT min(at) FROM series WHERE minutes < 0) \
           AND EXISTS (SELECT FROM user_hour WHERE hour = s.at / 60 AND event_type BETWEEN 1 AND 5 \
                         AND user_id = ANY ($1::text[]))";
    session.client.execute(again, &[users])?;
    Ok(())
}

/// Begins with the day of the frontier, and gives up those before it.
pub(super) fn keep(writer: &mut PostgresWriter, zone: &TimeZone) -> Result<(), Failure> {
    let zone = zone.clone();
    writer.step(move |session| turn(session, &zone))?;
    forget(writer, "user_day", "at NOT IN (SELECT at FROM series WHERE minutes < 0)")
}

/// Takes rows away in steps, as far as the time goes. Those that an erasure has are left to it: it takes them in another order.
fn forget(writer: &mut PostgresWriter, table: &str, condition: &str) -> Result<(), Failure> {
    let begun = Instant::now();
    let sql = format!(
        "DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {condition} \
           LIMIT {OPEN_DAY_USERS_STEP} FOR UPDATE SKIP LOCKED))"
    );
    while begun.elapsed() < Duration::from_millis(FOLD_MS_MAX / 2) {
        let sql = sql.clone();
        let gone = writer.step(move |session| Ok(session.client.execute(&sql, &[])?))?;
        if gone < OPEN_DAY_USERS_STEP.cast_unsigned() {
            break;
        }
    }
    Ok(())
}

fn turn(session: &mut Session, zone: &TimeZone) -> Result<(), Failure> {
    let mut transaction = session.client.transaction()?;
    let folded = rankings::folded(&mut transaction)?;
    let Some(day) = day_of(folded.until_hour, zone) else { return Ok(()) };
    let days = days(&mut transaction, OPEN_DAYS)?;
    if days.contains(&day) {
        return Ok(());
    }
    lock(&mut transaction)?;
    let over = format!("DELETE FROM series WHERE minutes < 0 AND at - minutes <= {}", day.start);
    transaction.batch_execute(&over)?;
    let left = "SELECT EXISTS (SELECT FROM user_day WHERE at = $1)";
    // What is left of it goes first.
    if !transaction.query_one(left, &[&day.start])?.get::<_, bool>(0)
        && self::days(&mut transaction, OPEN_DAYS)?.len() < 2
    {
        transaction.batch_execute(&begin_sql(&day))?;
    }
    Ok(transaction.commit()?)
}

fn days(transaction: &mut Transaction<'_>, sql: &str) -> Result<Vec<Range<i64>>, postgres::Error> {
    Ok(transaction.query(sql, &[])?.iter().map(|row| row.get(0)..row.get(1)).collect())
}

/// The days that keep an hour's users.
pub(super) fn of_hour(transaction: &mut Transaction<'_>, hour: i64) -> Result<Vec<Range<i64>>, postgres::Error> {
    let at = hour * 60;
    days(transaction, &format!("{OPEN_DAYS} AND at <= {at} AND at - minutes > {at} ORDER BY 1, 2"))
}

/// An hour's users, some at a time; false where a day is kept no more.
pub(super) fn add_users(session: &mut Session, days: &[Range<i64>], hour: i64) -> Result<bool, Failure> {
    for day in days {
        let mut last = Some((0, String::new()));
        while let Some(after) = last {
            let mut transaction = session.client.transaction()?;
            lock(&mut transaction)?;
            if !of_hour(&mut transaction, hour)?.contains(day) {
                return Ok(false);
            }
            last = add_some(&mut transaction, day, hour, after)?;
            transaction.commit()?;
        }
    }
    Ok(true)
}

/// All of them, of an hour that has few.
pub(super) fn add_users_at_once(
    transaction: &mut Transaction<'_>,
    days: &[Range<i64>],
    hour: i64,
) -> Result<(), Failure> {
    for day in days {
        let mut last = Some((0, String::new()));
        while let Some(after) = last {
            last = add_some(transaction, day, hour, after)?;
        }
    }
    Ok(())
}

/// The next ones behind a type and user; the last of them where there may be more.
fn add_some(
    transaction: &mut Transaction<'_>,
    day: &Range<i64>,
    hour: i64,
    after: (i16, String),
) -> Result<Option<(i16, String)>, Failure> {
    with_some_users(transaction, hour, after, &add_sql(day, 0))
}

/// Named statements of WITH, by number: users of `chosen`, each with a type, into a day.
fn add_sql(day: &Range<i64>, number: usize) -> String {
    let (at, minutes) = (day.start, day.start - day.end);
    format!(
        "added{number} AS (INSERT INTO user_day (at, event_type, user_id) \
                 SELECT {at}, kind, user_id FROM (SELECT event_type AS kind, user_id FROM chosen \
                   UNION SELECT 0::int2, user_id FROM chosen) AS both_kinds ORDER BY 2, 3 \
                 ON CONFLICT DO NOTHING RETURNING event_type), \
           counted{number} AS (INSERT INTO series (minutes, event_type, at, count, users) \
                 SELECT {minutes}, event_type, {at}, 0, count(*) FROM added{number} GROUP BY event_type ORDER BY 2 \
                 ON CONFLICT (minutes, event_type, at) DO UPDATE SET users = series.users + excluded.users)"
    )
}

impl OpenHours for PostgresWriter {
    type Error = Failure;

    fn until_hour(&mut self) -> Result<i64, Failure> {
        self.step(|session| Ok(rankings::folded(&mut fold::reading(session)?)?.until_hour))
    }

    fn forget_over(&mut self, until_hour: i64) -> Result<(), Failure> {
        forget(self, "user_open", &format!("hour < {until_hour} AND {HAS_SET}"))
    }

    fn new_users(&mut self, hour: i64) -> Result<Vec<OfHour>, Failure> {
        self.step(move |session| {
            let rows = session.client.query(new_users_sql(hour).as_str(), &[])?;
            Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
        })
    }

    fn open(&mut self, hour: i64, some: &[OfHour]) -> Result<(), Failure> {
        let (kinds, users): (Vec<i16>, Vec<String>) = some.iter().cloned().unzip();
        self.step(move |session| open(session, hour, &kinds, &users))
    }
}

/// One statement, behind the lock: whoever was erased before, or looked at by another instance, is in none of its parts.
fn open(session: &mut Session, hour: i64, kinds: &[i16], users: &[String]) -> Result<(), Failure> {
    let mut transaction = session.client.transaction()?;
    lock(&mut transaction)?;
    let days = of_hour(&mut transaction, hour)?;
    let into_days: String = days.iter().enumerate().map(|(number, day)| add_sql(day, number) + ", ").collect();
    let sql = format!(
        "WITH chosen AS MATERIALIZED (SELECT h.event_type, h.user_id \
                 FROM unnest($1::int2[], $2::text[]) AS c(event_type, user_id) JOIN user_hour AS h \
                   ON h.hour = {hour} AND h.event_type = c.event_type AND h.user_id = c.user_id COLLATE \"C\" \
                 WHERE {NOT_OPEN}), {into_days} {} \
         INSERT INTO user_open (user_id, hour, event_type, number) \
           SELECT user_id, {hour}, event_type, coalesce(known.number, numbered.number) FROM chosen \
             LEFT JOIN user_number AS known USING (user_id) LEFT JOIN numbered USING (user_id) ORDER BY 1, 3",
        user_sets::number_sql(hour)
    );
    transaction.execute(&sql, &[&kinds, &users])?;
    Ok(transaction.commit()?)
}

/// Does something, named statements of WITH, to `chosen`: the next users of an hour behind a type and user, each with a type.
/// Answers the last of them where there may be more.
pub(super) fn with_some_users(
    transaction: &mut Transaction<'_>,
    hour: i64,
    (kind, user): (i16, String),
    done: &str,
) -> Result<Option<(i16, String)>, Failure> {
    let sql = format!(
        "WITH chosen AS MATERIALIZED (SELECT event_type, user_id FROM user_hour \
                 WHERE hour = {hour} AND (event_type, user_id) > ($1::int2, $2::text) \
                 ORDER BY event_type, user_id LIMIT {OPEN_DAY_USERS_STEP}), {done} \
         SELECT event_type, user_id, (SELECT count(*) FROM chosen) FROM chosen ORDER BY 1 DESC, 2 DESC LIMIT 1"
    );
    let row = transaction.query_opt(&sql, &[&kind, &user])?;
    let is_full = |row: &&postgres::Row| row.get::<_, i64>(2) == OPEN_DAY_USERS_STEP;
    Ok(row.as_ref().filter(is_full).map(|row| (row.get(0), row.get(1))))
}
