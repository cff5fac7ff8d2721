//! A batch on the connection's thread: owned parameters in, a result out.

use std::io::Write;

use postgres::SimpleQueryMessage;
use postgres::types::ToSql;
use uuid::Uuid;

use super::connect::{Failure, Session};
use super::encode::Array;
use super::erase::{self, Going};
use super::statements as sql;
use crate::ledger::batch::likes::{KeptPost, LikeState};
use crate::limits::POSTGRES_COPY_PIECE_BYTES;
use crate::ports::{StoreError, Watermark};

/// Moves a stream's watermark.
#[derive(Clone, Copy)]
pub(super) struct Fence {
    pub(super) stream: Uuid,
    pub(super) from: Watermark,
    pub(super) to: Watermark,
    /// How far the writer knows who was erased; fenced on it too.
    pub(super) erased: i64,
    /// The latest time in the batch.
    pub(super) newest_ms: i64,
}

/// What a transaction reads and locks first.
#[derive(Default)]
pub(super) struct Claim {
    /// Sorted.
    pub(super) ids: Vec<Uuid>,
    /// Sorted, each once.
    pub(super) posts: Vec<String>,
    /// Users and posts of the pairs.
    pub(super) pair_users: Vec<String>,
    pub(super) pair_posts: Vec<String>,
    /// Those of `posts` that are put or deleted.
    pub(super) named_posts: Vec<String>,
    /// The first day of an event.
    pub(super) first_day: Option<i64>,
}

/// What was found.
pub(super) struct Claimed {
    /// The journal's number in `events`; 0 for a probe.
    pub(super) number: i16,
    /// Sorted.
    pub(super) new_ids: Vec<Uuid>,
    pub(super) likes: LikeState,
}

/// Events, as they are sent.
pub(super) enum EventRows {
    Arrays(Vec<Array>),
    Copy(Vec<u8>),
}

/// A statement without a result and its arrays; the stream comes first where it asks for one.
pub(super) struct Statement {
    pub(super) sql: &'static str,
    pub(super) values: Vec<Box<dyn ToSql + Sync + Send>>,
}

/// What a transaction writes at its end.
pub(super) struct Writes {
    pub(super) events: EventRows,
    /// The journal's number in `events`.
    pub(super) number: i16,
    /// Deltas and users, in the order of the statements' parameters.
    pub(super) counts: Counts,
    pub(super) others: Vec<Statement>,
    /// Whom the batch erases, each once.
    pub(super) erasing: Vec<Going>,
    /// A probe rolls back.
    pub(super) commit: bool,
}

/// Deltas and users of a batch.
pub(super) struct Counts {
    /// Dimensions and counts.
    pub(super) deltas: [Array; 2],
    pub(super) oldest_minute: i64,
    /// Hours, types, users.
    pub(super) users: [Array; 3],
}

impl Counts {
    fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut values = params(self.deltas.iter());
        values.push(&self.oldest_minute);
        values.extend(params(self.users.iter()));
        values
    }
}

fn params<'a>(values: impl Iterator<Item = &'a Array>) -> Vec<&'a (dyn ToSql + Sync)> {
    values.map(|value| value as &(dyn ToSql + Sync)).collect()
}

/// The stored watermark.
pub(super) fn watermark(session: &mut Session, stream: Uuid) -> Result<Option<Watermark>, Failure> {
    let statement = session.prepared(sql::WATERMARK)?;
    let row = session.client.query_opt(&statement, &[&stream])?;
    Ok(row.map(|row| Watermark {
        position: row.get::<_, i64>(0).cast_unsigned(),
        crc: u32::try_from(row.get::<_, i64>(1)).unwrap_or(u32::MAX),
    }))
}

/// What became of a batch that was to be applied at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtOnce {
    Applied,
    /// Somebody else changed likes of its posts since they were seen: nothing was done.
    Changed,
}

