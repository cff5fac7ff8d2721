//! State that the journal's threads, its readers and its producers share.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::core_buffer::{CoreBuffer, Due, NEVER, NOW, Wait};
use super::format::Watermark;
use super::recovery::Segment;
use super::storage::{SegmentFile, Storage};
use crate::clock::Clock;
use crate::limits::{JOURNAL_BYTES_MAX, JOURNAL_FREE_BYTES_MIN, JOURNAL_KEEP_MS, JOURNAL_LINGER_MS, SEGMENT_BYTES};

/// Bounds of a journal.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `JOURNAL_MAX_BYTES`: past it, appends are refused until sinks have caught up.
    pub bytes_max: u64,
    /// `JOURNAL_MIN_FREE`: free space that is left on the disk.
    pub free_bytes_min: u64,
    /// How long segments that every follower is past are kept.
    pub keep_ms: u64,
    pub segment_bytes: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            bytes_max: JOURNAL_BYTES_MAX,
            free_bytes_min: JOURNAL_FREE_BYTES_MIN,
            keep_ms: JOURNAL_KEEP_MS,
            segment_bytes: SEGMENT_BYTES,
        }
    }
}

/// Why an append was refused; nothing of it was taken. All of these are a 503 with Retry-After.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("too much waits for the disk")]
    Busy,
    #[error("the journal is full: the stores must catch up first, or its bound be raised")]
    Full,
    #[error("the journal's disk refuses to write")]
    Failed,
    #[error("the journal is closing")]
    Closing,
    #[error("the ledger has followed another journal of this id, or this one further: its positions are taken")]
    Forked,
}

#[derive(Debug, Default)]
pub struct Stats {
    pub records: AtomicU64,
    pub bytes: AtomicU64,
    pub syncs: AtomicU64,
    pub sync_us: AtomicU64,
    /// Times that the writer left what has time for others to share its sync.
    pub rests: AtomicU64,
    pub failures: AtomicU64,
    pub refused: AtomicU64,
}

pub(super) const OPEN: u8 = 0;
pub(super) const FULL: u8 = 1;
pub(super) const FAILED: u8 = 2;
pub(super) const CLOSING: u8 = 3;
pub(super) const FORKED: u8 = 4;

pub(super) struct Follower {
    pub(super) position: Arc<AtomicU64>,
    pub(super) can_be_rebuilt: bool,
}

/// A segment that is allocated and waits for its header and name.
pub(super) struct Spare {
    pub(super) name: String,
    pub(super) file: Arc<dyn SegmentFile>,
}

pub(super) struct Shared {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) stream: Uuid,
    pub(super) buffers: Vec<Mutex<CoreBuffer>>,
    pub(super) state: AtomicU8,
    pub(super) opened: Instant,
    // Until when the writer sleeps, by itself; `NOW` while it is awake.
    pub(super) writer_parked_until: AtomicU64,
    // When deferred appends have to be written.
    pub(super) deferred_until: AtomicU64,
    // How long a write and its sync took of late.
    pub(super) usual_sync_us: AtomicU64,
    pub(super) writer: OnceLock<Thread>,
    pub(super) keeper: OnceLock<Thread>,
    pub(super) end: Mutex<Watermark>,
    pub(super) end_position: AtomicU64,
    pub(super) end_moved: Condvar,
    pub(super) segments: Mutex<Vec<Arc<Segment>>>,
    pub(super) followers: Mutex<Vec<Follower>>,
    // Allocated ahead, so that the writer rarely waits for the disk's allocation.
    pub(super) spare: Mutex<Option<Spare>>,
    // Names of spares are never reused within a process: a failed one may still be open.
    pub(super) spares_made: AtomicU64,
    pub(super) stats: Stats,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere left plain data behind, never a half-made state: see each use.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The journal's watch at a moment; before it was opened it stood at 0.
    pub(super) fn watch(&self, at: Instant) -> Due {
        let since = at.saturating_duration_since(self.opened);
        Due::try_from(since.as_nanos()).unwrap_or(NEVER)
    }

    /// When a record must be written at the latest, by what waits for it.
    pub(super) fn due(&self, wait: &Wait) -> Due {
        match wait {
            Wait::Leisure => self.watch(Instant::now() + Duration::from_millis(JOURNAL_LINGER_MS)),
            Wait::Applied { is_deferred: true, .. } => self.deferred_until.load(Ordering::Relaxed),
            Wait::Applied { .. } | Wait::Durable(_) | Wait::Nothing => NOW,
        }
    }

    pub(super) fn refuse_unless_open(&self) -> Result<(), AppendError> {
        let error = match self.state.load(Ordering::Acquire) {
            OPEN => return Ok(()),
            FULL => AppendError::Full,
            FAILED => AppendError::Failed,
            FORKED => AppendError::Forked,
            _ => AppendError::Closing,
        };
        self.stats.refused.fetch_add(1, Ordering::Relaxed);
        Err(error)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state.load(Ordering::Acquire) == CLOSING
    }

    /// Closing and forked are for good.
    pub(super) fn set_state(&self, state: u8) -> bool {
        let moved = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
            (now != CLOSING && now != FORKED && now != state).then_some(state)
        });
        moved.is_ok()
    }

    /// A write failed: appends are refused.
    pub(super) fn failed(&self, error: &io::Error) {
        if self.set_state(FAILED) {
            tracing::error!(%error, "journal: cannot write; events are refused (503) until it can");
        }
    }

    /// A write succeeded, perhaps after a failure: appends are taken.
    pub(super) fn recovered(&self) {
        if self.state.compare_exchange(FAILED, OPEN, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            tracing::info!("journal: can write again");
        }
    }

    pub(super) fn segment_count(&self) -> usize {
        lock(&self.segments).len()
    }

    pub(super) fn make_spare(&self) -> io::Result<Spare> {
        let name = format!("spare-{}.tmp", self.spares_made.fetch_add(1, Ordering::Relaxed) + 1);
        let made = self.storage.create(&name, self.settings.segment_bytes);
        // Half a spare on a full disk would keep it full.
        let file = made.inspect_err(|_| drop(self.storage.remove(&name)))?;
        Ok(Spare { name, file })
    }

    /// Readers may go up to a new end.
    pub(super) fn publish(&self, end: Watermark) {
        let before = std::mem::replace(&mut *lock(&self.end), end);
        assert!(before.position < end.position, "positions ascend");
        self.end_position.store(end.position, Ordering::Release);
        self.end_moved.notify_all();
    }
}
