//! Erasures: nothing of a person is left, and nobody else writes meanwhile.
//!
//! Every batch moves its stream's watermark, so a lock on that table waits for all that are under way and keeps out those
//! that come: they see the erasure and drop what they hold of the person. A person's rows are found by the hours that
//! `user_hour` names, so that an index on users, which every event would pay for, is not needed.

use postgres::types::ToSql;
use uuid::Uuid;

use super::connect::{Failure, Session};
use super::encode::Array;
use super::rankings::literal;
use crate::events::{Record, decode_record};
use crate::ledger_fold::{Erased, HOUR_MS, hour_ranges, person_of};
use crate::limits::EVENT_FUTURE_MS_MAX;
use crate::ports::{Belongings, Erasure, Position};

/// What an erasure writes at the end of its transaction.
pub(super) struct Erasing {
    pub(super) stream: Uuid,
    /// User, up to when, position of the record; each user once.
    pub(super) users: Vec<(String, i64, i64)>,
    /// Posts that went with them, by the position of the record.
    pub(super) posts: Vec<(i64, String)>,
}

/// Everybody who was erased behind `known`, and how far that goes.
pub(super) fn known(session: &mut Session, known: i64) -> Result<(Erased, i64), Failure> {
    let statement = session.prepared("SELECT user_id, at, seq FROM erased WHERE seq > $1")?;
    let rows = session.client.query(&statement, &[&known])?;
    let newest = rows.iter().map(|row| row.get(2)).max().unwrap_or(known);
    Ok((rows.iter().map(|row| (row.get::<_, &str>(0).into(), row.get(1))).collect(), newest))
}

