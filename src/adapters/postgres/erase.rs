//! Erasures: nothing of a person is left, and nobody else writes meanwhile.
//!
//! Every batch moves its stream's watermark, so a lock on that table waits for all that are under way and keeps out those
//! that come: they see the erasure and drop what they hold of the person. A person's rows are found by the hours that
//! `user_hour` names, so that an index on users, which every event would pay for, is not needed. Each table is read once
//! for all whom a batch erases: the lock is held for about as long for a thousand of them as for one.

use postgres::types::Type;
use uuid::Uuid;

use super::connect::{Failure, Session};
use super::encode::{Array, Field};
use super::sql::{PostgresSql, UPKEEP_LOCK};
use crate::ledger::HOUR_MS;
use crate::ledger::batch::erasing::{Belonging, Erased, hour_ranges, user_key};
use crate::ledger::sql::Dialect;
use crate::ledger::upkeep::bitmaps;
use crate::limits::ERASED_READ_MAX;

/// Some who were erased behind `known`, and how far that goes: `known` where there is nobody.
pub(super) fn behind(session: &mut Session, known: i64) -> Result<(Vec<String>, i64), Failure> {
    let statement = session.prepared("SELECT substr(id, 3), seq FROM erased WHERE seq > $1 ORDER BY seq LIMIT $2")?;
    let rows = session.client.query(&statement, &[&known, &ERASED_READ_MAX])?;
    let newest = rows.last().map_or(known, |row| row.get(1));
    Ok((rows.iter().map(|row| row.get(0)).collect(), newest))
}

/// Those of some users who were erased.
pub(super) fn among(session: &mut Session, users: &Array) -> Result<Erased, Failure> {
    let statement = session.prepared(
        "SELECT substr(id, 3), at FROM erased WHERE id IN (SELECT 'u:' || u FROM unnest($1::text[]) AS g(u))",
    )?;
    let rows = session.client.query(&statement, &[users])?;
    Ok(rows.iter().map(|row| (row.get::<_, &str>(0).into(), row.get(1))).collect())
}

/// A user whom a batch erases: up to when, and the last record that says so.
#[derive(Clone)]
pub(super) struct Going {
    pub(super) user: String,
    pub(super) up_to_ms: i64,
    pub(super) stream: Uuid,
    pub(super) position: i64,
}

/// Users who are erased, as parameters.
struct Gone {
    users: Array,
    /// Their tagged keys.
    keys: Array,
    /// Up to when, in milliseconds and as times.
    up_to_ms: Array,
    up_to: Array,
    /// The records of the erasures.
    streams: Array,
    positions: Array,
    /// The first hour in which anybody may have something left.
    cut_hour: i64,
}

impl Gone {
    fn new(users: &[Going]) -> Gone {
        let times = || users.iter().map(|going| going.up_to_ms);
        let keys: Vec<String> = users.iter().map(|going| user_key(&going.user)).collect();
        Gone {
            users: Array::texts(users.iter().map(|going| going.user.as_str())),
            keys: Array::texts(keys.iter().map(String::as_str)),
            up_to_ms: Array::bigs(times()),
            up_to: Array::of(&Type::TIMESTAMPTZ, times().map(Field::time)),
            streams: Array::of(&Type::UUID, users.iter().map(|going| Field::Bytes(going.stream.as_bytes()))),
            positions: Array::bigs(users.iter().map(|going| going.position)),
            cut_hour: times().min().unwrap_or_default().div_euclid(HOUR_MS),
        }
    }
}

