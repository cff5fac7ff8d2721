//! The journal: an event is safe here before it is answered.
//!
//! Owns the segments, their order and their durability; leaves the meaning of records to `events` and their fate to
//! the sinks. Producers put encoded records into the batch of their core; one writer thread turns what is there into
//! one frame, syncs it, publishes the new end and completes the tickets. Whoever waits for the sync has no timer to wait
//! for: the next batch forms while this one syncs (group commit). Searches that were answered, and what waits for a batch of
//! the ledger that is known to begin later, have time: they go with the next frame, and have one of their own only when
//! their time has come.

mod format;
mod keeper;
mod lock;
mod reader;
mod recovery;
mod salvage;
mod storage;
mod survey;
mod waiting;
mod writer;

pub use lock::Lock;
pub use reader::{Frames, ReadError, Reader};
pub use recovery::OpenError;
pub use salvage::{Salvage, Salvaged, salvage, salvage_on};
pub use storage::{Directory, SegmentFile, Storage};
pub use survey::{Finding, FrameRecords, Range, SegmentSurvey, Survey, survey};
pub use waiting::{Decision, Until, Waiting};

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::clock::Clock;
use crate::limits::{
    FRAME_BYTES_MAX, FRAME_RECORDS_MAX, JOURNAL_LINGER_BYTES, JOURNAL_LINGER_MS, PENDING_BYTES_MAX, SEGMENT_BYTES,
};
use crate::ports::{Position, Watermark};
use crate::runtime::Ticket;
use recovery::Segment;

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
        use crate::limits::{JOURNAL_BYTES_MAX, JOURNAL_FREE_BYTES_MIN, JOURNAL_KEEP_MS};
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

/// What an append waits for.
pub enum Wait {
    /// Nothing: `ACK=memory`.
    Nothing,
    /// Nothing, and it may be synced [`JOURNAL_LINGER_MS`] later: a search that was answered. Others may come before it meanwhile
    /// that another core took later.
    Leisure,
    /// The sync: the ticket is finished then.
    Durable(Arc<Ticket>),
    /// A follower: the decision is settled once it has applied the records.
    Follower(Until, Arc<Decision>),
}

/// Counts of what the journal did since it was opened.
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

/// How long before the ledger's batch begins its records are written, besides the time of two syncs: a sync that takes longer
/// costs them that batch.
const LEDGER_LEAD: Duration = Duration::from_millis(1);

const OPEN: u8 = 0;
const FULL: u8 = 1;
const FAILED: u8 = 2;
const CLOSING: u8 = 3;
const FORKED: u8 = 4;

/// Encoded records of one core on their way to the writer: whole appends, at most one frame's worth.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    count: u32,
    // An append's first record within the chunk, its number of records and what waits for it.
    waits: Vec<(u32, u32, Wait)>,
}

struct Lane {
    chunks: VecDeque<Chunk>,
    pending_bytes: usize,
    // When the chunks must be on their way to the disk, by the journal's watch.
    due: Due,
    // The writer has ended: nobody would take what comes now.
    is_closed: bool,
}

/// Nanoseconds since the journal was opened. `NOW` is whenever the writer gets to it, `NEVER` where nothing is to be written.
type Due = u64;
const NOW: Due = 0;
const NEVER: Due = Due::MAX;

impl Default for Lane {
    fn default() -> Lane {
        Lane { chunks: VecDeque::new(), pending_bytes: 0, due: NEVER, is_closed: false }
    }
}

/// An open journal. Cheap to share; `close` ends its threads.
pub struct Journal {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    // Held as long as the journal is open, where the storage is a directory.
    _lock: Option<Lock>,
}

struct Follower {
    position: Arc<AtomicU64>,
    can_be_rebuilt: bool,
}

struct Shared {
    storage: Arc<dyn Storage>,
    settings: Settings,
    clock: Clock,
    stream: Uuid,
    lanes: Vec<Mutex<Lane>>,
    state: AtomicU8,
    opened: Instant,
    // Until when the writer sleeps, by itself; `NOW` while it is awake.
    writer_parked_until: AtomicU64,
    // When what waits for the ledger has to be written.
    ledger_due: AtomicU64,
    // How long a write and its sync took of late.
    usual_sync_us: AtomicU64,
    writer: std::sync::OnceLock<std::thread::Thread>,
    end: Mutex<Watermark>,
    end_position: AtomicU64,
    end_moved: Condvar,
    readers_waiting: AtomicU64,
    segments: Mutex<Vec<Arc<Segment>>>,
    // Beside the list, for those who must not wait for its lock.
    segment_count: AtomicUsize,
    followers: Mutex<Vec<Follower>>,
    waiting: Arc<Waiting>,
    keeper: keeper::Keeper,
    stats: Stats,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere left plain data behind, never a half-made state: see each use.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// Opens the journal in `directory`, creating it where there is none, with one lane a core. Blocks for recovery.
    pub fn open(
        directory: &Path,
        allow_tmpfs: bool,
        lanes: usize,
        settings: Settings,
        clock: Clock,
    ) -> Result<Journal, OpenError> {
        let storage = Arc::new(Directory::open(directory, allow_tmpfs)?);
        let lock = Lock::take(directory)?;
        let mut journal = Journal::open_on(storage, lanes, settings, clock)?;
        journal._lock = Some(lock);
        Ok(journal)
    }

