//! The journal: an event is safe here before it is answered. Producers append encoded records to the buffer of their core.
//! One writer turns what is there into one frame, syncs it and completes the tickets; the next frame forms meanwhile
//! (group commit). What has time goes with the next frame, or with its own when it is due.

mod core_buffer;
mod format;
mod keeper;
mod reader;
mod recovery;
mod salvage;
mod shared;
mod storage;
mod survey;
mod writer;

pub use core_buffer::{Pending, Wait};
pub use format::{LOST_RECORD, Position, Watermark};
pub use reader::{Frames, ReadError, Reader};
pub use recovery::OpenError;
pub use salvage::{Salvage, Salvaged, salvage, salvage_on};
pub use shared::{AppendError, Settings, Stats};
pub use storage::{Directory, Lock, SegmentFile, Storage};
pub use survey::{Finding, FrameRecords, Range, SegmentSurvey, Survey, Visit, survey};

use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::clock::Clock;
use crate::limits::{JOURNAL_LINGER_BYTES, PENDING_BYTES_MAX};
use core_buffer::{NOW, put};
use shared::{CLOSING, FORKED, Follower, OPEN, Shared, lock};

/// How long before a follower's batch begins deferred appends are written, besides the time of two
/// syncs: a sync that takes longer costs them that batch.
const BATCH_LEAD: Duration = Duration::from_millis(1);

/// An open journal. Cheap to share; `close` ends its threads.
pub struct Journal {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    // Held as long as the journal is open, where the storage is a directory.
    _lock: Option<Lock>,
}

impl Journal {
    /// Opens the journal in `directory`, creating it where there is none, with one buffer per core. Blocks for recovery.
    pub fn open(
        directory: &Path,
        allow_tmpfs: bool,
        cores: usize,
        settings: Settings,
        clock: Clock,
    ) -> Result<Journal, OpenError> {
        let storage = Arc::new(Directory::open(directory, allow_tmpfs)?);
        let lock = Lock::take(directory)?.ok_or(OpenError::Locked)?;
        let mut journal = Journal::open_on(storage, cores, settings, clock)?;
        journal._lock = Some(lock);
        Ok(journal)
    }

    /// The same on a storage that the caller keeps others away from.
    pub fn open_on(
        storage: Arc<dyn Storage>,
        cores: usize,
        settings: Settings,
        clock: Clock,
    ) -> Result<Journal, OpenError> {
        // What an earlier process did to names and could not sync must be durable before it is built upon.
        storage.sync_names()?;
        let stream = recovery::stream_id(&*storage)?;
        let (segments, end, resume) = recovery::recover(&*storage)?;
        keeper::clean_up(&*storage);
        if resume.torn_bytes > 0 {
            tracing::warn!(bytes = resume.torn_bytes, "journal: cut a torn tail that was never acknowledged");
        }
        tracing::info!(%stream, end = end.position, segments = segments.len(), "journal: open");
        let shared = Arc::new(Shared {
            storage,
            settings,
            clock,
            stream,
            buffers: (0..cores.max(1)).map(|_| Mutex::default()).collect(),
            state: AtomicU8::new(OPEN),
            opened: Instant::now(),
            writer_parked_until: AtomicU64::new(NOW),
            deferred_until: AtomicU64::new(NOW),
            usual_sync_us: AtomicU64::new(0),
            writer: OnceLock::new(),
            keeper: OnceLock::new(),
            end: Mutex::new(end),
            end_position: AtomicU64::new(end.position),
            end_moved: Condvar::new(),
            segments: Mutex::new(segments),
            followers: Mutex::default(),
            spare: Mutex::default(),
            spares_made: AtomicU64::default(),
            stats: Stats::default(),
        });
        let writer = writer::spawn(shared.clone(), &resume)?;
        let keeper = keeper::spawn(shared.clone());
        let _ = shared.writer.set(writer.thread().clone());
        let _ = shared.keeper.set(keeper.thread().clone());
        let threads = vec![keeper, writer];
        Ok(Journal { shared, threads: Mutex::new(threads), _lock: None })
    }

    pub fn stream(&self) -> Uuid {
        self.shared.stream
    }