/// What the users like and made up to their times.
pub(super) fn belongings(session: &mut Session, users: &[Going]) -> Result<Vec<Belonging>, Failure> {
    let sql = "WITH gone AS (SELECT * FROM unnest($1::text[], $2::timestamptz[]) AS g(u, up_to)) \
               SELECT u, post_id, (extract(epoch FROM liked_at) * 1000)::int8 \
                 FROM gone JOIN post_like ON user_id = u AND liked_at <= up_to UNION ALL \
               SELECT u, post_id, (extract(epoch FROM coalesce(written_at, created_at)) * 1000)::int8 \
                 FROM gone JOIN post ON user_id = u AND coalesce(written_at, created_at) <= up_to";
    let gone = Gone::new(users);
    let rows = session.client.query(sql, &[&gone.users, &gone.up_to])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

/// Everything that names the persons; behind the rest of the batch.
pub(super) fn erase(session: &mut Session, users: &[Going]) -> Result<(), Failure> {
    let gone = Gone::new(users);
    session.client.batch_execute(UPKEEP_LOCK)?;
    remember(session, &gone)?;
    let (hours, cut) = forget_hours(session, &gone)?;
    let hours = hour_ranges(hours);
    for range in hours {
        strip_events(session, &gone, range)?;
    }
    for range in hour_ranges(cut.iter().copied()) {
        forget_emptied(session, &gone, range)?;
    }
    forget_ordinals(session, &gone, &cut)?;
    let by_ms = [
        "DELETE FROM recent_forgotten USING unnest($1::text[], $2::int8[]) AS g(u, up_to) WHERE user_id = u AND at <= up_to",
        "DELETE FROM dead_letter USING unnest($1::text[], $2::int8[]) AS g(u, up_to) \
         WHERE user_id = u AND happened_ms <= up_to",
    ];
    for sql in by_ms {
        session.client.execute(sql, &[&gone.users, &gone.up_to_ms])?;
    }
    let log = "UPDATE post_like_log SET user_id = '' FROM unnest($1::text[], $2::timestamptz[]) AS g(u, up_to) \
         WHERE user_id = u AND coalesce(happened_at, changed_at) <= up_to";
    session.client.execute(log, &[&gone.users, &gone.up_to])?;
    Ok(())
}

fn remember(session: &mut Session, gone: &Gone) -> Result<(), Failure> {
    let remember = "INSERT INTO erased (id, at, seq, stream, position) \
         SELECT u, t, n + (SELECT coalesce(max(seq), 0) FROM erased), s, p \
           FROM unnest($1::text[], $2::int8[], $3::uuid[], $4::int8[]) WITH ORDINALITY AS g(u, t, s, p, n) \
         ON CONFLICT (id) DO UPDATE SET at = greatest(erased.at, excluded.at), seq = excluded.seq, \
           stream = excluded.stream, position = excluded.position";
    session.client.execute(remember, &[&gone.keys, &gone.up_to_ms, &gone.streams, &gone.positions])?;
    Ok(())
}

/// Their ordinals go to those of erased users; the hours in which they may have something left are counted again.
fn forget_ordinals(session: &mut Session, gone: &Gone, hours: &[i64]) -> Result<(), Failure> {
    let forget = "DELETE FROM visitor WHERE key = ANY ($1::text[]) RETURNING ordinal::int8";
    let ordinals: Vec<i64> = session.client.query(forget, &[&gone.keys])?.iter().map(|row| row.get(0)).collect();
    Ok(bitmaps::erase(&mut PostgresSql::on(&mut session.client), &ordinals, hours)?)
}

/// Takes the hours that end before the erasure; answers all in which they did something, and those that may stay.
fn forget_hours(session: &mut Session, gone: &Gone) -> Result<(Vec<i64>, Vec<i64>), Failure> {
    let sql = "WITH gone AS (SELECT u, t / 3600000 AS h FROM unnest($1::text[], $2::int8[]) AS g(u, t)), \
           past AS (DELETE FROM user_hour USING gone WHERE user_id = u AND hour < h RETURNING hour) \
         SELECT hour, false FROM past UNION \
         SELECT hour, true FROM user_hour JOIN gone ON user_id = u WHERE hour >= $3 AND hour >= h";
    let rows = session.client.query(sql, &[&gone.users, &gone.up_to_ms, &gone.cut_hour])?;
    let hours = rows.iter().map(|row| row.get(0)).collect();
    let cut = rows.iter().filter(|row| row.get(1)).map(|row| row.get(0)).collect();
    Ok((hours, cut))
}

/// Rows stay for the counts. Times as constants, so that only the partitions of those hours are planned for.
fn strip_events(session: &mut Session, gone: &Gone, hours: std::ops::Range<i64>) -> Result<(), Failure> {
    let sql = format!(
        "UPDATE events SET user_id = NULL, session_id = NULL, url = NULL, referrer = NULL, properties = NULL \
           FROM unnest($1::text[], $2::timestamptz[]) AS g(u, up_to) \
         WHERE user_id = u AND event_time >= {} AND event_time < {} AND least(event_time, received_at) <= up_to",
        Dialect::Postgres.time(hours.start * HOUR_MS),
        Dialect::Postgres.time(hours.end * HOUR_MS)
    );
    session.client.execute(&sql, &[&gone.users, &gone.up_to])?;
    Ok(())
}

/// Of hours that an erasure cuts, what happened behind it stays: only those without a row are forgotten.
fn forget_emptied(session: &mut Session, gone: &Gone, hours: std::ops::Range<i64>) -> Result<(), Failure> {
    let sql = format!(
        "DELETE FROM user_hour AS h USING unnest($1::text[], $2::int8[]) AS g(u, t) \
         WHERE h.hour >= {0} AND h.hour < {1} AND h.user_id = u AND h.hour >= t / 3600000 AND NOT EXISTS \
           (SELECT FROM events AS e WHERE e.event_time >= {2} AND e.event_time < {3} AND e.user_id = ANY ($1::text[]) \
              AND e.user_id = h.user_id AND floor(extract(epoch FROM e.event_time) / 3600)::int8 = h.hour \
              AND e.event_type = (ARRAY['CLICK', 'PAGE_VIEW', 'SEARCH', 'LIKE', 'UNLIKE'])[h.event_type])",
        hours.start,
        hours.end,
        Dialect::Postgres.time(hours.start * HOUR_MS),
        Dialect::Postgres.time(hours.end * HOUR_MS)
    );
    session.client.execute(&sql, &[&gone.users, &gone.up_to_ms])?;
    Ok(())
}