    /// The same on a storage that the caller keeps others away from.
    pub fn open_on(
        storage: Arc<dyn Storage>,
        lanes: usize,
        settings: Settings,
        clock: Clock,
    ) -> Result<Journal, OpenError> {
        // What an earlier process did to names and could not sync must be durable before it is built upon.
        storage.sync_names()?;
        let stream = recovery::stream_id(&*storage)?;
        let recovered = recovery::recover(&*storage, stream)?;
        keeper::clean_up(&*storage);
        if recovered.resume.torn_bytes > 0 {
            tracing::warn!(bytes = recovered.resume.torn_bytes, "journal: cut a torn tail that was never acknowledged");
        }
        tracing::info!(%stream, end = recovered.end.position, segments = recovered.segments.len(), "journal: open");
        let shared = Arc::new(Shared {
            keeper: keeper::Keeper::default(),
            storage,
            settings,
            clock,
            stream,
            lanes: (0..lanes.max(1)).map(|_| Mutex::default()).collect(),
            state: AtomicU8::new(OPEN),
            opened: Instant::now(),
            writer_parked_until: AtomicU64::new(NOW),
            ledger_due: AtomicU64::new(NOW),
            usual_sync_us: AtomicU64::new(0),
            writer: std::sync::OnceLock::new(),
            end: Mutex::new(recovered.end),
            end_position: AtomicU64::new(recovered.end.position),
            end_moved: Condvar::new(),
            readers_waiting: AtomicU64::new(0),
            segment_count: AtomicUsize::new(recovered.segments.len()),
            segments: Mutex::new(recovered.segments.into_iter().map(Arc::new).collect()),
            followers: Mutex::default(),
            waiting: Arc::new(Waiting::default()),
            stats: Stats::default(),
        });
        let writer = writer::spawn(shared.clone(), &recovered.resume)?;
        let threads = vec![keeper::spawn(shared.clone()), writer];
        Ok(Journal { shared, threads: Mutex::new(threads), _lock: None })
    }

    /// This journal's id.
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

    /// Takes `count` records, which `encode` appends to the bytes it is given, as neighbours in the journal's order.
    ///
    /// `core` picks the lane (any number). Never blocks but for a lock held for a copy. `encode` writes at most
    /// `FRAME_BYTES_MAX` bytes and `FRAME_RECORDS_MAX` records.
    pub fn append(
        &self,
        core: usize,
        count: u32,
        wait: Wait,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), AppendError> {
        self.shared.refuse_unless_open()?;
        let due = self.shared.due(&wait);
        let mut lane = lock(&self.shared.lanes[core % self.shared.lanes.len()]);
        if lane.is_closed {
            return Err(AppendError::Closing);
        }
        if lane.pending_bytes >= PENDING_BYTES_MAX {
            self.shared.stats.refused.fetch_add(1, Ordering::Relaxed);
            return Err(AppendError::Busy);
        }
        let added = put(&mut lane.chunks, count, wait, encode);
        lane.pending_bytes += added;
        let due = if lane.pending_bytes >= JOURNAL_LINGER_BYTES { NOW } else { due };
        lane.due = lane.due.min(due);
        drop(lane);
        // Pairs with the writer's: either it sees the chunk or we see that it sleeps.
        std::sync::atomic::fence(Ordering::SeqCst);
        let parked_until = &self.shared.writer_parked_until;
        if parked_until.load(Ordering::Relaxed) > due && parked_until.swap(NOW, Ordering::AcqRel) != NOW {
            self.shared.wake_writer();
        }
        Ok(())
    }

    /// The ledger's next batch does not begin before `at` (`None`: it may begin at once). What waits for the ledger has until
    /// shortly before, so that one sync does for several; where syncs take about as long as that, it has no time.
    pub fn ledger_begins(&self, at: Option<Instant>) {
        let sync = Duration::from_micros(self.shared.usual_sync_us.load(Ordering::Relaxed));
        let due = at.and_then(|at| at.checked_sub(LEDGER_LEAD + 2 * sync));
        self.shared.ledger_due.store(due.map_or(NOW, |due| self.shared.watch(due)), Ordering::Relaxed);
    }

    /// A reader that goes on behind `from`. Refuses where the frame that ends there is another than `from.crc` says
    /// (a foreign or copied journal), where `from` lies ahead of the journal, and where the records behind it are
    /// gone.
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

