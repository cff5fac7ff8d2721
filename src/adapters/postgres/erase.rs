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
use super::open_day;
use super::rankings::literal;
use super::user_sets;
use crate::ledger_fold::{Belonging, Erased, HOUR_MS, hour_ranges};
use crate::limits::ERASED_READ_MAX;
use crate::ports::{Belongings, Erasure, Position};

/// Some who were erased behind `known`, and how far that goes: `known` where there is nobody.
pub(super) fn behind(session: &mut Session, known: i64) -> Result<(Vec<String>, i64), Failure> {
    let statement = session.prepared("SELECT user_id, seq FROM erased WHERE seq > $1 ORDER BY seq LIMIT $2")?;
    let rows = session.client.query(&statement, &[&known, &ERASED_READ_MAX])?;
    let newest = rows.last().map_or(known, |row| row.get(1));
    Ok((rows.iter().map(|row| row.get(0)).collect(), newest))
}

/// Those of some users who were erased.
pub(super) fn among(session: &mut Session, users: &Array) -> Result<Erased, Failure> {
    let statement = session.prepared("SELECT user_id, at FROM erased WHERE user_id = ANY ($1::text[])")?;
    let rows = session.client.query(&statement, &[users])?;
    Ok(rows.iter().map(|row| (row.get::<_, &str>(0).into(), row.get(1))).collect())
}

/// Those who go, as parameters.
struct Gone {
    users: Array,
    /// Up to when, in milliseconds and as times.
    up_to_ms: Array,
    up_to: Array,
    /// The first hour in which anybody may have something left.
    cut_hour: i64,
}

impl Gone {
    fn new(users: &[(String, i64)]) -> Gone {
        let times = || users.iter().map(|(_, up_to_ms)| *up_to_ms);
        Gone {
            users: Array::texts(users.iter().map(|(user, _)| user.as_str())),
            up_to_ms: Array::bigs(times()),
            up_to: Array::of(&Type::TIMESTAMPTZ, times().map(Field::time)),
            cut_hour: times().min().unwrap_or_default().div_euclid(HOUR_MS),
        }
    }
}

/// What the users like and made up to their times.
pub(super) fn belongings(session: &mut Session, users: &[(String, i64)]) -> Result<Vec<Belonging>, Failure> {
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
pub(super) fn erase(session: &mut Session, users: &[(String, i64)]) -> Result<(), Failure> {
    let gone = Gone::new(users);
    open_day::lock_for_erasure(session)?;
    remember(session, &gone)?;
    let (hours, cut) = forget_hours(session, &gone)?;
    let hours = hour_ranges(hours);
    for range in hours {
        strip_events(session, &gone, range)?;
    }
    for range in hour_ranges(cut) {
        forget_emptied(session, &gone, range)?;
    }
    open_day::erase(session, &gone.users)?;
    user_sets::erase(session, &gone.users, gone.cut_hour)?;
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
    let remember = "INSERT INTO erased (user_id, at, seq) \
         SELECT u, t, n + (SELECT coalesce(max(seq), 0) FROM erased) \
           FROM unnest($1::text[], $2::int8[]) WITH ORDINALITY AS g(u, t, n) \
         ON CONFLICT (user_id) DO UPDATE SET at = greatest(erased.at, excluded.at), seq = excluded.seq";
    session.client.execute(remember, &[&gone.users, &gone.up_to_ms])?;
    Ok(())
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
        literal(hours.start * HOUR_MS),
        literal(hours.end * HOUR_MS)
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
        literal(hours.start * HOUR_MS),
        literal(hours.end * HOUR_MS)
    );
    session.client.execute(&sql, &[&gone.users, &gone.up_to_ms])?;
    Ok(())
}

/// What the erasure at a position did to posts.
pub(super) fn erasure(session: &mut Session, stream: Uuid, position: Position) -> Result<Erasure, Failure> {
    let mut rows = |sql: &str| -> Result<Vec<(String, i64)>, Failure> {
        let rows = session.client.query(sql, &[&stream, &position.cast_signed()])?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    };
    let unliked =
        "SELECT post_id, count(*) FROM post_like_log WHERE stream = $1 AND position = $2 GROUP BY 1 ORDER BY 1";
    let deleted = "SELECT post_id, version FROM tombstone WHERE stream = $1 AND position = $2 ORDER BY 1";
    Ok(Erasure { unliked: rows(unliked)?, deleted: rows(deleted)? })
}

/// The posts that a person made or likes.
pub(super) fn of_user(session: &mut Session, user: &str, limit: i64) -> Result<Belongings, Failure> {
    let posts = "SELECT post_id, hashtags FROM post WHERE user_id = $1 LIMIT $2";
    let posts = session.client.query(posts, &[&user, &limit])?;
    let liked = "SELECT post_id FROM post_like WHERE user_id = $1 LIMIT $2";
    let liked = session.client.query(liked, &[&user, &limit])?;
    Ok(Belongings {
        posts: posts.iter().map(|row| (row.get(0), row.get(1))).collect(),
        liked: liked.iter().map(|row| row.get(0)).collect(),
    })
}