/// The likes of a claim as they are now, without a lock; none if a post has no row.
pub(super) fn see_likes(session: &mut Session, claim: &Claim) -> Result<Option<LikeState>, Failure> {
    session.plan_for_batches()?;
    let see = session.prepared(sql::SEE_LIKES.as_str())?;
    let mut seen = LikeState::default();
    for row in session.client.query(&see, &[&claim.pair_users, &claim.pair_posts, &claim.posts])? {
        match row.get(0) {
            Some(user) => seen.liked.push((user, row.get(1), row.get(4))),
            None => seen.posts.push((row.get(1), row.get(2), row.get(3))),
        }
    }
    seen.posts.sort_unstable();
    Ok((seen.posts.len() == claim.posts.len()).then_some(seen))
}

/// The rows of a batch in one statement.
pub(super) struct Rows {
    pub(super) counts: Counts,
    pub(super) events: Vec<Array>,
    /// The first day of an event.
    pub(super) first_day: Option<i64>,
    /// What follows the day among the statement's parameters, none for a batch without likes.
    pub(super) likes: Vec<Array>,
}

/// A whole batch in one statement, or nothing of it.
pub(super) fn apply_all(session: &mut Session, fence: Fence, rows: &Rows) -> Result<AtOnce, Failure> {
    session.plan_for_batches()?;
    let sql = if rows.likes.is_empty() { &sql::APPLY_ALL } else { &sql::APPLY_LIKES };
    let statement = session.prepared(sql.as_str())?;
    let (position, crc) = (fence.to.position.cast_signed(), i64::from(fence.to.crc));
    let (from, from_crc) = (fence.from.position.cast_signed(), i64::from(fence.from.crc));
    let first_day = rows.first_day.unwrap_or(i64::MAX);
    let mut values = rows.counts.params();
    values.extend(params(rows.events.iter()));
    values.extend([
        &position as &(dyn ToSql + Sync),
        &crc,
        &fence.stream,
        &from,
        &from_crc,
        &fence.erased,
        &fence.newest_ms,
        &first_day,
    ]);
    values.extend(params(rows.likes.iter()));
    let row = session.client.query_one(&statement, &values)?;
    let (is_moved, rows_since, is_as_seen): (bool, i64, bool) = (row.get(0), row.get(1), row.get(2));
    if is_moved {
        return Ok(AtOnce::Applied);
    }
    if !is_as_seen {
        return Ok(AtOnce::Changed);
    }
    check_day(rows.first_day, rows_since)?;
    Err(StoreError::Fenced { found: watermark(session, fence.stream)? }.into())
}