    /// Who waits for followers.
    pub fn waiting(&self) -> Arc<Waiting> {
        self.shared.waiting.clone()
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

    /// Counts since the start.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Bytes and number of the segments kept.
    pub fn size(&self) -> (u64, usize) {
        let segments = self.shared.segment_count.load(Ordering::Relaxed);
        (segments as u64 * self.shared.settings.segment_bytes, segments)
    }

    /// Writes what was taken, then ends the journal's threads; appends are refused from the first moment on.
    pub fn close(&self) {
        self.shared.state.store(CLOSING, Ordering::SeqCst);
        self.shared.wake_writer();
        self.shared.keeper.wake();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if thread.join().is_err() {
                tracing::error!("journal: a thread of it has panicked");
            }
        }
        self.shared.announce();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// The journal's watch at a moment; before it was opened it stood at 0.
    fn watch(&self, at: Instant) -> Due {
        let since = at.saturating_duration_since(self.opened);
        Due::try_from(since.as_nanos()).unwrap_or(NEVER)
    }

    /// When a record must be on its way, by who waits for it.
    fn due(&self, wait: &Wait) -> Due {
        match wait {
            Wait::Leisure => self.watch(Instant::now() + Duration::from_millis(JOURNAL_LINGER_MS)),
            Wait::Follower(Until::Ledger, _) => self.ledger_due.load(Ordering::Relaxed),
            Wait::Follower(Until::Live, _) | Wait::Durable(_) | Wait::Nothing => NOW,
        }
    }

    fn refuse_unless_open(&self) -> Result<(), AppendError> {
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

    fn is_closing(&self) -> bool {
        self.state.load(Ordering::Acquire) == CLOSING
    }

    /// Moves between open, full and failed; closing is for good.
    fn set_state(&self, state: u8) -> bool {
        let moved = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
            (now != CLOSING && now != FORKED && now != state).then_some(state)
        });
        moved.is_ok()
    }

    /// A write succeeded after a failure: appends are taken again. True where that is news.
    fn recovered(&self) -> bool {
        self.state.compare_exchange(FAILED, OPEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn wake_writer(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Publishes a new end: readers may go up to it.
    fn publish(&self, end: Watermark) {
        *lock(&self.end) = end;
        self.end_position.store(end.position, Ordering::SeqCst);
        if self.readers_waiting.load(Ordering::SeqCst) > 0 {
            self.announce();
        }
    }

    fn announce(&self) {
        let _end = lock(&self.end);
        self.end_moved.notify_all();
    }

    /// Waits until the end is past `position`, the journal closes, or `timeout` is over.
    fn wait_for_end(&self, position: Position, timeout: Duration) {
        if self.end_position.load(Ordering::SeqCst) > position || timeout.is_zero() {
            return;
        }
        self.readers_waiting.fetch_add(1, Ordering::SeqCst);
        let end = lock(&self.end);
        let past =
            self.end_moved.wait_timeout_while(end, timeout, |end| end.position <= position && !self.is_closing());
        drop(past.unwrap_or_else(PoisonError::into_inner));
        self.readers_waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Adds an append to the last chunk it fits into; returns its bytes.
fn put(chunks: &mut VecDeque<Chunk>, count: u32, wait: Wait, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
    // A record's size is known only once it is encoded: a chunk takes no more when its rest could be too small.
    let room = |c: &Chunk| {
        c.bytes.len() + FRAME_BYTES_MAX / 4 <= FRAME_BYTES_MAX && c.count + count <= FRAME_RECORDS_MAX as u32
    };
    if count > 1 || !chunks.back().is_some_and(room) {
        let mut chunk = Chunk::default();
        encode(&mut chunk.bytes);
        let added = chunk.bytes.len();
        chunk.count = count;
        chunk.waits.push((0, count, begun(wait)));
        match chunks.back_mut() {
            Some(last)
                if last.bytes.len() + added <= FRAME_BYTES_MAX && last.count + count <= FRAME_RECORDS_MAX as u32 =>
            {
                last.bytes.extend_from_slice(&chunk.bytes);
                let first = last.count;
                last.waits.extend(chunk.waits.into_iter().map(|(_, n, wait)| (first, n, wait)));
                last.count += count;
            }
            _ => chunks.push_back(chunk),
        }
        return added;
    }
    let chunk = chunks.back_mut().expect("room was found in it");
    let before = chunk.bytes.len();
    encode(&mut chunk.bytes);
    let first = chunk.count;
    chunk.count += count;
    match (chunk.waits.last_mut(), wait) {
        // The same connection again, in the same turn: one completion does for both.
        (Some((at, n, Wait::Durable(last))), Wait::Durable(ticket))
            if *at + *n == first && Arc::ptr_eq(last, &ticket) =>
        {
            *n += count;
        }
        (_, wait) => chunk.waits.push((first, count, begun(wait))),
    }
    chunk.bytes.len() - before
}

fn begun(wait: Wait) -> Wait {
    match &wait {
        Wait::Nothing | Wait::Leisure => {}
        Wait::Durable(ticket) => ticket.add(),
        Wait::Follower(_, decision) => decision.ticket().add(),
    }
    wait
}
