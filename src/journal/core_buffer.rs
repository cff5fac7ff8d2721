//! The append buffer of one core: encoded records on their way to the writer, and what waits for them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::format::Position;
use crate::limits::{FRAME_BYTES_MAX, FRAME_RECORDS_MAX};
use crate::runtime::{Ticket, complete};

/// A request that waits for a follower of the journal.
pub trait Pending: Send + Sync {
    /// What is finished once the follower has applied the records.
    fn ticket(&self) -> &Arc<Ticket>;
    /// The records are durable at these positions. Called once, before any reader sees them.
    fn durable(self: Arc<Self>, first: Position, count: u32);
}

pub enum Wait {
    /// Nothing: `ACK=memory`.
    Nothing,
    /// Nothing, and it may be synced [`JOURNAL_LINGER_MS`](crate::limits::JOURNAL_LINGER_MS) later: a
    /// search that was answered. Records that another core took later may come before it.
    Leisure,
    /// The sync: the ticket is finished then.
    Durable(Arc<Ticket>),
    /// A follower. If deferred, it may be synced shortly before the follower's next batch begins.
    Applied { pending: Arc<dyn Pending>, is_deferred: bool },
}

impl Wait {
    fn ticket(&self) -> Option<&Arc<Ticket>> {
        match self {
            Wait::Nothing | Wait::Leisure => None,
            Wait::Durable(ticket) => Some(ticket),
            Wait::Applied { pending, .. } => Some(pending.ticket()),
        }
    }
}

/// Whole appends, at most one frame's worth.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u32,
    /// Of each append: its first record within the chunk, its number of records and what waits for it.
    pub(super) waits: Vec<(u32, u32, Wait)>,
}

#[derive(Default)]
pub(super) struct CoreBuffer {
    pub(super) chunks: VecDeque<Chunk>,
    pub(super) pending_bytes: usize,
    /// When the chunks must be on their way to the disk; the writer's first look finds that there are none.
    pub(super) due: Due,
    /// The writer has ended: nothing more is taken.
    pub(super) is_closed: bool,
}

/// Nanoseconds since the journal was opened. `NOW`: as soon as the writer can; `NEVER`: there is nothing to write.
pub(super) type Due = u64;
pub(super) const NOW: Due = 0;
pub(super) const NEVER: Due = Due::MAX;

/// Adds an append to the last chunk if it fits there; returns its bytes.
pub(super) fn put(chunks: &mut VecDeque<Chunk>, count: u32, wait: Wait, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
    assert!((1..=FRAME_RECORDS_MAX as u32).contains(&count), "an append of {count} records");
    // A record's size is known only once it is encoded: a chunk takes no more when its rest could be too small.
    let has_room = |c: &Chunk| {
        c.bytes.len() + FRAME_BYTES_MAX / 4 <= FRAME_BYTES_MAX && c.count + count <= FRAME_RECORDS_MAX as u32
    };
    if count > 1 || !chunks.back().is_some_and(has_room) {
        chunks.push_back(Chunk::default());
    }
    let chunk = chunks.back_mut().expect("one with room");
    let before = chunk.bytes.len();
    encode(&mut chunk.bytes);
    assert!((before + 1..=FRAME_BYTES_MAX).contains(&chunk.bytes.len()), "a chunk of {} bytes", chunk.bytes.len());
    let first = chunk.count;
    chunk.count += count;
    match (chunk.waits.last_mut(), wait) {
        // The same connection again, in the same turn: one completion does for both.
        (Some((at, n, Wait::Durable(last))), Wait::Durable(ticket))
            if *at + *n == first && Arc::ptr_eq(last, &ticket) =>
        {
            *n += count;
        }
        (_, wait) => {
            wait.ticket().into_iter().for_each(|ticket| ticket.add());
            chunk.waits.push((first, count, wait));
        }
    }
    chunk.bytes.len() - before
}

/// Fails all that wait for these chunks.
pub(super) fn refuse(chunks: impl IntoIterator<Item = Chunk>) {
    let waits = chunks.into_iter().flat_map(|chunk| chunk.waits);
    complete(waits.filter_map(|(_, _, wait)| wait.ticket().cloned()), false);
}