    /// The last durable position, with its frame's checksum.
    pub fn end(&self) -> Watermark {
        *lock(&self.shared.end)
    }

    /// The last durable position alone, without a lock.
    pub fn end_position(&self) -> Position {
        self.shared.end_position.load(Ordering::Acquire)
    }

    /// Takes `count` records, neighbours in the journal's order, which `encode` appends to the bytes it is given: at most
    /// `FRAME_BYTES_MAX` bytes and `FRAME_RECORDS_MAX` records. `core` picks the buffer. Blocks for a copy at most.
    pub fn append(
        &self,
        core: usize,
        count: u32,
        wait: Wait,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), AppendError> {
        self.shared.refuse_unless_open()?;
        let due = self.shared.due(&wait);
        let mut buffer = lock(&self.shared.buffers[core % self.shared.buffers.len()]);
        if buffer.is_closed {
            return Err(AppendError::Closing);
        }
        if buffer.pending_bytes >= PENDING_BYTES_MAX {
            self.shared.stats.refused.fetch_add(1, Ordering::Relaxed);
            return Err(AppendError::Busy);
        }
        let added = put(&mut buffer.chunks, count, wait, encode);
        buffer.pending_bytes += added;
        let due = if buffer.pending_bytes >= JOURNAL_LINGER_BYTES { NOW } else { due };
        buffer.due = buffer.due.min(due);
        drop(buffer);
        // Pairs with the writer's: either it sees the chunk or we see that it sleeps.
        std::sync::atomic::fence(Ordering::SeqCst);
        let parked_until = &self.shared.writer_parked_until;
        if parked_until.load(Ordering::Relaxed) > due && parked_until.swap(NOW, Ordering::AcqRel) != NOW {
            self.shared.writer.get().inspect(|writer| writer.unpark());
        }
        Ok(())
    }

    /// The follower's next batch does not begin before `at` (`None`: it may begin at once). Deferred
    /// appends have until shortly before that, so that they share a sync.
    pub fn next_batch_begins(&self, at: Option<Instant>) {
        let sync = Duration::from_micros(self.shared.usual_sync_us.load(Ordering::Relaxed));
        let due = at.and_then(|at| at.checked_sub(BATCH_LEAD + 2 * sync));
        self.shared.deferred_until.store(due.map_or(NOW, |due| self.shared.watch(due)), Ordering::Relaxed);
    }

    /// A reader that goes on behind `from`.
    pub fn reader(&self, from: Watermark) -> Result<Reader, ReadError> {
        Reader::open(self.shared.clone(), from)
    }

    /// Registers a follower: segments behind its position (which it moves itself) are kept for it; for one that can be
    /// rebuilt only as long as there is room, since its store's outage must not end in refusals.
    pub fn follow(&self, position: Position, can_be_rebuilt: bool) -> Arc<AtomicU64> {
        let follower = Arc::new(AtomicU64::new(position));
        lock(&self.shared.followers).push(Follower { position: follower.clone(), can_be_rebuilt });
        follower
    }

    /// Takes nothing more, for good: the ledger holds other records at positions that this journal would give out. What
    /// was appended there would be answered and never applied.
    pub fn refuse_as_forked(&self) {
        self.shared.set_state(FORKED);
    }

    /// An append would be taken now.
    pub fn is_writable(&self) -> Result<(), AppendError> {
        self.shared.refuse_unless_open()
    }

    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Bytes and number of the segments kept.
    pub fn size(&self) -> (u64, usize) {
        let segments = self.shared.segment_count();
        (segments as u64 * self.shared.settings.segment_bytes, segments)
    }

    /// Writes what was taken, then ends the journal's threads; appends are refused from the first moment on.
    pub fn close(&self) {
        self.shared.state.store(CLOSING, Ordering::SeqCst);
        let threads = std::mem::take(&mut *lock(&self.threads));
        threads.iter().for_each(|thread| thread.thread().unpark());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("journal: a thread of it has panicked");
            }
        }
        // Under the lock: a reader that has looked at the state waits already.
        let _end = lock(&self.shared.end);
        self.shared.end_moved.notify_all();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}