/// User and post: what the users like and made up to their times, as far as a client's clock may be ahead.
pub(super) fn belongings(
    session: &mut Session,
    users: &[(String, i64, i64)],
) -> Result<Vec<(String, String)>, Failure> {
    let sql = "WITH gone AS (SELECT u, 'epoch'::timestamptz + interval '1 millisecond' * (at + $3::int8) AS up_to \
                             FROM unnest($1::text[], $2::int8[]) AS g(u, at)) \
               SELECT u, post_id FROM gone JOIN post_like ON user_id = u AND liked_at <= up_to UNION \
               SELECT u, post_id FROM gone JOIN post ON user_id = u AND created_at <= up_to";
    let (names, times) = columns(users);
    let rows = session.client.query(sql, &[&names, &times, &EVENT_FUTURE_MS_MAX])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn columns(users: &[(String, i64, i64)]) -> (Array, Array) {
    (Array::texts(users.iter().map(|(user, ..)| user.as_str())), Array::bigs(users.iter().map(|(_, at_ms, _)| *at_ms)))
}

/// Everything that names the persons; behind the rest of the batch.
pub(super) fn erase(session: &mut Session, erasing: &Erasing) -> Result<(), Failure> {
    let remember = "INSERT INTO erased (user_id, at, seq) \
         SELECT u, t, n + (SELECT coalesce(max(seq), 0) FROM erased) \
           FROM unnest($1::text[], $2::int8[]) WITH ORDINALITY AS g(u, t, n) \
         ON CONFLICT (user_id) DO UPDATE SET at = greatest(erased.at, excluded.at), seq = excluded.seq";
    let (names, times) = columns(&erasing.users);
    session.client.execute(remember, &[&names, &times])?;
    let posts = "INSERT INTO erased_post SELECT $1::uuid, * FROM unnest($2::int8[], $3::text[])";
    let positions = Array::bigs(erasing.posts.iter().map(|(position, _)| *position));
    let names = Array::texts(erasing.posts.iter().map(|(_, post)| post.as_str()));
    session.client.execute(posts, &[&erasing.stream, &positions, &names])?;
    for (user, at_ms, position) in &erasing.users {
        erase_one(session, user, *at_ms)?;
        // What the batch holds behind it is of somebody who came back.
        let log = "UPDATE post_like_log SET user_id = '' WHERE user_id = $1 \
             AND changed_at <= 'epoch'::timestamptz + interval '1 millisecond' * $2::int8 \
             AND NOT (stream = $3 AND position > $4)";
        session.client.execute(log, &[user, &(at_ms + EVENT_FUTURE_MS_MAX), &erasing.stream, position])?;
    }
    Ok(())
}

fn erase_one(session: &mut Session, user: &str, at_ms: i64) -> Result<(), Failure> {
    let hours = session.client.query("SELECT DISTINCT hour FROM user_hour WHERE user_id = $1", &[&user])?;
    let hours: Vec<i64> = hours.iter().map(|row| row.get(0)).collect();
    for range in hour_ranges(hours) {
        // Times as constants, so that only the partitions of those hours are planned for.
        let (from, to) = (range.start * HOUR_MS, range.end * HOUR_MS);
        let sql = format!(
            "UPDATE events SET user_id = NULL, session_id = NULL, url = NULL, referrer = NULL, properties = NULL \
             WHERE user_id = $1 AND event_time >= {} AND event_time < {} AND least(event_time, received_at) <= {}",
            literal(from),
            literal(to),
            literal(at_ms)
        );
        session.client.execute(&sql, &[&user])?;
    }
    let hour = at_ms.div_euclid(HOUR_MS);
    session.client.execute("DELETE FROM user_hour WHERE user_id = $1 AND hour < $2", &[&user, &hour])?;
    // Of an hour that the erasure cuts, what happened behind it stays.
    let emptied = "DELETE FROM user_hour AS h WHERE user_id = $1 AND hour >= $2 AND NOT EXISTS \
         (SELECT FROM events AS e WHERE e.user_id = $1 \
            AND e.event_time >= 'epoch'::timestamptz + interval '1 hour' * h.hour \
            AND e.event_time < 'epoch'::timestamptz + interval '1 hour' * (h.hour + 1) \
            AND e.event_type = (ARRAY['CLICK', 'PAGE_VIEW', 'SEARCH', 'LIKE', 'UNLIKE'])[h.event_type])";
    session.client.execute(emptied, &[&user, &hour])?;
    let forgotten = "DELETE FROM recent_forgotten WHERE user_id = $1 AND at <= $2";
    session.client.execute(forgotten, &[&user, &at_ms])?;
    erase_letters(session, user, at_ms)
}

/// Letters hold records as the journal does: those that hold the name at all are read, and say whose they are.
fn erase_letters(session: &mut Session, user: &str, at_ms: i64) -> Result<(), Failure> {
    let find = "SELECT stream, position, record FROM dead_letter WHERE position($1::bytea IN record) > 0";
    for row in session.client.query(find, &[&user.as_bytes()])? {
        let (stream, position, bytes): (Uuid, i64, &[u8]) = (row.get(0), row.get(1), row.get(2));
        if is_of(bytes, user, at_ms) {
            let delete = "DELETE FROM dead_letter WHERE stream = $1 AND position = $2";
            session.client.execute(delete, &[&stream, &position])?;
        }
    }
    Ok(())
}

fn is_of(mut bytes: &[u8], user: &str, at_ms: i64) -> bool {
    let record: Result<Record<'_>, _> = decode_record(&mut bytes);
    record.is_ok_and(|record| person_of(&record).is_some_and(|(whose, happened)| whose == user && happened <= at_ms))
}

/// What an erasure took from posts.
pub(super) fn erasure(session: &mut Session, stream: Uuid, position: Position) -> Result<Erasure, Failure> {
    let position = i64::try_from(position).unwrap_or(i64::MAX);
    let values: [&(dyn ToSql + Sync); 2] = [&stream, &position];
    let unliked =
        "SELECT post_id, count(*) FROM post_like_log WHERE stream = $1 AND position = $2 GROUP BY 1 ORDER BY 1";
    let unliked = session.client.query(unliked, &values)?;
    let posts = "SELECT post_id FROM erased_post WHERE stream = $1 AND position = $2 ORDER BY 1";
    let posts = session.client.query(posts, &values)?;
    Ok(Erasure {
        unliked: unliked.iter().map(|row| (row.get(0), row.get(1))).collect(),
        posts: posts.iter().map(|row| row.get(0)).collect(),
    })
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