/// Rows of days before `rows_since` were deleted: an event of such a day would be counted and found nowhere.
fn check_day(first_day: Option<i64>, rows_since: i64) -> Result<(), StoreError> {
    match first_day {
        Some(day) if day < rows_since => {
            Err(StoreError::Poison("rows of its day are gone: it is too old to be stored".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Opens a transaction and moves the watermark if there is one to move. `first` is done before that.
pub(super) fn begin(session: &mut Session, fence: Option<Fence>, first: &str) -> Result<(), Failure> {
    session.plan_for_batches()?;
    match fence {
        None => session.client.batch_execute(&format!("BEGIN; {first}"))?,
        Some(fence) => {
            let Fence { stream, from, to, erased, newest_ms } = fence;
            let moved = session.client.simple_query(&format!(
                "BEGIN; {first}EXECUTE move_watermark ({}, {}, '{stream}', {}, {}, {erased}, {newest_ms})",
                to.position, to.crc, from.position, from.crc
            ))?;
            // The last completion is the UPDATE's.
            let moved = moved.iter().rev().find_map(|message| match message {
                SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
                _ => None,
            });
            if moved != Some(1) {
                return Err(StoreError::Fenced { found: watermark(session, stream)? }.into());
            }
        }
    }
    Ok(())
}

/// Reads and locks; `stream` is none for a probe.
pub(super) fn claim(session: &mut Session, stream: Option<Uuid>, claim: &Claim) -> Result<Claimed, Failure> {
    let statement = session.prepared(sql::NUMBER)?;
    let row = session.client.query_one(&statement, &[&stream])?;
    let number = row.get::<_, Option<i16>>(0).unwrap_or_default();
    check_day(claim.first_day, row.get(1))?;
    let new_ids = if claim.ids.is_empty() { Vec::new() } else { claim_ids(session, &claim.ids)? };
    let likes = if claim.posts.is_empty() { LikeState::default() } else { lock_likes(session, claim)? };
    Ok(Claimed { number, new_ids, likes })
}

fn claim_ids(session: &mut Session, ids: &[Uuid]) -> Result<Vec<Uuid>, Failure> {
    let current = session.prepared(sql::CURRENT_IDS)?;
    let current: String = session.client.query_one(&current, &[])?.get(0);
    let claim = session.prepared(sql::claim_ids(&current))?;
    let rows = session.client.query(&claim, &[&ids])?;
    let mut new: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    new.sort_unstable();
    Ok(new)
}

fn lock_likes(session: &mut Session, claim: &Claim) -> Result<LikeState, Failure> {
    let lock = session.prepared(sql::LOCK_POSTS)?;
    let mut rows = session.client.query(&lock, &[&claim.posts])?;
    if rows.len() < claim.posts.len() {
        let ensure = session.prepared(sql::ENSURE_POSTS)?;
        session.client.execute(&ensure, &[&claim.posts])?;
        rows = session.client.query(&lock, &[&claim.posts])?;
    }
    let posts = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let read = session.prepared(sql::READ_LIKES)?;
    let rows = session.client.query(&read, &[&claim.pair_users, &claim.pair_posts])?;
    let liked = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let mut kept = Vec::new();
    if !claim.named_posts.is_empty() {
        let read = session.prepared(sql::READ_POSTS)?;
        let rows = session.client.query(&read, &[&claim.named_posts])?;
        kept.extend(rows.iter().map(|row| KeptPost {
            post: row.get(0),
            made_at_ms: row.get(1),
            owner: row.get(2),
            written_at_ms: row.get(3),
        }));
    }
    Ok(LikeState { posts, liked, kept })
}

/// Writes everything else and ends the transaction.
pub(super) fn finish(session: &mut Session, writes: &Writes) -> Result<(), Failure> {
    let mut values = writes.counts.params();
    match &writes.events {
        EventRows::Arrays(events) => {
            let statement = session.prepared(sql::STORE.as_str())?;
            values.extend(params(events.iter()));
            values.push(&writes.number);
            session.client.execute(&statement, &values)?;
        }
        EventRows::Copy(bytes) => {
            copy(session, bytes)?;
            let statement = session.prepared(sql::STORE_COUNTS.as_str())?;
            session.client.execute(&statement, &values)?;
        }
    }
    for write in &writes.others {
        let statement = session.prepared(write.sql)?;
        let values: Vec<&(dyn ToSql + Sync)> = write.values.iter().map(|value| value.as_ref() as _).collect();
        session.client.execute(&statement, &values)?;
    }
    if !writes.erasing.is_empty() {
        erase::erase(session, &writes.erasing)?;
    }
    session.client.batch_execute(if writes.commit { "COMMIT" } else { "ROLLBACK" })?;
    Ok(())
}

fn copy(session: &mut Session, bytes: &[u8]) -> Result<(), Failure> {
    let mut writer = session.client.copy_in(sql::COPY.as_str())?;
    for piece in bytes.chunks(POSTGRES_COPY_PIECE_BYTES) {
        // A failed piece is told by what the server answers; the client hides it in an I/O error.
        if let Err(error) = writer.write_all(piece) {
            return Err(match error.downcast::<postgres::Error>() {
                Ok(error) => error.into(),
                Err(error) => StoreError::Retry(format!("PostgreSQL: {error}")).into(),
            });
        }
    }
    writer.finish()?;
    Ok(())
}
